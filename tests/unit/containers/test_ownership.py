"""When an owner may be called dead, and its containers removed."""

import math
import os
import subprocess
from dataclasses import replace
from typing import Any

import pytest

from harness.containers.ownership import Owner, _process_start_s, owner_is_dead

HERE = Owner(place="machine.1", boot="boot-1", pid=100, start_s=50.0)
OWNER = replace(HERE, pid=200, start_s=1000.25)


def processes(**start_s: float) -> dict[int, float]:
    return {int(name.removeprefix("pid")): value for name, value in start_s.items()}


def test_a_label_names_its_owner_again() -> None:
    assert Owner.from_label(str(OWNER)) == OWNER


def test_a_process_knows_its_own_label_even_if_its_start_was_read_a_second_off() -> None:
    assert HERE.is_named_by(str(HERE))
    assert HERE.is_named_by(str(replace(HERE, start_s=HERE.start_s + 1)))


@pytest.mark.parametrize("change", [{"place": "x.1"}, {"boot": "x"}, {"pid": 101}, {"start_s": 60.0}])
def test_a_process_does_not_take_the_label_of_another_for_its_own(change: dict[str, Any]) -> None:
    assert not HERE.is_named_by(str(replace(HERE, **change)))
    assert not HERE.is_named_by("nobody")


def test_an_owner_that_runs_is_not_dead() -> None:
    assert not owner_is_dead(str(OWNER), HERE, processes(pid200=1000.25).get)


def test_an_owner_whose_pid_is_gone_is_dead() -> None:
    assert owner_is_dead(str(OWNER), HERE, processes(pid201=1000.25).get)


@pytest.mark.parametrize("start_s", [900.0, 1100.0])
def test_an_owner_whose_pid_was_given_to_another_process_is_dead(start_s: float) -> None:
    assert owner_is_dead(str(OWNER), HERE, processes(pid200=start_s).get)


@pytest.mark.parametrize("start_s", [999.25, 1001.25])
def test_a_start_time_that_is_a_second_off_is_the_same_process(start_s: float) -> None:
    # The boot time that it is counted from has a resolution of a second.
    assert not owner_is_dead(str(OWNER), HERE, processes(pid200=start_s).get)


def test_a_process_that_cannot_be_looked_at_is_not_dead() -> None:
    assert not owner_is_dead(str(OWNER), HERE, processes(pid200=math.nan).get)


def test_an_owner_from_before_the_last_boot_is_dead_even_if_the_pid_is_in_use() -> None:
    before = replace(OWNER, boot="boot-0")
    assert owner_is_dead(str(before), HERE, processes(pid200=1000.25).get)


@pytest.mark.parametrize("boot", ["boot-0", "boot-1"])
@pytest.mark.parametrize("place", ["machine.2", "other.1"])
def test_an_owner_of_another_machine_or_pid_namespace_is_never_called_dead(place: str, boot: str) -> None:
    elsewhere = replace(OWNER, place=place, boot=boot)
    assert not owner_is_dead(str(elsewhere), HERE, processes().get)


@pytest.mark.parametrize("label", ["", "somebody", "machine.1/boot-0/x/1.0", "machine.1/boot-0/1/2/3", "a/b/1/x"])
def test_a_label_that_is_not_ours_is_nobody_who_could_be_dead(label: str) -> None:
    assert not owner_is_dead(label, HERE, processes().get)


def test_this_process_is_alive_in_its_own_eyes() -> None:
    here = Owner.here()
    assert here.pid == os.getpid()
    assert here.start_s > 0
    assert not owner_is_dead(str(here), here, _process_start_s)


def test_a_process_that_ended_is_dead_even_before_its_parent_has_waited_for_it() -> None:
    here = Owner.here()
    with subprocess.Popen(["true"]) as child:
        # It ended and is not waited for: a zombie, which has a pid and a start time still.
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert owner_is_dead(str(replace(here, pid=child.pid)), here, _process_start_s)
