"""The routes of the app that a worker runs: where its own code would send each of its tasks."""

import logging
from typing import Any

from celery import Celery
from kombu.common import Broadcast

from harness.records.route import Route
from harness.records.values import Json

_logger = logging.getLogger(__name__)
_OPTIONS = ("queue", "exchange", "routing_key", "priority")
"""The attributes of a task that say where it is sent to."""
_NOBODY = "harness.no-such-task"
"""The name of a task that no route is made for."""


def routes(app: Celery) -> dict[str, Json]:
    """Return the members of a worker's line that tell where its app sends its tasks.

    The app's routers are asked once for each task, without arguments.
    """
    # A router adds the queues that it meets to its mapping, and a worker consumes what is in the app's own.
    router = app.amqp.Router(app.amqp.Queues(app.conf.task_queues))
    default = _route(app, router, _NOBODY, None)
    if default is None:
        return {}
    found = {
        name: route.to_json()
        for name, task in app.tasks.items()
        if not name.startswith("celery.") and (route := _route(app, router, name, task)) not in (None, default)
    }
    return {"default_route": default.to_json(), **({"routes": found} if found else {})}


def _route(app: Celery, router: Any, name: str, task: Any) -> Route | None:
    """Return where the app would send a task; None if its router has no answer."""
    given = {key: value for key in _OPTIONS if (value := getattr(task, key, None)) is not None}
    try:
        options = router.route(given, name, (), {}, task)
        return _resolved(app, router, options)
    except Exception:
        # A router is the app's own code, which may need the arguments; the worker must start all the same.
        _logger.exception("the app does not say where it sends %s", name)
        return None


def _resolved(app: Celery, router: Any, options: dict[str, Any]) -> Route:
    """Return the route that Celery makes of a task's options when it publishes the task."""
    queue: Any = options.get("queue")
    exchange: Any = options.get("exchange")
    key, priority = options.get("routing_key"), options.get("priority")
    if queue is None and exchange is None:
        queue = router.queues[app.conf.task_default_queue]
    own = getattr(queue, "exchange", None)
    exchange_type = options.get("exchange_type") or getattr(exchange, "type", None) or getattr(own, "type", "direct")
    exchange = getattr(exchange, "name", exchange)
    if not (exchange and key) and exchange_type == "direct":
        exchange, key = "", queue.name if queue is not None else key
    else:
        exchange = exchange or getattr(own, "name", None) or app.conf.task_default_exchange
        key = key or getattr(queue, "routing_key", None) or app.conf.task_default_routing_key
    # A broadcast has an exchange alone: each worker has a queue of its own there.
    declared = None if isinstance(queue, Broadcast) else queue
    given = (getattr(declared, "queue_arguments", None) or {}).items()
    return Route(
        queue=getattr(declared, "name", None),
        routing_key=str(key or ""),
        exchange=str(exchange),
        exchange_type=str(exchange_type),
        arguments={str(name): value if isinstance(value, bool | int | float) else str(value) for name, value in given},
        priority=priority if isinstance(priority, int) else None,
    )
