"""The tasks of a broken worker that the broker delivered again."""

from harness.audit.in_hand import Receipt, Receipts
from harness.audit.run_folder import RunFolder
from harness.faults.silence import JournalSilence


class Redeliveries:
    """Follows the tasks that a worker had when it was broken. Create it before: the broker delivers again at once."""

    def __init__(self, folder: RunFolder, node: str) -> None:
        """Note what the journal holds now. `node` is the broken worker."""
        self._receipts = Receipts(folder.journal)
        self._node = node
        self._next: dict[str, Receipt] = {}
        """The next receipt of each task that the node had."""

    @property
    def count(self) -> int:
        """Number of affected tasks that were delivered again, as far as `follow` has read."""
        return sum(one.is_again for one in self._next.values())

    def follow(self, silence: JournalSilence, injected_t: float) -> None:
        """Read which tasks were delivered again, and tell `silence` which of those that had ended are among them.

        An unacknowledged task can only continue in this way.
        """
        had = silence.had
        for one in self._receipts.read(had.begun | had.waiting | had.ended):
            if one.node == self._node and one.t <= injected_t:
                continue
            # Only the next receipt is caused by this fault; later ones have other reasons.
            if one.task not in self._next or one.t < self._next[one.task].t:
                self._next[one.task] = one
        again = {one.task for one in self._next.values() if one.is_again}
        silence.unacknowledged = frozenset(again & had.ended)
