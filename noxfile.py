"""All set-up in one command: ``nox -s integration`` and ``nox -s tests``, with pytest's arguments after ``--``."""

import hashlib
import os
import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2024.3.2"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["tests"]

_ROOT = Path(__file__).parent
_OLDEST = (3, 11)
_COVERED_PERCENT = 85
"""The share of the harness's lines that the tests without an engine have to run at least."""
_TESTS = ("tests/unit", "tests/contract", "tests/docker")


@nox.session
def integration(session: nox.Session) -> None:
    """Run the scenarios end to end, and account for every task that they sent."""
    _install(session, "test")
    session.run("pytest", "tests/integration", *session.posargs)


@nox.session
def load(session: nox.Session) -> None:
    """Run a short load test of all scenarios, and audit it; with options after ``--``, run `locust` with those."""
    _install(session, "test")
    options = session.posargs or ("--headless", "--rate=20", "--run-time=15s", "--objective=e2e:p99<10s")
    session.run("locust", "-f", "scenarios/load.py", *options)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the linters, the type checker, and the project's own tests."""
    _install(session, "dev")
    _lint(session)
    if session.posargs:
        session.run("pytest", *_TESTS, *session.posargs)
    else:
        _unit(session)
        _docker(session)


@nox.session
def lint(session: nox.Session) -> None:
    """Run the linters and the type checker alone."""
    _install(session, "dev")
    _lint(session)


@nox.session
def unit(session: nox.Session) -> None:
    """Run the tests that need no container engine."""
    _install(session, "test")
    _unit(session)


@nox.session
def docker(session: nox.Session) -> None:
    """Run the tests that need a container engine."""
    _install(session, "test")
    _docker(session)


@nox.session
def package(session: nox.Session) -> None:
    """Build the wheel and the sdist, and install them outside of the checkout with each extra by itself."""
    _install(session, "test")
    session.run("pytest", "tests/package", *session.posargs)


@nox.session
def examples(session: nox.Session) -> None:
    """Set up each example as a stranger does, with `harness init`, and run the tests that it writes."""
    _install(session, "test")
    session.run("pytest", "tests/examples", *session.posargs)


@nox.session
def versions(session: nox.Session) -> None:
    """Run an app on each Celery from 5.2 with each SQLAlchemy, and print the table."""
    _install(session, "test")
    session.run("pytest", "tests/versions", *session.posargs)


@nox.session
def catalogue(session: nox.Session) -> None:
    """Break a stack in each way that the harness knows, with each setting that is to blame and without it."""
    _install(session, "test")
    session.run("pytest", "tests/docker", "-m", "catalogue", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """Make four hundred clean runs, and hold each moment on each pool: an unreliable harness shows here."""
    _install(session, "test")
    session.run("pytest", "tests/soak", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Run the benchmarks, or those named after ``--``, and compare each with its target."""
    _install(session, "test")
    session.run("python", "-m", "tests.bench.run", *session.posargs)


@nox.session
def guarantees(session: nox.Session) -> None:
    """Measure what survives under each setting, three times, and write docs/guarantees.md anew."""
    _install(session, "test")
    session.run("python", "-m", "tests.guarantees.run", *session.posargs)


@nox.session
def upstream(session: nox.Session) -> None:
    """Run suites of other projects that are written for pytest-celery: all, or those named after ``--``."""
    _install(session, "test")
    session.run("python", "-m", "tests.upstream.run", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation as a site in build/site; a warning, or a link to nowhere, fails it."""
    _install(session, "docs")
    # A page that is no more must not stay in the site.
    shutil.rmtree(_ROOT / "build" / "site", ignore_errors=True)
    session.run("python", "-m", "docs.site.prepare", "build/pages")
    # Warnings are errors, and all pages are read anew: a link breaks when the page changes that it leads to.
    warnings = ("--fail-on-warning", "--keep-going", "--fresh-env")
    session.run("sphinx-build", "--quiet", *warnings, "--conf-dir", "docs/site", "build/pages", "build/site")
    session.run("python", "-m", "docs.site.outside", "build/site")


@nox.session
def mutants(session: nox.Session) -> None:
    """Small changes in what decides a verdict: do the unit tests notice each? ``-- --help`` shows the options."""
    _install(session, "test")
    session.run("python", "-m", "tests.mutants.run", *session.posargs)


def _lint(session: nox.Session) -> None:
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")


def _unit(session: nox.Session) -> None:
    # The floor is for all of them: of those that somebody chooses, nobody knows what they reach.
    command = ("pytest", *_TESTS, "-m", "not docker", "--numprocesses", "auto", *session.posargs)
    if session.posargs:
        session.run(*command)
        return
    session.env["COVERAGE_FILE"] = str(Path(session.virtualenv.location).resolve() / "coverage")
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", *command)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report", f"--fail-under={_COVERED_PERCENT}")


def _docker(session: nox.Session) -> None:
    # Most of these tests wait for a container or a timer, so that two processors bear two files at a time. The tests of
    # a file stay together: they share its stack. Chosen tests are run alone, where their output is seen at once.
    # The longest are told: whoever adds a test sees what it costs.
    side_by_side = () if session.posargs else ("--numprocesses", "2", "--dist", "loadfile", "--durations=30")
    wanted = "docker" if session.posargs else "docker and not catalogue"
    session.run("pytest", *_TESTS, "-m", wanted, *side_by_side, *session.posargs)


def _install(session: nox.Session, group: str) -> None:
    """Install the project, editable, and one of its dependency groups, unless that was done before.

    pip takes seconds to find that nothing is missing, so what was installed is remembered in the environment:
    when nox makes that anew, it is forgotten with it.
    """
    _refuse_old_python(session)
    _keep_bytecode(session)
    hashed = hashlib.sha256(group.encode())
    for name in ("pyproject.toml", "constraints.txt"):
        hashed.update((_ROOT / name).read_bytes())
    wanted = hashed.hexdigest()
    stamp = Path(session.virtualenv.location, "celery-harness-installed")
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    # Nothing may vouch for an installation that is broken off, or that `--no-install` leaves out.
    stamp.unlink(missing_ok=True)
    session.install(
        "--constraint",
        "constraints.txt",
        "--editable",
        ".[load,pytest,pytest-celery,scenarios,services]",
        "--group",
        group,
    )
    remember = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(sys.argv[2])"
    session.run_install("python", "-c", remember, stamp, wanted, log=False)


def _keep_bytecode(session: nox.Session) -> None:
    """Let Python keep its bytecode in the environment, where it is told to write none.

    The tests start hundreds of processes. Each would compile all that it imports: two seconds instead of one.
    """
    if os.environ.get("PYTHONDONTWRITEBYTECODE"):
        folder = Path(session.virtualenv.location).resolve() / "bytecode"
        session.env.update({"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder)})


def _refuse_old_python(session: nox.Session) -> None:
    said = session.run_install("python", "-c", "import sys; print(*sys.version_info[:3])", silent=True, log=False)
    if not isinstance(said, str):
        return  # `--no-install`: nothing is asked of the environment.
    version = tuple(int(part) for part in said.split())
    if version < _OLDEST:
        oldest, found = ".".join(map(str, _OLDEST)), ".".join(map(str, version))
        session.error(
            f"Celery Harness needs Python {oldest} or newer, and this is {found}: "
            f"python{oldest} -m pip install nox && python{oldest} -m nox -s {session.name}"
        )
