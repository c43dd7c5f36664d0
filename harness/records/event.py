"""One line of a journal, and the kinds of lines. Runs in every container: standard library only.

The file is long because each kind of line is defined with its members here, once for all who write or read it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TypedDict, TypeVar, cast

from harness.records.expectation import ExpectedOutcome
from harness.records.values import Json


class Kind(StrEnum):
    """The kind of a journal line: what happened.

    The publisher of a task writes `intended`, then one of `accepted`, `refused`, `unknown`. The producer of a canvas
    writes `expected` about a task that a worker will send. The worker writes
    `committed` when a transaction ends in which it sent a task,
    `received`, `started`, `finished`, and `retried`, `revoked`, `discarded` or `errback` where they apply. A process
    writes about itself: `opened` (the first line of a file), `up`, `ready`, `settings`, `options` of its tasks, `down`,
    and `exited` about a child process that has ended; a worker also `disconnected` (it has lost its connection to the
    broker) and `reconnected`, and a node whose clock can be moved `clock` (it has moved). Beat writes `embedded` (a
    worker's own beat begins), `schedule` (it changed), `woke`, `unsent` (an entry could not be sent) and `died` (beat
    ended with an error).
    """

    OPENED = "opened"
    UP = "up"
    READY = "ready"
    SETTINGS = "settings"
    OPTIONS = "options"
    DOWN = "down"
    WOKE = "woke"
    EMBEDDED = "embedded"
    SCHEDULE = "schedule"
    UNSENT = "unsent"
    DIED = "died"
    INTENDED = "intended"
    EXPECTED = "expected"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    RECEIVED = "received"
    STARTED = "started"
    FINISHED = "finished"
    RETRIED = "retried"
    REVOKED = "revoked"
    COMMITTED = "committed"
    DISCARDED = "discarded"
    ERRBACK = "errback"
    EXITED = "exited"
    DISCONNECTED = "disconnected"
    RECONNECTED = "reconnected"
    CLOCK = "clock"


OUTCOMES = frozenset({Kind.ACCEPTED, Kind.REFUSED, Kind.UNKNOWN})
"""The possible outcomes of a send."""
FINAL_STATES = frozenset({"SUCCESS", "FAILURE"})
"""The states of an execution after which the task is not run again.

An ignored task may have been replaced by another one of the same id, and a rejected one may be back in its queue.
"""
TO_RUN_AGAIN = "RETRY"
"""The state of an execution that asked to run again."""
UNWOUND = "UNKNOWN"
"""The state of an execution that is unwound while its process is stopped. It has not ended."""


class Opened(TypedDict, total=False):
    """The first line of a file; it describes the process that writes the file."""

    node: str
    """The name of the node."""
    pid: int
    """The process id, as the process itself sees it."""
    role: str
    """The role of the process: `producer`, `worker`, `beat`, `mailbox`, or `celery` for any other command of Celery."""
    format: int
    """The version of the journal's format."""


class Up(TypedDict, total=False):
    """A process has started. Only a process of Celery writes the members."""

    argv: Sequence[str]
    """The arguments of the `celery` command."""
    versions: Mapping[str, str]
    """The versions of `python`, `celery` and `kombu`, and of `sqlalchemy` if it is installed."""


class Ready(TypedDict, total=False):
    """A worker consumes, beat schedules, or the mailbox listens. Each of them writes one of the members."""

    queues: Mapping[str, Json]
    """A worker's queues by name, each with the `arguments` of its declaration, and whether it is `durable`."""
    heartbeat_s: float
    """The seconds between two heartbeats on a worker's connection, as agreed with the broker; 0 for none."""
    default_route: Mapping[str, Json]
    """Where the worker's app sends a task that has no route of its own; see `harness.records.route.Route`."""
    routes: Mapping[str, Json]
    """Where the worker's app sends its other tasks, by their names; left out if there is none."""
    at: float
    """The time when beat was ready, by beat's clock."""
    port: int
    """The TCP port of the mailbox inside its container."""


class Settings(TypedDict, total=False):
    """The settings of a worker or of beat. A worker's line also has other settings of Celery, each by its name."""

    confirm_publish: bool
    """True if the broker confirms the messages that this process publishes."""
    timezone: str
    """The name of the app's time zone."""
    concurrency: int
    """The number of tasks that the worker runs at once."""
    broker_heartbeat: float | None
    """Celery's setting, in seconds; only of a worker."""
    worker_concurrency: int | None
    """Celery's setting; only of a worker. An option of its command line wins over it."""
    enable_utc: bool
    """Celery's setting; only of a worker."""
    result_expires: float | None
    """Celery's setting, in seconds; only of a worker."""
    pool: str
    """The pool that the worker uses, such as `prefork` or `threads`."""
    prefetch_multiplier: int
    """The number of messages that the worker takes ahead for each task that it runs at once; 0 for any number."""
    time_limit: float
    """The hard limit of a task that has none of its own, in seconds; left out if there is none."""
    soft_time_limit: float
    """The soft limit of a task that has none of its own, in seconds; left out if there is none."""
    tasks: Sequence[str]
    """The names of the tasks that the app has registered, without Celery's own; only of a worker."""
    scheduler: str
    """The class of beat's scheduler, with its module."""
    at: float
    """The time when beat began, by beat's clock."""
    schedule: Sequence[Mapping[str, Json]]
    """The entries of beat's schedule. Each has its name as `entry`, the task's `name`, and its `kind`: `crontab`,
    `interval`, or `other` for a rule that the audit cannot calculate."""
    shadowed: Sequence[Mapping[str, Json]]
    """The periodic tasks that another one of the same name replaced. Each has the name as `entry`, the schedules that
    were `lost` and `kept`, and True as `named` if the app gave both of them the name."""


class Options(TypedDict, total=False):
    """The options that one task sets itself, or annotations set. One that is left out is as the app's settings say."""

    name: str
    """The task's registered name."""
    acks_late: bool
    acks_on_failure_or_timeout: bool
    acks_on_timeout: bool
    """Left out if it is the same as `acks_on_failure_or_timeout`."""
    reject_on_worker_lost: bool
    retry_on_worker_lost: bool
    ignore_result: bool
    time_limit: float
    soft_time_limit: float
    rate_limit: str
    serializer: str
    max_retries: int | None
    """The most retries, of those that `autoretry_for` causes if it is there; left out for Celery's own 3."""
    autoretry_for: Sequence[str]
    """The names of the classes of errors after which the task runs again by itself."""
    annotated: Mapping[str, str]
    """The options among them that `task_annotations` set, each with its key there: the task's name, or `*`."""


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
    """The entries of the new schedule, as in `Settings`."""


class Woke(TypedDict, total=False):
    """Beat has checked which entries are due, and has sent them."""

    at: float
    """The time when beat woke, by beat's clock; it may differ from the real time."""
    took_s: float
    """The duration of the check, with its sends, in seconds."""
    next: float
    """The time when beat intends to wake again, by beat's clock."""
    planned_s: float
    """The duration of planning all entries again, in seconds; left out if beat did not plan."""


class Unsent(TypedDict, total=False):
    """Beat could not send an entry."""

    entry: str
    """The name of the entry."""
    at: float
    """The time when the send had failed, by beat's clock."""
    reason: str
    """The class and the message of the error."""


class Died(TypedDict, total=False):
    """Beat ended with an error."""

    error: str
    """The class and the message of the error."""


class Down(TypedDict, total=False):
    """The process has ended in good order."""

    signal: str
    """The name of the signal that ended it, such as `SIGTERM`; only of the mailbox and of the web producer."""


class Intended(TypedDict, total=False):
    """A task is about to be published."""

    name: str
    """The task's registered name."""
    retries: int
    """The number of the retry that this message is for, 0 for the first execution; left out by a producer."""
    due: float
    """The time when the task is due, Unix time in seconds; left out if that is the time of the line."""
    expires: float
    """The time when the task expires, Unix time in seconds; left out if it never does."""
    expect: ExpectedOutcome
    """The expected outcome; left out for a SUCCESS with any result."""
    effects: Sequence[str]
    """The keys of the expected effects; left out if they are not checked."""
    queue: str
    """The queue that the task is sent to, or its routing key; left out for Celery's default queue."""
    transient: bool
    """True if the broker need not keep the message on disk (delivery mode 1); else left out."""
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


class Expected(TypedDict, total=False):
    """Something is expected of a task that another process will send."""

    expect: ExpectedOutcome
    """The expected outcome; left out for a SUCCESS with any result."""
    effects: Sequence[str]
    """The keys of the expected effects; left out if they are not checked."""


class Accepted(TypedDict, total=False):
    """The broker has accepted a task."""

    confirmed: bool
    """True if the broker confirmed it; without confirms, it is known only that the message was written to a socket."""


class Refused(TypedDict, total=False):
    """The broker has refused a task (`refused`), or nobody knows whether it has the task (`unknown`)."""

    reason: str
    """The reason, as text."""


class Committed(TypedDict, total=False):
    """The transaction of the app's database in which a task was sent has ended."""

    rolled_back: bool
    """True if it was rolled back; else left out."""


class Received(TypedDict, total=False):
    """A worker has received a task from a queue."""

    name: str
    """The task's registered name."""
    redelivered: bool
    """True if the broker had delivered the message before."""
    eta: float
    """The time before which the task must not run, Unix time in seconds; left out if there is none."""


class Started(TypedDict, total=False):
    """An execution of a task has begun."""

    name: str
    """The task's registered name."""
    retries: int
    """The number of this retry; 0 for the first execution."""
    redelivered: bool
    """True if the broker had delivered the message before."""


class Finished(TypedDict, total=False):
    """An execution of a task has ended; `state` and `outside` tell the exceptions."""

    state: str
    """Celery's state, such as SUCCESS, FAILURE or RETRY. It is UNKNOWN for an execution that is unwound while its
    process is stopped (a hard time limit, a termination, a shutdown); such an execution has not ended."""
    error: str
    """The class and the message of the exception that the execution raised; left out if it raised none."""
    traceback: str
    """The end of the traceback; only for the first few failures with one class of exception in a process."""
    ignored: bool
    """True if no row of results is expected; else left out."""
    outside: bool
    """True if the parent process reports a killed child, whose execution itself never ended; else left out."""
    peak_kb: int
    """The peak resident memory of the process so far, in KiB; left out if it has not grown."""
    rss_kb: int
    """The resident memory of the process now, in KiB; only of every fiftieth execution of a process."""
    ran: int
    """The number of executions that the process has ended by now; only together with `rss_kb`."""
    store_s: float
    """The time that the result backend took for this execution, in seconds."""
    since_store_s: float
    """The time from when the result was stored to this line, in seconds; left out if it is below `LATE_WORD_S`."""
    returned: Sequence[Json]
    """A list with one item, the result; only for a backend that does not write results as JSON."""
    start: str
    """The beginning of the JSON text of a long result, which has this and `digest` in place of `returned`."""
    digest: str
    """The digest of a long result; see `harness.records.values.digest`."""


class Ended(TypedDict, total=False):
    """A task asked to run again (`retried`), or will not run (`revoked`)."""

    reason: str
    """The reason, as text."""


class Discarded(Ended, total=False):
    """A worker has discarded a message, and the task with it if the message sends one."""

    content_type: str
    """The content type of the message; left out for a task that the worker does not know."""


class Errback(TypedDict, total=False):
    """The errbacks of a failed task are called."""

    names: Sequence[str]
    """The registered names of the errbacks."""


class Disconnected(TypedDict, total=False):
    """A worker has lost its connection to the broker, as far as it has noticed, or consumes again (no members)."""

    reason: str
    """The class and the message of the error."""


class Clock(TypedDict, total=False):
    """The wall clock of a process has moved."""

    offset_s: float
    """The seconds by which it is ahead of the real time now."""


class Exited(TypedDict, total=False):
    """A child process has ended."""

    child: int
    """The process id of the child."""
    code: int
    """The exit code; for a signal its number, negative."""
    out_of_memory: bool
    """True if the kernel killed a process of this container for memory by then; else left out."""


Line = (
    Opened
    | Up
    | Ready
    | Settings
    | Options
    | Embedded
    | Schedule
    | Woke
    | Unsent
    | Died
    | Down
    | Intended
    | Expected
    | Accepted
    | Refused
    | Committed
    | Received
    | Started
    | Finished
    | Ended
    | Discarded
    | Errback
    | Exited
    | Disconnected
    | Clock
)
LINES: Mapping[Kind, type[Line]] = MappingProxyType(
    {
        Kind.OPENED: Opened,
        Kind.UP: Up,
        Kind.READY: Ready,
        Kind.SETTINGS: Settings,
        Kind.OPTIONS: Options,
        Kind.DOWN: Down,
        Kind.WOKE: Woke,
        Kind.EMBEDDED: Embedded,
        Kind.SCHEDULE: Schedule,
        Kind.UNSENT: Unsent,
        Kind.DIED: Died,
        Kind.INTENDED: Intended,
        Kind.EXPECTED: Expected,
        Kind.ACCEPTED: Accepted,
        Kind.REFUSED: Refused,
        Kind.UNKNOWN: Refused,
        Kind.COMMITTED: Committed,
        Kind.RECEIVED: Received,
        Kind.STARTED: Started,
        Kind.FINISHED: Finished,
        Kind.RETRIED: Ended,
        Kind.REVOKED: Ended,
        Kind.DISCARDED: Discarded,
        Kind.ERRBACK: Errback,
        Kind.EXITED: Exited,
        Kind.DISCONNECTED: Disconnected,
        Kind.RECONNECTED: Disconnected,
        Kind.CLOCK: Clock,
    }
)
"""The members of a line of each kind, beside its number, its time, its kind and its task."""
MEMBERS: Mapping[Kind, frozenset[str]] = MappingProxyType(
    {kind: frozenset(line.__annotations__) for kind, line in LINES.items()}
)
"""The names of these members, per kind."""
LATE_WORD_S = 0.005
"""The most seconds between storing a result and the line `finished` that the line does not tell. A smaller value would
make more lines longer; with a larger one, a chord's body could begin too early by as much, and nobody would see it."""
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
    """The other members of the line; `LINES` has them by kind."""

    def of(self, line: type[_L]) -> _L:  # noqa: ARG002 - the type alone is of interest.
        """Return the members of the line, typed as `line`. They are not checked: a foreign line may have any."""
        return cast("_L", self.data)
