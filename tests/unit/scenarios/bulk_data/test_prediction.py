"""The prediction of what imports leave behind, and the differences that it finds."""

import random
from pathlib import Path

import pytest
from sqlalchemy import Engine

from scenarios.bulk_data.columns import COLUMNS
from scenarios.bulk_data.made_file import write_file
from scenarios.bulk_data.tables import close, register
from scenarios.bulk_data.tasks import load
from tests.unit.scenarios.bulk_data.orders import (
    GOOD,
    GOOD_ONES,
    HEADER,
    begun_at_once,
    codes,
    rows,
    run_import,
    surveyed,
    write,
)


@pytest.mark.parametrize("seed", [1, 2])
def test_the_prediction_agrees_with_the_tasks_on_a_made_file(tmp_path: Path, engine: Engine, seed: int) -> None:
    path = tmp_path / "orders.csv"
    write_file(path, rows=3000, seed=seed)
    totals = run_import(path, engine, chunk_bytes=20_000)
    assert codes(path, tmp_path) == []
    assert totals["read"] == 3000
    assert {reason for _, _, reason in rows(engine, "rejects")} == {*COLUMNS, "columns", "not-utf8", "quote"} - {
        "sku",
        "unit_price_cents",
    }


def test_the_prediction_agrees_with_the_tasks_on_what_nobody_would_make(tmp_path: Path, engine: Engine) -> None:
    chance = random.Random(8)  # noqa: S311 - test data.
    scraps = [
        b",",
        b'"',
        b'""',
        b"\r",
        b"\r\n",
        b"\n",
        b" ",
        b"\x00",
        b"\xff",
        "é".encode(),
        b"A",
        b"1",
        b"@",
        GOOD,
        *GOOD.split(b","),
    ]
    for attempt in range(30):
        body = b"".join(chance.choices(scraps, k=chance.randrange(120)))
        good = [chance.choice(GOOD_ONES) for _ in range(3)]
        body += b"\n" + b"\n".join(good) + chance.choice((b"", b"\n"))
        path = tmp_path / "orders.csv"
        path.write_bytes(HEADER + b"\n" + body)
        with engine.begin() as connection:
            for table in ("orders", "rejects", "imports"):
                connection.exec_driver_sql(f"DELETE FROM {table}")  # noqa: S608 - a table of ours.
        run_import(path, engine, chunk_bytes=chance.randint(1, 500))
        assert codes(path, tmp_path) == [], (attempt, body)


def test_the_prediction_has_the_same_limit_for_lines(tmp_path: Path, engine: Engine) -> None:
    for length in (65_535, 65_536, 65_537, 65_538, 65_539, 65_540, 200_000):
        for end in (b"\n", b"\r\n"):
            path = write(tmp_path / "orders.csv", b"y" * length, GOOD, end=end)
            run_import(path, engine, f"{length}{end!r}")
            reason = "columns" if length <= 65_536 else "too-long"
            assert (f"{length}{end!r}", 2, reason) in rows(engine, "rejects")
            assert codes(path, tmp_path, f"{length}{end!r}") == []
            with engine.begin() as connection:
                connection.exec_driver_sql("DELETE FROM imports")


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("DELETE FROM orders WHERE order_id = (SELECT max(order_id) FROM orders)", "rows-missing"),
        (
            "INSERT INTO orders SELECT 'x', customer_email, sku, 1, 1, ordered_at, version FROM orders LIMIT 1",
            "rows-extra",
        ),
        ("UPDATE orders SET sku = sku || ' ' WHERE order_id = (SELECT min(order_id) FROM orders)", "rows-differ"),
        ("DELETE FROM rejects WHERE line = (SELECT min(line) FROM rejects)", "rejects-differ"),
        ("INSERT INTO rejects VALUES ('i', 1, 'quote')", "rejects-differ"),
        ("UPDATE rejects SET reason = 'none' WHERE line = (SELECT min(line) FROM rejects)", "rejects-differ"),
    ],
)
def test_a_single_difference_before_the_closing_is_found_under_its_own_name_alone(
    tmp_path: Path, engine: Engine, statement: str, expected: str
) -> None:
    path = tmp_path / "orders.csv"
    write_file(path, rows=500, seed=2)
    found = surveyed(path, chunk_bytes=10_000)
    register(engine, "i", found)
    counts = [load(str(path), "i", chunk, engine) for chunk in found.chunks]
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    close(engine, "i", counts)
    assert codes(path, tmp_path) == [expected]


def test_a_file_that_is_imported_many_times_is_there_once_and_each_import_has_its_own_totals(
    tmp_path: Path, engine: Engine
) -> None:
    path = tmp_path / "orders.csv"
    write_file(path, rows=300, seed=11)
    begun_at_once(path, engine, "a", "b", "c")
    run_import(path, engine, "d")
    run_import(path, engine, "a")
    assert codes(path, tmp_path, "a", "b", "c", "d") == []
    # What an import had when it was closed: nothing any more, or everything still.
    totals = {row[1]: row[6:] for row in rows(engine, "imports")}
    assert totals["a"][3:] == totals["b"][3:] == (0, 0)
    assert totals["c"] == totals["d"]
    assert totals["a"][:3] == totals["d"][:3]
    assert len({import_id for import_id, _, _ in rows(engine, "rejects")}) == 4


def test_an_import_that_never_ended_is_left_to_the_audit_and_may_have_taken_over(
    tmp_path: Path, engine: Engine
) -> None:
    path = write(tmp_path / "orders.csv", *[GOOD.replace(b"A-1", f"A-{number}".encode()) for number in range(90)], b"?")
    found = surveyed(path, chunk_bytes=2000)
    for import_id in ("a", "b"):
        register(engine, import_id, found)
    counts = [load(str(path), "a", chunk, engine) for chunk in found.chunks]
    for chunk in found.chunks[:2]:
        load(str(path), "b", chunk, engine)
    assert 0 < close(engine, "a", counts)["orders"] < 90
    assert codes(path, tmp_path, "a") == []
    # The lines that it did not come to are missing under its name.
    assert codes(path, tmp_path, "a", "b") == ["rejects-differ"]


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("UPDATE imports SET read = read + 1 WHERE import_id = 'b'", "totals-differ"),
        ("UPDATE imports SET orders = 1000000 WHERE import_id = 'b'", "totals-differ"),
        ("UPDATE imports SET total_cents = -1 WHERE import_id = 'b'", "totals-differ"),
        # Of the last one everything is there.
        ("UPDATE imports SET orders = orders - 1 WHERE import_id = 'c'", "totals-differ"),
        ("DELETE FROM rejects WHERE import_id = 'b' AND line = (SELECT max(line) FROM rejects)", "rejects-differ"),
        ("INSERT INTO rejects VALUES ('a', 1, 'quote')", "rejects-differ"),
        # The row as the first import had it.
        ("UPDATE orders SET version = version & ((1 << 40) - 1) | (1 << 40) WHERE order_id LIKE '%7'", "rows-outdated"),
    ],
)
def test_a_difference_in_one_of_many_imports_is_found(
    tmp_path: Path, engine: Engine, statement: str, expected: str
) -> None:
    path = tmp_path / "orders.csv"
    write_file(path, rows=300, seed=11)
    begun_at_once(path, engine, "a", "b", "c")
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    assert codes(path, tmp_path, "a", "b", "c") == [expected]


@pytest.mark.parametrize("total", ["read", "good", "rejected", "orders", "total_cents"])
def test_a_total_that_is_one_too_high_is_found(tmp_path: Path, engine: Engine, total: str) -> None:
    path = tmp_path / "orders.csv"
    write_file(path, rows=200, seed=2)
    run_import(path, engine)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE imports SET {total} = {total} + 1")  # noqa: S608 - a column of ours.
    assert codes(path, tmp_path) == ["totals-differ"]
