"""An app whose workers stop consuming when they are told to."""

from typing import Any

from celery import Celery
from celery.worker.control import control_command

app = Celery("deaf")


@app.task(name="nap")
def nap() -> str:
    """Do nothing."""
    return "done"


@control_command()
def deafen(state: Any) -> str:
    """Stop consuming, as a worker does that comes back from a lost connection without its consumers."""
    state.consumer.task_consumer.cancel()
    return "deaf"
