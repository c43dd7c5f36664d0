"""A fault: a node is killed, and started again."""

import signal
from types import MappingProxyType

from harness.containers.engine import State, Status
from harness.containers.node import Node
from harness.errors import UsageError
from harness.faults.ended_node import EndedNode
from harness.faults.fault import SETTLED_S
from harness.wait import wait_until


def signal_of(text: str) -> signal.Signals:
    """Return the signal of a name such as `SIGTERM` or `TERM`. Raises UsageError for another text."""
    name = text.upper()
    try:
        return signal.Signals[name if name.startswith("SIG") else f"SIG{name}"]
    except KeyError:
        raise UsageError(f"{text!r} is no signal; give its name, such as SIGTERM.") from None


class Kill(EndedNode):
    """A signal to the first process of a node's container, by default SIGKILL, as the kernel does it without memory.

    Proof: that of `EndedNode`; and the container exited by SIGKILL, if that was the signal.
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

    def _break(self, victim: Node) -> None:
        victim.kill(self.signal.name)
        wait_until(lambda: not victim.is_up(), what=f"{victim.name} is gone", timeout_s=SETTLED_S)

    def _unbroken(self, before: State | None) -> str | None:
        code = 128 + self.signal
        if before is None or before.status is not Status.EXITED:
            return f"{self.node} was to be down by {self.signal.name}, and was seen {before}."
        # A program may exit as it likes by any other signal.
        if self.signal is signal.SIGKILL and before.exit_code != code:
            return f"{self.node} was to be down by SIGKILL, exit code {code}, and was seen {before}."
        return super()._unbroken(before)
