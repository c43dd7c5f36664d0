"""One line of a journal, and the kinds of lines. Runs in every container: standard library only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

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
