"""Faults in a real stack, while its workers work: they land, they are healed, and no task is left unaccounted for."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from harness.containers.engine import Status
from harness.faults import Kill, KillPoolProcess, Pause, Restart, Stop
from harness.faults.timetable import FaultTimetable, parse
from harness.records.expectation import Effects, Expect, Promise
from harness.records.moment import Moment
from harness.records.verdict import Fate, Finding, Verdict
from harness.stack.shared_parts import SharedParts
from harness.stack.stack import Stack
from harness.wait import wait_until

STACK = {
    "app": "faulty",
    "app_folder": "tests/docker/apps",
    "options": ["--concurrency=2", "--without-mingle", "--without-gossip"],
    # Between a task's effect and its ack, a kill makes it have the effect again.
    "promise": Promise(effects=Effects.AT_LEAST_ONCE),
}
pytestmark = [pytest.mark.docker, pytest.mark.stack(**STACK)]

TASKS = 12
PAUSE_S = 0.4


@pytest.fixture(scope="module")
def _harness_session() -> Iterator[SharedParts]:
    """Yield a session for this module alone: the broker that other tests share must not be paused under them."""
    with SharedParts() as session:
        yield session


def send(stack: Stack, key: str, pause_s: float = PAUSE_S) -> bool:
    expect = Expect(result="done", effects=[key])
    return stack.producer.send("act", kwargs={"key": key, "pause_s": pause_s}, expect=expect).accepted


def work(stack: Stack) -> None:
    """Send tasks, and return when every worker has begun some."""
    for number in range(TASKS):
        assert send(stack, f"key-{number}")
    busy = 2 * len(stack.workers)
    wait_until(lambda: len(stack.ledger.started()) >= busy, what="the workers are busy", timeout_s=20)


@contextmanager
def broken(stack: Stack, *plans: str) -> Iterator[FaultTimetable]:
    timetable = FaultTimetable(stack, [parse(plan) for plan in plans])
    timetable.start(time.time())
    try:
        yield timetable
    finally:
        timetable.stop()


def wait_healed(timetable: FaultTimetable) -> None:
    wait_until(
        lambda: all(record.healed_t is not None for record in timetable.records), what="all is healed", timeout_s=30
    )


def only(timetable: FaultTimetable) -> Finding:
    (finding,) = timetable.findings()
    return finding


@pytest.mark.stack(**STACK, workers=2)
def test_a_worker_killed_at_work_comes_back_and_every_task_is_accounted_for(stack: Stack) -> None:
    work(stack)
    with broken(stack, "kill-worker@0s+500ms") as timetable:
        wait_healed(timetable)
    finding = only(timetable)
    assert (finding.code, finding.verdict) == ("fault", Verdict.PASS), finding.text
    fault = timetable.records[0].fault
    assert fault.node == "worker-1"
    # Two processes, and with late acks two more messages at hand.
    assert 2 <= fault.overlapped <= 4, fault.words()
    audit = stack.settle()
    assert audit.verdict is Verdict.PASS, audit.text()
    assert audit.fates[Fate.OK] == TASKS
    assert "ran-again" in {one.code for one in audit.findings}, audit.text()
    assert isinstance(fault, Kill)
    told = only(timetable).text
    # With late acks nothing that it had in hand was acknowledged.
    assert fault.redelivered == fault.overlapped, told
    assert f"; delivered again: {fault.overlapped} of {fault.overlapped}; from" in told


def test_a_process_of_a_pool_dies_and_its_worker_goes_on(stack: Stack) -> None:
    with stack.hold("act", Moment.STARTED) as hold:
        assert send(stack, "killed")
        held = hold.wait()
        with stack.inject(KillPoolProcess(task=held.task)) as fault:
            assert stack.workers[0].container.state().status is Status.RUNNING
    assert (fault.landed(), fault.pid, fault.tasks) == (None, held.pid, (held.task,))
    assert send(stack, "after")
    audit = stack.settle()
    # Celery's default: the task fails, with late acks as well.
    assert (audit.fates[Fate.OK], audit.fates[Fate.FAILED]) == (1, 1), audit.text()


def test_a_worker_that_is_stopped_ends_its_tasks_or_they_are_cut(stack: Stack) -> None:
    def begin(key: str, pause_s: float = PAUSE_S) -> str:
        """Send a task, and return its id when it has begun."""
        before = stack.ledger.started()
        assert send(stack, key, pause_s)
        wait_until(lambda: stack.ledger.started() - before, what=f"{key} has begun", timeout_s=20)
        (task,) = stack.ledger.started() - before
        return task

    ended = begin("ended")
    with stack.inject(Restart("worker", grace_s=30)) as warm:
        pass
    assert (warm.landed(), warm.tasks, warm.cut, warm.exit_code) == (None, (ended,), (), 0)
    cancelled = begin("cancelled", pause_s=5)
    with stack.inject(Stop("worker", how="cold", grace_s=30)) as cold:
        assert not stack.workers[0].is_up()
    assert (cold.landed(), cold.cut, cold.was_killed) == (None, (cancelled,), False), cold.words()
    with stack.hold("act", Moment.STARTED) as hold:
        assert send(stack, "killed")
        killed = hold.wait().task
        with stack.inject(Stop("worker", grace_s=1)) as hard:
            pass
    assert (hard.landed(), hard.was_killed) == (None, True), hard.words()
    assert killed in hard.cut
    audit = stack.settle()
    assert audit.verdict is Verdict.PASS, audit.text()
    assert audit.fates[Fate.OK] == 3, audit.text()


def test_a_worker_paused_at_work_stands_still_and_goes_on(stack: Stack) -> None:
    work(stack)
    with stack.inject(Pause("worker")) as fault:
        assert stack.workers[0].container.state().status is Status.PAUSED
    assert fault.overlapped >= 2
    # This one is healed by the end of the test's work.
    stack.inject(Pause("worker-1"))
    audit = stack.settle()
    assert audit.verdict is Verdict.PASS, audit.text()
    assert audit.fates[Fate.OK] == TASKS
    told = [one for one in audit.findings if one.code == "fault"]
    assert [one.text.partition(";")[0] for one in told] == [
        "pause-worker: worker-1 was paused",
        "pause-worker-1: worker-1 was paused",
    ]


def test_a_fault_that_meets_no_task_shows_nothing(stack: Stack) -> None:
    assert send(stack, "before", pause_s=0)
    wait_until(lambda: stack.ledger.ended, what="the only task has ended", timeout_s=20)
    with stack.inject(Pause("worker")):
        pass
    audit = stack.settle()
    assert audit.verdict is Verdict.UNKNOWN, audit.text()
    assert "fault-met-nothing" in {one.code for one in audit.findings}


def test_a_broker_paused_under_a_send_confirms_it_afterwards(stack: Stack) -> None:
    assert send(stack, "before", pause_s=0)
    with broken(stack, "pause-broker@0s+1500ms") as timetable:
        wait_until(lambda: timetable.records[0].injected_t, what="it is paused", timeout_s=10)
        send(stack, "meanwhile", pause_s=0)
        wait_healed(timetable)
    assert only(timetable).code == "fault", only(timetable).text
    assert timetable.records[0].fault.overlapped == 1
    fates = {fate: count for fate, count in stack.settle().fates.items() if count}
    assert fates in ({Fate.OK: 2}, {Fate.OK: 1, Fate.RECOVERED: 1})


@pytest.mark.stack(**STACK, workers=0)
def test_where_no_worker_is_there_is_no_proof_and_the_verdict_is_unknown(stack: Stack) -> None:
    with broken(stack, "kill-worker@0s", "pause-worker@0s") as timetable:
        wait_until(lambda: all(one.error for one in timetable.records), what="both were tried", timeout_s=10)
    assert {(one.code, one.verdict) for one in timetable.findings()} == {("fault-not-landed", Verdict.UNKNOWN)}
    assert "the stack has none" in next(timetable.findings()).text


def test_a_fault_that_somebody_else_heals_has_not_landed_and_one_that_goes_on_is_healed_at_the_end(
    stack: Stack,
) -> None:
    assert send(stack, "before", pause_s=0)
    (worker,) = stack.workers
    fault = Pause().on(stack)
    fault.inject()
    worker.unpause()
    fault.heal()
    assert "was not paused any more" in str(fault.landed())
    with broken(stack, "pause-worker@0s+1h") as timetable:
        wait_until(lambda: timetable.records[0].injected_t, what="it is paused", timeout_s=10)
    assert worker.container.state().status is Status.RUNNING
    assert only(timetable).code == "fault", only(timetable).text
    killed = Kill().on(stack)
    killed.inject()
    worker.start()
    worker.wait_ready()
    killed.heal()
    assert "was to be down by SIGKILL, and was seen running" in str(killed.landed())
    assert stack.settle().fates[Fate.OK] == 1
