"""The grid of `harness survive` in the report, and each remedy with its proof."""

from collections.abc import Mapping, Sequence

from harness.records.moment import Moment
from harness.records.survival import Demand, Result, Survival
from harness.records.verdict import Verdict
from harness.report import survive_grid
from harness.report.html import Html, join, table, tag
from harness.report.page_sections import section, sentence
from harness.report.run_view import RunView


def survival(view: RunView, has_report: Mapping[str, str]) -> Html:
    """Return the grid of `harness survive`, and each remedy with its proof.

    Args:
        view: of the run.
        has_report: the addresses of the cells' own reports, by their folders.
    """
    said = view.survival
    if said is None:
        return Html()
    remedies = {remedy.task: remedy for remedy in said.remedies}
    parts: list[Html] = []
    for task, results in survive_grid.by_task(said.results).items():
        parts += [tag("h3", tag("code", task)), _grid(task, results, said.demand, has_report)]
        broken = [one for one in results if said.demand.verdict(one.outcome) is not Verdict.PASS]
        parts.append(
            tag("ul", (tag("li", _broken(one)) for one in broken))
            if broken
            else tag("p", "Every cell keeps the promise.")
        )
        if task in remedies:
            lines = tag("pre", "\n".join(remedies[task].lines))
            after = remedies[task].results
            parts += [
                tag("h4", "Remedy, and its proof"),
                lines,
                tag("p", survive_grid.proof(results, after, said.demand)),
                _grid(f"{task} with the remedy", after, said.demand, has_report),
            ]
    return section("survive", "What survives", tag("p", f"The promise: {said.demand.value}."), _changes(said), parts)


def _changes(survival: Survival) -> Html:
    """Return what is worse and what is better than in the baseline, each cell of it."""
    said = survival.baseline
    if said is None:
        return Html()
    lines = [(word, one) for word, some in (("worse", said.worse), ("better", said.better)) for one in some]
    rows = [
        (word, str(one.cell), "not there" if one.before is None else one.before.value, one.now.value)
        for word, one in lines
    ]
    return join(
        [
            tag("p", sentence(survive_grid.compared(survival))),
            table("Other than in the baseline", ("", "cell", "before", "now"), rows) if rows else None,
        ]
    )


def _broken(result: Result) -> str:
    # The finding's own words may tell the reasons already.
    more = [f"Reason: {reason}." for reason in result.reasons if reason not in result.why]
    place = f"{result.cell.fault} at {result.cell.moment.value}: {result.outcome.value}."
    return " ".join(filter(None, [place, result.why and sentence(result.why), *more]))


def _grid(title: str, results: Sequence[Result], demand: Demand, has_report: Mapping[str, str]) -> Html:
    faults = list(dict.fromkeys(one.cell.fault for one in results))
    by_cell = {(one.cell.moment, one.cell.fault): one for one in results}

    def cell(moment: Moment, fault: str) -> object:
        one = by_cell.get((moment, fault))
        if one is None:
            return "-"
        shown = tag("span", one.outcome.value, class_=f"badge {demand.verdict(one.outcome).value}")
        address = has_report.get(one.folder)
        return tag("a", shown, href=address) if address else shown

    rows = [(moment.value, *(cell(moment, fault) for fault in faults)) for moment in survive_grid.grid_of(results)]
    return table(title, ("held at", *faults), rows)
