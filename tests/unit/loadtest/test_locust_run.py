"""Locust's command, from its first event to its exit code, with a stack process and a generator that do nothing.

Each is a process of its own: what has imported docker cannot import Locust.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import junitparser
import psutil
import pytest

from harness.wait import wait_until

ROOT = Path(__file__).parents[3]
TIMEOUT_S = 60

BEFORE = """
import sys
from pathlib import Path
import gevent
from locust import LoadTestShape, events, tag
from harness.load import Load
from harness.loadtest import locust_run, stack_order
from harness.loadtest.messages import Close, Closed, Done, Open, Opened
from harness.loadtest.worker_messages import Offer
from harness.records.check import Check
from harness.records.verdict import Verdict
from harness.scenario import Scenario

OPENS_IN_S, CODE, CHECKS = 0.2, 0, ()

class StackProcess:
    def __init__(self, **_):
        self.is_up = False
    def ask(self, order, answer):
        if isinstance(order, Open):
            gevent.sleep(OPENS_IN_S)
            self.is_up = True
            return Opened(folder=Path("/no/such"), broker_url="", web_url=None)
        if isinstance(order, Close):
            assert self.is_up
            return Closed(exit_code=CODE, report="the report\\n", left=None, folder=Path("/no/such"), checks=CHECKS)
        return Done()
    def order(self, order):
        return 1
    def end(self):
        return True

class LoadProcesses:
    def __init__(self, generator):
        pass
    def go(self, go):
        print("goes:", *sorted(name for name, _ in go.scenarios), file=sys.stderr)
    def freeze(self):
        return [Offer()]
    def close(self):
        pass

class Nothing(Scenario):
    name, app = "nothing", "nowhere"

locust_run.StackClient, locust_run.OneProcess = StackProcess, LoadProcesses
stack_order.module_of = lambda scenario: "nowhere"

class Mails(Load):
    scenario = Nothing()
"""


@dataclass
class Ended:
    """What a command left."""

    code: int
    out: str
    err: str


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start `locust` on a locustfile that ends with some lines."""
    started: list[subprocess.Popen[str]] = []

    def begin(lines: str, *options: str) -> "subprocess.Popen[str]":
        file = tmp_path / f"locustfile_{len(started)}.py"
        file.write_text(BEFORE + lines)
        process = subprocess.Popen(
            [sys.executable, "-m", "locust", "-f", str(file), *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def is_served(port: int) -> bool:
    """Return whether somebody listens at a port of this machine.

    Nobody connects to it for that: a connection may get the port itself as its own, and then takes it from the server.
    """
    return any(
        one.status == psutil.CONN_LISTEN and one.laddr[1:] == (port,) for one in psutil.net_connections(kind="tcp4")
    )


def ended(process: "subprocess.Popen[str]") -> Ended:
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert "Traceback" not in err, err
    return Ended(process.returncode, out, err)


def shape(*ticks: str) -> str:
    """Return a load shape that returns the next of some ticks whenever Locust asks, once a second."""
    return f"""
TICKS = iter([{", ".join(ticks)}])
class Shape(LoadTestShape):
    def tick(self):
        return next(TICKS, None)
"""


HEADLESS = ("--headless", "-t", "1s")
STOPPED = "There is no account of a run (exit code 2): it was stopped while its stack came up, so nothing was sent."
NOTHING_RAN = "There is no account of a run (exit code 2): none was begun, so nothing was sent."
AT_ONCE = "events.test_start.add_listener(lambda environment, **_: environment.runner.quit())"
SOON = """
OPENS_IN_S = 30
@events.test_start.add_listener
def quits_soon(environment, **_):
    gevent.spawn_later(0.5, environment.runner.quit)
"""


@pytest.mark.parametrize("code", [0, 3])
def test_a_run_ends_with_what_its_account_says(start: Start, code: int) -> None:
    done = ended(start(f"CODE = {code}", *HEADLESS))
    assert (done.code, done.out) == (code, "the report\n"), done.err
    assert done.err.count("goes: Mails") == 1


def test_users_may_come_and_go_while_the_stack_comes_up(start: Start) -> None:
    done = ended(start("OPENS_IN_S = 2.5" + shape("(1, 1)", "(2, 1)", "(1, 1)", "(1, 1)"), "--headless"))
    assert (done.code, done.out) == (0, "the report\n"), done.err
    assert done.err.count("goes: Mails") == 1


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (shape(), NOTHING_RAN),
        ("OPENS_IN_S = 30" + shape("(1, 1)"), STOPPED),
        ("OPENS_IN_S = 30" + shape("(1, 1)", "(2, 1)"), STOPPED),
        (AT_ONCE, NOTHING_RAN),
        (SOON, STOPPED),
    ],
)
def test_without_an_account_it_never_ends_with_0(start: Start, lines: str, said: str) -> None:
    done = ended(start(lines, "--headless", "-t", "9s"))
    assert (done.code, done.out) == (2, f"{said}\n"), done.err


@pytest.mark.parametrize(("code", "sets", "expected"), [(3, 0, 3), (0, 1, 1), (0, 0, 0), (3, 7, 7)])
def test_a_listener_can_make_the_exit_code_worse_and_not_better(
    start: Start, code: int, sets: int, expected: int
) -> None:
    listener = f"""
CODE = {code}
@events.quitting.add_listener
def quitting(environment, **_):
    environment.process_exit_code = {sets}
"""
    done = ended(start(listener, *HEADLESS))
    assert (done.code, done.out) == (expected, "the report\n"), done.err
    assert (f"a listener set the exit code to {sets}; by the account it is {code}" in done.err) == (sets != expected)


def test_a_listener_cannot_make_a_run_that_broke_off_a_pass(start: Start) -> None:
    listener = """
@events.quitting.add_listener
def quitting(environment, **_):
    environment.process_exit_code = 0
"""
    assert ended(start(shape() + listener, "--headless")).code == 2


def test_on_the_page_a_run_that_starts_and_quits_by_itself_is_accounted_for(start: Start, unused_port: int) -> None:
    done = ended(start("CODE = 3", "--autostart", "--autoquit", "0", "-t", "1s", "--web-port", str(unused_port)))
    assert (done.code, done.out) == (3, "the report\n"), done.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 2), (signal.SIGINT, 130)])
def test_a_page_that_was_never_used_shows_nothing(start: Start, unused_port: int, number: int, code: int) -> None:
    lines = "events.init.add_listener(lambda web_ui, **_: gevent.spawn_later(0.5, print, 'served', flush=True))"
    process = start(lines, "--web-port", str(unused_port))
    assert process.stdout is not None
    assert process.stdout.readline() == "served\n"
    # Before it listens, Locust's own server is a traceback at the end.
    wait_until(lambda: is_served(unused_port), what="the page is there", timeout_s=20)
    # While it still prints, Ctrl-C would end the printing and not the waiting.
    wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_SLEEPING, what="it waits", timeout_s=20)
    process.send_signal(number)
    done = ended(process)
    assert (done.code, done.out) == (
        code,
        NOTHING_RAN.replace("2", str(code)) + "\n",
    )


def test_load_processes_that_do_not_come_are_a_wrong_use(start: Start, unused_port: int) -> None:
    given = ("--master", "--master-bind-port", str(unused_port), "--expect-workers", "2")
    done = ended(start("", *HEADLESS, *given, "--expect-workers-max-wait", "1"))
    assert done.code == 2, done.err
    assert "0 of 2 load processes have connected: start the others in time, or wait longer." in done.err


def test_with_json_the_standard_output_holds_the_json_alone(start: Start) -> None:
    done = ended(start("", *HEADLESS, "--json"))
    assert done.code == 0
    assert json.loads(done.out) == []
    assert done.err.endswith("the report\n")
    broken_off = ended(start(shape(), "--headless", "--json"))
    assert json.loads(broken_off.out) == []
    assert broken_off.err.endswith(f"{NOTHING_RAN}\n")


TAGGED = """
@tag("late")
class Reminders(Load):
    scenario = Nothing()
class Others(Reminders):
    scenario = Nothing()
Mails = tag("mail", "quick")(Mails)
Others = tag("other")(Others)
"""


@pytest.mark.parametrize(
    ("options", "classes"),
    [
        ((), "Mails Others Reminders"),
        (("--tags", "mail"), "Mails"),
        (("--tags", "other", "quick"), "Mails Others"),
        (("--exclude-tags", "mail"), "Others Reminders"),
        (("--tags", "late", "--exclude-tags", "other"), "Reminders"),
    ],
)
def test_tags_count_for_each_class(start: Start, options: tuple[str, ...], classes: str) -> None:
    done = ended(start(TAGGED, *HEADLESS, *options))
    assert done.code == 0, done.err
    assert f"goes: {classes}\n" in done.err
    assert "had no tasks left" not in done.err


@pytest.mark.parametrize("options", [("--tags", "none"), ("--exclude-tags", "mail", "late")])
def test_tags_that_leave_no_class_are_a_wrong_use(start: Start, options: tuple[str, ...]) -> None:
    done = ended(start(TAGGED, *HEADLESS, *options))
    assert done.code == 2
    assert (
        "error: --tags and --exclude-tags leave no class of the locustfile: give tags that one of them has." in done.err
    )


def junit(path: Path) -> dict[str, str]:
    """Return what became of each check that did not pass, and of the load test as a whole."""
    (suite,) = junitparser.JUnitXml.fromfile(str(path))
    assert suite.name == "load.nothing"
    return {case.name: " ".join(type(one).__name__ for one in case.result) for case in suite}


def test_the_checks_of_a_run_are_junit_too(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "junit.xml"
    lines = """
CODE = 1
CHECKS = (
    Check(name="every task is accounted for", verdict=Verdict.PASS),
    Check(name="the load test passes", verdict=Verdict.FAIL, text="an objective was missed."),
)
"""
    done = ended(start(lines, *HEADLESS, "--junit", str(file)))
    assert done.code == 1, done.err
    assert junit(file) == {"every task is accounted for": "", "the load test passes": "Failure"}


def test_a_load_test_without_an_account_has_an_error_in_junit(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "junit.xml"
    done = ended(start(shape(), "--headless", "--junit", str(file)))
    assert (done.code, junit(file)) == (2, {"the run comes to its end": "Error"})


def test_a_junit_file_that_cannot_be_written_ends_a_load_test_before_it_begins(start: Start, tmp_path: Path) -> None:
    done = ended(start("", *HEADLESS, "--junit", str(tmp_path)))
    assert (done.code, f"error: --junit: {tmp_path} is no file" in done.err) == (2, True)
