"""Effects in the app's own database: which rows count, and what is said where they cannot be read."""

import json
import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from harness.audit.run_folder import RunFolder
from harness.containers.app_node import AppNode
from harness.containers.service import Lease
from harness.project.needs import EffectQuery, Mount
from harness.records.values import Json
from harness.records.verdict import Verdict
from harness.stack.row_effects import RowEffects
from harness.wait import Clock

Make = Callable[..., RowEffects]
Run = Callable[[str], None]
ORDERS = "SELECT number FROM orders ORDER BY number"


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "runs", "orders")


@pytest.fixture
def make(folder: RunFolder, tmp_path: Path) -> Make:
    """Return a function that makes the look for orders by one query, in the file of the run folder unless said."""
    (tmp_path / "shop").mkdir()

    def made(
        query: str = ORDERS, database: str | None = None, *, server: Lease | None = None, **more: Any
    ) -> RowEffects:
        app = AppNode(
            image="",
            app="shop",
            app_folder=tmp_path / "shop",
            run_folder=folder.path,
            network="",
            broker_url="",
            mounts=[Mount(host=tmp_path / "data", inside="/data")],
        )
        return RowEffects({"order": EffectQuery(query=query, database=database)}, app, server, **more)

    return made


@pytest.fixture
def run(folder: RunFolder) -> Run:
    """Return a function that changes the database in the run folder."""
    return lambda script: change(folder.path / "app" / "app.sqlite3", script)


def change(path: Path, script: str) -> None:
    path.parent.mkdir(exist_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)


def lines(folder: RunFolder) -> list[dict[str, Json]]:
    return [json.loads(line) for line in (folder.effects / "rows-order.jsonl").read_text().splitlines()]


def test_the_rows_that_came_are_effects_and_those_from_before_are_none(make: Make, run: Run, folder: RunFolder) -> None:
    run("CREATE TABLE orders (number); INSERT INTO orders VALUES (1), (2), (2)")
    orders = make()
    orders.begin()
    assert orders.look(folder) == []
    assert lines(folder) == []
    run("DELETE FROM orders WHERE number = 1; INSERT INTO orders VALUES (2), (3), (3), ('ä')")
    for _ in range(2):
        assert orders.look(folder) == []
        assert lines(folder) == [{"key": f"order:{key}", "task": None, "kind": "order"} for key in ("2", "3", "3", "ä")]


def test_a_query_may_say_how_often_and_by_which_task(make: Make, run: Run, folder: RunFolder) -> None:
    run("CREATE TABLE orders (number, paid, task); INSERT INTO orders VALUES (1, 1, 'a'), (2, 0, 'b')")
    orders = make("SELECT number, paid AS times, task AS Task FROM orders WHERE number LIKE '%'")
    orders.begin()
    run("UPDATE orders SET paid = 3 WHERE number = 1; INSERT INTO orders VALUES (4, 1.0, NULL)")
    assert orders.look(folder) == []
    assert [(line["key"], line["task"]) for line in lines(folder)] == [("order:1", "a")] * 2 + [("order:4", None)]


def test_a_table_that_a_task_makes_had_no_rows_before(make: Make, run: Run, folder: RunFolder) -> None:
    absent, empty = make(), make()
    absent.begin()
    run("CREATE TABLE others (number)")
    empty.begin()
    run("CREATE TABLE orders (number); INSERT INTO orders VALUES (1)")
    for orders in (absent, empty):
        assert orders.look(folder) == []
        assert [line["key"] for line in lines(folder)] == ["order:1"]


@pytest.mark.parametrize(
    ("database", "path"),
    [("db.sqlite3", "shop/db.sqlite3"), ("/app/var/x.db", "shop/var/x.db"), ("/data/x.db", "data/x.db")],
)
def test_a_file_is_named_as_nodes_see_it(
    make: Make, folder: RunFolder, tmp_path: Path, database: str, path: str
) -> None:
    change(tmp_path / path, "CREATE TABLE orders (number)")
    orders = make(database=database)
    orders.begin()
    change(tmp_path / path, "INSERT INTO orders VALUES (7)")
    assert orders.look(folder) == []
    assert [line["key"] for line in lines(folder)] == ["order:7"]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT number FROM ordres", "in /harness/run/app/app.sqlite3 are not known: no such table: ordres"),
        ("SELECT id FROM orders", "no such column: id"),
        ("SELECT number FORM orders", 'near "orders": syntax error'),
        ("SELECT 1; SELECT 2", "one statement at a time"),
        ("WITH x AS (SELECT 1) INSERT INTO orders SELECT * FROM x", "attempt to write a readonly database"),
        ("SELECT NULL FROM orders", "a key is NULL: the first column has to be a text"),
        ("SELECT x'00' FROM orders", "a key is bytes"),
        ("SELECT number, 1 AS count FROM orders", "the query has a column count: the first column is the key"),
        ("SELECT number, 0.5 AS times FROM orders", "`times` is 0.5 for the key 1: it has to be a whole number"),
        ("SELECT number, NULL AS times FROM orders", "`times` is None for the key 1"),
        ("SELECT number, 4 AS times FROM orders", "the query finds more than 3 of them: let it find fewer"),
    ],
)
def test_a_query_that_fails_is_a_finding_in_the_databases_own_words(
    make: Make, run: Run, folder: RunFolder, query: str, said: str
) -> None:
    run("CREATE TABLE orders (number); INSERT INTO orders VALUES (1)")
    folder.write_lines("effects/rows-order.jsonl", [])
    orders = make(query, most=3)
    orders.begin()
    (finding,) = orders.look(folder)
    assert (finding.code, finding.verdict, finding.count) == ("effects-unseen", Verdict.UNKNOWN, 1)
    assert finding.text.startswith("the rows of effects.order in ")
    assert said in finding.text
    # Nothing of an earlier look is left, and nothing was written.
    assert list(folder.effects.iterdir()) == []
    again = make()
    again.begin()
    assert again.look(folder) == []
    assert lines(folder) == []


@pytest.mark.parametrize(
    ("database", "said"),
    [
        (None, 'there is no such file; name the app\'s own file, as in database = "db.sqlite3"'),
        ("db.sqlite3", "in /app/db.sqlite3 are not known: there is no such file."),
        ("/var/db.sqlite3", "it is in no folder that nodes share with this machine"),
        ("text.db", "file is not a database"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_finding(
    make: Make, folder: RunFolder, tmp_path: Path, database: str | None, said: str
) -> None:
    (tmp_path / "shop" / "text.db").write_text("no database at all" * 100)
    orders = make(database=database)
    orders.begin()
    (finding,) = orders.look(folder)
    assert said in finding.text


def test_rows_of_which_nobody_knows_whether_they_are_new_are_unknown(make: Make, run: Run, folder: RunFolder) -> None:
    run("CREATE TABLE orders (id); INSERT INTO orders VALUES (1)")
    orders = make()
    orders.begin()
    run("ALTER TABLE orders RENAME COLUMN id TO number")
    (finding,) = orders.look(folder)
    assert "no such column: number" in finding.text


def test_rows_that_had_no_key_before_are_not_new_when_they_have_one(make: Make, run: Run, folder: RunFolder) -> None:
    run("CREATE TABLE orders (number); INSERT INTO orders VALUES (NULL)")
    orders = make()
    orders.begin()
    run("UPDATE orders SET number = 1")
    (finding,) = orders.look(folder)
    assert "a key is NULL" in finding.text


@pytest.mark.parametrize(
    ("rows", "is_told"),
    [
        ("INSERT INTO orders VALUES (1, 1), (2, 1), (3, 1)", False),
        ("INSERT INTO orders VALUES (1, 3)", False),
        ("INSERT INTO orders VALUES (1, 0), (2, 0), (3, 0), (4, 0)", True),
    ],
)
def test_a_query_may_find_as_many_effects_as_the_limit_says(
    make: Make, run: Run, folder: RunFolder, rows: str, *, is_told: bool
) -> None:
    run(f"CREATE TABLE orders (number, times); {rows}")
    orders = make("SELECT number, times FROM orders", most=3)
    orders.begin()
    assert ["more than 3 of them" in finding.text for finding in orders.look(folder)] == [True] * is_told


def test_a_query_without_an_end_is_cut_off(make: Make, run: Run, folder: RunFolder) -> None:
    run("CREATE TABLE orders (number)")
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    ticks = count(0, 10)
    orders = make(endless, clock=Clock(now=lambda: float(next(ticks))))
    orders.begin()
    (finding,) = orders.look(folder)
    assert finding.text.endswith("the query took more than 60 s.")


def test_a_query_without_a_file_goes_to_the_server_of_the_stack_and_any_other_to_its_file(
    make: Make, folder: RunFolder, tmp_path: Path
) -> None:
    change(tmp_path / "shop" / "db.sqlite3", "CREATE TABLE orders (number)")
    # It is bound and does not listen, so that nobody else answers at its port.
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        url = f"postgresql+psycopg://u:p@127.0.0.1:{silent.getsockname()[1]}/u"
        server = Lease(user="u", password="", database="u", url_inside="", url_outside=url, values={})
        orders, own = make(server=server), make(database="db.sqlite3", server=server)
        for each in (orders, own):
            each.begin()
        (finding,) = orders.look(folder)
    assert finding.text.startswith("the rows of effects.order in the stack's PostgreSQL are not known: ")
    assert "Connection refused" in finding.text
    change(tmp_path / "shop" / "db.sqlite3", "INSERT INTO orders VALUES (7)")
    assert own.look(folder) == []
    assert [line["key"] for line in lines(folder)] == ["order:7"]
