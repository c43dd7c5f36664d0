"""Names and sources of an app's own image. The engine of these tests only keeps a diary."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import pytest

from harness.containers import app_image
from harness.containers.app_image import candidates, ensure
from harness.containers.app_image_facts import facts
from harness.containers.engine import Engine, PullError
from harness.errors import HarnessError, ImageError, ProjectError
from harness.project.dependencies import Means, Plan
from harness.project.python_version import Python


@dataclass
class FakeEngine:
    """Has the images that it is given."""

    has: set[str] = field(default_factory=set)
    machine: str = "amd64"
    pulled: list[str] = field(default_factory=list)

    def architecture(self) -> str:
        return self.machine

    def has_image(self, reference: str) -> bool:
        return reference in self.has

    def pull(self, reference: str) -> None:
        self.pulled.append(reference)
        raise PullError("nobody answers")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HARNESS_IMAGES", "HARNESS_REGISTRY", "HARNESS_WORKER_IMAGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan(
        folder=tmp_path,
        means=Means.REQUIREMENTS,
        source="requirements.txt",
        python=Python("3.13"),
        requirements=("celery==5.4",),
    )


def had(engine: FakeEngine, plan: Plan, said: list[str] | None = None) -> str:
    heard: list[str] = [] if said is None else said
    return ensure(cast("Engine", engine), plan, say=heard.append)


def tags(plan: Plan, machine: str = "amd64") -> list[str]:
    return [one.tag for one in candidates(cast("Engine", FakeEngine(machine=machine)), plan)]


def test_an_image_that_is_there_is_had_without_a_word_to_a_registry(plan: Plan) -> None:
    for tag in tags(plan):
        engine, said = FakeEngine(has={tag}), list[str]()
        assert had(engine, plan, said) == tag
        assert (engine.pulled, said) == ([], [f"app: {tag} is present"])


def test_whatever_goes_into_it_changes_its_name(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    others = [
        plan,
        replace(plan, requirements=("celery==5.5",)),
        replace(plan, constraints=("kombu<6",)),
        replace(plan, apt=("libpq5",)),
        replace(plan, python=Python("3.11")),
        replace(plan, means=Means.LOCK),
    ]
    names = [tag for other in others for tag in tags(other)] + tags(plan, "arm64")
    monkeypatch.setattr(app_image, "_RECIPE_VERSION", -1)
    names += tags(plan)
    assert len(set(names)) == len(names) == 2 * (len(others) + 2)


def test_what_does_not_go_into_it_keeps_its_name(plan: Plan, tmp_path: Path) -> None:
    same = replace(
        plan,
        folder=tmp_path / "elsewhere",
        source="requirements/prod.txt",
        python=Python("3.13", ".python-version", "3.13.1"),
        places={"celery": "requirements/prod.txt:4"},
        left_out=("the app's own code",),
    )
    assert tags(same) == tags(plan)


def test_an_archive_of_the_project_is_part_of_the_name(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "own.whl").write_bytes(b"1")
    with_own = replace(plan, requirements=("celery", "/app/own.whl"))
    before = tags(with_own)
    (tmp_path / "own.whl").write_bytes(b"2")
    assert set(tags(with_own)).isdisjoint(before)
    (tmp_path / "own.whl").unlink()
    with pytest.raises(ImageError, match=r"own\.whl"):
        tags(with_own)


def test_a_python_that_only_a_registry_has_is_refused_where_none_answers(plan: Plan) -> None:
    wanted = replace(plan, python=Python("3.12", ".python-version", "3.12.1"))
    with pytest.raises(ProjectError, match=r"\.python-version demands Python 3\.12\.1, .*\(nobody answers\)"):
        had(FakeEngine(), wanted)


def test_a_python_that_only_a_registry_has_is_refused_where_none_may_be_asked(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_IMAGES", "bootstrap")
    engine = FakeEngine()
    with pytest.raises(ProjectError, match=r"\(HARNESS_IMAGES=bootstrap\)"):
        had(engine, replace(plan, python=Python("3.14", "uv.lock", ">=3.14")))
    assert engine.pulled == []


def test_an_image_of_ones_own_is_used_or_named(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    own = replace(plan, means=Means.IMAGE, image="own:1")
    assert had(FakeEngine(has={"own:1"}), own) == "own:1"
    with pytest.raises(ImageError, match="The settings name the image own:1, which is neither present nor"):
        had(FakeEngine(), own)
    monkeypatch.setenv("HARNESS_WORKER_IMAGE", "other:1")
    assert had(FakeEngine(has={"other:1", "own:1"}), own) == "other:1"


def test_a_dockerfile_whose_base_cannot_be_had_says_what_else_helps(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python:3.11-slim\n")
    own = replace(plan, means=Means.DOCKERFILE, source="Dockerfile", dockerfile="Dockerfile")
    with pytest.raises(
        ImageError, match=r"Dockerfile begins with python:3\.11-slim, .*: nobody answers.*`dependencies`"
    ):
        had(FakeEngine(), own)
    before = facts(cast("Engine", FakeEngine()), own)
    assert (before.base, before.is_built) == ("python:3.11-slim", False)
    (tmp_path / "tasks.py").write_text("Sent to the build.")
    assert facts(cast("Engine", FakeEngine()), own).name != before.name


@pytest.mark.parametrize(
    ("packages", "said"),
    [
        ({"flask": "3"}, r"requirements\.txt does not bring Celery"),
        ({"celery": "5.1.2"}, r"base\.txt:3 brings Celery 5\.1\.2; the harness works with Celery 5\.2 and newer"),
    ],
)
def test_what_the_resolver_brings_is_judged_too(plan: Plan, packages: dict[str, str], said: str) -> None:
    with pytest.raises(HarnessError, match=said):
        app_image.refuse_celery(replace(plan, places={"celery": "base.txt:3"}), packages)


def test_the_packages_that_decide_most_come_first() -> None:
    listed = [{"name": name, "version": "1"} for name in ("amqp", "Kombu", "vine", "SQLAlchemy", "celery")]
    assert list(app_image.in_order(listed)) == ["celery", "sqlalchemy", "kombu", "amqp", "vine"]


def test_it_is_told_whether_it_is_built_and_on_what(plan: Plan) -> None:
    first, second = candidates(cast("Engine", FakeEngine()), plan)
    absent = facts(cast("Engine", FakeEngine()), plan)
    assert (absent.is_built, absent.base) == (False, f"{first.base} or {second.base}")
    there = facts(cast("Engine", FakeEngine(has={second.tag})), plan)
    assert (there.is_built, there.base, there.name) == (True, second.base, second.tag)


def test_a_project_that_says_nothing_has_the_harness_s_own_image(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = replace(plan, means=Means.NOTHING, source="", requirements=())
    assert "celery-harness/node" in facts(cast("Engine", FakeEngine()), nothing).name
    monkeypatch.setenv("HARNESS_WORKER_IMAGE", "other:1")
    assert facts(cast("Engine", FakeEngine()), nothing).name == "other:1"
