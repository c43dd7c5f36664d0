"""The ledger: the state of a run by its journal, while the run goes on. It makes no judgement; the audit does.

It counts executions, not ids. A message can be delivered to several workers, and several times. Each execution has a
process that runs it, and is open until it ends or that process is gone.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from harness.records.event import (
    FINAL_STATES,
    OUTCOMES,
    TO_RUN_AGAIN,
    Ended,
    Event,
    Exited,
    Finished,
    Intended,
    Kind,
    Opened,
    Ready,
    Settings,
    Started,
)
from harness.records.event import Received as ReceivedLine
from harness.records.journal import Follower
from harness.records.message import DEFAULT_QUEUE, UNLOCK
from harness.records.route import Routes

if TYPE_CHECKING:
    from harness.records.values import Json

_TERMINATED = "terminated"


class Unended(NamedTuple):
    """A task that was not refused and has not ended."""

    name: str
    queue: str
    """The queue that its sender named; Celery's default if none was named."""
    due_t: float | None
    """The time before which it does not run, Unix time in seconds; None if it may run at once."""
    expires_t: float | None
    """The time when it expires, Unix time in seconds; None if it never does."""


class Received(NamedTuple):
    """Messages of one task that a worker has received and not begun."""

    node: str
    task: str
    name: str
    messages: int
    t: float
    """The time of the last receipt, Unix time in seconds."""
    eta: float | None
    """The time until which the worker holds it back, Unix time in seconds."""


class Running(NamedTuple):
    """An execution that began and did not end, in a process that still runs."""

    node: str
    pid: int
    task: str
    name: str
    t: float
    """The time when it began, Unix time in seconds."""


@dataclass
class Chord:
    """A `celery.chord_unlock` that waits for the members of its chord."""

    task: str
    body: str
    """The id of the task that follows the members."""
    members: Collection[str]
    attempts: int = 0
    """Number of looks that did not find all results."""
    begun_t: float = 0.0
    """The time of the last look, Unix time in seconds."""
    last_attempt_t: float = 0.0
    """The time of the last look that did not find all results, Unix time in seconds."""


@dataclass
class _Process:
    """The open executions of one process."""

    name: str = ""
    """The name of the task that it began last."""
    began: dict[str, list[float]] = field(default_factory=dict)
    """Per task, the times when its open executions began."""
    names: dict[str, str] = field(default_factory=dict)
    """The names of these tasks."""


class Ledger:
    """A follower of the journal of a run: the tasks sent, the open executions, the tasks ended."""

    def __init__(self, folder: Path) -> None:
        """Follow the journal files in `folder`; `update` reads them."""
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
        """Executions without a receipt so far: per node and task, the time when the last one began."""
        self._gone: dict[tuple[str, int], float] = {}
        """Per node and process, the time when the process was seen to be gone."""
        self._up: dict[str, float] = {}
        self._chords: dict[str, Chord] = {}
        self._ticking: dict[str, str] = {}
        """The schedule entry that beat is sending, per task."""
        self._of_workers: set[str] = set()
        """The names of the nodes that are workers."""
        self.sent_to_app = 0
        """Number of tasks that were intended by a node other than a worker."""
        self.ticks: Counter[str] = Counter()
        """Per schedule entry, the number of beat's sends that the broker has accepted."""
        self.senders: Counter[tuple[str, str]] = Counter()
        """Number of tasks that tasks have sent, by the sender's name and the sent task's name."""
        self.consumes: dict[str, Mapping[str, Mapping[str, Json]]] = {}
        """Per worker, the queues that it consumed when it was ready, each with its declaration."""
        self.heartbeats: dict[str, float] = {}
        """Per worker, the seconds between two heartbeats on its connection; 0 for none."""
        self._ready: set[str] = set()
        """The nodes that are ready since they came up, and did not say that they went down."""
        self.settings: dict[str, Settings] = {}
        """Per worker and beat, its settings."""
        self.routes = Routes()
        """The app's routes, as the worker says that was ready last; before that, Celery's default."""
        self.last_motion_t = 0.0
        """The time of the last event of a task other than a chord's unlock, Unix time in seconds."""
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
        """Callbacks for every event, in time order within one `update`."""

    def update(self) -> None:
        """Read the lines added to the journal since the last call."""
        # Files are read one after another, so the end of a task can be read before its beginning. Within one update,
        # events are sorted by time; across updates, an end is never taken back.
        for event in sorted(self._follower.read(), key=lambda event: event.t):
            for listener in self.listeners:
                listener(event)
            if event.kind is Kind.OPENED and event.of(Opened).get("role") == "worker":
                self._of_workers.add(event.node)
            elif event.kind is Kind.UP:
                self._up[event.node] = event.t
                self._ready.discard(event.node)
                self._forget(event.node)
            elif event.kind is Kind.SETTINGS:
                self.settings[event.node] = event.of(Settings)
            elif event.kind is Kind.READY:
                self._be_ready(event.node, event.of(Ready))
            elif event.kind is Kind.DOWN:
                self._ready.discard(event.node)
            elif event.kind is Kind.EXITED:
                self._lose(event.node, int(event.of(Exited).get("child", 0)), event.t)
            elif event.task is not None:
                self._take(event, event.task)

    def _be_ready(self, node: str, ready: Ready) -> None:
        self._ready.add(node)
        if (heartbeat_s := ready.get("heartbeat_s")) is not None:
            self.heartbeats[node] = heartbeat_s
        self.consumes[node] = dict(ready.get("queues") or {})
        self.routes = Routes.from_line(ready.get("default_route"), ready.get("routes")) or self.routes

    def _take(self, event: Event, task: str) -> None:
        if task not in self._chords and event.of(Intended).get("name") != UNLOCK:
            self.last_motion_t = max(self.last_motion_t, event.t)
        if event.kind in OUTCOMES:
            self._conclude(task, event.kind)
        elif (take := self._takes.get(event.kind)) is not None:
            take(event, task)

    def _retry(self, _event: Event, task: str) -> None:
        self._retries[task] += 1

    def _drop(self, event: Event, task: str) -> None:
        """Record that a worker will not run a message that it received, or that it stopped running it."""
        if not str(event.of(Ended).get("reason", "")).startswith(_TERMINATED):
            self._begin_one(event.node, task)
        self._end(task)

    def _intend(self, event: Event, task: str) -> None:
        data = event.of(Intended)
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
        """Record the outcome of a send; an accepted send stays accepted."""
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
        # After a redelivery, the message that the worker had before is void.
        data = event.of(ReceivedLine)
        messages = max(messages, 1) if data.get("redelivered") else messages + 1
        self._waiting[key] = Received(event.node, task, str(data.get("name", "")), messages, event.t, data.get("eta"))

    def _start(self, event: Event, task: str) -> None:
        self._starts[task] += 1
        if not self._begin_one(event.node, task):
            self._unreceived[event.node, task] = event.t
        where = event.node, event.pid
        if event.t < max(self._gone.get(where, 0.0), self._up.get(event.node, 0.0)):
            return  # Its process has ended by now.
        if (chord := self._chords.get(task)) is not None:
            chord.begun_t = event.t
        process = self._processes.setdefault(where, _Process())
        process.name = process.names[task] = str(event.of(Started).get("name", ""))
        process.began.setdefault(task, []).append(event.t)

    def _begin_one(self, node: str, task: str) -> bool:
        """Remove one message from those that a worker holds; return False if it had none."""
        waiting = self._waiting.pop((node, task), None)
        if waiting is not None and waiting.messages > 1:
            self._waiting[node, task] = waiting._replace(messages=waiting.messages - 1)
        return waiting is not None

    def _finish(self, event: Event, task: str) -> None:
        pid: int | None = event.pid
        data = event.of(Finished)
        if data.get("outside"):
            # The parent process reports the end of a child, and does not say which child.
            pid = next((run.pid for run in self.running() if (run.node, run.task) == (event.node, task)), None)
        if pid is None or not self._close(event.node, pid, task):
            # The child died before it reported that it began.
            self._begin_one(event.node, task)
        if data.get("state") in FINAL_STATES:
            self._end(task)
        elif data.get("state") == TO_RUN_AGAIN and (chord := self._chords.get(task)) is not None:
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
        """Record that a process is gone, and drop its executions."""
        self._gone[node, pid] = t
        self._processes.pop((node, pid), None)

    def _forget(self, node: str) -> None:
        """Drop all that a node held, because it began anew."""
        for where in [where for where in self._processes if where[0] == node]:
            del self._processes[where]
        for key in [key for key in self._waiting if key[0] == node]:
            del self._waiting[key]

    @property
    def consuming(self) -> dict[str, Collection[str]]:
        """Per worker that is ready and did not go down, the names of the queues that it should consume."""
        return {node: queues for node, queues in self.consumes.items() if node in self._ready}

    @property
    def sent(self) -> int:
        """Number of tasks that were intended to be sent."""
        return len(self._outcomes)

    @property
    def ended(self) -> int:
        """Number of intended tasks that ended, in any state."""
        return self._ended_of_sent

    def has_ended(self, task: str) -> bool:
        """Return whether a task ended at least once."""
        return task in self._ended

    def retries(self, task: str) -> int:
        """Return how often a task asked to run again."""
        return self._retries[task]

    def starts(self, task: str) -> int:
        """Return how often a worker began a task."""
        return self._starts[task]

    def holder(self, task: str) -> str | None:
        """Return the node that holds a task, of several the last one to take it; None if no node does."""
        held: list[Running | Received] = [run for run in self.running() if run.task == task]
        held += [waiting for waiting in self._waiting.values() if waiting.task == task]
        return max(held, key=lambda one: one.t).node if held else None

    def started(self) -> set[str]:
        """Return the tasks that a worker began at least once."""
        return set(self._starts)

    def open(self) -> set[str]:
        """Return the tasks that were not refused and have not ended."""
        return set(self._unended)

    @property
    def unended(self) -> dict[str, Unended]:
        """The tasks that were not refused and have not ended, by id."""
        return self._unended

    @property
    def chords(self) -> Collection[Chord]:
        """The chords that still wait for their members."""
        return self._chords.values()

    def running(self, alive: Collection[str] | None = None) -> Iterator[Running]:
        """Yield the open executions of the nodes in `alive`, or of all nodes."""
        for (node, pid), process in self._processes.items():
            if alive is None or node in alive:
                for task, began in process.began.items():
                    for t in began:
                        yield Running(node, pid, task, process.names[task], t)

    def received(self, alive: Collection[str]) -> Iterator[Received]:
        """Yield the messages that the nodes in `alive` have received and not begun."""
        return (waiting for waiting in self._waiting.values() if waiting.node in alive)

    def held(self, alive: Collection[str], *, unacked: bool) -> set[str]:
        """Return the tasks that a worker holds: an open execution, or a message that it has not begun.

        Args:
            alive: the names of the nodes that run now.
            unacked: whether the broker waits for any acknowledgement. If not, a task that was received and did not
                begin is held by no worker: it was acknowledged, and dropped.
        """
        held = {run.task for run in self.running(alive)}
        if unacked:
            held |= {waiting.task for waiting in self.received(alive)}
        return held
