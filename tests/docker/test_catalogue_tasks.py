"""Checks of the catalogue about tasks: what ends them, and which runs first. docs/catalogue.md lists all checks."""

import pytest

from harness.audit.audit import Audit
from harness.records.event import Kind
from harness.records.expectation import Expect, Promise
from harness.records.moment import Moment
from harness.records.verdict import Fate
from harness.stack.stack import Stack
from harness.wait import wait_until
from tests.docker.accounts import failing, met, said

BARE = ["--without-mingle", "--without-gossip"]
CHECKS = {"app": "checks", "app_folder": "tests/docker/apps"}
ONE = {**CHECKS, "options": ["--concurrency=1", *BARE]}
pytestmark = [pytest.mark.docker, pytest.mark.catalogue]


def act(stack: Stack, *keys: str, priority: int | None = None) -> list[str]:
    """Send a task for each key, and return their ids."""
    return [stack.producer.send("act", [key], expect=Expect(result=key), priority=priority).task for key in keys]


def in_order(stack: Stack) -> list[str]:
    """Return the tasks of the first worker in the order in which they began."""
    return [str(event.task) for event in stack.workers[0].said(Kind.STARTED)]


@pytest.mark.stack(**ONE, env={"ARGUMENTS": '{"x-max-priority": 10}'})
def test_a_worker_goes_on_after_a_hard_limit_and_takes_the_urgent_first_and_a_claimed_failure_is_told(
    stack: Stack,
) -> None:
    # https://github.com/celery/celery/issues/4789: a worker that took no more tasks after a hard limit.
    stack.producer.send("limited", expect=Expect(state="FAILURE", error="TimeLimitExceeded"))
    act(stack, *(f"after-{number}" for number in range(10)))
    # https://github.com/celery/celery/issues/4819: the worker has one message ahead at most.
    with stack.hold("act", Moment.STARTED, nth=11) as hold:
        act(stack, "held")
        hold.wait()
        low = act(stack, *(f"low-{number}" for number in range(40)), priority=0)
        high = act(stack, *(f"high-{number}" for number in range(5)), priority=9)
    audit = stack.settle()
    assert audit.passed, audit.text()
    assert met(audit) == {Fate.OK: 56, Fate.FAILED: 1}
    order = in_order(stack)
    last_high = max(map(order.index, high))
    assert sum(order.index(task) < last_high for task in low) <= 1
    # https://github.com/celery/celery/issues/5179: a task that reports a failure and then returns has succeeded.
    failure = Expect(state="FAILURE", error="ValueError")
    stack.producer.send("claim", ["ignore"], expect=failure)
    returned = stack.producer.send("claim", ["return"], expect=failure).task
    audit = stack.settle()
    assert met(audit) == {Fate.OK: 56, Fate.FAILED: 2, Fate.WRONG: 1}, audit.text()
    assert failing(audit) == {"wrong"}
    assert f"claim ({returned}): expected FAILURE, came SUCCESS" in said(audit, "wrong")


LATE_S = 5.0
HURRIED = {**ONE, "promise": Promise(deadline_s=LATE_S)}
AHEAD = {"SETTINGS": '{"worker_prefetch_multiplier": 4}'}


@pytest.mark.stack(**HURRIED, env=AHEAD)
def test_tasks_that_wait_for_their_time_or_their_rate_keep_others_out_and_these_are_told_as_late(stack: Stack) -> None:
    # https://github.com/celery/kombu/issues/2481: on RabbitMQ 4, what waits for its time fills the prefetch.
    for number in range(12):
        stack.producer.send("act", [f"later-{number}"], countdown_s=9)
    (urgent,) = act(stack, "urgent")
    audit = stack.settle(timeout_s=30)
    assert failing(audit) == {"late"}, audit.text()
    assert late(audit) == {urgent}
    assert met(audit) == {Fate.OK: 13}
    # https://github.com/celery/celery/issues/8119
    for number in range(10):
        stack.producer.send("rated", [f"rated-{number}"])
    (other,) = act(stack, "other")
    audit = stack.settle(timeout_s=30)
    assert failing(audit) == {"late"}, audit.text()
    assert {urgent, other} <= late(audit)
    assert met(audit) == {Fate.OK: 24}


def late(audit: Audit) -> set[str]:
    """Return the tasks that are told as late."""
    return {task for finding in audit.findings if finding.code == "late" for task in finding.tasks}


@pytest.mark.stack(**ONE, env={"ARGUMENTS": '{"x-queue-type": "quorum"}'})
def test_what_is_due_later_waits_in_the_worker_where_a_quorum_queue_is_behind_a_direct_exchange(stack: Stack) -> None:
    # https://github.com/celery/celery/issues/9912: no delay in the broker; Celery warns, and holds it in the worker.
    stack.producer.send("later", [["soon"], 3.0])
    wait_until(lambda: len(stack.workers[0].said(Kind.RECEIVED)) == 2, what="the worker has it", timeout_s=20)
    assert "native delayed delivery" in stack.workers[0].last_lines(20)
    audit = stack.settle(timeout_s=20)
    assert audit.passed, audit.text()
    assert met(audit) == {Fate.OK: 2}


@pytest.mark.stack(app="shapes", app_folder="tests/docker/apps", options=["--concurrency=1", *BARE])
def test_a_process_that_dies_while_it_sends_a_chord_leaves_a_body_that_waits_and_is_told(stack: Stack) -> None:
    # https://github.com/celery/celery/issues/1700
    with stack.hold("two", Moment.SENDING) as hold:
        stack.producer.send("start", ["chord"])
        unsent = hold.wait().task
        hold.kill()
    audit = stack.settle(timeout_s=20)
    # The sender, its first member, the one that it was about to send, and what waits for both.
    assert met(audit) == {Fate.OK: 1, Fate.FAILED: 1, Fate.UNKNOWN: 1, Fate.PENDING: 1}, audit.text()
    assert failing(audit) == {"failed-unexpectedly", "unknown", "pending", "chords-waiting"}
    assert f"waits for {unsent}, which left no result" in said(audit, "chords-waiting")
