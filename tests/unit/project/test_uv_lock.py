"""What of a uv.lock is installed for a worker."""

from pathlib import Path

import pytest

from harness.errors import ProjectError
from harness.project.files import Choice, Requirements
from harness.project.target import Target
from harness.project.uv_lock import read

LOCK = """
version = 1
revision = 3
requires-python = ">=3.11"

[[package]]
name = "async-timeout"
version = "5.0.1"
source = { registry = "https://index.example/simple" }
sdist = { url = "https://files.example/async_timeout-5.0.1.tar.gz", hash = "sha256:a0", size = 1 }

[[package]]
name = "celery"
version = "5.4.0"
source = { registry = "https://index.example/simple" }
dependencies = [
    { name = "kombu" },
    { name = "colorama", marker = "sys_platform == 'win32'" },
]
sdist = { url = "https://files.example/celery-5.4.0.tar.gz", hash = "sha256:c0", size = 1 }
wheels = [{ url = "https://files.example/celery-5.4.0-py3-none-any.whl", hash = "sha256:c1", size = 1 }]

[package.optional-dependencies]
redis = [{ name = "redis" }]

[[package]]
name = "colorama"
version = "0.4.6"
source = { registry = "https://index.example/simple" }
wheels = [{ url = "https://files.example/colorama.whl", hash = "sha256:d1", size = 1 }]

[[package]]
name = "kombu"
version = "5.4.2"
source = { registry = "https://index.example/simple" }
wheels = [{ url = "https://files.example/kombu.whl", hash = "sha256:e1", size = 1 }]

[[package]]
name = "numpy"
version = "1.26.4"
source = { registry = "https://index.example/simple" }
wheels = [{ url = "https://files.example/numpy-1.whl", hash = "sha256:f1", size = 1 }]

[[package]]
name = "numpy"
version = "2.3.0"
source = { registry = "https://index.example/simple" }
wheels = [{ url = "https://files.example/numpy-2.whl", hash = "sha256:f2", size = 1 }]

[[package]]
name = "pytest"
version = "8.4.0"
source = { registry = "https://index.example/simple" }
wheels = [{ url = "https://files.example/pytest.whl", hash = "sha256:99", size = 1 }]

[[package]]
name = "redis"
version = "5.2.1"
source = { registry = "https://index.example/simple" }
dependencies = [{ name = "async-timeout", marker = "python_full_version < '3.11.3'" }]
wheels = [{ url = "https://files.example/redis.whl", hash = "sha256:aa", size = 1 }]

[[package]]
name = "shop"
version = "0.1.0"
source = { editable = "." }
dependencies = [
    { name = "celery", extra = ["redis"] },
    { name = "numpy", version = "1.26.4", source = { registry = "i" }, marker = "python_full_version < '3.12'" },
    { name = "numpy", version = "2.3.0", source = { registry = "i" }, marker = "python_full_version >= '3.12'" },
]

[package.optional-dependencies]
mail = [{ name = "colorama" }]

[package.dev-dependencies]
dev = [{ name = "pytest" }]
"""
HASH = " --hash=sha256:"


def locked(folder: Path, text: str = LOCK, python: str = "3.13", choice: Choice | None = None) -> Requirements:
    path = folder / "uv.lock"
    path.write_text(text)
    return read(path, Target(python), choice or Choice())


def test_what_production_needs_is_pinned_with_its_hashes_and_nothing_else(tmp_path: Path) -> None:
    found = locked(tmp_path)
    assert found.lines == (
        f"celery==5.4.0{HASH}c1{HASH}c0",
        f"kombu==5.4.2{HASH}e1",
        f"numpy==2.3.0{HASH}f2",
        f"redis==5.2.1{HASH}aa",
    )
    assert (found.exact, found.requires_python) == (True, ">=3.11")
    assert found.left_out == ("shop: the app's own code, .: it is mounted",)


def test_what_depends_on_the_patch_version_keeps_its_marker_for_pip_to_decide(tmp_path: Path) -> None:
    lines = locked(tmp_path, python="3.11").lines
    assert f"async-timeout==5.0.1 ; (python_full_version < '3.11.3'){HASH}a0" in lines
    assert f"numpy==1.26.4{HASH}f1" in lines
    assert not any(line.startswith("numpy==2") for line in lines)


def test_a_group_and_an_extra_are_there_if_they_are_named(tmp_path: Path) -> None:
    choice = Choice(extras=frozenset({"mail"}), groups=frozenset({"dev"}))
    lines = locked(tmp_path, choice=choice).lines
    assert {f"colorama==0.4.6{HASH}d1", f"pytest==8.4.0{HASH}99"} <= set(lines)


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (Choice(groups=frozenset({"lint"})), "has no group lint; it has dev"),
        (Choice(extras=frozenset({"sms"})), "has no extra sms; it has mail"),
    ],
)
def test_a_group_or_an_extra_that_is_not_there_is_told_with_those_that_are(
    tmp_path: Path, choice: Choice, said: str
) -> None:
    with pytest.raises(ProjectError, match=said):
        locked(tmp_path, choice=choice)


def test_a_git_source_becomes_a_direct_reference_and_then_no_line_has_a_hash(tmp_path: Path) -> None:
    text = LOCK.replace(
        'version = "5.4.2"\nsource = { registry = "https://index.example/simple" }',
        'version = "5.4.2"\nsource = { git = "https://git.example/kombu?rev=main#0123abc" }',
    )
    lines = locked(tmp_path, text).lines
    assert "kombu @ git+https://git.example/kombu@0123abc" in lines
    assert not any("--hash" in line for line in lines)


def test_a_second_index_is_asked_too(tmp_path: Path) -> None:
    text = LOCK.replace(
        'version = "5.2.1"\nsource = { registry = "https://index.example/simple" }',
        'version = "5.2.1"\nsource = { registry = "https://own.example/simple" }',
    )
    assert locked(tmp_path, text).lines[0] == "--extra-index-url https://own.example/simple"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("version = 1\n", "version = 7\n", "has the format version 7; known is 1"),
        ("version = 1\n", "version = \n", "is no TOML"),
        ('name = "kombu"\nversion', 'name = "combo"\nversion', "kombu is needed, and there is no such package in it"),
        ('source = { editable = "." }', "", "is not what uv writes: 'source' is missing"),
        ("sys_platform == 'win32'", "sys_platform is windows", "is not what uv writes"),
        ('source = { editable = "." }', 'source = { registry = "https://index.example" }', "has no project of its own"),
        ('dependencies = [\n    { name = "kombu" }', 'dependencies = [\n    "kombu"', "is not what uv writes"),
    ],
)
def test_a_damaged_lock_is_told_by_its_name(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in LOCK
    with pytest.raises(ProjectError, match=said) as told:
        locked(tmp_path, LOCK.replace(old, new, 1))
    assert str(tmp_path / "uv.lock") in str(told.value)
