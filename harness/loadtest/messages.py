"""What the two processes of a load test tell each other, as records and as lines of JSON.

The load process gives orders, each with a number. The stack process answers each with the same number, and says other
things by itself. Here alone a line becomes a record, or a record a line.
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
from harness.records.typed_json import LEFT_OUT, Record, seen
from harness.records.values import Json

T = TypeVar("T", bound=Record)

StepRange = tuple[int, int, int]
"""Numbers of a scenario's steps: the first, the one after the last, and the distance, as `range` takes them."""


@dataclass(frozen=True, kw_only=True)
class Order(Record):
    """What to bring up."""

    modules: tuple[str, ...]
    """The modules of the scenarios; each has an instance `scenario`."""
    app_folder: Path
    root: Path
    """Where run folders are made."""
    about: Asked
    app: str | None = None
    workers: int = 1
    worker_options: tuple[str, ...] | None = None
    seed: int = 1
    options: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)
    """Per scenario's name, values of its own options."""
    via_http: bool = False
    is_open: bool = True
    broker_url: str | None = None
    """Of a broker that runs already, with workers that somebody else has started."""
    results_url: str | None = None
    objectives: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    timeout_s: float = 60.0
    """Seconds without any task ending after which waiting ends."""
    width: int = 112
    """Columns of the report."""
    is_colourful: bool = False
    command: str | None = None
    """Whose order it is, for run.json."""


# ------------------------------------------------------------------------------------------------------------ orders


@dataclass(frozen=True, kw_only=True)
class Check(Record):
    """See whether an order could be carried out, before anything is started. The answer is `Done`."""

    order: Order


@dataclass(frozen=True, kw_only=True)
class Open(Record):
    """Bring up a stack, or attach to one. The answer is `Opened`."""

    order: Order


@dataclass(frozen=True, kw_only=True)
class Expect(Record):
    """A leg begins, and is to be measured from one Unix time until another. The answer is `Done`."""

    begin_t: float
    end_t: float


@dataclass(frozen=True, kw_only=True)
class Begin(Record):
    """The first arrival of all is due at a Unix time: faults are timed from there. The answer is `Done`."""

    t: float


@dataclass(frozen=True, kw_only=True)
class LegCounts(Record):
    """What the generators know of a leg together."""

    rate: float
    """Arrivals per second that were planned for the window; 0 in a closed loop."""
    is_open: bool
    offered: int
    """Arrivals that were due in the window."""
    dropped: int
    lateness_p99_s: float
    cpu: float
    """How much of one core the busiest generator took, from 0 to 1."""
    stolen: float
    """How much of the processor time the host took, from 0 to 1."""
    until_t: float
    """When the leg was over, Unix time."""


@dataclass(frozen=True, kw_only=True)
class EndLeg(Record):
    """A leg has ended: wait until all its tasks have. The answer is `Measured`."""

    leg: LegCounts


@dataclass(frozen=True, kw_only=True)
class SetWorkers(Record):
    """Have at least so many workers. The answer is `Done`."""

    count: int


@dataclass(frozen=True, kw_only=True)
class Close(Record):
    """Nothing more is sent: settle, audit, judge, write, take down. The answer is `Closed`."""

    counts: Counts
    steps: Mapping[str, tuple[StepRange, ...]]
    """Per scenario's name, the steps that were sent."""
    broken: tuple[str, ...]
    """What went wrong in the generators."""
    leg: LegCounts | None
    """The leg that is to be judged; None for a search, and where there was none."""
    search: Search | None
    broken_off: str | None
    """Why the run has no result, in a sentence; None if it has."""


@dataclass(frozen=True, kw_only=True)
class Drop(Record):
    """Take the stack down without an account. The answer is `Done`."""


StackOrder = Check | Open | Expect | Begin | EndLeg | SetWorkers | Close | Drop
"""What the load process has the stack process do."""

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


# ------------------------------------------------------------------------------------- answers, and what else is said


@dataclass(frozen=True, kw_only=True)
class Done(Record):
    """An order was carried out, and there is nothing to tell."""


@dataclass(frozen=True, kw_only=True)
class Opened(Record):
    """A stack is up."""

    folder: Path
    """The run folder."""
    broker_url: str
    web_url: str | None
    """Of the web producer; None where tasks go to the broker."""


@dataclass(frozen=True, kw_only=True)
class Measured(Record):
    """A leg was measured."""

    figures: Figures


@dataclass(frozen=True, kw_only=True)
class Closed(Record):
    """A load test was accounted for."""

    report: str
    """For a terminal."""
    folder: Path
    """The run folder."""
    exit_code: int
    left: str | None
    """What was wrong if the stack could not be taken down."""


@dataclass(frozen=True, kw_only=True)
class Failed(Record):
    """An order could not be carried out."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Say(Record):
    """A line for whoever waits."""

    line: str


@dataclass(frozen=True, kw_only=True)
class PassedStage(Record):
    """How long tasks of one name took for a stage in the last second."""

    name: str
    stage: Stage
    durations_ms: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class EndedBadly(Record):
    """How many tasks of one name ended in the last second otherwise than expected, and how."""

    name: str
    error: str
    count: int


@dataclass(frozen=True, kw_only=True)
class Live(Record):
    """What happened in the last second."""

    sample: Sample
    passed: tuple[PassedStage, ...]
    """Every stage but publishing, which the load processes see themselves."""
    errors: tuple[EndedBadly, ...]


Answer = Done | Opened | Measured | Closed | Failed
"""What the stack process answers to an order."""
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
    """An order as it is sent."""

    number: int
    order: StackOrder

    def to_line(self) -> str:
        """A line of JSON."""
        return _line("do", _ORDERS, self.order, {"id": self.number})

    @classmethod
    def from_line(cls, line: str) -> "NumberedOrder | NumberedAnswer":
        """The order in a line; where there is a number and no order that is known, the answer that says so.

        Raises:
            RecordError: the line has no number, so that nobody waits for an answer.
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
    """An answer as it is sent."""

    number: int
    answer: Answer


Said = NumberedAnswer | Say | Live
"""What the stack process says."""


def line_of(said: Said) -> str:
    """A line of JSON."""
    if isinstance(said, NumberedAnswer):
        return _line("said", _ANSWERS, said.answer, {"id": said.number})
    return _line("said", _NEWS, said, {})


def said_in(line: str | bytes) -> Said:
    """What the stack process says in a line. Raises RecordError where it is nothing that is known."""
    value = _object(line)
    number = Numbered.from_json(value).id
    if number is None:
        return _read("said", _NEWS, value, "the stack process never says")
    return NumberedAnswer(number=number, answer=_read("said", _ANSWERS, value, "the stack process never answers"))


@dataclass(frozen=True, kw_only=True)
class Numbered(Record):
    """What orders and answers have in common."""

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
    """The record of the kind that a message names. Raises RecordError."""
    name = value.get(key)
    kind = kinds.get(name) if isinstance(name, str) else None
    if kind is None:
        raise RecordError(f"{unknown} {seen(name)}: {seen(value)}.")
    return kind.from_json(value)
