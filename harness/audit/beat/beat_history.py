"""The history of beat: its starts, its wakes, and the ticks that it sent. All times are by its clock."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from harness.records.event import Woke
from harness.records.values import Json

_LEAST_SLEEP_S = 0.001
"""The least pause, in seconds, that proves that beat slept. The end of a wake is a sum of floats, and a float of
today's Unix time has a resolution of a quarter of a microsecond. A smaller value would take a rounding error for a
pause; a larger one would take beat for awake in its shortest pauses."""

Rules = Mapping[str, Mapping[str, Json]]
"""The rule of each entry of a schedule, by its name."""


@dataclass(frozen=True, kw_only=True)
class Wake:
    """One wake of beat: it checked what is due, and planned the next check."""

    at: float
    end: float
    next: float
    planned_s: float | None = None
    """Seconds that it took to plan all entries; None if it did not plan."""

    @classmethod
    def of(cls, line: Woke) -> "Wake":
        """Return the wake that a line of beat's journal tells of."""
        at, planned_s = float(line["at"]), line.get("planned_s")
        return cls(
            at=at,
            end=at + float(line["took_s"]),
            next=float(line["next"]),
            planned_s=None if planned_s is None else float(planned_s),
        )

    @property
    def slept(self) -> bool:
        """True if nothing was left to do, so that beat slept."""
        return self.next > self.end + _LEAST_SLEEP_S


@dataclass(frozen=True, kw_only=True, eq=False)
class Tick:
    """One task that beat sent."""

    entry: str
    at: float
    wake: Wake
    start: int
    """The number of the start of beat that sent it."""
    period: int
    """The number of the schedule in force, among those of this start."""
    following: tuple[float, float] | None
    """The earliest and the latest time of the next tick by the schedule itself; None if it was not journaled."""


@dataclass(frozen=True, kw_only=True)
class Unsent:
    """One failed send of an entry."""

    entry: str
    at: float
    reason: str


@dataclass(frozen=True, kw_only=True)
class Shadowed:
    """A periodic task that another one of the same name replaced."""

    entry: str
    lost: str
    kept: str
    named: bool
    """True if the app gave both of them this name."""


@dataclass(frozen=True, kw_only=True)
class Period:
    """A time span in which the schedule of a process did not change."""

    rules: Rules
    begin: float
    end: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Start:
    """One process of beat, or one beat in a worker."""

    number: int
    node: str
    periods: Sequence[Period]
    """The periods of this start, in order; at least one."""
    ready_at: float | None
    """The time when it was ready, by beat's clock; None if it never was."""
    wakes: Sequence[Wake]
    ticks: Sequence[Tick]
    unsent: int
    """Number of sends that the broker did not accept, as far as is known."""
    failures: Sequence[Unsent] = ()
    shadowed: Sequence[Shadowed] = ()
    error: str | None = None
    """The error that ended it; None if there was none."""
    is_embedded: bool
    silent_s: float | None
    """Seconds for which the worker that it lived in took tasks after beat's next wake was due; None if it did not."""

    @property
    def begin(self) -> float:
        """The time when it was ready; 0 if it never was."""
        return self.ready_at or 0.0

    @cached_property
    def end(self) -> float:
        """The last time at which it had certainly nothing left to send."""
        return max((wake.at for wake in self.wakes if wake.slept), default=self.begin)

    @cached_property
    def busy(self) -> "Spans":
        """The spans in which it was awake, or should have been."""
        return Spans(self._busy())

    def _busy(self) -> Iterator[tuple[float, float]]:
        """Yield the span from each time at which it should have woken until it slept again."""
        awake_since, next_at = None, self.begin
        for wake in self.wakes:
            if awake_since is None:
                awake_since = min(next_at, wake.at)
            next_at = wake.next
            if wake.slept:
                yield awake_since, wake.end
                awake_since = None

    def sent(self) -> Iterator[tuple[Period, str, list[Tick]]]:
        """Yield the ticks of each entry under each schedule."""
        of: dict[tuple[int, str], list[Tick]] = {}
        for tick in self.ticks:
            of.setdefault((tick.period, tick.entry), []).append(tick)
        for (number, entry), ticks in of.items():
            yield self.periods[number], entry, ticks

    def had(self, entry: str) -> Iterator[tuple[Mapping[str, Json], float, float]]:
        """Yield each rule that it had for an entry, with the span in which it certainly had it without a break."""
        last: Mapping[str, Json] | None = None
        begin = end = 0.0
        for period in self.periods:
            rule = period.rules.get(entry)
            if rule != last:
                if last is not None:
                    yield last, begin, end
                last, begin = rule, period.begin
            end = max(begin, period.end)
        if last is not None:
            yield last, begin, end


class Spans:
    """Disjoint time spans, in order."""

    def __init__(self, spans: Iterable[tuple[float, float]]) -> None:
        """Merge spans that touch or overlap."""
        self.begins: list[float] = []
        self.ends: list[float] = []
        for begin, end in sorted(spans):
            if self.ends and begin <= self.ends[-1]:
                self.ends[-1] = max(self.ends[-1], end)
            else:
                self.begins.append(begin)
                self.ends.append(end)
        lengths = (end - begin for begin, end in self)
        self._before_s = list(accumulate(lengths, initial=0.0))

    def __iter__(self) -> Iterator[tuple[float, float]]:
        """Yield begin and end of each, in order."""
        return zip(self.begins, self.ends, strict=True)

    def around(self, t: float) -> tuple[float, float] | None:
        """Return the span that contains a time; None if there is none."""
        last = bisect_right(self.begins, t) - 1
        return (self.begins[last], self.ends[last]) if last >= 0 and t <= self.ends[last] else None

    def length_s(self, begin: float, end: float) -> float:
        """Return the seconds between two times that the spans cover."""
        return self._until_s(end) - self._until_s(begin)

    def _until_s(self, t: float) -> float:
        count = bisect_right(self.begins, t)
        return self._before_s[count] - (max(0.0, self.ends[count - 1] - t) if count else 0.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Beats:
    """Several starts of beat, taken together."""

    starts: Sequence[Start]

    @cached_property
    def there(self) -> Spans:
        """The spans in which at least one ran, from ready to the last time that it had nothing left to send."""
        return Spans((start.begin, start.end) for start in self.starts)

    @cached_property
    def longest_wake_s(self) -> float:
        """The longest time that one of them ever took to check and to send what was due, in seconds."""
        return max((wake.end - wake.at for start in self.starts for wake in start.wakes), default=0.0)
