"""The Celery app of the selftest: one task for each kind of evidence that a run leaves. It runs in the workers."""

import os
import smtplib
import sqlite3
import time
from contextlib import closing
from typing import Any

from celery import Celery, Task, chain, chord

app = Celery("selftest")
app.conf.update(
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    broker_transport_options={"confirm_publish": True},
    timezone="UTC",
    beat_schedule={"pulse": {"task": "pulse", "schedule": 1.0}},
)


@app.task(name="receipt")
def receipt(to: str) -> str:
    """Send one mail, and return its recipient."""
    with smtplib.SMTP(os.environ["SMTP_HOST"], int(os.environ["SMTP_PORT"])) as server:
        server.sendmail("shop@example.com", [to], f"To: {to}\r\nSubject: receipt\r\n\r\nThank you.\r\n")
    return to


@app.task(name="order")
def order(number: int) -> int:
    """Write one row into the app's own database, and return its number."""
    path = os.environ["APP_DATABASE_URL"].removeprefix("sqlite:///")
    with closing(sqlite3.connect(path, timeout=30)) as database, database:
        database.execute("CREATE TABLE IF NOT EXISTS orders (number INTEGER)")
        database.execute("INSERT INTO orders VALUES (?)", [number])
    return number


@app.task(name="note")
def note(*_: Any, pause_s: float = 0.0) -> None:
    """Return nothing, after a pause."""
    time.sleep(pause_s)


@app.task(name="fail")
def fail() -> None:
    """End in FAILURE."""
    raise KeyError("on purpose")


@app.task(name="again", bind=True, max_retries=1)
def again(self: Task) -> str:
    """Ask for one retry, and then succeed."""
    if not self.request.retries:
        raise self.retry(countdown=0)
    return "done"


@app.task(name="early", acks_late=False)
def early(pause_s: float) -> str:
    """Have its message acknowledged before it runs, so that a death in the pause loses it."""
    time.sleep(pause_s)
    return "done"


@app.task(name="pulse")
def pulse() -> str:
    """Be what beat sends."""
    return "beat"


@app.task(name="first")
def first(number: int) -> int:
    """Be the first step of a chain."""
    return number + 1


@app.task(name="second")
def second(number: int) -> int:
    """Be the second step of a chain."""
    return number + 1


@app.task(name="linked")
def linked(number: int) -> int:
    """Be a task that a link follows."""
    return number


@app.task(name="left")
def left() -> int:
    """Be a member of a chord."""
    return 1


@app.task(name="right")
def right() -> int:
    """Be the other member of a chord."""
    return 2


@app.task(name="body")
def body(parts: list[int]) -> int:
    """Be the body of a chord."""
    return sum(parts)


@app.task(name="canvas")
def canvas() -> str:
    """Send a chain, a task with a link, and a chord."""
    chain(first.s(1), second.s()).apply_async()
    linked.apply_async([1], link=note.s())
    chord([left.si(), right.si()], body.s()).apply_async()
    return "sent"
