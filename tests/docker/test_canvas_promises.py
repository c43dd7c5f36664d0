"""What a canvas promises: every shape of it that comes to be passes, and what never came is found."""

from collections.abc import Iterable
from functools import partial

import pytest

from harness.audit.audit import Audit
from harness.records.moment import Moment
from harness.records.verdict import Fate, Finding, Verdict
from harness.stack.stack import Stack
from harness.wait import wait_until
from tests.docker.accounts import codes, failing, met, said, settled
from tests.docker.apps import shapes

APP = {
    "app": "shapes",
    "app_folder": "tests/docker/apps",
    "options": ["--concurrency=2", "--queues=celery,other", "--without-mingle", "--without-gossip"],
}
pytestmark = pytest.mark.docker


def run(stack: Stack, names: Iterable[str]) -> Audit:
    for shape in names:
        stack.producer.send("start", [shape])
    return stack.settle()


def only(audit: Audit, code: str) -> Finding:
    (finding,) = [finding for finding in audit.findings if finding.code == code]
    return finding


def has_ended(stack: Stack, task: str) -> bool:
    return stack.ledger.has_ended(task)


def check_whole(stack: Stack) -> None:
    audit = run(stack, shapes.WHOLE)
    assert audit.verdict is Verdict.PASS, audit.text()
    assert met(audit) == {Fate.OK: audit.entries}
    assert audit.entries > 3 * len(shapes.WHOLE)
    # Celery itself sends some members of nested groups twice.
    assert codes(audit) <= {"ran-again"}
    assert settled(stack)["how"] == "rest"


@pytest.mark.stack(**APP)
def test_a_canvas_of_any_shape_that_comes_to_be_passes(stack: Stack) -> None:
    check_whole(stack)


@pytest.mark.stack(**APP)
def test_what_begins_before_a_task_that_it_follows_has_ended_is_found(stack: Stack) -> None:
    for shape, early in (("early step", "e-step"), ("early body", "e-body")):
        hold = stack.hold("held", Moment.STARTED)
        stack.producer.send("start", [shape])
        hold.wait()
        wait_until(partial(has_ended, stack, early), what=f"{early} ended", timeout_s=30)
        hold.let_go()
    audit = stack.settle()
    assert failing(audit) == {"out-of-order"}, audit.text()
    assert set(only(audit, "out-of-order").tasks) == {"e-step", "e-body"}
    assert "two (e-step), a step of a chain, began before held (" in said(audit, "out-of-order")


@pytest.mark.stack(**APP, env={"PROTOCOL": "1"})
def test_a_canvas_in_the_old_protocol_passes(stack: Stack) -> None:
    check_whole(stack)


@pytest.mark.stack(**APP)
def test_of_a_canvas_in_which_something_fails_the_failures_alone_are_told(stack: Stack) -> None:
    audit = run(stack, shapes.FAILS)
    assert failing(audit) == {"failed-unexpectedly"}, audit.text()
    assert set(met(audit)) == {Fate.OK, Fate.FAILED}
    # One each, and in some the body fails with its header.
    assert audit.fates[Fate.FAILED] >= len(shapes.FAILS)


@pytest.mark.stack(**APP)
def test_what_was_to_follow_a_task_that_ended_and_nobody_sent_is_found(stack: Stack) -> None:
    audit = run(stack, [*shapes.BROKEN_CHAINS, "chain", "two links", "both errbacks"])
    assert failing(audit) == {"failed-unexpectedly", "never-sent"}, audit.text()
    finding = only(audit, "never-sent")
    assert set(finding.tasks) == {
        *("p-step", "p-steps", "p-group", "p-chord", "p-link", "p-links", "p-errback", "p-unsent", "p-unsent-link")
    }
    # Of each what it promised: 1, 2, 2, 3 in chains, 1 and 2 links, an errback, 2 in a chain, and one of two links.
    assert finding.count == 15, finding.text
    assert settled(stack)["how"] == "rest"


@pytest.mark.stack(**APP)
def test_a_chord_whose_body_never_comes_is_found_at_once_with_what_it_waits_for(stack: Stack) -> None:
    audit = run(stack, [*shapes.BROKEN_CHORDS, "chord", "chord whose member retries"])
    wrong = {"pending", "failed-unexpectedly", "never-sent", "chords-half-sent", "chords-hopeless"}
    assert failing(audit) == wrong, audit.text()
    assert set(only(audit, "chords-half-sent").tasks) == {"b-half", "b-group", "b-chain"}
    assert set(only(audit, "chords-hopeless").tasks) == {"b-quiet", "b-ignore", "b-unsent"}
    assert "two (b-quiet) waits for" in said(audit, "chords-hopeless")
    assert "celery.chord_unlock" in said(audit, "chords-hopeless")
    # Whoever waits for members that leave no results waits for ever.
    assert audit.fates[Fate.PENDING] == 5
    assert settled(stack)["how"] == "stuck"
    assert settled(stack)["waited_s"] < 15


@pytest.mark.stack(**APP)
def test_a_chord_that_waits_for_a_member_that_nobody_takes_is_not_known_to_be_broken(stack: Stack) -> None:
    audit = run(stack, shapes.WAITING)
    assert failing(audit) == {"pending", "chords-waiting"}, audit.text()
    assert set(only(audit, "chords-waiting").tasks) == {"b-waiting"}
    assert audit.fates[Fate.PENDING] == 2
    assert "`nobody`" in said(audit, "pending")
    assert settled(stack)["how"] == "stuck"
    assert settled(stack)["waited_s"] < 6
