"""Do the shop's tasks survive? `pytest test_shop.py`, in this folder."""

from harness import Expect, mail
from harness.containers.mailbox import Mailbox
from harness.stack import Stack
from harness.wait import wait_until


def test_a_customer_is_welcomed_once(stack: Stack, mailbox: Mailbox) -> None:
    address = "zoe@example.com"
    stack.producer.send("shop.welcome", [address], expect=Expect(result=address, effects=[mail(to=address)]))
    assert stack.settle().passed
    (message,) = mailbox.messages()
    assert message.parsed["Subject"] == "Welcome"


def test_welcomes_survive_a_killed_worker(stack: Stack, mailbox: Mailbox) -> None:
    mailbox.answer("customer.0@*", delay_s=5, times=1)
    for number in range(20):
        address = f"customer.{number}@example.com"
        expect = Expect(result=address, effects=[mail(to=address)])
        stack.producer.send("shop.welcome", [address], expect=expect)

    wait_until(lambda: stack.ledger.ended == 19, what="all but the slow mail are out", timeout_s=20)
    stack.workers[0].kill()
    stack.add_worker()

    audit = stack.settle()
    assert audit.passed, audit.text()
