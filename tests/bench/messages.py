"""What Celery publishes for a task, for loops that only publish."""

import uuid
from typing import Any

import kombu

_ALWAYS: dict[str, object] = {
    "lang": "py", "task": "noop", "shadow": None, "eta": None, "expires": None, "group": None, "group_index": None,
    "retries": 0, "timelimit": [None, None], "parent_id": None, "argsrepr": "()", "kwargsrepr": "{'number': 1}",
    "origin": "bench@bench", "ignore_result": False, "replaced_task_nesting": 0, "stamped_headers": None,
    "stamps": {},
}  # fmt: skip
_EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def _headers_of(task: str) -> dict[str, object]:
    """Return the headers of one task's message."""
    return {**_ALWAYS, "id": task, "root_id": task}


def publish(producer: kombu.Producer, queue: str, **kwargs: Any) -> None:
    """Publish what Celery publishes for a task, and wait for the confirm."""
    task = str(uuid.uuid4())
    producer.publish(
        ([], kwargs, _EMBED),
        routing_key=queue,
        headers=_headers_of(task),
        serializer="json",
        delivery_mode=2,
        correlation_id=task,
        reply_to=task,
        confirm_timeout=5,
    )
