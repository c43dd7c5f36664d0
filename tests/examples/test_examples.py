"""Each example as a stranger tries it: a project that knows nothing of the harness, `harness init`, then `pytest`."""

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PLAIN = "shop"
"""The app without a project around it."""
PROJECTS = sorted(path.parent.name for path in EXAMPLES.glob("*/README.md"))
LEFT_BY_PYTHON = shutil.ignore_patterns("__pycache__", "*.sqlite3")
MADE_BY_RUNS = {".harness", "__pycache__", ".pytest_cache"}
FIRST_TESTS = 2
"""`harness init` writes a smoke test, and one that kills a worker."""
OF_THEIR_OWN = {
    "fastapi_queues": """
from harness import Expect, mail

def test_tasks_of_both_queues_run(stack, mailbox):
    zoe, joe = (Expect(effects=[mail(to=f"{name}@example.com")]) for name in ("zoe", "joe"))
    stack.producer.send("app.tasks.mails.send_invitation", ["zoe@example.com", "shop"], expect=zoe)
    stack.producer.send(
        "app.tasks.reports.sales_report", ["joe@example.com", [{"region": "north", "amount": 2.5}]], expect=joe
    )
    audit = stack.settle()
    assert audit.passed, audit.text()
""",
    "postgresql_redis": """
from harness import Expect

def test_the_migration_has_filled_the_shelves(stack):
    stack.producer.send("warehouse.tasks.pick", ["chair", 2], expect=Expect(result=98))
    audit = stack.settle()
    assert audit.passed, audit.text()
""",
}
"""A test for what the first tests of an example do not show, because they send nothing."""
INIT_S, PYTEST_S = 1_200, 600
"""The first time, an image is built, and its packages are downloaded."""

pytestmark = pytest.mark.docker


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    output: str
    seconds: float


def run(*command: str, cwd: Path, timeout_s: float) -> Done:
    """Run a module of this Python in a project's folder, with the environment of a user who has set nothing."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "HARNESS_"))}
    # Of this environment's many plugins, Locust's imports gevent's patches too late. A stranger need not have it.
    env = {**kept, "NO_COLOR": "1", "PYTEST_ADDOPTS": "-p no:locust"}
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    return Done(done.returncode, done.stdout, time.monotonic() - begun)


def init(project: Path) -> Done:
    return run("harness", "init", "--yes", cwd=project, timeout_s=INIT_S)


def copy_of(name: str, folder: Path) -> Path:
    """Return a copy of an example's project, in a folder that nothing else is in."""
    project = folder / f"{name}-project"
    inside = project / name if name == PLAIN else project
    shutil.copytree(EXAMPLES / name, inside, ignore=LEFT_BY_PYTHON)
    return project


def contents(project: Path) -> dict[str, bytes]:
    """Return what is in a project's files, but for what commands and tests leave behind."""
    files = (path for path in sorted(project.rglob("*")) if path.is_file())
    return {
        str(path.relative_to(project)): path.read_bytes()
        for path in files
        if not MADE_BY_RUNS & set(path.relative_to(project).parts)
    }


@pytest.mark.parametrize("name", [PLAIN, *PROJECTS])
def test_an_app_is_set_up_and_tested_as_it_is(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = copy_of(name, tmp_path)
    before = contents(project)

    first = init(project)
    assert first.code == 0, first.output
    written = contents(project)
    assert written != before
    for path, text in before.items():
        assert written[path].startswith(text), f"{path} was not only added to"

    if name in OF_THEIR_OWN:
        (project / "tests" / "test_own.py").write_text(OF_THEIR_OWN[name])
    written = contents(project)

    tested = run("pytest", cwd=project, timeout_s=PYTEST_S)
    assert tested.code == 0, tested.output
    passed = re.search(r"(\d+) passed", tested.output)
    assert passed is not None, tested.output
    assert int(passed[1]) >= FIRST_TESTS + (name in OF_THEIR_OWN), tested.output
    assert "skipped" not in tested.output
    assert contents(project) == written

    again = init(project)
    assert again.code == 0, again.output
    assert "a worker has started with these settings before" in again.output
    assert contents(project) == written

    with capsys.disabled():
        seconds = f"harness init {first.seconds:.0f} s, pytest {tested.seconds:.0f} s, init again {again.seconds:.0f} s"
        print(f"\n{name}: {seconds}")  # noqa: T201 - whoever waits for it wants to know.


def test_an_app_that_cannot_be_imported_is_not_green(tmp_path: Path) -> None:
    project = copy_of(PLAIN, tmp_path)
    with (project / "shop" / "app.py").open("a") as file:
        file.write("import missing_package\n")
    done = init(project)
    assert done.code != 0, done.output
    assert "missing_package" in done.output
