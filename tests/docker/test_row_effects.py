"""Rows of the app's own database as effects: in PostgreSQL, and in a SQLite file beside manage.py."""

import textwrap
from pathlib import Path

import psycopg
import pytest

from harness.audit.audit import audit
from harness.audit.run_folder import RunFolder
from harness.project.needs import EffectQuery, Service
from harness.project.settings import load
from harness.records.expectation import Expect
from harness.records.verdict import Fate
from harness.stack.project_stack import spec_of
from harness.stack.shared_parts import SharedParts
from harness.stack.stack import Stack, StackSpec
from tests.docker.accounts import failing, met, said

pytestmark = pytest.mark.docker

STOCKED = """import os, psycopg
with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
    connection.execute("INSERT INTO stock VALUES (%s, %s)", ("tea", "before"))
"""
WAREHOUSE = StackSpec(
    app="warehouse",
    app_folder=Path("tests/docker/apps").absolute(),
    options=["--concurrency=2", "--without-mingle", "--without-gossip"],
    env={"DATABASE_URL": "{database.url}", "CACHE": "{redis.url}", "STOCKED": STOCKED},
    prepare=["python warehouse.py", "sh -c 'python -c \"$STOCKED\"'"],
    services=[Service.POSTGRESQL, Service.REDIS],
    effects={
        "article": EffectQuery(query="SELECT article, task FROM stock WHERE article LIKE '%'"),
        "price": EffectQuery(query="SELECT price FROM stock"),
        "thief": EffectQuery(query="WITH gone AS (DELETE FROM stock RETURNING article) SELECT article FROM gone"),
        "shelf": EffectQuery(query="SELECT article FROM shelves;"),
    },
)
SHOP = """
    import pathlib, sqlite3

    from celery import Celery

    app = Celery("shop")
    FILE = pathlib.Path(__file__).with_name("db.sqlite3")

    @app.task(name="shop.order")
    def order(number, times):
        with sqlite3.connect(FILE) as database:
            for _ in range(times):
                database.execute("INSERT INTO shop_order (number) VALUES (?)", (number,))
"""
MANAGE = """
    import pathlib, sqlite3

    with sqlite3.connect(pathlib.Path(__file__).with_name("db.sqlite3")) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE shop_order (id INTEGER PRIMARY KEY, number INTEGER)")
        database.execute("INSERT INTO shop_order (number) VALUES (1)")
"""
SETTINGS = """
    app = "shop"
    prepare = ["python manage.py migrate"]
    writable = true

    [effects]
    order = { query = "SELECT number FROM shop_order", database = "db.sqlite3" }
"""


@pytest.fixture
def session(_harness_session: SharedParts) -> SharedParts:
    """Return the session that all tests share."""
    return _harness_session


def test_rows_in_postgresql_are_effects(session: SharedParts, tmp_path: Path) -> None:
    with Stack(session, WAREHOUSE, RunFolder.create(tmp_path, "warehouse")) as stack:
        send = stack.producer.send
        # One was there before, and is no effect of a task.
        send("stock.put", ["tea"], expect=Expect(effects=["article:tea"]))
        first = stack.settle()
        assert met(first) == {Fate.OK: 1}, first.text()
        # What cannot be read is told, and is nothing to a task that expects nothing of it.
        assert failing(first) == {"effects-unseen"}
        told = " ".join(finding.text for finding in first.findings if finding.code == "effects-unseen")
        assert 'effects.price in the stack\'s PostgreSQL are not known: column "price" does not exist' in told
        assert 'relation "shelves" does not exist' in told
        assert "data-modifying" in told or "read-only transaction" in told
        twice = [send("stock.put", ["rice"], expect=Expect(effects=["article:rice"])).task for _ in range(2)]
        lost = send("stock.put", ["salt"], expect=Expect(effects=["article:pepper"])).task
        send("stock.put", ["oil"], expect=Expect(effects=["article:oil", "price:7"]))
        found = stack.settle()
        with psycopg.connect(stack.leases[Service.POSTGRESQL].url_outside.replace("+psycopg", "")) as connection:
            assert connection.execute("SELECT count(*) FROM stock").fetchone() == (6,)
    assert met(found) == {Fate.OK: 1, Fate.DUPLICATED: 2, Fate.LOST: 1, Fate.UNKNOWN: 1}, found.text()
    by_code = {finding.code: finding.tasks for finding in found.findings}
    assert set(by_code["duplicated"]) == set(twice)
    assert by_code["lost"] == (lost,)
    assert by_code["unexpected-effects"] == ("article:salt",)
    # The folder alone says the same.
    assert audit(stack.folder).fates == found.fates


def test_rows_in_a_sqlite_file_beside_manage_py_are_effects(session: SharedParts, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    for name, text in {"shop.py": SHOP, "manage.py": MANAGE, "harness.toml": SETTINGS}.items():
        (project / name).write_text(textwrap.dedent(text))
    with Stack(session, spec_of(load(project), workers=1), RunFolder.create(tmp_path, "shop")) as stack:
        send = stack.producer.send
        send("shop.order", [1, 1], expect=Expect(effects=["order:1"]))
        send("shop.order", [2, 1], expect=Expect(effects=["order:2"]))
        found = stack.settle()
        assert found.passed, found.text()
        assert met(found) == {Fate.OK: 2}
        send("shop.order", [3, 2], expect=Expect(effects=["order:3"]))
        send("shop.order", [4, 0], expect=Expect(effects=["order:4"]))
        found = stack.settle()
    assert met(found) == {Fate.OK: 2, Fate.DUPLICATED: 1, Fate.LOST: 1}, found.text()
    assert "order:4" in said(found, "lost")
    assert "order:3" in said(found, "duplicated")
    # The app's own folder is as it was.
    assert sorted(path.name for path in project.iterdir() if path.name != "__pycache__") == [
        "harness.toml",
        "manage.py",
        "shop.py",
    ]
