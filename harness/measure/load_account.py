"""The form of load.json, for its writer and its readers: the load, the figures of the stack, and the verdict.

A file of an older version may lack members that have a default here. Members that are not listed here are ignored.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Self

from harness.measure.figures import Bottleneck, Figures
from harness.measure.recovery import Recovery
from harness.measure.stages import Stage, Summary
from harness.records.typed_json import LEFT_OUT, Record
from harness.records.values import Json


@dataclass(frozen=True, kw_only=True)
class Counts(Record):
    """The counts of all generators in a run."""

    offered: int = 0
    """Arrivals that were due."""
    sent: int = 0
    """Arrivals that a sender took."""
    dropped: int = 0
    """Arrivals for which no sender was free."""
    done: int = 0
    """Steps of sent arrivals that ended without an error."""
    broken: int = 0
    """Steps of sent arrivals that raised an error."""
    accepted: int = 0
    """Tasks, or requests, that were accepted."""
    refused: int = 0
    """Tasks, or requests, that were refused."""
    unknown: int = 0
    """Tasks, or requests, of which nobody knows whether they were accepted."""

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(**{one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self)})


@dataclass(frozen=True, kw_only=True)
class Asked(Record):
    """The load that was asked for, as it was written on the command line or on Locust's page."""

    rate: str
    """Arrivals per second."""
    stages: str | None
    """Rates and durations, such as `100:30s,500:30s`, which replace the rate; None if there are none."""
    arrival: str
    """`constant` or `poisson`."""
    via: str
    """`broker` or `http`."""
    loop: str
    """`open` or `closed`."""


@dataclass(frozen=True, kw_only=True)
class Quantiles(Record):
    """The durations of one stage, in milliseconds."""

    count: int
    p50: float
    p95: float
    p99: float
    max: float


@dataclass(frozen=True, kw_only=True)
class Sample(Record):
    """The events of one second, and all counts up to its end."""

    t: float
    """The end of the second, Unix time."""
    sent: int = 0
    accepted: int = 0
    refused: int = 0
    unknown: int = 0
    ended: int = 0
    failed: int = 0
    """Tasks that ended otherwise than expected."""
    backlog: int = 0
    """Tasks that the broker has accepted and that have not ended."""
    in_per_s: float = 0.0
    """Tasks that the broker accepted in this second, per second."""
    out_per_s: float = 0.0
    """Tasks that ended in this second, per second."""
    begun_on: Mapping[str, int] = field(default_factory=dict)
    """Number of executions by worker."""
    stages: Mapping[Stage, Quantiles] = field(default_factory=dict)
    """The durations of this second, per stage that a task passed; in JSON, each other stage has an empty object."""
    up: Mapping[str, bool] | None = field(default=None, metadata=LEFT_OUT)
    """True for each worker that is up, False for each other one; None if the workers are run elsewhere."""

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
"""The sample for the time before the first second."""


@dataclass(frozen=True, kw_only=True)
class ObjectiveAccount(Record):
    """An objective, and its result."""

    text: str
    figure_s: float | None
    """The measured value in seconds; None if no task passed the stage."""
    holds: bool | None
    """True if the objective was met; None if no task passed the stage."""


@dataclass(frozen=True, kw_only=True)
class Probe(Record):
    """A row of a search's table: one probe, and its result."""

    workers: int
    rate: float
    """Arrivals per second."""
    completed_per_s: float
    e2e_p50_s: float
    e2e_p99_s: float
    backlog_growth: int
    is_valid: bool
    """True if the result is known of the system under test, False if the generator or its host may be the cause."""
    why_not: str | None
    """The reason why the rate was not sustained, in one sentence; None if it was sustained."""


@dataclass(frozen=True, kw_only=True)
class FaultAccount(Record):
    """A fault, and its result: in load.json and in faults.json."""

    text: str
    """The result in one sentence."""
    missing: str | None
    """The reason why it did not land, in one sentence; None if it landed."""
    error: str | None
    """The first error while it was injected or healed; None if there was none."""
    planned: str = ""
    """The fault, its time and its duration, as the command line takes them, such as `kill-worker@20s+5s`; empty for a
    fault of a test."""
    fault: str = ""
    """The name of the fault."""
    node: str | None = None
    """The name of the node that was broken; None if none was."""
    begun_t: float | None = field(default=None, metadata=LEFT_OUT)
    """The time when breaking it began, Unix time; None if it was not begun, and in the folder of an older version."""
    injected_t: float | None = None
    """The time when the node was seen broken, Unix time; None if it was not."""
    healing_t: float | None = field(default=None, metadata=LEFT_OUT)
    """The time when healing began, Unix time; None for a fault that is healed at once."""
    healed_t: float | None = None
    """The time when it was healed, Unix time; None if it was not."""
    overlapped: int = 0
    """Number of tasks in flight that it affected."""
    tasks: tuple[str, ...] = ()
    """The ids of the first of these tasks."""
    redelivered: int | None = field(default=None, metadata=LEFT_OUT)
    """Number of these tasks that were delivered again, for a fault that follows them; else None."""
    recovery: Recovery | None = field(default=None, metadata=LEFT_OUT)
    """The recovery; None if the fault did not land."""

    @property
    def begin_t(self) -> float | None:
        """The earliest time from which it may have been broken; None if it was not injected."""
        return None if self.injected_t is None else self.begun_t or self.injected_t


@dataclass(frozen=True, kw_only=True)
class KneeFound(Record):
    """The highest rate that a stack sustains."""

    rate: float | None
    """Arrivals per second; None if no rate was sustained."""
    above: float | None
    """The lowest rate above it that was not sustained, or that the generator could not make; None if there is none."""
    is_at_least: bool
    """True if the stack was not the limit of the search, so that it may sustain more."""
    probes: tuple[Figures, ...]
    """The figures of the search's probes, in order; the void probes are included."""
    sweep: tuple[Figures, ...]
    """The figures at shares of the knee, in order of the rate. A probe of the search is used if its rate is close."""
    bottleneck: Bottleneck | None
    """The bottleneck at the rate `above`; None if there is no such rate."""
    text: str
    """The result in a few sentences."""


@dataclass(frozen=True, kw_only=True)
class WorkersFound(Record):
    """The fewest workers that sustain a rate."""

    count: int | None
    """Number of workers; None if no number that was tried sustains the rate."""
    rate: float
    """The rate that was asked for, in arrivals per second."""
    best_per_s: float
    """The most tasks that were completed per second, with any number of workers."""
    probes: tuple[Figures, ...]
    """The figures of the search's probes, in order; the void probes are included."""
    bottleneck: Bottleneck | None
    """The bottleneck with the most workers; None if the rate was sustained."""
    text: str
    """The result in a few sentences."""


@dataclass(frozen=True, kw_only=True)
class Search(Record):
    """The result of a search: for the knee, or for the number of workers."""

    text: str
    """The result in a few sentences."""
    knee: KneeFound | None = field(default=None, metadata=LEFT_OUT)
    workers: WorkersFound | None = field(default=None, metadata=LEFT_OUT)


@dataclass(frozen=True, kw_only=True)
class LoadAccount(Record):
    """The whole content of load.json."""

    format: int = 1
    is_open: bool
    """True if arrivals follow a plan (open loop), False if each follows the end of the one before (closed loop)."""
    about: Asked | None = None
    exit_code: int
    reason: str
    """The reason for the exit code, in one sentence."""
    invalid: tuple[str, ...]
    """The reasons why the load was not as intended, one sentence each; empty for a valid load."""
    objectives: tuple[ObjectiveAccount, ...]
    bottleneck: str | None
    """The bottleneck of an overload, in one sentence; None without an overload."""
    figures: Figures | None
    """The figures of the leg that is judged; None for a search."""
    legs: tuple[Figures, ...] = ()
    """The figures of every leg, in order."""
    probes: tuple[Probe, ...]
    """The rows of a search's table, in order; empty if a leg is judged."""
    stages: Mapping[Stage, Summary]
    """The durations per stage of all tasks of the run, with those outside the measured window."""
    backlog_max: int
    """The highest backlog that was seen."""
    workers: Mapping[str, int]
    """Number of executions by worker."""
    faults: tuple[FaultAccount, ...]
    drained_s: float
    """Seconds from the end of the load until everything was at rest."""
    counts: Counts
    search: Search | None
    hdr: Mapping[Stage, str] = field(default_factory=dict)
    """The durations of `stages` as histograms, see `Histogram.encode`."""
    samples: tuple[Sample, ...] = ()
    """The samples of the run in order, about one per second."""
