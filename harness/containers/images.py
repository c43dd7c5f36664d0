"""Providing the images of the nodes, from any source.

There are two: the broker's, and one for everything written in Python. The base of each comes from the first source that
has it: the engine itself, a registry, or, if no registry answers, the distribution's packages. The ingredients of an
image are in `harness.containers.image_recipes`; packages and wheels are fetched by `harness.containers.packages`.
"""

import importlib.util
import io
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from harness.containers import candidates
from harness.containers.engine import Engine, PullError
from harness.containers.image_recipes import (
    RECIPES,
    Image,
    Plan,
    Release,
    allowed_sources,
    is_ours,
    own_context,
    plan_image,
)
from harness.containers.packages import (
    COMMAND_TIMEOUT_S,
    MACHINES,
    SUITE,
    Say,
    bootstrapped,
    fetch_wheels,
    how_to_get_mmdebstrap,
    locked,
    step,
    tail,
)
from harness.errors import ImageError

LABEL = "celery-harness.image"
"""The label of the harness's images: `rabbitmq`, `node`, or the base of one."""


class Fact(NamedTuple):
    """A fact about the environment, such as an image, for the doctor."""

    name: str
    ok: bool | None
    """True if it is as required, False if not; None if it is absent, and will be made or is needed only elsewhere."""
    detail: str


# ------------------------------------------------------------------------------------------------ the way in


def ensure(
    engine: Engine,
    which: Image,
    *,
    say: Say,
    context: Path | None = None,
    ours: bool = False,
    release: Release | None = None,
) -> str:
    """Make sure that an image is present, building it if necessary, and return its reference.

    Any number of processes may do so at once: one builds, the others wait for it.

    Args:
        engine: gets the image.
        which: the image.
        say: gets a line for each step, and another every few seconds of a long one.
        context: the folder of the Dockerfiles; None for the project's own.
        ours: ignore a replacement that the environment names.
        release: of what it has; None for that of its recipe.

    Raises:
        UsageError: ``HARNESS_IMAGES`` names no source.
        ImageError: no source has the base, or the build failed.
        EngineError: the engine does not answer.
        WaitTimeout: another process has held the lock for too long.
    """
    if not ours and (reference := os.environ.get(RECIPES[which].replaced_by)):
        return _replacement(engine, which, reference, say)
    plans = plans_of(engine, which, context or own_context(), release)
    return candidates.built_once(
        which,
        f"image-{which}",
        present=lambda: candidates.present(engine, plans),
        build=lambda: _provide(engine, plans, say),
        say=say,
    )


def ensure_present(engine: Engine, reference: str, *, say: Say) -> None:
    """Make sure that an image of somebody else's is present.

    Raises:
        ImageError: it is neither present nor can be pulled.
        EngineError: the engine does not answer.
    """
    if not engine.has_image(reference):
        pull_named(engine, reference, say, who=f"the image {reference} of the app", otherwise="correct its name")


def ours(engine: Engine) -> list[str]:
    """Return the tags of all images that the harness made, bases included, sorted.

    Raises:
        EngineError: the engine does not answer.
    """
    # An image that a user built on top of one of ours has inherited the label, and is not ours.
    return sorted(tag for tag in engine.images(LABEL) if is_ours(tag))


def sources(engine: Engine) -> list[Fact]:
    """Return what `ensure` would find, without a build and without asking a registry.

    Raises:
        UsageError: ``HARNESS_IMAGES`` names no source.
        EngineError: the engine does not answer.
    """
    facts = [_image_fact(engine, which) for which in Image]
    path = shutil.which("mmdebstrap")
    lacking = "not installed; needed only where no registry answers: " + how_to_get_mmdebstrap(_otherwise())
    pip = importlib.util.find_spec("pip") is not None
    no_pip = f"{sys.executable} has no pip, which fetches the node image's wheels: {sys.executable} -m ensurepip"
    return [
        *facts,
        Fact("mmdebstrap", True if path else None, path or lacking),
        Fact("pip", pip, f"of {sys.executable}" if pip else no_pip),
    ]


def _image_fact(engine: Engine, which: Image) -> Fact:
    name = f"image {which}"
    variable = RECIPES[which].replaced_by
    if reference := os.environ.get(variable):
        present = engine.has_image(reference)
        return Fact(name, present or None, f"{reference} (from {variable}), {'present' if present else 'to be pulled'}")
    try:
        plans = plans_of(engine, which, own_context())
    except ImageError as error:
        return Fact(name, ok=False, detail=str(error))
    if tag := candidates.present(engine, plans):
        return Fact(name, ok=True, detail=f"{tag}, present")
    bases = " or ".join(plan.base if engine.has_image(plan.base) else f"{plan.base} ({plan.source})" for plan in plans)
    return Fact(name, ok=None, detail=f"not built yet; the first start builds it on {bases}")


def _replacement(engine: Engine, which: Image, reference: str, say: Say) -> str:
    variable = RECIPES[which].replaced_by
    if engine.has_image(reference):
        say(f"{which}: {reference} is present (from {variable})")
        return reference
    pull_named(engine, reference, say, who=f"{variable} names {reference}, which", otherwise=f"unset {variable}")
    return reference


# ------------------------------------------------------------------------------------------------ what to build


def plans_of(engine: Engine, which: Image, context: Path, release: Release | None = None) -> list[Plan]:
    """Return the plans of one of the harness's own images, one for each allowed source, in the order to try them.

    Raises:
        UsageError: ``HARNESS_IMAGES`` names no source.
        ImageError: no images are made for the engine's architecture, or a file is missing.
        EngineError: the engine does not answer.
    """
    architecture = engine.architecture()
    if architecture not in MACHINES:
        raise ImageError(
            f"The engine runs on {architecture}; images are made for {' and '.join(MACHINES)}. "
            f"Name images of your own: {' and '.join(recipe.replaced_by for recipe in RECIPES.values())}."
        )
    return [
        plan_image(which, source, architecture=architecture, context=context, release=release)
        for source in allowed_sources()
    ]


# ------------------------------------------------------------------------------------------------ doing it


def _provide(engine: Engine, plans: Sequence[Plan], say: Say) -> str:
    """Build the image from the first source that has its base."""
    plan = candidates.with_base(
        engine,
        plans,
        who=plans[0].which,
        bootstrap=lambda one: bootstrap(engine, one.which, one.base, say, suite=one.suite),
        refused=_nothing_to_pull,
        say=say,
    )
    _build(engine, plan, say)
    return plan.tag


def _nothing_to_pull(attempt: Plan, error: PullError) -> ImageError:
    return ImageError(
        f"HARNESS_IMAGES=pull, and {attempt.base} cannot be pulled: {error}. Set HARNESS_REGISTRY to a registry that "
        f"can be reached, `docker load` the image, name one of your own in {RECIPES[attempt.which].replaced_by}, or "
        "unset HARNESS_IMAGES to have the base made from Debian's packages."
    )


def pull_named(engine: Engine, reference: str, say: Say, *, who: str, otherwise: str) -> None:
    """Pull an image of somebody else's that is not present.

    Args:
        engine: pulls it.
        reference: the image.
        say: gets the progress.
        who: the image and who named it, as the beginning of the error's sentence.
        otherwise: what to do if it cannot be had.

    Raises:
        ImageError: it cannot be pulled.
    """
    try:
        candidates.pull(engine, reference, say)
    except PullError as error:
        raise ImageError(
            f"{who} is neither present nor can be pulled: {error}. Build, load or pull it, or {otherwise}."
        ) from None


def _build(engine: Engine, plan: Plan, say: Say) -> None:
    wheels = fetch_wheels(plan.pins, architecture=plan.architecture, name=plan.which, say=say) if plan.pins else None
    with tempfile.TemporaryFile() as archive, step(say, f"{plan.which}: building {plan.tag} on {plan.base}"):
        pack(archive, plan.files, wheels)
        archive.seek(0)
        lines = engine.build(
            archive,
            reference=plan.tag,
            dockerfile=RECIPES[plan.which].dockerfile,
            arguments={"BASE": plan.base},
            labels={LABEL: plan.which.value},
            timeout_s=COMMAND_TIMEOUT_S,
        )
    for line in lines:
        # A Dockerfile of ours reports with such a line that it went on without something.
        if line.startswith("celery-harness:"):
            say(f"{plan.which}:{line.partition(':')[2]}")
    if not engine.has_image(plan.tag):
        raise ImageError(f"Building {plan.tag} ended without an error and without an image.\n{tail(lines)}")


def pack(archive: IO[bytes], files: Mapping[str, bytes], wheels: Path | None = None) -> None:
    """Write a build context. Owner and times are left at zero, so that equal contents make equal layers."""
    contents = dict(files)
    if wheels is not None:
        contents |= {f"wheels/{wheel.name}": wheel.read_bytes() for wheel in sorted(wheels.iterdir())}
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.mode = 0o644
            tar.addfile(member, io.BytesIO(content))


def of_nobody(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Return a file of an archive as root's own and as one that every user may read, whatever the caller's umask."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode |= 0o555 if member.isdir() or member.mode & 0o100 else 0o444
    return member


# ------------------------------------------------------------------------------------------------ bases of our own


def bootstrap(engine: Engine, which: Image, base: str, say: Say, *, suite: str = SUITE) -> None:
    """Make a base from the distribution's packages, unless it is present.

    Args:
        engine: gets it.
        which: the image whose base has these packages.
        base: the reference of the base.
        say: gets the progress.
        suite: the release of Debian.

    Raises:
        ImageError: it cannot be made.
    """
    own = RECIPES[which].base
    name = which.value if suite == SUITE else f"{which}-{suite}"
    with locked(own if suite == SUITE else f"{own}-{suite}", say):
        if engine.has_image(base):
            return
        with (
            bootstrapped(
                RECIPES[which].packages,
                architecture=engine.architecture(),
                name=name,
                otherwise=_otherwise(),
                say=say,
                suite=suite,
            ) as tree,
            step(say, f"{name}: importing {tree.stat().st_size / 1e6:.0f} MB as {base}"),
        ):
            answer = engine.import_image(tree, reference=base, labels={LABEL: own})
        if not engine.has_image(base):
            raise ImageError(f"The engine did not import {base}; it said: {answer}")


def _otherwise() -> str:
    """Return what else helps if a base cannot be made from packages."""
    names = " and ".join(recipe.replaced_by for recipe in RECIPES.values())
    return f"set HARNESS_REGISTRY to a registry that answers, or {names} to images"
