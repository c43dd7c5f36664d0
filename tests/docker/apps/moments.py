"""Tasks that have an effect: a row in a database."""

import os
import sqlite3
from pathlib import Path

from celery import Celery, chain

app = Celery("moments")
app.conf.update(
    task_acks_late=os.environ.get("ACKS") != "early", task_reject_on_worker_lost=True, worker_prefetch_multiplier=1
)
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
