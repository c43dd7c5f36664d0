"""Which Python the image of a project has."""

from pathlib import Path

import pytest

from harness.errors import ProjectError
from harness.project.python_version import Python, cannot_be_had, python_of

NOBODY = ("", "")


def chosen(folder: Path, *, wanted: str | None = None, locked: tuple[str, str] = NOBODY, base: str = "") -> Python:
    return python_of(folder, wanted=wanted, locked=locked, base=base)


def test_where_nobody_demands_one_it_is_the_newest_that_needs_no_registry(tmp_path: Path) -> None:
    assert chosen(tmp_path) == Python("3.13")


def test_the_first_that_says_something_decides(tmp_path: Path) -> None:
    base = "mirror.example/python:3.14-slim"
    assert chosen(tmp_path, base=base) == Python("3.14", "Dockerfile", base)
    (tmp_path / "Pipfile").write_text('[requires]\npython_version = "3.11"\n')
    assert chosen(tmp_path, base=base) == Python("3.11", "Pipfile", "3.11")
    assert chosen(tmp_path, locked=("<3.13", "uv.lock")) == Python("3.11", "uv.lock", "<3.13")
    (tmp_path / "pyproject.toml").write_text('[project]\nrequires-python = ">=3.12,<3.13"\n')
    assert chosen(tmp_path, locked=("<3.13", "uv.lock")) == Python("3.12", "pyproject.toml", ">=3.12,<3.13")
    (tmp_path / ".python-version").write_text("# Ours.\n3.13.4\n")
    assert chosen(tmp_path) == Python("3.13", ".python-version", "3.13.4")
    assert chosen(tmp_path, wanted="3.11") == Python("3.11", "the settings", "3.11")


@pytest.mark.parametrize(
    ("demand", "version"),
    [
        (">=3.8", "3.13"),
        ("^3.11", "3.13"),
        ("~=3.11.4", "3.11"),
        ("==3.12.*", "3.12"),
        (">=3.14", "3.14"),
        ("<3.12 || >=3.14", "3.11"),
    ],
)
def test_a_range_gives_one_that_needs_no_registry_if_it_allows_one(tmp_path: Path, demand: str, version: str) -> None:
    (tmp_path / "pyproject.toml").write_text(f'[tool.poetry.dependencies]\npython = "{demand}"\n')
    assert chosen(tmp_path).version == version


@pytest.mark.parametrize("text", ["shop-env\n", "system\n", "\n"])
def test_a_python_version_file_that_names_an_environment_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / ".python-version").write_text(text)
    assert chosen(tmp_path) == Python("3.13")


@pytest.mark.parametrize("text", ["cpython@3.11\n", "python-3.11.4", "3.11-dev\n"])
def test_other_spellings_of_a_version_are_understood(tmp_path: Path, text: str) -> None:
    (tmp_path / ".python-version").write_text(text)
    assert chosen(tmp_path).version == "3.11"


@pytest.mark.parametrize(
    ("said", "reason", "nearest"),
    [
        ("3.9.1", "the harness's agent, which runs beside the app, needs Python 3.11 or newer", "3.11"),
        ("3.15", "there is no image of it", "3.14"),
        ("pypy3.11", "it is no version of CPython", "3.11"),
    ],
)
def test_a_version_that_cannot_be_had_names_its_file_and_the_way_out(
    tmp_path: Path, said: str, reason: str, nearest: str
) -> None:
    (tmp_path / ".python-version").write_text(said)
    with pytest.raises(ProjectError) as told:
        chosen(tmp_path)
    text = str(told.value)
    assert text.startswith(f".python-version demands Python {said}, which cannot be had: {reason}.")
    assert "Python 3.11, 3.12, 3.13, 3.14 can be had." in text
    assert f'set `python = "{nearest}"` in the settings' in text


def test_a_range_without_any_names_its_file_too(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"setup\.cfg demands Python <3\.11, which cannot be had"):
        chosen(tmp_path, locked=("<3.11", "setup.cfg"))
    with pytest.raises(ProjectError, match=r"uv\.lock demands the Python 'new', which is no version"):
        chosen(tmp_path, locked=("new", "uv.lock"))


def test_without_a_registry_only_what_debian_has_is_offered() -> None:
    text = str(cannot_be_had(Python("3.12", ".python-version", "3.12.3"), "nobody answers"))
    assert text == (
        ".python-version demands Python 3.12.3, which cannot be had: no registry gives it (nobody answers). "
        "Python 3.11, 3.13 can be had without a registry. "
        'To accept the nearest one, set `python = "3.13"` in the settings.'
    )
