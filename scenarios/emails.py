"""A shop mails its receipts.

`send_receipt` is acknowledged late, retried while the mail server is busy or away, and may therefore run more
than once. An outbox in the app's own database keeps that from the customers: a run claims the mail before it
sends it and records it afterwards, and a run that finds the mail recorded sends nothing and returns the same
result.

One window stays open, because no transaction spans a mail server: between the server's 250 and the record. So
a mail is delivered at least once, and twice only if the worker, the server or the connection between them dies
in that window, or the database refuses the record.
"""

import csv
import functools
import html
import io
import itertools
import json
import os
import random
import smtplib
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from email import policy
from email.headerregistry import Address, HeaderRegistry
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import SMTP
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from celery import Task
from celery.exceptions import SoftTimeLimitExceeded
from celery.utils.time import get_exponential_backoff_interval
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from sqlalchemy import Column, Engine, Float, MetaData, String, Table, delete, insert, select, update
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.schema import CreateTable

from harness import Delivery, Drive, Effects, Expect, Finding, Promise, Request, Scenario, Verdict
from scenarios.app import app, ask_again, database

if TYPE_CHECKING:
    from harness.producer import Producer
    from harness.stack.stack import Stack

SOFT_LIMIT_S = float(os.environ.get("EMAILS_SOFT_TIME_LIMIT_S", "10"))
"""A conversation with the mail server that lasts longer ends in FAILURE, SoftTimeLimitExceeded."""

HARD_LIMIT_S = float(os.environ.get("EMAILS_HARD_TIME_LIMIT_S", "15"))
"""The run is killed after this time, and no conversation goes on beyond it."""

LEASE_S = HARD_LIMIT_S + 5
"""How long a claim holds. When it is over, its run has ended: by itself, by the hard limit, or by a SIGKILL."""

LOCK_TIMEOUT_S = 5
"""How long the outbox waits for a locked database: less than the soft limit, which cannot strike meanwhile."""

BACKOFF_LIMIT_S = 60
"""The longest pause before another attempt."""

SHOP = Address("Smörgås & Søn", addr_spec="receipts@shop.example")


class Line(TypedDict):
    """One line of an order."""

    sku: str
    title: str
    quantity: int
    unit_price_cents: int


class Customer(TypedDict):
    """Who ordered."""

    name: str
    email: str


class Order(TypedDict):
    """What a receipt is for: a task's argument, so plain JSON."""

    id: str
    customer: Customer
    currency: str
    lines: list[Line]


class MailRefused(Exception):  # noqa: N818 - it names what the server did.
    """The mail server refused the mail for good (5xx); args are the code and the server's text."""


class MailDeferred(Exception):  # noqa: N818 - it names what the server did.
    """The mail was not taken this time: a 4xx, or no connection. Args are the code (0: none) and a text."""


class ClaimHeld(Exception):  # noqa: N818 - it names what was found.
    """Another run that may still be alive holds the mail; the one arg is the rest of its lease in seconds."""


_metadata = MetaData()
_outbox = Table(
    "outbox",
    _metadata,
    Column("key", String(255), primary_key=True),  # the Message-ID, without angle brackets
    Column("state", String(8), nullable=False),  # "sending" or "sent"
    Column("owner", String(32), nullable=False),
    Column("claimed_at", Float, nullable=False),  # Unix time, seconds
    Column("sent_at", Float),
)


class Outbox:
    """Which mails are being sent, by which run, and which were sent."""

    def __init__(self, engine: Engine, *, lease_s: float = LEASE_S, now: Callable[[], float] = time.time) -> None:
        """The table is made if it is not there; several processes may do so at once.

        Args:
            engine: the app's database.
            lease_s: how long a claim holds, in seconds.
            now: the Unix time in seconds; all runs must agree on it to within the margin of the lease.
        """
        self._engine = engine
        self._lease_s = lease_s
        self._now = now
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(CreateTable(_outbox, if_not_exists=True))

    def claim(self, key: str, owner: str) -> bool:
        """Claim a mail for one run.

        Returns:
            True if `owner` shall send it now, False if it was sent already.

        Raises:
            ClaimHeld: the claim of another run has not expired yet.
        """
        now = self._now()
        mine = {"owner": owner, "claimed_at": now}
        # Every transaction starts with its write. A read first would make SQLite refuse the write, at once and
        # without patience, if anybody else wrote in between.
        with suppress(IntegrityError), self._engine.begin() as connection:
            connection.execute(insert(_outbox).values(key=key, state="sending", **mine))
            return True
        expired = (_outbox.c.state == "sending") & (_outbox.c.claimed_at <= now - self._lease_s)
        with self._engine.begin() as connection:
            taken = connection.execute(update(_outbox).where(_outbox.c.key == key, expired).values(mine)).rowcount
            row = connection.execute(select(_outbox).where(_outbox.c.key == key)).one_or_none()
        if row is None:
            raise ClaimHeld(0.0)  # Its run has just let go of it.
        if row.state == "sending" and not taken:
            raise ClaimHeld(max(0.0, row.claimed_at + self._lease_s - now))
        return bool(taken)

    def release(self, key: str, owner: str) -> None:
        """Give up the claim of `owner`, if it is still its own and nothing was sent."""
        mine = (_outbox.c.key == key) & (_outbox.c.owner == owner) & (_outbox.c.state == "sending")
        with self._engine.begin() as connection:
            connection.execute(delete(_outbox).where(mine))

    def record_sent(self, key: str, owner: str) -> None:
        """Record that the mail server has taken the mail: a fact, whoever may hold the claim by now."""
        now = self._now()
        sent = {"state": "sent", "owner": owner, "sent_at": now}
        with self._engine.begin() as connection:
            if connection.execute(update(_outbox).where(_outbox.c.key == key).values(sent)).rowcount:
                return
            connection.execute(insert(_outbox).values(key=key, claimed_at=now, **sent))


def _total_cents(order: Order) -> int:
    return sum(line["quantity"] * line["unit_price_cents"] for line in order["lines"])


def _money(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d}"


_templates = Environment(
    loader=PackageLoader("scenarios"),
    autoescape=select_autoescape(["html.j2"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters.update(money=_money, total_cents=_total_cents)


def _table(order: Order) -> str:
    file = io.StringIO()
    rows = csv.writer(file)
    rows.writerow(["sku", "title", "quantity", "unit price", "amount", "currency"])
    for line in order["lines"]:
        price, quantity = line["unit_price_cents"], line["quantity"]
        rows.writerow(
            [line["sku"], line["title"], quantity, _money(price), _money(price * quantity), order["currency"]]
        )
    return file.getvalue()


def render(order: Order, *, task_id: str, now: datetime | None = None) -> EmailMessage:
    """The receipt: text and HTML, and the order's lines as a CSV file.

    The Message-ID is made from the order alone, so that all attempts at one receipt carry the same. Bodies are
    encoded in 7 bits: the mail passes a server that knows no 8BITMIME unchanged.
    """
    message = EmailMessage(policy=SMTP.clone(cte_type="7bit"))
    customer = order["customer"]
    message["From"] = SHOP
    message["To"] = Address(customer["name"], addr_spec=customer["email"])
    message["Subject"] = f"🧾 Your receipt for order {order['id']}"
    message["Date"] = now or datetime.now(UTC)
    message["Message-ID"] = f"<receipt-{order['id']}@shop.example>"
    message["Auto-Submitted"] = "auto-generated"
    message["X-Task-ID"] = task_id
    shown = {"order": order, "shop": SHOP.display_name}
    message.set_content(_templates.get_template("receipt.txt.j2").render(shown))
    message.add_alternative(_templates.get_template("receipt.html.j2").render(shown), subtype="html")
    message.add_attachment(_table(order), subtype="csv", filename=f"receipt-{order['id']}.csv")
    return message


class _Conversation(smtplib.SMTP):
    """An SMTP connection with one deadline for the whole conversation.

    A time-out for each step would let a slow server hold a mail for longer than its lease, in the pools that
    enforce no time limits. And a run that was frozen past its lease finds its deadline gone before it sends.
    """

    def __init__(self, host: str, port: int, *, limit_s: float) -> None:
        self._deadline = time.monotonic() + limit_s
        # The name is given because smtplib would ask the resolver for it, which may hang where there is none.
        super().__init__(host, port, local_hostname=socket.gethostname(), timeout=limit_s)

    def send(self, s: Any) -> None:
        self._hurry()
        super().send(s)

    def getreply(self) -> tuple[int, bytes]:
        self._hurry()
        return super().getreply()

    def _hurry(self) -> None:
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the mail server took too long")
        if self.sock is not None:
            self.sock.settimeout(left_s)


def send(message: EmailMessage, *, limit_s: float = HARD_LIMIT_S) -> None:
    """Hand one mail with one recipient to the server at SMTP_HOST:SMTP_PORT (localhost:25).

    Args:
        message: the mail; sender and recipient are taken from its headers.
        limit_s: seconds for the whole conversation.

    Raises:
        MailRefused: a 5xx to the mail or one of its addresses.
        MailDeferred: a 4xx, or the connection could not be made, broke, or took longer than `limit_s`.
    """
    host, port = os.environ.get("SMTP_HOST", "localhost"), int(os.environ.get("SMTP_PORT", "25"))
    try:
        conversation = _Conversation(host, port, limit_s=limit_s)
        try:
            conversation.send_message(message)
            # The mail is taken. Nothing that happens to the farewell may make this look like a failure, so it
            # is not even waited for.
            with suppress(OSError):
                conversation.putcmd("quit")
        finally:
            conversation.close()
    except smtplib.SMTPRecipientsRefused as error:
        code, text = next(iter(error.recipients.values()))
        raise _refusal(code, text) from error
    except smtplib.SMTPConnectError as error:
        # The server wants no connection now, whatever its code. That says nothing about the mail.
        raise MailDeferred(error.smtp_code, _readable(error.smtp_error)) from error
    except smtplib.SMTPResponseException as error:
        raise _refusal(error.smtp_code, error.smtp_error) from error
    except smtplib.SMTPNotSupportedError as error:
        raise MailRefused(553, f"the server cannot take this address: {error}") from error
    except OSError as error:  # SMTPServerDisconnected is one, too.
        raise MailDeferred(0, f"{type(error).__name__}: {error}") from error


def _readable(text: bytes | str) -> str:
    return text if isinstance(text, str) else text.decode("utf-8", "replace")


def _refusal(code: int, text: bytes | str) -> MailRefused | MailDeferred:
    permanent = 500 <= code <= 599  # noqa: PLR2004 - the classes of SMTP replies.
    return (MailRefused if permanent else MailDeferred)(code, _readable(text))


def send_once(message: EmailMessage, outbox: Outbox, *, send: Callable[[EmailMessage], None] = send) -> None:
    """Send a mail unless the outbox says that it was sent; afterwards it does.

    Whatever goes wrong before the server has taken the mail, the claim is given up, so that the next run need
    not wait for the lease.

    Raises:
        ClaimHeld: another run is at it, or died at it less than a lease ago.
        MailRefused, MailDeferred: as `send`.
    """
    key = str(message["Message-ID"]).strip("<>")
    run = uuid.uuid4().hex
    taken = False
    try:
        if not outbox.claim(key, run):
            return
        send(message)
        taken = True
        outbox.record_sent(key, run)
    except SoftTimeLimitExceeded:
        if not taken:
            outbox.release(key, run)
            raise
        # The mail is out. A late record is better than a second mail; this limit strikes only once, and the
        # hard one bounds what follows.
        outbox.record_sent(key, run)
    except BaseException:
        # Also for a SystemExit in mid-conversation, which is how a pool process is told to end.
        if not taken:
            outbox.release(key, run)
        raise


@functools.cache
def _outbox_of(engine: Engine) -> Outbox:
    return Outbox(engine)


@app.task(
    bind=True,
    name="scenarios.emails.send_receipt",
    acks_late=True,
    max_retries=12,
    default_retry_delay=5,
    soft_time_limit=SOFT_LIMIT_S,
    time_limit=HARD_LIMIT_S,
    throws=(MailRefused,),
)
def send_receipt(self: Task, order: Order) -> dict[str, Any]:
    """Mail the receipt of an order to its customer, once as far as SMTP allows.

    A 4xx and a lost connection are retried with backoff and jitter; a 5xx fails at once with MailRefused.

    Returns:
        ``{"message_id": ..., "recipients": [...]}``, the same from every run for the same order.
    """
    message = render(order, task_id=self.request.id)
    try:
        send_once(message, _outbox_of(database(lock_timeout_s=LOCK_TIMEOUT_S)))
    except (MailDeferred, OperationalError, PoolTimeout) as error:
        pause_s = get_exponential_backoff_interval(1, self.request.retries, BACKOFF_LIMIT_S, full_jitter=True)
        raise ask_again(self, pause_s, error) from error
    except ClaimHeld as held:
        # The margin lets two clocks differ, and keeps the retry from coming a moment too early.
        raise ask_again(self, held.args[0] + 0.5, held) from held
    return {"message_id": str(message["Message-ID"]).strip("<>"), "recipients": [order["customer"]["email"]]}


# What follows predicts what the tasks above must do. It states the form of the Message-ID a second time, and
# must not take it from `render`: a prediction made by the code under test could never disagree with it.

_CUSTOMERS = (
    ("Zoë Ångström", "zoe"),
    ("李小龍", "xiaolong"),
    ("Łukasz Żółć 🛒", "lukasz"),
    ("Müller, Jörg", "joerg"),
    ("Nguyễn Thị Ánh", "anh"),
    ("Σωκράτης Παπαδόπουλος", "sokratis"),
    ("عمر الخيّام", "omar"),
    ('Ada "Countess" Lovelace', "ada"),
)
_ARTICLES = (
    ("TEA-01", "Sencha tea, 100 g", 1250),
    ("CUP-02", "Tasse « Crème brûlée »", 899),
    ("JAM-03", "Lingonsylt 400 g", 545),
    ("CAN-04", "Lakritz & Salz", 320),
    ("HON-05", "Ημυμέλι <raw>", 1999),
    ("BOX-06", "🎁 Gift box", 250),
)
_DOMAINS = ("example.com", "example.net", "example.org")


def make_order(number: int, seed: int) -> Order:
    """The order with this number: the same for the same seed, on every machine and in every process.

    The address holds the number, so that a rule of the mailbox can single out one order.
    """
    chance = random.Random(f"{seed}:{number}")  # noqa: S311 - test data, no secret.
    name, local_part = chance.choice(_CUSTOMERS)
    lines = [
        Line(sku=sku, title=title, quantity=chance.randint(1, 5), unit_price_cents=price)
        for sku, title, price in chance.sample(_ARTICLES, chance.randint(1, len(_ARTICLES)))
    ]
    return Order(
        id=f"{seed}-{number:06d}",
        customer=Customer(name=name, email=f"{local_part}.{number}@{chance.choice(_DOMAINS)}"),
        currency=chance.choice(("EUR", "SEK", "USD")),
        lines=lines,
    )


def message_id(order: Order) -> str:
    """The Message-ID, without angle brackets, that the receipt of `order` must carry."""
    return f"receipt-{order['id']}@shop.example"


def expected_result(order: Order) -> dict[str, Any]:
    """What `send_receipt` must return for `order`."""
    return {"message_id": message_id(order), "recipients": [order["customer"]["email"]]}


_MOST_READ = 2000
"""The mails of so many orders are read, at about 2 ms each: those of a load test would keep its verdict waiting."""

_parser = BytesParser(
    # Python's own way to a part asks for the same header a dozen times, and each time it is parsed anew: most of the
    # time that it takes to read a mail. All receipts share all but a few of their headers.
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
        expect = Expect(result=expected_result(order), effects=[f"mail:{message_id(order)}"])
        producer.send("scenarios.emails.send_receipt", kwargs={"order": order}, expect=expect)

    def request(self, number: int, seed: int) -> Request:
        """Order the same over HTTP."""
        return Request(path="/emails", body=json.dumps(make_order(number, seed)).encode())

    def check(self, stack: "Stack", drive: Drive) -> Iterator[Finding]:
        """Each mail has its customer's name, a text, an HTML part and the table of its order.

        Of more than _MOST_READ orders, the mails of every second are read, or of every third, and so on.
        """
        every = -(-len(drive.numbers) // _MOST_READ) or 1
        wanted = {_key(number, drive.seed): number for number in itertools.islice(drive.numbers, 0, None, every)}
        flawed: dict[str, list[str]] = {}
        # A mail that nobody ordered is the audit's to find.
        mails = [mail for mail in stack.mailbox.messages() if mail.key in wanted]
        for mail in mails:
            for flaw in _flaws(_parsed(mail.path), make_order(wanted[mail.key], drive.seed)):
                flawed.setdefault(flaw, []).append(mail.task or mail.key)
        for flaw, tasks in sorted(flawed.items()):
            sample = tuple(sorted(tasks)[:10])
            yield Finding(code="mail-flawed", verdict=Verdict.FAIL, count=len(tasks), text=flaw, tasks=sample)
        if every > 1:
            text = f"{len(mails)} mails were read, those of one order in {every}; {len(drive.numbers)} were ordered"
            yield Finding(code="mails-sampled", verdict=Verdict.PASS, count=len(mails), text=text)


def _key(number: int, seed: int) -> str:
    """The effect of one order."""
    return f"mail:{message_id(make_order(number, seed))}"


def _parsed(path: Path) -> EmailMessage:
    with path.open("rb") as file:
        return _parser.parse(file)


def _flaws(mail: EmailMessage, order: Order) -> Iterator[str]:
    """What is wrong with a receipt, as its reader would see it."""
    customer = order["customer"]
    (to,) = mail["To"].addresses
    if (to.display_name, to.addr_spec) != (customer["name"], customer["email"]):
        yield "the customer's name or address is not the order's"
    for part, subtype in ((mail.get_body(["plain"]), "text"), (mail.get_body(["html"]), "HTML")):
        if part is None:
            yield f"there is no {subtype} part"
            continue
        shown = part.get_content()
        titles = [line["title"] for line in order["lines"]]
        if not all(html.escape(title, quote=False) in shown or title in shown for title in titles):
            yield f"the {subtype} part does not name every line of the order"
    tables = [part.get_content() for part in mail.iter_attachments() if part.get_content_type() == "text/csv"]
    amounts = [row["amount"] for table in tables for row in csv.DictReader(io.StringIO(table))]
    owed = sum(line["quantity"] * line["unit_price_cents"] for line in order["lines"])
    if len(tables) != 1:
        yield f"there are {len(tables)} tables attached, not 1"
    elif sum(int(amount.replace(".", "")) for amount in amounts) != owed:
        yield "the attached table does not add up to the order's total"


scenario = Emails()
