"""Generated files of orders, with the usual errors of real files."""

import random
from datetime import date, timedelta
from pathlib import Path

from scenarios.bulk_data.columns import COLUMNS

_SKUS = ("TEA-01", "CUP-02", "JAM-03", "CAN-04", "THÉ-05", "ΜΕΛ-06", "茶-07", "BOX-08")
_DOMAINS = ("example.com", "example.net", "mail.example.org")
_PEOPLE = ("zoe", "xiaolong", "lukasz", "joerg", "anh", "søren", "omar", "o'neil", "ada+shop")
_DAYS = tuple((date(2023, 1, 1) + timedelta(days=day)).isoformat() for day in range(1000))
_DIRT = {
    # Rows that are unusual and valid.
    "order id that stood before": 20,
    "quoted values": 10,
    "CRLF": 5,
    "blank line before it": 2,
    # Rows that must be rejected.
    "bad quantity": 5,
    "bad address": 5,
    "bad date": 3,
    "no order id": 2,
    "column missing": 3,
    "column too many": 2,
    "stray quote": 3,
    "latin-1": 3,
}
"""The kinds of dirt in the files, each with its number of rows per thousand."""
_KINDS = tuple(_DIRT)
_WEIGHTS = tuple(_DIRT.values())
_CLEAN = 1 - sum(_WEIGHTS) / 1000
_REPLACED = {
    "bad quantity": (3, ("", "0", "-3", "1.5", "12e2", " 7", "007", "10001", "٣", "four")),
    "bad address": (1, ("", "nobody", "@example.com", "a@b@example.com", "dot@nodot", "a b@example.com", "x@e_x.com")),
    "bad date": (5, ("", "2024-02-30", "30.02.2024", "2024-1-5", "20240105", "2024-W01-1", "yesterday")),
    "no order id": (0, ("",)),
    "latin-1": (2, ("THÉ-05",)),
}
"""Per kind of bad row, the index of the value that is replaced, and the replacements."""


def write_file(path: Path, *, rows: int, seed: int) -> None:
    """Write a file of orders with the usual dirt in it: the same for the same seed, on every machine.

    Args:
        path: the file; an existing one is replaced.
        rows: how many records it has, good and bad.
        seed: determines the content.
    """
    chance = random.Random(f"orders:{seed}")  # noqa: S311 - test data, no secret.
    with path.open("wb") as file:
        file.write((",".join(COLUMNS) + "\n").encode())
        for first in range(0, rows, 10_000):
            numbers = range(first, min(first + 10_000, rows))
            file.write(b"".join([_line(chance, number, seed) for number in numbers]))


def _line(chance: random.Random, number: int, seed: int) -> bytes:
    bits = chance.getrandbits(64)
    values = [
        f"{seed}-{number:08d}",
        f"{_PEOPLE[bits % 9]}.{number}@{_DOMAINS[(bits >> 8) % 3]}",
        _SKUS[(bits >> 16) % 8],
        str(1 + (bits >> 24) % 9),
        str(25 + (bits >> 32) % 20_000),
        _DAYS[(bits >> 48) % 1000],
    ]
    if chance.random() < _CLEAN:
        return (",".join(values) + "\n").encode()
    return _dirty(chance, values, number, seed)


def _dirty(chance: random.Random, values: list[str], number: int, seed: int) -> bytes:
    """Return a line with one kind of dirt."""
    kind = chance.choices(_KINDS, _WEIGHTS)[0]
    if kind in _REPLACED:
        place, instead = _REPLACED[kind]
        values[place] = chance.choice(instead)
    elif kind == "order id that stood before":
        values[0] = f"{seed}-{chance.randrange(number + 1):08d}"
    elif kind == "quoted values":
        values = [f'"{value}"' for value in (*values[:2], 'GIFT ""de luxe"", 1', *values[3:])]
    elif kind == "column missing":
        del values[chance.randrange(len(values))]
    elif kind == "column too many":
        values.append("?")
    elif kind == "stray quote":
        values[2] = f'"{values[2]}'
    line = ",".join(values) + ("\r\n" if kind == "CRLF" else "\n")
    if kind == "blank line before it":
        line = chance.choice(("\n", "\r\n")) + line
    return line.encode("latin-1" if kind == "latin-1" else "utf-8")
