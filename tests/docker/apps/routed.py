"""An app with routes of its own: a default queue, a queue or an exchange per task, and one that nobody consumes."""

from typing import Any

from celery import Celery
from kombu import Exchange, Queue

app = Celery("routed", broker="amqp://nobody:nothing@127.0.0.1:1//", backend="rpc://")
app.conf.task_default_queue = "shop"
app.conf.task_queues = [
    Queue("shop"),
    Queue("reports", Exchange("reports", type="topic"), routing_key="reports.#"),
    Queue("mails"),
    Queue("attic"),
]
app.conf.task_routes = (
    lambda name, *_args, **_options: {"queue": "mails"} if name.endswith("mail") else None,
    {"routed.report": {"queue": "reports", "routing_key": "reports.daily"}, "routed.dust": "attic"},
)


@app.task(shared=False, name="routed.add")
def add(x: int, y: int) -> int:
    return x + y


@app.task(shared=False, name="routed.total")
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task(shared=False, name="routed.mail", bind=True)
def mail(self: Any) -> str:
    return str(self.request.delivery_info["routing_key"])


@app.task(shared=False, name="routed.report", bind=True)
def report(self: Any) -> list[str]:
    return [self.request.delivery_info["exchange"], self.request.delivery_info["routing_key"]]


@app.task(shared=False, name="routed.dust")
def dust() -> None:
    return


@app.task(shared=False, name="routed.own", bind=True, queue="mails")
def own(self: Any) -> str:
    return str(self.request.delivery_info["routing_key"])


def checkout(order: int) -> Any:
    """Send a task, as a view of a web app does."""
    return add.delay(order, 1)
