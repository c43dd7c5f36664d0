"""What of a poetry.lock is installed for a worker: of Poetry 1, of Poetry 1.5 to 2.0, and of Poetry 2.1."""

from pathlib import Path

import pytest

from harness.errors import ProjectError
from harness.project.files import Choice, Requirements
from harness.project.poetry_lock import read
from harness.project.poetry_versions import specifiers
from harness.project.target import Target

OLDEST = """
[[package]]
name = "celery"
version = "5.2.7"
category = "main"
optional = false
python-versions = ">=3.7"

[package.dependencies]
kombu = ">=5.2.3,<6.0"
pytz = {version = "*", markers = "python_version < \\"3.9\\""}

[[package]]
name = "kombu"
version = "5.3.7"
category = "main"
optional = false
python-versions = ">=3.8"

[[package]]
name = "pytest"
version = "7.0.0"
category = "dev"
optional = false
python-versions = "*"

[[package]]
name = "pytz"
version = "2022.1"
category = "main"
optional = false
python-versions = "*"

[metadata]
lock-version = "1.1"
python-versions = "^3.8"
content-hash = "00"

[metadata.files]
celery = [{file = "celery-5.2.7-py3-none-any.whl", hash = "sha256:c1"}]
kombu = [{file = "kombu-5.3.7-py3-none-any.whl", hash = "sha256:e1"}]
pytest = [{file = "pytest.whl", hash = "sha256:99"}]
pytz = [{file = "pytz.whl", hash = "sha256:98"}]
"""
MIDDLE = """
[[package]]
name = "celery"
version = "5.4.0"
optional = false
python-versions = ">=3.8"
files = [{file = "celery-5.4.0-py3-none-any.whl", hash = "sha256:c1"}]

[package.dependencies]
kombu = ">=5.3.4,<6.0"
redis = {version = ">=4.5.2,<6.0.0", optional = true, markers = "extra == \\"redis\\""}

[package.extras]
redis = ["redis (>=4.5.2,!=4.5.5,<6.0.0)"]

[[package]]
name = "common"
version = "0.1.0"
optional = false
python-versions = "*"
files = []
develop = true

[package.dependencies]
six = "*"

[package.source]
type = "directory"
url = "../common"

[[package]]
name = "kombu"
version = "5.4.2"
optional = false
python-versions = ">=3.8"
files = [{file = "kombu.whl", hash = "sha256:e1"}]

[[package]]
name = "pytest"
version = "8.0.0"
optional = false
python-versions = "*"
files = [{file = "pytest.whl", hash = "sha256:99"}]

[[package]]
name = "redis"
version = "5.2.1"
optional = false
python-versions = "*"
files = [{file = "redis.whl", hash = "sha256:aa"}]

[[package]]
name = "sentry-sdk"
version = "2.0.0"
optional = true
python-versions = "*"
files = [{file = "sentry.whl", hash = "sha256:bb"}]

[[package]]
name = "six"
version = "1.16.0"
optional = false
python-versions = "*"
files = [{file = "six.whl", hash = "sha256:66"}]

[extras]
sentry = ["sentry-sdk"]

[metadata]
lock-version = "2.0"
python-versions = "^3.11"
content-hash = "00"
"""
MIDDLE_PROJECT = """
[tool.poetry]
name = "shop"

[tool.poetry.dependencies]
python = "^3.11"
celery = {version = "^5.4", extras = ["redis"]}
common = {path = "../common", develop = true}
sentry-sdk = {version = "^2", optional = true}

[tool.poetry.extras]
sentry = ["sentry-sdk"]

[tool.poetry.group.dev.dependencies]
pytest = "^8"
"""
NEWEST = """
[[package]]
name = "async-timeout"
version = "5.0.1"
optional = false
python-versions = ">=3.8"
groups = ["main"]
markers = "python_full_version < \\"3.11.3\\""
files = [{file = "async_timeout.whl", hash = "sha256:a0"}]

[[package]]
name = "celery"
version = "5.5.3"
optional = false
python-versions = ">=3.8"
groups = ["main", "dev"]
files = [{file = "celery.whl", hash = "sha256:c1"}]

[[package]]
name = "colorama"
version = "0.4.6"
optional = false
python-versions = "*"
groups = ["main", "dev"]
markers = {main = "platform_system == \\"Windows\\"", dev = "sys_platform == \\"linux\\""}
files = [{file = "colorama.whl", hash = "sha256:d1"}]

[[package]]
name = "pytest"
version = "8.0.0"
optional = false
python-versions = "*"
groups = ["dev"]
files = [{file = "pytest.whl", hash = "sha256:99"}]

[[package]]
name = "sentry-sdk"
version = "2.0.0"
optional = true
python-versions = "*"
groups = ["main"]
markers = "extra == \\"sentry\\""
files = [{file = "sentry.whl", hash = "sha256:bb"}]

[extras]
sentry = ["sentry-sdk"]

[metadata]
lock-version = "2.1"
python-versions = ">=3.11"
content-hash = "00"
"""


def locked(
    folder: Path, text: str, *, project: str = "", python: str = "3.13", choice: Choice | None = None
) -> Requirements:
    path = folder / "poetry.lock"
    path.write_text(text)
    if project:
        (folder / "pyproject.toml").write_text(project)
    return read(path, Target(python), choice or Choice())


def names(found: Requirements) -> list[str]:
    return [line.partition("==")[0] for line in found.lines]


def test_of_poetry_1_the_category_main_is_taken_where_no_project_says_more(tmp_path: Path) -> None:
    found = locked(tmp_path, OLDEST)
    # What a package needs only for another Python is in the category as well, and harmless.
    assert found.lines == (
        "celery==5.2.7 --hash=sha256:c1",
        "kombu==5.3.7 --hash=sha256:e1",
        "pytz==2022.1 --hash=sha256:98",
    )
    assert found.requires_python == "^3.8"


def test_of_poetry_1_what_the_project_needs_decides(tmp_path: Path) -> None:
    found = locked(tmp_path, OLDEST, project='[tool.poetry.dependencies]\npython = "^3.8"\ncelery = "^5.2"\n')
    assert names(found) == ["celery", "kombu"]


def test_of_poetry_2_0_extras_of_packages_are_followed_and_the_own_code_is_left_out(tmp_path: Path) -> None:
    found = locked(tmp_path, MIDDLE, project=MIDDLE_PROJECT)
    assert names(found) == ["celery", "kombu", "redis", "six"]
    assert found.left_out == ("common: code of this machine, ../common: mount it or name it in the settings",)


def test_of_poetry_2_0_an_extra_and_a_group_are_there_if_they_are_named(tmp_path: Path) -> None:
    choice = Choice(extras=frozenset({"sentry"}), groups=frozenset({"dev"}))
    found = locked(tmp_path, MIDDLE, project=MIDDLE_PROJECT, choice=choice)
    assert {"sentry-sdk", "pytest"} <= set(names(found))


def test_a_standard_project_table_names_the_roots_as_well(tmp_path: Path) -> None:
    found = locked(tmp_path, MIDDLE, project='[project]\nname = "shop"\ndependencies = ["celery[redis]>=5.4"]\n')
    assert names(found) == ["celery", "kombu", "redis"]


def test_of_poetry_2_1_groups_and_markers_of_the_lock_decide(tmp_path: Path) -> None:
    assert locked(tmp_path, NEWEST).lines == ("celery==5.5.3 --hash=sha256:c1",)
    assert names(locked(tmp_path, NEWEST, choice=Choice(groups=frozenset({"dev"})))) == ["celery", "colorama", "pytest"]
    assert names(locked(tmp_path, NEWEST, choice=Choice(extras=frozenset({"sentry"})))) == ["celery", "sentry-sdk"]
    on_3_11 = locked(tmp_path, NEWEST, python="3.11").lines
    assert 'async-timeout==5.0.1 ; (python_full_version < "3.11.3") --hash=sha256:a0' in on_3_11


@pytest.mark.parametrize(
    ("text", "old", "new", "said"),
    [
        (NEWEST, 'lock-version = "2.1"', 'lock-version = "9.0"', "has the format version 9.0"),
        (NEWEST, "[metadata]", "[meta]", "is not what Poetry writes: 'metadata' is missing"),
        (NEWEST, 'version = "5.5.3"\n', "", "is not what Poetry writes: 'version' is missing"),
        (MIDDLE, 'kombu = ">=5.3.4,<6.0"', 'kombu = "as you like"', "is no constraint of a version"),
        (MIDDLE, 'name = "kombu"', 'name = "combo"', "kombu is needed, and there is no such package"),
    ],
)
def test_a_damaged_lock_is_told_by_its_name(tmp_path: Path, text: str, old: str, new: str, said: str) -> None:
    assert old in text
    with pytest.raises(ProjectError, match=said) as told:
        locked(tmp_path, text.replace(old, new, 1), project=MIDDLE_PROJECT)
    assert str(tmp_path / "poetry.lock") in str(told.value)


@pytest.mark.parametrize("text", [MIDDLE, NEWEST])
def test_a_group_that_is_not_there_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ProjectError, match="has no group docs"):
        locked(tmp_path, text, project=MIDDLE_PROJECT, choice=Choice(groups=frozenset({"docs"})))


@pytest.mark.parametrize(
    ("constraint", "inside", "outside"),
    [
        ("^5.2", "5.9.1", "6.0"),
        ("^0.3.1", "0.3.9", "0.4.0"),
        ("^0.0.3", "0.0.3", "0.0.4"),
        ("~1.4.2", "1.4.9", "1.5.0"),
        ("~1", "1.9", "2.0"),
        (">=3.8, <3.12", "3.11.5", "3.12.0"),
        (">=1.0 <1.4 || >1.6", "1.7", "1.5"),
        ("1.2.3", "1.2.3", "1.2.4"),
        ("1.2.*", "1.2.9", "1.3"),
    ],
)
def test_poetrys_constraints_allow_what_poetry_allows(constraint: str, inside: str, outside: str) -> None:
    allowed = specifiers(constraint)
    assert any(one.contains(inside) for one in allowed)
    assert not any(one.contains(outside) for one in allowed)


@pytest.mark.parametrize("constraint", ["", "latest please", "^", ">=1.0 ||"])
def test_what_is_no_constraint_is_shown(constraint: str) -> None:
    with pytest.raises(ValueError, match="is no constraint of a version"):
        specifiers(constraint)
