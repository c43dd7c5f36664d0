"""The journals of beat: its history is read from them."""

import json
import mmap
import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.audit.beat.beat_history import Period, Rules, Shadowed, Start, Tick, Unsent, Wake
from harness.records.event import Died, Embedded, Event, Intended, Kind, Opened, Ready, Schedule, Settings, Woke
from harness.records.event import Unsent as UnsentLine
from harness.records.journal import Tail
from harness.records.regular_file import open_regular
from harness.records.values import Json

_LONGEST_FIRST_LINE_BYTES = 1 << 20
"""The most bytes of a first line. It says who writes the file, and is short. A longer one counts as damaged, so that a
file without line ends does not fill the memory."""
_SILENCE_S = 10.0
"""The time, in seconds, for which a worker may take tasks after its beat should have woken. A wake may be this late on
a busy machine. A shorter time would call such a beat dead; a longer one would miss one that died shortly before the end
of the run."""
_OF_BEAT = re.compile(rb'"kind":\s*"(?:embedded|schedule|woke|unsent)"|"schedule":\s*\[')
_RECEIVED = f'"{Kind.RECEIVED.value}"'.encode()


def read(journal: Path, without_beat: Collection[Path] = frozenset()) -> tuple[list[Start], list[str]]:
    """Read every start of beat from a folder of journals, in order; return them and the faults of the files.

    A worker with a beat of its own writes beat's lines to its own file, or beat's process writes a file as a worker. Of
    the files in `without_beat`, only the first line is read, unless it says that beat wrote the file.
    """
    starts: list[Start] = []
    faults: list[str] = []
    for path in sorted(journal.glob("*.jsonl")):
        try:
            if not _is_of_beat(path, is_searched=path not in without_beat):
                continue
            tail = Tail(path)
            starts.append(_start(tail.read(), len(starts), path))
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


def _is_of_beat(path: Path, *, is_searched: bool) -> bool:
    """Return whether beat wrote in a file, by its first line or any other; by its name if the first line is damaged."""
    with open_regular(path) as file:
        first = file.readline(_LONGEST_FIRST_LINE_BYTES)
        try:
            if json.loads(first)["role"] == "beat":
                return True
        except (ValueError, KeyError, TypeError, RecursionError):
            if path.name.startswith("beat"):
                return True
        if not first or not is_searched:
            return False
        # The journal of a busy worker is long, and most workers have no beat.
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            return _OF_BEAT.search(text) is not None


@dataclass(kw_only=True)
class _Reading:
    """The state while one file is read."""

    number: int
    node: str = ""
    is_embedded: bool = False
    parent: int | None = None
    told_at: float = 0.0
    """The time of beat's next planned wake, by the journal's clock; before any wake, of the line `embedded`."""
    changes: list[tuple[float, float, Rules]] = field(default_factory=list)
    """The schedules in order, each as the last time of the one before, its own first time, and its rules."""
    timezone: str = "UTC"
    ready_at: float | None = None
    wakes: list[Wake] = field(default_factory=list)
    ticks: list[Tick] = field(default_factory=list)
    pending: list[Event] = field(default_factory=list)
    """Sends of a wake whose end was not read yet."""
    intended: list[str | None] = field(default_factory=list)
    accepted: set[str | None] = field(default_factory=set)
    failures: list[Unsent] = field(default_factory=list)
    shadowed: list[Shadowed] = field(default_factory=list)
    error: str | None = None

    def take(self, event: Event) -> None:
        """Process one line. Raises KeyError, TypeError or ValueError if beat does not write such a line."""
        if event.kind is Kind.OPENED:
            self.is_embedded |= event.of(Opened).get("role") == "worker"
        elif event.kind is Kind.ACCEPTED:
            self.accepted.add(event.task)
        elif event.kind is Kind.INTENDED and "entry" in event.of(Intended):
            self.pending.append(event)
            self.intended.append(event.task)
        elif event.kind is Kind.READY and not self.is_embedded:
            # In the file of a worker, it is the worker that is ready.
            self.ready_at = float(event.of(Ready)["at"])
        elif event.kind is Kind.UNSENT:
            unsent = event.of(UnsentLine)
            self.failures.append(
                Unsent(
                    entry=str(unsent["entry"]),
                    at=float(unsent["at"]),
                    reason=str(unsent.get("reason", "no reason told")),
                )
            )
        elif event.kind is Kind.DIED:
            self.error = str(event.of(Died).get("error", "an error"))
        else:
            self._take_plan(event)
        self.node = event.node

    def _take_plan(self, event: Event) -> None:
        if event.kind is Kind.EMBEDDED:
            self.is_embedded, self.parent, self.told_at = True, int(event.of(Embedded)["parent"]), event.t
        elif event.kind is Kind.SETTINGS and "schedule" in (settings := event.of(Settings)):
            self.timezone = str(settings.get("timezone", "UTC"))
            self._change(0.0, 0.0, settings["schedule"])
            self.shadowed += [_shadowed(one) for one in settings.get("shadowed", ())]
            if self.is_embedded:
                self.ready_at = float(settings["at"]) if "at" in settings else None
        elif event.kind is Kind.SCHEDULE:
            new = event.of(Schedule)
            self._change(float(new["until"]), float(new["at"]), new["schedule"])
        elif event.kind is Kind.WOKE:
            self._wake(event)

    def _change(self, until: float, at: float, schedule: Iterable[Mapping[str, Json]]) -> None:
        # A zone in the entry itself takes precedence.
        zone = {"timezone": self.timezone}
        self.changes.append((until, at, {str(one["entry"]): zone | dict(one) for one in schedule}))

    def _wake(self, event: Event) -> None:
        wake = Wake.of(event.of(Woke))
        self.wakes.append(wake)
        self.ticks += [self._tick(sent, wake) for sent in self.pending]
        self.pending.clear()
        if self.is_embedded and self.ready_at is None:
            self.ready_at = wake.at
        # Beat's clock may differ from the journal's, but runs at the same speed where a worker is there.
        self.told_at = event.t + max(wake.next - wake.end, 0.0)

    def done(self, path: Path) -> Start:
        """Return the start of beat that was read from the file."""
        # Of a wake that beat did not live to report, only the ticks are known.
        untold = [self._tick(sent, None) for sent in self.pending]
        # It may have ended before it could report the last acceptance.
        unsent = sum(task not in self.accepted for task in self.intended[:-1])
        known = Start(
            number=self.number,
            node=self.node,
            periods=(),
            ready_at=self.ready_at,
            wakes=self.wakes,
            ticks=[*self.ticks, *untold],
            unsent=unsent,
            failures=self.failures,
            shadowed=self.shadowed,
            error=self.error,
            is_embedded=self.is_embedded,
            silent_s=self._silent_s(path),
        )
        return replace(known, periods=self._periods(known))

    def _periods(self, known: Start) -> list[Period]:
        changes = self.changes or [(0.0, 0.0, {})]
        begins = [known.begin, *(at for _, at, _ in changes[1:])]
        ends = [*(until for until, _, _ in changes[1:]), known.end]
        return [
            Period(rules=rules, begin=begin, end=end)
            for (_, _, rules), begin, end in zip(changes, begins, ends, strict=True)
        ]

    def _silent_s(self, path: Path) -> float | None:
        if not self.is_embedded or not self.told_at:
            return None
        last_t = _last_received_t(_file_of(path, self.node, self.parent))
        return None if last_t is None or last_t <= self.told_at + _SILENCE_S else last_t - self.told_at

    def _tick(self, sent: Event, wake: Wake | None) -> Tick:
        data = sent.of(Intended)
        at, following = float(data["at"]), data.get("following")
        return Tick(
            entry=str(data["entry"]),
            at=at,
            wake=Wake(at=at, end=at, next=at) if wake is None else wake,
            start=self.number,
            period=max(len(self.changes) - 1, 0),
            following=None if following is None else (float(following[0]), float(following[1])),
        )


def _start(events: Iterable[Event], number: int, path: Path) -> Start:
    reading = _Reading(number=number)
    for event in events:
        reading.take(event)
    return reading.done(path)


def _shadowed(said: Mapping[str, Json]) -> Shadowed:
    return Shadowed(
        entry=str(said["entry"]), lost=str(said["lost"]), kept=str(said["kept"]), named=bool(said.get("named"))
    )


# ------------------------------------------------------------------------------------ the worker that a beat lives in


def _file_of(path: Path, node: str, parent: int | None) -> Path:
    """Return the journal of the worker that beat lived in: the last one of its process id opened before beat's."""
    if parent is None:
        return path
    born = _born(path)
    files = [one for one in path.parent.glob(f"{node}.{parent}.*.jsonl") if _born(one) <= born]
    return max(files, key=_born, default=path)


def _born(path: Path) -> int:
    """Return when a journal was opened, in nanoseconds, from its name; 0 if the name does not say."""
    number = path.name.removesuffix(".jsonl").rpartition(".")[2]
    return int(number) if number.isdigit() else 0


def _last_received_t(path: Path) -> float | None:
    """Return when a worker last received a task; None if never.

    Later lines of other kinds may belong to the worker's own end, which ends beat first.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        end = len(text)
        while (found := text.rfind(_RECEIVED, 0, end)) >= 0:
            end = text.rfind(b"\n", 0, found) + 1
            text.seek(end)
            with suppress(ValueError, KeyError, TypeError):
                line = json.loads(text.readline())
                if line["kind"] == Kind.RECEIVED:
                    return float(line["t"])
    return None
