"""The facts about an app's image, before and after it is built."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass

from harness.containers import images, own_dockerfile
from harness.containers.app_image import candidates, in_order
from harness.containers.engine import Engine, NodeSpec
from harness.containers.image_recipes import RECIPES, Image, is_replaced, own_context
from harness.containers.one_off import run_to_end
from harness.containers.packages import tail
from harness.errors import ImageError
from harness.project import dockerfile
from harness.project.dependencies import Means, Plan
from harness.records.values import Json

_LOOK_S = 60.0


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """An app's image, for a person."""

    source: str
    """The file, or the settings, that say what is in it."""
    base: str
    name: str
    is_built: bool


def facts(engine: Engine, plan: Plan) -> ImageFacts:
    """Return what is known of an app's image, without building it or asking a registry.

    Args:
        engine: has it, or would get it.
        plan: what it is made of.

    Raises:
        ProjectError: the Python that the project demands cannot be had.
        UsageError: ``HARNESS_IMAGES`` names no source.
        ImageError: a file that goes into it cannot be read.
        EngineError: the engine does not answer.
    """
    if is_replaced(Image.NODE) or plan.means is Means.NOTHING:
        variable = RECIPES[Image.NODE].replaced_by
        if reference := os.environ.get(variable):
            return _chosen(engine, variable, [("", reference)])
        names = [(one.base, one.tag) for one in images.plans_of(engine, Image.NODE, own_context())]
        return _chosen(engine, "nothing in the project, so it is the harness's own", names)
    if plan.means is Means.IMAGE:
        return _chosen(engine, plan.source, [("", plan.image)])
    if plan.means is Means.DOCKERFILE:
        base = dockerfile.bases(plan.folder / plan.dockerfile)[-1]
        return _chosen(engine, plan.source, [(base, own_dockerfile.reference(engine, plan))])
    return _chosen(engine, plan.source, [(one.base, one.tag) for one in candidates(engine, plan)])


def _chosen(engine: Engine, source: str, names: list[tuple[str, str]]) -> ImageFacts:
    """Return the facts of the image that is there; of the first one that can be, if none is."""
    there = [one for one in names if engine.has_image(one[1])]
    base, name = (there or names)[0]
    if not there:
        base = " or ".join(dict.fromkeys(one[0] for one in names))
    return ImageFacts(source=source, base=base, name=name, is_built=bool(there))


def packages_in(engine: Engine, reference: str) -> dict[str, str]:
    """Return the packages of an app's image with their versions; those that decide most come first.

    Raises:
        EngineError: the engine does not answer.
        ImageError: the image cannot tell.
    """
    spec = NodeSpec(
        name="app-image",
        image=reference,
        command=("python", "-m", "pip", "list", "--format=json"),
        env={"HOME": "/tmp"},  # noqa: S108 - inside the container.
    )
    code, said = run_to_end(engine, spec, timeout_s=_LOOK_S)
    listed = next((line for line in said.splitlines() if line.startswith("[{")), None)
    if code != 0 or listed is None:
        raise ImageError(f"{reference} does not tell its packages: {tail(said.splitlines()) or 'it says nothing'}")
    return in_order(json.loads(listed))


def lines(engine: Engine, plan: Plan) -> Iterator[str]:
    """Yield what a person wants to know of an app's image, one line each; the packages if it is built.

    Raises:
        what `facts` raises.
    """
    known = facts(engine, plan)
    yield f"source    {known.source}"
    demanded = f" ({plan.python.demanded_by}: {plan.python.demand})" if plan.python.demanded_by else ""
    yield f"Python    {plan.python.version or 'its own'}{demanded}"
    if known.base:
        yield f"base      {known.base}"
    if plan.apt:
        yield f"apt       {', '.join(plan.apt)}"
    yield f"image     {known.name}, {'built' if known.is_built else 'not built yet'}"
    yield from (f"left out  {one}" for one in plan.left_out)
    if known.is_built:
        yield "packages"
        yield from (f"  {name} {version}" for name, version in packages_in(engine, known.name).items())


def to_json(engine: Engine, plan: Plan) -> dict[str, Json]:
    """Return the same as `lines`, for programs. Raises what `facts` raises."""
    known = facts(engine, plan)
    return {
        "source": known.source,
        "python": plan.python.version,
        "base": known.base,
        "apt": list(plan.apt),
        "image": known.name,
        "is_built": known.is_built,
        "left_out": list(plan.left_out),
        "packages": packages_in(engine, known.name) if known.is_built else {},
    }
