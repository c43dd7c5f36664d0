"""Checks of the catalogue about beat. docs/catalogue.md lists all checks."""

import time
from pathlib import Path

import pytest

from harness.records.event import Kind
from harness.records.verdict import Fate, Verdict
from harness.running.timelapse import Lapse, execute, moment
from harness.stack.shared_parts import SharedParts
from harness.stack.stack import Stack
from harness.stack.stack_spec import StackSpec
from harness.wait import wait_until
from tests.docker.accounts import codes, met, said

BARE = ["--without-mingle", "--without-gossip"]
CHECKS = {"app": "checks", "app_folder": "tests/docker/apps"}
ONE = {**CHECKS, "options": ["--concurrency=1", *BARE]}
APPS = Path(__file__).parent / "apps"
pytestmark = [pytest.mark.docker, pytest.mark.catalogue]


@pytest.mark.stack(**ONE)
def test_a_truncated_schedule_file_costs_and_doubles_no_tick(stack: Stack) -> None:
    beat = stack.add_beat()
    wait_until(lambda: stack.ledger.ticks["pulse"] >= 2, what="it ticks", timeout_s=30)
    beat.stop()
    (schedule,) = (stack.folder.path / "beat").iterdir()
    schedule.write_bytes(schedule.read_bytes()[: schedule.stat().st_size // 2])
    before = stack.ledger.ticks["pulse"]
    beat.start()
    beat.wait_ready()
    wait_until(lambda: stack.ledger.ticks["pulse"] >= before + 3, what="it ticks again", timeout_s=30)
    beat.stop()
    assert "Removing corrupted schedule file" in beat.last_lines(60)
    audit = stack.settle()
    assert audit.verdict is Verdict.PASS, audit.text()
    (pulse,) = [ticks for ticks in audit.ticks if ticks.entry == "pulse"]
    assert pulse.sent == pulse.expected
    assert met(audit) == {Fate.OK: pulse.sent}


MINUTELY = {"app": "moments", "app_folder": "tests/docker/apps", "options": ["--concurrency=1", *BARE]}
UNTIL_MINUTE_S = 15.0
"""The time from the start of a beat to the next minute of its clock: enough for it to be ready and to end."""


@pytest.mark.stack(**MINUTELY)
def test_a_tick_between_two_beats_is_told_and_is_made_up_for_where_the_schedule_file_is_kept(stack: Stack) -> None:
    ahead_s = -(time.time() + UNTIL_MINUTE_S) % 60
    began_s = time.monotonic()
    beat = stack.add_beat(ahead_s=ahead_s)
    beat.stop()
    assert time.monotonic() - began_s < UNTIL_MINUTE_S, "the machine is too slow to stop a beat within a minute of it"
    wait_until(lambda: time.monotonic() - began_s > UNTIL_MINUTE_S + 2, what="the minute is over", timeout_s=60)
    # https://github.com/celery/celery/issues/7002: a beat with a file of its own knows nothing of the minute.
    other = stack.add_beat(ahead_s=ahead_s)
    wait_until(lambda: other.said(Kind.WOKE), what="it has looked at its schedule", timeout_s=20)
    other.stop()
    assert said(stack.settle(), "ticks-skipped").startswith("minutely: ")
    assert stack.ledger.ticks["minutely"] == 0
    # https://github.com/celery/celery/issues/4806
    beat.start()
    wait_until(lambda: stack.ledger.ticks["minutely"], what="it makes up for the tick", timeout_s=20)
    beat.stop()
    audit = stack.settle()
    assert audit.verdict is Verdict.PASS, audit.text()
    assert met(audit) == {Fate.OK: 1}
    assert "ticks-skipped" not in codes(audit)


@pytest.fixture
def session(_harness_session: SharedParts) -> SharedParts:
    return _harness_session


def test_in_the_hour_that_does_not_come_celery_sends_a_tick_too_late(session: SharedParts, tmp_path: Path) -> None:
    # https://github.com/celery/celery/issues/10322: half past two is no time of this day; half past three is taken.
    span = {"begin": moment("2027-03-28T01:20"), "end": moment("2027-03-28T03:40")}
    stack = StackSpec(app="ticking", app_folder=APPS, workers=0)
    plan = Lapse(stack=stack, root=tmp_path, tz="Europe/Berlin", speed=1800, **span)
    _, audited = execute(session, plan)
    found = {finding.code: finding.text for finding in audited.findings if finding.verdict is Verdict.FAIL}
    assert set(found) == {"tick-late"}, audited.text()
    assert found["tick-late"].startswith("nightly: 2027-03-28T03:00+02:00")
    sent = {ticks.entry: (ticks.expected, ticks.sent) for ticks in audited.ticks}
    assert sent["nightly"] == (1, 1)
    assert sent["hourly"] == (1, 1)
