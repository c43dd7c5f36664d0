"""The receipt of an order, as a mail."""

import csv
import io
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from scenarios.emails.order import Order

SHOP = Address("Smörgås & Søn", addr_spec="receipts@shop.example")


def _total_cents(order: Order) -> int:
    return sum(line["quantity"] * line["unit_price_cents"] for line in order["lines"])


def _money(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d}"


_templates = Environment(
    loader=PackageLoader("scenarios.emails"),
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
    """Return the receipt: text and HTML, and the order's lines as a CSV file.

    The Message-ID depends on the order alone, so that all attempts at one receipt have the same. Bodies are encoded
    in 7 bits, so that a server without 8BITMIME passes the mail on unchanged.
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
