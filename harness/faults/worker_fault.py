"""The common part of all faults of a worker: its choice, the tasks that it held, and the silence of its journal."""

import time
from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from harness.audit.in_hand import InHand, NodeJournal, in_hand
from harness.containers.engine import State, Status
from harness.containers.node import Node
from harness.errors import UsageError
from harness.faults.fault import Fault, Target, counted

if TYPE_CHECKING:
    from harness.records.event import Kind

RECENT_BYTES = 1 << 20
"""Bytes at the end of each journal file that are read for the tasks that a worker holds: some 7,000 lines. Hours of
load make long files, and recent receipts are at their end. More bytes would delay the time of the injection; with
fewer, a task that was received long before is not counted as affected."""


class WorkerFault(Fault):
    """A fault of one worker, with evidence from the engine and from the worker's own journal."""

    _doing: ClassVar[str]

    def __init__(self, stack: Target, *, turn: int = 0, now: Callable[[], float] = time.time) -> None:
        """Prepare the fault without injecting it."""
        super().__init__(stack, turn=turn, now=now)
        self._victim: Node | None = None
        self._journal: NodeJournal | None = None
        self._before: State | None = None
        """The state of the container when healing began, before anything was changed."""
        self._is_witness = False
        self._spoke = 0
        """Number of journal lines written between injection and healing."""
        self._said_after: set[Kind] = set()
        self._in_hand = InHand()

    @abstractmethod
    def _break(self, victim: Node) -> None:
        """Break the worker, and return when it is seen broken."""

    @abstractmethod
    def _mend(self, victim: Node) -> None:
        """Heal the worker, and return when it works again."""

    def inject(self) -> None:
        """Break the next worker that runs. Raises UsageError if none runs, HarnessError if it cannot be broken."""
        victim = self._choose()
        journal = NodeJournal(self._stack.folder.journal, victim.name, recent_bytes=RECENT_BYTES)
        self._victim, self._journal, self.node = victim, journal, victim.name
        self._break(victim)
        # From now on the worker writes nothing more, and its journal shows what it held.
        self.injected_t = self._now()
        said = journal.recent()
        self._is_witness = bool(said)
        self._in_hand = in_hand(said)
        self.tasks = (*sorted(self._in_hand.begun), *sorted(self._in_hand.waiting))

    def heal(self) -> None:
        """Heal the worker, if it was not healed before. Raises HarnessError."""
        if self._victim is None or self._journal is None or self.healed_t is not None:
            return
        if self.injected_t is not None and self._before is None:
            # Before anything is changed, check once whether it was broken until now.
            self._spoke = len(self._journal.read())
            self._before = self._victim.container.state()
        self._mend(self._victim)
        self._said_after = {event.kind for event in self._journal.read()}
        # If it was not seen broken in time, it is still healed, but that is no proof.
        self.healed_t = self._now()

    def _choose(self) -> Node:
        """Return the next worker that runs, beginning with the one whose turn it is. Raises UsageError if none runs."""
        workers = list(self._stack.workers)
        seen = []
        for number in range(len(workers)):
            worker = workers[(self._turn + number) % len(workers)]
            # Another fault may have paused it, or may have killed it and not healed it yet.
            status = worker.container.state().status if worker.is_up() else "down"
            if status is Status.RUNNING:
                return worker
            seen.append(f"{worker.name} is {status}")
        why = ", ".join(seen) or "the stack has none"
        raise UsageError(f"no worker runs that could be {self._doing}: {why}.")

    def _silence(self) -> str | None:
        """Return why its journal does not prove that it stood still; None if it does."""
        if not self._is_witness:
            return f"the journal of {self.node} has no lines, so that its silence proves nothing."
        if self._spoke:
            lines = counted(self._spoke, "more line", "more lines")
            return f"{self.node} wrote {lines} into its journal while it was {self._doing}."
        return None

    def words(self) -> str:
        """Return what was done, and the tasks that the worker held by its own journal."""
        if not self.tasks:
            return f"{self.node} was {self._doing}; its journal shows no task in hand (overlapped=0)"
        begun, waiting = len(self._in_hand.begun), len(self._in_hand.waiting)
        parts = {
            "begun and not finished": begun,
            "received and not begun": waiting,
            "ended and not acknowledged": self.overlapped - begun - waiting,
        }
        met = ", ".join(f"{count} {words}" for words, count in parts.items() if count)
        return f"{self.node} was {self._doing}; it had {counted(self.overlapped, 'task', 'tasks')} in hand: {met}"
