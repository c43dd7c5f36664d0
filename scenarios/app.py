"""The Celery app of the scenarios, with the settings of a careful production user.

It runs without the harness: ``CELERY_BROKER_URL=amqp://... celery -A scenarios.app worker --loglevel=info``.
The environment gives the addresses: CELERY_BROKER_URL and CELERY_RESULT_BACKEND (Celery itself reads these, and they
override the settings here), and APP_DATABASE_URL for the app's own database.
"""

import contextlib
import functools
import os
import sqlite3

from celery import Celery, Task
from celery.exceptions import Reject
from sqlalchemy import Engine, create_engine, event


def prepare_sqlite(engine: Engine, lock_timeout_s: float = 60) -> None:
    """Set WAL and a busy timeout on every new connection of a SQLite engine; other databases are left alone.

    The result tables need a long timeout: Celery gives up after four attempts, and then a task that did its work is
    recorded as a failure, or not at all.
    """
    if engine.dialect.name != "sqlite":
        return

    @event.listens_for(engine, "connect")
    def connected(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute(f"PRAGMA busy_timeout = {lock_timeout_s * 1000:.0f}")
        # A new file is changed to WAL once, for all processes. That step alone ignores the busy timeout: of two
        # processes, one gets an error that the file is locked, and finds it changed right after.
        with contextlib.suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA journal_mode = WAL")
        # With WAL this loses nothing when a process dies; a power cut may cost the last transactions.
        connection.execute("PRAGMA synchronous = NORMAL")


def database(*, lock_timeout_s: float = 60) -> Engine:
    """Return the engine of the app's own database, made at its first use in each process.

    Args:
        lock_timeout_s: how long a statement waits for a locked SQLite file, in seconds.
    """
    return _engine(os.getpid(), os.environ.get("APP_DATABASE_URL", "sqlite:///app.sqlite3"), lock_timeout_s)


@functools.cache
def _engine(_pid: int, url: str, lock_timeout_s: float) -> Engine:
    # The process id keeps a pool child from using an engine that it inherited. The inherited one stays in this
    # cache on purpose: to drop it would close its connections, and a SQLite connection that is closed in a
    # forked child can take the parent's WAL away.
    engine = create_engine(url)
    prepare_sqlite(engine, lock_timeout_s)
    return engine


app = Celery(
    "scenarios",
    include=[
        # A scenario has one line here: the module with its tasks.
        "scenarios.emails.tasks",
        "scenarios.schedules.tasks",
        "scenarios.bulk_data.tasks",
    ],
)
app.conf.update(
    result_backend="db+sqlite:///results.sqlite3",
    database_engine_callback=prepare_sqlite,
    # Names, arguments and workers of all tasks are in the logs; in each result row they only cost time.
    result_extended=False,
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    # A message is acknowledged after its task, and a task whose pool process died is sent again, as often as
    # its max_retries allow. Every task of this app may run twice.
    task_acks_late=True,
    task_retry_on_worker_lost=True,
    # No more than one message waits in a worker that is busy or about to die.
    worker_prefetch_multiplier=1,
    # STARTED costs one more write for each task, and a killed worker leaves it behind for ever.
    task_track_started=False,
    # Without confirms, a message to a dying broker is lost without an error.
    broker_transport_options={"confirm_publish": True},
    broker_connection_retry_on_startup=True,
    # A chord's callback waits for the header by polling. Between two polls it occupies one of the few messages
    # that a worker may have, so a long interval costs work and saves little.
    result_chord_retry_interval=0.2,
    enable_utc=True,
    timezone="UTC",
)


def ask_again(task: Task, pause_s: float, error: Exception | None = None) -> Exception:
    """Return the exception with which a task asks for a retry.

    Args:
        task: the running task.
        pause_s: the least time until the next run, in seconds.
        error: the error of this run, if any; it is raised if this run was the last.
    """
    again: Exception
    try:
        again = task.retry(exc=error, countdown=pause_s, throw=False)
    except Reject as reject:
        # The new message could not be published, and Celery would now drop the old one.
        again = Reject(reject.reason, requeue=True)
    return again
