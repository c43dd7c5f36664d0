"""The ticks of beat: was each one sent, once, and on time? Determined from a run's journal alone.

All times are by beat's own clock, which need not be the real one: the schedule is judged, and Celery follows the clock
that it sees. The file is long because crontabs and intervals are judged by the same few rules, which belong together.
"""

import json
import math
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

from harness.audit.beat import beat_log
from harness.audit.beat.beat_history import Beats, Spans, Start, Tick, Unsent, Wake
from harness.audit.beat.crontab import Crontab, written
from harness.audit.beat.tick_findings import UNTOLD, findings
from harness.audit.beat.tick_records import LISTS, EntryTicks, Ticks, Times, Window
from harness.measure.quantiles import quantiles
from harness.records.values import Json

_LATE_S = 60.0
"""The most seconds by which a tick of a crontab entry may be late. The entry names a minute; a tick within it is on
time."""
_EARLY_S = 0.01
"""The seconds by which a tick may be early. By design, Celery wakes ten milliseconds of its own clock early, and checks
again before it sends."""
_ANSWER_S = 1.0
"""Seconds by which the schedule's own answer on the next due time may be wrong: it counts in floats, and asks twice. A
smaller value would take the schedule's answer for another time than the due one; no crontab entry is due twice within
it."""
_GRACE_S = 1.0
"""The seconds for which a due tick may still come after beat's longest wake. A shorter time would call the last tick
before beat ended missing; a longer one would demand fewer of the last ticks."""
_KEPT_SHARE = 0.5
"""The share of the time from due to sent for which beat may have been idle, if its being busy is to excuse a tick. With
a higher share, beat that was idle most of the time would be excused; with a lower one, the schedule would be blamed for
the machine."""
_ROUNDINGS_S = ((86_400.0, 90_000.0), (3_600.0, 3_600.0), (60.0, 60.0))
"""The least interval that Celery rounds to days, hours or minutes, and the seconds by which it may then end early: a
whole unit, and for a day one hour more, by which a change to or from daylight saving makes a day longer."""


def account(journal: Path, window: Window | None = None, without_beat: Collection[Path] = frozenset()) -> Ticks | None:
    """Judge the ticks of all beats that wrote to a folder of journals; None if there was no beat.

    Args:
        journal: the folder.
        window: the days of a time-lapse, which needs a beat; None counts all that was watched.
        without_beat: files in which no line is of beat, except where the first one says that beat wrote the file.
    """
    starts, faults = beat_log.read(journal, without_beat)
    if not starts and not faults and window is None:
        return None
    watch = _Watch(beats=Beats(starts=[start for start in starts if start.ready_at is not None]), window=window)
    judged = [_judge(case, watch) for case in watch.cases()]
    said = findings(judged, starts, beats=watch.beats, window=window, faults=faults)
    return Ticks(entries=tuple(record for record, _ in judged), findings=tuple(said))


# ------------------------------------------------------------------------------------------------ what was to be seen

_UNKNOWN_RULE: dict[str, Json] = {"kind": "other", "text": UNTOLD}


@dataclass(frozen=True, kw_only=True)
class _Watch:
    """The observation of several starts of beat, within the window if there is one."""

    beats: Beats
    window: Window | None

    def cases(self) -> list["_Case"]:
        """Return every entry with each rule that it ever had, sorted by name; usually that is one rule."""
        found: dict[tuple[str, str], _Case] = {}

        def case(entry: str, rule: Mapping[str, Json]) -> _Case:
            key = (entry, json.dumps(rule, sort_keys=True))
            return found.setdefault(key, _Case(watch=self, entry=entry, rule=rule))

        known: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
        failures: defaultdict[str, list[Unsent]] = defaultdict(list)
        for start in self.beats.starts:
            for entry in dict.fromkeys(entry for period in start.periods for entry in period.rules):
                for rule, begin, end in start.had(entry):
                    case(entry, rule).presence.append((start, begin, end))
                    known[entry].append((begin, end))
            for period, entry, ticks in start.sent():
                case(entry, period.rules.get(entry, _UNKNOWN_RULE)).ticks.extend(ticks)
            for failure in start.failures:
                failures[failure.entry].append(failure)
        for (entry, _), one in found.items():
            one.ticks.sort(key=lambda tick: tick.at)
            one.known, one.failures = Spans(known[entry]), failures[entry]
        return [one for _, one in sorted(found.items())]

    def start(self, number: int) -> Start:
        """Return the start with a number."""
        return next(start for start in self.beats.starts if start.number == number)

    def counts(self, t: float) -> bool:
        """Return whether a due time counts."""
        return self.window is None or self.window.holds(t)

    @cached_property
    def grace_s(self) -> float:
        """Seconds for which a due tick may still come: beat's longest wake and a second, at most a minute."""
        return min(_LATE_S, _GRACE_S + self.beats.longest_wake_s)


@dataclass(kw_only=True, eq=False)
class _Case:
    """One entry under one rule: when beat had it, and what it sent."""

    watch: _Watch
    entry: str
    rule: Mapping[str, Json]
    presence: list[tuple[Start, float, float]] = field(default_factory=list)
    """The starts that had it, each with begin and end."""
    ticks: list[Tick] = field(default_factory=list)
    failures: list[Unsent] = field(default_factory=list)
    known: Spans = field(default_factory=lambda: Spans(()))
    """The spans in which the entry was in the schedule, also under another rule."""

    @cached_property
    def there(self) -> Spans:
        """The spans in which at least one start had it."""
        return Spans((begin, end) for _, begin, end in self.presence)

    def starts(self, t: float) -> list[Start]:
        """Return the starts that had it at a time."""
        return [start for start, begin, end in self.presence if begin <= t <= end]

    def idle_s(self, start: Start, due: float, sent: float) -> float:
        """Return the seconds between due and sent in which beat was not busy."""
        return sent - due - start.busy.length_s(due, sent)

    def unplanned_s(self, start: Start, due: float, sent: float) -> float:
        """Return `idle_s` without the time that beat took to plan what was due.

        Celery asks how long it is to the next tick, sends, and then counts from there: a tick is also later by as long
        as it took to send the one before. Under a fast clock, the machine is at fault for that.
        """
        begin, end = self._planning(start, sent) if self.watch.window else (due, due)
        # No time is excused twice.
        rest = min(max(due, end), sent)
        return sent - due - (end - begin) - start.busy.length_s(rest, sent)

    def _planning(self, start: Start, sent: float) -> tuple[float, float]:
        """Return when beat planned what it sent, as begin and end; an empty span if that is not journaled."""
        if (replanned := self._replanned(start, sent)) is not None:
            return replanned.at, replanned.at + (replanned.planned_s or 0.0)
        before = self._before(start, sent)
        return (before.wake.at, before.wake.end) if before else (sent, sent)

    def _replanned(self, start: Start, sent: float) -> Wake | None:
        """Return the last wake in which beat planned all entries anew, after its previous tick of this entry."""
        before = self._before(start, sent)
        since = before.wake.end if before else -math.inf
        plans = (wake for wake in reversed(start.wakes) if wake.planned_s is not None)
        return next((wake for wake in plans if since <= wake.at <= sent), None)

    def _before(self, start: Start, sent: float) -> Tick | None:
        """Return the previous tick, if the same beat sent it."""
        last = bisect_left(self.ticks, sent, key=lambda tick: tick.at) - 1
        return self.ticks[last] if last >= 0 and self.ticks[last].start == start.number else None

    def planned_t(self, start: Start, sent: float, times: Sequence[float]) -> float | None:
        """Return the time at which beat meant to send what it sent at `sent`; None if that is not known.

        It is the schedule's own time, and later by as long as beat was busy. It is minus infinity if the schedule's
        time is none of those at which the entry is due.
        """
        before = self._before(start, sent)
        if before is None or before.following is None or self._replanned(start, sent):
            return None
        earliest, latest = before.following
        number = bisect_left(times, earliest - _ANSWER_S)
        is_due = number < len(times) and times[number] <= latest + _ANSWER_S
        return latest + before.wake.end - before.wake.at if is_due else -math.inf

    def was_kept(self, due: float, sent: float, starts: Sequence[Start] | None = None) -> bool:
        """Return whether every beat that had it was held up for at least half of a span, and for all but a minute."""
        most_s = min(_LATE_S, _KEPT_SHARE * (sent - due))
        having = self.starts(due) if starts is None else starts
        return bool(having) and all(self.unplanned_s(start, due, sent) <= most_s for start in having)

    def passed_deadline(self, due: float) -> bool:
        """Return whether every beat that had it was busy beyond the deadline after which Celery no longer sends it."""
        if (deadline_s := self.rule.get("deadline_s")) is None:
            return False
        return all(_kept_s(start, due) > float(deadline_s) for start in self.starts(due))


def _kept_s(start: Start, due: float) -> float:
    """Return the seconds for which beat was busy after a time, without a break."""
    around = start.busy.around(due)
    return around[1] - due if around else 0.0


@dataclass
class _Counts:
    """The counts while an entry is judged: Unix times in seconds."""

    expected: int = 0
    sent: int = 0
    missing: list[float] = field(default_factory=list)
    doubled: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    early: list[float] = field(default_factory=list)
    delayed: list[float] = field(default_factory=list)
    doubtful: list[float] = field(default_factory=list)
    unproven: list[float] = field(default_factory=list)
    unscheduled: list[float] = field(default_factory=list)
    skipped: list[float] = field(default_factory=list)
    """Due times at which no beat ran; these demand nothing."""
    lateness_s: list[float] = field(default_factory=list)

    def record(self, case: _Case, rule: str, zone: tzinfo, *, expected: int | None) -> EntryTicks:
        """Return the record of the entry."""
        counted = (failure.reason for failure in case.failures if case.watch.counts(failure.at))
        return EntryTicks(
            entry=case.entry,
            rule=rule,
            reasons=tuple(dict.fromkeys(counted)),
            expected=expected,
            sent=self.sent,
            lateness_s={name: round(value_s, 3) for name, value_s in quantiles(self.lateness_s, (50, 99)).items()},
            **{name: Times.of(getattr(self, name), zone) for name in LISTS},
        )


def _judge(case: _Case, watch: _Watch) -> tuple[EntryTicks, Times]:
    """Return the record of an entry, and when it was due while no beat ran."""
    rule = case.rule
    try:
        zone = ZoneInfo(str(rule.get("timezone", "UTC")))
        if rule["kind"] == "crontab":
            counts, text = _crontab(Crontab.of(rule, zone), case, watch), f"{written(rule)} {zone.key}"
        elif rule["kind"] == "interval" and rule["every_s"] > 0:
            counts = _interval(float(rule["every_s"]), case, watch, relative=bool(rule["relative"]))
            text = f"every {rule['every_s']:g} s" + (", rounded" if rule["relative"] else "")
        else:
            return _unpredictable(case, str(rule.get("text", "every 0 s")), watch)
    except (ValueError, KeyError) as error:
        # ZoneInfo raises a KeyError for an unknown zone.
        return _unpredictable(case, f"{written(rule)}: {error}", watch)
    return counts.record(case, text, zone, expected=counts.expected), Times.of(counts.skipped, zone)


def _unpredictable(case: _Case, text: str, watch: _Watch) -> tuple[EntryTicks, Times]:
    counts = _Counts(sent=sum(watch.counts(tick.at) for tick in case.ticks))
    return counts.record(case, text, UTC, expected=None), Times.of((), UTC)


# ------------------------------------------------------------------------------------------------ crontab entries


def _crontab(crontab: Crontab, case: _Case, watch: _Watch) -> _Counts:
    counts = _Counts()
    there = case.there
    sent = [tick.at for tick in case.ticks]
    end = max([there.ends[-1], *sent])
    times = crontab.times(min([there.begins[0], *sent]), end)
    of, early = _matched(times, case)
    counts.early = [tick.at for tick in early if watch.counts(tick.at)]
    counts.sent, ahead = len(counts.early), set(early)
    for number, due in enumerate(times):
        if not watch.counts(due):
            continue
        # A tick that came early for this time is a tick of this time.
        ticks = of.get(number, [])
        in_time = [tick for tick in ticks if tick not in ahead]
        around = there.around(due)
        is_demanded = around is not None and due + watch.grace_s <= around[1]
        counts.expected += is_demanded or bool(ticks)
        counts.sent += len(in_time)
        counts.doubled += [due] * (len(ticks) - 1)
        if in_time:
            _note_lateness(counts, due, in_time[0], case, times)
        elif is_demanded and not ticks:
            # Celery makes up for one tick, once: if it is held up until the next is due, it sends that one alone.
            later = bisect_right(sent, due)
            was_kept = case.was_kept(due, sent[later] if later < len(sent) else end) or case.passed_deadline(due)
            (counts.unproven if was_kept else counts.missing).append(due)
        elif not around and there.begins[0] < due < there.ends[-1]:
            _note_absence(counts, due, case, watch)
    return counts


def _note_absence(counts: _Counts, due: float, case: _Case, watch: _Watch) -> None:
    """Record a due time at which no beat had the entry under this rule, though one did before and after."""
    if not watch.beats.there.around(due):
        counts.skipped.append(due)
    elif not case.known.around(due):
        counts.unscheduled.append(due)


def _note_lateness(counts: _Counts, due: float, tick: Tick, case: _Case, times: Sequence[float]) -> None:
    if not case.there.around(due):
        # Beat made up for it when it came back.
        return
    counts.lateness_s.append(max(0.0, tick.at - due))
    if tick.at - due > _LATE_S:
        _lateness(counts, due, tick, case, times).append(due)


def _lateness(counts: _Counts, due: float, tick: Tick, case: _Case, times: Sequence[float]) -> list[float]:
    """Return the list that a late tick belongs to: the schedule is at fault, or the machine, or it cannot be known."""
    start = case.watch.start(tick.start)
    if case.idle_s(start, due, tick.at) <= _LATE_S:
        return counts.delayed
    if case.watch.window is None:
        return counts.late
    planned_t = case.planned_t(start, tick.at, times)
    if planned_t is None:
        return counts.doubtful if case.unplanned_s(start, due, tick.at) <= _LATE_S else counts.late
    since = min(max(due, planned_t), tick.at)
    return counts.delayed if case.idle_s(start, since, tick.at) <= _LATE_S else counts.late


_Matches = dict[int, list[Tick]]
"""The ticks of each due time that has any, by the number of the time."""


def _matched(times: Sequence[float], case: _Case) -> tuple[_Matches, list[Tick]]:
    """Assign each tick to the latest due time before it, or to the next one if that is nearer and has none.

    Returns:
        The ticks of each due time; and those that came before their time, also if they have none.
    """
    of: _Matches = defaultdict(list)
    for tick in case.ticks:
        of[bisect_right(times, tick.at + _EARLY_S) - 1].append(tick)
    _give_back(of, times, case)
    since = case.there.begins[0]
    early = _give_forward(of, times, since)
    # No beat ran that could have sent what was due before.
    for number in [number for number in of if times[number] < since]:
        early += of.pop(number)
    return of, early


def _give_back(of: _Matches, times: Sequence[float], case: _Case) -> None:
    """Move a tick from a due time with two to an earlier one without, if it is only late because beat was held up.

    Where due times are close together and the machine is slow, each tick may come after the next one was due.
    """
    missing: int | None = None
    for number in range(len(times)):
        count = len(of.get(number, ()))
        if not count:
            missing = number
        elif count > 1 and missing is not None:
            moved = [(earlier, of[earlier + 1][0]) for earlier in range(missing, number)]
            if all(case.was_kept(times[earlier], tick.at, [case.watch.start(tick.start)]) for earlier, tick in moved):
                for earlier, tick in moved:
                    of[earlier + 1].remove(tick)
                    of[earlier].append(tick)
            missing = None


def _give_forward(of: _Matches, times: Sequence[float], since: float) -> list[Tick]:
    """Move a tick that its due time can spare to the next one, if that is nearer and has none; return those moved."""
    early = []
    for number, (before, due) in enumerate(pairwise(times), 1):
        here = of.get(number - 1, [])
        needed = 1 if before >= since else 0
        if number not in of and len(here) > needed and due - here[-1].at < here[-1].at - before:
            early.append(here.pop())
            of[number] = [early[-1]]
    return early


# ------------------------------------------------------------------------------------------------ intervals


def _interval(every_s: float, case: _Case, watch: _Watch, *, relative: bool) -> _Counts:
    counts = _Counts()
    regular = _regular(counts, every_s - (_rounding_s(every_s) if relative else 0.0), case, watch)
    for begin, end in case.there:
        since = begin
        for tick in (tick for tick in regular if begin <= tick.at <= end):
            _note_absent(counts, every_s, since, tick.at, case, spare_s=every_s)
            if watch.counts(tick.at):
                counts.lateness_s.append(max(0.0, tick.at - since - every_s))
            since = tick.at
        # The last tick may be still to come.
        _note_absent(counts, every_s, since, end, case, spare_s=watch.grace_s)
    return counts


def _regular(counts: _Counts, least_s: float, case: _Case, watch: _Watch) -> list[Tick]:
    """Count the ticks; return those that did not come too soon after the one before."""
    regular: list[Tick] = []
    for tick in case.ticks:
        # Celery counts from when it began to send, which is a little before `at`.
        is_early = bool(regular) and tick.at < regular[-1].wake.at + least_s - _EARLY_S
        is_of_another = bool(regular) and tick.start != regular[-1].start
        if watch.counts(tick.at):
            counts.sent += 1
            counts.expected += not is_early
            if is_early:
                (counts.doubled if is_of_another else counts.early).append(tick.at)
        # The other beat continues as before.
        if not (is_early and is_of_another):
            regular.append(tick)
    return regular


def _note_absent(counts: _Counts, every_s: float, since: float, until: float, case: _Case, *, spare_s: float) -> None:
    """Record the ticks that a gap lacks; they prove nothing if beat was held up from the first of them to its end."""
    length_s = until - since - spare_s
    due = [since + every_s * number for number in range(1, int(length_s // every_s) + 1)]
    asked = [t for t in due if case.watch.counts(t)]
    counts.expected += len(asked)
    if asked:
        (counts.unproven if case.was_kept(due[0], until) else counts.missing).extend(asked)


def _rounding_s(every_s: float) -> float:
    """Return the seconds by which a rounded interval may end early: to the full day (and an hour), hour or minute."""
    for unit_s, slack_s in _ROUNDINGS_S:
        if every_s >= unit_s:
            return slack_s
    return 0.0
