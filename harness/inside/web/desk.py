"""The desk: tasks are handed in, one thread each, and it remembers which of them the broker confirmed."""

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
"""How many tasks may be on their way to the broker at once, each with a thread and a connection. More are refused."""

MEMORY = 100_000
"""How many of the tasks that were sent are remembered; beyond it, the oldest without a row is not known any more."""

_log = logging.getLogger("harness.web")


class Sender(Protocol):
    """What is needed of `harness.producer.Producer`."""

    def at(self, due_t: float) -> "Sender":
        """The same, for what was to be sent at `due_t` (Unix time, seconds)."""

    def send(self, name: str, *, kwargs: Mapping[str, Json], expect: Expect | None, task_id: str) -> Sent:
        """Send one task, once; several threads may do so at a time."""


class Desk:
    """Where tasks are handed in and asked for. A context manager: its end waits for the sends in flight."""

    def __init__(self, producer: Sender, results: Results, *, sends: int = SENDS) -> None:
        """`sends` bounds how many may be on their way at once."""
        self._producer = producer
        self.results = results
        self._pool = ThreadPoolExecutor(sends, thread_name_prefix="send")
        self._free = threading.BoundedSemaphore(sends)
        self._sends = sends
        self._confirmed: dict[str, bool] = {}

    def __enter__(self) -> Self:
        """The desk itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for the sends in flight, which the producer's time-outs bound."""
        self._pool.shutdown()

    async def send(
        self, name: str, kwargs: Mapping[str, Json], expect: Expect | None, *, due_t: float | None = None
    ) -> str:
        """Send one task in a thread of its own; returns its id once the broker has confirmed it.

        Args:
            name: the task's registered name.
            kwargs: its arguments, JSON.
            expect: what the audit shall demand.
            due_t: when it was to be sent (Unix time, seconds), if that is not now.

        Raises:
            NotSent: it has not, or too many are on their way.
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
            # The server ends and waits no longer. The thread goes on, and whoever asked is told what is true.
            sent = Sent(task=task, outcome=Kind.UNKNOWN, reason="the web producer is shutting down")
        except JournalError as error:
            # Whether it happened before the message was published, the error does not say.
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
        """Whether the broker confirmed this task; None if nobody sent it here, or too long ago."""
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
        request: the request that asks for it; it may say with `Harness-Due` when that was to happen.
        name: the task's registered name.
        kwargs: its arguments, JSON.
        expect: what the audit shall demand.
        about: more members of the answer.

    Raises:
        NotSent: the broker has not confirmed it. Left alone, it becomes a 503 with Retry-After.
    """
    desk: Desk = request.app.state.desk
    task = await desk.send(name, kwargs, expect, due_t=request.scope.get("harness.due"))
    body = {"task_id": task, **(about or {})}
    return JSONResponse(body, HTTPStatus.ACCEPTED, {"Location": f"/tasks/{task}"})
