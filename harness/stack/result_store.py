"""The place of a stack's results: Celery's result tables, as its workers and as this process see them.

The audit reads the file `results.sqlite3` of the run folder. A store elsewhere copies its rows there when it is closed.
"""

from pathlib import Path
from typing import Protocol

from harness.audit import results
from harness.audit.results import Results
from harness.containers.app_node import RESULTS_URL_INSIDE


class ResultStore(Protocol):
    """Holds the results of one stack."""

    @property
    def url_inside(self) -> str:
        """The URL of Celery's result back end, as nodes see it."""

    @property
    def results(self) -> Results:
        """The result tables, as this process reads them."""

    def open(self) -> None:
        """Make the place, before the first node is started."""

    def close(self) -> None:
        """Leave all rows in the run folder, after the last node has ended."""


class SqliteFile:
    """The results file in the run folder, which all nodes mount."""

    url_inside = RESULTS_URL_INSIDE

    def __init__(self, path: Path) -> None:
        """Take the path of the file as this process sees it."""
        self._path = path

    @property
    def results(self) -> Results:
        """The result tables of the file."""
        return Results.of_file(self._path)

    def open(self) -> None:
        """Create the file with its tables. It must be in WAL mode before the first worker opens it."""
        results.create(self._path)

    def close(self) -> None:
        """Fold the write-ahead log into the file."""
        results.fold(self._path)
