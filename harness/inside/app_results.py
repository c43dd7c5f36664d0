"""Changes to a worker that let the harness read what the app's tasks return."""

import importlib.util
import json
import re
import sys
from typing import Any

from celery.exceptions import ImproperlyConfigured
from kombu.utils import json as kombu_json

from harness.records import values
from harness.records.values import Json

_LONGEST = 200
"""The most characters of a result in the journal; of a longer one it has the beginning and a digest."""
_SURROGATE = re.compile(r"\\ud[89a-f]")
"""A surrogate, lone or one of a pair: not every reader of the journal accepts it as text."""
_HARMLESS = ("pool_pre_ping", "pool_recycle")
"""Options of a database engine that a SQLite file accepts as well."""
_ANY_DRIVER = "db+postgresql://"
_DRIVERS = ("psycopg2", "psycopg", "pg8000")
"""SQLAlchemy's drivers for PostgreSQL that a worker can use, the most frequent one first."""


def with_driver(results_url: str) -> str:
    """Return the URL of a result backend with a driver that is installed; other URLs are returned unchanged.

    Raises:
        SystemExit: none is installed; the message says what to install.
    """
    if not results_url.startswith(_ANY_DRIVER):
        return results_url
    driver = next((name for name in _DRIVERS if importlib.util.find_spec(name)), None)
    if driver is None:
        sys.exit(
            "harness: the results are in PostgreSQL, and the image of the workers has no driver for it: "
            f"install one of {', '.join(_DRIVERS)} among the app's own packages."
        )
    return f"db+postgresql+{driver}://{results_url.removeprefix(_ANY_DRIVER)}"


def keep_table_names(results_url: str) -> None:
    """Make Celery keep results in tables of its own names, regardless of the names that the app sets.

    The app's settings for table names and for the database engine apply to the app's own database. They are replaced
    when the backend of the harness's file is made: after that, the app cannot set them again.

    Args:
        results_url: Celery's result backend, such as ``db+sqlite:////harness/run/results.sqlite3``.
    """
    try:
        from celery.backends.database import DatabaseBackend  # noqa: PLC0415 - it needs SQLAlchemy.
    except (ImportError, ImproperlyConfigured):
        return
    if not results_url.startswith(("db+sqlite", "db+postgresql")):
        return
    make = DatabaseBackend.__init__
    ours = results_url.removeprefix("db+")

    def make_with_own_names(backend: Any, *args: Any, **options: Any) -> None:
        app = options.get("app")
        if app is not None and str(options.get("url")).removeprefix("db+") == ours:
            engine = {key: value for key, value in (app.conf.database_engine_options or {}).items() if key in _HARMLESS}
            app.conf.update(database_table_names={}, database_table_schemas={}, database_engine_options=engine)
        make(backend, *args, **options)

    DatabaseBackend.__init__ = make_with_own_names


def stores_json(backend: Any) -> bool:
    """Return whether a backend writes results as JSON. Celery's database backend pickled them until 5.6."""
    if getattr(backend, "serializer", "json") != "json":
        return False
    table = getattr(getattr(backend, "task_cls", None), "__table__", None)
    return table is None or type(table.c.result.type).__name__ != "PickleType"


def returned(result: Any) -> dict[str, Json]:
    """Return what the journal records of a result that cannot be read otherwise; empty if JSON has no such value."""
    try:
        # Celery 5.7 stores dates and decimals in this form of Kombu's.
        text = kombu_json.dumps(result)
        if len(text) > _LONGEST or _SURROGATE.search(text):
            return {"start": text[: _LONGEST // 2], "digest": values.digest(text)}
        return {"returned": [json.loads(text, parse_constant=_refuse)]}
    except (TypeError, ValueError, RecursionError):
        return {}


def _refuse(constant: str) -> None:
    raise ValueError(f"JSON has no {constant}")
