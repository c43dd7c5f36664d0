"""One line of a journal, and the kinds of lines. Runs in every container: standard library only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TypedDict, TypeVar, cast

from harness.records.values import Json


class Kind(StrEnum):
    """The kind of a journal line: what happened.

    The publisher of a task writes `intended`, then one of `accepted`, `refused`, `unknown`. The worker writes
    `received`, `started`, `finished`, and `retried`, `revoked`, `discarded` or `errback` where they apply. A process
    writes about itself: `opened` (the first line of a file), `up`, `ready`, `settings`, `down`, and `exited` about a
    child process that has ended. Beat writes `embedded` (a worker's own beat begins), `schedule` (it changed), `woke`,
    `unsent` (an entry could not be sent) and `died` (beat ended with an error).
    """

    OPENED = "opened"
    UP = "up"
    READY = "ready"
    SETTINGS = "settings"
    DOWN = "down"
    WOKE = "woke"
    EMBEDDED = "embedded"
    SCHEDULE = "schedule"
    UNSENT = "unsent"
    DIED = "died"
    INTENDED = "intended"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    RECEIVED = "received"
    STARTED = "started"
    FINISHED = "finished"
    RETRIED = "retried"
    REVOKED = "revoked"
    DISCARDED = "discarded"
    ERRBACK = "errback"
    EXITED = "exited"


OUTCOMES = frozenset({Kind.ACCEPTED, Kind.REFUSED, Kind.UNKNOWN})
"""The possible outcomes of a send."""
FINAL_STATES = frozenset({"SUCCESS", "FAILURE"})
"""The states of an execution after which the task is not run again.

An ignored task may have been replaced by another one of the same id, and a rejected one may be back in its queue.
"""
TO_RUN_AGAIN = "RETRY"
"""The state of an execution that asked to run again."""


class Opened(TypedDict, total=False):
    """The first line of a file; it describes the process that writes the file."""

    node: str
    pid: int
    role: str
    """The role of the process: `producer`, `worker`, `beat`, `mailbox`, or `celery` for any other command of Celery."""
    format: int


class Up(TypedDict, total=False):
    """A process has started."""

    argv: Sequence[str]
    versions: Mapping[str, str]


class Ready(TypedDict, total=False):
    """A worker consumes, beat schedules, or a server listens."""

    queues: Mapping[str, Json]
    """A worker's queues by name, each with the `arguments` of its declaration."""
    at: float
    """The time when beat was ready, by beat's clock."""
    port: int


class Settings(TypedDict, total=False):
    """The settings of a worker or of beat. A line may have any other setting of Celery under its name too."""

    concurrency: int
    confirm_publish: bool
    timezone: str
    enable_utc: bool
    result_expires: float | None
    scheduler: str
    schedule: Sequence[Mapping[str, Json]]
    """The entries of beat's schedule; the name of each is its `entry`."""
    at: float
    """The time when beat began, by beat's clock."""
    shadowed: Sequence[Mapping[str, Json]]
    """The periodic tasks that another one of the same name replaced."""


class Embedded(TypedDict, total=False):
    """The beat inside a worker begins."""

    parent: int
    """The process id of the worker."""


class Schedule(TypedDict, total=False):
    """Beat's schedule has changed."""

    until: float
    """The last time at which the old schedule was certainly in force, by beat's clock."""
    at: float
    """The first time at which the new schedule was certainly in force, by beat's clock."""
    schedule: Sequence[Mapping[str, Json]]


class Woke(TypedDict, total=False):
    """Beat checked which entries were due."""

    at: float
    took_s: float
    next: float
    """The time when beat intends to wake again, by beat's clock."""
    planned_s: float
    """The duration of planning all entries again, in seconds; left out if beat did not plan."""


class Unsent(TypedDict, total=False):
    """Beat could not send an entry."""

    entry: str
    at: float
    reason: str


class Died(TypedDict, total=False):
    """Beat ended with an error."""

    error: str


class Down(TypedDict, total=False):
    """The process has ended in good order."""

    signal: str


class Intended(TypedDict, total=False):
    """A task is about to be published."""

    name: str
    retries: int
    due: float
    """The time when the task is due, Unix time in seconds; left out if that is the time of the line."""
    expires: float
    expect: Mapping[str, Json]
    """The expected outcome; see `harness.records.expectation.Expect.to_json`."""
    effects: Sequence[str]
    queue: str
    """The queue that the task is sent to; left out for Celery's default queue."""
    parent: str
    """The id of the task that sends it."""
    follow: Sequence[str]
    """The ids of the tasks and groups that follow it."""
    steps: Sequence[Mapping[str, Json]]
    """The tasks that follow it; see `harness.records.message.Step`."""
    members: Sequence[str]
    """The ids of the tasks that the chord waits for, if this is its `celery.chord_unlock`."""
    entry: str
    """The name of the entry of beat's schedule that sends it."""
    at: float
    """The time when beat sent the task, by beat's clock."""
    following: Sequence[float]
    """The earliest and the latest time of the entry's next tick, by the schedule's own answer and beat's clock."""


class Accepted(TypedDict, total=False):
    """The broker has accepted a task."""

    confirmed: bool
    """True if the broker confirmed it; without confirms, it is known only that the message was written to a socket."""


class Refused(TypedDict, total=False):
    """The broker has refused a task (`refused`), or nobody knows whether it has the task (`unknown`)."""

    reason: str


class Received(TypedDict, total=False):
    """A worker has received a task from a queue."""

    name: str
    redelivered: bool
    eta: float


class Started(TypedDict, total=False):
    """An execution of a task has begun."""

    name: str
    retries: int
    redelivered: bool


class Finished(TypedDict, total=False):
    """An execution of a task has ended."""

    state: str
    error: str
    traceback: str
    ignored: bool
    """True if no row of results is expected; else left out."""
    outside: bool
    """True if the parent process reports a killed child, whose execution itself never ended; else left out."""
    peak_kb: int
    """The peak resident memory of the process so far, in KiB; left out if it has not grown."""
    store_s: float
    """The time that the result backend took for this execution, in seconds."""
    returned: Sequence[Json]
    """A list with one item, the result; only for a backend that does not write results as JSON."""
    start: str
    digest: str


class Ended(TypedDict, total=False):
    """A task asked to run again, will not run, or was discarded with its message."""

    reason: str
    content_type: str


class Errback(TypedDict, total=False):
    """The errbacks of a failed task are called."""

    names: Sequence[str]


class Exited(TypedDict, total=False):
    """A child process has ended."""

    child: int
    code: int
    """The exit code; for a signal its number, negative."""


Line = (
    Opened
    | Up
    | Ready
    | Settings
    | Embedded
    | Schedule
    | Woke
    | Unsent
    | Died
    | Down
    | Intended
    | Accepted
    | Refused
    | Received
    | Started
    | Finished
    | Ended
    | Errback
    | Exited
)
LINES: Mapping[Kind, type[Line]] = MappingProxyType(
    {
        Kind.OPENED: Opened,
        Kind.UP: Up,
        Kind.READY: Ready,
        Kind.SETTINGS: Settings,
        Kind.DOWN: Down,
        Kind.WOKE: Woke,
        Kind.EMBEDDED: Embedded,
        Kind.SCHEDULE: Schedule,
        Kind.UNSENT: Unsent,
        Kind.DIED: Died,
        Kind.INTENDED: Intended,
        Kind.ACCEPTED: Accepted,
        Kind.REFUSED: Refused,
        Kind.UNKNOWN: Refused,
        Kind.RECEIVED: Received,
        Kind.STARTED: Started,
        Kind.FINISHED: Finished,
        Kind.RETRIED: Ended,
        Kind.REVOKED: Ended,
        Kind.DISCARDED: Ended,
        Kind.ERRBACK: Errback,
        Kind.EXITED: Exited,
    }
)
"""The members of a line of each kind, beside its number, its time, its kind and its task."""
MEMBERS: Mapping[Kind, frozenset[str]] = MappingProxyType(
    {kind: frozenset(line.__annotations__) for kind, line in LINES.items()}
)
"""The names of these members, per kind."""
_L = TypeVar("_L", bound=Line)


@dataclass(frozen=True, kw_only=True)
class Event:
    """One line of a journal."""

    kind: Kind
    t: float
    """Unix time in seconds, by the clock of the machine that the process ran on."""
    n: int
    """The line's number in its file, from 0; a gap means that a line was lost."""
    node: str
    pid: int
    task: str | None = None
    data: Mapping[str, Json] = field(default_factory=dict)
    """The other members of the line; the docstrings of the writers list them."""

    def of(self, line: type[_L]) -> _L:  # noqa: ARG002 - the type alone is of interest.
        """Return the members of the line, typed as `line`. They are not checked: a foreign line may have any."""
        return cast("_L", self.data)
