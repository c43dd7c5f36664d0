"""The server: answers until it is told to end, and journals its start and end."""

import contextlib
import importlib
import os
import signal
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import APIRouter, FastAPI

from harness.audit.results import Results
from harness.errors import UsageError
from harness.inside.breakpoints import Breakpoints
from harness.inside.web.app import create_app
from harness.inside.web.connection import ImpatientConnection
from harness.inside.web.task_sender import TaskSender
from harness.producer import Producer
from harness.records.event import Kind
from harness.records.journal import Writer
from harness.records.route import told_in

SEND_TIMEOUT_S = 5.0
"""The producer's time-out for each of its steps, in seconds."""

_SHUTDOWN_S = 4
"""Seconds that requests in flight may go on after a SIGTERM. The engine kills after 10 s, and a send may add to this.
"""


def load_routes(module: str) -> APIRouter:
    """Return the `router` of a module. Raises UsageError if there is none."""
    try:
        router = getattr(importlib.import_module(module), "router", None)
    except ImportError as error:
        raise UsageError(f"cannot import the routes {module!r}: {error}. Is it in the app's folder?") from error
    if not isinstance(router, APIRouter):
        raise UsageError(f"{module} has no `router` that is a fastapi.APIRouter.")
    return router


def _env(name: str) -> str:
    try:
        return os.environ[name]
    except KeyError:
        raise UsageError(
            f"{name} is not set; see harness.containers.web_node for what the web producer needs."
        ) from None


def serve(router: APIRouter | None, *, host: str, port: int) -> None:
    """Answer until SIGTERM or SIGINT, as configured by the environment, and journal it.

    Raises:
        UsageError: the environment lacks something.
        ResultsError: CELERY_RESULT_BACKEND is no database.
        JournalError: the journal cannot be written.
    """
    writer = Writer(_env("HARNESS_JOURNAL"), node=_env("HARNESS_NODE"), role="producer")
    broker_url, results = _env("CELERY_BROKER_URL"), Results(_env("CELERY_RESULT_BACKEND"))
    title = f"{os.environ.get('HARNESS_APP', 'no app')}: web producer"
    with contextlib.closing(writer) as journal:
        journal.write(Kind.UP)
        # Without a run folder nobody can hold anything.
        reach = Breakpoints(
            Path(os.environ.get("HARNESS_RUN", os.environ["HARNESS_JOURNAL"])), _env("HARNESS_NODE")
        ).reach
        with (
            Producer(broker_url, journal, timeout_s=SEND_TIMEOUT_S, reach=reach) as producer,
            TaskSender(producer, results) as desk,
        ):
            producer.routes = told_in(Path(_env("HARNESS_JOURNAL")))
            app = create_app(desk, router, title=title)
            stopped_by = _run(uvicorn.Server(configured(app, host=host, port=port)))
        journal.write(Kind.DOWN, signal=stopped_by)


def configured(app: FastAPI, *, host: str, port: int, shutdown_s: int = _SHUTDOWN_S) -> uvicorn.Config:
    """Return the server's configuration; requests in flight get `shutdown_s` more seconds at the end."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=ImpatientConnection,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=shutdown_s,
    )


def _run(server: uvicorn.Server) -> str:
    """Run the server, and return the name of the signal that ended it."""
    signals: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        # The server handles signals while it runs and raises them again at its end. The default handlers
        # would then kill the process before it could journal a clean end.
        signals.append(number)
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    server.run()
    return signal.Signals(signals[0]).name if signals else "none"
