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
from celery.app.annotations import prepare
from celery.app.defaults import SETTING_KEYS
from celery.utils.functional import firstmethod

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

    Of `task_annotations`, each option wins over the app's own annotation of it, and what they do not name stays. A name
    that neither Celery nor the app knows ends the process: it would change nothing, and nobody would notice.
    """

    def on_import_modules(sender: Celery, **_: Any) -> None:
        if unknown := [name for name in settings if name not in SETTING_KEYS and name not in sender.conf]:
            sys.exit(f"celery-harness: {_unknown(unknown[0])}")
        own = sender.conf.task_annotations
        sender.conf.update(settings)
        if own and (more := settings.get("task_annotations")):
            sender.conf.task_annotations = [_Annotations(own, more)]

    signals.import_modules.connect(on_import_modules, weak=False)


class _Annotations:
    """The annotations of an app's tasks with others that win over them.

    Celery asks a list of annotations for the first that knows a task, and lets what holds for all tasks win over that.
    In a list, the app's own would therefore hide the others.
    """

    def __init__(self, own: Any, others: Any) -> None:
        self._all = (prepare(own), prepare(others))

    def annotate(self, task: Any) -> dict[str, Any]:
        """Return the options of a task, as Celery asks for them."""
        both = (options for annotations in self._all for options in annotations_of(task, annotations).values())
        return {option: value for options in both for option, value in options.items()}


def annotations_of(task: Any, annotations: Any) -> dict[str, dict[str, Any]]:
    """Return what prepared annotations set of a task, by key: the task's name, then `*`, which Celery lets win."""
    named = firstmethod("annotate")(annotations, task)
    return {task.name: named or {}, "*": firstmethod("annotate_any")(annotations) or {}}


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
