"""The scenarios of a load test, and their common promise and common stack."""

from collections.abc import Sequence

from harness.errors import UsageError
from harness.faults.timetable import parse
from harness.loadtest.messages import Order
from harness.loadtest.options import CELERY_WORKERS
from harness.project.settings import COMMAND_LINE, load
from harness.records.expectation import Delivery, Effects, Promise
from harness.running.run import find_scenario, for_faults
from harness.scenario import Scenario
from harness.stack.project_stack import spec_of
from harness.stack.stack import StackSpec


def scenarios_of(order: Order) -> list[Scenario]:
    """Return the scenarios of an order. Raises UsageError if they cannot be driven as the order asks."""
    found = [find_scenario(name, order.app_folder) for name in order.modules]
    if order.via_http:
        for one in found:
            if one.request(0, order.seed) is None:
                raise UsageError(f"{one.name} cannot be driven over HTTP: it has no request(); send it to the broker.")
        if len({one.routes for one in found}) > 1:
            raise UsageError("the scenarios have routes in different modules; drive one of them at a time over HTTP.")
    return found


def promise(scenarios: Sequence[Scenario]) -> Promise:
    """Return the common promise of all scenarios. Where they differ, the weaker promise holds for all."""
    order = list(Effects)
    promises = [one.promise for one in scenarios]
    deadlines = [one.deadline_s for one in promises]
    indices = [one.fairness for one in promises]
    growths = [one.memory_growth_mb for one in promises]
    weaker_delivery = any(one.delivery is Delivery.AT_LEAST_ONCE for one in promises)
    return Promise(
        # Neither of them allows a loss; the weaker one allows a task to run again.
        delivery=Delivery.AT_LEAST_ONCE if weaker_delivery else Delivery.AT_MOST_ONCE,
        effects=max((one.effects for one in promises), key=order.index),
        recorded=all(one.recorded for one in promises),
        deadline_s=None if None in deadlines else max(one for one in deadlines if one is not None),
        fairness=None if None in indices else min(one for one in indices if one is not None),
        memory_growth_mb=None if None in growths else max(one for one in growths if one is not None),
    )


def spec(order: Order, scenarios: Sequence[Scenario]) -> StackSpec:
    """Return the description of one stack for all scenarios. Raises UsageError if they need different ones."""
    apps = {one.app for one in scenarios if one.app}
    if order.app is None and len(apps) > 1:
        named = ", ".join(sorted(apps))
        raise UsageError(f"one stack runs one app, and the scenarios belong to {named}; choose with --app.")
    said = {tuple(one.worker_options) for one in scenarios if one.worker_options is not None}
    if order.worker_options is None and len(said) > 1:
        raise UsageError("the scenarios want different options of the worker; choose with --worker-option.")
    env: dict[str, str] = {}
    for one in scenarios:
        for name, value in one.env.items():
            if env.setdefault(name, value) != value:
                raise UsageError(f"the scenarios want different values of {name}: {env[name]!r} and {value!r}.")
    of_scenarios = {"app": next(iter(apps), None), "options": next(iter(said), None), "env": env}
    of_order = {
        "app": order.app,
        "folder": order.app_folder,
        "workers": order.workers,
        "options": order.worker_options,
    }
    settings = load(order.project or order.app_folder)
    holding = settings.over("the scenarios", of_scenarios).over(COMMAND_LINE, of_order)
    made = spec_of(holding, workers=CELERY_WORKERS, mailbox=any(one.mailbox for one in scenarios))
    return for_faults(made, [parse(text) for text in order.faults])
