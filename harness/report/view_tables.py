"""The tables of a view, from a run's journals and effects: timeline, nodes, ticks, and the lives of the tasks."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from harness.audit.evidence_database import Database
from harness.audit.json_lines import LineFiles
from harness.audit.run_folder import RunFolder
from harness.measure.stages import Stage, Summary
from harness.records.journal import TIME_BOUNDS
from harness.report.lives import Lives, Process

LATENCY_BARS = 5
"""The bars of the distribution of latencies for each power of ten."""
_MOST_BINS = 120
"""The most points of a line over time. A plot is some hundred pixels wide; more points are only more bytes."""
_LEAST_BIN_S = 0.05
_LONG_CHARS = 300
"""The most characters of a text from a task. More would make one text the most of a page; the journal has all."""
_MOST_FOLLOWS = 200_000
_MOST_TRACEBACKS = 50
_TRACEBACK_CHARS = 6_000
_MOST_MARKS = 20_000
"""The most events of nodes. A worker that runs each task in a process of its own could write one for each task."""
_MOST_TICKS = 200_000
_MOST_SPANS = 5_000
_OUTCOMES = (Stage.PUBLISH, Stage.QUEUE, Stage.RUN, Stage.E2E)


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """Figures over time, a value for each bin."""

    begin_t: float
    bin_s: float
    sent: tuple[int, ...]
    started: tuple[int, ...]
    finished: tuple[int, ...]
    failed: tuple[int, ...]
    backlog: tuple[int, ...]
    """Tasks that the broker had accepted and that had not ended, at the end of each bin."""
    stages: Mapping[Stage, tuple[tuple[float, float, float] | None, ...]]
    """The median, the 95th and the 99th percentile in seconds of the tasks that passed the stage in the bin."""

    @property
    def times(self) -> list[float]:
        """The end of each bin, Unix time in seconds."""
        return [self.begin_t + (number + 1) * self.bin_s for number in range(len(self.sent))]

    @property
    def end_t(self) -> float:
        """The end of the last bin."""
        return self.begin_t + len(self.sent) * self.bin_s


@dataclass(frozen=True, kw_only=True)
class Share:
    """The work of one worker."""

    node: str
    starts: int
    failures: int
    processes: int


@dataclass(frozen=True, kw_only=True)
class Mark:
    """An event of a node."""

    t: float
    kind: str
    text: str


@dataclass(frozen=True, kw_only=True)
class NodeLife:
    """The life of a node: when it was up, and what happened to it."""

    node: str
    marks: tuple[Mark, ...]
    heard: tuple[float, ...]
    """The times of the last journal lines of its processes."""

    @property
    def last_t(self) -> float:
        """The time of its last journal line."""
        return max(self.heard)

    @property
    def spans(self) -> list[tuple[float, float, bool]]:
        """Each time that it was up: begin, end, and True if it has said that it ends."""
        spans: list[tuple[float, float, bool]] = []
        ups = [mark.t for mark in self.marks if mark.kind == "up"]
        for begin_t, next_t in pairwise([*ups, math.inf]):
            down = next((mark.t for mark in self.marks if mark.kind == "down" and begin_t <= mark.t < next_t), None)
            # One that died without a word is drawn until the last that was heard of it.
            heard = max((t for t in self.heard if begin_t <= t < next_t), default=begin_t)
            spans.append((begin_t, heard if down is None else down, down is not None))
        return spans


@dataclass(frozen=True, kw_only=True)
class Tables:
    """The tables of what the journals and the effects tell."""

    lives: Lives = field(default_factory=Lives)
    timeline: Timeline | None = None
    stages: Mapping[Stage, Summary] = field(default_factory=dict)
    latency: tuple[tuple[float, float, int], ...] = ()
    """The bars of the distribution from due to the first success: from, to (seconds), tasks."""
    shares: tuple[Share, ...] = ()
    nodes: tuple[NodeLife, ...] = ()
    ticks: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Per entry of beat's schedule, when beat sent it, by beat's clock."""
    seconds_of_interest: tuple[tuple[float, float], ...] = ()
    notes: tuple[str, ...] = ()


def read_tables(
    database: Database, folder: RunFolder, *, named: Sequence[str], most: int, has_facts: bool = True
) -> Tables:
    """Read the tables of a view.

    Args:
        database: with the evidence and the fates of an audit.
        folder: the run folder.
        named: the tasks that findings name, which are shown whatever else is.
        most: the most tasks whose lives are shown.
        has_facts: False if the database is empty, because no task ran.
    """
    database.add_queries(Path(__file__).with_name("view.sql"))
    if not has_facts:
        database.run("view_no_facts")
    notes = _load(database, folder)
    for query in ("view_processes", "view_marks", "view_runs", "view_stages", "view_exit_text", "view_deaths"):
        database.run(query)
    database.run("view_tasks", named=list(named), most=most, long=_LONG_CHARS)
    ((begin_t, end_t),) = database.all("view_span")
    timeline = None if begin_t is None else _timeline(database, begin_t, end_t)
    return Tables(
        lives=_lives(database, begin_t or 0.0),
        timeline=timeline,
        stages=_figures(database),
        latency=tuple(
            (10 ** (bar / LATENCY_BARS), 10 ** ((bar + 1) / LATENCY_BARS), count)
            for bar, count in database.all("view_latency", bars=LATENCY_BARS)
        ),
        shares=tuple(
            Share(node=node, starts=starts, failures=failures, processes=processes)
            for node, starts, failures, processes in database.all("view_shares")
        ),
        nodes=_nodes(database),
        ticks=_ticks(database),
        seconds_of_interest=tuple(
            (float(begin), float(end)) for begin, end in database.all("view_seconds_of_interest", most=_MOST_SPANS)
        ),
        notes=notes,
    )


def _load(database: Database, folder: RunFolder) -> tuple[str, ...]:
    """Load the lines and the effects; return what of them could not be read."""
    journals = LineFiles(folder.journal, database.scratch / "view-journal")
    database.run("view_line_table")
    if journals.names:
        given = {"longest": journals.longest, "long": _LONG_CHARS, **TIME_BOUNDS}
        database.run("view_lines", files=journals.paths, **given)
    effects = LineFiles(folder.effects, database.scratch / "view-effects")
    database.run("view_no_effects")
    if effects.names:
        database.run("view_effects", files=effects.paths, longest=effects.longest)
    return tuple(f"A file is not in this view: {text}" for text in (*journals.unreadable, *effects.unreadable))


def _timeline(database: Database, begin_t: float, end_t: float) -> Timeline:
    bin_s = max(_LEAST_BIN_S, _round_up((end_t - begin_t) / _MOST_BINS))
    begin_t = math.floor(begin_t / bin_s) * bin_s
    bins = int((end_t - begin_t) / bin_s) + 1
    span = {"begin_t": begin_t, "bin_s": bin_s}
    counts: dict[str, list[int]] = {kind: [0] * bins for kind in ("intended", "started", "finished", "failed", "flow")}

    def put(kind: str, number: int, count: int) -> None:
        # An effect of rounding may reach over the ends by one.
        counts[kind][min(max(number, 0), bins - 1)] += count

    for number, kind, count, failed in database.all("view_rates", **span):
        put(kind, number, count)
        put("failed", number, failed)
    for number, change in database.all("view_flow", **span):
        put("flow", number, change)
    backlog, level = [], 0
    for change in counts["flow"]:
        level += change
        backlog.append(level)
    stages: dict[Stage, list[tuple[float, float, float] | None]] = {stage: [None] * bins for stage in _OUTCOMES}
    for stage, number, p50, p95, p99 in database.all("view_stage_bins", **span):
        stages[Stage(stage)][min(max(number, 0), bins - 1)] = (p50, p95, p99)
    return Timeline(
        begin_t=begin_t,
        bin_s=bin_s,
        sent=tuple(counts["intended"]),
        started=tuple(counts["started"]),
        finished=tuple(counts["finished"]),
        failed=tuple(counts["failed"]),
        backlog=tuple(backlog),
        stages={stage: tuple(values) for stage, values in stages.items()},
    )


def _round_up(seconds: float) -> float:
    """Return the next larger length of a bin that people can read: 1, 2 or 5, times a power of ten."""
    if seconds <= 0:
        return _LEAST_BIN_S
    power = 10.0 ** math.floor(math.log10(seconds))
    return next((step * power for step in (1, 2, 5) if step * power >= seconds), 10 * power)


def _figures(database: Database) -> dict[Stage, Summary]:
    found = {
        Stage(stage): Summary(count=count, mean_s=mean, p50_s=p50, p95_s=p95, p99_s=p99, max_s=most)
        for stage, count, mean, p50, p95, p99, most in database.all("view_stage_figures")
    }
    return {stage: found[stage] for stage in _OUTCOMES if stage in found}


def _nodes(database: Database) -> tuple[NodeLife, ...]:
    marks: defaultdict[str, list[Mark]] = defaultdict(list)
    for node, t, kind, text in database.all("view_node_marks", most=_MOST_MARKS):
        marks[node].append(Mark(t=t, kind=kind, text=text))
    return tuple(
        NodeLife(node=node, marks=tuple(marks[node]), heard=tuple(heard))
        for node, heard in sorted(database.all("view_last"))
        if marks[node]
    )


def _ticks(database: Database) -> dict[str, tuple[float, ...]]:
    ticks: defaultdict[str, list[float]] = defaultdict(list)
    for entry, at in database.all("view_ticks", most=_MOST_TICKS):
        ticks[entry].append(at)
    return {entry: tuple(times) for entry, times in ticks.items()}


def _lives(database: Database, base_t: float) -> Lives:
    lives = Lives(base_t=base_t)
    ((lives.total, lives.total_not_ok),) = database.all("view_counts")
    lives.processes = tuple(
        Process(node=node, pid=pid, role=role) for node, pid, role in database.all("view_process_rows")
    )
    for row in database.stream("view_task_rows", long=_LONG_CHARS):
        lives.add(row)
    for number, t, kind, process, text, _ in database.stream("view_events", long=_LONG_CHARS):
        lives.add_event(number, base_t if t is None else t, kind, process, text)
    lives.end()
    lives.follows = [(before, after) for before, after in database.all("view_follows", most=_MOST_FOLLOWS)]
    lives.unsent = [
        (number, task, name or "")
        for number, task, name in database.all("view_unsent", most=_MOST_FOLLOWS, long=_LONG_CHARS)
    ]
    lives.tracebacks = dict(database.all("view_tracebacks", most=_MOST_TRACEBACKS, chars=_TRACEBACK_CHARS))
    return lives
