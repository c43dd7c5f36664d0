"""A worker whose tasks keep memory breaks the promise that its memory does not grow; another one keeps it."""

import pytest

from harness.records.expectation import Promise
from harness.records.verdict import Verdict
from harness.stack.stack import Stack
from tests.docker.accounts import failing, said

APP = {"app": "leaking", "app_folder": "tests/docker/apps", "options": ["--concurrency=1", "--prefetch-multiplier=50"]}
pytestmark = pytest.mark.docker


@pytest.mark.stack(**APP, promise=Promise(memory_growth_mb=5.0))
def test_a_task_that_keeps_memory_is_seen_after_a_thousand_of_it(stack: Stack) -> None:
    def run(name: str, times: int) -> None:
        for _ in range(times):
            stack.producer.send(name)

    run("nap", 300)
    audit = stack.settle()
    assert failing(audit) == {"memory-growth-unknown"}
    run("nap", 900)
    audit = stack.settle()
    assert audit.verdict is Verdict.PASS, audit.text()
    run("leak", 1_200)
    audit = stack.settle()
    assert failing(audit) == {"memory-grows"}
    assert "worker-1 1" in said(audit, "memory-grows")
