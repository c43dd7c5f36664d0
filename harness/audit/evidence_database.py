"""The database of an audit: DuckDB, with the named queries of `witnesses.sql` and `audit.sql`."""

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

import duckdb

from harness.audit.json_lines import shown
from harness.errors import RunFolderError
from harness.records.values import Json

FIRST_TASKS = 10
"""The number of ids that a finding names. Its count tells of the others, so that audit.json stays short even if a
million tasks are lost."""
_MEMORY_MB = 300
"""The memory limit of the database. The audit of a million tasks has to stay below 500 MB, and Python needs the rest. A
lower limit would make the database spill earlier, and fail on shorter lines."""
_MOST_THREADS = 4
"""The most threads of the database. Each has its own buffers, so that more threads leave less memory for the tables."""
_LITTLE_MB = 10
"""The size of the evidence up to which the database has one thread, in megabytes. A second one saves no time there, and
takes a sixth more of the processors' (measured with 2,000 to 50,000 tasks; 10 MB are about 10,000)."""
_PARSED: Final[dict[str, list[duckdb.Statement]]] = {}
"""The parsed queries of this process, by their texts. Who audits many runs, as pytest does, parses each once: that is
a sixth of the time of a small audit."""
_FETCHED_ROWS = 1_000
"""Rows that are held at once. Fewer would need more calls; more would need more memory, because a row can be long."""


@contextmanager
def open_database(folder: Path) -> Iterator["Database"]:
    """Open an empty database for the evidence in `folder`; it spills what does not fit into its memory.

    Raises:
        RunFolderError: the database cannot process the evidence.
    """
    with tempfile.TemporaryDirectory(prefix="celery-harness-audit-") as scratch:
        connection = duckdb.connect(
            ":memory:",
            config={
                "memory_limit": f"{_MEMORY_MB}MB",
                "temp_directory": scratch,
                "threads": str(_threads(folder)),
                "preserve_insertion_order": "false",
            },
        )
        try:
            yield Database(connection, Path(scratch))
        except duckdb.Error as error:
            said = str(error).partition("\n")[0]
            raise RunFolderError(f"the evidence in {shown(str(folder))} cannot be audited: {said}") from error
        finally:
            connection.close()


def _threads(folder: Path) -> int:
    """Return the number of threads for the evidence in `folder`, by its size."""
    size_mb = 0.0
    for file in folder.rglob("*"):
        with suppress(OSError):  # It is gone again: a run that goes on has such files.
            size_mb += file.stat().st_size / 1e6
    return 1 if size_mb <= _LITTLE_MB else min(os.cpu_count() or 1, _MOST_THREADS)


class Database:
    """The named queries of witnesses.sql and audit.sql, on one connection."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, scratch: Path) -> None:
        """Read the queries. `scratch` is a folder for intermediate files."""
        self._connection = connection
        self.scratch = scratch
        self._queries: dict[str, str] = {}
        for file in ("witnesses.sql", "audit.sql"):
            self.add_queries(Path(__file__).with_name(file))

    def add_queries(self, file: Path) -> None:
        """Add the named queries of another file."""
        sections = (section.partition("\n") for section in file.read_text(encoding="utf-8").split("-- name: ")[1:])
        self._queries |= {name.strip(): body for name, _, body in sections}

    def run(self, query: str, **values: Json) -> None:
        """Run a query that creates or changes a table."""
        self._execute(self._connection, self._queries[query], values)

    def all(self, query: str, **values: Json) -> list[tuple[Json, ...]]:
        """Return all rows of a query."""
        return self._execute(self._connection, self._queries[query], values).fetchall()

    def sample(self, query: str, **values: Json) -> tuple[int, tuple[str, ...]]:
        """Return how many ids a query finds, and the first ten of them in order."""
        counting = f"SELECT count(*), min(task, {FIRST_TASKS}) FROM ({self._queries[query].rstrip().rstrip(';')})"  # noqa: S608 - the query is a constant.
        ((count, tasks),) = self._execute(self._connection, counting, values).fetchall()
        return int(count), tuple(tasks or ())

    def keep_found(self, query: str, **values: Json) -> None:
        """Keep the tasks that a query finds, in the table `found` in place of the former ones."""
        keeping = f"CREATE OR REPLACE TABLE found AS {self._queries[query]}"
        self._execute(self._connection, keeping, values)

    def stream(self, query: str, **values: Json) -> Iterator[tuple[Json, ...]]:
        """Yield the rows of a query, fetched a thousand at a time."""
        with closing(self._connection.cursor()) as cursor:
            self._execute(cursor, self._queries[query], values)
            while rows := cursor.fetchmany(_FETCHED_ROWS):
                yield from rows

    @staticmethod
    def _execute(
        connection: duckdb.DuckDBPyConnection, query: str, values: Mapping[str, Json]
    ) -> duckdb.DuckDBPyConnection:
        if query not in _PARSED:
            _PARSED[query] = connection.extract_statements(query)
        for statement in _PARSED[query]:
            needed = values if statement.named_parameters else {}
            try:
                connection.execute(statement, needed)
            except duckdb.OutOfMemoryException:
                # Each thread has its own buffers, so that long lines may be too much for two threads and not for one.
                connection.execute("SET threads = 1")
                connection.execute(statement, needed)
        return connection

    def write(self, name: str, values: Iterable[Mapping[str, Json]]) -> str:
        """Write lines of JSON to an intermediate file, and return its path."""
        path = self.scratch / name
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(value) + "\n" for value in values)
        return str(path)

    def insert(self, table: str, tasks: Iterable[str]) -> None:
        """Append tasks to a table that has one column."""
        file = self.write(f"{table}.jsonl", ({"task": task} for task in tasks))
        adding = f"INSERT INTO {table} SELECT task FROM read_json($file, columns = {{task: 'VARCHAR'}})"  # noqa: S608 - the table name is a constant.
        self._connection.execute(adding, {"file": file})
