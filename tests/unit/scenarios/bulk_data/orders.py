"""Files of orders for the tests of their import, and what an import of one leaves behind."""

import io
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from scenarios.bulk_data.columns import COLUMNS
from scenarios.bulk_data.order_file import Survey, delimiter_of, open_file, read_header, survey
from scenarios.bulk_data.prediction import Prediction
from scenarios.bulk_data.tables import close, register
from scenarios.bulk_data.tasks import load

HEADER = ",".join(COLUMNS).encode()
GOOD = b"A-1,zoe@example.com,TEA-01,2,1250,2024-05-17"
LAYOUT = read_header(io.BytesIO(HEADER))


def replaced(place: int, value: str) -> bytes:
    values = GOOD.decode().split(",")
    values[place] = value
    return ",".join(values).encode()


BAD = [
    (GOOD + b"\r" + GOOD, "line-end"),
    (replaced(2, "THÉ").decode().encode("latin-1"), "not-utf8"),
    (replaced(2, '"TEA'), "quote"),
    (replaced(2, '"TEA"x'), "quote"),
    (b" ", "columns"),
    (b"\x00", "columns"),
    (GOOD + b",", "columns"),
    (replaced(0, ""), "order_id"),
    (replaced(0, '""'), "order_id"),
    (replaced(0, "A\x001"), "order_id"),
    (replaced(0, "A\u200b1"), "order_id"),
    (replaced(0, "A" * 65), "order_id"),
    (replaced(1, "nobody"), "customer_email"),
    (replaced(1, "a@b"), "customer_email"),
    (replaced(1, "a@b..example"), "customer_email"),
    (replaced(1, "a@b@example.com"), "customer_email"),
    (replaced(1, "a b@example.com"), "customer_email"),
    (replaced(1, "a@exämple.com"), "customer_email"),
    (replaced(1, "a" * 65 + "@example.com"), "customer_email"),
    (replaced(1, "a@" + "b." * 150 + "com"), "customer_email"),
    (replaced(2, "TEA\u00a001"), "sku"),
    *[(replaced(2, f"TEA{mark}01"), "sku") for mark in "\xad\u2028\ufeff\ue000\uffff\U000e0001\U0001ffff\U00100000"],
    *[
        (replaced(3, value), "quantity")
        for value in ("", "0", "-1", "+1", "1.0", "1e3", " 1", "01", "10001", "٣", "9" * 5000)
    ],
    *[(replaced(4, value), "unit_price_cents") for value in ("", "-1", "12.50", "00", "10000001")],
    *[
        (replaced(5, value), "ordered_at")
        for value in ("", "2024-02-30", "2024-W01-1", "20240105", "24-01-05", "2024-01-05T00:00")
    ],
]
GOOD_ONES = [
    replaced(0, "ø 茶 '"),
    replaced(0, "A" * 64),
    replaced(1, "o'neil+shop@a-b.example.org"),
    replaced(1, "søren@xn--exmple-cua.com"),
    replaced(2, 'TEA"01'),
    # Of Unicode 15, of none yet, and a mark on what stands before it.
    *[replaced(2, mark) for mark in ("🩷", "\u0378", "\U0003fffd", "e\u0301")],
    replaced(3, "10000"),
    replaced(4, "0"),
    replaced(4, "10000000"),
    replaced(5, "2024-02-29"),
    replaced(5, "0001-01-01"),
]


def no_file(_path: Path) -> None:
    """There is nothing there."""


def write(path: Path, *lines: bytes, header: bytes = HEADER, end: bytes = b"\n") -> Path:
    path.write_bytes(end.join((header, *lines)) + end)
    return path


def surveyed(path: Path, **options: Any) -> Survey:
    with open_file(path) as file:
        return survey(file, **options)


def run_import(path: Path, engine: Engine, import_id: str = "i", chunk_bytes: int = 200) -> dict[str, int]:
    """All that the tasks do, in one process."""
    found = surveyed(path, delimiter=delimiter_of(path), chunk_bytes=chunk_bytes)
    register(engine, import_id, found)
    counts = [load(str(path), import_id, chunk, engine) for chunk in found.chunks]
    assert all(one["good"] + one["rejected"] == one["read"] for one in counts)
    return close(engine, import_id, counts)


def begun_at_once(path: Path, engine: Engine, *import_ids: str) -> None:
    """Several imports of a file, whose chunks are loaded in turns: the later ones take over from the earlier."""
    found = surveyed(path, chunk_bytes=2000)
    for import_id in import_ids:
        register(engine, import_id, found)
    counts: dict[str, list[dict[str, int]]] = {import_id: [] for import_id in import_ids}
    for chunk in found.chunks:
        for import_id in import_ids:
            counts[import_id].append(load(str(path), import_id, chunk, engine))
    for import_id in import_ids:
        close(engine, import_id, counts[import_id])


def rows(engine: Engine, table: str) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(f"SELECT * FROM {table} ORDER BY 1, 2")]  # noqa: S608 - a table of ours.


def contents(path: Path, table: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608 - a table of ours.


def codes(path: Path, tmp_path: Path, *import_ids: str) -> list[str]:
    """Return the codes of the differences that the check finds in the database of a test."""
    scratch = tmp_path / "told.sqlite3"
    scratch.unlink(missing_ok=True)
    with closing(Prediction(path, scratch)) as prediction:
        return [finding.code for finding in prediction.differences(tmp_path / "app.sqlite3", import_ids or ["i"])]


def saved(*members: str) -> bytes:
    return json.dumps([["group", None], [[[member, None], None] for member in members]]).encode()
