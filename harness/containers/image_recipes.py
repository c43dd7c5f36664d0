"""The ingredients of an image, and the name that follows from them.

Each image is the harness's own Dockerfile on a base. Its tag is a hash of all its ingredients. So a second start finds
the image by name and builds nothing, and every edit leads to a new image. No engine is asked.

The environment may set:

- ``HARNESS_IMAGES``: ``pull`` or ``bootstrap``, as the only source of the bases.
- ``HARNESS_REGISTRY``: a prefix for the official bases, such as ``mirror:5000`` or ``mirror:5000/library``.
- ``HARNESS_RABBITMQ_IMAGE``, ``HARNESS_WORKER_IMAGE``, ``HARNESS_POSTGRESQL_IMAGE``, ``HARNESS_REDIS_IMAGE``: an image
  to use unchanged, instead of ours.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from harness.containers.packages import KEEP_SMALL, SUITE, TESTING, digest
from harness.errors import ImageError, UsageError

REPOSITORY = "celery-harness"
"""The beginning of the name of every image that the harness makes."""
# Raise it when `images` or `packages` builds differently from the same files.
_RECIPE_VERSION = 1


class Image(StrEnum):
    """The images of the harness."""

    RABBITMQ = "rabbitmq"
    NODE = "node"
    POSTGRESQL = "postgresql"
    REDIS = "redis"


class Source(StrEnum):
    """The source of a base."""

    PULL = "pull"
    BOOTSTRAP = "bootstrap"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The ingredients of an image, for any source of its base."""

    official: str
    """The base that a registry has."""
    base: str
    """The name of the base that is made if no registry answers; recipes with equal names have equal packages."""
    packages: tuple[str, ...]
    """The packages of that base."""
    dockerfile: str
    files: tuple[str, ...]
    """The files that the Dockerfile copies, beside wheels."""
    wheels: bool
    replaced_by: str
    """The variable that names an image to use instead."""


@dataclass(frozen=True, kw_only=True)
class Release:
    """A release of what an image has, other than that of its recipe."""

    official: str
    """The base that a registry has."""
    suite: str
    """The release of Debian that its packages are from."""


NEXT_RABBITMQ = Release(official="rabbitmq:4.3-management", suite=TESTING)
"""A RabbitMQ of a later series than that of the recipe."""

_SERVICES = ("postgresql", "redis-server")
"""The packages of all services. One base for all takes half the time of two, and lies on the disk once."""

RECIPES = {
    Image.RABBITMQ: Recipe(
        official="rabbitmq:4.2-management",
        base="base-rabbitmq",
        packages=("rabbitmq-server",),
        dockerfile="rabbitmq.Dockerfile",
        files=("rabbitmq.conf", "advanced.config", "enabled_plugins"),
        wheels=False,
        replaced_by="HARNESS_RABBITMQ_IMAGE",
    ),
    Image.NODE: Recipe(
        official="python:3.13-slim",
        base="base-node",
        packages=("ca-certificates", "libfaketime", "python3", "python3-venv", "tzdata"),
        dockerfile="node.Dockerfile",
        files=(),
        wheels=True,
        replaced_by="HARNESS_WORKER_IMAGE",
    ),
    Image.POSTGRESQL: Recipe(
        official="postgres:17",
        base="base-services",
        packages=_SERVICES,
        dockerfile="postgresql.Dockerfile",
        files=("postgresql.conf", "pg_hba.conf", "start-postgresql"),
        wheels=False,
        replaced_by="HARNESS_POSTGRESQL_IMAGE",
    ),
    Image.REDIS: Recipe(
        official="redis:8",
        base="base-services",
        packages=_SERVICES,
        dockerfile="redis.Dockerfile",
        files=("redis.conf", "start-redis"),
        wheels=False,
        replaced_by="HARNESS_REDIS_IMAGE",
    ),
}


# ------------------------------------------------------------------------------------------------ whose it is


def is_replaced(which: Image) -> bool:
    """Return whether the environment names a user's own image instead of ours."""
    return bool(os.environ.get(RECIPES[which].replaced_by))


def is_ours(reference: str) -> bool:
    """Return whether a reference names an image that the harness made."""
    return reference.startswith(f"{REPOSITORY}/")


# ------------------------------------------------------------------------------------------------ what to build


@dataclass(frozen=True, kw_only=True)
class Plan:
    """An image from one source with all its ingredients, before it is built."""

    which: Image
    source: Source
    base: str
    tag: str
    architecture: str
    files: Mapping[str, bytes]
    """The build context without the wheels."""
    pins: tuple[str, ...]
    suite: str = SUITE
    """The release of Debian that the base is made of, if it is made."""


def allowed_sources() -> list[Source]:
    """Return the sources to try, in order.

    Raises:
        UsageError: ``HARNESS_IMAGES`` names none.
    """
    forced = os.environ.get("HARNESS_IMAGES")
    if not forced:
        return list(Source)
    try:
        return [Source(forced)]
    except ValueError:
        raise UsageError(
            f"HARNESS_IMAGES is {forced!r}; it can be {' or '.join(Source)}, or be unset to try both in that order."
        ) from None


def plan_image(
    which: Image, source: Source, *, architecture: str, context: Path, release: Release | None = None
) -> Plan:
    """Gather the ingredients of an image, and name it by them. Its release is that of its recipe, or another one.

    Raises:
        ImageError: a file of the build context is missing, or a requirement has no version.
    """
    recipe = RECIPES[which]
    release = release or Release(official=recipe.official, suite=SUITE)
    if source is Source.PULL:
        base = official_reference(release.official)
    else:
        base = bootstrapped_reference(which, architecture, release.suite)
    names = (recipe.dockerfile, *recipe.files)
    try:
        files = {name: (context / name).read_bytes() for name in names}
        pins = pins_of(context, "node-requirements.txt") if recipe.wheels else ()
    except OSError as error:
        raise ImageError(f"The image {which} cannot be built: {error}. Is the installation complete?") from error
    ingredients = [
        f"recipe {_RECIPE_VERSION}",
        f"base {base}",
        f"architecture {architecture}",
        *(f"file {name} {hashlib.sha256(content).hexdigest()}" for name, content in files.items()),
        *(f"wheel {pin}" for pin in pins),
    ]
    tag = f"{REPOSITORY}/{which}:{source}-{digest(ingredients)}"
    return Plan(
        which=which,
        source=source,
        base=base,
        tag=tag,
        architecture=architecture,
        files=files,
        pins=pins,
        suite=release.suite,
    )


def official_reference(official: str) -> str:
    """Return the reference of an official image, in the registry that the environment names."""
    registry = os.environ.get("HARNESS_REGISTRY", "").rstrip("/")
    return f"{registry}/{official}" if registry else official


def bootstrapped_reference(which: Image, architecture: str, suite: str = SUITE) -> str:
    """Return the reference of a base that is made from the packages of a release of Debian."""
    ingredients = [f"recipe {_RECIPE_VERSION}", suite, architecture, *RECIPES[which].packages, *KEEP_SMALL]
    return f"{REPOSITORY}/{RECIPES[which].base}:{digest(ingredients)}"


def own_context() -> Path:
    """Return the folder of the Dockerfiles: inside an installed package, beside the package in the repository.

    Raises:
        ImageError: they are in neither place.
    """
    # In this order, because docker-py, a likely neighbour of an installed package, is named docker.
    candidates = [Path(__file__).parents[depth] / "docker" for depth in (1, 2)]
    for folder in candidates:
        if (folder / "node.Dockerfile").is_file():
            return folder
    raise ImageError(f"No Dockerfiles in {' or '.join(map(str, candidates))}. Is the installation complete?")


def pins_of(context: Path, requirements: str) -> tuple[str, ...]:
    """Return every requirement of a file in the context with its version, sorted. Raises ImageError."""
    inside = context / "constraints.txt"
    constraints = inside if inside.is_file() else context.parent / "constraints.txt"
    versions = {}
    for line in _content_lines(constraints):
        name, _, version = line.partition("==")
        versions[_normalized(name)] = version
    names = {_normalized(line) for line in _content_lines(context / requirements)}
    if missing := sorted(name for name in names if not versions.get(name)):
        raise ImageError(f"{constraints} gives no version (name==version) of {', '.join(missing)}.")
    return tuple(sorted(f"{name}=={versions[name]}" for name in names))


def _content_lines(path: Path) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def _normalized(name: str) -> str:
    """Return the normalized name of a Python package: equal for two spellings of the same package."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()
