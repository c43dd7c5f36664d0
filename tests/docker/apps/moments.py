"""Tasks that have an effect: a row in a database; and one that beat sends each minute."""

import os
import sqlite3
from pathlib import Path

from celery import Celery, chain
from celery.schedules import crontab

app = Celery("moments")
app.conf.update(
    task_acks_late=os.environ.get("ACKS") != "early", task_reject_on_worker_lost=True, worker_prefetch_multiplier=1
)
app.conf.broker_transport_options = {"confirm_publish": True}
# Beat saves its schedule after each tick, and not only after the first and three minutes.
app.conf.update(beat_schedule={"minutely": {"task": "moments.tick", "schedule": crontab()}}, beat_sync_every=1)
FILE = Path("/harness/run/app/moments.sqlite3")


@app.task
def commit(key: str) -> str:
    """Write a row."""
    connection = sqlite3.connect(FILE, timeout=30)
    with connection:
        connection.execute("CREATE TABLE IF NOT EXISTS written (key)")
        connection.execute("INSERT INTO written VALUES (?)", (key,))
    connection.close()
    return key


@app.task
def two_steps(key: str) -> None:
    """Send a chain, as a web request would."""
    chain(commit.si(f"{key}-1"), commit.si(f"{key}-2")).apply_async()


@app.task
def send_on(key: str, task: str) -> None:
    """Send a task with an id that was chosen before."""
    commit.apply_async([key], task_id=task)


@app.task
def tick() -> None:
    """Do nothing, each minute."""
