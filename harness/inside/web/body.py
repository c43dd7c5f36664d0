"""Limits on request bodies: their length, speed and type."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from http import HTTPStatus
from typing import Any

from fastapi import Depends, Request

from harness.inside.web.problem import Problem

BODY_LIMIT_BYTES = 256 * 1024
"""The longest body, unless a route allows more."""

IDLE_LIMIT_S = 30.0
"""Seconds after which a client is given up that sends no complete head, or nothing more of its body."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class _Body:
    """Receives the body of one request, and refuses one that is compressed, too long, too slow or cut off."""

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
            # Nothing here unpacks it, and the packed bytes would be taken for the content.
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
            # No client gets this answer. It ends the handler like any bad request, not like a fault of the server.
            raise Problem(HTTPStatus.BAD_REQUEST, "The connection broke in the middle of the body.")
        self._got_bytes += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        self._check(self._got_bytes)
        return message

    def _check(self, size_bytes: int) -> None:
        if size_bytes > self.limit_bytes:
            detail = f"The body is longer than {self.limit_bytes} bytes."
            raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)


class LimitBodies:
    """ASGI middleware: every request's body is received through a `_Body`.

    FastAPI's own `max_body_size` answers some bodies that are too long in plain text, and waits for ever for others.
    """

    def __init__(self, app: Callable[[Message, Receive, Send], Awaitable[None]]) -> None:
        """Create the middleware; `app` gets the requests."""
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on. Its body is in the scope as well, where `allow_body` finds it."""
        if scope["type"] == "http":
            receive = scope["harness.body"] = _Body(receive, dict(scope["headers"]))
        await self._app(scope, receive, send)


def allow_body(request: Request, limit_bytes: int) -> None:
    """Allow this request a body of `limit_bytes`. A route that reads the body itself calls it before it reads."""
    request.scope["harness.body"].limit_bytes = limit_bytes


def media_type(header: str | None) -> str:
    """Return the media type of a Content-Type, such as ``text/csv``; empty if there is none."""
    return (header or "").partition(";")[0].strip().lower()


def content_type(request: Request) -> str:
    """Return the media type of the body; empty if the request has no Content-Type."""
    return media_type(request.headers.get("content-type"))


def unsupported(request: Request, *types: str) -> Problem:
    """Return the problem for a body of a type that the route does not take; it takes `types`."""
    wanted, seen = " or ".join(types), content_type(request) or "no Content-Type"
    headers = {"Accept": ", ".join(types)}
    return Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Send {wanted}; this was {seen}.", headers=headers)


def accepts(*types: str) -> Any:
    """Return a dependency for a route that takes only bodies of these types; any other is answered with 415."""

    async def check(request: Request) -> None:
        if content_type(request) not in types:
            raise unsupported(request, *types)

    return Depends(check)
