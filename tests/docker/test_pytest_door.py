"""The pytest door with a real engine, as its user sees it: a project of somebody else's, in a process of its own."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.wait import wait_until

pytestmark = pytest.mark.docker
PYTEST = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--color=no"]
APP = Path(__file__).parent / "apps" / "faulty.py"
TESTS = """
import time
from pathlib import Path
import pytest
from harness import Expect

pytestmark = pytest.mark.stack(app="faulty")

def test_that_fails(stack):
    stack.producer.send("act", kwargs={"key": "a"})
    assert stack.settle().entries == 2

def test_that_does_not_look(stack):
    stack.producer.send("act", kwargs={"key": "a", "times": 2}, expect=Expect(effects=["a"]))

def test_that_looks_for_itself(stack):
    stack.producer.send("act", kwargs={"key": "a", "times": 2}, expect=Expect(effects=["a"]))
    assert not stack.settle().passed

def test_that_hangs(stack):
    Path("hangs").touch()
    time.sleep(300)
"""


SETTINGS = """
[tool.harness]
app = "heard"
folder = "src"
options = ["--pool=solo", "--without-gossip", "--without-mingle"]
queues = ["own"]
env_file = ".env.test"
env = { FROM_TABLE = "{{doubled}}" }
"""
HEARD = """
import os, sys
from celery import Celery

app = Celery("heard")
app.conf.task_default_queue = "own"

@app.task(name="tell")
def tell():
    return [os.environ["FROM_FILE"], os.environ["FROM_TABLE"], "--pool=solo" in sys.argv]
"""
ASKS = """
from harness import Expect

def test_it(stack):
    stack.producer.send("tell", queue="own", expect=Expect(result=["{braces}", "{doubled}", True]))
    assert stack.settle().passed
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "faulty.py").write_text(APP.read_text())
    (tmp_path / "test_faulty.py").write_text(TESTS)
    (tmp_path / "pytest.ini").touch()
    return tmp_path


def test_a_failing_test_shows_logs_and_run_folder_and_unsettled_tasks_are_accounted_for(project: Path) -> None:
    done = subprocess.run(
        [*PYTEST, "-k", "not hangs"], cwd=project, capture_output=True, text=True, timeout=240, check=False
    )
    said = done.stdout
    assert done.returncode == 1, said + done.stderr
    assert "1 failed, 2 passed, 1 deselected, 1 error" in said
    assert "last log lines of worker-1" in said
    assert "Task act[" in said
    folders = [path for path in (project / ".harness" / "runs").iterdir() if path.name != "latest"]
    assert len(folders) == 3
    assert any(str(folder) in said for folder in folders if "test_that_fails" in folder.name)
    assert "the test passed, its tasks did not" in said
    accounting = said.partition("celery harness")[2]
    assert "1 ok" in accounting
    assert "2 duplicated" in accounting
    assert (folders[0] / "logs" / "broker.log").stat().st_size
    # Of the test that passed with its tasks, nobody reads one.
    reports = {folder.name.partition("-")[2] for folder in folders if (folder / "report.html").exists()}
    assert len(reports) == 2
    assert all(str(folder / "report.html") in said for folder in folders if (folder / "report.html").exists())


def test_with_settings_in_the_project_a_test_needs_neither_a_marker_nor_an_argument(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "heard.py").write_text(HEARD)
    (tmp_path / "test_heard.py").write_text(ASKS)
    (tmp_path / "pyproject.toml").write_text(SETTINGS)
    (tmp_path / ".env.test").write_text("FROM_FILE='{braces}'\n")
    done = subprocess.run([*PYTEST], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
    assert "1 ok" in done.stdout.partition("celery harness")[2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("times", [1, 20])
def test_an_interrupted_session_takes_everything_down(
    started_by: Callable[[int], list[str]], project: Path, number: signal.Signals, times: int
) -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [*PYTEST, "-k", "hangs"],
        cwd=project,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_until((project / "hangs").exists, what="the test hangs", timeout_s=120)
    assert len(started_by(process.pid)) >= 3
    for _time in range(times):
        process.send_signal(number)
        # Somebody who is impatient.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == pytest.ExitCode.INTERRUPTED, said
    assert started_by(process.pid) == []
