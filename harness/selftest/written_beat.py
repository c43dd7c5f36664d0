"""Writes the journal of a beat that lives through a day by the book, so that a defect of one tick can be planted in it.

A real beat's ticks depend on how busy the machine is: where beat itself was kept, a missing tick proves nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise

from harness.records.event import Kind
from harness.records.values import Json
from harness.selftest.evidence import Evidence, Line

HOUR_S = 3_600.0
_NAP_S = 300.0
"""The longest sleep of beat, in seconds."""
BEGIN_T = datetime(2026, 11, 10, 11, 10, tzinfo=UTC).timestamp()
"""When a day by the book begins."""
END_T = BEGIN_T + 12 * HOUR_S
_ANY = dict.fromkeys(("hour", "day_of_month", "month_of_year", "day_of_week"), "*")
HOURLY: Line = {"kind": "crontab", "minute": "0", **_ANY, "timezone": "UTC"}


def o_clock(hour: int) -> float:
    """Return a full hour of the day, Unix time in seconds."""
    return datetime(2026, 11, 10, hour, tzinfo=UTC).timestamp()


def hours(*without: int) -> list[float]:
    """Return the full hours of the day, but for some."""
    return [o_clock(hour) for hour in range(12, 24) if hour not in without]


@dataclass(kw_only=True)
class WrittenBeat:
    """One process of beat with one entry, `it`. Its tasks run, and leave no row."""

    evidence: Evidence
    pid: int = 101
    begin_t: float = BEGIN_T
    end_t: float = END_T
    rule: Mapping[str, Json] = field(default_factory=lambda: HOURLY)
    ticks: Iterable[float] = field(default_factory=hours)
    """When it sends, Unix time in seconds."""
    stall: tuple[float, float] = (0.0, 0.0)
    """From when until when it was kept. What it was to do meanwhile, it does at the end."""

    def write(self) -> list[Line]:
        """Add its journal and that of its tasks; return its lines, which may be changed."""
        evidence = self.evidence
        file = evidence.open("beat-1", self.pid, "beat")
        if "beat-1" not in evidence.run["nodes"]:
            evidence.run["nodes"].append("beat-1")
        worker = evidence.open("worker-1", 1_000 + self.pid, "worker")
        schedule = [{"entry": "it", "name": "tick", **self.rule}]
        evidence.say(file, Kind.SETTINGS, timezone="UTC", at=self.begin_t, schedule=schedule)
        evidence.say(file, Kind.READY, at=self.begin_t)
        for (planned_t, is_tick), (next_t, _) in pairwise(self._moments()):
            t = self.stall[1] if self.stall[0] < planned_t < self.stall[1] else planned_t
            if is_tick:
                task = f"tick-{self.pid}-{len(evidence.journal[file])}"
                evidence.say(file, Kind.INTENDED, task, name="tick", entry="it", at=t + 0.001)
                evidence.say(file, Kind.ACCEPTED, task, confirmed=True)
                evidence.say(worker, Kind.STARTED, task, name="tick", retries=0, redelivered=False)
                evidence.say(worker, Kind.FINISHED, task, state="SUCCESS", ignored=True)
                evidence.say(file, Kind.WOKE, at=t, took_s=0.002, next=t + 0.002)
            evidence.say(file, Kind.WOKE, at=t + 0.003 * is_tick, took_s=0.001, next=max(next_t, t + 0.004))
        return evidence.journal[file]

    def _moments(self) -> list[tuple[float, bool]]:
        """Return when it wakes, and whether it sends then: for each tick, every five minutes, and at the end."""
        naps = int((self.end_t - self.begin_t) // _NAP_S)
        moments = [(self.begin_t + _NAP_S * number, False) for number in range(naps + 1)]
        moments += [(self.end_t, False), *((t, True) for t in self.ticks)]
        return [*sorted(moments), (self.end_t + _NAP_S, False)]


def reschedule(lines: list[Line], t: float, *rules: Mapping[str, Json]) -> None:
    """Change the schedule of a beat from its first wake after a time on: to `it` with a rule, or to nothing."""
    number, wake = next(
        (number, line) for number, line in enumerate(lines) if line["kind"] == "woke" and line["at"] >= t
    )
    schedule = [{"entry": "it", "name": "tick", **rule} for rule in rules]
    at = float(wake["at"])
    line = {"t": wake["t"], "kind": "schedule", "until": at, "at": at + 0.0005, "schedule": schedule}
    lines.insert(number, line)


def as_timelapse(evidence: Evidence, begin_t: float = BEGIN_T + 60.0, end_t: float = END_T - 60.0) -> None:
    """Let the run be a time-lapse of these days."""
    evidence.run["timelapse"] = {"from_t": begin_t, "to_t": end_t}


def wake_of(lines: Sequence[Line], t: float) -> Line:
    """Return the wake in which the first tick at or after a time was sent."""
    number = next(n for n, line in enumerate(lines) if line["kind"] == "intended" and line["at"] >= t)
    return next(line for line in lines[number:] if line["kind"] == "woke")
