"""A fault: nothing is broken."""

from harness.faults.fault import Fault


class Noop(Fault):
    """A fault that breaks nothing: the contract of all faults, and the control for the effects of the others.

    `inject` sets `injected_t` when the node is broken, `heal` sets `healed_t` once when it works again, and `landed`
    has no proof before both.
    """

    kind = "noop"
    breaks_node = False
    meets_tasks = False

    def inject(self) -> None:
        """Record the time."""
        self.begun_t = self.injected_t = self._now()

    def heal(self) -> None:
        """Record the time."""
        if self.injected_t is not None and self.healed_t is None:
            self.healed_t = self._now()

    def landed(self) -> str | None:
        """Return why it has not begun and ended; None if it has."""
        return self._unfinished()

    def words(self) -> str:
        """Return what was done."""
        return "nothing was broken"
