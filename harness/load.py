"""The load test: Locust drives scenario steps, in an open loop, against a real stack; every task is accounted for.

A locustfile is three lines:

    from harness.load import Load
    from shop.scenarios import receipts

    class Receipts(Load):
        scenario = receipts.scenario

``locust -f FILE`` opens Locust's page on 127.0.0.1. A run that is started there brings a stack up, drives, drains,
audits and takes the stack down. ``--headless --rate 300 -t 60s`` does it in a pipeline. Exit codes: 0 pass; 1 a failed
audit, a missed objective, a task that is not accounted for; 2 wrong use or environment; 3 an invalid run, because the
generator was too slow or a witness is missing; 130 it was interrupted, and there is no account.

An arrival is due by a plan, regardless of the earlier ones (an open loop), and latencies are counted from its due
time. So a stall of the system under test cannot hide by slowing the generator down. A dispatcher hands each arrival
to a sender, which is a Locust user. An arrival for which no sender was free is dropped, and counted.

This module has the class, and the handlers of Locust's events. The rest is in `harness.loadtest`.
"""

import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

try:
    from locust import User, constant, events, task
    from locust.argument_parser import LocustArgumentParser
    from locust.env import Environment
except ImportError as error:
    raise ImportError(f"{error}. Install it with the harness: pip install 'celery-harness[load]'") from error

from harness.errors import HarnessError, UsageError
from harness.loadtest import locust_page, options
from harness.loadtest.locust_run import LocustRun
from harness.printable import printable
from harness.scenario import Scenario

_WRONG_USE = 2

# The `locust` command does not search the working directory for modules, as `python -m` does.
if (_here := str(Path.cwd())) not in sys.path:
    sys.path.insert(0, _here)


class Load(User):
    """A scenario under load. Subclass it in a locustfile, and set `scenario`; `weight` is its share of the arrivals."""

    abstract = True
    scenario: ClassVar[Scenario]
    options: ClassVar[Mapping[str, Any]] = {}
    """Values of the scenario's own options."""
    weight = 1.0
    wait_time = constant(0)

    def __init_subclass__(cls, **options: Any) -> None:
        """Give the class its own copies of the tasks: a tag is set on a task, and must apply to this class alone."""
        super().__init_subclass__(**options)
        cls.tasks = [_own(one) for one in cls.tasks]

    @task
    def serve(self) -> None:
        """Send the next due arrival, of any of the scenarios that take part."""
        self.environment.celery_harness.generator.serve()


def _own(serve: Callable[[Load], None]) -> Callable[[Load], None]:
    @functools.wraps(serve)
    def own(user: Load) -> None:
        serve(user)

    if hasattr(serve, "locust_tag_set"):
        vars(own)["locust_tag_set"] = set(serve.locust_tag_set)
    return own


def _heed_tags(environment: Environment) -> None:
    """Remove the classes that have no task left after Locust's `--tags` and `--exclude-tags`.

    Raises:
        UsageError: no class is left.
    """
    given = environment.parsed_options
    tags, excluded = set(given.tags or ()), set(given.exclude_tags or ())

    def takes_part(one: type[User]) -> bool:
        tagged: list[set[str]] = [getattr(task, "locust_tag_set", set()) for task in one.tasks]
        return any((not tags or tags & of_task) and not excluded & of_task for of_task in tagged)

    left_out = [one for one in environment.user_classes if not takes_part(one)]
    if left_out and len(left_out) == len(environment.user_classes):
        raise UsageError("--tags and --exclude-tags leave no class of the locustfile: give tags that one of them has.")
    for one in left_out:
        environment.user_classes.remove(one)
        (environment.available_user_classes or {}).pop(one.__name__, None)


def _scenarios(environment: Environment) -> dict[str, type[Load]]:
    """Return the classes that take part, by name.

    Raises:
        UsageError: there is none, one is not a `Load`, or one has no scenario.
    """
    found = {one.__name__: one for one in environment.user_classes if issubclass(one, Load)}
    others = sorted(one.__name__ for one in environment.user_classes if not issubclass(one, Load))
    if others:
        raise UsageError(f"{', '.join(others)} cannot take part: only classes of harness.load.Load can.")
    for name, one in found.items():
        if not isinstance(getattr(one, "scenario", None), Scenario):
            raise UsageError(f"{name} has no `scenario`; set it to an instance of harness.Scenario.")
    if not found:
        raise UsageError("the locustfile has no class of harness.load.Load; three lines make one, see its docstring.")
    return found


@events.init_command_line_parser.add_listener
def _on_parser(parser: LocustArgumentParser) -> None:
    options.add(parser)


@events.init.add_listener
def _on_init(environment: Environment, **_: Any) -> None:
    given = environment.parsed_options
    try:
        options.check(given)
        _heed_tags(environment)
        test = environment.celery_harness = LocustRun(environment, _scenarios(environment))
        test.prepare()
    except HarnessError as error:
        # Wrong options must end the command before it begins.
        sys.stderr.write(f"error: {printable(str(error))}\n")
        sys.exit(_WRONG_USE)
    if environment.web_ui is not None:
        locust_page.add(environment, test, is_attached=bool(given.broker_url))
    hooks = environment.events
    hooks.test_start.add_listener(lambda **_: test.start())
    hooks.spawning_complete.add_listener(lambda **_: test.spawned())
    hooks.test_stopping.add_listener(lambda **_: test.freeze())
    hooks.test_stop.add_listener(lambda **_: test.close())
    hooks.quitting.add_listener(lambda **_: test.quit())
    hooks.quit.add_listener(lambda exit_code, **_: test.last_word.say(exit_code))
