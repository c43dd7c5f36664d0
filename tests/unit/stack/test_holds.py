"""Holding tasks: what the harness and a process of a worker say to each other, through the socket between them."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from signal import Signals

import pytest

from harness.errors import UsageError, WaitTimeout
from harness.inside.breakpoints import Breakpoints
from harness.records.moment import SOCKET, Arrival, Moment
from harness.stack.holds import Hold, Holds

SOON_S = 10.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    # Longer than the address of a socket may be.
    folder = tmp_path / ("run" * 40)
    folder.mkdir()
    return folder


@pytest.fixture
def holds(folder: Path) -> Iterator[Holds]:
    holds = Holds(folder)
    yield holds
    holds.close()


@pytest.fixture
def worker(folder: Path) -> Breakpoints:
    return Breakpoints(seen_by_a_node(folder), "worker-1")


def seen_by_a_node(folder: Path) -> Path:
    """Return the short name under which a container sees the run folder."""
    short = folder.with_name("r")
    if not short.is_symlink():
        short.symlink_to(folder)
    return short


def address(folder: Path) -> str:
    return str(seen_by_a_node(folder) / SOCKET)


def going(worker: Breakpoints, task: str, name: str = "pay", moment: Moment = Moment.STORED) -> threading.Thread:
    """Let a task reach a moment, in a thread that ends when it goes on."""
    thread = threading.Thread(target=worker.reach, args=(moment, task, name), daemon=True)
    thread.start()
    return thread


def goes_on(worker: Breakpoints, task: str, name: str = "pay", moment: Moment = Moment.STORED) -> None:
    thread = going(worker, task, name, moment)
    thread.join(SOON_S)
    assert not thread.is_alive(), f"{task} is held"


def check_held(hold: Hold, thread: threading.Thread, task: str) -> None:
    held = hold.wait(SOON_S)
    assert (held.task, held.node, held.moment) == (task, "worker-1", hold.moment)
    assert thread.is_alive()
    assert not hold.is_over


def test_without_a_hold_there_is_no_socket_and_a_task_goes_on(holds: Holds, worker: Breakpoints, folder: Path) -> None:
    goes_on(worker, "t1")
    assert not (folder / SOCKET).exists()
    assert not holds.seen


def test_a_task_is_held_until_it_is_let_go(holds: Holds, worker: Breakpoints) -> None:
    with holds.hold("pay", Moment.STORED) as hold:
        thread = going(worker, "t1")
        check_held(hold, thread, "t1")
    thread.join(SOON_S)
    assert not thread.is_alive()
    assert hold.is_over


def test_only_the_task_that_is_meant_is_held(holds: Holds, worker: Breakpoints) -> None:
    hold = holds.hold("pay", Moment.STORED, task="t3")
    goes_on(worker, "t1")
    goes_on(worker, "t3", moment=Moment.STARTED)
    goes_on(worker, "t3", name="refund")
    thread = going(worker, "t3")
    check_held(hold, thread, "t3")
    goes_on(worker, "t3")
    hold.let_go()
    thread.join(SOON_S)
    assert not thread.is_alive()


def test_the_nth_task_is_held_of_those_that_reach_the_moment(holds: Holds, worker: Breakpoints) -> None:
    hold = holds.hold(None, Moment.STORED, nth=3)
    goes_on(worker, "t1")
    goes_on(worker, "t2", moment=Moment.STARTED)
    goes_on(worker, "t2")
    check_held(hold, going(worker, "t3"), "t3")
    goes_on(worker, "t4")


def test_two_holds_take_one_task_each(holds: Holds, worker: Breakpoints) -> None:
    first, second = (holds.hold("pay", Moment.STORED) for _ in range(2))
    one = going(worker, "t1")
    check_held(first, one, "t1")
    two = going(worker, "t2")
    check_held(second, two, "t2")
    holds.let_all_go()
    for thread in (one, two):
        thread.join(SOON_S)
        assert not thread.is_alive()
    goes_on(worker, "t3")


def test_a_hold_that_was_let_go_holds_no_later_task(holds: Holds, worker: Breakpoints) -> None:
    hold = holds.hold("pay", Moment.STORED)
    hold.let_go()
    hold.let_go()
    goes_on(worker, "t1")
    assert hold.held is None


def test_when_the_harness_stops_every_task_goes_on(holds: Holds, worker: Breakpoints, folder: Path) -> None:
    hold = holds.hold("pay", Moment.STORED)
    thread = going(worker, "t1")
    check_held(hold, thread, "t1")
    holds.close()
    thread.join(SOON_S)
    assert not thread.is_alive()
    assert not (folder / SOCKET).exists()
    goes_on(worker, "t2")


def test_a_process_that_dies_is_held_no_more(holds: Holds, folder: Path) -> None:
    hold = holds.hold("pay", Moment.STORED)
    arrival = Arrival(moment=Moment.STORED, task="t1", name="pay", node="worker-1", pid=7)
    with socket.socket(socket.AF_UNIX) as process:
        process.connect(address(folder))
        process.sendall(arrival.to_line().encode())
        assert hold.wait(SOON_S) == arrival
    with holds.changed:
        assert holds.changed.wait_for(lambda: hold.is_over, SOON_S)


def test_the_process_of_a_held_task_can_be_killed_at_that_moment(holds: Holds, folder: Path) -> None:
    hold = holds.hold("pay", Moment.STORED)
    with pytest.raises(UsageError, match="holds no task"):
        hold.kill()
    script = "import sys, pathlib; from harness.inside.breakpoints import *; "
    script += "Breakpoints(pathlib.Path(sys.argv[1]), 'worker-1').reach(Moment.STORED, 't1', 'pay'); print('went on')"
    command = [sys.executable, "-c", script, str(seen_by_a_node(folder))]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert hold.wait(60).pid == process.pid
        hold.kill(Signals.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (-Signals.SIGTERM, b"")
    with pytest.raises(UsageError, match="holds no task"):
        hold.kill()


def sending(holds: Holds, task: str) -> threading.Thread:
    """Let this process publish a task, in a thread that ends when the task goes on."""
    thread = threading.Thread(target=holds.reach, args=(Moment.PUBLISHED, task, "pay"), daemon=True)
    thread.start()
    return thread


def test_what_another_thread_of_this_process_sends_is_held_and_cannot_be_killed(holds: Holds) -> None:
    with holds.hold("pay", Moment.PUBLISHED) as hold:
        thread = sending(holds, "t1")
        held = hold.wait(SOON_S)
        assert (held.task, held.node, held.moment) == ("t1", "producer", Moment.PUBLISHED)
        with pytest.raises(UsageError, match=r"which would die with its tests: let_go\(\) lets it go on"):
            hold.kill()
        assert thread.is_alive()
    thread.join(SOON_S)
    assert not thread.is_alive()


def test_the_thread_that_asks_for_a_hold_is_not_held_and_it_is_said_if_nobody_else_comes(holds: Holds) -> None:
    hold = holds.hold("pay", Moment.PUBLISHED)
    holds.reach(Moment.STORED, "t0", "pay")
    with pytest.raises(WaitTimeout, match=r"so far: 1 x pay at stored\.$"):
        hold.wait(0)
    holds.reach(Moment.PUBLISHED, "t1", "pay")
    with pytest.raises(WaitTimeout, match="is not held itself: let another thread send the task"):
        hold.wait(0)
    thread = sending(holds, "t2")
    assert hold.wait(SOON_S).task == "t2"
    holds.let_all_go()
    thread.join(SOON_S)
    assert not thread.is_alive()


def test_where_nobody_holds_this_process_counts_nothing(holds: Holds) -> None:
    holds.reach(Moment.SENDING, "t1", "pay")
    assert not holds.seen


def test_a_process_that_dies_while_it_tells_is_not_held(holds: Holds, folder: Path, worker: Breakpoints) -> None:
    hold = holds.hold(None, Moment.STORED)
    with socket.socket(socket.AF_UNIX) as process:
        process.connect(address(folder))
        process.sendall(b'{"moment": "stored", "task"')
    check_held(hold, going(worker, "t1"), "t1")


def test_a_task_that_does_not_come_is_an_error_that_names_what_came(holds: Holds, worker: Breakpoints) -> None:
    hold = holds.hold("pay", Moment.STORED, task="t1")
    with pytest.raises(WaitTimeout, match="pay t1 has not reached 'stored' within 0 s; no task has reached any moment"):
        hold.wait(0)
    goes_on(worker, "t2", name="refund", moment=Moment.STARTED)
    with pytest.raises(WaitTimeout, match="so far: 1 x refund at started"):
        hold.wait(0)


def test_a_wrong_use_is_said(holds: Holds, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nth is 0"):
        holds.hold("pay", Moment.STORED, nth=0)
    with pytest.raises(UsageError, match="no task can be held"):
        Holds(tmp_path / "absent").hold("pay", Moment.STORED)
    with pytest.raises(ValueError, match="storred"):
        Moment("storred")
