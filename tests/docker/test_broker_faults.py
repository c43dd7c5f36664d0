"""A broker of a stack's own, broken in a real stack while a task runs."""

from collections.abc import Iterator

import pytest

from harness.errors import UsageError
from harness.faults import CloseConnections, DiskAlarm, FullDisk, Kill, MemoryAlarm, Restart
from harness.records.expectation import Effects, Expect, Promise
from harness.records.moment import Moment
from harness.records.verdict import Fate, Verdict
from harness.stack.shared_parts import SharedParts
from harness.stack.stack import Stack
from harness.wait import wait_until

STACK = {
    "app": "faulty",
    "app_folder": "tests/docker/apps",
    "options": ["--concurrency=1", "--without-mingle", "--without-gossip"],
    # Celery 5.7 declares its queue for remote control as exclusive. A worker that connects again before the broker has
    # let the old connection go is refused, and ends.
    "env": {"HARNESS_SETTINGS": '{"worker_enable_remote_control": false}'},
    # A task whose message is not acknowledged when the connection falls is delivered again.
    "promise": Promise(effects=Effects.AT_LEAST_ONCE),
}
pytestmark = [pytest.mark.docker, pytest.mark.catalogue, pytest.mark.stack(**STACK, own_broker=True)]


@pytest.fixture(scope="module")
def session() -> Iterator[SharedParts]:
    with SharedParts() as session:
        yield session


@pytest.fixture(scope="module")
def _harness_session(session: SharedParts) -> SharedParts:
    return session


def send(stack: Stack, key: str) -> bool:
    return stack.producer.send("act", kwargs={"key": key}, expect=Expect(result="done", effects=[key])).accepted


def test_what_a_broker_confirmed_outlives_everything_that_is_done_to_it(stack: Stack, session: SharedParts) -> None:
    url = stack.login.amqp_url_outside
    with stack.hold("act", Moment.STARTED) as hold:
        assert send(stack, "held")
        hold.wait()
        assert send(stack, "in the queue")
        with stack.inject(Kill("broker")) as killed:
            assert not send(stack, "meanwhile")
        assert send(stack, "after")
    assert (killed.landed(), killed.overlapped) == (None, 2)
    restarted = stack.inject(Restart("broker", grace_s=30))
    restarted.heal()
    assert (restarted.landed(), restarted.exit_code) == (None, 0)
    assert stack.broker.refresh(stack.login).amqp_url_outside == url
    with stack.hold("act", Moment.STARTED) as hold:
        assert send(stack, "on a closed connection")
        task = hold.wait(timeout_s=60).task
        with stack.inject(CloseConnections("worker")) as closed:
            assert stack.workers[0].is_up()
        assert (closed.landed(), closed.is_back, closed.tasks) == (None, True, (task,)), closed.words()
    assert send(stack, "at the end")
    with stack.inject(MemoryAlarm()) as memory:
        # The first message of a connection is taken, and no more.
        outcomes = [send(stack, "in the memory alarm"), send(stack, "never confirmed")]
    with stack.inject(DiskAlarm()) as disk:
        outcomes += [send(stack, "in the disk alarm")]
    assert (memory.landed(), disk.landed(), memory.overlapped, disk.overlapped) == (None, None, 2, 1)
    assert not all(outcomes)
    audit = stack.settle(timeout_s=60)
    assert audit.verdict is Verdict.PASS, audit.text()
    accounted = [audit.fates[fate] for fate in (Fate.OK, Fate.RECOVERED, Fate.REFUSED)]
    assert (sum(accounted), accounted[-1]) == (9, 1), audit.text()
    assert closed.redelivered == 1
    # Nobody else has noticed.
    assert stack.broker is not session.broker
    assert session.broker.is_up()


@pytest.mark.stack(**STACK, own_broker=True, small_disk=True)
def test_what_a_broker_confirmed_outlives_a_full_disk(stack: Stack) -> None:
    with stack.hold("act", Moment.STARTED) as hold:
        assert send(stack, "held")
        hold.wait()
        assert send(stack, "in the queue")
        with stack.inject(FullDisk()) as full:
            # It raises its disk alarm within ten seconds, and may end.
            wait_until(lambda: not send(stack, "meanwhile"), what="the broker takes no more", timeout_s=60)
            assert stack.broker_disk.is_full()
    assert full.landed() is None, full.words()
    assert not stack.broker_disk.is_full()
    assert send(stack, "after")
    audit = stack.settle()
    assert (audit.fates[Fate.LOST], audit.fates[Fate.PENDING]) == (0, 0), audit


def test_a_broker_without_a_small_disk_is_not_filled(stack: Stack) -> None:
    with pytest.raises(UsageError, match="has no small disk to fill; ask for one with"):
        stack.inject(FullDisk())
