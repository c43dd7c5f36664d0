"""A SQLite file that is read and never written, without SQLAlchemy: an audit needs no more."""

import os
import sqlite3
from pathlib import Path
from urllib.parse import quote

BUSY_TIMEOUT_S = 60.0
"""The longest wait for a locked SQLite file; the workers wait as long (`harness.inside.app_settings`). Celery's
default, four attempts of 5 s, turned finished tasks into failures while the file was locked; 60 s did not."""


def open_read_only(path: Path) -> sqlite3.Connection:
    """Open a SQLite file so that nothing can be written through the connection, and no log is left behind.

    Raises:
        sqlite3.Error: there is no such file, or it cannot be opened.
    """
    # A read-only connection leaves a write-ahead log behind, even an empty one. A connection that may write but is told
    # not to removes it.
    where = f"file:{quote(os.fsencode(path))}"
    try:
        return _opened(f"{where}?mode=rw")
    except sqlite3.OperationalError:
        if not path.exists() or os.access(path, os.W_OK):
            raise
        # In a read-only folder, no process can write now.
        return sqlite3.connect(f"{where}?mode=ro&immutable=1", uri=True)


def _opened(where: str) -> sqlite3.Connection:
    """Open a connection that reads and does not write; close it if that fails. Raises sqlite3.Error."""
    connection = sqlite3.connect(where, uri=True, timeout=BUSY_TIMEOUT_S)
    try:
        connection.execute("PRAGMA query_only=ON")
        connection.execute("SELECT count(*) FROM sqlite_master")
    except BaseException:
        connection.close()
        raise
    return connection
