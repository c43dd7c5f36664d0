"""`harness survive` in the shell: what it refuses, and what it does with a baseline."""

import json
from collections.abc import Callable
from pathlib import Path

import click
import junitparser
import pytest
from click.testing import CliRunner, Result

from harness.commands import survive as command
from harness.commands.cli import cli
from harness.errors import RunFolderError, UsageError
from harness.records.moment import Moment
from harness.records.survival import Cell, Demand, Outcome, Survival
from harness.records.survival import Result as Tried
from harness.running import survive
from tests.fakes.no_parts import NoParts

APP = """
from celery import Celery
app = Celery("shop")

@app.task
def hello():
    return "hello"

@app.task(name="shop.pay")
def pay(amount):
    open("/tmp/paid", "w").write(amount)
"""
Shell = Callable[..., Result]


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    Path("shop.py").write_text(APP)
    Path("harness.toml").write_text('app = "shop"\n')

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(cli, ["survive", *arguments], standalone_mode=False)

    return run


@pytest.fixture
def subjects(monkeypatch: pytest.MonkeyPatch) -> list[survive.Subject]:
    """Return what is tried, where each cell has the outcome that the file `outcome` names."""
    subjects: list[survive.Subject] = []

    def trial(_session: object, subject: survive.Subject, _root: Path, wanted: object) -> object:
        subjects.append(subject)
        return wanted

    def survived(_session: object, _trials: object, _root: Path, **about: object) -> Survival:
        cell = Cell(task="shop.hello", moment=Moment.STARTED, fault="kill-worker")
        outcome = Outcome(Path("outcome").read_text())
        result = Tried(cell=cell, outcome=outcome, why="what was seen", folder="cell")
        return Survival(name=str(about["name"]), demand=Demand(str(about["demand"])), results=[result])

    monkeypatch.setattr(survive, "trial", trial)
    monkeypatch.setattr(survive, "survive", survived)
    monkeypatch.setattr(command, "SharedParts", NoParts)
    return subjects


@pytest.mark.parametrize(
    ("arguments", "seen"),
    [
        (["--quick", "--full"], "exclude each other"),
        (["emails", "--task", "shop.pay"], "a scenario or tasks, not both"),
        (["--args", "[]"], "more --args or --kwargs than --task"),
        (["--task", "shop.pay", "--args", "5"], "--args 5 is no JSON array"),
        (["--task", "shop.pay", "--args", "five"], "five is no JSON"),
        (["--task", "shop.pay", "--kwargs", "[]"], "--kwargs [] is no JSON object"),
        (["--set", "task_acks_late"], "task_acks_late is not NAME=VALUE"),
        (["--set", "a-b=1"], "a-b=1 is not NAME=VALUE"),
        (["--set", "task_annotations={"], "the value in task_annotations={ cannot be read"),
        (["--set", "result_expires=2026-11-01"], "cannot be read: Object of type date"),
        (["--set", "broker_url=amqp://elsewhere"], "broker_url cannot be overridden"),
        (["--baseline", "gone.json"], "the baseline gone.json cannot be read"),
        (["--baseline", "gone/new.json", "--save"], "there is no folder gone"),
        (["--baseline", "shop.py"], "shop.py is no outcome of `harness survive`"),
    ],
)
def test_what_cannot_be_tried_is_a_wrong_use(shell: Shell, arguments: list[str], seen: str) -> None:
    error = shell(*arguments).exception
    assert isinstance(error, UsageError | click.UsageError)
    assert seen in str(error)


def test_without_a_task_that_anybody_can_send_it_asks_for_one(shell: Shell) -> None:
    Path("shop.py").write_text(APP.replace("hello", "helo").replace("    return", "    import os\n    return"))
    answer = shell()
    assert "there are shop.helo(), shop.pay(amount)" in str(answer.exception)


def test_by_default_the_tasks_are_sent_that_touch_nothing(shell: Shell, subjects: list[survive.Subject]) -> None:
    Path("outcome").write_text("ok")
    assert shell().return_value == 0
    assert [one.name for one in subjects] == ["shop.hello"]


def test_settings_are_overridden_from_outside(shell: Shell, subjects: list[survive.Subject]) -> None:
    Path("outcome").write_text("ok")
    shell(
        "--set",
        "task_acks_late=False",
        "--set",
        "task_default_queue_type=quorum",
        "--set",
        'task_annotations={"*": {}}',
    )
    assert subjects[0].stack.settings == {
        "task_acks_late": False,
        "task_default_queue_type": "quorum",
        "task_annotations": {"*": {}},
    }


def test_a_broken_promise_is_exit_code_1_and_lies_in_the_run_folder(
    shell: Shell, subjects: list[survive.Subject]
) -> None:
    Path("outcome").write_text("lost")
    answer = shell("--task", "shop.pay", "--args", "[3]", "--json")
    assert (answer.return_value, len(subjects)) == (1, 1)
    said = json.loads(answer.stdout)
    assert said["cells"][0]["outcome"] == "lost"
    folder = Path(".harness/runs/latest")
    assert json.loads((folder / "survive.json").read_text()) == said
    assert "| started | lost |" in (folder / "survive.md").read_text()
    assert "Failed: of 1 cell, 1 lost" in (folder / "report.html").read_text()
    assert f"report: {folder.resolve() / 'report.html'}" in answer.stderr.replace("\n", "")


@pytest.mark.usefixtures("subjects")
@pytest.mark.parametrize(
    ("before", "now", "code", "words"),
    [
        ("lost", "lost", 0, "nothing is worse"),
        ("ok", "lost", 1, "worse: shop.hello started kill-worker: ok before, lost now"),
        ("ok", "ran twice", 1, "worse: shop.hello started kill-worker: ok before, ran twice now"),
        ("lost", "ok", 0, "better: shop.hello started kill-worker: lost before, ok now"),
    ],
)
def test_with_a_baseline_only_what_got_worse_fails(shell: Shell, before: str, now: str, code: int, words: str) -> None:
    Path("outcome").write_text(before)
    shell("--save")
    assert Path("survive.json").exists()
    Path("outcome").write_text(now)
    answer = shell()
    assert words in answer.output
    assert answer.return_value == code
    said = json.loads(Path(".harness/runs/latest/survive.json").read_text())
    assert said["verdict"] == {0: "pass", 1: "fail"}[code]
    assert [one["now"] for one in said["baseline"]["worse"]] == ([now] if code else [])
    page = Path(".harness/runs/latest/report.html").read_text()
    assert f"{'Failed' if code else 'Passed'}: of 1 cell" in page
    assert ("promises are broken, but nothing is worse than in the baseline" in page) is (before == now)


def test_a_new_baseline_holds_nothing_of_the_one_before(shell: Shell, subjects: list[survive.Subject]) -> None:
    del subjects
    Path("outcome").write_text("lost")
    for _ in range(2):
        shell("--save")
    said = json.loads(Path("survive.json").read_text())
    assert (said["verdict"], said["baseline"]) == ("fail", None)


def test_with_a_baseline_what_nobody_knows_is_no_pass(
    shell: Shell, subjects: list[survive.Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    del subjects
    outcomes = {Moment.STARTED: Outcome.LOST, Moment.STORED: Outcome.UNKNOWN}
    cells = [
        Tried(cell=Cell(task="hello", moment=moment, fault="kill-worker"), outcome=outcome, why="", folder="cell")
        for moment, outcome in outcomes.items()
    ]
    survival = Survival(name="shop", demand=Demand.AT_LEAST_ONCE, results=cells)
    monkeypatch.setattr(survive, "survive", lambda *_, **__: survival)
    assert shell("--save").return_value == 1
    assert shell().return_value == 3


def test_a_baseline_of_another_promise_is_refused_before_anything_runs(
    shell: Shell, subjects: list[survive.Subject]
) -> None:
    Path("outcome").write_text("effect twice")
    assert shell("--save").return_value == 0
    subjects.clear()
    error = shell("--promise", "exactly-once-effects").exception
    assert isinstance(error, UsageError)
    assert "survive.json is of another promise: give --promise at-least-once" in str(error)
    assert subjects == []
    assert shell("--promise", "at-least-once").return_value == 0


def test_a_baseline_of_which_no_cell_was_tried_again_makes_no_pass(
    shell: Shell, subjects: list[survive.Subject]
) -> None:
    del subjects
    Path("outcome").write_text("ok")
    shell("--save")
    said = json.loads(Path("survive.json").read_text())
    (cell,) = said["cells"]
    other = {**cell, "fault": "stop-worker"}
    Path("survive.json").write_text(json.dumps({**said, "cells": [other]}))
    answer = shell()
    assert answer.return_value == 3
    assert "cells of the baseline that were not tried again: 1" in " ".join(answer.output.split())
    Path("survive.json").write_text(json.dumps({**said, "cells": [cell, other]}))
    answer = shell()
    assert answer.return_value == 0
    assert "not tried again: 1" in " ".join(answer.output.split())


def test_a_baseline_with_a_name_of_its_own_is_made_by_save(shell: Shell, subjects: list[survive.Subject]) -> None:
    del subjects
    Path("outcome").write_text("lost")
    assert shell("--baseline", "new.json", "--save").return_value == 1
    assert json.loads(Path("new.json").read_text())["cells"][0]["outcome"] == "lost"
    assert not Path("survive.json").exists()
    assert shell("--baseline", "new.json").return_value == 0


def test_a_baseline_that_cannot_be_written_costs_nothing_of_the_rest(
    shell: Shell, subjects: list[survive.Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    del subjects
    Path("outcome").write_text("lost")
    shell("--save")
    old = Path("survive.json").read_text()
    replace = Path.replace

    def full(self: Path, target: Path) -> Path:
        if target.name == "survive.json" and not target.is_absolute() and target.parent == Path():
            raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", full)
    Path("outcome").write_text("ok")
    answer = shell("--save", "--junit", "junit.xml", "--json")
    assert isinstance(answer.exception, RunFolderError)
    assert "the baseline survive.json cannot be written: No space left on device" in str(answer.exception)
    assert json.loads(answer.stdout)["cells"][0]["outcome"] == "ok"
    (suite,) = junitparser.JUnitXml.fromfile("junit.xml")
    assert (suite.name, suite.errors) == ("survive.shop", 0)
    assert Path(".harness/runs/latest/report.html").is_file()
    # The one before is whole, and nothing lies beside it.
    assert Path("survive.json").read_text() == old
    assert list(Path().glob(".survive.json*")) == []


def test_each_cell_is_a_check_in_the_junit_file(shell: Shell, subjects: list[survive.Subject]) -> None:
    del subjects
    Path("outcome").write_text("lost")
    assert shell("--junit", "junit.xml").return_value == 1
    (suite,) = junitparser.JUnitXml.fromfile("junit.xml")
    (cell,) = suite
    assert (suite.name, suite.failures) == ("survive.shop", 1)
    assert (cell.classname, cell.name) == ("harness.survive.shop.shop.hello", "kill-worker at started")
    assert cell.result[0].message == "lost: what was seen"
    shell("--save")
    assert shell("--junit", "junit.xml").return_value == 0
    (suite,) = junitparser.JUnitXml.fromfile("junit.xml")
    assert (suite.failures, suite.skipped) == (0, 1)
