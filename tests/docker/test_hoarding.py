"""A worker with nothing to do while another one holds messages is told; where messages wait in the queue, it is not."""

import pytest

from harness.audit.audit import Audit
from harness.records.verdict import Verdict
from harness.stack.stack import Stack
from harness.wait import wait_until
from tests.docker.accounts import codes, said

ENDINGS = {
    "app": "endings",
    "app_folder": "tests/docker/apps",
    "workers": 2,
    "options": ["--concurrency=1", "--without-mingle", "--without-gossip"],
}
pytestmark = pytest.mark.docker


def run(stack: Stack) -> Audit:
    """Send a long task, and short ones once it runs."""
    long = stack.producer.send("work", kwargs={"key": "long", "pause_s": 3})
    wait_until(lambda: long.task in stack.ledger.started(), what="the long task runs", timeout_s=30)
    for number in range(6):
        stack.producer.send("work", kwargs={"key": f"short-{number}"})
    audit = stack.settle()
    assert audit.verdict is Verdict.PASS, audit.text()
    return audit


@pytest.mark.stack(**ENDINGS, env={"SETTINGS": '{"worker_prefetch_multiplier": 8}'})
def test_a_worker_that_idles_while_another_holds_messages_is_told(stack: Stack) -> None:
    audit = run(stack)
    assert codes(audit) == {"hoarded"}
    holder = stack.ledger.consumes.keys()
    assert any(f"held by {node}" in said(audit, "hoarded") for node in holder)


@pytest.mark.stack(**ENDINGS)
def test_messages_that_wait_in_the_queue_are_not_hoarded(stack: Stack) -> None:
    assert codes(run(stack)) == set()
