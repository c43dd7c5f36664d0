"""A task that begins before the transaction is committed in which it was sent is told; one sent after it is not."""

from functools import partial

import pytest

from harness.records.moment import Moment
from harness.records.verdict import Verdict
from harness.stack.stack import Stack
from harness.wait import wait_until
from tests.docker.accounts import codes, said

APP = {"app": "committing", "app_folder": "tests/docker/apps", "options": ["--concurrency=2"]}
pytestmark = pytest.mark.docker


def has_ended(stack: Stack, task: str) -> bool:
    return stack.ledger.has_ended(task)


@pytest.mark.stack(**APP)
def test_a_task_that_runs_before_the_commit_is_told_and_one_that_is_sent_after_it_is_not(stack: Stack) -> None:
    stack.producer.send("order", [1, "after"])
    audit = stack.settle()
    assert (audit.verdict, codes(audit)) == (Verdict.PASS, set())

    for number, when in ((2, "before"), (3, "rollback")):
        hold = stack.hold("ship", Moment.PUBLISHED)
        stack.producer.send("order", [number, when])
        task = hold.wait().task
        wait_until(partial(has_ended, stack, task), what="it looked for the row", timeout_s=30)
        hold.let_go()
    audit = stack.settle()
    assert (audit.verdict, codes(audit)) == (Verdict.PASS, {"ran-before-commit"})
    text = said(audit, "ran-before-commit")
    assert text.startswith("2 ship: sent in a transaction of a database, and began before that was committed")
    assert "ms before the commit" in text
    assert "the transaction in which it was sent was rolled back" in text
