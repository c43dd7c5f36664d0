"""The common part of the faults of a broker that goes on running: it belongs to one stack, and confirms nothing."""

from harness.containers.node import Node
from harness.errors import UsageError
from harness.faults.node_fault import BROKER, NodeFault
from harness.faults.silence import Silence, Unconfirmed


class BrokerFault(NodeFault):
    """A fault of the broker, which has to be the stack's own. Affected are the tasks that were sent meanwhile."""

    def __init__(self, node: str = BROKER) -> None:
        """Describe the fault; see `Fault`."""
        super().__init__(node)

    @property
    def needs_own_broker(self) -> bool:
        """True: other stacks must not meet it."""
        return True

    def _choose(self) -> Node:
        victim = super()._choose()
        if victim is not self._stack.broker:
            raise UsageError(f"{victim.name} is no broker{self._refusal()}.")
        return victim

    def _refusal(self) -> str:
        """Return why no other node can be chosen, as the end of a sentence."""
        return f", so it cannot be {self.doing}"

    def _silence_of(self, victim: Node) -> Silence:
        return Unconfirmed(self._stack.folder, victim.name, self._now)
