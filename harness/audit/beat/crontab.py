"""When a crontab entry is due: what Celery's fields mean, and the rule by which a change of the clock is judged.

Which minutes of which days are meant comes from cronsim, which shares no code with Celery. It is asked in local time
without a zone, because with one it loses times of the days on which a clock is changed by half an hour.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from harness.records.values import Json

RULE = (
    "An entry whose minute or hour begins with * ticks at every such time as it passes, also in an hour that comes "
    "twice, and at none that is skipped; any other ticks once: at the first of two times of the same name, and right "
    "after a gap that its time falls into (the rule of Debian's cron)."
)
"""What a change of the clock demands of a crontab entry; the accounting of ticks is by this rule."""

FIELDS = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")

_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_MINUTE = timedelta(minutes=1)
_FARTHEST = timedelta(days=1)
"""No zone was ever put forward or back by more."""


def written(rule: Mapping[str, Json]) -> str:
    """The five fields as the app wrote them."""
    return " ".join(str(rule.get(name)) for name in FIELDS)


@dataclass(frozen=True, kw_only=True)
class Crontab:
    """A crontab entry as cronsim reads it."""

    zone: ZoneInfo
    expression: str
    weekdays: CronSim | None
    """Which days of the week count, where the days of the month are restricted too: Celery wants both, cron either."""
    is_wild: bool
    """Whether its minute or hour begins with `*`, so that it lives by what passes and not by its name."""

    @classmethod
    def of(cls, rule: Mapping[str, Json], zone: ZoneInfo) -> "Crontab":
        """Raises ValueError or KeyError for what no cron knows."""
        minute, hour = _field(rule["minute"], 0, 59), _field(rule["hour"], 0, 23)
        day, month = _field(rule["day_of_month"], 1, 31), _field(rule["month_of_year"], 1, 12, _MONTHS)
        weekday = _field(rule["day_of_week"], 0, 6, _DAYS)
        both = not day.startswith("*") and not weekday.startswith("*")
        expression = f"{minute} {hour} {day} {month} {'*' if both else weekday}"
        try:
            CronSim(expression, datetime.now(UTC))
            weekdays = CronSim(f"0 0 * * {weekday}", datetime.now(UTC)) if both else None
        except CronSimError as error:
            raise ValueError(str(error)) from error
        is_wild = minute.startswith("*") or hour.startswith("*")
        return cls(zone=zone, expression=expression, weekdays=weekdays, is_wild=is_wild)

    def times(self, begin: float, end: float) -> list[float]:
        """Its Unix times from the last one that is not after `begin` up to `end`."""
        since, until = (datetime.fromtimestamp(t, self.zone).replace(tzinfo=None) for t in (begin, end))
        since, until = since - _FARTHEST, until + _FARTHEST
        names = [
            *islice(self._names(since, reverse=True), 1),
            *takewhile(lambda name: name <= until, self._names(since - timedelta(seconds=1))),
        ]
        found = sorted({t for name in names for t in self._moments(name)})
        return found[max(0, bisect_right(found, begin) - 1) : bisect_right(found, end)]

    def _names(self, since: datetime, *, reverse: bool = False) -> Iterator[datetime]:
        """The local times it names, after or before one, as if no clock were ever changed."""
        for name in CronSim(self.expression, since, reverse=reverse):
            if self.weekdays is None or self.weekdays.match_dow(name.date()):
                yield name

    def _moments(self, name: datetime) -> Sequence[float]:
        """When a local time is, by the rule."""
        while not (passes := self._passes(name)):
            if self.is_wild:
                return ()
            # No zone's gap ends within a minute.
            name += _MINUTE
        return passes if self.is_wild else passes[:1]

    def _passes(self, name: datetime) -> list[float]:
        """When a clock in the zone shows a local time: once, twice, or never."""
        moments = [name.replace(tzinfo=self.zone, fold=fold).astimezone(UTC) for fold in (0, 1)]
        return [t.timestamp() for t in moments if t.astimezone(self.zone).replace(tzinfo=None, fold=0) == name]


def _field(text: Json, least: int, most: int, names: Sequence[str] = ()) -> str:
    """One of Celery's fields as cron writes it: names become numbers, and what wraps around becomes a list."""
    return ",".join(_part(part, least, most, names) for part in str(text).split(","))


def _part(part: str, least: int, most: int, names: Sequence[str]) -> str:
    span, slash, step = part.partition("/")
    if span == "*":
        return part
    ends = [_number(end, least, names) for end in span.split("-")]
    if ends[0] <= ends[-1]:
        return "-".join(map(str, ends)) + slash + step
    wrapped = [*range(ends[0], most + 1), *range(least, ends[-1] + 1)]
    return ",".join(map(str, wrapped[:: int(step or 1)]))


def _number(text: str, least: int, names: Sequence[str]) -> int:
    name = text[:3].lower()
    return least + names.index(name) if name in names else int(text)
