"""The place of a stack's results: Celery's result tables, as its workers and as this process see them.

The audit reads the file `results.sqlite3` of the run folder. A store elsewhere copies its rows there before an audit.
"""

import time
from pathlib import Path
from typing import Protocol

from harness.audit import results
from harness.audit.results import Results
from harness.audit.results_copy import copy_all
from harness.audit.run_folder import RunFolder
from harness.containers.app_node import RESULTS_URL_INSIDE
from harness.containers.service import Lease
from harness.errors import UsageError
from harness.project.needs import ResultsIn, Service
from harness.stack.shared_parts import SharedParts


class ResultStore(Protocol):
    """Holds the results of one stack."""

    @property
    def url_inside(self) -> str:
        """The URL of Celery's result back end, as nodes see it."""

    @property
    def url_outside(self) -> str:
        """The URL of Celery's result back end, as an app in this process sees it."""

    @property
    def results(self) -> Results:
        """The result tables, as this process reads them."""

    def open(self) -> None:
        """Make the place, before the first node is started."""

    def collect(self) -> None:
        """Bring the rows into the run folder, for an audit. Raises ResultsError if they cannot be read."""

    def close(self) -> None:
        """Leave all rows in the run folder, after the last node has ended."""


def result_store(where: ResultsIn, folder: RunFolder, session: SharedParts) -> ResultStore:
    """Return the store of a new stack."""
    if where is ResultsIn.SQLITE:
        return SqliteFile(folder.results)
    return PostgreSQLDatabase(folder, session)


class SqliteFile:
    """The results file in the run folder, which all nodes mount."""

    url_inside = RESULTS_URL_INSIDE

    def __init__(self, path: Path) -> None:
        """Take the path of the file as this process sees it."""
        self._path = path

    @property
    def url_outside(self) -> str:
        """The file as this process sees it."""
        return f"db+sqlite:///{self._path}"

    @property
    def results(self) -> Results:
        """The result tables of the file."""
        return Results.of_file(self._path)

    def open(self) -> None:
        """Create the file with its tables. It must be in WAL mode before the first worker opens it."""
        results.create(self._path)

    def collect(self) -> None:
        """Do nothing: the rows are in the run folder already."""

    def close(self) -> None:
        """Fold the write-ahead log into the file."""
        results.fold(self._path)


class PostgreSQLDatabase:
    """A database of the PostgreSQL service, which belongs to this stack alone."""

    def __init__(self, folder: RunFolder, session: SharedParts) -> None:
        """Take the run's folder, and the session, which has the server."""
        self._folder = folder
        self._session = session
        self._lease: Lease | None = None

    @property
    def url_inside(self) -> str:
        """The URL of Celery's result back end, as nodes see it. They choose the driver that their image has."""
        return f"db+{self._taken().url_inside}"

    @property
    def url_outside(self) -> str:
        """The database as this process sees it."""
        return f"db+{self._taken().url_outside}"

    @property
    def results(self) -> Results:
        """The result tables of the database."""
        return Results(self._taken().url_outside)

    def open(self) -> None:
        """Make the database; Celery creates its tables."""
        self._lease = self._session.services.lease(Service.POSTGRESQL)

    def collect(self) -> None:
        """Copy all rows into the run folder, and note when.

        A task whose row is stored after that is not seen to be recorded: the audit takes the time into account.
        """
        copied_t = time.time()
        copy_all(self.results, self._folder.results)
        self._folder.write("results.json", {"copied_t": copied_t})

    def close(self) -> None:
        """Copy the rows a last time, and remove the database."""
        lease = self._taken()
        try:
            self.collect()
        finally:
            self._lease = None
            self._session.services.end(Service.POSTGRESQL, lease)

    def _taken(self) -> Lease:
        if self._lease is None:
            raise UsageError("the stack's database is not there; read the results while the stack is running.")
        return self._lease
