"""What each command says of itself: examples that can be given as they stand, JSON, and the shell's completion."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.shell_completion import BashComplete, FishComplete, ZshComplete
from click.testing import CliRunner, Result

from harness.commands.cli import cli
from harness.containers.images import Fact
from harness.records.event import Kind
from harness.running import doctor
from harness.running.playground import Playground

ROOT = Path(__file__).parents[3]
NO_REPORT = {"init", "up"}
"""Commands that end without a report: a dialogue, and a stack that stays up, of which `status` tells."""


def examples(command: click.Command) -> list[str]:
    """Return the examples of a command's help."""
    # click keeps the help option that it makes here. It is to be that of the shell, which has two names.
    with click.Context(command, info_name="harness", **cli.context_settings) as context:
        _, _, text = command.get_help(context).partition("Examples:\n")
    return [line.strip() for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("name", ["", *cli.every()])
def test_each_command_has_examples_that_can_be_given_as_they_stand(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    command = cli.every()[name] if name else cli
    lines = examples(command)
    assert lines, f"{name} has no example"
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "harness"
        with cli.make_context("harness", list(arguments)) as context:
            found, named, rest = cli.resolve_command(context, arguments)
            assert named is not None
            assert name in {"", found}
            with named.make_context(found, rest, parent=context) as parsed:
                assert not parsed.args


def test_an_example_that_cannot_be_given_is_noticed() -> None:
    with cli.make_context("harness", ["runs", "--lst", "5"]) as context:
        _, command, rest = cli.resolve_command(context, ["runs", "--lst", "5"])
        assert command is not None
        with pytest.raises(click.UsageError):
            command.make_context("runs", rest, parent=context)


def test_each_command_that_reports_can_report_as_json() -> None:
    without = {
        name for name, command in cli.every().items() if all("--json" not in param.opts for param in command.params)
    }
    assert without == NO_REPORT


# ------------------------------------------------------------------------------------------------------------- JSON


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(cli, arguments, standalone_mode=False)


def said(answer: Result) -> dict[str, Any]:
    """Return what a command printed, which has to be one JSON object."""
    value = json.loads(answer.stdout)
    assert isinstance(value, dict)
    assert value["format"] == 1
    return value


@pytest.mark.parametrize(("ok", "code"), [(True, 0), (None, 0), (False, 2)])
def test_the_doctor_says_what_is_wrong(
    *, shell: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, ok: bool | None, code: int
) -> None:
    monkeypatch.setattr(doctor, "facts", lambda *_: iter([Fact("engine", ok, "27.0")]))
    answer = shell("doctor", "--json")
    assert answer.return_value == code
    assert said(answer) == {
        "format": 1,
        "healthy": code == 0,
        "facts": [{"name": "engine", "ok": ok, "detail": "27.0"}],
    }


@pytest.mark.parametrize("options", [(), ("--all",)])
def test_clean_says_what_it_removed(
    shell: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    monkeypatch.setattr("harness.commands.clean.connect", lambda: SimpleNamespace(close=lambda: None))
    monkeypatch.setattr("harness.commands.clean.sweep", lambda _: ["worker-1"])
    monkeypatch.setattr("harness.commands.clean.remove_all", lambda _: ["worker-2"])
    Path(".harness/runs").mkdir(parents=True)
    removed = ["worker-2" if options else "worker-1", ".harness/runs"]
    assert said(shell("clean", "--json", "--runs", *options)) == {"format": 1, "removed": removed}


def test_what_is_not_up_is_said(shell: Callable[..., Result]) -> None:
    answer = shell("status", "--json")
    assert (answer.return_value, said(answer)) == (3, {"format": 1, "up": False})
    assert said(shell("down", "--json")) == {"format": 1, "was_up": False, "folder": None, "audit": None}


class Up(Playground):
    """A stack that lives."""

    def lives(self) -> bool:
        """Return True."""
        return True


@pytest.mark.parametrize(("state", "code"), [("running", 0), ("exited", 1)])
def test_what_is_up_is_said_without_the_administrators_login(
    shell: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, state: str, code: int
) -> None:
    ground = Up(owner="place/boot/1/1.0", app="shop.app", folder="runs/1", administrator="a/secret.json")
    monkeypatch.setattr("harness.commands.up.playground.read", lambda: ground)
    monkeypatch.setattr("harness.commands.up.playground.status", lambda _: ({"worker-1": state}, {"sent": 3}))
    answer = shell("status", "--json")
    assert answer.return_value == code
    value = said(answer)
    assert (value["up"], value["app"], value["nodes"], value["tasks"]) == (
        True,
        "shop.app",
        {"worker-1": state},
        {"sent": 3},
    )
    assert "secret" not in answer.stdout


def test_send_says_what_became_of_each_task(shell: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    def sent(*_: object) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(task="t-1", accepted=True, outcome=Kind.ACCEPTED, reason="")
        yield SimpleNamespace(task="t-2", accepted=False, outcome=Kind.REFUSED, reason="full")

    monkeypatch.setattr("harness.commands.send.sending.ready", lambda _: None)
    monkeypatch.setattr("harness.commands.send.sending.send", sent)
    answers = [SimpleNamespace(task="t-1", status="SUCCESS", text="3")]
    monkeypatch.setattr("harness.commands.send.sending.answers", lambda *_: iter(answers))
    answer = shell("send", "shop.pay", "--wait", "--json")
    assert answer.return_value == 1
    assert said(answer) == {
        "format": 1,
        "verdict": "fail",
        "tasks": [
            {"task": "t-1", "outcome": "accepted", "status": "SUCCESS", "result": "3"},
            {"task": "t-2", "outcome": "refused"},
        ],
    }


# ------------------------------------------------------------------------------------------------------- completion


@pytest.mark.parametrize("kind", [BashComplete, ZshComplete, FishComplete])
def test_the_page_tells_how_each_shell_completes(kind: type[Any]) -> None:
    page = (ROOT / "docs" / "shell.md").read_text()
    assert f"_HARNESS_COMPLETE={kind.name}_source harness" in page
    assert f"{kind.name}_complete" in kind(cli, {}, "harness", "_HARNESS_COMPLETE").source()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("harness exp", {"export"}),
        ("harness c", {"clean", "compare"}),
        ("harness compare --", {"--slower", "--json", "--help"}),
        ("harness survive --promise ", {"at-least-once", "exactly-once-effects"}),
    ],
)
def test_the_shell_completes_commands_options_and_values(words: str, found: set[str]) -> None:
    place = len(words.split()) - (0 if words.endswith(" ") else 1)
    done = subprocess.run(
        [sys.executable, "-c", "from harness.commands.cli import cli; cli(prog_name='harness')"],
        env={**os.environ, "_HARNESS_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(place)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=ROOT,
    )
    assert {line.partition(",")[2] for line in done.stdout.splitlines()} == found


def test_bash_takes_the_script(tmp_path: Path) -> None:
    script = tmp_path / "complete.bash"
    environment = {**os.environ, "_HARNESS_COMPLETE": "bash_source"}
    command = [sys.executable, "-c", "from harness.commands.cli import cli; cli(prog_name='harness')"]
    made = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60, cwd=ROOT)
    script.write_text(made.stdout)
    loaded = f"source {shlex.quote(str(script))} && complete -p harness"
    done = subprocess.run(["bash", "-c", loaded], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.rstrip().endswith(" harness")
