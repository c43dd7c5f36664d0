"""The contract of all faults, and the one that breaks nothing."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

from harness.audit.run_folder import RunFolder
from harness.containers.node import Node
from harness.records.values import Json

SHOWN_TASKS = 10
"""Of the tasks that a fault has met, so many are named."""
SETTLED_S = 10.0
"""Seconds after which what was done to a container has to be seen."""


class Target(Protocol):
    """What faults need of a stack."""

    @property
    def workers(self) -> Sequence[Node]:
        """Its workers, in their order."""

    @property
    def broker(self) -> Node:
        """Its broker."""

    @property
    def folder(self) -> RunFolder:
        """Where the journal is."""


class Fault(ABC):
    """One thing that is broken once. `Noop` defines the contract; faults are not shared by threads."""

    name: ClassVar[str]
    """What `parse` knows it by."""

    def __init__(self, stack: Target, *, turn: int = 0, now: Callable[[], float] = time.time) -> None:
        """Nothing is broken yet.

        Args:
            stack: what it breaks, or a part of it.
            turn: how many faults were planned before this one; of several nodes, each is taken in turn.
            now: Unix time in seconds, by the clock that the journal is stamped with.
        """
        self._stack = stack
        self._turn = turn
        self._now = now
        self.node: str | None = None
        """What was broken."""
        self.injected_t: float | None = None
        """When it was seen broken, Unix time in seconds; None before."""
        self.healed_t: float | None = None
        """When it was whole again, Unix time in seconds; None before."""
        self.tasks: tuple[str, ...] = ()
        """The tasks that it met in flight."""

    @property
    def overlapped(self) -> int:
        """How many tasks it met in flight. A fault that met none did land, but nobody's work was in its way."""
        return len(self.tasks)

    @abstractmethod
    def inject(self) -> None:
        """Break it, and return when it is seen broken. Raises HarnessError; `heal` is to be called all the same."""

    @abstractmethod
    def heal(self) -> None:
        """Mend what `inject` broke or half broke, and return when it is whole. Raises HarnessError.

        A second time does nothing, and so does a first one when nothing was broken. After an error it may be tried
        again.
        """

    @abstractmethod
    def landed(self) -> str | None:
        """None if there is proof that it was broken until it was healed, else one sentence: what is missing."""

    def follow(self) -> None:  # noqa: B027 - of most faults nothing follows that could be read.
        """Read what became of the tasks that it met. To be called before it is told, as late as can be."""

    @abstractmethod
    def words(self) -> str:
        """What was done, and what it met, in a few words."""

    def to_json(self) -> dict[str, Json]:
        """As it stands in load.json."""
        return {
            "fault": self.name,
            "node": self.node,
            "injected_t": self.injected_t,
            "healed_t": self.healed_t,
            "overlapped": self.overlapped,
            "tasks": list(self.tasks[:SHOWN_TASKS]),
        }

    def _unfinished(self) -> str | None:
        """Why there can be no proof yet."""
        if self.injected_t is None:
            return "it was not injected."
        if self.healed_t is None:
            return f"{self.node or 'it'} was not healed."
        return None


class Noop(Fault):
    """Breaks nothing: the contract of all faults, and the control of whatever is said to come from one.

    `inject` sets `injected_t` when the thing is broken, `heal` sets `healed_t` once when it is whole, and `landed`
    has no proof before both.
    """

    name = "noop"

    def inject(self) -> None:
        """Note the time."""
        self.injected_t = self._now()

    def heal(self) -> None:
        """Note the time."""
        if self.injected_t is not None and self.healed_t is None:
            self.healed_t = self._now()

    def landed(self) -> str | None:
        """Its proof is that it began and ended."""
        return self._unfinished()

    def words(self) -> str:
        """What was done."""
        return "nothing was broken"


def counted(count: int, one: str, many: str) -> str:
    """Return a number with its noun."""
    return f"{count} {one if count == 1 else many}"
