"""The one bounded wait, by a clock that only moves when the wait sleeps."""

from dataclasses import dataclass, field

import pytest

from harness.errors import WaitTimeout
from harness.wait import Clock, Patience, Reports, wait_until


@dataclass
class Time:
    """A clock whose sleeping takes no time."""

    now_s: float = 100.0
    slept_s: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.now_s += seconds

    @property
    def clock(self) -> Clock:
        return Clock(now=lambda: self.now_s, sleep=self.sleep)


def test_what_the_probe_returns_is_returned_without_any_sleep() -> None:
    time = Time()
    assert wait_until(lambda: "there", what="it", timeout_s=0, clock=time.clock) == "there"
    assert time.slept_s == []


def test_the_probe_is_asked_until_it_answers() -> None:
    time = Time()
    answers = iter([None, 0, "", "there"])
    assert wait_until(lambda: next(answers), what="it", timeout_s=10, interval_s=2, clock=time.clock) == "there"
    assert time.slept_s == [2, 2, 2]


def test_the_probe_is_asked_one_last_time_at_the_deadline_and_no_later() -> None:
    time = Time()
    asked_s: list[float] = []
    with pytest.raises(WaitTimeout):
        wait_until(lambda: asked_s.append(time.now_s), what="it", timeout_s=5, interval_s=2, clock=time.clock)
    assert asked_s == [100, 102, 104, 105]


def test_a_time_out_says_what_was_waited_for_and_what_was_seen_last() -> None:
    seen = iter(["nothing yet", "three of four"])
    with pytest.raises(WaitTimeout) as caught:
        wait_until(lambda: None, what="four workers", timeout_s=1.5, last_seen=lambda: [*seen][-1], clock=Time().clock)
    assert str(caught.value) == "four workers: not within 1.5 s.\nthree of four"


def test_an_exception_of_the_probe_ends_the_wait_at_once() -> None:
    time = Time()

    def broken() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        wait_until(broken, what="it", timeout_s=10, clock=time.clock)
    assert time.slept_s == []


def test_patience_counts_from_the_last_time_that_something_grew() -> None:
    time = Time()
    patience = Patience(time.clock)
    seen = []
    # What shrinks has not grown.
    for count in (0, 0, 3, 3, 2, 3, 4):
        seen.append(patience.waited_s(count))
        time.sleep(1.0)
    assert seen == [0, 1, 0, 1, 2, 3, 0]


def test_a_report_is_due_after_a_second_and_then_every_few() -> None:
    time = Time()
    reports = Reports(time.clock)
    due = []
    for _ in range(40):
        if reports.is_due():
            due.append(time.now_s)
        time.sleep(0.5)
    assert due == [101.0, 109.0, 117.0]
