"""The lines of the nodes' logs that a report shows, each with its time."""

import re
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from harness.records.regular_file import open_regular

_LONG_CHARS = 400
"""The most characters of a line. More would make one line the most of a page; the log itself has all."""
_LONGEST_BYTES = 1 << 16
"""The bytes of a line that are read. The rest of a longer line is taken for further lines, which have no time."""
_IN_SECONDS = 1_500
"""The most lines of one log that are shown because of the seconds that they are of. More make the page large."""
_LAST = 300
"""The last lines of each log, which are always shown: there a node says why it died."""
_TIME = re.compile(rb"\[?(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:[.,](\d{1,6}))?(?:([+-]\d\d):?(\d\d)|Z)?")
"""The time at the beginning of a line, as Celery, RabbitMQ and PostgreSQL write it; without an offset it is UTC."""

Spans = Sequence[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class LogLine:
    """One line of a log."""

    t: float | None
    """Unix time in seconds; of a line without a time, that of the line before. None if there is none."""
    text: str


@dataclass(frozen=True, kw_only=True)
class NodeLog:
    """The shown lines of one node's log."""

    node: str
    lines: tuple[LogLine, ...]
    total: int
    """The number of all lines; -1 if the log could not be read to its end."""


def read_logs(folder: Path, spans: Spans) -> tuple[NodeLog, ...]:
    """Return the logs in a folder: of each the lines of some spans of time, and the last ones.

    Args:
        folder: of the logs.
        spans: of Unix times in seconds, in any order.
    """
    merged = _merged(spans)
    return tuple(_read(path, merged) for path in sorted(folder.glob("*.log")))


def _read(path: Path, spans: Spans) -> NodeLog:
    begins = [begin for begin, _ in spans]
    within: list[tuple[int, LogLine]] = []
    last: deque[tuple[int, LogLine]] = deque(maxlen=_LAST)
    number = 0
    try:
        for number, line in enumerate(_lines(path), start=1):
            last.append((number, line))
            if line.t is not None and len(within) < _IN_SECONDS:
                at = bisect_right(begins, line.t) - 1
                if at >= 0 and line.t <= spans[at][1]:
                    within.append((number, line))
    except OSError as error:
        last.append((number + 1, LogLine(t=None, text=f"the log cannot be read: {error.strerror}")))
        number = -1
    shown = dict([*within, *last])
    return NodeLog(node=path.stem, lines=tuple(shown[at] for at in sorted(shown)), total=number)


def _lines(path: Path) -> Iterator[LogLine]:
    t: float | None = None
    with open_regular(path) as file:
        while raw := file.readline(_LONGEST_BYTES):
            t = _time(raw) or t
            text = raw.rstrip(b"\r\n").decode("utf-8", "backslashreplace")
            yield LogLine(t=t, text=text if len(text) <= _LONG_CHARS else f"{text[:_LONG_CHARS]}…")


def _time(line: bytes) -> float | None:
    found = _TIME.match(line)
    if found is None:
        return None
    day, clock, fraction, hours, minutes = (part.decode() if part else "" for part in found.groups())
    offset = f"{hours}:{minutes}" if hours else "+00:00"
    try:
        said = datetime.fromisoformat(f"{day}T{clock}{offset}")
    except ValueError:
        return None
    return said.astimezone(UTC).timestamp() + (int(fraction.ljust(6, "0")) / 1e6 if fraction else 0.0)


def _merged(spans: Spans) -> list[tuple[float, float]]:
    merged: list[tuple[float, float]] = []
    for begin, end in sorted(spans):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged
