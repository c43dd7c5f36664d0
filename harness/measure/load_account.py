"""What load.json holds: the load, what the stack made of it, and the verdict. Writer and readers have this form.

A file of an older version may lack members that have a default here, and may have others that nobody reads any more.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Self

from harness.measure.figures import Bottleneck, Figures
from harness.measure.stages import Stage, Summary
from harness.records.typed_json import LEFT_OUT, Record
from harness.records.values import Json


@dataclass(frozen=True, kw_only=True)
class Counts(Record):
    """What the generators have counted in a run."""

    offered: int = 0
    """Arrivals that were due."""
    sent: int = 0
    """Of them, those that a sender took."""
    dropped: int = 0
    """Of them, those for which no sender was free."""
    done: int = 0
    """Of those that were sent, the steps that came to their end."""
    broken: int = 0
    """The others, which raised an error."""
    accepted: int = 0
    """Tasks, or requests, that were taken."""
    refused: int = 0
    unknown: int = 0
    """Those of which nobody can say whether they were taken."""

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(**{one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self)})


@dataclass(frozen=True, kw_only=True)
class Asked(Record):
    """What load was asked for, as it was written on the command line or on the page."""

    rate: str
    """Arrivals per second."""
    stages: str | None
    """Instead of the rate: rates and durations."""
    arrival: str
    via: str
    """`broker` or `http`."""
    loop: str
    """`open` or `closed`."""


@dataclass(frozen=True, kw_only=True)
class Quantiles(Record):
    """How long a stage took, in milliseconds."""

    count: int
    p50: float
    p95: float
    p99: float
    max: float


@dataclass(frozen=True, kw_only=True)
class Sample(Record):
    """What happened in one second, and all counts up to then."""

    t: float
    """Unix time."""
    sent: int = 0
    accepted: int = 0
    refused: int = 0
    unknown: int = 0
    ended: int = 0
    failed: int = 0
    """Of those that ended, the ones that ended otherwise than expected."""
    backlog: int = 0
    in_per_s: float = 0.0
    """Tasks that the broker took."""
    out_per_s: float = 0.0
    """Tasks that ended."""
    begun_on: Mapping[str, int] = field(default_factory=dict)
    """Executions by worker."""
    stages: Mapping[Stage, Quantiles] = field(default_factory=dict)
    """Of the second alone; a stage that no task passed in it is left out, and is an empty object in JSON."""
    up: Mapping[str, bool] | None = field(default=None, metadata=LEFT_OUT)
    """Which workers are up; None where they are somebody else's."""

    def to_json(self) -> dict[str, Json]:
        """Return the JSON object; `from_json` reads it back."""
        members = super().to_json()
        members["stages"] = {stage.value: members["stages"].get(stage.value, {}) for stage in Stage}
        return members

    @classmethod
    def from_json(cls, value: Json) -> Self:
        """Return the sample in a JSON object. Raises RecordError."""
        stages = value.get("stages") if isinstance(value, Mapping) else None
        if isinstance(stages, Mapping):
            value = {**value, "stages": {name: one for name, one in stages.items() if one != {}}}
        return super().from_json(value)


NOTHING_YET = Sample(t=0.0, up={})
"""Before anything was seen."""


@dataclass(frozen=True, kw_only=True)
class ObjectiveAccount(Record):
    """What became of an objective."""

    text: str
    figure_s: float | None
    """What it was, in seconds; None if no task passed the stage."""
    holds: bool | None
    """None if no task can show it."""


@dataclass(frozen=True, kw_only=True)
class Probe(Record):
    """A line of a search's table."""

    workers: int
    rate: float
    """Arrivals per second."""
    completed_per_s: float
    e2e_p50_s: float
    e2e_p99_s: float
    backlog_growth: int
    is_valid: bool
    """Whether what it says is known of the system under test."""
    why_not: str | None
    """Why the rate was not sustained, in a sentence; None if it was."""


@dataclass(frozen=True, kw_only=True)
class FaultAccount(Record):
    """What became of a fault that was planned."""

    text: str
    """All of it in a sentence."""
    missing: str | None
    """Why it did not land; None if it did."""
    error: str | None
    """What went wrong while it was injected or healed."""
    recovery_s: float | None
    """Seconds until the backlog was back where it had been; None if it was not seen to be."""
    planned: str = ""
    """As it was written on the command line, with its duration."""
    fault: str = ""
    """Its name."""
    node: str | None = None
    """What was broken."""
    injected_t: float | None = None
    """Unix time."""
    healed_t: float | None = None
    overlapped: int = 0
    """How many tasks it met in flight."""
    tasks: tuple[str, ...] = ()
    """The first of them."""
    redelivered: int | None = field(default=None, metadata=LEFT_OUT)
    """Of a worker that was killed: how many of them were delivered again."""


@dataclass(frozen=True, kw_only=True)
class KneeFound(Record):
    """The highest rate that a stack sustains."""

    rate: float | None
    """Arrivals per second, sustained in a probe; None if none was."""
    above: float | None
    """The lowest rate above it that was not sustained, or that the generator could not make; None if none was tried."""
    is_at_least: bool
    """The stack was not the limit of the search: it may well sustain more."""
    probes: tuple[Figures, ...]
    """Of the search, in order, those among them that were void."""
    sweep: tuple[Figures, ...]
    """At shares of the knee, in order of the rate; a probe of the search stands where it was near enough."""
    bottleneck: Bottleneck | None
    """What the limit was at the rate above; None if there is none."""
    text: str
    """All of it in a few sentences."""


@dataclass(frozen=True, kw_only=True)
class WorkersFound(Record):
    """The fewest workers that sustain a rate."""

    count: int | None
    """None if no number that was tried sustains it."""
    rate: float
    """Arrivals per second that were asked for."""
    best_per_s: float
    """The most tasks that were completed per second, with however many workers."""
    probes: tuple[Figures, ...]
    """In order."""
    bottleneck: Bottleneck | None
    """What the limit was with the most workers; None if the rate was sustained."""
    text: str
    """All of it in a few sentences."""


@dataclass(frozen=True, kw_only=True)
class Search(Record):
    """What a search found: one of the two."""

    text: str
    """All of it in a few sentences."""
    knee: KneeFound | None = field(default=None, metadata=LEFT_OUT)
    workers: WorkersFound | None = field(default=None, metadata=LEFT_OUT)


@dataclass(frozen=True, kw_only=True)
class LoadAccount(Record):
    """All of load.json."""

    format: int = 1
    is_open: bool
    """Whether arrivals came by a plan, or each when the one before it was done."""
    about: Asked | None = None
    exit_code: int
    reason: str
    """Why, in a sentence."""
    invalid: tuple[str, ...]
    """Why the load was not what it should have been, a sentence each."""
    objectives: tuple[ObjectiveAccount, ...]
    bottleneck: str | None
    """What held a load up that was too much, in a sentence."""
    figures: Figures | None
    """Of the leg that is judged; None for a search."""
    legs: tuple[Figures, ...] = ()
    probes: tuple[Probe, ...]
    stages: Mapping[Stage, Summary]
    """Of all tasks, from the first to the last."""
    backlog_max: int
    workers: Mapping[str, int]
    """Executions by worker."""
    faults: tuple[FaultAccount, ...]
    drained_s: float
    """Seconds from the end of the load until everything was at rest."""
    counts: Counts
    search: Search | None
    hdr: Mapping[Stage, str] = field(default_factory=dict)
    """The durations of `stages` as histograms, see `Histogram.encode`."""
    samples: tuple[Sample, ...] = ()
    """One a second."""
