"""A broker, plain workers and a PostgreSQL that know nothing of the harness; it attaches, and says what it can."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from harness.audit import results
from harness.audit.audit import audit
from harness.audit.results import Results
from harness.audit.run_folder import RunFolder
from harness.errors import BrokerError, ResultsError
from harness.measure.stages import Passed, Stage, Stages
from harness.records.event import Event, Kind
from harness.records.expectation import Expect
from harness.records.verdict import Fate, Verdict
from harness.stack.attached import Attached
from harness.stack.shared_parts import SharedParts
from harness.wait import wait_until
from tests.docker.postgres import Server, missing, postgres

pytestmark = pytest.mark.docker

APPS = Path(__file__).parent / "apps"
TASKS = 200
BOUND_S = 90.0
UNWITNESSED = {"unwitnessed-executions", "unwitnessed-broker"}
Attach = Callable[[str], Attached]
Work = Callable[[str], AbstractContextManager[subprocess.Popen[bytes]]]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    if (reason := missing()) is not None:
        if os.environ.get("CI"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    with postgres() as server:
        yield server


@pytest.fixture
def database(server: Server) -> Iterator[str]:
    """Yield the URL of a database without tables."""
    yield server.url()
    with server.connect() as connection:
        connection.execute("DROP TABLE IF EXISTS celery_taskmeta, celery_tasksetmeta")


@pytest.fixture
def broker_url(_harness_session: SharedParts, request: pytest.FixtureRequest) -> Iterator[str]:
    """Yield the URL of a vhost for this test alone."""
    broker = _harness_session.broker
    login = broker.create_vhost(f"attached-{abs(hash(request.node.name))}")
    try:
        yield login.amqp_url_outside
    finally:
        broker.delete_vhost(login)


@pytest.fixture
def attach(broker_url: str, tmp_path: Path) -> Attach:
    return lambda url: Attached(broker_url, url, RunFolder.create(tmp_path, "attached"))


@pytest.fixture
def work(broker_url: str, tmp_path: Path) -> Work:
    """Return a context that runs `celery worker` as a user would, and ends it with all its processes."""

    @contextmanager
    def running(results_url: str) -> Iterator[subprocess.Popen[bytes]]:
        env = {**os.environ, "CELERY_BROKER_URL": broker_url, "CELERY_RESULT_BACKEND": f"db+{results_url}"}
        options = ["-c", "2", "--without-mingle", "--without-gossip", "-l", "info"]
        command = [sys.executable, "-m", "celery", "-A", "attached", "worker", *options]
        log = tmp_path / "worker.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", "--", *command],
                cwd=APPS,
                env=env,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            wait_until(
                lambda: process.poll() is not None or " ready." in log.read_text(),
                what="the worker is ready",
                timeout_s=60,
                last_seen=log.read_text,
            )
            assert process.poll() is None, log.read_text()
            yield process
        finally:
            kill(process, signal.SIGTERM)

    return running


def kill(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """End a worker; whatever of it is left after a while is killed."""
    if process.poll() is None:
        process.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)


def send(attached: Attached, numbers: range, **kwargs: Any) -> None:
    for number in numbers:
        expect = Expect(result=2 * number)
        sent = attached.producer.send("attached.double", [number], kwargs, expect=expect)
        assert sent.accepted, sent.reason


def codes(attached: Attached, verdict: Verdict) -> set[str]:
    assert attached.audited is not None
    return {finding.code for finding in attached.audited.findings if finding.verdict is verdict}


def test_all_is_well_as_far_as_the_rows_can_say(attach: Attach, work: Work, database: str) -> None:
    passed: list[Passed] = []
    stages = Stages(passed.append)
    with attach(f"db+{database}") as attached, work(database):
        attached.ledger.listeners.append(stages.take)
        send(attached, range(100, 200))
        # What goes on is seen while it goes on.
        for event in wait_until(attached.poll, what="a task ends", timeout_s=BOUND_S):
            stages.take(event)
        # Somebody else uses the same workers.
        with attach(database) as somebody:
            send(somebody, range(1_000, 1_005))
        send(attached, range(200, 300))
        found = attached.settle(BOUND_S, limit_s=BOUND_S)
    assert (found.verdict, found.entries, found.fates[Fate.OK]) == (Verdict.UNKNOWN, TASKS, TASKS), found.text()
    assert {finding.code for finding in found.findings} == UNWITNESSED
    assert found.witnesses["results"] == {"readable": True, "rows": TASKS}
    # The app is in Berlin and the server in India, and yet nothing ended before it was due, nor hours later.
    assert 0 < found.e2e_ms["p50"] <= found.e2e_ms["max"] < BOUND_S * 1000
    # What was measured live is what the audit says.
    assert (stages.accepted, stages.ended, stages.failed, stages.backlog) == (TASKS, TASKS, 0, 0)
    longest_s = max(one.duration_s for one in passed if one.stage is Stage.E2E)
    assert longest_s * 1000 == pytest.approx(found.e2e_ms["max"], abs=1)
    # And tomorrow, without the database.
    assert audit(RunFolder.open(attached.folder.path)).to_json() == found.to_json()


def test_a_wrong_result_and_a_failure_come_to_light(attach: Attach, work: Work, database: str) -> None:
    with attach(database) as attached, work(database):
        send(attached, range(-3, TASKS))
        found = attached.settle(BOUND_S, limit_s=BOUND_S)
    met = {fate: count for fate, count in found.fates.items() if count}
    assert met == {Fate.OK: TASKS - 1, Fate.WRONG: 1, Fate.FAILED: 3}, found.text()
    assert found.verdict is Verdict.FAIL
    assert codes(attached, Verdict.FAIL) == {"wrong", "failed-unexpectedly"}
    assert codes(attached, Verdict.UNKNOWN) == UNWITNESSED
    assert "ValueError: -" in found.text()


def test_what_no_worker_came_to_is_unknown_within_the_time(attach: Attach, work: Work, database: str) -> None:
    with attach(database) as attached:
        with work(database) as worker:
            send(attached, range(50, 50 + TASKS), pause_s=0.05)
            wait_until(lambda: attached.poll() and attached.ended, what="a task ends", timeout_s=BOUND_S)
            kill(worker, signal.SIGTERM)
        found = attached.settle(2.0, limit_s=BOUND_S)
    assert found.verdict is Verdict.UNKNOWN, found.text()
    assert 0 < found.fates[Fate.OK] < TASKS
    assert found.fates[Fate.OK] + found.fates[Fate.UNKNOWN] == TASKS
    assert codes(attached, Verdict.UNKNOWN) == {*UNWITNESSED, "unknown"}


def test_results_may_lie_in_a_sqlite_file(attach: Attach, work: Work, tmp_path: Path) -> None:
    path = tmp_path / "theirs.sqlite3"
    results.create(path)
    url = f"sqlite:///{path}"
    with attach(url) as attached, work(url):
        send(attached, range(20, 40))
        events: list[Event] = []
        attached.ledger.listeners.append(events.append)
        found = attached.settle(BOUND_S, limit_s=BOUND_S)
    assert (found.verdict, found.fates[Fate.OK]) == (Verdict.UNKNOWN, 20), found.text()
    assert {finding.code for finding in found.findings} == UNWITNESSED
    assert sum(event.kind is Kind.FINISHED for event in events) == 20
    assert 0 < found.e2e_ms["max"] < BOUND_S * 1000


def test_whoever_is_not_let_in_is_told_so_without_a_password(
    attach: Attach, broker_url: str, server: Server, tmp_path: Path
) -> None:
    with pytest.raises(ResultsError, match="password authentication failed") as caught, attach(server.url("wrong-one")):
        pass
    assert "wrong-one" not in str(caught.value)
    user, _, rest = broker_url.removeprefix("amqp://").partition(":")
    wrong = f"amqp://{user}:wrong-one@{rest.rpartition('@')[2]}"
    with (
        pytest.raises(BrokerError, match="ACCESS_REFUSED") as refused,
        Attached(wrong, server.url(), RunFolder.create(tmp_path, "refused")),
    ):
        pass
    assert "wrong-one" not in str(refused.value)
    nowhere = broker_url.rpartition("/")[0] + "/no-such-vhost"
    with (
        pytest.raises(BrokerError, match="no-such-vhost cannot be used"),
        Attached(nowhere, server.url(), RunFolder.create(tmp_path, "nowhere")),
    ):
        pass


def test_a_table_that_somebody_has_locked_is_not_waited_for_for_ever(
    server: Server, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "_QUERY_TIMEOUT_S", 0.5)
    theirs = Results(database)
    assert theirs.count() == 0
    with server.connect() as connection:
        connection.execute(
            "CREATE TABLE celery_taskmeta (task_id TEXT, status TEXT, result BYTEA, date_done TIMESTAMP)"
        )
        assert list(theirs.endings(["a"])) == [[]]
        with connection.transaction():
            connection.execute("LOCK TABLE celery_taskmeta")
            with pytest.raises(ResultsError, match="statement timeout"):
                list(theirs.endings(["a"]))
