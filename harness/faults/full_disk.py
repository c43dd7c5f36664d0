"""A fault: the disk below a broker's data is full, and is emptied again."""

from harness.containers.engine import State
from harness.containers.node import Node
from harness.errors import StartError, UsageError
from harness.faults.broker_fault import BrokerFault
from harness.faults.node_fault import BROKER


class FullDisk(BrokerFault):
    """A disk on which nothing can be written any more, below the data of the stack's own broker.

    The broker finds it out by itself: it raises its disk alarm, and it may end when it cannot write what it must.
    Healing makes room, and starts the broker again if it ended. Its data are kept. The stack needs a small disk, as
    `small_disk=True` gives it one.

    Proof: when the fault began and when it ended, a write of 1 MiB on that disk was refused with ENOSPC. Affected are
    the tasks that were sent meanwhile.
    """

    kind = "full-disk"
    doing = "out of disk space"
    needs_small_disk = True

    def __init__(self, node: str = BROKER) -> None:
        """Describe the fault; see `Fault`."""
        super().__init__(node)
        self._was_full = False
        self.has_ended = False
        """True if the broker had ended by the time it was healed."""

    def _choose(self) -> Node:
        victim = super()._choose()
        # Without a small disk, the stack says so.
        _ = self._stack.broker_disk
        return victim

    def _refusal(self) -> str:
        return "; only the disk of one can be filled"

    def _break(self, victim: Node) -> None:
        if not self._stack.broker_disk.fill():
            raise UsageError(f"the disk of {victim.name} cannot be filled: no write to it was refused.")

    def _look(self, victim: Node) -> None:
        self._was_full = self._stack.broker_disk.is_full()
        super()._look(victim)
        self.has_ended = not victim.is_up()

    def _mend(self, victim: Node) -> None:
        self._stack.broker_disk.free()
        if victim.is_up():
            try:
                victim.wait_ready()
            except StartError:
                # It may have been about to end when room was made.
                if victim.is_up():
                    raise
            else:
                return
        self.has_ended = True
        victim.start()
        victim.wait_ready()

    def _unbroken(self, before: State | None) -> str | None:
        if not self._was_full:
            return f"the disk of {self.node} had room again when it was to be healed: the broker was {before}."
        return None

    def words(self) -> str:
        """Return what was done, and the tasks that were sent meanwhile."""
        ended = ", and ended by that" if self.has_ended else ""
        return f"{self.node} was {self.doing}{ended}; {self._silence.words()}"
