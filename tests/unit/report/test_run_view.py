"""The view of a run: a pure function of its folder."""

import json
from pathlib import Path

import pytest

from harness.audit.run_folder import RunFolder
from harness.errors import RunFolderError
from harness.measure.stages import Stage
from harness.records.moment import Moment
from harness.records.survival import Cell, Demand, Outcome, Result, Survival
from harness.records.verdict import Fate, Verdict
from harness.report.lives import EFFECT, Life
from harness.report.run_view import RunView, view_of
from tests.fakes.world import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(RunFolder.create(tmp_path, "shop"))


def seen(world: World, **options: int) -> RunView:
    return view_of(world.write().path, **options)


def life(view: RunView, task: str) -> Life:
    (number,) = view.lives.find(task)
    return view.lives.life(number)


def test_a_clean_run_is_told_in_a_sentence_and_its_fates_add_up(world: World) -> None:
    for task in ("a", "b"):
        world.fine(task)
    view = seen(world)
    assert (view.verdict, view.kind, view.sentence) == (Verdict.PASS, "run", "Passed: all 2 tasks are ok.")
    assert view.audit is not None
    assert sum(view.audit.fates.values()) == view.audit.entries == 2
    assert view.notes == ()


def test_a_lost_task_is_told_with_the_finding_that_says_so(world: World) -> None:
    world.fine("a")
    world.intend("b")
    view = seen(world)
    assert view.sentence == "Failed: of 2 tasks sent, 1 ok, 1 lost; 1 finding says so: lost."
    assert life(view, "b").fate == Fate.LOST
    assert life(view, "a").fate == Fate.OK


def test_the_view_is_the_same_wherever_the_folder_lies(world: World, tmp_path: Path) -> None:
    world.fine("a")
    before = seen(world)
    moved = tmp_path / "elsewhere"
    world.folder.path.rename(moved)
    after = view_of(moved)
    assert list(after.lives) == list(before.lives)
    assert (after.sentence, after.timeline, after.tables.nodes) == (
        before.sentence,
        before.timeline,
        before.tables.nodes,
    )
    assert not (moved / "report.html").exists()


def test_a_life_has_every_event_with_its_process_in_the_order_of_time(world: World) -> None:
    world.intend("a", queue="mails")
    world.say("worker-1", "received", "a", redelivered=True)
    world.execute("a", node="worker-1.7")
    world.record("a")
    world.mails.append({"t": 1_009.0, "kind": "mail", "key": "mail:a", "task": "a"})
    view = seen(world)
    told = life(view, "a")
    assert [(one.kind, one.text) for one in told.events] == [
        ("intended", "to mails"),
        ("accepted", "confirmed"),
        ("received", "delivered again"),
        ("started", ""),
        ("finished", "SUCCESS"),
        (EFFECT, "mail:a"),
    ]
    owners = [view.lives.processes[one.process] for one in told.events if one.process >= 0]
    assert [(one.node, one.pid) for one in owners] == [*[("producer", 1)] * 2, ("worker-1", 1), *[("worker-1", 7)] * 2]
    assert [one.t for one in told.events] == [1_000.0, 1_001.0, 1_002.0, 1_003.0, 1_004.0, 1_009.0]
    assert (told.name, told.status, told.result) == ("mail", "SUCCESS", '{"ok": "a"}')


def test_an_effect_that_names_no_task_belongs_to_those_that_expect_it(world: World) -> None:
    world.intend("a", effects=["mail:to=ada", "mail:subject=Hello"])
    world.intend("b", effects=["mail:subject=Hello"])
    world.intend("c", effects=["mail:c"])
    world.intend("d", effects=["order:1"])
    names = ["mail:to=ada", "mail:subject=Hello"]
    world.mails += [
        {"t": 1_020.0, "kind": "mail", "key": "mail:one", "task": None, "also": names},
        {"t": 1_021.0, "kind": "mail", "key": "mail:two", "task": None, "also": names},
        {"t": 1_022.0, "kind": "mail", "key": "mail:c", "task": None},
        {"t": 1_023.0, "kind": "mail", "key": "order:1", "task": "c"},
    ]
    view = seen(world)
    told = {
        task: [(one.t, one.text) for one in life(view, task).events if one.kind == EFFECT] for task in view.lives.tasks
    }
    hello = "mail:subject=Hello"
    assert told == {
        "a": [(1_020.0, hello), (1_021.0, hello)],
        "b": [(1_020.0, hello), (1_021.0, hello)],
        "c": [(1_022.0, "mail:c"), (1_023.0, "order:1")],
        "d": [],
    }


def test_the_end_of_a_process_belongs_to_the_tasks_that_had_not_ended_in_it(world: World) -> None:
    for task in ("ended", "open", "interrupted", "elsewhere", "stored"):
        world.intend(task)
    world.execute("ended", node="worker-1.7")
    world.execute("open", node="worker-1.7", state=None)
    world.execute("interrupted", node="worker-1.7", state="UNKNOWN")
    world.execute("elsewhere", node="worker-2.7", state=None)
    world.execute("stored", node="worker-1.8", state=None)
    world.say("worker-1", "finished", "stored", state="FAILURE", outside=True)
    world.say("worker-1", "exited", child=7, code=-9)
    world.say("worker-1", "exited", child=8, code=1)
    world.say("worker-1", "exited", child=7, code=0)
    view = seen(world)
    told = {task: [one for one in life(view, task).events if one.kind == "exited"] for task in view.lives.tasks}
    assert {task: [one.text for one in ends] for task, ends in told.items()} == {
        "ended": [],
        "open": ["by signal 9"],
        "interrupted": ["by signal 9"],
        "elsewhere": [],
        "stored": ["with code 1"],
    }
    (end,) = told["open"]
    assert (view.lives.processes[end.process].node, view.lives.processes[end.process].pid) == ("worker-1", 7)
    assert [one.kind for one in life(view, "open").events][-2:] == ["started", "exited"]


def test_a_process_that_ended_before_a_task_began_says_nothing_of_it(world: World) -> None:
    """A container that starts again counts its process ids anew."""
    world.intend("a")
    world.say("worker-1", "exited", child=7, code=-9)
    world.execute("a", node="worker-1.7", state=None)
    assert "exited" not in [one.kind for one in life(seen(world), "a").events]


def test_a_task_that_nobody_sent_has_a_life_too(world: World) -> None:
    world.fine("a")
    world.say("worker-1", "started", "stray", name="odd", retries=0)
    view = seen(world)
    stray = life(view, "stray")
    assert (stray.fate, stray.name) == ("unsent", "odd")
    assert view.lives.total == 2


def test_who_sent_a_task_and_what_follows_it_is_known(world: World) -> None:
    world.fine("first")
    world.intend("second", parent="first", follow=["third"])
    world.intend("third", parent="second")
    view = seen(world)
    numbers = {one.task: number for number, one in enumerate(view.lives)}
    assert life(view, "second").parent == numbers["first"]
    assert life(view, "first").parent is None
    assert view.lives.follows == [(numbers["second"], numbers["third"])]


def test_a_step_that_was_never_sent_is_named_with_the_task_that_it_should_have_followed(world: World) -> None:
    steps = [{"task": "next", "name": "ship", "way": "next"}, {"task": None, "name": "note", "way": "callback"}]
    world.intend("first", follow=["next"], steps=steps)
    world.intend("second", steps=[{"task": "first", "name": "pay", "way": "next"}])
    view = seen(world)
    (number,) = view.lives.find("first")
    assert view.lives.unsent == [(number, "next", "ship")]


def test_a_retry_is_not_sent_by_a_parent(world: World) -> None:
    world.intend("a")
    world.intend("a", parent="a", retries=1)
    assert life(seen(world), "a").parent is None


def test_of_too_many_tasks_those_that_are_not_ok_are_shown_first_and_the_rule_says_so(world: World) -> None:
    for number in range(20):
        world.fine(f"fine-{number}")
    for number in range(3):
        world.intend(f"lost-{number}")
    view = seen(world, most_lives=8)
    assert [one.fate for one in view.lives].count("lost") == 3
    assert len(view.lives) == 8
    assert view.lives.rule == (
        "8 of 23 tasks are here: the 3 that are not ok, and a sample of 5 others, chosen by a hash of their ids. "
        "The journal has all."
    )
    few = seen(world, most_lives=2)
    assert [one.fate for one in few.lives] == ["lost", "lost"]
    assert few.lives.rule.startswith("2 of 23 tasks are here: of the 3 that are not ok")
    assert seen(world).lives.rule == "All 23 tasks are here."


def test_a_task_that_a_finding_names_is_shown_even_if_it_is_ok(world: World) -> None:
    for number in range(30):
        world.fine(f"fine-{number}")
    world.folder.write("audit.json", seen(world).audit.to_json())  # type: ignore[union-attr] # There is one.
    said = world.folder.read("audit.json")
    named = {"code": "odd", "verdict": "pass", "count": 1, "text": "odd.", "tasks": ["fine-17"]}
    world.folder.write("audit.json", {**said, "findings": [named]})
    for most in (1, 2):
        assert "fine-17" in seen(world, most_lives=most).lives.tasks


def test_the_backlog_is_what_was_accepted_and_has_not_ended(world: World) -> None:
    for task in ("a", "b", "c"):
        world.intend(task)
    world.execute("a")
    world.record("a")
    line = seen(world).timeline
    assert line is not None
    assert line.backlog[-1] == 2
    assert (sum(line.sent), sum(line.started), sum(line.finished), sum(line.failed)) == (3, 1, 1, 0)
    assert max(line.backlog) == 3


def test_a_task_whose_failure_its_parent_process_told_is_no_backlog(world: World) -> None:
    world.intend("a")
    world.execute("a", node="worker-1.7", state=None)
    world.say("worker-1", "finished", "a", state="FAILURE", outside=True)
    line = seen(world).timeline
    assert line is not None
    assert (max(line.backlog), line.backlog[-1]) == (1, 0)


def test_the_timeline_lasts_until_a_worker_has_the_broker_again(world: World) -> None:
    world.say("worker-1", "reconnected")
    world.fine("a")
    world.say("worker-1", "disconnected", reason="it went away")
    line = seen(world).timeline
    assert line is not None
    assert line.begin_t <= 1_001.0
    assert 1_005.0 <= line.end_t < 1_006.0
    world.say("worker-1", "reconnected")
    world.say("worker-1", "down")
    line = seen(world).timeline
    assert line is not None
    assert 1_006.0 <= line.end_t < 1_007.0


def test_a_refused_task_is_no_backlog(world: World) -> None:
    world.fine("a")
    world.intend("b", "refused", reason="full")
    line = seen(world).timeline
    assert line is not None
    assert line.backlog[-1] == 0


def test_the_stages_have_the_times_between_their_events(world: World) -> None:
    world.intend("a")  # At 1000; accepted at 1001.
    world.execute("a")  # From 1002 to 1003.
    world.record("a")
    stages = seen(world).tables.stages
    assert {stage: one.max_s for stage, one in stages.items()} == {
        Stage.PUBLISH: 1.0,
        Stage.QUEUE: 2.0,
        Stage.RUN: 1.0,
        Stage.E2E: 3.0,
    }
    assert sum(count for *_, count in seen(world).tables.latency) == 1


def test_a_node_that_died_without_a_word_is_up_until_it_was_last_heard_of(world: World) -> None:
    world.say("worker-1", "up")  # At 1000.
    world.fine("a")
    world.say("worker-1", "received", "z")
    world.say("worker-2", "up")
    world.say("worker-2", "down")
    first, second = [one for one in seen(world).tables.nodes if one.node.startswith("worker")]
    ((begin_t, end_t, told),) = first.spans
    assert (begin_t, told) == (1_000.0, False)
    assert end_t == first.last_t
    ((_, _, told),) = second.spans
    assert told is True


def test_each_workers_share_is_counted(world: World) -> None:
    world.intend("a")
    world.execute("a", "FAILURE")
    world.intend("b")
    world.execute("b", node="worker-1.7")
    (share,) = seen(world).tables.shares
    assert (share.node, share.starts, share.failures, share.processes) == ("worker-1", 2, 1, 2)


def test_texts_are_shortened(world: World) -> None:
    world.intend("a", None)
    world.say("producer", "refused", "a", reason="x" * 5_000)
    (refused,) = [one for one in life(seen(world), "a").events if one.kind == "refused"]
    assert len(refused.text) == 300


def test_faults_come_from_the_runs_own_account(world: World) -> None:
    world.fine("a")
    account = {
        "text": "kill-worker: worker-1 was killed.",
        "missing": None,
        "error": None,
        "injected_t": 1_001.0,
        "node": "worker-1",
    }
    world.folder.write("faults.json", {"format": 1, "faults": [account]})
    (fault,) = seen(world).faults
    assert (fault.node, fault.injected_t) == ("worker-1", 1_001.0)


@pytest.mark.parametrize(
    ("name", "verdict"),
    # The verdict of a load test is in its own file.
    [("faults.json", Verdict.PASS), ("load.json", Verdict.UNKNOWN), ("audit.json", Verdict.PASS)],
)
@pytest.mark.parametrize("text", ["no JSON", '{"faults": 5, "findings": 3}'])
def test_a_file_that_is_damaged_is_told_and_the_rest_is_shown(
    world: World, name: str, verdict: Verdict, text: str
) -> None:
    world.fine("a")
    (world.write().path / name).write_text(text)
    view = seen(world)
    assert view.verdict is verdict
    assert any(name in note for note in view.notes), view.notes


def test_an_audit_that_counted_otherwise_is_told_and_stands(world: World) -> None:
    world.fine("a")
    said = seen(world).audit
    assert said is not None
    world.folder.write("audit.json", {**said.to_json(), "fates": {**said.to_json()["fates"], "ok": 0, "lost": 1}})
    view = seen(world)
    assert view.audit is not None
    assert view.audit.fates[Fate.LOST] == 1
    assert "other counts than the evidence" in view.notes[0]


def test_an_audit_that_was_better_than_todays_does_not_stand(world: World) -> None:
    world.fine("a")
    world.intend("b")
    said = seen(world).audit
    assert said is not None
    assert said.verdict is Verdict.FAIL
    fates = {**said.to_json()["fates"], "ok": 2, "lost": 0}
    world.folder.write("audit.json", {**said.to_json(), "fates": fates, "findings": []})
    view = seen(world)
    assert view.verdict is Verdict.FAIL
    assert "other counts than the evidence" in view.notes[0]


def test_a_run_without_tasks_has_no_timeline_and_is_unknown(world: World) -> None:
    for node in world.nodes:
        world.say(node, "up")
    view = seen(world)
    assert (view.verdict, view.timeline, len(view.lives)) == (Verdict.UNKNOWN, None, 0)
    assert view.sentence == "Unknown: no task was sent; 1 finding says so: nothing-sent."


def test_the_command_that_repeats_a_test_is_that_of_the_test(world: World) -> None:
    world.fine("a")
    about = world.write().read("run.json")
    (world.folder.path / "run.json").write_text(json.dumps({**about, "test": "tests/test_a.py::test_b[it's]"}))
    view = view_of(world.folder.path)
    assert (view.kind, view.command) == ("test", "pytest 'tests/test_a.py::test_b[it'\\''s]'")


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"no run\.json"):
        view_of(tmp_path)


def test_a_whole_survive_is_told_by_its_cells(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "survive-shop")
    cells = [
        Result(cell=Cell(task="pay", moment=Moment.STARTED, fault=fault), outcome=outcome, why="", folder="f")
        for fault, outcome in (("kill-worker", Outcome.LOST), ("stop-worker", Outcome.OK))
    ]
    folder.write("survive.json", Survival(name="shop", demand=Demand.AT_LEAST_ONCE, results=cells).to_json())
    view = view_of(folder.path)
    assert (view.kind, view.verdict) == ("survive", Verdict.FAIL)
    assert view.sentence == "Failed: of 2 cells, 1 ok, 1 lost; the promise was at-least-once."
    (folder.path / "survive.json").write_text("{}")
    with pytest.raises(RunFolderError, match="no outcome of `harness survive`"):
        view_of(folder.path)
