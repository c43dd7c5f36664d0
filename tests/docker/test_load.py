"""The load door with a real stack: Locust as a user starts it, every way in which it ends, and what it then says."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.records.values import Json
from harness.wait import wait_until

pytestmark = pytest.mark.docker
ROOT = Path(__file__).parents[2]
LOADFILE = "tests/docker/apps/loadfile.py"
UP_S = 180.0
END_S = 180.0
StartedBy = Callable[[int], list[str]]


class Locust:
    """The `locust` command, as it runs."""

    def __init__(self, runs: Path, *options: str, file: str = LOADFILE, **environment: str) -> None:
        """Start it in a process group of its own, as a shell does."""
        self.runs = runs
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "locust", "-f", file, *options, "--runs", str(runs)],
            cwd=ROOT,
            env={**os.environ, "NO_COLOR": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        if self.process.stdout is not None:
            with self.process.stdout as out:
                self.lines.extend(line.rstrip("\n") for line in out)

    @property
    def said(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, pattern: str, times: int = 1) -> None:
        wait_until(
            lambda: len(re.findall(pattern, self.said, re.MULTILINE)) >= times or self.process.poll() is not None,
            what=f"{pattern!r} is said",
            timeout_s=UP_S,
            last_seen=lambda: self.said,
        )
        assert self.process.poll() is None, self.said

    def wait_under_load(self) -> None:
        """Until tasks have ended for a while."""
        self.wait_for(r"\| [1-9]\d+ ended", times=2)

    def end(self) -> int:
        """Its exit code, when it has ended by itself."""
        try:
            code = self.process.wait(timeout=END_S)
        except subprocess.TimeoutExpired:
            pytest.fail(f"it did not end within {END_S:g} s; it said:\n{self.said}")
        self._reader.join(timeout=10)
        return code

    def to_group(self, number: signal.Signals) -> None:
        """Signal the process group, as a terminal does at Ctrl-C."""
        os.killpg(self.process.pid, number)

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    @property
    def stack_process(self) -> psutil.Process:
        (found,) = (one for one in self.children() if "harness.loadtest.stack_process" in one.cmdline())
        return found

    def folders(self) -> list[Path]:
        return sorted(path for path in self.runs.iterdir() if path.name != "latest")

    def account(self) -> dict[str, Json]:
        """Return load.json of the only run, and check that its counts add up."""
        (folder,) = self.folders()
        return read(folder)


def read(folder: Path) -> dict[str, Json]:
    assert "<title>" in (folder / "report.html").read_text()
    said: dict[str, Json] = json.loads((folder / "load.json").read_text())
    said["audit"] = json.loads((folder / "audit.json").read_text())
    counts = said["counts"]
    assert counts["offered"] == counts["sent"] + counts["dropped"] > 0
    assert counts["sent"] == counts["done"] + counts["broken"]
    return said


def check_exact(said: Mapping[str, Any]) -> None:
    """Check that the counts of steps and tasks agree; a step of these scenarios is a task."""
    counts, audit = said["counts"], said["audit"]
    assert counts["sent"] == counts["accepted"] + counts["refused"] + counts["unknown"] == audit["entries"]
    codes = {finding["code"] for finding in audit["findings"]}
    assert not codes & {"offer-differs", "sent-differs", "generator-broken"}, audit["findings"]


def check_passed(locust: Locust, code: int) -> dict[str, Json]:
    """Every task is accounted for. A machine that is busy with other things makes a late generator, and code 3."""
    said = locust.account()
    check_exact(said)
    assert said["audit"]["verdict"] == "pass", said["audit"]["findings"]
    assert said["audit"]["fates"]["ok"] == said["counts"]["sent"]
    assert code == said["exit_code"] == (3 if said["invalid"] else 0), locust.said
    last = locust.said.rstrip().splitlines()[-1]
    assert last.startswith("unknown (exit code 3)" if said["invalid"] else "pass (exit code 0)"), locust.said
    assert "Traceback" not in locust.said
    return said


@pytest.fixture
def unused_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture
def locust(tmp_path: Path) -> Iterator[Callable[..., Locust]]:
    """Yield a function that starts `locust`; kill what still runs at the end."""
    started: list[Locust] = []

    def start(*options: str, **more: str) -> Locust:
        started.append(Locust(tmp_path / f"runs-{len(started)}", *options, **more))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.to_group(signal.SIGKILL)
            one.end()


HEADLESS = ("Echoes", "--headless", "--rate", "40")


def test_a_run_with_a_fault_and_an_objective_ends_by_itself(locust: Callable[..., Locust], tmp_path: Path) -> None:
    table, page = tmp_path / "table", tmp_path / "page.html"
    options = ["--fault", "kill-worker@3s+500ms", "--objective", "e2e:max<1ms", "-t", "9s"]
    run = locust(*HEADLESS, *options, "--csv", str(table), "--html", str(page))
    code = run.end()
    said = run.account()
    check_exact(said)
    assert said["audit"]["verdict"] == "pass", said["audit"]["findings"]
    # No task takes less than a millisecond; but a run that was none cannot miss an objective.
    assert code == said["exit_code"] == (3 if said["invalid"] else 1), run.said
    (objective,) = said["objectives"]
    assert objective["holds"] is False
    assert objective["figure_s"] > 0.001
    assert "missed" in run.said
    (fault,) = said["faults"]
    assert (fault["node"], fault["missing"], fault["error"]) == ("worker-1", None, None)
    assert fault["injected_t"] < fault["healed_t"]
    assert "worker-1 was killed" in run.said
    assert said["counts"]["offered"] == 360
    assert "No run time limit" not in run.said
    stages = said["stages"]
    assert {stage for stage, summary in stages.items() if summary["count"]} == {
        "publish",
        "queue",
        "run",
        "store",
        "e2e",
    }
    assert stages["e2e"]["count"] == 360
    rows = (tmp_path / "table_stats.csv").read_text()
    assert "E2E,loadable.echo,360," in rows
    assert "loadable.echo" in page.read_text()


def test_lost_tasks_are_named_and_a_fault_that_never_came_is_told(locust: Callable[..., Locust]) -> None:
    run = locust("Leaks", "--headless", "--rate", "20", "-t", "3s", "--fault", "pause-worker@1h")
    code = run.end()
    said = run.account()
    check_exact(said)
    assert (code, said["exit_code"]) == (1, 1), run.said
    assert said["audit"]["fates"]["lost"] == 6
    assert said["audit"]["fates"]["ok"] == 54
    found = {finding["code"]: finding for finding in said["audit"]["findings"]}
    assert all(task[:30] in run.said for task in found["lost"]["tasks"])
    # Alone, this would have made the verdict unknown.
    assert found["fault-not-landed"]["verdict"] == "unknown"
    assert "pause-worker@3600s+5s did not land" in run.said


def test_a_generator_that_is_held_up_makes_an_invalid_run_and_no_slow_celery(locust: Callable[..., Locust]) -> None:
    run = locust(*HEADLESS, "-t", "5s")
    run.wait_for("open loop")
    process = psutil.Process(run.process.pid)
    until_s = time.monotonic() + 5
    while time.monotonic() < until_s and run.process.poll() is None:
        process.suspend()
        time.sleep(0.05)
        process.resume()
        time.sleep(0.05)
    assert run.end() == 3, run.said
    said = run.account()
    check_exact(said)
    assert said["audit"]["verdict"] == "pass"
    assert any("the generator was late" in reason for reason in said["invalid"])
    assert "invalid: the generator was late" in run.said


def under_load(locust: Callable[..., Locust], count: int) -> list[Locust]:
    """Several at once, which takes less time than one after another."""
    runs = [locust(*HEADLESS) for _ in range(count)]
    for run in runs:
        run.wait_under_load()
    return runs


def test_a_run_that_is_interrupted_is_accounted_for(locust: Callable[..., Locust], started_by: StartedBy) -> None:
    by_terminal, alone, terminated = runs = under_load(locust, 3)
    stack_processes = [run.stack_process.pid for run in runs]
    assert [len(started_by(stack_process)) for stack_process in stack_processes] == [3, 3, 3]
    assert "No run time limit" in alone.said
    by_terminal.to_group(signal.SIGINT)
    alone.process.send_signal(signal.SIGINT)
    terminated.process.send_signal(signal.SIGTERM)
    for run in runs:
        check_passed(run, run.end())
    assert [started_by(stack_process) for stack_process in stack_processes] == [[], [], []]


def test_whoever_breaks_off_leaves_nothing_behind(locust: Callable[..., Locust], started_by: StartedBy) -> None:
    twice, killed, without = runs = under_load(locust, 3)
    stack_processes = [run.stack_process for run in runs]
    twice.to_group(signal.SIGINT)
    twice.wait_for("^interrupted: ")
    twice.to_group(signal.SIGINT)
    killed.process.send_signal(signal.SIGINT)
    killed.wait_for("^draining")
    killed.process.kill()
    without.stack_process.kill()

    assert twice.end() == 130, twice.said
    assert "interrupted again: everything is taken down at once" in twice.said
    assert without.end() == 2, without.said
    # Once when it is seen, and once below Locust's tables.
    assert without.said.count("the process of the stack was killed (SIGKILL)") == 2
    assert "Traceback" not in twice.said + without.said
    wait_until(lambda: not is_up(stack_processes[1]), what="the stack process of a killed Locust ends", timeout_s=30)
    assert [started_by(stack_process.pid) for stack_process in stack_processes[:2]] == [[], []]


def is_up(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_ctrl_c_while_the_stack_comes_up_takes_it_down(locust: Callable[..., Locust], started_by: StartedBy) -> None:
    run = locust(*HEADLESS)
    run.wait_for("^node: ")
    stack_process = run.stack_process.pid
    run.to_group(signal.SIGINT)
    assert run.end() == 130, run.said
    assert "Traceback" not in run.said
    assert started_by(stack_process) == []


@pytest.mark.parametrize("headless", [("--headless",), ()])
def test_ctrl_c_before_locust_itself_would_hear_of_it_ends_it_as_well(
    locust: Callable[..., Locust], headless: tuple[str, ...], unused_port: int
) -> None:
    run = locust("Echoes", *headless, "--web-port", str(unused_port))
    wait_until(run.children, what="the stack process is started", timeout_s=UP_S, interval_s=0.01)
    run.to_group(signal.SIGINT)
    assert run.end() == 130, run.said
    assert "interrupted before anything was sent" in run.said
    assert "Traceback" not in run.said


def test_two_load_processes_share_the_load_and_are_ended_together(
    locust: Callable[..., Locust], started_by: StartedBy
) -> None:
    run = locust(*HEADLESS, "--processes", "2")
    run.wait_under_load()
    stack_process, processes = run.stack_process.pid, run.children()
    run.to_group(signal.SIGINT)
    check_passed(run, run.end())
    assert started_by(stack_process) == []
    psutil.wait_procs(processes, timeout=10)
    assert not any(one.is_running() for one in processes)
    journals = list((run.folders()[0] / "journal").glob("load.*"))
    assert len(journals) == 2
    assert all(path.stat().st_size > 1000 for path in journals)


def test_a_load_process_that_is_killed_makes_the_run_unknown_and_no_hang(locust: Callable[..., Locust]) -> None:
    run = locust(*HEADLESS, "--processes", "2", "-t", "6s")
    run.wait_under_load()
    victim = next(one for one in run.children() if "harness.loadtest.stack_process" not in one.cmdline())
    victim.kill()
    code = run.end()
    said = run.account()
    codes = {finding["code"] for finding in said["audit"]["findings"]}
    assert {"generator-broken", "sent-differs"} <= codes
    # A send that was cut off in the midst may be one that nobody can account for.
    assert code == said["exit_code"] == (1 if said["audit"]["fates"]["unknown"] else 3), run.said
    assert "1 of 2 load processes did not answer at the end" in " ".join(run.said.split())


def test_over_http_the_counts_are_exact_too(locust: Callable[..., Locust]) -> None:
    run = locust("Emails", "--headless", "--rate", "15", "-t", "5s", "--via", "http", file="scenarios/load.py")
    check_passed(run, run.end())
    assert "POST /emails" in run.said


@pytest.mark.parametrize(
    ("options", "environment", "reason"),
    [
        (["--rate", "many"], {}, "'many' is no rate"),
        (["--find-knee", "--closed"], {}, "a search tries rates of its own"),
        (["--fault", "shave-the-cat@3s"], {}, "there is no fault 'shave-the-cat'"),
        (["--via", "http"], {}, "echoes cannot be driven over HTTP"),
        ([], {"DOCKER_HOST": "tcp://127.0.0.1:9"}, "No container engine answers"),
    ],
)
def test_what_cannot_be_is_one_error_before_anything_starts(
    locust: Callable[..., Locust], options: list[str], environment: dict[str, str], reason: str
) -> None:
    run = locust("Echoes", "--headless", "-t", "3s", *options, **environment)
    assert run.end() == 2, run.said
    assert run.said.count(reason) == 1, run.said
    assert "Traceback" not in run.said
    assert not run.runs.exists()


def test_an_app_that_does_not_import_is_one_clear_error(locust: Callable[..., Locust]) -> None:
    run = locust(*HEADLESS, "-t", "3s", "--app", "no.such.app")
    assert run.end() == 2, run.said
    assert "worker-1 exited" in run.said
    assert "No module named 'no'" in run.said
    assert run.said.rstrip().splitlines()[-1].startswith("There is no account of the run (exit code 2): worker-1 exit")


class Page:
    """Locust's page, as a browser asks it."""

    def __init__(self, port: int) -> None:
        """Wait until the page answers."""
        self._url = f"http://127.0.0.1:{port}"
        wait_until(self._answers, what="the page answers", timeout_s=UP_S)

    def _answers(self) -> bool:
        try:
            self.get("/stats/requests")
        except OSError:
            return False
        return True

    def get(self, path: str) -> Mapping[str, Json]:
        return self._ask(path, None)

    def post(self, path: str, **form: str) -> Mapping[str, Json]:
        return self._ask(path, urllib.parse.urlencode(form).encode())

    def _ask(self, path: str, body: bytes | None) -> Mapping[str, Json]:
        with urllib.request.urlopen(f"{self._url}{path}", data=body, timeout=END_S) as answer:  # noqa: S310 - our own.
            said: Mapping[str, Json] = json.load(answer)
            return said


def test_from_the_page_there_are_two_runs_on_one_broker_and_the_worst_counts(
    locust: Callable[..., Locust], started_by: StartedBy, unused_port: int
) -> None:
    run = locust("Echoes", "--web-port", str(unused_port))
    page = Page(unused_port)
    listening = [one.laddr for one in psutil.Process(run.process.pid).net_connections() if one.status == "LISTEN"]
    assert [address.ip for address in listening if address.port == unused_port] == ["127.0.0.1"]
    form = {"user_count": "16", "spawn_rate": "16", "host": "", "rate": "30"}
    assert page.post("/swarm", **form)["success"]
    run.wait_under_load()
    stack_process = run.stack_process.pid
    assert page.post("/stop")["success"]
    wait_until(lambda: "(exit code" in run.said, what="the account is shown", timeout_s=10)
    session = set(started_by(stack_process))
    assert len(session) == 2, "a broker and a network"
    # The form's run time counts from when the stack is up.
    assert page.post("/swarm", **form, run_time="3s")["success"]
    run.wait_for(r"\(exit code \d\)", times=2)
    assert session <= set(started_by(stack_process))
    # A run that is stopped while its stack comes up has no account, and costs nothing.
    page.post("/swarm", **form)
    wait_until(lambda: len(run.folders()) == 3, what="a third stack comes up", timeout_s=UP_S)
    page.post("/stop")
    run.to_group(signal.SIGINT)
    code = run.end()
    first, second = (read(folder) for folder in run.folders()[:2])
    for said in (first, second):
        check_exact(said)
        assert said["audit"]["verdict"] == "pass"
    assert second["counts"]["offered"] == 90
    assert code == max(first["exit_code"], second["exit_code"])
    assert started_by(stack_process) == []


def test_what_the_pages_form_contradicts_is_an_error_and_starts_nothing(
    locust: Callable[..., Locust], unused_port: int
) -> None:
    run = locust("Echoes", "--web-port", str(unused_port))
    page = Page(unused_port)
    page.post("/swarm", user_count="4", spawn_rate="4", host="", closed="true", stages="10:1s")
    run.wait_for("--stages says when arrivals are due")
    (error,) = page.get("/exceptions")["exceptions"]
    assert "--stages says when arrivals are due" in error["msg"]
    # The page is there for another run.
    assert page.post("/swarm", user_count="4", spawn_rate="4", host="", closed="", stages="10:1s")["success"]
    run.wait_for(r"\(exit code \d\)")
    run.to_group(signal.SIGINT)
    assert run.end() == 2, run.said
    (folder,) = run.folders()
    assert read(folder)["counts"]["offered"] == 10
