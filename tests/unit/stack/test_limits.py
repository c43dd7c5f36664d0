"""One wait: how long it lasts, and which of its limits ends it."""

from harness.audit.remains import How
from harness.stack.limits import Limits, Wait
from harness.wait import Clock


class Time:
    """Passes when somebody sleeps."""

    def __init__(self) -> None:
        """Begin at zero."""
        self.now_s = 0.0
        self.slept: list[float] = []

    def sleep(self, duration_s: float) -> None:
        self.slept.append(duration_s)
        self.now_s += duration_s

    @property
    def clock(self) -> Clock:
        return Clock(now=lambda: self.now_s, sleep=self.sleep)


def test_as_long_as_tasks_end_the_limit_alone_ends_it() -> None:
    time = Time()
    wait = Wait(Limits(timeout_s=2, limit_s=5), time.clock)
    for ended in range(5):
        wait.note(ended)
        assert (wait.over(), wait.idle_s) == (None, 0.0)
        wait.rest(1)
    wait.note(5)
    assert (wait.over(), wait.waited_s) == (How.LIMIT, 5.0)


def test_where_no_task_ends_the_timeout_ends_it() -> None:
    time = Time()
    wait = Wait(Limits(timeout_s=2, limit_s=5), time.clock)
    wait.note(0)
    wait.rest(1.5)
    wait.note(0)
    assert (wait.over(), wait.left_s) == (None, 0.5)
    wait.rest(1.5)
    wait.note(0)
    assert (wait.over(), time.slept) == (How.TIMEOUT, [1.5, 0.5])
    # Whoever goes on all the same does not spin.
    wait.rest(1.5)
    assert time.slept[-1] == 1.5
