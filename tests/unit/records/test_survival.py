"""The outcome of `harness survive` against an earlier one: what is worse, what is better, and what nobody knows."""

import pytest

from harness.records.moment import Moment
from harness.records.survival import Cell, Demand, Outcome, Result, Survival
from harness.records.verdict import Verdict
from harness.report.survive_grid import compared


def survival(outcomes: dict[str, Outcome]) -> Survival:
    """Return an outcome with one cell for each fault."""
    results = [
        Result(cell=Cell(task="pay", moment=Moment.STARTED, fault=fault), outcome=outcome, why="", folder=fault)
        for fault, outcome in outcomes.items()
    ]
    return Survival(name="shop", demand=Demand.AT_LEAST_ONCE, results=results)


OK, TWICE, HUNG, LOST, UNKNOWN = Outcome.OK, Outcome.RAN_TWICE, Outcome.HUNG, Outcome.LOST, Outcome.UNKNOWN


@pytest.mark.parametrize(
    ("before", "now", "worse", "better", "verdict"),
    [
        (OK, OK, 0, 0, Verdict.PASS),
        (OK, LOST, 1, 0, Verdict.FAIL),
        (OK, TWICE, 1, 0, Verdict.FAIL),
        (LOST, HUNG, 0, 1, Verdict.PASS),
        (LOST, LOST, 0, 0, Verdict.PASS),
        # What nobody knew before is as if it was not there: it excuses nothing.
        (UNKNOWN, LOST, 1, 0, Verdict.FAIL),
        (UNKNOWN, OK, 0, 0, Verdict.PASS),
        (UNKNOWN, TWICE, 0, 0, Verdict.PASS),
        # What nobody knows now is neither worse nor better.
        (OK, UNKNOWN, 0, 0, Verdict.UNKNOWN),
        (LOST, UNKNOWN, 0, 0, Verdict.UNKNOWN),
        (UNKNOWN, UNKNOWN, 0, 0, Verdict.UNKNOWN),
        # A new cell.
        (None, OK, 0, 0, Verdict.PASS),
        (None, LOST, 1, 0, Verdict.FAIL),
        (None, UNKNOWN, 0, 0, Verdict.UNKNOWN),
    ],
)
def test_a_cell_is_worse_or_better_only_if_both_outcomes_are_known(
    before: Outcome | None, now: Outcome, worse: int, better: int, verdict: Verdict
) -> None:
    old = {"same": OK} if before is None else {"same": OK, "cell": before}
    seen = survival({"same": OK, "cell": now})
    seen.baseline = seen.against(survival(old))
    assert (len(seen.baseline.worse), len(seen.baseline.better), seen.verdict) == (worse, better, verdict)


@pytest.mark.parametrize(
    ("before", "now", "counts", "verdict"),
    [
        ({"a": OK, "b": LOST}, {"a": OK, "b": LOST}, (2, 0), Verdict.PASS),
        ({"a": OK, "b": LOST}, {"b": LOST}, (1, 1), Verdict.PASS),
        # With nothing to compare, the baseline measures nothing.
        ({"a": OK, "b": LOST}, {"c": OK}, (0, 2), Verdict.UNKNOWN),
        ({"a": OK}, {"c": LOST}, (0, 1), Verdict.FAIL),
        ({}, {"c": OK}, (0, 0), Verdict.PASS),
    ],
)
def test_cells_that_were_not_tried_again_are_counted(
    before: dict[str, Outcome], now: dict[str, Outcome], counts: tuple[int, int], verdict: Verdict
) -> None:
    seen = survival(now)
    seen.baseline = seen.against(survival(before))
    assert (seen.baseline.tried_again, seen.baseline.not_tried) == counts
    assert (seen.verdict, Survival.from_json(seen.to_json())) == (verdict, seen)
    said = compared(seen)
    assert ("not tried again" in said) is (counts[1] > 0)
    assert ("nothing of the baseline was tried again" in said) is (verdict is Verdict.UNKNOWN)


def test_a_record_of_an_older_version_does_not_count_them() -> None:
    seen = survival({"a": OK})
    seen.baseline = seen.against(survival({"b": OK}))
    said = seen.to_json()
    for name in ("tried_again", "not_tried"):
        del said["baseline"][name]
    assert Survival.from_json(said).verdict is Verdict.PASS
