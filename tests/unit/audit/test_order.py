"""The order of a canvas: a step after its predecessor, a chord's body after its members."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.audit.run_folder import RunFolder
from harness.records.verdict import Verdict
from tests.fakes.world import World, codes, finding


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(RunFolder.create(tmp_path, "test"))


def intend(world: World, task: str, *steps: tuple[str, str], **data: Any) -> None:
    """Send a task that announces others, each with its way."""
    said = [{"task": step, "name": "mail", "way": way} for step, way in steps]
    about: dict[str, Any] = {"name": "mail", "steps": said, "expect": {}, "effects": None}
    world.intend(task, **{**about, **data})
    if task not in {row[0] for row in world.rows}:
        world.record(task)


def send_chain(world: World) -> None:
    """Send a chain of two tasks, of which the first begins."""
    intend(world, "a", ("b", "next"))
    world.say("worker-1", "started", "a")


def check(world: World, *early: str) -> None:
    found = world.audit()
    assert codes(found, Verdict.FAIL) == ({"out-of-order"} if early else set()), found.text()
    if early:
        assert finding(found, "out-of-order").tasks == early
    else:
        assert found.passed, found.text()


# ------------------------------------------------------------------------------------------------------------- chains


def test_a_step_that_begins_while_its_predecessor_runs_is_out_of_order(world: World) -> None:
    send_chain(world)
    intend(world, "b")
    world.execute("b", node="worker-2")
    world.say("worker-1", "finished", "a", state="SUCCESS")
    check(world, "b")
    text = finding(world.audit(), "out-of-order").text
    assert "mail (b), a step of a chain, began before mail (a) had succeeded" in text
    assert "never" not in text


def test_a_step_that_begins_again_after_its_predecessor_ended_began_too_early_all_the_same(world: World) -> None:
    send_chain(world)
    intend(world, "b")
    world.execute("b", node="worker-2", state=None)
    world.say("worker-1", "finished", "a", state="SUCCESS")
    world.execute("b", node="worker-2")
    check(world, "b")


def test_a_step_of_a_task_that_is_published_again_is_held_against_the_first_time(world: World) -> None:
    send_chain(world)
    intend(world, "b")
    world.execute("b", node="worker-2")
    world.say("worker-1", "finished", "a", state="RETRY")
    intend(world, "a", ("b", "next"))
    world.execute("a")
    check(world, "b")


def test_a_task_that_began_before_another_one_announced_it_as_its_next_step_is_in_order(world: World) -> None:
    """The task was replaced by a chain that ends with it."""
    world.intend("a", expect={}, effects=None)
    world.intend("b", expect={}, effects=None)
    world.execute("b", node="worker-2")
    world.record("b")
    intend(world, "a", ("b", "next"))
    world.execute("a")
    check(world)


def test_a_step_that_begins_before_its_predecessor_began_is_out_of_order(world: World) -> None:
    # The producer was killed before it could say that the first task was accepted.
    intend(world, "a", ("b", "next"), outcome=None)
    intend(world, "b")
    world.execute("b", node="worker-2")
    world.execute("a")
    check(world, "b")


def test_a_step_of_a_task_that_never_succeeds_is_out_of_order(world: World) -> None:
    send_chain(world)
    world.say("worker-1", "finished", "a", state="FAILURE")
    world.rows[-1] = ("a", "FAILURE", b"{}")
    intend(world, "b")
    world.execute("b")
    found = world.audit()
    assert codes(found, Verdict.FAIL) == {"out-of-order", "failed-unexpectedly"}
    assert "had succeeded, and it never did" in finding(found, "out-of-order").text


def test_a_step_that_its_predecessor_sends_before_its_own_end_is_told_is_in_order(world: World) -> None:
    send_chain(world)
    intend(world, "b", parent="a")
    world.execute("b", node="worker-2")
    world.say("worker-1", "finished", "a", state="SUCCESS")
    check(world)


def test_what_happens_in_one_instant_is_in_order(world: World) -> None:
    """A clock may show the same time more than once."""
    send_chain(world)
    intend(world, "b")
    world.execute("b", node="worker-2")
    world.say("worker-1", "finished", "a", state="SUCCESS", since_store_s=0.0)
    check(world, "b")
    began = next(line for line in world.lines["worker-2"] if line["kind"] == "started")
    world.lines["worker-1"][-1]["t"] = began["t"]
    check(world)


def test_a_step_that_begins_in_the_instant_in_which_its_predecessor_sends_it_is_in_order(world: World) -> None:
    send_chain(world)
    intend(world, "b", parent="a")
    sent = next(line for line in world.lines["producer"] if line.get("parent") == "a")
    world.execute("b", node="worker-2")
    world.say("worker-1", "finished", "a", state="SUCCESS")
    began = next(line for line in world.lines["worker-2"] if line["kind"] == "started")
    began["t"] = sent["t"]
    check(world)
    began["t"] -= 0.5
    check(world, "b")


def test_a_step_that_another_task_sends_meanwhile_is_out_of_order(world: World) -> None:
    send_chain(world)
    intend(world, "b", parent="z")
    world.execute("b", node="worker-2")
    intend(world, "b", parent="a")
    world.say("worker-1", "finished", "a", state="SUCCESS")
    check(world, "b")


def test_a_predecessor_that_runs_again_does_not_put_its_step_out_of_order(world: World) -> None:
    send_chain(world)
    intend(world, "b", parent="a")
    world.execute("b")
    world.say("worker-2", "started", "a", redelivered=True)
    world.say("worker-2", "finished", "a", state="SUCCESS")
    check(world)


def test_a_predecessor_that_retries_is_followed_by_its_step_once_it_succeeds(world: World) -> None:
    send_chain(world)
    world.say("worker-1", "finished", "a", state="RETRY")
    intend(world, "a", ("b", "next"))
    world.execute("a")
    intend(world, "b")
    world.execute("b")
    check(world)


def test_a_step_that_begins_while_its_predecessor_waits_for_a_retry_is_out_of_order(world: World) -> None:
    send_chain(world)
    world.say("worker-1", "finished", "a", state="RETRY")
    intend(world, "a", ("b", "next"))
    intend(world, "b")
    world.execute("b")
    world.execute("a")
    check(world, "b")


def test_a_task_that_a_chain_replaces_began_before_that_chain_was_sent(world: World) -> None:
    intend(world, "a")
    world.execute("a", state="IGNORED")
    intend(world, "x", ("a", "next"), parent="a")
    world.execute("x")
    intend(world, "a", parent="x")
    world.execute("a")
    check(world)


def test_in_a_journal_with_gaps_the_end_of_a_predecessor_may_be_lost(world: World) -> None:
    send_chain(world)
    intend(world, "b")
    world.execute("b", node="worker-2")
    world.say("worker-1", "finished", "a", state="SUCCESS")
    world.lines["producer"].pop(2)
    assert finding(world.audit(), "out-of-order").verdict is Verdict.UNKNOWN


# ------------------------------------------------------------------------------------------------------------- chords


def by_its_message(world: World) -> None:
    """Let each member announce the body."""
    for task in "ab":
        intend(world, task, ("body", "body"))


def by_its_unlock(world: World) -> None:
    """Let the task announce the body that waits for the members."""
    for task in "ab":
        intend(world, task)
    intend(world, "unlock", ("body", "body"), name="celery.chord_unlock", members=["a", "b"])


ANNOUNCED = pytest.mark.parametrize("announce", [by_its_message, by_its_unlock])


def run_body(world: World) -> None:
    if "celery.chord_unlock" in str(world.lines):
        world.say("worker-3", "started", "unlock")
    intend(world, "body", parent="unlock")
    world.execute("body", node="worker-2")
    if "celery.chord_unlock" in str(world.lines):
        world.say("worker-3", "finished", "unlock", state="SUCCESS")


@ANNOUNCED
def test_a_body_that_begins_before_a_member_ended_is_out_of_order(
    world: World, announce: Callable[[World], None]
) -> None:
    announce(world)
    world.execute("a")
    world.say("worker-1", "started", "b")
    run_body(world)
    world.say("worker-1", "finished", "b", state="SUCCESS")
    check(world, "body")
    text = finding(world.audit(), "out-of-order").text
    assert "mail (body), the body of a chord, began before its member mail (b) had succeeded" in text


@ANNOUNCED
def test_a_body_after_all_its_members_is_in_order(world: World, announce: Callable[[World], None]) -> None:
    announce(world)
    world.execute("a")
    world.execute("b", state="RETRY")
    world.execute("b")
    run_body(world)
    # A message that comes twice.
    world.execute("a", node="worker-2")
    check(world)


def test_what_runs_because_a_member_failed_does_not_wait_for_the_others(world: World) -> None:
    for task in "ab":
        intend(world, task)
    steps = (("body", "body"), ("sorry", "errback"))
    intend(world, "unlock", *steps, name="celery.chord_unlock", members=["a", "b"])
    world.say("worker-1", "started", "b")
    intend(world, "sorry", parent="a")
    world.execute("sorry", node="worker-2")
    world.say("worker-1", "finished", "b", state="SUCCESS")
    assert "out-of-order" not in {one.code for one in world.audit().findings}


@pytest.mark.parametrize(("since_s", "early"), [(3.9, ()), (None, ("body",)), (0.5, ("body",))])
def test_a_member_has_ended_when_its_result_is_stored(
    world: World, since_s: float | None, early: tuple[str, ...]
) -> None:
    by_its_message(world)
    world.execute("a")
    world.say("worker-1", "started", "b")
    run_body(world)
    told = {} if since_s is None else {"since_store_s": since_s}
    world.say("worker-1", "finished", "b", state="SUCCESS", store_s=0.1, **told)
    check(world, *early)


def test_a_member_whose_process_died_after_its_result_was_stored_is_in_order(world: World) -> None:
    by_its_message(world)
    world.execute("a")
    world.say("worker-1", "started", "b")
    run_body(world)
    check(world)


def test_of_several_members_one_is_named(world: World) -> None:
    by_its_message(world)
    world.say("worker-1", "started", "a")
    world.say("worker-1", "started", "b")
    run_body(world)
    world.say("worker-1", "finished", "a", state="SUCCESS")
    world.say("worker-1", "finished", "b", state="SUCCESS")
    found = finding(world.audit(), "out-of-order")
    assert "mail (a) and 1 more had succeeded" in found.text
    assert (found.count, found.tasks) == (1, ("body",))


@pytest.mark.parametrize(
    ("first", "last", "words"),
    [
        ("a", "b", "mail (x), a step of a chain, began before pay (a) and 1 more had succeeded, and it never did"),
        ("b", "a", "mail (x), the body of a chord, began before its member mail (a) and 1 more had succeeded"),
    ],
)
def test_of_several_predecessors_the_first_is_told_with_what_it_was_to_the_task(
    world: World, first: str, last: str, words: str
) -> None:
    intend(world, first, ("x", "next"), name="pay")
    intend(world, last, ("x", "body"))
    world.say("worker-1", "started", first)
    world.say("worker-1", "started", last)
    intend(world, "x")
    world.execute("x", node="worker-2")
    world.say("worker-1", "finished", last, state="SUCCESS")
    # It ended otherwise, and its row says so.
    world.say("worker-1", "finished", first, state="FAILURE")
    world.rows[0] = (first, "FAILURE", b"{}")
    text = finding(world.audit(), "out-of-order").text
    assert words in text
    assert ("never" in text) is ("never" in words)


def test_of_many_tasks_that_are_out_of_order_three_are_told(world: World) -> None:
    for task in "dbca":
        intend(world, task, (f"{task}-next", "next"))
        world.say("worker-1", "started", task)
        intend(world, f"{task}-next")
        world.execute(f"{task}-next", node="worker-2")
        world.say("worker-1", "finished", task, state="SUCCESS")
    found = finding(world.audit(), "out-of-order")
    assert found.count == 4
    assert [f"before mail ({task}) had succeeded" in found.text for task in "abcd"] == [True, True, True, False]


def test_a_step_that_nobody_sent_is_out_of_order_too(world: World) -> None:
    send_chain(world)
    world.execute("b", node="worker-2")
    world.say("worker-1", "finished", "a", state="SUCCESS")
    text = finding(world.audit(), "out-of-order").text
    assert "a task (b), a step of a chain, began before mail (a) had succeeded" in text


def test_a_body_whose_member_was_never_sent_began_before_it(world: World) -> None:
    intend(world, "a")
    intend(world, "unlock", ("body", "body"), name="celery.chord_unlock", members=["a", "b"])
    world.execute("a")
    run_body(world)
    text = finding(world.audit(), "out-of-order").text
    assert "began before its member a task (b) had succeeded, and it never did" in text
