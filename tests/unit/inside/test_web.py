"""The web producer over real HTTP on loopback: what each door takes and refuses, and what a client is told."""

import copy
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import requests
import uvicorn
from fastapi import APIRouter, FastAPI

from harness.audit import results
from harness.audit.results import Results
from harness.errors import JournalError, UsageError
from harness.inside.web import body, connection, task_sender
from harness.inside.web.__main__ import main
from harness.inside.web.app import create_app
from harness.inside.web.body import BODY_LIMIT_BYTES
from harness.inside.web.server import configured, load_routes
from harness.inside.web.task_sender import TaskSender
from harness.producer import Sent
from harness.records.event import Kind
from harness.records.expectation import Expect
from harness.records.journal import read
from harness.records.values import Json
from harness.wait import wait_until
from scenarios import web
from scenarios.emails import prediction
from scenarios.emails.scenario import scenario as emails

ROOT = Path(__file__).parents[3]
TIMEOUT_S = 10
PROBLEM = "application/problem+json"
CSV = b"order,sku,quantity\n1,TEA-01,2\n"


@dataclass
class FakeProducer:
    """Answers as it is told, and keeps what it was given."""

    outcome: Kind = Kind.ACCEPTED
    error: Exception | None = None
    sent: list[dict[str, Any]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    """A send waits for it; open unless a test closes it."""
    due_t: float | None = None

    def __post_init__(self) -> None:
        self.gate.set()

    def at(self, due_t: float) -> "FakeProducer":
        view = copy.copy(self)
        view.due_t = due_t
        return view

    def send(self, name: str, *, kwargs: Mapping[str, Json], expect: Expect | None, task_id: str) -> Sent:
        self.sent.append({"name": name, "kwargs": kwargs, "expect": expect, "task": task_id, "due_t": self.due_t})
        assert self.gate.wait(TIMEOUT_S)
        if self.error is not None:
            raise self.error
        reason = None if self.outcome is Kind.ACCEPTED else "the broker's own words"
        return Sent(task=task_id, outcome=self.outcome, reason=reason)


@dataclass(frozen=True, kw_only=True)
class Site:
    """A served app, a client of it, and what is behind it."""

    url: str
    producer: FakeProducer
    results: Path
    uploads: Path

    def get(self, path: str) -> requests.Response:
        return requests.get(self.url + path, timeout=TIMEOUT_S)

    def post(self, path: str, **request: Any) -> requests.Response:
        return requests.post(self.url + path, timeout=TIMEOUT_S, **request)

    def connect(self) -> socket.socket:
        """Return a connection for what an HTTP client would not send."""
        host, port = self.url.removeprefix("http://").split(":")
        return socket.create_connection((host, int(port)), timeout=TIMEOUT_S)

    def kept(self) -> list[bytes]:
        return [path.read_bytes() for path in self.uploads.glob("*")]

    def record(self, task: str, status: str, result: bytes | None) -> None:
        with closing(sqlite3.connect(self.results)) as database, database:
            table = "celery_taskmeta (task_id VARCHAR(155), status VARCHAR(50), result BLOB)"
            database.execute(f"CREATE TABLE IF NOT EXISTS {table}")
            database.execute("INSERT INTO celery_taskmeta VALUES (?, ?, ?)", (task, status, result))


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """Serve an app on a free port of loopback."""
    server = uvicorn.Server(configured(app, host="127.0.0.1", port=0, shutdown_s=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started, what="the server", timeout_s=TIMEOUT_S, interval_s=0.005)
        host, port = server.servers[0].sockets[0].getsockname()
        yield f"http://{host}:{port}"
    finally:
        server.should_exit = True
        thread.join(TIMEOUT_S)


@dataclass(frozen=True, kw_only=True)
class Served:
    """One server for all tests: its end takes a fraction of a second."""

    app: FastAPI
    url: str


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with TaskSender(FakeProducer(), Results("sqlite://")) as nobodys:
        app = create_app(nobodys, web.router)
        with serving(app) as url:
            yield Served(app=app, url=url)


@pytest.fixture
def site(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(web, "UPLOADS", tmp_path / "uploads")
    path = tmp_path / "results.sqlite3"
    results.create(path)
    producer = FakeProducer()
    with TaskSender(producer, Results.of_file(path), sends=2) as desk:
        served.app.state.desk = desk
        yield Site(url=served.url, producer=producer, results=path, uploads=tmp_path / "uploads")


def order(**changes: Any) -> dict[str, Any]:
    return {**prediction.make_order(1, 1), **changes}


def line(**changes: Any) -> dict[str, Any]:
    return {"sku": "TEA-01", "title": "Tea", "quantity": 1, "unit_price_cents": 1250, **changes}


def assert_problem(answer: requests.Response, status: int, said: str = "") -> dict[str, Any]:
    """Check that the answer is a problem document with this status and text, and return the document."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == PROBLEM
    document: dict[str, Any] = answer.json()
    assert (document["status"], document["title"]) == (status, HTTPStatus(status).phrase)
    assert said in answer.text
    return document


# ------------------------------------------------------------------------------------------------------------- emails


def test_an_order_becomes_a_task_with_what_is_expected_of_it(site: Site) -> None:
    answer = site.post("/emails", json=order())
    assert answer.status_code == 202, answer.text
    (sent,) = site.producer.sent
    assert answer.json() == {"task_id": sent["task"], "order_id": order()["id"]}
    assert answer.headers["Location"] == f"/tasks/{sent['task']}"
    assert sent["name"] == "scenarios.emails.send_receipt"
    assert sent["kwargs"] == {"order": prediction.make_order(1, 1)}
    assert sent["expect"].result == prediction.expected_result(prediction.make_order(1, 1))
    assert sent["expect"].effects == [f"mail:{prediction.message_id(prediction.make_order(1, 1))}"]


def test_every_order_of_the_scenario_is_taken_as_it_is(site: Site) -> None:
    for number in range(20):
        assert site.post("/emails", json=prediction.make_order(number, 7)).status_code == 202
        assert site.producer.sent[-1]["kwargs"]["order"] == prediction.make_order(number, 7)


@dataclass
class Stepped:
    """Stands for the producer of a scenario's step, and keeps what would have been sent."""

    sent: list[dict[str, Any]] = field(default_factory=list)

    def send(self, name: str, *, kwargs: Mapping[str, Json], expect: Expect) -> None:
        self.sent.append({"name": name, "kwargs": kwargs, "expect": expect})


def test_a_step_over_http_is_the_very_task_that_the_step_sends(site: Site) -> None:
    stepped: Any = Stepped()
    for number in (0, 1, 7, 4711, 1_000_000):
        emails.step(stepped, number, 3)
        request = emails.request(number, 3)
        answer = site.post(request.path, data=request.body, headers={"Content-Type": request.content_type})
        assert answer.status_code == 202, answer.text
    over_http = [{name: sent[name] for name in ("name", "kwargs", "expect")} for sent in site.producer.sent]
    assert over_http == stepped.sent
    assert emails.routes == web.__name__


def test_an_order_without_an_id_gets_one_that_the_client_is_told(site: Site) -> None:
    without = {name: value for name, value in order().items() if name != "id"}
    ids = [site.post("/emails", json=without).json()["order_id"] for _ in range(2)]
    assert ids == [sent["kwargs"]["order"]["id"] for sent in site.producer.sent]
    assert ids[0] != ids[1]


@pytest.mark.parametrize(
    ("bad", "at"),
    [
        (order(extra=1), "body/extra"),
        (order(id="two\nlines"), "body/id"),
        (order(id="../../etc"), "body/id"),
        (order(id="x" * 65), "body/id"),
        (order(customer={"name": "Zoë", "email": "nobody"}), "body/customer/email"),
        (order(customer={"name": "Zoë", "email": "zoë@example.com"}), "body/customer/email"),
        (order(customer={"name": "Zoë", "email": "a@b.c\r\nBcc: d@e.f"}), "body/customer/email"),
        (order(customer={"name": "Zoë\r\nBcc: d@e.f", "email": "zoe@example.com"}), "body/customer/name"),
        (order(customer={"name": " ", "email": "zoe@example.com"}), "body/customer/name"),
        (order(customer={"name": "\ud800", "email": "zoe@example.com"}), "body/customer/name"),
        (order(customer={"name": "Zoë"}), "body/customer/email"),
        (order(currency="euro"), "body/currency"),
        (order(lines=[]), "body/lines"),
        (order(lines=[line()] * 101), "body/lines"),
        (order(lines=[line(quantity=0)]), "body/lines/0/quantity"),
        (order(lines=[line(quantity="3")]), "body/lines/0/quantity"),
        (order(lines=[line(), line(quantity=True)]), "body/lines/1/quantity"),
        (order(lines=[line(unit_price_cents=-1)]), "body/lines/0/unit_price_cents"),
        (order(lines=[line(unit_price_cents=1.5)]), "body/lines/0/unit_price_cents"),
        (order(lines=[line(title="x" * 201)]), "body/lines/0/title"),
        ([], "body"),
        (None, "body"),
    ],
)
def test_an_order_that_cannot_be_is_refused_with_the_place(site: Site, bad: Any, at: str) -> None:
    answer = site.post("/emails", data=json.dumps(bad), headers={"Content-Type": "application/json"})
    assert [error["at"] for error in assert_problem(answer, 422)["errors"]] == [at]
    assert site.producer.sent == []


@pytest.mark.parametrize("line_break", ["\n", "\r", "\x85", "\u2028", "\u2029", "\x0b", "\x00"])
def test_nothing_that_breaks_a_line_gets_into_a_header(site: Site, line_break: str) -> None:
    bad = order(customer={"name": f"Zoë{line_break}Bcc", "email": "zoe@example.com"})
    assert_problem(site.post("/emails", json=bad), 422)


def test_thousands_of_errors_make_a_short_answer(site: Site) -> None:
    answer = site.post("/emails", json={f"m{number}": 0 for number in range(5000)})
    assert len(assert_problem(answer, 422, "in 5003 places")["errors"]) == 20


@pytest.mark.parametrize(
    ("body", "said"),
    [
        # Where a comma is one too many, Python says of the comma or of what follows it, as its version is.
        (b'{"id": 1,}', '"at":"body/'),
        (b'{"id" 1}', '"at":"body/6"'),
        (b"", "body"),
        (b"\xff{}", ""),
        (b"[" * 100_000, ""),
        (b'{"id": ' + b"9" * 5000 + b"}", ""),
    ],
)
def test_what_is_no_json_is_refused(site: Site, body: bytes, said: str) -> None:
    answer = site.post("/emails", data=body, headers={"Content-Type": "application/json"})
    assert_problem(answer, 400 if body else 422, said)
    assert site.get("/health").json() == {"status": "ok"}


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_an_order_of_another_type_is_refused(site: Site, kind: str | None) -> None:
    answer = site.post("/emails", data=json.dumps(order()).encode(), headers={"Content-Type": kind} if kind else {})
    assert_problem(answer, 415, kind or "no Content-Type")
    assert answer.headers["Accept"] == "application/json"


@pytest.mark.parametrize("announced", [True, False])
def test_an_order_that_is_too_long_is_refused(site: Site, announced: bool) -> None:  # noqa: FBT001 - a case of the test.
    body = b" " * (BODY_LIMIT_BYTES + 1)
    answer = site.post(
        "/emails", data=body if announced else iter([body]), headers={"Content-Type": "application/json"}
    )
    assert_problem(answer, 413, str(BODY_LIMIT_BYTES))


# ------------------------------------------------------------------------------------------------------------- orders


def test_a_file_in_a_form_is_kept_and_becomes_a_task(site: Site) -> None:
    answer = site.post("/orders", files={"file": ("a.csv", CSV, "text/csv")}, data={"import_id": "monday"})
    assert answer.status_code == 202, answer.text
    (sent,) = site.producer.sent
    assert answer.json() == {"task_id": sent["task"], "import_id": "monday"}
    assert sent["name"] == "scenarios.bulk_data.import_orders"
    assert sent["kwargs"].keys() == {"path", "import_id"}
    assert sent["kwargs"]["import_id"] == "monday"
    assert sent["expect"].effects == ["row:import-monday"]
    path = Path(sent["kwargs"]["path"])
    assert path.parent == site.uploads
    assert path.read_bytes() == CSV


def test_a_file_as_the_body_is_kept_and_becomes_a_task(site: Site) -> None:
    answer = site.post("/orders?import_id=tuesday", data=CSV, headers={"Content-Type": "text/csv; charset=utf-8"})
    assert answer.status_code == 202, answer.text
    assert answer.json()["import_id"] == "tuesday"
    assert site.kept() == [CSV]


def test_an_import_without_an_id_gets_one_that_the_client_is_told(site: Site) -> None:
    doors: list[dict[str, Any]] = [
        {"files": {"file": ("a.csv", CSV, "text/csv")}},
        {"data": CSV, "headers": {"Content-Type": "text/csv"}},
    ]
    for door in doors:
        told = site.post("/orders", **door).json()["import_id"]
        assert site.producer.sent[-1]["kwargs"]["import_id"] == told
        assert site.producer.sent[-1]["expect"].effects == [f"row:import-{told}"]


def in_form(content: bytes = CSV, kind: str = "text/csv", name: str = "file", **fields: str) -> dict[str, Any]:
    return {"files": {name: ("a.csv", content, kind)}, "data": fields}


FORM = (
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\nContent-Type: text/csv\r\n\r\n'
    b"1\r\n--x--\r\n"
)


def as_body(content: bytes, kind: str) -> dict[str, Any]:
    return {"data": content, "headers": {"Content-Type": kind}}


@pytest.mark.parametrize(
    ("request_", "status", "said"),
    [
        (in_form(b""), 422, "The file is empty"),
        (as_body(b"", "text/csv"), 422, "The file is empty"),
        (in_form(kind="image/png"), 415, "image/png"),
        (as_body(CSV, "application/json"), 415, "application/json"),
        (as_body(CSV, ""), 415, "no Content-Type"),
        (in_form(name="upload"), 422, "body/upload"),
        (in_form(other="1"), 422, "body/other"),
        (in_form(import_id="../x"), 422, "body/import_id"),
        (in_form(import_id="a", other="1"), 400, "Too many fields"),
        ({"files": [("file", ("a", CSV, "text/csv")), ("file", ("b", CSV, "text/csv"))]}, 400, "Too many files"),
        ({"files": {"file": (None, "no file")}}, 422, "no file in the field"),
        (as_body(b"no form at all", "multipart/form-data; boundary=x"), 400, ""),
        (as_body(b"no form at all", "multipart/form-data"), 400, "boundary"),
        (as_body(FORM, "multipart/form-data; boundary=x; charset=undefined"), 400, "charset"),
        ({"data": CSV, "headers": {"Content-Type": "text/csv", "Content-Encoding": "gzip"}}, 415, "gzip"),
    ],
)
def test_a_file_that_cannot_be_is_refused_and_not_kept(
    site: Site, request_: dict[str, Any], status: int, said: str
) -> None:
    assert_problem(site.post("/orders", **request_), status, said)
    assert site.producer.sent == []
    assert site.kept() == []


# The form's parser leaves the file of a part without an end to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_form_that_ends_too_early_is_refused_and_not_kept(site: Site) -> None:
    form = b"".join(streamed_form(1)).removesuffix(b"\r\n--x--\r\n")
    assert_problem(site.post("/orders", **as_body(form, "multipart/form-data; boundary=x")), 422, "no file")
    assert site.kept() == []


def test_an_import_id_in_the_address_is_checked_too(site: Site) -> None:
    assert_problem(site.post("/orders?import_id=..", **as_body(CSV, "text/csv")), 422, "query/import_id")


MIB = 1024 * 1024


def streamed(chunks: int) -> Iterator[bytes]:
    return iter([b"x" * MIB] * chunks)


def streamed_form(chunks: int) -> Iterator[bytes]:
    yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\nContent-Type: text/csv\r\n\r\n'
    yield from streamed(chunks)
    yield b"\r\n--x--\r\n"


DOORS: list[tuple[str, Callable[[int], Iterator[bytes]]]] = [
    ("text/csv", streamed),
    ("multipart/form-data; boundary=x", streamed_form),
]


@pytest.mark.parametrize(("kind", "body"), DOORS)
def test_a_file_beyond_the_limit_is_refused_while_it_comes_and_no_part_is_kept(
    site: Site, monkeypatch: pytest.MonkeyPatch, kind: str, body: Callable[[int], Iterator[bytes]]
) -> None:
    monkeypatch.setattr(web, "UPLOAD_LIMIT_BYTES", 4 * MIB)
    # Without a Content-Length: nothing but counting can tell.
    assert_problem(site.post("/orders", data=body(6), headers={"Content-Type": kind}), 413, str(4 * MIB))
    assert site.kept() == []
    assert site.producer.sent == []


@pytest.mark.parametrize(("kind", "body"), DOORS)
def test_a_file_is_never_whole_in_memory(site: Site, kind: str, body: Callable[[int], Iterator[bytes]]) -> None:
    tracemalloc.start()
    try:
        answer = site.post("/orders", data=body(12), headers={"Content-Type": kind})
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert answer.status_code == 202, answer.text
    (path,) = site.uploads.iterdir()
    assert path.stat().st_size == 12 * MIB
    assert peak_bytes < 6 * MIB


def test_a_length_beyond_the_limit_is_refused_before_the_body_comes(site: Site) -> None:
    with site.connect() as client:
        head = f"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nContent-Length: {2**40}\r\n\r\n"
        client.sendall(head.encode())
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_client_that_hangs_up_leaves_no_part_of_its_file(site: Site) -> None:
    with site.connect() as client:
        head = f"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nContent-Length: {MIB}\r\n\r\n"
        client.sendall(head.encode() + CSV)
        wait_until(lambda: [*site.uploads.glob("*")], what="the part", timeout_s=TIMEOUT_S)
    wait_until(lambda: not [*site.uploads.glob("*")], what="the part is gone", timeout_s=TIMEOUT_S)
    assert site.producer.sent == []


def test_a_client_that_sends_no_more_is_given_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "IDLE_LIMIT_S", 0.1)
    with site.connect() as client:
        client.sendall(b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nContent-Length: 9\r\n\r\nab")
        said = b"".join(iter(lambda: client.recv(4096), b""))
    assert said.startswith(b"HTTP/1.1 408 ")
    assert site.kept() == []


HEAD = b"GET /health HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    "said", [b"", b"G", HEAD, HEAD + b"\r\nGET /he"], ids=["nothing", "a letter", "half", "second"]
)
def test_a_head_that_is_not_sent_to_its_end_closes_the_connection(
    site: Site, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(connection, "IDLE_LIMIT_S", 0.1)
    with site.connect() as client:
        client.sendall(said)
        answers = b"".join(iter(lambda: client.recv(4096), b""))
    assert answers.count(b"HTTP/1.1 200 ") == int(said.endswith(b"/he"))


def test_a_head_that_comes_a_byte_at_a_time_has_no_longer(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "IDLE_LIMIT_S", 0.2)
    with site.connect() as client:

        def is_closed() -> bool:
            try:
                client.sendall(b"G")
            except OSError:
                return True
            return False

        wait_until(is_closed, what="the server closes it", timeout_s=5, interval_s=0.02)


def test_a_request_that_takes_longer_than_its_head_may_is_answered(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: it is the head that is waited for, and not the answer."""
    monkeypatch.setattr(connection, "IDLE_LIMIT_S", 0.1)
    monkeypatch.setattr(body, "IDLE_LIMIT_S", 0.1)
    site.producer.gate.clear()
    threading.Timer(0.5, site.producer.gate.set).start()
    assert site.post("/emails", json=order()).status_code == 202


def test_a_file_that_cannot_be_written_is_a_problem_of_the_storage(site: Site) -> None:
    site.uploads.write_text("in the way")
    assert_problem(site.post("/orders", **as_body(CSV, "text/csv")), 507)
    assert site.producer.sent == []


# ---------------------------------------------------------------------------------------------------------- due times


@pytest.mark.parametrize("late_s", [-86_000.0, 0.0, 0.25, 86_000.0])
def test_a_task_is_due_when_its_request_says_so(site: Site, late_s: float) -> None:
    due_t = round(time.time() - late_s, 6)
    headers = {"Harness-Due": f"{due_t:.6f}"}
    assert site.post("/emails", json=order(), headers=headers).status_code == 202
    assert site.post("/orders", **in_form(), headers=headers).status_code == 202
    assert site.post("/emails", json=order()).status_code == 202
    assert [sent["due_t"] for sent in site.producer.sent] == [pytest.approx(due_t, abs=1e-6)] * 2 + [None]


@pytest.mark.parametrize(
    "said",
    [
        "",
        "now",
        "nan",
        "inf",
        "-1",
        "-inf",
        "+1",
        "1_0",
        "1e9",
        "0x10",
        "1.",
        ".5",
        "\u0663".encode(),
        "0",
        "1" * 400,
        "1,2",
    ],
)
@pytest.mark.parametrize("door", ["/emails", "/orders"])
def test_a_due_time_that_is_none_is_refused_and_nothing_is_kept(site: Site, door: str, said: str | bytes) -> None:
    body = {"json": order()} if door == "/emails" else in_form()
    document = assert_problem(site.post(door, headers={"Harness-Due": said}, **body), 400)
    assert document["detail"].startswith(
        "Harness-Due has to be a Unix time in seconds, within a day of now; this was '"
    )
    assert len(document["detail"]) < 250
    assert site.producer.sent == []
    assert site.kept() == []


@pytest.mark.parametrize("off_s", [-86_500, 86_500, -1_700_000_000, 1_700_000_000_000])
def test_a_due_time_more_than_a_day_away_is_refused(site: Site, off_s: float) -> None:
    headers = {"Harness-Due": f"{time.time() + off_s:.3f}"}
    assert_problem(site.post("/emails", json=order(), headers=headers), 400, "within a day of now")


def test_two_due_times_are_none(site: Site) -> None:
    body, due = json.dumps(order()), f"Harness-Due: {time.time():.3f}\r\n"
    head = f"POST /emails HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    with site.connect() as client:
        client.sendall(f"{head}{due}{due}\r\n{body}".encode())
        assert client.recv(100).startswith(b"HTTP/1.1 400 ")
    assert site.producer.sent == []


# --------------------------------------------------------------------------------------------- what the broker says


def test_a_refused_task_is_never_taken_and_its_file_is_removed(site: Site) -> None:
    site.producer.outcome = Kind.REFUSED
    for answer in (site.post("/emails", json=order()), site.post("/orders", **in_form())):
        document = assert_problem(answer, 503, "the broker's own words")
        assert int(answer.headers["Retry-After"]) > 0
        assert document["outcome"] == "refused"
        assert "task_id" not in document
        assert "Location" not in answer.headers
    assert site.kept() == []
    assert site.get(f"/tasks/{site.producer.sent[0]['task']}").status_code == 404


def test_an_unknown_outcome_says_so_names_the_task_and_keeps_the_file(site: Site) -> None:
    site.producer.outcome = Kind.UNKNOWN
    answers = [site.post("/emails", json=order()), site.post("/orders", **in_form())]
    for answer, sent in zip(answers, site.producer.sent, strict=True):
        document = assert_problem(answer, 503, "the broker's own words")
        assert int(answer.headers["Retry-After"]) > 0
        assert (document["outcome"], document["task_id"]) == ("unknown", sent["task"])
        state = site.get(f"/tasks/{sent['task']}").json()
        assert state == {"task_id": sent["task"], "status": "PENDING", "confirmed": False}
    assert site.kept() == [CSV]


def test_a_journal_that_cannot_be_written_is_an_unknown_outcome(site: Site) -> None:
    site.producer.error = JournalError("the disk is full")
    document = assert_problem(site.post("/emails", json=order()), 503, "journal")
    assert document["outcome"] == "unknown"
    assert document["task_id"] == site.producer.sent[0]["task"]


def test_a_send_that_the_end_of_the_server_cuts_off_is_an_unknown_outcome(site: Site) -> None:
    answers: list[requests.Response] = []
    site.producer.gate.clear()
    with TaskSender(site.producer, Results.of_file(site.results)) as desk:
        with serving(create_app(desk, web.router)) as url:
            ask = threading.Thread(
                target=lambda: answers.append(requests.post(f"{url}/emails", json=order(), timeout=TIMEOUT_S))
            )
            ask.start()
            wait_until(lambda: site.producer.sent, what="a send", timeout_s=TIMEOUT_S)
        ask.join(TIMEOUT_S)
        site.producer.gate.set()
    document = assert_problem(answers[0], 503, "it may still run")
    assert (document["outcome"], document["task_id"]) == ("unknown", site.producer.sent[0]["task"])


def test_an_error_that_nobody_foresaw_is_a_problem_without_its_details(site: Site) -> None:
    site.producer.error = UsageError("secret")
    answer = site.post("/emails", json=order())
    assert_problem(answer, 500)
    assert "secret" not in answer.text


def test_while_all_sends_hang_one_more_is_refused_at_once_and_all_else_answers(site: Site) -> None:
    site.producer.gate.clear()
    statuses: list[int] = []
    clients = [
        threading.Thread(target=lambda: statuses.append(site.post("/emails", json=order()).status_code))
        for _ in range(2)
    ]
    for client in clients:
        client.start()
    try:
        wait_until(lambda: len(site.producer.sent) == 2, what="both sends hang", timeout_s=TIMEOUT_S)
        begun_s = time.monotonic()
        for answer in (site.post("/emails", json=order()), site.post("/orders", **in_form())):
            assert assert_problem(answer, 503, "2 tasks are on their way")["outcome"] == "refused"
            assert answer.headers["Retry-After"] == "1"
        assert site.get("/health").json() == {"status": "ok"}
        assert site.get(f"/tasks/{site.producer.sent[0]['task']}").status_code == 404
        assert time.monotonic() - begun_s < 2
        assert site.kept() == []
    finally:
        site.producer.gate.set()
        for client in clients:
            client.join(TIMEOUT_S)
    assert statuses == [202, 202]
    # The places are free again.
    assert site.post("/emails", json=order()).status_code == 202
    assert len(site.producer.sent) == 3


# -------------------------------------------------------------------------------------------------------------- tasks


def test_a_task_is_pending_until_it_has_a_row(site: Site) -> None:
    task = site.post("/emails", json=order()).json()["task_id"]
    answer = site.get(f"/tasks/{task}")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.json() == {"task_id": task, "status": "PENDING", "confirmed": True}
    site.record(task, "SUCCESS", b'{"mails": 1}')
    state = site.get(f"/tasks/{task}").json()
    assert (state["status"], state["result"], state["undecoded"]) == ("SUCCESS", {"mails": 1}, None)


def test_a_task_with_a_row_is_known_though_it_was_not_sent_here(site: Site) -> None:
    site.record("theirs", "FAILURE", b'{"exc_type": "ValueError"}')
    state = site.get("/tasks/theirs").json()
    assert (state["status"], state["confirmed"], state["result"]) == ("FAILURE", None, {"exc_type": "ValueError"})


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (b"\x80\x04K\x01.", "pickled"),
        (b"\xff", "not JSON"),
        (b"NaN", "JSON"),
        (b'"\\ud800"', "surrogates"),
        (b"[" * 300 + b"]" * 300, "depth"),
        (b"[" * 200_000 + b"]" * 200_000, "nested too deep"),
    ],
)
def test_a_result_that_cannot_be_shown_as_json_is_not_shown(site: Site, result: bytes, said: str) -> None:
    site.record("task", "SUCCESS", result)
    state = site.get("/tasks/task").json()
    assert (state["status"], state["result"]) == ("SUCCESS", None)
    assert said in state["undecoded"]


@pytest.mark.parametrize("task", ["nobody-sent-this", "x" * 5000, "%00", "%F0%9F%92%A5"])
def test_a_task_that_nobody_sent_is_not_found(site: Site, task: str) -> None:
    assert_problem(site.get(f"/tasks/{task}"), 404)
    site.record("another", "SUCCESS", b"1")
    assert_problem(site.get(f"/tasks/{task}"), 404)


def test_results_that_cannot_be_read_are_a_problem_of_now(site: Site) -> None:
    site.results.write_bytes(b"no database" * 1000)
    answer = site.get("/tasks/any")
    assert_problem(answer, 503, "cannot be read now")
    assert int(answer.headers["Retry-After"]) > 0


def test_the_oldest_tasks_are_forgotten(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_sender, "MEMORY", 2)
    tasks = [site.post("/emails", json=order()).json()["task_id"] for _ in range(3)]
    assert [site.get(f"/tasks/{task}").status_code for task in tasks] == [404, 200, 200]


# ---------------------------------------------------------------------------------------------------- pages and doors


def test_the_openapi_document_lists_all_routes_with_their_errors(site: Site) -> None:
    document = site.get("/openapi.json").json()
    assert document["paths"].keys() == {"/health", "/tasks/{task_id}", "/emails", "/orders"}
    for path, statuses in (("/emails", {"202", "400", "413", "415", "422", "503"}), ("/orders", {"202", "413", "503"})):
        answers = document["paths"][path]["post"]["responses"]
        assert answers.keys() >= statuses
        assert all(PROBLEM in answers[status]["content"] for status in statuses - {"202"})
    assert document["paths"]["/orders"]["post"]["requestBody"]["content"].keys() == {"multipart/form-data", "text/csv"}


# The library reads its files with a function that Python 3.11 and 3.12 warn of.
@pytest.mark.filterwarnings("ignore:open_binary is deprecated")
def test_the_docs_page_needs_nothing_from_anywhere_else(site: Site) -> None:
    page = site.get("/docs").text
    parts = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(parts) >= 3
    for part in [*parts, *re.findall(r"https?://[^\"' ]+", page)]:
        assert part.startswith((site.url, "/")), part
    for part in parts:
        answer = site.get(part.removeprefix(site.url))
        assert answer.ok
        assert len(answer.content) > 500
    assert '"validatorUrl": null' in page


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/absent", 404), ("GET", "/emails", 405), ("PUT", "/orders", 405), ("POST", "/health", 405)],
)
def test_a_door_that_is_not_there_is_a_problem_as_well(site: Site, method: str, path: str, status: int) -> None:
    answer = requests.request(method, site.url + path, timeout=TIMEOUT_S)
    assert_problem(answer, status)
    assert ("Allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize("path", ["/health", "/tasks/theirs"])
def test_what_can_be_got_can_be_asked_for_its_head_alone(site: Site, path: str) -> None:
    site.record("theirs", "SUCCESS", b"1")
    answer = requests.head(site.url + path, timeout=TIMEOUT_S)
    assert (answer.status_code, answer.content) == (200, b"")


def test_an_app_without_routes_still_answers(site: Site) -> None:
    with TaskSender(site.producer, Results.of_file(site.results)) as desk, serving(create_app(desk)) as url:
        assert requests.get(f"{url}/health", timeout=TIMEOUT_S).ok
        assert requests.get(f"{url}/emails", timeout=TIMEOUT_S).status_code == 404


# -------------------------------------------------------------------------------------------------------- the process


def test_routes_are_found_or_it_is_said_why_not() -> None:
    assert isinstance(load_routes("scenarios.web"), APIRouter)
    with pytest.raises(UsageError, match=r"cannot import the routes 'no\.such': No module named 'no'"):
        load_routes("no.such")
    with pytest.raises(UsageError, match=r"scenarios\.app has no `router`"):
        load_routes("scenarios.app")


def environment(run: Path) -> dict[str, str]:
    (run / "journal").mkdir()
    return {
        **os.environ,
        "HARNESS_JOURNAL": str(run / "journal"),
        "HARNESS_NODE": "web",
        "HARNESS_WEB_HOST": "127.0.0.1",
        "HARNESS_WEB_PORT": "0",
        "CELERY_BROKER_URL": "amqp://guest:guest@127.0.0.1:1//",
        "CELERY_RESULT_BACKEND": f"db+sqlite:///{run}/results.sqlite3",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
    }


def test_the_process_serves_logs_each_request_and_ends_in_good_order(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "harness.inside.web", "scenarios.web"]
    with subprocess.Popen(command, env=environment(tmp_path), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = iter(process.stdout)
            url = next(found[0] for one in said if (found := re.search(r"http://127\.0\.0\.1:\d+", one)))
            assert_problem(requests.post(f"{url}/emails", json=order(), timeout=TIMEOUT_S), 503, "no connection")
            process.send_signal(signal.SIGTERM)
            log = "".join(said)
            assert process.wait(TIMEOUT_S) == 0
        finally:
            process.kill()
    assert len(re.findall(r'"POST /emails HTTP/1.1" 503', log)) == 1
    events = list(read(tmp_path / "journal"))
    assert [event.kind for event in events] == [Kind.OPENED, Kind.UP, Kind.INTENDED, Kind.REFUSED, Kind.DOWN]
    assert events[0].data["role"] == "producer"
    assert events[-1].data == {"signal": "SIGTERM"}


@pytest.mark.parametrize("absent", ["HARNESS_JOURNAL", "HARNESS_NODE", "CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"])
def test_what_the_environment_lacks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, absent: str
) -> None:
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(absent)
    monkeypatch.setattr(sys, "argv", ["web"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert f"{absent} is not set" in caplog.text
