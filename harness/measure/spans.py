"""The journal of a run as spans: each publishing and each execution of a task, with its begin, its end and its place.

Events have to come in the order of time. Memory is bounded by the tasks in flight, and by the last tasks that have
ended: their later executions are still linked to their publishing.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush

from harness.records.event import FINAL_STATES, OUTCOMES, Event, Exited, Finished, Intended, Kind, Started

_MOST_ENDED = 100_000
"""The tasks that have ended and are still known. One that runs again after that many others has no link."""
DIED = "DIED"
"""The state of an execution whose process was gone before it ended."""
OPEN = "OPEN"
"""The state of an execution, or the outcome of a publishing, that had not ended when the journal did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The place of an event: a process of a node, and a lane of it. Spans of one lane never overlap."""

    node: str
    pid: int
    lane: int
    is_run: bool
    """True for an execution, False for a publishing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The publishing of a task's message."""

    task: str
    name: str
    root: str
    """The task at the beginning: the one that was sent by no task."""
    place: Place
    begin_t: float
    end_t: float
    due_t: float
    outcome: str
    retries: int
    parent: str | None
    """The task that sent it."""
    parent_run: "RunKey | None"
    """The execution that sent it, if it is known."""
    parent_sent: "Sent | None"
    """The publishing of the task that sent it, if that is known."""
    number: int
    """The number of the publishing in this run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """One execution of a task."""

    key: "RunKey"
    task: str
    name: str
    root: str
    place: Place
    begin_t: float
    end_t: float
    state: str
    error: str | None
    retries: int
    redelivered: bool
    sent: "Sent | None"
    """Its publishing; None if that is not known."""


Span = Published | Ran
RunKey = tuple[str, str, int, int]
"""The identity of an execution: the task, the node, the process, and its number in this run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """The last publishing of a task, as far as it is known."""

    begin_t: float
    due_t: float
    place: Place
    root: str
    number: int
    """The number of the publishing in this run."""


class _Lanes:
    """The lanes of one process. The lowest that is free is taken, so that a process of one task has one lane."""

    def __init__(self) -> None:
        self._free: list[int] = []
        self._ends: list[float] = []

    def take(self, t: float) -> tuple[int, float]:
        """Return a lane, and the time from which it is used: not before the end of the last one there."""
        if not self._free:
            self._ends.append(t)
            return len(self._ends) - 1, t
        lane = heappop(self._free)
        return lane, max(t, self._ends[lane])

    def free(self, lane: int, t: float) -> None:
        """Give a lane back."""
        self._ends[lane] = t
        heappush(self._free, lane)


@dataclass(slots=True)
class _Sending:
    event: Event
    place: Place
    begin_t: float
    due_t: float
    root: str
    parent: str | None
    parent_run: RunKey | None
    parent_sent: Sent | None
    number: int


@dataclass(slots=True)
class _Running:
    key: RunKey
    event: Event
    place: Place
    begin_t: float


class Spans:
    """A converter of events into spans. Each span comes out when it ends."""

    def __init__(self) -> None:
        """Create it without events."""
        self._lanes: defaultdict[tuple[str, int, bool], _Lanes] = defaultdict(_Lanes)
        self._sending: dict[tuple[str, str, int], _Sending] = {}
        self._running: defaultdict[tuple[str, int], dict[str, list[_Running]]] = defaultdict(dict)
        self._sent: dict[str, Sent] = {}
        self._ended: dict[str, Sent] = {}
        self._number = 0
        self._last_t = 0.0
        self.running = 0
        """The executions that are open now."""

    def take(self, event: Event) -> Iterator[Span]:
        """Process one event, and yield what it ends."""
        self._last_t = max(self._last_t, event.t)
        kind, task = event.kind, event.task
        if kind is Kind.UP:
            yield from self._lose(event.node, None, event.t)
        elif kind is Kind.EXITED:
            yield from self._lose(event.node, int(event.of(Exited).get("child", 0)), event.t)
        elif task is None:
            return
        elif kind is Kind.INTENDED:
            yield from self._conclude(event, task, OPEN)
            self._intend(event, task)
        elif kind in OUTCOMES:
            yield from self._conclude(event, task, kind.value)
        elif kind is Kind.STARTED:
            self._start(event, task)
        elif kind is Kind.FINISHED:
            yield from self._finish(event, task)

    def end(self) -> Iterator[Span]:
        """Yield what never ended, as open until the last event."""
        for task, node, pid in list(self._sending):
            yield from self._concluded((task, node, pid), self._last_t, OPEN)
        for where in list(self._running):
            yield from self._closed(where, self._last_t, OPEN)

    def _known(self, task: str) -> Sent | None:
        return self._sent.get(task) or self._ended.get(task)

    def _intend(self, event: Event, task: str) -> None:
        data = event.of(Intended)
        here = self._running.get((event.node, event.pid), {})
        parent = data.get("parent")
        before = self._known(task)
        of_parent = self._known(parent) if parent is not None else None
        # A retry is sent by the task itself.
        sender = task if task in here else parent
        runs = here.get(sender or "")
        root = before.root if before else of_parent.root if of_parent else parent or task
        lane, begin_t = self._lanes[event.node, event.pid, False].take(event.t)
        place = Place(node=event.node, pid=event.pid, lane=lane, is_run=False)
        due_t = float(data.get("due", event.t))
        self._number += 1
        self._sending[task, event.node, event.pid] = _Sending(
            event=event,
            place=place,
            begin_t=begin_t,
            due_t=due_t,
            root=root,
            parent=parent,
            parent_run=runs[-1].key if runs else None,
            parent_sent=of_parent,
            number=self._number,
        )
        self._ended.pop(task, None)
        self._sent[task] = Sent(begin_t=begin_t, due_t=due_t, place=place, root=root, number=self._number)

    def _conclude(self, event: Event, task: str, outcome: str) -> Iterator[Span]:
        if (task, event.node, event.pid) in self._sending:
            yield from self._concluded((task, event.node, event.pid), event.t, outcome)

    def _concluded(self, key: tuple[str, str, int], t: float, outcome: str) -> Iterator[Span]:
        sending = self._sending.pop(key)
        data, place = sending.event.of(Intended), sending.place
        end_t = max(t, sending.begin_t)
        self._lanes[place.node, place.pid, False].free(place.lane, end_t)
        yield Published(
            task=key[0],
            name=str(data.get("name", "")),
            root=sending.root,
            place=place,
            begin_t=sending.begin_t,
            end_t=end_t,
            due_t=sending.due_t,
            outcome=outcome,
            retries=int(data.get("retries", 0)),
            parent=sending.parent,
            parent_run=sending.parent_run,
            parent_sent=sending.parent_sent,
            number=sending.number,
        )

    def _start(self, event: Event, task: str) -> None:
        self._number += 1
        lane, begin_t = self._lanes[event.node, event.pid, True].take(event.t)
        place = Place(node=event.node, pid=event.pid, lane=lane, is_run=True)
        key = (task, event.node, event.pid, self._number)
        self._running[event.node, event.pid].setdefault(task, []).append(_Running(key, event, place, begin_t))
        self.running += 1

    def _finish(self, event: Event, task: str) -> Iterator[Span]:
        data = event.of(Finished)
        where = (event.node, event.pid)
        if data.get("outside"):
            # The parent process reports a child that is gone, and does not say which one.
            found = (one for one in self._running if one[0] == event.node and task in self._running[one])
            where = next(found, where)
        state = str(data.get("state", ""))
        if runs := self._running.get(where, {}).get(task):
            yield self._ran(where, runs[0], event.t, state, data.get("error"))
        if state in FINAL_STATES and (sent := self._sent.pop(task, None)) is not None:
            self._ended[task] = sent
            if len(self._ended) > _MOST_ENDED:
                del self._ended[next(iter(self._ended))]

    def _lose(self, node: str, pid: int | None, t: float) -> Iterator[Span]:
        """Close what a process ran that is gone; None for all of a node that was started again."""
        for where in [one for one in self._running if one[0] == node and pid in {None, one[1]}]:
            yield from self._closed(where, t, DIED)

    def _closed(self, where: tuple[str, int], t: float, state: str) -> Iterator[Span]:
        for run in [run for runs in self._running[where].values() for run in runs]:
            yield self._ran(where, run, t, state, None)
        self._running.pop(where, None)

    def _ran(self, where: tuple[str, int], run: _Running, t: float, state: str, error: str | None) -> Ran:
        task, event, place = run.key[0], run.event, run.place
        of_task = self._running[where][task]
        of_task.remove(run)
        if not of_task:
            del self._running[where][task]
        self.running -= 1
        end_t = max(t, run.begin_t)
        self._lanes[place.node, place.pid, True].free(place.lane, end_t)
        data, sent = event.of(Started), self._known(task)
        return Ran(
            key=run.key,
            task=task,
            name=str(data.get("name", "")),
            root=sent.root if sent else task,
            place=place,
            begin_t=run.begin_t,
            end_t=end_t,
            state=state,
            error=None if error is None else str(error),
            retries=int(data.get("retries", 0)),
            redelivered=bool(data.get("redelivered")),
            sent=sent,
        )
