"""The checks of a run, as CI systems list them: no finding is lost on the way, and nothing unknown becomes a pass."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from harness.audit.audit import Audit
from harness.audit.beat.tick_records import LISTS, EntryTicks
from harness.measure.load_account import LoadAccount
from harness.records.finding_codes import Code
from harness.records.moment import Moment
from harness.records.survival import Cell, Demand, Outcome, Remedy, Result, Survival
from harness.records.verdict import Fate, Finding, Reason, Verdict
from harness.report import checks
from harness.report.checks import QUESTIONS, Question


def audit(*findings: Finding, **about: Any) -> Audit:
    given: dict[str, Any] = {
        "name": "20260101T000000-emails",
        "entries": 3,
        "fates": {fate: 3 * (fate is Fate.OK) for fate in Fate},
        "findings": findings,
        "e2e_ms": {},
        "workers": {"worker-1": 3},
        "memory_mb": {},
        "witnesses": {},
    }
    return Audit(**{**given, **about})


def finding(code: str, verdict: Verdict = Verdict.FAIL, text: str = "seen.", **about: Any) -> Finding:
    return Finding(code=code, verdict=verdict, count=1, text=text, **about)


LOAD: dict[str, Any] = {
    "is_open": True,
    "exit_code": 0,
    "reason": "every task is accounted for, as it was promised.",
    "counts": {},
    "figures": None,
    "drained_s": 0.4,
    "backlog_max": 17,
    "workers": {},
    "faults": [],
    "objectives": [],
    "stages": {},
    "probes": [],
    "invalid": [],
    "search": None,
    "bottleneck": None,
}


def test_each_code_belongs_to_one_question() -> None:
    named = Counter(code for codes in QUESTIONS.values() for code in codes)
    assert named == Counter(Code)
    assert QUESTIONS.keys() == set(Question)


def test_a_clean_run_has_the_same_checks_as_any_other() -> None:
    clean = [one.name for one in checks.of_audit(audit())]
    broken = [one.name for one in checks.of_audit(audit(finding(Code.LOST), finding("own-code")))]
    assert clean == broken
    assert all(one.verdict is Verdict.PASS for one in checks.of_audit(audit()))
    assert "every task is accounted for" in clean
    assert "the load is as intended" not in clean


@pytest.mark.parametrize("code", [*Code, "own-code"])
@pytest.mark.parametrize("verdict", Verdict)
def test_no_finding_is_lost_and_the_worst_check_has_the_verdict_of_the_audit(code: str, verdict: Verdict) -> None:
    for audited in (
        audit(finding(code, verdict, "what was seen")),
        audit(finding(code, verdict, "what was seen"), witnesses={"timelapse": {}}),
    ):
        found = list(checks.of_audit(audited))
        assert Verdict.worst([one.verdict for one in found]) is verdict
        (told,) = [one for one in found if "what was seen" in one.text]
        assert told.text.startswith(f"{code}: ")
        assert (told.kind == code) == (verdict is not Verdict.PASS)


def test_the_worst_finding_of_a_question_comes_first_with_reason_and_remedy() -> None:
    reason = Reason(
        setting="task_acks_late", value=False, where="app", remedy="app.conf.task_acks_late = True", count=1
    )
    lost = finding(Code.LOST, text="1 shop.pay: lost.", tasks=("t-1",), reasons=(reason,))
    (told,) = [one for one in checks.of_audit(audit(finding(Code.PENDING, Verdict.UNKNOWN), lost)) if one.text]
    assert told.name == "every task is accounted for"
    assert (told.verdict, told.kind) == (Verdict.FAIL, "lost, pending")
    assert told.text.splitlines() == [
        "lost: 1 shop.pay: lost: t-1",
        "  reason: task_acks_late is False (app)",
        "  remedy: app.conf.task_acks_late = True",
        "pending: seen.",
    ]


def entry(name: str) -> EntryTicks:
    lists = {one: {"count": 0, "first": []} for one in LISTS}
    return EntryTicks.from_json(
        {"entry": name, "rule": "every minute", "expected": 1, "sent": 1, "lateness_s": {}, **lists}
    )


def test_each_entry_of_a_schedule_is_a_check() -> None:
    late = finding("tick-late", text="digest: nightly: 02:00 (sent late)")
    died = finding("beat-died", Verdict.UNKNOWN, text="beat ended")
    ticks = (entry("digest"), entry("digest: nightly"))
    found = list(checks.of_audit(audit(late, died, ticks=ticks, witnesses={"timelapse": {}})))
    assert [(one.group, one.name, one.verdict.value) for one in found] == [
        ("ticks", "digest", "pass"),
        ("ticks", "digest: nightly", "fail"),
        ("", "every tick of the schedule comes once and in time", "unknown"),
    ]


@pytest.mark.parametrize(
    ("changed", "verdicts"),
    [
        ({}, {}),
        ({"exit_code": 1, "reason": "too slow"}, {"the load test passes": "fail"}),
        ({"exit_code": 3, "reason": "?"}, {"the load test passes": "unknown"}),
        ({"exit_code": 9, "reason": "?"}, {"the load test passes": "unknown"}),
        ({"invalid": ["the generator was late."]}, {"the load is as intended": "unknown"}),
    ],
)
def test_a_load_test_is_a_check_too(changed: dict[str, Any], verdicts: dict[str, str]) -> None:
    found = list(checks.of_load(LoadAccount.from_json({**LOAD, **changed}), audit()))
    assert {one.name: one.verdict.value for one in found if one.verdict is not Verdict.PASS} == verdicts


@pytest.mark.parametrize(
    ("holds", "invalid", "verdict"),
    [
        (True, [], "pass"),
        (False, [], "fail"),
        (None, [], "unknown"),
        # Under a load that was not as intended, neither shows anything.
        (True, ["late"], "unknown"),
        (False, ["late"], "unknown"),
    ],
)
def test_an_objective_counts_only_under_the_load_that_was_asked_for(
    *, holds: bool | None, invalid: list[str], verdict: str
) -> None:
    objective = {"text": "e2e:p99<500ms", "figure_s": None if holds is None else 0.25, "holds": holds}
    said = LoadAccount.from_json({**LOAD, "objectives": [objective], "invalid": invalid})
    (told,) = [one for one in checks.of_load(said, audit()) if one.group == "objectives"]
    assert (told.name, told.verdict.value) == ("e2e:p99<500ms", verdict)
    assert ("250 ms" in told.text) == (holds is not None)


def survival(*outcomes: Outcome) -> Survival:
    cells = [Cell(task="shop.pay", moment=Moment.STARTED, fault=f"fault-{n}") for n in range(len(outcomes))]
    results = [
        Result(cell=cell, outcome=outcome, why="seen", folder=cell.fault, reasons=("task_acks_late is False",))
        for cell, outcome in zip(cells, outcomes, strict=True)
    ]
    after = tuple(replace(one, outcome=Outcome.OK) for one in results)
    remedy = Remedy(task="shop.pay", lines=("acks_late=True",), results=after)
    return Survival(name="shop", demand=Demand.AT_LEAST_ONCE, results=results, remedies=[remedy])


def test_each_cell_is_a_check_of_its_task() -> None:
    ok, lost, unknown = checks.of_survival(survival(Outcome.OK, Outcome.LOST, Outcome.UNKNOWN))
    assert (lost.group, lost.name, lost.verdict) == ("shop.pay", "fault-1 at started", Verdict.FAIL)
    assert (ok.verdict, unknown.verdict) == (Verdict.PASS, Verdict.UNKNOWN)
    assert lost.text.splitlines() == [
        "lost: seen",
        "reason: task_acks_late is False",
        "with acks_late=True: ok",
        "run folder: fault-1",
    ]


def test_what_was_broken_in_the_baseline_is_known_and_what_is_unknown_never_is() -> None:
    seen = survival(Outcome.LOST, Outcome.LOST, Outcome.UNKNOWN, Outcome.RAN_TWICE)
    seen.baseline = seen.against(survival(Outcome.LOST, Outcome.OK, Outcome.UNKNOWN, Outcome.OK))
    found = list(checks.of_survival(seen))
    assert [one.known is not None for one in found] == [True, False, False, False]
    # The last one keeps the promise, and is worse than it was.
    assert [one.verdict.value for one in found] == ["fail", "fail", "unknown", "fail"]
