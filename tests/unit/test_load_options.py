"""The options of the load door: what contradicts itself is one sentence, before anything is started."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.evidence.records import Json

ROOT = Path(__file__).parents[2]
ATTACHED = ("--broker-url=amqp://host", "--results=sqlite://")

CHECKED = """
import json, sys
from harness import load
from harness.errors import UsageError
from locust.argument_parser import get_parser

def checked(given):
    options = get_parser(default_config_files=[]).parse_args(given)
    try:
        load._check(options)
    except UsageError as error:
        return str(error)
    load._fill(options)
    return {"celery_workers": options.celery_workers, "probe": options.probe}

print(json.dumps([checked(given) for given in json.loads(sys.argv[1])]))
"""


def checked(*cases: Sequence[str]) -> list[Json]:
    """What is said of each case; in a process of its own, for Locust patches the one that imports it."""
    command = [sys.executable, "-c", CHECKED, json.dumps(cases)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    said: list[Json] = json.loads(done.stdout)
    return said


def test_what_contradicts_itself_or_would_be_ignored_is_said_in_one_sentence() -> None:
    own = "--celery-workers, --worker-option and --app are for a stack of one's own: leave --broker-url or them out."
    cases = {
        ("--results=sqlite://",): "give --broker-url as well",
        ("--broker-url=amqp://host",): "say with --results where theirs are",
        (*ATTACHED, "--via=http"): "--via http needs a web producer",
        (*ATTACHED, "--celery-workers=1"): own,
        (*ATTACHED, "--celery-workers=0"): own,
        (*ATTACHED, "--worker-option=--pool=solo"): own,
        (*ATTACHED, "--app=shop.app"): own,
        ("--find-knee", "--find-workers"): "two searches",
        ("--find-knee", "--closed"): "a search tries rates of its own",
        ("--find-workers", "--fault=noop@1s"): "a search tries rates of its own",
        ("--find-knee", *ATTACHED): "a search needs a stack of its own",
        ("--find-knee", "--headless", "-t", "3s"): "leave -t out",
        ("--find-knee", "--rate=0"): "a search begins at --rate",
        ("--find-workers", "--celery-workers=4"): "leave --celery-workers out",
        ("--probe=5s",): "--probe is how long a search tries each rate",
        ("--find-knee", "--probe=0s"): "--probe 0s would measure nothing",
        ("--closed", "--stages=1:1s"): "--stages says when arrivals are due",
    }
    for given, (words, said) in zip(cases, zip(cases.values(), checked(*cases), strict=True), strict=True):
        assert isinstance(said, str), given
        assert words in said, given
        assert "\n" not in said


def test_what_goes_together_is_let_through_and_has_its_defaults() -> None:
    cases = {
        (): (1, "10s"),
        ("--rate=0",): (1, "10s"),
        ("--celery-workers=0", "--worker-option=--pool=solo", "--app=shop.app"): (0, "10s"),
        (*ATTACHED, "--app-dir=shop", "--drain-timeout=5s"): (1, "10s"),
        ("--find-knee", "--celery-workers=2", "--app-dir=shop", "--app=shop.app", "--probe=5s"): (2, "5s"),
        ("--find-workers", "--worker-option=--pool=solo", "--probe=2s"): (1, "2s"),
        ("--closed",): (1, "10s"),
        ("--stages=1:1s", "--fault=noop@1s"): (1, "10s"),
    }
    found = [(said["celery_workers"], said["probe"]) for said in checked(*cases)]
    assert found == list(cases.values())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--fault", "kill-worker"], "'kill-worker' says no time; write FAULT@WHEN"),
        (["--fault", "kill-worker@soon"], "'soon' is no duration"),
        (["--fault", "noop@1s", "--fault", "kill@1s"], "there is no fault 'kill'"),
        (["--fault", "noop@1s", *ATTACHED], "faults are for a stack of one's own"),
        (["--objective", "e2e:p98<1s"], "'p98' in 'e2e:p98<1s' is no figure of a stage"),
        (["--objective", "end:p99<1s"], "'end' in 'end:p99<1s' is no stage"),
        (["--probe", "5s"], "--probe is how long a search tries each rate"),
        ([*ATTACHED, "--celery-workers", "1"], "are for a stack of one's own"),
        # The control: with all of it right, the command looks for the engine, which is not there.
        (["--fault", "noop@1s", "--objective", "e2e:p99<1s"], "No container engine answers"),
    ],
)
def test_a_wrong_use_ends_the_command_with_2_and_nothing_is_started(
    options: list[str], reason: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "locust", "-f", "tests/docker/apps/loadfile.py", "Echoes", "--headless"]
    done = subprocess.run(
        [*command, "--runs", str(tmp_path / "runs"), *options],
        env={**os.environ, "DOCKER_HOST": "tcp://127.0.0.1:9"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 2, done.stdout
    assert [reason in line for line in done.stdout.splitlines()].count(True) == 1, done.stdout
    assert "Traceback" not in done.stdout
    assert not (tmp_path / "runs").exists()
