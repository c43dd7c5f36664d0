"""The tasks that a worker holds, by its own journal. Faults use this to learn which tasks they hit.

The journal is read separately from the ledger, which belongs to another thread.
"""

import contextlib
import json
import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from harness.records.event import TO_RUN_AGAIN, UNWOUND, Event, Exited, Finished, Kind, Started
from harness.records.journal import Tail, parsed
from harness.records.values import Json

_OF_THE_MAIN_PROCESS = frozenset({Kind.UP, Kind.SETTINGS, Kind.READY, Kind.RECEIVED})
"""The kinds of the lines that only the main process of a worker writes."""


class NodeJournal:
    """An incremental reader of the journal files of one node, or of all nodes."""

    def __init__(self, folder: Path, name: str, *, recent_bytes: int) -> None:
        """Note the files that exist now. Of each, at most the last `recent_bytes` bytes are read. `name` may be `*`."""
        self._folder = folder
        self._pattern = f"{name}.*.jsonl"
        self._tails: dict[Path, Tail] = {}
        self._cut: list[Path] = []
        for path in folder.glob(self._pattern):
            left_out = max(0, path.stat().st_size - recent_bytes)
            # A line that is cut in two counts as damaged and is skipped.
            self._tails[path] = Tail(path, _offset=left_out)
            if left_out:
                self._cut.append(path)

    def recent(self) -> list[Event]:
        """Return the events at the ends of the files in time order, from the time on that all files cover.

        Earlier events could mislead: one file may show that a task was received, while the other no longer shows its
        end.
        """
        # A process of a pool opens its file at its first task, which may have begun since.
        for path in self._folder.glob(self._pattern):
            self._tails.setdefault(path, Tail(path))
        said = {path: tail.read() for path, tail in self._tails.items()}
        whole_t = max((said[path][0].t for path in self._cut if said[path]), default=0.0)
        return _in_order(event for events in said.values() for event in events if event.t >= whole_t)

    def read(self) -> list[Event]:
        """Return the events added since the last read, in time order."""
        for path in self._folder.glob(self._pattern):
            self._tails.setdefault(path, Tail(path))
        return _in_order(event for tail in self._tails.values() for event in tail.read())


def _in_order(events: Iterable[Event]) -> list[Event]:
    return sorted(events, key=lambda event: event.t)


def is_any_sent(folder: Path, begin_t: float, end_t: float) -> bool:
    """Return whether a task was sent between two times, Unix time in seconds, by the journal up to now."""
    return any(begin_t <= float(said["t"]) <= end_t for said in lines_of(folder, Kind.INTENDED))


def lines_of(folder: Path, kind: Kind, node: str = "*") -> Iterator[dict[str, Json]]:
    """Yield the lines of one kind up to now, file by file. Damaged lines are left out.

    Args:
        folder: the folder of the journals.
        kind: the kind of the lines.
        node: the node whose journals are read; `*` for all.
    """
    mark = f'"{kind.value}"'.encode()
    for path in folder.glob(f"{node}.*.jsonl"):
        with path.open("rb") as file:
            # Few of millions of lines match; parsing all of them would take minutes.
            for line in file:
                if mark in line and line.endswith(b"\n"):
                    yield from _parsed(line, kind)


def _parsed(line: bytes, kind: Kind) -> Iterator[dict[str, Json]]:
    """Yield the members of a line if it is of this kind. A damaged line yields nothing."""
    with contextlib.suppress(ValueError):
        said = parsed(line)
        if said["kind"] == kind:
            yield said


class Receipt(NamedTuple):
    """One receipt of a task by a worker."""

    node: str
    task: str
    t: float
    is_again: bool
    """True if the broker had delivered it before without an acknowledgement (`redelivered`)."""


class Receipts:
    """A reader of the receipts that are journaled from now on. Reads line by line, because files can be long."""

    def __init__(self, folder: Path) -> None:
        """Note the length of the existing files, so that only later lines are read."""
        self._folder = folder
        self._offsets = {path: path.stat().st_size for path in folder.glob("*.jsonl")}

    def read(self, tasks: Collection[str]) -> Iterator[Receipt]:
        """Yield the receipts of some tasks since the last read, file by file."""
        for path in self._folder.glob("*.jsonl"):
            node = path.name.rsplit(".", 3)[0]
            with path.open("rb") as file:
                file.seek(self._offsets.get(path, 0))
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._offsets[path] = self._offsets.get(path, 0) + len(line)
                    # Few of millions of lines match; parsing all of them would take minutes.
                    if b'"received"' in line and _task_in(line) in tasks:
                        yield from _receipt(node, line)


def _task_in(line: bytes) -> str:
    return line.partition(b'"task":"')[2].partition(b'"')[0].decode(errors="replace")


def _receipt(node: str, line: bytes) -> Iterator[Receipt]:
    """Yield the receipt in a line, if there is one. A damaged line yields nothing."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        said = json.loads(line)
        if said["kind"] == Kind.RECEIVED:
            yield Receipt(node, said["task"], float(said["t"]), bool(said.get("redelivered")))


@dataclass(frozen=True, kw_only=True)
class InHand:
    """The tasks of one worker since it started."""

    begun: frozenset[str] = frozenset()
    """Tasks begun and not ended."""
    waiting: frozenset[str] = frozenset()
    """Tasks received and not begun."""
    ended: frozenset[str] = frozenset()
    """Tasks ended, except those that will run again: they have another message, which another worker may hold."""


def in_hand(events: Sequence[Event]) -> InHand:
    """Return the tasks that one worker held after these events of its own."""
    begin = max((number for number, event in enumerate(events) if event.kind is Kind.UP), default=0)
    hands = _Hands()
    for event in events[begin:]:
        hands.take(event)
    begun = frozenset(task for task, processes in hands.begun.items() if processes)
    waiting, ended = hands.waiting - begun, hands.ended - begun
    return InHand(begun=begun, waiting=frozenset(waiting), ended=frozenset(ended - waiting))


@dataclass
class _Hands:
    """The tasks of one worker, event by event."""

    begun: dict[str, set[int]] = field(default_factory=dict)
    """By task, the processes that run it: after a second delivery, two may run the same one."""
    dead: set[int] = field(default_factory=set)
    """The processes that have ended."""
    waiting: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)

    def take(self, event: Event) -> None:
        """Take the next event."""
        task = event.task
        if task is None:
            if event.kind is Kind.EXITED:
                self.dead.add(event.of(Exited).get("child", 0))
        elif event.kind is Kind.RECEIVED:
            self.waiting.add(task)
        elif event.kind is Kind.STARTED:
            self.waiting.discard(task)
            self.begun.setdefault(task, set()).add(event.pid)
        elif event.kind is Kind.FINISHED:
            self._finish(task, event)
        elif event.kind in {Kind.REVOKED, Kind.DISCARDED}:
            self.begun.pop(task, None)
            self.waiting.discard(task)
            self.ended.add(task)

    def _finish(self, task: str, event: Event) -> None:
        said = event.of(Finished)
        if said.get("state") == UNWOUND:
            return
        if said.get("outside"):
            self.begun.pop(task, None)
        else:
            # What a process ran that has died is in hand until somebody else has ended it.
            self.begun[task] = self.begun.get(task, set()) - self.dead - {event.pid}
        if said.get("state") != TO_RUN_AGAIN:
            self.ended.add(task)


@dataclass(frozen=True, kw_only=True)
class PoolProcess:
    """One process of a worker's pool."""

    pid: int
    begun: frozenset[str]
    """The tasks that it has begun and not ended."""
    names: frozenset[str]
    """The names of these tasks."""
    since_t: float
    """The time when it began the first of them, Unix time in seconds; infinite if there is none."""


def pool_of(events: Sequence[Event]) -> tuple[int, list[PoolProcess]]:
    """Return the id of a worker's main process, and the processes of its pool that have run a task.

    Args:
        events: of the worker, in time order.

    Returns:
        The id is 0 if the main process has written nothing. The processes are those since its last start.
    """
    main = next((event for event in reversed(events) if event.kind in _OF_THE_MAIN_PROCESS), None)
    if main is None:
        return 0, []
    begin = max((number for number, event in enumerate(events) if event.kind is Kind.UP), default=0)
    pool: dict[int, list[Event]] = {}
    for event in events[begin:]:
        if event.pid != main.pid:
            pool.setdefault(event.pid, []).append(event)
    return main.pid, [_process(pid, said) for pid, said in pool.items()]


def _process(pid: int, events: Sequence[Event]) -> PoolProcess:
    begun = in_hand(events).begun
    starts = [event for event in events if event.kind is Kind.STARTED and event.task in begun]
    return PoolProcess(
        pid=pid,
        begun=begun,
        names=frozenset(name for event in starts if (name := event.of(Started).get("name"))),
        since_t=min((event.t for event in starts), default=math.inf),
    )
