"""A fault: a node is stopped, and started again at once."""

from harness.containers.node import Node
from harness.faults.stop import Stop


class Restart(Stop):
    """A node that is stopped as by `Stop`, and started again at once. A broker keeps its data.

    Healing waits until it is ready. Proof: that of `Stop`; between its end and its start it was seen down.
    """

    kind = "restart"
    doing = "restarted"

    def _once_broken(self, victim: Node) -> None:
        self._look(victim)
        victim.start()
