"""The load door before workers that somebody else has started: `locust --broker-url ... --results ...`."""

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit
from urllib.request import urlopen

import psutil
import pytest

from harness.audit.audit import Audit, audit
from harness.audit.run_folder import RunFolder
from harness.records.verdict import Fate, Verdict
from harness.wait import wait_until
from tests.docker import test_attached as elsewhere
from tests.docker.postgres import Server

pytestmark = pytest.mark.docker

ROOT = Path(__file__).parents[2]
RATE = 40
SECONDS = 6
BOUND_S = 60.0
HOST = "127.0.0.1"
SILENT = ("--headless", "--rate", str(RATE))

# What runs elsewhere is the same for whoever attaches to it without Locust.
server, database, broker_url, work = elsewhere.server, elsewhere.database, elsewhere.broker_url, elsewhere.work


@dataclass(frozen=True, kw_only=True)
class Locust:
    """The command, as a user gives it."""

    process: subprocess.Popen[bytes]
    command: Sequence[str]
    runs: Path
    log: Path
    secrets: Sequence[str]
    """What nobody but the user may have written down."""
    commands: set[tuple[str, ...]] = field(default_factory=set)
    """Of all processes that it was seen to have, as `ps` shows them to everybody."""

    def said(self) -> str:
        return self.log.read_text()

    def wait(self) -> int:
        """Its exit code. As long as it runs, no process but its own, and its forks, has a password for all to see."""
        wait_until(self._is_over, what="locust ends", timeout_s=BOUND_S, interval_s=0.25, last_seen=self.said)
        own = tuple(self.command)
        assert [command for command in self.commands if command != own and self._leaks(" ".join(command))] == []
        return self.process.wait()

    def _is_over(self) -> bool:
        if self.process.poll() is not None:
            return True
        # Whichever of them ends while it is looked at has been seen before.
        with suppress(psutil.NoSuchProcess):
            self.commands.update(
                tuple(one.cmdline()) for one in psutil.Process(self.process.pid).children(recursive=True)
            )
        return False

    def _leaks(self, text: str) -> bool:
        return any(secret in text for secret in self.secrets)

    def leaks(self) -> list[str]:
        """Where a password can be read in what it left."""
        files = [path for path in [self.log, *self.runs.rglob("*")] if path.is_file()]
        return [str(path) for path in files if self._leaks(path.read_text(errors="replace"))]

    @property
    def folder(self) -> RunFolder:
        """What its only run left."""
        (path,) = self.runs.glob("*-load-*")
        return RunFolder.open(path)


Start = Callable[..., Locust]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Yield a function that starts the command; kill what still runs at the end."""
    started: list[Locust] = []

    def start(*options: str, broker: str = "", results: str = "") -> Locust:
        here = tmp_path / f"locust-{len(started)}"
        here.mkdir()
        command = [sys.executable, "-m", "locust", "-f", "tests/docker/apps/load_attached.py", *options]
        command += ["--runs", str(here / "runs"), *(["--broker-url", broker] if broker else [])]
        command += ["--results", results] if results else []
        log = here / "log"
        with log.open("wb") as out:
            process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        found = [urlsplit(url).password for url in (broker, results)]
        secrets = [one for one in found if one]
        started.append(Locust(process=process, command=command, runs=here / "runs", log=log, secrets=secrets))
        return started[-1]

    yield start
    for one in started:
        # The stack process sees its input end, and does so too.
        one.process.kill()
        one.process.wait()


def codes(found: Audit, verdict: Verdict) -> set[str]:
    return {finding.code for finding in found.findings if finding.verdict is verdict}


def check_the_counts(locust: Locust) -> tuple[Audit, Mapping[str, Any]]:
    """Check that as many tasks were offered as were sent, accepted, audited and measured."""
    found, load = audit(locust.folder), locust.folder.read("load.json")
    counts = load["counts"]
    assert counts["offered"] == counts["sent"] + counts["dropped"]
    assert counts["sent"] == counts["accepted"] == found.entries > RATE
    assert load["stages"]["publish"]["count"] == load["stages"]["e2e"]["count"] == found.entries
    # Nobody saw a worker take a task, nor store its result.
    assert [load["stages"][stage]["count"] for stage in ("queue", "run", "store")] == [0, 0, 0]
    assert (load["workers"], load["bottleneck"]) == ({}, None)
    # The audit counts to what succeeded, the load test to what ended, and both to `date_done`.
    longest_ms = load["stages"]["e2e"]["max_s"] * 1000
    if found.fates[Fate.OK] == found.entries:
        assert longest_ms == pytest.approx(found.e2e_ms["max"], rel=0.01, abs=1)
    assert longest_ms >= 0.99 * found.e2e_ms["max"]
    assert 0 < found.e2e_ms["p50"] <= found.e2e_ms["max"] < BOUND_S * 1000
    return found, load


def test_all_is_well_as_far_as_the_rows_can_say(
    start: Start, broker_url: str, work: elsewhere.Work, database: str
) -> None:
    with work(database):
        locust = start("Doubles", *SILENT, "-t", f"{SECONDS}s", broker=broker_url, results=f"db+{database}")
        assert locust.wait() == 3, locust.said()
    found, load = check_the_counts(locust)
    assert (found.verdict, found.fates[Fate.OK]) == (Verdict.UNKNOWN, found.entries), found.text()
    assert {finding.code for finding in found.findings} == elsewhere.UNWITNESSED
    assert load["counts"]["offered"] == pytest.approx(RATE * SECONDS, abs=RATE / 4)
    # A machine that is busy with other things makes a late generator; nothing else may be wrong with the load.
    assert all(reason.startswith("the generator was late") for reason in load["invalid"])
    assert load["figures"]["completed"] == pytest.approx(load["figures"]["tasks"], abs=RATE)
    # Live, in Locust's own table, and in the account below it.
    said = locust.said()
    live, _, _ = said.partition("draining")
    assert re.search(r" s \| in \d+/s, out [1-9]\d*/s \| backlog \d+ \| e2e p50 \d.* \| [1-9]\d* ended", live), said
    assert f"E2E      attached.double  {found.entries}".split() in [line.split()[:3] for line in said.splitlines()]
    assert any(line.split()[:2] == ["e2e", str(found.entries)] for line in said.splitlines())
    assert all(f"unwitnessed-{one}" in said for one in ("executions", "broker"))
    assert locust.leaks() == []
    assert any("harness.loadtest.stack_process" in command for command in locust.commands)
    # The command is in the folder, and but for the passwords it is whole.
    written = locust.folder.read("run.json")["command"]
    assert written.startswith("locust -f tests/docker/apps/load_attached.py Doubles --headless --rate 40 -t 6s --runs ")
    assert written.count(":***@") == 2


def test_a_task_that_failed_and_nobody_expected_it_ends_with_1(
    start: Start, broker_url: str, work: elsewhere.Work, database: str
) -> None:
    with work(database):
        locust = start("Refusals", *SILENT, "-t", "3s", broker=broker_url, results=database)
        assert locust.wait() == 1, locust.said()
    found, _ = check_the_counts(locust)
    assert codes(found, Verdict.FAIL) == {"failed-unexpectedly"}
    assert codes(found, Verdict.UNKNOWN) == elsewhere.UNWITNESSED
    assert found.fates[Fate.FAILED] == -(-found.entries // 10)
    assert found.fates[Fate.FAILED] + found.fates[Fate.OK] == found.entries
    assert "ValueError: -1 is below zero" in locust.said()
    assert locust.leaks() == []


@contextmanager
def a_dead_port() -> Iterator[int]:
    """Yield a port on which nobody listens, and nobody will."""
    with socket.socket() as bound:
        bound.bind((HOST, 0))
        yield bound.getsockname()[1]


def test_what_cannot_be_attached_to_ends_with_2_before_anything_is_sent(
    start: Start, broker_url: str, server: Server
) -> None:
    url = server.url()
    user, place = broker_url.removeprefix("amqp://").partition(":")[0], broker_url.rpartition("@")[2]
    with a_dead_port() as port:
        dead = f"amqp://{user}:a-secret@{HOST}:{port}/{place.partition('/')[2]}"
        nowhere = f"postgresql+psycopg://{user}:a-secret@{HOST}:{port}/postgres"
        cases = {
            "password authentication failed": start(*SILENT, broker=broker_url, results=server.url("a-wrong-one")),
            "ACCESS_REFUSED": start(*SILENT, broker=f"amqp://{user}:a-wrong-one@{place}", results=url),
            f"{HOST}:{port}/{place.partition('/')[2]} cannot be used": start(*SILENT, broker=dead, results=url),
            "Connection refused": start(*SILENT, broker=broker_url, results=nowhere),
            "oracledb": start(*SILENT, broker=broker_url, results="oracle+oracledb://me:a-secret@h/d"),
            "faults are for a stack of one's own": start(
                *SILENT, "--fault", "kill-worker@1s", broker=broker_url, results=url
            ),
            "give --broker-url as well": start(*SILENT, results=url),
            "say with --results": start(*SILENT, broker=broker_url),
        }
        for words, locust in cases.items():
            assert locust.wait() == 2, locust.said()
            errors = [line for line in locust.said().splitlines() if words in line]
            assert len(errors) == 1, locust.said()
            assert "Traceback" not in locust.said()
            assert locust.leaks() == []
            # Not even a folder was made for a run.
            assert not locust.runs.exists()


def get(port: str, path: str, form: Mapping[str, str] | None = None) -> str:
    data = None if form is None else urlencode(form).encode()
    with urlopen(f"http://{HOST}:{port}{path}", data, timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def test_several_processes_and_locusts_page(start: Start, broker_url: str, work: elsewhere.Work, database: str) -> None:
    with socket.create_server((HOST, 0)) as free, socket.create_server((HOST, 0)) as also_free:
        port, master = (str(one.getsockname()[1]) for one in (free, also_free))
    page = ["Doubles", "--processes", "2", "--web-port", port, "--rate", str(RATE)]
    # On Locust's own port there may be somebody else's master, which these load processes would obey.
    page += ["--master-bind-host", HOST, "--master-bind-port", master, "--master-port", master]
    with work(database):
        locust = start(*page, broker=broker_url, results=database)

        def stats() -> dict[str, Any]:
            assert locust.process.poll() is None, locust.said()
            try:
                found: dict[str, Any] = json.loads(get(port, "/stats/requests"))
            except OSError:
                return {}
            return found

        wait_until(lambda: len(stats().get("workers", ())) == 2, what="two load processes", timeout_s=BOUND_S)
        pages = [get(port, "/")]
        get(port, "/swarm", {"user_count": "8", "spawn_rate": "8", "host": "", "run_time": "3s"})
        wait_until(
            lambda: list(locust.runs.glob("*-load-*/load.json")), what="the account", timeout_s=BOUND_S, interval_s=0.5
        )
        pages += [get(port, path) for path in ("/", "/stats/requests", "/exceptions", "/logs", "/stats/report")]
        locust.process.send_signal(signal.SIGINT)
        assert locust.wait() == 3, locust.said()
    assert [secret for text in pages for secret in locust.secrets if secret in text] == []
    found, load = check_the_counts(locust)
    assert {finding.code for finding in found.findings} == elsewhere.UNWITNESSED
    assert found.fates[Fate.OK] == found.entries
    assert load["counts"]["offered"] == pytest.approx(RATE * 3, abs=RATE)
    # Each load process keeps a journal of its own.
    assert len(list(locust.folder.journal.glob("load.*.jsonl"))) == 2
    assert locust.leaks() == []
