"""The image of a worker for pytest-celery: what a version of Celery leads to."""

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from harness.celery_setup.image import image_for
from harness.containers.image_recipes import own_context, pins_of
from harness.errors import ImageError, ProjectError
from harness.project.dependencies import Plan

if TYPE_CHECKING:
    from harness.stack.shared_parts import SharedParts

(OURS,) = (pin for pin in pins_of(own_context(), "node-requirements.txt") if pin.startswith("celery=="))
NODE = "celery-harness/node:1"


@pytest.fixture(autouse=True)
def _no_image_is_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def built(_engine: object, plan: Plan, **_: object) -> str:
        return f"{plan.requirements[0]} in Python {plan.python.version} for {plan.source}"

    monkeypatch.setattr("harness.containers.app_image.ensure", built)
    monkeypatch.setattr("harness.celery_setup.image.unpacked_wheels", lambda *_, **__: tmp_path / "packages")
    monkeypatch.delenv("HARNESS_WORKER_IMAGE", raising=False)


def image_of(version: str, worker_image: str = NODE) -> tuple[str, Path | None]:
    engine = SimpleNamespace(architecture=lambda: "amd64")
    session = cast("SharedParts", SimpleNamespace(worker_image=worker_image, engine=engine, say=print))
    return image_for(session, None, version, source="the fixture legacy_worker", folder=Path("absent"), say_once=print)


@pytest.mark.parametrize("version", ["", OURS.partition("==")[2]])
def test_the_node_image_serves_its_own_version_and_any(tmp_path: Path, version: str) -> None:
    assert image_of(version) == (NODE, tmp_path / "packages")


@pytest.mark.parametrize(("version", "python"), [("5.2.7", "3.11"), ("5.3.0", "3.13"), ("5.6.0rc1", "3.13")])
def test_another_version_is_served_from_an_image_that_has_all_packages_itself(version: str, python: str) -> None:
    image = f"celery=={version} in Python {python} for the fixture legacy_worker"
    assert image_of(version) == (image, None)


def test_an_image_that_somebody_has_chosen_is_used_whatever_version_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HARNESS_WORKER_IMAGE", "mine:1")
    assert image_of("5.4.0", "mine:1") == ("mine:1", None)


@pytest.mark.parametrize(
    ("version", "said"),
    [("4.4.7", "asks for Celery ==4.4.7; the harness works with Celery 5.2"), ("main", "'main', which is no version")],
)
def test_a_version_that_cannot_be_served_is_refused_by_the_name_of_its_fixture(version: str, said: str) -> None:
    with pytest.raises(ProjectError, match="the fixture legacy_worker") as refused:
        image_of(version)
    assert said in str(refused.value)


def test_a_worker_goes_without_packages_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> Path:
        raise ImageError("no index")

    monkeypatch.setattr("harness.celery_setup.image.unpacked_wheels", offline)
    assert image_of("") == (NODE, None)
