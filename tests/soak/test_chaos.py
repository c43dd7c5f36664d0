"""Chaos from fifty seeds: settings that promise nothing they cannot keep pass each time, and unsafe ones are caught."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from harness import Drive, Verdict
from harness.audit.audit import Audit
from harness.commands.run_chaos import drawn, with_faults
from harness.records.values import Json
from harness.running.run import Plan, execute
from harness.running.shrink import shrink
from harness.stack.shared_parts import SharedParts
from harness.stack.stack import StackSpec
from scenarios.emails.scenario import scenario as emails

pytestmark = pytest.mark.docker
SEEDS = 50
LEAST_CAUGHT = 48
COUNT = 60
EARLY: Mapping[str, Json] = {"task_annotations": {"scenarios.emails.send_receipt": {"acks_late": False}}}
"""Celery's default, from outside: a worker that dies takes its tasks along."""
# The mail of a worker that dies is claimed for 20 s otherwise.
ENV = {"EMAILS_SOFT_TIME_LIMIT_S": "8", "EMAILS_HARD_TIME_LIMIT_S": "9"}


@pytest.fixture
def session(_harness_session: SharedParts) -> SharedParts:
    return _harness_session


def planned(root: Path, seed: int, settings: Mapping[str, Json]) -> Plan:
    spec = StackSpec(app=emails.app, env={**emails.env, **ENV}, mailbox=True, workers=2, settings=settings)
    found = drawn(seed, spec, COUNT)
    plan = Plan(
        scenario=emails, drive=Drive(count=COUNT, seed=seed), stack=spec, faults=(), over_s=found.over_s, root=root
    )
    return with_faults(plan, spec, found.planned)


def ran(session: SharedParts, plan: Plan) -> Audit:
    _, audit = execute(session, plan)
    return audit


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_safe_app_passes(session: SharedParts, tmp_path: Path, seed: int) -> None:
    audit = ran(session, planned(tmp_path, seed, {}))
    assert audit.verdict is Verdict.PASS, audit.text()


def test_an_unsafe_setting_is_caught(session: SharedParts, tmp_path: Path) -> None:
    verdicts = [ran(session, planned(tmp_path, seed, EARLY)).verdict for seed in range(SEEDS)]
    assert verdicts.count(Verdict.FAIL) >= LEAST_CAUGHT, verdicts


def test_a_seed_that_fails_fails_again_and_shrinks(session: SharedParts, tmp_path: Path) -> None:
    plan = planned(tmp_path, 7, EARLY)
    assert [ran(session, plan).verdict for _ in range(10)] == [Verdict.FAIL] * 10
    spec = replace(plan.stack, own_broker=False, link=False)
    least = shrink(plan.faults, lambda some: ran(session, with_faults(plan, spec, some)).verdict is Verdict.FAIL)
    assert least.planned is not None
    assert len(least.planned) in {1, 2}
