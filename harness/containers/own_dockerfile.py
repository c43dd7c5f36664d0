"""An app's image from the project's own Dockerfile, where the images that it begins with can be had.

It is built as it stands, with the project's folder as its context. On top comes no more than the agent needs and the
image lacks.
"""

import hashlib
import io
import json
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from packaging.version import Version

from harness.containers import images
from harness.containers.candidates import built_once, pull
from harness.containers.engine import Engine, NodeSpec, PullError
from harness.containers.image_recipes import REPOSITORY
from harness.containers.index_access import BUILD_INSIDE, build_proxies, of_this_machine
from harness.containers.one_off import run_to_end
from harness.containers.packages import COMMAND_TIMEOUT_S, Say, cache_folder, digest, step, tail
from harness.errors import ImageError
from harness.project import dockerfile
from harness.project.dependencies import OLDEST_CELERY, Plan
from harness.project.needs import Mount

_RECIPE_VERSION = 1
_LOOK_S = 60.0
_LOOK = """
import importlib.metadata as has, json, sys, sysconfig
def version(name):
    try:
        return has.version(name)
    except has.PackageNotFoundError:
        return None
print(json.dumps({
    "python": "%d.%d" % sys.version_info[:2],
    "celery": version("celery"),
    "sqlalchemy": version("sqlalchemy"),
    "folder": sysconfig.get_path("purelib"),
}))
"""
_INSTALL = (
    f". {BUILD_INSIDE}/environment.sh && python -m pip install --no-input --target /harness-out/site 'sqlalchemy<2.1'"
)


def ensure(engine: Engine, plan: Plan, *, say: Say, rebuild: bool = False) -> str:
    """Make sure that the image of a project's Dockerfile is present, and return its reference.

    Args:
        engine: gets the image.
        plan: names the Dockerfile.
        say: gets the progress.
        rebuild: build it even if it is present.

    Raises:
        ImageError: an image that it begins with cannot be had, the build failed, or its Celery is too old.
        EngineError: the engine does not answer.
        WaitTimeout: another process has held the lock for too long.
    """
    tag = reference(engine, plan)
    return built_once(
        "app",
        f"image-app-{tag.rpartition(':')[2]}",
        present=lambda: tag if engine.has_image(tag) and not rebuild else None,
        build=lambda: _provide(engine, plan, tag, say),
        say=say,
    )


def _provide(engine: Engine, plan: Plan, tag: str, say: Say) -> str:
    """Build the image, after the images that it begins with."""
    for base in dockerfile.bases(plan.folder / plan.dockerfile):
        _have(engine, plan, base, say)
    inner = tag.replace("/app:", "/app-dockerfile:")
    _build(engine, plan, inner, say)
    _complete(engine, plan, inner, tag, say)
    return tag


def reference(engine: Engine, plan: Plan) -> str:
    """Return the name of the image: a hash of all files that are sent to its build.

    Raises:
        ImageError: a file cannot be read.
        EngineError: the engine does not answer.
    """
    contents = [f"{name.as_posix()} {_hash(plan, plan.folder / name)}" for name in _context(plan)]
    made = digest([f"recipe {_RECIPE_VERSION}", engine.architecture(), plan.dockerfile, *contents])
    return f"{REPOSITORY}/app:own-{made}"


def _context(plan: Plan) -> list[Path]:
    # Docker, too, sends the Dockerfile even if .dockerignore leaves it out.
    return sorted({*dockerfile.context(plan.folder), Path(plan.dockerfile)})


def _hash(plan: Plan, path: Path) -> str:
    if path.is_symlink():
        return f"link {path.readlink()}"
    try:
        return f"{path.stat().st_mode & 0o111} {hashlib.sha256(path.read_bytes()).hexdigest()}"
    except OSError as error:
        raise ImageError(
            f"{path} is sent to the build of {plan.dockerfile}, and is unreadable: {error.strerror}."
        ) from None


def _have(engine: Engine, plan: Plan, base: str, say: Say) -> None:
    if engine.has_image(base):
        return
    try:
        pull(engine, base, say)
    except PullError as error:
        raise ImageError(
            f"{plan.dockerfile} begins with {base}, which cannot be had: {error}. Pull or load it, or name the app's "
            "packages in the settings' `dependencies`, so that the image is made without the Dockerfile."
        ) from None


def _build(engine: Engine, plan: Plan, tag: str, say: Say) -> None:
    with tempfile.TemporaryFile() as archive, step(say, f"app: building {tag} from {plan.dockerfile}"):
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for name in _context(plan):
                tar.add(plan.folder / name, arcname=name.as_posix(), recursive=False)
        archive.seek(0)
        engine.build(
            archive,
            reference=tag,
            dockerfile=plan.dockerfile,
            arguments=build_proxies(),
            labels={images.LABEL: "app-dockerfile"},
            timeout_s=COMMAND_TIMEOUT_S,
        )


def _complete(engine: Engine, plan: Plan, inner: str, tag: str, say: Say) -> None:
    """Make the image that the nodes get: without an entry point of its own, and with SQLAlchemy."""
    lines = [f"FROM {inner}", "ENTRYPOINT []"]
    _build_on(engine, lines, {}, tag)
    seen = _look(engine, plan, tag)
    celery = seen["celery"]
    if not celery or Version(celery) < Version(OLDEST_CELERY):
        engine.remove_image(tag)
        has = f"Celery {celery}" if celery else "no Celery for its `python`"
        raise ImageError(f"{plan.dockerfile} has {has}; the harness works with Celery {OLDEST_CELERY} and newer.")
    if not seen["sqlalchemy"]:
        with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="app-image-") as name:
            site = _fetch(engine, plan, tag, Path(name), say)
            _build_on(engine, [*lines, f"ADD site.tar {seen['folder']}/"], {"site.tar": site}, tag)


def _look(engine: Engine, plan: Plan, image: str) -> Mapping[str, str | None]:
    spec = NodeSpec(name="app-image", image=image, command=("python", "-c", _LOOK))
    code, said = run_to_end(engine, spec, timeout_s=_LOOK_S)
    line = next((line for line in said.splitlines() if line.startswith("{")), None)
    if code != 0 or line is None:
        raise ImageError(f"The image of {plan.dockerfile} has no `python` that runs: {tail(said.splitlines())}")
    seen: dict[str, str | None] = json.loads(line)
    return seen


def _fetch(engine: Engine, plan: Plan, image: str, folder: Path, say: Say) -> bytes:
    """Return an archive of SQLAlchemy and what it needs, for the image's own Python."""
    access = of_this_machine()
    build, out = folder / "build", folder / "out"
    for made in (build, out):
        made.mkdir()
    for name, content in access.files.items():
        (build / name).write_bytes(content)
    spec = NodeSpec(
        name="app-image",
        image=image,
        command=("sh", "-c", _INSTALL),
        env={"HOME": "/tmp", "PIP_NO_CACHE_DIR": "1"},  # noqa: S108 - inside the container.
        mounts=(
            Mount(host=build, inside=BUILD_INSIDE),
            Mount(host=out, inside="/harness-out", read_only=False),
            *access.mounts,
        ),
    )
    with step(say, f"app: {plan.dockerfile} has no SQLAlchemy, in which results are kept: adding it"):
        code, said = run_to_end(engine, spec, timeout_s=COMMAND_TIMEOUT_S, on_host=access.on_host)
    if code != 0:
        last = access.masked(tail(said.splitlines()))
        raise ImageError(f"{plan.dockerfile} has no SQLAlchemy, and it cannot be added: install it there.\n{last}")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(out / "site", arcname=".", filter=images.of_nobody)
    return archive.getvalue()


def _build_on(engine: Engine, lines: list[str], files: Mapping[str, bytes], tag: str) -> None:
    with tempfile.TemporaryFile() as archive:
        images.pack(archive, {"Dockerfile": "\n".join(lines).encode(), **files})
        archive.seek(0)
        engine.build(
            archive,
            reference=tag,
            dockerfile="Dockerfile",
            arguments={},
            labels={images.LABEL: "app"},
            timeout_s=COMMAND_TIMEOUT_S,
        )
