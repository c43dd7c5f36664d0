"""Audits as tables for a terminal."""

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from harness.evidence.audit import Audit
from harness.evidence.records import Fate, Verdict
from harness.evidence.ticks import EntryTicks

_STYLES = {Verdict.PASS: "green", Verdict.UNKNOWN: "yellow", Verdict.FAIL: "bold red"}
_UNWANTED = frozenset({Fate.LOST, Fate.DUPLICATED, Fate.WRONG, Fate.UNRECORDED, Fate.UNKNOWN, Fate.PENDING})


def verdict(audit: Audit) -> Text:
    """The verdict in its colour."""
    return Text(audit.verdict.value, style=_STYLES[audit.verdict])


def accounting(audit: Audit) -> Table:
    """One run: sent, every fate, and how long the tasks took."""
    table = Table(title=Text(audit.name), title_justify="left", show_header=False, pad_edge=False)
    table.add_column("what")
    table.add_column("figure", justify="right")
    table.add_row("sent", str(audit.entries))
    for fate, count in audit.fates.items():
        style = "dim" if not count else "red" if fate in _UNWANTED else ""
        table.add_row(f"  {fate.value}", str(count), style=style)
    for name, value_ms in audit.e2e_ms.items():
        table.add_row(f"end to end {name}", _duration(value_ms))
    for node, starts in audit.workers.items():
        memory = f", {audit.memory_mb[node]:.0f} MB" if node in audit.memory_mb else ""
        table.add_row(Text(f"runs on {node}"), f"{starts}{memory}")
    if audit.fairness is not None:
        table.add_row("fairness (Jain's index)", f"{audit.fairness:.3f}")
    for entry in audit.ticks:
        table.add_row(Text(f"ticks of {entry.entry}"), _ticked(entry))
    table.add_row("verdict", verdict(audit))
    return table


def ticks(audit: Audit) -> Table:
    """How each entry of beat's schedule ticked, two lines each."""
    met = {name: style for name, style in _TICKS.items() if any(getattr(entry, name).count for entry in audit.ticks)}
    columns = _TICKS_ALWAYS | met
    table = Table(title=Text(audit.name), title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("entry\n  rule", overflow="fold", min_width=18)
    for column in ("due", "sent", *columns, "late by\np50/p99/max"):
        table.add_column(column, justify="right", no_wrap=True)
    for entry in audit.ticks:
        counts = [_count(getattr(entry, name).count, style) for name, style in columns.items()]
        due = "?" if entry.expected is None else str(entry.expected)
        named = Text.assemble(entry.entry, "\n  ", (entry.rule, "dim"))
        table.add_row(named, due, str(entry.sent), *counts, _lateness(entry) or "-")
    return table


_TICKS = {"missing": "red", "doubled": "red", "late": "red", "early": "red", "unproven": "yellow"}
_TICKS_ALWAYS = {"missing": "red", "doubled": "red"}


def _lateness(entry: EntryTicks) -> str:
    """Median, 99th percentile and maximum; empty if nothing was sent in time."""
    digits = [f"{seconds:.{int(seconds < 10)}f}" for seconds in entry.lateness_s.values()]  # noqa: PLR2004 - legible.
    return f"{'/'.join(digits)} s" if digits else ""


def _ticked(entry: EntryTicks) -> str:
    """How one entry ticked, in a few words."""
    met = [f"{count} {name}" for name in _TICKS if (count := getattr(entry, name).count)]
    after = _lateness(entry)
    return ", ".join([f"{entry.sent} sent", *met, *([f"late by {after} (p50/p99/max)"] if after else [])])


def _count(count: int, style: str) -> Text:
    return Text(str(count), style=style if count else "dim")


def findings(audit: Audit) -> Table | None:
    """What the audit has to say, worst first; None if nothing."""
    if not audit.findings:
        return None
    table = Table(title="findings", title_justify="left", pad_edge=False)
    for column in ("verdict", "what", "count"):
        table.add_column(column, no_wrap=True, justify="right" if column == "count" else "left")
    table.add_column("in words", overflow="fold")
    order = list(Verdict)
    for finding in sorted(audit.findings, key=lambda finding: -order.index(finding.verdict)):
        words = finding.text
        if finding.tasks:
            more = " …" if finding.count > len(finding.tasks) else ""
            words = f"{words}: {', '.join(finding.tasks)}{more}"
        style = _STYLES[finding.verdict]
        table.add_row(Text(finding.verdict.value, style=style), finding.code, str(finding.count), Text(words))
    return table


def ledger(rows: Sequence[tuple[str, Audit]]) -> Table:
    """Many runs, a line each and their sum."""
    sent = sum(audit.entries for _, audit in rows)
    total = {fate: sum(audit.fates[fate] for _, audit in rows) for fate in Fate}
    table = Table(title="accounting", title_justify="left", box=SIMPLE_HEAD, pad_edge=False, show_footer=True)
    table.add_column("run", footer=f"{len(rows)} runs", overflow="fold", ratio=1)
    table.add_column("sent", justify="right", footer=str(sent))
    table.add_column("fates", footer=_fates(total))
    table.add_column("p95", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for name, audit in rows:
        p95 = _duration(audit.e2e_ms["p95"]) if audit.e2e_ms else "-"
        # A parametrized test has brackets in its name, which must not be taken for markup.
        expected = all(finding.code != "failed-unexpectedly" for finding in audit.findings)
        table.add_row(Text(name), str(audit.entries), _fates(audit.fates, expected=expected), p95, verdict(audit))
    return table


def _fates(counts: Mapping[Fate, int], *, expected: bool = False) -> Text:
    """The fates that were met, the unwanted ones in red; and whether the failures are what was expected."""
    words = {Fate.FAILED: "failed as expected"} if expected else {}
    met = [
        Text(f"{count} {words.get(fate, fate.value)}", style="red" if fate in _UNWANTED else "")
        for fate, count in counts.items()
        if count
    ]
    return Text(", ").join(met) if met else Text("none")


def _duration(value_ms: float) -> str:
    return f"{value_ms:.0f} ms" if value_ms < 10_000 else f"{value_ms / 1000:.1f} s"  # noqa: PLR2004 - legible digits.
