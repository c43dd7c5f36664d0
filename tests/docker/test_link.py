"""The faults of connections, in a real stack: each lands, is healed, and the audit says what became of the tasks."""

import pytest

from harness.audit.audit import Audit
from harness.errors import UsageError
from harness.faults import Bandwidth, DropConfirms, Fault, HalfOpen, HoldAcks, Latency, Reset
from harness.producer import Sent
from harness.records.event import Kind
from harness.records.expectation import Expect
from harness.records.link import Way
from harness.records.moment import Moment
from harness.records.verdict import Fate, Verdict
from harness.stack.stack import Stack
from harness.wait import wait_until
from tests.docker.accounts import met, said

APP = {
    "app": "linked",
    "app_folder": "tests/docker/apps",
    "options": ["--concurrency=1", "--without-gossip", "--without-mingle"],
}
pytestmark = [pytest.mark.docker, pytest.mark.catalogue, pytest.mark.stack(**APP, link=True)]


def send(stack: Stack, key: str) -> Sent:
    return stack.producer.send("linked.act", [key], expect=Expect(result=key))


def wait_ended(stack: Stack, *sent: Sent) -> None:
    wait_until(lambda: all(stack.ledger.has_ended(one.task) for one in sent), what="the tasks end", timeout_s=30)


def wait_starts(stack: Stack, sent: Sent, count: int) -> None:
    wait_until(
        lambda: stack.ledger.starts(sent.task) == count,
        what=f"{count} executions",
        timeout_s=30,
        last_seen=lambda: str(stack.ledger.starts(sent.task)),
    )


def said_of(audit: Audit, fault: Fault) -> str:
    """Return what the audit says of a fault that landed."""
    (text,) = [one.text for one in audit.findings if one.code == "fault" and one.text.startswith(f"{fault.name}:")]
    return text


def test_a_producer_behind_a_bad_line_loses_no_task(stack: Stack) -> None:
    with stack.inject(Latency("producer", seconds=0.2)) as latency:
        late = send(stack, "late")
    with stack.inject(Bandwidth("producer", bytes_per_s=4_000)) as bandwidth:
        slow = send(stack, "slow")
    with stack.inject(DropConfirms("producer")) as dropping:
        unsure = send(stack, "unsure")
    sure = send(stack, "sure")
    audit = stack.settle(timeout_s=20)
    assert [one.outcome for one in (late, slow, unsure, sure)] == [
        Kind.ACCEPTED,
        Kind.ACCEPTED,
        Kind.UNKNOWN,
        Kind.ACCEPTED,
    ]
    assert (latency.tasks, bandwidth.tasks, dropping.tasks) == ((late.task,), (slow.task,), (unsure.task,))
    assert dropping.report().frames == 1
    assert met(audit) == {Fate.OK: 3, Fate.RECOVERED: 1}, audit.text()
    for fault in (latency, bandwidth, dropping):
        assert "it met 1 task" in said_of(audit, fault)


def test_a_short_cut_heals_unseen_and_a_reset_costs_nothing_that_was_acknowledged(stack: Stack) -> None:
    with stack.hold("linked.act", Moment.STARTED) as hold:
        sent = send(stack, "cut")
        hold.wait()
        with stack.inject(HalfOpen("worker")) as cut:
            hold.let_go()
            wait_ended(stack, sent)
            wait_until(lambda: cut.report().byte_count > 0, what="its acknowledgement is kept back", timeout_s=20)
    wait_until(lambda: not any(one.unacked for one in stack.task_queues()), what="it arrives", timeout_s=20)
    with stack.inject(Reset("worker")) as reset:
        after = send(stack, "after")
    wait_ended(stack, after)
    audit = stack.settle(timeout_s=20)
    assert audit.verdict is Verdict.PASS, audit.text()
    assert (cut.tasks, reset.tasks) == ((sent.task,), ())
    assert (stack.ledger.starts(sent.task), stack.ledger.starts(after.task)) == (1, 1)


def test_an_acknowledgement_that_never_arrives_runs_the_task_again(stack: Stack) -> None:
    with stack.inject(HoldAcks("worker")) as holding:
        sent = send(stack, "again")
        wait_until(lambda: holding.report().frames == 1, what="its acknowledgement is held", timeout_s=20)
        assert sum(one.unacked for one in stack.task_queues()) == 1
        with stack.inject(Reset("worker")) as reset:
            wait_starts(stack, sent, 2)
    audit = stack.settle(timeout_s=20)
    assert (holding.tasks, reset.tasks) == ((sent.task,), (sent.task,))
    assert "1 of them until their connection or channel ended" in said_of(audit, holding)
    assert "delivered again: 1" in said_of(audit, reset)
    assert met(audit) == {Fate.OK: 1}, audit.text()


@pytest.mark.stack(**APP, link=True, env={"HEARTBEAT_S": "2"})
def test_a_cut_longer_than_the_heartbeat_is_noticed_at_both_ends(stack: Stack) -> None:
    with stack.inject(HalfOpen("worker")) as cut:
        sent = send(stack, "cut")
        # The worker connects anew, and gets no answer. The broker has it no more.
        known = cut.report().connections
        wait_until(lambda: cut.report().connections > known, what="the worker notices", timeout_s=30)
        wait_until(
            lambda: stack.look(["celery"])["celery"].consumers == 0, what="the broker gives the worker up", timeout_s=30
        )
    wait_ended(stack, sent)
    audit = stack.settle(timeout_s=20)
    assert audit.verdict is Verdict.PASS, audit.text()
    assert cut.tasks == (sent.task,)


@pytest.mark.stack(**APP, link=True, env={"CONTROL": "exclusive"})
def test_a_worker_that_knows_of_a_reset_before_the_broker_does_ends_with_celerys_defaults(stack: Stack) -> None:
    with stack.inject(Reset("worker", way=Way.TO_CLIENT)) as reset:
        send(stack, "alone")
        wait_until(lambda: not stack.workers[0].is_up(), what="the worker ends", timeout_s=30)
    assert "RESOURCE_LOCKED" in stack.workers[0].last_lines(40)
    audit = stack.settle(timeout_s=20)
    assert met(audit) == {Fate.PENDING: 1}, audit.text()
    assert "no worker runs" in said(audit, "pending")
    assert "were reset" in said_of(audit, reset)


def test_a_worker_whose_control_queue_is_not_exclusive_survives_it(stack: Stack) -> None:
    with stack.inject(Reset("worker", way=Way.TO_CLIENT)) as reset:
        wait_until(
            lambda: stack.look(["celery"])["celery"].consumers == 2, what="the worker consumes again", timeout_s=30
        )
        # The broker may give it to the connection that is no more.
        sent = send(stack, "served")
    wait_ended(stack, sent)
    audit = stack.settle(timeout_s=20)
    assert audit.verdict is Verdict.PASS, audit.text()
    assert "were reset" in said_of(audit, reset)


@pytest.mark.stack(**APP)
def test_a_stack_without_a_link_says_how_to_ask_for_one(stack: Stack) -> None:
    with pytest.raises(UsageError, match=r"no link to disturb; ask for one with @pytest\.mark\.stack\(link=True\)"):
        stack.inject(Latency("worker"))
