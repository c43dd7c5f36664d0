"""Time limits for settling."""

from dataclasses import dataclass

from harness.audit.remains import How, Settled
from harness.wait import REAL, Clock, Patience

TIMEOUT_S = 60.0
"""The default for the longest wait for the next task to end. RabbitMQ 4.0 took 36 to 56 s to drop a message of a quorum
queue that killed its worker process each time, and no task ended meanwhile. A shorter time-out would call such a task
pending instead of lost. A longer one would delay the end of every run that hangs."""
LIMIT_S = 3600.0
"""The default for the longest wait in total. It ends a wait in which tasks end for ever, because they send others. A
shorter limit would call the tasks of a long run pending."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of a wait, in seconds."""

    timeout_s: float = TIMEOUT_S
    """The longest wait for the next task to end."""
    limit_s: float = LIMIT_S
    """The longest wait in total."""

    def left_after(self, settled: Settled, *, at_most: "Limits") -> "Limits":
        """Return what is left of these limits after one use, and no more than `at_most`."""
        return Limits(
            timeout_s=min(self.timeout_s, at_most.timeout_s),
            limit_s=min(max(self.limit_s - settled.waited_s, 0.0), at_most.limit_s),
        )


class Wait:
    """One wait with limits. The caller looks, notes how many tasks have ended, and rests until the next look."""

    def __init__(self, limits: Limits, clock: Clock = REAL) -> None:
        """Begin the wait."""
        self._limits = limits
        self._clock = clock
        self._began_s = clock.now()
        self._patience = Patience(clock)
        self.idle_s = 0.0
        """Seconds since a task was last seen to end, or since the wait began."""
        self.waited_s = 0.0
        """Seconds since the wait began."""

    def note(self, ended: int) -> None:
        """Note how many tasks have ended by now."""
        self.waited_s = self._clock.now() - self._began_s
        self.idle_s = self._patience.waited_s(ended)

    @property
    def left_s(self) -> float:
        """Seconds from the last look until the wait is over if no task ends; not above 0 if it is over."""
        return min(self._limits.timeout_s - self.idle_s, self._limits.limit_s - self.waited_s)

    def over(self, *, given_back_after_s: float = 0.0) -> How | None:
        """Return the limit that was reached; None if none was.

        Args:
            given_back_after_s: the seconds in which the broker gives back what a connection holds that is gone, if that
                is all that is waited for. A caller that leaves the time-out at its default, or allows more, waits as
                long for the next task to end.
        """
        timeout_s = self._limits.timeout_s
        if timeout_s >= TIMEOUT_S:
            timeout_s = max(timeout_s, given_back_after_s)
        if self.idle_s >= timeout_s:
            return How.TIMEOUT
        return How.LIMIT if self.waited_s >= self._limits.limit_s else None

    def rest(self, interval_s: float) -> None:
        """Sleep until the next look, but not beyond the end of the wait."""
        self._clock.sleep(min(interval_s, self.left_s) if self.left_s > 0 else interval_s)
