"""The tasks that are delivered again because of a fault."""

from collections.abc import Collection

from harness.audit.in_hand import Receipt, Receipts
from harness.audit.run_folder import RunFolder
from harness.containers.node import Node
from harness.faults.node_fault import NodeFault
from harness.faults.silence import BrokerDown, JournalOfOneThatGoesOn, JournalSilence


class Redeliveries:
    """Follows the tasks that workers had when something broke. Create it before: the broker delivers again at once."""

    def __init__(self, folder: RunFolder, *still: str) -> None:
        """Note what the journal holds now.

        Args:
            folder: the run folder.
            still: the workers that stand still. What they received until then came before the fault.
        """
        self._receipts = Receipts(folder.journal)
        self._still = still
        self._next: dict[str, Receipt] = {}
        """The next receipt of each task that may be affected."""

    @property
    def again(self) -> frozenset[str]:
        """The ids of the tasks that were delivered again, as far as they were read."""
        return frozenset(one.task for one in self._next.values() if one.is_again)

    @property
    def count(self) -> int:
        """Number of tasks that were delivered again, as far as they were read."""
        return len(self.again)

    def read(self, tasks: Collection[str], injected_t: float) -> None:
        """Read which of these tasks were delivered again. An unacknowledged task can only continue in this way."""
        for one in self._receipts.read(tasks):
            if one.node in self._still and one.t <= injected_t:
                continue
            # Only the next receipt is caused by this fault; later ones have other reasons.
            if one.task not in self._next or one.t < self._next[one.task].t:
                self._next[one.task] = one

    def follow(self, silence: JournalSilence | BrokerDown, injected_t: float) -> None:
        """Read which tasks were delivered again, and tell `silence` which of those that had ended are among them."""
        had = silence.had
        self.read(had.begun | had.waiting | had.ended, injected_t)
        silence.unacknowledged = self.again & had.ended


class RedeliveringFault(NodeFault):
    """A fault by which connections fall, so that the broker delivers again what was not acknowledged.

    A task that had ended is affected as well if its message was not acknowledged yet; this shows when the broker
    delivers it again.
    """

    def __init__(self, node: str = "worker") -> None:
        """Describe the fault; see `Fault`."""
        super().__init__(node)
        self._redeliveries: Redeliveries | None = None

    def _before_it_breaks(self, victim: Node) -> None:
        silence = self._silence
        if isinstance(silence, BrokerDown):
            # With a broker, all its workers stand still.
            still = [worker.name for worker in self._stack.workers]
        else:
            # A worker that goes on may receive its messages again before it is seen broken.
            still = [] if isinstance(silence, JournalOfOneThatGoesOn) else [victim.name]
        self._redeliveries = Redeliveries(self._stack.folder, *still)
        super()._before_it_breaks(victim)

    @property
    def redelivered(self) -> int:
        """Number of affected tasks that were delivered again, as far as `follow` has read."""
        return 0 if self._redeliveries is None else self._redeliveries.count

    def follow(self) -> None:
        """Read which tasks were delivered again; an unacknowledged task can only continue in this way."""
        silence, redeliveries = self._silence, self._redeliveries
        if redeliveries is None or self.injected_t is None or not isinstance(silence, JournalSilence | BrokerDown):
            return
        redeliveries.follow(silence, self.injected_t)
        self.tasks = self._affected()

    def words(self) -> str:
        """Return what was done, the tasks that the node held, and how many of them were delivered again."""
        again = f"; delivered again: {self.redelivered} of {self.overlapped}" if self.tasks else ""
        return f"{super().words()}{again}"
