"""An app whose tasks misbehave on purpose: for each fate the task that must turn the audit red."""

import json
import os
import time
from pathlib import Path
from typing import Any

from celery import Celery, Task
from celery.worker.request import Request

app = Celery("faulty")
app.conf.task_acks_late = True
app.conf.worker_prefetch_multiplier = 1


def have_effect(task: Task, key: str) -> None:
    """Leave a trace outside of Celery: a line in a file of effects, in one write."""
    line = json.dumps({"t": time.time(), "kind": "row", "key": key, "task": task.request.id}) + "\n"
    path = Path(os.environ["HARNESS_RUN"]) / "effects" / f"app-{os.getpid()}.jsonl"
    with path.open("a") as file:
        file.write(line)


@app.task(bind=True, name="act")
def act(self: Task, key: str, times: int = 1, result: Any = "done", pause_s: float = 0.0) -> Any:
    """Have the effect `times` times, and return `result`."""
    time.sleep(pause_s)
    for _ in range(times):
        have_effect(self, key)
    return result


class Dropping(Request):
    """Takes a message, acknowledges it, and never runs the task."""

    def execute_using_pool(self, *_: Any, **__: Any) -> None:
        """Pretend that it was done."""
        self.acknowledge()


class DroppedTask(Task):
    """A task that no worker ever runs."""

    Request = Dropping


@app.task(base=DroppedTask, name="dropped")
def dropped(key: str) -> None:
    """Never runs."""


@app.task(bind=True, name="early", acks_late=False)
def early(self: Task, key: str, pause_s: float) -> str:
    """Acknowledged before it runs, so that a death in the pause loses it."""
    time.sleep(pause_s)
    have_effect(self, key)
    return "done"
