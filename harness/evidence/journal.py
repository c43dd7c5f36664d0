"""The journal: append-only JSON lines, one file a process. Standard library alone; it runs in every container.

A line is one `write` to a file opened with O_APPEND, so a SIGKILL of the process loses no line that was
written: the kernel has it. Lines are numbered; a line that could not be written leaves a gap in the numbers
and the reader sees that the witness is incomplete.

A file's first line says who writes: ``{"n": 0, "t": ..., "kind": "opened", "node": ..., "pid": ...,
"role": ..., "format": 1}``. Every other line carries `n`, `t`, `kind` and, when it is about a task, `task`.
"""

import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import JournalError
from harness.evidence.records import Event, Json, Kind

FORMAT = 1
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class Writer:
    """Writes the journal of the current process; after a fork, the child writes a file of its own.

    Threads may share a writer: numbers come from one counter, and one `write` is one line.
    """

    def __init__(
        self, folder: str | os.PathLike[str], *, node: str, role: str, now: Callable[[], float] = time.time
    ) -> None:
        """Lines go to ``folder/<node>.<pid>.<nanoseconds>.jsonl``, made at the first line.

        Args:
            folder: an existing directory that this process can write to.
            node: the name of the node, unique within its stack.
            role: `producer`, `worker`, `beat`, `mailbox` or what else the process is.
            now: what lines are stamped with, Unix time in seconds.
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

        Raises:
            JournalError: the line could not be written (a full disk, a folder that is gone, a value that is not JSON).
        """
        if os.getpid() != self._pid:
            self._open()
        self._append(kind, task, data)

    def close(self) -> None:
        """Close the file of this process; a later `write` opens a new one."""
        if self._fd >= 0 and os.getpid() == self._pid:
            os.close(self._fd)
        self._fd = self._pid = -1

    def _open(self) -> None:
        # A forked child inherits its parent's descriptor. It is left open: closing it here is not ours to do
        # while another thread of the child may be in `write`.
        pid = os.getpid()
        path = self._folder / f"{self._node}.{pid}.{time.time_ns()}.jsonl"
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise JournalError(f"cannot open the journal {path}: {error}") from error
        self._pid, self._numbers, self._torn = pid, itertools.count(), False
        self._append(Kind.OPENED, None, {"node": self._node, "pid": pid, "role": self._role, "format": FORMAT})

    def _append(self, kind: Kind, task: str | None, data: dict[str, Json]) -> None:
        entry: dict[str, Json] = {"n": next(self._numbers), "t": self._now(), "kind": kind.value}
        if task is not None:
            entry["task"] = task
        entry.update(data)
        try:
            line = _encode(entry).encode() + b"\n"
        except (TypeError, ValueError) as error:
            raise JournalError(f"the journal of {self._node} cannot say {kind.value!r}: {error}") from error
        if self._torn:
            # What a failed write left behind must not spoil this line too.
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
    """Follows one journal file: each `read` returns the events that were added since the one before."""

    path: Path
    damaged: int = 0
    """Lines seen so far that are no JSON, or no journal line."""
    missing: int = 0
    """Numbers below the highest seen that no line carries."""
    torn: bool = False
    """The file ends in the middle of a line (its process may still be about to write the rest)."""
    _offset: int = 0
    _seen: int = 0
    _highest: int = -1
    _node: str = field(init=False)
    _pid: int = field(init=False)

    def __post_init__(self) -> None:
        """Takes node and pid from the file's name until its first line says them."""
        node, pid, _ = (*self.path.name.rsplit(".", 3), "", "", "")[:3]
        self._node, self._pid = node, int(pid) if pid.isdigit() else -1

    def read(self) -> list[Event]:
        """The complete lines since the last call, as events, in the file's order; none if the file is gone."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                new = file.read()
        except FileNotFoundError:
            return []
        complete, newline, rest = new.rpartition(b"\n")
        self.torn = bool(rest)
        self._offset += len(complete) + len(newline)
        events = []
        for line in complete.splitlines() if newline else ():
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
            value = json.loads(line)
            kind, t, n = Kind(value.pop("kind")), float(value.pop("t")), int(value.pop("n"))
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        if kind is Kind.OPENED:
            self._node, self._pid = value.get("node", self._node), value.get("pid", self._pid)
        self._seen += 1
        self._highest = max(self._highest, n)
        self.missing = self._highest + 1 - self._seen
        task = value.pop("task", None)
        return Event(kind=kind, t=t, n=n, node=self._node, pid=self._pid, task=task, data=value)


class Follower:
    """Follows every journal file of a folder, also those that appear later."""

    def __init__(self, folder: Path) -> None:
        """Nothing is read until `read`."""
        self._folder = folder
        self._tails: dict[Path, Tail] = {}

    def read(self) -> list[Event]:
        """What all files gained since the last call; in order within a file, files one after another."""
        for path in sorted(self._folder.glob("*.jsonl")):
            self._tails.setdefault(path, Tail(path))
        return [event for tail in self._tails.values() for event in tail.read()]


def read(folder: Path) -> Iterator[Event]:
    """Every event of a folder of journals, file by file. Damaged and torn lines are passed over."""
    yield from Follower(folder).read()
