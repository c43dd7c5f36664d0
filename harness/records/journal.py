"""The journal: append-only JSON lines, one file per process. Runs in every container: standard library only.

A line is one `write` to a file opened with O_APPEND, so a SIGKILL of the process loses no line that was written: the
kernel has it. Lines are numbered. A line that could not be written leaves a gap in the numbers, so the reader sees
that the journal is incomplete.

The first line of a file names the writer: ``{"n": 0, "t": ..., "kind": "opened", "node": ..., "pid": ...,
"role": ..., "format": 1}``. Every other line has `n`, `t`, `kind` and, if it is about a task, `task`.
"""

import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from harness.errors import JournalError
from harness.records.event import MEMBERS, Event, Kind
from harness.records.regular_file import open_regular
from harness.records.values import Json

FORMAT = 1
HIGHEST = 1_000_000_000
"""The highest line number accepted. No process writes more lines."""
LATEST_T = 1e11
"""The latest time of a clock that is accepted, Unix time in seconds, in the year 5138. No node's clock shows a later
one."""
CALENDAR_T = (-62_135_596_800.0, 253_402_300_799.0)
"""The first and the last second of Python's calendar, in the years 1 and 9999, as Unix times. An app may say "never" by
the last one."""
TIME_BOUNDS = MappingProxyType({"latest_t": LATEST_T, "first_date": CALENDAR_T[0], "last_date": CALENDAR_T[1]})
"""The same as parameters of the queries that read journal lines."""
KINDS = frozenset(kind.value for kind in Kind)
TASKLESS = KINDS - {
    *(Kind.INTENDED, Kind.EXPECTED, Kind.ACCEPTED, Kind.REFUSED, Kind.UNKNOWN),
    *(Kind.COMMITTED, Kind.RECEIVED, Kind.STARTED, Kind.FINISHED, Kind.RETRIED, Kind.REVOKED, Kind.ERRBACK),
}
"""The kinds of lines that need no task."""
_MOST_GAPS = 100_000
_DATES = ("due", "expires", "eta")
_TIMES = ("at", "until", "next")
_DURATIONS = ("store_s", "since_store_s", "took_s", "planned_s")
_TEXTS = ("node", "role", "name", "entry", "state", "error", "reason")
encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
"""Encodes a value for a line. Raises TypeError, ValueError or RecursionError if it is not JSON."""


class Writer:
    """A writer of the current process's journal; after a fork, the child writes its own file.

    Threads may share a writer: one counter numbers the lines, and one `write` is one line.
    """

    def __init__(
        self, folder: str | os.PathLike[str], *, node: str, role: str, now: Callable[[], float] = time.time
    ) -> None:
        """Prepare to write to ``folder/<node>.<pid>.<nanoseconds>.jsonl``; the first line creates the file.

        Args:
            folder: an existing directory that this process can write to.
            node: the name of the node, unique within its stack.
            role: the role of the process: `producer`, `worker`, `beat`, `mailbox` or another.
            now: returns the time stamp of a line, Unix time in seconds.
        """
        self._folder = Path(folder)
        self._node = node
        self._role = role
        self._now = now
        self._pid = -1
        self._fd = -1
        self._numbers = itertools.count()
        self._torn = False

    def write(self, kind: Kind, task: str | None = None, **data: Json) -> None:
        """Append one line, stamped with the current time.

        Args:
            kind: what happened.
            task: the id of the task that it is about.
            data: the members that such a line has; see `harness.records.event.LINES`.

        Raises:
            TypeError: such a line has no such member.
            JournalError: the line could not be written (a full disk, a folder that is gone, a value that is not JSON).
        """
        if not data.keys() <= MEMBERS[kind] and kind is not Kind.SETTINGS:
            raise TypeError(f"a line {kind.value!r} has no member {', '.join(sorted(data.keys() - MEMBERS[kind]))}")
        if os.getpid() != self._pid:
            self._open()
        self._append(kind, task, data)

    def close(self) -> None:
        """Close the file of this process; a later `write` opens a new one."""
        if self._fd >= 0 and os.getpid() == self._pid:
            os.close(self._fd)
        self._fd = self._pid = -1

    def _open(self) -> None:
        # A forked child inherits its parent's descriptor. It stays open here, because another thread of the child may
        # be in `write`.
        pid = os.getpid()
        path = self._folder / f"{self._node}.{pid}.{time.time_ns()}.jsonl"
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise JournalError(f"cannot open the journal {path}: {error}") from error
        self._pid, self._numbers, self._torn = pid, itertools.count(), False
        self._append(Kind.OPENED, None, {"node": self._node, "pid": pid, "role": self._role, "format": FORMAT})

    def _append(self, kind: Kind, task: str | None, data: dict[str, Json]) -> None:
        entry: dict[str, Json] = {"t": self._now(), "kind": kind.value}
        if task is not None:
            entry["task"] = task
        entry.update(data)
        try:
            said = encode(entry)
        except (TypeError, ValueError, RecursionError) as error:
            raise JournalError(f"the journal of {self._node} cannot say {kind.value!r}: {error}") from error
        # A number is used only for a line that is about to be written, so a number without a line is a lost line.
        line = f'{{"n":{next(self._numbers)},{said[1:]}\n'.encode()
        if self._torn:
            # The remainder of a failed write must not damage this line too.
            line = b"\n" + line
        try:
            written = os.write(self._fd, line)
        except OSError as error:
            self._torn = True
            raise JournalError(f"cannot write to the journal of {self._node}: {error}") from error
        self._torn = written != len(line)
        if self._torn:
            raise JournalError(f"only {written} of {len(line)} bytes went into the journal of {self._node}: disk full?")


@dataclass
class Tail:
    """A follower of one journal file: each `read` returns the events that were added since the last one."""

    path: Path
    damaged: int = 0
    """Lines seen so far that are not JSON, not a journal line, or have a number that was seen before."""
    missing: int = 0
    """Numbers below the highest seen that no line has."""
    torn: bool = False
    """True if the file ends within a line; its process may still write the rest."""
    _offset: int = 0
    _highest: int = -1
    _gaps: set[int] = field(default_factory=set)
    """Numbers below the highest that were not seen yet; a jump over more than 100,000 is not kept."""
    _node: str = field(init=False)
    _pid: int = field(init=False)

    def __post_init__(self) -> None:
        """Take node and pid from the file's name until the first line gives them."""
        node, pid, _ = (*self.path.name.rsplit(".", 3), "", "", "")[:3]
        self._node, self._pid = node, int(pid) if pid.isdigit() else -1

    def read(self) -> list[Event]:
        """Return the complete lines since the last call as events, in file order; none if the file is gone."""
        try:
            with open_regular(self.path) as file:
                file.seek(self._offset)
                new = file.read()
        except FileNotFoundError:
            return []
        complete, newline, rest = new.rpartition(b"\n")
        self.torn = bool(rest)
        self._offset += len(complete) + len(newline)
        events = []
        for line in complete.split(b"\n") if newline else ():
            if not line:
                continue
            event = self._event(line)
            if event is None:
                self.damaged += 1
            else:
                events.append(event)
        return events

    def _event(self, line: bytes) -> Event | None:
        try:
            value = parsed(line)
        except ValueError:
            return None
        kind, t, n = Kind(value.pop("kind")), float(value.pop("t")), value.pop("n")
        if not self.takes(n):
            return None
        if kind is Kind.OPENED:
            self._node, self._pid = value["node"], value.get("pid", self._pid)
        task = value.pop("task", None)
        return Event(kind=kind, t=t, n=n, node=self._node, pid=self._pid, task=task, data=value)

    def first_gap(self) -> int | None:
        """Return the lowest missing number; None if there is none."""
        return min(self._gaps, default=None)

    def takes(self, n: int) -> bool:
        """Register a number; return False if it was seen before, or lies in a long gap: only its first is kept."""
        if n > self._highest:
            skipped = range(self._highest + 1, n)
            # A file that is read from its middle begins with any number; the lines before that are not searched for.
            self._gaps.update(skipped if len(skipped) <= _MOST_GAPS else skipped[:1])
            self.missing += len(skipped)
            self._highest = n
            return True
        if n not in self._gaps:
            return False
        self._gaps.remove(n)
        self.missing -= 1
        return True


def parsed(line: bytes) -> dict[str, Json]:
    """Parse a line of a journal.

    Raises:
        ValueError: it is not a journal line; the message says why.
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError("it is no JSON") from error
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 - a ValueError, as for every invalid line.
    kind, n, t, task = (value.get(name) for name in ("kind", "n", "t", "task"))
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"its kind is {kind!r}, which this version does not know")
    if type(n) is not int or not 0 <= n <= HIGHEST:
        raise ValueError(f"its number is {n!r}")
    if isinstance(t, bool) or not isinstance(t, int | float) or not 0 <= t <= LATEST_T:
        raise ValueError(f"its time is {t!r}")
    if wrong := _absurd(value):
        raise ValueError(f"its {wrong} is {value[wrong]!r}, which is no time")
    if not isinstance(task, str) and not (task is None and kind in TASKLESS):
        raise ValueError(f"its task is {task!r}")
    if wrong := next((name for name in _TEXTS if not isinstance(value.get(name, ""), str | None)), None):
        raise ValueError(f"its {wrong} is no text")
    if lacks := _lacks(value):
        raise ValueError(lacks)
    return value


def _absurd(value: dict[str, Json]) -> str | None:
    """Return which time or duration of a line no clock or calendar can have shown; None if there is none.

    Whoever needs such a member refuses what is no number. A duration is below 0 if the clock was set back meanwhile.
    """
    for names, (least, most) in (
        (_DATES, CALENDAR_T),
        (_TIMES, (0.0, LATEST_T)),
        (_DURATIONS, (-LATEST_T, LATEST_T)),
    ):
        for name in names:
            if isinstance(one := value.get(name), int | float) and not least <= one <= most:
                return name
    return None


def first_fault(path: Path) -> tuple[int, str] | None:
    """Find the first invalid line of a journal file, and say what is wrong; None if all lines are valid.

    The last line may be incomplete.

    Returns:
        The line's number in the file, from 1, and the reason.

    Raises:
        OSError: it is not a regular file, or cannot be read.
    """
    tail = Tail(path)
    with open_regular(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break
            try:
                n = parsed(line)["n"]
            except ValueError as error:
                if line.strip():
                    return number, str(error)
                continue
            if not tail.takes(n):
                return number, f"its number {n} has come before"
    return (lost + 1, f"no line has the number {lost}") if (lost := tail.first_gap()) is not None else None


def _lacks(value: dict[str, Json]) -> str | None:
    """Return which required member of its kind a line lacks; None if it lacks none."""
    if value["kind"] == Kind.OPENED:
        if value["n"] or not isinstance(value.get("node"), str):
            return "it does not say at the file's begin who writes it"
        if value.get("format", FORMAT) != FORMAT:
            return f"its format is {value['format']!r}, and this version reads {FORMAT}"
    if value["kind"] == Kind.FINISHED and not isinstance(value.get("state"), str):
        return "it does not say its state"
    if not isinstance(value.get("expect", {}), dict):
        return "its expectation is no JSON object"
    return None


class Follower:
    """A follower of every journal file in a folder, including files that appear later."""

    def __init__(self, folder: Path) -> None:
        """Remember the folder; `read` opens the files."""
        self._folder = folder
        self._tails: dict[Path, Tail] = {}

    def read(self) -> list[Event]:
        """Return the events added since the last call: in order within a file, one file after another."""
        for path in sorted(self._folder.glob("*.jsonl")):
            self._tails.setdefault(path, Tail(path))
        return [event for tail in self._tails.values() for event in tail.read()]


def read(folder: Path) -> Iterator[Event]:
    """Return every event in a folder of journals, file by file. Skips damaged and torn lines."""
    yield from Follower(folder).read()
