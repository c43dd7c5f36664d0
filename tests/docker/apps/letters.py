"""An app whose queues get rid of messages, by a time, a length or a number of deliveries; some keep them elsewhere."""

import os
import signal
from pathlib import Path
from typing import Any

from celery import Celery, Task
from celery.exceptions import Reject
from celery.signals import worker_init
from kombu import Exchange, Queue


def queue(name: str, **arguments: Any) -> Queue:
    """Return a queue with its own exchange; write the dashes of the arguments' names as underscores."""
    named = {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
    return Queue(name, Exchange(name), routing_key=name, queue_arguments=named)


def dead_letters_to(name: str) -> dict[str, str]:
    """Have a queue send what it gets rid of to another one."""
    return {"dead_letter_exchange": "", "dead_letter_routing_key": name}


app = Celery("letters")
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    task_queues=[
        queue("celery"),
        queue("rejects", **dead_letters_to("dead")),
        queue("bounces", **dead_letters_to("bounced")),
        queue("fragile", queue_type="quorum", delivery_limit=1, **dead_letters_to("dead")),
    ],
)
UNCONSUMED = [
    queue("dead"),
    queue("bounced", message_ttl=300, **dead_letters_to("bounces")),
    queue("later", message_ttl=300, **dead_letters_to("celery")),
    queue("short", message_ttl=300, **dead_letters_to("dead")),
    queue("small", max_length=1, **dead_letters_to("dead")),
    queue("brief", message_ttl=300),
    queue("tiny", max_length=1),
    queue("strict", max_length=1, overflow="reject-publish"),
    queue("purged"),
    queue("deleted"),
]


@worker_init.connect
def declare(**_: Any) -> None:
    """Make the queues that no worker consumes."""
    with app.connection() as connection:
        for one in UNCONSUMED:
            one(connection).declare()


@app.task(name="act")
def act() -> str:
    """Succeed."""
    return "done"


@app.task(name="refuse")
def refuse() -> None:
    """Have the queue get rid of the message."""
    raise Reject("no", requeue=False)


@app.task(bind=True, name="bounce")
def bounce(self: Task) -> str:
    """Refuse the message, and take it when it comes again."""
    path = Path(os.environ["HARNESS_RUN"], "app", f"bounced-{self.request.id}")
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        path.touch()
        raise Reject("later", requeue=False)
    return "done"


@app.task(name="poison")
def poison() -> None:
    """Kill its own process."""
    os.kill(os.getpid(), signal.SIGKILL)
