"""The processor time of a load process: its priority, and the share of it that the machine's host took."""

import os
import sys
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from harness.loadtest.processor_time import MachineTimes, set_realtime_priority

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="no other system has these calls")


def test_what_the_host_took_from_the_machine_is_a_share_of_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, float]] = [
        # What ran for a guest is in the time of the process that ran it, too.
        {"user": 100.0, "system": 50.0, "idle": 900.0, "guest": 10.0, "guest_nice": 1.0, "steal": 7.0},
        {"user": 103.0, "system": 51.0, "idle": 904.0, "guest": 11.0, "guest_nice": 2.0, "steal": 9.0},
        # Not every system tells of it.
        {"user": 1.0, "idle": 2.0},
        {"user": 2.0, "idle": 3.0},
    ]
    times = iter(told)
    monkeypatch.setattr(psutil, "cpu_times", lambda: SimpleNamespace(_asdict=lambda: next(times)))
    before = MachineTimes.read()
    assert before == (7.0, 1057.0)
    assert MachineTimes.read().share_stolen_since(before) == pytest.approx(2 / 10)
    before = MachineTimes.read()
    assert MachineTimes.read().share_stolen_since(before) == 0.0


def test_nothing_was_taken_in_no_time() -> None:
    now = MachineTimes(stolen_s=1.0, all_s=10.0)
    assert now.share_stolen_since(now) == 0.0


@linux_only
def test_the_priority_is_that_of_this_thread_and_of_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int, int]] = []
    monkeypatch.setattr(
        os, "sched_setscheduler", lambda pid, policy, param: asked.append((pid, policy, param.sched_priority))
    )
    set_realtime_priority(is_on=True)
    set_realtime_priority(is_on=False)
    assert asked == [
        (0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, 1),
        (0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, 0),
    ]


@linux_only
def test_a_priority_that_is_refused_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    set_realtime_priority(is_on=True)


def test_a_system_without_these_calls_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(os, "sched_setscheduler", asked.append, raising=False)
    monkeypatch.setattr(sys, "platform", "darwin")
    set_realtime_priority(is_on=True)
    assert not asked
