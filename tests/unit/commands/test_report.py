"""`harness report` in the shell: what it writes, where, and what it refuses."""

import json
import webbrowser
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from harness.audit.run_folder import RUNS, RunFolder
from harness.commands.cli import cli
from harness.errors import RunFolderError
from tests.fakes.world import World

Shell = Callable[..., Result]


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(cli, ["report", *arguments], standalone_mode=False)

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a run in which a task was lost."""
    world = World(RunFolder.create(tmp_path / RUNS, "shop"))
    world.say("worker-1", "up")
    world.intend("a")
    return world.write().path


def test_the_newest_run_is_written_unless_another_is_given(shell: Shell, folder: Path) -> None:
    done = shell()
    assert done.exception is None
    written = folder / "report.html"
    assert done.output == f"report: {written}\n"
    assert "1 lost" in written.read_text()
    again = shell(str(folder), "--output", "elsewhere.html")
    assert again.output == "report: elsewhere.html\n"
    assert Path("elsewhere.html").read_text() == written.read_text()


def test_as_json_it_says_where_the_report_is_and_what_it_says(shell: Shell, folder: Path) -> None:
    assert json.loads(shell("--json").stdout) == {
        "format": 1,
        "report": str(folder / "report.html"),
        "name": "test",
        "verdict": "fail",
        "sentence": "Failed: of 1 task sent, 1 lost; 1 finding says so: lost.",
        "notes": [],
    }


def test_it_does_not_touch_the_audit(shell: Shell, folder: Path) -> None:
    before = sorted(path.name for path in folder.iterdir())
    assert shell("--output", "elsewhere.html").exception is None
    assert sorted(path.name for path in folder.iterdir()) == before


@pytest.mark.parametrize(("opens", "said"), [(True, ""), (False, "no browser could be started. Open ")])
def test_it_is_opened_if_that_is_asked_for(
    shell: Shell, folder: Path, monkeypatch: pytest.MonkeyPatch, *, opens: bool, said: str
) -> None:
    opened: list[str] = []

    def take(address: str) -> bool:
        opened.append(address)
        return opens

    monkeypatch.setattr(webbrowser, "open", take)
    shell()
    assert opened == []
    done = shell("--open")
    assert opened == [(folder / "report.html").as_uri()]
    assert done.exception is None
    assert said in done.stderr
    assert bool(said) is bool(done.stderr)


@pytest.mark.parametrize(
    ("arguments", "seen"),
    [
        (["nowhere"], r"is no folder|does not exist"),
        (["."], r"has no run\.json"),
        (["--output", "nowhere/report.html"], r"cannot write nowhere/report\.html"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_what_cannot_be_read_or_written_is_one_sentence(shell: Shell, arguments: list[str], seen: str) -> None:
    done = shell(*arguments)
    assert isinstance(done.exception, RunFolderError)
    with pytest.raises(RunFolderError, match=seen):
        raise done.exception
