"""The tabs in Locust's page: their figures from the stack process's messages, and how they get into the page."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.loadtest import locust_page
from harness.loadtest.messages import Closed
from harness.measure.load_account import NOTHING_YET, Quantiles, Sample
from harness.measure.stages import Stage
from harness.records.values import Json

ROOT = Path(__file__).parents[3]
MS = ("p50", "p95", "p99", "max")
LIVE = Sample.from_json(
    {
        "t": 1000.0,
        "sent": 1240,
        "accepted": 1231,
        "refused": 3,
        "unknown": 2,
        "ended": 1210,
        "failed": 4,
        "backlog": 21,
        "in_per_s": 1020.04,
        "out_per_s": 19.8,
        "begun_on": {"worker-1": 910, "worker-10": 305, "celery@else": 5},
        "up": {"worker-1": True, "worker-2": False, "worker-10": True},
        "stages": {
            **{stage.value: {} for stage in Stage},
            "e2e": {"count": 20, "p50": 4.567, "p95": 45.678, "p99": 456.789, "max": 4567.891},
        },
    }
)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What Locust has counted under one name."""

    response_times: dict[float, int]
    max_response_time: float = 0.0


@dataclass
class Source:
    """What the load test says of itself."""

    live: Sample = NOTHING_YET
    closed: Closed | None = None
    phase: str = "rest"


def figures(
    live: Sample, whole: Mapping[Stage, Quantiles] | None = None, *, is_over: bool = False
) -> dict[str, tuple[str, str]]:
    return {
        row["figure"]: (row["value"], row["meaning"]) for row in locust_page.figures(live, whole or {}, is_over=is_over)
    }


def closed(folder: Path, code: int = 0) -> Closed:
    return Closed(report="", folder=folder, exit_code=code, left=None)


def tables(source: Source, *, is_attached: bool = False) -> locust_page.Tables:
    return locust_page.Tables(source, SimpleNamespace(stats=SimpleNamespace(entries={})), is_attached=is_attached)


def state(made: locust_page.Tables) -> tuple[str, str]:
    row = made.extended({"state": "running"})["extended_stats"][0]["data"][0]
    assert row["figure"] == "State"
    return row["value"], row["meaning"]


def test_every_task_that_was_sent_is_one_of_five() -> None:
    shown = {name: value for name, (value, _) in figures(LIVE).items()}
    assert (shown["In"], shown["Out"], shown["Backlog"]) == ("1,020.0/s", "19.8/s", "21")
    fates = {
        name: int(shown[name].replace(",", ""))
        for name in ("Ended as expected", "Failed", "Refused", "Unknown", "In flight")
    }
    assert fates == {"Ended as expected": 1206, "Failed": 4, "Refused": 3, "Unknown": 2, "In flight": 25}
    assert sum(fates.values()) == 1240
    assert shown["Sent"] == "1,240"


def test_durations_have_as_many_digits_as_anybody_reads() -> None:
    assert figures(LIVE)["End to end"][0] == "p50 4.57 · p95 45.7 · p99 457 · max 4568 ms"


def test_where_nothing_passed_in_the_last_second_the_whole_run_is_shown() -> None:
    whole = {Stage.E2E: Quantiles(count=9, p50=5, p95=6, p99=7, max=7.25)}
    assert figures(LIVE, whole)["End to end"][1].startswith("Over the last second:")
    value, meaning = figures(replace(LIVE, stages={}), whole)["End to end"]
    assert (value, meaning.partition(":")[0]) == ("p50 5 · p95 6 · p99 7 · max 7.25 ms", "Over the whole run")
    assert figures(NOTHING_YET)["End to end"][0] == "–"  # noqa: RUF001 - as it is shown.


def test_when_it_is_over_nothing_of_the_last_second_is_shown_as_if_it_went_on() -> None:
    whole = {Stage.E2E: Quantiles(count=9, p50=5, p95=6, p99=7, max=7.25)}
    shown = figures(LIVE, whole, is_over=True)
    assert (shown["In"][0], shown["Out"][0], shown["Ended as expected"][0]) == ("0.0/s", "0.0/s", "1,206")
    assert shown["End to end"][1].startswith("Over the whole run")
    counts = [row["count"] for row in locust_page.stages(LIVE, whole, is_over=True)]
    assert counts == ["–"] * 9 + [9]  # noqa: RUF001 - as it is shown.
    states = [row["state"] for row in locust_page.workers(LIVE, is_over=True)]
    assert states == ["up at the end", "down at the end", "up at the end", "elsewhere"]


def test_before_any_message_everything_is_nothing() -> None:
    shown = figures(NOTHING_YET)
    assert (shown["In"][0], shown["Sent"][0], shown["In flight"][0]) == ("0.0/s", "0", "0")
    assert shown["Workers"] == ("0 of 0 up", "None was seen yet.")
    assert list(locust_page.workers(NOTHING_YET, is_over=False)) == []


def test_workers_are_up_or_down_and_have_their_share() -> None:
    rows = [
        (row["worker"], row["state"], row["begun"], row["share"]) for row in locust_page.workers(LIVE, is_over=False)
    ]
    assert rows == [
        ("worker-1", "up", 910, 74.6),
        ("worker-2", "down", 0, 0.0),
        ("worker-10", "up", 305, 25.0),
        ("celery@else", "elsewhere", 5, 0.4),
    ]
    assert figures(LIVE)["Workers"] == ("2 of 3 up", "Down: worker-2.")
    all_up = replace(LIVE, up={"worker-1": True})
    assert figures(all_up)["Workers"] == ("1 of 1 up", "All that were started are up.")
    attached = replace(LIVE, up=None)
    assert figures(attached)["Workers"][1].startswith("They run elsewhere")


def test_a_name_that_is_no_text_is_shown_as_text() -> None:
    live = replace(LIVE, up={"\x1b[2J\u202e": False}, begun_on={"\x1b[2J\u202e": 1})
    shown = tables(Source(live=live, phase="on")).extended({"state": "running"})["extended_stats"]
    texts = [text for table in shown for row in table["data"] for text in row.values() if isinstance(text, str)]
    assert r"\x1b[2J\u202e" in texts
    assert all(text.isprintable() for text in texts)


def test_the_whole_run_is_what_locust_has_counted_of_all_names() -> None:
    entries = {
        ("a", "E2E"): Entry(response_times={10: 90, 20: 5}, max_response_time=20.4),
        ("b", "E2E"): Entry(response_times={30: 4, 1200: 1}, max_response_time=1234.5),
        ("a", "RUN"): Entry(response_times={}),
        ("a", "GET"): Entry(response_times={5: 5}, max_response_time=5.0),
    }
    assert locust_page.of_the_run(entries) == {Stage.E2E: Quantiles(count=100, p50=10, p95=20, p99=30, max=1234)}
    rows = list(locust_page.stages(NOTHING_YET, locust_page.of_the_run(entries), is_over=False))
    assert [row["stage"] for row in rows] == [stage.value for stage in Stage] * 2
    assert [rows[-1][name] for name in MS] == [10, 20, 30, 1234]


@pytest.mark.parametrize(
    ("phase", "runner", "told"),
    [
        ("opening", "ready", "spawning"),
        ("opening", "stopped", "spawning"),
        ("on", "ready", "running"),
        ("on", "spawning", "spawning"),
        ("closing", "stopped", "running"),
        ("closing", "cleanup", "running"),
        ("rest", "stopped", "stopped"),
        ("rest", "ready", "stopped"),
    ],
)
def test_the_page_is_told_to_go_on_asking_until_the_run_is_accounted_for(phase: str, runner: str, told: str) -> None:
    made = tables(Source(phase=phase))
    made.begin()
    assert made.extended({"state": runner})["state"] == told


def test_before_the_first_run_the_page_is_told_what_locust_says() -> None:
    made = tables(Source())
    assert made.extended({"state": "ready"})["state"] == "ready"
    assert state(made)[0] == "not begun"


@pytest.mark.parametrize(("code", "said"), [(0, "passed"), (1, "failed"), (3, "unknown"), (130, "broke off")])
def test_the_end_of_a_run_is_said_with_its_folder(
    code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = Source()
    made = tables(source)
    made.begin()
    source.closed = closed(tmp_path / "runs" / "today", code)
    value, meaning = state(made)
    assert value == said
    assert meaning.endswith("Run folder: runs/today")
    source.closed = closed(Path("/elsewhere/today"), code)
    assert state(made)[1].endswith("Run folder: /elsewhere/today")


def test_the_account_of_an_earlier_run_is_not_taken_for_that_of_one_that_broke_off() -> None:
    source = Source(closed=closed(Path("runs/yesterday")))
    made = tables(source)
    made.begin()
    for phase, said in [("opening", "coming up"), ("on", "running"), ("closing", "draining"), ("rest", "broke off")]:
        source.phase = phase
        assert state(made)[0] == said
    source.closed = closed(Path("runs/today"))
    assert state(made) == ("passed", "Every task is accounted for, as it was promised. Run folder: runs/today")


def test_what_runs_elsewhere_does_not_come_up_it_is_attached_to() -> None:
    source = Source(phase="opening")
    assert state(tables(source)) == (
        "coming up",
        "A stack comes up, with its broker and its workers; nothing is sent yet.",
    )
    attached = tables(source, is_attached=True)
    assert state(attached) == (
        "attaching",
        "The broker and the workers run elsewhere, and are attached to; nothing is sent yet.",
    )
    for phase, said in [("on", "running"), ("closing", "draining"), ("rest", "not begun")]:
        source.phase = phase
        assert state(attached)[0] == said


def test_an_answer_that_others_have_extended_keeps_what_they_added() -> None:
    answer = {"state": "running", "extended_stats": [{"key": "theirs", "data": []}], "stats": [1]}
    extended = tables(Source()).extended(answer)
    assert extended["extended_stats"][0]["key"] == "theirs"
    assert extended["stats"] == [1]
    assert len(answer["extended_stats"]) == 1


PAGE = """
import json
from dataclasses import replace
from locust import User
from locust.env import Environment
from harness.loadtest import locust_page
from harness.measure.load_account import Sample

class Source:
    phase, closed = "on", None
    live = Sample(t=0.0, sent=1, up={"</script><b>": True}, begun_on={"</script><b>": 1})

source = Source()
environment = Environment(user_classes=[type("One", (User,), {})])
environment.create_local_runner()
page = environment.create_web_ui("127.0.0.1", 0, delayed_start=True, web_base_path=BASE, web_login=LOGIN)
page.app.secret_key = "of this test"
if LOGIN:
    page.login_manager.user_loader(lambda _: None)
page.template_args["extended_tabs"] = [{"key": "theirs", "title": "Theirs"}]
locust_page.add(environment, source)
client = page.app.test_client()
html = client.get(f"{BASE or ''}/").text
answers = []
for sent in (1, 2):
    source.live = replace(source.live, sent=sent)
    answer = client.get(f"{BASE or ''}/stats/requests")
    answers.append(answer.json if answer.is_json else answer.status_code)
print(json.dumps({"html": html, "answers": answers, "other": client.get(f"{BASE or ''}/worker-count").json}))
"""


def page(*, base: str | None = None, login: bool = False) -> dict[str, Json]:
    """Return what a page of Locust answers. It runs in its own process: Locust patches the process that imports it."""
    code = PAGE.replace("BASE", repr(base)).replace("LOGIN", repr(login))
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    said: dict[str, Json] = json.loads(done.stdout)
    return said


@pytest.mark.parametrize("base", [None, "/under/there"])
def test_the_page_has_the_tabs_and_each_of_its_questions_is_answered_with_the_figures_of_now(base: str | None) -> None:
    said = page(base=base)
    args = json.loads(said["html"].partition("window.templateArgs = ")[2].partition("\n")[0])
    tabs = {one["key"]: one["title"] for one in args["extended_tabs"]}
    assert tabs == {
        "theirs": "Theirs",
        "celery-tasks": "Tasks",
        "celery-stages": "Task stages",
        "celery-workers": "Celery workers",
    }
    columns = {one["key"]: {column["key"] for column in one["structure"]} for one in args["extended_tables"]}
    # Locust gives the same answer for two seconds; the figures in it are of now all the same.
    for sent, answer in zip((1, 2), said["answers"], strict=True):
        assert answer["state"] == "running"
        data = {one["key"]: one["data"] for one in answer["extended_stats"]}
        assert columns == {key: set(rows[0]) for key, rows in data.items()}
        assert {row["figure"]: row["value"] for row in data["celery-tasks"]}["Sent"] == str(sent)
        assert [row["worker"] for row in data["celery-workers"]] == ["</script><b>"]
    assert "extended_stats" not in said["other"]


def test_who_has_not_logged_in_sees_no_figures() -> None:
    assert page(login=True)["answers"] == [302, 302]
