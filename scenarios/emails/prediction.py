"""The expected outcome of `send_receipt`, for each order.

The form of the Message-ID is repeated here, and not taken from `render`: a prediction made by the code under test
could never disagree with it.
"""

import csv
import html
import io
import random
from collections.abc import Iterator
from email.message import EmailMessage
from typing import Any

from harness import Expect
from scenarios.emails.order import Customer, Line, Order

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
    """Return the order with this number: the same for the same seed, on every machine and in every process.

    The address contains the number, so that a rule of the mailbox can select one order.
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
    """Return the Message-ID, without angle brackets, that the receipt of `order` must have."""
    return f"receipt-{order['id']}@shop.example"


def expected_result(order: Order) -> dict[str, Any]:
    """Return the result that `send_receipt` must have for `order`."""
    return {"message_id": message_id(order), "recipients": [order["customer"]["email"]]}


def expectation(order: Order) -> Expect:
    """Return the expected result of the task, and its mail."""
    return Expect(result=expected_result(order), effects=[f"mail:{message_id(order)}"])


def flaws(mail: EmailMessage, order: Order) -> Iterator[str]:
    """Yield what is wrong with a receipt, as its reader would see it."""
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
