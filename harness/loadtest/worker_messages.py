"""The messages between a Locust master and its workers. Locust carries them as objects of numbers, texts and bytes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.loadtest.arrivals import Plan
from harness.loadtest.messages import StepRange
from harness.measure.load_account import Counts
from harness.records.route import Routes
from harness.records.typed_json import Record

GO, FREEZE, FROZEN, JOURNAL, OVER = (f"harness-{name}" for name in ("go", "freeze", "frozen", "journal", "over"))
"""The names of the messages. The master sends GO, FREEZE and OVER; FREEZE and OVER have no content."""


@dataclass(frozen=True, kw_only=True)
class Go(Record):
    """The order to a generator for one leg."""

    run: str
    """The run folder's name."""
    leg: int
    """The number of the leg, over all runs, so that a late answer to an earlier order is recognized."""
    plan: Plan
    begin_t: float
    """The begin of the plan, Unix time."""
    window: tuple[float, float]
    """The begin and the end of the measured window, Unix time."""
    broker_url: str
    web_url: str | None
    scenarios: tuple[tuple[str, float], ...]
    """The names of the scenarios that take part, and their weights."""
    bases: Mapping[str, int]
    """The number of the first step, by the scenario's name."""
    seed: int
    is_open: bool
    routes: Routes = Routes()  # noqa: RUF009 - it is frozen.
    """The app's routes."""
    journal: str
    """The folder for the journal. A worker without access to it keeps its journal elsewhere, and sends it."""


@dataclass(frozen=True, kw_only=True)
class WindowCounts(Record):
    """Arrivals that were due in the measured window."""

    offered: int = 0
    dropped: int = 0


@dataclass(frozen=True, kw_only=True)
class Offer(Record):
    """The counts of one generator at the end of a leg."""

    counts: Counts = field(default_factory=Counts)
    """The counts of the run up to then."""
    window: WindowCounts = field(default_factory=WindowCounts)
    """The counts of the leg's window."""
    lateness: str | None = None
    """The generator's own delays, in the format of `Histogram.encode`."""
    cpu: float = 0.0
    """Share of one core that the generator used, from 0 to 1."""
    stolen: float = 0.0
    """Share of its machine's processor time that the host took, from 0 to 1."""
    steps: Mapping[str, StepRange] = field(default_factory=dict)
    """The steps that it sent in the leg, by the scenario's name."""
    broken: tuple[str, ...] = ()
    """The errors of the run, one sentence each."""
    until_t: float | None = None
    """The end of the leg, Unix time."""


@dataclass(frozen=True, kw_only=True)
class Frozen(Record):
    """The message that a worker has frozen: its counts are exact, and the master has its whole journal."""

    leg: int
    offer: Offer


@dataclass(frozen=True, kw_only=True)
class JournalPart(Record):
    """A new part of a worker's journal."""

    run: str
    """The run folder's name."""
    name: str
    """The name of the journal's file."""
    offset: int
    """The position of the part in the file, in bytes."""
    bytes: bytes
    """The content, compressed by zlib."""
