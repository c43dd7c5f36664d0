"""The package as it is built and installed: outside the checkout, in environments with the base alone or one extra."""

import os
import shutil
import subprocess
import sys
import tarfile
import textwrap
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.audit.run_folder import RunFolder
from tests.fakes.world import World

ROOT = Path(__file__).parents[2]
EXTRAS = ("", "pytest", "pytest-celery", "load", "scenarios", "services")
"""The empty one is the base."""
NEEDS = {
    "harness.plugin": ("pytest", "pytest-celery"),
    "harness.celery_setup": ("pytest-celery",),
    "harness.load": ("load",),
    "harness.loadtest": ("load",),
    "harness.containers.postgresql": ("services",),
    "harness.containers.redis": ("services",),
    # What the node image has.
    "harness.inside.amqp_frames": (),
    "harness.inside.link_control": (),
    "harness.inside.smtp_server": (),
    "harness.inside.tcp_link": (),
    "harness.inside.web": (),
}
"""Which extras a module or a package needs, each of them alone; the base is enough for all others."""
INSTALL_S, RUN_S = 600, 300


@dataclass(frozen=True)
class Built:
    """The distributions, as they come from the checkout."""

    sdist: Path
    wheel: Path
    """Made from the sdist."""
    direct: Path
    """The wheel that is made from the checkout itself."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment into which the wheel was installed."""

    folder: Path

    def run(self, command: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run one of its commands in a folder that has nothing of the checkout."""
        return subprocess.run(
            [self.folder / "bin" / command, *arguments],
            cwd=cwd,
            env=_plain_environment(),
            capture_output=True,
            text=True,
            timeout=RUN_S,
            check=False,
        )


def _plain_environment() -> dict[str, str]:
    """Return the environment of a user without a checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "PYTHON", "HARNESS_"))}
    return {**kept, "NO_COLOR": "1"}


def _run(*command: str | Path) -> None:
    done = subprocess.run(
        command, env=_plain_environment(), capture_output=True, text=True, timeout=INSTALL_S, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-2_000:]}{done.stderr[-2_000:]}"


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    whole, direct = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("direct")
    _run(sys.executable, "-m", "build", "--outdir", whole, ROOT)
    _run(sys.executable, "-m", "build", "--wheel", "--outdir", direct, ROOT)
    ((sdist,), (wheel,), (alone,)) = whole.glob("*.tar.gz"), whole.glob("*.whl"), direct.glob("*.whl")
    return Built(sdist=sdist, wheel=wheel, direct=alone)


@pytest.fixture(scope="session")
def environments(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Future[Environment]]]:
    """Yield a future for each extra, whose result is the environment with it installed."""
    folder = tmp_path_factory.mktemp("environments")

    def install(extra: str) -> Environment:
        environment = folder / (extra or "base")
        _run(sys.executable, "-m", "venv", environment)
        wanted = f"{built.wheel}[{extra}]" if extra else str(built.wheel)
        pip = (environment / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        _run(*pip, "--constraint", ROOT / "constraints.txt", wanted)
        return Environment(environment)

    with ThreadPoolExecutor(2) as pool:
        yield {extra: pool.submit(install, extra) for extra in EXTRAS}


@pytest.fixture
def base(environments: Mapping[str, Future[Environment]]) -> Environment:
    return environments[""].result()


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def modules(wheel: Path) -> list[str]:
    paths = [Path(name) for name in contents(wheel) if name.startswith("harness/") and name.endswith(".py")]
    names = (".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in paths)
    return sorted(names)


def extras_of(module: str) -> tuple[str, ...]:
    """Return the environments, by extra, that have all that a module imports."""
    return next((extras for name, extras in NEEDS.items() if f"{module}.".startswith(f"{name}.")), EXTRAS)


# --------------------------------------------------------------------------------------------- what is in the package


def test_the_sdist_builds_the_same_wheel_as_the_checkout(built: Built) -> None:
    assert contents(built.wheel) == contents(built.direct)


def test_whatever_the_program_reads_is_in_both(built: Built) -> None:
    listing = ["git", "ls-files", "harness", "docker", "constraints.txt"]
    files = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert "docker/node.Dockerfile" in files
    with tarfile.open(built.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert set(files) <= names
    moved = {file: file if file.startswith("harness/") else f"harness/{file}" for file in files}
    moved["constraints.txt"] = "harness/docker/constraints.txt"
    assert set(moved.values()) <= set(contents(built.wheel))


# ------------------------------------------------------------------------------------------------- what can be imported


@pytest.mark.parametrize("extra", EXTRAS)
def test_every_module_is_imported_where_it_is_to_be(
    built: Built, environments: Mapping[str, Future[Environment]], tmp_path: Path, extra: str
) -> None:
    names = [name for name in modules(built.wheel) if extra in extras_of(name)]
    assert "harness.commands.cli" in names
    importing = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)\n"
    # Locust patches what others import, so that it wants to be the first.
    names.sort(key=lambda name: name != "harness.load")
    done = environments[extra].result().run("python", "-c", importing, *names, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("module", "extra"), [("harness.load", "load"), ("harness.celery_setup", "pytest-celery")])
def test_a_module_without_its_extra_names_it_in_a_sentence(
    environments: Mapping[str, Future[Environment]], tmp_path: Path, module: str, extra: str
) -> None:
    done = environments["pytest"].result().run("python", "-c", f"import {module}", cwd=tmp_path)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: No module named")
    assert last.endswith(f"pip install 'celery-harness[{extra}]'")


def test_pytest_without_the_extra_says_so_in_a_sentence(
    environments: Mapping[str, Future[Environment]], tmp_path: Path
) -> None:
    done = environments["pytest"].result().run("pytest", "-p", "harness.celery_setup", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    told = "Install it with the harness: pip install 'celery-harness[pytest-celery]'"
    assert done.stderr == f"error: No module named 'pytest_celery'. {told}\n"


def test_it_installs_beside_what_celery_itself_brings_for_pytest(
    built: Built, base: Environment, tmp_path: Path
) -> None:
    # `pytest-celery[all]` wants an older urllib3 than constraints.txt has.
    pip = ("python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--dry-run")
    done = base.run(*pip, f"{built.wheel}[pytest-celery]", "celery[pytest]", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


# ------------------------------------------------------------------------------------------------------ what can be run


def test_the_command_says_what_it_can_do(base: Environment, tmp_path: Path) -> None:
    done = base.run("harness", "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "audit" in done.stdout


@pytest.mark.parametrize(("is_lost", "code", "verdict"), [(False, 0, "pass"), (True, 1, "fail")])
def test_a_stored_run_is_audited(base: Environment, tmp_path: Path, *, is_lost: bool, code: int, verdict: str) -> None:
    world = World(RunFolder.create(tmp_path, "run"))
    world.fine("a")
    if is_lost:
        world.intend("b")
    done = base.run("harness", "audit", str(world.write().path), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (code, "")
    assert verdict in done.stdout


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """Return a copy of the examples."""
    return Path(shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__")))


@pytest.mark.docker
def test_the_examples_pass(environments: Mapping[str, Future[Environment]], examples: Path) -> None:
    done = environments["pytest"].result().run("pytest", cwd=examples)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
    assert "21 ok" in done.stdout


@pytest.mark.docker
def test_without_its_setting_the_example_loses_a_task_as_the_readme_says(
    environments: Mapping[str, Future[Environment]], examples: Path
) -> None:
    app = examples / "shop" / "app.py"
    app.write_text(app.read_text().replace("app.conf.task_acks_late = True\n", ""))
    done = environments["pytest"].result().run("pytest", "-k", "killed", cwd=examples)
    assert done.returncode == 1
    told = " ".join(done.stdout.replace("\nE ", " ").split())
    readme = (ROOT / "README.md").read_text()
    sample = next(block for block in readme.split("```") if block.startswith("text\nAssertionError"))
    for words in " ".join(sample.removeprefix("text").split()).split("(f3cf76a3-939d-43d2-a90b-957a8dd3934c)"):
        assert words.strip() in told, done.stdout


@pytest.mark.docker
def test_the_example_runs_in_the_shell_and_under_load(
    environments: Mapping[str, Future[Environment]], examples: Path
) -> None:
    environment = environments["load"].result()
    done = environment.run("harness", "run", "shop.welcomes", "--count", "10", cwd=examples)
    assert done.returncode == 0, done.stdout + done.stderr
    done = environment.run("locust", "-f", "locustfile.py", "--headless", "--rate", "10", "-t", "3s", cwd=examples)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "30 ok" in done.stdout


@pytest.mark.docker
def test_a_test_of_pytest_celery_runs(environments: Mapping[str, Future[Environment]], tmp_path: Path) -> None:
    test = """
        from pytest_celery import RESULT_TIMEOUT, add


        def test_it_adds(celery_setup):
            queue = celery_setup.worker.worker_queue
            assert add.s(1, 2).apply_async(queue=queue).get(timeout=RESULT_TIMEOUT) == 3
    """
    (tmp_path / "test_add.py").write_text(textwrap.dedent(test))
    done = environments["pytest-celery"].result().run("pytest", "-p", "harness.celery_setup", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
    assert "1 ok" in done.stdout
