"""Sending of tasks over HTTP: each in a thread; which of them the broker confirmed is remembered."""

import asyncio
import logging
import threading
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Protocol, Self

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from harness.audit.results import Results
from harness.errors import JournalError
from harness.inside.web.problem import NotSent
from harness.producer import Sent
from harness.records.event import Kind
from harness.records.expectation import Expect
from harness.records.values import Json

SENDS = 32
"""The most tasks that are sent at once, each with a thread and a connection. More are refused."""

MEMORY = 100_000
"""The most sent tasks that are remembered. Beyond it, the oldest is forgotten and, without a row, unknown."""

_log = logging.getLogger("harness.web")


class Sender(Protocol):
    """The part of `harness.producer.Producer` that the task sender needs."""

    def at(self, due_t: float) -> "Sender":
        """Return the same sender, for what was due at `due_t` (Unix time, seconds)."""

    def send(self, name: str, *, kwargs: Mapping[str, Json], expect: Expect | None, task_id: str) -> Sent:
        """Send one task, once. Several threads may call it at a time."""


class TaskSender:
    """Sends tasks and knows their state. A context manager: its exit waits for the sends in flight."""

    def __init__(self, producer: Sender, results: Results, *, sends: int = SENDS) -> None:
        """Create the task sender; at most `sends` tasks may be on their way at once."""
        self._producer = producer
        self.results = results
        self._pool = ThreadPoolExecutor(sends, thread_name_prefix="send")
        self._free = threading.BoundedSemaphore(sends)
        self._sends = sends
        self._confirmed: dict[str, bool] = {}

    def __enter__(self) -> Self:
        """Return the task sender."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for the sends in flight, which the producer's time-outs bound."""
        self._pool.shutdown()

    async def send(
        self, name: str, kwargs: Mapping[str, Json], expect: Expect | None, *, due_t: float | None = None
    ) -> str:
        """Send one task in a thread of its own. Return its id once the broker has confirmed it.

        Args:
            name: the task's registered name.
            kwargs: its arguments, JSON.
            expect: what the audit demands.
            due_t: when it was due (Unix time, seconds), if not now.

        Raises:
            NotSent: the broker has not confirmed it, or too many tasks are on their way.
        """
        if not self._free.acquire(blocking=False):
            detail = f"{self._sends} tasks are on their way to the broker already; this one was not sent."
            raise NotSent(Kind.REFUSED, detail, retry_after_s=1)
        task = str(uuid.uuid4())
        producer = self._producer if due_t is None else self._producer.at(due_t)
        future = self._pool.submit(producer.send, name, kwargs=kwargs, expect=expect, task_id=task)
        future.add_done_callback(lambda _: self._free.release())
        try:
            sent = await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            # The server is ending and does not wait. The thread goes on, so that the outcome is unknown.
            sent = Sent(task=task, outcome=Kind.UNKNOWN, reason="the web producer is shutting down")
        except JournalError as error:
            # The error does not tell whether the message had been published.
            _log.error("%s", error)
            sent = Sent(task=task, outcome=Kind.UNKNOWN, reason="the journal cannot be written")
        if sent.outcome is Kind.REFUSED:
            raise NotSent(sent.outcome, "The broker did not take the task.", reason=sent.reason)
        self._remember(task, confirmed=sent.accepted)
        if not sent.accepted:
            detail = "Nobody can say whether the broker took the task: it may still run."
            raise NotSent(sent.outcome, detail, reason=sent.reason, task_id=task)
        return task

    def _remember(self, task: str, *, confirmed: bool) -> None:
        self._confirmed[task] = confirmed
        if len(self._confirmed) > MEMORY:
            del self._confirmed[next(iter(self._confirmed))]

    def confirmed(self, task: str) -> bool | None:
        """Return whether the broker confirmed this task; None if it was not sent here, or is forgotten."""
        return self._confirmed.get(task)


class Taken(BaseModel):
    """A task that the broker has confirmed."""

    task_id: str


async def submit(
    request: Request,
    name: str,
    kwargs: Mapping[str, Json],
    *,
    expect: Expect | None = None,
    about: Mapping[str, Json] | None = None,
) -> Response:
    """Send one task, and answer 202 with its id and where to ask for it.

    Args:
        request: the request for the task; its header `Harness-Due` may say when the task was due.
        name: the task's registered name.
        kwargs: its arguments, JSON.
        expect: what the audit demands.
        about: more members of the answer.

    Raises:
        NotSent: the broker has not confirmed it. If it is not caught, it becomes a 503 with Retry-After.
    """
    desk: TaskSender = request.app.state.desk
    task = await desk.send(name, kwargs, expect, due_t=request.scope.get("harness.due"))
    body = {"task_id": task, **(about or {})}
    return JSONResponse(body, HTTPStatus.ACCEPTED, {"Location": f"/tasks/{task}"})
