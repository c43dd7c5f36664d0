"""Faults of what is around a worker, while it works: the network, the result store, the mail server, the clock."""

import time

import pytest

from harness.audit.results import decode
from harness.containers.mailbox import Mailbox
from harness.faults import ClockJump, LockResults, OutOfMemory, Partition, RejectMail
from harness.records.event import Exited, Kind
from harness.records.expectation import Expect
from harness.records.verdict import Fate, Verdict
from harness.stack.stack import Stack
from harness.wait import wait_until
from tests.docker.accounts import codes, said

STACK = {
    "app": "surroundings",
    "app_folder": "tests/docker/apps",
    "options": ["--concurrency=1", "--without-mingle", "--without-gossip"],
}
LOCKED_S = 0.5
pytestmark = [pytest.mark.docker, pytest.mark.catalogue]

HEARTBEAT_S = 2.0


def send(stack: Stack, name: str, **kwargs: object) -> str:
    sent = stack.producer.send(f"surroundings.{name}", kwargs=kwargs)
    assert sent.accepted
    return sent.task


def started_on(stack: Stack, task: str) -> list[str]:
    return [event.node for worker in stack.workers for event in worker.said(Kind.STARTED) if event.task == task]


@pytest.mark.stack(**STACK, workers=2, env={"HEARTBEAT_S": str(HEARTBEAT_S)})
def test_a_worker_that_is_cut_off_for_longer_than_two_heartbeats_loses_its_task_to_another(stack: Stack) -> None:
    task = send(stack, "work", pause_s=0.5)
    wait_until(lambda: started_on(stack, task), what="the task has begun", timeout_s=20)
    (node,) = started_on(stack, task)
    with stack.inject(Partition(node)) as fault:
        wait_until(lambda: len(started_on(stack, task)) > 1, what="the other worker has it", timeout_s=30)
    audit = stack.settle()
    assert audit.fates[Fate.OK] == 1, audit.text()
    assert (fault.landed(), fault.tasks, fault.redelivered) == (None, (task,), 1)
    (account,) = stack.folder.read("faults.json")["faults"]
    recovery = account["recovery"]
    assert 0 < recovery["noticed_s"] <= account["healed_t"] - account["injected_t"]
    assert recovery["redelivered"] == 1
    assert recovery["empty_s"] is not None
    assert "ran-again" in codes(audit), audit.text()


@pytest.mark.stack(**STACK)
def test_a_worker_that_is_cut_off_for_shorter_goes_on_as_if_nothing_had_been(stack: Stack) -> None:
    task = send(stack, "work", pause_s=0.5)
    wait_until(lambda: started_on(stack, task), what="the task has begun", timeout_s=20)
    with stack.inject(Partition("worker")) as fault:
        wait_until(lambda: stack.workers[0].said(Kind.FINISHED), what="the task has ended", timeout_s=20)
        send(stack, "work")
    audit = stack.settle()
    assert audit.verdict is Verdict.PASS, audit.text()
    assert (fault.landed(), fault.tasks, fault.redelivered) == (None, (task,), 0)
    assert audit.fates[Fate.OK] == 2
    assert started_on(stack, task) == ["worker-1"]
    (account,) = stack.folder.read("faults.json")["faults"]
    assert (account["recovery"]["noticed_s"], account["recovery"]["reconnected_s"]) == (None, None)
    assert account["recovery"]["first_task_s"] is not None


@pytest.mark.stack(**STACK, env={"HEARTBEAT_S": str(HEARTBEAT_S)})
def test_a_worker_that_is_cut_off_for_longer_connects_again(stack: Stack) -> None:
    with stack.inject(Partition("worker")):
        send(stack, "work")
        wait_until(lambda: stack.workers[0].said(Kind.DISCONNECTED), what="it notices", timeout_s=30)
        assert not stack.workers[0].said(Kind.RECONNECTED)
        # A worker of Celery 5.7 that is back before the broker has given it up finds its own queues locked, and ends.
        wait_until(lambda: not stack.look({"celery"})["celery"].consumers, what="the broker notices", timeout_s=30)
    audit = stack.settle()
    assert (audit.verdict, audit.fates[Fate.OK]) == (Verdict.PASS, 1), audit.text()
    (account,) = stack.folder.read("faults.json")["faults"]
    recovery = account["recovery"]
    assert 0 < recovery["reconnected_s"] < recovery["first_task_s"]
    assert "ready again after" in said(audit, "fault")


@pytest.mark.stack(**STACK)
def test_a_result_waits_for_locked_tables(stack: Stack) -> None:
    with stack.inject(LockResults()) as fault:
        task = send(stack, "work")
        wait_until(lambda: started_on(stack, task), what="the task has begun", timeout_s=20)
        (begun,) = stack.workers[0].said(Kind.STARTED)
        wait_until(lambda: time.time() > begun.t + LOCKED_S, what="it could have ended", timeout_s=5)
        assert not stack.workers[0].said(Kind.FINISHED)
        assert stack.results.row(task) is None
    audit = stack.settle()
    assert (audit.verdict, fault.landed(), fault.tasks) == (Verdict.PASS, None, (task,)), audit.text()
    assert audit.fates[Fate.OK] == 1


@pytest.mark.stack(**STACK)
def test_a_mail_that_is_refused_is_sent_again(stack: Stack, mailbox: Mailbox) -> None:
    with stack.inject(RejectMail(451)) as fault:
        task = send(stack, "write_to", recipient="ada@example.com")
        wait_until(mailbox.answered, what="the mail is refused", timeout_s=20)
    audit = stack.settle()
    assert (audit.verdict, fault.landed(), fault.tasks) == (Verdict.PASS, None, (task,)), audit.text()
    assert fault.mails >= 1
    assert [mail.recipients for mail in mailbox.messages()] == [("ada@example.com",)]
    assert "refused with 451; 1 task ran then" in said(audit, "fault")


@pytest.mark.stack(**STACK, movable_clocks=True)
def test_a_worker_whose_clock_jumps_works_on_and_its_journal_has_the_real_time(stack: Stack) -> None:
    with stack.inject(ClockJump("worker", seconds=3600)) as fault:
        task = send(stack, "read_clock")
        wait_until(lambda: stack.workers[0].said(Kind.FINISHED), what="the task has ended", timeout_s=20)
    (finished,) = stack.workers[0].said(Kind.FINISHED)
    assert abs(finished.t - time.time()) < 600
    audit = stack.settle()
    assert (audit.verdict, fault.landed(), fault.tasks) == (Verdict.PASS, None, (task,)), audit.text()
    row = stack.results.row(task)
    assert row is not None
    assert abs(decode(row) - finished.t - 3600) < 60


@pytest.mark.stack(**STACK)
def test_a_task_that_needs_more_memory_than_is_left_is_killed_by_the_kernel(stack: Stack) -> None:
    killed = Expect(state="FAILURE", error="WorkerLostError")
    worker = stack.workers[0]
    with stack.inject(OutOfMemory("worker", room_mb=32)) as fault:
        small = send(stack, "fill", mb=1)
        wait_until(lambda: worker.said(Kind.FINISHED), what="a small task has ended", timeout_s=20)
        large = stack.producer.send("surroundings.fill", kwargs={"mb": 300}, expect=killed)
        wait_until(lambda: worker.said(Kind.EXITED), what="its process has ended", timeout_s=20)
    assert send(stack, "fill", mb=300)
    audit = stack.settle()
    assert audit.passed, audit.text()
    assert (fault.landed(), fault.kills, fault.tasks) == (None, 1, (large.task,))
    assert small not in fault.tasks
    assert [event.of(Exited)["code"] for event in worker.said(Kind.EXITED)] == [-9]


@pytest.mark.stack(**STACK)
def test_a_shortage_that_nobody_feels_shows_nothing(stack: Stack) -> None:
    with stack.inject(OutOfMemory("worker", room_mb=64)) as fault:
        send(stack, "fill", mb=1)
        wait_until(lambda: stack.workers[0].said(Kind.FINISHED), what="it has ended", timeout_s=20)
    assert stack.settle().verdict is Verdict.UNKNOWN
    assert "killed no process" in str(fault.landed())
