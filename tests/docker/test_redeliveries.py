"""Tasks that run more than once, or in several workers: each execution is waited for, and each is accounted for."""

import re

import pytest

from harness.producer import Sent
from harness.records.expectation import Expect
from harness.records.verdict import Fate, Verdict
from harness.stack.stack import Stack
from harness.wait import wait_until
from tests.docker.accounts import codes, failing, met, said, settled

APP = {"app": "endings", "app_folder": "tests/docker/apps"}
PREFORK = {**APP, "options": ["--concurrency=1", "--without-mingle", "--without-gossip"]}
THREADS = {**APP, "options": ["--pool=threads", "--concurrency=2", "--without-mingle", "--without-gossip"]}
BOTH = {**PREFORK, "workers": 2}
pytestmark = pytest.mark.docker

SECOND_S = 1.5
"""How long the second execution takes: whoever does not wait for it, does not see its effect."""


def check_second_runs(stack: Stack) -> None:
    """Send tasks that run again after they have succeeded; only one of them has an effect too many."""
    expect = Expect(effects=["fine"])
    fine = stack.producer.send("swallow", kwargs={"key": "fine", "pause_s": 0, "effects": 0}, expect=expect)
    expect = Expect(effects=["twice"])
    stack.producer.send("swallow", kwargs={"key": "twice", "pause_s": SECOND_S, "effects": 1}, expect=expect)
    expect = Expect(effects=["resent"])
    stack.producer.send("resend", kwargs={"key": "resent", "pause_s": SECOND_S}, expect=expect)
    audit = stack.settle()
    assert met(audit) == {Fate.OK: 1, Fate.DUPLICATED: 2}, audit.text()
    assert failing(audit) == {"duplicated"}
    assert 'its effect "twice" came 2 times' in said(audit, "duplicated")
    assert 'its effect "resent" came 2 times' in said(audit, "duplicated")
    assert fine.task not in said(audit, "duplicated")
    assert settled(stack)["how"] == "rest"


@pytest.mark.stack(**PREFORK)
def test_a_second_run_of_a_task_that_has_ended_is_waited_for(stack: Stack) -> None:
    check_second_runs(stack)


@pytest.mark.stack(**THREADS)
def test_a_second_run_in_a_thread_is_waited_for(stack: Stack) -> None:
    check_second_runs(stack)


def wait_ends(stack: Stack, sent: Sent, starts: int) -> None:
    wait_until(
        lambda: stack.ledger.starts(sent.task) == starts and not list(stack.ledger.running()),
        what=f"{sent.task} ran {starts} times",
        timeout_s=20,
    )


@pytest.mark.stack(**PREFORK)
def test_a_run_that_failed_after_a_success_is_told_and_one_that_succeeded_is_not(stack: Stack) -> None:
    for fails in (True, False):
        sent = stack.producer.send("moody", kwargs={"fails": fails})
        wait_ends(stack, sent, 1)
        # The second message is to the worker what a redelivery is.
        stack.producer.send("moody", kwargs={"fails": fails}, task_id=sent.task)
        wait_ends(stack, sent, 2)
    audit = stack.settle()
    assert audit.verdict is Verdict.PASS, audit.text()
    assert met(audit) == {Fate.OK: 2}
    assert codes(audit) == {"failed-run", "ran-again"}
    assert said(audit, "failed-run").startswith("1 moody")
    assert "RuntimeError: the second run failed" in said(audit, "failed-run")


@pytest.mark.stack(**BOTH)
def test_all_workers_that_a_message_went_to_are_waited_for_and_one_that_failed_is_found(stack: Stack) -> None:
    stack.producer.send("announce", kwargs={"pause_s": SECOND_S, "fails": False})
    stack.producer.send("announce", kwargs={"pause_s": 0, "fails": False})
    audit = stack.settle()
    assert audit.verdict is Verdict.PASS, audit.text()
    assert met(audit) == {Fate.OK: 4}
    assert settled(stack)["waited_s"] >= SECOND_S - 0.5
    assert settled(stack)["how"] == "rest"
    stack.producer.send("announce", kwargs={"pause_s": SECOND_S, "fails": True})
    audit = stack.settle()
    assert failing(audit) == {"failed-on-one-worker"}, audit.text()
    text = said(audit, "failed-on-one-worker")
    assert "worker-1 SUCCESS" in text
    assert "worker-2 FAILURE (RuntimeError: cannot reload)" in text


@pytest.mark.stack(**PREFORK)
def test_a_task_that_is_killed_and_delivered_again_for_ever_is_left_after_its_end(stack: Stack) -> None:
    expect = Expect(state="FAILURE", error="TimeLimitExceeded")
    endless = stack.producer.send("limited", kwargs={"key": "x", "how": "", "times": 99}, expect=expect)
    audit = stack.settle(timeout_s=5)
    assert "left-after-end" in failing(audit), audit.text()
    assert "broker-unread" not in failing(audit)
    assert endless.task in said(audit, "left-after-end")
    assert re.search(r"began [2-9] times", said(audit, "left-after-end"))


@pytest.mark.stack(**PREFORK)
def test_a_message_that_is_put_back_for_ever_is_pending_and_one_that_is_taken_in_the_end_is_not(stack: Stack) -> None:
    stack.producer.send("requeue", kwargs={"times": 3}, expect=Expect(result="done"))
    audit = stack.settle()
    assert audit.verdict is Verdict.PASS, audit.text()
    assert met(audit) == {Fate.OK: 1}
    endless = stack.producer.send("requeue", kwargs={"times": 9_999})
    audit = stack.settle(timeout_s=2)
    assert met(audit) == {Fate.OK: 1, Fate.PENDING: 1}, audit.text()
    assert failing(audit) == {"pending"}
    # It was with a consumer or in a worker when the time was out.
    (pending,) = (finding for finding in audit.findings if finding.code == "pending")
    assert pending.tasks == (endless.task,)
    assert settled(stack)["how"] == "timeout"
