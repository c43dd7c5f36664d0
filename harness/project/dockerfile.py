"""A project's own Dockerfile: which images it begins with, and which files are sent to its build."""

import fnmatch
import re
from collections.abc import Iterator
from pathlib import Path

from harness.errors import ProjectError
from harness.project.files import read_text

_FROM = re.compile(r"FROM\s+(?:--\S+\s+)*(?P<base>\S+)(?:\s+AS\s+(?P<name>\S+))?\s*", re.IGNORECASE)
_ARG = re.compile(r"ARG\s+(?P<name>\w+)(?:=(?P<value>\S*))?\s*", re.IGNORECASE)
_VARIABLE = re.compile(r"\$(?:\{(?P<braced>\w+)(?::-(?P<default>[^}]*))?\}|(?P<plain>\w+))")
_NEVER_SENT = (".git", ".harness", ".hg", ".mypy_cache", ".nox", ".tox", ".venv", "__pycache__", "node_modules", "venv")


def bases(path: Path) -> list[str]:
    """Return the images that a Dockerfile begins with, without its own stages; the last one is its own base.

    Raises:
        ProjectError: it cannot be read, has no FROM, or leaves one of them to an argument of the build.
    """
    arguments: dict[str, str] = {}
    stages: set[str] = set()
    found: list[str] = []
    for line in read_text(path).splitlines():
        if argument := _ARG.fullmatch(line.strip()):
            arguments.setdefault(argument["name"], (argument["value"] or "").strip("\"'"))
        elif start := _FROM.fullmatch(line.strip()):
            base = _VARIABLE.sub(
                lambda one: arguments.get(one["braced"] or one["plain"]) or one["default"] or "", start["base"]
            )
            if not base or ("$" in start["base"] and base.startswith(":")):
                raise ProjectError(f"{path} leaves {start['base']} to an argument of the build: give it a default.")
            if base.lower() not in stages and base != "scratch":
                found.append(base)
            if start["name"]:
                stages.add(start["name"].lower())
    if not found:
        raise ProjectError(f"{path} begins with no image: it has no FROM.")
    return found


def context(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder that a build gets, relative to it and sorted.

    What .dockerignore names is left out, and what no build needs, such as `.git` and `.venv`.
    """
    ignored = folder / ".dockerignore"
    lines = read_text(ignored).splitlines() if ignored.is_file() else []
    patterns = [line.strip().strip("/") for line in lines if line.strip() and not line.lstrip().startswith("#")]
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if (path.is_file() or path.is_symlink()) and not _is_left_out(name, patterns):
            yield name


def _is_left_out(name: Path, patterns: list[str]) -> bool:
    if any(part in _NEVER_SENT for part in name.parts):
        return True
    out = False
    for pattern in patterns:
        # As in Docker, the last line that fits decides, and `!` takes a file back in.
        wanted = pattern.removeprefix("!").strip("/")
        above = ("/".join(name.parts[:depth]) for depth in range(1, len(name.parts) + 1))
        plain = wanted.removeprefix("**/")
        if any(fnmatch.fnmatchcase(one, wanted) or fnmatch.fnmatchcase(one, plain) for one in above) or (
            wanted.startswith("**/") and any(fnmatch.fnmatchcase(part, plain) for part in name.parts)
        ):
            out = not pattern.startswith("!")
    return out
