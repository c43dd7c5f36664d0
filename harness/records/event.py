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
"""What can become of a send."""
FINAL_STATES = frozenset({"SUCCESS", "FAILURE"})
"""The states of an execution after which the task is not run again.

An ignored task may have been replaced by another one of the same id, and a rejected one may be back in its queue.
"""
TO_RUN_AGAIN = "RETRY"
"""The state of an execution that asked to run again."""


class Opened(TypedDict, total=False):
    """The first line of a file: who writes it."""

    node: str
    pid: int
    role: str
    """`producer`, `worker`, `beat`, `mailbox` or what else the process is."""
    format: int


class Up(TypedDict, total=False):
    """The process is there."""

    argv: Sequence[str]
    versions: Mapping[str, str]


class Ready(TypedDict, total=False):
    """A worker consumes, beat schedules, a server listens."""

    queues: Mapping[str, Json]
    """A worker's queues, each with what it is declared with."""
    at: float
    """When beat was ready, by its own clock."""
    port: int


class Settings(TypedDict, total=False):
    """What a worker or beat runs with. Beside these members, any setting of Celery's by its name."""

    concurrency: int
    confirm_publish: bool
    timezone: str
    enable_utc: bool
    result_expires: float | None
    scheduler: str
    schedule: Sequence[Mapping[str, Json]]
    """Each entry of beat's schedule, by `entry`."""
    at: float
    """When beat began, by its own clock."""
    shadowed: Sequence[Mapping[str, Json]]
    """Each periodic task whose place another one took."""


class Embedded(TypedDict, total=False):
    """A worker's own beat begins."""

    parent: int
    """The process id of the worker."""


class Schedule(TypedDict, total=False):
    """Beat's schedule was changed."""

    until: float
    """The last time at which the old one was surely in force, by beat's clock."""
    at: float
    """The first time at which the new one surely is, by beat's clock."""
    schedule: Sequence[Mapping[str, Json]]


class Woke(TypedDict, total=False):
    """Beat looked for what is due."""

    at: float
    took_s: float
    next: float
    """When it means to wake again, by its own clock."""
    planned_s: float
    """How long it took to plan all entries anew."""


class Unsent(TypedDict, total=False):
    """Beat could not send an entry."""

    entry: str
    at: float
    reason: str


class Died(TypedDict, total=False):
    """Beat ended with an error."""

    error: str


class Down(TypedDict, total=False):
    """The process ended in good order."""

    signal: str


class Intended(TypedDict, total=False):
    """Somebody is about to publish a task."""

    name: str
    retries: int
    due: float
    """When it is due, Unix time in seconds; the time of the line if it is left out."""
    expires: float
    expect: Mapping[str, Json]
    """See `Expect.to_json`."""
    effects: Sequence[str]
    queue: str
    """Where it is sent to; Celery's default queue if it is left out."""
    parent: str
    """The id of the task that sends it."""
    follow: Sequence[str]
    """The ids of the tasks and groups that follow it."""
    steps: Sequence[Mapping[str, Json]]
    """The tasks that follow it; see `harness.records.message.Step`."""
    members: Sequence[str]
    """The ids of those that a chord waits for."""
    entry: str
    """The entry of beat's schedule."""
    at: float
    """When beat sent it, by its own clock."""
    following: Sequence[float]
    """Two times between which the schedule has the next one."""


class Accepted(TypedDict, total=False):
    """The broker has it."""

    confirmed: bool
    """Whether the broker said so; without confirms nobody knows more than that it was written to a socket."""


class Refused(TypedDict, total=False):
    """The broker refused it, or nobody knows what became of it."""

    reason: str


class Received(TypedDict, total=False):
    """A worker took a message from a queue."""

    name: str
    redelivered: bool
    eta: float


class Started(TypedDict, total=False):
    """An execution begins."""

    name: str
    retries: int
    redelivered: bool


class Finished(TypedDict, total=False):
    """An execution ended."""

    state: str
    error: str
    traceback: str
    ignored: bool
    """No row is to be expected."""
    outside: bool
    """The parent process says so of a child that was killed; the execution itself never came to an end."""
    peak_kb: int
    """The most memory that the process has had resident so far, where that has grown."""
    store_s: float
    """How long the result back end took, in seconds."""
    returned: Sequence[Json]
    """A list of one, the result, where the back end does not write results as JSON."""
    start: str
    digest: str


class Ended(TypedDict, total=False):
    """The task asked to run again, or will not run, or its message was thrown away."""

    reason: str
    content_type: str


class Errback(TypedDict, total=False):
    """The errbacks of a failed task were called."""

    names: Sequence[str]


class Exited(TypedDict, total=False):
    """A child process is gone."""

    child: int
    code: int
    """Of a signal: its number, negative."""


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
"""What a line of each kind holds, beside its number, its time, its kind and its task."""
MEMBERS: Mapping[Kind, frozenset[str]] = MappingProxyType(
    {kind: frozenset(line.__annotations__) for kind, line in LINES.items()}
)
"""The names of these members."""
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
        """Return the members of the line, as its kind has them. A line that somebody else wrote may hold anything."""
        return cast("_L", self.data)
