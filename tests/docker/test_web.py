"""The web producer in its container: a real broker, which is paused, stopped and killed, a real worker, real mail."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from harness import Drive
from harness.containers.mailbox import Mailbox
from harness.errors import StartError
from harness.records.event import Kind
from harness.records.journal import read
from harness.records.moment import Moment
from harness.records.verdict import Fate, Verdict
from harness.stack.shared_parts import SharedParts
from harness.stack.stack import Stack
from harness.wait import wait_until
from scenarios.bulk_data.made_file import write_file
from scenarios.bulk_data.scenario import scenario as bulk_data
from scenarios.emails.prediction import make_order
from scenarios.emails.scenario import scenario

STACK = {"app": scenario.app, "env": scenario.env, "promise": scenario.promise}
pytestmark = [pytest.mark.docker, pytest.mark.stack(**STACK)]

TIMEOUT_S = 30.0
AT_ONCE_S = 2.0
"""An answer that waits for nothing, on a machine that is busy."""
CLIENTS = 20
CSV = b"order,sku,quantity\n1,TEA-01,2\n"


@pytest.fixture(scope="module")
def _harness_session() -> Iterator[SharedParts]:
    """Yield a session for this module alone: the broker that other tests share must not be stopped under them."""
    with SharedParts() as session:
        yield session


@dataclass(frozen=True, kw_only=True)
class Site:
    """A stack with its web producer, and clients of it."""

    stack: Stack
    url: str

    def post(self, path: str, **request: Any) -> requests.Response:
        return requests.post(self.url + path, timeout=TIMEOUT_S, **request)

    def order(self, number: int) -> requests.Response:
        return self.post("/emails", json=make_order(number, 7))

    def task(self, task: str) -> dict[str, Any]:
        answer = requests.get(f"{self.url}/tasks/{task}", timeout=TIMEOUT_S)
        assert answer.ok, answer.text
        state: dict[str, Any] = answer.json()
        return state

    def journaled(self, kind: Kind) -> set[str | None]:
        """Return the tasks of all lines of this kind that the web node wrote."""
        events = read(self.stack.folder.journal)
        return {event.task for event in events if event.node == "web" and event.kind is kind}


@pytest.fixture
def site(stack: Stack) -> Site:
    return Site(stack=stack, url=stack.add_web("scenarios.web").url)


@contextmanager
def paused(stack: Stack) -> Iterator[None]:
    stack.broker.pause()
    try:
        yield
    finally:
        stack.broker.unpause()


def fates(stack: Stack, timeout_s: float = 60.0) -> dict[Fate, int]:
    """Return the fates that the tasks met, and their counts."""
    return {fate: count for fate, count in stack.settle(timeout_s).fates.items() if count}


def assert_not_taken(answer: requests.Response, *outcomes: str) -> str:
    """Check that the answer is a correct 503, and return its outcome."""
    assert answer.status_code == 503, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert int(answer.headers["Retry-After"]) > 0
    outcome: str = answer.json()["outcome"]
    assert outcome in outcomes
    return outcome


def test_an_order_over_http_is_mailed_once_and_recorded(mailbox: Mailbox, site: Site) -> None:
    answers = [site.order(number) for number in range(5)]
    assert [answer.status_code for answer in answers] == [202] * 5
    tasks = [answer.json()["task_id"] for answer in answers]
    assert {site.task(task)["status"] for task in tasks} <= {"PENDING", "SUCCESS"}
    audit = site.stack.settle()
    assert audit.verdict is Verdict.PASS, audit.text()
    assert audit.fates[Fate.OK] == 5
    assert sorted(str(mail.task) for mail in mailbox.messages()) == sorted(tasks)
    for task in tasks:
        state = site.task(task)
        assert (state["status"], state["confirmed"]) == ("SUCCESS", True)
        assert state["result"]["message_id"].startswith("receipt-7-")


def test_an_address_whose_domain_is_not_ascii_gets_its_mail_as_well(mailbox: Mailbox, site: Site) -> None:
    order = {**make_order(0, 7), "customer": {"name": "Zoë", "email": "zoe@bücher.example"}}
    assert site.post("/emails", json=order).status_code == 202
    audit = site.stack.settle()
    assert audit.verdict is Verdict.PASS, audit.text()
    assert [mail.recipients for mail in mailbox.messages()] == [("zoe@bücher.example",)]


@pytest.mark.stack(**STACK, workers=0)
def test_a_file_is_where_the_workers_see_it_and_belongs_to_the_caller(site: Site) -> None:
    answer = site.post("/orders", files={"file": ("a.csv", CSV, "text/csv")}, data={"import_id": "monday"})
    assert answer.status_code == 202, answer.text
    assert site.post("/orders", data=CSV, headers={"Content-Type": "text/csv"}).status_code == 202
    uploads = site.stack.folder.path / "app" / "uploads"
    assert [path.read_bytes() for path in uploads.iterdir()] == [CSV, CSV]
    assert {path.stat().st_uid for path in uploads.iterdir()} == {site.stack.folder.path.stat().st_uid}
    assert fates(site.stack, 0.5) == {Fate.PENDING: 2}


@pytest.mark.stack(**{**STACK, "app": "scenarios.bulk_data.tasks"})
def test_a_file_of_orders_over_http_is_imported_once(site: Site, tmp_path: Path) -> None:
    write_file(tmp_path / "orders.csv", rows=2000, seed=7)
    with (tmp_path / "orders.csv").open("rb") as file:
        answer = site.post("/orders", files={"file": ("orders.csv", file, "text/csv")})
    assert answer.status_code == 202, answer.text
    drive = Drive(count=1, seed=7)
    audit = site.stack.settle(effects=lambda: bulk_data.effects(site.stack, drive))
    assert audit.verdict is Verdict.PASS, audit.text()
    assert site.task(answer.json()["task_id"])["result"]["import_id"] == answer.json()["import_id"]


@pytest.mark.stack(**{**STACK, "env": {**scenario.env, "WEB_UPLOAD_LIMIT_BYTES": "4194304"}}, workers=0)
def test_bad_input_is_refused_at_each_door_and_nothing_is_sent(site: Site) -> None:
    json_type, csv_type = {"Content-Type": "application/json"}, {"Content-Type": "text/csv"}
    too_long = [b"x" * 1024 * 1024] * 5
    refused = [
        (site.post("/emails", json={"id": "1"}), 422),
        (site.post("/emails", data=b"{", headers=json_type), 400),
        (site.post("/emails", data=b"{}"), 415),
        (site.post("/emails", data=b" " * 1024 * 1024, headers=json_type), 413),
        (site.post("/emails", data=iter(too_long), headers=json_type), 413),
        (site.post("/orders", data=b"", headers=csv_type), 422),
        (site.post("/orders", data=CSV, headers=json_type), 415),
        (site.post("/orders", data=iter(too_long), headers=csv_type), 413),
        (site.post("/orders", files={"file": ("a.csv", b"".join(too_long), "text/csv")}), 413),
        (site.post("/absent"), 404),
        (requests.get(f"{site.url}/tasks/absent", timeout=TIMEOUT_S), 404),
    ]
    for answer, status in refused:
        assert answer.status_code == status, answer.text
        assert answer.headers["Content-Type"] == "application/problem+json"
    assert site.journaled(Kind.INTENDED) == set()
    assert not list((site.stack.folder.path / "app").rglob("*.csv"))
    assert fates(site.stack, 0.5) == {}


@pytest.mark.stack(**STACK, workers=0)
def test_a_request_can_say_when_its_task_was_due_and_the_journal_says_it_after_it(site: Site) -> None:
    due_t = round(time.time() - 12.5, 3)
    told = site.post("/emails", json=make_order(0, 7), headers={"Harness-Due": f"{due_t:.3f}"})
    untold = site.order(1)
    assert (told.status_code, untold.status_code) == (202, 202)
    events = read(site.stack.folder.journal)
    due = {event.task: event.data.get("due") for event in events if event.kind is Kind.INTENDED}
    assert due == {told.json()["task_id"]: pytest.approx(due_t, abs=1e-6), untold.json()["task_id"]: None}
    assert fates(site.stack, 0.5) == {Fate.PENDING: 2}


@pytest.mark.usefixtures("mailbox")
def test_a_paused_broker_is_a_503_while_all_else_answers_and_every_task_is_accounted_for(site: Site) -> None:
    taken = site.order(0).json()["task_id"]
    with ThreadPoolExecutor(3) as pool, paused(site.stack):
        hanging = [pool.submit(site.order, number) for number in range(1, 4)]
        wait_until(lambda: len(site.journaled(Kind.INTENDED)) == 4, what="three sends hang", timeout_s=TIMEOUT_S)
        begun_s = time.monotonic()
        assert requests.get(f"{site.url}/health", timeout=TIMEOUT_S).ok
        assert site.task(taken)["status"] in {"PENDING", "SUCCESS"}
        assert time.monotonic() - begun_s < AT_ONCE_S
        outcomes = [assert_not_taken(answer.result(), "refused", "unknown") for answer in hanging]
    # One went out on the connection that stood; for the others none could be made.
    assert sorted(outcomes) == ["refused", "refused", "unknown"]
    (unknown,) = site.journaled(Kind.UNKNOWN)
    assert unknown in {answer.result().json().get("task_id") for answer in hanging}
    assert site.order(4).status_code == 202
    found = fates(site.stack)
    assert found.pop(Fate.OK) == 2
    assert found.pop(Fate.REFUSED) == 2
    assert found in ({Fate.RECOVERED: 1}, {Fate.UNKNOWN: 1})
    if Fate.RECOVERED in found:
        assert site.task(str(unknown))["status"] == "SUCCESS"


@pytest.mark.usefixtures("mailbox")
def test_a_broker_that_was_stopped_is_a_503_until_it_is_back(site: Site) -> None:
    assert site.order(0).status_code == 202
    site.stack.broker.stop(30)
    try:
        begun_s = time.monotonic()
        assert_not_taken(site.order(1), "refused")
        refused_s = time.monotonic() - begun_s
    finally:
        site.stack.broker.start()
        site.stack.broker.wait_ready()
    assert refused_s < TIMEOUT_S / 2
    assert site.order(2).status_code == 202
    audit = site.stack.settle()
    assert audit.verdict is Verdict.PASS, audit.text()
    assert (audit.fates[Fate.OK], audit.fates[Fate.REFUSED]) == (2, 1)


@dataclass
class Load:
    """Clients that order until they are told to stop, and what they were answered."""

    site: Site
    over: threading.Event = field(default_factory=threading.Event)
    answers: list[requests.Response] = field(default_factory=list)
    _number: Iterator[int] = field(default_factory=lambda: iter(range(1_000_000)))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def client(self) -> None:
        while not self.over.is_set():
            with self._lock:
                number = next(self._number)
            self.answers.append(self.site.order(number))

    def taken(self) -> list[str]:
        return [answer.json()["task_id"] for answer in [*self.answers] if answer.status_code == 202]

    def refused(self) -> list[str]:
        return [answer.json()["outcome"] for answer in [*self.answers] if answer.status_code == 503]


@pytest.mark.usefixtures("mailbox")
def test_a_202_is_never_given_for_a_task_that_the_broker_did_not_confirm(site: Site) -> None:
    load, broker = Load(site), site.stack.broker
    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(load.client) for _ in range(CLIENTS)]
        try:
            wait_until(lambda: len(load.taken()) >= 50, what="orders are taken", timeout_s=TIMEOUT_S)
            with paused(site.stack):
                wait_until(lambda: "unknown" in load.refused(), what="a time-out", timeout_s=TIMEOUT_S)
            before = len(load.taken())
            wait_until(lambda: len(load.taken()) >= before + 50, what="orders are taken again", timeout_s=TIMEOUT_S)
            broker.kill()
            wait_until(lambda: load.refused().count("refused") >= CLIENTS, what="refusals", timeout_s=TIMEOUT_S)
            broker.start()
            broker.wait_ready()
            before = len(load.taken())
            wait_until(lambda: len(load.taken()) > before, what="orders are taken once more", timeout_s=TIMEOUT_S)
        finally:
            load.over.set()
        for client in clients:
            client.result()
    taken = load.taken()
    assert len(set(taken)) == len(taken)
    # Nothing was said to be taken without the broker's word, and its word was passed on every time.
    assert set(taken) == site.journaled(Kind.ACCEPTED)
    told_unknown = {answer.json()["task_id"] for answer in load.answers if "task_id" in answer.json()} - set(taken)
    assert told_unknown == site.journaled(Kind.UNKNOWN)
    assert len(load.answers) == len(taken) + len(load.refused())
    found = fates(site.stack, 120.0)
    assert found.pop(Fate.OK) == len(taken)
    assert found.pop(Fate.REFUSED) == len(site.journaled(Kind.REFUSED))
    assert found.keys() <= {Fate.RECOVERED, Fate.UNKNOWN}
    assert sum(found.values()) == len(told_unknown)


@pytest.mark.usefixtures("mailbox")
@pytest.mark.parametrize(("moment", "fate"), [(Moment.UNCONFIRMED, Fate.RECOVERED), (Moment.PUBLISHED, Fate.OK)])
def test_what_a_web_node_has_sent_before_it_dies_runs_whether_or_not_it_knew(
    site: Site, moment: Moment, fate: Fate
) -> None:
    with ThreadPoolExecutor(1) as pool, site.stack.hold(None, moment) as hold:
        answer = pool.submit(site.order, 0)
        assert hold.wait().node == "web"
        hold.kill()
        with pytest.raises(requests.ConnectionError):
            answer.result()
    assert fates(site.stack) == {fate: 1}


@pytest.mark.stack(**STACK, workers=0)
def test_routes_that_cannot_be_imported_are_a_start_error_that_says_so(stack: Stack) -> None:
    with pytest.raises(
        StartError, match=r"exited with 2 before it was ready(.|\n)*cannot import the routes 'no\.such'"
    ):
        stack.add_web("no.such")


@pytest.mark.stack(**STACK, workers=0)
def test_it_ends_in_good_order_and_leaves_no_task_without_an_outcome(site: Site) -> None:
    assert site.order(0).status_code == 202
    with ThreadPoolExecutor(1) as pool, paused(site.stack):
        pool.submit(site.order, 1)
        wait_until(lambda: len(site.journaled(Kind.INTENDED)) == 2, what="a send hangs", timeout_s=TIMEOUT_S)
        site.stack.web.stop(20)
    assert str(site.stack.web.container.state()) == "exited with 0"
    kinds = [event.kind for event in read(site.stack.folder.journal) if event.node == "web"]
    assert kinds[-2:] == [Kind.UNKNOWN, Kind.DOWN]
    log = site.stack.web.last_lines(100)
    assert log.count('"POST /emails HTTP/1.1" 202') == 1
    assert sum(fates(site.stack, 0.5).values()) == 2
