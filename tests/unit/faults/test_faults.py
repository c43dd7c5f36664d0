"""Faults against containers that are no containers: what is broken, what is healed, and what counts as proof."""

import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from time import time as wall_time
from typing import Any, Self, cast

import pytest

from harness.audit import results
from harness.audit.in_hand import NodeJournal, in_hand
from harness.audit.run_folder import RunFolder
from harness.containers.beat import Beat
from harness.containers.broker_disk import BrokerDisk
from harness.containers.broker_node import Alarm, BrokerNode, Login
from harness.containers.engine import LOOPBACK, NodeSpec, State, Status
from harness.containers.node import Node
from harness.containers.tcp_link import TcpLink
from harness.errors import EngineError, ResultsError, StartError, UsageError, WaitTimeout
from harness.faults import (
    CloseConnections,
    DiskAlarm,
    FullDisk,
    Kill,
    KillPoolProcess,
    LockResults,
    MemoryAlarm,
    Noop,
    OutOfMemory,
    Partition,
    Pause,
    Restart,
    Shutdown,
    Stop,
    TwoBeats,
)
from harness.faults.broker_alarm import BrokerAlarm
from harness.faults.fault import Fault
from harness.faults.fault_account import account_of
from harness.faults.fault_text import fault_of
from harness.faults.injections import Injections
from harness.faults.kill import signal_of
from harness.faults.silence import JournalSilence
from harness.faults.timetable import FaultTimetable, Planned, parse
from harness.measure.load_account import FaultAccount
from harness.records.event import Kind
from harness.records.journal import Writer
from harness.records.moment import Arrival, Moment
from harness.records.verdict import Finding, Verdict
from tests.fakes.container import PAUSED, UP, FakeContainer, Program, Reaction, fake_engine

BEGIN_T = 1_000.0
LOGIN = Login(user="me", password="", vhost="mine", amqp_url_inside="", amqp_url_outside="")
NO_LINK = cast("TcpLink", None)
DOWN = State(status=Status.EXITED, exit_code=137)


@dataclass
class Time:
    """A clock that moves when it is told to."""

    t: float = BEGIN_T

    def __call__(self) -> float:
        return self.t


@dataclass
class FakeHold:
    """A task that is held as soon as a test says so."""

    moment: Moment
    nth: int
    node: str | None
    held: Arrival | None = None
    is_over: bool = False

    def let_go(self) -> None:
        self.is_over = True

    def arrive(self, node: str, task: str = "task-1") -> None:
        self.held = Arrival(moment=self.moment, task=task, name="act", node=node, pid=7)


@dataclass
class FakeStack:
    """As many workers as wanted, a broker, and a journal."""

    folder: RunFolder
    time: Time
    workers: Sequence[Node] = ()
    broker: BrokerNode = field(default_factory=lambda: cast("BrokerNode", FakeBroker.made("broker")))
    beats: Sequence[Beat] = ()
    others: Sequence[Node] = ()
    login: Login = LOGIN
    owns_broker: bool = False
    link: TcpLink = NO_LINK
    broker_disk: BrokerDisk = field(default_factory=lambda: cast("BrokerDisk", FakeDisk()))
    holds: list[FakeHold] = field(default_factory=list)

    def __post_init__(self) -> None:
        results.create(self.folder.results)

    @property
    def results(self) -> results.Results:
        return results.Results.of_file(self.folder.results)

    def nodes(self) -> Sequence[Node]:
        return [*self.workers, *self.beats, *self.others]

    def hold(
        self, name: str | None, moment: Moment, *, task: str | None = None, nth: int = 1, node: str | None = None
    ) -> FakeHold:
        assert (name, task) == (None, None)
        self.holds.append(FakeHold(moment, nth, node))
        return self.holds[-1]

    def add(self, one: Node) -> None:
        one.start()
        journal = self.journal(one.name, role="beat")
        for kind in (Kind.UP, Kind.READY):
            journal.write(kind)

    def with_beat(self) -> "FakeStack":
        self.beats = [cast("Beat", FakeBeat.made("beat-1"))]
        return self

    def with_workers(self, count: int) -> "FakeStack":
        self.workers = [node(f"worker-{number}") for number in range(1, count + 1)]
        for worker in self.workers:
            box(worker).on_start.append(partial(self.journal(worker.name, role="reborn").write, Kind.UP))
        return self

    def journal(self, name: str, role: str = "worker") -> Writer:
        return Writer(self.folder.journal, node=name, role=role, now=self.time)


@dataclass
class FakeDisk:
    """A disk that is full, or is not."""

    refuses: bool = True
    is_filled: bool = False

    def fill(self) -> bool:
        self.is_filled = self.refuses
        return self.refuses

    def is_full(self) -> bool:
        return self.is_filled

    def free(self) -> None:
        self.is_filled = False


class FakeNode(Node):
    """A node that runs."""

    @classmethod
    def made(cls, name: str) -> Self:
        engine = fake_engine()
        made = cls(engine, NodeSpec(name=name, image="image"), network=engine.create_network("session"))
        made.start()
        return made


class FakeBroker(FakeNode):
    """A broker with the connections of one worker and of another client, who connect again at once."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """Create it without starting it."""
        super().__init__(*args, **options)
        self.open = {"worker 1": LOOPBACK, "other": "192.0.2.1"}
        self.is_deaf = False
        """True if it does not do what it says it does."""
        self.is_left = False
        """True if nobody connects again."""

        self.raised: set[Alarm] = set()

    def raise_alarm(self, alarm: Alarm) -> None:
        if not self.is_deaf:
            self.raised.add(alarm)

    def end_alarm(self, alarm: Alarm) -> None:
        self.raised.discard(alarm)

    def alarms(self) -> set[Alarm]:
        return self.raised

    def connections(self, login: Login) -> dict[str, str]:
        assert login is LOGIN
        return dict(self.open)

    def close_connection(self, name: str) -> bool:
        if not self.is_deaf:
            address = self.open.pop(name)
            if not self.is_left:
                self.open[f"{name} again"] = address
        return True


class FakeBeat(FakeNode):
    """A beat, whose twin is not started yet."""

    def twin(self, name: str) -> Node:
        return Node(fake_engine(), NodeSpec(name=name, image="image"))


def node(name: str) -> Node:
    return FakeNode.made(name)


def box(one: Node) -> FakeContainer:
    return cast("FakeContainer", one.container)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def stack(tmp_path: Path, time: Time) -> FakeStack:
    return FakeStack(folder=RunFolder.create(tmp_path, "faults"), time=time).with_workers(1)


@pytest.fixture
def worker(stack: FakeStack) -> FakeContainer:
    return box(stack.workers[0])


@pytest.fixture
def journal(stack: FakeStack, time: Time) -> Writer:
    """Return the journal of worker-1, which received three tasks, began two of them, and ended one."""
    writer = stack.journal("worker-1")
    time.t -= 5
    writer.write(Kind.UP)
    for task in ("ended", "begun", "waiting"):
        writer.write(Kind.RECEIVED, task)
    for task in ("ended", "begun"):
        writer.write(Kind.STARTED, task)
    writer.write(Kind.FINISHED, "ended", state="SUCCESS")
    time.t = BEGIN_T
    return writer


@dataclass
class Pool:
    """The processes of a worker's pool, as a command in its container sees them."""

    journal: Writer
    """Of the worker's main process."""
    children: set[int] = field(default_factory=lambda: {71, 72})
    code: int | None = None
    """How a process ends that is killed; None as it should."""

    def execute(self, command: Sequence[str]) -> str:
        *_, parent = command
        if len(command) == 4:
            return "\n".join(map(str, self.children)) if parent == str(os.getpid()) else ""
        pid, number = int(command[-2]), int(command[-1])
        self.children.remove(pid)
        self.journal.write(Kind.EXITED, child=pid, code=-number if self.code is None else self.code)
        self.children.add(pid + 10)
        return ""

    def begin(self, folder: Path, pid: int, task: str, t: float) -> None:
        line = {"n": 0, "t": t, "kind": "started", "task": task, "name": "act"}
        (folder / f"worker-1.{pid}.1.jsonl").write_text(json.dumps(line) + "\n")


@pytest.fixture
def pool(stack: FakeStack, worker: FakeContainer, time: Time) -> Pool:
    """Return the pool of worker-1: 71 has run `younger` for a second, 72 has run `older` for two."""
    journal = stack.journal("worker-1")
    time.t -= 3
    journal.write(Kind.READY)
    time.t += 3
    pool = Pool(journal)
    pool.begin(stack.folder.journal, 71, "younger", BEGIN_T - 1)
    pool.begin(stack.folder.journal, 72, "older", BEGIN_T - 2)
    worker.program = Program(executes=pool.execute)
    return pool


def strike(fault: Fault, time: Time, for_s: float = 2.0) -> Fault:
    fault.inject()
    time.t += for_s
    fault.heal()
    return fault


# ------------------------------------------------------------------------------------------------- the contract


@pytest.mark.usefixtures("journal", "pool")
@pytest.mark.parametrize(
    "name",
    [
        "close-connections-worker",
        "disk-alarm-broker",
        "kill-broker",
        "kill-pool-process-worker",
        "kill-worker",
        "lock-results",
        "memory-alarm-broker",
        "noop",
        "partition-worker",
        "pause-broker",
        "pause-worker",
        "restart-broker",
        "restart-worker",
        "stop-broker",
        "stop-worker",
        "two-beats-beat",
    ],
)
def test_every_fault_keeps_the_contract(name: str, stack: FakeStack, time: Time) -> None:
    stack.with_beat().owns_broker = True
    fault = fault_of(name).on(stack, now=time)
    assert fault.name == name
    assert fault.landed() == "it was not injected."
    fault.heal()
    assert (fault.begun_t, fault.injected_t, fault.healed_t) == (None,) * 3, "nothing was broken, so nothing is healed"
    fault.inject()
    assert fault.begun_t == fault.injected_t == BEGIN_T
    assert str(fault.landed()).endswith("was not healed.")
    time.t += 2
    fault.heal()
    time.t += 1
    done = list(box(stack.workers[0]).done)
    fault.heal()
    assert (fault.healed_t, box(stack.workers[0]).done) == (BEGIN_T + 2, done), "healing twice is healing once"
    assert fault.landed() is None
    assert box(stack.workers[0]).now == box(stack.broker).now == UP
    assert (fault.name, fault.injected_t, fault.healed_t) == (name, BEGIN_T, BEGIN_T + 2)


@pytest.mark.usefixtures("journal")
def test_a_fault_counts_from_when_breaking_began_and_says_when_it_was_seen(stack: FakeStack, time: Time) -> None:
    class SlowKill(Kill):
        def _break(self, victim: Node) -> None:
            time.t += 0.5
            super()._break(victim)

    fault = strike(SlowKill().on(stack, now=time), time)
    account = account_of(fault, "It was killed.")
    assert (account.begun_t, account.injected_t) == (BEGIN_T, BEGIN_T + 0.5)
    assert (account.begin_t, FaultAccount.from_json(account.to_json())) == (BEGIN_T, account)
    assert fault.window is not None
    assert fault.window.begun_t == BEGIN_T
    # An older folder does not have it.
    assert replace(account, begun_t=None).begin_t == BEGIN_T + 0.5


@pytest.mark.parametrize("fault", [Kill, Partition, Pause])
@pytest.mark.usefixtures("journal")
def test_a_fault_of_a_worker_says_what_the_worker_held(fault: type[Fault], stack: FakeStack, time: Time) -> None:
    struck = strike(fault().on(stack, now=time), time)
    assert struck.tasks == ("begun", "waiting")
    assert "it had 2 tasks in hand: 1 begun and not finished, 1 received and not begun" in struck.words()


def received(journal: Writer, task: str, *, redelivered: bool) -> None:
    journal.write(Kind.RECEIVED, task, name="act", redelivered=redelivered)


@pytest.mark.usefixtures("journal")
def test_what_a_killed_worker_had_is_told_with_what_was_delivered_again_because_of_it(
    stack: FakeStack, time: Time
) -> None:
    stack.with_workers(2)
    other = stack.journal("worker-2")
    # Of before, and of a task that worker-1 never had.
    received(other, "begun", redelivered=True)
    timetable = FaultTimetable(stack, [parse("kill-worker@0s+1s")], now=time)
    timetable.advance(BEGIN_T)
    time.t += 0.5
    received(other, "begun", redelivered=True)
    received(other, "another", redelivered=True)
    time.t += 0.5
    assert timetable.advance(BEGIN_T) is None
    (finding,) = timetable.findings()
    assert "1 begun and not finished, 1 received and not begun; delivered again: 1 of 2; from" in finding.text
    # Nobody settles before the last one was received, so that it is told once more.
    received(stack.journal("worker-1"), "waiting", redelivered=True)
    (finding,) = timetable.findings()
    assert "; delivered again: 2 of 2; from" in finding.text
    (account,) = timetable.accounts([])
    assert (account.overlapped, account.redelivered, account.tasks) == (2, 2, ("begun", "waiting"))
    assert (account.fault, account.node, account.planned) == ("kill-worker", "worker-1", "kill-worker@0s+1s")
    assert (account.injected_t, account.healed_t, account.recovery) == (BEGIN_T, BEGIN_T + 1, None)
    assert account.text == finding.text
    assert account.missing is account.error is None


def test_a_task_that_had_ended_and_was_not_acknowledged_is_met_by_a_kill(stack: FakeStack, time: Time) -> None:
    journal = stack.journal("worker-1")
    journal.write(Kind.UP)
    for task in ("acknowledged", "not"):
        received(journal, task, redelivered=False)
        journal.write(Kind.STARTED, task)
        journal.write(Kind.FINISHED, task, state="SUCCESS")
    time.t += 1
    fault = strike(Kill().on(stack, now=time), time)
    fault.follow()
    assert fault.overlapped == 0
    assert fault.words() == "worker-1 was killed; its journal shows no task in hand (overlapped=0)"
    received(stack.journal("worker-1"), "not", redelivered=True)
    fault.follow()
    fault.follow()
    assert (fault.landed(), fault.tasks, fault.overlapped) == (None, ("not",), 1)
    assert fault.words() == (
        "worker-1 was killed; it had 1 task in hand: 1 ended and not acknowledged; delivered again: 1 of 1"
    )


def test_what_is_delivered_again_for_another_reason_is_not_the_doing_of_a_kill(stack: FakeStack, time: Time) -> None:
    stack.with_workers(2)
    journal, other = stack.journal("worker-1"), stack.journal("worker-2")
    journal.write(Kind.UP)
    for task, state in (("sent-anew", "SUCCESS"), ("retried", "RETRY")):
        received(journal, task, redelivered=False)
        journal.write(Kind.STARTED, task)
        journal.write(Kind.FINISHED, task, state=state)
    received(other, "retried", redelivered=False)
    time.t += 1
    fault = strike(Kill().on(stack, now=time), time)
    # The next message of each is another one, and it is that which is delivered again.
    received(other, "sent-anew", redelivered=False)
    time.t += 1
    received(other, "sent-anew", redelivered=True)
    received(other, "retried", redelivered=True)
    fault.follow()
    assert fault.overlapped == 0


def test_lines_that_are_damaged_or_half_written_tell_of_no_delivery(
    stack: FakeStack, journal: Writer, time: Time
) -> None:
    journal.close()
    fault = strike(Kill().on(stack, now=time), time)
    line = b'{"n":0,"t":1002.5,"kind":"received","task":"begun","redelivered":true}'
    path = stack.folder.journal / "worker-1.9.9.jsonl"
    damaged = line.removesuffix(b"}") + b"\n" + line.replace(b"received", b"opened").replace(b"begun", b"received")
    path.write_bytes(damaged + b'\n{"kind":"up","like":"received","task":"begun"}\n"task":"\xff","received"\n' + line)
    fault.follow()
    assert "; delivered again: 0 of 2" in fault.words()
    with path.open("ab") as file:
        file.write(b"\n")
    fault.follow()
    assert "; delivered again: 1 of 2" in fault.words()


@pytest.mark.parametrize("fault", [Kill, Pause])
def test_what_is_one_is_told_as_one(fault: type[Fault], stack: FakeStack, time: Time) -> None:
    journal = stack.journal("worker-1")
    journal.write(Kind.STARTED, "begun")
    assert "it had 1 task in hand: 1 begun and not finished" in strike(fault().on(stack, now=time), time).words()


def test_of_long_journals_the_ends_are_read_and_what_one_of_them_no_longer_tells_is_not_held(
    stack: FakeStack, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    main, child = stack.journal("worker-1"), stack.journal("worker-1", role="child")
    time.t -= 200
    for number in range(100):
        time.t += 1
        main.write(Kind.RECEIVED, f"task-{number:03}")
        time.t += 0.1
        child.write(Kind.STARTED, f"task-{number:03}", name="a name that makes a line long, so that fewer are read")
        time.t += 0.1
        child.write(Kind.FINISHED, f"task-{number:03}", state="SUCCESS")
    main.write(Kind.RECEIVED, "waiting")
    monkeypatch.setattr("harness.faults.silence.RECENT_BYTES", 3_000)
    fault = strike(Kill().on(stack, now=time), time)
    assert fault.tasks == ("waiting",)


def test_a_fault_of_an_idle_worker_landed_and_says_that_it_met_nothing(stack: FakeStack, time: Time) -> None:
    stack.journal("worker-1").write(Kind.UP)
    time.t += 1
    fault = strike(Kill().on(stack, now=time), time)
    assert fault.landed() is None
    assert fault.overlapped == 0
    assert "overlapped=0" in fault.words()


@pytest.mark.parametrize("fault", [Kill, Partition, Pause])
def test_of_several_workers_each_has_its_turn_and_one_that_is_down_is_passed_over(
    fault: type[Fault], stack: FakeStack, time: Time
) -> None:
    stack.with_workers(3)
    box(stack.workers[1]).now = DOWN
    struck = []
    for turn in range(4):
        one = fault().on(stack, turn=turn, now=time)
        one.inject()
        struck.append(one.node)
        one.heal()
    assert struck == ["worker-1", "worker-3", "worker-3", "worker-1"]


@pytest.mark.parametrize("fault", [Kill, Pause])
def test_without_a_worker_that_runs_there_is_nothing_to_break(
    fault: type[Fault], stack: FakeStack, worker: FakeContainer, time: Time
) -> None:
    worker.now = PAUSED
    with pytest.raises(UsageError, match=r"no worker runs that could be .*: worker-1 is paused"):
        fault().on(stack, now=time).inject()
    stack.with_workers(0)
    with pytest.raises(UsageError, match="the stack has none"):
        fault().on(stack, now=time).inject()


# ------------------------------------------------------------------------------------------------- no proof


@pytest.mark.usefixtures("journal")
def test_a_process_whose_first_task_begins_while_its_worker_is_being_killed_wrote_before_it_was_dead(
    stack: FakeStack,
) -> None:
    silence = JournalSilence(stack.folder, "worker-1")
    line = {"n": 0, "t": BEGIN_T, "kind": "started", "task": "first", "name": "act"}
    (stack.folder.journal / "worker-1.71.1.jsonl").write_text(json.dumps(line) + "\n")
    silence.begin(BEGIN_T)
    silence.end()
    assert silence.broken_by("killed") is None
    assert "first" in silence.tasks


@pytest.mark.parametrize("fault", [Kill, Pause])
def test_a_worker_that_goes_on_writing_was_not_broken(
    fault: type[Fault], stack: FakeStack, journal: Writer, time: Time
) -> None:
    one = fault().on(stack, now=time)
    one.inject()
    time.t += 1
    journal.write(Kind.STARTED, "waiting")
    one.heal()
    assert "wrote 1 more line into its journal" in str(one.landed())


@pytest.mark.parametrize("fault", [Kill, Pause])
def test_the_silence_of_a_worker_that_never_said_anything_proves_nothing(
    fault: type[Fault], stack: FakeStack, time: Time
) -> None:
    assert "its silence proves nothing" in str(strike(fault().on(stack, now=time), time).landed())


@pytest.mark.usefixtures("journal")
def test_a_worker_that_exited_by_itself_was_not_killed(stack: FakeStack, worker: FakeContainer, time: Time) -> None:
    worker.exit_code = 0
    assert "seen exited with 0" in str(strike(Kill().on(stack, now=time), time).landed())


@pytest.mark.usefixtures("journal")
def test_a_worker_that_somebody_else_started_was_not_down_until_it_was_healed(
    stack: FakeStack, worker: FakeContainer, time: Time
) -> None:
    fault = Kill().on(stack, now=time)
    fault.inject()
    worker.now = UP
    fault.heal()
    assert "seen running" in str(fault.landed())


@pytest.mark.usefixtures("journal")
def test_a_worker_without_a_new_start_in_its_journal_has_not_come_back(
    stack: FakeStack, worker: FakeContainer, time: Time
) -> None:
    worker.on_start.clear()
    assert "shows no new start" in str(strike(Kill().on(stack, now=time), time).landed())


@pytest.mark.usefixtures("journal")
@pytest.mark.parametrize("name", ["pause-worker", "pause-broker"])
def test_what_somebody_else_unpaused_was_not_paused_until_it_was_healed(
    name: str, stack: FakeStack, time: Time
) -> None:
    one = fault_of(name).on(stack, now=time)
    one.inject()
    box(stack.workers[0]).now = box(stack.broker).now = UP
    one.heal()
    assert "was not paused any more" in str(one.landed())


def test_a_broker_that_confirms_was_not_paused_and_what_was_sent_meanwhile_is_counted(
    stack: FakeStack, time: Time
) -> None:
    producer = stack.journal("producer", role="producer")
    producer.write(Kind.INTENDED, "before")
    fault = Pause("broker").on(stack, now=time)
    fault.inject()
    time.t += 0.5
    producer.write(Kind.ACCEPTED, "before", confirmed=True)
    producer.write(Kind.INTENDED, "meanwhile")
    time.t += 1.5
    producer.write(Kind.ACCEPTED, "unconfirmed", confirmed=False)
    fault.heal()
    assert fault.landed() is None, "a confirm that was on its way is no contradiction, nor is a send without one"
    assert fault.tasks == ("meanwhile",)
    assert fault.words() == "broker was paused; 1 task was sent meanwhile"

    fault = Pause("broker").on(stack, now=time)
    fault.inject()
    time.t += 1.5
    producer.write(Kind.ACCEPTED, "meanwhile", confirmed=True)
    fault.heal()
    assert fault.landed() == "1 send was confirmed while broker was said to be paused."


def test_a_broker_that_is_paused_already_is_left_alone(stack: FakeStack, time: Time) -> None:
    box(stack.broker).now = PAUSED
    fault = Pause("broker").on(stack, now=time)
    with pytest.raises(UsageError, match="no broker runs that could be paused: broker is paused"):
        fault.inject()
    fault.heal()
    assert box(stack.broker).done == []


def test_a_worker_that_is_cut_off_goes_on_and_takes_nothing_that_is_sent_meanwhile(
    stack: FakeStack, journal: Writer, time: Time
) -> None:
    producer = stack.journal("producer", role="producer")
    with Partition().on(stack, now=time) as fault:
        fault.inject()
        assert not stack.workers[0].is_connected()
        time.t += 2
        # It ends what it had, takes what had reached it, and cannot get rid of a task of its own.
        journal.write(Kind.FINISHED, "begun", state="SUCCESS")
        journal.write(Kind.RECEIVED, "had reached it")
        journal.write(Kind.INTENDED, "of its own")
        journal.write(Kind.ACCEPTED, "of its own", confirmed=False)
        producer.write(Kind.INTENDED, "meanwhile")
    assert stack.workers[0].is_connected()
    time.t += 1
    received(journal, "meanwhile", redelivered=False)
    received(journal, "waiting", redelivered=True)
    fault.follow()
    assert fault.landed() is None
    assert fault.tasks == ("begun", "waiting", "of its own")
    assert fault.words() == (
        "worker-1 was cut off from its network; it had 2 tasks in hand: 1 begun and not finished, 1 received and not "
        "begun; it sent 1 task meanwhile; delivered again: 1 of 3"
    )


def test_a_worker_that_receives_or_is_answered_was_not_cut_off(stack: FakeStack, journal: Writer, time: Time) -> None:
    first = Partition().on(stack, now=time)
    first.inject()
    stack.journal("producer", role="producer").write(Kind.INTENDED, "meanwhile")
    time.t += 1
    received(journal, "meanwhile", redelivered=False)
    first.heal()
    assert first.landed() == "worker-1 received 1 task that was sent while it was cut off from its network."
    second = Partition().on(stack, now=time)
    second.inject()
    time.t += 2
    journal.write(Kind.ACCEPTED, "of its own", confirmed=True)
    second.heal()
    assert "1 send of its own was confirmed meanwhile" in str(second.landed())


@pytest.mark.usefixtures("journal")
def test_a_worker_that_died_or_was_connected_by_somebody_else_was_not_cut_off_until_it_was_healed(
    stack: FakeStack, worker: FakeContainer, time: Time
) -> None:
    first = Partition().on(stack, now=time)
    first.inject()
    stack.workers[0].reconnect()
    first.heal()
    assert first.landed() == "worker-1 was on its network already when it was to be healed."
    second = Partition().on(stack, now=time)
    second.inject()
    worker.now = DOWN
    second.heal()
    assert "did not run any more" in str(second.landed())
    assert stack.workers[0].is_connected()


def test_the_broker_itself_is_not_cut_off(stack: FakeStack, time: Time) -> None:
    with pytest.raises(UsageError, match="broker cannot be cut off itself; cut a worker off from it"):
        Partition("broker").on(stack, now=time).inject()


# ------------------------------------------------------------------------------------------------- locked results


def write_into(file: Path, *, timeout_s: float = 0.0) -> None:
    with closing(sqlite3.connect(file, timeout=timeout_s)) as connection, connection:
        connection.execute("CREATE TABLE IF NOT EXISTS written (key)")
        connection.execute("INSERT INTO written VALUES (1)")


def test_locked_results_can_be_read_and_not_written_and_the_tasks_that_waited_are_told(
    stack: FakeStack, time: Time
) -> None:
    file, journal = stack.folder.results, stack.journal("worker-1")
    write_into(file)
    journal.write(Kind.FINISHED, "before", state="SUCCESS", store_s=0.1)
    time.t += 1
    with LockResults().on(stack, now=time) as fault:
        fault.inject()
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            write_into(file)
        assert stack.results.count() == 0
        time.t += 10
        journal.write(Kind.FINISHED, "given up", state="FAILURE", error="BackendStoreError")
        journal.write(Kind.FINISHED, "without a result", state="SUCCESS", ignored=True)
    time.t += 1
    write_into(file)
    journal.write(Kind.FINISHED, "waited", state="SUCCESS", store_s=5.0)
    journal.write(Kind.FINISHED, "afterwards", state="SUCCESS", store_s=0.5)
    fault.follow()
    assert (fault.landed(), fault.tasks) == (None, ("given up", "waited"))
    assert fault.words() == "the results were locked; 2 tasks ended and had to wait for them"


def test_results_that_somebody_wrote_meanwhile_were_not_locked(stack: FakeStack, time: Time) -> None:
    fault = LockResults().on(stack, now=time)
    fault.inject()
    shared = stack.folder.results.with_name("results.sqlite3-shm")
    # A process that closes a file loses its locks on it.
    shared.open("rb").close()
    program = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).executescript('CREATE TABLE written (key)')"
    subprocess.run([sys.executable, "-c", program, str(stack.folder.results)], check=True)
    fault.heal()
    assert fault.landed() == "the results were written, or could be, while they were said to be locked."
    fault.follow()
    assert fault.words() == "the results were locked; no task ended meanwhile (overlapped=0)"


def test_results_that_are_locked_already_cannot_be_locked(
    stack: FakeStack, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.faults.write_lock._WAIT_S", 0.0)
    with LockResults().on(stack, now=time) as first:
        first.inject()
        second = LockResults().on(stack, now=time)
        with pytest.raises(ResultsError, match=r"cannot lock the results at .*: database is locked"):
            second.inject()
        second.heal()
        assert second.landed() == "it was not injected."
    assert first.landed() is None


def test_a_fault_that_breaks_no_node_takes_none() -> None:
    with pytest.raises(UsageError, match="breaks no node, so 'worker' cannot be named"):
        fault_of("lock-results-worker")


# ------------------------------------------------------------------------------------------------- the plan


def test_a_fault_is_planned_as_its_name_its_time_and_how_long() -> None:
    assert parse("kill-worker@20s") == Planned(fault="kill-worker", at_s=20.0, for_s=5.0)
    assert parse(" pause-broker@1m30s+500ms ") == Planned(fault="pause-broker", at_s=90.0, for_s=0.5)
    assert str(parse("noop@7+2")) == "noop@7s+2s"
    at_moment = Planned(fault="kill-worker-2", moment=Moment.RETURNED, nth=3, for_s=2.0)
    assert parse("kill-worker-2@returned:3+2s") == at_moment
    assert str(at_moment) == "kill-worker-2@returned:3+2s"
    assert parse("kill-worker@started") == Planned(fault="kill-worker", moment=Moment.STARTED)
    with pytest.raises(UsageError, match="counted from 1"):
        Planned(fault="kill-worker", moment=Moment.SENDING)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("kill-worker", "'kill-worker' says no time; write .* such as kill-worker@20s"),
        ("", "'' says no time; write FAULT@WHEN"),
        ("killer@20s", "no fault 'killer'; there are .*kill, .*noop.*, as in kill-worker"),
        ("@20s", "no fault ''"),
        ("kill-worker@", "'' is no duration"),
        ("kill-worker@soon", "'soon' is neither a time nor a moment; a moment is received, started, effect"),
        ("kill-worker@sending", "'sending' is neither a time nor a moment"),
        ("kill-worker@started:0", "'started:0' is neither"),
        ("kill-worker@started:x", "'started:x' is neither"),
        ("kill-worker@20s+", "'' is no duration"),
        ("kill-worker@-5s", "'-5s' is no duration"),
        ("kill-worker@20s+0s", "last more than 0s"),
    ],
)
def test_what_is_no_plan_is_a_wrong_use(text: str, seen: str) -> None:
    with pytest.raises(UsageError, match=seen) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def by_code(timetable: FaultTimetable) -> dict[str, Finding]:
    return {finding.code: finding for finding in timetable.findings()}


@pytest.mark.usefixtures("journal")
def test_a_plan_is_carried_out_in_time_also_where_faults_overlap(stack: FakeStack, time: Time) -> None:
    timetable = FaultTimetable(stack, [parse("noop@10s+20s"), parse("pause-worker@5s+10s")], now=time)
    seen = []
    while (next_t := timetable.advance(BEGIN_T)) is not None:
        seen.append(next_t - BEGIN_T)
        time.t = next_t
    assert seen == [5, 10, 15, 30]
    times = [(str(one.planned), one.injected_t, one.healed_t, one.missing) for one in timetable.records]
    assert times == [("pause-worker@5s+10s", 1005, 1015, None), ("noop@10s+20s", 1010, 1030, None)]
    said = list(timetable.findings())
    assert [(one.code, one.verdict) for one in said] == [("fault", Verdict.PASS)] * 2
    assert said[0].text == (
        "pause-worker@5s+10s: worker-1 was paused; it had 2 tasks in hand: "
        "1 begun and not finished, 1 received and not begun; from 5.0 s until 15.0 s of the run."
    )
    assert said[0].tasks == ("begun", "waiting")


@pytest.mark.usefixtures("journal")
@pytest.mark.parametrize(
    ("plan", "meant", "broken"),
    [
        ("pause-worker@started:3+2s", None, "worker-2"),
        ("pause-worker-2@started:3+2s", "worker-2", "worker-2"),
        ("pause-broker@started:3+2s", None, "broker"),
    ],
)
def test_a_fault_at_a_moment_waits_for_its_task_and_lets_it_go_on_when_it_is_broken(
    stack: FakeStack, time: Time, plan: str, meant: str | None, broken: str
) -> None:
    stack.with_workers(2)
    timetable = FaultTimetable(stack, [parse(plan)], now=time)
    timetable.arm()
    (hold,) = stack.holds
    assert (hold.moment, hold.nth, hold.node) == (Moment.STARTED, 3, meant)
    for _ in range(3):
        next_t = timetable.advance(BEGIN_T)
        assert next_t is not None
        assert time.t < next_t < time.t + 1, "it looks again soon"
        time.t = next_t
    assert timetable.records[0].injected_t is None
    hold.arrive("worker-2")
    assert timetable.advance(BEGIN_T) == time.t + 2
    assert (timetable.records[0].fault.node, hold.is_over) == (broken, True)
    time.t += 2
    assert timetable.advance(BEGIN_T) is None
    assert timetable.records[0].healed_t == time.t


def test_a_moment_that_no_task_reaches_is_waited_for_until_it_is_given_up(stack: FakeStack, time: Time) -> None:
    timetable = FaultTimetable(stack, [parse("pause-worker@returned:9"), parse("noop@30s+1s")], now=time)
    timetable.arm()
    timetable.give_up(20.0)
    time.t += 19.9
    assert timetable.advance(BEGIN_T) is not None
    assert [one.is_over for one in stack.holds] == [False]
    time.t += 0.2
    assert timetable.advance(BEGIN_T) == BEGIN_T + 30, "the others go on"
    assert [one.is_over for one in stack.holds] == [True]
    assert timetable.records[0].missing == "no task was number 9 to come to the moment returned."
    assert [one.verdict for one in timetable.findings()] == [Verdict.UNKNOWN] * 2


@pytest.mark.usefixtures("journal")
def test_a_fault_that_can_be_healed_only_after_another_one_does_not_keep_that_from_being_healed(
    stack: FakeStack, worker: FakeContainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, is_healed = box(cast("Node", stack.broker)), threading.Event()
    unpause = broker.unpause

    def unpaused() -> None:
        unpause()
        is_healed.set()

    monkeypatch.setattr(broker, "unpause", unpaused)
    # The worker is up again only when the broker is.
    worker.on_start.append(lambda: is_healed.wait(30))
    timetable = FaultTimetable(stack, [parse("kill-worker@0s+10ms"), parse("pause-broker@1ms+20ms")])
    timetable.start(wall_time())
    timetable.finish()
    assert is_healed.is_set()
    assert [one.healed_t is not None for one in timetable.records] == [True, True]
    assert not any(thread.name == "healing" for thread in threading.enumerate())


def test_a_task_that_is_held_for_a_fault_goes_on_when_the_run_is_stopped(stack: FakeStack, time: Time) -> None:
    timetable = FaultTimetable(stack, [parse("pause-worker@started")], now=time)
    timetable.start(BEGIN_T)
    timetable.stop()
    assert stack.holds[0].is_over
    assert "the run ended before it was due" in by_code(timetable)["fault-not-landed"].text


def test_the_process_that_is_killed_at_a_moment_is_that_of_the_held_task(stack: FakeStack, pool: Pool) -> None:
    timetable = FaultTimetable(stack, [parse("kill-pool-process-worker@started")], now=stack.time)
    timetable.arm()
    stack.holds[0].arrive("worker-1", "younger")
    timetable.advance(BEGIN_T)
    fault = timetable.records[0].fault
    assert isinstance(fault, KillPoolProcess)
    assert fault.tasks == ("younger",), pool


@pytest.mark.usefixtures("journal")
def test_a_fault_that_comes_late_lasts_as_long_as_planned(stack: FakeStack, time: Time) -> None:
    timetable = FaultTimetable(stack, [parse("pause-worker@5s+10s")], now=time)
    time.t += 8
    assert timetable.advance(BEGIN_T) == BEGIN_T + 18


def test_a_fault_that_cannot_be_injected_has_not_landed_and_says_why(stack: FakeStack, time: Time) -> None:
    stack.with_workers(0)
    timetable = FaultTimetable(stack, [parse("kill-worker@0s")], now=time)
    assert timetable.advance(BEGIN_T) is None
    finding = by_code(timetable)["fault-not-landed"]
    assert finding.verdict is Verdict.UNKNOWN
    assert "no worker runs that could be killed: the stack has none; it has broker." in finding.text
    (account,) = timetable.accounts([])
    assert account.error == "no worker runs that could be killed: the stack has none; it has broker."
    assert account.redelivered is not None
    assert (account.text, account.node, account.injected_t) == (finding.text, None, None)


@pytest.mark.usefixtures("journal")
def test_an_engine_that_refuses_is_named_in_one_sentence(stack: FakeStack, worker: FakeContainer, time: Time) -> None:
    worker.refuses = {"kill"}
    timetable = FaultTimetable(stack, [parse("kill-worker@0s")], now=time)
    timetable.advance(BEGIN_T)
    assert by_code(timetable)["fault-not-landed"].text.endswith("the engine refuses to kill it.")
    assert worker.now == UP


@pytest.mark.usefixtures("journal")
@pytest.mark.parametrize(
    ("plan", "done"), [("kill-worker@0s", ["kill", "start"]), ("pause-worker@0s", ["pause", "unpause"])]
)
def test_what_was_broken_without_being_seen_is_healed_at_once_and_has_not_landed(
    plan: str, done: list[str], stack: FakeStack, worker: FakeContainer, time: Time
) -> None:
    worker.is_cut_off = True
    timetable = FaultTimetable(stack, [parse(plan)], now=time)
    assert timetable.advance(BEGIN_T) is None
    assert (worker.now, worker.done) == (UP, done)
    assert by_code(timetable)["fault-not-landed"].text.endswith("the engine does not answer.")


@pytest.mark.usefixtures("journal")
def test_what_cannot_be_healed_has_not_landed_and_is_tried_again_at_the_end(
    stack: FakeStack, worker: FakeContainer, time: Time
) -> None:
    worker.refuses = {"start"}
    timetable = FaultTimetable(stack, [parse("kill-worker@0s+1s")], now=time)
    timetable.advance(BEGIN_T)
    time.t += 1
    timetable.advance(BEGIN_T)
    assert worker.now == DOWN
    worker.refuses = set()
    timetable.start(BEGIN_T)
    timetable.stop()
    assert worker.now == UP
    assert by_code(timetable)["fault-not-landed"].text.endswith("the engine refuses to start it.")


def test_a_mistake_in_a_fault_is_no_end_of_the_run(
    stack: FakeStack, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Noop, "inject", lambda _: 1 / 0)
    timetable = FaultTimetable(stack, [parse("noop@0s")], now=time)
    timetable.advance(BEGIN_T)
    assert "ZeroDivisionError" in by_code(timetable)["fault-not-landed"].text


@pytest.mark.usefixtures("journal")
def test_whoever_stops_finds_everything_healed_and_what_was_not_due_not_landed(
    stack: FakeStack, worker: FakeContainer, time: Time
) -> None:
    timetable = FaultTimetable(stack, [parse("pause-worker@0s+1h"), parse("noop@1h")], now=time)
    timetable.advance(BEGIN_T)
    assert worker.now == PAUSED
    time.t += 3
    timetable.start(BEGIN_T)
    timetable.stop()
    timetable.stop()
    assert worker.now == UP
    found = by_code(timetable)
    assert "from 0.0 s until 3.0 s" in found["fault"].text
    assert found["fault-not-landed"].text == "noop@3600s+5s did not land: the run ended before it was due."
    assert not any(thread.name == "faults" for thread in threading.enumerate())
    with pytest.raises(UsageError, match="started already"):
        timetable.start(BEGIN_T)


def test_without_a_start_a_stop_does_nothing_and_nothing_has_landed(stack: FakeStack) -> None:
    timetable = FaultTimetable(stack, [parse("noop@0s")])
    timetable.stop()
    assert by_code(timetable).keys() == {"fault-not-landed"}
    assert list(FaultTimetable(stack, []).findings()) == []


# ------------------------------------------------------------------------------------------------- faults of a test


@pytest.fixture
def injections(stack: FakeStack) -> Injections:
    return Injections(stack)


def codes(injections: Injections) -> list[tuple[str, Verdict]]:
    return [(one.code, one.verdict) for one in injections.findings()]


@pytest.mark.usefixtures("journal")
def test_a_fault_of_a_test_is_healed_at_the_end_of_its_block_and_told(
    stack: FakeStack, injections: Injections, worker: FakeContainer
) -> None:
    with injections.inject(Pause("worker-1")) as fault:
        assert worker.now == PAUSED
        assert fault.node == "worker-1"
    assert worker.now == UP
    (finding,) = injections.findings()
    (account,) = stack.folder.read("faults.json")["faults"]
    assert (account["text"], account["fault"], account["node"]) == (finding.text, "pause-worker-1", "worker-1")
    assert (account["injected_t"], account["healed_t"]) == (fault.injected_t, fault.healed_t)
    assert fault.injected_t <= account["healing_t"] <= fault.healed_t
    assert account["recovery"]["redelivered"] == 0
    assert (finding.code, finding.verdict, finding.tasks) == ("fault", Verdict.PASS, ("begun", "waiting"))
    assert finding.text.startswith("pause-worker-1: worker-1 was paused; it had 2 tasks in hand")
    with pytest.raises(UsageError, match="was used before"):
        injections.inject(fault)


@pytest.mark.usefixtures("journal")
def test_what_is_still_broken_at_the_end_is_healed_the_latest_first(stack: FakeStack, injections: Injections) -> None:
    stack.with_workers(2)
    stack.journal("worker-2").write(Kind.UP)
    first, second = injections.inject(Pause()), injections.inject(Pause())
    assert (first.node, second.node) == ("worker-1", "worker-2")
    injections.heal_all()
    assert [box(one).now for one in stack.workers] == [UP, UP]
    assert (second.healed_t or 0) <= (first.healed_t or 0)


def test_a_fault_that_met_no_task_shows_nothing_unless_tasks_were_sent_meanwhile(
    stack: FakeStack, injections: Injections
) -> None:
    stack.time.t = wall_time()
    stack.journal("worker-1").write(Kind.UP)
    with injections.inject(Pause()):
        pass
    with injections.inject(Noop()):
        pass
    assert codes(injections) == [("fault-met-nothing", Verdict.UNKNOWN), ("fault", Verdict.PASS)]
    with injections.inject(Pause()):
        stack.time.t = wall_time()
        stack.journal("producer", role="producer").write(Kind.INTENDED, "meanwhile")
    assert codes(injections)[2:] == [("fault", Verdict.PASS)]


@pytest.mark.usefixtures("journal")
def test_a_fault_that_cannot_be_injected_or_healed_is_unknown(
    stack: FakeStack, injections: Injections, worker: FakeContainer
) -> None:
    with pytest.raises(UsageError, match="no beat runs that could be killed: the stack has none; it has worker-1"):
        injections.inject(Kill("beat"))
    worker.refuses = {"unpause"}
    injections.inject(Pause())
    injections.heal_all()
    assert codes(injections) == [("fault-not-landed", Verdict.UNKNOWN)] * 2
    first, second = stack.folder.read("faults.json")["faults"]
    assert first["missing"] == first["error"]
    assert second["missing"] == "the engine refuses to unpause it."
    assert "recovery" not in first
    assert next(reversed(list(injections.findings()))).text.endswith("the engine refuses to unpause it.")


def test_a_beat_is_watched_by_its_journal_and_a_mailbox_by_the_engine_alone(
    stack: FakeStack, injections: Injections
) -> None:
    stack.with_beat().others = [node("mailbox")]
    with injections.inject(Pause("beat")) as of_beat:
        pass
    assert "the journal of beat-1 has no lines" in str(of_beat.landed())
    with injections.inject(Kill("mailbox", signal=signal_of("kill"))) as of_mailbox:
        pass
    assert of_mailbox.landed() is None
    assert of_mailbox.words() == "mailbox was killed; which tasks needed it is not known"


@pytest.mark.parametrize("fault", [DiskAlarm, Kill, MemoryAlarm, Restart, Stop])
def test_the_broker_that_stacks_share_is_left_alone(
    fault: type[Fault], stack: FakeStack, injections: Injections
) -> None:
    with pytest.raises(UsageError, match="shared by all stacks"):
        injections.inject(fault("broker"))
    assert (box(stack.broker).done, broker_of(stack).raised) == ([], set())


@pytest.mark.parametrize("fault", [DiskAlarm, MemoryAlarm])
def test_an_alarm_lasts_until_it_is_healed_and_tells_what_was_sent_without_a_confirm(
    fault: type[BrokerAlarm], stack: FakeStack, time: Time
) -> None:
    stack.owns_broker = True
    producer = stack.journal("producer", role="producer")
    one = fault().on(stack, now=time)
    one.inject()
    assert broker_of(stack).raised == {fault.alarm}
    time.t += 2
    for task in ("taken", "left"):
        producer.write(Kind.INTENDED, task)
    producer.write(Kind.ACCEPTED, "taken", confirmed=True)
    one.heal()
    assert broker_of(stack).raised == set()
    assert (one.landed(), one.tasks) == (None, ("taken", "left"))
    assert one.words() == f"broker was {fault.doing}; 2 tasks were sent meanwhile, 1 without a confirm"
    one = fault().on(stack, now=time)
    one.inject()
    broker_of(stack).raised.clear()
    one.heal()
    assert f"broker listed no {fault.alarm} alarm any more" in str(one.landed())


def test_a_full_disk_refuses_until_it_is_healed_and_the_broker_that_ended_is_back(stack: FakeStack, time: Time) -> None:
    stack.owns_broker = True
    disk = cast("FakeDisk", stack.broker_disk)
    one = FullDisk().on(stack, now=time)
    assert (one.needs_own_broker, one.needs_small_disk) == (True, True)
    one.inject()
    assert disk.is_full()
    time.t += 2
    stack.journal("producer", role="producer").write(Kind.INTENDED, "left")
    box(stack.broker).kill()
    one.heal()
    assert not disk.is_full()
    assert stack.broker.is_up()
    assert (one.landed(), one.tasks) == (None, ("left",))
    assert one.words() == (
        "broker was out of disk space, and ended by that; 1 task was sent meanwhile, 1 without a confirm"
    )


def test_a_broker_that_is_about_to_end_when_its_disk_has_room_again_is_started(
    stack: FakeStack, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.owns_broker = True
    one = FullDisk().on(stack, now=time)
    one.inject()
    waited = []

    def wait_ready() -> None:
        waited.append(stack.broker.is_up())
        if len(waited) == 1:
            box(stack.broker).kill()
            raise StartError("it exited before it was ready.")

    monkeypatch.setattr(stack.broker, "wait_ready", wait_ready)
    one.heal()
    assert (waited, stack.broker.is_up(), one.has_ended, one.landed()) == ([True, True], True, True, None)


def test_a_broker_that_is_up_and_never_ready_again_is_an_error(
    stack: FakeStack, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.owns_broker = True
    one = FullDisk().on(stack, now=time)
    one.inject()

    def wait_ready() -> None:
        raise StartError("it lacks everything.")

    monkeypatch.setattr(stack.broker, "wait_ready", wait_ready)
    with pytest.raises(StartError, match="lacks everything"):
        one.heal()
    assert one.healed_t is None


def test_a_disk_that_has_room_again_proves_nothing_and_one_that_cannot_be_filled_is_an_error(
    stack: FakeStack, time: Time
) -> None:
    stack.owns_broker = True
    disk = cast("FakeDisk", stack.broker_disk)
    one = FullDisk().on(stack, now=time)
    one.inject()
    disk.free()
    one.heal()
    assert "had room again when it was to be healed" in str(one.landed())
    assert "ended by that" not in one.words()
    disk.refuses = False
    with pytest.raises(UsageError, match="cannot be filled: no write to it was refused"):
        FullDisk().on(stack, now=time).inject()
    with pytest.raises(UsageError, match="worker-1 is no broker"):
        FullDisk("worker").on(stack, now=time).inject()


def test_an_alarm_that_is_not_raised_is_an_error_and_only_a_broker_has_one(
    stack: FakeStack, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.faults.broker_alarm.SETTLED_S", 0)
    stack.owns_broker = broker_of(stack).is_deaf = True
    with pytest.raises(WaitTimeout, match="broker lists the memory alarm"):
        MemoryAlarm().on(stack, now=time).inject()
    with pytest.raises(UsageError, match="worker-1 is no broker"):
        MemoryAlarm("worker").on(stack, now=time).inject()


@pytest.mark.usefixtures("journal")
@pytest.mark.parametrize("fault", [Kill, Restart, Stop])
def test_the_end_of_a_broker_meets_what_the_workers_hold_and_what_is_sent_meanwhile(
    fault: type[Fault], stack: FakeStack, time: Time
) -> None:
    stack.owns_broker = True
    one = fault("broker").on(stack, now=time)
    one.inject()
    time.t += 1
    stack.journal("producer", role="producer").write(Kind.INTENDED, "meanwhile")
    one.heal()
    received(stack.journal("worker-1"), "begun", redelivered=True)
    one.follow()
    sent = () if fault is Restart else ("meanwhile",)
    assert (one.landed(), one.tasks, one.redelivered) == (None, ("begun", "waiting", *sent), 1)
    assert "2 tasks were with workers, and " in one.words()


def test_the_end_of_a_broker_that_met_nothing_says_so(stack: FakeStack, time: Time) -> None:
    stack.owns_broker = True
    stack.journal("worker-1").write(Kind.UP)
    one = strike(Kill("broker").on(stack, now=time), time)
    assert (one.tasks, one.words()) == ((), "broker was killed; nothing was sent meanwhile (overlapped=0)")


# ------------------------------------------------------------------------------------------------- a pool process


def test_the_process_that_has_run_its_task_for_longest_is_killed_and_the_worker_goes_on(
    stack: FakeStack, pool: Pool, worker: FakeContainer, time: Time
) -> None:
    fault = KillPoolProcess().on(stack, now=time)
    strike(fault, time)
    assert (fault.landed(), fault.pid, fault.tasks) == (None, 72, ("older",))
    assert (worker.now, pool.children) == (UP, {71, 82})
    assert fault.words().endswith("it ran 1 task: older; delivered again: 0 of 1")
    received(stack.journal("worker-1"), "older", redelivered=True)
    fault.follow()
    assert fault.redelivered == 1


@pytest.mark.parametrize("task", ["younger", "act"])
def test_the_process_of_a_certain_task_is_killed(stack: FakeStack, pool: Pool, time: Time, task: str) -> None:
    if task == "act":
        pool.children.remove(72)
    fault = KillPoolProcess(task=task, signal=signal_of("segv")).on(stack, now=time)
    strike(fault, time)
    assert (fault.landed(), fault.pid, fault.tasks) == (None, 71, ("younger",))
    with pytest.raises(UsageError, match="no process of worker-1 runs the task other; it runs: "):
        KillPoolProcess(task="other").on(stack, now=time).inject()


@pytest.mark.usefixtures("journal")
def test_an_idle_process_is_killed_and_met_nothing(stack: FakeStack, worker: FakeContainer, time: Time) -> None:
    worker.program = Program(executes=Pool(stack.journal("worker-1")).execute)
    fault = KillPoolProcess().on(stack, now=time)
    strike(fault, time)
    assert (fault.landed(), fault.pid, fault.tasks) == (None, 71, ())
    assert fault.words().endswith("it ran no task (overlapped=0)")


def test_a_process_that_ended_otherwise_was_not_killed(stack: FakeStack, pool: Pool, time: Time) -> None:
    pool.code = 0
    assert "was to end by SIGKILL, and ended with 0" in str(
        strike(KillPoolProcess().on(stack, now=time), time).landed()
    )


def test_a_worker_that_dies_with_its_process_is_another_fault(
    stack: FakeStack, pool: Pool, worker: FakeContainer, time: Time
) -> None:
    fault = KillPoolProcess().on(stack, now=time)
    fault.inject()
    worker.now = DOWN
    with pytest.raises(EngineError):
        fault.heal()
    worker.now = UP
    fault.heal()
    assert "worker-1 itself was to go on, and was seen exited with 137" in str(fault.landed())
    assert pool.children == {71, 82}


def test_of_two_executions_of_a_task_that_one_goes_on_whose_process_has_not_ended(stack: FakeStack, pool: Pool) -> None:
    def begun() -> frozenset[str]:
        journal = NodeJournal(stack.folder.journal, "worker-1", recent_bytes=1 << 20)
        return in_hand(journal.recent()).begun

    pool.begin(stack.folder.journal, 71, "twice", BEGIN_T - 2)
    pool.begin(stack.folder.journal, 72, "twice", BEGIN_T - 1)

    def finish(pid: int, t: float) -> None:
        line = {"n": 1, "t": t, "kind": "finished", "task": "twice", "state": "SUCCESS"}
        with (stack.folder.journal / f"worker-1.{pid}.1.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    finish(71, BEGIN_T - 0.5)
    assert begun() == {"twice"}
    pool.journal.write(Kind.EXITED, child=72, code=-9)
    assert begun() == {"twice"}, "a process has died in it"
    finish(73, BEGIN_T + 1)
    assert begun() == set()


def test_only_a_worker_with_processes_can_lose_one(stack: FakeStack, pool: Pool, time: Time) -> None:
    pool.children.clear()
    with pytest.raises(UsageError, match="worker-1 has no pool of processes"):
        KillPoolProcess().on(stack, now=time).inject()
    stack.with_beat()
    with pytest.raises(UsageError, match="beat-1 is no worker"):
        KillPoolProcess("beat").on(stack, now=time).inject()


# --------------------------------------------------------------------------------------------------------- memory


@dataclass
class Kernel:
    """Tells what a node uses, and kills."""

    kills: int = 3
    version: int = 1

    def execute(self, command: Sequence[str]) -> str:
        del command
        others = f"oom_kill_disable 0\nunder_oom 0\noom_kill {self.kills}\n"
        counts = others if self.version == 1 else f"low 0\noom 1\noom_kill {self.kills}\n"
        return f"2000000\n{counts}inactive_file 500000\n"


@pytest.mark.parametrize("version", [1, 2])
def test_who_asks_for_more_memory_than_is_left_is_killed(
    stack: FakeStack, pool: Pool, worker: FakeContainer, time: Time, version: int
) -> None:
    kernel = Kernel(version=version)
    worker.program = Program(executes=kernel.execute)
    fault = OutOfMemory(room_mb=1).on(stack, now=time)
    fault.inject()
    limit = worker.limit_bytes
    # What the kernel gives up without a kill is no memory in use.
    assert limit == 1_500_000 + 2**20
    time.t += 1
    kernel.kills += 1
    pool.journal.write(Kind.EXITED, child=72, code=-9)
    time.t += 1
    fault.heal()
    assert (fault.landed(), fault.kills, fault.tasks) == (None, 1, ("older",))
    assert worker.limit_bytes is None
    assert fault.words() == ("worker-1 was short of memory; the kernel killed 1 process of it, with 1 task: older")


@pytest.mark.usefixtures("pool")
def test_a_limit_that_nobody_reaches_shows_nothing(stack: FakeStack, worker: FakeContainer, time: Time) -> None:
    worker.program = Program(executes=Kernel().execute)
    fault = OutOfMemory().on(stack, now=time)
    strike(fault, time)
    assert "the kernel killed no process of worker-1" in str(fault.landed())
    assert "16 MiB and what cached files that were read twice took" in str(fault.landed())
    assert (worker.limit_bytes, fault.tasks) == (None, ())


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize(("is_kernel", "kills"), [(True, 1), (False, 0)])
def test_a_worker_that_ended_for_want_of_memory_is_started_again(
    stack: FakeStack, worker: FakeContainer, time: Time, *, is_kernel: bool, kills: int
) -> None:
    worker.program = Program(executes=Kernel().execute)
    fault = OutOfMemory().on(stack, now=time)
    fault.inject()
    worker.now = State(status=Status.EXITED, exit_code=137, out_of_memory=is_kernel)
    time.t += 1
    fault.heal()
    assert (worker.now, fault.kills) == (UP, kills)
    assert (fault.landed() is None) is is_kernel
    assert fault.tasks == ("older", "younger")


@pytest.mark.parametrize("said", ["", "2000000\n", "many\noom_kill 1\ninactive_file 1\n", "2000000\noom_kill 1\n"])
def test_a_node_whose_memory_cannot_be_read_is_left_alone(
    stack: FakeStack, worker: FakeContainer, time: Time, said: str
) -> None:
    worker.program = Program(executes=lambda _: said)
    with pytest.raises(UsageError, match="the memory of worker-1 cannot be read"):
        OutOfMemory().on(stack, now=time).inject()
    assert worker.limit_bytes is None


def test_a_broker_that_others_use_too_is_not_left_without_memory(stack: FakeStack, time: Time) -> None:
    fault = OutOfMemory("broker").on(stack, now=time)
    assert fault.needs_own_broker
    with pytest.raises(UsageError, match="is shared by all stacks"):
        fault.inject()


@pytest.mark.parametrize(
    "text", [f"out-of-memory-worker,room_mb={room}" for room in ("0", "much", "inf", "nan", "1e300")]
)
def test_the_room_is_a_number_above_zero(text: str) -> None:
    with pytest.raises(UsageError, match="room_mb"):
        fault_of(text)


# ------------------------------------------------------------------------------------------------- connections


def broker_of(stack: FakeStack) -> FakeBroker:
    return cast("FakeBroker", stack.broker)


def test_a_worker_whose_connections_are_closed_goes_on_and_gets_its_messages_again(
    stack: FakeStack, journal: Writer, time: Time
) -> None:
    fault = CloseConnections().on(stack, now=time)
    fault.inject()
    # Before the connections were seen to be gone.
    time.t -= 0.5
    received(journal, "begun", redelivered=True)
    time.t += 1.5
    journal.write(Kind.FINISHED, "begun", state="SUCCESS")
    fault.heal()
    fault.follow()
    assert (fault.landed(), fault.is_back) == (None, True)
    assert (fault.tasks, fault.redelivered) == (("begun", "waiting"), 1)
    assert set(broker_of(stack).open) == {"worker 1 again", "other"}
    assert fault.words().startswith("1 connection closed: worker-1 was disconnected; it had 2 tasks in hand")


@pytest.mark.usefixtures("journal")
def test_a_worker_that_does_not_connect_again_is_told(
    stack: FakeStack, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.faults.close_connections._BACK_S", 0)
    broker_of(stack).is_left = True
    fault = CloseConnections().on(stack, now=time)
    strike(fault, time)
    assert (fault.landed(), fault.is_back) == (None, False)
    assert fault.words().endswith("it has not connected again within 0 s")


@pytest.mark.usefixtures("journal")
def test_connections_that_are_still_there_were_not_closed(
    stack: FakeStack, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.faults.close_connections.SETTLED_S", 0)
    broker_of(stack).is_deaf = True
    with pytest.raises(WaitTimeout, match="the connections of worker-1 are closed"):
        CloseConnections().on(stack, now=time).inject()
    broker_of(stack).open.clear()
    with pytest.raises(UsageError, match="worker-1 has no connection"):
        CloseConnections().on(stack, now=time).inject()
    with pytest.raises(UsageError, match="a broker closes the connections of others"):
        CloseConnections("broker").on(stack, now=time).inject()


# ------------------------------------------------------------------------------------------------- two beats


def test_a_second_beat_runs_beside_the_first_until_it_is_removed(stack: FakeStack, time: Time) -> None:
    fault = TwoBeats().on(stack.with_beat(), now=time)
    fault.inject()
    assert fault.twin is not None
    assert fault.twin.is_up()
    stack.journal("beat-1", role="beat").write(Kind.INTENDED, "of the first")
    stack.journal("beat-1-twin", role="beat").write(Kind.INTENDED, "of the second")
    fault.heal()
    assert not fault.twin.is_up()
    assert (fault.landed(), fault.tasks, box(stack.beats[0]).now) == (None, ("of the second",), UP)
    assert fault.words() == "beat-1-twin ran the schedule of beat-1 as well; 1 task was sent by it"


def test_a_second_beat_without_a_first_or_that_sends_nothing_shows_nothing(stack: FakeStack, time: Time) -> None:
    fault = TwoBeats().on(stack.with_beat(), now=time)
    strike(fault, time)
    assert (fault.landed(), fault.overlapped) == (None, 0)
    assert fault.words().endswith("nothing was sent by it (overlapped=0)")
    fault = TwoBeats().on(stack, now=time)
    fault.inject()
    box(stack.beats[0]).now = DOWN
    fault.heal()
    assert fault.landed() == "both beats were to run, and beat-1 was seen exited with 137."
    with pytest.raises(UsageError, match="worker-1 is no beat"):
        TwoBeats("worker").on(stack, now=time).inject()


# ------------------------------------------------------------------------------------------------- a stop


@pytest.mark.usefixtures("journal")
def test_a_stop_names_the_tasks_that_it_cut(stack: FakeStack, worker: FakeContainer, time: Time) -> None:
    fault = Stop().on(stack, now=time)
    strike(fault, time)
    assert worker.done == ["kill with SIGTERM", "start"]
    assert (fault.landed(), fault.was_killed, fault.exit_code) == (None, False, 0)
    assert (fault.tasks, fault.cut) == (("begun", "waiting"), ("begun",))
    assert fault.words() == (
        "worker-1 was stopped (warm, SIGTERM), and ended by itself with 0 after 0.0 s; it had 1 begun and 1 waiting "
        "when it was asked; 1 task was cut: begun; delivered again: 0 of 2"
    )


def test_a_stop_in_which_every_task_ends_cuts_none(
    stack: FakeStack, worker: FakeContainer, journal: Writer, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill = worker.kill

    def end_tasks_first(signal: str) -> None:
        journal.write(Kind.FINISHED, "begun", state="SUCCESS")
        kill(signal)

    monkeypatch.setattr(worker, "kill", end_tasks_first)
    fault = Stop().on(stack, now=time)
    strike(fault, time)
    assert (fault.landed(), fault.tasks, fault.cut) == (None, ("begun", "waiting"), ())
    assert "when it was asked, and cut none" in fault.words()


@pytest.mark.usefixtures("journal")
def test_a_worker_that_outlives_its_grace_period_is_killed(stack: FakeStack, worker: FakeContainer, time: Time) -> None:
    worker.program = Program(reacts={})
    fault = Stop(how="cold", grace_s=0).on(stack, now=time)
    strike(fault, time)
    assert worker.done == ["kill with SIGQUIT", "kill", "start"]
    assert (fault.landed(), fault.was_killed, fault.exit_code) == (None, True, 137)
    assert "(cold, SIGQUIT), and was killed after a grace period of 0 s" in fault.words()


@pytest.mark.usefixtures("journal")
def test_a_worker_that_somebody_else_killed_in_its_grace_period_was_not_stopped(
    stack: FakeStack, worker: FakeContainer, time: Time
) -> None:
    worker.program = Program(reacts={"SIGTERM": Reaction(ends_with=137)})
    assert "killed within its grace period, by somebody else" in str(strike(Stop().on(stack, now=time), time).landed())


@pytest.mark.usefixtures("journal")
def test_a_restart_is_down_no_longer_than_it_takes_and_proves_that_it_was(
    stack: FakeStack, worker: FakeContainer, time: Time
) -> None:
    fault = Restart().on(stack, now=time)
    fault.inject()
    assert (worker.now, worker.done) == (UP, ["kill with SIGTERM", "start"])
    fault.heal()
    assert (fault.landed(), fault.tasks, fault.cut) == (None, ("begun", "waiting"), ("begun",))
    assert worker.done == ["kill with SIGTERM", "start"]
    worker.on_start.clear()
    assert "shows no new start" in str(strike(Restart().on(stack, now=time), time).landed())


def test_a_stop_has_its_options_on_the_command_line_and_only_workers_have_another_than_a_warm_one(
    stack: FakeStack, injections: Injections
) -> None:
    fault = fault_of("stop-worker-2,how=cold,grace_s=1m")
    assert isinstance(fault, Stop)
    assert (fault.name, fault.how, fault.grace_s) == ("stop-worker-2", Shutdown.COLD, 60.0)
    with pytest.raises(UsageError, match="'hot' is no shutdown; give one of warm, soft, cold"):
        fault_of("stop-worker,how=hot")
    stack.others = [node("mailbox")]
    with pytest.raises(UsageError, match="mailbox is no worker, so it has no cold shutdown"):
        injections.inject(Stop("mailbox", how="cold"))
    assert box(stack.others[0]).done == []


def test_a_fault_has_options_on_the_command_line() -> None:
    fault = fault_of("kill-worker-2,signal=term")
    assert isinstance(fault, Kill)
    assert (fault.name, fault.signal.name) == ("kill-worker-2", "SIGTERM")
    with pytest.raises(UsageError, match="no stack has a node 'wroker': a node is worker, beat"):
        fault_of("kill-wroker")
    with pytest.raises(UsageError, match="'nothing' is no signal"):
        fault_of("kill-worker,signal=nothing")
    with pytest.raises(UsageError, match="the fault pause has no option 'signal'; it has none"):
        fault_of("pause-worker,signal=term")
