"""A fault: a worker is killed, and started again."""

import time
from collections.abc import Callable

from harness.audit.in_hand import Receipt, Receipts
from harness.containers.engine import Status
from harness.containers.node import Node
from harness.faults.fault import SETTLED_S, Target
from harness.faults.worker_fault import WorkerFault
from harness.records.event import Kind
from harness.wait import wait_until

_KILLED_CODE = 128 + 9
"""The exit code of a container whose first process was ended by SIGKILL: 128 and the number of the signal."""


class KillWorker(WorkerFault):
    """A SIGKILL of the first process of a worker's container, as the kernel does when memory runs out.

    Healing starts the container again. Proof: the container exited by SIGKILL and was still down when healing began,
    its journal was silent, and then had an `up` again.

    A task that had ended is affected as well if its message was not acknowledged yet; this shows when the broker
    delivers it again.
    """

    name = "kill-worker"
    _doing = "killed"

    def __init__(self, stack: Target, *, turn: int = 0, now: Callable[[], float] = time.time) -> None:
        """Prepare the fault without injecting it."""
        super().__init__(stack, turn=turn, now=now)
        self._receipts: Receipts | None = None
        self._next: dict[str, Receipt] = {}
        """The next receipt of each task that the worker had."""

    def _break(self, victim: Node) -> None:
        # The broker delivers to other workers at once, before the end of this one is visible.
        self._receipts = Receipts(self._stack.folder.journal)
        victim.kill()
        wait_until(lambda: not victim.is_up(), what=f"{victim.name} is gone", timeout_s=SETTLED_S)

    def _mend(self, victim: Node) -> None:
        if not victim.is_up():
            victim.start()
        victim.wait_ready()

    def landed(self) -> str | None:
        """Return None with the proof that the class describes, else one sentence: what is missing."""
        if (reason := self._unfinished() or self._silence()) is not None:
            return reason
        if self._before is None or self._before.status is not Status.EXITED or self._before.exit_code != _KILLED_CODE:
            return f"{self.node} was to be down by SIGKILL, exit code {_KILLED_CODE}, and was seen {self._before}."
        if Kind.UP not in self._said_after:
            return f"the journal of {self.node} shows no new start, so another process may never have come."
        return None

    @property
    def redelivered(self) -> int:
        """Number of affected tasks that were delivered again, as far as `follow` has read."""
        return sum(one.is_again for one in self._next.values())

    def follow(self) -> None:
        """Read which tasks were delivered again; an unacknowledged task can only continue in this way."""
        if self._receipts is None or self.injected_t is None:
            return
        had = self._in_hand
        for one in self._receipts.read(had.begun | had.waiting | had.ended):
            if one.node == self.node and one.t <= self.injected_t:
                continue
            # Only the next receipt is caused by this fault; later ones have other reasons.
            if one.task not in self._next or one.t < self._next[one.task].t:
                self._next[one.task] = one
        unacknowledged = {one.task for one in self._next.values() if one.is_again} & had.ended
        self.tasks = (*sorted(had.begun), *sorted(had.waiting), *sorted(unacknowledged))

    def words(self) -> str:
        """Return what was done, the tasks that the worker held, and how many of them were delivered again."""
        again = f"; delivered again: {self.redelivered} of {self.overlapped}" if self.tasks else ""
        return f"{super().words()}{again}"
