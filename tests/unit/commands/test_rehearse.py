"""`harness rehearse` in the shell: what it refuses, how workers start, and what it says and writes."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import click
import pytest
from click.testing import CliRunner, Result

from harness.commands import rehearse as command
from harness.commands.cli import cli
from harness.errors import UsageError
from harness.records.rehearsal import Rehearsal, Rehearsed, Replaced
from harness.records.verdict import Verdict
from harness.running import broker_upgrade, rehearse, scaling, version_skew
from harness.running.survive import Subject
from tests.fakes.no_parts import NoParts

APP = """
from celery import Celery
app = Celery("shop")

@app.task
def hello():
    return "hello"
"""
ENDED = Replaced(
    node="worker-1", first_process="celery", heard=True, was_killed=False, exit_code=0, took_s=1.0, begun=1
)
TWO = ("--old", "shop:1", "--new", "shop:2")
Shell = Callable[..., Result]
Made = list[tuple[Subject, Any]]


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    Path("shop.py").write_text(APP)
    Path("harness.toml").write_text('app = "shop"\n')

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(cli, ["rehearse", *arguments], standalone_mode=False)

    return run


def rehearsed(title: str, sent: int) -> Rehearsed:
    return Rehearsed(
        title=title,
        folder="one",
        verdict=Verdict(Path("verdict").read_text()),
        sent=sent,
        lost=0,
        ran_again=0,
        doubled=0,
        failed=0,
        pending=0,
        longest_s=3.0,
        longest_task="x",
        replaced=(ENDED,),
    )


@pytest.fixture
def made(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Made:
    """Return the runs that were made. Each has the verdict of the file `verdict`, and a longest task of 3 s."""
    del shell
    made: Made = []

    def rolling(
        _session: object, subject: Subject, _root: Path, deploy: rehearse.Deploy, *, most_steps: int
    ) -> Rehearsed:
        made.append((subject, deploy))
        return rehearsed(subject.name, most_steps)

    monkeypatch.setattr(rehearse, "rolling", rolling)

    def scaled(_session: object, subject: Subject, _root: Path, how: scaling.Scaling, *, most_steps: int) -> Rehearsed:
        made.append((subject, how))
        return rehearsed(str(how), most_steps)

    monkeypatch.setattr(scaling, "scaled", scaled)
    monkeypatch.setattr(command, "SharedParts", NoParts)
    Path("verdict").write_text("pass")
    return made


@pytest.mark.parametrize(
    ("arguments", "seen"),
    [
        (["emails", "--task", "shop.hello"], "a scenario or tasks, not both"),
        (["--grace", "soon"], "'soon' is no duration"),
        (["--entrypoint", "sh -c 'celery"], "is no command"),
        (["--args", "[]"], "more --args"),
        (["--old", "."], "belong together"),
        (["--rolling", "--old", ".", "--new", "."], "--rolling and --old with --new are different deploys"),
        (["--rolling", "--scale", "1-2"], "--rolling and --scale are different deploys"),
        (["--scale", "1-2", "--broker-upgrade"], "--scale and --broker-upgrade are different deploys"),
        (["--new-broker", "rabbitmq:4"], "belong to --broker-upgrade"),
        (["--broker-upgrade", "--surge"], "--broker-upgrade asks no worker to stop: no --surge."),
        (["--broker-upgrade", "--no-proof", "--grace", "10s"], "no --no-proof and no --grace."),
        (["--broker-upgrade", "--old-broker", "r:4", "--new-broker", "r:4"], "are the same image"),
        (["--scale", "1-2", "--workers", "3", "--surge"], "how many workers: no --workers and no --surge."),
        (["--scale", "1-2", "--surge"], "how many workers: no --surge."),
        ([*TWO, "--surge"], "workers that are not stopped: no --surge."),
        ([*TWO, "--no-proof"], "not stopped: no --no-proof."),
        ([*TWO, "--workers", "2"], "not stopped: no --workers."),
        ([*TWO, "--entrypoint", "harness"], "not stopped: no --entrypoint."),
        ([*TWO, "--count", "9"], "not stopped: no --count."),
        ([*TWO, "--grace", "10s"], "not stopped: no --grace."),
        (["--scale", "4"], "'4' says no numbers of workers; give two or more, such as 1-4-1"),
        (["--scale", "1-many"], "'1-many' says no numbers"),
        (["--scale", "1-0-1"], "asks for 0 to 1 workers; give numbers from 1 to 32"),
        (["--scale", "1-2-2-1"], "changes nothing from 2 to 2"),
        (["--old", "./gone", "--new", "."], "--old ./gone is no folder"),
        (["emails", "--old", ".", "--new", "."], "a scenario is imported once"),
    ],
)
@pytest.mark.usefixtures("made")
def test_what_cannot_be_rehearsed_is_a_wrong_use(shell: Shell, arguments: list[str], seen: str) -> None:
    error = shell(*arguments).exception
    assert isinstance(error, UsageError | click.UsageError)
    assert seen in str(error)
    assert not Path(".harness").exists()


def test_the_run_that_was_asked_for_decides_and_is_followed_by_its_proof(shell: Shell, made: Made) -> None:
    answer = shell("--grace", "30s", "--workers", "3", "--surge", "--count", "9")
    assert answer.return_value == 0
    assert [(deploy.grace_s, deploy.surge, subject.stack.workers) for subject, deploy in made] == [
        (30.0, True, 3),
        (4, True, 3),
    ]
    assert "The shortest grace period that cuts no task: 4 s" in answer.stdout
    (folder,) = Path(".harness/runs").glob("2*-rehearse-shop")
    written = Rehearsal.from_json(json.loads((folder / "rehearsal.json").read_text()))
    assert (written.shortest_grace_s, written.verdict) == (4, Verdict.PASS)
    assert "Verdict: pass" in (folder / "rehearsal.md").read_text()


def test_workers_are_scaled_with_the_grace_that_was_asked_for_and_again_with_the_shortest(
    shell: Shell, made: Made
) -> None:
    answer = shell("--scale", "1-4-1", "--grace", "2s")
    assert answer.return_value == 0
    assert [how for _, how in made] == [scaling.Scaling(sizes=(1, 4, 1), grace_s=grace_s) for grace_s in (2.0, 4)]
    assert "The shortest grace period that cuts no task: 4 s" in answer.stdout
    (folder,) = Path(".harness/runs").glob("2*-rehearse-shop")
    assert json.loads((folder / "rehearsal.json").read_text())["what"] == "scale"


class TwoBrokers:
    """Has images of brokers, and starts none."""

    def __init__(self, _say: object) -> None:
        """Start nothing."""

    def __enter__(self) -> Self:
        """Start nothing."""
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def broker_image_of(self, reference: str | None, *, is_next: bool = False) -> str:
        return reference or ("next:4.3.0" if is_next else "own:4.0.5")

    def broker_version(self, image: str) -> str:
        return image.partition(":")[2]


@pytest.mark.usefixtures("made")
def test_the_broker_is_upgraded_to_the_next_series_or_as_it_is_said_and_no_grace_is_looked_for(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[broker_upgrade.Upgrade] = []

    def upgraded(_session: object, _subject: Subject, _root: Path, how: Any, *, most_steps: int) -> Rehearsed:
        seen.append(how)
        return replace(rehearsed("upgraded", most_steps), replaced=())

    monkeypatch.setattr(broker_upgrade, "upgraded", upgraded)
    monkeypatch.setattr(command, "SharedParts", TwoBrokers)
    answer = shell("--broker-upgrade", "--json")
    assert (answer.return_value, json.loads(answer.stdout)["what"]) == (0, "broker-upgrade")
    shell("--broker-upgrade", "--old-broker", "mine:3.12.1", "--new-broker", "mine:3.13.0")
    assert [(one.old_image, one.new) for one in seen] == [("own:4.0.5", "4.3.0"), ("mine:3.12.1", "3.13.0")]
    made = sorted(Path(".harness/runs").iterdir())
    for new, wrong in {"mine:3.13.0": "earlier series", "mine:4.0.5": "both of version 4.0.5"}.items():
        error = shell("--broker-upgrade", "--new-broker", new).exception
        assert isinstance(error, UsageError)
        assert wrong in str(error)
    assert sorted(Path(".harness/runs").iterdir()) == made


@pytest.mark.parametrize(("verdict", "code"), [("pass", 0), ("fail", 1), ("unknown", 3)])
def test_the_exit_code_is_the_verdict_and_json_stands_alone(shell: Shell, made: Made, verdict: str, code: int) -> None:
    Path("verdict").write_text(verdict)
    answer = shell("--no-proof", "--json")
    assert answer.return_value == code
    assert json.loads(answer.stdout)["verdict"] == verdict
    assert len(made) == 1


def test_two_versions_are_folders_or_images(shell: Shell, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[version_skew.Version] = []

    def skew(_session: object, *versions: version_skew.Version) -> list[Rehearsed]:
        seen.extend(versions[:2])
        return [rehearsed("old producers, old workers", 3)]

    monkeypatch.setattr(version_skew, "skew", skew)
    for name, text in {"before": APP, "next": APP.replace("hello", "welcome")}.items():
        Path(name).mkdir()
        Path(name, "shop.py").write_text(text)
    assert shell("--old", "before", "--new", "next", "--app", "shop").return_value == 0
    assert [[one.name for one in version.subjects] for version in seen] == [["shop.hello"], ["shop.welcome"]]
    seen.clear()
    answer = shell("--old", "shop:1", "--new", "shop:2", "--json")
    assert json.loads(answer.stdout)["what"] == "skew"
    assert [version.subjects[0].stack.image for version in seen] == ["shop:1", "shop:2"]
    assert not made


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ("/bin/sh", "-c", "celery -A shop worker")),
        (["--entrypoint", "harness"], ()),
        (["--entrypoint", "tini -- celery -A shop worker"], ("tini", "--", "celery", "-A", "shop", "worker")),
    ],
)
def test_workers_start_as_the_project_starts_them_unless_something_else_is_said(
    shell: Shell, made: Made, arguments: list[str], words: tuple[str, ...]
) -> None:
    Path("Dockerfile").write_text("FROM python\nCMD celery -A shop worker\n")
    answer = shell(*arguments, "--no-proof")
    assert answer.return_value == 0
    assert made[0][0].stack.entrypoint == words
    assert ("workers start as in Dockerfile: line 2" in answer.stdout) is (not arguments)
