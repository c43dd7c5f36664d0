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


def send(world: World, *, early: bool, task: str = "a", times: int = 1, **ending: Any) -> None:
    """Let a task send another in a transaction; that begins so many times before or after the transaction has ended."""
    world.say("worker-2", "intended", task, name="ship", parent="z")
    world.say("worker-2", "accepted", task, confirmed=True)
    for _ in range(times if early else 0):
        world.execute(task)
    world.say("worker-2", "committed", task, **ending)
    for _ in range(0 if early else times):
        world.execute(task)
    if task not in {row[0] for row in world.rows}:
        world.record(task)


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


@pytest.mark.parametrize("sender", ["producer", "worker-2"])
def test_an_execution_before_the_publish_in_the_transaction_does_not_count(world: World, sender: str) -> None:
    world.say(sender, "intended", "a", name="ship")
    world.say(sender, "accepted", "a", confirmed=True)
    world.execute("a", state="RETRY")
    send(world, early=False)
    assert told(world) == []


def test_of_two_executions_before_the_commit_the_first_is_told(world: World) -> None:
    send(world, early=True, times=2)
    (text,) = told(world)
    # It began, ended, and so did the second one.
    assert "ship (a) began 4000 ms before the commit" in text


def test_what_is_sent_meanwhile_and_what_is_sent_again_later_is_another_matter(world: World) -> None:
    send(world, early=True)
    world.lines["worker-2"].pop()
    world.fine("y")
    world.say("worker-2", "committed", "a")
    world.say("worker-2", "intended", "a", name="ship", parent="z")
    world.say("worker-2", "accepted", "a", confirmed=True)
    world.execute("a")
    assert len(told(world)) == 1


def test_a_task_that_begins_before_its_sender_knows_that_the_broker_has_it_is_in_order(world: World) -> None:
    world.say("worker-2", "intended", "a", name="ship", parent="z")
    world.execute("a")
    world.say("worker-2", "accepted", "a", confirmed=True)
    world.record("a")
    assert told(world) == []


def test_a_task_whose_first_transaction_was_rolled_back_and_whose_second_was_not_is_told(world: World) -> None:
    send(world, early=True, rolled_back=True)
    send(world, early=True)
    (text,) = told(world)
    assert "the transaction in which it was sent was rolled back" in text


@pytest.mark.parametrize("rolled_back", [True, False])
def test_what_happens_in_one_instant_began_once_it_was_sent_and_not_before_the_commit(
    world: World, *, rolled_back: bool
) -> None:
    """A clock may show the same time more than once."""
    send(world, early=True, rolled_back=rolled_back)
    for line in (*world.lines["worker-2"][1:], world.lines["worker-1"][-2]):
        line["t"] = 1_100.0
    world.lines["worker-1"][-1]["t"] = 1_101.0
    assert len(told(world)) == rolled_back


def test_of_many_tasks_that_began_too_early_three_are_told(world: World) -> None:
    for task in "dbca":
        send(world, early=True, task=task)
    (text,) = told(world)
    assert [f"ship ({task}) began 2000 ms" in text for task in "abcd"] == [True, True, True, False]
    assert finding(world.audit(), "ran-before-commit").count == 4
