"""The shell door: what is printed, and the exit code. No engine answers here."""

import errno
import gc
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import click
import docker
import pytest

from harness import __version__
from harness.audit import results
from harness.audit.run_folder import RunFolder
from harness.commands.cli import cli, main
from harness.containers.docker_engine import _DockerEngine
from harness.errors import HarnessError, noted_on
from harness.project.schema import KEYS
from harness.records.expectation import Promise
from harness.running.playground import Playground
from harness.stack.stack import StackSpec

ROOT = Path(__file__).parents[3]
ESCAPE = "\x1b"


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str


Shell = Callable[..., Ended]


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Iterator[Shell]:
    """Yield a function that runs `harness` with some arguments, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["harness", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code or 0
        assert isinstance(code, int)
        out, err = capsys.readouterr()
        return Ended(code=code, out=out, err=err)

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)
    gc.collect()


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Return a function that gives `harness` one more command, `extra`."""
    return lambda does: monkeypatch.setitem(cli.commands, "extra", click.command("extra")(does))


def line(n: int, kind: str, **data: Any) -> str:
    return json.dumps({"n": n, "t": 1_000.0 + n, "kind": kind, **data}) + "\n"


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """Return the folder of a run that sent one task to one worker, and passes."""
    folder = RunFolder.create(tmp_path / ".harness" / "runs", "payments")
    folder.write("run.json", {"name": "payments", "promise": Promise().to_json(), "nodes": ["producer", "worker-1"]})
    folder.write("broker.json", {"readable": True, "queues": [], "messages": [], "held": []})
    for node, happened in (("producer", ("intended", "accepted")), ("worker-1", ("started", "finished"))):
        lines = [line(0, "opened", node=node, pid=1)]
        lines += [line(n, kind, task="t-1", state="SUCCESS") for n, kind in enumerate(happened, start=1)]
        (folder.journal / f"{node}.1.1.jsonl").write_text("".join(lines))
    results.create(folder.results)
    with closing(sqlite3.connect(folder.results)) as connection, connection:
        connection.execute("CREATE TABLE celery_taskmeta (task_id TEXT, status TEXT, result BLOB)")
        connection.execute("INSERT INTO celery_taskmeta VALUES ('t-1', 'SUCCESS', ?)", [b"null"])
    return folder


# ------------------------------------------------------------------------------------------------ how it is used


@pytest.mark.parametrize("name", ["", *cli.every()])
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_command_explains_itself(shell: Shell, name: str, flag: str) -> None:
    ended = shell(*([name] if name else []), flag)
    assert (ended.code, ended.err) == (0, "")
    usage = ended.out.partition("[OPTIONS]")[0]
    assert usage.startswith("Usage: ")
    assert usage.endswith(f"harness {name}".strip() + " ")


SCENARIO = """
from pathlib import Path

from harness import Scenario
from harness.scenario import Option


class Loads(Scenario):
    name = app = "loads"
    count = 3
    options = (
        Option(name="rows", help="How many rows.", default=10, kind=int, least=1),
        Option(name="data", help="A file.", default=None, kind=Path),
        Option(name="name", help="Whose.", default="ours", kind=str),
    )


scenario = Loads()
"""


@pytest.fixture
def _a_scenario_with_options(tmp_path: Path) -> Iterator[None]:
    (tmp_path / "depot").mkdir()
    (tmp_path / "depot" / "loads.py").write_text(SCENARIO)
    yield
    for name in ("depot", "depot.loads", "loads"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("_a_scenario_with_options")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rows", "0"], "'--rows': 0 is not in the range x>=1"),
        (["--rows", "many"], "'--rows': 'many' is not a valid integer"),
        (["--data", "nowhere.csv"], "'--data': File 'nowhere.csv' does not exist"),
        (["--data", "."], "'--data': File '.' is a directory"),
        (["--colour", "red"], "'--colour'"),
        # Nothing is wrong with these, but that there is no engine.
        (["--rows", "7", "--data", "depot/loads.py"], "No container engine answers"),
    ],
)
def test_a_scenarios_own_options_are_the_commands(shell: Shell, arguments: list[str], said: str) -> None:
    ended = shell("run", "depot.loads", *arguments)
    assert ended.code == 2
    assert said in ended.err


@pytest.mark.usefixtures("_a_scenario_with_options")
def test_a_scenarios_own_options_stand_in_its_help(shell: Shell) -> None:
    ended = shell("run", "depot.loads", "--help")
    assert ended.code == 0
    assert "How many rows." in ended.out
    assert "--count" in ended.out


@pytest.mark.usefixtures("_a_scenario_with_options")
@pytest.mark.parametrize(
    "arguments",
    [
        ["--seed", "2", "depot.loads", "--rows", "7", "--count=3"],
        ["--count", "3", "--app-dir", ".", "depot.loads", "--rows=7"],
        ["depot.loads", "--rows", "7", "--rows", "8"],
        ["--seed", "-1", "--", "depot.loads"],
        ["depot.loads", "--name", "--rows"],
    ],
)
def test_options_come_in_any_order_those_of_the_scenarios_own_after_its_name(
    shell: Shell, arguments: list[str]
) -> None:
    ended = shell("run", *arguments)
    assert (ended.code, ended.err.strip().partition(" at ")[0]) == (2, "error: No container engine answers")


@pytest.mark.usefixtures("_a_scenario_with_options")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rows", "7", "depot.loads"], "No such option '--rows'"),
        (["depot.loads", "--row", "7"], "No such option '--row'"),
        (["depot.loads", "--", "--rows", "7"], "unexpected extra arguments (--rows 7)"),
        (["depot.loads", "--rows"], "Option '--rows' requires an argument"),
        (["depot.loads", "--app-dir"], "Option '--app-dir' requires an argument"),
        (["--", "--rows", "depot.loads"], "unexpected extra argument (depot.loads)"),
        ([], "Missing argument 'SCENARIO'"),
    ],
)
def test_a_command_line_that_means_nothing_is_told(shell: Shell, arguments: list[str], said: str) -> None:
    ended = shell("run", *arguments)
    assert ended.code == 2
    assert said in ended.err


@pytest.mark.usefixtures("_a_scenario_with_options")
@pytest.mark.parametrize("name", ["count", "timeout", "options", "root", "help", "scenario", "data"])
@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_an_option_that_there_is_already_is_refused(
    shell: Shell, tmp_path: Path, name: str, arguments: tuple[str, ...]
) -> None:
    module = tmp_path / "depot" / "loads.py"
    module.write_text(SCENARIO.replace('"rows"', f'"{name}"'))
    ended = shell("run", "depot.loads", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert "loads has an option" in ended.err


@pytest.mark.usefixtures("_a_scenario_with_options")
@pytest.mark.parametrize("name", ["class", "ctx", "self", "kind"])
def test_an_option_may_be_called_what_python_calls_something_of_its_own(
    shell: Shell, tmp_path: Path, name: str
) -> None:
    module = tmp_path / "depot" / "loads.py"
    module.write_text(SCENARIO.replace('"rows"', f'"{name}"'))
    assert "No container engine answers" in shell("run", "depot.loads", f"--{name}", "7").err


def test_the_version_is_told(shell: Shell) -> None:
    assert shell("--version").out == f"harness, version {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "emails", "--count", "-1"], "'--count': -1"),
        (["run", "emails", "--workers", "0"], "'--workers': 0"),
        (["run", "emails", "--timeout", "soon"], "'--timeout'"),
        (["run"], "SCENARIO"),
        (["nosuch"], "nosuch"),
    ],
)
def test_a_wrong_option_exits_with_2_and_is_named(shell: Shell, arguments: list[str], said: str) -> None:
    ended = shell(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err
    assert ended.err.startswith("Usage: ")


def test_a_scenario_that_is_not_there_exits_with_2_and_names_those_that_are(shell: Shell) -> None:
    ended = shell("run", "nosuch", "--app-dir", str(ROOT))
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("error: no scenario 'nosuch': ")
    assert "emails" in ended.err


def test_a_folder_of_the_app_that_is_not_there_exits_with_2(shell: Shell, tmp_path: Path) -> None:
    ended = shell("run", "emails", "--app-dir", str(tmp_path / "nowhere"))
    assert (ended.code, ended.out) == (2, "")
    assert f"{tmp_path / 'nowhere'} is no folder" in ended.err


@pytest.mark.parametrize("more", [[], ["--detach"], ["--workers=1"]])
def test_a_stack_to_play_with_wants_an_app_where_there_is_none(shell: Shell, tmp_path: Path, more: list[str]) -> None:
    ended = shell("up", *more)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"error: no app is named, and {tmp_path} has no scenarios.app either: give yours")
    assert ended.err.count("\n") == 1
    assert not Path(".harness").exists()


@pytest.mark.parametrize("arguments", [["shop.app"], ["--app-dir", str(ROOT)]])
def test_an_app_that_is_named_or_there_by_default_is_brought_up(shell: Shell, arguments: list[str]) -> None:
    """The control: nothing is wrong with these, but that there is no engine."""
    ended = shell("up", *arguments)
    assert (ended.code, ended.err.partition(" at ")[0]) == (2, "error: No container engine answers")


# ---------------------------------------------------------------------------------- with settings in the project

SETTINGS = """
app = "shop.app"
folder = "depot"
workers = 3
options = ["--pool=solo"]
env = { A = "1" }
"""


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[StackSpec]:
    """Return a list of the stacks that commands would start; none is started."""
    made: list[StackSpec] = []

    def refuse(stack: StackSpec) -> NoReturn:
        made.append(stack)
        raise HarnessError("this is as far as it goes")

    monkeypatch.setattr("harness.commands.up.playground.up", lambda plan, _say: refuse(plan.stack))
    monkeypatch.setattr(
        "harness.commands.timelapse.timelapse.execute", lambda _session, lapse, _tell: refuse(lapse.stack)
    )
    monkeypatch.setattr("harness.commands.run.execute", lambda _session, plan, *_: refuse(plan.stack))
    for key in KEYS.values():
        if key.variable is not None:
            monkeypatch.delenv(key.variable, raising=False)
    return made


TIMELAPSE = ("timelapse", "--from=2026-11-10T12:00", "--to=2026-11-10T14:00", "--tz=UTC")


@pytest.mark.usefixtures("_a_scenario_with_options")
def test_chaos_has_two_workers_and_says_what_it_breaks(shell: Shell, planned: list[StackSpec]) -> None:
    first, second = (shell("run", "depot.loads", "--app=shop", "--chaos", "--seed=4") for _ in range(2))
    assert first.out.startswith("chaos, seed 4: ")
    assert first.out == second.out != shell("run", "depot.loads", "--app=shop", "--chaos", "--seed=5").out
    assert planned[0].workers == 2


@pytest.mark.usefixtures("_a_scenario_with_options")
@pytest.mark.parametrize(
    ("arguments", "seen"),
    [
        (("--chaos", "--fault=noop@1s"), "give one of the two"),
        (("--shrink",), "give --chaos, or some --fault"),
        (("--chaos", "--write-test=test_x.py"), "give both"),
        (("--fault=noop@started", "--over=soon"), "'soon' is no duration"),
    ],
)
def test_faults_that_exclude_each_other_are_a_wrong_use(shell: Shell, arguments: tuple[str, ...], seen: str) -> None:
    ended = shell("run", "depot.loads", *arguments)
    assert ended.code == 2
    assert seen in ended.err


@pytest.mark.usefixtures("_a_scenario_with_options")
@pytest.mark.parametrize(
    ("arguments", "app_and_workers"),
    [
        (("up",), ("shop.app", 3)),
        (("up", "other.app", "--workers=1"), ("other.app", 1)),
        (TIMELAPSE, ("shop.app", 0)),
        ((*TIMELAPSE, "other.app"), ("other.app", 0)),
        # A scenario says which app it is for.
        (("run", "loads"), ("loads", 3)),
        (("run", "loads", "--app=other.app", "--workers=2"), ("other.app", 2)),
    ],
)
def test_what_the_command_line_leaves_out_is_taken_from_the_settings(
    shell: Shell, planned: list[StackSpec], tmp_path: Path, arguments: tuple[str, ...], app_and_workers: tuple[str, int]
) -> None:
    (tmp_path / "harness.toml").write_text(SETTINGS)
    ended = shell(*arguments)
    assert ended.code == 2
    assert ended.err.endswith("error: this is as far as it goes\n")
    (stack,) = planned
    assert (stack.app, stack.workers) == app_and_workers
    assert stack.app_folder == tmp_path / "depot"
    assert (stack.options, stack.env) == (("--pool=solo",), {"A": "1"})


@pytest.mark.usefixtures("_a_scenario_with_options")
def test_a_scenario_wins_over_the_settings_and_the_command_line_over_the_scenario(
    shell: Shell, planned: list[StackSpec], tmp_path: Path
) -> None:
    (tmp_path / "harness.toml").write_text(SETTINGS)
    module = tmp_path / "depot" / "loads.py"
    own = "    worker_options = ('-c', '4')\n    env = {'A': '{}', 'B': '2'}\n"
    module.write_text(SCENARIO.replace('name = app = "loads"', f'name = "loads"\n{own}'))
    shell("run", "loads")
    shell("run", "loads", "--worker-option=-P", "--worker-option=threads", "--app-dir", "depot")
    assert [stack.options for stack in planned] == [("-c", "4"), ("-P", "threads")]
    # It names no app, so that it is for the settings'.
    assert [(stack.app, stack.env) for stack in planned] == [("shop.app", {"A": "{{}}", "B": "2"})] * 2


@pytest.mark.usefixtures("planned")
def test_a_stack_that_is_left_running_has_the_same_settings(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "depot").mkdir()
    (tmp_path / "harness.toml").write_text(SETTINGS)
    given: list[str] = []
    monkeypatch.setattr("harness.commands.up.playground.detach", lambda arguments, _say: given.extend(arguments))
    monkeypatch.setattr("harness.commands.up._describe", lambda *_: None)
    assert shell("up", "-d", "--workers=1").code == 0
    assert given == ["shop.app", "--workers=1", "--web=", "--runs=.harness/runs", "--ports=free"]
    given.clear()
    assert shell("up", "-d", "--app-dir", "depot", "--ports", "fixed").code == 0
    assert given == ["shop.app", "--workers=3", "--web=", "--runs=.harness/runs", "--ports=fixed", "--app-dir=depot"]


@pytest.mark.usefixtures("_a_scenario_with_options")
@pytest.mark.parametrize("arguments", [("up",), TIMELAPSE, ("run", "depot.loads"), ("up", "--detach")])
@pytest.mark.parametrize(
    "wrong",
    [
        ("ap = 1", "harness.toml: ap is no setting. Did you mean apt?"),
        ("workers = '2'", "workers is '2', a text; it should be a whole number"),
        (
            "app = 'shop.app'\napt = ['libpq5']",
            "harness.toml: apt: the setting apt is for the app's own image, and nothing says what to",
        ),
        ("app", "harness.toml is no TOML: "),
    ],
    ids=["key", "type", "nothing to install", "grammar"],
)
def test_wrong_settings_end_each_command_with_2_and_one_sentence(
    shell: Shell, planned: list[StackSpec], tmp_path: Path, arguments: tuple[str, ...], wrong: tuple[str, str]
) -> None:
    text, said = wrong
    (tmp_path / "harness.toml").write_text(text)
    ended = shell(*arguments)
    assert (ended.code, planned) == (2, [])
    assert said in ended.err
    assert ended.err.count("\n") == 1


def test_the_doctor_shows_each_setting_with_where_it_was_said(
    shell: Shell, planned: list[StackSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del planned
    (tmp_path / "depot").mkdir()
    more = 'env = { TOKEN = "secret" }\nmounts = ["depot:/data"]\nwritable = true\n'
    (tmp_path / "harness.toml").write_text(SETTINGS.replace('env = { A = "1" }', more))
    monkeypatch.setenv("HARNESS_OPTIONS", "-c 4")
    lines = [line for line in shell("doctor").out.splitlines() if " setting" in line]
    file = tmp_path / "harness.toml"
    assert lines == [
        f"ok   setting app: shop.app ({file}: app)",
        f"ok   setting folder: {tmp_path}/depot ({file}: folder)",
        "ok   setting options: -c, 4 (HARNESS_OPTIONS)",
        f"ok   setting workers: 3 ({file}: workers)",
        f"ok   setting env: TOKEN ({file}: env)",
        f"ok   setting writable: true ({file}: writable)",
        f"ok   setting mounts: {tmp_path}/depot:/data:ro ({file}: mounts)",
    ]


def test_the_doctor_marks_settings_that_cannot_be_read_and_shows_the_default_where_there_are_none(
    shell: Shell, planned: list[StackSpec], tmp_path: Path
) -> None:
    del planned
    assert f"ok   setting folder: {tmp_path} (default)\n" in shell("doctor").out
    (tmp_path / "harness.toml").write_text("ap = 1")
    assert f"bad  settings: {tmp_path}/harness.toml: ap is no setting. Did you mean apt?\n" in shell("doctor").out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["shop.pay"], "nothing is up here: `harness up APP` brings a stack up"),
        (["shop.pay", "a@b.example"], "a@b.example is no JSON"),
        (["shop.pay", "--kwargs", "[1]"], "--kwargs [1] is no JSON object"),
        (["shop.pay", "--count", "0"], "Invalid value for '--count'"),
    ],
)
def test_what_cannot_be_sent_exits_with_2(shell: Shell, arguments: list[str], text: str) -> None:
    ended = shell("send", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert text in ended.err


# -------------------------------------------------------------------------------------------------------- audit


def drop_the_row(folder: RunFolder) -> None:
    with closing(sqlite3.connect(folder.results)) as connection, connection:
        connection.execute("DELETE FROM celery_taskmeta")


def drop_what_was_left_in_the_broker(folder: RunFolder) -> None:
    (folder.path / "broker.json").unlink()


@pytest.mark.parametrize(
    ("damage", "code", "verdict"),
    [
        (lambda _: None, 0, "pass"),
        (drop_the_row, 1, "fail"),
        (drop_what_was_left_in_the_broker, 3, "unknown"),
    ],
)
def test_the_verdict_of_an_audit_is_its_exit_code(
    shell: Shell, folder: RunFolder, damage: Callable[[RunFolder], None], code: int, verdict: str
) -> None:
    damage(folder)
    ended = shell("audit", str(folder.path))
    assert (ended.code, ended.err) == (code, "")
    assert folder.read("audit.json")["verdict"] == verdict
    assert ended.out.splitlines()[0].strip() == "payments"
    assert verdict in ended.out
    assert ESCAPE not in ended.out


@pytest.mark.parametrize(("damage", "code"), [(lambda _: None, 0), (drop_the_row, 1)])
def test_an_audit_that_cannot_be_written_down_is_told_all_the_same(
    shell: Shell, folder: RunFolder, monkeypatch: pytest.MonkeyPatch, damage: Callable[[RunFolder], None], code: int
) -> None:
    damage(folder)
    monkeypatch.setattr(Path, "replace", refused)
    ended = shell("audit", str(folder.path))
    assert ended.code == code
    assert ended.out.splitlines()[0].strip() == "payments"
    assert ended.err.startswith(f"error: cannot write {folder.path}/audit.json: [Errno 30] Read-only file system")
    assert ended.err.endswith(". The verdict stands; it is only not written down.\n")
    assert [path.name for path in folder.path.iterdir() if path.name.startswith(".")] == []


def refused(_path: Path, _target: Path) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[]", "3", "{", '{"name": 1}', '{"name": "x", "promise": [], "nodes": 1}']
)
def test_a_run_file_that_no_run_has_written_is_one_sentence_with_its_name(
    shell: Shell, folder: RunFolder, text: str
) -> None:
    (folder.path / "run.json").write_text(text)
    ended = shell("audit", str(folder.path))
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("error: ")
    assert str(folder.path / "run.json") in ended.err
    assert "unexpected" not in ended.err


def test_a_folder_whose_name_is_no_text_is_one_sentence_with_its_name(shell: Shell, folder: RunFolder) -> None:
    odd = folder.path.with_name("odd\udcff")
    folder.path.rename(odd)
    for arguments in (
        ["audit", str(odd)],
        ["run", "emails", "--app-dir", str(odd)],
        ["up", "--app-dir", str(odd)],
        ["up", "--runs", str(odd)],
    ):
        ended = shell(*arguments)
        assert (ended.code, ended.out) == (2, "")
        assert "odd\\udcff" in ended.err
        assert "unexpected" not in ended.err


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "{}", '{"findings": 3}', '{"name": "x", "fates": []}', None])
def test_a_stack_that_was_up_is_down_whatever_it_has_written(
    shell: Shell, folder: RunFolder, monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    ground = Playground(owner="place/boot/1/1.0", app="shop.app", folder=str(folder.path))
    monkeypatch.setattr("harness.running.playground.down", lambda: ground)
    if text is not None:
        (folder.path / "audit.json").write_text(text)
    ended = shell("down")
    assert (ended.code, ended.out) == (0, f"down. Its run folder: {folder.path}\n")
    assert ("audit.json" in ended.err) is (text is not None)
    assert "unexpected" not in ended.err


@pytest.mark.parametrize(("damage", "code"), [(lambda _: None, 0), (drop_the_row, 1)])
@pytest.mark.parametrize("redirected", ["| true", ">/dev/full", "2>/dev/full", ">&-", "2>&1 | true"])
def test_an_output_that_nobody_takes_changes_no_verdict(
    folder: RunFolder, damage: Callable[[RunFolder], None], code: int, redirected: str
) -> None:
    damage(folder)
    assert in_bash(f"-m harness audit {folder.path} {redirected}") == code


@pytest.mark.parametrize("redirected", ["2>/dev/full", "2>&1 | true", "2>&-", "2>/dev/null"])
def test_where_not_even_the_error_can_be_said_it_is_no_broken_promise(tmp_path: Path, redirected: str) -> None:
    assert in_bash(f"-m harness audit {tmp_path}/nowhere {redirected}") == 2


def in_bash(command: str) -> int:
    """Return the exit code of a Python command with a shell's redirections and pipes."""
    done = subprocess.run(
        ["bash", "-c", f'{sys.executable} {command}; exit "${{PIPESTATUS[0]}}"'],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=60,
        check=False,
    )
    return done.returncode


HOSTILE = "\x1b[2Jno [/red] name\r"


def test_a_message_with_escape_sequences_and_markup_is_shown_as_it_is(
    shell: Shell, command: Callable[[Callable[[], None]], None]
) -> None:
    def refuses() -> None:
        raise HarnessError(HOSTILE)

    command(refuses)
    ended = shell("extra")
    assert (ended.code, ended.err) == (2, "error: \\x1b[2Jno [/red] name\\r\n")


@pytest.mark.parametrize("arguments", [[HOSTILE], ["run", "emails", "--count", HOSTILE], ["audit", f"/{HOSTILE}"]])
def test_an_argument_with_escape_sequences_is_shown_as_it_is(shell: Shell, arguments: list[str]) -> None:
    ended = shell(*arguments)
    assert ended.code == 2
    assert "\\x1b[2Jno [/red] name\\r" in ended.err
    assert not {ESCAPE, "\r"} & set(ended.err)


def test_a_name_with_escape_sequences_and_markup_is_shown_as_it_is(shell: Shell, folder: RunFolder) -> None:
    folder.write("run.json", {**folder.read("run.json"), "name": HOSTILE, "nodes": ["producer", HOSTILE]})
    ended = shell("audit", str(folder.path))
    assert (ended.code, ended.err) == (3, "")
    assert "\\x1b[2Jno [/red] name\\r" in ended.out
    assert not {ESCAPE, "\r"} & set(ended.out)


def test_the_newest_run_is_audited_unless_another_is_named(shell: Shell, folder: RunFolder) -> None:
    assert shell("audit").code == 0
    assert (folder.path / "audit.json").exists()


def truncate_the_run_file(path: Path) -> None:
    (path / "run.json").write_text('{"name": "pay')


def another_run_file(path: Path) -> None:
    (path / "run.json").write_text("{}")


def a_folder_for_a_file(path: Path) -> None:
    (path / "run.json").mkdir()


@pytest.mark.parametrize("damage", [lambda _: None, truncate_the_run_file, another_run_file, a_folder_for_a_file])
def test_what_is_no_run_folder_exits_with_2_and_is_named(
    shell: Shell, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    damage(tmp_path)
    ended = shell("audit", str(tmp_path))
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("error: ")
    assert str(tmp_path) in ended.err
    assert "run.json" in ended.err
    assert not (tmp_path / "audit.json").exists()


def test_without_any_run_there_is_nothing_to_audit(shell: Shell) -> None:
    ended = shell("audit")
    assert ended.code == 2
    assert ended.err.startswith("error: .harness/runs/latest is no folder.")


def test_the_doctor_names_what_may_cost_the_apps_tasks(shell: Shell, tmp_path: Path) -> None:
    app = 'from celery import Celery\napp = Celery("shop")\n@app.task(name="shop.pay")\ndef pay(): ...\n'
    (tmp_path / "shop.py").write_text(app + "app.conf.broker_transport_options = options()\n")
    lines = shell("doctor", "--app", "shop").out.splitlines()
    assert (
        "note risk task_acks_late: False for shop.pay (not set): a task whose worker dies or is stopped while it runs "
        "is lost. Change: app.conf.task_acks_late = True. Shown by `harness survive: kill-worker at started`."
    ) in lines
    unknown = "nobody knows these before the app runs: broker_transport_options (shop.py:5)"
    assert f"note settings of the app: {unknown}" in lines
    # Nobody asked about an app.
    assert " risk " not in shell("doctor").out


def test_the_doctor_says_that_there_is_no_such_app(shell: Shell, tmp_path: Path) -> None:
    lines = shell("doctor", "--app", "shop.app:celery").out.splitlines()
    wrong = f"no file in {tmp_path} is the module shop.app: correct the app, or name its folder with --app-dir"
    assert f"bad  app: {wrong}" in lines


def test_the_doctor_names_the_file_that_is_no_python_and_does_not_miss_it(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("from celery import Celery\ndef app(:\n")
    out = shell("doctor", "--app", "shop").out
    assert "note app: shop.py was skipped, because it is no valid Python, line 2: " in out
    assert "is the module" not in out
    (tmp_path / "shop.py").write_text("from celery import Celery\n")
    assert "was skipped" not in shell("doctor", "--app", "shop").out


# --------------------------------------------------------------------------------------------- where no engine is


@pytest.mark.parametrize("arguments", [["run", "emails"], ["clean"]])
def test_without_an_engine_one_paragraph_says_what_to_do(shell: Shell, tmp_path: Path, arguments: list[str]) -> None:
    ended = shell(*arguments)
    assert ended.code == 2
    (paragraph,) = ended.err.strip().split("\n")
    assert paragraph.startswith("error: No container engine answers at unix:///nonexistent (from DOCKER_HOST).")
    assert "set DOCKER_HOST" in paragraph
    assert list(tmp_path.iterdir()) == []


def test_the_doctor_marks_what_is_bad_and_says_what_to_do(shell: Shell) -> None:
    ended = shell("doctor")
    assert (ended.code, ended.err) == (2, "")
    marks = {text.split()[1]: (text.split()[0], text) for text in ended.out.splitlines()}
    assert marks["harness:"][0] == "ok"
    mark, text = marks["engine:"]
    assert mark == "bad"
    assert "Is an engine installed and started?" in text


# ------------------------------------------------------------------------------------------- what is said, and how


def test_colours_are_left_out_where_nobody_wants_them(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ESCAPE not in shell("doctor").out
    # Whoever runs the tests may have no terminal, or one that knows no colours.
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert f"{ESCAPE}[32m" in shell("doctor").out
    monkeypatch.setenv("NO_COLOR", "1")
    assert f"{ESCAPE}[3" not in shell("doctor").out


@pytest.mark.parametrize(
    "said",
    ["a[/]b", "[bold]x[/bold]", "[link=x]", "C:\\[x]", "the vhost :lock: is gone", "x" * 500, "two\nlines"],
    ids=["closing tag", "tags", "link", "backslash", "emoji", "long", "lines"],
)
def test_an_error_is_printed_as_it_is(shell: Shell, command: Callable[..., None], said: str) -> None:
    def fails() -> None:
        raise HarnessError(said)

    command(fails)
    ended = shell("extra")
    assert (ended.code, ended.out, ended.err) == (2, "", f"error: {said}\n")


def test_what_nobody_expected_is_one_line_and_never_the_exit_code_of_a_broken_promise(
    shell: Shell, command: Callable[..., None]
) -> None:
    def fails() -> None:
        raise ZeroDivisionError("[red]one\ntwo")

    command(fails)
    ended = shell("extra")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == (
        "error: unexpected, please report it: ZeroDivisionError: [red]one two. "
        "The traceback is shown by: python -X dev -m harness extra\n"
    )


def test_in_the_development_mode_of_python_the_traceback_is_shown_too() -> None:
    code = "from harness.commands.cli import cli, main; cli.command('extra')(lambda: 1 / 0); main()"
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", code, "extra"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: unexpected, please report it: ZeroDivisionError")


def test_an_image_that_cannot_be_removed_is_told_by_its_name(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    client = docker.DockerClient(base_url="tcp://127.0.0.1:1", version="1.41")
    monkeypatch.setattr("harness.commands.clean.connect", lambda: _DockerEngine(client))
    monkeypatch.setattr("harness.commands.clean.sweep", lambda _: [])
    monkeypatch.setattr("harness.containers.images.ours", lambda _: ["celery-harness/node:x"])
    ended = shell("clean", "--images")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("error: The engine did not answer at removing the image celery-harness/node:x")


def test_sigterm_unwinds_everything_and_says_so(shell: Shell, command: Callable[..., None]) -> None:
    unwound: list[bool] = []

    def waits() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            unwound.append(True)

    command(waits)
    ended = shell("extra")
    assert (ended.code, unwound) == (130, [True])
    assert "taken down" in ended.err


PATIENT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from harness.commands.cli import cli, main
from harness.containers.docker_engine import _DockerEngine

@cli.command("extra")
def extra():
    try:
        print("ready", flush=True)
        signal.pause()
    finally:
        print("taking down", flush=True)
        sys.stdin.read()
        open("taken-down", "w").close()

main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_twenty_interrupts_are_one(tmp_path: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PATIENT, "extra"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == "taking down\n"
        for _time in range(19):
            process.send_signal(number)
        _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (130, "\ninterrupted; everything that was started has been taken down.\n")
    assert (tmp_path / "taken-down").exists()


def test_what_went_wrong_first_is_told_first_and_nothing_is_lost(
    shell: Shell, command: Callable[[Callable[[], None]], None]
) -> None:
    def fails() -> None:
        with ExitStack() as closing:
            closing.callback(fail, "then its folder was full")
            closing.callback(fail, "then its log could not be written")
            fail("the disk is full")

    command(fails)
    ended = shell("extra")
    wanted = ["error: the disk is full", "then its log could not be written", "then its folder was full"]
    assert (ended.code, ended.err.splitlines()) == (2, wanted)


def fail(text: str) -> None:
    raise HarnessError(text)


def test_an_interrupt_after_which_something_is_left_says_what(
    shell: Shell, command: Callable[[Callable[[], None]], None]
) -> None:
    def fails() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except BaseException as error:
            with noted_on(error):
                fail("The network n cannot be removed.")
            raise

    command(fails)
    ended = shell("extra")
    assert (ended.code, ended.err) == (
        2,
        "\nerror: interrupted, and not everything could be taken down: The network n cannot be removed.\n",
    )


HANGS = """
import signal, sys
# Whoever runs the tests may have told them to outlive their terminal.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from harness.commands.cli import cli, main
from harness.containers.docker_engine import _DockerEngine

@cli.command("extra")
def extra():
    try:
        print("ready", flush=True)
        signal.pause()
    finally:
        print("taking down", flush=True)
        open("taken-down", "w").close()

main()
"""


def test_when_its_terminal_is_closed_everything_is_taken_down_although_nothing_can_be_said(tmp_path: Path) -> None:
    terminal, side = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", HANGS, "extra"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=side,
        stderr=side,
    )
    os.close(side)
    with process:
        assert os.read(terminal, 100).startswith(b"ready")
        os.close(terminal)
        process.send_signal(signal.SIGHUP)
        try:
            assert process.wait(timeout=20) == 130
        finally:
            process.kill()
    assert (tmp_path / "taken-down").exists()


def test_an_interrupt_before_the_command_is_even_there_is_one_sentence(tmp_path: Path) -> None:
    # The module of the command is one that interrupts whoever imports it.
    code = """
import os, signal, sys
from harness import __main__

class Interrupts:
    def find_spec(self, name, *_):
        os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupts())
__main__.main()
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr) == (130, "\ninterrupted; nothing had been started.\n")


# ------------------------------------------------------------------------------------------------ the app's own image


def test_a_project_whose_files_are_damaged_is_told_before_an_engine_is_asked(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("-r base.txt\n")
    ended = shell("image")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == (f"error: {tmp_path}/requirements.txt asks for {tmp_path}/base.txt, which is not there.\n")


def test_an_image_is_either_shown_or_built_anew(shell: Shell) -> None:
    ended = shell("image", "--show", "--rebuild")
    assert ended.code == 2
    assert "--show builds nothing, and --rebuild builds: give one of the two." in ended.err


def test_an_image_needs_an_engine(shell: Shell) -> None:
    ended = shell("image", "--show")
    assert ended.code == 2
    assert ended.err.startswith("error: No container engine answers at unix:///nonexistent")
