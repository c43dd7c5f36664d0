"""Where an image is had from. The engine of these tests only keeps a diary."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

import pytest

from harness.containers import images
from harness.containers.engine import Engine, PullError
from harness.containers.image_recipes import Image, Source, own_context, plan_image
from harness.containers.images import LABEL, ensure, ensure_present, ours, sources
from harness.errors import ImageError

PULLED, BOOTSTRAPPED = (
    plan_image(Image.RABBITMQ, source, architecture="amd64", context=own_context()) for source in Source
)


@dataclass
class FakeEngine:
    """Has the images that it is given, and what is pulled, imported and built."""

    has: set[str] = field(default_factory=set)
    registry: set[str] = field(default_factory=set)
    machine: str = "amd64"
    says: list[str] = field(default_factory=list)
    """What a build says; if that is nothing, it makes no image."""
    done: list[str] = field(default_factory=list)

    def architecture(self) -> str:
        return self.machine

    def has_image(self, reference: str) -> bool:
        return reference in self.has

    def images(self, label: str) -> list[str]:
        assert label == LABEL
        return list(self.has)

    def pull(self, reference: str) -> None:
        self.done.append(f"pull {reference}")
        if reference not in self.registry:
            raise PullError("nobody answers")
        self.has.add(reference)

    def build(self, context: IO[bytes], *, reference: str, arguments: Mapping[str, str], **_: object) -> list[str]:
        assert context.read(1)
        assert arguments["BASE"] in self.has
        self.done.append(f"build {reference}")
        self.has |= {reference} if self.says else set()
        return self.says

    def import_image(self, tree: Path, *, reference: str, labels: Mapping[str, str]) -> str:
        raise AssertionError((tree, reference, labels))


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HARNESS_IMAGES", "HARNESS_REGISTRY", "HARNESS_RABBITMQ_IMAGE", "HARNESS_WORKER_IMAGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def had(engine: FakeEngine, said: list[str] | None = None) -> str:
    heard: list[str] = [] if said is None else said
    return ensure(cast("Engine", engine), Image.RABBITMQ, say=heard.append)


def test_an_image_that_is_there_is_had_without_a_word_to_a_registry() -> None:
    engine, said = FakeEngine(has={BOOTSTRAPPED.tag}), list[str]()
    assert had(engine, said) == BOOTSTRAPPED.tag
    assert (engine.done, said) == ([], [f"rabbitmq: {BOOTSTRAPPED.tag} is present"])


def test_a_base_that_is_there_is_not_pulled_again_and_what_its_build_misses_is_told() -> None:
    engine = FakeEngine(has={PULLED.base}, says=["Step 1/2", "celery-harness: no libfaketime here"])
    said: list[str] = []
    assert had(engine, said) == PULLED.tag
    assert engine.done == [f"build {PULLED.tag}"]
    assert said[-1] == "rabbitmq: no libfaketime here"


def test_a_base_that_a_registry_has_is_pulled() -> None:
    engine = FakeEngine(registry={PULLED.base}, says=["done"])
    assert had(engine) == PULLED.tag
    assert engine.done == [f"pull {PULLED.base}", f"build {PULLED.tag}"]


def test_where_no_registry_answers_the_image_is_built_on_a_base_from_packages() -> None:
    engine, said = FakeEngine(has={BOOTSTRAPPED.base}, says=["done"]), list[str]()
    assert had(engine, said) == BOOTSTRAPPED.tag
    assert engine.done == [f"pull {PULLED.base}", f"build {BOOTSTRAPPED.tag}"]
    assert any(f"{PULLED.base} cannot be pulled (nobody answers), so its base" in line for line in said)


def test_where_only_a_pull_is_allowed_the_reason_and_the_ways_out_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_IMAGES", "pull")
    with pytest.raises(ImageError, match=r"cannot be pulled: nobody answers\. Set HARNESS_REGISTRY .* unset"):
        had(FakeEngine())


def test_a_build_that_makes_nothing_is_an_error() -> None:
    with pytest.raises(ImageError, match="ended without an error and without an image"):
        had(FakeEngine(registry={PULLED.base}))


def test_an_image_of_ones_own_is_pulled_if_need_be_and_named_if_it_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_RABBITMQ_IMAGE", "own:1")
    engine = FakeEngine(registry={"own:1"})
    assert (had(engine), engine.done) == ("own:1", ["pull own:1"])
    with pytest.raises(ImageError, match=r"HARNESS_RABBITMQ_IMAGE names own:1, .* can be pulled: nobody answers"):
        had(FakeEngine())


def test_the_image_of_an_app_is_pulled_only_if_it_is_not_there() -> None:
    there, elsewhere = FakeEngine(has={"shop:1"}), FakeEngine(registry={"shop:1"})
    for engine in (there, elsewhere):
        ensure_present(cast("Engine", engine), "shop:1", say=print)
    assert (there.done, elsewhere.done) == ([], ["pull shop:1"])
    with pytest.raises(ImageError, match="the image shop:2 of the app is neither present nor can be pulled: nobody"):
        ensure_present(cast("Engine", there), "shop:2", say=print)


def test_an_engine_on_a_machine_that_no_image_is_made_for_says_what_to_set() -> None:
    with pytest.raises(ImageError, match="The engine runs on riscv64; images are made for amd64 and arm64"):
        had(FakeEngine(machine="riscv64"))


def test_what_somebody_built_on_ours_is_not_ours() -> None:
    engine = FakeEngine(has={"shop/worker:1", BOOTSTRAPPED.tag, BOOTSTRAPPED.base})
    assert ours(cast("Engine", engine)) == sorted([BOOTSTRAPPED.tag, BOOTSTRAPPED.base])


def test_the_doctor_hears_what_the_first_start_would_do(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine(has={BOOTSTRAPPED.base})
    (fact, *_) = sources(cast("Engine", engine))
    on = f"{PULLED.base} (pull) or {BOOTSTRAPPED.base}"
    assert fact == images.Fact("image rabbitmq", None, f"not built yet; the first start builds it on {on}")
    monkeypatch.setenv("HARNESS_RABBITMQ_IMAGE", "own:1")
    (fact, *_) = sources(cast("Engine", engine))
    assert fact == images.Fact("image rabbitmq", None, "own:1 (from HARNESS_RABBITMQ_IMAGE), to be pulled")
