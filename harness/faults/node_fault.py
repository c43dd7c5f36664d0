"""The common part of all faults of one node: its choice, the tasks that it held, and its silence."""

from abc import abstractmethod
from typing import ClassVar

from harness.containers.engine import State, Status
from harness.containers.node import Node
from harness.errors import UsageError
from harness.faults.fault import Fault, Target, candidates
from harness.faults.silence import JournalSilence, NoConfirms, Silence, Unwatched

BROKER = "broker"
"""The word for the broker, whatever its name is."""


class NodeFault(Fault):
    """A fault of one node, with evidence from the engine and from the journal."""

    doing: ClassVar[str]
    """The state of the broken node in a word, such as `killed`."""

    def __init__(self, node: str = "worker") -> None:
        """Describe the fault; see `Fault`."""
        super().__init__(node)
        self._victim: Node | None = None
        self._silence: Silence = Unwatched()
        self._before: State | None = None
        """The state of the container when healing began, before anything was changed."""

    @abstractmethod
    def _break(self, victim: Node) -> None:
        """Break the node, and return when it is seen broken."""

    @abstractmethod
    def _mend(self, victim: Node) -> None:
        """Heal the node, and return when it works again."""

    def inject(self) -> None:
        """Break the next of the nodes that runs. Raises UsageError if none runs, HarnessError if that fails."""
        victim = self._choose()
        silence = self._silence_of(victim)
        self._victim, self._silence, self.node = victim, silence, victim.name
        self._before_it_breaks(victim)
        self.begun_t = self._now()
        self._break(victim)
        self.injected_t = self._now()
        silence.begin(self.injected_t)
        self.tasks = self._affected()
        self._once_broken(victim)

    def heal(self) -> None:
        """Heal the node, if it was not healed before. Raises HarnessError."""
        if self._victim is None or self.healed_t is not None:
            return
        if self.injected_t is not None and self._before is None:
            # Before anything is changed, check once whether it was broken until now.
            self.healing_t = self._now()
            self._look(self._victim)
        self._mend(self._victim)
        self._silence.after()
        self.tasks = self._affected()
        # If it was not seen broken in time, it is still healed, but that is no proof.
        self.healed_t = self._now()

    def _before_it_breaks(self, victim: Node) -> None:
        """Read what can be seen only before the node is broken."""

    def _once_broken(self, victim: Node) -> None:
        """Go on when the node was seen broken."""

    def _look(self, victim: Node) -> None:
        """Look once whether the node was broken until now."""
        self._silence.end()
        self._before = victim.container.state()

    def _affected(self) -> tuple[str, ...]:
        """Return the ids of the affected tasks, as far as they are known."""
        return self._silence.tasks

    def _choose(self) -> Node:
        """Return the next node that runs, beginning with the one whose turn it is. Raises UsageError if none runs."""
        nodes = candidates(self._stack, self.wanted)
        seen = []
        for number in range(len(nodes)):
            node = nodes[(self._turn + number) % len(nodes)]
            # Another fault may have paused it, or may have killed it and not healed it yet.
            status = node.container.state().status if node.is_up() else "down"
            if status is Status.RUNNING:
                return node
            seen.append(f"{node.name} is {status}")
        there = ", ".join(node.name for node in (*self._stack.nodes(), self._stack.broker))
        why = ", ".join(seen) or f"the stack has none; it has {there}"
        raise UsageError(f"no {self.wanted} runs that could be {self.doing}: {why}.")

    def _silence_of(self, victim: Node) -> Silence:
        stack = self._stack
        if victim is stack.broker:
            return NoConfirms(stack.folder, victim.name, self._now)
        if victim in [*stack.workers, *stack.beats]:
            return JournalSilence(stack.folder, victim.name)
        return Unwatched()

    def landed(self) -> str | None:
        """Return None with the proof that the class describes, else one sentence: what is missing."""
        return self._unfinished() or self._unbroken(self._before) or self._silence.broken_by(self.doing)

    @abstractmethod
    def _unbroken(self, before: State | None) -> str | None:
        """Return why this state, when healing began, does not prove the fault; None if it does."""

    def words(self) -> str:
        """Return what was done, and the tasks that this affected."""
        return f"{self.node} was {self.doing}; {self._silence.words()}"


def refuse_shared(stack: Target, node: Node, doing: str) -> Node:
    """Return the node. Raises UsageError if it is a broker that stacks share; `doing` is what was to be done to it."""
    if node is stack.broker and not stack.owns_broker:
        raise UsageError(
            f"{node.name} is shared by all stacks, so it cannot be {doing}; give the stack a broker of its own, with "
            "own_broker=True."
        )
    return node
