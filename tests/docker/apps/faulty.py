"""An app whose tasks misbehave on purpose: for each fate the task that must turn the audit red."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery import Celery, Task, chain, chord

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


def drop(*_: Any, **__: Any) -> Callable[..., None]:
    """Celery's strategy for a task: what a worker does with its messages. This one acknowledges, and that is all."""

    def take(message: Any, _body: Any, _ack: Any, _reject: Any, callbacks: Any, **_: Any) -> None:
        del callbacks
        message.ack()

    return take


class DroppedTask(Task):
    """A task that no worker ever runs."""

    Strategy = "faulty:drop"


@app.task(base=DroppedTask, name="dropped")
def dropped(key: str) -> None:
    """Never runs."""


@app.task(bind=True, name="early", acks_late=False)
def early(self: Task, key: str, pause_s: float) -> str:
    """Acknowledged before it runs, so that a death in the pause loses it."""
    time.sleep(pause_s)
    have_effect(self, key)
    return "done"


@app.task(name="fail")
def fail() -> None:
    """End in FAILURE."""
    raise KeyError("on purpose")


@app.task(name="sum")
def total(parts: list[str]) -> int:
    """Return the number of parts; this is the body of a chord."""
    return len(parts)


@app.task(name="canvas")
def canvas(kind: str) -> str:
    """Send a chain that works, one that breaks, or a chord."""
    if kind == "chain":
        chain(act.si(key="first"), act.si(key="second")).apply_async()
    elif kind == "broken chain":
        chain(act.si(key="first"), fail.si(), act.si(key="never")).apply_async()
    else:
        chord([act.si(key="left"), act.si(key="right")], total.s()).apply_async()
    return kind
