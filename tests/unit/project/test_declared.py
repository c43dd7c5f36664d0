"""What of a declaration without a lock is installed for a worker: pyproject.toml and setup.cfg."""

from pathlib import Path

import pytest

from harness.errors import ProjectError
from harness.project.declared import has_dependencies, has_requires, read_pyproject, read_setup_cfg
from harness.project.files import Choice, Requirements

STANDARD = """
[project]
name = "Shop"
requires-python = ">=3.11"
dependencies = ["celery[redis]>=5.4", 'tzdata ; sys_platform == "win32"']

[project.optional-dependencies]
mail = ["jinja2"]
all = ["shop[mail]", "uvicorn"]

[dependency-groups]
worker = ["gevent", { include-group = "common" }]
common = ["orjson"]
round = [{ include-group = "about" }]
about = [{ include-group = "round" }]
"""
POETRY = """
[tool.poetry.dependencies]
python = "^3.11"
celery = {version = "^5.3.6", extras = ["redis"]}
orjson = "~3.10"
own = {git = "https://git.example/own", tag = "v1"}
common = {path = "../common"}
sentry-sdk = {version = "*", optional = true}

[tool.poetry.extras]
sentry = ["sentry-sdk"]

[tool.poetry.group.worker.dependencies]
gevent = ">=24"
"""
SETUP = """
[options]
python_requires = >=3.11
install_requires =
    celery>=5.3  # The worker.
    Django; python_version >= "3.11"

[options.extras_require]
mail = jinja2
"""


def declared(folder: Path, text: str, choice: Choice | None = None) -> Requirements:
    (folder / "pyproject.toml").write_text(text)
    return read_pyproject(folder, choice or Choice())


def choose(*, extras: str = "", groups: str = "") -> Choice:
    return Choice(extras=frozenset(extras.split()), groups=frozenset(groups.split()))


def test_the_standard_table_is_taken_as_it_stands(tmp_path: Path) -> None:
    found = declared(tmp_path, STANDARD)
    assert found.lines == ("celery[redis]>=5.4", 'tzdata ; sys_platform == "win32"')
    assert (found.exact, found.requires_python) == (False, ">=3.11")
    assert has_dependencies(tmp_path)


def test_an_extra_may_name_others_and_a_group_may_include_others(tmp_path: Path) -> None:
    found = declared(tmp_path, STANDARD, choose(extras="all", groups="worker"))
    assert found.lines[2:] == ("jinja2", "uvicorn", "gevent", "orjson")


def test_poetrys_table_is_said_in_pips_words(tmp_path: Path) -> None:
    found = declared(tmp_path, POETRY, choose(extras="sentry", groups="worker"))
    assert [line.replace("<6,>=5.3.6", ">=5.3.6,<6") for line in found.lines] == [
        "celery[redis]>=5.3.6,<6",
        *(line for line in found.lines if line.startswith("orjson")),
        "own @ git+https://git.example/own@v1",
        "sentry-sdk",
        "gevent>=24",
    ]


def test_dependencies_that_setuptools_reads_from_a_file_are_read_from_it(tmp_path: Path) -> None:
    (tmp_path / "needs.txt").write_text("celery==5.4\n")
    text = '[project]\ndynamic = ["dependencies"]\n[tool.setuptools.dynamic]\ndependencies = { file = ["needs.txt"] }\n'
    assert declared(tmp_path, text).lines == ("celery==5.4",)
    (tmp_path / "needs.txt").unlink()
    with pytest.raises(ProjectError, match=r"needs\.txt is not there"):
        declared(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "choice", "said"),
    [
        (STANDARD, choose(extras="sms"), "has no extra sms; it has all, mail"),
        (STANDARD, choose(groups="docs"), "has no group docs; it has about, common, round, worker"),
        (STANDARD, choose(groups="round"), "the group round includes itself: round -> about -> round"),
        (STANDARD.replace('"shop[mail]"', '"shop[all]"'), choose(extras="all"), "the extra all includes itself"),
        (STANDARD.replace(">=5.4", ">>5.4"), choose(), r"is not a pyproject\.toml"),
        ('[project]\ndynamic = ["dependencies"]\n', choose(), "leaves its dependencies to the build"),
        (POETRY.replace("~3.10", "^3 || ^4"), choose(), r"allows \^3 \|\| \^4 of orjson, .* lock it"),
        ("[project\n", choose(), "is no TOML"),
        ("project = 3\n", choose(), r"is not a pyproject\.toml"),
    ],
)
def test_what_cannot_be_told_is_refused_by_name(tmp_path: Path, text: str, choice: Choice, said: str) -> None:
    with pytest.raises(ProjectError, match=said) as told:
        declared(tmp_path, text, choice)
    assert str(tmp_path / "pyproject.toml") in str(told.value)


def test_a_setup_cfg_is_taken_with_the_extras_that_are_named(tmp_path: Path) -> None:
    (tmp_path / "setup.cfg").write_text(SETUP)
    assert has_requires(tmp_path)
    found = read_setup_cfg(tmp_path, choose(extras="mail"))
    assert found.lines == ("celery>=5.3", 'Django; python_version >= "3.11"', "jinja2")
    assert found.requires_python == ">=3.11"


@pytest.mark.parametrize(
    ("text", "choice", "said"),
    [
        (SETUP, choose(groups="dev"), "has no group dev: a setup.cfg has none"),
        (SETUP, choose(extras="sms"), "has no extra sms; it has mail"),
        (SETUP.replace("celery>=5.3", "celery >= five"), choose(), r"is not a setup\.cfg"),
        ("install_requires = celery\n", choose(), r"is no setup\.cfg"),
    ],
)
def test_a_setup_cfg_that_does_not_fit_is_refused_by_name(tmp_path: Path, text: str, choice: Choice, said: str) -> None:
    (tmp_path / "setup.cfg").write_text(text)
    with pytest.raises(ProjectError, match=said):
        read_setup_cfg(tmp_path, choice)
