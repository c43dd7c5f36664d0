"""A lock on the result tables: readers go on, and nobody else can write."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Protocol

import sqlalchemy as sa

from harness.audit.results import Results
from harness.errors import ResultsError

_WAIT_S = 10.0
"""The longest wait for writers that are at work. One that writes takes milliseconds; a longer wait would keep the
next fault waiting where the tables are locked already."""
_LOCK = "LOCK TABLE celery_taskmeta IN"
_COUNT = "SELECT count(*) FROM celery_taskmeta"


class ResultsLock(Protocol):
    """Holds the lock from its creation on. It ends with its process at the latest. Any thread may use it."""

    def is_held(self) -> bool:
        """Return whether another writer is refused at this moment, and none has written since the lock was taken."""

    def release(self) -> None:
        """Release it. A second time does nothing."""


def lock(results: Results) -> ResultsLock:
    """Lock the result tables. Raises ResultsError if they are locked already, cannot be reached, or are not there."""
    if results.file is not None:
        return _SqliteLock(results.file)
    if results.engine.dialect.name != "postgresql":
        raise ResultsError(f"the results at {results.where} cannot be locked: only SQLite's and PostgreSQL's can be.")
    return _PostgreSQLLock(results)


class _SqliteLock:
    """The write lock of a SQLite file. In WAL mode, it does not keep readers out."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with _explained(str(path)):
            self._connection = self._connect(_WAIT_S)
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                self._watch = self._connect(_WAIT_S)
            except BaseException:
                self._connection.close()
                raise
        self._version = self._data_version()

    def is_held(self) -> bool:
        if not self._connection.in_transaction or self._data_version() != self._version:
            return False
        with closing(self._connect(0)) as other:
            try:
                other.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                return error.sqlite_errorcode == sqlite3.SQLITE_BUSY
            return False

    def release(self) -> None:
        with suppress(sqlite3.ProgrammingError):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        self._watch.close()
        self._connection.close()

    def _data_version(self) -> int:
        """Return a number that changes whenever another connection commits."""
        (version,) = self._watch.execute("PRAGMA data_version").fetchone()
        return int(version)

    def _connect(self, timeout_s: float) -> sqlite3.Connection:
        # A fault is healed by another thread than the one that injected it, if its test does not heal it.
        return sqlite3.connect(self._path, timeout=timeout_s, isolation_level=None, check_same_thread=False)


class _PostgreSQLLock:
    """A lock on Celery's table of results."""

    def __init__(self, results: Results) -> None:
        self._results = results
        with _explained(results.where):
            self._connection = results.engine.connect()
            try:
                self._connection.exec_driver_sql(f"SET LOCAL lock_timeout = {round(_WAIT_S * 1000)}")
                self._connection.exec_driver_sql(f"{_LOCK} EXCLUSIVE MODE")
                self._count = self._rows()
            except BaseException:
                self._connection.close()
                raise

    def is_held(self) -> bool:
        with _explained(self._results.where):
            if self._rows() != self._count:
                return False
            with self._results.engine.connect() as other:
                try:
                    other.exec_driver_sql(f"{_LOCK} ROW EXCLUSIVE MODE NOWAIT")
                except sa.exc.OperationalError:
                    return True
                return False

    def release(self) -> None:
        # Closing rolls back, and so unlocks.
        self._connection.close()

    def _rows(self) -> int:
        return int(self._connection.exec_driver_sql(_COUNT).scalar_one())


@contextmanager
def _explained(where: str) -> Iterator[None]:
    """Turn an error of the database into a ResultsError."""
    try:
        yield
    except (sqlite3.Error, sa.exc.SQLAlchemyError) as error:
        said = " ".join(str(getattr(error, "orig", error)).split())
        raise ResultsError(f"cannot lock the results at {where}: {said}") from error
