"""The two result tables, read only, at any SQLAlchemy URL. Nothing is ever unpickled here.

The file is long because every question to the tables, of a small or a large file or a server, has one reader.
"""

import json
import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.pool import NullPool

from harness.audit.sqlite_file import BUSY_TIMEOUT_S, open_read_only
from harness.errors import ResultsError
from harness.records.values import Json

_FOLD_TIMEOUT_S = 5.0
"""The longest wait for a file that is to be folded. It is short, because nothing is lost if the log stays."""
_QUERY_TIMEOUT_S = 60.0
"""The time limit of one PostgreSQL statement, including the wait for a locked table. A shorter limit would make the
results of a busy server unreadable, and the verdict unknown; a longer one would delay the end of the run."""
_LIBPQ = {
    "connect_timeout": 10,
    # A server that is cut off during a query sends nothing, and by default libpq waits for hours.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,
}
"""libpq's time limits, in seconds; the last is in milliseconds. An option in the URL takes precedence.

A server that is cut off is noticed after 10 s without an answer and 4 probes 5 s apart. That is 30 s, which is also
`tcp_user_timeout`, the limit for data that was sent. Shorter limits would give up a server behind a network that fails
for some seconds; longer ones would delay the end of the run.
"""
_PACKAGES = {
    "psycopg": "psycopg[binary]",
    "psycopg2": "psycopg2-binary",
    "MySQLdb": "mysqlclient",
    "pymysql": "pymysql",
}
"""The package of each driver module, where the names differ or the binary extra is needed."""
_CHUNK_IDS = 1_000
"""Ids in one query. SQLite and PostgreSQL accept more; a larger number is hardly faster, and holds a row lock no
longer."""
_HELD_ROWS = 50
"""Rows with their results that are held at once by `stored`. A result may be large, so that a thousand could
fill the memory."""
_STREAMED_ROWS = 10_000
"""Rows that are fetched at once while all are read. Fewer would need more round trips; more would need more memory."""
_LONGEST_ERROR_CHARS = 200
"""The longest text of an exception. It is shown in one line; the result table has all of it."""
_FINAL = ("SUCCESS", "FAILURE", "REVOKED")
_POSTGRESQL = "postgresql+psycopg2" if sa.__version__.startswith("1.") else "postgresql+psycopg"
"""A driver that this SQLAlchemy knows: 1.4 does not know psycopg 3."""


class _Stored(sa.LargeBinary):
    """A column of bytes in which SQLite may have text: SQLAlchemy 1.4 and 2.0 fail to read that."""

    cache_ok = True

    def result_processor(self, dialect: Any, coltype: object) -> Any:
        """Return a function that reads a value; None if the driver's own will do."""
        process = super().result_processor(dialect, coltype)  # type: ignore[no-untyped-call] # SQLAlchemy's own.
        return process and (lambda value: value if isinstance(value, str) else process(value))


_META = sa.MetaData()
# The lengths of the columns are Celery's.
_TASKS = sa.Table(
    "celery_taskmeta",
    _META,
    sa.Column("task_id", sa.String(155)),
    sa.Column("status", sa.String(50)),
    sa.Column("result", _Stored),
)
_DATE_DONE = sa.column("date_done", sa.DateTime())
"""A separate column, because few readers need it."""
_GROUPS = sa.Table(
    "celery_tasksetmeta",
    _META,
    sa.Column("taskset_id", sa.String(155)),
    sa.Column("result", _Stored),
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of `celery_taskmeta`, undecoded."""

    task: str
    status: str
    result: bytes | None
    """The stored bytes: JSON since Celery 5.7 with its default serializer. Never unpickled."""


@dataclass(frozen=True, kw_only=True)
class GroupRow:
    """One row of `celery_tasksetmeta`, undecoded."""

    taskset: str
    result: bytes | None


def create(path: Path) -> None:
    """Create an empty result database in WAL mode, which the file keeps; Celery creates its tables.

    It has to happen before the first worker starts: only then does every connection find WAL.

    Raises:
        ResultsError: the file cannot be written (no disk left, no permission).
    """
    try:
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)
        try:
            (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise ResultsError(
            f"cannot create the result database {path}: {error}. Is the disk full or read-only?"
        ) from error
    if mode != "wal":
        raise ResultsError(f"{path} cannot be put into WAL mode (it stays {mode}): use a local file system.")


def fold(path: Path) -> None:
    """Write the content of the write-ahead log into the file itself, so that the file can be copied alone.

    A worker that is killed leaves its log behind. Call this when no process uses the file any more. If it fails, for
    example for lack of space, everything stays as it is, and every reader still finds all rows.
    """
    with suppress(sqlite3.Error), closing(sqlite3.connect(path, timeout=_FOLD_TIMEOUT_S)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def exception_in(result: bytes | None) -> str:
    """Return the exception of a FAILURE by its stored bytes, in one line with all its words; it is never unpickled."""
    try:
        said = json.loads(result or b"null")
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        return "an exception that is not JSON"
    message = said.get("exc_message")
    parts = message if isinstance(message, list) else [message]
    words = ", ".join(str(part) for part in parts if part is not None)
    return f"{said.get('exc_type')}: {words}".rstrip(": ")[:_LONGEST_ERROR_CHARS]


class Ending(NamedTuple):
    """The end of one task, by its row."""

    task: str
    status: str
    """SUCCESS, FAILURE or REVOKED."""
    done: datetime | None
    """The time of its end by the worker's clock, in a zone that the table does not name; see `Results.endings`."""
    result: bytes | None
    """The exception of a FAILURE, undecoded; otherwise None."""


class Stored(NamedTuple):
    """One row of `celery_taskmeta` with all that is stored in it, undecoded."""

    task: str
    status: str
    result: bytes | None
    done: datetime | None
    """As in `Ending`."""


class Results:
    """A reader of `celery_taskmeta` and `celery_tasksetmeta`."""

    def __init__(self, url: str | URL) -> None:
        """Prepare the engine; the first read connects.

        Args:
            url: an SQLAlchemy URL; of a text, Celery's own form with a leading `db+` is accepted as well.

        Raises:
            ResultsError: `url` is not such a URL, or its driver is not installed.
        """
        try:
            self._url = _parsed(url.removeprefix("db+")) if isinstance(url, str) else url
            self._engine = self._connect()
        except ImportError as error:
            module = (error.name or self._url.get_driver_name()).partition(".")[0]
            raise ResultsError(
                f"cannot use the results URL {_shown(url)!r}: its driver {module} is not installed, or not whole; "
                f"install the package {_PACKAGES.get(module, module)}."
            ) from error
        except (sa.exc.ArgumentError, ValueError) as error:
            # The error for a malformed URL may quote a part of it, such as the password.
            said = str(error) if isinstance(error, sa.exc.NoSuchModuleError) else "it is no SQLAlchemy URL"
            raise ResultsError(
                f"cannot use the results URL {_shown(url)!r}: {said}. Give one such as "
                f"{_POSTGRESQL}://user:password@host/database or sqlite:////folder/results.sqlite3; "
                "write special characters in user and password as %40 and the like."
            ) from error
        if self._engine.dialect.is_async:
            raise ResultsError(
                f"cannot use the results URL {_shown(url)!r}: its driver {self._engine.driver} is asynchronous; "
                f"take another one, such as {_POSTGRESQL}."
            )

    @classmethod
    def of_file(cls, path: Path) -> "Results":
        """Return a reader of the results in a SQLite file."""
        # No text: SQLAlchemy 1.4 writes a `?` in a path as it is, and would read it as the beginning of the options.
        return cls(URL.create("sqlite", database=str(path)))

    def _connect(self) -> Engine:
        if self._url.get_backend_name() != "sqlite":
            bounds: dict[str, Any] = {}
            if self._url.get_driver_name() in {"psycopg", "psycopg2"}:
                bounds = {name: value for name, value in _LIBPQ.items() if name not in self._url.query}
            return sa.create_engine(self._url, poolclass=NullPool, connect_args=bounds, future=True)
        path = Path(self._url.database or "").absolute()
        # `future`: SQLAlchemy 1.4 would otherwise behave as 1.3 did.
        return sa.create_engine("sqlite://", creator=lambda: open_read_only(path), poolclass=NullPool, future=True)

    def row(self, task: str) -> Row | None:
        """Return the row of one task, or None. Raises ResultsError."""
        return next(self._rows(sa.select(_TASKS).where(_TASKS.c.task_id == task)), None)

    def rows(self) -> Iterator[Row]:
        """Yield every row of `celery_taskmeta`, streamed; none if the table does not exist. Raises ResultsError."""
        return self._rows(sa.select(_TASKS))

    def endings(self, tasks: Iterable[str]) -> Iterator[list[Ending]]:
        """Yield the endings of those `tasks` that have a final row, one list per thousand ids; reads no other rows.

        Celery 5.7 writes `date_done` as `app.now()`, in the zone of the app's `timezone`, and SQLite keeps it without
        the zone. A PostgreSQL server first converts it to the zone of the worker's connection, which is the server's
        own unless another one was set.

        Args:
            tasks: the ids. The next thousand are taken only after the list before them was consumed, so the caller may
                stop.

        Raises:
            ResultsError: the server cannot be reached, or the table cannot be read.
        """
        result = sa.case((_TASKS.c.status == "FAILURE", _TASKS.c.result))
        query = sa.select(_TASKS.c.task_id, _TASKS.c.status, _DATE_DONE, result).where(_TASKS.c.status.in_(_FINAL))
        with self._reading(_TASKS) as connection:
            for chunk in _chunks(tasks):
                if connection is None:
                    yield []
                    continue
                found = connection.execute(
                    query.where(_TASKS.c.task_id.in_(chunk)), execution_options={"stream_results": False}
                )
                yield [Ending(*row) for row in found]

    def stored(self, tasks: Iterable[str] | None = None) -> Iterator[Stored]:
        """Yield the rows of `celery_taskmeta` with all that is stored in them; few are held at once.

        Args:
            tasks: the ids of the rows, taken a thousand at a time; None for every row.

        Raises:
            ResultsError: the rows cannot be read.
        """
        query = sa.select(_TASKS.c.task_id, _TASKS.c.status, _TASKS.c.result, _DATE_DONE)
        queries = [query] if tasks is None else (query.where(_TASKS.c.task_id.in_(chunk)) for chunk in _chunks(tasks))
        with self._reading(_TASKS) as connection:
            if connection is not None:
                for one in queries:
                    yield from map(Stored._make, connection.execute(one).yield_per(_HELD_ROWS))

    def count(self, status: str | None = None) -> int:
        """Return the number of rows in `celery_taskmeta`, or of those with this status. Raises ResultsError."""
        query = sa.select(sa.func.count()).select_from(_TASKS)
        if status is not None:
            query = query.where(_TASKS.c.status == status)
        with self._reading(_TASKS) as connection:
            return 0 if connection is None else int(connection.execute(query).scalar_one())

    def groups(self) -> list[GroupRow]:
        """Return every row of `celery_tasksetmeta`; `GroupResult.save()` writes them. Raises ResultsError."""
        return list(self.stored_groups())

    def stored_groups(self) -> Iterator[GroupRow]:
        """Yield every row of `celery_tasksetmeta`; few are held at once. Raises ResultsError."""
        with self._reading(_GROUPS) as connection:
            if connection is not None:
                for taskset, result in connection.execute(sa.select(_GROUPS)).yield_per(_HELD_ROWS):
                    yield GroupRow(taskset=taskset, result=result)

    def _rows(self, query: "sa.Select[Any]") -> Iterator[Row]:
        with self._reading(_TASKS) as connection:
            if connection is not None:
                for task, status, result in connection.execute(query).yield_per(_STREAMED_ROWS):
                    yield Row(task=task, status=status, result=result)

    @contextmanager
    def _reading(self, table: sa.Table) -> Iterator[Connection | None]:
        """Open a connection for one read; None if the table does not exist yet. Raises ResultsError."""
        try:
            with self._engine.connect() as connection:
                if self._url.get_backend_name() == "postgresql":
                    # SET LOCAL lasts for this transaction alone: a pooler may give the connection to another client.
                    limit = f"SET LOCAL statement_timeout = {round(_QUERY_TIMEOUT_S * 1000)}"
                    connection.exec_driver_sql(limit)
                if sa.inspect(connection).has_table(table.name):
                    yield connection.execution_options(stream_results=True)
                else:
                    yield None
        except sa.exc.DBAPIError as error:
            said = " ".join(str(error.orig).split())
            raise ResultsError(f"cannot read the results at {self.where}: {said}") from error

    @property
    def engine(self) -> Engine:
        """The engine of all reads. Of a SQLite file, its connections do not write."""
        return self._engine

    @property
    def file(self) -> Path | None:
        """The SQLite file; None if the tables are elsewhere."""
        is_file = self._url.get_backend_name() == "sqlite" and self._url.database
        return Path(self._url.database or "").absolute() if is_file else None

    @property
    def where(self) -> str:
        """The URL for display: without a password, and without options, which may hold one too."""
        return self._url.set(query={}).render_as_string(hide_password=True)


def _chunks(tasks: Iterable[str]) -> Iterator[list[str]]:
    remaining = iter(tasks)
    while chunk := list(islice(remaining, _CHUNK_IDS)):
        yield chunk


def _parsed(url: str) -> URL:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" and "@" in (parsed.database or ""):
        # A password with an @ and a / in it; half of it would be taken for the host, and displayed.
        raise sa.exc.ArgumentError("an @ in the name of the database")
    return parsed


def _shown(url: str | URL) -> str:
    """Return a URL for display, without the part before the last @ and the options, which may hold a password."""
    return re.sub(r"\?.*", "", str(url).rpartition("@")[2], flags=re.DOTALL)


def decode(row: Row) -> Json:
    """Decode the result of a row from JSON.

    Raises:
        ResultsError: it is pickled or otherwise not JSON, which is never decoded, or nested too deep.
    """
    if row.result is None:
        return None
    try:
        return json.loads(row.result)
    except (ValueError, RecursionError) as error:
        # Pickle since protocol 2 begins with this byte, with which no JSON text can begin.
        what = "pickled" if row.result[:1] == b"\x80" else "not JSON"
        if isinstance(error, RecursionError):
            what = "nested too deep"
        raise ResultsError(f"the result of task {row.task} is {what}, and is not decoded.") from error
