"""The Python of an app's image: the one that the project demands, or the best that can be had."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import Version

from harness.errors import ProjectError
from harness.project import pipfile_lock
from harness.project.declared import project_python
from harness.project.files import read_text
from harness.project.poetry_versions import specifiers

FROM_DEBIAN = {"3.13": "trixie", "3.11": "bookworm"}
"""The Pythons that can be had without a registry, and the release of Debian that has each; the preferred one first."""
FROM_REGISTRY = ("3.12", "3.14")
"""The Pythons that only a registry has."""
SETTINGS = "the settings"

_HAD = (*FROM_DEBIAN, *FROM_REGISTRY)
PREFERRED = _HAD[0]
_OLDEST = min(_HAD, key=Version)
_PATCHES = 60
_NUMBERED = re.compile(r"(?:c?python)?[@-]?(?P<minor>\d+\.\d+)(?:\.\d+)?(?:[a-z]+\d+|-dev)?", re.IGNORECASE)
_MAJOR = re.compile(r"(?:c?python)?[@-]?3", re.IGNORECASE)


@dataclass(frozen=True)
class Python:
    """The minor version of an app's Python, and who demands it."""

    version: str
    """Such as `3.13`."""
    demanded_by: str = ""
    """The name of a file, or `the settings`; empty if nobody does."""
    demand: str = ""
    """The demand as it is written there, such as `>=3.11`."""


def python_of(folder: Path, *, wanted: str | None, locked: tuple[str, str], base: str) -> Python:
    """Return the Python for a project: the first of those that say something decides.

    Args:
        folder: the project's.
        wanted: what the settings say.
        locked: what the source of the dependencies demands, and its name; both empty if it says nothing.
        base: the base of the project's Dockerfile, such as `python:3.12-slim`; empty without one.

    Raises:
        ProjectError: that Python is none that an image can have; the message names what can be had.
    """
    if wanted:
        return Python(_exact(wanted, SETTINGS), SETTINGS, wanted)
    if said := _pinned(folder / ".python-version"):
        return Python(_exact(said, ".python-version"), ".python-version", said)
    for demand, where in (project_python(folder), locked):
        if demand:
            return Python(_best(demand, where), where, demand)
    if (found := pipfile_lock.python_of(folder)) is not None:
        return Python(_exact(*found), found[1], found[0])
    if official := re.fullmatch(r"(?:.*/)?python:(\d+\.\d+).*", base):
        return Python(_exact(official[1], "Dockerfile"), "Dockerfile", base)
    return Python(PREFERRED)


def cannot_be_had(python: Python, reason: str) -> ProjectError:
    """Return the error for a Python that no registry gives.

    Args:
        python: the one that is demanded.
        reason: why the registry did not give it.
    """
    return _refused(
        python.demand or python.version, python.demanded_by, f"no registry gives it ({reason})", list(FROM_DEBIAN)
    )


def _pinned(path: Path) -> str:
    """Return the first version that a .python-version names; empty if there is no such file or it names none."""
    if not path.is_file():
        return ""
    lines = (line.partition("#")[0].strip() for line in read_text(path).splitlines())
    said = next(filter(None, lines), "")
    # pyenv also takes the name of an environment there, and `system`: these tell no version.
    return said if re.search(r"\d", said) and not said.lower().startswith("system") else ""


def _exact(said: str, where: str) -> str:
    if _MAJOR.fullmatch(said):
        return PREFERRED
    found = _NUMBERED.fullmatch(said)
    if found is None:
        try:
            return _best(said, where)
        except ProjectError:
            raise _refused(said, where, "it is no version of CPython", list(_HAD)) from None
    if found["minor"] not in _HAD:
        raise _refused(said, where, _why(found["minor"]), list(_HAD))
    return found["minor"]


def _best(demand: str, where: str) -> str:
    """Return the preferred version that a demand, of the standard or of Poetry, allows."""
    try:
        allowed = [SpecifierSet(demand)]
    except InvalidSpecifier:
        try:
            allowed = specifiers(demand)
        except ValueError:
            raise ProjectError(f"{where} demands the Python {demand!r}, which is no version.") from None
    for version in _HAD:
        if any(one.contains(f"{version}.{patch}") for one in allowed for patch in range(_PATCHES)):
            return version
    raise _refused(demand, where, "none of those that an image can have is among them", list(_HAD))


def _why(version: str) -> str:
    if Version(version) < Version(_OLDEST):
        return f"the harness's agent, which runs beside the app, needs Python {_OLDEST} or newer"
    return "there is no image of it"


def _refused(demand: str, where: str, reason: str, had: Sequence[str]) -> ProjectError:
    nearest, all_of_them = _nearest(demand, had), ", ".join(sorted(had, key=Version))
    return ProjectError(
        f"{where} demands Python {demand}, which cannot be had: {reason}. Python {all_of_them} can be "
        f'had{_without_registry(had)}. To accept the nearest one, set `python = "{nearest}"` in the settings.'
    )


def _without_registry(had: Sequence[str]) -> str:
    return " without a registry" if set(had) == set(FROM_DEBIAN) else ""


def _nearest(demand: str, had: Sequence[str]) -> str:
    found = re.search(r"3\.(\d+)", demand)
    if found is None:
        return had[0]
    wanted = int(found[1])
    return min(had, key=lambda version: abs(Version(version).minor - wanted))
