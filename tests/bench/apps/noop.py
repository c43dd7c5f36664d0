"""An app whose only task does nothing, to measure what is around it."""

import sqlite3
from typing import TYPE_CHECKING

from celery import Celery
from sqlalchemy import Engine, event

from harness import Expect, Scenario

if TYPE_CHECKING:
    from harness.producer import Producer

app = Celery("noop")
app.conf.worker_prefetch_multiplier = 64


def patient(engine: Engine) -> None:
    """Set the options that the agent sets, so that runs with and without it differ by the journal alone."""

    @event.listens_for(engine, "connect")
    def connected(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA busy_timeout=60000")
        connection.execute("PRAGMA synchronous=NORMAL")


app.conf.database_engine_callback = patient


@app.task(name="noop")
def noop() -> None:
    """Do nothing."""


class Noop(Scenario):
    """As little as can be done for each arrival."""

    name = "noop"
    app = "noop"

    def step(self, producer: "Producer", number: int, seed: int) -> None:
        """Send one task."""
        del number, seed
        producer.send("noop", expect=Expect(result=None))


scenario = Noop()
