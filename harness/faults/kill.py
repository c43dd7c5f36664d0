"""A fault: a node is killed, and started again."""

import signal
from types import MappingProxyType

from harness.containers.engine import State, Status
from harness.containers.node import Node
from harness.errors import UsageError
from harness.faults.fault import SETTLED_S
from harness.faults.node_fault import NodeFault
from harness.faults.redeliveries import Redeliveries
from harness.faults.silence import JournalSilence
from harness.records.event import Kind
from harness.wait import wait_until


def signal_of(text: str) -> signal.Signals:
    """Return the signal of a name such as `SIGTERM` or `TERM`. Raises UsageError for another text."""
    name = text.upper()
    try:
        return signal.Signals[name if name.startswith("SIG") else f"SIG{name}"]
    except KeyError:
        raise UsageError(f"{text!r} is no signal; give its name, such as SIGTERM.") from None


class Kill(NodeFault):
    """A signal to the first process of a node's container, by default SIGKILL, as the kernel does it without memory.

    Healing starts the container again. Proof: the container exited, by SIGKILL if that was the signal, and was still
    down when healing began; the journal of a worker or a beat was silent, and then had an `up` again.

    A task that had ended is affected as well if its message was not acknowledged yet; this shows when the broker
    delivers it again.
    """

    kind = "kill"
    doing = "killed"
    options = MappingProxyType({"signal": signal_of})

    def __init__(self, node: str = "worker", *, signal: signal.Signals = signal.SIGKILL) -> None:
        """Describe the fault.

        Args:
            node: see `Fault`.
            signal: what is sent. A process that does not end by it within ten seconds is an error.
        """
        super().__init__(node)
        self.signal = signal
        self._again: Redeliveries | None = None

    def _choose(self) -> Node:
        victim = super()._choose()
        if victim is self._stack.broker:
            raise UsageError(
                f"{victim.name} is shared by all stacks, so it cannot be killed; only a broker of a stack's own can be."
            )
        return victim

    def _break(self, victim: Node) -> None:
        # The broker delivers to other workers at once, before the end of this one is visible.
        self._again = Redeliveries(self._stack.folder, victim.name)
        victim.kill(self.signal.name)
        wait_until(lambda: not victim.is_up(), what=f"{victim.name} is gone", timeout_s=SETTLED_S)

    def _mend(self, victim: Node) -> None:
        if not victim.is_up():
            victim.start()
        victim.wait_ready()

    def _unbroken(self, before: State | None) -> str | None:
        code = 128 + self.signal
        if before is None or before.status is not Status.EXITED:
            return f"{self.node} was to be down by {self.signal.name}, and was seen {before}."
        # A program may exit as it likes by any other signal.
        if self.signal is signal.SIGKILL and before.exit_code != code:
            return f"{self.node} was to be down by SIGKILL, exit code {code}, and was seen {before}."
        return None

    def landed(self) -> str | None:
        """Return None with the proof that the class describes, else one sentence: what is missing."""
        if (reason := super().landed()) is not None:
            return reason
        if isinstance(self._silence, JournalSilence) and Kind.UP not in self._silence.said_after:
            return f"the journal of {self.node} shows no new start, so another process may never have come."
        return None

    @property
    def redelivered(self) -> int:
        """Number of affected tasks that were delivered again, as far as `follow` has read."""
        return 0 if self._again is None else self._again.count

    def follow(self) -> None:
        """Read which tasks were delivered again; an unacknowledged task can only continue in this way."""
        if self._again is None or self.injected_t is None or not isinstance(self._silence, JournalSilence):
            return
        self._again.follow(self._silence, self.injected_t)
        self.tasks = self._silence.tasks

    def words(self) -> str:
        """Return what was done, the tasks that the node held, and how many of them were delivered again."""
        again = f"; delivered again: {self.redelivered} of {self.overlapped}" if self.tasks else ""
        return f"{super().words()}{again}"
