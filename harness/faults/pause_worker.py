"""A worker is frozen, and goes on."""

from harness.containers.node import Node
from harness.faults.pausing import not_paused, pause, unpause
from harness.faults.worker_fault import WorkerFault


class PauseWorker(WorkerFault):
    """All processes of a worker's container are frozen: its connections stay open, and nothing answers on them.

    Proof: the engine said paused, from its beginning to its end, and the worker's journal was silent.
    """

    name = "pause-worker"
    _doing = "paused"

    def _break(self, victim: Node) -> None:
        pause(victim)

    def _mend(self, victim: Node) -> None:
        unpause(victim)

    def landed(self) -> str | None:
        """See the class."""
        return self._unfinished() or not_paused(self.node, self._before) or self._silence()
