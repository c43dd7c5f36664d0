"""The report of a rehearsed deploy, for a terminal and as Markdown."""

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from harness.console import STYLES, Words
from harness.measure.durations import write_duration
from harness.printable import printable
from harness.records.rehearsal import Rehearsal, Rehearsed, Replaced, Share

_SHARE_HEADS = ("workers", "for", "begun", "by each")
_HEADS = ("worker", "process 1", "ended after", "how", "begun", "cut")
_LONGEST_COMMAND = 40
_NOTABLE_S = 1.0
_UNEVEN = 2
"""How many times as many tasks as another worker one may begin before it is told."""
_ENOUGH = 4
"""Fewer tasks for each worker than this show nothing."""


def parts(rehearsal: Rehearsal) -> Iterator[RenderableType]:
    """Yield what each run did, and what follows from all of them."""
    for run in rehearsal.runs:
        yield Text.assemble((printable(run.title), "bold"), ": ", (run.verdict.value, STYLES[run.verdict]))
        for heads, rows in _tables(run):
            table = Table(*heads, box=SIMPLE_HEAD, pad_edge=False)
            for row in rows:
                table.add_row(*row)
            yield table
        for line in lines_of(run):
            yield Words(f"  {printable(line)}")
    for line in conclusions(rehearsal):
        yield Words(printable(line))


def _tables(run: Rehearsed) -> Iterator[tuple[Sequence[str], Sequence[Sequence[str]]]]:
    """Yield the heads and the rows of each table of a run: who was asked to stop, and who took how many tasks."""
    if run.replaced:
        yield _HEADS, [_row(one) for one in run.replaced]
    if len({len(one.begun) for one in run.shares}) > 1:
        yield _SHARE_HEADS, [_share_row(one) for one in run.shares]


def _share_row(one: Share) -> tuple[str, ...]:
    by_each = ", ".join(f"{name} {count}" for name, count in one.begun.items())
    return str(len(one.begun)), write_duration(one.took_s), str(one.total), by_each


def _row(one: Replaced) -> tuple[str, ...]:
    command = printable(one.first_process)
    short = command if len(command) <= _LONGEST_COMMAND else f"{command[: _LONGEST_COMMAND - 1]}…"
    how = "killed (SIGKILL)" if one.was_killed else f"by itself, with {one.exit_code}"
    return one.node, short, write_duration(one.took_s), how, str(one.begun), str(len(one.cut))


def lines_of(run: Rehearsed) -> Iterator[str]:
    """Yield what became of the tasks of a run."""
    counts = {
        "lost": run.lost,
        "failed": run.failed,
        "still pending": run.pending,
        "had their effect twice": run.doubled,
        "ran twice": run.ran_again,
        "refused, as their sender was told": run.refused,
    }
    met = ", ".join(f"{count} {words}" for words, count in counts.items() if count)
    yield f"{run.sent} sent: {met or 'none was lost, failed or ran twice'}."
    if run.replaced or run.untaken_s:
        taken = f"For {write_duration(run.untaken_s)}, no worker took tasks." if run.untaken_s else ""
        yield taken or "A worker took tasks at every time."
    if run.broker_down_s:
        yield f"The broker was down for {write_duration(run.broker_down_s)}."
    if run.waited_s is not None:
        before = f"; before it, {write_duration(run.waited_before_s)}" if run.waited_before_s is not None else ""
        yield f"The longest wait of a task during the deploy: {write_duration(run.waited_s)}{before}."
    if run.gap_s is not None:
        before = f"; before it, {write_duration(run.gap_before_s)}" if run.gap_before_s is not None else ""
        yield f"The longest time in which no task began during the deploy: {write_duration(run.gap_s)}{before}."
    yield from filter(None, map(_unevenness, run.shares))
    yield from (_deaf(one) for one in run.replaced if one.is_deaf)
    yield from run.findings
    yield f"run folder: {run.folder}"


def _unevenness(one: Share) -> str:
    """Return a sentence about workers that took much less than another one; empty if none did."""
    if len(one.begun) == 1 or one.total < _ENOUGH * len(one.begun):
        return ""
    most, least = max(one.begun, key=one.begun.__getitem__), min(one.begun, key=one.begun.__getitem__)
    if one.begun[most] <= _UNEVEN * one.begun[least]:
        return ""
    return (
        f"Of {len(one.begun)} workers, {most} began {one.begun[most]} tasks and {least} {one.begun[least]}: what a "
        "worker has fetched stays with it (worker_prefetch_multiplier); or they consume other queues, or one connected "
        "to the broker later than the other."
    )


def _deaf(one: Replaced) -> str:
    first, _, _ = one.first_process.partition(" ")
    return (
        f"{one.node} never heard of SIGTERM: process 1 is {first}, which passes no signal on, so that Celery went on "
        "until it was killed. Let the shell become Celery (exec celery …), write CMD as a JSON array, or put an init "
        "before it, such as tini."
    )


def conclusions(rehearsal: Rehearsal) -> Iterator[str]:
    """Yield the shortest grace period, and what it follows from."""
    longest = max(rehearsal.runs, key=lambda run: run.longest_s or 0.0, default=None)
    if any(one.is_deaf for run in rehearsal.runs for one in run.replaced):
        yield "No grace period helps a worker that does not hear the signal."
    elif rehearsal.shortest_grace_s is not None and longest is not None:
        seen = (rehearsal.proof or longest) if rehearsal.is_proven else longest
        length_s = max(seen.longest_s or 0.0, longest.longest_s or 0.0)
        name = seen.longest_task if (seen.longest_s or 0.0) >= length_s else longest.longest_task
        why = f"{name} took {write_duration(length_s)} at the longest"
        proof = {
            True: "a second run with it cut none",
            False: "a second run with it cut some all the same",
            None: "no run has shown it",
        }[rehearsal.is_proven]
        folder = f" ({rehearsal.proof.folder})" if rehearsal.proof is not None else ""
        grace = f"The shortest grace period that cuts no task: {rehearsal.shortest_grace_s} s"
        yield f"{grace}, as {why}; {proof}{folder}."
        if longest.overhead_s >= _NOTABLE_S:
            yield f"A worker took up to {write_duration(longest.overhead_s)} to end after its last task."


def markdown(rehearsal: Rehearsal) -> str:
    """Return the same as Markdown, for a page or a pull request."""
    lines = [f"# What a deploy of {rehearsal.name} does", ""]
    for run in rehearsal.runs:
        lines += [f"## {run.title}: {run.verdict.value}", ""]
        for heads, rows in _tables(run):
            lines += [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
            lines += [f"| {' | '.join(row)} |" for row in rows] + [""]
        lines += [f"- {printable(line)}" for line in lines_of(run)] + [""]
    lines += [printable(line) for line in conclusions(rehearsal)]
    return "\n".join([*lines, "", f"Verdict: {rehearsal.verdict.value}", ""])
