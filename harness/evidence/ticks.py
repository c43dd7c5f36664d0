"""The ticks of beat: was each one sent, once, and at its time? A pure function of a run's journal.

All times are those of beat's own clock, which need not be the real one: what is judged is the schedule, and Celery
lives by the clock that it sees. The times of a crontab entry come from cronsim, which shares no code with Celery.
"""

import json
import math
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cached_property
from itertools import pairwise, takewhile
from pathlib import Path
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from harness.evidence.journal import Tail
from harness.evidence.records import Event, Finding, Json, Kind, Verdict

RULE = (
    "An entry whose minute or hour begins with * ticks at every such time as it passes, also in an hour that comes "
    "twice, and at none that is skipped; any other ticks once: at the first of two times of the same name, and right "
    "after a gap that its time falls into (the rule of Debian's cron)."
)
"""What a change of the clock demands of a crontab entry; the accounting of ticks is by this rule."""

_LATE_S = 60.0
"""A crontab entry names a minute, so that within it a tick is in time."""
_EARLY_S = 0.01
"""Celery wakes ten milliseconds of its own clock early by design, and asks again before it sends."""
_LEAST_SLEEP_S = 0.001
"""Times of today have a float's last digit at a quarter of a microsecond."""
_FIRST = 10
_LOOK_BACK_DAYS = (2, 40, 400, 3_000)
"""Back to where an entry's last time before beat began is looked for; a leap day can be eight years away."""

_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]


@dataclass(frozen=True, kw_only=True)
class Times:
    """Some points in time."""

    count: int
    first: tuple[str, ...]
    """At most ten of them, in ISO format with the offset of the entry's zone."""

    @classmethod
    def of(cls, times: Iterable[float], zone: tzinfo) -> "Times":
        """Of Unix times in seconds."""
        every = sorted(times)
        return cls(count=len(every), first=tuple(_iso(t, zone) for t in every[:_FIRST]))

    def __str__(self) -> str:
        """As a finding names them."""
        return ", ".join(self.first) + (f" and {self.count - _FIRST} more" if self.count > _FIRST else "")

    def to_json(self) -> dict[str, Json]:
        """As it stands in audit.json."""
        return {"count": self.count, "first": list(self.first)}

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> "Times":
        """The times that `to_json` wrote. Raises ValueError, TypeError or KeyError on anything else."""
        return cls(count=int(value["count"]), first=tuple(str(one) for one in value["first"]))


_LISTS = ("missing", "doubled", "late", "early", "delayed", "unproven")


@dataclass(frozen=True, kw_only=True)
class EntryTicks:
    """How one entry of the schedule ticked, as far as beat was watched."""

    entry: str
    rule: str
    expected: int | None
    """How many times it was due; None where that cannot be calculated."""
    sent: int
    missing: Times
    """When it was due and was not sent."""
    doubled: Times
    """When it was due that was sent more than once."""
    late: Times
    """When it was due that was sent more than a minute later, and nothing kept beat from it for so long."""
    early: Times
    """When it was sent before it was due."""
    delayed: Times
    """As `late`, once, and something kept beat for as long."""
    unproven: Times
    """As `missing`, but something kept beat until the next time, so that it may not be the schedule's fault."""
    lateness_s: Mapping[str, float]
    """Seconds from due to sent: p50, p99, max; empty if nothing was sent in time."""

    def to_json(self) -> dict[str, Json]:
        """As it stands in audit.json."""
        lists = {name: getattr(self, name).to_json() for name in _LISTS}
        return {**asdict(self), **lists, "lateness_s": dict(self.lateness_s)}

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> "EntryTicks":
        """The record that `to_json` wrote. Raises ValueError, TypeError or KeyError on anything else."""
        return cls(
            entry=str(value["entry"]),
            rule=str(value["rule"]),
            expected=None if value["expected"] is None else int(value["expected"]),
            sent=int(value["sent"]),
            lateness_s={str(name): float(seconds) for name, seconds in value["lateness_s"].items()},
            **{name: Times.from_json(value[name]) for name in _LISTS},
        )


@dataclass(frozen=True, kw_only=True)
class Ticks:
    """What the journal of beat says about its schedule."""

    entries: tuple[EntryTicks, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True, kw_only=True)
class Window:
    """The days of a time-lapse: what was due before or after them does not count. Unix times in seconds."""

    begin_t: float
    end_t: float

    def holds(self, t: float) -> bool:
        """Whether a time is in it; its end is not."""
        return self.begin_t <= t < self.end_t


def account(journal: Path, window: Window | None = None) -> Ticks | None:
    """Account for the ticks of all beats that wrote to a folder of journals; None if there was no beat.

    Args:
        journal: the folder.
        window: of a time-lapse, which is about nothing else; None counts all that was watched.
    """
    starts, faults = _read(journal)
    if not starts and not faults and window is None:
        return None
    watch = _Watch(starts=[start for start in starts if start.ready_at is not None], window=window)
    judged = [_judge(entry, rule, watch.of(entry, rule)) for entry, rule in watch.rules()]
    findings = [*_witness_findings(watch, starts, faults), *_findings(judged, watch, is_whole=not faults)]
    return Ticks(entries=tuple(record for record, _ in judged), findings=tuple(findings))


# ------------------------------------------------------------------------------------------------ what was witnessed


@dataclass(frozen=True, kw_only=True)
class _Wake:
    at: float
    end: float
    next: float

    @property
    def slept(self) -> bool:
        return self.next > self.end + _LEAST_SLEEP_S


@dataclass(frozen=True, kw_only=True, eq=False)
class _Start:
    """One process of beat, from when it was ready."""

    rules: dict[str, dict[str, Json]] = field(default_factory=dict)
    ready_at: float | None = None
    wakes: Sequence[_Wake] = ()
    ticks: Sequence["_Tick"] = ()
    unsent: int = 0

    @cached_property
    def end(self) -> float:
        """The last time at which beat surely had nothing left to send."""
        ready_at = self.ready_at or 0.0
        return max((wake.at for wake in self.wakes if wake.slept), default=ready_at)

    def busy(self) -> Iterator[tuple[float, float]]:
        """From each time at which it should have woken until it slept again."""
        begin = next_at = self.ready_at or 0.0
        is_asleep = False
        for wake in self.wakes:
            if is_asleep:
                begin = min(next_at, wake.at)
            is_asleep, next_at = wake.slept, wake.next
            if is_asleep:
                yield begin, wake.end
        if self.wakes and not is_asleep:
            yield begin, self.wakes[-1].end


@dataclass(frozen=True, kw_only=True, eq=False)
class _Tick:
    entry: str
    at: float
    wake: _Wake
    start: int
    """Which process of beat sent it."""


def _read(journal: Path) -> tuple[list[_Start], list[str]]:
    """Every start of beat, in order, and what is wrong with the files."""
    starts: list[_Start] = []
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


def _start(events: Iterable[Event], number: int) -> _Start:
    rules: dict[str, dict[str, Json]] = {}
    ready_at: float | None = None
    wakes: list[_Wake] = []
    sent: list[tuple[str, float, str | None]] = []
    ticks: list[_Tick] = []
    accepted: set[str | None] = set()
    intended: list[str | None] = []
    for event in events:
        data = event.data
        if event.kind is Kind.SETTINGS:
            # What the entry itself says of its zone wins.
            zone = {"timezone": data.get("timezone", "UTC")}
            rules = {str(one["entry"]): zone | dict(one) for one in data.get("schedule", ())}
        elif event.kind is Kind.READY:
            ready_at = float(data["at"])
        elif event.kind is Kind.ACCEPTED:
            accepted.add(event.task)
        elif event.kind is Kind.INTENDED and "entry" in data:
            sent.append((str(data["entry"]), float(data["at"]), event.task))
            intended.append(event.task)
        elif event.kind is Kind.WOKE:
            end = float(data["at"]) + float(data["took_s"])
            wake = _Wake(at=float(data["at"]), end=end, next=float(data["next"]))
            wakes.append(wake)
            ticks += [_Tick(entry=entry, at=at, wake=wake, start=number) for entry, at, _ in sent]
            sent.clear()
    # Of a wake that beat did not live to tell, only the ticks are known.
    ticks += [_Tick(entry=entry, at=at, wake=_Wake(at=at, end=at, next=at), start=number) for entry, at, _ in sent]
    # It may have ended before it could say that the last one went out.
    unsent = sum(task not in accepted for task in intended[:-1])
    return _Start(rules=rules, ready_at=ready_at, wakes=wakes, ticks=ticks, unsent=unsent)


_UNKNOWN_RULE: dict[str, Json] = {"kind": "other", "text": "not in the schedule that beat began with"}


@dataclass(frozen=True, kw_only=True)
class _Watch:
    """Some starts of beat, and what is to be counted of them."""

    starts: Sequence[_Start]
    window: Window | None
    ticks: Sequence[_Tick] = ()

    def rules(self) -> list[tuple[str, dict[str, Json]]]:
        """Every entry with its rule; twice, if beat came back with another rule for it."""
        found = {
            (entry, json.dumps(rule, sort_keys=True)): rule
            for start in self.starts
            for entry, rule in [
                *start.rules.items(),
                *((tick.entry, _UNKNOWN_RULE) for tick in start.ticks if tick.entry not in start.rules),
            ]
        }
        return [(entry, rule) for (entry, _), rule in sorted(found.items(), key=lambda item: item[0])]

    def of(self, entry: str, rule: Mapping[str, Json]) -> "_Watch":
        """What concerns one entry under one rule."""
        starts = [start for start in self.starts if start.rules.get(entry, _UNKNOWN_RULE) == rule]
        ticks = sorted((tick for start in starts for tick in start.ticks if tick.entry == entry), key=lambda t: t.at)
        return _Watch(starts=starts, window=self.window, ticks=ticks)

    def counts(self, t: float) -> bool:
        """Whether what was due then is asked for."""
        return self.window is None or self.window.holds(t)

    @cached_property
    def spans(self) -> list[tuple[float, float]]:
        """When at least one beat was there, from ready to the last time that it had nothing left to send."""
        spans: list[tuple[float, float]] = []
        for begin, end in sorted((start.ready_at or 0.0, start.end) for start in self.starts):
            if spans and begin <= spans[-1][1]:
                spans[-1] = (spans[-1][0], max(spans[-1][1], end))
            else:
                spans.append((begin, end))
        return spans

    def was_there(self, t: float) -> bool:
        """Whether a beat was."""
        return any(since <= t <= until for since, until in self.spans)

    def grace_s(self) -> float:
        """How long after its time a tick is still to come: as long as beat was ever busy, and a second."""
        return min(
            _LATE_S, 1.0 + max((wake.end - wake.at for start in self.starts for wake in start.wakes), default=0.0)
        )

    def busy(self) -> list[tuple[float, float]]:
        """When beat should have been awake or was, instead of asleep as it meant to be."""
        return sorted(span for start in self.starts for span in start.busy())


@dataclass(frozen=True)
class _Busy:
    """When beat was late to wake, or at work."""

    spans: Sequence[tuple[float, float]]

    def lost_s(self, begin: float, end: float) -> float:
        """How much of a time that was."""
        return sum(max(0.0, min(end, until) - max(begin, since)) for since, until in self._near(begin, end))

    def longest_s(self, begin: float, end: float) -> float:
        """The longest one that touches a time."""
        return max((until - since for since, until in self._near(begin, end)), default=0.0)

    def excuses(self, due: float, sent: float, ticks: Sequence[_Tick]) -> bool:
        """Whether it is why a tick was sent so long after it was due; `ticks` are all of its entry.

        Celery asks how long it is to the next tick, sends, and then counts from there: a tick is also later by as
        long as it was busy when it did so, at the latest at the start.
        """
        last = bisect_left(ticks, sent, key=lambda tick: tick.at) - 1
        begin = due - _FAR_S if last < 0 else min(ticks[last].wake.at, due)
        return sent - due - self.lost_s(due, sent) - self.longest_s(begin, due) <= _LATE_S

    def _near(self, begin: float, end: float) -> Iterator[tuple[float, float]]:
        last = bisect_right(self.spans, (end, math.inf))
        # Those of one beat do not overlap; those of several may, by far less than all of them.
        for since, until in reversed(self.spans[:last]):
            if until >= begin:
                yield since, until
            elif begin - until > _FAR_S:
                break


_FAR_S = 86_400.0


# ------------------------------------------------------------------------------------------------ what was to be seen


@dataclass(frozen=True, kw_only=True)
class _Crontab:
    """A crontab entry as cronsim reads it."""

    text: str
    zone: ZoneInfo
    expression: str
    weekdays: CronSim | None
    """Which days of the week count, where the days of the month are restricted too: Celery wants both, cron either."""

    @classmethod
    def of(cls, rule: Mapping[str, Json], zone: ZoneInfo) -> "_Crontab":
        """Raises CronSimError or ValueError for what no cron knows."""
        minute, hour = _field(rule["minute"], 0, 59), _field(rule["hour"], 0, 23)
        day, month = _field(rule["day_of_month"], 1, 31), _field(rule["month_of_year"], 1, 12, _MONTHS, 1)
        weekday = _field(rule["day_of_week"], 0, 6, _DAYS)
        both = not day.startswith("*") and not weekday.startswith("*")
        said = [str(rule[name]) for name in ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")]
        return cls(
            text=f"{' '.join(said)} {zone.key}",
            zone=zone,
            expression=f"{minute} {hour} {day} {month} {'*' if both else weekday}",
            weekdays=CronSim(f"0 0 * * {weekday}", datetime.now(UTC)) if both else None,
        )

    def times(self, begin: float, end: float) -> list[float]:
        """Its times from the last one before `begin` up to `end`."""
        found: list[float] = []
        for days in _LOOK_BACK_DAYS:
            since = datetime.fromtimestamp(begin, self.zone) - timedelta(days=days)
            found = list(takewhile(lambda t: t <= end, self._after(since)))
            if found and found[0] <= begin:
                break
        return found[max(0, bisect_right(found, begin) - 1) :]

    def _after(self, since: datetime) -> Iterator[float]:
        for moment in CronSim(self.expression, since):
            if self.weekdays is None or self.weekdays.match_dow(moment.date()):
                yield moment.timestamp()


def _field(text: Json, least: int, most: int, names: Sequence[str] = (), offset: int = 0) -> str:
    """One of Celery's fields as cron writes it: names become numbers, and what wraps around becomes a list."""
    return ",".join(_part(part.strip(), least, most, names, offset) for part in str(text).split(","))


def _part(part: str, least: int, most: int, names: Sequence[str], offset: int) -> str:
    if part.startswith("*"):
        return part
    span, _, step = part.partition("/")
    ends = [_number(end, names, offset) for end in span.split("-")]
    if len(ends) == 1 or ends[0] <= ends[-1]:
        return "-".join(map(str, ends)) + (f"/{step}" if step else "")
    wrapped = [*range(ends[0], most + 1), *range(least, ends[-1] + 1)]
    return ",".join(map(str, wrapped[:: int(step or 1)]))


def _number(text: str, names: Sequence[str], offset: int) -> int:
    return names.index(text[:3].lower()) + offset if text[:3].lower() in names else int(text)


@dataclass
class _Counts:
    """What is found while an entry is judged: Unix times in seconds."""

    expected: int = 0
    sent: int = 0
    missing: list[float] = field(default_factory=list)
    doubled: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    early: list[float] = field(default_factory=list)
    delayed: list[float] = field(default_factory=list)
    unproven: list[float] = field(default_factory=list)
    skipped: list[float] = field(default_factory=list)
    """Due while no beat was there, which demands nothing."""
    lateness_s: list[float] = field(default_factory=list)

    def record(self, entry: str, rule: str, zone: tzinfo, *, expected: int | None) -> EntryTicks:
        """Put it down."""
        return EntryTicks(
            entry=entry,
            rule=rule,
            expected=expected,
            sent=self.sent,
            lateness_s=_quantiles(self.lateness_s),
            **{name: Times.of(getattr(self, name), zone) for name in _LISTS},
        )


def _judge(entry: str, rule: Mapping[str, Json], watch: _Watch) -> tuple[EntryTicks, Times]:
    """The record of an entry, and when it was due while no beat was there."""
    try:
        zone = ZoneInfo(str(rule.get("timezone", "UTC")))
        if rule["kind"] == "crontab":
            crontab = _Crontab.of(rule, zone)
            counts, text = _crontab(crontab, watch), crontab.text
        elif rule["kind"] == "interval" and rule["every_s"] > 0:
            counts = _interval(float(rule["every_s"]), watch, relative=bool(rule["relative"]))
            text = f"every {rule['every_s']:g} s" + (", rounded" if rule["relative"] else "")
        else:
            return _unpredictable(entry, str(rule.get("text", "every 0 s")), watch)
    except (CronSimError, ValueError, KeyError) as error:
        # ZoneInfo raises a KeyError for a zone that nobody knows.
        return _unpredictable(entry, f"{_crontab_text(rule)}: {error}", watch)
    return counts.record(entry, text, zone, expected=counts.expected), Times.of(counts.skipped, zone)


def _unpredictable(entry: str, text: str, watch: _Watch) -> tuple[EntryTicks, Times]:
    counts = _Counts(sent=sum(watch.counts(tick.at) for tick in watch.ticks))
    return counts.record(entry, text, UTC, expected=None), Times.of((), UTC)


def _crontab_text(rule: Mapping[str, Json]) -> str:
    return " ".join(str(rule.get(name)) for name in ("minute", "hour", "day_of_month", "month_of_year", "day_of_week"))


def _crontab(crontab: _Crontab, watch: _Watch) -> _Counts:
    counts, spans, grace_s, busy = _Counts(), watch.spans, watch.grace_s(), _Busy(watch.busy())
    if not spans:
        return counts
    begin = min(spans[0][0], *(tick.at for tick in watch.ticks)) if watch.ticks else spans[0][0]
    end = max(spans[-1][1], *(tick.at for tick in watch.ticks)) if watch.ticks else spans[-1][1]
    times = crontab.times(begin, end)
    of, early = _matched(times, watch, busy)
    counts.early = [tick.at for tick in early if watch.counts(tick.at)]
    counts.sent = len(counts.early)
    ahead = {id(tick) for tick in early}
    for number, due in enumerate(times):
        # One that came early for this time is a tick of this time.
        ticks = of.get(number, [])
        if not watch.counts(due):
            continue
        demanded = any(since <= due and due + grace_s <= until for since, until in spans)
        counts.expected += demanded or bool(ticks)
        if ticks:
            in_time = [tick for tick in ticks if id(tick) not in ahead]
            counts.sent += len(in_time)
            counts.doubled += [due] * (len(ticks) - 1)
            if in_time:
                _note_lateness(counts, due, in_time[0], watch, busy)
        elif demanded:
            # Celery makes up for one, once: kept until the next is due, it sends that one alone.
            later = watch.ticks[bisect_right(watch.ticks, due, key=lambda tick: tick.at) :]
            excused = busy.excuses(due, later[0].at if later else end, watch.ticks)
            (counts.unproven if excused else counts.missing).append(due)
        elif any(until < due < since for (_, until), (since, _) in pairwise(spans)):
            counts.skipped.append(due)
    return counts


def _matched(times: Sequence[float], watch: _Watch, busy: _Busy) -> tuple[dict[int, list[_Tick]], list[_Tick]]:
    """Each tick belongs to the latest time before it; if that has one already, and the next one none, to the nearer.

    Returns: the ticks of each time, by its number; and those that came before their time, also if they have none.
    """
    of: dict[int, list[_Tick]] = defaultdict(list)
    for tick in watch.ticks:
        of[bisect_right(times, tick.at + _EARLY_S) - 1].append(tick)
    _give_back(of, times, watch, busy)
    early, since = [], watch.spans[0][0]
    for number in range(1, len(times)):
        here = of.get(number - 1, [])
        # No beat was there that could have sent what was due before.
        if number in of or len(here) <= (times[number - 1] >= since):
            continue
        if times[number] - here[-1].at < here[-1].at - times[number - 1]:
            early.append(here.pop())
            of[number] = [early[-1]]
    for number in [number for number in of if number < 0 or times[number] < since]:
        early += of.pop(number)
    return of, early


def _give_back(of: dict[int, list[_Tick]], times: Sequence[float], watch: _Watch, busy: _Busy) -> None:
    """A time with two ticks gives one to a time before it that has none, if it is only late because beat was kept.

    Where times are close together and the machine is slow, each tick may come after the next one was due.
    """
    missing: int | None = None
    for number in range(len(times)):
        count = len(of.get(number, []))
        if not count:
            # Of what was due while no beat was there, nothing can be late.
            missing = number if watch.was_there(times[number]) else None
        elif count > 1 and missing is not None:
            moved = [(earlier, of[earlier + 1][0]) for earlier in range(missing, number)]
            if all(busy.excuses(times[earlier], tick.at, watch.ticks) for earlier, tick in moved):
                for earlier, tick in moved:
                    of[earlier + 1].remove(tick)
                    of.setdefault(earlier, []).append(tick)
            missing = None


def _note_lateness(counts: _Counts, due: float, tick: _Tick, watch: _Watch, busy: _Busy) -> None:
    if not watch.was_there(due):
        # It was made up for when beat came back.
        return
    lateness_s = tick.at - due
    counts.lateness_s.append(max(0.0, lateness_s))
    if lateness_s <= _LATE_S:
        return
    (counts.delayed if busy.excuses(due, tick.at, watch.ticks) else counts.late).append(due)


def _interval(every_s: float, watch: _Watch, *, relative: bool) -> _Counts:
    counts, grace_s, busy = _Counts(), watch.grace_s(), _Busy(watch.busy())
    rounding_s = _rounding_s(every_s) if relative else 0.0
    # A wake takes its time also where nothing keeps it.
    slack_s = min(grace_s, every_s / 2)
    regular: list[_Tick] = []
    for tick in watch.ticks:
        # Celery counts from when it began to send, which is a little before `at`.
        if regular and tick.at < regular[-1].wake.at + every_s - rounding_s - _EARLY_S:
            if watch.counts(tick.at):
                counts.sent += 1
                (counts.early if tick.start == regular[-1].start else counts.doubled).append(tick.at)
            if tick.start != regular[-1].start:
                # The other beat goes on as before.
                continue
        elif watch.counts(tick.at):
            counts.sent += 1
            counts.expected += 1
        regular.append(tick)
    for begin, end in watch.spans:
        since = begin
        for tick in (tick for tick in regular if begin <= tick.at <= end + grace_s):
            gap_s, lost_s = tick.at - since, busy.lost_s(since, tick.at)
            absent, surely = (int(length_s // every_s) - 1 for length_s in (gap_s, gap_s - lost_s + slack_s))
            _note_absent(
                counts, watch, [since + every_s * number for number in range(1, absent + 1)], proven=surely > 0
            )
            if watch.counts(tick.at):
                counts.lateness_s.append(max(0.0, gap_s - every_s))
            since = tick.at
        left_s = end - grace_s - since - rounding_s
        lost_s = busy.lost_s(since, end)
        absent, surely = (int(length_s // every_s) for length_s in (left_s, left_s - lost_s + slack_s))
        _note_absent(counts, watch, [since + every_s * number for number in range(1, absent + 1)], proven=surely > 0)
    return counts


def _note_absent(counts: _Counts, watch: _Watch, due: Sequence[float], *, proven: bool) -> None:
    """Note the ticks that a gap lacks, and whether they are lacking also if beat's busy times are left out."""
    asked = [t for t in due if watch.counts(t)]
    counts.expected += len(asked)
    (counts.missing if proven else counts.unproven).extend(asked)


def _rounding_s(every_s: float) -> float:
    """By how much a rounded interval may end early: to the full day (an hour more or less), hour or minute."""
    for unit_s, slack_s in ((86_400.0, 90_000.0), (3_600.0, 3_600.0), (60.0, 60.0)):
        if every_s >= unit_s:
            return slack_s
    return 0.0


# ------------------------------------------------------------------------------------------------ what is to be said


def _witness_findings(watch: _Watch, starts: Sequence[_Start], faults: Sequence[str]) -> Iterator[Finding]:
    if faults:
        text = f"beat's journal is not whole, so ticks may have been sent that nobody knows of: {'; '.join(faults)}."
        yield Finding(code="ticks-unwitnessed", verdict=Verdict.UNKNOWN, count=len(faults), text=text)
    if not watch.starts and (starts or watch.window):
        text = "no beat ever said that it was ready, so nothing is known about ticks."
        yield Finding(code="ticks-unwatched", verdict=Verdict.UNKNOWN, count=1, text=text)
    elif (window := watch.window) and not any(
        since <= window.begin_t and window.end_t <= until for since, until in watch.spans
    ):
        text = "beat was not there all the time from --from to --to."
        yield Finding(code="ticks-unwatched", verdict=Verdict.UNKNOWN, count=1, text=text)
    unsent = sum(start.unsent for start in watch.starts)
    if unsent and watch.window:
        text = "beat tried to send them, and never said that the broker took them."
        yield Finding(code="ticks-unsent", verdict=Verdict.UNKNOWN, count=unsent, text=text)


_FAILURES = (
    ("missing", "due, and not sent"),
    ("doubled", "sent more than once"),
    ("late", "sent up to {:.0f} s late, and nothing kept beat from it for so long"),
    ("early", "sent before it was due"),
)


def _findings(judged: Sequence[tuple[EntryTicks, Times]], watch: _Watch, *, is_whole: bool) -> Iterator[Finding]:
    for record, skipped in judged:
        for name, words in _FAILURES:
            times: Times = getattr(record, name)
            if times.count:
                text = f"{record.entry}: {times} ({words.format(record.lateness_s.get('max', 0.0))})"
                # What seems to be missing or late may stand in a line that is lost.
                verdict = Verdict.FAIL if is_whole or name not in {"missing", "late"} else Verdict.UNKNOWN
                yield Finding(code=f"tick-{name}", verdict=verdict, count=times.count, text=text)
        if record.expected is None:
            text = (
                f"{record.entry}: when it is due cannot be calculated ({record.rule}); it was sent {record.sent} times."
            )
            yield Finding(code="tick-unpredictable", verdict=Verdict.PASS, count=1, text=text)
        if skipped.count:
            text = f"{record.entry}: {skipped} (due while no beat was there; Celery makes up for one at most)"
            yield Finding(code="ticks-skipped", verdict=Verdict.PASS, count=skipped.count, text=text)
    records = [record for record, _ in judged]
    if delayed := [record for record in records if record.delayed.count]:
        named = ", ".join(f"{record.entry} {record.delayed.count}" for record in delayed)
        text = f"sent once, and more than a minute late only because beat itself was kept for as long: {named}."
        count = sum(record.delayed.count for record in delayed)
        yield Finding(code="ticks-delayed", verdict=Verdict.PASS, count=count, text=text)
    if unproven := [record for record in records if record.unproven.count]:
        named = "; ".join(f"{record.entry}: {record.unproven}" for record in unproven)
        advice = ": the machine could not hold this speed; lower --speed" if watch.window else ""
        text = (
            f"{named} (due, and not sent, and beat itself was kept until the next time, which proves nothing{advice})"
        )
        count = sum(record.unproven.count for record in unproven)
        yield Finding(code="ticks-stalled", verdict=Verdict.UNKNOWN, count=count, text=text)
    if watch.starts and not any(record.expected for record in records):
        verdict = Verdict.UNKNOWN if watch.window else Verdict.PASS
        text = "no entry of the schedule was due that can be calculated, so nothing was shown about ticks."
        yield Finding(code="nothing-ticked", verdict=verdict, count=0, text=text)


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p99 and max, each a value that was met; empty of nothing."""
    if not values:
        return {}
    ordered = sorted(values)
    at = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    return {name: round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 3) for name, share in at.items()}


def _iso(t: float, zone: tzinfo) -> str:
    """Local time with its offset, without the seconds where they are none."""
    moment = datetime.fromtimestamp(round(t, 3), zone)
    return moment.isoformat(timespec="seconds" if moment.second or moment.microsecond else "minutes")
