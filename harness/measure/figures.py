"""The figures of one leg of a load test, and what they say: is it valid, is the load sustained, what is the limit?

Three questions, in this order. Was the load what it should have been (`invalid`)? If not, nothing is known of the
system under test. Did the system keep up with it (`overload`)? And if not, what held it up (`bottleneck`)?
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.errors import UsageError
from harness.measure.durations import parse_duration_s, write_duration
from harness.measure.stages import Stage, Summary
from harness.records.values import Json

_LATEST_S = 0.010
_LATEST_SHARE = 0.10
_MOST_CPU = 0.80
_LEAST_SENT = 0.99
_LEAST_COMPLETED = 0.98
_PATIENCE_S = 0.25
_FEWEST = 5
_STOLEN = 0.02
_ROBBED = 0.15
_BUSY = 0.80
_NOTHING = Summary(count=0, mean_s=0.0, p50_s=0.0, p95_s=0.0, p99_s=0.0, max_s=0.0)
_OBJECTIVE = re.compile(r"(?P<stage>\w+):(?P<stat>\w+)(?P<than><=?)(?P<limit>[^<=]+)")
_STATS = ("p50", "p95", "p99", "max", "mean")


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One leg in figures."""

    rate: float
    """Arrivals per second that were planned for the window, on average; 0 in a closed loop, which has no plan."""
    duration_s: float
    """Of the window that was measured, in seconds; the warm-up is not in it."""
    workers: int
    processes: int
    """How many tasks all workers together run at once."""
    offered: int
    """Arrivals that were due in the window. One arrival is one step of a scenario, which may send several tasks."""
    dropped: int
    """Of those, how many no sender was free for; all others were sent."""
    tasks: int
    """Tasks that were due in the window, whoever sent them."""
    completed: int
    """Tasks that came to their end in the window."""
    backlog_begin: int
    """Tasks that the broker had taken and that had not ended, when the window began."""
    backlog_end: int
    """The same when it ended."""
    stages: Mapping[Stage, Summary]
    """Of the tasks that were due in the window."""
    lateness_p99_s: float
    """Of the generator itself: from when an arrival was due until it was handed to a sender."""
    generator_cpu: float
    """How much of one core the busiest generator took, from 0 to 1."""
    stolen: float = 0.0
    """How much of the processor time of the generator's machine its host gave to others, from 0 to 1, where the machine
    is a virtual one that is told (Linux's steal time)."""
    is_open: bool = True
    """Whether arrivals came by a plan (open loop), or each when the one before it was done (closed loop)."""

    @property
    def completed_per_s(self) -> float:
        """Tasks that ended, per second."""
        return self.completed / self.duration_s if self.duration_s else 0.0

    def of(self, stage: Stage) -> Summary:
        """The durations of one stage; all zero if no task passed it."""
        return self.stages.get(stage, _NOTHING)

    @property
    def busy(self) -> float:
        """How much of their time the pool's processes spent on tasks, running them and storing their results.

        Each task took the mean of an execution as often as tasks were executed on average, so that tasks that are
        executed twice count twice. Zero where there is no process or nothing ended.
        """
        if not self.processes:
            return 0.0
        return self.completed_per_s * (self.per_task_s(Stage.RUN) + self.per_task_s(Stage.STORE)) / self.processes

    @property
    def theft(self) -> str:
        """What the host took from the generator's machine, as a clause; empty if that was next to nothing."""
        if self.stolen < _STOLEN:
            return ""
        return f"its machine's host took {self.stolen:.0%} of the processor time (steal)"

    def per_task_s(self, stage: Stage) -> float:
        """Seconds that a task spent in a stage on average, over all its executions."""
        ended = self.of(Stage.E2E).count
        return self.of(stage).mean_s * (self.of(stage).count / ended if ended else 1.0)

    def to_json(self) -> dict[str, Json]:
        """As it stands in load.json."""
        return dict(vars(self)) | {"stages": {stage.value: summary.to_json() for stage, summary in self.stages.items()}}

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> "Figures":
        """The figures that `to_json` wrote. Raises ValueError, TypeError or KeyError on anything else."""
        stages = {Stage(name): Summary(**summary) for name, summary in value["stages"].items()}
        return cls(**{**value, "stages": stages})


@dataclass(frozen=True, kw_only=True)
class Objective:
    """How long a stage may take."""

    stage: Stage
    stat: str
    """What of the stage's durations: p50, p95, p99, max or mean."""
    limit_s: float
    or_equal: bool = False
    """Whether the limit itself is still good."""

    @classmethod
    def parse(cls, text: str) -> "Objective":
        """The objective in ``e2e:p99<500ms``: a stage, what of its durations, and the limit. Raises UsageError."""
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
        """As people read it, such as ``e2e p99 < 500 ms``."""
        return f"{self.stage} {self.stat} {'<=' if self.or_equal else '<'} {write_duration(self.limit_s)}"

    def figure_s(self, figures: Figures) -> float | None:
        """What it was, in seconds; None if no task passed the stage."""
        summary = figures.of(self.stage)
        return getattr(summary, f"{self.stat}_s") if summary.count else None

    def holds(self, figures: Figures) -> bool | None:
        """Whether it was met; None if no task passed the stage, so that nobody can say."""
        figure_s = self.figure_s(figures)
        if figure_s is None:
            return None
        return figure_s <= self.limit_s if self.or_equal else figure_s < self.limit_s


def invalid(figures: Figures) -> list[str]:
    """Why the leg says nothing about the system under test: its generator did not make the load that was asked for.

    One sentence for each reason; an empty list for a valid leg.
    """
    return [*strained(figures), *short(figures)]


def strained(figures: Figures) -> list[str]:
    """Why the figures are in part those of the generator, which had not enough of its machine; a sentence each.

    The limits are those of this harness, measured with its own generator: at 500 arrivals a second its lateness had a
    p99 of 3 ms. Lateness is in every latency, because that counts from the time that was planned, hence the limit of a
    tenth of it. So it makes figures worse, and never better. A closed loop plans nothing that could be late.
    """
    reasons = []
    if figures.generator_cpu > _MOST_CPU:
        reasons.append(
            f"the generator took {figures.generator_cpu:.0%} of a core, more than {_MOST_CPU:.0%}: use more processes."
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
    """Why the load was less than what was asked for; a sentence each.

    At 500 arrivals a second this harness's generator sent 99.5 % of them. What should have been due is compared as
    well, with room for four standard deviations of Poisson arrivals: one of several generators that is silent plans
    nothing, and so misses nothing. A closed loop leaves nothing out.
    """
    if not figures.is_open:
        return []
    if not figures.offered:
        return ["no arrival was due in the measured window: nothing was measured."]
    reasons = []
    sent = (figures.offered - figures.dropped) / figures.offered
    if sent < _LEAST_SENT:
        reasons.append(
            f"the generator sent {sent:.1%} of the {figures.offered:,} arrivals that were due, less than "
            f"{_LEAST_SENT:.0%}: no sender was free for {figures.dropped:,} of them."
        )
    planned = figures.rate * figures.duration_s
    if figures.offered < _LEAST_SENT * planned - 4 * math.sqrt(planned):
        reasons.append(f"only {figures.offered:,} arrivals were due where {planned:,.0f} were planned.")
    return reasons


def overload(figures: Figures, objectives: Sequence[Objective] = ()) -> list[str]:
    """Why the system under test does not sustain the load; an empty list if it does. Ask `invalid` first.

    One sentence for each reason: it completed less than was sent, its backlog grew, or it missed an objective.

    A shortfall or growth counts if it is beyond what chance makes of a system that keeps up, the largest of: five
    tasks; 2 % of those that were due; as many as are due in a quarter of a second, for which a busy machine of two
    cores may hold everything up just as the window ends; and the square root of those that were due, by which
    Poisson arrivals vary. So a window of ten seconds at 500/s shows 2.5 % too much, and one at 10/s only 10 %.
    Tasks that the pool has room for are not waiting: they may be more at the end, when tasks take longer than the
    warm-up.
    """
    if figures.offered > figures.dropped and not figures.tasks:
        return [f"no task was sent at {figures.offered - figures.dropped:,} arrivals."]
    reasons = []
    tasks, completed = figures.tasks, figures.completed
    per_s = tasks / figures.duration_s if figures.duration_s else 0.0
    room = max(_FEWEST, (1 - _LEAST_COMPLETED) * tasks, _PATIENCE_S * per_s, math.sqrt(tasks))
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
    """Why a load was not sustained, a sentence each, and whether that is known of the system under test.

    An empty list if it was. A generator that had a hard time makes figures worse, and never better: what was sustained
    all the same, is; and what was not, may have been the generator's doing, or that of the host (`taken_by_host`).
    """
    missed = overload(figures, objectives)
    reasons = invalid(figures) or taken_by_host(figures) if missed else short(figures)
    return reasons or missed, not reasons


def taken_by_host(figures: Figures) -> list[str]:
    """Why a load that the generator's own machine did not sustain may have failed by the machine's host alone.

    A sentence, or none. The limit is this harness's own: on a virtual machine of two cores, a stack sustained the same
    rates while the host took 10 % of the processor time as while it took next to nothing, and none of them while it
    took 45 %.
    """
    if figures.stolen < _ROBBED:
        return []
    return [f"{figures.theft}, at which nobody can say what the system under test sustains."]


class Part(StrEnum):
    """What can be the limit of a load."""

    GENERATOR = "generator"
    PUBLISH = "publish"
    QUEUE = "queue"
    RUN = "run"
    STORE = "store"


@dataclass(frozen=True, kw_only=True)
class Bottleneck:
    """What held a load up."""

    what: Part
    sentence: str
    """With the figure that shows it."""

    def to_json(self) -> dict[str, Json]:
        """As it stands in load.json."""
        return {"what": self.what.value, "sentence": self.sentence}


def bottleneck(figures: Figures) -> Bottleneck:
    """What was nearest to its limit; of a leg that is not overloaded, what would be the first to be.

    A pool that is busy for 80 % of its time is full: between two tasks a process waits for its parent to hand it the
    next one. Then the larger part of its time decides between running and storing. A pool with time to spare is not
    what tasks wait for: what takes more than half of the time from end to end is the limit, be that publishing, or
    running and storing; and if none does, they wait between the broker and the pool.
    """
    if reasons := invalid(figures):
        return Bottleneck(what=Part.GENERATOR, sentence=f"The generator is the limit: {reasons[0]}")
    run_s, store_s = figures.per_task_s(Stage.RUN), figures.per_task_s(Stage.STORE)
    working, work_s, work = (
        (Part.STORE, store_s, "storing results") if store_s > run_s else (Part.RUN, run_s, "running tasks")
    )
    pool = f"the {figures.processes} pool processes were busy {min(figures.busy, 1):.0%} of the time"
    if figures.busy >= _BUSY:
        share = work_s / (run_s + store_s)
        said = f"The limit is {work}: {pool}, {share:.0%} of that with it, {write_duration(work_s)} a task."
        return Bottleneck(what=working, sentence=said)
    e2e_s, publish_s, queue_s = (figures.of(stage).p99_s for stage in (Stage.E2E, Stage.PUBLISH, Stage.QUEUE))
    if publish_s > e2e_s / 2:
        said = f"The limit is publishing: its p99 was {write_duration(publish_s)} of {write_duration(e2e_s)} end to end"
        return Bottleneck(what=Part.PUBLISH, sentence=f"{said}, and {pool}.")
    if run_s + store_s > e2e_s / 2:
        said = f"The limit is {work}: it took {write_duration(work_s)} a task, with {write_duration(e2e_s)} end to end"
        return Bottleneck(what=working, sentence=f"{said} (p99), though {pool}.")
    said = (
        f"The limit is the way from the broker to the pool: {pool}, and tasks waited {write_duration(queue_s)} for them"
    )
    return Bottleneck(what=Part.QUEUE, sentence=f"{said} (p99).")
