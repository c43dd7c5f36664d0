"""The witnesses of a run: what each of them says, loaded into tables, and what is to be said of the witness itself.

DuckDB does the sets: it reads JSON lines in parallel and spills what does not fit. All SQL is in `audit.sql`.
"""

import csv
import os
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import duckdb

from harness.errors import ResultsError, RunFolderError
from harness.evidence.folder import RunFolder
from harness.evidence.records import Finding, Json, Verdict
from harness.evidence.remains import Remains
from harness.evidence.results import Results

_MEMORY_MB = 300
_LARGEST_RESULT = 1_000_000
"""Bytes; what is larger is not compared. The database reads no longer line than two million bytes."""
_NULL = r"\N"
"""How a CSV file for the database writes NULL."""


class Unwitnessed(StrEnum):
    """What nobody could witness in a run, because it went on elsewhere; run.json names it."""

    EXECUTIONS = "executions"
    """No worker kept a journal. How a task ended, its row alone says."""
    BROKER = "broker"
    """Nobody asked the broker what was left in it."""
    EFFECTS = "effects"
    """Nobody looked for what the tasks did to the world."""


_OF_THE_JOURNAL = (
    *("entries", "runs", "publishes", "followers", "span", "wants", "undeclared", "early_runs"),
    *("owners", "executions", "fanouts", "discards", "tracebacks", "promised", "children", "called", "unlocks"),
)
"""The queries that make tables of the journal's lines, before the lines are forgotten."""


@contextmanager
def open_database(folder: Path) -> Iterator["Database"]:
    """An empty database for the evidence in `folder`; it spills what is too much for its memory.

    Raises:
        RunFolderError: the database cannot make sense of the evidence.
    """
    with tempfile.TemporaryDirectory(prefix="celery-harness-audit-") as scratch:
        connection = duckdb.connect(
            ":memory:",
            config={
                "memory_limit": f"{_MEMORY_MB}MB",
                "temp_directory": scratch,
                "threads": str(min(os.cpu_count() or 1, 4)),
                "preserve_insertion_order": "false",
            },
        )
        try:
            yield Database(connection, Path(scratch))
        except duckdb.Error as error:
            said = str(error).partition("\n")[0]
            raise RunFolderError(f"the evidence in {folder} cannot be audited: {said}") from error
        finally:
            connection.close()


class Database:
    """The named queries of audit.sql, on one connection."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, scratch: Path) -> None:
        """`scratch` is a folder for files in between."""
        self._connection = connection
        self.scratch = scratch
        text = Path(__file__).with_name("audit.sql").read_text()
        sections = (section.partition("\n") for section in text.split("-- name: ")[1:])
        self._queries = {name.strip(): body for name, _, body in sections}

    def run(self, query: str, **values: Json) -> None:
        """Run a query that makes a table."""
        self._connection.execute(self._queries[query], values)

    def all(self, query: str, **values: Json) -> list[tuple[Json, ...]]:
        """All rows of a query."""
        return self._connection.execute(self._queries[query], values).fetchall()

    def sample(self, query: str, **values: Json) -> tuple[int, tuple[str, ...]]:
        """How many ids a query finds, and the first ten of them in order."""
        counting = f"SELECT count(*), min(task, 10) FROM ({self._queries[query].rstrip().rstrip(';')})"  # noqa: S608 - the query is ours.
        ((count, tasks),) = self._connection.execute(counting, values).fetchall()
        return int(count), tuple(tasks or ())

    def stream(self, query: str) -> Iterator[tuple[Json, ...]]:
        """The rows of a query, a thousand at a time."""
        cursor = self._connection.cursor()
        try:
            cursor.execute(self._queries[query])
            while rows := cursor.fetchmany(1_000):
                yield from rows
        finally:
            cursor.close()

    def insert(self, table: str, values: Iterable[tuple[Json, ...]]) -> None:
        """Append rows to a table that has one column."""
        for value in values:
            self._connection.execute(f"INSERT INTO {table} VALUES ($1)", value)  # noqa: S608 - the table is ours.


@dataclass
class Witnesses:
    """Loads what each witness says, and keeps what is to be said of the witness itself."""

    database: Database
    folder: RunFolder
    unwitnessed: Collection[Unwitnessed] = ()
    """What nobody could witness, so that it is not missed, and is spoken of once."""
    findings: list[Finding] = field(default_factory=list)
    about: dict[str, Json] = field(default_factory=dict)
    incomplete: bool = False
    """The journal or the broker's remains are not whole, so that nothing can be called lost."""
    results_readable: bool = True
    effects_readable: bool = True
    workers: dict[str, int] = field(default_factory=dict)
    memory_mb: dict[str, float] = field(default_factory=dict)
    remains: Remains = field(default_factory=Remains)
    settled: dict[str, Json] = field(default_factory=dict)
    """How waiting for rest ended, as `harness.settling` says; empty if nobody waited."""

    @property
    def executions(self) -> bool:
        """Whether the workers kept journals."""
        return Unwitnessed.EXECUTIONS not in self.unwitnessed

    def load(self, nodes: Sequence[str]) -> None:
        """Read everything; every entry is in the table `fact` afterwards. `nodes` are those that must have journals."""
        if self.unwitnessed:
            self.about["unwitnessed"] = [one.value for one in Unwitnessed if one in self.unwitnessed]
        # The rows come through Python while the database is busy with the journal, on another core.
        exported = self.database.scratch / "results.csv"
        with ThreadPoolExecutor(1) as pool:
            export = _export if self.executions else _export_dated
            rows = pool.submit(export, Results.of_file(self.folder.results), exported)
            self._journal(nodes)
            if not self.executions:
                self.incomplete = True
                text = "nobody saw the workers: whether a task ran more than once is not known."
                self._say("unwitnessed-executions", Verdict.UNKNOWN, 1, text)
            if Unwitnessed.EFFECTS in self.unwitnessed:
                self._no_effects()
            else:
                self._effects()
            self._results(rows, exported, "rows" if self.executions else "dated_rows")
        if Unwitnessed.BROKER in self.unwitnessed:
            self._nothing_left()
        else:
            self._left()
        self.database.run("effects_of")
        self.database.run("facts", executions=self.executions)

    def _journal(self, nodes: Sequence[str]) -> None:
        files, torn = self._readable(self.folder.journal)
        self.about["journal"] = {"files": len(files), "lines": 0, "torn": len(torn), "missing": 0}
        if not files:
            # An empty file still gives the tables their columns.
            empty = self.database.scratch / "empty.jsonl"
            empty.touch()
            files = [str(empty)]
        self.database.run("lines", files=files)
        found = self.database.all("files")
        # A line that is cut off is no JSON either, and is spoken of by itself.
        missing = {
            file: count for file, _, _, gaps, damaged in found if (count := max(abs(gaps), damaged - (file in torn)))
        }
        self.about["journal"]["lines"] = sum(lines for _, _, lines, _, _ in found)
        self.about["journal"]["missing"] = sum(missing.values())
        if missing:
            names = ", ".join(f"{file} ({count})" for file, count in missing.items())
            self._say("journal-incomplete", Verdict.UNKNOWN, sum(missing.values()), f"lines are missing in {names}.")
        silent = sorted(set(nodes) - {node for _, node, _, _, _ in found})
        if silent:
            self._say("journal-silent", Verdict.UNKNOWN, len(silent), f"no journal of {', '.join(silent)}.")
        self.incomplete = self.incomplete or bool(missing or silent)
        for query in _OF_THE_JOURNAL:
            self.database.run(query)
        self.workers = dict(self.database.all("workers"))
        self.memory_mb = {node: round(peak_kb / 1024, 1) for node, peak_kb in self.database.all("memory")}
        self.database.run("forget_lines")

    def _effects(self) -> None:
        files, torn = self._readable(self.folder.effects)
        self.about["effects"] = {"files": len(files), "torn": len(torn)}
        self.database.run("effects", files=files) if files else self.database.run("no_effects")
        damaged = {
            file: count for file, lines in self.database.all("damaged_effects") if (count := lines - (file in torn))
        }
        if damaged:
            names = ", ".join(f"{file} ({count})" for file, count in damaged.items())
            self._say("effects-damaged", Verdict.UNKNOWN, sum(damaged.values()), f"lines cannot be read in {names}.")
        ((wanted,),) = self.database.all("want_count")
        if wanted and not files:
            self._say(
                "effects-absent", Verdict.UNKNOWN, wanted, "effects are expected, and nobody was there to see them."
            )
        self.effects_readable = self.effects_readable and bool(files) and not damaged

    def _no_effects(self) -> None:
        """Nobody looked for effects, so that none is missed in any task; if some were expected, that is said."""
        self.about["effects"] = {"files": 0, "torn": 0}
        self.database.run("no_effects")
        ((wanted,),) = self.database.all("want_count")
        self.database.run("forget_wants")
        if wanted:
            text = "effects are expected, and nobody saw the world that they are in."
            self._say("unwitnessed-effects", Verdict.UNKNOWN, wanted, text)

    def _results(self, rows: Future[int], exported: Path, query: str) -> None:
        try:
            count = rows.result()
        except ResultsError as error:
            self.results_readable = False
            self.about["results"] = {"readable": False}
            # The message names the file by its path, and an audit must not depend on where the folder lies.
            said = str(error).replace(str(self.folder.path) + os.sep, "")
            self._say("results-unreadable", Verdict.UNKNOWN, 1, said)
            self.database.run("no_rows")
            return
        self.about["results"] = {"readable": True, "rows": count}
        self.database.run(query, file=str(exported)) if count else self.database.run("no_rows")
        exported.unlink()

    def _nothing_left(self) -> None:
        text = "nobody saw the broker: whether a task without a row still waits there is not known."
        self._say("unwitnessed-broker", Verdict.UNKNOWN, 1, text)
        self.incomplete = True
        self.about["broker"] = {"readable": False, "left": 0}
        self.database.run("left", tasks=[])
        self.database.run("dead", tasks=[], places=[])

    def _left(self) -> None:
        try:
            said = self.folder.read("broker.json")
            self.remains = Remains.from_json(said)
            self.settled = dict(said.get("settled") or {})
            tasks = sorted({*self.remains.messages, *self.remains.held})
            readable = self.remains.reason is None
            if anonymous := self.remains.anonymous:
                text = "messages without a task's id are left in the queues."
                self._say("messages-anonymous", Verdict.UNKNOWN, anonymous, text)
        except (RunFolderError, KeyError, TypeError) as error:
            self._say(
                "broker-unread",
                Verdict.UNKNOWN,
                1,
                f"what was left in the broker is not known: {type(error).__name__}.",
            )
            self.incomplete, readable, tasks = True, False, []
        else:
            if not readable:
                self._say("broker-unread", Verdict.UNKNOWN, 1, f"the broker could not be read: {self.remains.reason}")
                self.incomplete = True
        self.about["broker"] = {"readable": readable, "left": len(tasks)}
        self.database.run("left", tasks=tasks)
        dead = [letter.task for letter in self.remains.dead]
        places = [letter.queue for letter in self.remains.dead]
        self.database.run("dead", tasks=dead, places=places)

    def _readable(self, folder: Path) -> tuple[list[str], set[str]]:
        """The JSON-lines files of a folder, in order, and the names of those whose last line has no end.

        Of the latter it speaks, and of files that cannot be opened, which it leaves out.
        """
        readable, torn = [], set()
        for path in sorted(folder.glob("*.jsonl")):
            try:
                if _is_torn(path):
                    torn.add(path.name)
                readable.append(str(path))
            except OSError as error:
                self._say(f"{folder.name}-unreadable", Verdict.UNKNOWN, 1, f"{path.name}: {error.strerror}.")
                self.incomplete, self.effects_readable = True, self.effects_readable and folder != self.folder.effects
        if torn:
            text = f"the last line of {', '.join(sorted(torn))} has no end."
            self._say(f"{folder.name}-torn", Verdict.PASS, len(torn), text)
        return readable, torn

    def _say(self, code: str, verdict: Verdict, count: int, text: str) -> None:
        self.findings.append(Finding(code=code, verdict=verdict, count=count, text=text))


def _is_torn(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        if not file.tell():
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def _export(results: Results, target: Path) -> int:
    """Write every row as task, status and result, the result only where it is text. Returns how many."""
    count = 0
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        for task, status, result in results.tuples():
            writer.writerow((task, status, *_as_text(result)))
            count += 1
    return count


def _export_dated(results: Results, target: Path) -> int:
    """As `_export`, and when each task ended. Returns how many."""
    count = 0
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        for task, status, result, done_t in results.dated():
            writer.writerow((task, status, *_as_text(result), _NULL if done_t is None else done_t))
            count += 1
    return count


def _as_text(result: bytes | str | None) -> tuple[str, str]:
    """What the column `encoding` says, and the text; whether that is JSON, the database decides."""
    if result is None:
        return "none", _NULL
    if len(result) > _LARGEST_RESULT:
        return "large", _NULL
    try:
        # SQLite keeps what it is given, whatever the column is declared as.
        return "text", result if isinstance(result, str) else result.decode()
    except UnicodeDecodeError:
        return "bytes", _NULL
