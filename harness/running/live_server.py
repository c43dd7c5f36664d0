"""Serves the page of a stack that is up, on this machine alone.

A page of another site must not press its buttons, nor read what it shows. So a request must name this server as its
host, which a name that somebody lets point here does not; and an order must come from the page itself, by its origin
and by a token that stands in it.
"""

import hmac
import json
import secrets
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, Protocol

from harness.containers.engine import LOOPBACK
from harness.errors import HarnessError, RecordError, UsageError
from harness.records.values import Json
from harness.report.live_page import TOKEN_HEADER, LiveView
from harness.running.live_stack import Order

_MOST_REQUESTS = 16
"""The most requests that are answered at once. A browser has six connections to a server."""
_LARGEST_BODY = 65_536
_READ_S = 10.0
"""Seconds that a client may be silent while it sends its request."""
_STOP_S = 0.1
_HTML, _JSON, _TEXT = "text/html", "application/json", "text/plain"


class Served(Protocol):
    """The stack that is shown and takes orders; `LiveStack` implements it. Each may raise HarnessError."""

    def view(self) -> LiveView:
        """Return the stack as it is now."""
        ...

    def report(self) -> str:
        """Return the report of the run as it is now."""
        ...

    def do(self, order: Order) -> str:
        """Carry out an order, and return what was done."""
        ...


@dataclass(frozen=True, kw_only=True)
class _Site:
    """The data that the requests of one server share."""

    served: Served
    page: str
    token: str
    say: Callable[[str], None]


@contextmanager
def serving(served: Served, page: Callable[[str], str], say: Callable[[str], None]) -> Iterator[str]:
    """Serve a page on a port that is free until the end, and yield its address.

    Args:
        served: what the page shows and does.
        page: makes the page from the token that its orders have to show.
        say: receives errors that nobody expected.

    Raises:
        UsageError: there is no port for it.
    """
    token = secrets.token_urlsafe(32)
    site = _Site(served=served, page=page(token), token=token, say=say)
    try:
        server = _Server((LOOPBACK, 0), partial(_Handler, site))
    except OSError as error:
        raise UsageError(f"the page cannot be served on {LOOPBACK}: {error.strerror}.") from error
    thread = threading.Thread(target=server.serve_forever, args=(_STOP_S,), name="page", daemon=True)
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    """A server with a bounded number of threads, which end with the process at the latest."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], handler: Callable[..., BaseHTTPRequestHandler]) -> None:
        self._free = threading.BoundedSemaphore(_MOST_REQUESTS)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own; close the connection if there are too many."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer one request."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def server_bind(self) -> None:
        """Take the port. The base class would also ask the name service who this machine is, which can take long."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = LOOPBACK, self.socket.getsockname()[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Let go of a client that has left or is silent; show any other error."""
        # The base class reads the begin of the request by itself.
        if not isinstance(sys.exception(), _DepartedError | ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _DepartedError(Exception):
    """The client has left, or is silent."""


class _RefusedError(Exception):
    """A request is not answered. Its text says why."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    """Answers one request, and closes the connection."""

    timeout = _READ_S
    server_version, sys_version = "celery-harness", ""

    def __init__(self, site: _Site, *arguments: Any) -> None:
        self._site = site
        super().__init__(*arguments)

    def do_GET(self) -> None:
        """Show something."""
        shows: Mapping[str, tuple[str, Callable[[], str]]] = {
            "/": (_HTML, lambda: self._site.page),
            "/state": (_JSON, lambda: json.dumps(self._site.served.view().to_json())),
            "/report": (_HTML, self._site.served.report),
        }

        def show() -> tuple[str, str]:
            self._check_host()
            if self.path not in shows:
                raise _RefusedError(HTTPStatus.NOT_FOUND, "there is no such page.")
            kind, make = shows[self.path]
            return kind, make()

        self._answer(show)

    def do_POST(self) -> None:
        """Carry out an order."""

        def carry_out() -> tuple[str, str]:
            self._check_host()
            self._check_origin()
            if self.path != "/order":
                raise _RefusedError(HTTPStatus.NOT_FOUND, "there is no such order.")
            return _TEXT, self._site.served.do(Order.from_json(self._body()))

        self._answer(carry_out)

    def _check_host(self) -> None:
        # A name of somebody else's that points to this machine must not make a browser show the page to its scripts.
        port = self.connection.getsockname()[1]
        if self.headers.get("Host", "") not in {f"{LOOPBACK}:{port}", f"localhost:{port}"}:
            raise _RefusedError(HTTPStatus.MISDIRECTED_REQUEST, f"this is {LOOPBACK}:{port}, and no other host.")

    def _check_origin(self) -> None:
        if self.headers.get("Origin") != f"http://{self.headers.get('Host')}":
            raise _RefusedError(HTTPStatus.FORBIDDEN, "an order comes from the page itself.")
        shown = self.headers.get(TOKEN_HEADER, "").encode("latin-1", "replace")
        if not hmac.compare_digest(shown, self._site.token.encode()):
            raise _RefusedError(HTTPStatus.FORBIDDEN, "the page is of another stack: open it anew.")

    def _body(self) -> Json:
        if self.headers.get_content_type() != _JSON:
            raise _RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"an order is {_JSON}.")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            raise _RefusedError(HTTPStatus.LENGTH_REQUIRED, "an order says how long it is.")
        if len(length) > len(str(_LARGEST_BODY)) or int(length) > _LARGEST_BODY:
            raise _RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"an order has at most {_LARGEST_BODY} bytes.")
        try:
            return json.loads(self._read(int(length)))
        except (ValueError, RecursionError):
            raise _RefusedError(HTTPStatus.BAD_REQUEST, "an order is a JSON object.") from None

    def _read(self, length: int) -> bytes:
        try:
            return self.rfile.read(length)
        except (ConnectionError, TimeoutError) as error:
            raise _DepartedError from error

    def _answer(self, make: Callable[[], tuple[str, str]]) -> None:
        try:
            kind, text = make()
            status = HTTPStatus.OK
        except _RefusedError as error:
            kind, text, status = _TEXT, str(error), error.status
        except (UsageError, RecordError) as error:
            kind, text, status = _TEXT, str(error), HTTPStatus.BAD_REQUEST
        except HarnessError as error:
            kind, text, status = _TEXT, str(error), HTTPStatus.BAD_GATEWAY
        except _DepartedError:
            raise
        except Exception as error:  # noqa: BLE001 - the page goes on, whatever one request meets.
            kind, text, status = _TEXT, f"{type(error).__name__}: {error}", HTTPStatus.INTERNAL_SERVER_ERROR
            self._site.say(f"the page met an error, please report it: {text}")
        self._write(status, kind, text.encode("utf-8", "backslashreplace"))

    def _write(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", f"{kind}; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            # In a frame, somebody could be led to press a button without seeing it.
            ("Content-Security-Policy", "frame-ancestors 'none'"),
            ("X-Frame-Options", "DENY"),
            ("Connection", "close"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *_: object) -> None:  # noqa: A002 - the base class names it so.
        """Say nothing of each request."""
