"""A tiny app as anybody has one: no agent, no harness; broker and results come from the environment."""

import time

from celery import Celery

app = Celery("attached")
# Not UTC, so that `date_done` is not UTC either.
app.conf.timezone = "Europe/Berlin"
app.conf.task_acks_late = True
app.conf.worker_prefetch_multiplier = 1


@app.task(name="attached.double")
def double(number: int, pause_s: float = 0.0) -> int:
    """Return twice the number; if it is 13, one more than that. Refuse what is below zero."""
    time.sleep(pause_s)
    if number < 0:
        raise ValueError(f"{number} is below zero")
    return 2 * number + (number == 13)
