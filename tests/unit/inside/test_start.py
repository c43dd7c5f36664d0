"""What an image lacks is told in one line, before anything can fail."""

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest
from celery.app import utils

from harness.containers import node
from harness.inside import start
from harness.inside.image_check import installed, missing
from harness.inside.missing_module import AppImport

RESULTS = "db+sqlite:////harness/run/results.sqlite3"
OLD_PYTHON, NEW_PYTHON = (3, 11), (3, 13)


def said(
    versions: Mapping[str, str | None], python: tuple[int, int] = NEW_PYTHON, results: str = RESULTS
) -> str | None:
    """Return what `missing` says of an image with these packages."""
    return missing(results, version={"celery": "5.7.0", "sqlalchemy": "2.1.9", **versions}.get, python=python)


@pytest.mark.parametrize(
    ("celery", "python"),
    [
        ("5.2.0", OLD_PYTHON),
        ("5.2.7", OLD_PYTHON),
        ("5.3.0", NEW_PYTHON),
        ("5.7.0", NEW_PYTHON),
        ("5.8.0rc1", NEW_PYTHON),
        ("10.0", NEW_PYTHON),
        # Where a package does not say its version, it is tried.
        ("", NEW_PYTHON),
        ("main", NEW_PYTHON),
    ],
)
def test_a_celery_that_runs_is_let_through(celery: str, python: tuple[int, int]) -> None:
    assert said({"celery": celery}, python) is None


@pytest.mark.parametrize("celery", ["3.1.26", "4.4.7", "5.0.0", "5.1.2", "5.1.0rc1"])
@pytest.mark.parametrize("python", [OLD_PYTHON, NEW_PYTHON])
def test_an_older_celery_is_refused_with_the_oldest_that_runs(celery: str, python: tuple[int, int]) -> None:
    told = said({"celery": celery}, python)
    assert told is not None
    assert told.startswith(f"Celery {celery} is too old: the harness runs Celery 5.2 or newer.")


@pytest.mark.parametrize("python", [(3, 12), NEW_PYTHON])
def test_a_celery_that_cannot_run_on_this_python_is_refused_with_both_ways_out(python: tuple[int, int]) -> None:
    told = said({"celery": "5.2.7"}, python)
    assert told is not None
    assert told.startswith("Celery 5.2.7 cannot run on Python 3.1")
    assert "on Python 3.11, or install Celery 5.3 or newer" in told


def test_no_celery_at_all_is_refused() -> None:
    assert said({"celery": None}) == "the image's Python 3.13 has no Celery: install Celery 5.2 or newer."


def test_sqlalchemy_is_needed_where_results_go_into_a_database_and_nowhere_else() -> None:
    told = said({"sqlalchemy": None})
    assert told is not None
    assert told.startswith("the image's Python 3.13 has no SQLAlchemy")
    assert said({"sqlalchemy": None}, results="redis://cache") is None
    assert said({"sqlalchemy": ""}) is None


def test_the_version_of_a_package_is_known_without_importing_it() -> None:
    program = "from harness.inside.image_check import installed; import sys; print(installed('celery'), *sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    version, *modules = done.stdout.split()
    assert version[0].isdigit()
    assert {"celery", "kombu"}.isdisjoint(modules)
    assert installed("no_such_package") is None
    # A package without metadata.
    assert installed("tests") == ""


# ------------------------------------------------------------------------------------------------- the first program

PROGRAM = Path(start.__file__)


def test_the_first_program_can_be_read_by_an_old_python() -> None:
    tree = ast.parse(PROGRAM.read_text(), feature_version=(3, 6))
    first = [alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names]
    assert first == ["contextlib", "os", "runpy", "sys"]
    assert not [node for node in tree.body if isinstance(node, ast.ImportFrom)]


def test_an_old_python_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 8, 18, "final", 0))
    monkeypatch.setattr(sys, "argv", ["start.py", "smtp_server"])
    with pytest.raises(SystemExit) as end:
        start.main()
    told = str(end.value.code)
    assert told.startswith("celery-harness: Python 3.8 is too old")
    assert "has to be 3.11 or newer" in told
    assert "\n" not in told


def test_it_becomes_the_module_that_is_named_whatever_lies_beside_it_or_in_the_working_directory(
    tmp_path: Path,
) -> None:
    (tmp_path / "harness").mkdir()
    (tmp_path / "harness" / "__init__.py").write_text("raise RuntimeError('not this one')\n")
    done = subprocess.run(
        [sys.executable, PROGRAM, "agent", "--version"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(PROGRAM.parents[2]), "HARNESS_JOURNAL": str(tmp_path), "HARNESS_NODE": "worker-1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(str(installed("celery")))


@pytest.mark.parametrize(("pool", "expected"), [("gevent", "gevent"), ("threads", "_thread")])
def test_what_celery_keeps_for_each_thread_it_keeps_for_each_greenlet_of_such_a_pool(
    tmp_path: Path, pool: str, expected: str
) -> None:
    (tmp_path / "green.py").write_text(
        "from celery import _state\nprint(type(_state._tls).__base__.__module__.partition('.')[0])\nraise SystemExit\n"
    )
    done = subprocess.run(
        [sys.executable, PROGRAM, "agent", "-A", "green", "worker", f"--pool={pool}"],
        cwd=tmp_path,
        env={
            "PYTHONPATH": f"{PROGRAM.parents[2]}:{tmp_path}",
            "HARNESS_JOURNAL": str(tmp_path),
            "HARNESS_NODE": "worker-1",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.strip() == expected, done.stderr


def test_the_node_knows_the_reason_by_how_it_begins() -> None:
    assert node._REASON == start.MARK  # noqa: SLF001 - neither file can import the other.


# ------------------------------------------------------------------------------------------------- the app's modules


@pytest.fixture
def app_import(monkeypatch: pytest.MonkeyPatch) -> AppImport:
    monkeypatch.setattr(utils, "find_app", utils.find_app)  # It is put back after the test.
    app_import = AppImport()
    app_import.watch()
    return app_import


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "found_app.py").write_text("from celery import Celery\napp = Celery('found', set_as_current=False)\n")
    (tmp_path / "needy_app.py").write_text("import json\nimport a_package_that_is_not_there\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("found_app", "needy_app"):
        sys.modules.pop(name, None)


def as_celery_does(app: str, then: Callable[[], object] | None = None) -> None:
    """Import an app, and end as Celery's command line does if that fails; else do the rest."""
    try:
        utils.find_app(app)
    except ModuleNotFoundError:
        sys.exit(2)
    if then is not None:
        then()


@pytest.mark.usefixtures("folder")
def test_a_package_that_is_not_there_is_named_with_the_line_that_needs_it(
    app_import: AppImport, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end, app_import.told():
        as_celery_does("needy_app")
    assert end.value.code == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("celery-harness: No module named 'a_package_that_is_not_there': ")
    assert "needy_app.py, line 2, needs it" in told
    assert "in the setting `dependencies`, or name an image that has it in HARNESS_WORKER_IMAGE" in told


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("app", ["absent_app", "absent_app.tasks:celery"])
def test_an_app_that_is_not_there_is_looked_for_in_its_folder(
    app_import: AppImport, capsys: pytest.CaptureFixture[str], app: str
) -> None:
    with pytest.raises(SystemExit), app_import.told():
        as_celery_does(app)
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("celery-harness: No module named 'absent_app': `-A` is imported from the app's folder")
    assert "HARNESS_WORKER_IMAGE" not in told


@pytest.mark.usefixtures("folder")
def test_what_an_app_includes_is_told_after_its_traceback(
    app_import: AppImport, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end, app_import.told():
        as_celery_does("found_app", then=partial(__import__, "another_package_that_is_not_there"))
    assert end.value.code == 1
    *traceback, told = capsys.readouterr().err.splitlines()
    assert traceback[-1] == "ModuleNotFoundError: No module named 'another_package_that_is_not_there'"
    assert told.startswith("celery-harness: No module named 'another_package_that_is_not_there': ")


@pytest.mark.usefixtures("folder")
def test_a_worker_that_ends_in_good_order_says_nothing(
    app_import: AppImport, capsys: pytest.CaptureFixture[str]
) -> None:
    # Celery looks for `found_app.celery` as well, which is no module.
    with pytest.raises(SystemExit) as end, app_import.told():
        as_celery_does("found_app", then=sys.exit)
    assert not end.value.code
    assert capsys.readouterr().err == ""
