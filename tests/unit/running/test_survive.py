"""Cells and their outcomes: what is tried on a task, what its audit means, and what a remedy proves."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from harness.audit.audit import Audit
from harness.records.moment import Arrival, Moment
from harness.records.survival import Cell, Demand, Outcome, Result, Survival
from harness.records.values import Json
from harness.records.verdict import Fate, Finding, Verdict
from harness.running import remedy_lines, survive
from harness.running.survive import KILL_POOL_PROCESS, KILL_WORKER, Life, OneTask, Subject, Trial
from harness.stack.shared_parts import SharedParts
from harness.stack.stack import StackSpec

ALL = tuple(Moment)


def arrival(name: str, moment: Moment, pid: int) -> Arrival:
    return Arrival(moment=moment, task=f"id-of-{name}", name=name, node="worker-1", pid=pid)


def test_a_tasks_life_is_the_moments_that_it_passed_and_celerys_own_tasks_are_left_out() -> None:
    seen = [
        arrival("pay", Moment.STARTED, 20),
        arrival("pay", Moment.RECEIVED, 7),
        arrival("celery.chord_unlock", Moment.STARTED, 20),
        arrival("mail", Moment.RECEIVED, 7),
    ]
    pay, mail = survive.lives_of(seen)
    assert pay == Life(task="pay", moments=(Moment.RECEIVED, Moment.STARTED), has_own_process=True)
    assert mail.task == "mail"


def test_a_task_that_the_worker_itself_runs_has_no_pool_process_to_kill() -> None:
    seen = [arrival("pay", Moment.RECEIVED, 7), arrival("pay", Moment.STARTED, 7)]
    (life,) = survive.lives_of(seen)
    assert {cell.fault for cell in life.cells(survive.MEETS)} == {KILL_WORKER}
    apart = replace(life, has_own_process=True)
    assert [(cell.fault, cell.moment) for cell in apart.cells(survive.MEETS)] == [
        (KILL_WORKER, Moment.RECEIVED),
        (KILL_WORKER, Moment.STARTED),
        (KILL_POOL_PROCESS, Moment.STARTED),
        (survive.STOP_WORKER, Moment.STARTED),
    ]


def test_a_worker_that_acknowledges_while_the_task_runs_is_not_met_there() -> None:
    late = Life(task="pay", moments=(Moment.STARTED, Moment.ACKNOWLEDGED), has_own_process=True)
    early = replace(late, is_acknowledged_early=True)
    assert Moment.ACKNOWLEDGED in {cell.moment for cell in late.cells(survive.MEETS)}
    assert {cell.moment for cell in early.cells(survive.MEETS)} == {Moment.STARTED}
    # The only process of such a worker acknowledges first, and then runs it.
    alone = replace(early, has_own_process=False)
    assert Moment.ACKNOWLEDGED in {cell.moment for cell in alone.cells(survive.MEETS)}


def test_the_quick_cells_are_eight() -> None:
    assert len(Life(task="pay", moments=ALL, has_own_process=True).cells(survive.QUICK)) == 8


def finding(code: str, verdict: Verdict) -> Finding:
    return Finding(code=code, verdict=verdict, count=1, text=f"{code}.")


def audit(*findings: Finding, **fates: int) -> Audit:
    return Audit(
        name="run",
        entries=3,
        fates={**dict.fromkeys(Fate, 0), **{Fate(fate): count for fate, count in fates.items()}},
        findings=findings,
        e2e_ms={},
        workers={},
        memory_mb={},
        witnesses={},
    )


LOST, WRONG = finding("lost", Verdict.FAIL), finding("wrong", Verdict.FAIL)
UNKNOWN, RAN = finding("journal-damaged", Verdict.UNKNOWN), finding("ran-again", Verdict.PASS)


@pytest.mark.parametrize(
    ("audited", "effects", "outcome"),
    [
        (audit(ok=3), 1, Outcome.OK),
        (audit(RAN, ok=3), 1, Outcome.RAN_TWICE),
        (audit(RAN, ok=3), 2, Outcome.EFFECT_TWICE),
        (audit(LOST, RAN, ok=2, lost=1), 2, Outcome.LOST),
        (audit(WRONG, ok=2, wrong=1), 1, Outcome.FAILED),
        (audit(LOST, WRONG, ok=1, lost=1, wrong=1), 1, Outcome.LOST),
        # A step that was promised and never sent has no entry, and so no fate.
        (audit(finding("never-sent", Verdict.FAIL), ok=3), 1, Outcome.LOST),
        (audit(finding("pending", Verdict.UNKNOWN), ok=2, pending=1), 1, Outcome.HUNG),
        (audit(UNKNOWN, ok=3), 2, Outcome.UNKNOWN),
        # The task was held when the fault came, whatever the journal of the node says.
        (audit(finding("fault-met-nothing", Verdict.UNKNOWN), ok=3), 1, Outcome.OK),
        (audit(finding("fault-not-landed", Verdict.UNKNOWN), ok=3), 1, Outcome.UNKNOWN),
    ],
)
def test_what_became_of_a_cell_is_the_worst_that_its_audit_says(audited: Audit, effects: int, outcome: Outcome) -> None:
    assert survive.outcome_of(audited, is_effect_doubled=effects > 1)[0] is outcome


@pytest.mark.parametrize(
    ("outcome", "at_least_once", "exactly_once"),
    [
        (Outcome.OK, Verdict.PASS, Verdict.PASS),
        (Outcome.RAN_TWICE, Verdict.PASS, Verdict.PASS),
        (Outcome.EFFECT_TWICE, Verdict.PASS, Verdict.FAIL),
        (Outcome.FAILED, Verdict.FAIL, Verdict.FAIL),
        (Outcome.HUNG, Verdict.FAIL, Verdict.FAIL),
        (Outcome.LOST, Verdict.FAIL, Verdict.FAIL),
        (Outcome.UNKNOWN, Verdict.UNKNOWN, Verdict.UNKNOWN),
    ],
)
def test_the_demand_decides_what_an_outcome_means(
    outcome: Outcome, at_least_once: Verdict, exactly_once: Verdict
) -> None:
    assert Demand.AT_LEAST_ONCE.verdict(outcome) is at_least_once
    assert Demand.EXACTLY_ONCE_EFFECTS.verdict(outcome) is exactly_once


# --------------------------------------------------------------------------------------------------- all cells


def trial_of(tmp_path: Path, *, moments: Sequence[Moment]) -> Trial:
    subject = Subject(name="pay", stack=StackSpec(app="shop", app_folder=tmp_path), scenario=OneTask("pay", [], {}))
    life = Life(task="pay", moments=tuple(moments), has_own_process=True)
    return Trial(subject=subject, lives=(life,), wanted=survive.MEETS)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Cell, object]]:
    """Cells that are lost at `started` unless the task is acknowledged late; and then run twice."""
    asked: list[tuple[Cell, object]] = []

    def try_cell(_session: SharedParts, subject: Subject, cell: Cell, _root: Path) -> Result:
        options = subject.stack.settings.get("task_annotations", {}).get("pay", {})
        asked.append((cell, options))
        if cell.moment is not Moment.STARTED:
            return Result(cell=cell, outcome=Outcome.OK, why="", folder="")
        if options.get("acks_late"):
            return Result(cell=cell, outcome=Outcome.RAN_TWICE, why="", folder="")
        remedy = "@app.task(acks_late=True)"
        if cell.fault == KILL_POOL_PROCESS:
            remedy = "@app.task(acks_late=True, reject_on_worker_lost=True)"
        return Result(cell=cell, outcome=Outcome.LOST, why="", folder="", remedies=(remedy,))

    monkeypatch.setattr(survive, "try_cell", try_cell)
    return asked


def run(trial: Trial, told: list[tuple[int, int]]) -> Survival:
    return survive.survive(
        cast("SharedParts", None),
        [trial],
        Path(),
        name="shop",
        demand=Demand.AT_LEAST_ONCE,
        progress=lambda done, total: told.append((done, total)),
    )


def test_a_broken_promise_is_run_again_with_the_option_that_mends_it(
    tmp_path: Path, asked: list[tuple[Cell, object]]
) -> None:
    told: list[tuple[int, int]] = []
    survival = run(trial_of(tmp_path, moments=[Moment.RECEIVED, Moment.STARTED]), told)
    assert survival.verdict is Verdict.FAIL
    (remedy,) = survival.remedies
    # What one line says alone, another one says as well.
    assert remedy.lines == ("@app.task(acks_late=True, reject_on_worker_lost=True)",)
    assert asked[-1][1] == {"acks_late": True, "reject_on_worker_lost": True}
    # All cells run again, so that the price of the remedy is seen.
    assert [one.cell for one in remedy.results] == [one.cell for one in survival.results]
    assert {one.outcome for one in remedy.results} == {Outcome.OK, Outcome.RAN_TWICE}
    assert len(asked) == 2 * len(survival.results)
    assert (told[0], told[-1]) == ((0, 4), (8, 8))
    assert Survival.from_json(survival.to_json()) == survival


def test_a_remedy_that_does_not_mend_is_tried_with_what_its_own_outcome_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def try_cell(_session: SharedParts, subject: Subject, cell: Cell, _root: Path) -> Result:
        settings = subject.stack.settings
        if "task_annotations" in settings:
            return Result(cell=cell, outcome=Outcome.RAN_TWICE, why="", folder="")
        line = "@app.task(acks_late=True)" if "task_acks_late" in settings else "app.conf.task_acks_late = True"
        return Result(cell=cell, outcome=Outcome.LOST, why="", folder="", remedies=(line,))

    monkeypatch.setattr(survive, "try_cell", try_cell)
    told: list[tuple[int, int]] = []
    survival = run(trial_of(tmp_path, moments=[Moment.RECEIVED]), told)
    (remedy,) = survival.remedies
    assert remedy.lines == ("app.conf.task_acks_late = True", "@app.task(acks_late=True)")
    assert [one.outcome for one in remedy.results] == [Outcome.RAN_TWICE]
    assert told[-1] == (3, 3)


def test_where_nothing_broke_nothing_is_run_again(tmp_path: Path, asked: list[tuple[Cell, object]]) -> None:
    survival = run(trial_of(tmp_path, moments=[Moment.RECEIVED, Moment.STORED]), [])
    assert (survival.verdict, survival.remedies, len(asked)) == (Verdict.PASS, [], 4)


@pytest.mark.parametrize(
    ("lines", "settings"),
    [
        (["@app.task(acks_late=True)"], {"task_annotations": {"pay": {"acks_late": True}}}),
        (["app.conf.task_acks_late = True"], {"task_acks_late": True}),
        (["app.conf.update(x=1, y=...)"], {"x": 1}),
        (
            ["@app.task(acks_late=True)", "@app.task(max_retries=3)", "app.conf.x = {'y': 1}"],
            {"task_annotations": {"pay": {"acks_late": True, "max_retries": 3}}, "x": {"y": 1}},
        ),
        (
            ['app.conf.task_annotations["*"].update(acks_late=True)', "@app.task(max_retries=3)"],
            {"task_annotations": {"*": {"acks_late": True}, "pay": {"max_retries": 3}}},
        ),
        (
            ["@app.task(max_retries=3)", 'app.conf.task_annotations["pay"].update(acks_late=True)'],
            {"task_annotations": {"pay": {"acks_late": True, "max_retries": 3}}},
        ),
        (
            [f'app.conf.task_annotations["*"].update({one}=True)' for one in ("acks_late", "ignore_result")],
            {"task_annotations": {"*": {"acks_late": True, "ignore_result": True}}},
        ),
        # What no line of Python says, or no value, is not tried.
        (['Queue("mails", queue_arguments={"x-queue-type": "quorum"})', "app.task(...)", "app.conf.update(x=...)"], {}),
        (["@app.task(time_limit=...)", "delete the queue first", "celery -A app worker --pool=prefork"], {}),
    ],
)
def test_a_remedy_is_what_its_lines_would_do(lines: list[str], settings: dict[str, object]) -> None:
    assert remedy_lines.settings_of_lines(lines, "pay") == settings


def test_a_remedy_changes_of_the_annotations_that_are_there_only_what_it_names() -> None:
    there = {"x": 1, "task_annotations": {"*": {"acks_late": False, "rate_limit": "1/s"}, "pay": {"max_retries": 9}}}
    remedy = {"y": 2, "task_annotations": {"*": {"acks_late": True}, "mail": {"time_limit": 8}}}
    assert remedy_lines.laid_over(there, remedy) == {
        "x": 1,
        "y": 2,
        "task_annotations": {
            "*": {"acks_late": True, "rate_limit": "1/s"},
            "pay": {"max_retries": 9},
            "mail": {"time_limit": 8},
        },
    }


@pytest.mark.parametrize("there", [{}, {"task_annotations": None}, {"task_annotations": ["shop.Annotations"]}])
def test_where_no_annotations_are_there_that_can_be_changed_a_remedy_has_its_own(there: dict[str, Json]) -> None:
    remedy: dict[str, Json] = {"task_annotations": {"pay": {"acks_late": True}}}
    assert remedy_lines.laid_over(there, remedy) == remedy
    assert remedy_lines.laid_over(remedy, {"x": 1}) == {**remedy, "x": 1}


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        (["app.conf.task_acks_late = True", "app.conf.update(task_acks_late=True, worker_prefetch_multiplier=1)"], [1]),
        (["@app.task(acks_late=True, reject_on_worker_lost=True)", "@app.task(acks_late=True)"], [0]),
        (["app.conf.task_acks_late = True", "@app.task(acks_late=True)"], [0, 1]),
        (["app.conf.task_acks_late = True", "app.conf.update(task_acks_late=False, task_time_limit=9)"], [0, 1]),
        (["app.conf.task_acks_late = True", "app.conf.update(task_acks_late=True)"], [1]),
        (["celery worker --pool=prefork", "app.conf.task_acks_late = True"], [0, 1]),
        (["app.conf.task_acks_late = True", "app.conf.task_acks_late = True"], [0]),
        ([], []),
    ],
)
def test_a_line_that_another_one_says_as_well_is_left_out(lines: list[str], kept: list[int]) -> None:
    assert remedy_lines.without_repetition(lines, "pay") == tuple(lines[number] for number in kept)
