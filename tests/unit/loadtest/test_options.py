"""The options of the load door: what contradicts itself is one sentence, before anything is started."""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.loadtest import options

ROOT = Path(__file__).parents[3]
ATTACHED = ("--broker-url=amqp://host", "--results=sqlite://")


def parsed(given: Sequence[str]) -> argparse.Namespace:
    """Parse a command line without Locust's own parser, which patches the process that imports it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--headless", action="store_true")
    parser.add_argument("-t", "--run-time")
    options.add(parser)
    return parser.parse_args(given)


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
    for given, words in cases.items():
        with pytest.raises(UsageError) as wrong:
            options.check(parsed(given))
        assert words in str(wrong.value), given
        assert "\n" not in str(wrong.value)


def test_what_goes_together_is_let_through_and_has_its_defaults() -> None:
    cases = {
        (): (None, 10.0),
        ("--rate=0",): (None, 10.0),
        ("--celery-workers=0", "--worker-option=--pool=solo", "--app=shop.app"): (0, 10.0),
        (*ATTACHED, "--app-dir=shop", "--drain-timeout=5s"): (None, 10.0),
        ("--find-knee", "--celery-workers=2", "--app-dir=shop", "--app=shop.app", "--probe=5s"): (2, 5.0),
        ("--find-workers", "--worker-option=--pool=solo", "--probe=2s"): (1, 2.0),
        ("--closed",): (None, 10.0),
        ("--stages=1:1s", "--fault=noop@1s"): (None, 10.0),
    }
    for given, expected in cases.items():
        found = parsed(given)
        options.check(found)
        assert (options.celery_workers(found), options.probe_s(found)) == expected


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (["--fault", "kill-worker"], "'kill-worker' says no time; write FAULT@WHEN"),
        (["--fault", "kill-worker@soon"], "'soon' is neither a time nor a moment"),
        (["--fault", "noop@1s", "--fault", "fell@1s"], "there is no fault 'fell'"),
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
    given: list[str], reason: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "locust", "-f", "tests/docker/apps/loadfile.py", "Echoes", "--headless"]
    done = subprocess.run(
        [*command, "--runs", str(tmp_path / "runs"), *given],
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


def test_wrong_settings_end_the_command_with_2_and_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "harness.toml").write_text("optoins = []")
    done = subprocess.run(
        [sys.executable, "-m", "locust", "-f", str(ROOT / "tests/docker/apps/loadfile.py"), "Echoes", "--headless"],
        env={**os.environ, "DOCKER_HOST": "tcp://127.0.0.1:9", "PYTHONPATH": f"{ROOT}:{ROOT}/tests/docker/apps"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 2, done.stdout
    assert f"error: {tmp_path}/harness.toml: optoins is no setting. Did you mean options?\n" in done.stdout
    assert "Traceback" not in done.stdout
