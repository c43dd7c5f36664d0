"""A shop reminds its customers at the time they asked for, and reports at fixed hours.

Reminders are sent for a time in the future: with an ETA, with a countdown, or with an expiry time. Some find the
customer's line busy and are retried a little later. Reports are sent by beat, by an interval and by crontabs. Both
write one row each to the app's own database.
"""

import contextlib
import functools
import os
import time

from celery import Task
from celery.schedules import crontab
from celery.utils.time import get_exponential_backoff_interval
from sqlalchemy import Column, Engine, Float, MetaData, String, Table, insert
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.schema import CreateTable

from scenarios.app import app, ask_again, database

STOCK_INTERVAL_S = float(os.environ.get("SCHEDULES_INTERVAL_S", "600"))

BUSY_PAUSE_S = 1.0
"""Seconds between a busy line and the next attempt."""

BACKOFF_LIMIT_S = 60
"""The longest pause, in seconds, before another attempt at a database that is broken."""

app.conf.beat_schedule = {
    "check-stock": {"task": "scenarios.schedules.report", "args": ("check-stock",), "schedule": STOCK_INTERVAL_S},
    "sales-so-far": {"task": "scenarios.schedules.report", "args": ("sales-so-far",), "schedule": crontab("*/15")},
    "hourly-report": {"task": "scenarios.schedules.report", "args": ("hourly-report",), "schedule": crontab("0")},
    "nightly-report": {"task": "scenarios.schedules.report", "args": ("nightly-report",), "schedule": crontab(30, 2)},
}

_metadata = MetaData()
_done = Table(
    "scheduled",
    _metadata,
    Column("key", String(255), primary_key=True),
    Column("task", String(255), nullable=False),
    Column("due_at", Float),  # Unix time, seconds; NULL for what beat sends
    Column("done_at", Float, nullable=False),
)


@functools.cache
def _prepared(engine: Engine) -> Engine:
    # If two processes make it at the same time, PostgreSQL answers the later one with an error that it exists.
    with (
        contextlib.suppress(IntegrityError),
        engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
    ):
        connection.execute(CreateTable(_done, if_not_exists=True))
    return engine


def _record(task: Task, key: str, due_at: float | None) -> None:
    """Record what was done, once: a second run of the same task finds the row and changes nothing."""
    row = {"key": key, "task": task.request.id, "due_at": due_at, "done_at": time.time()}
    try:
        engine = _prepared(database())
        with contextlib.suppress(IntegrityError), engine.begin() as connection:
            connection.execute(insert(_done).values(row))
    except (OperationalError, PoolTimeout) as error:
        pause_s = get_exponential_backoff_interval(1, task.request.retries, BACKOFF_LIMIT_S, full_jitter=True)
        raise ask_again(task, pause_s, error) from error


@app.task(bind=True, name="scenarios.schedules.remind", max_retries=12, default_retry_delay=5)
def remind(self: Task, reminder: str, due_at: float, busy: int = 0) -> str:
    """Remind a customer at `due_at` (Unix time in seconds), after `busy` runs that found the line busy.

    Returns:
        The reminder's id.
    """
    if self.request.retries < busy:
        raise ask_again(self, BUSY_PAUSE_S)
    _record(self, f"reminder-{reminder}", due_at)
    return reminder


@app.task(bind=True, name="scenarios.schedules.report", max_retries=12, default_retry_delay=5)
def report(self: Task, entry: str) -> str:
    """Write the report of an entry of the schedule; each tick writes its own."""
    _record(self, f"{entry}-{self.request.id}", None)
    return entry
