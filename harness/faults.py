"""Faults under load: what is broken and mended while tasks flow, each with the proof that it was broken.

A fault that was asked for and has no proof turns the verdict to unknown: a run that passes because nothing was broken
would say nothing.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Protocol

from harness.audit.in_hand import Hands, Receipt, Receipts, Voice, in_hand
from harness.audit.run_folder import RunFolder
from harness.containers.engine import State, Status
from harness.containers.node import Node
from harness.errors import UsageError
from harness.records.event import Kind
from harness.records.values import Json
from harness.wait import wait_until

RECENT_BYTES = 1 << 20
"""How much of the end of each journal file is read for what a worker holds: some 7,000 lines. Hours of load make long
files, and who took a task lately stands at their end."""
SHOWN_TASKS = 10
"""Of the tasks that a fault has met, so many are named."""

_SETTLED_S = 10.0
_KILLED = 128 + 9
_LATE_S = 1.0


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


class _WorkerFault(Fault):
    """What is done to one worker, and seen from outside and in the worker's own journal."""

    _doing: ClassVar[str]

    def __init__(self, stack: Target, *, turn: int = 0, now: Callable[[], float] = time.time) -> None:
        """Nothing is broken yet."""
        super().__init__(stack, turn=turn, now=now)
        self._victim: Node | None = None
        self._journal: Voice | None = None
        self._before: State | None = None
        """What the container was when it was to be healed, before anything was done to that end."""
        self._is_witness = False
        self._spoke = 0
        """Journal lines from between."""
        self._said_after: set[Kind] = set()
        self._hands = Hands()

    @abstractmethod
    def _break(self, victim: Node) -> None:
        """Break it, and return when it is seen broken."""

    @abstractmethod
    def _mend(self, victim: Node) -> None:
        """Mend it, and return when it is whole."""

    def inject(self) -> None:
        """Break the next worker that runs."""
        victim = self._choose()
        journal = Voice(self._stack.folder.journal, victim.name, recent_bytes=RECENT_BYTES)
        self._victim, self._journal, self.node = victim, journal, victim.name
        self._break(victim)
        # From now on it says nothing more, and what it held then is in its journal.
        self.injected_t = self._now()
        said = journal.recent()
        self._is_witness = bool(said)
        self._hands = in_hand(said)
        self.tasks = (*sorted(self._hands.begun), *sorted(self._hands.waiting))

    def heal(self) -> None:
        """Mend it, if it was not mended before."""
        if self._victim is None or self._journal is None or self.healed_t is not None:
            return
        if self.injected_t is not None and self._before is None:
            # Before anything is healed, it is seen once whether it was broken until now.
            self._spoke = len(self._journal.read())
            self._before = self._victim.container.state()
        self._mend(self._victim)
        self._said_after = {event.kind for event in self._journal.read()}
        # Also where nobody saw it broken in time: that is healed, and no proof.
        self.healed_t = self._now()

    def _choose(self) -> Node:
        """The next worker that runs, beginning with the one whose turn it is."""
        workers = list(self._stack.workers)
        seen = []
        for number in range(len(workers)):
            worker = workers[(self._turn + number) % len(workers)]
            # Another fault may have paused it, or may have killed it and not healed it yet.
            status = worker.container.state().status if worker.is_up() else "down"
            if status is Status.RUNNING:
                return worker
            seen.append(f"{worker.name} is {status}")
        why = ", ".join(seen) or "the stack has none"
        raise UsageError(f"no worker runs that could be {self._doing}: {why}.")

    def _silence(self) -> str | None:
        """Why its journal does not prove that it stood still."""
        if not self._is_witness:
            return f"the journal of {self.node} has no lines, so that its silence proves nothing."
        if self._spoke:
            lines = _counted(self._spoke, "more line", "more lines")
            return f"{self.node} wrote {lines} into its journal while it was {self._doing}."
        return None

    def words(self) -> str:
        """What was done, and what the worker had in hand by its own journal."""
        if not self.tasks:
            return f"{self.node} was {self._doing}; its journal shows no task in hand (overlapped=0)"
        begun, waiting = len(self._hands.begun), len(self._hands.waiting)
        parts = {
            "begun and not finished": begun,
            "received and not begun": waiting,
            "ended and not acknowledged": self.overlapped - begun - waiting,
        }
        met = ", ".join(f"{count} {words}" for words, count in parts.items() if count)
        return f"{self.node} was {self._doing}; it had {_counted(self.overlapped, 'task', 'tasks')} in hand: {met}"


class KillWorker(_WorkerFault):
    """SIGKILL of the first process of a worker's container, as the kernel does when memory runs out.

    Healing starts it again. Proof: the container exited by SIGKILL and was still down when it was to be healed, its
    journal was silent, and then said `up` again.

    A task that had ended is met as well where its message was not acknowledged yet, which is seen when the broker
    delivers it again.
    """

    name = "kill-worker"
    _doing = "killed"

    def __init__(self, stack: Target, *, turn: int = 0, now: Callable[[], float] = time.time) -> None:
        """Nothing is broken yet."""
        super().__init__(stack, turn=turn, now=now)
        self._receipts: Receipts | None = None
        self._next: dict[str, Receipt] = {}
        """By whom each of the tasks that the worker had was next received."""

    def _break(self, victim: Node) -> None:
        # The broker delivers to other workers at once, before anybody sees that this one is gone.
        self._receipts = Receipts(self._stack.folder.journal)
        victim.kill()
        wait_until(lambda: not victim.is_up(), what=f"{victim.name} is gone", timeout_s=_SETTLED_S)

    def _mend(self, victim: Node) -> None:
        if not victim.is_up():
            victim.start()
        victim.wait_ready()

    def landed(self) -> str | None:
        """See the class."""
        if (reason := self._unfinished() or self._silence()) is not None:
            return reason
        if self._before is None or self._before.status is not Status.EXITED or self._before.exit_code != _KILLED:
            return f"{self.node} was to be down by SIGKILL, exit code {_KILLED}, and was seen {self._before}."
        if Kind.UP not in self._said_after:
            return f"the journal of {self.node} shows no new start, so another process may never have come."
        return None

    @property
    def redelivered(self) -> int:
        """How many of the tasks that it met were delivered again, as far as `follow` has read."""
        return sum(one.is_again for one in self._next.values())

    def follow(self) -> None:
        """See which tasks were delivered again: what was not acknowledged at the kill has no other way."""
        if self._receipts is None or self.injected_t is None:
            return
        hands = self._hands
        had = hands.begun | hands.waiting | hands.ended
        for one in self._receipts.read(had):
            if one.node == self.node and one.t <= self.injected_t:
                continue
            # Only the next one is because of this: those that follow have other reasons.
            if one.task not in self._next or one.t < self._next[one.task].t:
                self._next[one.task] = one
        unacknowledged = {one.task for one in self._next.values() if one.is_again} & hands.ended
        self.tasks = (*sorted(hands.begun), *sorted(hands.waiting), *sorted(unacknowledged))

    def words(self) -> str:
        """What was done, what the worker had in hand, and how much of it was delivered again."""
        again = f"; delivered again: {self.redelivered} of {self.overlapped}" if self.tasks else ""
        return f"{super().words()}{again}"

    def to_json(self) -> dict[str, Json]:
        """As it stands in load.json."""
        return {**super().to_json(), "redelivered": self.redelivered}


class PauseWorker(_WorkerFault):
    """All processes of a worker's container are frozen: its connections stay open, and nothing answers on them.

    Proof: the engine said paused, from its beginning to its end, and the worker's journal was silent.
    """

    name = "pause-worker"
    _doing = "paused"

    def _break(self, victim: Node) -> None:
        _pause(victim)

    def _mend(self, victim: Node) -> None:
        _unpause(victim)

    def landed(self) -> str | None:
        """See the class."""
        return self._unfinished() or _not_paused(self.node, self._before) or self._silence()


class PauseBroker(Fault):
    """The broker is frozen: it takes no task, confirms none and delivers none, and its connections stay open.

    Every stack of the session feels it. Killing or restarting the broker is no fault of this kind: RabbitMQ writes
    down new queues up to two seconds late, and its ports change (see `nodes.broker.Broker`).

    Proof: the engine said paused, from its beginning to its end, and no send was confirmed meanwhile. A confirm that
    was on its way may be journaled up to a second late.
    """

    name = "pause-broker"

    def __init__(self, stack: Target, *, turn: int = 0, now: Callable[[], float] = time.time) -> None:
        """Nothing is broken yet."""
        super().__init__(stack, turn=turn, now=now)
        self._victim: Node | None = None
        self._journal: Voice | None = None
        self._before: State | None = None
        self._confirmed = 0

    def inject(self) -> None:
        """Freeze it."""
        broker = self._stack.broker
        if (status := broker.container.state().status) is not Status.RUNNING:
            raise UsageError(f"{broker.name} is {status} already, so it cannot be paused.")
        self._victim, self.node = broker, broker.name
        self._journal = Voice(self._stack.folder.journal, "*", recent_bytes=0)
        _pause(broker)
        self.injected_t = self._now()

    def heal(self) -> None:
        """Let it go on."""
        if self._victim is None or self._journal is None or self.healed_t is not None:
            return
        if self.injected_t is not None and self._before is None:
            said = [event for event in self._journal.read() if event.t >= self.injected_t]
            self._confirmed = sum(
                event.kind is Kind.ACCEPTED
                and event.t > self.injected_t + _LATE_S
                and event.data.get("confirmed", True)
                for event in said
            )
            sent = (event.task for event in said if event.kind is Kind.INTENDED and event.task is not None)
            self.tasks = tuple(dict.fromkeys(sent))
            self._before = self._victim.container.state()
        _unpause(self._victim)
        self.healed_t = self._now()

    def landed(self) -> str | None:
        """See the class."""
        if (reason := self._unfinished() or _not_paused(self.node, self._before)) is not None:
            return reason
        if self._confirmed:
            confirmed = _counted(self._confirmed, "send was", "sends were")
            return f"{confirmed} confirmed while {self.node} was said to be paused."
        return None

    def words(self) -> str:
        """What was done."""
        met = f"{_counted(self.overlapped, 'task was', 'tasks were')} sent meanwhile"
        return f"{self.node} was paused; {met if self.overlapped else 'nothing was sent meanwhile (overlapped=0)'}"


FAULTS: Mapping[str, type[Fault]] = MappingProxyType(
    {fault.name: fault for fault in (KillWorker, PauseWorker, PauseBroker, Noop)}
)
"""Every fault by its name."""


def _counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def _pause(node: Node) -> None:
    node.pause()
    wait_until(
        lambda: node.container.state().status is Status.PAUSED, what=f"{node.name} is paused", timeout_s=_SETTLED_S
    )


def _unpause(node: Node) -> None:
    """Let it go on if it is paused. Raises UsageError for what is not up at all: somebody else took it down."""
    state = node.container.state()
    if state.status is Status.PAUSED:
        node.unpause()
    elif state.status is not Status.RUNNING:
        raise UsageError(f"{node.name} cannot be unpaused: it is {state}.")


def _not_paused(node: str | None, before: State | None) -> str | None:
    if before is None or before.status is not Status.PAUSED:
        return f"{node} was not paused any more when it was to be healed: it was seen {before}."
    return None
