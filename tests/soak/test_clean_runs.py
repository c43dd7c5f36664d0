"""Two hundred clean runs, of every scenario and of apps of the Docker tests: what is flaky in the harness shows here.

Nothing is broken on purpose, so each run has to pass: a finding that is not a remark is a false alarm.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from harness import Drive, Expect, Scenario, Verdict
from harness.audit.audit import Audit
from harness.running.run import play
from harness.stack.stack import Stack
from scenarios.bulk_data.scenario import scenario as bulk_data
from scenarios.emails.scenario import scenario as emails
from scenarios.schedules.scenario import scenario as schedules

pytestmark = pytest.mark.docker
APPS = "tests/docker/apps"
OPTIONS = ["--concurrency=2", "--without-mingle", "--without-gossip"]


def of_scenarios() -> Iterator[Any]:
    """Each scenario, its drive, and how it is started."""
    runs: list[tuple[Scenario, int, int, dict[str, Any]]] = [
        (emails, 60, 50, {}),
        (bulk_data, 30, 1, {"rows": 3_000}),
        (schedules, 10, 40, {}),
    ]
    for scenario, times, count, options in runs:
        for seed in range(times):
            marker = pytest.mark.stack(
                app=scenario.app,
                env=scenario.env,
                options=scenario.worker_options,
                promise=scenario.promise,
                workers=1 + seed % 2,
            )
            drive = Drive(count=count, seed=seed, options=options)
            yield pytest.param(scenario, drive, marks=marker, id=f"{scenario.name}-{seed}")


@pytest.mark.parametrize(("scenario", "drive"), list(of_scenarios()))
@pytest.mark.usefixtures("mailbox")
def test_a_scenario_that_nothing_disturbs_passes(stack: Stack, scenario: Scenario, drive: Drive) -> None:
    is_clean(play(scenario, stack, drive))


@pytest.mark.stack(app="faulty", app_folder=APPS, options=OPTIONS)
@pytest.mark.parametrize("number", range(60))
def test_an_app_whose_tasks_have_effects_and_send_others_passes(stack: Stack, number: int) -> None:
    act(stack, number)
    is_clean(stack.settle())


def act(stack: Stack, number: int) -> None:
    """Send twenty tasks that have effects, a chain and a chord."""
    for one in range(20):
        key = f"key-{number}-{one}"
        stack.producer.send("act", kwargs={"key": key}, expect=Expect(result="done", effects=[key]))
    for kind in ("chain", "chord"):
        stack.producer.send("canvas", kwargs={"kind": kind}, expect=Expect(result=kind))


@pytest.mark.stack(app="attached", app_folder=APPS, options=OPTIONS, workers=2)
@pytest.mark.parametrize("number", range(40))
def test_an_app_of_plain_tasks_passes(stack: Stack, number: int) -> None:
    double(stack, number)
    is_clean(stack.settle())


def double(stack: Stack, number: int) -> None:
    """Send a hundred tasks."""
    for one in range(100):
        given = number + one + 14
        stack.producer.send("attached.double", [given], expect=Expect(result=2 * given))


def is_clean(audit: Audit) -> None:
    assert audit.verdict is Verdict.PASS, audit.text()
