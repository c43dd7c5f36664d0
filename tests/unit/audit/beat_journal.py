"""Writes what beat would write to its journal, for tests."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

BERLIN = ZoneInfo("Europe/Berlin")
HOUR, DAY = 3_600.0, 86_400.0
FIELDS = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")


def at(text: str) -> float:
    """Local time in Berlin, or with an offset, as Unix time."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=BERLIN)).timestamp()


def crontab(*fields: str, timezone: str = "Europe/Berlin") -> dict[str, Any]:
    every = (*fields, *"*" * (len(FIELDS) - len(fields)))
    return {"kind": "crontab", **dict(zip(FIELDS, every, strict=True)), "timezone": timezone}


def interval(every_s: float, *, relative: bool = False) -> dict[str, Any]:
    return {"kind": "interval", "every_s": every_s, "relative": relative}


@dataclass
class Beat:
    """Writes the journal of one process of beat."""

    folder: Path
    name: str = "beat-1"
    pid: int = 1
    role: str = "beat"
    """`worker` of a beat that lives in one."""
    lines: list[dict[str, Any]] = field(default_factory=list)

    def say(self, kind: str, **data: Any) -> None:
        self.lines.append({"t": 0.0, "kind": kind, **data})

    def open(self) -> None:
        """Write the first line, unless it is there."""
        if not self.lines:
            self.say("opened", node=self.name, pid=self.pid, role=self.role, format=1)

    def wake(self, at: float) -> dict[str, Any]:
        """Return the line of the first wake that is not before a time."""
        return next(line for line in self.lines if line["kind"] == "woke" and line["at"] >= at)

    def sent(self, at: float) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the line of the first tick that was sent at a time or later, and that of its wake."""
        number, tick = next(
            (number, line) for number, line in enumerate(self.lines) if line["kind"] == "intended" and line["at"] >= at
        )
        return tick, next(line for line in self.lines[number:] if line["kind"] == "woke")

    def change(self, t: float, rules: Mapping[str, Mapping[str, Any]]) -> None:
        """Its schedule is another from the first wake on that is not before a time."""
        wake = self.wake(t)
        schedule = [{"entry": entry, "name": "tick", **rule} for entry, rule in rules.items()]
        line = {"t": 0.0, "kind": "schedule", "until": wake["at"], "at": wake["at"] + 0.0005, "schedule": schedule}
        self.lines.insert(self.lines.index(wake), line)
        self.write()

    def live(
        self,
        begin: float,
        end: float,
        rules: Mapping[str, Mapping[str, Any]],
        ticks: Mapping[str, Iterable[float]],
        stall: tuple[float, float] = (0.0, 0.0),
    ) -> Path:
        """Wake every five minutes and for every tick; what falls into the stall happens at its end.

        In more than two days it wakes more rarely, or it would write too much.
        """
        schedule = [{"entry": entry, "name": "tick", **rule} for entry, rule in rules.items()]
        self.open()
        self.say("settings", timezone="Europe/Berlin", at=begin, schedule=schedule)
        if self.role == "beat":
            self.say("ready", at=begin)
        planned = [(t, entry) for entry, times in ticks.items() for t in times]
        nap_s = max(300.0, (end - begin) / 600)
        naps = [(begin + nap_s * number, "") for number in range(int((end - begin) // nap_s) + 1)]
        moments = sorted([*planned, *naps, (end, "")])
        for (planned_t, entry), (next_t, _) in zip(moments, [*moments[1:], (end + 300.0, "")], strict=True):
            t = stall[1] if stall[0] < planned_t < stall[1] else planned_t
            if entry:
                task = f"{self.name}-{self.pid}-{len(self.lines)}"
                self.say("intended", task=task, name="tick", entry=entry, at=t + 0.001)
                self.say("accepted", task=task, confirmed=False)
                self.say("woke", at=t, took_s=0.002, next=t + 0.002)
            self.say("woke", at=t + 0.003 * bool(entry), took_s=0.001, next=max(next_t, t + 0.004))
        return self.write()

    def die(self) -> None:
        """End the journal right after its last tick, as a kill does."""
        while self.lines[-1]["kind"] != "accepted":
            del self.lines[-1]
        self.write()

    def write(self) -> Path:
        path = self.folder / f"{self.name}.{self.pid}.1.jsonl"
        path.write_text("".join(json.dumps({**line, "n": n}) + "\n" for n, line in enumerate(self.lines)))
        return path


def every(step_s: float, begin: float, end: float) -> list[float]:
    """All multiples of a step, from `begin` to before `end`."""
    first = -(-begin // step_s) * step_s
    return [first + step_s * number for number in range(int((end - first - 1e-9) // step_s) + 1)]
