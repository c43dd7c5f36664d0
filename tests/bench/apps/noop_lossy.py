"""The app of `noop`, whose worker drops every thousandth task it takes: acknowledged, never run, no word."""

import itertools
from collections.abc import Callable
from typing import Any

from celery import Celery, Task
from celery.worker.strategy import default
from noop import app, noop

EVERY = 1_000
_taken = itertools.count(1)


def dropping(task: Task, app: Celery, consumer: Any, **options: Any) -> Callable[..., Any]:
    """Celery's own way to take a message, but for some."""
    take = default(task, app, consumer, **options)

    def take_or_drop(message: Any, *args: Any, **more: Any) -> Any:
        if next(_taken) % EVERY:
            return take(message, *args, **more)
        return message.ack()

    return take_or_drop


noop.Strategy = f"{__name__}:dropping"

__all__ = ["app"]
