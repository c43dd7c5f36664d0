"""Tasks that begin before the transaction is committed in which they were sent."""

from pathlib import Path
from typing import Any

import pytest

from harness.audit.run_folder import RunFolder
from harness.records.verdict import Verdict
from tests.fakes.world import World, finding


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(RunFolder.create(tmp_path, "test"))
    world.fine("z")
    return world


def send(world: World, *, early: bool, times: int = 1, **ending: Any) -> None:
    """Let a task send `a` in a transaction; it begins before or after the transaction has ended."""
    for _ in range(times):
        world.say("worker-2", "intended", "a", name="ship", parent="z")
        world.say("worker-2", "accepted", "a", confirmed=True)
    if early:
        world.execute("a")
    world.say("worker-2", "committed", "a", **ending)
    if not early:
        world.execute("a")
    world.record("a")


def told(world: World) -> list[str]:
    found = world.audit()
    assert found.verdict is Verdict.PASS, found.text()
    return [one.text for one in found.findings if one.code == "ran-before-commit"]


def test_a_task_that_begins_before_the_commit_is_told(world: World) -> None:
    send(world, early=True)
    (text,) = told(world)
    # Between its beginning and the commit is its end.
    assert text.endswith("ship (a) began 2000 ms before the commit. Send it after the commit")
    assert finding(world.audit(), "ran-before-commit").tasks == ("a",)


def test_a_task_that_begins_after_the_commit_is_in_order(world: World) -> None:
    send(world, early=False)
    assert told(world) == []


@pytest.mark.parametrize("early", [True, False])
def test_a_task_that_begins_though_its_transaction_is_rolled_back_is_told(world: World, *, early: bool) -> None:
    send(world, early=early, rolled_back=True)
    (text,) = told(world)
    assert "ship (a) began, and the transaction in which it was sent was rolled back" in text


def test_an_execution_before_the_publish_in_the_transaction_does_not_count(world: World) -> None:
    world.intend("a", effects=None, expect={}, name="ship")
    world.execute("a", state="RETRY")
    send(world, early=False)
    assert told(world) == []
