"""The page of a stack that is up: who may ask, who may order, and what a browser shows of it."""

import http.client
import json
import re
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from harness.errors import BrokerError, UsageError
from harness.records.moment import Moment
from harness.report.live_page import TOKEN_HEADER, LiveHold, LiveNode, LiveQueue, LiveTask, LiveView, page
from harness.running import live_server
from harness.running.live_server import serving
from harness.running.live_stack import Do, Order
from tests.browser import READY_S, chromium, is_ready
from tests.unit.report.test_page_in_browser import DESKTOP, PHONE, complaints, requested, serious, show, text_of

HOSTILE = "</script><img src=x onerror=document.title='taken'>"
VIEW = LiveView(
    now_t=1_000.0,
    sent=3,
    ended=1,
    running=1,
    nodes=(
        LiveNode(name="broker", state="running", is_worker=False),
        LiveNode(name="worker-1", state="running", is_worker=True),
        LiveNode(name="worker-2", state="exited", is_worker=True),
    ),
    queues=(LiveQueue(name=HOSTILE, ready=4, unacked=1),),
    tasks=tuple(
        LiveTask(task=task, name=name, state=state, node="worker-1", starts=1, sent_t=1.0, t=2.5)
        for task, name, state in (
            ("t-3", HOSTILE, "running"),
            (HOSTILE, "shop.pay", "FAILURE"),
            ("t 1#", "a", "SUCCESS"),
        )
    ),
    holds=(LiveHold(number=7, whom=HOSTILE, moment="started", held="t-3 on worker-1"),),
    names=("shop.pay", HOSTILE),
    notes=(HOSTILE,),
)


@dataclass
class Stack:
    """A stack that notes its orders."""

    orders: list[Order] = field(default_factory=list)
    error: Exception | None = None
    shown: LiveView = VIEW
    blind: Exception | None = None
    """What keeps the stack from being shown."""

    def view(self) -> LiveView:
        if self.blind is not None:
            raise self.blind
        return self.shown

    def report(self) -> str:
        return "<!doctype html><title>the report</title>"

    def do(self, order: Order) -> str:
        if self.error is not None:
            raise self.error
        self.orders.append(order)
        return f"done: {order.do.value}"


@dataclass
class Site:
    """A page that is served."""

    address: str
    stack: Stack
    said: list[str]

    @property
    def host(self) -> str:
        return self.address.removeprefix("http://")

    def ask(
        self, method: str, path: str, headers: Mapping[str, str | None] | None = None, body: str | None = None
    ) -> tuple[int, str, Mapping[str, str]]:
        """Send a request; a header that is None is left out."""
        given = {"Host": self.host, **(headers or {})}
        connection = http.client.HTTPConnection(self.host, timeout=20)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in given.items():
            if value is not None:
                connection.putheader(name, value)
        connection.endheaders(None if body is None else body.encode())
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text, dict(answer.getheaders())

    def order(self, what: Any, **others: str | None) -> tuple[int, str]:
        """Send an order as the page sends it, apart from `others`; the name of a header is written with `_`."""
        body = what if isinstance(what, str) else json.dumps(what)
        headers: dict[str, str | None] = {
            "Origin": self.address,
            "Content-Type": "application/json",
            TOKEN_HEADER: self.token(),
            "Content-Length": str(len(body.encode())),
        }
        headers |= {name.replace("_", "-"): value for name, value in others.items()}
        status, text, _ = self.ask("POST", "/order", headers, body)
        return status, text

    def token(self) -> str:
        _, text, _ = self.ask("GET", "/")
        (found,) = re.findall(r'<script type="application/json" id="about">(.*?)</script>', text)
        token: str = json.loads(found)["token"]
        return token


@pytest.fixture
def site() -> Iterator[Site]:
    stack, said = Stack(), list[str]()
    links = {"RabbitMQ": "http://127.0.0.1:1/"}
    with serving(
        stack, lambda token: page(HOSTILE, HOSTILE, links, token=token, first="Send it"), said.append
    ) as there:
        yield Site(there, stack, said)
    assert said == []


# ------------------------------------------------------------------------------------------------ who may ask and order


def test_it_listens_on_this_machine_alone_and_shows_page_state_and_report(site: Site) -> None:
    assert site.address.startswith("http://127.0.0.1:")
    status, text, headers = site.ask("GET", "/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "<img" not in text
    assert "connect-src &#x27;self&#x27;" in text
    assert headers["X-Frame-Options"] == "DENY"
    status, text, headers = site.ask("GET", "/state")
    assert (status, LiveView.from_json(json.loads(text))) == (200, VIEW)
    assert (headers["Cache-Control"], headers["X-Content-Type-Options"]) == ("no-store", "nosniff")
    assert "Access-Control-Allow-Origin" not in headers
    assert site.ask("GET", "/report")[1].endswith("<title>the report</title>")
    assert site.ask("GET", "/../etc/passwd")[0] == 404
    assert site.ask("GET", "/", {"Host": f"localhost:{site.host.partition(':')[2]}"})[0] == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "", None])
@pytest.mark.parametrize("path", ["/", "/state", "/report"])
def test_a_name_that_points_here_is_shown_nothing(site: Site, host: str | None, path: str) -> None:
    named = host and host.format(port=site.host.partition(":")[2])
    status, text, _ = site.ask("GET", path, {"Host": named})
    assert (status, "and no other host" in text) == (421, True)


def test_an_order_of_the_page_is_carried_out(site: Site) -> None:
    assert site.order({"do": "kill", "node": "worker-1"}) == (200, "done: kill")
    assert site.order({"do": "hold", "name": "", "moment": "stored"}) == (200, "done: hold")
    assert site.stack.orders == [Order(do=Do.KILL, node="worker-1"), Order(do=Do.HOLD, moment=Moment.STORED)]


@pytest.mark.parametrize(
    ("others", "status"),
    [
        ({TOKEN_HEADER.replace("-", "_"): "wrong"}, 403),
        ({TOKEN_HEADER.replace("-", "_"): "wr\u00f6ng"}, 403),
        ({TOKEN_HEADER.replace("-", "_"): None}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": None}, 403),
        ({"Host": "evil.example"}, 421),
        # A rebound name has the same origin as its host.
        ({"Host": "evil.example:80", "Origin": "http://evil.example:80"}, 421),
        ({"Content_Type": "text/plain"}, 415),
        ({"Content_Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content_Length": None}, 411),
        ({"Content_Length": "-1"}, 411),
        ({"Content_Length": "99999999999999999999"}, 413),
    ],
)
def test_an_order_of_anybody_else_is_refused(site: Site, others: dict[str, str | None], status: int) -> None:
    assert site.order({"do": "kill", "node": "worker-1"}, **others)[0] == status
    assert site.stack.orders == []


def test_an_order_comes_by_post_alone(site: Site) -> None:
    for method in ("GET", "PUT", "DELETE", "HEAD", "OPTIONS"):
        assert site.ask(method, "/order", {"Origin": site.address, TOKEN_HEADER: site.token()})[0] in {404, 501}
    assert site.stack.orders == []


@pytest.mark.parametrize(
    ("what", "seen"),
    [
        ("no JSON", "JSON object"),
        ("[]", "should be an object"),
        ("[" * 50_000, "JSON object"),
        ({}, "has no `do`"),
        ({"do": "remove"}, "one of send, first, kill"),
        ({"do": "hold", "moment": "never"}, "`moment` of Order"),
        ({"do": "send", "count": "many"}, "a whole number"),
    ],
)
def test_an_order_that_is_none_is_told(site: Site, what: Any, seen: str) -> None:
    status, text = site.order(what)
    assert (status, seen in text) == (400, True), text
    assert site.stack.orders == []


@pytest.mark.parametrize(
    ("error", "status"),
    [(UsageError("there is no worker 'x'."), 400), (BrokerError("it does not answer."), 502)],
)
def test_what_cannot_be_done_is_told(site: Site, error: Exception, status: int) -> None:
    site.stack.error = error
    assert site.order({"do": "kill", "node": "x"}) == (status, str(error))


def test_an_error_that_nobody_expected_is_told_to_both_sides(site: Site) -> None:
    site.stack.error = ZeroDivisionError("division by zero")
    assert site.order({"do": "first"}) == (500, "ZeroDivisionError: division by zero")
    assert site.said == ["the page met an error, please report it: ZeroDivisionError: division by zero"]
    site.said.clear()


@pytest.mark.parametrize("error", [ConnectionResetError("the engine is gone"), TimeoutError("no answer")])
def test_a_connection_of_the_stack_that_fails_is_no_client_that_has_left(site: Site, error: Exception) -> None:
    site.stack.error = site.stack.blind = error
    said = f"{type(error).__name__}: {error}"
    assert site.order({"do": "first"}) == (500, said)
    assert site.ask("GET", "/state")[:2] == (500, said)
    assert site.said == [f"the page met an error, please report it: {said}"] * 2
    site.said.clear()


def test_a_client_that_leaves_while_it_orders_is_no_error(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    head = (
        f"POST /order HTTP/1.1\r\nHost: {site.host}\r\nOrigin: {site.address}\r\n{TOKEN_HEADER}: {site.token()}\r\n"
        "Content-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
    )
    host, port = site.host.split(":")
    with socket.create_connection((host, int(port)), timeout=20) as leaving:
        leaving.sendall(head.encode())
        # With this, the end of the connection is a reset.
        leaving.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert site.order({"do": "first"}) == (200, "done: first")
    assert [one.do for one in site.stack.orders] == [Do.FIRST]
    assert capsys.readouterr().err == ""


def test_clients_that_say_nothing_take_no_more_threads_than_there_are(site: Site) -> None:
    host, port = site.host.split(":")
    silent = [socket.create_connection((host, int(port)), timeout=20) for _ in range(live_server._MOST_REQUESTS)]  # noqa: SLF001
    before = threading.active_count()
    with socket.create_connection((host, int(port)), timeout=20) as one_more:
        # It is closed at once.
        assert one_more.recv(1) == b""
    assert threading.active_count() <= before + live_server._MOST_REQUESTS  # noqa: SLF001
    for one in silent:
        one.close()


def test_at_its_end_nobody_listens_any_more() -> None:
    with serving(Stack(), lambda _: "page", print) as address:
        host, port = address.removeprefix("http://").split(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=20)


# ------------------------------------------------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def chrome() -> Iterator[webdriver.Chrome]:
    with chromium() as started:
        yield started


@pytest.mark.parametrize(("size", "scheme"), [(PHONE, "dark"), (DESKTOP, "light"), (PHONE, "light"), (DESKTOP, "dark")])
def test_a_browser_shows_the_stack_at_each_width_and_in_each_scheme(
    chrome: webdriver.Chrome, site: Site, size: tuple[int, int], scheme: str
) -> None:
    show(chrome, site.address, size, scheme)
    assert text_of(chrome, "#badge") == "UP"
    assert text_of(chrome, "#counts") == "3 sent, 1 ended, 1 running"
    assert [row.text for row in chrome.find_elements(By.CSS_SELECTOR, "#table-nodes tbody tr")] == [
        "broker running",
        "worker-1 running Kill",
        "worker-2 exited Start",
    ]
    # Names of somebody else's are shown as they are, and run nothing.
    assert text_of(chrome, "#table-queues tbody th") == HOSTILE
    assert chrome.find_elements(By.TAG_NAME, "img") == []
    assert chrome.title == f"up: {HOSTILE}"
    links = [one.get_attribute("href") for one in chrome.find_elements(By.CSS_SELECTOR, "#table-tasks a")]
    assert links[2] == f"{site.address}/report#task=t%201%23"
    assert chrome.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    assert serious(chrome) == []
    assert complaints(chrome) == []
    assert all(one.startswith((f"{site.address}/", "data:")) for one in requested(chrome))


def test_its_buttons_and_forms_order_by_keyboard_alone(chrome: webdriver.Chrome, site: Site) -> None:
    show(chrome, site.address)
    keys = ActionChains(chrome)

    def tab_to(label: str) -> None:
        for _ in range(60):
            keys.send_keys(Keys.TAB).perform()
            active = chrome.switch_to.active_element
            if label in {active.get_attribute("aria-label"), active.get_attribute("name"), active.text}:
                return
        pytest.fail(f"{label} is not reached by the tab key")

    def ordered(number: int) -> None:
        WebDriverWait(chrome, READY_S).until(lambda _: len(site.stack.orders) == number)
        WebDriverWait(chrome, READY_S).until(lambda _: text_of(chrome, "#said").startswith("done: "))

    tab_to("name")
    keys.send_keys("shop.pay", Keys.TAB, "[3]", Keys.ENTER).perform()
    ordered(1)
    assert site.stack.orders[0] == Order(do=Do.SEND, name="shop.pay", args="[3]")
    tab_to("Send it")
    keys.send_keys(Keys.ENTER).perform()
    ordered(2)
    tab_to("Kill worker-1")
    keys.send_keys(Keys.ENTER).perform()
    ordered(3)
    tab_to(f"Kill the process of {VIEW.holds[0].held}")
    keys.send_keys(Keys.ENTER).perform()
    ordered(4)
    assert [one.do.value for one in site.stack.orders] == ["send", "first", "kill", "kill-held"]
    assert site.stack.orders[3].hold == 7
    assert complaints(chrome) == []


def test_a_refusal_is_shown_and_a_change_keeps_the_focus(chrome: webdriver.Chrome, site: Site) -> None:
    show(chrome, site.address)
    button = chrome.find_element(By.CSS_SELECTOR, "[aria-label='Start worker-2']")
    site.stack.error = UsageError("worker-2 runs already.")
    button.send_keys(Keys.ENTER)
    WebDriverWait(chrome, READY_S).until(lambda _: text_of(chrome, "#said") == "worker-2 runs already.")
    site.stack.shown = LiveView.from_json({**VIEW.to_json(), "sent": 4, "queues": []})
    WebDriverWait(chrome, READY_S).until(lambda _: text_of(chrome, "#counts").startswith("4 sent"))
    assert chrome.find_elements(By.CSS_SELECTOR, "#table-queues tbody tr") == []
    assert chrome.switch_to.active_element.get_attribute("aria-label") == "Start worker-2"


def test_what_the_server_says_is_shown_and_the_stack_is_not_called_gone(chrome: webdriver.Chrome, site: Site) -> None:
    show(chrome, site.address)
    site.stack.blind = BrokerError("the broker does not answer.")
    WebDriverWait(chrome, READY_S).until(lambda _: text_of(chrome, "#badge") == "ERROR")
    assert text_of(chrome, "#said") == "the broker does not answer."
    assert chrome.find_element(By.CSS_SELECTOR, "#send button").is_enabled()
    site.stack.blind = None
    WebDriverWait(chrome, READY_S).until(lambda _: text_of(chrome, "#badge") == "UP")
    assert text_of(chrome, "#said") == ""
    # The browser itself logs each answer that is an error.
    assert all("502" in one for one in complaints(chrome))


def test_names_that_change_are_offered_also_if_they_are_as_many(chrome: webdriver.Chrome, site: Site) -> None:
    show(chrome, site.address)

    def names() -> list[str | None]:
        return [one.get_attribute("value") for one in chrome.find_elements(By.CSS_SELECTOR, "#names option")]

    assert names() == list(VIEW.names)
    site.stack.shown = LiveView.from_json({**VIEW.to_json(), "names": ["shop.a", "shop.b"]})
    WebDriverWait(chrome, READY_S).until(lambda _: names() == ["shop.a", "shop.b"])


def test_when_the_stack_is_gone_the_page_says_so(chrome: webdriver.Chrome) -> None:
    with serving(Stack(), lambda token: page("shop", "runs/1", {}, token=token), print) as address:
        show(chrome, address)
        assert is_ready(chrome)
    WebDriverWait(chrome, READY_S).until(lambda _: text_of(chrome, "#badge") == "GONE")
    assert "does not answer" in text_of(chrome, "#said")
    assert not chrome.find_element(By.CSS_SELECTOR, "#send button").is_enabled()
