"""Settings that a node sets in the app that it runs, overriding the app's own."""

import difflib
import json
import os
import sqlite3
import sys
from collections.abc import Mapping
from typing import Any

import celery
from celery import Celery, signals
from celery.app.defaults import SETTING_KEYS

from harness.records.values import Json

_BUSY_TIMEOUT_MS = 60_000


def tune_sqlite(results_url: str) -> None:
    """Give every connection to a SQLite result file a long busy timeout, and one fsync less per commit.

    Several worker processes write one result file. With Celery's default of 5 s, a busy period turns a finished task
    into a FAILURE. WAL is already set in the file; these two are settings of a connection. The app's own databases are
    not changed.

    Args:
        results_url: Celery's result backend, such as ``db+sqlite:////harness/run/results.sqlite3``.
    """
    try:
        from sqlalchemy import event  # noqa: PLC0415 - an app without a database backend need not have it.
        from sqlalchemy.engine import Engine  # noqa: PLC0415 - the same.
        from sqlalchemy.engine.url import make_url  # noqa: PLC0415 - the same; where every version has it.
    except ImportError:
        return
    if not results_url.startswith("db+sqlite"):
        return
    file = make_url(results_url.removeprefix("db+")).database

    def on_connect(connection: Any, _record: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            files = {row[2] for row in connection.execute("PRAGMA database_list")}
            if file in files:
                connection.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS:d}")
                connection.execute("PRAGMA synchronous=NORMAL")

    event.listen(Engine, "connect", on_connect)


def use_settings(settings: Mapping[str, Json]) -> None:
    """Make these settings override those of the app that this process is about to run.

    `task_annotations` come after the app's own, so that an option that only the app's own name stays. A name that
    neither Celery nor the app knows ends the process: it would change nothing, and nobody would notice.
    """

    def on_import_modules(sender: Celery, **_: Any) -> None:
        if unknown := [name for name in settings if name not in SETTING_KEYS and name not in sender.conf]:
            sys.exit(f"celery-harness: {_unknown(unknown[0])}")
        own = sender.conf.task_annotations
        sender.conf.update(settings)
        if own and (more := settings.get("task_annotations")):
            sender.conf.task_annotations = [*(own if isinstance(own, list | tuple) else [own]), more]

    signals.import_modules.connect(on_import_modules, weak=False)


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, SETTING_KEYS, n=1)
    advice = f" The nearest is {near[0]}." if near else ""
    return f"{name} is no setting of Celery {celery.__version__}, and none of the app's own.{advice}"


def without_tls() -> dict[str, Json]:
    """Return the setting that turns TLS off in the app if the broker's URL has no TLS; empty otherwise."""
    return {"broker_use_ssl": False} if os.environ.get("CELERY_BROKER_URL", "").startswith("amqp://") else {}


def settings_in(text: str) -> dict[str, Json]:
    """Return the settings in the value of HARNESS_SETTINGS; a value that is not a JSON object ends the process."""
    try:
        settings = json.loads(text)
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        sys.exit(f"HARNESS_SETTINGS is no JSON object: {text}")
    return settings
