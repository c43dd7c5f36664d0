"""The records of ticks, one per schedule entry, as they stand in audit.json."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, tzinfo

from harness.records.values import Json
from harness.records.verdict import Finding

FIRST = 10
"""The number of times, or of entries, that a record or a text names. The count stands beside them, so that audit.json
stays short for an entry of every minute."""


@dataclass(frozen=True, kw_only=True)
class Times:
    """Several points in time."""

    count: int
    first: tuple[str, ...]
    """The first of these times, at most ten, in ISO format with the offset of the entry's zone."""

    @classmethod
    def of(cls, times: Iterable[float], zone: tzinfo) -> "Times":
        """Return the record of Unix times in seconds."""
        every = sorted(times)
        return cls(count=len(every), first=tuple(_iso(t, zone) for t in every[:FIRST]))

    def __str__(self) -> str:
        """Return the text for a finding."""
        return ", ".join(self.first) + (f" and {self.count - FIRST} more" if self.count > FIRST else "")

    def to_json(self) -> dict[str, Json]:
        """Return it as it stands in audit.json."""
        return {"count": self.count, "first": list(self.first)}

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> "Times":
        """Read the result of `to_json`. Raises ValueError, TypeError or KeyError on anything else."""
        return cls(count=int(value["count"]), first=tuple(str(one) for one in value["first"]))


LISTS = ("missing", "doubled", "late", "early", "delayed", "doubtful", "unproven", "unscheduled")


_NO_TIMES: dict[str, Json] = {"count": 0, "first": []}


@dataclass(frozen=True, kw_only=True)
class EntryTicks:
    """The ticks of one entry of the schedule, while beat was watched."""

    entry: str
    rule: str
    expected: int | None
    """The number of due times; None if it cannot be calculated."""
    sent: int
    missing: Times
    """Due times without a tick."""
    doubled: Times
    """Due times with more than one tick; of an interval, the times of the extra ticks."""
    late: Times
    """Due times whose tick was more than a minute late, without beat being held up for as long."""
    early: Times
    """The times of ticks that were sent before they were due."""
    delayed: Times
    """Due times whose tick was late as in `late`, while beat was held up for as long."""
    doubtful: Times
    """Due times whose tick was late as in `late`, while planning may have held beat up, which was not journaled."""
    unproven: Times
    """Due times without a tick while beat was held up so long that the schedule may not be at fault."""
    unscheduled: Times
    """Due times at which the entry was not in the schedule, though it was before and after."""
    reasons: tuple[str, ...] = ()
    """The reasons that beat gave when it could not send the entry, each once."""
    lateness_s: Mapping[str, float]
    """Seconds from due to sent, at least 0: p50, p99, max; empty without ticks that were due."""

    def to_json(self) -> dict[str, Json]:
        """Return it as it stands in audit.json."""
        lists = {name: getattr(self, name).to_json() for name in LISTS}
        return {**asdict(self), **lists, "lateness_s": dict(self.lateness_s), "reasons": list(self.reasons)}

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> "EntryTicks":
        """Read the result of `to_json`. Raises ValueError, TypeError or KeyError on anything else."""
        return cls(
            entry=str(value["entry"]),
            rule=str(value["rule"]),
            expected=None if value["expected"] is None else int(value["expected"]),
            sent=int(value["sent"]),
            lateness_s={str(name): float(seconds) for name, seconds in value["lateness_s"].items()},
            reasons=tuple(str(one) for one in value.get("reasons", ())),
            # An older version may have written fewer members.
            **{name: Times.from_json(value.get(name, _NO_TIMES)) for name in LISTS},
        )


@dataclass(frozen=True, kw_only=True)
class Ticks:
    """The audit of beat's schedule."""

    entries: tuple[EntryTicks, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True, kw_only=True)
class Window:
    """The days of a time-lapse, as Unix times in seconds; due times outside do not count."""

    begin_t: float
    end_t: float

    def holds(self, t: float) -> bool:
        """Return whether a time is in the window; its end is not."""
        return self.begin_t <= t < self.end_t


def _iso(t: float, zone: tzinfo) -> str:
    """Return the local time with its offset, without seconds if they are zero."""
    moment = datetime.fromtimestamp(round(t, 3), zone)
    return moment.isoformat(timespec="seconds" if moment.second or moment.microsecond else "minutes")
