"""Which of a project's files decides what its image is made of."""

from pathlib import Path

import pytest

from harness.errors import ProjectError
from harness.project.dependencies import Means, Plan, Wanted, plan_of

UV = """
version = 1
requires-python = ">=3.11"
[[package]]
name = "celery"
version = "5.4.0"
source = { registry = "https://index.example/simple" }
[[package]]
name = "shop"
version = "1"
source = { virtual = "." }
dependencies = [{ name = "celery" }]
"""
POETRY = """
[[package]]
name = "celery"
version = "5.3.6"
optional = false
groups = ["main"]
files = []
[metadata]
lock-version = "2.1"
python-versions = ">=3.11"
"""
PYLOCK = 'lock-version = "1.0"\n[[packages]]\nname = "celery"\nversion = "5.5.0"\n'
PIPFILE = '{"_meta": {}, "default": {"celery": {"version": "==5.2.7"}}}'
PROJECT = (
    '[project]\nname = "shop"\ndependencies = ["celery==5.6.0"]\n[project.optional-dependencies]\nmail = ["jinja2"]\n'
)
IN_ORDER = (
    ("uv.lock", UV, "celery==5.4.0"),
    ("poetry.lock", POETRY, "celery==5.3.6"),
    ("pylock.toml", PYLOCK, "celery==5.5.0"),
    ("Pipfile.lock", PIPFILE, "celery==5.2.7"),
    ("requirements.txt", "celery<6\n", "celery<6"),
    ("requirements/production.txt", "celery~=5.3\n", "celery~=5.3"),
    ("requirements/base.txt", "celery~=5.4\n", "celery~=5.4"),
    ("requirements/dev.txt", "celery~=5.5\n", "celery~=5.5"),
    ("pyproject.toml", PROJECT, "celery==5.6.0"),
    ("setup.cfg", "[options]\ninstall_requires = celery>=5.3\n", "celery>=5.3"),
)


def write(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def test_of_several_sources_the_one_that_tells_most_decides(tmp_path: Path) -> None:
    for name, text, line in reversed(IN_ORDER):
        write(tmp_path, name, text)
        plan = plan_of(tmp_path)
        assert (plan.source, plan.requirements) == (name, (line,))
        assert plan.means is (Means.LOCK if "lock" in name else Means.REQUIREMENTS)


def test_a_dockerfile_is_taken_where_there_is_nothing_else(tmp_path: Path) -> None:
    write(tmp_path, "Dockerfile", "FROM python:3.11-slim\n")
    plan = plan_of(tmp_path)
    assert (plan.means, plan.source, plan.python.version) == (Means.DOCKERFILE, "Dockerfile", "3.11")
    write(tmp_path, "requirements.txt", "celery\n")
    plan = plan_of(tmp_path)
    assert (plan.means, plan.source, plan.python.version) == (Means.REQUIREMENTS, "requirements.txt", "3.11")


def test_a_project_that_says_nothing_has_a_plan_that_says_so(tmp_path: Path) -> None:
    write(tmp_path, "pyproject.toml", "[tool.ruff]\nline-length = 99\n")
    assert plan_of(tmp_path).means is Means.NOTHING


def test_what_the_settings_name_comes_first(tmp_path: Path) -> None:
    for name, text, _ in IN_ORDER:
        write(tmp_path, name, text)
    named = Wanted(dependencies=("requirements/dev.txt", "orjson==3.11"), python="3.11", apt=("libpq5",))
    plan = plan_of(tmp_path, named)
    assert plan == Plan(
        folder=tmp_path,
        means=Means.REQUIREMENTS,
        source="requirements/dev.txt, the settings",
        python=plan.python,
        requirements=("celery~=5.5", "orjson==3.11"),
        places={"celery": "requirements/dev.txt:1"},
        apt=("libpq5",),
    )
    assert plan_of(tmp_path, Wanted(dependencies=(".[mail]",))).requirements == ("celery==5.6.0", "jinja2")
    assert plan_of(tmp_path, Wanted(dependencies=("uv.lock",))).means is Means.LOCK
    assert plan_of(tmp_path, Wanted(image="own:1")).image == "own:1"


@pytest.mark.parametrize("name", ["requirements/prod.txt", "requirements.txt", "uv.lock", "celery = 5"])
def test_a_file_that_is_not_there_is_not_taken_for_a_package(tmp_path: Path, name: str) -> None:
    with pytest.raises(ProjectError, match=r"neither a file in .* nor a requirement"):
        plan_of(tmp_path, Wanted(dependencies=("celery", name)))


def test_a_lock_beside_other_packages_gives_up_its_hashes(tmp_path: Path) -> None:
    write(tmp_path, "uv.lock", UV.replace('simple" }\n[[', 'simple" }\nwheels = [{ hash = "sha256:c1" }]\n[['))
    assert plan_of(tmp_path).requirements == ("celery==5.4.0 --hash=sha256:c1",)
    plan = plan_of(tmp_path, Wanted(dependencies=("uv.lock", "orjson")))
    assert (plan.means, plan.requirements) == (Means.REQUIREMENTS, ("celery==5.4.0", "orjson"))


def test_a_git_reference_brings_git(tmp_path: Path) -> None:
    write(tmp_path, "requirements.txt", "celery\nown @ git+https://git.example/own@abc\n")
    assert plan_of(tmp_path).apt == ("git",)


def test_the_variables_of_a_private_index_are_known_by_name_alone(tmp_path: Path) -> None:
    write(tmp_path, "requirements.txt", "--extra-index-url https://${INDEX_USER}:${INDEX_TOKEN}@own.example\ncelery\n")
    assert plan_of(tmp_path).variables == ("INDEX_TOKEN", "INDEX_USER")


@pytest.mark.parametrize("line", ["celery==4.4.7", "celery<5.2", "celery~=5.1.0", "celery>=4,<5", "celery==5.1.*"])
def test_a_celery_that_is_too_old_is_refused_before_anything_is_built(tmp_path: Path, line: str) -> None:
    write(tmp_path, "requirements.txt", f"{line}\n")
    with pytest.raises(ProjectError, match=r"requirements\.txt asks for Celery .*; the harness works with Celery 5\.2"):
        plan_of(tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        "celery",
        "celery==5.2.7",
        "celery<5.3",
        "celery>=4",
        "celery==5.4.0rc1",
        "celery~=5.2",
        "celery-types==0.2",
        "flask",
    ],
)
def test_a_celery_that_may_be_new_enough_is_not_refused(tmp_path: Path, line: str) -> None:
    write(tmp_path, "requirements.txt", f"{line}\n")
    assert plan_of(tmp_path).requirements == (line,)


def test_a_lock_without_celery_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "uv.lock", UV.replace('"celery"', '"flask"'))
    with pytest.raises(ProjectError, match=r"uv\.lock has no Celery"):
        plan_of(tmp_path)


def test_a_lock_names_the_python_that_its_packages_are_for(tmp_path: Path) -> None:
    write(tmp_path, "uv.lock", UV.replace(">=3.11", "==3.11.*"))
    assert plan_of(tmp_path).python.version == "3.11"
    write(tmp_path, "uv.lock", UV.replace(">=3.11", "<3.11"))
    with pytest.raises(ProjectError, match=r"uv\.lock demands Python <3\.11, which cannot be had"):
        plan_of(tmp_path)


@pytest.mark.parametrize("apt", ["libpq-dev; rm", "", "LibPQ"])
def test_what_is_no_name_of_a_package_is_not_given_to_a_shell(tmp_path: Path, apt: str) -> None:
    with pytest.raises(ProjectError, match="cannot be the name of a Debian package"):
        plan_of(tmp_path, Wanted(apt=(apt,)))
