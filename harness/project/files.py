"""Reading a project's files: each one that is damaged is named in one sentence."""

import contextlib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import ProjectError


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The extras and groups that are wanted beside a project's ordinary dependencies, by normalized names."""

    extras: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """The packages that one source asks for, in the words of pip's requirements files."""

    lines: tuple[str, ...]
    """One requirement or one of pip's options each."""
    constraints: tuple[str, ...] = ()
    """Versions that hold only for what is installed anyway."""
    exact: bool = False
    """True if the lines are all that is needed, dependencies included, so that nothing has to be resolved."""
    places: Mapping[str, str] = field(default_factory=dict)
    """The place where a package is asked for, by its normalized name, such as `requirements/base.txt:3`."""
    left_out: tuple[str, ...] = ()
    """The packages that are not installed, with the reason, for a person."""
    requires_python: str = ""
    """The versions of Python that the source is for, as it says it itself."""


def read_text(path: Path) -> str:
    """Return the text of a file.

    Raises:
        ProjectError: it cannot be read, or is no UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ProjectError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise ProjectError(f"{path} is no UTF-8 (byte {error.start}): save it as UTF-8.") from None


def read_toml(path: Path) -> Mapping[str, Any]:
    """Return the tables of a TOML file.

    Raises:
        ProjectError: it cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise ProjectError(f"{path} is no TOML: {error}.") from None


def read_project(folder: Path) -> Mapping[str, Any]:
    """Return the tables of a folder's pyproject.toml; none if it has no such file. Raises ProjectError."""
    path = folder / "pyproject.toml"
    return read_toml(path) if path.is_file() else {}


@contextlib.contextmanager
def read_as(path: Path, what: str) -> Iterator[None]:
    """Turn what a reader stumbles over into an error that names the file.

    Args:
        path: the file.
        what: what the file should be, in words such as `what uv writes`.

    Raises:
        ProjectError: something is missing in the file, or of a wrong kind.
    """
    try:
        yield
    except KeyError as error:
        raise ProjectError(f"{path} is not {what}: {error} is missing.") from None
    except (AttributeError, TypeError, ValueError) as error:
        # What `packaging` raises is a ValueError, and its message may have several lines.
        said = " ".join(str(error).split())
        raise ProjectError(f"{path} is not {what}: {said}.") from None
