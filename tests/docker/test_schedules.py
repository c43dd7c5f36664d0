"""What goes wrong with schedules, and is found: two beats, a worker that cannot wait; and what does not: a restart."""

from pathlib import Path

import pytest

from harness import Expect, Verdict
from harness.audit.audit import Audit
from harness.containers.beat import Beat
from harness.faults import TwoBeats
from harness.records.event import Event, Kind
from harness.stack.stack import Stack
from harness.wait import wait_until

APPS = Path("tests/docker/apps")
pytestmark = pytest.mark.docker
every_two_seconds = pytest.mark.stack(app="scenarios.app", env={"SCHEDULES_INTERVAL_S": "2"})


def ticks_come(stack: Stack, entry: str, count: int) -> None:
    wait_until(lambda: stack.ledger.ticks[entry] >= count, what=f"{entry} ticked {count} times", timeout_s=30)


def stop_and_settle(stack: Stack) -> Audit:
    for beat in stack.beats:
        beat.stop()
    return stack.settle()


def codes(audit: Audit, verdict: Verdict) -> set[str]:
    return {finding.code for finding in audit.findings if finding.verdict is verdict}


@pytest.mark.stack(app="scenarios.app", env={"SCHEDULES_INTERVAL_S": "5"})
def test_a_beat_that_is_restarted_between_two_ticks_loses_and_doubles_none(stack: Stack) -> None:
    beat = stack.add_beat()
    ticks_come(stack, "check-stock", 1)
    beat.restart()
    beat.wait_ready()
    ticks_come(stack, "check-stock", 3)
    audit = stop_and_settle(stack)
    assert audit.verdict is Verdict.PASS, audit.text()
    (entry,) = [ticks for ticks in audit.ticks if ticks.entry == "check-stock"]
    assert entry.sent == stack.ledger.ticks["check-stock"]


@every_two_seconds
def test_two_beats_at_once_are_found_as_doubled_ticks(stack: Stack) -> None:
    stack.add_beat()

    def sent_by_twin() -> list[Event]:
        assert isinstance(fault.twin, Beat)
        return fault.twin.said(Kind.INTENDED)

    with stack.inject(TwoBeats()) as fault:
        wait_until(
            lambda: stack.ledger.ticks["check-stock"] >= 6 and len(sent_by_twin()) > 1, what="ticks", timeout_s=30
        )
    assert (fault.landed(), set(fault.tasks)) == (None, {line.task for line in sent_by_twin()})
    audit = stop_and_settle(stack)
    assert codes(audit, Verdict.FAIL) == {"tick-doubled"}, audit.text()


BEAT_INSIDE = ["--concurrency=1", "--without-gossip", "--without-mingle", "--loglevel=info", "--beat"]


@pytest.mark.stack(app="embedded", app_folder=APPS, options=BEAT_INSIDE)
def test_a_worker_with_a_beat_of_its_own_ticks_though_its_folder_is_read_only(stack: Stack) -> None:
    ticks_come(stack, "often", 3)
    audit = stack.settle()
    assert audit.verdict is Verdict.PASS, audit.text()
    (entry,) = [ticks for ticks in audit.ticks if ticks.entry == "often"]
    assert entry.sent >= 3


@pytest.mark.stack(app="embedded", app_folder=APPS, workers=2, options=BEAT_INSIDE)
def test_two_workers_with_a_beat_each_double_the_ticks(stack: Stack) -> None:
    ticks_come(stack, "often", 6)
    audit = stack.settle()
    assert codes(audit, Verdict.FAIL) == {"tick-doubled"}, audit.text()


@pytest.mark.stack(app="embedded:astray", app_folder=APPS, options=BEAT_INSIDE)
def test_a_workers_beat_that_cannot_keep_its_schedule_where_the_app_wants_it_is_found(stack: Stack) -> None:
    stack.producer.send("embedded.tick", expect=Expect(result=1))
    audit = stack.settle()
    assert codes(audit, Verdict.FAIL) == {"beat-died"}, audit.text()
    assert "Read-only file system" in audit.text() or "celerybeat-schedule" in audit.text()


@pytest.mark.stack(app="hasty", app_folder=APPS)
def test_a_task_that_begins_before_its_time_is_found(stack: Stack) -> None:
    hasty = stack.producer.send("hasty.remind", countdown_s=30, expect=Expect(result=None))
    audit = stack.settle()
    assert codes(audit, Verdict.FAIL) == {"early"}, audit.text()
    assert [finding.tasks for finding in audit.findings if finding.code == "early"] == [(hasty.task,)]
