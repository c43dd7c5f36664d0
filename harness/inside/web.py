"""The web producer: an HTTP app that sends a task when it is asked to, and says 202 only if the broker confirmed it.

Run in a container as ``python -P -m harness.inside.web [ROUTES]``. ROUTES is a module with the app's own routes, an
APIRouter named `router`. A route hands its task in with `submit`:

    router = APIRouter()

    @router.post("/welcomes", status_code=202, dependencies=[accepts("application/json")])
    async def welcome(request: Request, customer: Customer) -> Response:
        return await submit(request, "shop.welcome", {"address": customer.address})

Of its own it has

    GET /health        200 as long as the process answers, whatever the broker does
    GET /tasks/{id}    what the result table says of a task
    GET /docs          all routes, to read and to try; the page needs nothing from anywhere else

A request may carry the header `Harness-Due`, a Unix time in seconds such as ``1795366773.25``: when its task was to be
sent, by the plan of a load test. The journal then counts the task's time from there.

Every error is a problem document (RFC 9457). A body is limited to BODY_LIMIT_BYTES, also one that does not say how
long it is; a route that reads the body itself may allow more with `allow_body`.
"""

import asyncio
import contextlib
import importlib
import json
import logging
import os
import re
import signal
import sys
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from types import FrameType
from typing import Any, Protocol, Self

import h11
import uvicorn
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi_swagger import patch_fastapi  # type: ignore[import-untyped] # It says nothing of its types.
from pydantic import BaseModel, Field
from uvicorn.protocols.http.h11_impl import H11Protocol

from harness.audit.results import Results, Row, decode
from harness.errors import HarnessError, JournalError, ResultsError, UsageError
from harness.producer import Producer, Sent
from harness.records.event import Kind
from harness.records.expectation import Expect
from harness.records.journal import Writer
from harness.records.values import Json

BODY_LIMIT_BYTES = 256 * 1024
"""The longest body, unless a route allows more."""
IDLE_LIMIT_S = 30.0
"""A client that sends no complete head, or nothing of its body, for so long is given up."""
SEND_TIMEOUT_S = 5.0
"""The producer's time-out, for each of its steps."""
SENDS = 32
"""How many tasks may be on their way to the broker at once, each with a thread and a connection. More are refused."""
RETRY_AFTER_S = 5
"""When to come back to a broker that did not take a task."""
DUE_HEADER = "Harness-Due"
"""By which a request says when its task was to be sent."""
DUE_RANGE_S = 86_400.0
"""How far from now that may be; what is farther is no Unix time in seconds."""
MEMORY = 100_000
"""How many of the tasks that were sent are remembered; beyond it, the oldest without a row is not known any more."""
_SHUTDOWN_S = 4
"""How long requests in flight may go on after a SIGTERM. The engine kills after 10 s, and a send may add to this."""
_SHOWN_ERRORS = 20
_PROBLEM = "application/problem+json"

_log = logging.getLogger("harness.web")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Sender(Protocol):
    """What is needed of `harness.producer.Producer`."""

    def at(self, due_t: float) -> "Sender":
        """The same, for what was to be sent at `due_t` (Unix time, seconds)."""

    def send(self, name: str, *, kwargs: Mapping[str, Json], expect: Expect | None, task_id: str) -> Sent:
        """Send one task, once; several threads may do so at a time."""


# ----------------------------------------------------------------------------------------------------------- problems


class Problem(HTTPException):
    """A request that gets an error for an answer; `more` are further members of the problem document."""

    def __init__(
        self, status: HTTPStatus, detail: str, *, headers: Mapping[str, str] | None = None, **more: Json
    ) -> None:
        """`detail` is a sentence for whoever made the request."""
        super().__init__(status, detail, dict(headers or {}))
        self.more = more


class NotSent(Problem):
    """A task that the broker did not confirm."""

    def __init__(self, outcome: Kind, detail: str, *, retry_after_s: int = RETRY_AFTER_S, **more: Json) -> None:
        """`outcome` is REFUSED if the broker surely has it not, and UNKNOWN if nobody can say."""
        headers = {"Retry-After": str(retry_after_s)}
        super().__init__(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers=headers, outcome=outcome.value, **more)
        self.outcome = outcome


class ProblemDocument(BaseModel):
    """What every error looks like (RFC 9457)."""

    title: str
    status: int
    detail: str
    errors: list[dict[str, str]] = Field(default=[], description="What is wrong, and `at` which place of the request.")
    outcome: str | None = Field(default=None, description="`refused`, or `unknown`: the broker may have the task.")
    reason: str | None = Field(default=None, description="What was seen of the broker.")
    task_id: str | None = Field(default=None, description="Where the outcome is unknown: the task to ask for.")


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route says in the OpenAPI document of the errors that it can answer with."""
    content = {_PROBLEM: {"schema": ProblemDocument.model_json_schema()}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


async def _on_error(_request: Request, error: Exception) -> Response:
    """Answer whatever was raised; what nobody foresaw is logged by the server."""
    status = HTTPStatus(getattr(error, "status_code", HTTPStatus.INTERNAL_SERVER_ERROR))
    detail = str(getattr(error, "detail", "The request could not be handled; the log says more."))
    return _document(status, detail, getattr(error, "headers", None), **getattr(error, "more", {}))


async def _on_invalid(_request: Request, error: Exception) -> Response:
    found = error.errors() if isinstance(error, RequestValidationError) else []
    if found and found[0]["type"] == "json_invalid":
        position, why = found[0]["loc"][-1], found[0].get("ctx", {}).get("error", "")
        said = [{"at": f"body/{position}", "detail": str(why)}]
        return _document(HTTPStatus.BAD_REQUEST, f"The body is no JSON at character {position}.", errors=said)
    errors = [{"at": "/".join(map(str, one["loc"])), "detail": str(one["msg"])} for one in found[:_SHOWN_ERRORS]]
    places = "one place" if len(found) == 1 else f"{len(found)} places"
    detail = f"The request is not as it has to be, in {places}."
    return _document(HTTPStatus.UNPROCESSABLE_ENTITY, detail, errors=errors)


def _document(status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None, **more: Json) -> Response:
    body = {"title": status.phrase, "status": status.value, "detail": detail, **more}
    return JSONResponse(body, status, headers, media_type=_PROBLEM)


# ------------------------------------------------------------------------------------------------------------- bodies


class _Body:
    """Receives the body of one request, and refuses one that is compressed, too long, too slow or broken off."""

    def __init__(self, receive: Receive, headers: Mapping[bytes, bytes]) -> None:
        self._receive = receive
        self._coding = headers.get(b"content-encoding", b"").decode("latin-1").strip().lower()
        announced = headers.get(b"content-length", b"")
        self._announced_bytes = int(announced) if announced.isdigit() else 0
        self._got_bytes = 0
        self._complete = False
        self.limit_bytes = BODY_LIMIT_BYTES

    async def __call__(self) -> Message:
        if self._complete:
            return await self._receive()
        if self._coding not in {"", "identity"}:
            # Nothing here unpacks it, and what is kept as it came would be taken for what it is not.
            detail = f"The body is encoded as {self._coding}; send it as it is."
            raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail, headers={"Accept-Encoding": "identity"})
        self._check(self._announced_bytes)
        try:
            async with asyncio.timeout(IDLE_LIMIT_S):
                message = await self._receive()
        except TimeoutError:
            detail = f"Nothing more of the body came for {IDLE_LIMIT_S:g} s."
            raise Problem(HTTPStatus.REQUEST_TIMEOUT, detail, headers={"Connection": "close"}) from None
        if message["type"] == "http.disconnect":
            # Nobody hears this. It ends the handler as any bad request does, and not as a fault of the server.
            raise Problem(HTTPStatus.BAD_REQUEST, "The connection broke in the middle of the body.")
        self._got_bytes += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        self._check(self._got_bytes)
        return message

    def _check(self, size_bytes: int) -> None:
        if size_bytes > self.limit_bytes:
            detail = f"The body is longer than {self.limit_bytes} bytes."
            raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)


class _LimitBodies:
    """ASGI middleware: every request's body is received through a `_Body`.

    FastAPI's own `max_body_size` answers some of what is too long in plain text, and waits for ever for the rest.
    """

    def __init__(self, app: Callable[[Message, Receive, Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            receive = scope["harness.body"] = _Body(receive, dict(scope["headers"]))
        await self._app(scope, receive, send)


def allow_body(request: Request, limit_bytes: int) -> None:
    """Allow this request a body of so many bytes. For a route that reads the body itself, before it does."""
    request.scope["harness.body"].limit_bytes = limit_bytes


def media_type(header: str | None) -> str:
    """What a Content-Type says without its parameters, such as ``text/csv``; empty if there is none."""
    return (header or "").partition(";")[0].strip().lower()


def content_type(request: Request) -> str:
    """The media type of the body; empty if the request does not say."""
    return media_type(request.headers.get("content-type"))


def unsupported(request: Request, *types: str) -> Problem:
    """The answer to a body of a type that the route does not take; it takes `types`."""
    wanted, seen = " or ".join(types), content_type(request) or "no Content-Type"
    headers = {"Accept": ", ".join(types)}
    return Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Send {wanted}; this was {seen}.", headers=headers)


def accepts(*types: str) -> Any:
    """A dependency of a route that takes bodies of these types alone; any other is answered with 415."""

    async def check(request: Request) -> None:
        if content_type(request) not in types:
            raise unsupported(request, *types)

    return Depends(check)


# ---------------------------------------------------------------------------------------------------------- due times


async def _check_due(request: Request) -> None:
    """Keep when the task of this request was to be sent, before anything is done that would have to be undone."""
    said = request.headers.getlist(DUE_HEADER)
    if not said:
        return
    # More than `float` takes would be no decimal number; twice the header is none either.
    due_t = float(said[0]) if len(said) == 1 and re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,15})?", said[0]) else None
    if due_t is None or abs(due_t - time.time()) > DUE_RANGE_S:
        seen = ", ".join(said)[:100]
        detail = f"{DUE_HEADER} has to be a Unix time in seconds, within a day of now; this was {seen!r}."
        raise Problem(HTTPStatus.BAD_REQUEST, detail)
    request.scope["harness.due"] = due_t


# -------------------------------------------------------------------------------------------------------------- tasks


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


class TaskState(BaseModel):
    """What is known of a task."""

    task_id: str
    status: str = Field(description="As Celery recorded it; PENDING if it has not yet.")
    confirmed: bool | None = Field(description="Whether the broker confirmed it; null if it was not sent here.")
    result: Any = Field(default=None, description="Of a SUCCESS what the task returned, else what Celery recorded.")
    undecoded: str | None = Field(default=None, description="Why the result is not shown.")


async def _task(request: Request, response: Response, task_id: str) -> TaskState:
    """What the result table says of a task. A result is shown if it is JSON, and otherwise never decoded."""
    desk: Desk = request.app.state.desk
    # What was sent is looked up first: a row that comes in between is found.
    confirmed = desk.confirmed(task_id)
    try:
        row = await asyncio.to_thread(desk.results.row, task_id)
    except ResultsError as error:
        _log.error("%s", error)
        headers = {"Retry-After": str(RETRY_AFTER_S)}
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "The results cannot be read now.", headers=headers) from error
    response.headers["Cache-Control"] = "no-store"
    if row is None and confirmed is None:
        raise Problem(HTTPStatus.NOT_FOUND, "No such task was sent here, and none has a row in the result table.")
    if row is None:
        return TaskState(task_id=task_id, status="PENDING", confirmed=confirmed)
    return _recorded(row, confirmed)


def _recorded(row: Row, confirmed: bool | None) -> TaskState:  # noqa: FBT001 - as it stands in the answer.
    """What a row says, with the result, or with why there is none to show."""
    known = TaskState(task_id=row.task, status=row.status, confirmed=confirmed, result=None, undecoded=None)
    try:
        state = known.model_copy(update={"result": decode(row)})
        # Python reads and writes NaN and Infinity, which JSON has not.
        json.dumps(state.result, allow_nan=False)
        # Half a surrogate pair, and what is nested hundreds deep, can be read and not be written.
        state.model_dump_json()
    except (ResultsError, ValueError, RecursionError) as error:
        return known.model_copy(update={"undecoded": f"It cannot be shown as JSON: {error}"})
    return state


async def _health() -> dict[str, str]:
    """That the process answers. Of the broker it says nothing."""
    return {"status": "ok"}


# -------------------------------------------------------------------------------------------------------- connections


class _Impatient(H11Protocol):
    """A connection that is closed when the head of its next request is not complete within IDLE_LIMIT_S.

    The server itself gives up a connection only between two requests.
    """

    _head_is_late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # As the server has it.
        """Somebody has connected, and is to say what it wants."""
        super().connection_made(transport)
        self._head_is_late = self.loop.call_later(IDLE_LIMIT_S, self._give_up)

    def data_received(self, data: bytes) -> None:
        """Some bytes more; the time runs from the first of a head, so that one now and then does not prolong it."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._forget()
        elif self._head_is_late is None:
            self._head_is_late = self.loop.call_later(IDLE_LIMIT_S, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """The end, whoever made it."""
        self._forget()
        super().connection_lost(exc)

    def _forget(self) -> None:
        if self._head_is_late is not None:
            self._head_is_late.cancel()
            self._head_is_late = None

    def _give_up(self) -> None:
        self._head_is_late = None
        if not self.transport.is_closing():
            self.transport.close()


# ---------------------------------------------------------------------------------------------------------------- app


def create_app(desk: Desk, router: APIRouter | None = None, *, title: str = "Web producer") -> FastAPI:
    """The app, with the routes of its own and those of `router`."""
    statuses = [status.value for status in HTTPStatus if status >= HTTPStatus.BAD_REQUEST]
    app = FastAPI(
        title=title,
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        exception_handlers={RequestValidationError: _on_invalid, **dict.fromkeys(statuses, _on_error)},
    )
    app.state.desk = desk
    app.add_middleware(_LimitBodies)
    for method, listed in ((app.get, True), (app.head, False)):
        method("/health", include_in_schema=listed)(_health)
        method(
            "/tasks/{task_id}",
            include_in_schema=listed,
            response_model_exclude_unset=True,
            responses=problems(404, 503),
        )(_task)
    if router is not None:
        app.include_router(router, dependencies=[Depends(_check_due)])
    # The page would have its document checked by a server on the internet.
    patch_fastapi(app, swagger_ui_parameters={"validatorUrl": None, "tryItOutEnabled": True})
    return app


def load_routes(module: str) -> APIRouter:
    """The `router` of a module. Raises UsageError if there is none."""
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
    """Answer until SIGTERM or SIGINT, as the environment says, and journal it.

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
        with Producer(broker_url, journal, timeout_s=SEND_TIMEOUT_S) as producer, Desk(producer, results) as desk:
            app = create_app(desk, router, title=title)
            stopped_by = _run(uvicorn.Server(configured(app, host=host, port=port)))
        journal.write(Kind.DOWN, signal=stopped_by)


def configured(app: FastAPI, *, host: str, port: int, shutdown_s: int = _SHUTDOWN_S) -> uvicorn.Config:
    """How the app is served; requests in flight may go on for `shutdown_s` seconds after the end was asked for."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=_Impatient,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=shutdown_s,
    )


def _run(server: uvicorn.Server) -> str:
    """Run the server, and return the name of the signal that ended it."""
    signals: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        # The server handles signals while it runs and raises them again at its end. What stood here by default
        # would then kill the process before it could say that it ended in good order.
        signals.append(number)
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    server.run()
    return signal.Signals(signals[0]).name if signals else "none"


def main() -> None:
    """Serve the routes of the module that the command line names, or none.

    The environment: HARNESS_JOURNAL (the folder of journals), HARNESS_NODE (the node's name), CELERY_BROKER_URL,
    CELERY_RESULT_BACKEND (a database's), HARNESS_APP (shown), HARNESS_WEB_HOST (all interfaces of the container),
    HARNESS_WEB_PORT (8000).
    """
    # The server's access log, a line a request, goes where everything goes.
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stdout)
    host = os.environ.get("HARNESS_WEB_HOST", "0.0.0.0")  # noqa: S104 - the container's; the host publishes it on loopback.
    try:
        router = load_routes(sys.argv[1]) if sys.argv[1:] else None
        serve(router, host=host, port=int(os.environ.get("HARNESS_WEB_PORT", "8000")))
    except HarnessError as error:
        _log.error("%s", error)
        sys.exit(2)


if __name__ == "__main__":
    main()
