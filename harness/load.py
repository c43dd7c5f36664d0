"""The load door: Locust drives scenario steps, in an open loop, against a real stack, and every task is accounted for.

A locustfile is three lines:

    from harness.load import Load
    from shop.scenarios import receipts

    class Receipts(Load):
        scenario = receipts.scenario

``locust -f FILE`` opens Locust's page on 127.0.0.1; a run that is started there brings a stack up, drives, drains,
audits and takes the stack down. ``--headless --rate 300 -t 60s`` does it in a pipeline. Exit codes: 0 pass; 1 a failed
audit, a missed objective, a task that is not accounted for; 2 wrong use or environment; 3 the run says nothing, because
the generator was not up to it or a witness is missing; 130 it was interrupted, and there is no account.

An arrival is due by a plan, whatever became of the ones before it (an open loop), and latencies are counted from
then: a stall of the system under test cannot hide by keeping the generator from asking. A dispatcher hands each
arrival to a sender, which is a Locust user; an arrival for which no sender was free is dropped, and counted.

This module is the door: the options, the class, and what Locust's events lead to. Behind it is `harness.loadtest`.
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from locust import User, constant, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from harness.errors import HarnessError, UsageError
from harness.evidence.durations import parse_duration_s
from harness.evidence.figures import Objective
from harness.loadtest import tab
from harness.loadtest.conduct import Conduct
from harness.loadtest.pace import Arrival, parse_rate, parse_stages
from harness.scenario import Scenario

_USERS = 64
_CELERY_WORKERS = 1
_PROBE = "10s"
_WRONG_USE = 2

# The `locust` command does not look for modules where it is started, as `python -m` does.
if (_here := str(Path.cwd())) not in sys.path:
    sys.path.insert(0, _here)


class Load(User):
    """A scenario under load. Subclass it in a locustfile, and say which; `weight` is its share of the arrivals."""

    abstract = True
    scenario: ClassVar[Scenario]
    options: ClassVar[Mapping[str, Any]] = {}
    """Values of the scenario's own options."""
    weight = 1.0
    wait_time = constant(0)

    @task
    def serve(self) -> None:
        """Send whatever is due, of any of the scenarios that take part."""
        self.environment.celery_harness.generator.serve()


def _text_of(parse: Callable[[str], object]) -> Callable[[str], str]:
    """Checks an option's value where the command line is read, and keeps it as it was written."""

    def check(text: str) -> str:
        try:
            parse(text)
        except UsageError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
        return text

    return check


@events.init_command_line_parser.add_listener
def _add_options(parser: LocustArgumentParser) -> None:
    # Locust's own defaults are every interface, for its page and for its workers, which are told where the broker is
    # and how to log in there; one user; and its whole table every two seconds.
    parser.set_defaults(web_host="127.0.0.1", master_bind_host="127.0.0.1")
    parser.set_defaults(num_users=_USERS, spawn_rate=_USERS, only_summary=True)
    group = parser.add_argument_group("celery harness: the load")

    def shown(*names: str, **about: Any) -> None:
        """An option that stands in the form of Locust's page, too."""
        group.add_argument(*names, **about).include_in_web_ui = True

    add = group.add_argument
    rate, stages, duration = _text_of(parse_rate), _text_of(parse_stages), _text_of(parse_duration_s)
    shown("--rate", type=rate, default="50", help="Arrivals per second (open loop).")
    shown("--stages", type=stages, default=None, help="Instead of --rate: rates one after another, as 100:30s,500:30s.")
    shown("--arrival", choices=list(Arrival), default="constant", help="How arrivals follow one another.")
    closed = "Closed loop: each user sends when its last send is done. Latencies then leave out what a stall held up."
    shown("--closed", action="store_true", help=closed)
    via = "Straight to the broker with confirms, or as HTTP requests to the web producer."
    shown("--via", choices=["broker", "http"], default="broker", help=via)
    shown("--seed", type=int, default=1, help="The same seed sends the same tasks.")
    objective = "What a stage has to hold, such as e2e:p99<500ms; repeatable."
    add("--objective", action="append", type=_text_of(Objective.parse), default=[], help=objective)
    fault = "What to break, and when, such as kill-worker@20s or kill-worker@20s+10s; repeatable."
    add("--fault", action="append", default=[], help=fault)
    add("--find-knee", action="store_true", help="Find the highest rate that is sustained, and what bounds it.")
    find = "Find how many workers sustain --rate."
    add("--find-workers", action="store_true", help=find)
    add("--probe", type=duration, default=None, help=f"How long each rate is tried in a search; default: {_PROBE}.")
    group = parser.add_argument_group("celery harness: the stack")
    add = group.add_argument
    workers = f"How many Celery workers to start; default: {_CELERY_WORKERS}."
    add("--celery-workers", type=int, default=None, help=workers)
    option = "An option of `celery worker`, instead of the harness's own; repeatable."
    add("--worker-option", action="append", default=[], help=option)
    add("--app", default="", help="Another Celery app than the scenarios', as `celery -A` takes it.")
    add("--app-dir", default="", help="The folder that app and scenarios are imported from; default: here.")
    add("--runs", default=str(Path(".harness") / "runs"), help="Where the run folder is made.")
    patience = "Seconds without any task ending after which draining ends."
    add("--drain-timeout", type=duration, default="60s", help=patience)
    attach = "Attach to a broker that runs elsewhere, with its workers, instead of starting a stack."
    add("--broker-url", default="", help=attach)
    results = "With --broker-url: the results, as Celery's result_backend or any SQLAlchemy URL."
    add("--results", default="", help=results)


def _check(options: argparse.Namespace) -> None:
    """Raises UsageError for options that contradict one another, and for those that nothing would heed."""
    is_search, is_attached = options.find_knee or options.find_workers, bool(options.broker_url)
    what_to_start = options.celery_workers is not None or options.worker_option or options.app
    for is_wrong, text in (
        (
            options.results and not is_attached,
            "--results is for a broker that runs elsewhere: give --broker-url as well.",
        ),
        (
            is_attached and not options.results,
            "--broker-url attaches to workers that run elsewhere: say with --results where theirs are.",
        ),
        (
            is_attached and options.via == "http",
            "--via http needs a web producer of one's own stack; leave --broker-url out.",
        ),
        (
            is_attached and what_to_start,
            "--celery-workers, --worker-option and --app are for a stack of one's own: leave --broker-url or them out.",
        ),
        (
            options.find_knee and options.find_workers,
            "--find-knee and --find-workers are two searches: give one of them.",
        ),
        (
            is_search and (options.closed or options.stages or options.fault),
            "a search tries rates of its own, in an open loop: leave --closed, --stages and --fault out.",
        ),
        (
            is_search and is_attached,
            "a search needs a stack of its own, whose workers keep a journal: leave --broker-url out.",
        ),
        (
            is_search and options.headless and options.run_time,
            "a search ends when it has found what it seeks: leave -t out; --probe bounds each of its legs.",
        ),
        (
            is_search and not parse_rate(options.rate),
            "a search begins at --rate: give it one above 0.",
        ),
        (
            options.find_workers and options.celery_workers is not None,
            "--find-workers finds how many workers it takes, from one upwards: leave --celery-workers out.",
        ),
        (
            options.probe is not None and not is_search,
            "--probe is how long a search tries each rate: give --find-knee or --find-workers as well.",
        ),
        (
            options.probe is not None and not parse_duration_s(options.probe),
            "--probe 0s would measure nothing: give a duration such as 10s.",
        ),
        (
            options.closed and options.stages,
            "--stages says when arrivals are due, which --closed does without: give one of them.",
        ),
    ):
        if is_wrong:
            raise UsageError(text)


def _fill(options: argparse.Namespace) -> None:
    """Gives the options a value that had to be left empty, so that `_check` could see whether somebody gave one."""
    options.celery_workers = _CELERY_WORKERS if options.celery_workers is None else options.celery_workers
    options.probe = options.probe or _PROBE


def _scenarios(environment: Environment) -> dict[str, type[Load]]:
    """The classes that take part, by name."""
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


@events.init.add_listener
def _on_init(environment: Environment, **_: Any) -> None:
    options = environment.parsed_options
    try:
        _check(options)
        _fill(options)
        test = environment.celery_harness = Conduct(environment, _scenarios(environment))
        test.prepare()
    except HarnessError as error:
        # What is wrong with the options has to end the command before it has begun.
        sys.stderr.write(f"error: {error}\n")
        sys.exit(_WRONG_USE)
    if environment.web_ui is not None:
        tab.add(environment, test, is_attached=bool(options.broker_url))
    hooks = environment.events
    hooks.test_start.add_listener(lambda **_: test.start())
    hooks.spawning_complete.add_listener(lambda **_: test.spawned())
    hooks.test_stopping.add_listener(lambda **_: test.freeze())
    hooks.test_stop.add_listener(lambda **_: test.close())
    hooks.quitting.add_listener(lambda **_: test.quit())
    hooks.quit.add_listener(lambda **_: test.report())
