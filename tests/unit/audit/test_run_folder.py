"""The run folder: new for each run, and its files whole or absent."""

import errno
import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from harness.audit import run_folder as module
from harness.audit.run_folder import RunFolder, own_command
from harness.errors import RunFolderError


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "runs", "emails")


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no second pass."""

    class Noon(datetime):
        @classmethod
        def now(cls, tz: object = None) -> "Noon":
            assert tz is UTC
            return cls(2026, 1, 2, 12, 0, 0, tzinfo=UTC)

    monkeypatch.setattr(module, "datetime", Noon)


@pytest.mark.usefixtures("frozen")
def test_runs_of_one_name_in_one_second_have_folders_of_their_own(tmp_path: Path) -> None:
    names = [RunFolder.create(tmp_path, "emails").path.name for _ in range(3)]
    assert names == [f"20260102T120000-emails{number}" for number in ("", "-2", "-3")]
    assert (tmp_path / "latest").resolve().name == names[-1]


def test_a_new_folder_has_room_for_every_witness(folder: RunFolder) -> None:
    assert {path.name for path in folder.path.iterdir()} == {"journal", "effects", "logs", "control", "app"}
    assert folder.journal.is_dir()
    assert folder.effects.is_dir()
    assert folder.logs.is_dir()
    assert not folder.results.exists()


@pytest.mark.parametrize("root", [".harness/runs", ".harness"])
def test_the_harness_own_folder_ignores_itself(tmp_path: Path, root: str) -> None:
    RunFolder.create(tmp_path / root, "emails")
    assert (tmp_path / ".harness" / ".gitignore").read_text() == "*\n"
    git = ["git", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "--quiet"], check=True)
    seen = subprocess.run([*git, "status", "--porcelain"], check=True, capture_output=True, text=True)
    assert seen.stdout == ""


def test_a_gitignore_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    own = tmp_path / ".harness" / ".gitignore"
    own.parent.mkdir()
    own.write_text("")
    RunFolder.create(tmp_path / ".harness" / "runs", "emails")
    assert own.read_text() == ""


def test_a_folder_of_the_users_own_is_not_hidden_from_version_control(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "mine" / "runs", "emails")
    assert list(tmp_path.rglob(".gitignore")) == []


def test_latest_is_opened_as_the_run_that_it_points_to(folder: RunFolder) -> None:
    folder.write("run.json", {})
    assert RunFolder.open(folder.path.parent / "latest") == folder


def test_where_no_folder_can_be_made_an_error_says_so(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(RunFolderError, match=f"cannot make a run folder under {file}"):
        RunFolder.create(file, "emails")


def test_what_was_written_is_read_even_what_is_no_text(folder: RunFolder) -> None:
    # An argument of the command line that is no text is a lone surrogate in Python.
    value = {"name": "Smörgås", "command": "harness run \udcff"}
    folder.write("run.json", value)
    assert folder.read("run.json") == value
    assert "Smörgås".encode() in (folder.path / "run.json").read_bytes()


def test_a_file_is_replaced_whole_or_not_at_all(folder: RunFolder) -> None:
    folder.write("run.json", {"name": "first"})
    with pytest.raises(TypeError):
        folder.write("run.json", {"name": "second", "value": object()})
    folder.write("broker.json", {})
    assert folder.read("run.json") == {"name": "first"}
    assert {path.name for path in folder.path.iterdir() if path.is_file()} == {"run.json", "broker.json"}


def test_what_cannot_be_written_is_an_error_that_names_it(folder: RunFolder) -> None:
    with pytest.raises(RunFolderError, match=r"cannot write .*/journal"):
        folder.write("journal", {})


def test_lines_are_written_one_by_one_even_what_is_no_text_and_the_next_time_anew(folder: RunFolder) -> None:
    written = [{"key": "Smörgås \udcff"}, {"key": "two\nlines"}]
    for values in (iter([{"key": "old"}] * 3), iter(written)):
        folder.write_lines("effects/seen.jsonl", values)
    text = (folder.effects / "seen.jsonl").read_text()
    assert [json.loads(line) for line in text.splitlines()] == written
    folder.write_lines("effects/seen.jsonl", [])
    assert (folder.effects / "seen.jsonl").read_text() == ""


def test_lines_that_cannot_be_written_are_an_error_that_names_the_file(folder: RunFolder) -> None:
    with pytest.raises(RunFolderError, match=r"cannot write .*/effects"):
        folder.write_lines("effects", [])


@pytest.mark.parametrize("text", ["", "{", "\xff", "[]", "null"])
def test_a_file_that_holds_no_json_object_is_an_error_that_names_it(folder: RunFolder, text: str) -> None:
    (folder.path / "broker.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(RunFolderError, match=r"broker\.json"):
        folder.read("broker.json")


@pytest.mark.parametrize("what", ["pipe", "device"])
def test_what_has_no_end_is_no_file_of_a_run(folder: RunFolder, what: str) -> None:
    path = folder.path / "broker.json"
    os.mkfifo(path) if what == "pipe" else path.symlink_to("/dev/zero")
    with pytest.raises(RunFolderError, match=r"cannot read .*broker\.json: .*no regular file"):
        folder.read("broker.json")


def test_a_file_larger_than_any_of_a_run_is_not_read(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LARGEST_BYTES", 20)
    folder.write("broker.json", {"messages": ["a" * 20]})
    with pytest.raises(RunFolderError, match=r"broker\.json: it has more than 20 bytes"):
        folder.read("broker.json")


def test_a_file_nested_too_deep_is_an_error_that_names_it(folder: RunFolder) -> None:
    (folder.path / "broker.json").write_text("[" * 50_000)
    with pytest.raises(RunFolderError, match=r"broker\.json"):
        folder.read("broker.json")


def test_a_missing_file_is_an_error_that_names_it(folder: RunFolder) -> None:
    with pytest.raises(RunFolderError, match=r"cannot read .*broker\.json"):
        folder.read("broker.json")


def test_what_is_no_run_folder_is_refused_with_advice(tmp_path: Path) -> None:
    advice = r"run folder lies under \.harness/runs"
    with pytest.raises(RunFolderError, match=f"has no run.json.*{advice}"):
        RunFolder.open(tmp_path)
    with pytest.raises(RunFolderError, match=f"is no folder.*{advice}"):
        RunFolder.open(tmp_path / "nothing")


def test_a_path_that_the_system_refuses_is_an_error_and_no_crash() -> None:
    with pytest.raises(RunFolderError, match="cannot look into"):
        RunFolder.open(Path("x" * 5_000))


def test_a_damaged_run_file_is_refused(folder: RunFolder) -> None:
    (folder.path / "run.json").write_text(json.dumps({"name": "emails"})[:-5])
    with pytest.raises(RunFolderError, match=r"cannot read .*run\.json"):
        RunFolder.open(folder.path)


def test_a_file_that_cannot_be_written_leaves_nothing_of_itself(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write_lines("effects/seen.jsonl", [1])

    def full(_path: Path, _target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(RunFolderError, match=r"cannot write .*run\.json: \[Errno 28\] No space left"):
        folder.write("run.json", {})
    with pytest.raises(RunFolderError, match=r"cannot write .*seen\.jsonl"):
        folder.write_lines("effects/seen.jsonl", [1, 2])
    assert [path.name for path in folder.path.rglob("*") if path.is_file()] == ["seen.jsonl"]
    assert (folder.effects / "seen.jsonl").read_text() == "1\n"


def test_a_folder_whose_name_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no UTF-8: rename it"):
        RunFolder.create(tmp_path / "odd\udcff", "emails")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["/usr/bin/harness", "run", "emails"], "harness run emails"),
        (["/src/harness/__main__.py", "run", "e mails"], "python -m harness run 'e mails'"),
        (["locust", "--host", "amqp://me:secret@there"], "locust --host 'amqp://me:***@there'"),
    ],
)
def test_the_command_that_made_a_run_can_be_pasted_and_has_no_secret(
    monkeypatch: pytest.MonkeyPatch, argv: list[str], command: str
) -> None:
    monkeypatch.setattr("sys.argv", argv)
    assert own_command() == command
