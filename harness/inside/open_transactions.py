"""Knows which tasks are sent in a transaction of the app's database that is not committed yet. Runs inside containers.

A worker that takes such a task at once does not see the rows that the transaction has written. SQLAlchemy says when a
connection executes, commits and rolls back; other libraries are not watched.
"""

import threading
from collections.abc import Callable
from typing import Any

_WRITING = frozenset({"INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE"})


class _Open(threading.local):
    """The connections of one thread that have written and not ended their transaction."""

    def __init__(self) -> None:
        self.infos: list[dict[Any, Any]] = []


class OpenTransactions:
    """Watches the connections of SQLAlchemy. Pool children inherit it by fork.

    In the `info` of a connection it is itself the key of the tasks that were sent since that connection wrote.
    """

    def __init__(self, say: Callable[[str, bool], None]) -> None:
        """Prepare to watch.

        Args:
            say: gets each task whose transaction has ended, and whether it was rolled back.
        """
        self._say = say
        self._open = _Open()

    def connect(self) -> None:
        """Watch all connections of this process from now on, if SQLAlchemy is installed."""
        try:
            from sqlalchemy import event  # noqa: PLC0415 - an app without a database need not have it.
            from sqlalchemy.engine import Engine  # noqa: PLC0415 - the same.
        except ImportError:
            return
        event.listen(Engine, "after_cursor_execute", self._on_execute)
        event.listen(Engine, "commit", self._on_commit)
        event.listen(Engine, "rollback", self._on_rollback)

    def sending(self, task: str) -> None:
        """Note that this thread sends a task."""
        for info in self._open.infos:
            info[self].append(task)

    def _on_execute(self, connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement[:7].lstrip().partition(" ")[0].upper() not in _WRITING or self in connection.info:
            return
        # Without a transaction a row is there at once. The coroutines of a thread share what belongs to the thread.
        if not _commits_at_once(connection) and not getattr(connection.dialect, "is_async", False):
            connection.info[self] = []
            self._open.infos.append(connection.info)

    def _on_commit(self, connection: Any) -> None:
        self._end(connection, was_rolled_back=False)

    def _on_rollback(self, connection: Any) -> None:
        self._end(connection, was_rolled_back=True)

    def _end(self, connection: Any, *, was_rolled_back: bool) -> None:
        sent = connection.info.pop(self, None)
        if sent is not None:
            # By identity: two connections may have equal ones.
            self._open.infos[:] = [info for info in self._open.infos if info is not connection.info]
            for task in dict.fromkeys(sent):
                self._say(task, was_rolled_back)


def _commits_at_once(connection: Any) -> bool:
    level = connection.get_execution_options().get("isolation_level")
    return "AUTOCOMMIT" in {level, getattr(connection.dialect, "_on_connect_isolation_level", None)}
