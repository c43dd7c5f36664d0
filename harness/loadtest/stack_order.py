"""The order of a Locust process to the stack process, made from the options and the locustfile."""

import argparse
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TextIO

from locust import User

from harness.console import columns_of
from harness.errors import UsageError
from harness.loadtest.messages import Order
from harness.loadtest.options import celery_workers
from harness.loadtest.run_legs import Part
from harness.measure.durations import parse_duration_s
from harness.measure.load_account import Asked
from harness.project.settings import load
from harness.scenario import Scenario


def order_of(options: argparse.Namespace, parts: Mapping[str, Part], output: TextIO) -> Order:
    """Return the description of the stack that the stack process has to bring up.

    Args:
        options: Locust's parsed options.
        parts: the classes that take part, by name.
        output: the stream for the report.

    Raises:
        UsageError: a scenario is in no module, or the settings of the project cannot be read.
    """
    project = Path(options.app_dir or ".").absolute()
    modules = {one.scenario.name: module_of(one.scenario) for one in parts.values()}
    own = {one.scenario.name: dict(one.options) for one in parts.values() if one.options}
    return Order(
        modules=tuple(modules.values()),
        app_folder=project if options.app_dir else load(project).folder,
        project=project,
        root=Path(options.runs).absolute(),
        app=options.app or None,
        workers=celery_workers(options),
        worker_options=tuple(options.worker_option) or None,
        seed=options.seed,
        options=own,
        via_http=options.via == "http",
        is_open=not options.closed,
        broker_url=options.broker_url or None,
        results_url=options.results or None,
        objectives=tuple(options.objective),
        faults=tuple(options.fault),
        timeout_s=parse_duration_s(options.drain_timeout),
        width=columns_of(output),
        is_colourful=output.isatty() and "NO_COLOR" not in os.environ,
        # With `python -m`, the first argument is a path.
        command=shlex.join(["locust", *sys.argv[1:]]),
        about=Asked(
            rate=options.rate,
            stages=options.stages,
            arrival=str(options.arrival),
            via=options.via,
            loop="closed" if options.closed else "open",
        ),
    )


def module_of(scenario: Scenario) -> str:
    """Return the module that has a scenario as its `scenario`.

    Raises UsageError if there is none: the stack process could not find the scenario.
    """
    names = [type(scenario).__module__, *sys.modules]
    for name in names:
        module = sys.modules.get(name)
        # A locustfile can have it by that name, too. But it needs Locust, which the stack process must not import.
        if module is not None and vars(module).get("scenario") is scenario and not _is_locustfile(module):
            return name
    raise UsageError(f"no module has the scenario {scenario.name} as `scenario`: put `scenario = ...` into its module.")


def _is_locustfile(module: ModuleType) -> bool:
    return any(isinstance(one, type) and issubclass(one, User) for one in vars(module).values())
