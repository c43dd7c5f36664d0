"""A load that keeps workers busy, and no more than busy."""

import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from harness.audit.run_folder import RunFolder
from harness.records.event import Kind
from harness.records.journal import Writer
from harness.running.steady_load import SteadyLoad
from harness.scenario import Drive, Scenario
from harness.wait import wait_until

if TYPE_CHECKING:
    from harness.stack.stack import Stack


class World:
    """A stack whose worker runs two tasks at once, and ends one when it is told to."""

    def __init__(self, folder: RunFolder) -> None:
        """Let the worker say how many tasks it runs at once."""
        self.stack = cast("Stack", SimpleNamespace(folder=folder, producer=self))
        self.producer = Writer(folder.journal, node="producer", role="producer")
        self.worker = Writer(folder.journal, node="worker-1", role="worker")
        self.worker.write(Kind.SETTINGS, concurrency=2)
        self.sent: list[str] = []
        self.refuses = False

    def send(self, task: str) -> None:
        self.producer.write(Kind.INTENDED, task, name="pay")
        if self.refuses:
            self.producer.write(Kind.REFUSED, task, reason="nobody listens")
        else:
            self.producer.write(Kind.ACCEPTED, task, confirmed=True)
        self.sent.append(task)

    def end(self, task: str) -> None:
        self.worker.write(Kind.STARTED, task, name="pay")
        self.worker.write(Kind.FINISHED, task, state="SUCCESS")


class Paying(Scenario):
    """Each step sends one task; one step fails."""

    name = "paying"
    fails_at = 9

    def step(self, producer: Any, number: int, seed: int) -> None:
        del seed
        if number == self.fails_at:
            raise ValueError("no more money")
        producer.send(f"task-{number}")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(RunFolder.create(tmp_path, "run"))


def load_of(world: World, steps: int) -> SteadyLoad:
    return SteadyLoad(world.stack, Paying(), Drive(count=steps, seed=1), workers=1)


def test_a_step_is_taken_only_while_the_workers_keep_up(world: World) -> None:
    with load_of(world, 8) as load:
        wait_until(lambda: load.taken == 4, what="twice as many as run at once", timeout_s=30)
        assert not load.is_exhausted
        for task in ("task-0", "task-1"):
            world.end(task)
        load.wait_for(2, 30)
        assert load.last_begun_t > 0
        wait_until(lambda: load.taken == 6, what="two more", timeout_s=30)
        for number in range(2, 6):
            world.end(f"task-{number}")
        wait_until(lambda: load.is_exhausted, what="the rest", timeout_s=30)
    assert load.taken == len(world.sent) == 8


def test_more_workers_get_more_tasks_and_what_never_ends_is_replaced(world: World) -> None:
    with load_of(world, 9) as load:
        wait_until(lambda: load.taken == 4, what="twice as many as run at once", timeout_s=30)
        load.workers = 2
        wait_until(lambda: load.taken == 8, what="twice as many again", timeout_s=30)
        assert not load.is_exhausted
        load.given_up = 1
        wait_until(lambda: load.taken == 9, what="as many more as never end", timeout_s=30)


class OfOneThread(dict[str, Any]):
    """Settings of workers that may be read only by the thread that adds to them."""

    def __getattribute__(self, name: str) -> Any:
        assert threading.current_thread() is not threading.main_thread(), f"{name} of what another thread changes"
        return super().__getattribute__(name)


def test_how_many_keep_all_busy_can_be_asked_while_workers_come(world: World) -> None:
    load = load_of(world, 8)
    load._ledger.settings = OfOneThread()  # noqa: SLF001 - what the thread of the load adds to.
    with load:
        wait_until(lambda: load.taken == 4, what="twice as many as run at once", timeout_s=30)
        assert load.busy == 4


def test_what_the_broker_refuses_is_not_waited_for_and_leaves_its_place_to_other_tasks(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Paying, "fails_at", -1)
    world.refuses = True
    with load_of(world, 3) as load:
        wait_until(lambda: load.taken >= 5, what="more than could run at once, and than are to be sent", timeout_s=30)
        assert not load.is_exhausted
        assert load.last_taken_t == 0.0
        world.refuses = False
        wait_until(lambda: load.is_exhausted, what="as many as are to be sent", timeout_s=30)
    assert (load.taken - load.refused, load.ended) == (3, 0)
    assert load.last_taken_t > load.last_refused_t > load.last_begun_t == 0.0


def test_what_a_step_raises_is_raised_at_the_end(world: World) -> None:
    def play() -> None:
        with load_of(world, 20) as load:
            for number in range(9):
                task = f"task-{number}"
                wait_until(partial(world.sent.__contains__, task), what="it is sent", timeout_s=30)
                world.end(task)
            load.wait_for(100, 30)

    with pytest.raises(ValueError, match="no more money"):
        play()
