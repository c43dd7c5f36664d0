"""A clock that jumps, of a node whose processes are acted."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.audit.run_folder import RunFolder
from harness.containers.movable_clock import MovableClock
from harness.errors import UsageError
from harness.faults import ClockJump
from harness.faults.fault_text import fault_of
from harness.inside.node_clock import ClockWatch, real_time
from harness.records.event import Clock, Kind
from harness.records.journal import Writer, read
from harness.wait import wait_until
from tests.unit.faults.test_faults import DOWN, FakeStack, Time, box

BEGIN_T = 1_000.0


class Node:
    """A process that looks at its clock again and again, as libfaketime shows it."""

    def __init__(self, file: Path, journal: Writer) -> None:
        """Begin to look."""
        self._file = file
        self.is_deaf = False
        self._watch = ClockWatch(journal, lambda: BEGIN_T, wall=self._wall)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go_on)
        self._thread.start()

    def _wall(self) -> float:
        return BEGIN_T + float(self._file.read_text().strip().removesuffix("s"))

    def _go_on(self) -> None:
        while not self._over.wait(0.01):
            if not self.is_deaf:
                self._watch.look()

    def end(self) -> None:
        self._over.set()
        self._thread.join()


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def stack(tmp_path: Path, time: Time) -> FakeStack:
    return FakeStack(folder=RunFolder.create(tmp_path, "clock"), time=time).with_workers(1)


@pytest.fixture
def journal(stack: FakeStack) -> Writer:
    return stack.journal("worker-1")


@pytest.fixture
def node(stack: FakeStack, journal: Writer) -> Iterator[Node]:
    clock = MovableClock(stack.folder.path, "worker-1")
    clock.create()
    node = Node(stack.folder.path / "control" / "clock-worker-1", journal)
    yield node
    node.end()


@pytest.mark.usefixtures("node")
def test_a_clock_jumps_and_is_right_again_and_the_tasks_of_that_time_are_told(
    stack: FakeStack, journal: Writer, time: Time
) -> None:
    journal.write(Kind.STARTED, "held")
    fault = fault_of("clock-jump-worker,seconds=-60").on(stack, now=time)
    fault.heal()
    assert fault.landed() == "it was not injected."
    fault.inject()
    assert (fault.injected_t, fault.landed()) == (BEGIN_T, "worker-1 was not healed.")
    time.t += 2
    journal.write(Kind.RECEIVED, "taken")
    journal.write(Kind.INTENDED, "sent")
    fault.heal()
    fault.heal()
    assert (fault.landed(), fault.tasks) == (None, ("held", "taken", "sent"))
    assert fault.words() == (
        "the clock of worker-1 was -60 s off; it had 1 task in hand: 1 begun and not finished; it took or sent 2 tasks "
        "meanwhile"
    )
    offsets = [event.of(Clock)["offset_s"] for event in read(stack.folder.journal) if event.kind is Kind.CLOCK]
    assert offsets == [-60.0, 0.0]


def test_a_node_that_does_not_see_its_clock_jump_says_what_it_needs(
    stack: FakeStack, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.faults.clock_jump.SETTLED_S", 0.05)
    node.is_deaf = True
    fault = ClockJump().on(stack)
    with pytest.raises(UsageError, match="needs libfaketime"):
        fault.inject()
    fault.heal()
    assert fault.landed() == "it was not injected."
    assert (stack.folder.path / "control" / "clock-worker-1").read_text() == "+0.000000s\n"


def test_a_clock_that_somebody_else_set_right_is_no_proof(stack: FakeStack, node: Node) -> None:
    fault = ClockJump(seconds=60).on(stack)
    fault.inject()
    MovableClock(stack.folder.path, "worker-1").move(0.0)
    journaled = stack.folder.journal
    wait_until(
        lambda: [one for one in read(journaled) if one.kind is Kind.CLOCK and not one.of(Clock)["offset_s"]],
        what="the node sees it",
        timeout_s=5,
    )
    fault.heal()
    assert node
    assert fault.landed() == "the clock of worker-1 was off by 0.0 s when it was to be healed."


@pytest.mark.usefixtures("node")
def test_a_node_that_died_is_no_proof_and_its_clock_is_right_at_its_next_start(stack: FakeStack) -> None:
    fault = ClockJump(seconds=60).on(stack)
    fault.inject()
    box(stack.workers[0]).now = DOWN
    fault.heal()
    assert "did not run any more" in str(fault.landed())
    assert (stack.folder.path / "control" / "clock-worker-1").read_text() == "+0.000000s\n"


def test_without_a_movable_clock_or_a_jump_that_can_be_told_it_is_a_wrong_use(stack: FakeStack) -> None:
    with pytest.raises(UsageError, match="give the stack movable_clocks=True"):
        ClockJump().on(stack).inject()
    with pytest.raises(UsageError, match="cannot be told from no jump"):
        ClockJump(seconds=1)
    with pytest.raises(UsageError, match="neither a worker nor a beat"):
        ClockJump("broker").on(stack).inject()


def test_the_journal_has_the_real_time_whatever_the_clock_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wall, steady = Time(5_000.0), Time(100.0)
    monkeypatch.setattr("time.time", wall)
    monkeypatch.setattr("time.monotonic", steady)
    monkeypatch.setenv("HARNESS_CLOCK_OFFSET_S", "3000")
    assert real_time()() == 2_000.0
    clock = MovableClock(tmp_path, "worker-1")
    clock.create()
    clock.move(1_000.0)
    monkeypatch.setenv("HARNESS_CLOCK_FILE", str(tmp_path / "control" / "clock-worker-1"))
    real = real_time()
    assert real() == 4_000.0
    wall.t, steady.t = 60.0, 107.0
    assert real() == 4_007.0
