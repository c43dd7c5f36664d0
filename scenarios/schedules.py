"""A shop reminds its customers at the time they asked for, and reports at fixed hours.

Reminders are sent for a moment in the future: with an ETA, with a countdown, with a time after which nobody wants
them any more, and some find the customer's line busy and come again a little later. Reports are sent by beat, by
an interval and by crontabs. What either did stands in the app's own database, one row each.
"""

import contextlib
import functools
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from celery import Task
from celery.schedules import crontab
from celery.utils.time import get_exponential_backoff_interval
from sqlalchemy import Column, Engine, Float, MetaData, String, Table, insert
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.schema import CreateTable

from harness import Drive, Effect, Expect, Finding, Promise, Scenario, Verdict
from harness.errors import StartError
from harness.wait import wait_until
from scenarios.app import app, ask_again, database

if TYPE_CHECKING:
    from harness.producer import Producer
    from harness.stack.stack import Stack

STOCK_INTERVAL_S = float(os.environ.get("SCHEDULES_INTERVAL_S", "600"))

BUSY_PAUSE_S = 1.0
"""How long after a busy line the next attempt is made."""

BACKOFF_LIMIT_S = 60
"""The longest pause before another attempt at a database that is broken."""

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
    # Two that make it at the same moment: PostgreSQL tells the later that it is there, as an error.
    with (
        contextlib.suppress(IntegrityError),
        engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
    ):
        connection.execute(CreateTable(_done, if_not_exists=True))
    return engine


def _record(task: Task, key: str, due_at: float | None) -> None:
    """Write down what was done, once: a second run of the same task finds it there, and changes nothing."""
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
    """Remind a customer at `due_at` (Unix time in seconds), after the line was busy for so many times.

    Returns:
        The reminder's id.
    """
    if self.request.retries < busy:
        raise ask_again(self, BUSY_PAUSE_S)
    _record(self, f"reminder-{reminder}", due_at)
    return reminder


@app.task(bind=True, name="scenarios.schedules.report", max_retries=12, default_retry_delay=5)
def report(self: Task, entry: str) -> str:
    """Write the report that an entry of the schedule asks for; each tick is a report of its own."""
    _record(self, f"{entry}-{self.request.id}", None)
    return entry


# What follows predicts what the tasks above must do, and looks at what they did with SQL of its own.

_AHEAD_S = 1.5
"""How far in the future reminders are due."""
_TICKS = MappingProxyType({"check-stock": 3, "sales-so-far": 1, "hourly-report": 1})
"""How many ticks of which entry a drive waits for."""
_HOUR_S = 3600
_TO_THE_HOUR_S = (8, 30)
"""Beat's clock is put forward to so many seconds before a full hour: it has to be ready by then. Where that was not
enough, another beat gets more."""


def reminder_id(number: int, seed: int) -> str:
    """The id of the reminder with this number."""
    return f"{seed}-{number:06d}"


def _kind(number: int) -> str:
    return ("eta", "countdown", "expired", "busy")[number % 4]


def _reminders(drive: Drive, kind: str) -> set[str]:
    """The reminders of one kind."""
    return {reminder_id(number, drive.seed) for number in drive.numbers if _kind(number) == kind}


class Schedules(Scenario):
    """Every reminder at its time and not before, none that came too late, and each tick of beat once.

    There is no way over HTTP: no route sends a task for later.
    """

    name = "schedules"
    app = "scenarios.app"
    env = MappingProxyType({"SCHEDULES_INTERVAL_S": "2"})
    # A worker holds what is not due yet, and each of these messages takes up one of those that it may hold. With the
    # app's own multiplier of 1, two reminders would keep everything else waiting, and what expires while it waits is
    # dropped by the broker: no row says that it was revoked. Celery takes 0, for no limit, as not given.
    worker_options = (
        "--concurrency=2",
        "--without-gossip",
        "--without-mingle",
        "--loglevel=info",
        "--prefetch-multiplier=10000",
    )
    promise = Promise()
    count = 20

    def prepare(self, stack: "Stack", drive: Drive) -> None:
        """Start beat, with a clock on which a full hour is near.

        Raises:
            StartError: beat takes so long to start that the hour is always over by then.
        """
        del drive
        ahead_s = 0.0
        for to_the_hour_s in _TO_THE_HOUR_S:
            began = time.time()
            # Never back: what one beat has seen of an hour, the next one must not see again.
            ahead_s += -(began + ahead_s + to_the_hour_s) % _HOUR_S
            beat = stack.add_beat(ahead_s=ahead_s)
            took_s = time.time() - began
            if took_s < to_the_hour_s:
                return
            beat.stop()
        raise StartError(f"beat needed {took_s:.0f} s to start: give the machine less to do, and run this again.")

    def step(self, producer: "Producer", number: int, seed: int) -> None:
        """Send one reminder; every fourth is of the same kind."""
        kind, reminder = _kind(number), reminder_id(number, seed)
        due_at = time.time() + _AHEAD_S
        kwargs: dict[str, Any] = {"reminder": reminder, "due_at": due_at}
        expect = Expect(result=reminder, effects=[f"row:reminder-{reminder}"])
        if kind == "eta":
            producer.send(remind.name, kwargs=kwargs, expect=expect, eta=datetime.fromtimestamp(due_at, UTC))
        elif kind == "countdown":
            producer.send(remind.name, kwargs=kwargs, expect=expect, countdown_s=_AHEAD_S)
        elif kind == "busy":
            producer.send(remind.name, kwargs={**kwargs, "due_at": time.time(), "busy": 1}, expect=expect)
        else:
            late = Expect(state="REVOKED", effects=[])
            producer.send(remind.name, kwargs=kwargs, expect=late, countdown_s=_AHEAD_S, expires_s=_AHEAD_S / 2)

    def finish(self, stack: "Stack", drive: Drive) -> None:
        """Wait for some ticks of beat, and stop it."""
        del drive
        wait_until(
            lambda: all(stack.ledger.ticks[entry] >= count for entry, count in _TICKS.items()),
            what="beat has sent its ticks",
            timeout_s=60,
            last_seen=lambda: f"Sent: {dict(stack.ledger.ticks) or 'nothing'}.\n{stack.beats[-1].last_lines(10)}",
        )
        for beat in stack.beats:
            beat.stop()

    def effects(self, stack: "Stack", drive: Drive) -> Iterator[Effect]:
        """The rows of the reminders, and of the reports."""
        del drive
        for key, task, _, _ in _rows(stack):
            yield Effect(key=f"row:{key}", task=task)

    def check(self, stack: "Stack", drive: Drive) -> Iterator[Finding]:
        """No reminder was early, what had expired is recorded as such, busy lines were tried again, ticks reported."""
        rows, ledger = _rows(stack), stack.ledger
        early = sorted(task for _, task, due_at, done_at in rows if due_at is not None and done_at < due_at)
        if early:
            yield _finding("reminder-early", "reminders were done before they were due", early)
        expired = _reminders(drive, "expired")
        revoked = [row.task for row in stack.results.rows() if row.status == "REVOKED"]
        # What expires before a worker has it is dropped by the broker without a word, and never ends; nor does what
        # the broker refused.
        ended = len(expired) - (ledger.sent - ledger.ended)
        if not ended <= len(revoked) <= len(expired):
            text = f"{len(expired)} reminders had expired, and {len(revoked)} rows say REVOKED"
            yield _finding("revoked-rows", text, revoked)
        done = {key.removeprefix("reminder-"): task for key, task, _, _ in rows}
        if late := sorted(done[reminder] for reminder in expired & done.keys()):
            yield _finding("expired-ran", "reminders ran that had expired", late)
        busy = _reminders(drive, "busy")
        untried = [done[one] for one in busy & done.keys() if ledger.retries(done[one]) == 0]
        if untried:
            yield _finding("not-retried", "reminders found a busy line and were not tried again", sorted(untried))
        reports = Counter(key.rpartition(f"-{task}")[0] for key, task, due_at, _ in rows if due_at is None)
        sent = {entry: count for entry, count in ledger.ticks.items() if entry in app.conf.beat_schedule}
        if sent != dict(reports):
            text = f"beat sent the ticks {sent}, and the reports are {dict(reports)}"
            yield Finding(code="reports-differ", verdict=Verdict.FAIL, count=1, text=text)


def _finding(code: str, text: str, tasks: list[str]) -> Finding:
    return Finding(code=code, verdict=Verdict.FAIL, count=len(tasks), text=text, tasks=tuple(tasks[:10]))


def _rows(stack: "Stack") -> list[tuple[str, str, float | None, float]]:
    path = stack.folder.path / "app" / "app.sqlite3"
    if not path.exists():
        return []
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return connection.execute("SELECT key, task, due_at, done_at FROM scheduled").fetchall()


scenario = Schedules()
