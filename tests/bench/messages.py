"""What Celery publishes for a task, for loops that only publish."""

_ALWAYS: dict[str, object] = {
    "lang": "py", "task": "noop", "shadow": None, "eta": None, "expires": None, "group": None, "group_index": None,
    "retries": 0, "timelimit": [None, None], "parent_id": None, "argsrepr": "()", "kwargsrepr": "{'number': 1}",
    "origin": "bench@bench", "ignore_result": False, "replaced_task_nesting": 0, "stamped_headers": None,
    "stamps": {},
}  # fmt: skip


def headers_of(task: str) -> dict[str, object]:
    """The headers of one task's message."""
    return {**_ALWAYS, "id": task, "root_id": task}
