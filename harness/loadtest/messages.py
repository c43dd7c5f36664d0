"""The messages between the two processes of a load test, as records and as lines of JSON.

The load process gives orders, each with a number. The stack process answers each order with the same number. It also
sends messages that are no answers. Only this module converts lines to records and records to lines.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from harness.errors import RecordError
from harness.measure.figures import Figures
from harness.measure.load_account import Asked, Counts, Sample, Search
from harness.measure.stages import Stage
from harness.records.check import Check as RunCheck
from harness.records.route import Routes
from harness.records.typed_json import LEFT_OUT, Record, seen
from harness.records.values import Json

T = TypeVar("T", bound=Record)

StepRange = tuple[int, int, int]
"""A range of a scenario's step numbers: the first, the one after the last, and the distance, as `range` takes them."""


@dataclass(frozen=True, kw_only=True)
class Order(Record):
    """The description of a load test's stack, or of the broker to attach to."""

    modules: tuple[str, ...]
    """The modules of the scenarios; each has an instance `scenario`."""
    app_folder: Path
    """The folder that the scenarios are imported from, and the app."""
    root: Path
    """The folder in which run folders are created."""
    about: Asked
    project: Path | None = None
    """The folder whose settings hold; None for `app_folder`."""
    app: str | None = None
    workers: int | None = None
    """The number of Celery workers; None for what the settings say, or one."""
    worker_options: tuple[str, ...] | None = None
    seed: int = 1
    options: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)
    """The values of each scenario's own options, by the scenario's name."""
    via_http: bool = False
    is_open: bool = True
    broker_url: str | None = None
    """The URL of a broker that already runs, with workers that the harness did not start."""
    results_url: str | None = None
    objectives: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    timeout_s: float = 60.0
    """The longest wait for the next task to end, in seconds."""
    width: int = 112
    """The width of the report in columns."""
    is_colourful: bool = False
    command: str | None = None
    """The command line of the load test, for run.json."""


# ------------------------------------------------------------------------------------------------------------ orders


@dataclass(frozen=True, kw_only=True)
class Check(Record):
    """Check whether an order can be carried out, without starting anything. The answer is `Done`."""

    order: Order


@dataclass(frozen=True, kw_only=True)
class Open(Record):
    """Bring up a stack, or attach to one. The answer is `Opened`."""

    order: Order


@dataclass(frozen=True, kw_only=True)
class Expect(Record):
    """Measure the leg that begins, from one Unix time until another. The answer is `Done`."""

    begin_t: float
    end_t: float


@dataclass(frozen=True, kw_only=True)
class Begin(Record):
    """Time the faults from this Unix time, at which the first arrival of the run is due. The answer is `Done`."""

    t: float


@dataclass(frozen=True, kw_only=True)
class LegCounts(Record):
    """The counts of a leg from all generators."""

    rate: float
    """Planned arrivals per second in the window; 0 in a closed loop."""
    is_open: bool
    offered: int
    """Arrivals due in the window."""
    dropped: int
    lateness_p99_s: float
    cpu: float
    """Share of one core that the busiest generator used, from 0 to 1."""
    stolen: float
    """Share of the processor time that the host took, from 0 to 1."""
    until_t: float
    """The end of the leg, Unix time."""


@dataclass(frozen=True, kw_only=True)
class EndLeg(Record):
    """Wait until all tasks of a leg have ended, and measure the leg. The answer is `Measured`."""

    leg: LegCounts


@dataclass(frozen=True, kw_only=True)
class SetWorkers(Record):
    """Start workers until there are at least this many. The answer is `Done`."""

    count: int


@dataclass(frozen=True, kw_only=True)
class Close(Record):
    """Settle, audit and judge the run, write its account, and take the stack down. The answer is `Closed`."""

    counts: Counts
    steps: Mapping[str, tuple[StepRange, ...]]
    """The steps that were sent, by the scenario's name."""
    broken: tuple[str, ...]
    """The errors of the generators."""
    leg: LegCounts | None
    """The leg to judge; None for a search, and for a run without a leg."""
    search: Search | None
    broken_off: str | None
    """The reason why the run has no result, in one sentence; None if it has one."""


@dataclass(frozen=True, kw_only=True)
class Drop(Record):
    """Take the stack down without an account. The answer is `Done`."""


StackOrder = Check | Open | Expect | Begin | EndLeg | SetWorkers | Close | Drop
"""An order of the load process to the stack process."""

_ORDERS: Mapping[str, type[StackOrder]] = {
    "check": Check,
    "open": Open,
    "expect": Expect,
    "begin": Begin,
    "leg": EndLeg,
    "workers": SetWorkers,
    "close": Close,
    "drop": Drop,
}


# --------------------------------------------------------------------------------------- answers, and other messages


@dataclass(frozen=True, kw_only=True)
class Done(Record):
    """The answer that an order was carried out, without a result."""


@dataclass(frozen=True, kw_only=True)
class Opened(Record):
    """The answer that a stack is up, or that the broker is attached."""

    folder: Path
    """The run folder."""
    broker_url: str
    web_url: str | None
    """The URL of the web producer; None if tasks go directly to the broker."""
    routes: Routes = Routes()  # noqa: RUF009 - it is frozen.
    """The app's routes."""


@dataclass(frozen=True, kw_only=True)
class Measured(Record):
    """The answer with the figures of a leg."""

    figures: Figures


@dataclass(frozen=True, kw_only=True)
class Closed(Record):
    """The answer with the account of a load test."""

    report: str
    """The report for a terminal."""
    folder: Path
    """The run folder."""
    exit_code: int
    left: str | None
    """The error if the stack could not be taken down completely; None if it was."""
    checks: tuple[RunCheck, ...] = ()
    """The checks of the run, for CI systems."""
    summary: str = ""
    """The report as Markdown."""


@dataclass(frozen=True, kw_only=True)
class Failed(Record):
    """The answer that an order could not be carried out."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Say(Record):
    """A line for the user."""

    line: str


@dataclass(frozen=True, kw_only=True)
class PassedStage(Record):
    """The durations of one stage for the tasks of one name, in the last second."""

    name: str
    stage: Stage
    durations_ms: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class EndedBadly(Record):
    """The number of tasks of one name that ended with the same unexpected error in the last second."""

    name: str
    error: str
    count: int


@dataclass(frozen=True, kw_only=True)
class Live(Record):
    """The events of the last second, for display."""

    sample: Sample
    passed: tuple[PassedStage, ...]
    """The stages except publishing, which the load processes measure themselves."""
    errors: tuple[EndedBadly, ...]


Answer = Done | Opened | Measured | Closed | Failed
"""An answer of the stack process to an order."""
_ANSWERS: Mapping[str, type[Answer]] = {
    "done": Done,
    "opened": Opened,
    "measured": Measured,
    "closed": Closed,
    "error": Failed,
}
_NEWS: Mapping[str, type[Say | Live]] = {"say": Say, "live": Live}


# -------------------------------------------------------------------------------------------------------------- lines


@dataclass(frozen=True, kw_only=True)
class NumberedOrder:
    """An order with its number, as it is sent."""

    number: int
    order: StackOrder

    def to_line(self) -> str:
        """Return the order as a line of JSON."""
        return _line("do", _ORDERS, self.order, {"id": self.number})

    @classmethod
    def from_line(cls, line: str) -> "NumberedOrder | NumberedAnswer":
        """Return the order in a line. If the line has a number but no valid order, return an answer with the error.

        Raises:
            RecordError: the line is no JSON or has no number, so it cannot be answered.
        """
        value = _object(line)
        number = Numbered.from_json(value).id
        if number is None:
            raise RecordError(f"an order has no `id`: {seen(line)}.")
        try:
            return cls(number=number, order=_read("do", _ORDERS, value, "the stack process knows no order"))
        except RecordError as error:
            return NumberedAnswer(number=number, answer=Failed(text=str(error)))


@dataclass(frozen=True, kw_only=True)
class NumberedAnswer:
    """An answer with the number of its order, as it is sent."""

    number: int
    answer: Answer


Said = NumberedAnswer | Say | Live
"""A message of the stack process."""


def line_of(said: Said) -> str:
    """Return a message of the stack process as a line of JSON."""
    if isinstance(said, NumberedAnswer):
        return _line("said", _ANSWERS, said.answer, {"id": said.number})
    return _line("said", _NEWS, said, {})


def said_in(line: str | bytes) -> Said:
    """Return the stack process's message in a line. Raises RecordError if the line has no known message."""
    value = _object(line)
    number = Numbered.from_json(value).id
    if number is None:
        return _read("said", _NEWS, value, "the stack process never says")
    return NumberedAnswer(number=number, answer=_read("said", _ANSWERS, value, "the stack process never answers"))


@dataclass(frozen=True, kw_only=True)
class Numbered(Record):
    """The common part of orders and answers."""

    id: int | None = field(default=None, metadata=LEFT_OUT)


def _line(key: str, kinds: Mapping[str, type[Record]], record: Record, more: Mapping[str, Json]) -> str:
    (name,) = (name for name, kind in kinds.items() if type(record) is kind)
    return json.dumps({key: name, **more, **record.to_json()}) + "\n"


def _object(line: str | bytes) -> Json:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"a message of the load test is no JSON: {seen(line)}.") from error


def _read(key: str, kinds: Mapping[str, type[T]], value: Mapping[str, Json], unknown: str) -> T:
    """Return the record of the kind that a message names. Raises RecordError."""
    name = value.get(key)
    kind = kinds.get(name) if isinstance(name, str) else None
    if kind is None:
        raise RecordError(f"{unknown} {seen(name)}: {seen(value)}.")
    return kind.from_json(value)
