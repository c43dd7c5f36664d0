"""The command `harness selftest`: what it prints, and its exit code. Nothing is planted here."""

import json
from collections.abc import Callable, Iterator, Sequence

import pytest
from click.testing import CliRunner, Result

from harness.commands.cli import cli
from harness.errors import EngineError
from harness.records.verdict import Fate, Verdict
from harness.selftest import selftest
from harness.selftest.plant import Outcome, Seen

LOST = Seen(fates={Fate.LOST: 1}, findings={"lost": Verdict.FAIL})
FOUND = Outcome(name="mail lost", defect="A mail never comes", wanted=LOST, seen=LOST)
MISSED = Outcome(name="row lost", defect="A row is not there", wanted=LOST, seen=Seen())
UNMADE = Outcome(name="no worker", defect="No worker runs", wanted=LOST, seen=Seen(), error="no engine", is_made=False)
Command = Callable[..., Result]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Command:
    """Return a function that runs the command with some outcomes."""

    def run(outcomes: Sequence[Outcome], *arguments: str) -> Result:
        monkeypatch.setattr(selftest, "run", lambda *_: (outcome for outcome in outcomes))
        monkeypatch.setenv("NO_COLOR", "1")
        return CliRunner().invoke(cli, ["selftest", *arguments], standalone_mode=False)

    return run


@pytest.mark.parametrize(
    ("outcomes", "code", "summary"),
    [
        ([FOUND], 0, "pass: 1 of 1 found in 0 s"),
        ([FOUND, MISSED], 1, "fail: 1 of 2 found in 0 s: row lost is missed."),
        ([FOUND, UNMADE], 3, "unknown: 1 of 2 found in 0 s: no worker is not planted."),
        ([UNMADE, MISSED], 1, "fail: 0 of 2 found"),
    ],
)
def test_the_exit_code_is_that_of_the_worst_outcome(
    command: Command, outcomes: Sequence[Outcome], code: int, summary: str
) -> None:
    ended = command(outcomes)
    assert ended.return_value == code
    assert summary in ended.output


def test_each_outcome_says_what_was_planted_and_what_was_found(command: Command) -> None:
    lines = [" ".join(line.split()) for line in command([FOUND, MISSED, UNMADE]).output.splitlines()]
    assert "A mail never comes 1 lost, lost (fail) found" in lines
    assert "A row is not there nothing; wanted: 1 lost, lost (fail) missed" in lines
    assert "No worker runs no engine not planted" in lines


def test_a_program_can_read_it(command: Command) -> None:
    said = json.loads(command([FOUND, MISSED], "--json").stdout)
    assert (said["verdict"], said["planted"], said["found"]) == ("fail", 2, 1)
    assert said["plants"][1] == {
        "name": "row lost",
        "defect": "A row is not there",
        "result": "missed",
        "wanted": {"fates": {"lost": 1}, "findings": {"lost": "fail"}},
        "found": {"fates": {}, "findings": {}},
        "error": None,
    }


def test_an_error_of_the_engine_is_the_command_s_own(command: Command) -> None:
    def failing() -> Iterator[Outcome]:
        yield FOUND
        raise EngineError("no engine answers")

    assert isinstance(command(failing()).exception, EngineError)
