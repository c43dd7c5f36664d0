"""Breakpoints: each pool holds one task at each moment of its life, and what happens to it then is known."""

import sqlite3
from contextlib import closing

import pytest

from harness.records.expectation import Expect
from harness.records.moment import Moment
from harness.records.verdict import Fate, Verdict
from harness.stack.stack import Stack
from harness.wait import wait_until
from tests.docker.accounts import met

APP = {"app": "moments", "app_folder": "tests/docker/apps"}
ALONE = ("--without-mingle", "--without-gossip")
EXECUTED = (
    Moment.RECEIVED,
    Moment.STARTED,
    Moment.EFFECT,
    Moment.RETURNED,
    Moment.STORED,
    Moment.ACKNOWLEDGED,
)
pytestmark = pytest.mark.docker


def written(stack: Stack) -> list[str]:
    """Return the keys that the tasks have written."""
    file = stack.folder.path / "app" / "moments.sqlite3"
    if not file.exists():
        return []
    with closing(sqlite3.connect(file)) as connection:
        return [key for (key,) in connection.execute("SELECT key FROM written ORDER BY rowid")]


@pytest.mark.stack(**APP, options=["--pool=prefork", "--concurrency=1", *ALONE])
def test_a_pool_of_processes(stack: Stack) -> None:
    check_every_moment(stack)


@pytest.mark.stack(**APP, options=["--pool=threads", "--concurrency=2", *ALONE])
def test_a_pool_of_threads(stack: Stack) -> None:
    check_every_moment(stack)


@pytest.mark.stack(**APP, options=["--pool=solo", *ALONE])
def test_a_pool_of_one(stack: Stack) -> None:
    check_every_moment(stack)


def wait_unacked(stack: Stack, count: int) -> None:
    """Wait until the broker knows of so many messages that are not acknowledged."""

    def unacked() -> int:
        return sum(queue.unacked for queue in stack.task_queues())

    wait_until(
        lambda: unacked() == count, what=f"{count} unacknowledged", timeout_s=20, last_seen=lambda: str(unacked())
    )


def check_every_moment(stack: Stack) -> None:
    for moment in EXECUTED:
        with stack.hold("moments.commit", moment) as hold:
            sent = stack.producer.send("moments.commit", [moment.value], expect=Expect(result=moment.value))
            held = hold.wait()
            assert (held.task, held.node, held.moment) == (sent.task, "worker-1", moment)
            # It is at that moment, and no further.
            assert (moment.value in written(stack)) == (moment not in {Moment.RECEIVED, Moment.STARTED})
            is_stored = moment in {Moment.STORED, Moment.ACKNOWLEDGED}
            assert (stack.results.row(sent.task) is not None) == is_stored
            wait_unacked(stack, int(moment is not Moment.ACKNOWLEDGED))
            assert not hold.is_over
        # Else the next hold would take this one.
        wait_unacked(stack, 0)
    audit = stack.settle(timeout_s=20)
    assert audit.verdict is Verdict.PASS, audit.text()
    assert met(audit) == {Fate.OK: len(EXECUTED)}


@pytest.mark.stack(**APP, options=["--concurrency=1", *ALONE])
def test_a_process_that_dies_after_its_effect_has_it_again(stack: Stack) -> None:
    with stack.hold("moments.commit", Moment.EFFECT) as hold:
        sent = stack.producer.send("moments.commit", ["order"], expect=Expect(result="order"))
        assert hold.wait().task == sent.task
        hold.kill()
    audit = stack.settle(timeout_s=30)
    assert met(audit) == {Fate.OK: 1}, audit.text()
    assert stack.ledger.starts(sent.task) == 2
    assert written(stack) == ["order", "order"]


@pytest.mark.stack(**APP, options=["--concurrency=1", *ALONE])
def test_a_process_that_dies_before_its_result_is_stored_sends_the_next_step_again(stack: Stack) -> None:
    # https://github.com/celery/celery/issues/9835
    with stack.hold("moments.commit", Moment.RETURNED) as hold:
        stack.producer.send("moments.two_steps", ["order"])
        first = hold.wait().task
        hold.kill()
    stack.settle(timeout_s=30)
    assert stack.ledger.starts(first) == 2
    assert sorted(written(stack)) == ["order-1", "order-1", "order-2", "order-2"]


@pytest.mark.stack(**APP, options=["--concurrency=1", *ALONE], env={"ACKS": "early"})
def test_a_process_that_dies_at_its_start_is_lost_with_early_acknowledgement(stack: Stack) -> None:
    with stack.hold(None, Moment.STARTED, nth=2) as hold:
        ok = stack.producer.send("moments.commit", ["first"], expect=Expect(result="first"))
        lost = stack.producer.send("moments.commit", ["second"], expect=Expect(result="second"))
        assert hold.wait().task == lost.task
        assert stack.ledger.has_ended(ok.task)
        hold.kill()
    audit = stack.settle(timeout_s=20)
    assert written(stack) == ["first"]
    assert audit.verdict is Verdict.FAIL, audit.text()


@pytest.mark.stack(**APP, options=["--concurrency=1", *ALONE])
def test_settling_lets_every_task_go_on(stack: Stack) -> None:
    hold = stack.hold("moments.commit", Moment.STORED)
    stack.producer.send("moments.commit", ["forgotten"], expect=Expect(result="forgotten"))
    hold.wait()
    audit = stack.settle(timeout_s=20)
    assert audit.verdict is Verdict.PASS, audit.text()
    assert hold.is_over
