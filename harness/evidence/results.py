"""The two result tables, read only, at any SQLAlchemy URL. Nothing is ever unpickled here."""

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from harness.errors import ResultsError
from harness.evidence.records import GroupRow, Json, Row

_BUSY_TIMEOUT_S = 60.0
_FOLD_TIMEOUT_S = 5.0
_META = sa.MetaData()
_TASKS = sa.Table(
    "celery_taskmeta",
    _META,
    sa.Column("task_id", sa.String(155)),
    sa.Column("status", sa.String(50)),
    sa.Column("result", sa.LargeBinary),
)
_GROUPS = sa.Table(
    "celery_tasksetmeta",
    _META,
    sa.Column("taskset_id", sa.String(155)),
    sa.Column("result", sa.LargeBinary),
)


def create(path: Path) -> None:
    """Make an empty result database in WAL mode, which the file keeps; Celery makes its tables in it.

    It has to happen before the first worker starts: only then does every connection find WAL.

    Raises:
        ResultsError: the file cannot be written (no disk left, no permission).
    """
    try:
        connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S)
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
    """Write what the write-ahead log still holds into the file itself, so that the file can be copied alone.

    A worker that is killed leaves its log behind. Call it when nobody uses the file any more; where it cannot be
    done, for lack of space say, everything stays as it is, and every reader still finds all rows.
    """
    with suppress(sqlite3.Error), closing(sqlite3.connect(path, timeout=_FOLD_TIMEOUT_S)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


class Results:
    """Reads `celery_taskmeta` and `celery_tasksetmeta`."""

    def __init__(self, url: str) -> None:
        """Nothing is opened until the first read.

        Args:
            url: an SQLAlchemy URL; Celery's own form with a leading `db+` is understood as well.

        Raises:
            ResultsError: `url` is no such URL, or its driver is not installed.
        """
        try:
            self._url = sa.make_url(url.removeprefix("db+"))
            self._engine = self._connect()
        except (sa.exc.ArgumentError, ImportError) as error:
            # What stands before the last @ may be a password.
            shown = url.rpartition("@")[2]
            raise ResultsError(f"cannot use the results URL {shown!r}: {error}") from error

    @classmethod
    def of_file(cls, path: Path) -> "Results":
        """The results in a SQLite file."""
        return cls(sa.URL.create("sqlite", database=str(path)).render_as_string())

    def _connect(self) -> sa.Engine:
        if self._url.get_backend_name() != "sqlite":
            return sa.create_engine(self._url, poolclass=sa.NullPool)
        path = Path(self._url.database or "").absolute()

        def read_only() -> sqlite3.Connection:
            # Read-only to SQLite means that a write-ahead log is left behind, even an empty one. A connection that
            # may write and is told not to takes it away.
            where = f"file:{quote(str(path))}"
            try:
                connection = sqlite3.connect(f"{where}?mode=rw", uri=True, timeout=_BUSY_TIMEOUT_S)
                connection.execute("PRAGMA query_only=ON")
                connection.execute("SELECT count(*) FROM sqlite_master")
            except sqlite3.OperationalError:
                if not path.exists() or os.access(path, os.W_OK):
                    raise
                # In a folder that nobody can write to, nobody writes now.
                connection = sqlite3.connect(f"{where}?mode=ro&immutable=1", uri=True)
            return connection

        return sa.create_engine("sqlite://", creator=read_only, poolclass=sa.NullPool)

    def row(self, task: str) -> Row | None:
        """The row of one task, or None."""
        return next(self._rows(sa.select(_TASKS).where(_TASKS.c.task_id == task)), None)

    def rows(self) -> Iterator[Row]:
        """Every row of `celery_taskmeta`, streamed. No table yet means no rows."""
        return self._rows(sa.select(_TASKS))

    def tuples(self) -> Iterator[tuple[str, str, bytes | None]]:
        """As `rows`, as plain tuples of task id, status and result: the quick way through a million."""
        with self._reading(_TASKS) as connection:
            if connection is not None:
                for part in connection.execute(sa.select(_TASKS)).partitions(10_000):
                    yield from map(tuple, part)

    def count(self, status: str | None = None) -> int:
        """How many rows `celery_taskmeta` has, or how many with this status."""
        query = sa.select(sa.func.count()).select_from(_TASKS)
        if status is not None:
            query = query.where(_TASKS.c.status == status)
        with self._reading(_TASKS) as connection:
            return 0 if connection is None else int(connection.execute(query).scalar_one())

    def groups(self) -> list[GroupRow]:
        """Every row of `celery_tasksetmeta`; empty until somebody calls `GroupResult.save()`."""
        with self._reading(_GROUPS) as connection:
            found = [] if connection is None else connection.execute(sa.select(_GROUPS)).all()
        return [GroupRow(taskset=row.taskset_id, result=row.result) for row in found]

    def _rows(self, query: sa.Select[Any]) -> Iterator[Row]:
        with self._reading(_TASKS) as connection:
            if connection is not None:
                for task, status, result in connection.execute(query).yield_per(10_000):
                    yield Row(task=task, status=status, result=result)

    @contextmanager
    def _reading(self, table: sa.Table) -> Iterator[sa.Connection | None]:
        """A connection for one read; None where the table has not been made yet."""
        try:
            with self._engine.connect() as connection:
                if sa.inspect(connection).has_table(table.name):
                    yield connection.execution_options(stream_results=True)
                else:
                    yield None
        except sa.exc.DBAPIError as error:
            where = self._url.render_as_string(hide_password=True)
            raise ResultsError(f"cannot read the results at {where}: {error.orig}") from error


def decode(row: Row) -> Json:
    """The result of a row, if it is JSON.

    Raises:
        ResultsError: it is pickled or otherwise not JSON, which the harness will not decode, or nested too deep.
    """
    if row.result is None:
        return None
    try:
        return json.loads(row.result)
    except (ValueError, RecursionError) as error:
        # Pickle since protocol 2 begins with this byte, which no JSON text can.
        what = "pickled" if row.result[:1] == b"\x80" else "not JSON"
        if isinstance(error, RecursionError):
            what = "nested too deep"
        raise ResultsError(f"the result of task {row.task} is {what}, and is not decoded.") from error
