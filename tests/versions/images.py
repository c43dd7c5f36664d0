"""Images of workers with a Celery and a SQLAlchemy of one's choice, as somebody's own app has them."""

import io
import secrets
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.containers.engine import Engine
from harness.containers.image_recipes import Image
from harness.containers.images import ensure
from harness.containers.packages import bootstrapped, digest, platforms

_REPOSITORY = "celery-harness-versions"
_LABELS = {"celery-harness.test": "versions"}
_BUILD_S = 300
_DEBIAN_12 = ("ca-certificates", "python3", "python3-venv", "tzdata")
"""The packages of a Debian 12 for Celery."""
_WITH_PYTHON = r"""
ARG BASE
FROM ${BASE}
RUN "$(python3 -c 'import sys; print(sys._base_executable)')" -m venv --clear --without-pip /opt/venv
ENV PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/tmp \
    LANG=C.UTF-8 \
    PYTHONDONTWRITEBYTECODE=1
"""
_WITH_VERSIONS = r"""
ARG BASE
FROM ${BASE}
COPY packages /opt/venv/lib/python%s/site-packages
"""


@dataclass(frozen=True)
class Cell:
    """One combination of versions."""

    celery: str
    sqlalchemy: str
    """A version, or the beginning of one: the newest of these is taken."""
    also: tuple[str, ...] = ()
    """More requirements with their versions; what is not named is the newest that Celery accepts."""

    @property
    def python(self) -> str:
        """The newest Python for it that can be had without a registry.

        Celery 5.2 cannot run on 3.12 and newer, and SQLAlchemy 1.4 has no wheels for them.
        """
        return "3.11" if self.celery.startswith("5.2.") or self.sqlalchemy.startswith("1.4") else "3.13"

    def __str__(self) -> str:
        """Return the name of the cell, as a test's id has it."""
        return f"celery-{self.celery}-sqlalchemy-{self.sqlalchemy}{'-of-its-time' if self.also else ''}"


@contextmanager
def image_with(engine: Engine, cell: Cell, base: str) -> Iterator[str]:
    """Build an image with the versions of a cell, and remove it at the end.

    Args:
        engine: builds it.
        cell: the versions.
        base: an image from `base_with`, with the cell's Python.
    """
    with tempfile.TemporaryDirectory() as folder:
        _install(cell, Path(folder), architecture=engine.architecture())
        paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        files = {f"packages/{path.relative_to(folder)}": path.read_bytes() for path in paths}
    with built(engine, str(cell), base, _WITH_VERSIONS % cell.python, files) as tag:
        yield tag


@contextmanager
def built(
    engine: Engine, name: str, base: str, dockerfile: str, files: Mapping[str, bytes] | None = None
) -> Iterator[str]:
    """Build an image, and remove it at the end."""
    # Another run at the same time removes its own.
    tag = f"{_REPOSITORY}/{name}:{secrets.token_hex(6)}"
    engine.build(
        _context({"Dockerfile": dockerfile.encode(), **(files or {})}),
        reference=tag,
        dockerfile="Dockerfile",
        arguments={"BASE": base},
        labels=_LABELS,
        timeout_s=_BUILD_S,
    )
    try:
        yield tag
    finally:
        engine.remove_image(tag)


@contextmanager
def base_with(engine: Engine, python: str) -> Iterator[str]:
    """Build an image with a Python and nothing else, and remove it at the end."""
    with _distribution_with(engine, python) as base, built(engine, f"python-{python}", base, _WITH_PYTHON) as tag:
        yield tag


@contextmanager
def _distribution_with(engine: Engine, python: str) -> Iterator[str]:
    """Yield an image with a Python. A Debian 12 is made for 3.11, and removed at the end unless it was there."""
    if python == "3.13":
        yield ensure(engine, Image.NODE, say=print, ours=True)
        return
    assert python == "3.11"
    tag = f"{_REPOSITORY}/debian-12:{digest(_DEBIAN_12)}"
    if engine.has_image(tag):
        yield tag
        return
    with bootstrapped(
        _DEBIAN_12,
        architecture=engine.architecture(),
        name="versions",
        otherwise="install it",
        say=print,
        suite="bookworm",
    ) as tree:
        engine.import_image(tree, reference=tag, labels=_LABELS)
    try:
        yield tag
    finally:
        engine.remove_image(tag)


def _install(cell: Cell, folder: Path, *, architecture: str) -> None:
    """Install the packages of a cell, and all that they need, into a folder: for the image, not for this machine."""
    command = [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"),
        *("--implementation", "cp", "--python-version", cell.python),
        *(option for platform in platforms(architecture) for option in ("--platform", platform)),
        *("--target", str(folder)),
        *requirements(cell),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_BUILD_S, check=False)
    assert done.returncode == 0, done.stderr


def requirements(cell: Cell) -> Sequence[str]:
    """Return what pip is asked for."""
    exact = cell.sqlalchemy.count(".") == 2
    return (f"celery=={cell.celery}", f"sqlalchemy=={cell.sqlalchemy}{'' if exact else '.*'}", *cell.also)


def _context(files: Mapping[str, bytes]) -> io.BytesIO:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    archive.seek(0)
    return archive
