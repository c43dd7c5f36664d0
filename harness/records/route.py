"""The routes of an app: where it sends each of its tasks. Runs in every container: standard library only."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from harness.records import journal
from harness.records.event import Kind, Ready
from harness.records.message import DEFAULT_QUEUE
from harness.records.values import Json


@dataclass(frozen=True, kw_only=True)
class Route:
    """The place that a task is sent to."""

    queue: str | None
    """The queue that is declared if it is missing; None for an exchange alone, such as that of a broadcast."""
    routing_key: str
    exchange: str = ""
    """The name of the exchange; empty for the broker's default one, whose routing key is the name of a queue."""
    exchange_type: str = "direct"
    arguments: Mapping[str, Json] = field(default_factory=dict, hash=False)
    """The arguments with which the queue is declared."""
    priority: int | None = None

    @classmethod
    def to_queue(cls, name: str) -> "Route":
        """Return the route to a queue by its name alone."""
        return cls(queue=name, routing_key=name)

    @property
    def place(self) -> str:
        """The queue, or the routing key if no queue is known: one word for a line of the journal."""
        return self.queue or self.routing_key

    def to_json(self) -> dict[str, Json]:
        """Return the route as it stands in a line of the journal; what is the default is left out."""
        default = asdict(Route(queue=None, routing_key=""))
        return {name: value for name, value in asdict(self).items() if value != default[name]}

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> "Route":
        """Read the result of `to_json`. Raises TypeError, ValueError or AttributeError on anything else."""
        queue, priority = value.get("queue"), value.get("priority")
        return cls(
            queue=None if queue is None else str(queue),
            routing_key=str(value.get("routing_key", "")),
            exchange=str(value.get("exchange", "")),
            exchange_type=str(value.get("exchange_type", "direct")),
            arguments=dict(value.get("arguments", {})),
            priority=None if priority is None else int(priority),
        )


@dataclass(frozen=True, kw_only=True)
class Routes:
    """The routes of all tasks of an app."""

    default: Route = Route.to_queue(DEFAULT_QUEUE)  # noqa: RUF009 - it is frozen.
    """The route of a task that has none of its own, or that is not known."""
    by_task: Mapping[str, Route] = field(default_factory=dict)

    def of(self, task: str) -> Route:
        """Return the route of a task by its registered name."""
        return self.by_task.get(task, self.default)

    def to_json(self) -> dict[str, Json]:
        """Return the routes as a JSON object; `from_json` reads it back."""
        by_task = {task: route.to_json() for task, route in self.by_task.items()}
        return {"default": self.default.to_json(), "by_task": by_task}

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> "Routes":
        """Read the result of `to_json`. Raises TypeError, ValueError or AttributeError on anything else."""
        if (routes := cls.from_line(value.get("default"), value.get("by_task"))) is None:
            raise ValueError("these are no routes")
        return routes

    @classmethod
    def from_line(cls, default: Json, by_task: Json) -> "Routes | None":
        """Read the members `default_route` and `routes` of a worker's line; None if they are not such members."""
        try:
            return cls(
                default=Route.from_json(default),
                by_task={str(task): Route.from_json(route) for task, route in dict(by_task or {}).items()},
            )
        except (TypeError, ValueError, AttributeError):
            return None


def told_in(folder: Path) -> Routes:
    """Return the routes by the journals in a folder: those of the worker that was ready last, or Celery's default."""
    lines = sorted((event for event in journal.read(folder) if event.kind is Kind.READY), key=lambda event: event.t)
    said = (event.of(Ready) for event in reversed(lines))
    found = (Routes.from_line(line.get("default_route"), line.get("routes")) for line in said)
    return next((routes for routes in found if routes is not None), Routes())
