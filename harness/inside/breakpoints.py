"""Holds a task at a moment until the harness lets it go on. Runs inside the containers, in every process of Celery.

A process says at each moment which task has reached it, through the socket in the run folder, and goes on when the
harness ends the connection, which it does at its own end, too. Without the socket nobody holds anything. Looking for it
is then all that a moment costs.
"""

import contextlib
import logging
import os
import smtplib
import socket
import sqlite3
import sys
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from types import TracebackType
from typing import Any, Literal

from amqp import Channel
from celery import Task
from celery.backends.base import Backend
from kombu.message import Message

from harness.records.moment import SOCKET, Arrival, Moment

_LONGEST_ANSWER = 8
"""The most bytes of the harness's answer."""
_OUTCOMES = ("mark_as_done", "mark_as_failure", "mark_as_retry")
"""The methods of a back end by which an execution stores what became of it."""
_TOLD_BY_THE_APP = "harness.effect"
"""The logger by which an app itself says that a task has had an effect."""
_COMMITTING = (
    ("sqlalchemy.engine.default", "DefaultDialect", "do_commit"),
    ("django.db.backends.base.base", "BaseDatabaseWrapper", "_commit"),
    ("psycopg", "Connection", "commit"),
    ("pymysql.connections", "Connection", "commit"),
    ("MySQLdb.connections", "Connection", "commit"),
)
"""The modules, classes and methods by which the common libraries commit. Each is prepared once it is loaded."""


def _end_by(signal: int) -> None:
    """Send a signal to this process."""
    os.kill(os.getpid(), signal)
    if signal == Signals.SIGKILL:
        # The first process of a container is alive: the kernel keeps it from what would kill any other.
        os._exit(128 + signal)


@dataclass
class _Execution:
    """An execution whose own code runs."""

    task: str
    name: str
    awaits_effect: bool = True
    """False once it has had its first effect."""


class Breakpoints:
    """Tells the harness of each moment. There is one per process; pool children inherit it by fork."""

    def __init__(self, run_folder: Path, node: str) -> None:
        """Prepare to tell. `node` is the name of this node."""
        self._socket = str(run_folder / SOCKET)
        self._node = node
        self._executing: ContextVar[_Execution | None] = ContextVar("executing", default=None)
        self._prepared: set[str] = set()
        """The modules whose effects are looked for."""

    def connect(self) -> None:
        """Wrap what Celery does at the moments for which it has no signal."""
        for name in _OUTCOMES:
            setattr(Backend, name, self._marking(getattr(Backend, name)))
        Backend.store_result = self._storing(Backend.store_result)
        # A request of Celery's only asks for the acknowledgement: the worker's loop sends it later.
        Message.ack = self._acknowledging(Message.ack)
        Channel._basic_publish = self._writing(Channel._basic_publish)  # noqa: SLF001 - what is public writes and waits.

    def reach(self, moment: Moment, task: str, name: str) -> None:
        """Say that a task has reached a moment, and return when it may go on."""
        if not self._somebody_listens():
            return
        arrival = Arrival(moment=moment, task=task, name=name, node=self._node, pid=os.getpid())
        # If nobody listens any more, nobody holds.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.connect(self._socket)
            connection.sendall(arrival.to_line().encode())
            # The end of the connection lets it go on; a number is the signal by which it is to die here.
            if signal := connection.recv(_LONGEST_ANSWER):
                _end_by(int(signal))

    def _somebody_listens(self) -> bool:
        # Every moment of every task asks: `exists` takes twice as long, as it raises and catches an error inside.
        return os.access(self._socket, os.F_OK)

    def start(self, task_id: str, task: Task) -> None:
        """Say that an execution begins. From now on, its first effect is looked for."""
        # Celery makes the back end of a thread at its first use, and that may commit.
        _ = task.backend
        self._executing.set(_Execution(task_id, task.name))
        if self._somebody_listens():
            self._prepare_effects()
            self.reach(Moment.STARTED, task_id, task.name)

    def _marking(self, mark: Callable[..., Any]) -> Callable[..., Any]:
        def marked(backend: Backend, task_id: str, *args: Any, **options: Any) -> Any:
            executing = self._executing.get()
            if executing is None or executing.task != task_id:
                # A parent reports for a child that has died.
                return mark(backend, task_id, *args, **options)
            self._executing.set(None)
            self.reach(Moment.RETURNED, task_id, executing.name)
            done = mark(backend, task_id, *args, **options)
            self.reach(Moment.STORED, task_id, executing.name)
            return done

        return marked

    def _storing(self, store: Callable[..., Any]) -> Callable[..., Any]:
        def stored(*args: Any, **options: Any) -> Any:
            # What the back end commits is no effect of the task.
            executing = self._executing.get()
            self._executing.set(None)
            try:
                return store(*args, **options)
            finally:
                self._executing.set(executing)

        return stored

    def _acknowledging(self, acknowledge: Callable[..., Any]) -> Callable[..., Any]:
        def acknowledged(message: Message, *args: Any, **options: Any) -> Any:
            done = acknowledge(message, *args, **options)
            # In Celery's old protocol the body says it, and nobody reads that here.
            headers = message.headers or {}
            if "id" in headers:
                self.reach(Moment.ACKNOWLEDGED, str(headers["id"]), str(headers.get("task")))
            return done

        return acknowledged

    def _writing(self, write: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap what writes a message before its confirm is awaited; without confirms it is not called."""

        def written(channel: Channel, message: Any, *args: Any, **options: Any) -> Any:
            done = write(channel, message, *args, **options)
            headers = message.properties.get("application_headers") or {}
            if "id" in headers and "task" in headers:
                self.reach(Moment.UNCONFIRMED, str(headers["id"]), str(headers["task"]))
            return done

        return written

    # ---------------------------------------------------------------------------------------------- effects

    def _prepare_effects(self) -> None:
        """Listen to the app, and wrap what sends mails and commits, as far as it is loaded.

        An app that is never held is left alone.
        """
        if "sqlite3" not in self._prepared:
            self._prepared.add("sqlite3")
            smtplib.SMTP.sendmail = self._acting(smtplib.SMTP.sendmail)  # type: ignore[method-assign]
            sqlite3.connect = sqlite3.dbapi2.connect = self._connecting(sqlite3.connect)
            logging.getLogger(_TOLD_BY_THE_APP).addFilter(self._hears)
        logger = logging.getLogger(_TOLD_BY_THE_APP)
        # An app that configures its logging may switch off every logger that it does not know.
        logger.disabled = False
        logger.setLevel(logging.DEBUG)
        for module, owner, method in _COMMITTING:
            if module in sys.modules and module not in self._prepared:
                self._prepared.add(module)
                found = getattr(sys.modules[module], owner)
                setattr(found, method, self._acting(getattr(found, method)))

    def _acting(self, act: Callable[..., Any]) -> Callable[..., Any]:
        def acted(*args: Any, **options: Any) -> Any:
            done = act(*args, **options)
            self.effect()
            return done

        return acted

    def _hears(self, record: logging.LogRecord) -> bool:
        """Take what the app says of an effect; its handlers get it as if nobody had listened."""
        self.effect()
        return record.levelno >= logging.getLogger().getEffectiveLevel()

    def effect(self) -> None:
        """Say that the task that runs here has had an effect, if it is its first."""
        executing = self._executing.get()
        if executing is not None and executing.awaits_effect:
            executing.awaits_effect = False
            self.reach(Moment.EFFECT, executing.task, executing.name)

    def _connecting(self, connect: Callable[..., Any]) -> Callable[..., Any]:
        effect = self.effect

        class Connection(sqlite3.Connection):
            """A connection whose commits are effects."""

            def commit(self) -> None:
                has_begun = self.in_transaction
                super().commit()
                if has_begun:
                    effect()

            def __exit__(
                self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
            ) -> Literal[False]:
                has_begun = self.in_transaction and error is None
                super().__exit__(kind, error, trace)
                if has_begun:
                    effect()
                return False

        def connected(*args: Any, **options: Any) -> Any:
            return connect(*args, **({"factory": Connection} | options))

        return connected
