"""What the journals say of beat: when it was there, when it was busy, and what it sent. All times are of its clock."""

import json
import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from pathlib import Path

from harness.evidence.journal import Tail
from harness.evidence.records import Event, Json, Kind

_LEAST_SLEEP_S = 0.001
"""Times of today have a float's last digit at a quarter of a microsecond."""


@dataclass(frozen=True, kw_only=True)
class Wake:
    """One time that beat looked for what is due, and when it meant to look again."""

    at: float
    end: float
    next: float

    @property
    def slept(self) -> bool:
        """Whether nothing was left to do."""
        return self.next > self.end + _LEAST_SLEEP_S


@dataclass(frozen=True, kw_only=True, eq=False)
class Tick:
    """One task that beat sent."""

    entry: str
    at: float
    wake: Wake
    start: int
    """Which process of beat sent it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Start:
    """One process of beat."""

    rules: Mapping[str, Mapping[str, Json]]
    """The schedule that it began with."""
    ready_at: float | None
    """None if it never was."""
    wakes: Sequence[Wake]
    ticks: Sequence[Tick]
    unsent: int
    """How many the broker never took, as far as is known."""

    @property
    def begin(self) -> float:
        """When it was ready."""
        return self.ready_at or 0.0

    @cached_property
    def end(self) -> float:
        """The last time at which it surely had nothing left to send."""
        return max((wake.at for wake in self.wakes if wake.slept), default=self.begin)

    def busy(self) -> Iterator[tuple[float, float]]:
        """From each time at which it should have woken until it slept again."""
        begin = next_at = self.begin
        is_asleep = False
        for wake in self.wakes:
            if is_asleep:
                begin = min(next_at, wake.at)
            is_asleep, next_at = wake.slept, wake.next
            if is_asleep:
                yield begin, wake.end


class Spans:
    """Stretches of time, apart from each other."""

    def __init__(self, spans: Iterable[tuple[float, float]]) -> None:
        """Those that touch become one."""
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
        """Begin and end of each, in order."""
        return zip(self.begins, self.ends, strict=True)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.begins)

    def around(self, t: float) -> tuple[float, float] | None:
        """The one that a time lies in."""
        last = bisect_right(self.begins, t) - 1
        return (self.begins[last], self.ends[last]) if last >= 0 and t <= self.ends[last] else None

    def length_s(self, begin: float, end: float) -> float:
        """How much of a time they cover."""
        return self._until_s(end) - self._until_s(begin)

    def _until_s(self, t: float) -> float:
        count = bisect_right(self.begins, t)
        return self._before_s[count] - (max(0.0, self.ends[count - 1] - t) if count else 0.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Beats:
    """Some starts of beat, taken together."""

    starts: Sequence[Start]

    @cached_property
    def there(self) -> Spans:
        """When at least one was, from ready to the last time that it had nothing left to send."""
        return Spans((start.begin, start.end) for start in self.starts)

    @cached_property
    def busy(self) -> Spans:
        """When one should have been awake or was, instead of asleep as it meant to be."""
        return Spans(span for start in self.starts for span in start.busy())

    @cached_property
    def longest_wake_s(self) -> float:
        """How long one of them ever took to look, and to send what was due."""
        return max((wake.end - wake.at for start in self.starts for wake in start.wakes), default=0.0)

    @cached_property
    def ticks(self) -> Mapping[str, Sequence[Tick]]:
        """What was sent, by its entry and in order."""
        found: defaultdict[str, list[Tick]] = defaultdict(list)
        for tick in sorted((tick for start in self.starts for tick in start.ticks), key=lambda tick: tick.at):
            found[tick.entry].append(tick)
        return found

    def started_before(self, t: float) -> float:
        """When the last one that was ready by then was."""
        return max((start.begin for start in self.starts if start.begin <= t), default=-math.inf)


def read(journal: Path) -> tuple[list[Start], list[str]]:
    """Every start of beat that wrote to a folder of journals, in order; and what is wrong with the files."""
    starts: list[Start] = []
    faults: list[str] = []
    for path in sorted(journal.glob("*.jsonl")):
        try:
            if not _is_of_beat(path):
                continue
            tail = Tail(path)
            starts.append(_start(tail.read(), len(starts)))
        except OSError as error:
            if path.name.startswith("beat"):
                faults.append(f"{path.name} cannot be read ({error.strerror})")
            continue
        except (KeyError, TypeError, ValueError) as error:
            faults.append(f"{path.name} is not what beat writes ({error!r})")
            continue
        if gaps := max(tail.missing, tail.damaged) + tail.torn:
            faults.append(f"{path.name} lacks lines ({gaps})")
    return starts, faults


def _is_of_beat(path: Path) -> bool:
    """Whether beat wrote it: it says so in its first line, and if that is spoilt, in its name."""
    with path.open("rb") as file:
        first = file.readline()
    try:
        return bool(json.loads(first)["role"] == "beat")
    except (ValueError, KeyError, TypeError):
        return path.name.startswith("beat")


@dataclass(kw_only=True)
class _Reading:
    """What was read so far of one file."""

    number: int
    rules: dict[str, dict[str, Json]] = field(default_factory=dict)
    ready_at: float | None = None
    wakes: list[Wake] = field(default_factory=list)
    ticks: list[Tick] = field(default_factory=list)
    pending: list[tuple[str, float]] = field(default_factory=list)
    """Entry and time of what was sent in a wake whose end is not told yet."""
    intended: list[str | None] = field(default_factory=list)
    accepted: set[str | None] = field(default_factory=set)

    def take(self, event: Event) -> None:
        """One line. Raises KeyError, TypeError or ValueError if beat does not write such."""
        data = event.data
        if event.kind is Kind.SETTINGS:
            # What the entry itself says of its zone wins.
            zone = {"timezone": data.get("timezone", "UTC")}
            self.rules = {str(one["entry"]): zone | dict(one) for one in data.get("schedule", ())}
        elif event.kind is Kind.READY:
            self.ready_at = float(data["at"])
        elif event.kind is Kind.ACCEPTED:
            self.accepted.add(event.task)
        elif event.kind is Kind.INTENDED and "entry" in data:
            self.pending.append((str(data["entry"]), float(data["at"])))
            self.intended.append(event.task)
        elif event.kind is Kind.WOKE:
            at = float(data["at"])
            wake = Wake(at=at, end=at + float(data["took_s"]), next=float(data["next"]))
            self.wakes.append(wake)
            self.ticks += [self._tick(entry, at, wake) for entry, at in self.pending]
            self.pending.clear()

    def done(self) -> Start:
        """All that is known of it."""
        # Of a wake that beat did not live to tell, only the ticks are known.
        untold = [self._tick(entry, at, Wake(at=at, end=at, next=at)) for entry, at in self.pending]
        # It may have ended before it could say that the last one went out.
        unsent = sum(task not in self.accepted for task in self.intended[:-1])
        ticks = [*self.ticks, *untold]
        return Start(rules=self.rules, ready_at=self.ready_at, wakes=self.wakes, ticks=ticks, unsent=unsent)

    def _tick(self, entry: str, at: float, wake: Wake) -> Tick:
        return Tick(entry=entry, at=at, wake=wake, start=self.number)


def _start(events: Iterable[Event], number: int) -> Start:
    reading = _Reading(number=number)
    for event in events:
        reading.take(event)
    return reading.done()
