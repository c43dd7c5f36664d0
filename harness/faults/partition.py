"""A fault: a node is cut off from its network, and is connected again."""

from harness.containers import web_node
from harness.containers.engine import State, Status
from harness.containers.node import Node
from harness.errors import UsageError
from harness.faults.fault import SETTLED_S
from harness.faults.node_fault import NodeFault
from harness.faults.redeliveries import Redeliveries
from harness.faults.silence import NoDeliveries, Silence
from harness.wait import wait_until


class Partition(NodeFault):
    """A node without its network: it goes on, and no packet leaves or reaches it.

    It is cut off from the broker, both ways, and from all else on the stack's network as well: the mailbox, the
    services, and other nodes. Its connections stay open: neither side is told. The results in the run folder and the
    journal can be written as before. Healing gives it its address again, so that a connection goes on if neither side
    has given it up: each does so after two heartbeats without a sign of the other.

    Proof: the engine had the node on no network when the fault began and when it ended, and the node still ran. A
    worker's journal shows no receipt of a task that was sent meanwhile; that of any node, no confirm of a send. A
    confirm that was on its way may be journaled up to a second late.
    """

    kind = "partition"
    doing = "cut off from its network"

    def __init__(self, node: str = "worker") -> None:
        """Describe the fault; see `Fault`."""
        super().__init__(node)
        self._again: Redeliveries | None = None
        self._was_cut_off: bool | None = None
        """Whether it was still cut off when healing began; None before."""

    def _choose(self) -> Node:
        victim = super()._choose()
        if victim is self._stack.broker:
            # Neither the producer nor whoever looks at its queues could reach it, and its ports would change.
            raise UsageError(f"{victim.name} cannot be cut off itself; cut a worker off from it.")
        return victim

    def _silence_of(self, victim: Node) -> Silence:
        keeps_journal = victim in [*self._stack.workers, *self._stack.beats] or victim.name == web_node.NAME
        return NoDeliveries(self._stack.folder, victim.name) if keeps_journal else super()._silence_of(victim)

    def _break(self, victim: Node) -> None:
        # The broker delivers to other workers as soon as it gives up this one.
        self._again = Redeliveries(self._stack.folder, victim.name)
        victim.disconnect()
        wait_until(lambda: not victim.is_connected(), what=f"{victim.name} is cut off", timeout_s=SETTLED_S)

    def _mend(self, victim: Node) -> None:
        is_cut_off = not victim.is_connected()
        if self._was_cut_off is None:
            self._was_cut_off = is_cut_off
        if is_cut_off:
            victim.reconnect()

    def _unbroken(self, before: State | None) -> str | None:
        if before is None or before.status is not Status.RUNNING:
            return f"{self.node} did not run any more when it was to be healed: it was seen {before}."
        if not self._was_cut_off:
            return f"{self.node} was on its network already when it was to be healed."
        return None

    @property
    def redelivered(self) -> int:
        """Number of affected tasks that were delivered again, as far as `follow` has read."""
        return 0 if self._again is None else self._again.count

    def follow(self) -> None:
        """Read which tasks were delivered again because the broker gave up the node."""
        if self._again is None or self.injected_t is None or not isinstance(self._silence, NoDeliveries):
            return
        self._again.follow(self._silence, self.injected_t)
        self.tasks = self._silence.tasks

    def words(self) -> str:
        """Return what was done, the tasks that the node held, and how many of them were delivered again."""
        again = f"; delivered again: {self.redelivered} of {self.overlapped}" if self.redelivered else ""
        return f"{super().words()}{again}"
