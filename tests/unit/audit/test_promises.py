"""What was promised and never came: steps of chains, bodies of chords, links and errbacks."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from harness.audit.audit import Audit
from harness.audit.run_folder import RunFolder
from harness.records.verdict import Fate, Verdict
from tests.fakes.world import World, codes, finding


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return the world of a run of which one task went well."""
    world = World(RunFolder.create(tmp_path, "test"))
    world.fine("z")
    return world


def step(task: str | None, way: str, name: str = "mail") -> dict[str, Any]:
    return {"task": task, "name": name, "way": way}


def run(world: World, task: str, *steps: dict[str, Any], state: str = "SUCCESS", **data: Any) -> None:
    """Send a task that promises something, and let it end."""
    follow = [one["task"] for one in steps if one["task"]]
    intent = {"expect": {"state": state}, "effects": None, "steps": list(steps), "follow": follow, **data}
    world.intend(task, **intent)
    world.execute(task, state=state)
    world.record(task, state, {"exc_type": "KeyError"} if state == "FAILURE" else None)


def test_the_next_step_of_a_task_that_succeeded_has_to_be_sent(world: World) -> None:
    run(world, "a", step("b", "next"), step("c", "later", name="pay"))
    found = world.audit()
    assert codes(found, Verdict.FAIL) == {"never-sent"}
    one = finding(found, "never-sent")
    assert (one.count, one.tasks) == (2, ("a",))
    assert "mail (b)" in one.text
    assert "pay (c)" in one.text
    assert "should have followed a" in one.text


@pytest.mark.parametrize("steps", [{"task": "b", "name": "mail", "way": "next"}, 5, "next", True])
def test_steps_that_are_no_list_promise_nothing(world: World, steps: Any) -> None:
    run(world, "a")
    world.lines["producer"][-2]["steps"] = steps
    assert world.audit().verdict is Verdict.PASS


def test_a_chain_whose_steps_were_sent_is_whole(world: World) -> None:
    run(world, "a", step("b", "next"), step("c", "later"))
    run(world, "b", step("c", "next"))
    run(world, "c")
    assert world.audit().verdict is Verdict.PASS


def test_what_follows_a_step_that_failed_need_not_be_sent(world: World) -> None:
    run(world, "a", step("b", "next"), step("c", "later"))
    run(world, "b", step("c", "next"), state="FAILURE")
    world.record("c", "FAILURE", {"exc_type": "KeyError"})
    assert world.audit().verdict is Verdict.PASS


def test_what_follows_a_step_that_never_ended_need_not_be_sent(world: World) -> None:
    world.intend("a", steps=[step("b", "next")], effects=None)
    world.execute("a", state=None)
    assert codes(world.audit(), Verdict.FAIL) == {"lost"}


def test_a_broken_chain_in_a_journal_with_gaps_is_unknown(world: World) -> None:
    run(world, "a", step("b", "next"))
    world.lines["producer"].pop(1)
    found = world.audit()
    assert finding(found, "never-sent").verdict is Verdict.UNKNOWN


def test_a_link_is_known_by_the_name_that_its_task_sent(world: World) -> None:
    run(world, "a", step(None, "callback", name="thank"))
    found = world.audit()
    assert codes(found, Verdict.FAIL) == {"never-sent"}
    assert "thank, a link of it should have followed a" in finding(found, "never-sent").text
    run(world, "t", name="thank", parent="a")
    assert world.audit().verdict is Verdict.PASS


@pytest.mark.parametrize(("name", "parent"), [("thank", "z"), ("pay", "a")])
def test_another_task_is_not_the_link(world: World, name: str, parent: str) -> None:
    run(world, "a", step(None, "callback", name="thank"))
    run(world, "t", name=name, parent=parent)
    assert codes(world.audit(), Verdict.FAIL) == {"never-sent"}


def test_a_task_that_nobody_linked_is_not_the_link_though_it_has_its_name(world: World) -> None:
    run(world, "a", step(None, "callback", name="thank"))
    run(world, "t", name="thank")
    assert codes(world.audit(), Verdict.FAIL) == {"never-sent"}


def test_what_was_to_follow_a_success_is_not_missed_where_the_row_says_otherwise(world: World) -> None:
    run(world, "a", step(None, "callback", name="thank"))
    assert "never-sent" in codes(world.audit(), Verdict.FAIL)
    world.execute("a", state="FAILURE")
    world.rows[-1] = ("a", "FAILURE", b'{"exc_type": "KeyError"}')
    assert "never-sent" not in {one.code for one in world.audit().findings}


def test_what_was_to_follow_a_task_is_not_missed_where_its_row_alone_says_success(world: World) -> None:
    world.intend("b", steps=[step(None, "callback", name="thank")], expect={}, effects=None)
    world.record("b")
    assert "never-sent" not in {one.code for one in world.audit().findings}


def test_what_a_retry_promises_again_is_promised_once(world: World) -> None:
    steps = [step("b", "next"), step(None, "callback", name="thank")]
    world.intend("a", steps=steps, effects=None)
    world.execute("a", state="RETRY")
    run(world, "a", *steps)
    assert finding(world.audit(), "never-sent").count == 2


def test_a_link_of_a_task_that_failed_need_not_be_sent_and_an_errback_has_to(world: World) -> None:
    links = [step(None, "callback", name="thank"), step(None, "errback", name="sorry")]
    run(world, "a", *links, state="FAILURE")
    found = world.audit()
    assert codes(found, Verdict.FAIL) == {"never-sent"}
    assert finding(found, "never-sent").count == 1
    assert "sorry" in finding(found, "never-sent").text
    run(world, "s", name="sorry", parent="a")
    assert world.audit().verdict is Verdict.PASS


def test_an_errback_that_was_called_in_place_has_come(world: World) -> None:
    run(world, "a", step(None, "errback", name="sorry"), state="FAILURE")
    world.say("worker-1", "errback", "a", names=["sorry"])
    assert world.audit().verdict is Verdict.PASS


@pytest.mark.parametrize(("parent", "is_whole"), [("a", True), ("b", False)])
def test_an_errback_that_was_sent_as_a_task_has_come_if_that_task_sent_it(
    world: World, parent: str, *, is_whole: bool
) -> None:
    for task in ("a", "b"):
        run(world, task, *([step(None, "errback", name="sorry")] if task == "a" else []), state="FAILURE")
    run(world, "s", name="sorry", parent=parent)
    assert ("never-sent" not in codes(world.audit(), Verdict.FAIL)) is is_whole


def test_an_errback_of_a_task_that_succeeded_need_not_come(world: World) -> None:
    run(world, "a", step(None, "errback", name="sorry"))
    assert world.audit().verdict is Verdict.PASS


# --------------------------------------------------------------------------------------------------------- chords


def chord(world: World, *members: str, looks: int = 3, body: str = "body", unlock: str = "u") -> None:
    """Send the task that waits for a chord's members before the members, as Celery does."""
    steps = [step(body, "body", name="sum")]
    world.intend(unlock, name="celery.chord_unlock", steps=steps, members=list(members), expect={}, effects=None)
    for _ in range(looks):
        world.say("worker-1", "started", unlock, name="celery.chord_unlock")
        world.say("worker-1", "finished", unlock, state="RETRY")
    assert world.remains
    world.remains["held"].append(unlock)


def member(world: World, task: str, body: str = "body", **data: Any) -> None:
    run(world, task, step(body, "body", name="sum"), **data)


def of_chords(found: Audit) -> list[str]:
    return [one.code for one in found.findings if one.code.startswith("chords")]


def end_chord(world: World) -> None:
    world.say("worker-1", "started", "u", name="celery.chord_unlock")
    world.say("worker-1", "finished", "u", state="SUCCESS", ignored=True)
    assert world.remains
    world.remains["held"] = []


def test_a_chord_whose_body_came_is_whole(world: World) -> None:
    chord(world, "a", "b")
    member(world, "a")
    member(world, "b")
    run(world, "body", name="sum")
    end_chord(world)
    assert world.audit().verdict is Verdict.PASS


def test_a_chord_whose_member_left_no_result_never_gets_its_body(world: World) -> None:
    chord(world, "a", "b")
    member(world, "a")
    world.intend("b", steps=[step("body", "body", name="sum")], expect={}, effects=None)
    world.say("worker-1", "started", "b")
    world.say("worker-1", "finished", "b", state="SUCCESS", ignored=True)
    found = world.audit()
    assert of_chords(found) == ["chords-hopeless"]
    one = finding(found, "chords-hopeless")
    assert (one.verdict, one.count, one.tasks) == (Verdict.FAIL, 1, ("body",))
    assert "sum (body) waits for b, which left no result; celery.chord_unlock (u) looked 3 times" in one.text


def test_of_many_members_that_left_no_result_three_are_named_and_all_are_counted(world: World) -> None:
    chord(world, *"abcde")
    for task in "abcde":
        world.intend(task, steps=[step("body", "body", name="sum")], expect={}, effects=None)
        world.say("worker-1", "started", task)
        world.say("worker-1", "finished", task, state="SUCCESS", ignored=True)
    text = finding(world.audit(), "chords-hopeless").text
    assert "sum (body) waits for a, b, c and 2 more, which left no result" in text


def test_a_chord_whose_member_was_lost_never_gets_its_body(world: World) -> None:
    chord(world, "a", "b")
    member(world, "a")
    world.intend("b", steps=[step("body", "body", name="sum")], expect={}, effects=None)
    world.execute("b", state=None)
    assert {"lost", "chords-hopeless"} <= codes(world.audit(), Verdict.FAIL)


def test_a_chord_that_waits_for_a_member_in_the_broker_may_still_get_its_body(world: World) -> None:
    chord(world, "a", "b")
    member(world, "a")
    world.intend("b", steps=[step("body", "body", name="sum")], expect={}, effects=None)
    assert world.remains
    world.remains["messages"] = ["b"]
    found = world.audit()
    assert found.verdict is Verdict.UNKNOWN
    assert of_chords(found) == ["chords-waiting"]
    assert finding(found, "chords-waiting").tasks == ("body",)


def test_a_chord_of_which_not_all_members_were_sent_is_half_sent(world: World) -> None:
    chord(world, "a", "b", "c")
    member(world, "a")
    found = world.audit()
    assert of_chords(found) == ["chords-half-sent"]
    one = finding(found, "chords-half-sent")
    assert one.verdict is Verdict.FAIL
    assert "of the 3 members before sum (body), 2 were never sent: b, c" in one.text
    member(world, "b")
    found = world.audit()
    assert of_chords(found) == ["chords-half-sent"]
    assert "of the 3 members before sum (body), 1 were never sent: c" in finding(found, "chords-half-sent").text


def test_a_chord_that_nobody_looked_at_never_gets_its_body_either(world: World) -> None:
    chord(world, "a", looks=0)
    member(world, "a")
    text = finding(world.audit(), "chords-hopeless").text
    assert text.endswith("all 1 members ended and are recorded; celery.chord_unlock (u) looked 0 times")


def test_a_chord_that_no_task_waits_for_is_known_by_its_members(world: World) -> None:
    for task in ("a", "b"):
        member(world, task)
    found = world.audit()
    assert of_chords(found) == ["chords-hopeless"]
    text = finding(found, "chords-hopeless").text
    assert text.endswith("sum (body) was never sent, though all 2 members ended and are recorded")


def test_each_chord_has_members_of_its_own(world: World) -> None:
    chord(world, "a", "b")
    chord(world, "c", "d", "e", body="other", unlock="v")
    for task, body in (("a", "body"), ("c", "other"), ("d", "other")):
        member(world, task, body=body)
    text = finding(world.audit(), "chords-half-sent").text
    assert "of the 2 members before sum (body), 1 were never sent: b" in text
    assert "of the 3 members before sum (other), 1 were never sent: e" in text


def test_a_chord_that_follows_another_one_has_not_its_members(world: World) -> None:
    chord(world, "a", "b")
    world.lines["producer"][-2]["steps"].append(step("later", "later", name="sum"))
    for task, body in (("a", "body"), ("b", "body"), ("c", "later"), ("d", "later")):
        member(world, task, body=body)
    run(world, "body", name="sum")
    end_chord(world)
    text = finding(world.audit(), "chords-hopeless").text
    assert "sum (later) was never sent, though all 2 members ended and are recorded" in text


def test_a_member_that_was_sent_is_not_among_those_that_were_not(world: World) -> None:
    chord(world, "a", "b")
    world.intend("a", steps=[step("body", "body", name="sum")], expect={}, effects=None)
    world.say("worker-1", "started", "a")
    world.say("worker-1", "finished", "a", state="SUCCESS", ignored=True)
    text = finding(world.audit(), "chords-half-sent").text
    assert text.partition(":")[2].count("of the 2 members before sum (body), 1 were never sent: b") == 1
    assert "a, b" not in text


def test_a_finding_of_chords_tells_of_its_own_chords_alone(world: World) -> None:
    chord(world, "a", "b")
    member(world, "a")
    chord(world, "c", body="other", unlock="v")
    member(world, "c", body="other")
    found = world.audit()
    assert "(other)" not in finding(found, "chords-half-sent").text
    assert "(body)" not in finding(found, "chords-hopeless").text


def test_a_chord_whose_members_are_all_recorded_and_whose_body_never_came_has_no_excuse(world: World) -> None:
    chord(world, "a")
    member(world, "a")
    end_chord(world)
    found = world.audit()
    assert of_chords(found) == ["chords-hopeless"]
    assert "was never sent, though all 1 members ended and are recorded" in finding(found, "chords-hopeless").text
    assert found.verdict is Verdict.FAIL


@pytest.mark.parametrize("state", ["FAILURE", "REVOKED"])
def test_a_chord_whose_member_failed_gets_no_body(world: World, state: str) -> None:
    chord(world, "a", "b")
    member(world, "a")
    if state == "FAILURE":
        member(world, "b", state="FAILURE")
    else:
        world.intend("b", steps=[step("body", "body", name="sum")], expect={"state": "REVOKED"}, effects=None)
        world.say("worker-1", "revoked", "b", reason="revoked")
        world.record("b", "REVOKED", {})
    end_chord(world)
    world.record("body", "FAILURE", {"exc_type": "ChordError"})
    found = world.audit()
    assert not {code for code in codes(found, Verdict.FAIL) if code.startswith("chords")}


def test_a_chord_gets_no_body_if_a_member_was_to_follow_a_task_that_failed(world: World) -> None:
    chord(world, "a", "c")
    member(world, "a")
    run(world, "b", step("c", "next"), state="FAILURE")
    end_chord(world)
    # Nobody sent either of them: Celery records what became of them.
    for task in ("c", "body"):
        world.record(task, "FAILURE", {"exc_type": "KeyError"})
    assert world.audit().verdict is Verdict.PASS


def test_where_the_rows_cannot_be_read_no_member_is_said_to_lack_one(world: World) -> None:
    chord(world, "a")
    member(world, "a")
    world.folder.results.write_text("no database, but long enough to be taken for one that is broken" * 20)
    found = world.audit()
    assert "results-unreadable" in codes(found, Verdict.UNKNOWN)
    assert finding(found, "chords-waiting").verdict is Verdict.UNKNOWN


def test_tasks_that_follow_and_were_sent_have_fates_of_their_own(world: World) -> None:
    run(world, "a", step("b", "next"))
    world.intend("b", effects=None)
    found = world.audit()
    assert (found.fates[Fate.LOST], found.fates[Fate.OK]) == (1, 2)
    assert codes(found, Verdict.FAIL) == {"lost"}


# -------------------------------------------------------------------------------------------------- saved groups


def save_group(world: World, saved: bytes, *members: str) -> None:
    for task in members:
        run(world, task)
    world.write()
    with closing(sqlite3.connect(world.folder.results)) as connection, connection:
        connection.execute("CREATE TABLE celery_tasksetmeta (taskset_id TEXT, result BLOB)")
        connection.execute("INSERT INTO celery_tasksetmeta VALUES ('g', ?)", (saved,))


SAVED = json.dumps([["g", None], [[["a", None], None], [["b", None], None]]]).encode()


def test_a_saved_group_whose_members_were_sent_is_whole(world: World) -> None:
    save_group(world, SAVED, "a", "b")
    assert world.audit().verdict is Verdict.PASS


def test_a_saved_group_of_which_a_member_was_never_sent_is_half_sent(world: World) -> None:
    save_group(world, SAVED, "a")
    found = world.audit()
    assert (found.verdict, codes(found, Verdict.FAIL)) == (Verdict.FAIL, {"groups-half-sent"})
    assert finding(found, "groups-half-sent").tasks == ("b",)
    # Where the journal has gaps, its sending may stand in a line that is lost.
    world.lines["producer"].pop(1)
    assert finding(world.audit(), "groups-half-sent").verdict is Verdict.UNKNOWN


def test_a_member_of_two_saved_groups_is_counted_once(world: World) -> None:
    save_group(world, SAVED, "a")
    with closing(sqlite3.connect(world.folder.results)) as connection, connection:
        connection.execute("INSERT INTO celery_tasksetmeta VALUES ('h', ?)", (SAVED,))
    assert finding(world.audit(), "groups-half-sent").count == 1


@pytest.mark.parametrize("saved", [b"\x80\x05K\x01.", b"{}", b"[[]]", b"5", b"[" * 100_000])
def test_a_saved_group_that_is_no_json_of_celerys_names_nobody(world: World, saved: bytes) -> None:
    save_group(world, saved, "a")
    assert world.audit().verdict is Verdict.PASS


# ------------------------------------------------------------------------------------- queues as the app wants them


@pytest.mark.parametrize(
    ("has", "told"),
    [({"x-queue-type": "classic"}, 1), ({}, 1), ({"x-queue-type": "quorum", "x-delivery-limit": 20}, 0)],
)
def test_a_queue_that_is_not_what_the_app_says_is_told(world: World, has: dict[str, Any], told: int) -> None:
    assert world.remains
    counts = {"ready": 0, "unacked": 0, "consumers": 1}
    queue = {"name": "celery", "kind": "classic", **counts, "arguments": has, "declared": {"x-queue-type": "quorum"}}
    world.remains["queues"] = [queue]
    found = world.audit()
    assert found.verdict is Verdict.PASS
    assert [one.count for one in found.findings] == [1] * told
    if told:
        assert 'and the app says "quorum"' in finding(found, "queues-differ").text


@pytest.mark.parametrize(("kind", "told"), [("quorum", 0), ("classic", 1)])
def test_a_queue_that_is_declared_without_its_type_has_the_type_of_the_vhost(
    world: World, kind: str, told: int
) -> None:
    assert world.remains
    counts = {"ready": 0, "unacked": 0, "consumers": 1}
    world.remains["queues"] = [{"name": "celery", "kind": kind, **counts, "declared": {"x-queue-type": "quorum"}}]
    assert len(world.audit().findings) == told


def test_a_setting_that_is_not_in_force_is_told(world: World) -> None:
    assert world.remains
    world.remains["differing"] = ["one", "another"]
    found = world.audit()
    assert (found.verdict, [one.code for one in found.findings]) == (Verdict.PASS, ["settings-differ"])
    assert finding(found, "settings-differ").count == 2
    assert "not in force: one; another" in finding(found, "settings-differ").text


# ------------------------------------------------------------------------------------------------- deaf workers


@pytest.mark.parametrize(
    ("absent", "text"),
    [(["worker-2"], "worker-2 runs and does not consume"), ([], "only 1 of worker-1, worker-2 consumes")],
)
def test_a_worker_that_runs_and_does_not_consume_fails_the_run(world: World, absent: list[str], text: str) -> None:
    run(world, "a")
    assert world.remains
    assert world.audit().verdict is Verdict.PASS
    workers = {"workers": ["worker-1", "worker-2"], "absent": absent}
    world.remains["deaf"] = [
        {"queue": "celery", "consumers": 1, **workers},
        {"queue": "mails", "consumers": 1, **workers},
    ]
    found = world.audit()
    assert codes(found, Verdict.FAIL) == {"deaf"}
    assert finding(found, "deaf").count == 1
    assert text in finding(found, "deaf").text
