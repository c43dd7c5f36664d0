"""The due times of a crontab entry: the meaning of Celery's fields, and the rule for changes of the clock.

cronsim, which shares no code with Celery, determines the minutes and days. It gets local times without a zone, because
with one it loses times on the days on which a clock is changed by half an hour.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from harness.records.values import Json

RULE = (
    "An entry whose minute or hour begins with * ticks at every such time as it passes, also in an hour that comes "
    "twice, and at none that is skipped; any other ticks once: at the first of two times of the same name, and right "
    "after a gap that its time falls into (the rule of Debian's cron)."
)
"""The rule for a crontab entry when the clock is changed; ticks are accounted for by it."""

FIELDS = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")

_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_MINUTE = timedelta(minutes=1)
_FARTHEST = timedelta(days=1)
"""The largest change of a zone's clock. Samoa left out a day in 2011."""


def written(rule: Mapping[str, Json]) -> str:
    """Return the five fields as the app wrote them."""
    return " ".join(str(rule.get(name)) for name in FIELDS)


@dataclass(frozen=True, kw_only=True)
class Crontab:
    """A crontab entry in cronsim's terms."""

    zone: ZoneInfo
    expression: str
    weekdays: CronSim
    """The days of the week, apart: Celery wants the day of the month and that of the week, cron takes either."""
    is_wild: bool
    """True if its minute or hour begins with `*`: it then follows the time that passes, not the name of the local
    time."""

    @classmethod
    def of(cls, rule: Mapping[str, Json], zone: ZoneInfo) -> "Crontab":
        """Parse the rule of an entry. Raises ValueError or KeyError if it is not a valid crontab."""
        minute, hour = _field(rule["minute"], 0, 59), _field(rule["hour"], 0, 23)
        day, month = _field(rule["day_of_month"], 1, 31), _field(rule["month_of_year"], 1, 12, _MONTHS)
        weekday = _field(rule["day_of_week"], 0, 6, _DAYS)
        expression = f"{minute} {hour} {day} {month} *"
        try:
            CronSim(expression, datetime.now(UTC))
            weekdays = CronSim(f"0 0 * * {weekday}", datetime.now(UTC))
        except CronSimError as error:
            raise ValueError(str(error)) from error
        is_wild = minute.startswith("*") or hour.startswith("*")
        return cls(zone=zone, expression=expression, weekdays=weekdays, is_wild=is_wild)

    def times(self, begin: float, end: float) -> list[float]:
        """Return its due times in Unix seconds, from the last one at or before `begin` up to `end`."""
        since, until = (datetime.fromtimestamp(t, self.zone).replace(tzinfo=None) for t in (begin, end))
        since, until = since - _FARTHEST, until + _FARTHEST
        # In a year in which its only hour is skipped, the last time is that of a year before.
        last = next(filter(None, map(self._moments, self._names(since, reverse=True))), ())
        names = takewhile(lambda name: name <= until, self._names(since - _MINUTE))
        found = sorted({*last, *(t for name in names for t in self._moments(name))})
        return found[max(0, bisect_right(found, begin) - 1) : bisect_right(found, end)]

    def _names(self, since: datetime, *, reverse: bool = False) -> Iterator[datetime]:
        """Yield the local times that it names, from one on or backwards, without regard to changes of the clock."""
        for name in CronSim(self.expression, since, reverse=reverse):
            if self.weekdays.match_dow(name.date()):
                yield name

    def _moments(self, name: datetime) -> Sequence[float]:
        """Return the Unix times of a local time, by RULE."""
        while not (passes := self._passes(name)):
            if self.is_wild:
                return ()
            # No zone's gap ends within a minute.
            name += _MINUTE
        return passes if self.is_wild else passes[:1]

    def _passes(self, name: datetime) -> list[float]:
        """Return the Unix times at which a clock in the zone shows a local time: one, two, or none."""
        moments = [name.replace(tzinfo=self.zone, fold=fold).astimezone(UTC) for fold in (0, 1)]
        return [t.timestamp() for t in moments if t.astimezone(self.zone).replace(tzinfo=None) == name]


def _field(text: Json, least: int, most: int, names: Sequence[str] = ()) -> str:
    """Convert one of Celery's fields to cron's form: names become numbers, and ranges that wrap become lists."""
    return ",".join(_part(part, least, most, names) for part in str(text).split(","))


def _part(part: str, least: int, most: int, names: Sequence[str]) -> str:
    span, slash, step = part.partition("/")
    if span == "*":
        return part
    ends = [_number(end, least, names) for end in span.split("-")]
    first, last = ends[0], ends[-1]
    if first <= last:
        return "-".join(map(str, ends)) + slash + step
    wrapped = [*range(first, most + 1), *range(least, last + 1)]
    return ",".join(map(str, wrapped[:: int(step or 1)]))


def _number(text: str, least: int, names: Sequence[str]) -> int:
    name = text[:3].lower()
    return least + names.index(name) if name in names else int(text)
