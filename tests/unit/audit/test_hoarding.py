"""Workers that have nothing to do while another one holds messages."""

from pathlib import Path
from typing import Any

import pytest

from harness.audit.run_folder import RunFolder
from harness.records.verdict import Verdict
from tests.fakes.world import World, finding


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return the world of a run of two workers, each with one process, that ran for 20 seconds."""
    world = World(RunFolder.create(tmp_path, "test"))
    for node in ("worker-1", "worker-2"):
        come_up(world, node)
    world.remains = {"readable": True, "queues": [], "messages": [], "held": [], "alive": ["worker-1", "worker-2"]}
    run(world, "first", 100, 102, 110)
    run(world, "last", 119, 119, 120)
    return world


def say(world: World, t: float, process: str, kind: str, task: str | None = None, **data: Any) -> None:
    world.say(process, kind, task, **data)
    world.lines[process][-1]["t"] = float(t)


def come_up(world: World, node: str, *, concurrency: int = 1) -> None:
    """Let a worker say its settings, and that it is ready, when the run begins."""
    say(world, 100, node, "settings", concurrency=concurrency)
    say(world, 100, node, "ready")


def run(world: World, task: str, *times: float, node: str = "worker-1", **data: Any) -> None:
    """Send a task, and let a worker receive it, begin it and end it at these times."""
    received_t, began_t, ended_t = times
    world.intend(task, effects=None, expect={})
    for line in world.lines["producer"][-2:]:
        line["t"] = 99.0
    say(world, received_t, node, "received", task, **data)
    say(world, began_t, node, "started", task)
    say(world, ended_t, node, "finished", task, state="SUCCESS")
    world.record(task)


def hoarded(world: World) -> list[str]:
    found = world.audit()
    assert found.verdict is Verdict.PASS, found.text()
    return [one.text for one in found.findings]


def test_a_worker_that_is_idle_while_another_holds_a_message_is_told_for_how_long(world: World) -> None:
    run(world, "x", 103, 110, 112)
    found = finding(world.audit(), "hoarded")
    assert (found.verdict, found.count) == (Verdict.PASS, 1)
    # `first` was held for two seconds before it began, and `x` for seven.
    assert "begun: worker-2 for 9.0 s. Most were held by worker-1" in found.text


def test_a_worker_that_is_busy_meanwhile_is_not_idle(world: World) -> None:
    run(world, "y", 100, 100, 118, node="worker-2")
    run(world, "x", 103, 110, 112)
    assert hoarded(world) == []


def test_a_worker_that_was_busy_before_is_idle_again(world: World) -> None:
    run(world, "y", 100, 100, 103, node="worker-2")
    run(world, "x", 104, 110, 112)
    assert "worker-2 for 6.0 s" in hoarded(world)[0]


def test_a_worker_that_held_a_message_is_idle_once_that_has_run(world: World) -> None:
    # From 102, `first` runs on worker-1; that has nothing more to do from 110 on, when worker-2 holds one.
    run(world, "y", 100, 100, 118, node="worker-2")
    run(world, "x", 112, 118, 119, node="worker-2")
    (text,) = hoarded(world)
    assert "begun: worker-1 for 6.0 s. Most were held by worker-2" in text


def test_what_a_worker_held_while_only_it_had_nothing_to_do_does_not_count(world: World) -> None:
    world.nodes.append("worker-3")
    come_up(world, "worker-3", concurrency=2)
    # Worker-1 holds `first` for two seconds and `x` for four, while worker-3 has a free process. Worker-3 holds `z` for
    # eight seconds, and then its own process is the only one that is free.
    run(world, "x", 106, 110, 119)
    run(world, "y", 108, 108, 119, node="worker-2")
    run(world, "long", 108, 108, 119, node="worker-3")
    run(world, "z", 110, 118, 119, node="worker-3")
    assert "Most were held by worker-1" in hoarded(world)[0]


def test_a_worker_that_held_nothing_is_not_told_as_the_one_that_held(world: World) -> None:
    world.nodes.append("worker-3")
    come_up(world, "worker-3")
    # Worker-3 is busy all the time, and both others have nothing to do for long: more than worker-1 held.
    run(world, "busy", 100, 100, 120, node="worker-3")
    assert "Most were held by worker-1" in hoarded(world)[0]


def test_of_several_idle_workers_the_one_that_was_idle_longest_is_told_first(world: World) -> None:
    world.nodes.append("worker-3")
    come_up(world, "worker-3")
    run(world, "y", 103, 103, 107, node="worker-2")
    run(world, "x", 103, 110, 112)
    say(world, 120, "worker-3", "down")
    assert "worker-3 for 9.0 s, worker-2 for 5.0 s" in hoarded(world)[0]


def test_a_worker_with_a_second_process_is_idle_for_that_one(world: World) -> None:
    world.lines["worker-2"][1]["concurrency"] = 2
    run(world, "y", 100, 100, 118, node="worker-2")
    run(world, "x", 103, 110, 112)
    assert "worker-2 for 9.0 s" in hoarded(world)[0]


def test_a_worker_whose_processes_begin_their_tasks_at_the_same_time_is_busy_with_all_of_them(world: World) -> None:
    world.lines["worker-2"][1]["concurrency"] = 2
    run(world, "y", 100, 100, 118, node="worker-2")
    run(world, "z", 100, 100, 118, node="worker-2")
    run(world, "x", 103, 110, 112)
    assert hoarded(world) == []


def test_more_messages_than_idle_processes_count_for_the_processes(world: World) -> None:
    run(world, "x", 103, 110, 112)
    run(world, "y", 103, 112, 113)
    # From 103 to 112, and the two seconds before `first` began.
    assert "worker-2 for 11.0 s" in hoarded(world)[0]


def test_a_message_whose_time_has_not_come_is_not_hoarded(world: World) -> None:
    run(world, "x", 103, 110, 112, eta=110.0)
    assert "worker-2 for 2.0 s" in hoarded(world)[0]


def test_a_worker_that_runs_no_more_was_idle_until_its_last_line(world: World) -> None:
    run(world, "x", 103, 110, 112)
    assert world.remains
    world.remains["alive"] = ["worker-1"]
    assert hoarded(world) == []
    say(world, 106, "worker-2", "down")
    assert "worker-2 for 5.0 s" in hoarded(world)[0]


def test_a_worker_that_runs_no_more_was_idle_until_the_last_line_of_its_processes(world: World) -> None:
    run(world, "x", 103, 110, 112)
    assert world.remains
    world.remains["alive"] = ["worker-1"]
    say(world, 106, "worker-2.7", "down")
    say(world, 101, "worker-2.8", "down")
    assert "worker-2 for 5.0 s" in hoarded(world)[0]


def test_a_worker_is_idle_from_when_it_was_ready_itself(world: World) -> None:
    run(world, "x", 103, 110, 112)
    world.lines["worker-2"][-1]["t"] = 106.0
    assert "worker-2 for 4.0 s" in hoarded(world)[0]


def test_a_worker_that_is_ready_again_was_there_from_the_first_time(world: World) -> None:
    run(world, "x", 103, 110, 112)
    say(world, 108, "worker-2", "ready")
    assert "worker-2 for 9.0 s" in hoarded(world)[0]


def test_a_worker_that_starts_again_with_fewer_processes_is_compared_with_those(world: World) -> None:
    world.lines["worker-2"][1]["concurrency"] = 5
    say(world, 101, "worker-2", "settings", concurrency=1)
    run(world, "x", 103, 110, 112)
    run(world, "y", 103, 112, 113)
    assert "worker-2 for 11.0 s" in hoarded(world)[0]


def test_a_message_that_its_worker_never_began_is_not_hoarded(world: World) -> None:
    run(world, "x", 103, 110, 112)
    world.lines["worker-1"] = [line for line in world.lines["worker-1"] if line.get("task") != "x"]
    for number, line in enumerate(world.lines["worker-1"]):
        line["n"] = number
    say(world, 103, "worker-1", "received", "x")
    say(world, 113, "worker-2", "received", "x", redelivered=True)
    say(world, 113, "worker-2", "started", "x")
    say(world, 114, "worker-2", "finished", "x", state="SUCCESS")
    assert "worker-2 for 2.0 s" in hoarded(world)[0]


def test_less_than_a_second_is_not_told(world: World) -> None:
    world.lines["worker-1"][3]["t"] = 101.5
    assert hoarded(world) == []


def test_one_worker_alone_hoards_nothing(world: World) -> None:
    run(world, "x", 103, 110, 112)
    del world.lines["worker-2"]
    assert hoarded(world) == []


def test_a_worker_that_does_not_say_how_many_tasks_it_runs_at_once_is_compared_with_none(world: World) -> None:
    world.lines["worker-2"][1]["concurrency"] = 0
    run(world, "y", 112, 116, 117, node="worker-2")
    assert hoarded(world) == []


@pytest.mark.parametrize(("times", "idle"), [((103, 103, 106), "7.0 s"), ((103, 103, 113), "3.0 s"), (None, "8.0 s")])
def test_what_begins_or_ends_within_a_slot_is_summed_up_in_it(
    world: World, monkeypatch: pytest.MonkeyPatch, times: tuple[int, int, int] | None, idle: str
) -> None:
    monkeypatch.setattr("harness.audit.witnesses._SLOT_S", 10.0)
    # In the first ten seconds worker-1 holds messages for two and for six seconds.
    run(world, "x", 104, 110, 119)
    if times:
        run(world, "y", *times, node="worker-2")
    assert f"worker-2 for {idle}" in hoarded(world)[0]


def test_of_a_long_journal_one_task_of_several_stands_for_all(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.audit.witnesses._LINES_OF_LOADS", 50)
    for number in range(40):
        run(world, f"x{number}", 103, 110, 110)
    (text,) = hoarded(world)
    # From 103 to 110. The messages are more than the idle process, however many of them are looked at.
    assert "worker-2 for 7.0 s" in text or "worker-2 for 9.0 s" in text
