"""Where a worker says that its app sends its tasks: the same places that Celery sends them to."""

from typing import Any

import pytest
from celery import Celery
from kombu import Exchange, Queue
from kombu.common import Broadcast

from harness.inside.app_routes import routes

TASKS = ("shop.pay", "shop.mail", "shop.report", "shop.news", "shop.own")


def by_name(name: str, *_args: Any, **_options: Any) -> dict[str, Any] | None:
    return {"queue": "mails"} if name.endswith(".mail") else None


def needs_arguments(_name: str, args: Any, *_more: Any, **_options: Any) -> Any:
    return {"queue": args[0]}


def made(*names: str, **settings: Any) -> Celery:
    app = Celery("shop", broker="memory://", set_as_current=False)
    app.conf.update(settings)

    def do() -> None:
        return

    for name in names or TASKS:
        app.task(name=name, shared=False)(do)
    return app


@pytest.mark.parametrize(
    ("settings", "default", "found"),
    [
        ({}, {"queue": "celery", "routing_key": "celery"}, {}),
        ({"task_default_queue": "shop"}, {"queue": "shop", "routing_key": "shop"}, {}),
        (
            {"task_routes": {"shop.p*": "pay", "shop.mail": {"queue": "mails", "priority": 7}}},
            {"queue": "celery", "routing_key": "celery"},
            {
                "shop.pay": {"queue": "pay", "routing_key": "pay"},
                "shop.mail": {"queue": "mails", "routing_key": "mails", "priority": 7},
            },
        ),
        (
            {"task_routes": (by_name,)},
            {"queue": "celery", "routing_key": "celery"},
            {"shop.mail": {"queue": "mails", "routing_key": "mails"}},
        ),
        (
            {
                "task_queues": [
                    Queue("celery"),
                    Queue("reports", Exchange("reports", type="topic"), routing_key="reports.#"),
                    Broadcast("news"),
                    Queue("orders", queue_arguments={"x-queue-type": "quorum"}),
                ],
                "task_routes": {
                    "shop.report": {"queue": "reports", "routing_key": "reports.daily"},
                    "shop.news": {"queue": "news"},
                    "shop.pay": {"queue": "orders"},
                },
            },
            {"queue": "celery", "routing_key": "celery"},
            {
                "shop.pay": {"queue": "orders", "routing_key": "orders", "arguments": {"x-queue-type": "quorum"}},
                "shop.report": {
                    "queue": "reports",
                    "routing_key": "reports.daily",
                    "exchange": "reports",
                    "exchange_type": "topic",
                },
                "shop.news": {"routing_key": "celery", "exchange": "news", "exchange_type": "fanout"},
            },
        ),
    ],
    ids=["none", "default", "pattern", "function", "exchanges"],
)
def test_the_routes_are_those_of_the_app(
    settings: dict[str, Any], default: dict[str, Any], found: dict[str, Any]
) -> None:
    said = routes(made(**settings))
    assert said["default_route"] == default
    assert said.get("routes", {}) == found


def test_an_attribute_of_the_task_is_a_route() -> None:
    app = made()
    app.tasks["shop.own"].queue = "own"
    assert routes(app)["routes"] == {"shop.own": {"queue": "own", "routing_key": "own"}}


def test_a_router_that_needs_the_arguments_stops_no_worker(caplog: pytest.LogCaptureFixture) -> None:
    assert routes(made("shop.pay", task_routes=(needs_arguments,))) == {}
    assert "the app does not say where it sends" in caplog.text


def test_the_worker_does_not_consume_more_for_having_been_asked() -> None:
    app = made(task_routes={"shop.pay": "elsewhere"})
    assert routes(app)["routes"]["shop.pay"]["queue"] == "elsewhere"
    assert list(app.amqp.queues.consume_from) == ["celery"]


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Return exchange and routing key of everything that Kombu publishes; nothing is sent."""
    found: list[tuple[str, str]] = []

    def publish(_producer: Any, _body: Any, *, exchange: Any, routing_key: Any, **_: Any) -> None:
        found.append((getattr(exchange, "name", exchange), routing_key))

    monkeypatch.setattr("kombu.Producer.publish", publish)
    return found


@pytest.mark.parametrize("task", TASKS[:3])
def test_celery_itself_publishes_there(published: list[tuple[str, str]], task: str) -> None:
    app = made(
        task_default_queue="shop",
        task_queues=[Queue("shop"), Queue("reports", Exchange("reports", type="topic"), routing_key="reports.#")],
        task_routes={"shop.report": {"queue": "reports", "routing_key": "reports.daily"}, "shop.mail": "shop"},
    )
    app.tasks[task].apply_async(ignore_result=True)
    said = routes(app)
    route = said.get("routes", {}).get(task, said["default_route"])
    assert published == [(route.get("exchange", ""), route["routing_key"])]
