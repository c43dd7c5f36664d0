"""The pytest-celery door with a real engine: a project that knows pytest-celery alone, in a process of its own."""

import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.docker
PYTEST = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:locust", "--color=no", "-W", "error"]

TASKS = """
from celery import shared_task

@shared_task
def shout(text):
    print(f"shouting {text}")
    return text.upper()
"""

TESTS = """
import pytest
import shop_tasks
from celery import chain, chord, group
from celery.exceptions import TimeoutError
from pytest_celery import (
    RESULT_TIMEOUT, CeleryBackendCluster, CeleryTestSetup, CeleryWorkerCluster, CeleryWorkerContainer, add, fail, ping,
    xsum,
)

def test_canvas(celery_setup: CeleryTestSetup):
    assert celery_setup.ready(ping=True, control=True)
    queue = celery_setup.worker.worker_queue
    one, two = add.s(1, 1).set(queue=queue), add.s(2, 2).set(queue=queue)
    assert one.apply_async(queue=queue).get(timeout=RESULT_TIMEOUT) == 2
    assert chain(one, add.s(5).set(queue=queue)).apply_async().get(timeout=RESULT_TIMEOUT) == 7
    assert group(one, two).apply_async().get(timeout=RESULT_TIMEOUT) == [2, 4]
    assert chord([one, two], xsum.s().set(queue=queue)).apply_async().get(timeout=RESULT_TIMEOUT) == 6
    # The second one is never sent, and recorded as a failure nevertheless.
    with pytest.raises(RuntimeError):
        chain(fail.s().set(queue=queue), add.s(1).set(queue=queue)).apply_async().get(timeout=RESULT_TIMEOUT)

def test_restart(celery_setup: CeleryTestSetup):
    worker = celery_setup.worker
    worker.kill()
    assert worker.container.status == "exited"
    waiting = ping.s().apply_async(queue=worker.worker_queue)
    worker.restart()
    assert waiting.get(timeout=RESULT_TIMEOUT) == "pong"
    worker.assert_log_exists("succeeded")
    worker.assert_log_does_not_exist("no such line")
    (first,) = worker.get_running_processes_info(["pid", "name", "cmdline"], filters={"pid": 1})
    assert "worker" in first["cmdline"]
    assert worker.hostname() in celery_setup.app.control.inspect().ping()

class TestWhatTheTestBrings:
    @pytest.fixture
    def default_worker_tasks(self, default_worker_tasks):
        return {*default_worker_tasks, shop_tasks}

    @pytest.fixture
    def default_worker_app(self, celery_setup_app):
        celery_setup_app.conf.task_default_priority = 3
        return celery_setup_app

    @pytest.fixture
    def default_worker_command(self, default_worker_container_cls):
        return default_worker_container_cls.command("--concurrency=3")

    @pytest.fixture(scope="session")
    @classmethod
    def default_worker_celery_log_level(cls):
        return "DEBUG"

    def test_own(self, celery_setup: CeleryTestSetup):
        assert shop_tasks.shout.delay("hey").get(timeout=RESULT_TIMEOUT) == "HEY"
        said = celery_setup.worker.logs()
        assert "shouting hey" in said
        assert "concurrency: 3" in said
        assert "DEBUG/MainProcess" in said
        assert '"task_default_priority": 3' in said

class TestTwoWorkers:
    @pytest.fixture
    def celery_worker_cluster(self, celery_worker, celery_harness_worker):
        class Other(CeleryWorkerContainer):
            @classmethod
            def worker_queue(cls):
                return "other"

        return CeleryWorkerCluster(celery_worker, celery_harness_worker(Other))

    def test_two(self, celery_setup: CeleryTestSetup):
        assert [worker.worker_queue for worker in celery_setup.worker_cluster] == ["celery", "other"]
        assert celery_setup.ready(ping=True, control=True)
        first, second = celery_setup.worker_cluster
        second.assert_log_exists("succeeded")
        assert first.hostname() != second.hostname()
        celery_setup.broker.kill()

def test_that_fails(celery_setup: CeleryTestSetup):
    assert add.s(1, 1).apply_async(queue=celery_setup.worker.worker_queue).get(timeout=RESULT_TIMEOUT) == 3

def test_nobody_works(celery_setup: CeleryTestSetup):
    celery_setup.worker.kill()
    assert ping.s().apply_async(queue=celery_setup.worker.worker_queue).get(timeout=2) == "pong"

class TestRedis:
    @pytest.fixture
    def celery_backend_cluster(self, celery_redis_backend):
        return CeleryBackendCluster(celery_redis_backend)

    def test_redis(self, celery_setup: CeleryTestSetup):
        pass

class TestNetwork:
    @pytest.fixture
    def celery_worker_cluster(self, celery_worker, default_pytest_celery_network):
        return CeleryWorkerCluster(celery_worker)

    def test_network(self, celery_setup: CeleryTestSetup):
        pass

class TestAbsentApp:
    @pytest.fixture
    def default_worker_command(self):
        return ["celery", "-A", "absent", "worker"]

    def test_absent_app(self, celery_setup: CeleryTestSetup):
        pass
"""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of pytest: what it printed, and per test `passed`, or what it has to say for itself."""

    said: str
    outcomes: dict[str, str]
    folders: list[Path]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    project = tmp_path_factory.mktemp("project")
    (project / "shop_tasks.py").write_text(TASKS)
    (project / "test_shop.py").write_text(TESTS)
    (project / "pytest.ini").touch()
    done = subprocess.run(
        [*PYTEST, "-p", "harness.celery_setup", "--junitxml=report.xml"],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (project / "report.xml").exists(), done.stdout + done.stderr
    cases = ET.parse(project / "report.xml").iter("testcase")  # noqa: S314 - pytest wrote it just now.
    outcomes = {
        case.attrib["name"].partition("[")[0]: next(
            (child.text or "" for child in case if child.tag in {"failure", "error"}), "passed"
        )
        for case in cases
    }
    return Run(said=done.stdout, outcomes=outcomes, folders=sorted((project / ".harness" / "runs").glob("*T*-*")))


@pytest.mark.parametrize("name", ["test_canvas", "test_restart", "test_own", "test_two"])
def test_what_is_written_for_pytest_celery_passes_as_it_is(run: Run, name: str) -> None:
    assert run.outcomes[name] == "passed", run.said


def test_a_failing_test_is_red_and_shows_its_worker_and_its_run_folder(run: Run) -> None:
    assert "assert 2 == 3" in run.outcomes["test_that_fails"]
    (folder,) = [path for path in run.folders if "test_that_fails" in path.name]
    assert str(folder) in run.said
    assert "last log lines of worker-1" in run.said
    assert "tasks.add[" in run.said
    assert "tasks.add[" in (folder / "logs" / "worker-1.log").read_text()


def test_a_test_whose_worker_is_dead_runs_into_its_time_out(run: Run) -> None:
    assert "The operation timed out." in run.outcomes["test_nobody_works"]


@pytest.mark.parametrize(
    ("name", "component"), [("test_redis", "celery_redis_backend"), ("test_network", "default_pytest_celery_network")]
)
def test_a_component_that_is_not_there_is_an_error_that_names_it(run: Run, name: str, component: str) -> None:
    assert f"{component} cannot be had with harness.celery_setup" in run.outcomes[name]


def test_a_worker_that_cannot_start_says_why(run: Run) -> None:
    said = run.outcomes["test_absent_app"]
    assert "worker-1 exited with 2 before it was ready" in said
    assert "absent" in said


def test_a_killed_broker_is_there_again_for_the_next_test(run: Run) -> None:
    order = list(run.outcomes)
    assert order.index("test_that_fails") == order.index("test_two") + 1
    assert "assert 2 == 3" in run.outcomes["test_that_fails"]


def test_every_passed_test_is_in_the_accounting_with_all_its_tasks(run: Run) -> None:
    table = run.said.partition("celery harness")[2]
    # A ping, one task, a chain of two, a group of two, a chord of two with its body and its unlocking, a chain that
    # fails at its first.
    assert "10 ok, 1 failed" in " ".join(table.split())
    assert "4 runs" in table
