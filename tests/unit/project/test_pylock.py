"""What of a pylock.toml is installed for a worker."""

from pathlib import Path

import pytest

from harness.errors import ProjectError
from harness.project.files import Choice, Requirements
from harness.project.pylock import read
from harness.project.target import Target

LOCK = """
lock-version = "1.0"
requires-python = ">=3.11"
extras = ["redis"]
dependency-groups = ["default", "dev"]
default-groups = ["default"]
created-by = "a locker"

[[packages]]
name = "celery"
version = "5.5.3"
index = "https://index.example/simple"
wheels = [{ name = "celery.whl", url = "https://files.example/celery.whl", hashes = { sha256 = "c1" } }]
sdist = { name = "celery.tar.gz", url = "https://files.example/celery.tar.gz", hashes = { sha256 = "c0" } }

[[packages]]
name = "redis"
version = "5.2.1"
marker = "'redis' in extras"
wheels = [{ name = "redis.whl", url = "https://files.example/redis.whl", hashes = { sha256 = "aa" } }]

[[packages]]
name = "pytest"
version = "8.4.0"
marker = "'dev' in dependency_groups"
wheels = [{ name = "pytest.whl", url = "https://files.example/pytest.whl", hashes = { sha256 = "99" } }]

[[packages]]
name = "shared"
version = "1.0"
marker = "'default' in dependency_groups and python_full_version >= '3.13.2'"
wheels = [{ name = "shared.whl", url = "https://files.example/shared.whl", hashes = { sha256 = "55" } }]

[[packages]]
name = "winloop"
version = "0.1"
marker = "sys_platform == 'win32'"
wheels = [{ name = "winloop.whl", url = "https://files.example/winloop.whl", hashes = { sha256 = "44" } }]

[[packages]]
name = "shop"
directory = { path = ".", editable = true }
"""


def locked(folder: Path, text: str = LOCK, choice: Choice | None = None) -> Requirements:
    path = folder / "pylock.toml"
    path.write_text(text)
    return read(path, Target("3.13"), choice or Choice())


def test_the_default_groups_are_pinned_and_what_pip_can_decide_keeps_its_marker(tmp_path: Path) -> None:
    found = locked(tmp_path)
    assert found.lines == (
        "celery==5.5.3 --hash=sha256:c1 --hash=sha256:c0",
        "shared==1.0 ; python_version >= '0' and python_full_version >= '3.13.2' --hash=sha256:55",
    )
    assert found.left_out == ("shop: the app's own code, .: it is mounted",)
    assert found.requires_python == ">=3.11"


def test_an_extra_and_a_group_are_there_if_they_are_named(tmp_path: Path) -> None:
    lines = locked(tmp_path, choice=Choice(extras=frozenset({"redis"}), groups=frozenset({"dev"}))).lines
    assert [line.partition("==")[0] for line in lines] == ["celery", "redis", "pytest", "shared"]


def test_repositories_and_archives_become_direct_references(tmp_path: Path) -> None:
    text = LOCK.replace(
        'name = "winloop"\nversion = "0.1"\nmarker = "sys_platform == \'win32\'"\nwheels = [',
        'name = "own"\n'
        'vcs = { type = "git", url = "https://git.example/own", commit-id = "abc", subdirectory = "py" }\n'
        '[[packages]]\nname = "packed"\narchive = { url = "https://files.example/packed.zip", hashes = {} }\n#',
    )
    lines = locked(tmp_path, text).lines
    assert "own @ git+https://git.example/own@abc#subdirectory=py" in lines
    assert "packed @ https://files.example/packed.zip" in lines


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('lock-version = "1.0"', 'lock-version = "2.0"', "has the format version 2.0; known is 1.x"),
        ('lock-version = "1.0"', "", "is not a lock file as PEP 751 defines it: 'lock-version' is missing"),
        ('version = "5.5.3"\n', "", "'version' is missing"),
        ("'redis' in extras", "'redis' within extras", "is not a lock file as PEP 751 defines it"),
        ("[[packages]]", "[packages]", "is no TOML"),
    ],
)
def test_a_damaged_lock_is_told_by_its_name(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in LOCK
    with pytest.raises(ProjectError, match=said) as told:
        locked(tmp_path, LOCK.replace(old, new, 1))
    assert str(tmp_path / "pylock.toml") in str(told.value)


def test_an_extra_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="has no sms among its extras; it has redis"):
        locked(tmp_path, choice=Choice(extras=frozenset({"sms"})))
