"""A fault: the clock of a node jumps, and jumps back."""

from math import isfinite
from types import MappingProxyType

from harness.audit.in_hand import NodeJournal
from harness.audit.run_folder import RunFolder
from harness.containers.engine import State, Status
from harness.containers.movable_clock import MovableClock
from harness.containers.node import Node
from harness.errors import UsageError, WaitTimeout
from harness.faults.fault import SETTLED_S, counted
from harness.faults.node_fault import NodeFault
from harness.faults.silence import JournalSilence, Silence
from harness.records.event import Clock, Kind
from harness.wait import wait_until

_EXACT_S = 1.0
"""Seconds by which a clock may differ from what it was set to. It is journaled to a fifth of a second."""


class ClockJump(NodeFault):
    """A wall clock that suddenly is ahead or behind, of a worker or a beat, and later is right again.

    The stack has to be started with movable clocks. The monotonic clock and the journal's times stay right.

    Proof: the node's own journal shows the offset of its clock after the jump, and no other one until it was healed,
    and then none.

    The tasks that it met are those that the node held when the clock jumped, and those that it took or sent meanwhile.
    """

    kind = "clock-jump"
    doing = "on a wrong clock"
    options = MappingProxyType({"seconds": float})

    def __init__(self, node: str = "worker", *, seconds: float = 3600.0) -> None:
        """Describe the fault.

        Args:
            node: see `Fault`.
            seconds: how far the clock jumps ahead; below 0 backwards.

        Raises:
            UsageError: it is less than two seconds either way, which the clocks of two machines may differ by.
        """
        super().__init__(node)
        if not isfinite(seconds) or abs(seconds) < 2 * _EXACT_S:
            raise UsageError(f"a jump of {seconds:g} s cannot be told from no jump; give two seconds or more.")
        self.seconds = seconds
        self._clock: MovableClock | None = None
        self._journal: NodeJournal | None = None
        self._offset_s = 0.0
        """The last offset that the node has journaled."""
        self._until_healed_s: float | None = None
        """The same when healing began; None before."""

    def _choose(self) -> Node:
        victim = super()._choose()
        if victim not in [*self._stack.workers, *self._stack.beats]:
            raise UsageError(f"{victim.name} is neither a worker nor a beat, whose clocks alone can be moved.")
        return victim

    def _silence_of(self, victim: Node) -> Silence:
        return _Work(self._stack.folder, victim.name)

    def _break(self, victim: Node) -> None:
        clock = MovableClock(self._stack.folder.path, victim.name)
        clock.require()
        self._journal = NodeJournal(self._stack.folder.journal, victim.name, recent_bytes=0)
        self._clock = clock
        self._set(victim, self.seconds)

    def _mend(self, victim: Node) -> None:
        if self._clock is None:
            return
        self._read()
        if self._until_healed_s is None:
            self._until_healed_s = self._offset_s
        if victim.is_up():
            self._set(victim, 0.0)
        else:
            self._clock.move(0.0)

    def _set(self, victim: Node, offset_s: float) -> None:
        """Move the clock, and wait until the node has seen it. Raises UsageError if it does not."""
        if self._clock is None:
            return
        self._clock.move(offset_s)

        def is_seen() -> bool:
            self._read()
            return abs(self._offset_s - offset_s) <= _EXACT_S

        try:
            wait_until(is_seen, what=f"{victim.name} sees its clock jump", timeout_s=SETTLED_S)
        except WaitTimeout:
            raise UsageError(
                f"{victim.name} did not see its clock jump within {SETTLED_S:g} s: its image needs libfaketime, as the "
                "harness's own has it."
            ) from None

    def _read(self) -> None:
        for event in self._journal.read() if self._journal is not None else ():
            if event.kind is Kind.CLOCK:
                self._offset_s = float(event.of(Clock).get("offset_s", 0.0))

    def _unbroken(self, before: State | None) -> str | None:
        if before is None or before.status is not Status.RUNNING:
            return f"{self.node} did not run any more when it was to be healed: it was seen {before}."
        if self._until_healed_s is None or abs(self._until_healed_s - self.seconds) > _EXACT_S:
            return f"the clock of {self.node} was off by {self._until_healed_s} s when it was to be healed."
        return None

    def words(self) -> str:
        """Return what was done, and the tasks that this affected."""
        return f"the clock of {self.node} was {self.seconds:+g} s off; {self._silence.words()}"


class _Work(JournalSilence):
    """The work of a node on a wrong clock: it is not silent."""

    def __init__(self, folder: RunFolder, node: str) -> None:
        """Note what the journal holds now."""
        super().__init__(folder, node)
        self._taken: tuple[str, ...] = ()

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that it held, and those that it took or sent meanwhile."""
        return tuple(dict.fromkeys((*super().tasks, *self._taken)))

    def end(self) -> None:
        """Read what it took and sent meanwhile."""
        kinds = {Kind.RECEIVED, Kind.STARTED, Kind.INTENDED}
        self._taken = tuple(
            event.task for event in self._journal.read() if event.kind in kinds and event.task is not None
        )

    def broken_by(self, doing: str) -> str | None:
        """Return None: a node on a wrong clock goes on."""
        del doing
        return None

    def words(self) -> str:
        """Return the tasks that it held, and how many more it had to do with."""
        more = len(self.tasks) - len(super().tasks)
        taken = f"; it took or sent {counted(more, 'task', 'tasks')} meanwhile" if more else ""
        return f"{super().words()}{taken}"
