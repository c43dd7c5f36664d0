"""What a Locust master and its workers tell each other; Locust carries it, as objects of numbers, texts and bytes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.loadtest.arrivals import Plan
from harness.loadtest.messages import StepRange
from harness.measure.load_account import Counts
from harness.records.typed_json import Record

GO, FREEZE, FROZEN, JOURNAL, OVER = (f"harness-{name}" for name in ("go", "freeze", "frozen", "journal", "over"))
"""How the messages are called. FREEZE and OVER hold nothing, and come from the master, as GO does."""


@dataclass(frozen=True, kw_only=True)
class Go(Record):
    """What a generator is to do in one leg."""

    run: str
    """The run folder's name."""
    leg: int
    """Counts the legs of all runs, so that an answer to an earlier order is not taken for one to a later."""
    plan: Plan
    begin_t: float
    """Unix time at which the plan begins."""
    window: tuple[float, float]
    """From when until when arrivals are measured, Unix time."""
    broker_url: str
    web_url: str | None
    scenarios: tuple[tuple[str, float], ...]
    """The names of the scenarios that take part, and their weights."""
    bases: Mapping[str, int]
    """Per scenario, the first step's number."""
    seed: int
    is_open: bool
    journal: str
    """The folder for the journal; where it is not there, the journal is kept aside and shipped to the master."""


@dataclass(frozen=True, kw_only=True)
class WindowCounts(Record):
    """Arrivals that were due in the measured window."""

    offered: int = 0
    dropped: int = 0


@dataclass(frozen=True, kw_only=True)
class Offer(Record):
    """What one generator knows at the end of a leg."""

    counts: Counts = field(default_factory=Counts)
    """Of the run up to then."""
    window: WindowCounts = field(default_factory=WindowCounts)
    """Of the leg."""
    lateness: str | None = None
    """The generator's own lateness, as `Histogram.encode` writes it."""
    cpu: float = 0.0
    """How much of one core it took, from 0 to 1."""
    stolen: float = 0.0
    """How much of its machine's processor time the host took, from 0 to 1."""
    steps: Mapping[str, StepRange] = field(default_factory=dict)
    """Per scenario's name, the steps that it sent in the leg."""
    broken: tuple[str, ...] = ()
    """What went wrong in the run, a sentence each."""
    until_t: float | None = None
    """When the leg was over, Unix time."""


@dataclass(frozen=True, kw_only=True)
class Frozen(Record):
    """A worker has frozen: its counts are exact, and the master has all of its journal."""

    leg: int
    offer: Offer


@dataclass(frozen=True, kw_only=True)
class JournalPart(Record):
    """What a worker's journal has gained."""

    run: str
    """The run folder's name."""
    name: str
    """Of the journal's file."""
    offset: int
    """Where in the file it belongs, in bytes."""
    bytes: bytes
    """Compressed by zlib."""
