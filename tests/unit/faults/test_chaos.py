"""Chaos from a seed: which faults are drawn, when, and in which order they are healed."""

import pytest

from harness.faults.chaos import Chaos, Ground, chaos
from harness.faults.fault_text import fault_of
from harness.faults.timetable import parse

TWO = Ground(workers=2, has_mailbox=True, has_processes=True, steps=60)
SEEDS = range(300)
HARMLESS = {
    "kill",
    "kill-pool-process",
    "pause",
    "stop",
    "restart",
    "partition",
    "latency",
    "half-open",
    "hold-acks",
    "slow-mail",
    "reject-mail",
    "lock-results",
}


def kinds(found: Chaos) -> list[str]:
    return [fault_of(one.fault).kind for one in found.planned]


def broken(found: Chaos) -> list[str]:
    """Return what each fault breaks: a node, or what it is for."""
    return [fault_of(one.fault).wanted or fault_of(one.fault).kind for one in found.planned]


def test_a_seed_draws_the_same_faults_each_time_and_another_one_others() -> None:
    assert all(chaos(seed, TWO) == chaos(seed, TWO) for seed in SEEDS)
    assert len({chaos(seed, TWO).planned for seed in SEEDS}) > len(SEEDS) * 0.9


def test_what_is_drawn_can_be_said_on_the_command_line() -> None:
    for seed in SEEDS:
        found = chaos(seed, TWO)
        assert tuple(parse(str(one)) for one in found.planned) == found.planned


def test_a_worker_is_always_killed_at_a_moment_of_a_task_and_nothing_is_broken_twice() -> None:
    for seed in SEEDS:
        found = chaos(seed, TWO)
        killed = [one for one in found.planned if one.fault.startswith("kill-worker") and one.moment]
        assert killed, found
        assert len(found.planned) > 1
        assert len(set(broken(found))) == len(found.planned), found
        assert set(kinds(found)) <= HARMLESS


def test_faults_come_one_by_one_and_are_healed_in_another_order_before_the_steps_are_over() -> None:
    swizzled = 0
    for seed in SEEDS:
        found = chaos(seed, TWO)
        timed = [one for one in found.planned if one.moment is None]
        begins = [one.at_s for one in timed]
        heals = [round(one.at_s + one.for_s, 1) for one in timed]
        assert begins == sorted(begins)
        assert max(begins, default=0.0) < min(heals, default=1.0), "all are broken at once"
        assert max(heals, default=0.0) < found.over_s
        swizzled += heals != sorted(heals)
    assert swizzled


def test_what_holds_tasks_back_is_healed_before_a_worker_is_started() -> None:
    slow = ("kill", "kill-pool-process", "stop", "restart")
    for seed in SEEDS:
        timed = [one for one in chaos(seed, TWO).planned if one.moment is None]
        quick_s = [one.at_s + one.for_s for one in timed if fault_of(one.fault).kind not in slow]
        slow_s = [one.at_s + one.for_s for one in timed if fault_of(one.fault).kind in slow]
        assert max(quick_s, default=0.0) < min(slow_s, default=100.0)


def test_each_kind_that_is_harmless_is_drawn_by_some_seed() -> None:
    drawn = {kind for seed in range(2000) for kind in kinds(chaos(seed, TWO))}
    assert drawn == HARMLESS


@pytest.mark.parametrize(
    ("ground", "absent"),
    [
        (Ground(workers=2, has_mailbox=False, has_processes=True, steps=60), {"slow-mail", "reject-mail"}),
        (Ground(workers=2, has_mailbox=True, has_processes=False, steps=60), {"kill-pool-process"}),
    ],
)
def test_what_is_not_there_is_not_broken(ground: Ground, absent: set[str]) -> None:
    assert absent.isdisjoint(kind for seed in SEEDS for kind in kinds(chaos(seed, ground)))


def test_one_worker_and_one_step_are_enough() -> None:
    found = chaos(1, Ground(workers=1, has_mailbox=False, has_processes=True, steps=1))
    assert [one.nth for one in found.planned if one.moment] == [1]
    assert "worker-2" not in str(found)
