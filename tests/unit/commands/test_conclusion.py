"""What `harness run`, `timelapse` and `survive` leave for CI systems. Nothing is started."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import junitparser
import pytest
from click.testing import CliRunner, Result

from harness.audit.audit import Audit
from harness.audit.run_folder import RunFolder
from harness.commands import run as door
from harness.commands.cli import cli
from harness.commands.command_exit import at_end
from harness.errors import StartError
from harness.records.finding_codes import Code
from harness.records.verdict import Fate, Finding, Verdict
from harness.running import timelapse
from tests.fakes.no_parts import NoParts

ROOT = Path(__file__).parents[3]
Shell = Callable[..., Result]


def audit(*findings: Finding, **about: Any) -> Audit:
    fates = {fate: int(fate is Fate.LOST) for fate in Fate}
    given: dict[str, Any] = {"e2e_ms": {}, "workers": {}, "memory_mb": {}, "witnesses": {}, "entries": 1}
    return Audit(name="20260101T000000-emails", fates=fates, findings=findings, **{**given, **about})


LOST = Finding(code=Code.LOST, verdict=Verdict.FAIL, count=1, text="1 shop.pay: lost.", tasks=("t-1",))


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setattr(door, "SharedParts", NoParts)

    def execute(*given: object) -> tuple[RunFolder, Audit]:
        folder = RunFolder.create(tmp_path / "runs", "emails")
        _, _, _, begun = (*given, None, None, None, None)[:4]
        if callable(begun):
            begun(folder)
        folder.write("run.json", {"timelapse": {"from": "a", "from_t": 0, "to": "b", "to_t": 86400}})
        return folder, audit(LOST)

    monkeypatch.setattr(door, "execute", execute)
    monkeypatch.setattr(timelapse, "execute", execute)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(cli, arguments, standalone_mode=False)

    return run


RUN = ("run", "emails", "--app-dir", str(ROOT))
TIMELAPSE = ("timelapse", "shop", "--from=2026-11-10T12:00", "--to=2026-11-10T14:00", "--tz=UTC")


@pytest.mark.parametrize(("command", "name"), [(RUN, "emails"), (TIMELAPSE, "timelapse")])
def test_a_run_leaves_its_checks_as_junit(shell: Shell, command: tuple[str, ...], name: str) -> None:
    answer = shell(*command, "--junit", "reports/junit.xml")
    assert answer.return_value == 1
    (suite,) = junitparser.JUnitXml.fromfile("reports/junit.xml")
    assert (suite.name, suite.failures, suite.errors) == (name, 1, 0)
    (failed,) = [case for case in suite if case.result]
    assert (failed.classname, failed.name) == (f"harness.{name}", "every task is accounted for")
    assert failed.result[0].text == "lost: 1 shop.pay: lost: t-1"


@pytest.mark.parametrize("command", [RUN, TIMELAPSE])
def test_a_stack_that_does_not_come_up_is_an_error_in_junit(
    shell: Shell, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise StartError("worker-1 died before it was ready")

    monkeypatch.setattr(door, "execute", refuse)
    monkeypatch.setattr(timelapse, "execute", refuse)
    assert isinstance(shell(*command, "--junit", "junit.xml").exception, StartError)
    (suite,) = junitparser.JUnitXml.fromfile("junit.xml")
    (case,) = suite
    assert (suite.errors, case.result[0].text) == (1, "worker-1 died before it was ready")


@pytest.mark.parametrize("command", [RUN, TIMELAPSE])
def test_a_junit_file_that_cannot_be_written_is_told_before_anything_starts(
    shell: Shell, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "execute", lambda *_: pytest.fail("it ran"))
    monkeypatch.setattr(timelapse, "execute", lambda *_: pytest.fail("it ran"))
    Path("file").touch()
    error = shell(*command, "--junit", "file/junit.xml").exception
    assert "--junit: file/junit.xml cannot be written" in str(error)


@pytest.mark.parametrize("command", [RUN, TIMELAPSE])
def test_a_run_has_a_summary_on_the_page_of_a_github_step(
    shell: Shell, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "page.md"))
    assert shell(*command).return_value == 1
    assert "1 shop\\.pay\\: lost" in (tmp_path / "page.md").read_text()
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    answer = shell(*command)
    assert answer.return_value == 1
    assert answer.stderr.count("the summary of this step cannot be written") == 1


@pytest.mark.parametrize("command", [RUN, TIMELAPSE])
def test_with_json_the_standard_output_has_the_audit_alone(shell: Shell, command: tuple[str, ...]) -> None:
    answer = shell(*command, "--json")
    assert answer.return_value == 1
    said = json.loads(answer.stdout)
    assert (said["format"], said["verdict"], said["fates"]["lost"]) == (1, "fail", 1)
    assert Audit.from_json(said).findings == (LOST,)
    assert (Path(said["folder"]) / "run.json").exists()
    assert "1 shop.pay: lost" in answer.stderr


# ------------------------------------------------------------------------------------------------------------ --ci


@pytest.fixture
def no_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITLAB_CI", "CI_JOB_URL", "CI_PROJECT_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("no_ci")
def test_for_ci_the_checks_are_in_the_run_folder_unless_there_is_another_file(shell: Shell, tmp_path: Path) -> None:
    answer = shell(*RUN, "--ci")
    assert answer.return_value == 1
    # The pattern of the template for GitLab finds each once, and not through the link `latest`.
    patterns = ("runs/2*/junit.xml", "reports/*.xml")
    (path,) = [path for pattern in patterns for path in tmp_path.glob(pattern)]
    assert len(list(tmp_path.glob("runs/*/junit.xml"))) == 2
    (suite,) = junitparser.JUnitXml.fromfile(str(path))
    assert (suite.name, suite.failures) == ("emails", 1)
    assert "::" not in answer.stdout
    assert not Path(".harness/gitlab-annotations.json").exists()
    path.unlink()
    assert shell(*RUN, "--ci", "--junit", "reports/x.xml").return_value == 1
    (path,) = [path for pattern in patterns for path in tmp_path.glob(pattern)]
    (suite,) = junitparser.JUnitXml.fromfile(str(path))
    assert (path.name, suite.name, suite.failures) == ("x.xml", "emails", 1)
    # Without the option there is none.
    path.unlink()
    shell(*RUN)
    assert not [path for pattern in patterns for path in tmp_path.glob(pattern)]


@pytest.mark.usefixtures("no_ci")
@pytest.mark.parametrize("as_json", [False, True])
def test_on_github_a_finding_is_an_annotation_and_nothing_else_is_a_command(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, *, as_json: bool
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    answer = shell(*RUN, "--ci", *(["--json"] if as_json else []))
    if as_json:
        assert json.loads(answer.stdout)["verdict"] == "fail"
    lines = (answer.stderr if as_json else answer.stdout).splitlines()
    commands = [line for line in lines if line.startswith("::")]
    stop, resume, error = commands
    assert stop.startswith("::stop-commands::")
    # What a task has written stands between the two.
    assert resume == f"::{stop.removeprefix('::stop-commands::')}::"
    assert lines[0] == stop
    assert lines[-2:] == [resume, error]
    assert error.startswith("::error title=emails%3A lost::1 shop.pay: lost: t-1%0Arun folder: ")
    assert "::" not in shell(*RUN).stdout


@pytest.mark.usefixtures("no_ci")
def test_on_github_an_error_is_an_annotation_and_what_it_quotes_is_no_command(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(_session: object, _plan: object, _tell: object, begun: Callable[[RunFolder], None]) -> None:
        begun(RunFolder.create(tmp_path / "runs", "emails"))
        raise StartError("worker-1 died:\n::error::taken")

    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setattr(door, "execute", refuse)
    answer = shell(*RUN, "--ci")
    at_end.pop_all()
    assert isinstance(answer.exception, StartError)
    stop, resume, error, again = answer.stdout.splitlines()
    assert error == "::error title=emails::worker-1 died:%0A::error::taken"
    assert resume == f"::{stop.removeprefix('::stop-commands::')}::"
    # The shell shows the error after this.
    assert again.startswith("::stop-commands::")
    assert again != stop
    (suite,) = junitparser.JUnitXml.fromfile(str(tmp_path / "runs" / "latest" / "junit.xml"))
    assert suite.errors == 1


@pytest.mark.usefixtures("no_ci")
def test_on_github_commands_are_taken_again_after_the_error_was_shown(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "harness", *RUN, "--ci", "--fault", "typo@1s"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "GITHUB_ACTIONS": "true", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    lines = done.stdout.splitlines()
    stops = [n for n, line in enumerate(lines) if line.startswith("::stop-commands::")]
    shown = [n for n, line in enumerate(lines) if line.startswith("error: ")]
    # The error itself, which may quote anything, stands before the last line, which lets commands through again.
    assert len(stops) == 2
    assert stops[-1] < shown[0] < len(lines) - 1
    assert lines[-1] == f"::{lines[stops[-1]].removeprefix('::stop-commands::')}::"


@pytest.mark.usefixtures("no_ci")
def test_on_gitlab_the_job_has_a_link_to_the_report(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def reported(folder: Path, _complain: object) -> Path:
        (folder / "report.html").touch()
        return folder / "report.html"

    monkeypatch.setattr("harness.commands.conclusion.try_to_write", reported)
    monkeypatch.setenv("GITLAB_CI", "true")
    monkeypatch.setenv("CI_JOB_URL", "https://git.example/shop/-/jobs/7")
    monkeypatch.setenv("CI_PROJECT_DIR", str(tmp_path))
    assert shell(*RUN, "--ci").return_value == 1
    name = (tmp_path / "runs" / "latest").resolve().name
    said = json.loads(Path(".harness/gitlab-annotations.json").read_text())
    assert said == {
        "Celery Harness": [
            {
                "external_link": {
                    "label": "emails: fail",
                    "url": f"https://git.example/shop/-/jobs/7/artifacts/file/runs/{name}/report.html",
                }
            }
        ]
    }
    Path(".harness/gitlab-annotations.json").unlink()
    Path(".harness/gitlab-annotations.json").mkdir()
    answer = shell(*RUN, "--ci")
    assert answer.return_value == 1
    assert "the links for GitLab cannot be written" in answer.stderr
