"""The tabs in Locust's own page, in a real browser, while a real stack is under load."""

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from harness.errors import WaitTimeout
from harness.records.event import Kind
from harness.records.journal import read
from harness.wait import wait_until
from tests.browser import chromium

pytestmark = pytest.mark.docker

ROOT = Path(__file__).parents[2]
HOST = "127.0.0.1"
RATE = 20
UP_S = 40.0
"""Until a stack is up and its first tasks have ended, on a machine that is busy."""
SHOWN_S = 10.0
"""Until the page, which asks every two seconds, shows what has happened."""
STILL_S = 3.0
"""Longer than a figure stays as it is under load: they are new once a second."""
STAGES = ["publish", "queue", "run", "store", "e2e"]


@pytest.fixture
def browser() -> Iterator[webdriver.Chrome]:
    """Chromium, which has to be installed; in CI it has to be there."""
    with chromium() as chrome:
        chrome.set_window_size(1280, 900)
        yield chrome


@dataclass(frozen=True, kw_only=True)
class Locust:
    """The command, with its page."""

    process: subprocess.Popen[bytes]
    port: int
    runs: Path
    log: Path

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/"

    def listens(self) -> list[str]:
        """Return the addresses on which it accepts connections."""
        if self.process.poll() is not None:
            pytest.fail(f"locust ended with {self.process.returncode}:\n{self.log.read_text()}")
        found = psutil.Process(self.process.pid).net_connections(kind="inet")
        return [str(one.laddr.ip) for one in found if one.status == psutil.CONN_LISTEN]

    def stack_process(self) -> int:
        """Return the process that owns the containers."""
        children = psutil.Process(self.process.pid).children()
        (pid,) = [child.pid for child in children if "harness.loadtest.stack_process" in child.cmdline()]
        return pid

    def folder(self) -> Path:
        """Of its only run."""
        (folder,) = self.runs.glob("*-load-*")
        return folder

    def journaled(self, kind: Kind) -> int:
        """Return the number of tasks that have a line of this kind in the journal."""
        return len({event.task for event in read(self.folder() / "journal") if event.kind is kind})

    def expected_end(self) -> tuple[str, int]:
        """Return the page's state and the exit code: no pass where a busy machine made the generator late."""
        invalid = json.loads((self.folder() / "load.json").read_text())["invalid"]
        return ("unknown", 3) if invalid else ("passed", 0)


@pytest.fixture
def locust(tmp_path: Path) -> Iterator[Locust]:
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
    command = [sys.executable, "-m", "locust", "-f", "scenarios/load.py", "Emails", "--rate", str(RATE)]
    command += ["--web-port", str(port), "--runs", str(tmp_path / "runs")]
    log = tmp_path / "locust.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out, start_new_session=True)
    try:
        yield Locust(process=process, port=port, runs=tmp_path / "runs", log=log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                # The stack process sees its input end, and takes everything down.
                process.kill()
                process.wait(timeout=10)
        # pytest shows it where the test has failed.
        sys.stdout.write(log.read_text())


@dataclass(frozen=True, kw_only=True)
class Page:
    """Locust's page, as somebody sees it who looks at it."""

    browser: webdriver.Chrome

    def press(self, button: str, *, role: str = "") -> None:
        """Press a button, or what has another role, as soon as it is there."""
        where = f"//button{f'[@role={role!r}]' if role else ''}[normalize-space(.)={button!r}]"
        found = wait_until(lambda: self.browser.find_elements(By.XPATH, where), what=button, timeout_s=SHOWN_S)
        found[0].click()

    def table(self) -> list[list[str]]:
        """Return the rows of the table that is shown, all from one moment."""
        script = "return [...document.querySelectorAll('tbody tr')].map(r => [...r.cells].map(c => c.textContent))"
        rows: list[list[str]] = self.browser.execute_script(script)
        return rows

    def open(self, tab: str) -> None:
        self.press(tab, role="tab")

    def figures(self) -> dict[str, str]:
        """Return the figures of the tab Tasks."""
        return {row[0]: row[1] for row in self.table()}

    def count(self, figure: str) -> int:
        return int(self.figures().get(figure, "0").replace(",", ""))

    def wait(self, probe: Callable[[Mapping[str, str]], bool], *, what: str, timeout_s: float = SHOWN_S) -> None:
        """Until the figures are as the probe wants them."""
        wait_until(lambda: probe(self.figures()), what=what, timeout_s=timeout_s, last_seen=lambda: str(self.table()))

    def told(self) -> Any:
        """Return the tables that the page would get now, whether or not it would ask."""
        return self.browser.execute_script(
            "return fetch('stats/requests').then(answer => answer.json()).then(answer => answer.extended_stats)"
        )


def wait_for_other(read: Callable[[], object], *, what: str, timeout_s: float) -> None:
    """Until something reads otherwise than now."""
    first = read()
    wait_until(lambda: read() != first, what=what, timeout_s=timeout_s, last_seen=lambda: str(first))


def rate_of(text: str) -> float:
    return float(text.removesuffix("/s"))


def test_the_page_shows_what_becomes_of_the_tasks_while_it_happens(
    browser: webdriver.Chrome, locust: Locust, started_by: Callable[[int], list[str]]
) -> None:
    addresses = wait_until(locust.listens, what="Locust's page is there", timeout_s=UP_S)
    assert addresses == [HOST]
    page = Page(browser=browser)
    browser.get(locust.url)
    page.press("Start")
    page.open("Tasks")
    page.wait(lambda now: now.get("State") == "coming up", what="the page says that the stack comes up")
    stack_process = locust.stack_process()
    page.wait(lambda now: now["Ended as expected"] != "0", what="tasks have ended", timeout_s=UP_S)
    assert started_by(stack_process)
    check_the_figures_are_live(page, locust)
    check_the_stages(page)
    check_the_workers(page)

    page.open("Tasks")
    page.press("Stop")
    page.wait(lambda now: now["State"] not in {"running", "draining"}, what="the account", timeout_s=UP_S)
    last = page.figures()
    state, code = locust.expected_end()
    assert last["State"] == state, page.table()
    sent = locust.journaled(Kind.INTENDED)
    assert page.count("Sent") == page.count("Ended as expected") == sent > RATE
    assert (last["In flight"], last["Backlog"], last["Failed"], last["In"]) == ("0", "0", "0", "0.0/s")
    assert re.fullmatch(r"p50 \S+ · p95 \S+ · p99 \S+ · max \S+ ms", last["End to end"])
    check_nothing_changes_when_nothing_is_sent(page)
    check_the_browser_had_no_trouble(browser)

    locust.process.send_signal(signal.SIGINT)
    assert locust.process.wait(timeout=30) == code
    assert started_by(stack_process) == []


def check_the_figures_are_live(page: Page, locust: Locust) -> None:
    page.wait(lambda now: now["State"] == "running", what="it says that it runs")
    wait_for_other(lambda: page.count("Ended as expected"), what="more tasks end", timeout_s=SHOWN_S)
    wait_for_other(page.told, what="the page is told something else", timeout_s=SHOWN_S)
    before = locust.journaled(Kind.FINISHED)
    page.wait(lambda now: int(now["Ended as expected"]) >= before, what="the page shows what the journal had")
    shown = page.count("Ended as expected")
    assert before <= shown <= locust.journaled(Kind.FINISHED)
    page.wait(lambda now: abs(rate_of(now["In"]) - RATE) <= RATE / 4, what="the rate in")
    page.wait(lambda now: abs(rate_of(now["Out"]) - RATE) <= RATE / 4, what="the rate out")
    now = page.figures()
    count = {name: int(now[name]) for name in ("Ended as expected", "Failed", "Refused", "Unknown", "In flight")}
    assert sum(count.values()) == int(now["Sent"])
    assert 0 <= int(now["Backlog"]) <= RATE
    assert now["Workers"] == "1 of 1 up"


def check_the_stages(page: Page) -> None:
    page.open("Task stages")

    def seconds() -> list[list[str]]:
        rows = [row for row in page.table() if row[0] == "the last second"]
        return rows if rows and all(row[2] != "–" for row in rows) else []  # noqa: RUF001 - as it is shown.

    first = wait_until(seconds, what="all stages were passed in a second", timeout_s=SHOWN_S)
    assert [row[1] for row in first] == STAGES
    for row in first:
        quantiles = [float(text) for text in row[3:7]]
        assert quantiles == sorted(quantiles)
        assert quantiles[0] > 0
    wait_until(lambda: seconds() not in ([], first), what="another second is shown", timeout_s=SHOWN_S)
    whole = [row for row in page.table() if row[0] == "the whole run"]
    assert [row[1] for row in whole] == STAGES
    assert all(int(row[2]) > RATE for row in whole), whole


def check_the_workers(page: Page) -> None:
    page.open("Celery workers")
    first = wait_until(page.table, what="the workers", timeout_s=SHOWN_S)
    assert [(row[0], row[1], row[3]) for row in first] == [("worker-1", "up", "100")]
    assert int(first[0][2]) > 0
    wait_until(lambda: int(page.table()[0][2]) > int(first[0][2]), what="it begins more", timeout_s=SHOWN_S)


def check_nothing_changes_when_nothing_is_sent(page: Page) -> None:
    """Check that the page stays the same when nothing is sent, and that a reloaded page shows the same."""
    with pytest.raises(WaitTimeout):
        wait_for_other(page.told, what="the page is told something else", timeout_s=STILL_S)
    last = page.table()
    page.browser.refresh()
    assert wait_until(page.table, what="the page that was opened anew", timeout_s=SHOWN_S) == last


def check_the_browser_had_no_trouble(browser: Any) -> None:
    severe = [one for one in browser.get_log("browser") if one["level"] == "SEVERE"]
    assert severe == []
    messages = [json.loads(one["message"])["message"] for one in browser.get_log("performance")]
    asked = [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]
    assert any("stats/requests" in url for url in asked)
    assert [url for url in asked if urlsplit(url).hostname != HOST and not url.startswith("data:")] == []
