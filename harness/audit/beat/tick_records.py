"""The records of ticks: how each entry of a schedule ticked, as it stands in audit.json."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, tzinfo

from harness.records.values import Json
from harness.records.verdict import Finding

FIRST = 10
"""How many of many things are named."""


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
        return cls(count=len(every), first=tuple(_iso(t, zone) for t in every[:FIRST]))

    def __str__(self) -> str:
        """As a finding names them."""
        return ", ".join(self.first) + (f" and {self.count - FIRST} more" if self.count > FIRST else "")

    def to_json(self) -> dict[str, Json]:
        """As it stands in audit.json."""
        return {"count": self.count, "first": list(self.first)}

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> "Times":
        """The times that `to_json` wrote. Raises ValueError, TypeError or KeyError on anything else."""
        return cls(count=int(value["count"]), first=tuple(str(one) for one in value["first"]))


LISTS = ("missing", "doubled", "late", "early", "delayed", "doubtful", "unproven", "unscheduled")


_NO_TIMES: dict[str, Json] = {"count": 0, "first": []}


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
    doubtful: Times
    """As `late`, but beat may have been kept for as long when it planned them, which nobody saw."""
    unproven: Times
    """As `missing`, but something kept beat for so long that it may not be the schedule's fault."""
    unscheduled: Times
    """When it was due and not in the schedule, though it was before and is again after."""
    reasons: tuple[str, ...] = ()
    """What beat said when it could not send it, each once."""
    lateness_s: Mapping[str, float]
    """Seconds from due to sent: p50, p99, max; empty if nothing was sent in time."""

    def to_json(self) -> dict[str, Json]:
        """As it stands in audit.json."""
        lists = {name: getattr(self, name).to_json() for name in LISTS}
        return {**asdict(self), **lists, "lateness_s": dict(self.lateness_s), "reasons": list(self.reasons)}

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> "EntryTicks":
        """The record that `to_json` wrote. Raises ValueError, TypeError or KeyError on anything else."""
        return cls(
            entry=str(value["entry"]),
            rule=str(value["rule"]),
            expected=None if value["expected"] is None else int(value["expected"]),
            sent=int(value["sent"]),
            lateness_s={str(name): float(seconds) for name, seconds in value["lateness_s"].items()},
            reasons=tuple(str(one) for one in value.get("reasons", ())),
            # Who wrote it may have known less than this.
            **{name: Times.from_json(value.get(name, _NO_TIMES)) for name in LISTS},
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


def _iso(t: float, zone: tzinfo) -> str:
    """Local time with its offset, without the seconds where they are none."""
    moment = datetime.fromtimestamp(round(t, 3), zone)
    return moment.isoformat(timespec="seconds" if moment.second or moment.microsecond else "minutes")
