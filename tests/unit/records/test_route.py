"""The routes of an app, as a worker's line of the journal has them."""

import json
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from harness.records.event import Kind
from harness.records.journal import Writer
from harness.records.route import Route, Routes, told_in

TOPIC = Route(queue="reports", routing_key="reports.daily", exchange="reports", exchange_type="topic", priority=3)
QUORUM = Route(queue="mails", routing_key="mails", arguments={"x-queue-type": "quorum"})


@pytest.mark.parametrize("route", [Route.to_queue("shop"), TOPIC, QUORUM, Route(queue=None, routing_key="")])
def test_a_route_is_read_as_it_was_written(route: Route) -> None:
    assert Route.from_json(json.loads(json.dumps(route.to_json()))) == route


def test_what_is_as_always_is_left_out() -> None:
    assert Route.to_queue("shop").to_json() == {"queue": "shop", "routing_key": "shop"}


def test_a_task_without_a_route_of_its_own_takes_the_default() -> None:
    routes = Routes.from_line({"queue": "shop", "routing_key": "shop"}, {"shop.report": TOPIC.to_json()})
    assert routes is not None
    assert routes.of("shop.report") == TOPIC
    assert routes.of("shop.pay") == Route.to_queue("shop")
    assert Routes().of("shop.pay").place == "celery"


def test_all_routes_are_read_as_they_were_written() -> None:
    routes = Routes(default=Route.to_queue("shop"), by_task={"shop.report": TOPIC})
    assert Routes.from_json(json.loads(json.dumps(routes.to_json()))) == routes
    with pytest.raises(ValueError, match="no routes"):
        Routes.from_json({"default": 5})


def test_the_routes_of_a_run_are_those_of_the_worker_that_was_ready_last(tmp_path: Path) -> None:
    assert told_in(tmp_path) == Routes()
    lines: list[tuple[str, float, dict[str, Any]]] = [
        ("worker-2", 2.0, {"default_route": {"queue": "new", "routing_key": "new"}}),
        ("worker-1", 1.0, {"default_route": {"queue": "old", "routing_key": "old"}}),
        ("beat-1", 3.0, {"at": 3.0}),
    ]
    for node, t, said in lines:
        with closing(Writer(tmp_path, node=node, role="worker", now=partial(float, t))) as writer:
            writer.write(Kind.READY, **said)
    assert told_in(tmp_path).of("shop.pay") == Route.to_queue("new")


def test_a_route_to_an_exchange_is_named_by_its_key() -> None:
    assert Route(queue=None, routing_key="all", exchange="news", exchange_type="fanout").place == "all"


@pytest.mark.parametrize(
    ("default", "by_task"), [(None, None), ("shop", None), ({}, ["a"]), ({}, {"a": 1}), ({"priority": "high"}, {})]
)
def test_a_line_that_tells_no_routes_is_none(default: Any, by_task: Any) -> None:
    assert Routes.from_line(default, by_task) is None
