"""The ledger: what the journal tells while a run still goes on. It decides nothing; the audit does that."""

from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

from harness.evidence.journal import Follower
from harness.evidence.records import Event, Kind

_OUTCOMES = frozenset({Kind.ACCEPTED, Kind.REFUSED, Kind.UNKNOWN})
# A task that is ignored may have been replaced by another of the same id, and a rejected one put back into its queue.
_FINAL_STATES = frozenset({"SUCCESS", "FAILURE"})


class _Hold(NamedTuple):
    """Who holds a task, since when it last said something of it, and how many messages of that task it has."""

    node: str
    t: float
    times: int


class Ledger:
    """Follows the journal of a run: which tasks were sent, which are running, which have ended."""

    def __init__(self, folder: Path) -> None:
        """Follows the journal files in `folder`; nothing is read until `update`."""
        self._follower = Follower(folder)
        self._outcomes: dict[str, Kind] = {}
        self._started: set[str] = set()
        self._running: set[str] = set()
        self._retries: Counter[str] = Counter()
        self._ended: set[str] = set()
        self.ticks: Counter[str] = Counter()
        """How often beat has sent each entry of its schedule, and the broker has taken it."""
        self._ticking: dict[str, str] = {}
        """The entries that beat is sending, by task."""
        self._held: dict[str, _Hold] = {}
        """Per task that a worker took and did not end."""
        self._up: dict[str, float] = {}
        self.listeners: list[Callable[[Event], None]] = []
        """Each is shown every event, in the order of time as far as `update` can tell."""

    def update(self) -> None:
        """Read what was added to the journal since the last time."""
        # Files are read one after another, so a task's end can be read before its beginning was. Within one
        # update the order of time is the order of the events; across updates an end is never taken back.
        for event in sorted(self._follower.read(), key=lambda event: event.t):
            for listener in self.listeners:
                listener(event)
            if event.kind is Kind.UP:
                self._up[event.node] = event.t
            elif event.task is not None:
                self._take(event, event.task)

    def _take(self, event: Event, task: str) -> None:
        if event.kind is Kind.INTENDED:
            self._outcomes.setdefault(task, Kind.INTENDED)
            if (entry := event.data.get("entry")) is not None:
                self._ticking[task] = entry
        elif event.kind in _OUTCOMES:
            self._conclude(task, event.kind)
        elif event.kind in {Kind.RECEIVED, Kind.STARTED}:
            self._hold(event, task)
            if event.kind is Kind.STARTED:
                self._started.add(task)
                self._running.add(task)
        elif event.kind in {Kind.REVOKED, Kind.DISCARDED} or event.data.get("state") in _FINAL_STATES:
            self._ended.add(task)
            self._held.pop(task, None)
            self._running.discard(task)
        elif event.kind is Kind.RETRIED:
            self._retries[task] += 1
        elif event.kind is Kind.FINISHED:
            self._let_go(task, event.node)
            self._running.discard(task)

    def _conclude(self, task: str, outcome: Kind) -> None:
        """A send came to its outcome; what was accepted once stays so."""
        if self._outcomes.get(task) is not Kind.ACCEPTED:
            self._outcomes[task] = outcome
        if outcome is Kind.ACCEPTED and (entry := self._ticking.pop(task, None)) is not None:
            self.ticks[entry] += 1

    def _hold(self, event: Event, task: str) -> None:
        """Whoever took a task last holds it. A retry can be taken before the execution that asked for it has ended."""
        before = self._held.get(task)
        times = 0
        if before is not None and before.node == event.node and before.t >= self._up.get(event.node, 0.0):
            times = before.times
        if event.kind is Kind.RECEIVED or not times:
            times += 1
        self._held[task] = _Hold(event.node, event.t, times)

    def _let_go(self, task: str, node: str) -> None:
        held = self._held.get(task)
        if held is None or held.node != node:
            return
        if held.times > 1:
            self._held[task] = held._replace(times=held.times - 1)
        else:
            del self._held[task]

    @property
    def sent(self) -> int:
        """How many tasks somebody intended to send."""
        return len(self._outcomes)

    @property
    def ended(self) -> int:
        """How many tasks came to an end, whichever."""
        return len(self._ended & self._outcomes.keys())

    def retries(self, task: str) -> int:
        """How often a task asked to run again."""
        return self._retries[task]

    def holder(self, task: str) -> str | None:
        """The node that took a task last and did not end it."""
        return self._held[task].node if task in self._held else None

    def started(self) -> set[str]:
        """The tasks that a worker began at least once."""
        return set(self._started)

    def open(self) -> set[str]:
        """The tasks that were not refused and have not ended."""
        return {task for task, outcome in self._outcomes.items() if outcome is not Kind.REFUSED} - self._ended

    def held(self, alive: Collection[str], *, unacked: bool) -> set[str]:
        """The tasks that a worker has taken and not ended; what a node held before it died or restarted is not held.

        Args:
            alive: the names of the nodes that run now.
            unacked: whether the broker waits for any acknowledgement. If it does not, then a task that was received
                and did not begin is held by nobody: it was acknowledged, and dropped.
        """
        return {
            task
            for task, (node, t, _) in self._held.items()
            if node in alive
            and t >= self._up.get(node, 0.0)
            and task not in self._ended
            and (unacked or task in self._running)
        }
