"""A line of a journal, and the kinds of lines there are. It runs in every container: standard library only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from harness.records.values import Json


class Kind(StrEnum):
    """What a journal line says happened.

    A task's life, from whoever publishes it: `intended`, then one of `accepted`, `refused`, `unknown`.
    From the worker: `received`, `started`, `finished`, and `retried`, `revoked`, `discarded` or `errback` where they
    apply. From a process about itself: `opened` (a file's first line), `up`, `ready`, `settings`, `down`, and of a
    child process that is gone `exited`. From beat: `embedded` (a worker's own beat begins), `schedule` (it changed),
    `woke`, `unsent` (an entry that could not be sent) and `died` (beat ended with an error).
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
    """Whatever else the line said; the writers' docstrings list it."""
