"""One line of the file as an order: its parsing, and the reasons for its rejection."""

import csv
import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

_MOST_QUANTITY = 10_000
_MOST_CENTS = 10_000_000

ID_CHARACTERS = 64
"""The most characters that an order_id or a sku may have."""

EMAIL_CHARACTERS = 254
"""The most characters that an address may have."""

COMMA = ","
"""The default delimiter."""


class BadRow(Exception):  # noqa: N818 - it names what was read.
    """A line is no order; the one arg is the reason that `rejects` gets.

    `too-long`, `line-end` (a CR within it), `not-utf8`, `quote`, `columns` (too few or too many), or the name of the
    first column of COLUMNS whose value is not valid.
    """


Row = dict[str, Any]
"""A row of a table, by column."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The positions of the values in a line."""

    width: int
    """The number of values that a line must have."""
    pick: Callable[[Sequence[str]], tuple[str, ...]]
    """Takes the values of COLUMNS, in that order, out of all values of a line."""
    delimiter: str = COMMA
    """Separates the values of a line."""


def fields_of(text: str, delimiter: str) -> list[str]:
    """Return the values of a line. Raises BadRow if a quote in it is not closed."""
    if '"' not in text:
        return text.split(delimiter)
    try:
        return next(csv.reader((text,), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise BadRow("quote") from error


# Each version of Python has its own version of Unicode. With `str.isprintable`, a worker and its auditor would
# disagree on a character that only the newer one knows.
_unprintable = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # Controls.
    "\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"  # Spaces beside the usual one, and line ends.
    "\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u202a-\u202e"  # What formats others.
    "\u2060-\u206f\ufeff\ufff0-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e007f"
    "\ud800-\uf8ff\ufdd0-\ufdef\ufffe\uffff\U000f0000-\U0010ffff"  # Surrogates, private use, and what is none.
    + "".join(f"{chr(plane + 0xFFFE)}{chr(plane + 0xFFFF)}" for plane in range(0x10000, 0xF0000, 0x10000))
    + "]"
).search


def _is_printable(text: str) -> bool:
    return text.isprintable() if text.isascii() else not _unprintable(text)


_email = re.compile(r'[^ @"(),:;<>\[\]\\]{1,64}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z0-9-]{1,63}').fullmatch
_count = re.compile(r"0|[1-9][0-9]{0,8}").fullmatch
_day = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}").fullmatch


@functools.lru_cache(maxsize=4096)
def _date(text: str) -> date | None:
    """Return the date, or None if there is no such day. Cached, because a file has few days and many rows."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def _values(line: bytes | None, layout: Layout) -> list[str]:
    if line is None:
        raise BadRow("too-long")
    if b"\r" in line:
        raise BadRow("line-end")
    try:
        fields = fields_of(line.decode(), layout.delimiter)
    except UnicodeDecodeError as error:
        raise BadRow("not-utf8") from error
    if len(fields) != layout.width:
        raise BadRow("columns")
    return fields


def read_row(line: bytes | None, layout: Layout) -> Row:
    """Return the order in a line, as a row without its version; `line` is None if it is too long.

    An order_id and a sku are 1 to 64 printable characters. An address has a simple form: at most 254 printable
    characters, a local part, an @, and a domain of two or more labels in ASCII. Numbers are plain digits without
    sign or leading zeros, a quantity from 1 to 10,000 and a price from 0 to 10,000,000 cents. A date is YYYY-MM-DD.
    A character is printable unless it is a control, a space other than U+0020, a format character, for private use,
    or a noncharacter; an unassigned one is printable. Values are not folded or normalised: they are compared as
    they are written.

    Raises:
        BadRow: the line is no valid order.
    """
    order_id, email, sku, quantity, cents, day = layout.pick(_values(line, layout))
    if not (1 <= len(order_id) <= ID_CHARACTERS and _is_printable(order_id)):
        raise BadRow("order_id")
    if not (len(email) <= EMAIL_CHARACTERS and _is_printable(email) and _email(email)):
        raise BadRow("customer_email")
    if not (1 <= len(sku) <= ID_CHARACTERS and _is_printable(sku)):
        raise BadRow("sku")
    if not (_count(quantity) and 1 <= int(quantity) <= _MOST_QUANTITY):
        raise BadRow("quantity")
    if not (_count(cents) and int(cents) <= _MOST_CENTS):
        raise BadRow("unit_price_cents")
    # Only text in the form of a date is cached, so that the cached keys are short for any file.
    ordered_at = _date(day) if _day(day) else None
    if ordered_at is None:
        raise BadRow("ordered_at")
    return {
        "order_id": order_id,
        "customer_email": email,
        "sku": sku,
        "quantity": int(quantity),
        "unit_price_cents": int(cents),
        "ordered_at": ordered_at,
    }
