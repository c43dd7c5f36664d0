"""The settings that are in force in a worker, and the options that its tasks set themselves, as it says itself."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from itertools import islice, takewhile
from typing import Any

from celery import Celery, Task

from harness.inside.app_settings import annotations_of
from harness.records.values import Json

_SETTINGS = (
    "task_acks_late",
    "task_acks_on_failure_or_timeout",
    "task_reject_on_worker_lost",
    "task_time_limit",
    "task_soft_time_limit",
    "task_ignore_result",
    "task_default_queue",
    "worker_prefetch_multiplier",
    "worker_concurrency",
    "worker_pool",
    "worker_cancel_long_running_tasks_on_connection_loss",
    "broker_heartbeat",
    "result_extended",
    "result_expires",
    "timezone",
    "enable_utc",
)
_SETTINGS_IF_SET = (
    "task_acks_on_failure",
    "task_acks_on_timeout",
    "task_retry_on_worker_lost",
    "task_default_delivery_mode",
    "task_default_queue_type",
    "task_default_rate_limit",
    "task_serializer",
    "accept_content",
    "imports",
    "worker_soft_shutdown_timeout",
    "worker_deduplicate_successful_tasks",
    "worker_max_tasks_per_child",
    "worker_max_memory_per_child",
)
"""Settings that are left out if they are None or False, or unknown to this version of Celery."""
_OPTIONS = {
    "acks_late": "task_acks_late",
    "acks_on_failure_or_timeout": "task_acks_on_failure_or_timeout",
    "acks_on_timeout": "task_acks_on_timeout",
    "reject_on_worker_lost": "task_reject_on_worker_lost",
    "retry_on_worker_lost": "task_retry_on_worker_lost",
    "ignore_result": "task_ignore_result",
    "time_limit": "task_time_limit",
    "soft_time_limit": "task_soft_time_limit",
    "rate_limit": "task_default_rate_limit",
    "serializer": "task_serializer",
}
"""The options of a task, and the settings of the app that hold where a task does not set them."""
_MOST_TASKS = 500
"""The most tasks whose options are journaled, so that the journal's head stays short."""
_POOLS = {"thread": "threads"}


def confirms(app: Celery) -> bool:
    """Return whether the broker confirms what the app publishes."""
    return bool((app.conf.broker_transport_options or {}).get("confirm_publish"))


def settings_of(worker: Any) -> dict[str, Json]:
    """Return the settings in force in a worker. An option of its command line wins over the app's setting."""
    app: Celery = worker.app
    conf = app.conf
    said = {name: plain(conf.get(name)) for name in _SETTINGS}
    said |= {name: plain(value) for name in _SETTINGS_IF_SET if (value := conf.get(name)) not in (None, False, (), [])}
    said["concurrency"] = plain(worker.concurrency)
    said["confirm_publish"] = confirms(app)
    said["tasks"] = [task.name for task in _own_tasks(app)]
    if (pool := getattr(worker, "pool_cls", None)) is not None:
        said["pool"] = _pool_name(pool)
    for name in ("prefetch_multiplier", "time_limit", "soft_time_limit"):
        if (value := getattr(worker, name, None)) is not None:
            said[name] = plain(value)
    if (limit_kb := getattr(worker, "max_memory_per_child", None)) is not None:
        said["worker_max_memory_per_child"] = plain(limit_kb)
    return said


def options_of(app: Celery) -> Iterator[dict[str, Json]]:
    """Yield the options that each task sets itself, or that annotations set, of 500 tasks at most."""
    said = ({"name": task.name, **options} for task in _own_tasks(app) if (options := _options(task, app.conf)))
    yield from islice(said, _MOST_TASKS)


def plain(value: Any) -> Json:
    """Return a setting as JSON; a value that JSON does not have, as text."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(one) for one in (sorted(value, key=str) if isinstance(value, set | frozenset) else value)]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _own_tasks(app: Celery) -> list[Task]:
    """Return the tasks of the app in the order of their names, without Celery's own."""
    return [task for name, task in sorted(app.tasks.items()) if not name.startswith("celery.")]


def _options(task: Task, conf: Mapping[str, Any]) -> dict[str, Json]:
    said, annotated = {}, _annotated(task)
    own = {*_own(task), *annotated}
    for option, setting in _OPTIONS.items():
        value = getattr(task, option, None)
        if value is not None and (option in own or value != conf.get(setting)):
            said[option] = plain(value)
    if said.get("acks_on_timeout") == said.get(
        "acks_on_failure_or_timeout", conf.get("task_acks_on_failure_or_timeout")
    ):
        # Celery 5.7 sets this option of each task from the other one.
        said.pop("acks_on_timeout", None)
    autoretry = [error.__name__ for error in getattr(task, "autoretry_for", None) or ()]
    max_retries = task.max_retries
    if autoretry:
        said["autoretry_for"] = autoretry
        max_retries = (getattr(task, "retry_kwargs", None) or {}).get("max_retries", max_retries)
    if max_retries != Task.max_retries:
        said["max_retries"] = plain(max_retries)
    if keys := {option: key for option, key in annotated.items() if option in said}:
        said["annotated"] = keys
    return said


def _own(task: Task) -> Iterator[str]:
    """Yield the attributes that a task's decorator and base classes set.

    When Celery binds a task to its app, it copies the settings into the attributes that are not set. It marks the class
    with `__bound__` before that, and a class keeps its attributes in the order in which they were set.
    """
    for cls in takewhile(lambda cls: cls is not Task, type(task).__mro__):
        yield from takewhile(lambda name: name != "__bound__", vars(cls))


def _annotated(task: Task) -> dict[str, str]:
    """Return the options that `task_annotations` sets, each with the key that wins there."""
    said = annotations_of(task, task.app.annotations)
    return {option: key for key, options in said.items() for option in options}


def _pool_name(pool: type) -> str:
    """Return the name of a pool as `--pool` takes it."""
    name = pool.__module__.rpartition(".")[2]
    return _POOLS.get(name, name)
