"""The scenario: every order gets its receipt."""

import functools
import itertools
import json
from collections.abc import Iterator
from email import policy
from email.headerregistry import HeaderRegistry
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path
from typing import TYPE_CHECKING

from harness import Delivery, Drive, Effects, Finding, Promise, Request, Scenario, Verdict
from scenarios.emails.prediction import expectation, flaws, make_order, message_id

if TYPE_CHECKING:
    from harness.producer import Producer
    from harness.stack.stack import Stack

_MOST_READ = 2000
"""The largest number of orders whose mails are read, at about 2 ms each, so that a load test gets its verdict soon."""

_parser = BytesParser(
    # Python's own code reads the same header of a part a dozen times, and parses it each time: most of the time
    # that it takes to read a mail. All receipts share all but a few of their headers.
    policy=policy.default.clone(header_factory=functools.lru_cache(maxsize=1024)(HeaderRegistry()))
)


class Emails(Scenario):
    """Every order gets its receipt: sent, delivered once, and recorded."""

    name = "emails"
    app = "scenarios.app"
    mailbox = True
    promise = Promise(delivery=Delivery.AT_LEAST_ONCE, effects=Effects.ONCE_UNLESS_KILLED)
    routes = "scenarios.web"

    def step(self, producer: "Producer", number: int, seed: int) -> None:
        """Send the receipt of one order."""
        order = make_order(number, seed)
        producer.send("scenarios.emails.send_receipt", kwargs={"order": order}, expect=expectation(order))

    def request(self, number: int, seed: int) -> Request:
        """Return the HTTP request for the same order."""
        return Request(path="/emails", body=json.dumps(make_order(number, seed)).encode())

    def check(self, stack: "Stack", drive: Drive) -> Iterator[Finding]:
        """Check that each mail has its customer's name, a text, an HTML part and the table of its order.

        With more than _MOST_READ orders, only the mails of every second order are read, or every third, and so on.
        """
        every = -(-len(drive.numbers) // _MOST_READ) or 1
        wanted = {_key(number, drive.seed): number for number in itertools.islice(drive.numbers, 0, None, every)}
        flawed: dict[str, list[str]] = {}
        # A mail that was not ordered is reported by the audit.
        mails = [mail for mail in stack.mailbox.messages() if mail.key in wanted]
        for mail in mails:
            for flaw in flaws(_parsed(mail.path), make_order(wanted[mail.key], drive.seed)):
                flawed.setdefault(flaw, []).append(mail.task or mail.key)
        for flaw, tasks in sorted(flawed.items()):
            sample = tuple(sorted(tasks)[:10])
            yield Finding(code="mail-flawed", verdict=Verdict.FAIL, count=len(tasks), text=flaw, tasks=sample)
        if every > 1:
            text = f"{len(mails)} mails were read, those of one order in {every}; {len(drive.numbers)} were ordered"
            yield Finding(code="mails-sampled", verdict=Verdict.PASS, count=len(mails), text=text)


def _key(number: int, seed: int) -> str:
    """Return the key of one order's effect."""
    return f"mail:{message_id(make_order(number, seed))}"


def _parsed(path: Path) -> EmailMessage:
    with path.open("rb") as file:
        return _parser.parse(file)


scenario = Emails()
