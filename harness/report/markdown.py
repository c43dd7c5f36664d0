"""Runs as Markdown, for the summary page of a CI job: the verdict in a sentence, the fates, and the findings."""

import re
from collections.abc import Iterator, Mapping, Sequence

from harness.audit.audit import Audit
from harness.measure.durations import write_duration
from harness.measure.load_account import LoadAccount
from harness.printable import printable_name
from harness.records.survival import Survival
from harness.records.verdict import Fate, Finding, Verdict
from harness.report import survive_grid

_MARKS = {Verdict.PASS: "✅", Verdict.UNKNOWN: "❔", Verdict.FAIL: "❌"}
_WORDS = {
    Verdict.PASS: "passes: everything is accounted for",
    Verdict.UNKNOWN: "is unknown: the evidence does not suffice",
    Verdict.FAIL: "fails: a promise is broken",
}
_MOST_FINDINGS = 30
"""The most findings of a run that are listed. The run folder has all of them."""
_MOST_RUNS = 100
"""The most runs of a session that are listed. A page of more is read by nobody, and GitHub takes one MiB."""
_LONGEST = 1_000
"""The most characters of a text, for the same reason."""
_SPECIAL = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~&@:$^=])")


def escaped(text: str) -> str:
    """Return text in one line that Markdown shows as it is: no markup, no link, no mention, no image."""
    shown = printable_name(" ".join(text.split()))
    cut = shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}…"
    return _SPECIAL.sub(r"\\\1", cut)


def of_audit(name: str, audit: Audit, folder: str) -> str:
    """Return a run as Markdown: verdict, fates and findings."""
    return _page(
        [
            _title(name, audit.verdict),
            *_facts(audit),
            *_findings(audit.findings),
            f"Run folder: {escaped(folder)}",
        ]
    )


def of_load(name: str, said: LoadAccount, audit: Audit, folder: str) -> str:
    """Return a load test as Markdown: verdict, load, stages, fates and findings."""
    verdict = next((one for one in Verdict if one.exit_code == said.exit_code), Verdict.UNKNOWN)
    counts = said.counts
    rows = [
        (stage.value, f"{one.count:,}", *map(write_duration, (one.p50_s, one.p95_s, one.p99_s, one.max_s)))
        for stage, one in said.stages.items()
        if one.count
    ]
    return _page(
        [
            _title(name, verdict),
            escaped(said.reason),
            f"{counts.offered:,} arrivals, {counts.sent:,} sent, {counts.dropped:,} dropped.",
            *(f"Invalid: {escaped(text)}" for text in said.invalid),
            *_table(("stage", "tasks", "p50", "p95", "p99", "max"), rows),
            *_facts(audit),
            *_findings(audit.findings),
            f"Run folder: {escaped(folder)}",
        ]
    )


def of_survival(survival: Survival, folder: str) -> str:
    """Return the outcome of `harness survive` as Markdown: its grids, what broke, and the remedies."""
    name, promise = f"Do the tasks of {survival.name} survive?", f"Promise: {survival.demand.value}."
    if survival.baseline is None:
        parts = [_title(name, survival.verdict), promise]
    else:
        # A pass does not say that everything is accounted for: what was broken before still is.
        said = f"Baseline: {escaped(survive_grid.compared(survival))}."
        parts = [f"### {_MARKS[survival.verdict]} {escaped(name)} {survival.verdict.value}", said, promise]
    remedies = {remedy.task: remedy for remedy in survival.remedies}
    for task, results in survive_grid.by_task(survival.results).items():
        grid = survive_grid.grid_of(results)
        faults = list(dict.fromkeys(one.cell.fault for one in results))
        rows = [
            (moment.value, *(outcomes[fault].value if fault in outcomes else "-" for fault in faults))
            for moment, outcomes in grid.items()
        ]
        parts += [f"#### {escaped(task)}", *_table(("held at", *faults), rows)]
        broken = dict.fromkeys(one.why for one in results if survival.demand.verdict(one.outcome) is not Verdict.PASS)
        parts += _list(list(broken))
        if task in remedies:
            parts.append(f"Remedy, run as well: {escaped('; '.join(remedies[task].lines))}")
    return _page([*parts, f"Run folder: {escaped(folder)}"])


def of_session(rows: Sequence[tuple[str, Audit]], folder: str) -> str:
    """Return the runs of a pytest session as Markdown: their sum, a table, and what broke."""
    verdict = Verdict.worst([audit.verdict for _, audit in rows])
    total = {fate: sum(audit.fates[fate] for _, audit in rows) for fate in Fate}
    order = list(Verdict)
    worst_first = sorted(rows, key=lambda row: -order.index(row[1].verdict))
    shown = worst_first[:_MOST_RUNS]
    cells = [(_MARKS[audit.verdict], name, f"{audit.entries:,}", _fates(audit.fates)) for name, audit in shown]
    more = len(rows) - len(shown)
    broken = [(name, audit) for name, audit in shown if audit.verdict is not Verdict.PASS]
    return _page(
        [
            _title(f"{len(rows)} runs", verdict),
            f"{sum(audit.entries for _, audit in rows):,} tasks were sent: {_fates(total)}.",
            *_table(("", "run", "sent", "fates"), cells),
            *([f"And {more} more, none of which is worse."] if more else []),
            *(part for name, audit in broken for part in (f"#### {escaped(name)}", *_findings(audit.findings))),
            f"Run folders: {escaped(folder)}",
        ]
    )


def of_lines(name: str, verdict: Verdict, lines: Sequence[str]) -> str:
    """Return a verdict with some lines as Markdown."""
    return _page([f"### {_MARKS[verdict]} {escaped(name)}: {verdict.value}", *_list(lines)])


def _title(name: str, verdict: Verdict) -> str:
    return f"### {_MARKS[verdict]} {escaped(name)} {_WORDS[verdict]}"


def _facts(audit: Audit) -> Iterator[str]:
    if audit.is_timelapse:
        rows = [
            (one.entry, "?" if one.expected is None else str(one.expected), str(one.sent), str(one.missing.count))
            for one in audit.ticks[:_MOST_RUNS]
        ]
        yield from _table(("entry", "due", "sent", "missing"), rows)
    else:
        yield f"{audit.entries:,} tasks were sent: {_fates(audit.fates)}."


def _fates(counts: Mapping[Fate, int]) -> str:
    return ", ".join(f"{count:,} {fate.value}" for fate, count in counts.items() if count) or "none"


def _findings(findings: Sequence[Finding]) -> Iterator[str]:
    order = list(Verdict)
    worst_first = sorted(findings, key=lambda one: -order.index(one.verdict))
    lines = []
    for one in worst_first[:_MOST_FINDINGS]:
        lines.append(f"- {_MARKS[one.verdict]} **{escaped(one.code)}** {escaped(one.sentence)}")
        lines += [f"  - {escaped(line)}" for line in one.reason_lines]
    if more := len(findings) - _MOST_FINDINGS:
        lines += [f"- and {more} more, none of which is worse"] if more > 0 else []
    if lines:
        yield "\n".join(lines)


def _list(texts: Sequence[str]) -> Iterator[str]:
    if texts:
        yield "\n".join(f"- {escaped(text)}" for text in texts[:_MOST_FINDINGS])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    if rows:
        lines = [f"| {' | '.join(map(escaped, cells))} |" for cells in (head, *rows)]
        yield "\n".join([lines[0], f"|{'---|' * len(head)}", *lines[1:]])


def _page(parts: Sequence[str]) -> str:
    return "\n\n".join(parts) + "\n\n"
