"""The app's own image: its Python and its dependencies, built once and kept.

`harness.project.dependencies` says what is in it. The dependencies are installed in a container of the target's own
Python that has the index, certificates and proxies of this machine; only what is installed gets into the image. Its
name is a hash of all its ingredients, so that a second start finds it and builds nothing.
"""

import hashlib
import json
import re
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from packaging.utils import canonicalize_name
from packaging.version import Version

from harness.containers import images, own_dockerfile
from harness.containers.candidates import built_once, present, with_base
from harness.containers.engine import Engine, NodeSpec
from harness.containers.image_recipes import (
    REPOSITORY,
    Image,
    Source,
    allowed_sources,
    bootstrapped_reference,
    is_replaced,
    official_reference,
    own_context,
)
from harness.containers.index_access import BUILD_INSIDE, Access, build_proxies, of_this_machine
from harness.containers.install_errors import explain
from harness.containers.one_off import run_to_end
from harness.containers.packages import COMMAND_TIMEOUT_S, Say, cache_folder, digest, step, tail
from harness.errors import ImageError
from harness.project.dependencies import OLDEST_CELERY, Means, Plan
from harness.project.needs import APP_INSIDE, Mount
from harness.project.python_version import FROM_DEBIAN, cannot_be_had

# Raise it when this module installs differently from the same plan.
_RECIPE_VERSION = 1
_FIRST = ("celery", "sqlalchemy", "kombu")
_SYSTEM, _APP, _INSTALL = "app-system.Dockerfile", "app.Dockerfile", "install-app.sh"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An app's image on a base from one source."""

    source: Source
    base: str
    tag: str


# ------------------------------------------------------------------------------------------------ the way in


def ensure(engine: Engine, plan: Plan, *, say: Say, rebuild: bool = False) -> str:
    """Make sure that the image of an app is present, building it if necessary, and return its reference.

    Any number of processes may do so at once: one builds, the others wait for it. The environment wins: an image that
    HARNESS_WORKER_IMAGE names is used as it is.

    Args:
        engine: gets the image.
        plan: what it is made of. An app that says nothing gets the harness's own node image.
        say: gets a line for each step, and another every few seconds of a long one.
        rebuild: build it even if it is present.

    Raises:
        ProjectError: the Python that the project demands cannot be had.
        UsageError: ``HARNESS_IMAGES`` names no source.
        ImageError: no source has the base, a package cannot be installed, or there is no Celery that is new enough.
        EngineError: the engine does not answer.
        WaitTimeout: another process has held the lock for too long.
    """
    if plan.means is Means.NOTHING or is_replaced(Image.NODE):
        return images.ensure(engine, Image.NODE, say=say)
    if plan.means is Means.IMAGE:
        return _present_or_pulled(engine, plan.image, say)
    if plan.means is Means.DOCKERFILE:
        return own_dockerfile.ensure(engine, plan, say=say, rebuild=rebuild)
    names = candidates(engine, plan)
    return built_once(
        "app",
        f"image-app-{names[0].tag.rpartition('-')[2]}",
        present=lambda: None if rebuild else present(engine, names),
        build=lambda: _provide(engine, plan, names, say),
        say=say,
    )


def candidates(engine: Engine, plan: Plan) -> list[Candidate]:
    """Return the names that the image of a plan can have, one for each source of its base, in the order to try them.

    Raises:
        ProjectError: the Python that the project demands cannot be had.
        UsageError: ``HARNESS_IMAGES`` names no source.
        EngineError: the engine does not answer.
    """
    architecture, version = engine.architecture(), plan.python.version
    bases: list[tuple[Source, str]] = []
    for source in allowed_sources():
        if source is Source.PULL:
            bases.append((source, official_reference(f"python:{version}-slim")))
        elif version in FROM_DEBIAN:
            bases.append((source, bootstrapped_reference(Image.NODE, architecture, FROM_DEBIAN[version])))
    if not bases:
        raise cannot_be_had(plan.python, "HARNESS_IMAGES=bootstrap")
    made = digest([*_ingredients(plan), architecture])
    return [
        Candidate(source=source, base=base, tag=f"{REPOSITORY}/app:{version}-{source}-{digest([base, made])}")
        for source, base in bases
    ]


def in_order(listed: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return packages as pip lists them with their versions; those that decide most come first."""
    found: dict[str, str] = {canonicalize_name(one["name"]): one["version"] for one in listed}
    first = {name: found[name] for name in _FIRST if name in found}
    return first | dict(sorted(found.items()))


# ------------------------------------------------------------------------------------------------ its name


def _ingredients(plan: Plan) -> Iterator[str]:
    yield f"recipe {_RECIPE_VERSION}"
    yield f"python {plan.python.version}"
    yield f"means {plan.means}"
    yield from (f"requirement {line}" for line in plan.requirements)
    yield from (f"constraint {line}" for line in plan.constraints)
    yield from (f"apt {package}" for package in plan.apt)
    # An archive that lies in the project may change under the same name.
    for line in plan.requirements:
        for path in re.findall(rf"(?<!\S){APP_INSIDE}/(\S+)", line):
            yield from (f"file {path} {_hash(one)}" for one in _files(plan.folder / path))
    for name in (_SYSTEM, _APP, _INSTALL):
        yield f"file {name} {_hash(own_context() / name)}"


def _files(path: Path) -> list[Path]:
    return sorted(one for one in path.iterdir() if one.is_file()) if path.is_dir() else [path]


def _hash(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ImageError(f"The app's image cannot be built: {error}.") from None


# ------------------------------------------------------------------------------------------------ doing it


def _present_or_pulled(engine: Engine, reference: str, say: Say) -> str:
    if engine.has_image(reference):
        say(f"app: {reference} is present (from the settings)")
        return reference
    who = f"The settings name the image {reference}, which"
    images.pull_named(engine, reference, say, who=who, otherwise="remove `image`")
    return reference


def _provide(engine: Engine, plan: Plan, names: list[Candidate], say: Say) -> str:
    """Build the image on the first base that can be had."""
    one = with_base(
        engine,
        names,
        who="app",
        bootstrap=lambda one: images.bootstrap(
            engine, Image.NODE, one.base, say, suite=FROM_DEBIAN[plan.python.version]
        ),
        refused=lambda _, error: cannot_be_had(plan.python, str(error)),
        say=say,
    )
    _build(engine, plan, one, say)
    return one.tag


def _build(engine: Engine, plan: Plan, one: Candidate, say: Say) -> None:
    system = _system(engine, plan, one, say)
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="app-image-") as name:
        folder = Path(name)
        packages = _install(engine, plan, system, folder, say)
        refuse_celery(plan, packages)
        with tempfile.TemporaryFile() as archive, step(say, f"app: building {one.tag} on {system}"):
            _pack(archive, folder)
            archive.seek(0)
            engine.build(
                archive,
                reference=one.tag,
                dockerfile=_APP,
                arguments={"BASE": system},
                labels={images.LABEL: "app"},
                timeout_s=COMMAND_TIMEOUT_S,
            )
    if not engine.has_image(one.tag):
        raise ImageError(f"Building {one.tag} ended without an error and without an image.")


def _system(engine: Engine, plan: Plan, one: Candidate, say: Say) -> str:
    """Return the image to install in: the base itself, or the base with what it lacks."""
    if one.source is Source.BOOTSTRAP and not plan.apt:
        return one.base
    dockerfile = (own_context() / _SYSTEM).read_bytes()
    made = digest([one.base, *plan.apt, hashlib.sha256(dockerfile).hexdigest()])
    tag = f"{REPOSITORY}/app-system:{made}"
    if engine.has_image(tag):
        return tag
    what = f" with {', '.join(plan.apt)}" if plan.apt else ""
    with tempfile.TemporaryFile() as archive, step(say, f"app: preparing {one.base}{what}"):
        images.pack(archive, {_SYSTEM: dockerfile})
        archive.seek(0)
        try:
            lines = engine.build(
                archive,
                reference=tag,
                dockerfile=_SYSTEM,
                arguments={"BASE": one.base, "PACKAGES": " ".join(plan.apt), **build_proxies()},
                labels={images.LABEL: "app-system"},
                timeout_s=COMMAND_TIMEOUT_S,
            )
        except ImageError as error:
            if missing := re.search(r"E: (?:Unable to locate package (\S+)|Package '(\S+)' has no)", str(error)):
                wrong = missing[1] or missing[2]
                raise ImageError(f"The settings' `apt` names {wrong}, which is no package of this Debian.") from None
            raise
    for line in lines:
        if line.startswith("celery-harness:"):
            say(f"app:{line.partition(':')[2]}")
    return tag


def _install(engine: Engine, plan: Plan, system: str, folder: Path, say: Say) -> dict[str, str]:
    """Install the dependencies into a folder of this machine, in a container, and return them with their versions."""
    access = of_this_machine(plan.variables)
    out, venv, build = folder / "out", folder / "venv", folder / "build"
    for made in (out, venv, build):
        made.mkdir()
    cache = cache_folder() / f"pip-{plan.python.version}"
    cache.mkdir(exist_ok=True)
    contents = {
        **access.files,
        _INSTALL: (own_context() / _INSTALL).read_bytes(),
        "requirements.txt": _text(plan.requirements),
        "constraints.txt": _text(plan.constraints),
    }
    for name, content in contents.items():
        (build / name).write_bytes(content)
    spec = NodeSpec(
        name="app-image",
        image=system,
        command=("sh", f"{BUILD_INSIDE}/{_INSTALL}", "exact" if plan.means is Means.LOCK else "resolved"),
        env={"HOME": "/tmp", "LANG": "C.UTF-8"},  # noqa: S108 - inside the container.
        mounts=(
            Mount(host=build, inside=BUILD_INSIDE),
            Mount(host=out, inside="/harness-out", read_only=False),
            Mount(host=venv, inside="/opt/venv", read_only=False),
            Mount(host=cache, inside="/harness-cache", read_only=False),
            Mount(host=plan.folder, inside=APP_INSIDE),
            *access.mounts,
        ),
        working_dir=APP_INSIDE,
    )
    what = f"app: installing what {plan.source} asks for, in Python {plan.python.version}"
    with step(say, what):
        code, said = run_to_end(engine, spec, timeout_s=COMMAND_TIMEOUT_S, on_host=access.on_host)
    if code != 0:
        raise ImageError(_why(plan, access, said))
    return in_order(json.loads((out / "packages.json").read_text(encoding="utf-8")))


def _text(lines: tuple[str, ...]) -> bytes:
    return "\n".join([*lines, ""]).encode()


def _why(plan: Plan, access: Access, said: str) -> str:
    def where(package: str) -> str:
        name = canonicalize_name(re.split(r"[^A-Za-z0-9._-]", package)[0])
        return plan.places.get(name, plan.source)

    said = access.masked(said)
    return f"{explain(said, where=where, python=plan.python.version)}\n{tail(said.splitlines())}"


def refuse_celery(plan: Plan, packages: Mapping[str, str]) -> None:
    """Raise ImageError if what was installed has no Celery that the harness works with."""
    version = packages.get("celery")
    if version is None:
        raise ImageError(f"{plan.source} does not bring Celery, so nothing can be run: name what brings it.")
    if Version(version) < Version(OLDEST_CELERY):
        place = plan.places.get("celery", plan.source)
        raise ImageError(f"{place} brings Celery {version}; the harness works with Celery {OLDEST_CELERY} and newer.")


def _pack(archive: IO[bytes], folder: Path) -> None:
    """Write the build context: the environment as an archive of its own, which keeps links, modes and times.

    The bytecode is valid only for sources with the times that it has noted.
    """
    inner = folder / "venv.tar"
    with tarfile.open(inner, "w") as tar:
        tar.add(folder / "venv", arcname=".", filter=images.of_nobody)
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(own_context() / _APP, arcname=_APP, filter=images.of_nobody)
        tar.add(inner, arcname=inner.name, filter=images.of_nobody)
