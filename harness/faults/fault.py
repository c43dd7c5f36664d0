"""The contract of all faults."""

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import ClassVar, Protocol, Self

from harness.audit.results import Results
from harness.audit.run_folder import RunFolder
from harness.containers.beat import Beat
from harness.containers.broker_disk import BrokerDisk
from harness.containers.broker_node import BrokerNode, Login
from harness.containers.node import Node
from harness.containers.tcp_link import TcpLink
from harness.errors import UsageError
from harness.measure.recovery import Window

SHOWN_TASKS = 10
"""The number of affected tasks that a finding and load.json name. `overlapped` counts all of them."""
SETTLED_S = 10.0
"""Seconds within which the effect on a container must be visible. A shorter time would call a fault on a busy machine
not landed; a longer one would keep the next fault waiting if the engine does nothing."""

_NUMBER = re.compile(r"-\d+$")


class Target(Protocol):
    """The part of a stack that faults use."""

    @property
    def workers(self) -> Sequence[Node]:
        """The workers, in their order."""

    @property
    def beats(self) -> Sequence[Beat]:
        """The beats, in their order."""

    @property
    def broker(self) -> BrokerNode:
        """The broker."""

    @property
    def owns_broker(self) -> bool:
        """True if no other stack uses the broker."""

    @property
    def broker_disk(self) -> BrokerDisk:
        """The disk of the broker's data. Raises UsageError if it has no small one."""

    @property
    def login(self) -> Login:
        """The user and the vhost of the stack."""

    @property
    def folder(self) -> RunFolder:
        """The run folder, with the journal."""

    @property
    def results(self) -> Results:
        """The result tables of the stack."""

    @property
    def link(self) -> TcpLink:
        """The link through which the clients reach the broker. Raises UsageError if the stack has none."""

    def nodes(self) -> Sequence[Node]:
        """Return the nodes that are the stack's own."""

    def add(self, node: Node) -> None:
        """Start one more node, and return when it is ready. It is removed with the stack at the latest."""


class Fault(ABC):
    """One fault, injected once. `Noop` defines the contract; threads must not share a fault.

    It is created with its own parameters, and then put on a stack: by `Stack.inject`, or by the timetable of a load
    test. A context manager: it is healed at its end.
    """

    kind: ClassVar[str]
    """What is done, as the command line names it, such as `kill`."""
    options: ClassVar[Mapping[str, Callable[[str], object]]] = MappingProxyType({})
    """The parameters beside the node that the command line takes, each with what reads its text. Whatever reads one
    raises UsageError or ValueError for a text that is none."""

    breaks_node: ClassVar[bool] = True
    """True if a node can be named."""
    needs_link: ClassVar[bool] = False
    """True if it disturbs the stack's link, which the stack then needs."""
    needs_small_disk: ClassVar[bool] = False
    """True if it fills the small disk of the stack's own broker, which the stack then needs."""
    meets_tasks: ClassVar[bool] = True
    """True if it shows something only when it affects tasks."""

    def __init__(self, node: str = "") -> None:
        """Describe the fault.

        Args:
            node: the node to break: its name, such as `worker-2`, or what it is, such as `worker`: then it is the next
                of these in turn. Empty for a fault of no certain node.
        """
        self.wanted = node
        """The node, as it was asked for."""
        self._target: Target | None = None
        self._turn = 0
        self._now: Callable[[], float] = time.time
        self.node: str | None = None
        """The name of the broken node."""
        self.begun_t: float | None = None
        """The time when breaking it began, Unix time in seconds; None before."""
        self.injected_t: float | None = None
        """The time when it was seen broken, Unix time in seconds; None before."""
        self.healing_t: float | None = None
        """The time when healing began, Unix time in seconds; None before, and for a fault that is healed at once."""
        self.healed_t: float | None = None
        """The time when it was healed, Unix time in seconds; None before."""
        self.tasks: tuple[str, ...] = ()
        """The ids of the tasks in flight that it affected."""

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Heal it."""
        self.heal()

    @property
    def name(self) -> str:
        """Its kind and the node that was asked for, as the command line takes them, such as `kill-worker`."""
        return "-".join(filter(None, (self.kind, self.wanted)))

    @property
    def needs_own_broker(self) -> bool:
        """True if it breaks the broker in a way that no other stack could bear."""
        return False

    def on(self, stack: Target, *, turn: int = 0, now: Callable[[], float] = time.time) -> Self:
        """Choose the stack, and return the fault itself. Nothing is injected.

        Args:
            stack: the stack that it breaks, or a part of it.
            turn: the number of faults of its name planned before this one; nodes are chosen in turn by it.
            now: returns Unix time in seconds, by the clock of the journal.

        Raises:
            UsageError: it has a stack already.
        """
        if self._target is not None:
            raise UsageError(f"the fault {self.name} was used before; make a new one for each time.")
        self._target, self._turn, self._now = stack, turn, now
        return self

    @property
    def _stack(self) -> Target:
        if self._target is None:
            raise UsageError(f"the fault {self.name} has no stack; inject it with stack.inject(...).")
        return self._target

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

    @property
    def begin_t(self) -> float | None:
        """The earliest time from which it may have been broken, Unix time in seconds; None if it was not injected."""
        return None if self.injected_t is None else self.begun_t or self.injected_t

    @property
    def window(self) -> Window | None:
        """The times of the fault and what it met; None if it was not injected and healed."""
        if self.begin_t is None or self.healed_t is None:
            return None
        return Window(
            begun_t=self.begin_t,
            healing_t=self.healing_t or self.healed_t,
            healed_t=self.healed_t,
            node=self.node,
            tasks=frozenset(self.tasks),
        )

    def _unfinished(self) -> str | None:
        """Return why there can be no proof yet; None if it was injected and healed."""
        if self.injected_t is None:
            return "it was not injected."
        if self.healed_t is None:
            return f"{self.node or 'it'} was not healed."
        return None


def candidates(stack: Target, wanted: str) -> list[Node]:
    """Return the nodes of a stack that are meant by a name or by what they are, in their order. May be empty."""
    every = [*stack.nodes(), stack.broker]
    return [one for one in every if is_meant(one.name, wanted)]


def is_meant(name: str, wanted: str) -> bool:
    """Return whether a node is meant by a name, such as `worker-2`, or by what it is, such as `worker`."""
    return wanted in {name, _NUMBER.sub("", name)}


def counted(count: int, one: str, many: str) -> str:
    """Return a number with its noun."""
    return f"{count} {one if count == 1 else many}"
