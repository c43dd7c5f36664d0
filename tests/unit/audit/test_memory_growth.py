"""The growth of a worker's memory, as a promise."""

from pathlib import Path

import pytest

from harness.audit.run_folder import RunFolder
from harness.records.expectation import Promise
from harness.records.verdict import Verdict
from tests.fakes.world import World, codes, finding


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(RunFolder.create(tmp_path, "test"), promise=Promise(memory_growth_mb=2.0))
    world.fine("a")
    return world


def grow(world: World, process: str, mb: float, tasks: int = 1_100) -> None:
    """Let a process grow by some MiB in 1,000 tasks; it is looked at after every fiftieth."""
    for ran in range(50, tasks + 1, 50):
        # Modules are loaded in the first tasks; later the memory comes in steps.
        loaded = 50_000 if ran > 50 else 0
        rss_kb = int(100_000 + loaded + mb * 1.024 * ran + ran // 50 % 2 * 100)
        world.say(process, "finished", "a", state="SUCCESS", rss_kb=rss_kb, ran=ran)


@pytest.mark.parametrize(("mb", "code"), [(2.5, {"memory-grows"}), (1.5, set()), (0.0, set()), (-3.0, set())])
def test_a_process_that_grows_by_more_than_promised_breaks_the_promise(world: World, mb: float, code: set[str]) -> None:
    grow(world, "worker-1.7", mb)
    found = world.audit()
    assert codes(found, Verdict.FAIL) == code
    assert codes(found, Verdict.UNKNOWN) == set()
    if code:
        text = finding(found, "memory-grows").text
        assert "and no more than 2 MiB in 1,000 tasks is promised: worker-1 2.5 MiB." in text


def test_without_the_promise_no_growth_breaks_it(world: World) -> None:
    world.promise = Promise()
    grow(world, "worker-1.7", 100.0)
    assert world.audit().passed


@pytest.mark.parametrize(
    ("mb", "other_mb", "code"), [(3.5, 0.0, {"memory-grows"}), (2.5, 0.0, set()), (2.5, 1.5, {"memory-grows"})]
)
def test_the_processes_of_a_worker_count_by_their_tasks(
    world: World, mb: float, other_mb: float, code: set[str]
) -> None:
    grow(world, "worker-1.7", mb, tasks=850)
    grow(world, "worker-1.8", other_mb, tasks=550)
    assert codes(world.audit(), Verdict.FAIL) == code


def test_each_worker_counts_for_itself(world: World) -> None:
    grow(world, "worker-1.7", 0.0)
    grow(world, "worker-2.7", 5.0)
    grow(world, "worker-3.7", 5.0, tasks=1_000)
    found = finding(world.audit(), "memory-grows")
    assert (found.count, found.text.count("MiB")) == (1, 2)
    assert "worker-2 5.0 MiB" in found.text


@pytest.mark.parametrize(
    ("tasks", "seen"), [(0, "none"), (1_000, "worker-1 900"), (150, "none"), (200, "worker-1 100")]
)
def test_of_too_few_tasks_no_growth_is_known(world: World, tasks: int, seen: str) -> None:
    grow(world, "worker-1.7", 9.0, tasks=tasks)
    found = world.audit()
    assert codes(found, Verdict.UNKNOWN) == {"memory-growth-unknown"}
    assert finding(found, "memory-growth-unknown").text.endswith(f"looked at: {seen}.")
