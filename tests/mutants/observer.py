"""Find out which tests can notice which changes, as a plugin of pytest: ``-p tests.mutants.observer``.

A change of Python can be noticed by the tests that run its lines. A change of a query can be noticed by the tests in
which the changed query finds something else, or leaves something else in its tables, than the query as it is. All other
tests need not be run with that change in place. The plan is in the file that the variable `PLAN` names, and so is the
file for what was seen.
"""

import json
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import coverage
import duckdb
import pytest

from harness.records.values import Json

if TYPE_CHECKING:
    from harness.audit.evidence_database import Database

PLAN = "HARNESS_MUTANTS_PLAN"
"""The variable that names the file of the plan."""
ENOUGH_TESTS = 20
"""Tests that are looked for in a file per change of a query. If none of so many fails, all tests are run."""
_MOST_ROWS = 5_000
"""Rows of a table that are compared. In a larger one, each change is taken for one that can be noticed."""
_TABLE = re.compile(r"(?:CREATE(?: OR REPLACE)? (?:TABLE|VIEW)|INSERT INTO|UPDATE|DELETE FROM) (\w+)")


@dataclass(frozen=True, kw_only=True)
class Change:
    """A change of a query."""

    number: int
    query: str
    """The name of the query."""
    text: str
    """The text of the query with the change in it."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The changes and files to observe."""

    changes: Sequence[Change]
    python: Sequence[str]
    """The files of Python whose lines are to be told, below the root."""
    seen: str
    """The path of the file for what was seen."""

    def to_json(self) -> str:
        """Return the plan as a text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a plan."""
        said = json.loads(text)
        return cls(changes=[Change(**one) for one in said["changes"]], python=said["python"], seen=said["seen"])


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The tests, by what they can notice. A test is given by its node id."""

    queries: Mapping[int, Sequence[str]]
    """By the number of a change; the first `ENOUGH_TESTS` at most."""
    lines: Mapping[str, Mapping[int, Sequence[str]]]
    """By file and line."""

    def to_json(self) -> str:
        """Return it as a text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what was seen."""
        said = json.loads(text)
        return cls(
            queries={int(number): tests for number, tests in said["queries"].items()},
            lines={file: {int(line): tests for line, tests in lines.items()} for file, lines in said["lines"].items()},
        )


class Queries:
    """Runs each query of an audit with its changes as well, and compares what it finds or leaves."""

    def __init__(self, changes: Sequence[Change]) -> None:
        """Observe nothing yet. `test` is the node id of the test that is running, empty between two tests."""
        self.noticing: defaultdict[int, list[str]] = defaultdict(list)
        self.test = ""
        self._changes: defaultdict[str, list[Change]] = defaultdict(list)
        for change in changes:
            self._changes[change.query].append(change)

    def observe(self) -> None:
        """Wrap the methods of the audit's database that run a query."""
        from harness.audit.evidence_database import Database  # noqa: PLC0415 - only where there are queries to change.

        plain_all, plain_sample, plain_stream, plain_run = Database.all, Database.sample, Database.stream, Database.run
        plain_keep_found = Database.keep_found

        def all_(database: "Database", query: str, **values: Json) -> list[tuple[Json, ...]]:
            found = plain_all(database, query, **values)
            self._compare(database, query, found, lambda: plain_all(database, query, **values))
            return found

        def sample(database: "Database", query: str, **values: Json) -> tuple[int, tuple[str, ...]]:
            found = plain_sample(database, query, **values)
            self._compare(database, query, found, lambda: plain_sample(database, query, **values))
            return found

        def stream(database: "Database", query: str, **values: Json) -> Iterator[tuple[Json, ...]]:
            found = list(plain_stream(database, query, **values))
            self._compare(database, query, found, lambda: list(plain_stream(database, query, **values)))
            return iter(found)

        def keep_found(database: "Database", query: str, **values: Json) -> None:
            def kept() -> list[str]:
                # Whose order has no meaning.
                return sorted(map(repr, plain_all(database, query, **values)))

            self._compare(database, query, kept(), kept)
            plain_keep_found(database, query, **values)

        def run(database: "Database", query: str, **values: Json) -> None:
            self._compare_left(database, query, lambda: plain_run(database, query, **values))
            plain_run(database, query, **values)

        methods = {"all": all_, "sample": sample, "stream": stream, "keep_found": keep_found, "run": run}
        for name, method in methods.items():
            setattr(Database, name, method)

    def _compare_left(self, database: "Database", query: str, ask: Callable[[], None]) -> None:
        """Compare what a query leaves in its tables."""
        if not self._open(query):
            return
        tables = sorted(set(_TABLE.findall(database._queries[query])))  # noqa: SLF001 - it observes.

        def left() -> object:
            with _undone(database):
                ask()
                return [_rows(database, table) for table in tables]

        try:
            found = left()
        except duckdb.Error:
            # What needs all the memory can do less in a transaction. Each change may be noticed, then.
            found = _Incomparable()
        self._compare(database, query, found, left)

    def _open(self, query: str) -> list[Change]:
        """Return the changes of a query for which tests are still looked for."""
        return [
            change
            for change in self._changes.get(query, ())
            if self.test and len(self.noticing[change.number]) < ENOUGH_TESTS
            if self.test not in self.noticing[change.number]
        ]

    def _compare(self, database: "Database", query: str, found: object, again: Callable[[], object]) -> None:
        for change in self._open(query):
            if _with(database, change, again) != found:
                self.noticing[change.number].append(self.test)


def _with(database: "Database", change: Change, ask: Callable[[], object]) -> object:
    """Return what comes of a query with a change in it. An error comes of it, too."""
    queries = database._queries  # noqa: SLF001 - it observes.
    plain = queries[change.query]
    queries[change.query] = change.text
    try:
        return ask()
    except (duckdb.Error, ValueError) as error:
        return type(error)
    finally:
        queries[change.query] = plain


@contextmanager
def _undone(database: "Database") -> Iterator[None]:
    """Undo what a query does to the tables."""
    connection = database._connection  # noqa: SLF001 - it observes.
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")


class _Incomparable:
    """What cannot be compared. It is unequal to everything."""


def _rows(database: "Database", table: str) -> object:
    """Return the rows of a table, in one order."""
    found = database._connection.execute(f"FROM {table}").fetchmany(_MOST_ROWS + 1)  # noqa: SLF001 - a table of ours.
    return sorted(map(repr, found)) if len(found) <= _MOST_ROWS else _Incomparable()


class Observer:
    """Knows which test is running, and what it runs."""

    def __init__(self, plan: Plan, root: Path) -> None:
        """Begin to observe. `root` is the folder of the project."""
        self._plan = plan
        self._files = {str(root / file): file for file in plan.python}
        self._lines = coverage.Coverage(data_file=None, config_file=False, include=list(self._files))
        # The tests of a file may run none of the lines.
        self._lines.set_option("run:disable_warnings", ["no-data-collected"])
        self._queries = Queries(plan.changes)
        if plan.changes:
            self._queries.observe()
        if plan.python:
            self._lines.start()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Tell whose lines and queries come next."""
        self._begin(item.nodeid)
        try:
            return (yield)
        finally:
            self._begin("")

    def _begin(self, test: str) -> None:
        self._queries.test = test
        if self._plan.python:
            self._lines.switch_context(test)

    def pytest_unconfigure(self) -> None:
        """Write what was seen."""
        lines: dict[str, dict[int, Sequence[str]]] = {}
        if self._plan.python:
            self._lines.stop()
            data = self._lines.get_data()
            for path, file in self._files.items():
                found = data.contexts_by_lineno(path)
                lines[file] = {line: sorted(test for test in tests if test) for line, tests in found.items()}
        Path(self._plan.seen).write_text(Seen(queries=dict(self._queries.noticing), lines=lines).to_json())


def pytest_configure(config: pytest.Config) -> None:
    """Observe the tests of this run."""
    config.pluginmanager.register(Observer(Plan.from_json(Path(os.environ[PLAN]).read_text()), config.rootpath))
