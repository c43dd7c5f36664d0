"""The moments of a task's life, and what a process says when a task reaches one. Standard library only."""

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Self

SOCKET = "breakpoints.sock"
"""The name of the socket in the run folder. It is there while somebody holds tasks, or wants to."""


class Moment(StrEnum):
    """A named point of a task's life, in the order in which a task comes by.

    A process that is held at one does nothing else. So a worker whose main process is held (`RECEIVED`,
    `ACKNOWLEDGED`, and in the solo pool every moment) takes no other task meanwhile.
    """

    SENDING = "sending"
    """A worker or beat is about to publish it."""
    PUBLISHED = "published"
    """A worker or beat has published it. If confirms are on, the broker has confirmed it."""
    RECEIVED = "received"
    """A worker has it from the broker."""
    STARTED = "started"
    """Its execution has begun; its own code has not run yet."""
    EFFECT = "effect"
    """The execution has sent its first mail, or made its first commit in a database."""
    RETURNED = "returned"
    """Its own code has ended, and what follows it has been sent. Its result is not stored."""
    STORED = "stored"
    """Its result is stored, unless the task ignores it. With late acknowledgement, its message is not acknowledged."""
    ACKNOWLEDGED = "acknowledged"
    """The worker has acknowledged its message. With early acknowledgement that is before the execution begins."""


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """A task has reached a moment."""

    moment: Moment
    task: str
    """The task's id."""
    name: str
    """The task's registered name."""
    node: str
    """The node on which it is."""
    pid: int
    """The process that is held, as the container sees it."""

    def to_line(self) -> str:
        """Return it as one line of text."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_line(cls, line: str) -> Self:
        """Read a line. Raises ValueError for one that is none."""
        try:
            said = json.loads(line)
            return cls(**(said | {"moment": Moment(said["moment"])}))
        except (KeyError, TypeError) as error:
            raise ValueError(f"{line!r} tells of no moment") from error
