"""What survived, as tables: the moments of a task's life down, the faults across. For a terminal and as Markdown."""

from collections.abc import Iterator, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from harness.console import READABLE, Words
from harness.printable import printable, printable_name
from harness.records.moment import Moment
from harness.records.survival import Cell, Demand, Outcome, Remedy, Result, Survival
from harness.records.verdict import Verdict

_NOT_TRIED = "-"
_STYLES = {Verdict.PASS: "green", Verdict.UNKNOWN: "yellow", Verdict.FAIL: "bold red"}
Grid = Mapping[Moment, Mapping[str, Outcome]]


def grid_of(results: Sequence[Result]) -> Grid:
    """Return the outcomes of one task by moment and fault, the moments in the order of a task's life."""
    return {
        moment: {one.cell.fault: one.outcome for one in results if one.cell.moment is moment}
        for moment in Moment
        if any(one.cell.moment is moment for one in results)
    }


def by_task(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Return the results of each task, in the order in which they were tried."""
    tasks = dict.fromkeys(one.cell.task for one in results)
    return {task: [one for one in results if one.cell.task == task] for task in tasks}


def _faults(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(one.cell.fault for one in results))


def verdict_of(verdict: Verdict) -> Text:
    """Return a verdict in its colour."""
    return Text(verdict.value, _STYLES[verdict])


def parts(survival: Survival) -> Iterator[RenderableType]:
    """Yield the grid of each task, what broke and why, and each remedy with its proof and its price."""
    remedies = {remedy.task: remedy for remedy in survival.remedies}
    for task, results in by_task(survival.results).items():
        yield _table(printable_name(task), results, survival.demand)
        yield from _broken(results, survival.demand)
        if task in remedies:
            remedy = remedies[task]
            yield Text.assemble("remedy: ", (_lines(remedy), "bold"), ", set from outside and run again:")
            yield _table("", remedy.results, survival.demand)
            yield Words(proof(results, remedy.results, survival.demand))


def _lines(remedy: Remedy) -> str:
    return printable("; ".join(remedy.lines))


def _table(title: str, results: Sequence[Result], demand: Demand) -> Table:
    table = Table(title=Text(title) if title else None, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("held at")
    faults = _faults(results)
    for fault in faults:
        table.add_column(fault)
    for moment, outcomes in grid_of(results).items():
        cells = [
            Text(outcomes[fault].value, _STYLES[demand.verdict(outcomes[fault])]) if fault in outcomes else _NOT_TRIED
            for fault in faults
        ]
        table.add_row(moment.value, *cells)
    return table


def _broken(results: Sequence[Result], demand: Demand) -> Iterator[RenderableType]:
    """Yield what broke in words. The same words for several cells stand once."""
    said: dict[str, list[str]] = {}
    for one in results:
        if demand.verdict(one.outcome) is not Verdict.PASS:
            place = f"{one.cell.fault} at {one.cell.moment.value}"
            said.setdefault(one.why, []).append(f"{place} ({one.outcome.value}; {one.folder})")
    for why, places in said.items():
        table = Table(box=None, show_header=False, pad_edge=False, width=READABLE)
        table.add_column()
        table.add_row(Words(", ".join(places)))
        table.add_row(Words(f"  {printable(why)}"))
        yield table


def proof(before: Sequence[Result], after: Sequence[Result], demand: Demand) -> str:
    """Return what a remedy mended, what it did not, and what it costs."""
    was = {one.cell: one.outcome for one in before}
    broken = [one for one in after if demand.verdict(was[one.cell]) is Verdict.FAIL]
    mended = [one for one in broken if demand.verdict(one.outcome) is Verdict.PASS]
    dearer = {Outcome.RAN_TWICE: "now run twice", Outcome.EFFECT_TWICE: "now have their effect twice"}
    price = [
        f"{len(cells)} {words}"
        for outcome, words in dearer.items()
        if (cells := [one for one in after if one.outcome is outcome and was[one.cell] is not outcome])
    ]
    return f"{len(mended)} of {len(broken)} broken cells are mended; its price: {', '.join(price) or 'none was seen'}."


def markdown(survival: Survival) -> str:
    """Return the grids as Markdown, for a page or a pull request."""
    lines = [f"# Do the tasks of {survival.name} survive?", "", f"Promise: {survival.demand.value}.", ""]
    remedies = {remedy.task: remedy for remedy in survival.remedies}
    for task, results in by_task(survival.results).items():
        lines += [f"## `{task}`", "", *markdown_table(results), ""]
        if task in remedies:
            remedy = remedies[task]
            lines += [f"With `{_lines(remedy)}`:", "", *markdown_table(remedy.results), ""]
            lines += [proof(results, remedy.results, survival.demand), ""]
    return "\n".join(lines)


def markdown_table(results: Sequence[Result]) -> Iterator[str]:
    """Yield the lines of the grid of one task as Markdown."""
    faults = _faults(results)
    yield f"| held at | {' | '.join(faults)} |"
    yield f"|---|{'---|' * len(faults)}"
    for moment, outcomes in grid_of(results).items():
        cells = " | ".join(outcomes[fault].value if fault in outcomes else _NOT_TRIED for fault in faults)
        yield f"| {moment.value} | {cells} |"


def changes(before: Survival, now: Survival) -> tuple[list[str], list[str]]:
    """Return the cells that got worse and those that got better since a baseline, a line each.

    A cell that the baseline does not have counts as worse if it breaks the demand.
    """
    was = {one.cell: one.outcome for one in before.results}
    worse, better = [], []
    for one in now.results:
        old = was.get(one.cell)
        if _is_worse(one, old, now.demand):
            outcome = one.outcome.value
            said = (
                f"{outcome}, and the baseline has no such cell" if old is None else f"{old.value} before, {outcome} now"
            )
            worse.append(f"{one.cell}: {said}")
        elif old is not None and one.outcome is not old:
            better.append(f"{one.cell}: {old.value} before, {one.outcome.value} now")
    return worse, better


def worse_cells(before: Survival, now: Survival) -> frozenset[Cell]:
    """Return the cells that got worse since a baseline, as `changes` counts them."""
    was = {one.cell: one.outcome for one in before.results}
    return frozenset(one.cell for one in now.results if _is_worse(one, was.get(one.cell), now.demand))


def _is_worse(one: Result, old: Outcome | None, demand: Demand) -> bool:
    if old is None:
        return demand.verdict(one.outcome) is not Verdict.PASS
    order = list(Outcome)
    return order.index(one.outcome) > order.index(old)
