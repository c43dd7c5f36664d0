"""An order, as the task that mails its receipt gets it."""

from typing import TypedDict


class Line(TypedDict):
    """One line of an order."""

    sku: str
    title: str
    quantity: int
    unit_price_cents: int


class Customer(TypedDict):
    """The customer of an order."""

    name: str
    email: str


class Order(TypedDict):
    """The order of a receipt: a task's argument, so plain JSON."""

    id: str
    customer: Customer
    currency: str
    lines: list[Line]
