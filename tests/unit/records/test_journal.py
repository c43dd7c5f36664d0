"""The journal: what is written survives a SIGKILL, and what was not written is missed."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.errors import JournalError
from harness.records.event import Event, Kind
from harness.records.journal import Follower, Tail, Writer, first_fault, read

ROOT = Path(__file__).parents[3]
TIMEOUT_S = 30

# Each child gets the folder as its argument.
CHILD = """
import os, sys
from harness.errors import JournalError
from harness.records.journal import Writer
from harness.records.event import Kind

writer = Writer(sys.argv[1], node="worker-1", role="worker")
"""

FORKS = (
    CHILD
    + """
writer.write(Kind.STARTED, "of-the-parent")
child = os.fork()
writer.write(Kind.STARTED, "of-the-child" if child == 0 else "of-the-parent-again")
if child:
    os.waitpid(child, 0)
"""
)

# It says on its output what it has written, so that nothing it said may be missing afterwards.
STREAMS = (
    CHILD
    + """
for number in range(1_000_000):
    writer.write(Kind.STARTED, f"task-{number}", name="x" * 100)
    os.write(1, b"%d\\n" % number)
"""
)

# A limit on the file's size does what a full disk does: it takes a part of a line, then nothing more.
FILLS_THE_DISK = (
    CHILD
    + """
import resource, signal

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
writer.write(Kind.STARTED, "before")
size = sum(entry.stat().st_size for entry in os.scandir(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 30, resource.RLIM_INFINITY))
for task in ("in-part", "not-at-all"):
    try:
        writer.write(Kind.STARTED, task)
    except JournalError as error:
        print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
writer.write(Kind.STARTED, "after")
"""
)


def start(code: str, folder: Path) -> subprocess.Popen[str]:
    """Start a process with only the standard library (-S) and the harness."""
    command = [sys.executable, "-S", "-c", code, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(ROOT)})


def finish(code: str, folder: Path) -> str:
    with start(code, folder) as process:
        said, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0
    return said


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    writer = Writer(tmp_path, node="worker-1", role="worker")
    yield writer
    writer.close()


def only_file(folder: Path) -> Path:
    (file,) = folder.glob("*.jsonl")
    return file


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in only_file(folder).read_text().splitlines()]


def tasks(events: list[Event]) -> list[str]:
    return [event.task for event in events if event.task is not None]


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def line(n: int, task: str = "a") -> bytes:
    return json.dumps({"n": n, "t": 1.0, "kind": "started", "task": task}).encode() + b"\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Write a journal of two lines, whose name has the node and the pid."""
    path = tmp_path / "worker-1.42.1.jsonl"
    path.write_bytes(line(0) + line(1, "b"))
    return path


def test_nothing_is_made_before_the_first_line(writer: Writer, tmp_path: Path) -> None:
    assert list(tmp_path.iterdir()) == []
    writer.write(Kind.UP)
    assert only_file(tmp_path).name.startswith(f"worker-1.{os.getpid()}.")


def test_each_write_is_one_numbered_line_after_the_one_that_says_who_writes(writer: Writer, tmp_path: Path) -> None:
    writer.write(Kind.UP, argv=["worker"])
    writer.write(Kind.STARTED, "a", name="two\nlines", retries=0)
    opened, up, started = lines(tmp_path)
    times = [entry.pop("t") for entry in (opened, up, started)]
    assert times == sorted(times)
    assert opened == {"n": 0, "kind": "opened", "node": "worker-1", "pid": os.getpid(), "role": "worker", "format": 1}
    assert up == {"n": 1, "kind": "up", "argv": ["worker"]}
    assert started == {"n": 2, "kind": "started", "task": "a", "name": "two\nlines", "retries": 0}


def test_an_event_is_what_was_written(writer: Writer, tmp_path: Path) -> None:
    writer.write(Kind.FINISHED, "ä", state="SUCCESS")
    _, event = read(tmp_path)
    said = (event.kind, event.n, event.node, event.pid, event.task, event.data)
    assert said == (Kind.FINISHED, 1, "worker-1", os.getpid(), "ä", {"state": "SUCCESS"})


def test_a_writer_that_was_closed_goes_on_in_a_new_file(writer: Writer, tmp_path: Path) -> None:
    for task in ("a", "b"):
        writer.write(Kind.STARTED, task)
        writer.close()
    assert len(list(tmp_path.glob("*.jsonl"))) == 2
    assert tasks(list(read(tmp_path))) == ["a", "b"]


def test_a_forked_child_writes_a_file_of_its_own(tmp_path: Path) -> None:
    finish(FORKS, tmp_path)
    tails = [Tail(path) for path in tmp_path.glob("*.jsonl")]
    found = {tuple(tasks(tail.read())) for tail in tails}
    assert found == {("of-the-parent", "of-the-parent-again"), ("of-the-child",)}
    assert [tail.missing for tail in tails] == [0, 0]


def test_threads_share_a_writer_and_no_number_is_given_twice(writer: Writer, tmp_path: Path) -> None:
    together = threading.Barrier(4)

    def write() -> None:
        together.wait()
        for _ in range(250):
            writer.write(Kind.STARTED, "a", name="x" * 50)

    writer.write(Kind.UP)
    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(entry["n"] for entry in lines(tmp_path)) == list(range(1_002))


def test_sigkill_in_mid_stream_loses_no_line_that_was_written(tmp_path: Path) -> None:
    with start(STREAMS, tmp_path) as process:
        assert process.stdout
        said = [process.stdout.readline() for _ in range(300)]
        process.kill()
        said += process.stdout.readlines()
    assert process.returncode == -signal.SIGKILL
    tail = Tail(only_file(tmp_path))
    found = tasks(tail.read())
    # The last line may have been written and not been said any more.
    assert found[: len(said)] == [f"task-{number}" for number in range(len(said))]
    assert len(found) - len(said) in {0, 1}
    assert (tail.damaged, tail.missing, tail.torn) == (0, 0, False)


def test_a_line_that_a_full_disk_cut_off_does_not_spoil_the_next(tmp_path: Path) -> None:
    in_part, not_at_all = finish(FILLS_THE_DISK, tmp_path).splitlines()
    assert in_part.startswith("only 30 of ")
    assert "disk full?" in in_part
    assert not_at_all.startswith("cannot write to the journal of worker-1")
    tail = Tail(only_file(tmp_path))
    assert tasks(tail.read()) == ["before", "after"]
    assert (tail.damaged, tail.missing) == (1, 2)


def test_no_space_at_all_is_a_journal_error_and_leaves_a_gap(
    writer: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.write(Kind.STARTED, "before")
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(writer, "_fd", full)
            with pytest.raises(JournalError, match=os.strerror(errno.ENOSPC)):
                writer.write(Kind.STARTED, "lost")
    finally:
        os.close(full)
    writer.write(Kind.STARTED, "after")
    tail = Tail(only_file(tmp_path))
    assert tasks(tail.read()) == ["before", "after"]
    assert (tail.damaged, tail.missing) == (0, 1)


def test_a_folder_that_is_gone_is_a_journal_error(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="cannot open the journal"):
        Writer(tmp_path / "nowhere", node="worker-1", role="worker").write(Kind.UP)


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1, 2},
        b"bytes",
        float("nan"),
        pytest.param(nested(100_000), id="nested"),
        pytest.param(10**5_000, id="whole number"),
    ],
)
def test_a_value_that_is_not_json_is_a_journal_error_and_takes_no_number(
    writer: Writer, tmp_path: Path, value: object
) -> None:
    with pytest.raises(JournalError, match="worker-1 cannot say 'settings'"):
        writer.write(Kind.SETTINGS, value=value)
    writer.write(Kind.READY)
    tail = Tail(only_file(tmp_path))
    assert [event.kind for event in tail.read()] == [Kind.OPENED, Kind.READY]
    assert (tail.damaged, tail.missing) == (0, 0)


def test_a_tail_returns_each_event_once(file: Path) -> None:
    tail = Tail(file)
    assert tasks(tail.read()) == ["a", "b"]
    assert tail.read() == []
    file.write_bytes(file.read_bytes() + line(2, "c"))
    assert tasks(tail.read()) == ["c"]
    assert (tail.damaged, tail.missing, tail.torn) == (0, 0, False)


def test_without_its_first_line_a_file_says_by_its_name_who_wrote_it(file: Path) -> None:
    event, _ = Tail(file).read()
    assert (event.node, event.pid) == ("worker-1", 42)


def test_a_torn_last_line_is_tolerated_and_read_when_it_is_whole(file: Path) -> None:
    whole, last = file.read_bytes(), line(2, "c")
    file.write_bytes(whole + last[:20])
    tail = Tail(file)
    assert tasks(tail.read()) == ["a", "b"]
    assert (tail.torn, tail.damaged, tail.missing) == (True, 0, 0)
    file.write_bytes(whole + last)
    assert tasks(tail.read()) == ["c"]
    assert not tail.torn


@pytest.mark.parametrize(
    "damage",
    [
        b"\xff\x00 no text\n",
        b'{"n": 2, "t": 1.0, "kind": "star\n',
        b"[2]\n",
        b"null\n",
        b'{"t": 1.0, "kind": "started"}\n',
        b'{"n": 2, "t": 1.0, "kind": "exploded"}\n',
        b'{"n": 2, "t": 1.0, "kind": ["started"], "task": "a"}\n',
        b'{"n": 2, "t": NaN, "kind": "started", "task": "a"}\n',
        b'{"n": 2, "t": 1e999, "kind": "started", "task": "a"}\n',
        b'{"n": 2, "t": "soon", "kind": "started", "task": "a"}\n',
        b'{"n": Infinity, "t": 1.0, "kind": "started", "task": "a"}\n',
        b'{"n": 2.0, "t": 1.0, "kind": "started", "task": "a"}\n',
        b'{"n": -2, "t": 1.0, "kind": "started", "task": "a"}\n',
        b'{"n": true, "t": 1.0, "kind": "started", "task": "a"}\n',
        b'{"n": 2, "t": 1.0, "kind": "started"}\n',
        b'{"n": 2, "t": 1.0, "kind": "started", "task": ["a"]}\n',
        b'{"n": 2, "t": 1.0, "kind": "finished", "task": "a"}\n',
        b'{"n": 2, "t": 1.0, "kind": "intended", "task": "a", "entry": {}}\n',
        b'{"n": 2, "t": 1.0, "kind": "intended", "task": "a", "expect": 5}\n',
        b'{"n": 0, "t": 1.0, "kind": "opened"}\n',
        b'{"n": 2, "t": 1.0, "kind": "opened", "node": "late"}\n',
        b'{"n": 0, "t": 1.0, "kind": "opened", "node": "newer", "format": 2}\n',
        pytest.param(
            b'{"n": 2, "t": 1.0, "kind": "started", "task": "a", "deep": ' + b"[" * 50_000 + b"]" * 50_000 + b"}\n",
            id="nested",
        ),
    ],
)
def test_a_damaged_line_is_counted_passed_over_and_missed(file: Path, damage: bytes) -> None:
    file.write_bytes(file.read_bytes() + damage + line(3, "d"))
    tail = Tail(file)
    assert tasks(tail.read()) == ["a", "b", "d"]
    assert (tail.damaged, tail.missing) == (1, 1)


def test_a_gap_in_the_numbers_is_counted(file: Path) -> None:
    file.write_bytes(file.read_bytes() + line(5))
    tail = Tail(file)
    assert len(tail.read()) == 3
    assert tail.missing == 3


def test_a_number_that_comes_twice_does_not_stand_in_for_one_that_is_missing(file: Path) -> None:
    file.write_bytes(file.read_bytes() + line(1, "again") + line(3, "d"))
    tail = Tail(file)
    assert tasks(tail.read()) == ["a", "b", "d"]
    assert (tail.damaged, tail.missing) == (1, 1)


@pytest.mark.parametrize("what", ["pipe", "device", "folder"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, what: str) -> None:
    path = tmp_path / "worker-1.1.1.jsonl"
    if what == "pipe":
        os.mkfifo(path)
    elif what == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(OSError, match=r"no regular file|Is a directory"):
        Tail(path).read()


def test_lone_surrogates_come_back_as_they_were_written(writer: Writer, tmp_path: Path) -> None:
    writer.write(Kind.FINISHED, "a", state="IGNORED", error="caf\udce9.csv")
    _, event = read(tmp_path)
    assert event.data["error"] == "caf\udce9.csv"


def test_lines_that_threads_wrote_out_of_order_are_no_gap(file: Path) -> None:
    file.write_bytes(file.read_bytes() + line(3) + line(2))
    tail = Tail(file)
    assert len(tail.read()) == 4
    assert tail.missing == 0


def test_a_follower_sees_files_that_appear_later(file: Path) -> None:
    follower = Follower(file.parent)
    assert tasks(follower.read()) == ["a", "b"]
    file.with_name("worker-2.7.1.jsonl").write_bytes(line(0, "c"))
    file.write_bytes(file.read_bytes() + line(2, "d"))
    assert sorted(tasks(follower.read())) == ["c", "d"]
    assert follower.read() == []


@pytest.mark.parametrize("n", [3, 200_003])
def test_the_first_number_that_no_line_has_is_found_however_many_are_missing(file: Path, n: int) -> None:
    file.write_bytes(b'{"n": 0, "t": 1.0, "kind": "opened", "node": "a"}\n' + line(1) + line(n))
    assert first_fault(file) == (3, "no line has the number 2")
