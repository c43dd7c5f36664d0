"""Audits as tables for a terminal."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from harness.audit.audit import Audit
from harness.audit.beat.crontab import RULE
from harness.audit.beat.tick_records import EntryTicks
from harness.console import READABLE, STYLES, Console, Words
from harness.measure.durations import write_duration
from harness.measure.figures import Figures
from harness.measure.load_account import FaultAccount, LoadAccount, ObjectiveAccount, Probe
from harness.measure.stages import Stage, Summary
from harness.printable import printable, printable_name
from harness.records.finding_codes import Code
from harness.records.values import Json
from harness.records.verdict import Fate, Reason, Verdict

_UNWANTED = frozenset({Fate.LOST, Fate.DUPLICATED, Fate.WRONG, Fate.UNRECORDED, Fate.UNKNOWN, Fate.PENDING})


def _shown(audit: Audit) -> Audit:
    """Return an audit in which names and sentences from outside are safe to print."""
    return replace(
        audit,
        name=printable_name(audit.name),
        findings=tuple(
            replace(
                finding,
                code=printable_name(finding.code),
                text=printable(finding.text),
                tasks=tuple(map(printable_name, finding.tasks)),
                reasons=tuple(map(_shown_reason, finding.reasons)),
            )
            for finding in audit.findings
        ),
        e2e_ms={printable_name(name): value_ms for name, value_ms in audit.e2e_ms.items()},
        workers={printable_name(node): starts for node, starts in audit.workers.items()},
        memory_mb={printable_name(node): memory_mb for node, memory_mb in audit.memory_mb.items()},
        ticks=tuple(
            replace(entry, entry=printable_name(entry.entry), rule=printable_name(entry.rule)) for entry in audit.ticks
        ),
    )


def _shown_reason(reason: Reason) -> Reason:
    return Reason.from_json(_shown_json(asdict(reason)))


def _shown_json(value: Json) -> Json:
    """Return a JSON value in which all names and texts are safe to print."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {printable_name(name): _shown_json(one) for name, one in value.items()}
    return [_shown_json(one) for one in value] if isinstance(value, list | tuple) else value


def verdict(audit: Audit) -> Text:
    """Return the verdict in its colour."""
    return Text(audit.verdict.value, style=STYLES[audit.verdict])


def show(console: Console, audited: Audit) -> None:
    """Print an audit: its ticks or its accounting, and its findings."""
    if audited.is_timelapse:
        console.print(ticks(audited))
        console.print("verdict: ", verdict(audited), f". {RULE}", sep="")
    else:
        console.print(accounting(audited))
    if (found := findings(audited)) is not None:
        console.print(found)


def accounting(audit: Audit) -> Table:
    """Return the table of one run: tasks sent, every fate, and how long the tasks took."""
    audit = _shown(audit)
    table = Table(title=Text(audit.name), title_justify="left", show_header=False, pad_edge=False)
    table.add_column("what")
    table.add_column("figure", justify="right")
    table.add_row("sent", str(audit.entries))
    for fate, count in audit.fates.items():
        style = "dim" if not count else "red" if fate in _UNWANTED else ""
        table.add_row(f"  {fate.value}", str(count), style=style)
    for name, value_ms in audit.e2e_ms.items():
        table.add_row(Words(f"end to end {name}"), _duration(value_ms))
    for node, starts in audit.workers.items():
        memory = f", {audit.memory_mb[node]:.0f} MB" if node in audit.memory_mb else ""
        table.add_row(Words(f"runs on {node}"), f"{starts}{memory}")
    if audit.fairness is not None:
        table.add_row("fairness (Jain's index)", f"{audit.fairness:.3f}")
    for entry in audit.ticks:
        table.add_row(Words(f"ticks of {entry.entry}"), _ticked(entry))
    table.add_row("verdict", verdict(audit))
    return table


def ticks(audit: Audit) -> Table:
    """Return the table of the ticks of each entry of beat's schedule, two lines each."""
    audit = _shown(audit)
    met = {name: style for name, style in _TICKS.items() if any(getattr(entry, name).count for entry in audit.ticks)}
    columns = _TICKS_ALWAYS | met
    table = Table(title=Text(audit.name), title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("entry\n  rule", min_width=18)
    for column in ("due", "sent", *columns, "late by\np50/p99/max"):
        table.add_column(column, justify="right", no_wrap=True)
    for entry in audit.ticks:
        counts = [_count(getattr(entry, name).count, style) for name, style in columns.items()]
        due = "?" if entry.expected is None else str(entry.expected)
        named = Words.assemble(entry.entry, "\n  ", (entry.rule, "dim"))
        table.add_row(named, due, str(entry.sent), *counts, _lateness(entry) or "-")
    return table


_TICKS = {"missing": "red", "doubled": "red", "late": "red", "early": "red", "unproven": "yellow"}
_TICKS_ALWAYS = {"missing": "red", "doubled": "red"}


def _lateness(entry: EntryTicks) -> str:
    """Return median, 99th percentile and maximum, in seconds; empty if there are none."""
    digits = [f"{seconds:.{int(seconds < 10)}f}" for seconds in entry.lateness_s.values()]  # noqa: PLR2004 - legible.
    return f"{'/'.join(digits)} s" if digits else ""


def _ticked(entry: EntryTicks) -> str:
    """Return a summary of one entry's ticks in one line."""
    met = [f"{count} {name}" for name in _TICKS if (count := getattr(entry, name).count)]
    after = _lateness(entry)
    return ", ".join([f"{entry.sent} sent", *met, *([f"late by {after} (p50/p99/max)"] if after else [])])


def _count(count: int, style: str) -> Text:
    return Text(str(count), style=style if count else "dim")


def findings(audit: Audit) -> Table | None:
    """Return the table of the audit's findings, worst first; None if there are none."""
    if not audit.findings:
        return None
    audit = _shown(audit)
    table = Table(title="findings", title_justify="left", pad_edge=False)
    for column in ("verdict", "what", "count"):
        table.add_column(column, no_wrap=True, justify="right" if column == "count" else "left")
    table.add_column("in words", max_width=READABLE)
    order = list(Verdict)
    for finding in sorted(audit.findings, key=lambda finding: -order.index(finding.verdict)):
        words = "\n".join([finding.sentence, *finding.reason_lines])
        style = STYLES[finding.verdict]
        table.add_row(Text(finding.verdict.value, style=style), Text(finding.code), str(finding.count), Words(words))
    return table


def load(said: LoadAccount, audit: Audit, folder: str, report: str | None = None) -> Iterator[RenderableType]:
    """Yield the parts of a load test's report: load, throughput, faults and verdict.

    Args:
        said: what load.json holds.
        audit: the audit of the tasks.
        folder: the run folder.
        report: the page of the run; None if there is none.
    """
    # Histograms and samples are not shown.
    brief = replace(said, hdr={}, samples=())
    said, audit, folder = LoadAccount.from_json(_shown_json(brief.to_json())), _shown(audit), printable_name(folder)
    yield Text(audit.name, "bold")
    yield _facts(said, audit)
    yield _stages(said.stages)
    if said.probes:
        yield _probes(said.probes)
    told = {Code.FAULT, Code.FAULT_NOT_LANDED} if said.faults else set()
    others = tuple(finding for finding in audit.findings if finding.code not in told)
    if (found := findings(replace(audit, findings=others))) is not None:
        yield found
    for text in said.invalid:
        yield Text(f"invalid: {text}", "yellow")
    if said.search is not None:
        yield Text(said.search.text, "bold")
    elif said.bottleneck and not said.invalid:
        yield Text(said.bottleneck)
    if not said.is_open:
        yield Text(_CLOSED_LOOP, "yellow")
    # A path that is broken into two lines cannot be copied.
    yield f"run folder: {folder}"
    if report is not None:
        yield f"report: {printable_name(report)}"
    code = said.exit_code
    name, style = _CODES[code]
    yield Text.assemble((name, style), f" (exit code {code}): {said.reason}")


_CODES = {code: (one.value, STYLES[one]) for one in Verdict for code in [one.exit_code]}
_CLOSED_LOOP = (
    "Closed loop: each sender sent when its last send was done. A stall held the senders up as well, so that what "
    "would have been due meanwhile is in no figure: the latencies are too good, and no rate was asked for."
)


def _facts(said: LoadAccount, audit: Audit) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(max_width=READABLE)
    for name, value in _load_facts(said, audit):
        table.add_row(name, Words.assemble(value))
    return table


def _load_facts(said: LoadAccount, audit: Audit) -> Iterator[tuple[str, Text]]:
    counts, figures = said.counts, said.figures
    broken = f" ({counts.broken:,} broken)" if counts.broken else ""
    arrivals = f"{counts.offered:,} offered = {counts.sent:,} sent{broken} + {counts.dropped:,} dropped"
    yield "arrivals", Text(arrivals, "yellow" if counts.dropped or broken else "")
    unsure = [
        f"{count:,} {name}" for name, count in (("refused", counts.refused), ("unknown", counts.unknown)) if count
    ]
    yield "the broker", Text(", ".join([f"{counts.accepted:,} accepted", *unsure]), "yellow" if unsure else "")
    yield "tasks", Text.assemble(f"{audit.entries:,} sent: ", _fates(audit.fates, expected=_is_expected(audit)))
    if figures is not None and figures.duration_s:
        offered_per_s = figures.offered / figures.duration_s
        over = f"in {write_duration(figures.duration_s)} after the warm-up"
        yield "throughput", Text(f"{offered_per_s:,.1f}/s offered, {figures.completed_per_s:,.1f}/s completed, {over}")
        yield "generator", Text(_generator(figures))
    at_end = f", {figures.backlog_end:,} when the load ended" if figures is not None else ""
    drained = f"drained in {write_duration(said.drained_s)}"
    yield "backlog", Text(f"{said.backlog_max:,} at most{at_end}, {drained}")
    if said.workers:
        busy = figures.busy if figures is not None and figures.processes else None
        yield "workers", Text(_shares(said.workers, audit.fairness, busy))
    for fault in said.faults:
        yield "fault", _fault(fault)
    for objective in said.objectives:
        yield "objective", _objective(objective)


def _generator(figures: Figures) -> str:
    """Return how late the generator was and how much CPU it took."""
    late = f"late by {write_duration(figures.lateness_p99_s)} (p99), " if figures.is_open else ""
    theft = f"; {figures.theft}" if figures.theft else ""
    return f"{late}{figures.generator_cpu:.0%} of a core{theft}"


def _shares(begun: Mapping[str, int], fairness: float | None, busy: float | None) -> str:
    """Return how the executions were spread over the workers, and how busy the workers were."""
    total = sum(begun.values())
    parts = [", ".join(f"{node} {count:,} ({count / total:.0%})" for node, count in begun.items() if total)]
    if fairness is not None:
        parts.append(f"fairness (Jain's index) {fairness:.3f}")
    if busy is not None:
        parts.append(f"busy {min(busy, 1):.0%} of the time")
    return "; ".join(parts)


def _fault(fault: FaultAccount) -> Text:
    return Text(fault.text, "yellow" if fault.missing or fault.error else "")


def _objective(objective: ObjectiveAccount) -> Text:
    words, style = {True: ("met", "green"), False: ("missed", "bold red"), None: ("unknown", "yellow")}[objective.holds]
    figure_s = objective.figure_s
    seen = "no task passed it" if figure_s is None else write_duration(figure_s)
    return Text.assemble(f"{objective.text}: ", (words, style), f", {seen}")


def _stages(stages: Mapping[Stage, Summary]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("stage", "tasks", "mean", "p50", "p95", "p99", "max"):
        table.add_column(column, justify="left" if column == "stage" else "right", no_wrap=True)
    for stage, summary in stages.items():
        if summary.count:
            figures_s = (summary.mean_s, summary.p50_s, summary.p95_s, summary.p99_s, summary.max_s)
            table.add_row(Text(stage.value), f"{summary.count:,}", *map(write_duration, figures_s))
    return table


def _probes(probes: Sequence[Probe]) -> Table:
    """Return the table of a search, a line for each probe."""
    table = Table(title="search", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column in ("workers", "rate", "completed", "e2e p50", "e2e p99", "backlog"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("sustained", max_width=READABLE)
    for one in probes:
        why_not = one.why_not
        said = Words("yes", "green") if why_not is None else Words(why_not, "red" if one.is_valid else "yellow")
        took = (write_duration(one.e2e_p50_s), write_duration(one.e2e_p99_s))
        rates = (f"{one.rate:g}/s", f"{one.completed_per_s:g}/s")
        table.add_row(str(one.workers), *rates, *took, f"{one.backlog_growth:+,}", said)
    return table


def ledger(rows: Sequence[tuple[str, Audit]]) -> Table:
    """Return the table of several runs, a line each, and their sum."""
    sent = sum(audit.entries for _, audit in rows)
    total = {fate: sum(audit.fates[fate] for _, audit in rows) for fate in Fate}
    table = Table(title="accounting", title_justify="left", box=SIMPLE_HEAD, pad_edge=False, show_footer=True)
    table.add_column("run", footer="1 run" if len(rows) == 1 else f"{len(rows)} runs", ratio=1)
    table.add_column("sent", justify="right", footer=str(sent))
    table.add_column("fates", footer=_fates(total))
    table.add_column("p95", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for name, audit in rows:
        p95 = _duration(audit.e2e_ms["p95"]) if audit.e2e_ms else "-"
        # A parametrized test has brackets in its name, which must not be taken for markup.
        fates = _fates(audit.fates, expected=_is_expected(audit))
        table.add_row(Words(printable_name(name)), str(audit.entries), fates, p95, verdict(audit))
    return table


def _is_expected(audit: Audit) -> bool:
    """Return whether all failures were expected."""
    return all(finding.code != Code.FAILED_UNEXPECTEDLY for finding in audit.findings)


def _fates(counts: Mapping[Fate, int], *, expected: bool = False) -> Text:
    """Return the fates that occurred, the unwanted ones in red; failures are called expected if `expected`."""
    words = {Fate.FAILED: "failed as expected"} if expected else {}
    met = [
        Text(f"{count:,} {words.get(fate, fate.value)}", style="red" if fate in _UNWANTED else "")
        for fate, count in counts.items()
        if count
    ]
    return Text(", ").join(met) if met else Text("none")


def _duration(value_ms: float) -> str:
    return f"{value_ms:.0f} ms" if value_ms < 10_000 else f"{value_ms / 1000:.1f} s"  # noqa: PLR2004 - legible digits.
