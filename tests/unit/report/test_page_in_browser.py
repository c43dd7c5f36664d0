"""The report in a real browser: at phone and desktop width, light and dark, by keyboard, without a network."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import axe_core_python
import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from harness.audit.run_folder import RunFolder
from harness.records.verdict import Verdict
from harness.report.page import page
from harness.report.run_list import ListedRun
from harness.report.run_view import view_of
from harness.report.write_report import write_history
from tests.browser import READY_S, chromium, is_ready
from tests.fakes.world import World

HOSTILE = "100%20</script><img src=x onerror=document.title='taken'>"
LOST = "00000000-1111-4222-8333-lost00000000"
PHONE, DESKTOP = (390, 844), (1_280, 900)


@pytest.fixture(scope="module")
def chrome() -> Iterator[webdriver.Chrome]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the address of the report of a run: a task was lost to a fault, and one has a hostile name."""
    world = World(RunFolder.create(tmp_path_factory.mktemp("runs"), "shop"))
    for number in range(30):
        world.fine(f"fine-{number}")
    world.intend(HOSTILE, name=HOSTILE)
    world.say("worker-1", "started", HOSTILE)
    world.say("worker-1", "finished", HOSTILE, state="FAILURE", error=HOSTILE, traceback=HOSTILE)
    world.record(HOSTILE, "FAILURE", {"exc_type": "ValueError", "exc_message": [HOSTILE]})
    world.say("worker-1", "up")
    world.intend(LOST, name="shop.charge", queue="cards")
    world.say("worker-1", "received", LOST, redelivered=False)
    world.say("worker-1.7", "started", LOST)
    t = float(next(world.clock))
    step = {"task": "never-sent", "name": "shop.ship", "way": "next"}
    world.intend("child", name="shop.pack", parent=LOST, steps=[step])
    folder = world.write()
    fault: dict[str, Any] = {
        "text": "worker-1 was killed.",
        "missing": None,
        "error": None,
        "fault": "kill-worker",
        "node": "worker-1",
    }
    fault |= {"planned": "kill-worker@1s", "injected_t": t, "healed_t": t + 2, "tasks": [LOST]}
    folder.write("faults.json", {"format": 1, "faults": [fault]})
    said = f"[{datetime.fromtimestamp(t, UTC):%Y-%m-%d %H:%M:%S},000: ERROR/x] card {HOSTILE}\n"
    (folder.logs / "worker-1.log").write_text(said)
    target = folder.path / "report.html"
    target.write_text(page(view_of(folder.path)))
    return target.as_uri()


def show(
    chrome: webdriver.Chrome,
    address: str,
    size: tuple[int, int] = DESKTOP,
    scheme: str = "light",
    *,
    has_script: bool = True,
) -> None:
    """Open a page anew, and wait until its script is done, if it has one."""
    width, height = size
    chrome.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
    )
    feature = {"name": "prefers-color-scheme", "value": scheme}
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    chrome.get("about:blank")
    for kind in ("browser", "performance"):
        chrome.get_log(kind)  # type: ignore[no-untyped-call] # Selenium's own.
    chrome.get(address)
    if has_script:
        WebDriverWait(chrome, READY_S).until(is_ready)


def complaints(chrome: webdriver.Chrome) -> list[str]:
    """Return the errors on the browser's console; a breach of the page's own policy is one."""
    logged: list[dict[str, Any]] = chrome.get_log("browser")  # type: ignore[no-untyped-call]
    return [str(line["message"]) for line in logged if line["level"] in {"SEVERE", "WARNING"}]


def requested(chrome: webdriver.Chrome) -> set[str]:
    """Return what the browser has asked for since the page was opened."""
    logged: list[dict[str, Any]] = chrome.get_log("performance")  # type: ignore[no-untyped-call]
    said = [json.loads(line["message"])["message"] for line in logged]
    return {one["params"]["request"]["url"] for one in said if one["method"] == "Network.requestWillBeSent"}


def text_of(chrome: webdriver.Chrome, selector: str) -> str:
    return chrome.find_element(By.CSS_SELECTOR, selector).text


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP])
def test_it_opens_at_each_width_and_in_each_scheme_without_an_error_or_a_network(
    chrome: webdriver.Chrome, report: str, size: tuple[int, int], scheme: str
) -> None:
    show(chrome, report, size, scheme)
    assert text_of(chrome, "h1").startswith("Failed: of 33 tasks sent")
    assert len(chrome.find_elements(By.CSS_SELECTOR, ".plot canvas")) == 3
    # Nothing is wider than the window, except what scrolls by itself.
    assert chrome.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    ground = chrome.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") is (scheme == "light")
    assert complaints(chrome) == []
    assert {one for one in requested(chrome) if not one.startswith("data:")} == {report}


def test_an_error_on_the_console_and_a_request_are_found(chrome: webdriver.Chrome, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    policy = "default-src 'none'; script-src 'unsafe-inline'"
    bad.write_text(
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><script>document.documentElement.dataset.ready '
        "= 'yes'</script><img src='https://127.0.0.1:9/a.png'><script>throw Error('no')</script>"
    )
    show(chrome, bad.as_uri())
    found = complaints(chrome)
    assert any("Content Security Policy" in line for line in found), found
    assert any("Error: no" in line for line in found), found


def test_a_lost_task_is_found_by_keyboard_alone(chrome: webdriver.Chrome, report: str) -> None:
    show(chrome, report)
    keys = ActionChains(chrome)
    for _ in range(80):
        keys.send_keys(Keys.TAB).perform()
        if chrome.switch_to.active_element.get_attribute("id") == "find":
            break
    else:
        pytest.fail("the search is not reached by the tab key")
    keys.send_keys("lost0000").perform()
    assert text_of(chrome, "#found") == "1 task found."
    keys.send_keys(Keys.ENTER).perform()
    WebDriverWait(chrome, READY_S).until(lambda _: chrome.find_elements(By.ID, "life-head"))
    assert chrome.switch_to.active_element.get_attribute("id") == "life-head"
    life = text_of(chrome, "#life")
    for words in (
        LOST,
        "lost",
        "shop.charge",
        "to cards",
        "worker-1 (pid 7)",
        "kill-worker@1s on worker-1",
        "shop.pack",
    ):
        assert words in life
    assert f"card {HOSTILE}" in text_of(chrome, "#life .log")
    # Its child is drawn beside it, and is a link too.
    assert len(chrome.find_elements(By.CSS_SELECTOR, "#life svg a")) == 2
    assert complaints(chrome) == []


def test_a_link_in_a_finding_opens_the_life_and_a_fate_chooses_its_tasks(chrome: webdriver.Chrome, report: str) -> None:
    show(chrome, report)
    chrome.find_element(By.CSS_SELECTOR, f'#findings a[href="#task={LOST}"]').send_keys(Keys.ENTER)
    WebDriverWait(chrome, READY_S).until(lambda _: LOST in text_of(chrome, "#life"))
    chrome.find_element(By.CSS_SELECTOR, '#accounting a[href="#fate=ok"]').send_keys(Keys.ENTER)
    WebDriverWait(chrome, READY_S).until(lambda _: text_of(chrome, "#found") == "30 tasks found.")


def test_a_link_to_an_odd_id_opens_its_life(chrome: webdriver.Chrome, report: str) -> None:
    show(chrome, report)
    link = next(one for one in chrome.find_elements(By.CSS_SELECTOR, "#findings a") if one.text == HOSTILE)
    link.send_keys(Keys.ENTER)
    WebDriverWait(chrome, READY_S).until(lambda _: HOSTILE in text_of(chrome, "#life-head"))


def test_a_hostile_name_is_shown_as_it_is_and_runs_nothing(chrome: webdriver.Chrome, report: str) -> None:
    show(chrome, report)
    find = chrome.find_element(By.ID, "find")
    find.send_keys("onerror", Keys.ENTER)
    WebDriverWait(chrome, READY_S).until(lambda _: HOSTILE in text_of(chrome, "#life"))
    assert chrome.find_elements(By.TAG_NAME, "img") == []
    assert chrome.title.startswith("fail: ")


def test_a_task_that_was_never_sent_is_drawn_and_told(chrome: webdriver.Chrome, report: str) -> None:
    show(chrome, f"{report}#task={LOST}")
    assert "never sent" in text_of(chrome, "#life .scroll svg")
    show(chrome, f"{report}#task=never-sent")
    assert "shop.ship was never sent. It should have followed:\nshop.pack child" in text_of(chrome, "#life")
    assert complaints(chrome) == []


def test_a_task_that_is_not_there_is_told(chrome: webdriver.Chrome, report: str) -> None:
    show(chrome, f"{report}#task=nowhere%")
    assert "Its life is not in this report" in text_of(chrome, "#life")
    assert complaints(chrome) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP])
def test_axe_finds_nothing_serious(chrome: webdriver.Chrome, report: str, size: tuple[int, int], scheme: str) -> None:
    show(chrome, f"{report}#task={LOST}", size, scheme)
    chrome.execute_script("document.querySelectorAll('details').forEach((one) => { one.open = true; });")
    assert serious(chrome) == []


@pytest.mark.parametrize(("size", "scheme"), [(PHONE, "dark"), (DESKTOP, "light")])
def test_the_history_is_readable_and_asks_for_nothing(
    chrome: webdriver.Chrome, tmp_path: Path, size: tuple[int, int], scheme: str
) -> None:
    verdicts = (*Verdict, None)
    runs = [
        ListedRun(
            name=HOSTILE if number % 2 else "emails",
            folder=str(number),
            begun=f"2026-01-{30 - number:02}T10:00:00+00:00",
            verdict=verdicts[number % 4],
            entries=1_000,
            fates={"lost": number},
            e2e_ms={"p50": 5.0 + number, "p95": 50.0, "p99": 700.0 / (number + 1)},
            broken="no audit" if verdicts[number % 4] is None else None,
        )
        for number in range(20)
    ]
    target = tmp_path / "history.html"
    write_history(runs, tmp_path, target)
    show(chrome, target.as_uri(), size, scheme, has_script=False)
    assert text_of(chrome, "h1") == "20 runs: 5 pass, 5 unknown, 5 fail, 5 broken"
    assert len(chrome.find_elements(By.CSS_SELECTOR, "svg polyline")) == 6
    assert len(chrome.find_elements(By.CSS_SELECTOR, "tbody tr")) == 20
    assert chrome.find_elements(By.TAG_NAME, "img") == []
    assert chrome.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    assert complaints(chrome) == []
    assert {one for one in requested(chrome) if not one.startswith("data:")} == {target.as_uri()}
    assert serious(chrome) == []


def test_axe_finds_what_is_serious(chrome: webdriver.Chrome, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text("<html data-ready=yes lang=en><title>a</title><input><p style='color:#ccc'>pale</p>")
    show(chrome, bad.as_uri())
    assert {one.partition(":")[0] for one in serious(chrome)} >= {"label", "color-contrast"}


def serious(chrome: webdriver.Chrome) -> list[str]:
    """Return what axe finds, if it is serious: the rule, and where."""
    script = Path(axe_core_python.__file__).with_name("axe.min.js").read_text()
    # The page's policy forbids other scripts; a driver's are not the page's.
    chrome.execute_script(script)
    found = chrome.execute_async_script("axe.run().then(arguments[arguments.length - 1]);")
    return [
        f"{one['id']}: {one['nodes'][0]['html']}"
        for one in found["violations"]
        if one["impact"] in {"serious", "critical"}
    ]
