"""The figures of one leg of a load test, and their evaluation.

Three questions, in this order. Was the load as intended (`invalid`)? If not, nothing is known of the system under test.
Did the system keep up with it (`overload`)? And if not, what was the limit (`bottleneck`)?
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.errors import UsageError
from harness.measure.durations import parse_duration_s, write_duration
from harness.measure.stages import Stage, Summary
from harness.records.typed_json import Record

_LATEST_S = 0.010
"""The highest p99 of the generator's lateness that is always accepted. At 500 arrivals a second, this harness's own
generator had a p99 of 3 ms. A lower limit would make loads of a busy machine invalid; a higher one would let lateness
distort short latencies."""
_LATEST_SHARE = 0.10
"""The highest p99 of the lateness, as a share of the p99 end to end, if that is more. Lateness is part of every
latency. A higher share would show the generator instead of the system under test."""
_MOST_CPU_SHARE = 0.80
"""The highest share of one core for the busiest generator. A generator that takes more is about to be late. A lower
limit would ask for more processes than are needed; a higher one would accept a generator that has no time to spare."""
_LEAST_SENT_SHARE = 0.99
"""The least share of the due arrivals that a sender took. At 500 arrivals a second, this harness's own generator sent
99.5 % of them. What was dropped is in no latency, so that a lower share would hide more of a stall."""
_PLAN_DEVIATIONS = 4
"""The tolerance for the number of due arrivals, in standard deviations of Poisson arrivals. Chance exceeds it in about
three of 100,000 legs. A smaller one would make more valid loads invalid; a larger one would hide a silent generator at
low rates."""
_LEAST_COMPLETED_SHARE = 0.98
"""The share of the due tasks whose completion is enough. A higher one would take the random variation of a system that
keeps up for an overload; a lower one would call an overload sustained that takes minutes to show."""
_STANDSTILL_S = 0.25
"""The time for which a busy machine of two cores may stop everything just as the window ends. As many tasks as are due
in it may be absent. A shorter time would call such a standstill an overload; a longer one would hide a backlog that
grows."""
_FEWEST_TASKS = 5
"""The number of tasks that may be absent at any rate. At low rates, the other tolerances are less than a few tasks, and
one slow task would be an overload. A larger number would hide more of an overload at low rates."""
_STOLEN_SHARE = 0.02
"""The least share of the processor time taken by the host that is reported. A lower one would report it in runs that it
does not affect; no verdict depends on it."""
_ROBBED_SHARE = 0.15
"""The share of the processor time taken by the host from which on a load that was not sustained shows nothing; for the
measurements see `taken_by_host`. A lower one would call more failures unknown; a higher one would blame the system
under test for its host."""
_BUSY_SHARE = 0.80
"""The share of its time from which on a pool is full: between two tasks, a process waits for its parent to give it the
next one. A higher share would miss a full pool of short tasks; a lower one would blame a pool with time to spare."""
_MAIN_SHARE = 0.5
"""The share of the p99 end to end above which a part is the limit: it outweighs the others together, as far as their
times add up."""
_NOTHING = Summary(count=0, mean_s=0.0, p50_s=0.0, p95_s=0.0, p99_s=0.0, max_s=0.0)
_OBJECTIVE = re.compile(r"(?P<stage>\w+):(?P<stat>\w+)(?P<than><=?)(?P<limit>[^<=]+)")
_STATS = ("p50", "p95", "p99", "max", "mean")


@dataclass(frozen=True, kw_only=True)
class Figures(Record):
    """The figures of one leg."""

    rate: float
    """Planned arrivals per second in the window, on average; 0 in a closed loop, which has no plan."""
    duration_s: float
    """Seconds of the measured window; the warm-up is not in it."""
    workers: int
    processes: int
    """Number of tasks that all workers together run at once."""
    offered: int
    """Arrivals due in the window. One arrival is one step of a scenario, which may send several tasks."""
    dropped: int
    """Arrivals due in the window for which no sender was free; all others were sent."""
    tasks: int
    """Tasks due in the window, regardless of the sender."""
    completed: int
    """Tasks that ended in the window."""
    backlog_begin: int
    """Tasks that the broker had accepted and that had not ended when the window began."""
    backlog_end: int
    """The same when the window ended."""
    stages: Mapping[Stage, Summary]
    """The durations per stage, of the tasks that were due in the window."""
    lateness_p99_s: float
    """The generator's own delay, from an arrival's due time until a sender got it; 99th percentile in seconds."""
    generator_cpu: float
    """Share of one core that the busiest generator used, from 0 to 1."""
    stolen: float = 0.0
    """Share of the processor time of the generator's machine that its host gave to others, from 0 to 1: Linux's steal
    time, if the machine is virtual and its host reports it."""
    is_open: bool = True
    """True if arrivals follow a plan (open loop), False if each follows the end of the one before (closed loop)."""

    @property
    def completed_per_s(self) -> float:
        """Tasks that ended in the window, per second."""
        return self.completed / self.duration_s if self.duration_s else 0.0

    def of(self, stage: Stage) -> Summary:
        """Return the durations of one stage; all zero if no task passed it."""
        return self.stages.get(stage, _NOTHING)

    @property
    def busy(self) -> float:
        """Share of their time that the pool's processes spent on tasks: running them and storing their results.

        Each ended task counts with the mean duration of an execution times the mean number of executions per task, so
        that repeated executions count too. Zero without processes or without ended tasks.
        """
        if not self.processes:
            return 0.0
        return self.completed_per_s * (self.per_task_s(Stage.RUN) + self.per_task_s(Stage.STORE)) / self.processes

    @property
    def theft(self) -> str:
        """The share of processor time that the host took from the generator's machine, as a clause; empty below 2 %."""
        if self.stolen < _STOLEN_SHARE:
            return ""
        return f"its machine's host took {self.stolen:.0%} of the processor time (steal)"

    def per_task_s(self, stage: Stage) -> float:
        """Return the seconds that a task spent in a stage on average, over all its executions."""
        ended = self.of(Stage.E2E).count
        return self.of(stage).mean_s * (self.of(stage).count / ended if ended else 1.0)


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A limit for the duration of a stage."""

    stage: Stage
    stat: str
    """The statistic of the stage's durations: p50, p95, p99, max or mean."""
    limit_s: float
    or_equal: bool = False
    """True if the limit itself is still accepted."""

    @classmethod
    def parse(cls, text: str) -> "Objective":
        """Parse an objective such as ``e2e:p99<500ms``: a stage, a statistic, and the limit. Raises UsageError."""
        found = _OBJECTIVE.fullmatch("".join(text.split()))
        if found is None:
            raise UsageError(f"{text!r} is no objective; write it as STAGE:STAT<DURATION, such as e2e:p99<500ms.")
        if found["stage"] not in list(Stage):
            raise UsageError(f"{found['stage']!r} in {text!r} is no stage; there are {', '.join(Stage)}.")
        if found["stat"] not in _STATS:
            raise UsageError(f"{found['stat']!r} in {text!r} is no figure of a stage; there are {', '.join(_STATS)}.")
        limit_s = parse_duration_s(found["limit"])
        if not limit_s:
            raise UsageError(f"the limit in {text!r} is zero, which nothing can reach; give one such as 500ms.")
        return cls(stage=Stage(found["stage"]), stat=found["stat"], limit_s=limit_s, or_equal=found["than"] == "<=")

    @property
    def text(self) -> str:
        """The objective as text, such as ``e2e p99 < 500 ms``."""
        return f"{self.stage} {self.stat} {'<=' if self.or_equal else '<'} {write_duration(self.limit_s)}"

    def figure_s(self, figures: Figures) -> float | None:
        """Return the measured value in seconds; None if no task passed the stage."""
        summary = figures.of(self.stage)
        return getattr(summary, f"{self.stat}_s") if summary.count else None

    def holds(self, figures: Figures) -> bool | None:
        """Return whether it was met; None if no task passed the stage."""
        figure_s = self.figure_s(figures)
        if figure_s is None:
            return None
        return figure_s <= self.limit_s if self.or_equal else figure_s < self.limit_s


def invalid(figures: Figures) -> list[str]:
    """Return why the leg says nothing about the system under test: the generator did not make the intended load.

    One sentence for each reason; an empty list for a valid leg.
    """
    return [*strained(figures), *short(figures)]


def strained(figures: Figures) -> list[str]:
    """Return why the generator distorted the figures, because its machine was too slow; one sentence each.

    The limits were measured with this harness's own generator: at 500 arrivals a second its lateness had a p99 of 3 ms.
    Lateness is part of every latency, because latency counts from the planned time; hence the limit of a tenth of it.
    So it makes figures worse, and never better. A closed loop plans nothing that could be late.
    """
    reasons = []
    if figures.generator_cpu > _MOST_CPU_SHARE:
        reasons.append(
            f"the generator took {figures.generator_cpu:.0%} of a core, more than {_MOST_CPU_SHARE:.0%}: "
            "use more processes."
        )
    latest_s = max(_LATEST_S, _LATEST_SHARE * figures.of(Stage.E2E).p99_s)
    if figures.is_open and figures.offered and figures.lateness_p99_s > latest_s:
        why = f", and {figures.theft}" if figures.theft else ""
        reasons.append(
            f"the generator was late: its p99 was {write_duration(figures.lateness_p99_s)}, "
            f"more than {write_duration(latest_s)}{why}."
        )
    return reasons


def short(figures: Figures) -> list[str]:
    """Return why the load was less than intended; one sentence each.

    At 500 arrivals a second this harness's generator sent 99.5 % of them. The number of due arrivals is checked against
    the plan as well, with a margin of four standard deviations of Poisson arrivals: a silent one of several generators
    plans nothing, and so drops nothing. A closed loop drops nothing.
    """
    if not figures.is_open:
        return []
    if not figures.offered:
        return ["no arrival was due in the measured window: nothing was measured."]
    reasons = []
    sent = (figures.offered - figures.dropped) / figures.offered
    if sent < _LEAST_SENT_SHARE:
        reasons.append(
            f"the generator sent {sent:.1%} of the {figures.offered:,} arrivals that were due, less than "
            f"{_LEAST_SENT_SHARE:.0%}: no sender was free for {figures.dropped:,} of them."
        )
    planned = figures.rate * figures.duration_s
    if figures.offered < _LEAST_SENT_SHARE * planned - _PLAN_DEVIATIONS * math.sqrt(planned):
        reasons.append(f"only {figures.offered:,} arrivals were due where {planned:,.0f} were planned.")
    return reasons


def overload(figures: Figures, objectives: Sequence[Objective] = ()) -> list[str]:
    """Return why the system under test does not sustain the load; an empty list if it does. Check `invalid` first.

    One sentence for each reason: it completed less than was sent, its backlog grew, or it missed an objective.

    A shortfall or growth counts if it exceeds the random variation of a system that keeps up, the largest of: five
    tasks; 2 % of those that were due; as many as are due in a quarter of a second, for which a busy machine of two
    cores may stop everything just as the window ends; and the square root of those that were due, the standard
    deviation of Poisson arrivals. So a window of ten seconds at 500/s detects an excess of 2.5 %, and one at 10/s only
    of 10 %. Tasks for which the pool has free processes do not wait: there may be more of them at the end, if tasks
    take longer than the warm-up.
    """
    if figures.offered > figures.dropped and not figures.tasks:
        return [f"no task was sent at {figures.offered - figures.dropped:,} arrivals."]
    reasons = []
    tasks, completed = figures.tasks, figures.completed
    per_s = tasks / figures.duration_s if figures.duration_s else 0.0
    room = max(_FEWEST_TASKS, (1 - _LEAST_COMPLETED_SHARE) * tasks, _STANDSTILL_S * per_s, math.sqrt(tasks))
    begun, ended = figures.backlog_begin, figures.backlog_end
    grown = max(ended - figures.processes, 0) - max(begun - figures.processes, 0)
    filling = max(ended - begun - grown, 0)
    if tasks - completed - filling > room:
        reasons.append(
            f"{completed:,} of {tasks:,} tasks ended ({completed / tasks:.1%}), at {figures.completed_per_s:.4g} "
            f"per second where {per_s:.4g} were due."
        )
    if grown > room:
        reasons.append(
            f"the backlog grew from {begun:,} to {ended:,} in {write_duration(figures.duration_s)}, "
            f"by more than {room:.0f}."
        )
    for objective in objectives:
        if objective.holds(figures) is False:
            figure_s = objective.figure_s(figures) or 0.0
            reasons.append(f"{objective.stage} {objective.stat} was {write_duration(figure_s)}: not {objective.text}.")
    return reasons


def not_sustained(figures: Figures, objectives: Sequence[Objective] = ()) -> tuple[list[str], bool]:
    """Return why a load was not sustained, one sentence each, and whether this is known of the system under test.

    An empty list if it was sustained. Trouble of the generator makes figures worse, and never better. So if the system
    kept up, only a load that was too small (`short`) is a reason. If it did not keep up, the generator (`invalid`) or
    its host (`taken_by_host`) may be the cause, and then nothing is known of the system under test.
    """
    missed = overload(figures, objectives)
    reasons = invalid(figures) or taken_by_host(figures) if missed else short(figures)
    return reasons or missed, not reasons


def taken_by_host(figures: Figures) -> list[str]:
    """Return why the host of the generator's machine may be the only cause of a load that was not sustained.

    One sentence, or none. The limit of 15 % is this harness's own: on a virtual machine of two cores, a stack sustained
    the same rates while the host took 10 % of the processor time as while it took next to nothing, and none of them
    while it took 45 %.
    """
    if figures.stolen < _ROBBED_SHARE:
        return []
    return [f"{figures.theft}, at which nobody can say what the system under test sustains."]


class Part(StrEnum):
    """A part of the system that can limit a load."""

    GENERATOR = "generator"
    PUBLISH = "publish"
    QUEUE = "queue"
    RUN = "run"
    STORE = "store"


@dataclass(frozen=True, kw_only=True)
class Bottleneck(Record):
    """The limit of a load."""

    what: Part
    sentence: str
    """The statement, with the figure that shows it."""


def bottleneck(figures: Figures) -> Bottleneck:
    """Return what was nearest to its limit; without overload, what would reach its limit first.

    If the leg is `invalid`, the generator is the limit. A pool that is busy for 80 % of its time is full: between two
    tasks a process waits for its parent to give it the next one. Then the larger of running and storing is the limit.
    If the pool has time to spare, tasks do not wait for it. Then a part that takes more than half of the p99 from end
    to end is the limit: publishing by its p99, or running and storing by their means. Otherwise tasks wait between the
    broker and the pool.
    """
    if reasons := invalid(figures):
        return Bottleneck(what=Part.GENERATOR, sentence=f"The generator is the limit: {reasons[0]}")
    run_s, store_s = figures.per_task_s(Stage.RUN), figures.per_task_s(Stage.STORE)
    working, work_s, work = (
        (Part.STORE, store_s, "storing results") if store_s > run_s else (Part.RUN, run_s, "running tasks")
    )
    pool = f"the {figures.processes} pool processes were busy {min(figures.busy, 1):.0%} of the time"
    if figures.busy >= _BUSY_SHARE:
        share = work_s / (run_s + store_s)
        said = f"The limit is {work}: {pool}, {share:.0%} of that with it, {write_duration(work_s)} a task."
        return Bottleneck(what=working, sentence=said)
    e2e_s, publish_s, queue_s = (figures.of(stage).p99_s for stage in (Stage.E2E, Stage.PUBLISH, Stage.QUEUE))
    if publish_s > _MAIN_SHARE * e2e_s:
        said = f"The limit is publishing: its p99 was {write_duration(publish_s)} of {write_duration(e2e_s)} end to end"
        return Bottleneck(what=Part.PUBLISH, sentence=f"{said}, and {pool}.")
    if run_s + store_s > _MAIN_SHARE * e2e_s:
        said = f"The limit is {work}: it took {write_duration(work_s)} a task, with {write_duration(e2e_s)} end to end"
        return Bottleneck(what=working, sentence=f"{said} (p99), though {pool}.")
    said = (
        f"The limit is the way from the broker to the pool: {pool}, and tasks waited {write_duration(queue_s)} for them"
    )
    return Bottleneck(what=Part.QUEUE, sentence=f"{said} (p99).")
