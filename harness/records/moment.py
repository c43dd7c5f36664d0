"""The moments of a task's life, and what a process says when a task reaches one. Standard library only."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Self

SOCKET = "breakpoints.sock"
"""The name of the socket in the run folder. It is there while somebody holds tasks, or wants to."""


class Moment(StrEnum):
    """A named point of a task's life, in the order in which a task comes by.

    A process that is held at one does nothing else, nor does a thread or a greenlet in a pool of these. A worker whose
    main process is held (`RECEIVED`, `ACKNOWLEDGED`, and in the solo pool every moment) takes no other task meanwhile.
    """

    SENDING = "sending"
    """A producer, a worker or beat is about to publish it."""
    UNCONFIRMED = "unconfirmed"
    """Its message is on the way to the broker, and nobody has read the broker's confirm. Only if confirms are on."""
    PUBLISHED = "published"
    """It is published. If confirms are on, the broker has confirmed it."""
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
    SCHEDULE_SAVING = "schedule saving"
    """Beat is about to save its schedule. The task is the one that beat has sent last."""
    SCHEDULE_SAVED = "schedule saved"
    """Beat has saved its schedule; the task as before."""


Reach = Callable[[Moment, str, str], None]
"""Says that a task, by id and name, has reached a moment, and returns when it may go on."""


def go_on(moment: Moment, task: str, name: str) -> None:
    """Let every task go on: where nobody holds."""


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
