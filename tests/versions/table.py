"""The table of what was tried with which versions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from tests.versions.images import Cell

_PACKAGES = ("celery", "sqlalchemy", "kombu", "python")


@dataclass
class Row:
    """What became of one cell."""

    cell: Cell
    versions: Mapping[str, str] = field(default_factory=dict)
    """The versions that the worker itself told, by package."""
    said: str = "it did not start"
    is_right: bool = False


rows_key = pytest.StashKey[list[Row]]()


def lines(rows: Sequence[Row]) -> list[str]:
    """Return the table, line by line."""
    shown: list[tuple[str, ...]] = [("", *_PACKAGES, "twenty tasks and what they sent")]
    for row in rows:
        asked = {"celery": row.cell.celery, "sqlalchemy": row.cell.sqlalchemy, "python": row.cell.python}
        told = (row.versions.get(name, asked.get(name, "")) for name in _PACKAGES)
        shown.append(("ok" if row.is_right else "WRONG", *told, row.said))
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in shown]
