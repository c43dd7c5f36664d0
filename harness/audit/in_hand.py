"""What a worker has in hand, by its own journal: for whoever takes the worker away, and asks what became of it.

The journal is read beside the ledger, which belongs to another thread.
"""

import contextlib
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from harness.records.event import Event, Kind
from harness.records.journal import Tail

_TO_RUN_AGAIN = "RETRY"


class NodeJournal:
    """What the nodes of one name say, read bit by bit."""

    def __init__(self, folder: Path, name: str, *, recent_bytes: int) -> None:
        """`name` may be `*` for all nodes; of a file that is there now, no more than its last bytes are read."""
        self._folder = folder
        self._pattern = f"{name}.*.jsonl"
        self._tails: dict[Path, Tail] = {}
        self._cut: list[Path] = []
        for path in folder.glob(self._pattern):
            left_out = max(0, path.stat().st_size - recent_bytes)
            # A line that is cut in two is passed over as damaged.
            self._tails[path] = Tail(path, _offset=left_out)
            if left_out:
                self._cut.append(path)

    def recent(self) -> list[Event]:
        """What the ends of the files say, in the order of time, from when on all of them say something.

        Before, one file may show that a task was received, and the other no longer that it ended.
        """
        said = {path: tail.read() for path, tail in self._tails.items()}
        whole_t = max((said[path][0].t for path in self._cut if said[path]), default=0.0)
        return _in_order(event for events in said.values() for event in events if event.t >= whole_t)

    def read(self) -> list[Event]:
        """What was added since the last time, in the order of time."""
        for path in self._folder.glob(self._pattern):
            self._tails.setdefault(path, Tail(path))
        return _in_order(event for tail in self._tails.values() for event in tail.read())


def _in_order(events: Iterable[Event]) -> list[Event]:
    return sorted(events, key=lambda event: event.t)


class Receipt(NamedTuple):
    """A worker received a task."""

    node: str
    task: str
    t: float
    is_again: bool
    """The broker had delivered it before, and saw no acknowledgement."""


class Receipts:
    """Who received which task from now on, line by line: it is read late, and hours of load make long files."""

    def __init__(self, folder: Path) -> None:
        """What is there now is passed over."""
        self._folder = folder
        self._offsets = {path: path.stat().st_size for path in folder.glob("*.jsonl")}

    def read(self, tasks: Collection[str]) -> Iterator[Receipt]:
        """Those of some tasks that were added since the last time, file by file."""
        for path in self._folder.glob("*.jsonl"):
            node = path.name.rsplit(".", 3)[0]
            with path.open("rb") as file:
                file.seek(self._offsets.get(path, 0))
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._offsets[path] = self._offsets.get(path, 0) + len(line)
                    # Of millions of lines few are; to parse all of them would take minutes.
                    if b'"received"' in line and _task_in(line) in tasks:
                        yield from _receipt(node, line)


def _task_in(line: bytes) -> str:
    return line.partition(b'"task":"')[2].partition(b'"')[0].decode(errors="replace")


def _receipt(node: str, line: bytes) -> Iterator[Receipt]:
    """What a line says, if it says that a task was received. A damaged one says nothing."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        said = json.loads(line)
        if said["kind"] == Kind.RECEIVED:
            yield Receipt(node, said["task"], float(said["t"]), bool(said.get("redelivered")))


@dataclass(frozen=True, kw_only=True)
class InHand:
    """The tasks that one worker has had since it started."""

    begun: frozenset[str] = frozenset()
    """Begun and not ended."""
    waiting: frozenset[str] = frozenset()
    """Received and not begun."""
    ended: frozenset[str] = frozenset()
    """The others, but for those that are to run again: they have another message, which somebody else may hold."""


def in_hand(events: Sequence[Event]) -> InHand:
    """What one worker had in hand after these events of its own."""
    begun: set[str] = set()
    waiting: set[str] = set()
    ended: set[str] = set()
    for event in events:
        if event.kind is Kind.UP:
            begun, waiting, ended = set(), set(), set()
        elif event.task is None:
            continue
        elif event.kind is Kind.RECEIVED:
            waiting.add(event.task)
        elif event.kind is Kind.STARTED:
            waiting.discard(event.task)
            begun.add(event.task)
        elif event.kind is Kind.FINISHED:
            begun.discard(event.task)
            if event.data.get("state") != _TO_RUN_AGAIN:
                ended.add(event.task)
        elif event.kind in {Kind.REVOKED, Kind.DISCARDED}:
            begun.discard(event.task)
            waiting.discard(event.task)
            ended.add(event.task)
    return InHand(begun=frozenset(begun), waiting=frozenset(waiting - begun), ended=frozenset(ended - begun - waiting))
