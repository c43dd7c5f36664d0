"""The effects in the app's own database: the rows that the queries of the settings find, a key for each.

A row that was there before the first worker started is no effect of the run. So each query is run twice: before, and
when everything has come to rest. It can change nothing, and its time and its rows are bounded.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from harness.audit.run_folder import RunFolder, row_file
from harness.audit.sqlite_file import open_read_only
from harness.containers.app_node import RUN_INSIDE, AppNode
from harness.containers.service import Lease
from harness.project.needs import APP_INSIDE, EffectQuery
from harness.records.expectation import Effect
from harness.records.finding_codes import Code
from harness.records.verdict import Finding, Verdict
from harness.wait import REAL, Clock

LIMIT_S = 60.0
"""The time limit of one query. A shorter one would make the rows of a busy machine unknown; a longer one would delay
the end of the run."""
MOST_EFFECTS = 1_000_000
"""The most effects that one query may find. They are counted in memory, a few hundred bytes each."""
_FETCHED_ROWS = 1_000
"""The rows that are fetched at once. Fewer would need more round trips; more would need more memory."""
_STEPS = 10_000
"""The steps of SQLite between two looks at the clock. They take about a millisecond."""
_CONNECT_TIMEOUT_S = 10
_OWN_FILE = "app.sqlite3"
"""The SQLite file of a stack without PostgreSQL, in `app` of the run folder."""
_ABSENT = "42P01"
"""PostgreSQL's code for a table that does not exist."""


class _UnseenError(Exception):
    """The rows cannot be read. The message says why, in the database's own words."""

    def __init__(self, said: str, *, is_absent: bool = False) -> None:
        """Take the reason; `is_absent` is true if the database or the table does not exist, so that it has no rows."""
        self.is_absent = is_absent
        super().__init__(said)


class RowEffects:
    """The queries of one stack, and the rows from before."""

    def __init__(
        self,
        queries: Mapping[str, EffectQuery],
        app: AppNode,
        server: Lease | None,
        *,
        clock: Clock = REAL,
        most: int = MOST_EFFECTS,
    ) -> None:
        """Take the queries without running them.

        Args:
            queries: by the kind of their effects.
            app: what the nodes see of this machine's files.
            server: the stack's database in PostgreSQL; None if it has none.
            clock: for the time limit.
            most: how many effects one query may find.
        """
        self._queries = queries
        self._app = app
        self._server = server
        self._clock = clock
        self._most = most
        self._before: dict[str, Counter[str] | _UnseenError] = {}

    def begin(self) -> None:
        """Note the rows that are there before the first worker starts."""
        for kind, query in self._queries.items():
            rows = Counter[str]()
            self._before[kind] = rows
            try:
                for key, times, _ in self._read(query):
                    rows[key] += times
            except _UnseenError as error:
                # A task may create the table. Any other error would make old rows look new.
                self._before[kind] = Counter() if error.is_absent else error

    def look(self, folder: RunFolder) -> list[Finding]:
        """Write the rows that came since `begin` into a run folder. Return a finding for each query that failed.

        Raises:
            RunFolderError: they cannot be written.
        """
        return [finding for kind, query in self._queries.items() for finding in self._look_for(kind, query, folder)]

    def _look_for(self, kind: str, query: EffectQuery, folder: RunFolder) -> Iterator[Finding]:
        file = row_file(kind)
        try:
            folder.write_lines(file, (effect.to_json() for effect in self._new(kind, query)))
        except _UnseenError as error:
            # A file of an earlier look would show that these are all rows.
            (folder.path / file).unlink(missing_ok=True)
            text = f"the rows of effects.{kind} in {self._name_of(query)} are not known: {error}"
            yield Finding(code=Code.EFFECTS_UNSEEN, verdict=Verdict.UNKNOWN, count=1, text=text, subject=kind)

    def _new(self, kind: str, query: EffectQuery) -> Iterator[Effect]:
        before = self._before[kind]
        if isinstance(before, _UnseenError):
            raise before
        old = before.copy()
        for key, times, task in self._read(query):
            known = min(old[key], times)
            old[key] -= known
            for _ in range(times - known):
                yield Effect(key=f"{kind}:{key}", task=task, kind=kind)

    def _read(self, query: EffectQuery) -> Iterator[tuple[str, int, str | None]]:
        """Yield the key of each row, how often it counts, and the task that caused it. Raises _UnseenError."""
        until_s = self._clock.now() + LIMIT_S
        count = 0
        try:
            with self._engine(query, until_s).connect() as connection:
                # Without parameters, a `%` stands for itself.
                streamed = connection.execution_options(
                    stream_results=True, max_row_buffer=_FETCHED_ROWS, no_parameters=True
                )
                found = streamed.exec_driver_sql(query.query)
                columns = _columns(list(found.keys()))
                for row in found:
                    effect = _effect(dict(zip(columns, row, strict=True)))
                    # A row that counts for nothing is read as well.
                    count += max(effect[1], 1)
                    if count > self._most:
                        raise _UnseenError(f"the query finds more than {self._most:,} of them: let it find fewer.")
                    if self._clock.now() > until_s:
                        raise _UnseenError(_TOO_LONG)
                    yield effect
        except sa.exc.SQLAlchemyError as error:
            if self._clock.now() > until_s:
                raise _UnseenError(_TOO_LONG) from error
            own = getattr(error, "orig", error)
            said = " ".join(str(own).split())
            is_absent = said.startswith("no such table") or getattr(own, "sqlstate", None) == _ABSENT
            raise _UnseenError(said, is_absent=is_absent) from error

    def _engine(self, query: EffectQuery, until_s: float) -> sa.engine.Engine:
        """Return an engine whose connections can only read, and only until a time. Raises _UnseenError."""
        if query.database is None and self._server is not None:
            options = f"-c default_transaction_read_only=on -c statement_timeout={round(LIMIT_S * 1000)}"
            bounds = {"connect_timeout": _CONNECT_TIMEOUT_S, "options": options}
            return sa.create_engine(self._server.url_outside, poolclass=NullPool, connect_args=bounds, future=True)
        path = self._outside(self._file_of(query))
        if not path.is_file():
            advice = "" if query.database else '; name the app\'s own file, as in database = "db.sqlite3"'
            raise _UnseenError(f"there is no such file{advice}.", is_absent=True)

        def opened() -> sqlite3.Connection:
            connection = open_read_only(path)
            connection.set_progress_handler(lambda: self._clock.now() > until_s, _STEPS)
            return connection

        return sa.create_engine("sqlite://", creator=opened, poolclass=NullPool, future=True)

    @staticmethod
    def _file_of(query: EffectQuery) -> PurePosixPath:
        """Return the path of the SQLite file as nodes see it."""
        return PurePosixPath(RUN_INSIDE, "app", _OWN_FILE) if query.database is None else query.inside(APP_INSIDE)

    def _name_of(self, query: EffectQuery) -> str:
        is_on_server = query.database is None and self._server is not None
        return "the stack's PostgreSQL" if is_on_server else str(self._file_of(query))

    def _outside(self, inside: PurePosixPath) -> Path:
        """Return the path on this machine of a file that nodes see. Raises _UnseenError."""
        places = {APP_INSIDE: self._app.app_folder, RUN_INSIDE: self._app.run_folder}
        places |= {mount.inside: mount.host for mount in self._app.mounts}
        for place in (inside, *inside.parents):
            if str(place) in places:
                return places[str(place)] / inside.relative_to(place)
        raise _UnseenError("it is in no folder that nodes share with this machine.")


_TOO_LONG = f"the query took more than {LIMIT_S:.0f} s."


def _columns(names: Sequence[str]) -> list[str]:
    """Return what each column is: the first is the key. Raises _UnseenError."""
    others = [name.lower() for name in names[1:]]
    if wrong := [name for name in others if name not in {"task", "times"} or others.count(name) > 1]:
        raise _UnseenError(
            f"the query has a column {wrong[0]}: the first column is the key, and after it there may be one named "
            "`task` and one named `times`."
        )
    return ["key", *others]


def _effect(row: Mapping[str, Any]) -> tuple[str, int, str | None]:
    key, times, task = row["key"], row.get("times", 1), row.get("task")
    if key is None or isinstance(key, bytes | memoryview):
        seen = "NULL" if key is None else "bytes"
        raise _UnseenError(f"a key is {seen}: the first column has to be a text, a number or the like.")
    # A sum is a decimal number in PostgreSQL.
    if not isinstance(times, int | float | Decimal) or not times >= 0 or times % 1:
        raise _UnseenError(f"`times` is {times!r} for the key {key}: it has to be a whole number, 0 or more.")
    return str(key), int(times), None if task is None else str(task)
