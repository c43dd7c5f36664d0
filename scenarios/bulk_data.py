"""A shop imports its orders: a large CSV file becomes rows of the app's own database.

`import_orders` looks through the file once, cuts it into chunks at line ends, and sends one `load_chunk` for each;
when all have ended, `close_import` writes the totals. No process ever holds more of the file than a block or a batch.

Any of them may run again, at any point, and changes nothing by it. Each row carries a version made of the import's
number and the row's place in the file, and only a higher version replaces a lower: so it is the file that decides
which of two rows for one order wins, and not which chunk ran first. What was closed stays closed. A second import of
a file under the same import_id finds all its work done.

The file is UTF-8, with or without a byte order mark, and its first line names the columns. A record is a line: a
line break inside quotes is not supported, so that one stray quote costs one line and not the million after it. Lines
end in LF or CRLF, the last one perhaps in nothing. A blank line is no record. Whatever else is wrong with a line, it
is a rejected row with a number and a reason, and the rest is loaded. The file must not change while it is imported.

Values are separated by commas. Where it is something else, a file of the same name with `-metadata.json` behind it
says so, as "CSV on the Web" has it: ``{"dialect": {"delimiter": ";"}}``.
"""

import contextlib
import csv
import functools
import hashlib
import itertools
import json
import os
import re
import shutil
import sqlite3
import stat
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from celery import Task, chord
from celery.utils.time import get_exponential_backoff_interval
from kombu.exceptions import OperationalError as BrokerError
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Date,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    bindparam,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.schema import CreateTable

from harness import Drive, Effect, Expect, Finding, Scenario, Verdict
from harness.errors import UsageError
from harness.scenario import Option
from scenarios.app import app, ask_again, database
from scenarios.order_files import COLUMNS, Prediction, read_only_uri, write_file

if TYPE_CHECKING:
    from harness.producer import Producer
    from harness.stack.stack import Stack

LINE_LIMIT = 64 * 1024
"""The most bytes that a line may have, without its end. A longer one is read in pieces and rejected."""

CHUNK_BYTES = 1024 * 1024
"""About how much of the file one task loads."""

BATCH_ROWS = 1000
"""How many rows are written in one transaction."""

BACKOFF_LIMIT_S = 60
"""The longest pause before another attempt."""

MOST_CHUNKS = 4096
"""In a file that would have more, chunks are larger: who sends or waits for them has all their ids in memory."""

_BLOCK_BYTES = 1024 * 1024
_PLACE_BITS = 40
"""A version is the import's number times two to this, plus the offset of the row: files below 1 TiB, and
8,388,607 imports."""
_MOST_QUANTITY = 10_000
_MOST_CENTS = 10_000_000
_ID_CHARACTERS = 64
_EMAIL_CHARACTERS = 254
_IMPORT_ID_CHARACTERS = 100
_COMMA = ","
_SPACES = " \t\v\f\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u202f\u205f\u3000"
"""What may stand around the name of a column."""
_ATTEMPTS = 5
_BROKEN = (OperationalError, PoolTimeout, BrokerError)
"""What may be better a little later: the database, or the broker that a chord could not be sent to."""


class BadFile(Exception):  # noqa: N818 - it names what was given.
    """The file as a whole cannot be imported; the one arg says why. Another attempt would end the same."""


class BadRow(Exception):  # noqa: N818 - it names what was read.
    """A line is no order; the one arg is the reason as it stands in `rejects`.

    `too-long`, `line-end` (a CR within it), `not-utf8`, `quote`, `columns` (too few or too many), or the name of the
    first column of COLUMNS whose value is not valid.
    """


_metadata = MetaData()
_imports = Table(
    "imports",
    _metadata,
    Column("number", Integer, primary_key=True),  # Given in the order in which imports first began.
    Column("import_id", String(_IMPORT_ID_CHARACTERS), nullable=False, unique=True),
    Column("size", BigInteger, nullable=False),  # Of the file, in bytes.
    Column("digest", String(64), nullable=False),  # SHA-256 of the file, in hexadecimal.
    Column("state", String(8), nullable=False),  # "open" or "closed"
    Column("closings", Integer, nullable=False),
    Column("read", BigInteger),
    Column("good", BigInteger),
    Column("rejected", BigInteger),
    Column("orders", BigInteger),  # Distinct ones: a file may name an order more than once.
    Column("total_cents", BigInteger),
    sqlite_autoincrement=True,
)
_orders = Table(
    "orders",
    _metadata,
    Column("order_id", String(_ID_CHARACTERS), primary_key=True),
    Column("customer_email", String(_EMAIL_CHARACTERS), nullable=False),
    Column("sku", String(_ID_CHARACTERS), nullable=False),
    Column("quantity", Integer, nullable=False),
    Column("unit_price_cents", BigInteger, nullable=False),
    Column("ordered_at", Date, nullable=False),
    Column("version", BigInteger, nullable=False),
    # One tree to write instead of two.
    sqlite_with_rowid=False,
)
_rejects = Table(
    "rejects",
    _metadata,
    Column("import_id", String(_IMPORT_ID_CHARACTERS), primary_key=True),
    Column("line", BigInteger, primary_key=True),  # The header is line 1.
    Column("reason", String(32), nullable=False),
    sqlite_with_rowid=False,
)
_TOTALS = ("read", "good", "rejected", "orders", "total_cents")

Row = dict[str, Any]
"""A row of a table, by column."""


def create_tables(engine: Engine) -> None:
    """Make the tables that are not there; several processes may do so at once."""
    for table in _metadata.sorted_tables:
        # Two that make one table at the same moment: PostgreSQL tells the later that it is there, as an error.
        with (
            contextlib.suppress(IntegrityError),
            engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        ):
            connection.execute(CreateTable(table, if_not_exists=True))


@functools.cache
def _tables_of(engine: Engine) -> Engine:
    create_tables(engine)
    return engine


# The file


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where a line has its values."""

    width: int
    """How many values a line must have."""
    pick: Callable[[Sequence[str]], tuple[str, ...]]
    """Takes those of COLUMNS, in that order, out of all values of a line."""
    delimiter: str = _COMMA
    """What separates the values of a line."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A part of the file: whole lines."""

    offset: int
    """Its first byte."""
    length: int
    """How many bytes it has."""
    first_line: int
    """The number of its first line; the header is line 1."""


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What one pass over a file finds out."""

    size: int
    """In bytes."""
    digest: str
    """SHA-256, in hexadecimal."""
    chunks: Sequence[Chunk]
    """At least one; together all that follows the header."""


@contextlib.contextmanager
def open_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """The file, to be read.

    Raises:
        BadFile: there is none, or it cannot be one of orders: a directory, a device, 0 bytes, 1 TiB or more.
    """
    path = Path(path)
    try:
        # Before it is opened, because to open a named pipe may take for ever.
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            what = "a directory" if stat.S_ISDIR(found.st_mode) else "no regular file"
            raise BadFile(f"{path} is {what}: give a CSV file.")
        if found.st_size == 0:
            raise BadFile(f"{path} is empty (0 bytes): it lacks even a header.")
        if found.st_size >= 1 << _PLACE_BITS:
            raise BadFile(f"{path} has {found.st_size} bytes: split it into files of less than 1 TiB.")
        opened = path.open("rb")
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise BadFile(f"{path} cannot be read: {error.strerror}.") from error
    with opened as file:
        yield file


def delimiter_of(path: str | os.PathLike[str]) -> str:
    """Return what separates the values of a file: a comma, unless the file beside it says otherwise.

    Raises:
        BadFile: that one does not say it as it should.
    """
    beside = described_by(path)
    try:
        delimiter = json.loads(beside.read_bytes())["dialect"]["delimiter"]
    except FileNotFoundError:
        return _COMMA
    except (OSError, ValueError, KeyError, TypeError) as error:
        said = f"{type(error).__name__}: {error}"
        raise BadFile(f'{beside} must be like {{"dialect": {{"delimiter": ";"}}}} ({said}).') from error
    if not is_delimiter(delimiter):
        raise BadFile(f"{beside} says the delimiter {delimiter!r}: {_DELIMITER_RULE}.")
    return str(delimiter)


def described_by(path: str | os.PathLike[str]) -> Path:
    """Return the path of the file that describes a CSV file."""
    return Path(f"{os.fspath(path)}-metadata.json")


_DELIMITER_RULE = "it is one ASCII character, and no letter, digit, quote, underscore or line end"


def is_delimiter(given: object) -> bool:
    """Return whether this can separate values without being mistaken for a part of one."""
    return (
        isinstance(given, str) and bool(re.fullmatch(r"[\t -~]", given)) and not re.fullmatch(r'[A-Za-z0-9_"]', given)
    )


def other_delimiter(header: bytes, delimiter: str) -> str | None:
    """Return what separates the columns of a header, if more of them are found with it than with `delimiter`."""
    text = header.decode("utf-8-sig", "replace").replace('"', "")

    def known(separator: str) -> int:
        return len({name.strip(_SPACES) for name in text.split(separator)} & {*COLUMNS})

    best = max(sorted({mark for mark in text if is_delimiter(mark)}), key=known, default=delimiter)
    # One name alone is found with whatever stands beside it.
    return best if known(best) > max(known(delimiter), 1) else None


def shown_delimiter(delimiter: str) -> str:
    """Return a delimiter as it is written in a shell."""
    return "tab" if delimiter == "\t" else f"'{delimiter}'"


def read_header(file: BinaryIO, *, delimiter: str = _COMMA, limit: int = LINE_LIMIT) -> Layout:
    """Read the first line of a file, and stop behind it.

    Args:
        file: at its beginning.
        delimiter: what separates the columns.
        limit: the most bytes that the line may have.

    Raises:
        BadFile: it is too long, not UTF-8, no CSV, has another delimiter, or lacks a column.
    """
    line = _content(file.readline(limit + 2))
    if len(line) > limit:
        raise BadFile(f"the first line is longer than {limit} bytes: it must be a header that names the columns.")
    if other := other_delimiter(line, delimiter):
        said = f"its columns are separated by {shown_delimiter(other)}, not by {shown_delimiter(delimiter)}"
        raise BadFile(f"{said}: say --delimiter {shown_delimiter(other)}.")
    try:
        names = _fields(line.decode("utf-8-sig"), delimiter)
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
    file: BinaryIO, *, delimiter: str = _COMMA, chunk_bytes: int = CHUNK_BYTES, block_bytes: int = _BLOCK_BYTES
) -> Survey:
    """Look through a file once, block by block, and cut it at line ends, into MOST_CHUNKS at most.

    Args:
        file: at its beginning.
        delimiter: what separates the columns of its header.
        chunk_bytes: how much a chunk has at least, unless it is the last; it ends with the line that reaches this,
            or what the file's size makes of it.
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
        cut = 0  # Where the chunk begins in this block, or 0 if it began in one before.
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
    """The lines of a chunk: where each begins, and its bytes without the line end, or None if they are too many.

    Args:
        file: the file that the chunk is of.
        chunk: what to read.
        limit: the most bytes that a line may have; no more than about that is ever in memory.

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


def _fields(text: str, delimiter: str) -> list[str]:
    if '"' not in text:
        return text.split(delimiter)
    try:
        return next(csv.reader((text,), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise BadRow("quote") from error


# Every Python knows its own edition of Unicode. By `str.isprintable`, a worker and its auditor would disagree on a
# character that only the younger of the two has heard of.
_unprintable = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # Controls.
    "\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"  # Spaces beside the usual one, and line ends.
    "\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u202a-\u202e"  # What formats others.
    "\u2060-\u206f\ufeff\ufff0-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e007f"
    "\ud800-\uf8ff\ufdd0-\ufdef\ufffe\uffff\U000f0000-\U0010ffff"  # Surrogates, private use, and what is none.
    + "".join(f"{chr(plane + 0xFFFE)}{chr(plane + 0xFFFF)}" for plane in range(0x10000, 0xF0000, 0x10000))
    + "]"
).search


def _is_printable(text: str) -> bool:
    return text.isprintable() if text.isascii() else not _unprintable(text)


_email = re.compile(r'[^ @"(),:;<>\[\]\\]{1,64}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z0-9-]{1,63}').fullmatch
_count = re.compile(r"0|[1-9][0-9]{0,8}").fullmatch
_day = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}").fullmatch


@functools.lru_cache(maxsize=4096)
def _date(text: str) -> date | None:
    """The date, if there is that day; remembered, because a file has few days and many rows."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def _values(line: bytes | None, layout: Layout) -> list[str]:
    if line is None:
        raise BadRow("too-long")
    if b"\r" in line:
        raise BadRow("line-end")
    try:
        fields = _fields(line.decode(), layout.delimiter)
    except UnicodeDecodeError as error:
        raise BadRow("not-utf8") from error
    if len(fields) != layout.width:
        raise BadRow("columns")
    return fields


def read_row(line: bytes | None, layout: Layout) -> Row:
    """The order that a line tells, as a row without its version; None stands for a line that is too long.

    An order_id and a sku are 1 to 64 printable characters. An address is as simple shops know it: at most 254
    printable characters, something, an @, and a domain of two labels or more in ASCII. Numbers are plain digits without
    sign or leading zeros, a quantity from 1 to 10,000 and a price from 0 to 10,000,000 cents. A date is YYYY-MM-DD.
    A character is printable unless it is a control, another space than the usual one, a mark that only formats others,
    for private use, or none at all; one that Unicode has not assigned yet is printable. Nothing is folded or
    normalised: what is written otherwise is something else.

    Raises:
        BadRow: it tells none.
    """
    order_id, email, sku, quantity, cents, day = layout.pick(_values(line, layout))
    if not (1 <= len(order_id) <= _ID_CHARACTERS and _is_printable(order_id)):
        raise BadRow("order_id")
    if not (len(email) <= _EMAIL_CHARACTERS and _is_printable(email) and _email(email)):
        raise BadRow("customer_email")
    if not (1 <= len(sku) <= _ID_CHARACTERS and _is_printable(sku)):
        raise BadRow("sku")
    if not (_count(quantity) and 1 <= int(quantity) <= _MOST_QUANTITY):
        raise BadRow("quantity")
    if not (_count(cents) and int(cents) <= _MOST_CENTS):
        raise BadRow("unit_price_cents")
    # What is remembered must be short, whatever is in the file.
    ordered_at = _date(day) if _day(day) else None
    if ordered_at is None:
        raise BadRow("ordered_at")
    return {
        "order_id": order_id,
        "customer_email": email,
        "sku": sku,
        "quantity": int(quantity),
        "unit_price_cents": int(cents),
        "ordered_at": ordered_at,
    }


# The database. Every transaction that writes starts with its write: after a read, SQLite would refuse the write, at
# once and without patience, if anybody else wrote in between.


def register(engine: Engine, import_id: str, found: Survey) -> None:
    """Open an import, unless it was opened before.

    Raises:
        BadFile: it was, for a file of other content.
    """
    query = select(_imports.c.size, _imports.c.digest).where(_imports.c.import_id == import_id)
    with engine.connect() as connection:
        known = connection.execute(query).one_or_none()
    if known is None:
        row = {"import_id": import_id, "size": found.size, "digest": found.digest, "state": "open", "closings": 0}
        with contextlib.suppress(IntegrityError), engine.begin() as connection:
            connection.execute(insert(_imports).values(row))
        with engine.connect() as connection:
            known = connection.execute(query).one()
    if tuple(known) != (found.size, found.digest):
        raise BadFile(
            f"the import {import_id} is of another file, with {known.size} bytes and the SHA-256 {known.digest[:12]}; "
            f"this one has {found.size} bytes and {found.digest[:12]}: give it an import_id of its own."
        )


def number_of(engine: Engine, import_id: str) -> int:
    """The number of an import that was registered."""
    with engine.connect() as connection:
        return int(connection.execute(select(_imports.c.number).where(_imports.c.import_id == import_id)).scalar_one())


def store(engine: Engine, orders: Collection[Row], rejects: Collection[Row]) -> None:
    """Write a batch in one transaction: orders unless a newer version is there, rejects unless they are there.

    Args:
        engine: the app's database.
        orders: rows with their versions, each order_id once.
        rejects: rows.
    """
    write = _write_at_once if engine.dialect.name in {"sqlite", "postgresql"} else write_portably
    # Everybody takes the locks of a database that has them for rows in the same order.
    in_order = sorted(orders, key=itemgetter("order_id"))
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with engine.begin() as connection:
                write(connection, in_order, rejects)
        except IntegrityError:
            # Somebody else has inserted one of the rows since we looked. Now it is there to be seen.
            if attempt == _ATTEMPTS:
                raise
        else:
            return


def _write_at_once(connection: Connection, orders: Collection[Row], rejects: Collection[Row]) -> None:
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    if orders:
        new = dialect.insert(_orders)
        values: dict[str, Any] = {column: new.excluded[column] for column in (*COLUMNS[1:], "version")}
        newer = _orders.c.version < new.excluded.version
        connection.execute(new.on_conflict_do_update(index_elements=["order_id"], set_=values, where=newer), [*orders])
    if rejects:
        connection.execute(dialect.insert(_rejects).on_conflict_do_nothing(), [*rejects])


def write_portably(connection: Connection, orders: Collection[Row], rejects: Collection[Row]) -> None:
    """What any database understands: update what is older, look what is there, and insert the rest.

    Raises:
        IntegrityError: somebody else inserted one of the rows meanwhile; the transaction has to be made again.
    """
    if orders:
        is_older = (_orders.c.order_id == bindparam("key_")) & (_orders.c.version < bindparam("version_"))
        # All that a row names beside these two is set.
        named = [{**row, "key_": row["order_id"], "version_": row["version"]} for row in orders]
        connection.execute(update(_orders).where(is_older), named)
    _insert_absent(connection, _orders.c.order_id, orders)
    for import_id, some in itertools.groupby(rejects, itemgetter("import_id")):
        _insert_absent(connection, _rejects.c.line, [*some], _rejects.c.import_id == import_id)


def _insert_absent(
    connection: Connection, key: Column[Any], rows: Collection[Row], *conditions: ColumnElement[bool]
) -> None:
    """Insert the rows that no row is there for, which meets the conditions and has the same key."""
    keys = [row[key.name] for row in rows]
    there = set(connection.execute(select(key).where(key.in_(keys), *conditions)).scalars())
    if absent := [row for row in rows if row[key.name] not in there]:
        connection.execute(insert(key.table), absent)


def load(path: str, import_id: str, chunk: Chunk, engine: Engine, *, limit: int = LINE_LIMIT) -> dict[str, int]:
    """Load a chunk, batch by batch.

    Args:
        path: the file.
        import_id: an import that was registered.
        chunk: the part to load.
        engine: the app's database.
        limit: the most bytes that a line may have.

    Returns:
        How many rows were read, good, and rejected; the latter two add up to the first.

    Raises:
        BadFile: the file is gone, or it was changed since the chunk was cut.
    """
    read = rejected = 0
    base = number_of(engine, import_id) << _PLACE_BITS
    orders: dict[str, Row] = {}
    rejects: list[Row] = []
    with open_file(path) as file:
        layout = read_header(file, delimiter=delimiter_of(path))
        for number, (offset, line) in enumerate(read_lines(file, chunk, limit=limit), chunk.first_line):
            if line == b"":
                continue
            read += 1
            try:
                row = read_row(line, layout)
            except BadRow as bad:
                rejected += 1
                rejects.append({"import_id": import_id, "line": number, "reason": bad.args[0]})
            else:
                row["version"] = base + offset
                orders[row["order_id"]] = row
            if len(orders) + len(rejects) >= BATCH_ROWS:
                store(engine, orders.values(), rejects)
                orders, rejects = {}, []
    store(engine, orders.values(), rejects)
    return {"read": read, "good": read - rejected, "rejected": rejected}


def close(engine: Engine, import_id: str, counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Close an import with its totals, unless it is closed; return the totals that it was closed with.

    Args:
        engine: the app's database.
        import_id: an import whose chunks are all loaded.
        counts: what `load` returned for each of them.
    """
    sums: Counter[str] = Counter()
    for one in counts:
        sums.update(one)
    base = number_of(engine, import_id) << _PLACE_BITS
    # Orders that a later import has taken over by now are no longer this one's.
    mine = (_orders.c.version >= base) & (_orders.c.version < base + (1 << _PLACE_BITS))
    cents = func.coalesce(func.sum(_orders.c.quantity * _orders.c.unit_price_cents), 0)
    totals: dict[str, Any] = {name: sums[name] for name in ("read", "good", "rejected")}
    totals["orders"] = select(func.count()).select_from(_orders).where(mine).scalar_subquery()
    totals["total_cents"] = select(cents).where(mine).scalar_subquery()
    is_open = (_imports.c.import_id == import_id) & (_imports.c.state == "open")
    closed = update(_imports).where(is_open).values(state="closed", closings=_imports.c.closings + 1, **totals)
    query = select(*(_imports.c[name] for name in _TOTALS)).where(_imports.c.import_id == import_id)
    with engine.begin() as connection:
        connection.execute(closed)
        row = connection.execute(query).one()
    return {name: int(value) for name, value in row._mapping.items()}  # noqa: SLF001 - SQLAlchemy's public name for it.


# The tasks

_LASTING: dict[str, Any] = {"acks_late": True, "max_retries": 12, "default_retry_delay": 5}
"""The delay, in seconds, is for a task whose pool process died; Celery would have it wait for three minutes."""


def _again(task: Task, error: Exception) -> Exception:
    """The exception with which `task` asks for another run, after a pause; `error` is raised if it had its last."""
    pause_s = get_exponential_backoff_interval(1, task.request.retries, BACKOFF_LIMIT_S, full_jitter=True)
    return ask_again(task, pause_s, error)


def _id_of(task: Task, part: str) -> str:
    """The id of something that a task sends: the same from every run of that task."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{task.request.id}/{part}"))


def save_group(group: str, members: Sequence[str]) -> None:
    """Record in `celery_tasksetmeta` what a group consists of, unless an earlier run did."""
    if app.GroupResult.restore(group) is None:
        # Celery only inserts. If another run does so just now, it inserts the same.
        with contextlib.suppress(IntegrityError):
            app.GroupResult(group, [app.AsyncResult(member) for member in members]).save()


@app.task(bind=True, name="scenarios.bulk_data.import_orders", throws=(BadFile,), **_LASTING)
def import_orders(  # noqa: D417 - `self` is Celery's.
    self: Task, path: str, import_id: str, chunk_bytes: int = CHUNK_BYTES
) -> dict[str, Any]:
    """Import a file of orders: send a task for each of its chunks, and one that closes the import after them.

    A second run of this task sends the same ids again, so that whatever the first was able to send is not doubled.

    Args:
        path: where the workers see the file.
        import_id: names the import, in 1 to 100 characters; a file that is imported again keeps its own.
        chunk_bytes: about how much of the file one task loads.

    Returns:
        ``{"import_id": ..., "group": ..., "callback": ..., "chunks": ...}``: two ids, and how many chunks there are.

    Raises:
        BadFile: the file as a whole is refused.
    """
    if not 1 <= len(import_id) <= _IMPORT_ID_CHARACTERS or chunk_bytes < 1:
        raise ValueError(f"an import_id has 1 to {_IMPORT_ID_CHARACTERS} characters, and a chunk at least 1 byte.")
    with open_file(path) as file:
        found = survey(file, delimiter=delimiter_of(path), chunk_bytes=chunk_bytes)
    group, callback = _id_of(self, "group"), _id_of(self, "callback")
    members = [_id_of(self, str(number)) for number in range(len(found.chunks))]
    header = [
        load_chunk.s(path, import_id, **asdict(chunk)).set(task_id=member)
        for member, chunk in zip(members, found.chunks, strict=True)
    ]
    try:
        register(_tables_of(database()), import_id, found)
        # Before anything is sent: what runs can then be looked up.
        save_group(group, members)
        chord(header, close_import.s(import_id)).set(task_id=group).apply_async(task_id=callback)
    except _BROKEN as error:
        raise _again(self, error) from error
    return {"import_id": import_id, "group": group, "callback": callback, "chunks": len(members)}


@app.task(bind=True, name="scenarios.bulk_data.load_chunk", throws=(BadFile,), **_LASTING)
def load_chunk(self: Task, path: str, import_id: str, *, offset: int, length: int, first_line: int) -> dict[str, int]:
    """Load one chunk; arguments and result as `Chunk` and `load` have them."""
    try:
        chunk = Chunk(offset=offset, length=length, first_line=first_line)
        return load(path, import_id, chunk, _tables_of(database()))
    except _BROKEN as error:
        raise _again(self, error) from error


@app.task(bind=True, name="scenarios.bulk_data.close_import", **_LASTING)
def close_import(self: Task, results: list[dict[str, int]], import_id: str) -> dict[str, int]:
    """Close an import, now that all its chunks are loaded; results and result as `close` has them."""
    try:
        return close(_tables_of(database()), import_id, results)
    except _BROKEN as error:
        raise _again(self, error) from error


# The scenario

_ROWS = 10_000


class BulkData(Scenario):
    """A file of orders is imported, twice at once and under load many times; it is there once, as the last has it.

    There is no way over HTTP. A client would have to have the file, which `prepare` makes in the run folder; and what
    the web producer is handed in, it keeps under a name of its own, which is then another task's argument.
    """

    name = "bulk_data"
    app = "scenarios.app"
    options = (
        Option(
            name="rows", help=f"How many rows a made file has; {_ROWS:,} if not said.", default=None, kind=int, least=0
        ),
        Option(name="data", help="A CSV file of orders to import instead of a made one.", default=None, kind=Path),
        Option(
            name="delimiter", help="What separates the values of --data, such as ';' or tab.", default=None, kind=str
        ),
    )
    count = 2

    def prepare(self, stack: "Stack", drive: Drive) -> None:
        """Make the file, or copy the one that was given.

        Raises:
            UsageError: that one is empty, cannot be read or has another delimiter, or one option contradicts another.
        """
        target = _file_of(stack)
        given, rows, delimiter = (self.value(drive, name) for name in ("data", "rows", "delimiter"))
        if given is None:
            if delimiter is not None:
                raise UsageError("--delimiter says how --data is written: give --data as well, or leave it out.")
            described_by(target).unlink(missing_ok=True)
            write_file(target, rows=_ROWS if rows is None else rows, seed=drive.seed)
            return
        if rows is not None:
            raise UsageError("--rows is for a made file, and --data gives one: leave one of the two out.")
        delimiter = _told_delimiter(delimiter)
        _copy(given, target)
        described_by(target).write_text(json.dumps({"dialect": {"delimiter": delimiter}}))
        with target.open("rb") as file:
            other = other_delimiter(file.readline(LINE_LIMIT), delimiter)
        if other is not None:
            said = f"are separated by {shown_delimiter(other)}, not by {shown_delimiter(delimiter)}"
            raise UsageError(f"the columns of --data {given} {said}: give --delimiter {shown_delimiter(other)}.")

    def step(self, producer: "Producer", number: int, seed: int) -> None:
        """Import the file; two steps that follow each other do so under the same import_id."""
        import_id = _import_of(number, seed)
        # Small chunks, so that also a small file becomes many tasks, on many workers.
        given = {"path": "/harness/run/app/orders.csv", "import_id": import_id, "chunk_bytes": 128 * 1024}
        expect = Expect(effects=[f"row:import-{import_id}"])
        producer.send("scenarios.bulk_data.import_orders", kwargs=given, expect=expect)

    def effects(self, stack: "Stack", drive: Drive) -> Iterator[Effect]:
        """One effect for each time that an import was closed."""
        del drive
        found = _database_of(stack)
        if found.exists():
            with contextlib.closing(sqlite3.connect(read_only_uri(found), uri=True, timeout=60)) as reader:
                for import_id, times in reader.execute("SELECT import_id, closings FROM imports ORDER BY number"):
                    yield from [Effect(key=f"row:import-{import_id}")] * times

    def check(self, stack: "Stack", drive: Drive) -> Iterator[Finding]:
        """Rows, rejects and totals are those that the file must lead to; and each group holds its chunks and no others.

        That every task has its row in `celery_taskmeta`, and each import its effect once, the audit sees.
        """
        # An import that was refused is a failed task, and its file need not be readable at all.
        found = _database_of(stack)
        begun = _begun(found, {_import_of(number, drive.seed) for number in drive.numbers}) if found.exists() else []
        if begun:
            delimiter = _told_delimiter(self.value(drive, "delimiter"))
            with (
                tempfile.TemporaryDirectory() as folder,
                contextlib.closing(Prediction(_file_of(stack), Path(folder) / "told.sqlite3", delimiter)) as prediction,
            ):
                yield from prediction.differences(found, begun)
        saved = [row.result for row in stack.results.groups()]
        yield from group_differences(saved, _sent_chunks(stack.folder.journal))


def _told_delimiter(given: str | None) -> str:
    """Return the delimiter that an option says. Raises UsageError for one that there cannot be."""
    delimiter = {None: _COMMA, "tab": "\t", "\\t": "\t"}.get(given, given)
    if not is_delimiter(delimiter):
        raise UsageError(f"--delimiter {given!r} cannot be: {_DELIMITER_RULE}; `tab` is one, too.")
    return str(delimiter)


def _copy(given: str | Path, target: Path) -> None:
    """Copy the file that was given. Raises UsageError if that cannot be, or it is empty."""
    hint = f"Give a CSV file with the columns {', '.join(COLUMNS)}."
    try:
        if not Path(given).is_file():
            raise UsageError(f"--data {given} is no file. {hint}")
        shutil.copyfile(given, target)
    except OSError as error:
        raise UsageError(f"--data {given} cannot be copied into the run folder: {error}. {hint}") from error
    if target.stat().st_size == 0:
        raise UsageError(f"--data {given} is empty (0 bytes). {hint}")


def _import_of(number: int, seed: int) -> str:
    """The import that a step is for."""
    return f"orders-{seed}-{number // 2}"


def _file_of(stack: "Stack") -> Path:
    return stack.folder.path / "app" / "orders.csv"


def _database_of(stack: "Stack") -> Path:
    return stack.folder.path / "app" / "app.sqlite3"


def _begun(found: Path, import_ids: Collection[str]) -> list[str]:
    """Which of these imports the app has begun."""
    with contextlib.closing(sqlite3.connect(read_only_uri(found), uri=True, timeout=60)) as reader:
        known = reader.execute("SELECT import_id FROM imports ORDER BY number")
        return [import_id for (import_id,) in known if import_id in import_ids]


def _sent_chunks(journal: Path) -> list[frozenset[str]]:
    """What the journal says that was sent: the ids of the chunks of each import task."""
    sent: dict[str | None, set[str]] = {}
    for path in sorted(journal.glob("*.jsonl")):
        with path.open("rb") as file:
            for line in file:
                # Few of the lines are worth decoding, and the last one of a process that died may be cut off.
                if b'"scenarios.bulk_data.load_chunk"' in line and line.endswith(b"\n"):
                    event = json.loads(line)
                    # A chunk that is tried again was sent before.
                    if event["kind"] == "intended" and not event.get("retries"):
                        sent.setdefault(event.get("parent"), set()).add(event["task"])
    return [frozenset(members) for members in sent.values()]


def group_differences(saved: Sequence[bytes | None], sent: Sequence[frozenset[str]]) -> Iterator[Finding]:
    """Whether the saved groups are those that were sent.

    Args:
        saved: `result` of each row of `celery_tasksetmeta`.
        sent: the ids of the chunks of each import.
    """
    groups = []
    for result in saved:
        try:
            _, members = json.loads(result or b"")
            groups.append(tuple(sorted(task for (task, _), _ in members)))
        except (ValueError, TypeError):
            groups.append(("unreadable",))
    expected = Counter(tuple(sorted(members)) for members in sent)
    wrong = (Counter(groups) - expected) + (expected - Counter(groups))
    if wrong:
        tasks = tuple(sorted({task for members in wrong for task in members} - {"unreadable"})[:10])
        text = f"{len(groups)} groups are saved and {len(sent)} were sent, and they do not have the same members"
        yield Finding(code="group-differs", verdict=Verdict.FAIL, count=wrong.total(), text=text, tasks=tasks)


scenario = BulkData()
