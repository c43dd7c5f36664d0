"""Where the images of the nodes come from.

There are two: the broker's, and one that everything written in Python runs from. Each is the harness's own
Dockerfile on a base, and the base comes from the first source that has it: the engine itself, a registry, or,
where no registry answers, the distribution's packages. An image's tag is a hash of everything that goes into it,
so a second start finds it by name and builds nothing, and an edit is never overlooked. How packages and wheels are
fetched is a matter of `harness.containers.packages`.

What the environment may say:

- ``HARNESS_IMAGES``: ``pull`` or ``bootstrap`` to have the bases from there and from nowhere else.
- ``HARNESS_REGISTRY``: a prefix for the official bases, such as ``mirror:5000`` or ``mirror:5000/library``.
- ``HARNESS_RABBITMQ_IMAGE``, ``HARNESS_WORKER_IMAGE``: an image to use as it is, instead of ours.
"""

import contextlib
import hashlib
import importlib.util
import io
import json
import os
import re
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, NamedTuple

import docker
import requests
from docker import auth
from docker.errors import ImageNotFound
from docker.utils import parse_repository_tag

from harness.containers.ownership import explained
from harness.containers.packages import (
    COMMAND_TIMEOUT_S,
    KEEP_SMALL,
    MACHINES,
    SUITE,
    Say,
    bootstrapped,
    digest,
    fetch_wheels,
    how_to_get_mmdebstrap,
    locked,
    step,
    tail,
)
from harness.errors import ImageError, UsageError

LABEL = "celery-harness.image"
"""What an image of ours is: `rabbitmq`, `node`, or the base of one."""

_REPOSITORY = "celery-harness"
# Raise it when this module or `packages` builds differently from the same files.
_RECIPE_VERSION = 1
_REGISTRY_TIMEOUT_S = 10
_PULL_SILENCE_S = 120


class Image(StrEnum):
    """The images there are."""

    RABBITMQ = "rabbitmq"
    NODE = "node"


class Source(StrEnum):
    """Where a base comes from."""

    PULL = "pull"
    BOOTSTRAP = "bootstrap"


class Fact(NamedTuple):
    """Something the doctor can tell about images."""

    name: str
    ok: bool | None
    """None for what is not there and need not be: it will be made, or is needed only elsewhere."""
    detail: str


@dataclass(frozen=True, kw_only=True)
class _Recipe:
    official: str
    packages: tuple[str, ...]
    dockerfile: str
    files: tuple[str, ...]
    """What the Dockerfile copies, beside wheels."""
    wheels: bool
    replaced_by: str
    """The variable that names an image to use instead."""


_RECIPES = {
    Image.RABBITMQ: _Recipe(
        official="rabbitmq:4.2-management",
        packages=("rabbitmq-server",),
        dockerfile="rabbitmq.Dockerfile",
        files=("rabbitmq.conf", "advanced.config", "enabled_plugins"),
        wheels=False,
        replaced_by="HARNESS_RABBITMQ_IMAGE",
    ),
    Image.NODE: _Recipe(
        official="python:3.13-slim",
        packages=("ca-certificates", "libfaketime", "python3", "python3-venv", "tzdata"),
        dockerfile="node.Dockerfile",
        files=(),
        wheels=True,
        replaced_by="HARNESS_WORKER_IMAGE",
    ),
}


class _PullError(Exception):
    """A reference could not be pulled; the message is the reason, for a person."""


# ------------------------------------------------------------------------------------------------ the way in


def is_replaced(which: Image) -> bool:
    """Whether the environment names somebody's own image instead of ours."""
    return bool(os.environ.get(_RECIPES[which].replaced_by))


def is_ours(reference: str) -> bool:
    """Whether a reference means an image that the harness made."""
    return reference.startswith(f"{_REPOSITORY}/")


def ensure(
    client: docker.DockerClient, which: Image, *, say: Say, context: Path | None = None, ours: bool = False
) -> str:
    """Have an image, building it if need be, and return its reference.

    Any number of processes may do so at once: one builds, the others wait for it.

    Args:
        client: from `harness.containers.engine.connect`.
        which: the image.
        say: gets a line for each step, and another every few seconds of a long one.
        context: the folder of the Dockerfiles; None for the project's own.
        ours: pass over a replacement that the environment names.

    Raises:
        UsageError: ``HARNESS_IMAGES`` names no source.
        ImageError: no source has the base, or the build failed.
        EngineError: the engine does not answer.
    """
    with explained(f"providing the image {which}"):
        if not ours and (reference := os.environ.get(_RECIPES[which].replaced_by)):
            return _replacement(client, which, reference, say)
        plans = _plans(client, which, context or _own_context())
        if tag := _present_one(client, plans):
            say(f"{which}: {tag} is present")
            return tag
        with locked(f"image-{which}", say):
            if tag := _present_one(client, plans):
                say(f"{which}: {tag} is present, another process has built it")
                return tag
            return _provide(client, plans, say)


def ours(client: docker.DockerClient) -> list[str]:
    """The tags of all images that the harness made, bases included, sorted.

    Raises:
        EngineError: the engine does not answer.
    """
    with explained("listing images"):
        images = client.api.images(filters={"label": LABEL})
    # An image that somebody built on top of one of ours has inherited the label, and is not ours.
    tags = (tag for image in images for tag in image["RepoTags"] or ())
    return sorted(tag for tag in tags if is_ours(tag))


def sources(client: docker.DockerClient) -> list[Fact]:
    """What `ensure` would find, without a build and without asking a registry.

    Raises:
        UsageError: ``HARNESS_IMAGES`` names no source.
        EngineError: the engine does not answer.
    """
    with explained("looking for images"):
        facts = [_image_fact(client, which) for which in Image]
    path = shutil.which("mmdebstrap")
    lacking = "not installed; needed only where no registry answers: " + how_to_get_mmdebstrap(_otherwise())
    pip = importlib.util.find_spec("pip") is not None
    no_pip = f"{sys.executable} has no pip, which fetches the node image's wheels: {sys.executable} -m ensurepip"
    return [
        *facts,
        Fact("mmdebstrap", True if path else None, path or lacking),
        Fact("pip", pip, f"of {sys.executable}" if pip else no_pip),
    ]


def _image_fact(client: docker.DockerClient, which: Image) -> Fact:
    name = f"image {which}"
    variable = _RECIPES[which].replaced_by
    if reference := os.environ.get(variable):
        present = _present(client, reference)
        return Fact(name, present or None, f"{reference} (from {variable}), {'present' if present else 'to be pulled'}")
    try:
        plans = _plans(client, which, _own_context())
    except ImageError as error:
        return Fact(name, ok=False, detail=str(error))
    if tag := _present_one(client, plans):
        return Fact(name, ok=True, detail=f"{tag}, present")
    bases = " or ".join(plan.base if _present(client, plan.base) else f"{plan.base} ({plan.source})" for plan in plans)
    return Fact(name, ok=None, detail=f"not built yet; the first start builds it on {bases}")


def _replacement(client: docker.DockerClient, which: Image, reference: str, say: Say) -> str:
    variable = _RECIPES[which].replaced_by
    if _present(client, reference):
        say(f"{which}: {reference} is present (from {variable})")
        return reference
    try:
        _pull(client, reference, say)
    except _PullError as error:
        raise ImageError(
            f"{variable} names {reference}, which is neither present nor can be pulled: {error}. "
            f"Build, load or pull it, or unset {variable}."
        ) from None
    return reference


# ------------------------------------------------------------------------------------------------ what to build


@dataclass(frozen=True, kw_only=True)
class Plan:
    """An image from one source, down to the last ingredient, before anything is done."""

    which: Image
    source: Source
    base: str
    tag: str
    architecture: str
    files: Mapping[str, bytes]
    """The build context but for the wheels."""
    pins: tuple[str, ...]


def _plans(client: docker.DockerClient, which: Image, context: Path) -> list[Plan]:
    """The image from each source that is allowed, the first to try first."""
    architecture = client.version()["Arch"]
    if architecture not in MACHINES:
        raise ImageError(
            f"The engine runs on {architecture}; images are made for {' and '.join(MACHINES)}. "
            f"Name images of your own: {' and '.join(recipe.replaced_by for recipe in _RECIPES.values())}."
        )
    return [plan_image(which, source, architecture=architecture, context=context) for source in allowed_sources()]


def allowed_sources() -> list[Source]:
    """The sources to try, in that order.

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


def plan_image(which: Image, source: Source, *, architecture: str, context: Path) -> Plan:
    """Gather what goes into an image and name it by that.

    Raises:
        ImageError: a file of the build context is missing, or a requirement has no version.
    """
    recipe = _RECIPES[which]
    base = _base_reference(which, source, architecture)
    names = (recipe.dockerfile, *recipe.files)
    try:
        files = {name: (context / name).read_bytes() for name in names}
        pins = _pins(context) if recipe.wheels else ()
    except OSError as error:
        raise ImageError(f"The image {which} cannot be built: {error}. Is the installation complete?") from error
    ingredients = [
        f"recipe {_RECIPE_VERSION}",
        f"base {base}",
        f"architecture {architecture}",
        *(f"file {name} {hashlib.sha256(content).hexdigest()}" for name, content in files.items()),
        *(f"wheel {pin}" for pin in pins),
    ]
    tag = f"{_REPOSITORY}/{which}:{source}-{digest(ingredients)}"
    return Plan(which=which, source=source, base=base, tag=tag, architecture=architecture, files=files, pins=pins)


def _base_reference(which: Image, source: Source, architecture: str) -> str:
    recipe = _RECIPES[which]
    if source is Source.PULL:
        registry = os.environ.get("HARNESS_REGISTRY", "").rstrip("/")
        return f"{registry}/{recipe.official}" if registry else recipe.official
    ingredients = [f"recipe {_RECIPE_VERSION}", SUITE, architecture, *recipe.packages, *KEEP_SMALL]
    return f"{_REPOSITORY}/base-{which}:{digest(ingredients)}"


def _own_context() -> Path:
    """The Dockerfiles: inside the package if it is installed, beside it in the repository."""
    # In this order, because the neighbour of an installed package may well be docker-py, which is named docker.
    candidates = [Path(__file__).parents[depth] / "docker" for depth in (1, 2)]
    for folder in candidates:
        if (folder / "node.Dockerfile").is_file():
            return folder
    raise ImageError(f"No Dockerfiles in {' or '.join(map(str, candidates))}. Is the installation complete?")


def _pins(context: Path) -> tuple[str, ...]:
    """Every requirement of the node image with its version, sorted."""
    inside = context / "constraints.txt"
    constraints = inside if inside.is_file() else context.parent / "constraints.txt"
    versions = {}
    for line in _content_lines(constraints):
        name, _, version = line.partition("==")
        versions[_normalized(name)] = version
    names = {_normalized(line) for line in _content_lines(context / "node-requirements.txt")}
    if missing := sorted(name for name in names if not versions.get(name)):
        raise ImageError(f"{constraints} gives no version (name==version) of {', '.join(missing)}.")
    return tuple(sorted(f"{name}=={versions[name]}" for name in names))


def _content_lines(path: Path) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def _normalized(name: str) -> str:
    """Two spellings of a Python package's name are the same package if this is the same."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


# ------------------------------------------------------------------------------------------------ doing it


def _provide(client: docker.DockerClient, plans: Sequence[Plan], say: Say) -> str:
    """Build the image from the first source that has its base."""
    for attempt in plans:
        if attempt.source is Source.BOOTSTRAP:
            _bootstrap(client, attempt, say)
        elif not _present(client, attempt.base):
            try:
                _pull(client, attempt.base, say)
            except _PullError as error:
                if attempt is plans[-1]:
                    raise _nothing_to_pull(attempt, error) from None
                say(f"{attempt.which}: {attempt.base} cannot be pulled ({error}), so its base is made from packages")
                continue
        _build(client, attempt, say)
        return attempt.tag
    raise AssertionError("The last source provides the base or has raised.")


def _nothing_to_pull(attempt: Plan, error: _PullError) -> ImageError:
    return ImageError(
        f"HARNESS_IMAGES=pull, and {attempt.base} cannot be pulled: {error}. Set HARNESS_REGISTRY to a registry that "
        f"can be reached, `docker load` the image, name one of your own in {_RECIPES[attempt.which].replaced_by}, or "
        "unset HARNESS_IMAGES to have the base made from Debian's packages."
    )


def _present_one(client: docker.DockerClient, plans: Sequence[Plan]) -> str | None:
    return next((plan.tag for plan in plans if _present(client, plan.tag)), None)


def _present(client: docker.DockerClient, reference: str) -> bool:
    try:
        client.images.get(reference)
    except ImageNotFound:
        return False
    return True


def _build(client: docker.DockerClient, plan: Plan, say: Say) -> None:
    wheels = fetch_wheels(plan.pins, architecture=plan.architecture, name=plan.which, say=say) if plan.pins else None
    lines: list[str] = []
    with tempfile.TemporaryFile() as archive, step(say, f"{plan.which}: building {plan.tag} on {plan.base}"):
        _pack(archive, plan.files, wheels)
        archive.seek(0)
        events = client.api.build(
            fileobj=archive,
            custom_context=True,
            dockerfile=_RECIPES[plan.which].dockerfile,
            buildargs={"BASE": plan.base},
            labels={LABEL: plan.which.value},
            tag=plan.tag,
            rm=True,
            forcerm=True,
            use_config_proxy=True,
            timeout=COMMAND_TIMEOUT_S,
            decode=True,
        )
        for event in events:
            lines += event.get("stream", "").splitlines()
            if "error" in event:
                raise ImageError(f"Building {plan.tag} failed: {event['error']}\n{tail(lines)}")
    for line in lines:
        # A Dockerfile of ours can do without something, and must then not do so in silence.
        if line.startswith("celery-harness:"):
            say(f"{plan.which}:{line.partition(':')[2]}")
    if not _present(client, plan.tag):
        raise ImageError(f"Building {plan.tag} ended without an error and without an image.\n{tail(lines)}")


def _pack(archive: IO[bytes], files: Mapping[str, bytes], wheels: Path | None) -> None:
    """Write a build context. Owner and times are left at zero, so equal contents make equal layers."""
    contents = dict(files)
    if wheels is not None:
        contents |= {f"wheels/{wheel.name}": wheel.read_bytes() for wheel in sorted(wheels.iterdir())}
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.mode = 0o644
            tar.addfile(member, io.BytesIO(content))


# ------------------------------------------------------------------------------------------------ registries


def _pull(client: docker.DockerClient, reference: str, say: Say) -> None:
    """Pull an image; quick to give up if its registry says nothing.

    Raises:
        _PullError: the registry does not answer, or does not have it.
    """
    registry, _ = auth.resolve_repository_name(reference)
    credentials = auth.get_config_header(client.api, registry)
    headers = {"X-Registry-Auth": credentials.decode()} if credentials else {}
    repository, tag = parse_repository_tag(reference)
    with step(say, f"pulling {reference}"):
        # The engine asks the registry for this at once, so it tells who answers from who would keep us waiting.
        # An engine without this request says "not found", as does a registry without the image: the pull will tell.
        with _call(client, "GET", f"distribution/{reference}/json", _REGISTRY_TIMEOUT_S, headers=headers) as answer:
            if answer.status_code != requests.codes.not_found:
                _refuse_error(answer)
        wanted = {"fromImage": repository, "tag": tag or "latest"}
        with _call(client, "POST", "images/create", _PULL_SILENCE_S, headers=headers, params=wanted) as answer:
            _refuse_error(answer)
            for line in answer.iter_lines():
                # A line break that arrives in two pieces looks like an empty line.
                if line and (error := json.loads(line).get("error")):
                    raise _PullError(error)


@contextlib.contextmanager
def _call(
    client: docker.DockerClient,
    method: str,
    path: str,
    silence_s: float,
    *,
    headers: Mapping[str, str],
    params: Mapping[str, str] | None = None,
) -> Iterator[requests.Response]:
    """A request to the engine that ends with a _PullError when nothing was heard for `silence_s` seconds."""
    # docker-py would wait for ever, here. But it is a session of requests, which lets us say how long.
    url = f"{client.api.base_url}/v{client.api.api_version}/{path}"
    try:
        with client.api.request(
            method, url, headers=dict(headers), params=params, timeout=silence_s, stream=True
        ) as response:
            yield response
    except (requests.Timeout, requests.ConnectionError) as error:
        # While a body is read, requests calls a time-out a connection error.
        if "timed out" not in str(error):
            raise
        raise _PullError(f"no answer for {silence_s:g} s") from None


def _refuse_error(response: requests.Response) -> None:
    if response.ok:
        return
    try:
        reason = response.json()["message"]
    except (ValueError, KeyError):
        reason = response.text
    raise _PullError(reason.strip() or f"the engine answered {response.status_code}")


# ------------------------------------------------------------------------------------------------ bases of our own


def _bootstrap(client: docker.DockerClient, plan: Plan, say: Say) -> None:
    """Make a base from the distribution's packages, unless it is there."""
    with locked(f"base-{plan.which}", say):
        if _present(client, plan.base):
            return
        with (
            bootstrapped(
                _RECIPES[plan.which].packages,
                architecture=plan.architecture,
                name=plan.which,
                otherwise=_otherwise(),
                say=say,
            ) as tree,
            step(say, f"{plan.which}: importing {tree.stat().st_size / 1e6:.0f} MB as {plan.base}"),
        ):
            _import(client, tree, plan)


def _import(client: docker.DockerClient, tree: Path, plan: Plan) -> None:
    repository, tag = parse_repository_tag(plan.base)
    answer = client.api.import_image_from_file(
        str(tree), repository=repository, tag=tag, changes=[f"LABEL {LABEL}=base-{plan.which}"]
    )
    if not _present(client, plan.base):
        raise ImageError(f"The engine did not import {plan.base}; it said: {answer}")


def _otherwise() -> str:
    """What else helps where a base cannot be made from packages."""
    names = " and ".join(recipe.replaced_by for recipe in _RECIPES.values())
    return f"set HARNESS_REGISTRY to a registry that answers, or {names} to images"
