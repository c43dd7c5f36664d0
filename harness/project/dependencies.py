"""The plan of an app's own image, read from the project's files before any engine is asked.

`plan_of` looks at the settings first, then at the project's files in the order of `SOURCES`: a lock tells more than a
requirements file, and that more than a declaration. The result is a `Plan`; `harness.containers.app_image` builds it.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from harness.errors import ProjectError
from harness.project import (
    declared,
    dockerfile,
    pipfile_lock,
    poetry_lock,
    pylock,
    requirements_file,
    uv_lock,
)
from harness.project.files import Choice, Requirements
from harness.project.python_version import PREFERRED, SETTINGS, Python, python_of
from harness.project.target import Target

OLDEST_CELERY = "5.2"
_PYTHON_OF_5_2 = "3.11"
"""The newest Python that Celery 5.2 runs on and that can be had without a registry."""

_LOCKS = {
    "uv.lock": uv_lock.read,
    "poetry.lock": poetry_lock.read,
    "pylock.toml": pylock.read,
    "Pipfile.lock": pipfile_lock.read,
}
_REQUIREMENTS = (
    "requirements.txt",
    "requirements/prod*.txt",
    "requirements-prod*.txt",
    "requirements/base.txt",
    "requirements/requirements.txt",
    "requirements/common.txt",
    "requirements/main.txt",
    "requirements/default.txt",
    "requirements-base.txt",
    "requirements/dev*.txt",
    "requirements/local*.txt",
    "requirements-dev*.txt",
)
_DOCKERFILE = "Dockerfile"
SOURCES = (*_LOCKS, *_REQUIREMENTS, "pyproject.toml", "setup.cfg", _DOCKERFILE)
"""The files that are looked for, in this order; the first one decides."""
_EXTRA = re.compile(r"\.\s*(?:\[(?P<extras>[^\]]*)\])?")
_DISTRIBUTION = re.compile(r"[a-z0-9][a-z0-9.+-]+")
_VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)\}")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The settings about the image; nothing by default."""

    dependencies: tuple[str, ...] = ()
    """Files of the project, `.` or `.[extra]` for its own declaration, or requirements such as `celery==5.4`."""
    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    apt: tuple[str, ...] = ()
    """Names of Debian packages."""
    python: str | None = None
    dockerfile: str | None = None
    """A Dockerfile of the project, relative to its folder."""
    image: str | None = None
    """An image to use as it is."""


class Means(StrEnum):
    """A means by which an app's image comes to be."""

    IMAGE = "image"
    DOCKERFILE = "dockerfile"
    LOCK = "lock"
    """The versions of all packages are known."""
    REQUIREMENTS = "requirements"
    """pip finds the versions."""
    NOTHING = "nothing"
    """The project says nothing, so the harness's own node image has to do."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The plan of an app's own image: all that it is made of."""

    folder: Path
    means: Means
    source: str
    """The file that says what to install, relative to the folder, or `the settings`; empty if nothing does."""
    python: Python
    requirements: tuple[str, ...] = ()
    """Lines of a requirements file."""
    constraints: tuple[str, ...] = ()
    places: Mapping[str, str] = field(default_factory=dict)
    """The place where a package is asked for, by its normalized name, if that is known better than by the source."""
    apt: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    """The packages that are not installed, with the reason, for a person."""
    image: str = ""
    dockerfile: str = ""
    """The Dockerfile, relative to the folder."""

    @property
    def variables(self) -> tuple[str, ...]:
        """The names of the environment variables that the lines refer to, as pip's own files may."""
        return tuple(sorted({name for line in self.requirements for name in _VARIABLE.findall(line)}))


def plan_of(folder: Path, wanted: Wanted | None = None) -> Plan:
    """Return what the image of a project is made of.

    Args:
        folder: the project's.
        wanted: what the settings say.

    Raises:
        ProjectError: a file is damaged, or asks for what cannot be had: a Python, a Celery that is too old.
    """
    wanted = wanted or Wanted()
    choice = Choice(extras=frozenset(map(canonicalize_name, wanted.extras)), groups=frozenset(wanted.groups))
    for package in wanted.apt:
        if not _DISTRIBUTION.fullmatch(package):
            raise ProjectError(f"{SETTINGS}: {package!r} in `apt` cannot be the name of a Debian package.")
    if wanted.image:
        python = python_of(folder, wanted=wanted.python, locked=("", ""), base="")
        return Plan(folder=folder, means=Means.IMAGE, source=SETTINGS, python=python, image=wanted.image)
    if wanted.dockerfile:
        return _of_dockerfile(folder, wanted.dockerfile, wanted)
    if wanted.dependencies:
        return _named(folder, wanted, choice)
    source = next(_sources(folder), "")
    if source == _DOCKERFILE:
        return _of_dockerfile(folder, source, wanted)
    if not source:
        python = python_of(folder, wanted=wanted.python, locked=("", ""), base="")
        return Plan(folder=folder, means=Means.NOTHING, source="", python=python)
    return _planned(folder, source, lambda target: _read(folder, source, target, choice), wanted)


def plan_with_celery(version: str, *, folder: Path, source: str, also: Sequence[str] = ()) -> Plan:
    """Return what the image of an app is made of that only has to have one version of Celery.

    Args:
        version: of Celery.
        folder: the app's.
        source: who asks for this version, for a person.
        also: more requirements.

    Raises:
        ProjectError: it is no version, or the harness does not work with it.
    """
    try:
        is_5_2 = Version(version) < Version("5.3")
    except InvalidVersion:
        raise ProjectError(f"{source} asks for Celery {version!r}, which is no version.") from None
    lines = (f"celery=={version}", *also)
    _refuse_old_celery(source, Requirements(lines=lines))
    python = Python(_PYTHON_OF_5_2 if is_5_2 else PREFERRED)
    return Plan(folder=folder, means=Means.REQUIREMENTS, source=source, python=python, requirements=lines)


def _sources(folder: Path) -> Iterator[str]:
    """Yield the names of the project's files that say what to install, the best first."""
    for name in SOURCES:
        if name == "pyproject.toml":
            found = (folder / name).is_file() and declared.has_dependencies(folder)
        elif name == "setup.cfg":
            found = declared.has_requires(folder)
        else:
            yield from sorted(path.relative_to(folder).as_posix() for path in folder.glob(name) if path.is_file())
            continue
        if found:
            yield name


def _planned(folder: Path, source: str, read: Callable[[Target], Requirements], wanted: Wanted) -> Plan:
    """Return the plan for what `read` returns for a Python."""
    # A lock can be read only for a Python, and may itself demand one.
    demand = read(Target(PREFERRED)).requires_python
    python = python_of(folder, wanted=wanted.python, locked=(demand, source), base=_own_base(folder))
    needed = read(Target(python.version))
    _refuse_old_celery(source, needed)
    apt = dict.fromkeys(wanted.apt)
    if any("git+" in line for line in needed.lines):
        apt["git"] = None
    return Plan(
        folder=folder,
        means=Means.LOCK if needed.exact else Means.REQUIREMENTS,
        source=source,
        python=python,
        requirements=needed.lines,
        constraints=needed.constraints,
        places=needed.places,
        apt=tuple(apt),
        left_out=needed.left_out,
    )


def _own_base(folder: Path) -> str:
    """Return the base of the project's Dockerfile, which may tell a Python; empty without one, or if it is unclear."""
    path = folder / _DOCKERFILE
    if not path.is_file():
        return ""
    try:
        return dockerfile.bases(path)[-1]
    except ProjectError:
        # It is not built, so that nothing depends on it.
        return ""


def _read(folder: Path, source: str, target: Target, choice: Choice) -> Requirements:
    path = folder / source
    if path.name in _LOCKS:
        return _LOCKS[path.name](path, target, choice)
    if re.fullmatch(r"pylock\.[^.]+\.toml", path.name):
        return pylock.read(path, target, choice)
    if path.name == "pyproject.toml":
        return declared.read_pyproject(path.parent, choice)
    if path.name == "setup.cfg":
        return declared.read_setup_cfg(path.parent, choice)
    if choice.extras or choice.groups:
        one = min([*choice.extras, *choice.groups])
        raise ProjectError(f"{path} has neither extras nor groups, and the settings name {one}: name a file instead.")
    return requirements_file.read(path, folder)


def _named(folder: Path, wanted: Wanted, choice: Choice) -> Plan:
    """Return the plan for what the settings' `dependencies` name."""
    files: list[tuple[str, Choice]] = []
    loose: list[str] = []
    for entry in wanted.dependencies:
        if own := _EXTRA.fullmatch(entry):
            extras = frozenset(
                canonicalize_name(one.strip()) for one in (own["extras"] or "").split(",") if one.strip()
            )
            name = "pyproject.toml" if declared.has_dependencies(folder) else "setup.cfg"
            files.append((name, Choice(extras=choice.extras | extras, groups=choice.groups)))
        elif (folder / entry).is_file():
            files.append((entry, choice))
        else:
            loose.append(_requirement(folder, entry))

    def read(target: Target) -> Requirements:
        return _together([_read(folder, name, target, of) for name, of in files], loose)

    return _planned(folder, ", ".join([*(name for name, _ in files), *([SETTINGS] if loose else [])]), read, wanted)


def _together(read: Sequence[Requirements], loose: Sequence[str]) -> Requirements:
    exact = len(read) == 1 and read[0].exact and not loose
    return Requirements(
        lines=(*(line for one in read for line in (one.lines if exact else _without_hashes(one))), *loose),
        constraints=tuple(line for one in read for line in one.constraints),
        places={name: place for one in reversed(read) for name, place in one.places.items()},
        exact=exact,
        left_out=tuple(line for one in read for line in one.left_out),
        requires_python=next((one.requires_python for one in read if one.requires_python), ""),
    )


def _without_hashes(read: Requirements) -> Sequence[str]:
    # pip wants hashes of all packages or of none, and what is named beside a lock has none.
    return [line.partition(" --hash=")[0] for line in read.lines] if read.exact else read.lines


def _requirement(folder: Path, entry: str) -> str:
    # `requirements.txt` would be a good name of a package, too.
    if not re.search(r"\.(?:cfg|in|lock|toml|txt)$", entry):
        with contextlib.suppress(InvalidRequirement):
            return str(Requirement(entry))
    raise ProjectError(
        f"{SETTINGS}: {entry!r} in `dependencies` is neither a file in {folder} nor a requirement (celery==5.4)."
    )


def _of_dockerfile(folder: Path, name: str, wanted: Wanted) -> Plan:
    base = dockerfile.bases(folder / name)[-1]
    if wanted.apt:
        raise ProjectError(f"{SETTINGS}: `apt` is not for an image of your own {name}: install {wanted.apt[0]} there.")
    official = re.fullmatch(r"(?:.*/)?python:(\d+\.\d+).*", base)
    python = Python(official[1], name, base) if official else Python("", name, base)
    return Plan(folder=folder, means=Means.DOCKERFILE, source=name, python=python, dockerfile=name)


# ------------------------------------------------------------------------------------------------ what is refused


def _refuse_old_celery(source: str, read: Requirements) -> None:
    wanted = _celery_in(read.lines) or _celery_in(read.constraints)
    if wanted is None:
        if read.exact:
            raise ProjectError(f"{source} has no Celery, so nothing can be run: name the group or extra that has it.")
        return
    if wanted.url is None and not _allows_a_new_one(wanted.specifier):
        raise ProjectError(
            f"{source} asks for Celery {wanted.specifier}; the harness works with Celery {OLDEST_CELERY} and newer."
        )


def _celery_in(lines: Sequence[str]) -> Requirement | None:
    for line in lines:
        try:
            found = Requirement(re.split(r"\s--", line)[0])
        except InvalidRequirement:
            # One of pip's options, or an address.
            continue
        if canonicalize_name(found.name) == "celery":
            return found
    return None


def _allows_a_new_one(specifier: SpecifierSet) -> bool:
    """Return whether some version that is not too old is allowed, of those that exist or may come to exist."""
    oldest = Version(OLDEST_CELERY)
    named = [version for one in specifier if (version := Version(one.version.removesuffix(".*"))) >= oldest]
    minors = range(oldest.minor, oldest.minor + 20)
    tried = [*named, *(Version(f"{oldest.major}.{minor}.{patch}") for minor in minors for patch in range(10))]
    return any(specifier.contains(version, prereleases=True) for version in [*tried, Version(f"{oldest.major + 1}.0")])
