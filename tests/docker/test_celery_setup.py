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
from pytest_docker_tools import container
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
    with pytest.raises(TimeoutError):
        waiting.get(timeout=1)
    worker.restart()
    assert waiting.get(timeout=RESULT_TIMEOUT) == "pong"
    worker.assert_log_exists("succeeded")
    worker.assert_log_does_not_exist("no such line")
    assert "DEBUG/MainProcess" not in worker.logs()
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

class TestRedis:
    @pytest.fixture
    def celery_backend_cluster(self, celery_redis_backend):
        return CeleryBackendCluster(celery_redis_backend)

    def test_redis(self, celery_setup: CeleryTestSetup):
        waiting = add.s(2, 3).apply_async(queue=celery_setup.worker.worker_queue)
        assert waiting.get(timeout=RESULT_TIMEOUT) == 5
        assert celery_setup.backend.container.client.keys("celery-task-meta-*")

postgres = container(image="postgres:17", network="{default_pytest_celery_network.name}")

def test_postgres(postgres):
    pass

class TestAbsentApp:
    @pytest.fixture
    def default_worker_command(self):
        return ["celery", "-A", "absent", "worker"]

    def test_absent_app(self, celery_setup: CeleryTestSetup):
        pass
"""


OWN_CONFTEST = """
import celery
import pytest
from pytest_celery import DEFAULT_WORKER_VOLUME, CeleryWorkerContainer
from pytest_docker_tools import build, container, fxtr

class Mine(CeleryWorkerContainer):
    @classmethod
    def version(cls):
        return celery.__version__

    @classmethod
    def worker_queue(cls):
        return "mine"

    @classmethod
    def log_level(cls):
        return "DEBUG"

class Old(Mine):
    @classmethod
    def version(cls):
        return "4.4.7"

mine_image = build(path=".", dockerfile="absent", tag="mine:dev", buildargs=Mine.buildargs())

def own(cls):
    return container(
        image="{mine_image.id}",
        ports=fxtr("default_worker_ports"),
        environment=fxtr("default_worker_env"),
        network="{default_pytest_celery_network.name}",
        volumes={"{default_worker_volume.name}": DEFAULT_WORKER_VOLUME},
        wrapper_class=cls,
        command=fxtr("default_worker_command"),
    )

default_worker_container = own(Mine)
old_worker_container = own(Old)

@pytest.fixture
def default_worker_container_cls():
    return Mine

@pytest.fixture(scope="session")
def default_worker_container_session_cls():
    return Mine
"""


OWN = """
import requests
from celery import chord
from pytest_celery import RESULT_TIMEOUT, CeleryTestSetup, CeleryTestWorker, add, xsum

def test_own_container(celery_setup: CeleryTestSetup):
    worker = celery_setup.worker
    assert type(worker.container).__name__ == "Mine"
    assert worker.worker_queue == "mine"
    # Neither the body nor what waits for its header names a queue.
    assert chord([add.s(1, 1), add.s(2, 2)], xsum.s()).apply_async().get(timeout=RESULT_TIMEOUT) == 6
    worker.assert_log_exists("succeeded")
    worker.assert_log_does_not_exist("test_own_container")
    assert {one["name"] for one in worker.get_running_processes_info(["name"])} >= {"celery"}
    assert worker.container.exec_run("python -c 'import pytest_celery, redis, psutil, gevent'")[0] == 0
    ports = celery_setup.broker.container.attrs["NetworkSettings"]["Ports"]["15672/tcp"]
    queues = requests.get(
        f"http://127.0.0.1:{ports[0]['HostPort']}/api/queues/%2F", auth=("guest", "guest"), timeout=10
    ).json()
    assert "mine" in {queue["name"] for queue in queues}
    assert "DEBUG/MainProcess" in worker.logs()
    celery_setup.broker.restart()
    assert add.s(3, 4).apply_async().get(timeout=RESULT_TIMEOUT) == 7

def test_old_version(old_worker_container):
    pass

def test_worker_alone(celery_worker: CeleryTestWorker):
    assert "memory://" in celery_worker.logs()
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
    # Its fixtures are of the session. It runs before the tests that have pytest-celery's own.
    (project / "own").mkdir()
    (project / "own" / "conftest.py").write_text(OWN_CONFTEST)
    (project / "own" / "test_own.py").write_text(OWN)
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


@pytest.mark.parametrize(
    "name",
    [
        "test_canvas",
        "test_restart",
        "test_own",
        "test_two",
        "test_redis",
        "test_own_container",
        "test_worker_alone",
    ],
)
def test_what_is_written_for_pytest_celery_passes_as_it_is(run: Run, name: str) -> None:
    assert run.outcomes[name] == "passed", run.said


def test_a_failing_test_is_red_and_shows_its_worker_and_its_run_folder(run: Run) -> None:
    assert "assert 2 == 3" in run.outcomes["test_that_fails"]
    (folder,) = [path for path in run.folders if "test_that_fails" in path.name]
    assert str(folder) in run.said
    assert "last log lines of worker-1" in run.said
    assert "tasks.add[" in run.said
    assert "tasks.add[" in (folder / "logs" / "worker-1.log").read_text()


def test_what_cannot_be_served_is_an_error_that_names_the_fixture(run: Run) -> None:
    assert "the fixture postgres starts the image 'postgres:17'" in run.outcomes["test_postgres"]
    assert "the fixture old_worker_container asks for Celery ==4.4.7" in run.outcomes["test_old_version"]
    assert "the harness works with Celery 5.2 and newer" in run.outcomes["test_old_version"]


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
    assert "test_canvas" in table
    assert "test_own_container" in table
