"""The scenario: reminders are sent, beat sends its ticks, and the rows of both are checked with separate SQL."""

import contextlib
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from harness import Drive, Effect, Finding, Promise, Scenario, Verdict
from harness.errors import StartError
from harness.wait import wait_until
from scenarios.app import app
from scenarios.schedules.prediction import expectation, kind_of, reminder_id, reminders
from scenarios.schedules.tasks import remind

if TYPE_CHECKING:
    from harness.producer import Producer
    from harness.stack.stack import Stack

_AHEAD_S = 1.5
"""The time from now until reminders are due, in seconds."""
_TICKS = MappingProxyType({"check-stock": 3, "sales-so-far": 1, "hourly-report": 1})
"""Number of ticks of each entry that a drive waits for."""
_HOUR_S = 3600
_TO_THE_HOUR_S = (8, 30)
"""The seconds before a full hour to which beat's clock is set: beat has to be ready by then. If the first value is not
enough, a second beat gets the next.
"""


class Schedules(Scenario):
    """Every reminder runs at its time and not before, none runs after it expired, and each tick of beat comes once.

    There is no request over HTTP: no route sends a task for later.
    """

    name = "schedules"
    app = "scenarios.app"
    env = MappingProxyType({"SCHEDULES_INTERVAL_S": "2"})
    # A worker holds what is not due yet, and each of these messages takes up one of those that it may hold. With
    # the app's own multiplier of 1, two reminders would block everything else. What expires while it waits is
    # dropped by the broker, so that no row says that it was revoked. Celery takes 0, for no limit, as not given.
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
        """Start beat, with a clock that is shortly before a full hour.

        Raises:
            StartError: beat takes so long to start that the hour is always over by then.
        """
        del drive
        ahead_s = 0.0
        for to_the_hour_s in _TO_THE_HOUR_S:
            began = time.time()
            # Never back: the next beat must not see an hour again that an earlier one has seen.
            ahead_s += -(began + ahead_s + to_the_hour_s) % _HOUR_S
            beat = stack.add_beat(ahead_s=ahead_s)
            took_s = time.time() - began
            if took_s < to_the_hour_s:
                return
            beat.stop()
        raise StartError(f"beat needed {took_s:.0f} s to start: give the machine less to do, and run this again.")

    def step(self, producer: "Producer", number: int, seed: int) -> None:
        """Send one reminder; every fourth is of the same kind."""
        kind = kind_of(number)
        due_at = time.time() + _AHEAD_S
        kwargs: dict[str, Any] = {"reminder": reminder_id(number, seed), "due_at": due_at}
        expect = expectation(number, seed)
        if kind == "eta":
            producer.send(remind.name, kwargs=kwargs, expect=expect, eta=datetime.fromtimestamp(due_at, UTC))
        elif kind == "countdown":
            producer.send(remind.name, kwargs=kwargs, expect=expect, countdown_s=_AHEAD_S)
        elif kind == "busy":
            producer.send(remind.name, kwargs={**kwargs, "due_at": time.time(), "busy": 1}, expect=expect)
        else:
            producer.send(remind.name, kwargs=kwargs, expect=expect, countdown_s=_AHEAD_S, expires_s=_AHEAD_S / 2)

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
        """Yield the rows of the reminders and of the reports."""
        del drive
        for key, task, _, _ in _rows(stack):
            yield Effect(key=f"row:{key}", task=task)

    def check(self, stack: "Stack", drive: Drive) -> Iterator[Finding]:
        """Check that no reminder was early, expired ones did not run, busy lines were retried, and ticks reported."""
        rows, ledger = _rows(stack), stack.ledger
        early = sorted(task for _, task, due_at, done_at in rows if due_at is not None and done_at < due_at)
        if early:
            yield _finding("reminder-early", "reminders were done before they were due", early)
        expired = reminders(drive, "expired")
        revoked = [row.task for row in stack.results.rows() if row.status == "REVOKED"]
        # A message that expires before a worker has it is dropped by the broker without notice, and never ends; nor
        # does one that the broker refused.
        ended = len(expired) - (ledger.sent - ledger.ended)
        if not ended <= len(revoked) <= len(expired):
            text = f"{len(expired)} reminders had expired, and {len(revoked)} rows say REVOKED"
            yield _finding("revoked-rows", text, revoked)
        done = {key.removeprefix("reminder-"): task for key, task, _, _ in rows}
        if late := sorted(done[reminder] for reminder in expired & done.keys()):
            yield _finding("expired-ran", "reminders ran that had expired", late)
        busy = reminders(drive, "busy")
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
