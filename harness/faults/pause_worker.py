"""A fault: a worker is frozen, and continues."""

from harness.containers.node import Node
from harness.faults.pausing import not_paused, pause, unpause
from harness.faults.worker_fault import WorkerFault


class PauseWorker(WorkerFault):
    """A frozen worker: all processes of its container stop, and its connections stay open without an answer.

    Proof: the engine reported the container as paused when the fault began and when it ended, and the worker's journal
    was silent.
    """

    name = "pause-worker"
    _doing = "paused"

    def _break(self, victim: Node) -> None:
        pause(victim)

    def _mend(self, victim: Node) -> None:
        unpause(victim)

    def landed(self) -> str | None:
        """Return None with the proof that the class describes, else one sentence: what is missing."""
        return self._unfinished() or not_paused(self.node, self._before) or self._silence()
