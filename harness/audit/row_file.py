"""The rows of a result file, for the audit. The file may hold anything: it is read within bounds, or refused."""

import sqlite3
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from threading import Event

from harness.audit.sqlite_file import open_read_only
from harness.errors import ResultsError

_LONG_BYTES = 2_048
"""The most bytes of a result in the database, as for a line of the journal. A longer one is compared as a digest."""
_TABLE = "celery_taskmeta"
_GROUPS = "celery_tasksetmeta"
_COLUMNS = ("task_id", "status", "result")
_LIMIT_S = 900.0
"""The time limit of one connection. Hundreds of millions of rows take less. Without a limit, a file that generates rows
would be read for ever."""
_LONGEST_VALUE_BYTES = 1 << 29
"""The most bytes of one value. SQLite's own limit is a thousand million. A file with a longer value counts as
unreadable; a higher limit would let one value fill the memory."""
_LONGEST_NAME_BYTES = 1_024
"""The most bytes of an id, a status or a date that are read. Celery's columns have room for 155 and 50 characters, each
of four bytes at most."""
_STEPS = 100_000
"""SQLite instructions between two checks of the time limit. Frequent checks would slow down every read; rare ones would
make another thread that stops the read wait longer."""
_MANY_ROWS = 1_000
"""Rows, groups or tables that are held at once. Of more groups or tables, the others are not read: a foreign file could
have any number of them. Then nothing is said of the members of the groups that were not read."""
_LEAST_BYTES = 1 << 20
"""Rows that a file may have beyond its number of bytes: it may grow after its size was read."""
_SHOWN_TABLES = 10
"""The number of tables that an error names: enough to recognise another program's file."""


class RowFile:
    """The table `celery_taskmeta` of a SQLite file from another program."""

    def __init__(self, path: Path, name: str) -> None:
        """Remember the path; each read opens the file.

        Args:
            path: the file.
            name: the name of the file in errors.
        """
        self._path = path
        self._name = name
        self.stopped = Event()
        """Ends the current read when another thread sets it."""

    def export(self, target: Path, *, dated: bool) -> int:
        """Write each row as a line of task, status, result and end, for the query `rows`.

        A value is an `x` and its bytes in hexadecimal; NULL is empty. So no text can be confused with NULL, with the
        end of a value, or with the end of a line. A result that is too long is a `+`. The two most frequent statuses
        are written as they are, which is faster.

        Args:
            target: the file to write.
            dated: whether to write the time when each task ended.

        Returns:
            The number of rows; 0 if the file has no tables.

        Raises:
            ResultsError: the file is not a SQLite file, or the table is not one that Celery creates.
        """
        done = _hexadecimal("date_done") if dated else "''"
        long = f"WHEN length(CAST(result AS BLOB)) > {_LONG_BYTES} THEN '+'"
        result = f"CASE WHEN result IS NULL THEN '' {long} ELSE 'x' || hex(result) END"
        status = f"CASE WHEN status IN ('SUCCESS', 'FAILURE') THEN status ELSE {_hexadecimal('status')} END"
        columns = (_hexadecimal("task_id"), status, result, done)
        query = "SELECT " + " || ',' || ".join(columns) + f" FROM {_TABLE}"  # noqa: S608 - all parts are constants.
        with self._connected() as connection, target.open("wb") as file:
            if not self._has_table(connection, _COLUMNS + (("date_done",) if dated else ())):
                return 0
            # Each row takes some bytes. More rows than bytes means that the file generates rows while it is read.
            log = self._path.with_name(f"{self._path.name}-wal")
            most = _LEAST_BYTES + _bytes_of(self._path) + _bytes_of(log)
            count = 0
            # The lines are ASCII, so that nobody has to decode them.
            connection.text_factory = bytes
            rows = connection.execute(query)
            while lines := rows.fetchmany(_MANY_ROWS):
                file.write(b"\n".join([line for (line,) in lines]) + b"\n")
                count += len(lines)
                if count > most:
                    raise ResultsError(f"{self._name} has more rows than bytes.")
            return count

    def results(self, tasks: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Yield the stored results of some tasks, one after another, each of them whole.

        Raises:
            ResultsError: the file cannot be read.
        """
        query = f"SELECT result FROM {_TABLE} WHERE task_id = ? LIMIT 1"  # noqa: S608 - the name is a constant.
        with self._connected() as connection:
            for task in tasks:
                row = connection.execute(query, (task,)).fetchone()
                if row is not None and row[0] is not None:
                    yield task, row[0] if isinstance(row[0], bytes) else str(row[0]).encode("utf-8", "surrogateescape")

    def groups(self) -> Iterator[tuple[str, bytes]]:
        """Yield the first thousand saved groups with their results; none if the table does not exist.

        Raises:
            ResultsError: the file cannot be read.
        """
        query = f"SELECT taskset_id, result FROM {_GROUPS} LIMIT {_MANY_ROWS}"  # noqa: S608 - the name is a constant.
        with self._connected() as connection:
            tables = connection.execute("SELECT type FROM sqlite_master WHERE name = ?", (_GROUPS,)).fetchall()
            for taskset, result in connection.execute(query) if tables == [("table",)] else ():
                if isinstance(taskset, str) and isinstance(result, bytes):
                    yield taskset, result

    def _has_table(self, connection: sqlite3.Connection, columns: Iterable[str]) -> bool:
        """Return whether the table exists; False if the file has no tables.

        Raises ResultsError if it is not an ordinary one.
        """
        found = connection.execute("SELECT name, type, sql FROM sqlite_master WHERE type IN ('table', 'view')")
        kinds = {name: (kind, str(sql)) for name, kind, sql in islice(found, _MANY_ROWS)}
        if _TABLE not in kinds:
            if others := sorted(name for name in kinds if not name.startswith("sqlite_"))[:_SHOWN_TABLES]:
                raise ResultsError(
                    f"{self._name} has no table {_TABLE}; it has {', '.join(others)}. Where the app names "
                    "its tables otherwise (database_table_names, database_table_schemas), nobody knows what is in them."
                )
            return False
        kind, sql = kinds[_TABLE]
        if kind != "table" or sql.upper().startswith("CREATE VIRTUAL"):
            raise ResultsError(f"{_TABLE} in {self._name} is a {'view' if kind == 'view' else 'virtual table'}.")
        there = {name: hidden for _, name, _, _, _, _, hidden in connection.execute(f"PRAGMA table_xinfo({_TABLE})")}
        if strange := [column for column in columns if there.get(column) != 0]:
            raise ResultsError(f"{_TABLE} in {self._name} has no stored column {', '.join(strange)}.")
        return True

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        end_s = time.monotonic() + _LIMIT_S

        def is_over() -> bool:
            return self.stopped.is_set() or time.monotonic() > end_s

        try:
            if not stat.S_ISREG(self._path.stat().st_mode):
                raise ResultsError(f"{self._name} is no regular file.")
            with closing(open_read_only(self._path)) as connection:
                connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE_BYTES)
                connection.execute("PRAGMA trusted_schema=OFF")
                connection.text_factory = lambda value: value.decode("utf-8", "surrogateescape")
                connection.set_progress_handler(is_over, _STEPS)
                yield connection
        except OSError as error:
            raise ResultsError(f"cannot read {self._name}: {error.strerror}.") from error
        except sqlite3.Error as error:
            why = f"it takes longer than {_LIMIT_S:g} s" if time.monotonic() > end_s else str(error)
            raise ResultsError(f"cannot read {self._name}: {why}") from error


def _hexadecimal(column: str) -> str:
    name = f"substr(CAST({column} AS BLOB), 1, {_LONGEST_NAME_BYTES})"
    return f"CASE WHEN {column} IS NULL THEN '' ELSE 'x' || hex({name}) END"


def _bytes_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
