"""The one bounded wait. Nothing else in the harness sleeps for a condition."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from harness.errors import WaitTimeout

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Clock:
    """A source of time. Unit tests use one whose `sleep` only advances `now`."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


REAL = Clock()


def wait_until(
    probe: Callable[[], T | None],
    *,
    what: str,
    timeout_s: float,
    interval_s: float = 0.05,
    last_seen: Callable[[], str] | None = None,
    clock: Clock = REAL,
) -> T:
    """Call `probe` until it returns something true, and return that.

    The probe runs at least once, also when `timeout_s` is 0, and one last time at the deadline. An exception
    from the probe ends the wait at once: a probe that expects a failure catches it itself.

    Raises:
        WaitTimeout: after `timeout_s` seconds; its message names `what` and ends with `last_seen()`.
    """
    deadline = clock.now() + timeout_s
    while True:
        answer = probe()
        if answer:
            return answer
        left_s = deadline - clock.now()
        if left_s <= 0:
            seen = f"\n{last_seen()}" if last_seen else ""
            raise WaitTimeout(f"{what}: not within {timeout_s:g} s.{seen}")
        clock.sleep(min(interval_s, left_s))


class Patience:
    """A timer of how long a count has not grown."""

    def __init__(self, clock: Clock = REAL) -> None:
        """Start the timer."""
        self._clock = clock
        self._count = -1
        self._since_s = clock.now()

    def waited_s(self, count: int) -> float:
        """Return the seconds since the count was last seen to grow; `count` is its present value."""
        if count > self._count:
            self._count, self._since_s = count, self._clock.now()
        return self._clock.now() - self._since_s


class Reports:
    """Tells when something that takes long should be reported: after a second, and then every few seconds."""

    def __init__(self, clock: Clock = REAL, *, first_s: float = 1.0, every_s: float = 8.0) -> None:
        """Start the timer."""
        self._clock = clock
        self._every_s = every_s
        self._next_s = clock.now() + first_s

    def is_due(self) -> bool:
        """Return whether to report now. It is true once for each report."""
        if self._clock.now() < self._next_s:
            return False
        self._next_s = self._clock.now() + self._every_s
        return True
