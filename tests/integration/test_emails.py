"""Receipts by mail, end to end: sent, delivered once, recorded, and every task accounted for."""

from dataclasses import replace

import pytest

from harness import Drive, Expect, Fate, Verdict
from harness.audit.results import Results
from harness.containers.mailbox import Mailbox
from harness.running.run import play
from harness.stack.stack import Stack
from harness.wait import wait_until
from scenarios.emails.order import Order
from scenarios.emails.prediction import expected_result, make_order, message_id
from scenarios.emails.scenario import scenario

# Short limits, so that a slow server and a killed worker cost seconds.
LIMITS = {"EMAILS_SOFT_TIME_LIMIT_S": "2", "EMAILS_HARD_TIME_LIMIT_S": "4"}
STACK = {"app": scenario.app, "env": LIMITS, "promise": scenario.promise}
pytestmark = [pytest.mark.docker, pytest.mark.stack(**STACK)]
two_workers = pytest.mark.stack(**STACK, workers=2)
two_even_workers = pytest.mark.stack(**STACK | {"promise": replace(scenario.promise, fairness=0.9)}, workers=2)
SEED = 7


def order_of(number: int) -> Order:
    return make_order(number, SEED)


def send(stack: Stack, number: int, expect: Expect | None = None) -> str:
    order = order_of(number)
    fine = Expect(result=expected_result(order), effects=[f"mail:{message_id(order)}"])
    sent = stack.producer.send("scenarios.emails.send_receipt", kwargs={"order": order}, expect=expect or fine)
    assert sent.accepted
    return sent.task


def test_a_busy_mail_server_is_tried_until_it_takes_it(stack: Stack, mailbox: Mailbox) -> None:
    mailbox.answer(order_of(0)["customer"]["email"], "451 4.3.0 try again later", times=2)
    task = send(stack, 0)
    send(stack, 1)
    audit = stack.settle()
    assert audit.verdict is Verdict.PASS, audit.text()
    assert audit.fates[Fate.OK] == 2
    assert len(mailbox.messages()) == 2
    assert stack.ledger.retries(task) == 2


def test_a_refused_recipient_is_not_tried_again(stack: Stack, mailbox: Mailbox) -> None:
    mailbox.answer(order_of(0)["customer"]["email"], "550 5.1.1 no such user")
    task = send(stack, 0, Expect(state="FAILURE", error="MailRefused", effects=[]))
    send(stack, 1)
    audit = stack.settle()
    assert audit.verdict is Verdict.PASS, audit.text()
    assert (audit.fates[Fate.FAILED], audit.fates[Fate.OK]) == (1, 1)
    assert stack.ledger.retries(task) == 0


def test_a_slow_mail_server_runs_into_the_time_limit(stack: Stack, mailbox: Mailbox) -> None:
    mailbox.answer(order_of(0)["customer"]["email"], delay_s=30)
    send(stack, 0, Expect(state="FAILURE", error="SoftTimeLimitExceeded", effects=[]))
    send(stack, 1)
    audit = stack.settle()
    assert audit.verdict is Verdict.PASS, audit.text()
    assert (audit.fates[Fate.FAILED], audit.fates[Fate.OK]) == (1, 1)


def test_the_same_order_twice_is_one_mail(stack: Stack, mailbox: Mailbox) -> None:
    send(stack, 0)
    send(stack, 0)
    audit = stack.settle()
    assert audit.verdict is Verdict.PASS, audit.text()
    assert audit.fates[Fate.OK] == 2
    assert len(mailbox.messages()) == 1


@two_even_workers
def test_every_receipt_arrives_once_and_is_recorded(stack: Stack, mailbox: Mailbox, results: Results) -> None:
    drive = Drive(count=100, seed=SEED)
    audit = play(scenario, stack, drive)
    assert audit.verdict is Verdict.PASS, audit.text()
    assert audit.fates[Fate.OK] == audit.entries == drive.count
    assert sum(audit.workers.values()) == drive.count
    assert set(audit.workers) == {"worker-1", "worker-2"}
    # The same once more, without the audit: three witnesses read by hand.
    assert results.count("SUCCESS") == results.count() == drive.count
    keys = [mail.key for mail in mailbox.messages()]
    assert sorted(keys) == sorted(f"mail:{message_id(order_of(number))}" for number in range(drive.count))


@two_workers
def test_no_receipt_is_lost_when_a_worker_is_killed(stack: Stack, mailbox: Mailbox) -> None:
    # The server is slow to one customer, so that the kill comes in the middle of that conversation.
    mailbox.answer(order_of(0)["customer"]["email"], delay_s=4, times=1)
    held_up = send(stack, 0)
    for number in range(1, 40):
        send(stack, number)
    wait_until(mailbox.answered, what="the server holds up the first receipt", timeout_s=20)
    victim = stack.ledger.holder(held_up)
    next(worker for worker in stack.workers if worker.name == victim).kill()
    audit = stack.settle()
    assert audit.verdict is Verdict.PASS, audit.text()
    assert audit.fates[Fate.OK] == 40
    assert "ran-again" in {finding.code for finding in audit.findings}
    # The worker's other process may have been killed between a mail and its task's end: that one went out twice.
    assert len({mail.key for mail in mailbox.messages()}) == 40
    twice = sum(finding.count for finding in audit.findings if finding.code == "had-again")
    assert len(mailbox.messages()) == 40 + twice
