"""An app for the catalogue of checks. Its settings and its queue come from the environment."""

import json
import os
import time

from celery import Celery, Task
from celery.exceptions import Ignore
from kombu import Exchange, Queue

app = Celery("checks")
app.conf.update(
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    task_queues=[
        Queue(
            "celery",
            Exchange("celery", type=os.environ.get("EXCHANGE", "direct")),
            routing_key="celery",
            queue_arguments=json.loads(os.environ.get("ARGUMENTS", "null")),
        ),
    ],
    beat_schedule={"pulse": {"task": "act", "schedule": 1.0, "args": ["tick"]}},
)
app.conf.update(json.loads(os.environ.get("SETTINGS", "{}")))


@app.task(name="act")
def act(key: str, pause_s: float = 0.0) -> str:
    """Return what is given, after a pause."""
    time.sleep(pause_s)
    return key


@app.task(name="rated", rate_limit="1/s")
def rated(key: str) -> str:
    """Run once in a second."""
    return key


@app.task(name="limited", time_limit=1)
def limited() -> None:
    """Be killed by the hard limit."""
    time.sleep(60)


@app.task(bind=True, name="claim")
def claim(self: Task, how: str) -> str:
    """Say that it failed, and then end in another way."""
    about = {"exc_type": "ValueError", "exc_module": "builtins", "exc_message": ["claimed"]}
    self.update_state(state="FAILURE", meta=about)
    if how == "ignore":
        raise Ignore
    return "done"


@app.task(name="later")
def later(keys: list[str], countdown: float) -> None:
    """Send tasks that are due later."""
    for key in keys:
        act.apply_async([key], countdown=countdown)
