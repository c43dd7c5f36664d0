"""A file of orders: opened, surveyed once, cut at line ends, and read chunk by chunk.

The file is UTF-8, with or without a byte order mark, and its first line names the columns. A record is a line: a
line break inside quotes is not supported, so that one stray quote costs one line and not the million after it. Lines
end in LF or CRLF; the last one may have no line end. A blank line is no record. A line with any other error is a
rejected row with a number and a reason, and the rest is loaded. The file must not change while it is imported.

Values are separated by commas. A file of the same name with `-metadata.json` appended may set another delimiter, in
the form of "CSV on the Web": ``{"dialect": {"delimiter": ";"}}``.
"""

import contextlib
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO

from scenarios.bulk_data.columns import COLUMNS
from scenarios.bulk_data.order_row import COMMA, BadRow, Layout, fields_of

LINE_LIMIT = 64 * 1024
"""The most bytes that a line may have, without its end. A longer one is read in pieces and rejected."""

CHUNK_BYTES = 1024 * 1024
"""The approximate size of the part of the file that one task loads, in bytes."""

MOST_CHUNKS = 4096
"""The most chunks of a file; a larger file gets larger chunks. Their sender and waiter hold all their ids in memory."""

PLACE_BITS = 40
"""A version is the import's number times two to this power, plus the offset of the row. This allows files below
1 TiB, and 8,388,607 imports.
"""

_BLOCK_BYTES = 1024 * 1024
_SPACES = " \t\v\f\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u202f\u205f\u3000"
"""Characters that may surround the name of a column."""


class BadFile(Exception):  # noqa: N818 - it names what was given.
    """The file as a whole cannot be imported; the one arg says why. Another attempt would fail in the same way."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A part of the file, of whole lines."""

    offset: int
    """The offset of its first byte."""
    length: int
    """Its length in bytes."""
    first_line: int
    """The number of its first line; the header is line 1."""


@dataclass(frozen=True, kw_only=True)
class Survey:
    """The result of one pass over a file."""

    size: int
    """The size of the file in bytes."""
    digest: str
    """SHA-256, in hexadecimal."""
    chunks: Sequence[Chunk]
    """The chunks of the file, at least one; together they are everything after the header."""


@contextlib.contextmanager
def open_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open the file for reading.

    Raises:
        BadFile: it does not exist, cannot be read, or is a directory, a device, 0 bytes, 1 TiB or more.
    """
    path = Path(path)
    try:
        # Checked before it is opened, because opening a named pipe may block for ever.
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            what = "a directory" if stat.S_ISDIR(found.st_mode) else "no regular file"
            raise BadFile(f"{path} is {what}: give a CSV file.")
        if found.st_size == 0:
            raise BadFile(f"{path} is empty (0 bytes): it lacks even a header.")
        if found.st_size >= 1 << PLACE_BITS:
            raise BadFile(f"{path} has {found.st_size} bytes: split it into files of less than 1 TiB.")
        opened = path.open("rb")
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise BadFile(f"{path} cannot be read: {error.strerror}.") from error
    with opened as file:
        yield file


def delimiter_of(path: str | os.PathLike[str]) -> str:
    """Return the delimiter of a file: a comma, unless the file beside it sets another one.

    Raises:
        BadFile: the file beside it is invalid.
    """
    beside = described_by(path)
    try:
        delimiter = json.loads(beside.read_bytes())["dialect"]["delimiter"]
    except FileNotFoundError:
        return COMMA
    except (OSError, ValueError, KeyError, TypeError) as error:
        said = f"{type(error).__name__}: {error}"
        raise BadFile(f'{beside} must be like {{"dialect": {{"delimiter": ";"}}}} ({said}).') from error
    if not is_delimiter(delimiter):
        raise BadFile(f"{beside} says the delimiter {delimiter!r}: {DELIMITER_RULE}.")
    return str(delimiter)


def described_by(path: str | os.PathLike[str]) -> Path:
    """Return the path of the file that describes a CSV file."""
    return Path(f"{os.fspath(path)}-metadata.json")


DELIMITER_RULE = "it is one ASCII character, and no letter, digit, quote, underscore or line end"


def is_delimiter(given: object) -> bool:
    """Return whether this can separate values without being mistaken for a part of one."""
    return (
        isinstance(given, str) and bool(re.fullmatch(r"[\t -~]", given)) and not re.fullmatch(r'[A-Za-z0-9_"]', given)
    )


def other_delimiter(header: bytes, delimiter: str) -> str | None:
    """Return the delimiter of a header, if it finds more of the columns than `delimiter` does; None otherwise."""
    text = header.decode("utf-8-sig", "replace").replace('"', "")

    def known(separator: str) -> int:
        return len({name.strip(_SPACES) for name in text.split(separator)} & {*COLUMNS})

    best = max(sorted({mark for mark in text if is_delimiter(mark)}), key=known, default=delimiter)
    # A single name can be found with any character beside it.
    return best if known(best) > max(known(delimiter), 1) else None


def shown_delimiter(delimiter: str) -> str:
    """Return a delimiter as it is written in a shell."""
    return "tab" if delimiter == "\t" else f"'{delimiter}'"


def read_header(file: BinaryIO, *, delimiter: str = COMMA, limit: int = LINE_LIMIT) -> Layout:
    """Read the first line of a file, and leave the position after it.

    Args:
        file: at its beginning.
        delimiter: separates the columns.
        limit: the most bytes that the line may have.

    Raises:
        BadFile: it is too long, not UTF-8, no CSV, has another delimiter, lacks a column or names one twice.
    """
    line = _content(file.readline(limit + 2))
    if len(line) > limit:
        raise BadFile(f"the first line is longer than {limit} bytes: it must be a header that names the columns.")
    if other := other_delimiter(line, delimiter):
        said = f"its columns are separated by {shown_delimiter(other)}, not by {shown_delimiter(delimiter)}"
        raise BadFile(f"{said}: say --delimiter {shown_delimiter(other)}.")
    try:
        names = fields_of(line.decode("utf-8-sig"), delimiter)
    except UnicodeDecodeError as error:
        raise BadFile(f"the header is not UTF-8; it begins with the bytes {line[:4].hex(' ')}.") from error
    except BadRow as error:
        raise BadFile(f"the header has a quote that is not closed: {line[:200]!r}.") from error
    names = [name.strip(_SPACES) for name in names]
    if missing := [column for column in COLUMNS if column not in names]:
        raise BadFile(f"the header lacks {', '.join(missing)}; it is {line[:200]!r}.")
    if twice := [column for column in COLUMNS if names.count(column) > 1]:
        raise BadFile(f"the header names {', '.join(twice)} more than once.")
    pick = itemgetter(*(names.index(column) for column in COLUMNS))
    return Layout(width=len(names), pick=pick, delimiter=delimiter)


def survey(
    file: BinaryIO, *, delimiter: str = COMMA, chunk_bytes: int = CHUNK_BYTES, block_bytes: int = _BLOCK_BYTES
) -> Survey:
    """Read a file once, block by block, and cut it at line ends, into MOST_CHUNKS at most.

    Args:
        file: at its beginning.
        delimiter: separates the columns of its header.
        chunk_bytes: the least size of a chunk, except the last; it ends with the line that reaches this size. It is
            raised for a file that would have more than MOST_CHUNKS.
        block_bytes: how much is read at once.

    Raises:
        BadFile: as `read_header`.
    """
    read_header(file, delimiter=delimiter)
    chunk_bytes = max(chunk_bytes, -(-os.fstat(file.fileno()).st_size // MOST_CHUNKS))
    start = offset = file.tell()
    file.seek(0)
    digest = hashlib.sha256(file.read(start))
    line = first_line = 2
    chunks: list[Chunk] = []
    while block := file.read(block_bytes):
        digest.update(block)
        cut = 0  # Where the chunk begins in this block, or 0 if it began in an earlier one.
        while end := block.find(b"\n", max(start + chunk_bytes - 1 - offset, cut)) + 1:
            line += block.count(b"\n", cut, end)
            chunks.append(Chunk(offset=start, length=offset + end - start, first_line=first_line))
            start, first_line, cut = offset + end, line, end
        line += block.count(b"\n", cut)
        offset += len(block)
    if offset > start or not chunks:
        chunks.append(Chunk(offset=start, length=offset - start, first_line=first_line))
    return Survey(size=offset, digest=digest.hexdigest(), chunks=chunks)


def read_lines(file: BinaryIO, chunk: Chunk, *, limit: int = LINE_LIMIT) -> Iterator[tuple[int, bytes | None]]:
    """Yield the offset of each line of a chunk, and its bytes without the line end; None for a line that is too long.

    Args:
        file: the file of the chunk.
        chunk: the part to read.
        limit: the most bytes that a line may have; not much more is ever in memory.

    Raises:
        BadFile: the file ends before the chunk does.
    """
    offset, end = chunk.offset, chunk.offset + chunk.length
    file.seek(offset)
    while offset < end:
        line = file.readline(min(limit + 2, end - offset))
        if not line:
            raise BadFile(f"the file ends at byte {offset}, before its time: it was changed while it was imported.")
        begin, offset = offset, offset + len(line)
        content = _content(line)
        if len(content) <= limit:
            yield begin, content
            continue
        while line and not line.endswith(b"\n") and offset < end:
            line = file.readline(min(_BLOCK_BYTES, end - offset))
            offset += len(line)
        yield begin, None


def _content(line: bytes) -> bytes:
    return line.removesuffix(b"\n").removesuffix(b"\r")
