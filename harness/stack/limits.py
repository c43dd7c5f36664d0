"""How long a settling waits, whatever it waits for."""

from dataclasses import dataclass

from harness.audit.remains import How, Settled
from harness.wait import REAL, Clock, Patience


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long is waited, in seconds."""

    timeout_s: float = 60.0
    """For the next task to end."""
    limit_s: float = 3600.0
    """In all."""

    def left_after(self, settled: Settled, *, at_most: "Limits") -> "Limits":
        """What is left of these limits after they were used once."""
        return Limits(
            timeout_s=min(self.timeout_s, at_most.timeout_s),
            limit_s=min(max(self.limit_s - settled.waited_s, 0.0), at_most.limit_s),
        )


class Wait:
    """One wait, with limits: whoever waits looks, tells how many tasks have ended, and rests until the next look."""

    def __init__(self, limits: Limits, clock: Clock = REAL) -> None:
        """It begins now."""
        self._limits = limits
        self._clock = clock
        self._began_s = clock.now()
        self._patience = Patience(clock)
        self.idle_s = 0.0
        """How long ago a task was seen to end, or this began, in seconds."""
        self.waited_s = 0.0
        """How long this lasts, in seconds."""

    def note(self, ended: int) -> None:
        """So many tasks have ended by now."""
        self.waited_s = self._clock.now() - self._began_s
        self.idle_s = self._patience.waited_s(ended)

    @property
    def left_s(self) -> float:
        """When it will be over if no task ends, in seconds from the last look; not above 0 if it is."""
        return min(self._limits.timeout_s - self.idle_s, self._limits.limit_s - self.waited_s)

    @property
    def over(self) -> How | None:
        """Which limit was reached; None if none was."""
        if self.idle_s >= self._limits.timeout_s:
            return How.TIMEOUT
        return How.LIMIT if self.waited_s >= self._limits.limit_s else None

    def rest(self, interval_s: float) -> None:
        """Sleep until the next look, which is not after the end."""
        self._clock.sleep(min(interval_s, self.left_s) if self.left_s > 0 else interval_s)
