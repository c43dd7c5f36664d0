"""The report: all that it says is there, and nothing from a task is taken for HTML."""

import base64
import gzip
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from harness.audit.remains import Remains
from harness.audit.run_folder import RunFolder
from harness.records.expectation import Delivery, Promise
from harness.records.moment import Moment
from harness.records.survival import Cell, Demand, Outcome, Remedy, Result, Survival
from harness.report.html import Html, join, table, tag
from harness.report.page import page
from harness.report.page_data import plain
from harness.report.run_view import view_of
from harness.report.write_report import REPORT, try_to_write, write_report, write_survival
from tests.fakes.world import World
from tests.unit.audit.beat_journal import DAY, HOUR, Beat, at, crontab

HOSTILE = "</script><img src=x onerror=alert(1)>\x1b[31m\u202e&\"'"
"""What ends an element, starts another, colours a terminal, and turns the direction of the text around."""


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(RunFolder.create(tmp_path, "shop"))


def made(world: World) -> str:
    return page(view_of(world.write().path))


class Elements(HTMLParser):
    """Notes each element of a page, with its attributes."""

    def __init__(self, text: str) -> None:  # noqa: D107 - as the base class.
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def lives_in(text: str) -> dict[str, Any]:
    """Return what the page's script reads."""
    (found,) = re.findall(r'<script type="text/plain" id="lives">([^<]*)</script>', text)
    lives: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(found)))
    return lives


# ---------------------------------------------------------------------------------------------------- what is escaped


def test_a_text_is_escaped_and_an_element_is_not() -> None:
    assert tag("p", "<b>", tag("b", 1), None, ["&", '"']) == "<p>&lt;b&gt;<b>1</b>&amp;&quot;</p>"
    assert tag("a", href='"><b>', hidden=True, title=None) == '<a href="&quot;&gt;&lt;b&gt;" hidden></a>'
    assert join("\x1b[31m") == "\\x1b[31m"
    assert join(Html("<b>")) == "<b>"
    assert "<td>&lt;b&gt;</td>" in table("c", ["h"], [("head", "<b>")])


def test_json_in_a_script_cannot_end_it() -> None:
    said = plain({"a": HOSTILE})
    assert "<" not in said
    assert json.loads(said) == {"a": HOSTILE}


def test_nothing_from_a_task_becomes_an_element_or_moves_a_cursor(world: World) -> None:
    hostile = HOSTILE
    world.nodes = ["producer", "worker-1"]
    world.intend(hostile, name=hostile, queue=hostile, entry=hostile)
    world.say("worker-1", "started", hostile, name=hostile)
    world.say("worker-1", "finished", hostile, state="FAILURE", error=hostile, traceback=hostile)
    world.record(hostile, "FAILURE", {"exc_type": hostile, "exc_message": [hostile]})
    world.intend("lost", name=hostile)
    world.mail(hostile, hostile)
    folder = world.write()
    about = {
        **folder.read("run.json"),
        "command": hostile,
        "seed": hostile,
        "versions": {hostile: hostile},
        "stack": {"app": hostile},
    }
    folder.write("run.json", about)
    (folder.logs / "worker-1.log").write_text(hostile)
    fault = {
        "text": hostile,
        "missing": None,
        "error": hostile,
        "node": hostile,
        "injected_t": 1_000.0,
        "tasks": [hostile],
    }
    folder.write("faults.json", {"faults": [fault]})
    folder.write(
        "checks.json",
        {"findings": [{"code": hostile, "verdict": "fail", "count": 1, "text": hostile, "tasks": [hostile]}]},
    )
    text = page(view_of(folder.path))
    elements = Elements(text)
    assert [name for name, _ in elements.found if name == "img"] == []
    assert [name for name, said in elements.found for key in said if key.startswith("on")] == []
    assert text.count("</script>") == sum(name == "script" for name, _ in elements.found) == 4
    for character in ("\x1b", "\u202e"):
        assert character not in text
        assert character not in json.dumps(lives_in(text), ensure_ascii=False)
    # It is there, as text: a page without it would pass as well.
    assert sum("onerror=alert(1)" in one for one in elements.texts) > 8
    assert any("onerror" in word for word in lives_in(text)["words"])


def test_a_page_in_which_a_text_was_not_escaped_is_found() -> None:
    elements = Elements(tag("p", Html(HOSTILE)))
    assert [name for name, _ in elements.found] == ["p", "img"]


def test_a_huge_result_is_shortened(world: World) -> None:
    world.fine("a")
    world.intend("b", expect={"result": "y" * 3_000_000})
    world.execute("b")
    world.record("b", result="x" * 3_000_000)
    text = made(world)
    assert len(text) < 400_000
    assert "xxxxxxxxx" in json.dumps(lives_in(text))


def test_the_policy_allows_the_pages_own_scripts_and_no_network(world: World) -> None:
    world.fine("a")
    text = made(world)
    (policy,) = [said["content"] for name, said in Elements(text).found if said.get("http-equiv")]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "http" not in policy
    for name in ("script", "style"):
        for inside in re.findall(rf"<{name}>(.*?)</{name}>", text, re.DOTALL):
            digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
            assert f"'sha256-{digest}'" in policy
    assert [said for _, said in Elements(text).found if "src" in said or "style" in said] == []


# ---------------------------------------------------------------------------------------------------- what is there


def test_a_run_has_its_verdict_its_identity_and_each_section(world: World) -> None:
    world.fine("a")
    world.intend("b")
    text = made(world)
    assert "<h1>Failed: of 2 tasks sent, 1 ok, 1 lost; 1 finding says so: lost.</h1>" in text
    assert "2 sent = 1 ok + 1 lost" in text
    assert "The sum is right" in text
    sections = [said["id"] for name, said in Elements(text).found if name == "section"]
    assert sections == ["findings", "accounting", "timeline", "latency", "workers", "tasks", "about"]
    assert '<a href="#task=b">' in text
    assert lives_in(text)["tasks"] == ["a", "b"]


def test_a_finding_tells_what_became_of_its_task_and_when(world: World) -> None:
    world.fine("a")
    world.intend("b")
    world.execute("b", state=None)
    world.execute("b", state="UNKNOWN")
    world.intend("c")
    world.execute("c", state="FAILURE")
    text = made(world)
    begun = "began on worker-1 at 6.000 s, began on worker-1 at 7.000 s, interrupted on worker-1 at 8.000 s"
    assert f"mail sent at 4.000 s, {begun}</li>" in text
    assert "mail sent at 9.000 s, began on worker-1 at 11.000 s, ended as FAILURE on worker-1 at 12.000 s</li>" in text


def test_a_finding_tells_when_the_process_of_its_task_ended_and_when_it_had_its_effect(world: World) -> None:
    world.intend("b")
    world.execute("b", node="worker-1.7", state=None)
    world.mails.append({"t": 1_002.5, "kind": "mail", "key": "mail:b", "task": "b"})
    world.say("worker-1", "exited", child=7, code=-9)
    died = "worker-1 noticed that its process had ended by signal 9 at 3.000 s"
    assert f"began on worker-1 at 2.000 s, had its effect at 2.500 s, {died}</li>" in made(world)


def test_a_finding_tells_when_a_worker_that_had_its_task_lost_the_broker(world: World) -> None:
    for worker in ("worker-1", "worker-2"):
        world.say(worker, "disconnected", reason="before")
    world.intend("b")
    world.execute("b", state=None)
    for worker in ("worker-1", "worker-2"):
        world.say(worker, "disconnected", reason="while it ran")
    world.intend("c")
    world.execute("c")
    world.say("worker-1", "disconnected", reason="after it ended")
    text = made(world)
    lost = "worker-1 lost its connection to the broker"
    assert f"mail sent at 0.000 s, began on worker-1 at 2.000 s, {lost} at 3.000 s, {lost} at 9.000 s</li>" in text
    assert "mail sent at 5.000 s, began on worker-1 at 7.000 s, ended as SUCCESS on worker-1 at 8.000 s</li>" in text


def test_a_finding_tells_which_faults_met_its_task_and_when_the_broker_was_struck_that_had_it(world: World) -> None:
    for task in ("met", "untaken", "taken"):
        world.intend(task)
    world.execute("met", state=None)
    world.execute("taken", state=None)
    world.say("worker-1", "exited", child=1, code=-9)
    world.intend("later")
    common = {"text": "It struck.", "missing": None, "error": None}
    faults = [
        {
            **common,
            "fault": "kill-worker",
            "node": "worker-1",
            "injected_t": 1_009.5,
            "begun_t": 1_008.5,
            "tasks": ["met"],
        },
        {**common, "fault": "restart-broker", "node": "broker-1", "injected_t": 1_008.75},
    ]
    world.folder.write("faults.json", {"format": 1, "faults": faults})
    said = dict(re.findall(r"<li><a[^>]*><code>(\w+)</code></a> mail (.*?)</li>", made(world)))
    assert {task: re.findall(r"the fault (\S+ began at \S+) s", text) for task, text in said.items()} == {
        "met": ["kill-worker began at 8.500"],
        "untaken": ["restart-broker began at 8.750"],
        "taken": [],
        "later": [],
    }


def test_a_finding_that_breaks_no_promise_is_a_remark(world: World) -> None:
    world.fine("a")
    world.say("worker-1", "started", "a", retries=0)
    world.say("worker-1", "finished", "a", state="SUCCESS")
    world.intend("b")
    text = re.sub(r"<[^>]+>", "|", made(world))
    assert re.search(r"\|fail\|+ lost\|", text), text
    assert re.search(r"\|remark\|+ ran-again\|", text), text


def test_a_reason_tells_how_the_setting_is_to_blame(world: World) -> None:
    world.say("worker-1", "settings", task_acks_late=False)
    world.intend("x")
    world.execute("x", state=None)
    world.say("worker-1", "exited", child=1, code=-9)
    assert (
        "<dt>Reason</dt><dd>task_acks_late is False (app): it began, its worker died or was stopped, and its message "
        "had been acknowledged before it began</dd>"
    ) in made(world)


def test_of_several_reasons_each_tells_its_tasks(world: World) -> None:
    world.say("worker-1", "settings", task_acks_late=False)
    for task in ("v", "w", "x", "y"):
        world.intend(task)
        world.execute(task, state=None)
    world.say("worker-1", "exited", child=1, code=-9)
    assert "<dt>Tasks</dt>" not in made(world)
    world.fine("z")
    world.mails.pop()
    text = re.sub(r"<[^>]+>", "|", made(world))
    assert re.search(r"Tasks\|+v\|+ \|+w\|+ \|+x\|+ and 1 more\|", text), text
    assert re.search(r"no setting is known to be the reason\|+Tasks\|+z\|", text)


def test_what_happens_in_one_instant_is_told_in_its_order(world: World) -> None:
    """A clock may show the same time more than once."""
    world.intend("b")
    world.execute("b", state="FAILURE")
    for lines in world.lines.values():
        for line in lines[1:]:
            line["t"] = 1_000.0
    said = "mail sent at 0.000 s, began on worker-1 at 0.000 s, ended as FAILURE on worker-1 at 0.000 s</li>"
    assert said in made(world)


def test_of_a_task_that_began_often_the_first_moments_and_the_last_are_told(world: World) -> None:
    world.intend("a")
    for _ in range(9):
        world.execute("a", state=None)
    (told,) = re.findall(r"mail (sent at .*?)</li>", made(world))
    assert told.count("began") == 7
    assert told.endswith("began on worker-1 at 7.000 s, ..., began on worker-1 at 10.000 s")


def test_a_worker_that_answered_when_the_broker_was_asked_was_up(world: World) -> None:
    world.say("worker-1", "up")
    world.say("worker-2", "up")
    world.fine("a")
    world.remains = Remains(alive=["worker-1"]).to_json()
    text = re.sub(r"(<[^>]+>)+", "|", made(world))
    assert re.search(r"\|worker-1\|[\d.-]+\|last line of its journal\|it was still up\|", text), text
    assert re.search(r"\|worker-2\|[\d.-]+\|last line of its journal\|it was killed, or was still up\|", text), text


def test_the_page_says_why_the_wait_for_rest_ended(world: World) -> None:
    world.intend("a")
    assert "The wait until nothing moves" not in made(world)
    world.remains = {**Remains().to_json(), "settled": {"how": "stuck", "waited_s": 3.21}}
    assert "nothing moves ended after 3.2 s: nothing was in flight, a task had not ended, and nothing could" in made(
        world
    )
    world.remains["settled"]["waiting"] = ["1 message in `mails`"]
    assert "nothing moves ended after 3.2 s: something was in flight, and nothing could change" in made(world)
    world.remains = {**Remains().to_json(), "settled": {"how": "odd", "waited_s": 3.21}}
    assert "The wait until nothing moves" not in made(world)


def test_the_page_says_what_was_promised(world: World) -> None:
    world.fine("a")
    assert "it runs at least once; it has each effect exactly once; how it ended is in the result table." in made(world)
    world.promise = Promise(delivery=Delivery.AT_MOST_ONCE, recorded=False, deadline_s=5.0)
    text = made(world)
    assert "it runs at most once; it has each effect exactly once; it succeeds within 5 s after it is due." in text


@pytest.mark.parametrize("promise", [None, [], {"delivery": "sometimes"}, {}])
def test_a_promise_that_no_run_writes_is_left_out(world: World, promise: Any) -> None:
    world.fine("a")
    view = view_of(world.write().path)
    text = page(replace(view, about={**view.about, "promise": promise}))
    assert "Promised of each task" not in text
    assert "The sum is right" in text


def test_each_plot_has_a_table_with_a_caption(world: World) -> None:
    world.fine("a")
    text = made(world)
    for caption in ("Timeline", "Latency", "Nodes", "Workers"):
        assert f"<caption>{caption}" in text or caption == "Nodes"
    assert text.count("<table") == text.count("<caption>")
    assert text.count('scope="col"') > 20


def test_a_canvas_is_listed_by_its_first_task(world: World) -> None:
    world.fine("first")
    world.intend("second", parent="first")
    world.fine("alone")
    text = made(world)
    (rows,) = re.findall(r"Tasks that sent others</caption>.*?<tbody>(.*?)</tbody>", text)
    assert rows.count("<tr>") == 1
    assert '<a href="#task=first"><code>first</code></a></th><td>mail</td><td>2</td><td>1 lost</td>' in rows


def test_beats_ticks_stand_on_a_calendar(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "lapse")
    begin = at("2026-03-01")
    beat = Beat(folder.journal)
    threes = [begin + 3 * HOUR + day * DAY for day in range(3)]
    beat.live(begin, begin + 3 * DAY, {"report": crontab("0", "3")}, {"report": threes})
    lapse = {"from_t": begin, "to_t": begin + 3 * DAY, "tz": "Europe/Berlin"}
    folder.write("run.json", {"name": "lapse", "promise": Promise().to_json(), "nodes": [], "timelapse": lapse})
    text = page(view_of(folder.path))
    (rows,) = re.findall(r"Ticks in each hour</caption>.*?<tbody>(.*?)</tbody>", text)
    assert [re.sub("<.*?>", " ", row).split() for row in rows.split("</tr>") if row] == [
        ["Sun", "2026-03-01", "1"],
        ["Mon", "2026-03-02", "1"],
        ["Tue", "2026-03-03", "1"],
    ]
    assert "The times are of Europe/Berlin" in text


# ------------------------------------------------------------------------------------- where it is written


def test_it_is_written_into_the_run_folder_and_replaces_an_older_one(world: World) -> None:
    world.fine("a")
    folder = world.write().path
    (folder / REPORT).write_text("old")
    assert write_report(folder) == folder / REPORT
    assert (folder / REPORT).read_text().startswith("<!doctype html>")
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_what_goes_wrong_is_said_and_is_no_error(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.fine("a")
    folder = world.write().path
    (folder / REPORT).mkdir()
    said: list[str] = []
    assert try_to_write(folder, said.append) is None
    assert "the verdict stands. cannot write" in said[0]
    (folder / REPORT).rmdir()
    monkeypatch.setattr("harness.report.write_report.view_of", lambda _: 1 / 0)
    assert try_to_write(folder, said.append) is None
    assert said[1].endswith("ZeroDivisionError: division by zero")
    assert not (folder / REPORT).exists()


def test_the_grid_of_survive_links_the_reports_of_broken_cells_and_proves_the_remedy(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "survive-shop")

    def result(fault: str, outcome: Outcome, name: str) -> Result:
        return Result(
            cell=Cell(task="pay", moment=Moment.STARTED, fault=fault), outcome=outcome, why="It was lost.", folder=name
        )

    cells = {}
    for name in ("broken", "fine"):
        world = World(RunFolder.create(folder.path, name))
        world.intend("a") if name == "broken" else world.fine("a")
        cells[name] = world.write().path
    before = [
        result("kill-worker", Outcome.LOST, cells["broken"].name),
        result("stop-worker", Outcome.OK, cells["fine"].name),
        result("pause-worker", Outcome.LOST, "../../etc"),
    ]
    after = (result("kill-worker", Outcome.RAN_TWICE, "mended"),)
    remedy = Remedy(task="pay", lines=("@app.task(acks_late=True)",), results=after)
    survival = Survival(name="shop", demand=Demand.AT_LEAST_ONCE, results=before, remedies=[remedy])
    folder.write("survive.json", survival.to_json())
    said: list[str] = []
    written = write_survival(folder.path, survival, said.append)
    assert said == []
    assert written is not None
    text = written.read_text()
    links = [one["href"] for name, one in Elements(text).found if name == "a" and "report.html" in str(one.get("href"))]
    assert links == [f"{cells['broken'].name}/{REPORT}"]
    assert (folder.path / str(links[0])).is_file()
    assert not (cells["fine"] / REPORT).exists()
    assert "1 of 1 broken cells are mended; its price: 1 now run twice." in text
    assert "@app.task(acks_late=True)" in text
    assert "<script>" not in text
