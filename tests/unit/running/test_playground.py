"""The playground's state file: who may bring something up, and who may end it. No engine answers here."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from harness.containers.ownership import Owner
from harness.errors import RunFolderError, StartError, UsageError
from harness.running import playground
from harness.running.playground import Playground

if TYPE_CHECKING:
    from harness.stack.stack import Stack

HERE = Playground(owner=str(Owner.here()), app="shop.app")
DEAD = replace(Owner.here(), pid=2**22 + 1)
ELSEWHERE = replace(Owner.here(), place="another.1")

Write = Callable[[str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Return a function that writes the state file of the current folder, which is the test's own."""
    monkeypatch.chdir(tmp_path)
    playground.STATE.parent.mkdir()
    return lambda text: cast("None", playground.STATE.write_text(text))


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Return a list of the processes and the signals that they were sent; none of the signals arrives."""
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    return sent


def test_where_nothing_was_brought_up_there_is_nothing(write: Write) -> None:
    del write
    assert playground.read() is None
    assert playground.down() is None


def test_what_is_up_is_read_as_it_was_written(write: Write) -> None:
    ground = replace(HERE, folder="/runs/1", nodes=["broker", "web"])
    write(json.dumps(asdict(ground)))
    assert playground.read() == ground


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"owner": "a/b/1/2.0", "app": "shop.app", "colour": "red"}',
        '{"owner": "a/b/1/2.0"}',
        '{"owner": 5, "app": "shop.app"}',
        '{"owner": "nobody", "app": "shop.app"}',
        '{"owner": "a/b/1/2.0", "app": "shop.app", "nodes": "broker"}',
        '{"owner": "a/b/1/2.0", "app": "shop.app", "folder": null}',
    ],
)
def test_a_damaged_state_file_is_told_with_what_to_do(write: Write, signals: list[tuple[int, int]], text: str) -> None:
    write(text)
    for command in (playground.read, playground.down, playground.refuse_a_second):
        with pytest.raises(RunFolderError, match=r"up\.json is not what `harness up` writes: .*\. Remove it\."):
            command()
    assert signals == []


@pytest.mark.parametrize("folder", ["", "/runs/1"], ids=["coming up", "up"])
def test_a_second_is_refused_while_the_first_lives(write: Write, folder: str) -> None:
    write(json.dumps(asdict(replace(HERE, folder=folder))))
    with pytest.raises(UsageError, match="`harness down` ends it"):
        playground.refuse_a_second()
    write(json.dumps(asdict(replace(HERE, folder=folder, owner=str(DEAD)))))
    playground.refuse_a_second()


def test_what_another_machine_brought_up_is_not_ended_by_its_process_number(
    write: Write, signals: list[tuple[int, int]]
) -> None:
    write(json.dumps(asdict(replace(HERE, owner=str(ELSEWHERE)))))
    with pytest.raises(UsageError, match="another machine or container"):
        playground.down()
    assert signals == []
    assert playground.STATE.exists()


def test_what_another_user_brought_up_is_theirs_to_end(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refused)
    write(json.dumps(asdict(HERE)))
    with pytest.raises(UsageError, match="another user"):
        playground.down()


CLAIM = """
import sys
from harness.running import playground
with playground.claimed("shop.app"):
    print("claimed", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(write: Write) -> Iterator[subprocess.Popen[str]]:
    """Another process, which is bringing something up in this folder."""
    del write
    root = str(Path(__file__).parents[3])
    process = subprocess.Popen(
        [sys.executable, "-c", CLAIM],
        env={**os.environ, "PYTHONPATH": root},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "claimed\n"
        yield process
        process.kill()


def test_from_its_very_start_a_stack_is_known_and_can_be_taken_down(other: "subprocess.Popen[str]") -> None:
    ground = playground.read()
    assert ground is not None
    assert (ground.process.pid, ground.is_complete) == (other.pid, False)
    with pytest.raises(UsageError, match="is being brought up: `harness down` ends it"):
        playground.refuse_a_second()


def test_of_two_that_begin_at_once_one_is_refused(
    other: "subprocess.Popen[str]", monkeypatch: pytest.MonkeyPatch
) -> None:
    # Both have looked before either of them has written.
    monkeypatch.setattr(playground, "read", lambda: None)
    before = playground.STATE.read_text()
    with pytest.raises(UsageError, match="another process is bringing up"), playground.claimed("shop.app"):
        pytest.fail("both came up")
    assert playground.STATE.read_text() == before
    assert other.poll() is None


def test_who_was_killed_is_in_nobodys_way(other: "subprocess.Popen[str]") -> None:
    other.send_signal(signal.SIGKILL)
    other.wait()
    with playground.claimed("shop.app"):
        ground = playground.read()
        assert ground is not None
        assert ground.process.pid == os.getpid()
    assert playground.read() is None


def test_what_it_leaves_is_no_concern_of_version_control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with playground.claimed("shop.app"):
        assert Path(".harness/.gitignore").read_text() == "*\n"


def test_the_administrators_password_is_the_callers_alone_and_goes_with_the_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.touch(0o666)
    with playground.claimed("shop.app"):
        playground.SECRET.symlink_to(elsewhere)
        before = os.umask(0)
        playground.keep_secret("harness", "s3cret")
        os.umask(before)
        assert stat.S_IMODE(playground.SECRET.lstat().st_mode) == 0o600
        assert json.loads(playground.SECRET.read_text()) == {"user": "harness", "password": "s3cret"}
        assert elsewhere.read_text() == ""
        assert "s3cret" not in playground.STATE.read_text()
    assert not playground.SECRET.exists()


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".harness").write_text("")
    with pytest.raises(RunFolderError, match=r"cannot write|is not what"), playground.claimed("shop.app"):
        pytest.fail("it was claimed")
    with pytest.raises(RunFolderError, match=r"cannot write|is not what"):
        playground.detach([], print)


def test_a_package_of_the_users_own_that_is_called_harness_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    (tmp_path / "harness").mkdir()
    (tmp_path / "harness" / "__init__.py").write_text("")
    told: list[str] = []
    with pytest.raises(StartError, match="did not come up"):
        playground.detach(["shop.app"], told.append)
    # Its last words are there too, however soon after them it ended.
    assert "No container engine answers" in "\n".join(told)


class Ends:
    """A node that runs until it is looked at for the second time."""

    def __init__(self, name: str) -> None:
        """Set the name."""
        self.name = name
        self._looks = 0

    def is_up(self) -> bool:
        self._looks += 1
        return self._looks < 2

    def last_lines(self, count: int) -> str:
        return f"the last {count} lines"


def test_each_node_that_ends_is_told_once_the_broker_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def three_times(look: Callable[[], Any], **_: object) -> None:
        for _time in range(3):
            look()

    monkeypatch.setattr(playground, "wait_until", three_times)
    told: list[str] = []
    workers = [Ends("worker-1")]
    stack = SimpleNamespace(broker=Ends("broker"), nodes=lambda: workers)
    playground.watch(cast("Stack", stack), told.append)
    assert told == [f"{name} is down. Its last words: the last 3 lines" for name in ("broker", "worker-1")]


def test_a_usual_port_that_another_program_has_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as other:
        free = other.getsockname()[1]
        other.close()
        monkeypatch.setattr(playground, "_USUAL_PORTS", (taken.getsockname()[1], free))
        said: list[str] = []
        assert list(playground._usual_ports(said.append)) == [0, free]  # noqa: SLF001 - a whole stack would be started.
        assert said == [f"port {taken.getsockname()[1]} is in use, so that another one is taken"]
