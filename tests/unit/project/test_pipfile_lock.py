"""What of a Pipfile.lock is installed for a worker."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ProjectError
from harness.project.files import Choice, Requirements
from harness.project.pipfile_lock import python_of, read
from harness.project.target import Target

LOCK: dict[str, Any] = {
    "_meta": {
        "hash": {"sha256": "00"},
        "pipfile-spec": 6,
        "requires": {"python_version": "3.11"},
        "sources": [
            {"name": "first", "url": "https://index.example/simple", "verify_ssl": True},
            {"name": "own", "url": "https://own.example/simple", "verify_ssl": True},
        ],
    },
    "default": {
        "celery": {"hashes": ["sha256:c1"], "index": "first", "version": "==5.3.6", "extras": ["redis"]},
        "tzdata": {"hashes": ["sha256:72"], "markers": "python_version >= '2'", "version": "==2025.1"},
        "winloop": {"hashes": ["sha256:44"], "markers": "sys_platform == 'win32'", "version": "==0.1"},
    },
    "develop": {"pytest": {"hashes": ["sha256:99"], "version": "==8.4.0"}},
}


def locked(folder: Path, lock: object = LOCK, choice: Choice | None = None) -> Requirements:
    path = folder / "Pipfile.lock"
    path.write_text(lock if isinstance(lock, str) else json.dumps(lock))
    return read(path, Target("3.13"), choice or Choice())


def test_the_default_category_is_pinned_with_its_hashes_and_all_indexes_are_asked(tmp_path: Path) -> None:
    assert locked(tmp_path).lines == (
        "--extra-index-url https://own.example/simple",
        "celery==5.3.6 --hash=sha256:c1",
        "tzdata==2025.1 --hash=sha256:72",
    )


def test_the_category_for_development_is_there_if_it_is_named(tmp_path: Path) -> None:
    lines = locked(tmp_path, choice=Choice(groups=frozenset({"dev"}))).lines
    assert "pytest==8.4.0 --hash=sha256:99" in lines


def test_a_repository_becomes_a_direct_reference_and_the_own_code_is_left_out(tmp_path: Path) -> None:
    more = {"own": {"git": "https://git.example/own", "ref": "abc"}, "shop": {"editable": True, "path": "."}}
    found = locked(tmp_path, {**LOCK, "default": {**LOCK["default"], **more}})
    assert "own @ git+https://git.example/own@abc" in found.lines
    assert found.left_out == ("shop: the app's own code, .: it is mounted",)


@pytest.mark.parametrize(
    ("lock", "said"),
    [
        ("{", "is no JSON"),
        ({"_meta": {}}, "has no group default"),
        ({**LOCK, "default": {"celery": {"hashes": []}}}, "is not what Pipenv writes: 'version' is missing"),
        ({**LOCK, "default": ["celery"]}, "is not what Pipenv writes"),
    ],
)
def test_a_damaged_lock_is_told_by_its_name(tmp_path: Path, lock: object, said: str) -> None:
    with pytest.raises(ProjectError, match=said) as told:
        locked(tmp_path, lock)
    assert str(tmp_path / "Pipfile.lock") in str(told.value)


def test_the_python_of_the_pipfile_comes_before_that_of_its_lock(tmp_path: Path) -> None:
    assert python_of(tmp_path) is None
    locked(tmp_path)
    assert python_of(tmp_path) == ("3.11", "Pipfile.lock")
    (tmp_path / "Pipfile").write_text('[requires]\npython_version = "3.13"\n')
    assert python_of(tmp_path) == ("3.13", "Pipfile")
    (tmp_path / "Pipfile").write_text("[requires\n")
    with pytest.raises(ProjectError, match="Pipfile is no TOML"):
        python_of(tmp_path)
