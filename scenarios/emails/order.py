"""An order, as the task that mails its receipt is handed it."""

from typing import TypedDict


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
