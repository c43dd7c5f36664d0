"""The contract of all faults, and the fault that breaks nothing."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

from harness.audit.run_folder import RunFolder
from harness.containers.node import Node

SHOWN_TASKS = 10
"""The number of affected tasks that a finding and load.json name. `overlapped` counts all of them."""
SETTLED_S = 10.0
"""Seconds within which the effect on a container must be visible. A shorter time would call a fault on a busy machine
not landed; a longer one would keep the next fault waiting if the engine does nothing."""


class Target(Protocol):
    """The part of a stack that faults use."""

    @property
    def workers(self) -> Sequence[Node]:
        """The workers, in their order."""

    @property
    def broker(self) -> Node:
        """The broker."""

    @property
    def folder(self) -> RunFolder:
        """The run folder, with the journal."""


class Fault(ABC):
    """One fault, injected once. `Noop` defines the contract; threads must not share a fault."""

    name: ClassVar[str]
    """The name that `parse` accepts."""

    def __init__(self, stack: Target, *, turn: int = 0, now: Callable[[], float] = time.time) -> None:
        """Prepare the fault without injecting it.

        Args:
            stack: the stack that it breaks, or a part of it.
            turn: the number of faults of its kind planned before this one; workers are chosen in turn by it.
            now: returns Unix time in seconds, by the clock of the journal.
        """
        self._stack = stack
        self._turn = turn
        self._now = now
        self.node: str | None = None
        """The name of the broken node."""
        self.injected_t: float | None = None
        """The time when it was seen broken, Unix time in seconds; None before."""
        self.healed_t: float | None = None
        """The time when it was healed, Unix time in seconds; None before."""
        self.tasks: tuple[str, ...] = ()
        """The ids of the tasks in flight that it affected."""

    @property
    def overlapped(self) -> int:
        """Number of affected tasks. A fault without any did land, but hit no task."""
        return len(self.tasks)

    @property
    def redelivered(self) -> int | None:
        """Number of affected tasks that were delivered again; None for a fault that does not follow them."""
        return None

    @abstractmethod
    def inject(self) -> None:
        """Break the node, and return when it is seen broken. Raises HarnessError; `heal` must still be called."""

    @abstractmethod
    def heal(self) -> None:
        """Heal what `inject` broke wholly or in part, and return when it works again. Raises HarnessError.

        A second call does nothing, and so does a call when nothing was broken. After an error, it may be tried again.
        """

    @abstractmethod
    def landed(self) -> str | None:
        """Return None if there is proof that it was broken until it was healed, else one sentence: what is missing."""

    def follow(self) -> None:  # noqa: B027 - most faults have nothing to follow.
        """Read what became of the affected tasks. Call it as late as possible, and before `words`."""

    @abstractmethod
    def words(self) -> str:
        """Return what was done, and which tasks were affected, in a few words."""

    def _unfinished(self) -> str | None:
        """Return why there can be no proof yet; None if it was injected and healed."""
        if self.injected_t is None:
            return "it was not injected."
        if self.healed_t is None:
            return f"{self.node or 'it'} was not healed."
        return None


class Noop(Fault):
    """A fault that breaks nothing: the contract of all faults, and the control for the effects of the others.

    `inject` sets `injected_t` when the node is broken, `heal` sets `healed_t` once when it works again, and `landed`
    has no proof before both.
    """

    name = "noop"

    def inject(self) -> None:
        """Record the time."""
        self.injected_t = self._now()

    def heal(self) -> None:
        """Record the time."""
        if self.injected_t is not None and self.healed_t is None:
            self.healed_t = self._now()

    def landed(self) -> str | None:
        """Return why it has not begun and ended; None if it has."""
        return self._unfinished()

    def words(self) -> str:
        """Return what was done."""
        return "nothing was broken"


def counted(count: int, one: str, many: str) -> str:
    """Return a number with its noun."""
    return f"{count} {one if count == 1 else many}"
