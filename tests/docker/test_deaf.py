"""A worker that runs and consumes nothing is named, and one that was told to consume less is not."""

import pytest
from celery import Celery

from harness.records.verdict import Verdict
from harness.stack import deaf_workers
from harness.stack.stack import Stack
from harness.wait import wait_until
from tests.docker.accounts import failing, said

DEAF = {"app": "deaf", "app_folder": "tests/docker/apps", "workers": 2, "options": ["--concurrency=1"]}
pytestmark = pytest.mark.docker


def control(stack: Stack, command: str, **arguments: object) -> None:
    """Have one worker obey a command of remote control."""
    with Celery(broker=stack.login.amqp_url_outside) as app:
        (name, *_) = sorted(next(iter(answer)) for answer in app.control.ping(timeout=5, limit=2))
        answers = app.control.broadcast(command, arguments, destination=[name], reply=True, timeout=5)
    assert answers, f"{name} did not answer {command}"


def list_consuming(stack: Stack) -> list[int]:
    """Return how many queues each worker should consume."""
    return sorted(len(queues) for queues in stack.ledger.consuming.values())


@pytest.mark.stack(**DEAF)
def test_a_deaf_worker_is_named_and_one_that_was_told_to_cancel_is_not(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.producer.send("nap")
    control(stack, "cancel_consumer", queue="celery")
    wait_until(lambda: list_consuming(stack) == [0, 1], what="one worker cancels", timeout_s=10)
    assert stack.settle().verdict is Verdict.PASS
    control(stack, "add_consumer", queue="celery")
    wait_until(lambda: list_consuming(stack) == [1, 1], what="it consumes again", timeout_s=10)
    assert stack.settle().verdict is Verdict.PASS

    monkeypatch.setattr(deaf_workers, "BACK_S", 1.0)
    control(stack, "deafen")
    audit = stack.settle()
    assert failing(audit) == {"deaf"}
    (one,) = stack.folder.read("broker.json")["deaf"]
    assert one["queue"] == "celery"
    assert one["consumers"] == 1
    (node,) = one["absent"]
    assert f"{node} runs and does not consume `celery`, though it did" in said(audit, "deaf")
