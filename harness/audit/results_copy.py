"""A copy of the result tables in a new SQLite file, as the audit reads them from the run folder."""

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from harness.audit.results import Results
from harness.errors import ResultsError

_TASK = "INSERT INTO celery_taskmeta (task_id, status, result, date_done) VALUES (?, ?, ?, ?)"
_GROUP = "INSERT INTO celery_tasksetmeta (taskset_id, result) VALUES (?, ?)"


def copy(results: Results, tasks: Iterable[str], target: Path, when: Callable[[str, datetime], float]) -> int:
    """Write the rows of `tasks` into a new SQLite file, which then holds nothing else.

    Rows of groups are not copied: they do not say who sent them.

    Args:
        results: the tables.
        tasks: the ids.
        target: the file; an existing one is replaced at the end, as a whole.
        when: returns the Unix time of a task's `date_done`. The copy's times are UTC.

    Returns:
        The number of tasks that had a row.

    Raises:
        ResultsError: the rows cannot be read, or the file cannot be written.
    """

    def in_utc(task: str, done: datetime | None) -> datetime | None:
        return None if done is None else datetime.fromtimestamp(when(task, done), UTC)

    with _replaced(target) as file:
        rows = results.stored(tasks)
        return file.executemany(_TASK, ((*row[:3], _as_text(in_utc(row.task, row.done))) for row in rows)).rowcount


def copy_all(results: Results, target: Path) -> None:
    """Write all rows of both tables, as they are, into a new SQLite file, which then holds nothing else.

    For a database that belongs to one run alone.

    Args:
        results: the tables.
        target: the file; an existing one is replaced at the end, as a whole.

    Raises:
        ResultsError: the rows cannot be read, or the file cannot be written.
    """
    with _replaced(target) as file:
        file.executemany(_TASK, ((*row[:3], _as_text(row.done)) for row in results.stored()))
        file.executemany(_GROUP, ((group.taskset, group.result) for group in results.stored_groups()))


@contextmanager
def _replaced(target: Path) -> Iterator[sqlite3.Connection]:
    """Yield a connection to a new file with empty tables, which then replaces `target`. Raises ResultsError."""
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with closing(sqlite3.connect(partial)) as connection:
            connection.execute(
                "CREATE TABLE celery_taskmeta (id INTEGER PRIMARY KEY, task_id VARCHAR(155) UNIQUE, "
                "status VARCHAR(50), result BLOB, date_done DATETIME)"
            )
            connection.execute(
                "CREATE TABLE celery_tasksetmeta (id INTEGER PRIMARY KEY, taskset_id VARCHAR(155) UNIQUE, result BLOB)"
            )
            yield connection
            connection.commit()
        partial.replace(target)
    except (sqlite3.Error, OSError) as error:
        raise ResultsError(f"cannot copy the results to {target}: {error}. Is the disk full?") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _as_text(moment: datetime | None) -> str | None:
    """Return a time as Celery's SQLite tables hold it."""
    return None if moment is None else f"{moment:%Y-%m-%d %H:%M:%S.%f}"
