"""Files of JSON lines, in a form that the database can read.

The database refuses a lone surrogate, which JSON allows, and holds each line in memory, however long it is. So a file
with such lines is copied, and these lines are shortened in the copy: a long expectation, or one with a lone surrogate,
becomes a digest.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from harness.records import values
from harness.records.regular_file import open_regular
from harness.records.values import Json

LONG_BYTES = 2_048
"""The most bytes of a line, expectation or result in the database, which holds each line in memory. A smaller value
would turn more ordinary lines into copies and digests; a larger one would need more memory for a million of them."""
LARGEST_FILE_BYTES = 1 << 38
"""The most bytes of a file. No run writes a larger one. A sparse file can claim any size without taking any space."""
_LONGEST_BYTES = 1 << 28
"""The most bytes of a line. No line of the harness is longer. A line is read as a whole, so that a larger value would
let a damaged file fill the memory."""
_START_CHARS = 50
"""The number of characters of a long expectation that are kept for display. The query `lines` keeps as many."""
_BLOCK_BYTES = 1 << 20
"""The bytes that are read at once. Smaller blocks need more calls, larger ones more memory; the result is the same."""
_LEAST_LIMIT_BYTES = 1 << 20
"""The least limit for a line that the database is given. It is above LONG_BYTES, so that it suits every file that is
linked. A higher limit would need more memory: each thread of the database has a buffer for the longest line."""
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


@dataclass
class LineFiles:
    """The files of a folder, each under a plain name in a scratch folder: a link, or a readable copy.

    A path may contain what the database takes for a pattern, or bytes that are not UTF-8.
    """

    folder: Path
    scratch: Path
    originals: dict[str, Path] = field(default_factory=dict)
    """The original files, by their plain names."""
    ends: dict[Path, int] = field(default_factory=dict)
    """The number of bytes of complete lines in each file, at the time of the look."""
    torn: set[str] = field(default_factory=set)
    """The plain names of the files whose last line is incomplete."""
    longest: int = _LEAST_LIMIT_BYTES
    """Bytes. No line of the files that the database reads is longer."""
    unreadable: list[str] = field(default_factory=list)
    """One sentence for each file that cannot be read."""

    def __post_init__(self) -> None:
        """Link or copy each file into the scratch folder, which is created."""
        self.scratch.mkdir()
        for number, path in enumerate(sorted(self.folder.glob("*.jsonl")), start=1):
            name = shown(path.name)
            try:
                end, is_torn = whole_lines(path)
                link = self.scratch / f"{number:06d}.jsonl"
                if has_long_lines(path):
                    self.longest = max(self.longest, copy_readable(path, link))
                else:
                    link.symlink_to(path.absolute())
            except OSError as error:
                self.unreadable.append(f"{name}: {error.strerror}.")
            except ValueError as error:
                self.unreadable.append(f"{name}: {error}.")
            else:
                self.originals[link.name], self.ends[path] = path, end
                if is_torn:
                    self.torn.add(link.name)

    @property
    def names(self) -> dict[str, str]:
        """The name of each file in its own folder, by its plain name."""
        return {name: shown(path.name) for name, path in self.originals.items()}

    @property
    def paths(self) -> list[str]:
        """The paths that the database reads."""
        return [str(self.scratch / name) for name in sorted(self.originals)]

    def mend(self, name: str) -> str:
        """Replace a link by a readable copy, and return its path.

        Raises:
            OSError: the file cannot be read.
            ValueError: a line is longer than any that a run writes.
        """
        link = self.scratch / name
        if link.is_symlink():
            path = link.readlink()
            link.unlink()
            self.longest = max(self.longest, copy_readable(path, link))
        return str(link)

    def list(self, counts: Mapping[str, int]) -> str:
        """Name the files, each with its number."""
        names = self.names
        return ", ".join(f"{names.get(name, name)} ({count})" for name, count in counts.items())


def shown(name: str) -> str:
    """Return a file's name as text; its bytes need not be UTF-8."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def whole_lines(path: Path) -> tuple[int, bool]:
    """Return how many bytes of a file are whole lines, and whether more bytes follow.

    Raises:
        OSError: it is no regular file, or cannot be read.
        ValueError: it is larger than any run writes.
    """
    with open_regular(path) as file:
        size = end = os.fstat(file.fileno()).st_size
        if size > LARGEST_FILE_BYTES:
            raise ValueError(f"it has {size} bytes, and no run writes more than {LARGEST_FILE_BYTES}")
        while end > 0:
            begin = max(0, end - _BLOCK_BYTES)
            newline = os.pread(file.fileno(), end - begin, begin).rfind(b"\n")
            if newline >= 0:
                return begin + newline + 1, begin + newline + 1 < size
            end = begin
        return 0, size > 0


def has_long_lines(path: Path) -> bool:
    """Tell whether a file has lines longer than LONG_BYTES.

    Raises:
        OSError: it is no regular file, or cannot be read.
    """
    # One buffer serves all blocks: allocating one per block would cost as much as reading it.
    buffer, kept = bytearray(LONG_BYTES + _BLOCK_BYTES), 0
    with open_regular(path) as file, memoryview(buffer) as view:
        while got := file.readinto(view[kept:]):
            begin, end = 0, kept + got
            while end - begin > LONG_BYTES:
                newline = buffer.rfind(b"\n", begin, begin + LONG_BYTES)
                if newline < 0:
                    return True
                begin = newline + 1
            kept = end - begin
            view[:kept] = view[begin:end]
    return False


def copy_readable(path: Path, target: Path) -> int:
    """Copy a file, and shorten the lines that the database cannot read.

    Returns:
        How many bytes the longest line of the copy has.

    Raises:
        OSError: it is no regular file, or cannot be read.
        ValueError: a line is longer than any that a run writes.
    """
    longest = 0
    with open_regular(path) as file, target.open("wb") as copy:
        while block := file.read(_BLOCK_BYTES):
            if not block.endswith(b"\n"):
                block += _rest_of_line(file)
            lines = block.split(b"\n")
            if _SURROGATE.search(block) or max(map(len, lines)) > LONG_BYTES:
                lines = [_readable(line) for line in lines]
            longest = max(longest, *map(len, lines))
            copy.write(b"\n".join(lines))
    return longest + 1


def _rest_of_line(file: BinaryIO) -> bytes:
    rest = file.readline(_LONGEST_BYTES)
    if len(rest) == _LONGEST_BYTES and not rest.endswith(b"\n"):
        raise ValueError(f"it has a line of more than {_LONGEST_BYTES} bytes")
    return rest


def _readable(line: bytes) -> bytes:
    """Shorten a line if it is long or has a lone surrogate.

    The reader counts a line that is not JSON as damaged; if it is long, it becomes `{`.
    """
    if len(line) <= LONG_BYTES and not _SURROGATE.search(line):
        return line
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        # A long line that is not JSON becomes a short one.
        return line if len(line) <= LONG_BYTES else b"{"
    if not isinstance(value, dict):
        return line
    return json.dumps(values.readable(_without_long_expectation(value)), separators=(",", ":")).encode()


def _without_long_expectation(line: dict[str, Json]) -> dict[str, Json]:
    expect = line.get("expect")
    if isinstance(expect, dict) and "result" in expect:
        text = json.dumps(expect["result"])
        if len(text) > LONG_BYTES or _SURROGATE.search(text.encode()):
            shown = {name: value for name, value in expect.items() if name != "result"}
            line = line | {"expect": shown | {"start": text[:_START_CHARS], "digest": values.digest(text)}}
    # The database needs no schedule and no argv.
    return {name: value for name, value in line.items() if name not in {"schedule", "argv"}}
