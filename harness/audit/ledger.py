"""The ledger: what the journal tells while a run still goes on. It decides nothing; the audit does that.

It counts executions, not ids. A message can be delivered to several workers, and several times; each execution has a
process that runs it, and is open until it ends or that process is gone.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from harness.records.event import Event, Kind
from harness.records.journal import Follower
from harness.records.message import DEFAULT_QUEUE, UNLOCK

if TYPE_CHECKING:
    from harness.records.values import Json

_OUTCOMES = frozenset({Kind.ACCEPTED, Kind.REFUSED, Kind.UNKNOWN})
# A task that is ignored may have been replaced by another of the same id, and a rejected one put back into its queue.
_FINAL_STATES = frozenset({"SUCCESS", "FAILURE"})
_TO_RUN_AGAIN = "RETRY"
_TERMINATED = "terminated"


class Unended(NamedTuple):
    """A task that was not refused and has not ended."""

    name: str
    queue: str
    """Where it was sent, as far as its sender said."""
    due_t: float | None
    """Unix time in seconds before which it is not to run; None for at once."""
    expires_t: float | None
    """Unix time in seconds from when on it is not to run any more."""


class Received(NamedTuple):
    """Messages of one task that a worker has received and not begun."""

    node: str
    task: str
    name: str
    messages: int
    t: float
    """When the last one was received: Unix time in seconds."""
    eta: float | None
    """Until when the worker holds it back: Unix time in seconds."""


class Running(NamedTuple):
    """An execution that began and did not end, in a process that is there."""

    node: str
    pid: int
    task: str
    name: str
    t: float
    """When it began: Unix time in seconds."""


@dataclass
class Chord:
    """A `celery.chord_unlock` that waits for the members of its chord."""

    task: str
    body: str
    """The id of the task that is to follow the members."""
    members: Collection[str]
    attempts: int = 0
    """How often it looked, and did not find all results."""
    begun_t: float = 0.0
    """When it last began to look: Unix time in seconds."""
    last_attempt_t: float = 0.0
    """When it began to look the last time that it did not find all results."""


@dataclass
class _Process:
    """The executions that are open in one process."""

    name: str = ""
    """The name of the task that it began last."""
    began: dict[str, list[float]] = field(default_factory=dict)
    """Per task, when each of its open executions began."""
    names: dict[str, str] = field(default_factory=dict)
    """The names of these tasks."""


class Ledger:
    """Follows the journal of a run: which tasks were sent, which executions are open, which tasks have ended."""

    def __init__(self, folder: Path) -> None:
        """Follows the journal files in `folder`; nothing is read until `update`."""
        self._follower = Follower(folder)
        self._outcomes: dict[str, Kind] = {}
        self._unended: dict[str, Unended] = {}
        self._ended: set[str] = set()
        self._ended_of_sent = 0
        self._starts: Counter[str] = Counter()
        self._retries: Counter[str] = Counter()
        self._processes: dict[tuple[str, int], _Process] = {}
        self._waiting: dict[tuple[str, str], Received] = {}
        self._unreceived: dict[tuple[str, str], float] = {}
        """Executions whose receipt was not read yet: per node and task, when the last one began."""
        self._gone: dict[tuple[str, int], float] = {}
        """Per node and process, when it was seen to be gone."""
        self._up: dict[str, float] = {}
        self._chords: dict[str, Chord] = {}
        self._ticking: dict[str, str] = {}
        """The entries that beat is sending, by task."""
        self._of_workers: set[str] = set()
        """The nodes that are workers."""
        self.sent_to_app = 0
        """How many tasks somebody else than a worker intended to send."""
        self.ticks: Counter[str] = Counter()
        """How often beat has sent each entry of its schedule, and the broker has taken it."""
        self.senders: Counter[tuple[str, str]] = Counter()
        """How often a task of one name sent tasks of another: the sender's name, the sent one's name."""
        self.consumes: dict[str, Mapping[str, Mapping[str, Json]]] = {}
        """Per worker, the queues that it consumed when it was ready, each with what it is declared with."""
        self.last_motion_t = 0.0
        """When something last happened to a task that does not only wait for a chord: Unix time in seconds."""
        self._takes = {
            Kind.INTENDED: self._intend,
            Kind.RECEIVED: self._receive,
            Kind.STARTED: self._start,
            Kind.FINISHED: self._finish,
            Kind.RETRIED: self._retry,
            Kind.REVOKED: self._drop,
            Kind.DISCARDED: self._drop,
        }
        self.listeners: list[Callable[[Event], None]] = []
        """Each is shown every event, in the order of time as far as `update` can tell."""

    def update(self) -> None:
        """Read what was added to the journal since the last time."""
        # Files are read one after another, so a task's end can be read before its beginning was. Within one
        # update the order of time is the order of the events; across updates an end is never taken back.
        for event in sorted(self._follower.read(), key=lambda event: event.t):
            for listener in self.listeners:
                listener(event)
            if event.kind is Kind.OPENED and event.data.get("role") == "worker":
                self._of_workers.add(event.node)
            elif event.kind is Kind.UP:
                self._up[event.node] = event.t
                self._forget(event.node)
            elif event.kind is Kind.READY:
                self.consumes[event.node] = dict(event.data.get("queues") or {})
            elif event.kind is Kind.EXITED:
                self._lose(event.node, int(event.data.get("child", 0)), event.t)
            elif event.task is not None:
                self._take(event, event.task)

    def _take(self, event: Event, task: str) -> None:
        if task not in self._chords and event.data.get("name") != UNLOCK:
            self.last_motion_t = max(self.last_motion_t, event.t)
        if event.kind in _OUTCOMES:
            self._conclude(task, event.kind)
        elif (take := self._takes.get(event.kind)) is not None:
            take(event, task)

    def _retry(self, _event: Event, task: str) -> None:
        self._retries[task] += 1

    def _drop(self, event: Event, task: str) -> None:
        """A worker will not run a message that it has received; or it stops to run it, which its process tells."""
        if not str(event.data.get("reason", "")).startswith(_TERMINATED):
            self._begin_one(event.node, task)
        self._end(task)

    def _intend(self, event: Event, task: str) -> None:
        data = event.data
        if task not in self._outcomes:
            self._outcomes[task] = Kind.INTENDED
            self._ended_of_sent += task in self._ended
            self.sent_to_app += event.node not in self._of_workers
        if task not in self._ended:
            self._unended[task] = Unended(
                str(data.get("name", "")), str(data.get("queue", DEFAULT_QUEUE)), data.get("due"), data.get("expires")
            )
        if (members := data.get("members")) is not None:
            body = next(iter(data.get("follow") or ()), "")
            self._chords.setdefault(task, Chord(task=task, body=body, members=members))
        if (entry := data.get("entry")) is not None:
            self._ticking[task] = entry
            self.senders["beat", str(data.get("name", ""))] += 1
        elif (process := self._processes.get((event.node, event.pid))) is not None:
            self.senders[process.name, str(data.get("name", ""))] += 1

    def _conclude(self, task: str, outcome: Kind) -> None:
        """A send came to its outcome; what was accepted once stays so."""
        if self._outcomes.get(task) is not Kind.ACCEPTED:
            self._outcomes[task] = outcome
            if outcome is Kind.REFUSED:
                self._unended.pop(task, None)
        if outcome is Kind.ACCEPTED and (entry := self._ticking.pop(task, None)) is not None:
            self.ticks[entry] += 1

    def _receive(self, event: Event, task: str) -> None:
        key = event.node, task
        if event.t <= self._unreceived.pop(key, 0.0):
            return  # Its execution was read before.
        before = self._waiting.get(key)
        messages = before.messages if before else 0
        # The broker delivers again what it has taken back, so that what the worker had of it is void.
        messages = max(messages, 1) if event.data.get("redelivered") else messages + 1
        name = str(event.data.get("name", ""))
        self._waiting[key] = Received(event.node, task, name, messages, event.t, event.data.get("eta"))

    def _start(self, event: Event, task: str) -> None:
        self._starts[task] += 1
        if not self._begin_one(event.node, task):
            self._unreceived[event.node, task] = event.t
        where = event.node, event.pid
        if event.t < max(self._gone.get(where, 0.0), self._up.get(event.node, 0.0)):
            return  # It is over by now.
        if (chord := self._chords.get(task)) is not None:
            chord.begun_t = event.t
        process = self._processes.setdefault(where, _Process())
        process.name = process.names[task] = str(event.data.get("name", ""))
        process.began.setdefault(task, []).append(event.t)

    def _begin_one(self, node: str, task: str) -> bool:
        """Take one message out of a worker's hands; False if it had none."""
        waiting = self._waiting.pop((node, task), None)
        if waiting is not None and waiting.messages > 1:
            self._waiting[node, task] = waiting._replace(messages=waiting.messages - 1)
        return waiting is not None

    def _finish(self, event: Event, task: str) -> None:
        pid: int | None = event.pid
        if event.data.get("outside"):
            # The parent process speaks for a child; which one, it does not say.
            pid = next((run.pid for run in self.running() if (run.node, run.task) == (event.node, task)), None)
        if pid is None or not self._close(event.node, pid, task):
            # A child that died before it said that it began.
            self._begin_one(event.node, task)
        if event.data.get("state") in _FINAL_STATES:
            self._end(task)
        elif event.data.get("state") == _TO_RUN_AGAIN and (chord := self._chords.get(task)) is not None:
            chord.attempts += 1
            chord.last_attempt_t = chord.begun_t

    def _close(self, node: str, pid: int, task: str) -> bool:
        process = self._processes.get((node, pid))
        began = process.began.get(task) if process else None
        if process is None or not began:
            return False
        began.pop(0)
        if not began:
            del process.began[task], process.names[task]
        return True

    def _end(self, task: str) -> None:
        if task not in self._ended:
            self._ended.add(task)
            self._ended_of_sent += task in self._outcomes
        self._unended.pop(task, None)
        self._chords.pop(task, None)

    def _lose(self, node: str, pid: int, t: float) -> None:
        """A process is gone, and with it what it ran."""
        self._gone[node, pid] = t
        self._processes.pop((node, pid), None)

    def _forget(self, node: str) -> None:
        """A node began anew: what it had in hand is in its hands no more."""
        for where in [where for where in self._processes if where[0] == node]:
            del self._processes[where]
        for key in [key for key in self._waiting if key[0] == node]:
            del self._waiting[key]

    @property
    def sent(self) -> int:
        """How many tasks somebody intended to send."""
        return len(self._outcomes)

    @property
    def ended(self) -> int:
        """How many tasks came to an end, whichever."""
        return self._ended_of_sent

    def has_ended(self, task: str) -> bool:
        """Whether a task came to an end at least once."""
        return task in self._ended

    def retries(self, task: str) -> int:
        """How often a task asked to run again."""
        return self._retries[task]

    def starts(self, task: str) -> int:
        """How often a worker began a task."""
        return self._starts[task]

    def holder(self, task: str) -> str | None:
        """The node that has a task in hand: of several the one that took it last."""
        held: list[Running | Received] = [run for run in self.running() if run.task == task]
        held += [waiting for waiting in self._waiting.values() if waiting.task == task]
        return max(held, key=lambda one: one.t).node if held else None

    def started(self) -> set[str]:
        """The tasks that a worker began at least once."""
        return set(self._starts)

    def open(self) -> set[str]:
        """The tasks that were not refused and have not ended."""
        return set(self._unended)

    @property
    def unended(self) -> dict[str, Unended]:
        """What is known of the tasks that were not refused and have not ended, by id."""
        return self._unended

    @property
    def chords(self) -> Collection[Chord]:
        """The chords that still wait for their members."""
        return self._chords.values()

    def running(self, alive: Collection[str] | None = None) -> Iterator[Running]:
        """The open executions of the nodes that are alive, or of all."""
        for (node, pid), process in self._processes.items():
            if alive is None or node in alive:
                for task, began in process.began.items():
                    for t in began:
                        yield Running(node, pid, task, process.names[task], t)

    def received(self, alive: Collection[str]) -> Iterator[Received]:
        """What the workers that are alive have received and not begun."""
        return (waiting for waiting in self._waiting.values() if waiting.node in alive)

    def held(self, alive: Collection[str], *, unacked: bool) -> set[str]:
        """The tasks that a worker has in hand: an execution that is open, or a message that it has not begun.

        Args:
            alive: the names of the nodes that run now.
            unacked: whether the broker waits for any acknowledgement. If it does not, then a task that was received
                and did not begin is held by nobody: it was acknowledged, and dropped.
        """
        held = {run.task for run in self.running(alive)}
        if unacked:
            held |= {waiting.task for waiting in self.received(alive)}
        return held
