"""The grids of `harness survive`, for a terminal and as Markdown, and what changed since a baseline."""

import io
import json

import pytest

from harness.console import Console
from harness.records.moment import Moment
from harness.records.survival import Cell, Demand, Outcome, Remedy, Result, Survival
from harness.records.verdict import Verdict
from harness.report import survive_grid


def result(moment: Moment, fault: str, outcome: Outcome, why: str = "") -> Result:
    return Result(cell=Cell(task="pay", moment=moment, fault=fault), outcome=outcome, why=why, folder="f")


BROKEN = [
    result(Moment.STARTED, "kill-worker", Outcome.LOST, "1 pay was lost."),
    result(Moment.RECEIVED, "kill-worker", Outcome.OK),
    result(Moment.STARTED, "kill-pool-process", Outcome.LOST, "1 pay was lost."),
]
MENDED = (
    result(Moment.STARTED, "kill-worker", Outcome.RAN_TWICE),
    result(Moment.RECEIVED, "kill-worker", Outcome.OK),
    result(Moment.STARTED, "kill-pool-process", Outcome.FAILED, "1 pay failed."),
)
SURVIVAL = Survival(
    name="shop",
    demand=Demand.AT_LEAST_ONCE,
    results=BROKEN,
    remedies=[Remedy(task="pay", lines=("@app.task(acks_late=True)",), results=MENDED)],
)


def shown(survival: Survival) -> str:
    out = io.StringIO()
    console = Console(file=out, width=100)
    for part in survive_grid.parts(survival):
        console.print(part)
    return out.getvalue()


def test_the_grid_has_the_moments_down_and_the_faults_across() -> None:
    lines = [line.split() for line in shown(SURVIVAL).splitlines()]
    assert ["held", "at", "kill-worker", "kill-pool-process"] in lines
    received, started = lines.index(["received", "ok", "-"]), lines.index(["started", "lost", "lost"])
    assert received < started


def test_what_broke_is_said_once_for_all_its_cells_and_the_remedy_with_its_price() -> None:
    said = " ".join(shown(SURVIVAL).split())
    assert said.count("1 pay was lost.") == 1
    assert "kill-worker at started (lost; f), kill-pool-process at started (lost; f)" in said
    assert "remedy: @app.task(acks_late=True), set from outside and run again" in said
    assert "1 of 2 broken cells are mended; its price: 1 now run twice." in said


def test_what_a_task_is_named_does_no_harm_to_a_terminal() -> None:
    cell = Cell(task="\x1b[31mpay", moment=Moment.STARTED, fault="kill-worker")
    survival = Survival(
        name="shop",
        demand=Demand.AT_LEAST_ONCE,
        results=[Result(cell=cell, outcome=Outcome.LOST, why="\x1b[2J", folder="f")],
    )
    assert "\x1b" not in shown(survival)


def test_markdown_has_the_same_cells() -> None:
    text = survive_grid.markdown(SURVIVAL)
    assert "| held at | kill-worker | kill-pool-process |\n|---|---|---|\n| received | ok | - |" in text
    assert "With `@app.task(acks_late=True)`:" in text
    assert "| started | ran twice | failed |" in text


def test_what_got_worse_and_what_got_better_is_told() -> None:
    now = Survival(
        name="shop",
        demand=Demand.AT_LEAST_ONCE,
        results=[
            result(Moment.STARTED, "kill-worker", Outcome.OK),
            result(Moment.RECEIVED, "kill-worker", Outcome.HUNG),
            result(Moment.STARTED, "kill-pool-process", Outcome.LOST),
            result(Moment.STORED, "kill-worker", Outcome.LOST),
            result(Moment.RETURNED, "kill-worker", Outcome.RAN_TWICE),
        ],
    )
    now.baseline = now.against(SURVIVAL)
    assert list(map(str, now.baseline.worse)) == [
        "pay received kill-worker: ok before, hung now",
        "pay stored kill-worker: lost, and the baseline has no such cell",
    ]
    assert list(map(str, now.baseline.better)) == ["pay started kill-worker: lost before, ok now"]
    assert survive_grid.compared(now) == (
        "worse than in the baseline: pay received kill-worker (ok before, hung now), pay stored kill-worker (lost); "
        "better: pay started kill-worker (lost before, ok now)"
    )
    assert (now.promise, now.verdict) == (Verdict.FAIL, Verdict.FAIL)


@pytest.mark.parametrize(
    ("before", "now", "verdict", "words"),
    [
        (Outcome.LOST, Outcome.LOST, "pass", "promises are broken, but nothing is worse than in the baseline"),
        (Outcome.LOST, Outcome.HUNG, "pass", "promises are broken, but nothing is worse than in the baseline; better:"),
        (Outcome.LOST, Outcome.OK, "pass", "nothing is worse than in the baseline; better: pay started"),
        (Outcome.OK, Outcome.RAN_TWICE, "fail", "worse than in the baseline: pay started kill-worker (ok before,"),
        (Outcome.UNKNOWN, Outcome.UNKNOWN, "unknown", "nothing is worse than in the baseline"),
    ],
)
def test_a_baseline_is_told_in_a_sentence_and_is_in_the_record(
    before: Outcome, now: Outcome, verdict: str, words: str
) -> None:
    old, new = (
        Survival(name="shop", demand=Demand.AT_LEAST_ONCE, results=[result(Moment.STARTED, "kill-worker", one, "seen")])
        for one in (before, now)
    )
    assert survive_grid.compared(new) == ""
    new.baseline = new.against(old)
    assert survive_grid.compared(new).startswith(words)
    assert new.verdict.value == verdict
    assert f"Baseline: {words}" in survive_grid.markdown(new)
    again = Survival.from_json(json.loads(json.dumps(new.to_json())))
    assert (again, again.verdict) == (new, new.verdict)


def test_a_record_of_an_older_version_has_no_baseline() -> None:
    said = SURVIVAL.to_json()
    del said["baseline"]
    assert Survival.from_json(said) == SURVIVAL
