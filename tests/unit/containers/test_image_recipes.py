"""What images are named after, and what is said where one cannot be planned. No engine is asked."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.containers import image_recipes
from harness.containers.image_recipes import Image, Plan, Source, allowed_sources, plan_image
from harness.errors import ImageError, UsageError

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """Return a build context for this test alone, which it may edit."""
    folder = tmp_path / "docker"
    shutil.copytree(REPOSITORY / "docker", folder)
    shutil.copy(REPOSITORY / "constraints.txt", folder)
    return folder


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HARNESS_IMAGES", "HARNESS_REGISTRY", "HARNESS_RABBITMQ_IMAGE", "HARNESS_WORKER_IMAGE"):
        monkeypatch.delenv(name, raising=False)


def plan(which: Image, context: Path, source: Source = Source.BOOTSTRAP, architecture: str = "amd64") -> Plan:
    return plan_image(which, source, architecture=architecture, context=context)


def replace_in(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def repin(context: Path, name: str) -> None:
    replace_in(context / "constraints.txt", f"\n{name}==", f"\n{name}==99.")


@pytest.mark.parametrize(
    ("which", "edit"),
    [
        (Image.RABBITMQ, lambda context: replace_in(context / "rabbitmq.Dockerfile", "USER rabbitmq", "USER root")),
        (Image.RABBITMQ, lambda context: replace_in(context / "rabbitmq.conf", "5672", "5673")),
        (Image.RABBITMQ, lambda context: replace_in(context / "enabled_plugins", "]", ",rabbitmq_shovel]")),
        (Image.NODE, lambda context: replace_in(context / "node.Dockerfile", "/app", "/application")),
        (Image.NODE, lambda context: replace_in(context / "node-requirements.txt", "\njinja2", "")),
        (Image.NODE, lambda context: repin(context, "celery")),
    ],
    ids=["Dockerfile", "conf", "plugins", "node Dockerfile", "requirement", "pin"],
)
def test_an_edit_of_an_ingredient_gives_another_tag(context: Path, which: Image, edit: Callable[[Path], None]) -> None:
    before = plan(which, context)
    edit(context)
    after = plan(which, context)
    assert after.tag != before.tag
    # What took longest to make is still good.
    assert after.base == before.base


@pytest.mark.parametrize("which", Image)
def test_what_does_not_go_into_an_image_does_not_change_its_tag(context: Path, which: Image) -> None:
    before = plan(which, context)
    repin(context, "ruff")
    (context / "notes.txt").write_text("Not copied by any Dockerfile.")
    for other in set(Image) - {which}:
        recipe = image_recipes.RECIPES[other]
        for name in (recipe.dockerfile, *recipe.files):
            (context / name).write_text("# Another image's.")
    for path in context.iterdir():
        os.utime(path, (0, 0))
    assert plan(which, context) == before


@pytest.mark.parametrize("which", Image)
def test_source_and_architecture_are_part_of_the_name(context: Path, which: Image) -> None:
    plans = [plan(which, context, source, machine) for source in Source for machine in ("amd64", "arm64")]
    assert len({each.tag for each in plans}) == 4
    assert all(each.tag.startswith(f"celery-harness/{which}:{each.source}-") for each in plans)
    bootstrapped = {each.base for each in plans if each.source is Source.BOOTSTRAP}
    assert len(bootstrapped) == 2


@pytest.mark.parametrize("source", Source)
def test_another_release_is_another_image_of_the_same_kind(context: Path, source: Source) -> None:
    own = plan(Image.RABBITMQ, context, source)
    other = plan_image(
        Image.RABBITMQ, source, architecture="amd64", context=context, release=image_recipes.NEXT_RABBITMQ
    )
    assert (own.base == other.base, own.tag == other.tag) == (False, False)
    assert other.tag.startswith(f"celery-harness/rabbitmq:{source}-")
    assert (own.suite, other.suite) == ("trixie", "forky")


def test_a_recipe_version_rebuilds_everything(context: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = plan(Image.NODE, context)
    monkeypatch.setattr(image_recipes, "_RECIPE_VERSION", -1)
    after = plan(Image.NODE, context)
    assert (after.tag == before.tag, after.base == before.base) == (False, False)


def test_a_registry_is_put_before_the_official_base_and_nothing_else(
    context: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulled, bootstrapped = (plan(Image.RABBITMQ, context, source) for source in Source)
    monkeypatch.setenv("HARNESS_REGISTRY", "mirror:5000/")
    mirrored = plan(Image.RABBITMQ, context, Source.PULL)
    assert mirrored.base == f"mirror:5000/{pulled.base}"
    assert mirrored.tag != pulled.tag
    assert plan(Image.RABBITMQ, context) == bootstrapped


def test_every_requirement_of_the_node_image_is_pinned_in_this_repository() -> None:
    # Without constraints beside the Dockerfiles, those of the repository count.
    pins = plan(Image.NODE, REPOSITORY / "docker").pins
    assert {"celery", "kombu", "sqlalchemy", "aiosmtpd", "jinja2"} <= {pin.partition("==")[0] for pin in pins}
    assert list(pins) == sorted(pins)


def test_a_requirement_without_a_version_is_named(context: Path) -> None:
    with (context / "node-requirements.txt").open("a") as file:
        file.write("Not_Pinned # by anybody\n")
    with pytest.raises(ImageError, match=r"constraints\.txt gives no version .* of not-pinned"):
        plan(Image.NODE, context)


def test_a_missing_file_is_named(context: Path) -> None:
    (context / "rabbitmq.conf").unlink()
    with pytest.raises(ImageError, match=r"rabbitmq\.conf"):
        plan(Image.RABBITMQ, context)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("", list(Source)), ("pull", [Source.PULL]), ("bootstrap", [Source.BOOTSTRAP])],
)
def test_the_environment_chooses_the_sources(
    monkeypatch: pytest.MonkeyPatch, value: str, expected: list[Source]
) -> None:
    monkeypatch.setenv("HARNESS_IMAGES", value)
    assert allowed_sources() == expected


def test_an_unknown_source_is_wrong_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_IMAGES", "download")
    with pytest.raises(UsageError, match="HARNESS_IMAGES is 'download'; it can be pull or bootstrap"):
        allowed_sources()
