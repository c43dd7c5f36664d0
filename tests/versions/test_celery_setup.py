"""A test that is written for pytest-celery and asks for another Celery than the node image's has a worker with it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.celery_setup.image import image_for
from harness.containers.engine import Engine
from harness.stack.shared_parts import SharedParts

pytestmark = pytest.mark.docker

VERSION = "5.2.7"
"""The oldest, which needs another Python as well."""
TESTS = f"""
import pytest
from pytest_celery import RESULT_TIMEOUT, CeleryTestSetup, CeleryWorkerContainer, add

class Other(CeleryWorkerContainer):
    @classmethod
    def version(cls):
        return {VERSION!r}

@pytest.fixture
def default_worker_container_cls():
    return Other

@pytest.fixture(scope="session")
def default_worker_container_session_cls():
    return Other

def test_old(celery_setup: CeleryTestSetup):
    worker = celery_setup.worker
    assert add.s(1, 2).apply_async(queue=worker.worker_queue).get(timeout=RESULT_TIMEOUT) == 3
    assert " v{VERSION} " in worker.logs()
    assert worker.container.exec_run("python -c 'import pytest_celery, redis, psutil, gevent'")[0] == 0
    assert celery_setup.ready(ping=True, control=True)
"""


@pytest.fixture
def engine() -> Iterator[Engine]:
    """Yield an engine that has the image, and remove the image at the end."""
    with SharedParts(print) as session:
        image, _ = image_for(session, None, VERSION, source="a test", folder=Path(__file__).parent, say_once=print)
        yield session.engine
        session.engine.remove_image(image)


@pytest.mark.usefixtures("engine")
def test_a_worker_has_the_celery_that_its_class_asks_for(tmp_path: Path) -> None:
    (tmp_path / "test_old.py").write_text(TESTS)
    (tmp_path / "pytest.ini").touch()
    pytest_ = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:locust")
    done = subprocess.run(
        [*pytest_, "-p", "harness.celery_setup"], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
