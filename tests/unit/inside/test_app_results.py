"""Results lie where the harness looks, and what nobody can decode is told."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from celery import Celery
from celery.backends.database import DatabaseBackend
from celery.backends.database.models import Task, TaskSet

from harness.inside.app_results import keep_table_names, returned, stores_json, with_driver
from harness.records import values


class Pickling:
    """A back end that pickles results, as Celery's database back end did until 5.6."""

    serializer = "json"

    class task_cls:  # noqa: N801 - Celery's name for it.
        """The model of a row."""

        class __table__:  # noqa: N801 - SQLAlchemy's name for it.
            """Its table."""

            c = SimpleNamespace(result=sa.Column("result", sa.PickleType))


class InJson(Pickling):
    """A back end that writes results as JSON."""

    class task_cls:  # noqa: N801 - the same.
        """The model of a row."""

        class __table__:  # noqa: N801 - the same.
            """Its table."""

            c = SimpleNamespace(result=sa.Column("result", sa.LargeBinary))


class Yaml(InJson):
    """One that writes them as YAML."""

    serializer = "yaml"


@pytest.mark.parametrize(("backend", "is_json"), [(Pickling(), False), (InJson(), True), (Yaml(), False), (None, True)])
def test_a_back_end_that_writes_no_json_is_known(backend: object, is_json: bool) -> None:  # noqa: FBT001 - a fact.
    assert stores_json(backend) is is_json


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (None, {"returned": [None]}),
        ((1, "two"), {"returned": [[1, "two"]]}),
        (float("nan"), {}),
        (object(), {}),
        ("x" * 198, {"returned": ["x" * 198]}),
    ],
)
def test_a_result_is_told_as_json_if_it_has_such_a_value(result: object, said: dict[str, Any]) -> None:
    assert returned(result) == said


def test_a_lone_surrogate_is_told_as_a_digest() -> None:
    text = json.dumps("caf\udce9.csv")
    assert returned("caf\udce9.csv") == {"start": text, "digest": values.digest(text)}


def test_of_a_long_result_the_beginning_and_a_digest_are_told() -> None:
    long = {"b": ["x"] * 1_000, "a": 1}
    told = returned(long)
    assert told["start"] == json.dumps(long)[:100]
    assert told["digest"] == values.digest(json.dumps({"a": 1.0, "b": ["x"] * 1_000}))
    assert told["digest"] != values.digest(json.dumps({"a": True, "b": ["x"] * 1_000}))


@pytest.fixture
def _back_end_restored() -> Iterator[None]:
    make = DatabaseBackend.__init__
    yield
    DatabaseBackend.__init__ = make
    Task.configure()
    TaskSet.configure()


NAMES = {"task": "my_results", "group": "my_groups"}
SCHEMAS = {"task": "mine", "group": "mine"}


def by_attributes(app: Celery) -> None:
    app.conf.database_table_names = NAMES
    app.conf.database_table_schemas = SCHEMAS


def by_object(app: Celery) -> None:
    app.config_from_object({"database_table_names": NAMES, "database_table_schemas": SCHEMAS})


def by_namespace(app: Celery) -> None:
    app.config_from_object(
        {"CELERY_DATABASE_TABLE_NAMES": NAMES, "CELERY_DATABASE_TABLE_SCHEMAS": SCHEMAS}, namespace="CELERY"
    )


def by_old_names(app: Celery) -> None:
    app.config_from_object({"CELERY_RESULT_DB_TABLENAMES": NAMES, "CELERY_TASK_SERIALIZER": "json"})


def by_schema_alone(app: Celery) -> None:
    app.conf.update(database_table_schemas=SCHEMAS)


def by_group_alone(app: Celery) -> None:
    app.conf.update(database_table_names={"group": "my_groups"})


def by_engine_options(app: Celery) -> None:
    app.conf.update(database_engine_options={"connect_args": {"sslmode": "require"}, "pool_size": 5})


@pytest.mark.usefixtures("_back_end_restored")
@pytest.mark.parametrize(
    "tells",
    [by_attributes, by_object, by_namespace, by_old_names, by_schema_alone, by_group_alone, by_engine_options],
)
def test_rows_lie_in_tables_of_celerys_names_whatever_the_app_calls_its_own(
    tmp_path: Path, tells: Callable[[Celery], None]
) -> None:
    url = f"db+sqlite:///{tmp_path}/results.sqlite3"
    keep_table_names(url)
    app = Celery("shop", backend=url, set_as_current=False)
    tells(app)
    app.backend.store_result("t-1", 1, "SUCCESS")
    with closing(sqlite3.connect(tmp_path / "results.sqlite3")) as connection:
        assert connection.execute("SELECT task_id FROM celery_taskmeta").fetchall() == [("t-1",)]
        assert connection.execute("SELECT count(*) FROM celery_tasksetmeta").fetchone() == (0,)


@pytest.mark.usefixtures("_back_end_restored")
def test_another_database_of_the_app_keeps_its_names(tmp_path: Path) -> None:
    keep_table_names("db+sqlite:////harness/run/results.sqlite3")
    app = Celery("shop", backend=f"db+sqlite:///{tmp_path}/mine.sqlite3", set_as_current=False)
    by_group_alone(app)
    app.conf.database_table_names = NAMES
    app.backend.store_result("t-1", 1, "SUCCESS")
    with closing(sqlite3.connect(tmp_path / "mine.sqlite3")) as connection:
        assert connection.execute("SELECT count(*) FROM my_results").fetchone() == (1,)


@pytest.mark.parametrize(
    ("installed", "driver"),
    [(("psycopg2", "psycopg"), "psycopg2"), (("psycopg",), "psycopg"), (("pg8000",), "pg8000")],
)
def test_results_in_postgresql_are_stored_with_the_driver_that_is_installed(
    monkeypatch: pytest.MonkeyPatch, installed: tuple[str, ...], driver: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name in installed or None)
    assert with_driver("db+postgresql://u:p@h/d") == f"db+postgresql+{driver}://u:p@h/d"


def test_without_a_driver_for_postgresql_a_worker_says_so_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(SystemExit, match="install one of psycopg2, psycopg, pg8000"):
        with_driver("db+postgresql://u:p@h/d")


@pytest.mark.parametrize("url", ["", "db+sqlite:////run/results.sqlite3", "db+postgresql+asyncpg://u:p@h/d", "rpc://"])
def test_the_url_of_another_result_backend_stays_as_it_is(url: str) -> None:
    assert with_driver(url) == url
