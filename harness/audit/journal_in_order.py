"""The journal of a finished run in the order of time, in bounded memory: one line of each open file is held.

A file is opened when its first line is due, and closed at its end. So a worker with a new process for each task, which
leaves thousands of files, needs few of them at a time.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from harness.records.event import Event, Kind
from harness.records.journal import parsed
from harness.records.regular_file import open_regular

_LONGEST_BYTES = 1 << 28
"""The most bytes of a line; no line of the harness is longer. A damaged file could fill the memory."""
_TAIL_BYTES = 1 << 16
"""The bytes at the end of a file in which its last line is looked for."""


@dataclass
class JournalInOrder:
    """The events of all files of a folder, by time."""

    folder: Path
    damaged: int = 0
    """Lines that were left out, because they are torn or no lines of a journal, and files that cannot be read."""

    def __iter__(self) -> Iterator[Event]:
        """Yield each event. Events of one file stay in their order; one with an earlier time follows at once."""
        heap: list[tuple[float, int, Event | None, Iterator[Event]]] = []
        for number, path in enumerate(sorted(self.folder.glob("*.jsonl"))):
            events = self._events(path)
            # The time of the first line alone; the file is read when that time has come.
            first = next(self._events(path, is_counted=False), None)
            if first is not None:
                heap.append((first.t, number, None, events))
        heapq.heapify(heap)
        while heap:
            t, number, event, events = heapq.heappop(heap)
            if event is not None:
                yield event
            following = next(events, None)
            if following is not None:
                # A clock that went back does not take a file out of its own order.
                heapq.heappush(heap, (max(t, following.t), number, following, events))

    def _events(self, path: Path, *, is_counted: bool = True) -> Iterator[Event]:
        try:
            with open_regular(path) as file:
                yield from self._lines(file, is_counted=is_counted)
        except OSError:
            self.damaged += is_counted

    def _lines(self, file: IO[bytes], *, is_counted: bool) -> Iterator[Event]:
        node, pid = "", -1
        while line := file.readline(_LONGEST_BYTES):
            try:
                value = parsed(line)
            except ValueError:
                self.damaged += is_counted
                continue
            kind, t, n = Kind(value.pop("kind")), float(value.pop("t")), value.pop("n")
            if kind is Kind.OPENED:
                node, pid = value["node"], value.get("pid", pid)
            yield Event(kind=kind, t=t, n=n, node=node, pid=pid, task=value.pop("task", None), data=value)


def span_s(folder: Path) -> float | None:
    """Return the seconds from the first to the last line of a journal, from the ends of its files alone.

    None if there is no line that can be read.
    """
    first_t: float | None = None
    last_t: float | None = None
    for path in folder.glob("*.jsonl"):
        for t in _ends(path):
            first_t = t if first_t is None else min(first_t, t)
            last_t = t if last_t is None else max(last_t, t)
    return None if first_t is None or last_t is None else last_t - first_t


def _ends(path: Path) -> Iterator[float]:
    """Yield the times of the first and the last whole line of a file, as far as they can be read."""
    try:
        with open_regular(path) as file:
            head = file.readline(_TAIL_BYTES)
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            tail = file.read(_TAIL_BYTES).split(b"\n")
    except OSError:
        return
    for line in (head, *(line for line in tail[-3:] if line)):
        try:
            yield float(parsed(line)["t"])
        except ValueError:
            continue
