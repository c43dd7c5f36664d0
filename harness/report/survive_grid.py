"""The grid of what survived, for a terminal and as Markdown: a task's moments down, the faults across."""

from collections.abc import Iterator, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from harness.console import READABLE, STYLES, Words
from harness.printable import printable, printable_name
from harness.records.moment import Moment
from harness.records.survival import Change, Demand, Outcome, Remedy, Result, Survival
from harness.records.verdict import Verdict

_NOT_TRIED = "-"
_MOST_CHANGES = 5
"""The most cells that a sentence names. The page and the file have all of them."""
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
    return Text(verdict.value, STYLES[verdict])


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
            Text(outcomes[fault].value, STYLES[demand.verdict(outcomes[fault])]) if fault in outcomes else _NOT_TRIED
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
    if survival.baseline is not None:
        lines += [f"Baseline: {printable_name(compared(survival))}.", ""]
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


def compared(survival: Survival) -> str:
    """Return in one sentence what the baseline says of an outcome, with the cells; empty without a baseline."""
    said = survival.baseline
    if said is None:
        return ""
    if said.worse:
        first = f"worse than in the baseline: {_first(said.worse)}"
    elif said.is_apart:
        first = "nothing of the baseline was tried again"
    elif survival.promise is Verdict.FAIL:
        first = "promises are broken, but nothing is worse than in the baseline"
    else:
        first = "nothing is worse than in the baseline"
    more = [f"better: {_first(said.better)}"] if said.better else []
    if said.not_tried:
        more.append(f"cells of the baseline that were not tried again: {said.not_tried:,}")
    return "; ".join([first, *more])


def _first(changes: Sequence[Change]) -> str:
    more = len(changes) - _MOST_CHANGES
    shown = ", ".join(f"{one.cell} ({_way(one)})" for one in changes[:_MOST_CHANGES])
    return f"{shown} and {more:,} more" if more > 0 else shown


def _way(change: Change) -> str:
    return change.now.value if change.before is None else f"{change.before.value} before, {change.now.value} now"
