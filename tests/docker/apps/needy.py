"""An app whose tasks take memory and keep it, or take long. Its settings come from the environment."""

import json
import os
import time
from typing import Any

from celery import Celery
from kombu import Exchange, Queue

app = Celery("needy")
app.conf.update(
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    task_queues=[
        Queue(
            "celery",
            Exchange("celery"),
            routing_key="celery",
            queue_arguments=json.loads(os.environ.get("ARGUMENTS", "null")),
        ),
    ],
)
app.conf.update(json.loads(os.environ.get("SETTINGS", "{}")))
_kept: list[bytearray] = []


@app.task(name="keep")
def keep(mb: int) -> int:
    """Take memory, and never give it back."""
    _kept.append(bytearray(os.urandom(1)) * (mb << 20))
    return mb


@app.task(name="act")
def act(key: str, pause_s: float = 0.0) -> str:
    """Return what is given, after a pause."""
    time.sleep(pause_s)
    return key


@app.task(name="send_on")
def send_on(keys: list[str], options: dict[str, Any]) -> None:
    """Send a task for each key."""
    for key in keys:
        act.apply_async([key], **options)
