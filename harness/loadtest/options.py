"""The options of a load test, and the check for options that contradict one another."""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from harness.audit.run_folder import RUNS
from harness.errors import UsageError
from harness.loadtest.arrivals import Arrival, parse_rate, parse_stages
from harness.measure.durations import parse_duration_s
from harness.measure.figures import Objective

SENDERS = 64
"""The default number of senders. Each waits for the confirm of its own task. With fewer, arrivals are dropped at a
lower rate; more take more memory and processor time of the load process."""
CELERY_WORKERS = 1
"""The default number of Celery workers: the smallest stack that runs tasks."""
PROBE = "10s"
"""The default length of a search's probe. A shorter probe detects only a larger excess of the load (see `overload`); a
longer one makes the search longer."""

_Rule = tuple[object, str]
"""A contradiction and its error: if the first is true, the second is raised."""


def _text_of(parse: Callable[[str], object]) -> Callable[[str], str]:
    """Return an option type that checks a value by `parse`, and returns the text unchanged."""

    def check(text: str) -> str:
        try:
            parse(text)
        except UsageError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
        return text

    return check


def add(parser: argparse.ArgumentParser) -> None:
    """Add the harness's options to Locust's, and set some of its defaults."""
    # By default, Locust's page and its master listen on all interfaces. The master gives its workers the broker's URL
    # with the login. The other defaults of Locust are one user, and its whole table every two seconds.
    parser.set_defaults(web_host="127.0.0.1", master_bind_host="127.0.0.1")
    parser.set_defaults(num_users=SENDERS, spawn_rate=SENDERS, only_summary=True)
    group = parser.add_argument_group("celery harness: the load")

    def shown(*names: str, **about: Any) -> None:
        """Add an option that the form of Locust's page shows, too."""
        vars(group.add_argument(*names, **about))["include_in_web_ui"] = True

    put = group.add_argument
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
    put("--objective", action="append", type=_text_of(Objective.parse), default=[], help=objective)
    fault = "What to break, and when, such as kill-worker@20s or kill-worker@20s+10s; repeatable."
    put("--fault", action="append", default=[], help=fault)
    put("--find-knee", action="store_true", help="Find the highest rate that is sustained, and what bounds it.")
    find = "Find how many workers sustain --rate."
    put("--find-workers", action="store_true", help=find)
    put("--probe", type=duration, default=None, help=f"How long each rate is tried in a search; default: {PROBE}.")
    group = parser.add_argument_group("celery harness: the stack")
    put = group.add_argument
    workers = f"How many Celery workers to start; default: the settings', or {CELERY_WORKERS}."
    put("--celery-workers", type=int, default=None, help=workers)
    option = "An option of `celery worker`, instead of the harness's own; repeatable."
    put("--worker-option", action="append", default=[], help=option)
    put("--app", default="", help="Another Celery app than the scenarios', as `celery -A` takes it.")
    place = "The folder that app and scenarios are imported from; default: the settings', or here."
    put("--app-dir", default="", help=place)
    put("--runs", default=str(RUNS), help="Where the run folder is made.")
    junit = "Write the checks of the run as JUnit XML, for CI systems."
    put("--junit", default="", metavar="FILE", help=junit)
    patience = "Seconds without any task ending after which draining ends."
    put("--drain-timeout", type=duration, default="60s", help=patience)
    attach = "Attach to a broker that runs elsewhere, with its workers, instead of starting a stack."
    put("--broker-url", default="", help=attach)
    results = "With --broker-url: the results, as Celery's result_backend or any SQLAlchemy URL."
    put("--results", default="", help=results)


def check(options: argparse.Namespace) -> None:
    """Check the options. Raises UsageError if they contradict one another, or if one of them has no effect."""
    rules = (*_attached_rules(options), *_search_rules(options), *_probe_rules(options), *_load_rules(options))
    for is_wrong, text in rules:
        if is_wrong:
            raise UsageError(text)


def _is_search(options: argparse.Namespace) -> bool:
    return bool(options.find_knee or options.find_workers)


def _attached_rules(options: argparse.Namespace) -> Sequence[_Rule]:
    """Return the rules for a broker and workers that run elsewhere."""
    is_attached = bool(options.broker_url)
    what_to_start = options.celery_workers is not None or options.worker_option or options.app
    return (
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
    )


def _search_rules(options: argparse.Namespace) -> Sequence[_Rule]:
    """Return the rules for a search, which makes the load and chooses the rates or the workers itself."""
    is_search = _is_search(options)
    return (
        (
            options.find_knee and options.find_workers,
            "--find-knee and --find-workers are two searches: give one of them.",
        ),
        (
            is_search and (options.closed or options.stages or options.fault),
            "a search tries rates of its own, in an open loop: leave --closed, --stages and --fault out.",
        ),
        (
            is_search and options.broker_url,
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
    )


def _probe_rules(options: argparse.Namespace) -> Sequence[_Rule]:
    """Return the rules for the length of a search's probes."""
    return (
        (
            options.probe is not None and not _is_search(options),
            "--probe is how long a search tries each rate: give --find-knee or --find-workers as well.",
        ),
        (
            options.probe is not None and not parse_duration_s(options.probe),
            "--probe 0s would measure nothing: give a duration such as 10s.",
        ),
    )


def _load_rules(options: argparse.Namespace) -> Sequence[_Rule]:
    """Return the rules for the senders and the arrivals."""
    return (
        (
            options.num_users is not None and options.num_users < 1,
            "-u is how many senders there are, and without one nothing is sent: give 1 or more.",
        ),
        (
            options.closed and options.stages,
            "--stages says when arrivals are due, which --closed does without: give one of them.",
        ),
    )


def celery_workers(options: argparse.Namespace) -> int | None:
    """Return the number of Celery workers to start; None if the options do not say it.

    A search for the number of workers begins with the smallest, whatever the settings say.
    """
    return CELERY_WORKERS if options.find_workers else options.celery_workers


def probe_s(options: argparse.Namespace) -> float:
    """Return how long a search tries each rate, in seconds."""
    return parse_duration_s(options.probe or PROBE)
