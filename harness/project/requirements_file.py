"""requirements.txt and its kind: includes are followed, constraints, hashes and options are kept.

The result is one text in place of many files. What is not for an index is resolved here: the project's own folders are
left out, and its own wheels and archives get the path that they have in a container.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from harness.errors import ProjectError
from harness.project.files import Requirements, read_text
from harness.project.needs import APP_INSIDE

_INCLUDE = re.compile(r"(?:-r|--requirement)(?:\s*=\s*|\s+|(?<=-r))(?P<path>\S.*)")
_CONSTRAINT = re.compile(r"(?:-c|--constraint)(?:\s*=\s*|\s+|(?<=-c))(?P<path>\S.*)")
_EDITABLE = re.compile(r"(?:-e|--editable)(?:\s*=\s*|\s+)(?P<what>\S.*)")
_FIND_LINKS = re.compile(r"(?:-f|--find-links)(?:\s*=\s*|\s+)(?P<where>\S.*)")
_OPTIONS = (
    "-i",
    "--index-url",
    "--extra-index-url",
    "--no-index",
    "--no-binary",
    "--only-binary",
    "--prefer-binary",
    "--require-hashes",
    "--pre",
    "--trusted-host",
    "--use-feature",
)
_ARCHIVES = (".whl", ".tar.gz", ".zip", ".tar.bz2")
_PER_LINE = re.compile(r"\s--(?:hash|config-settings?|global-option)\b")
_COMMENT = re.compile(r"(?:^|\s)#.*$")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|(?:git|hg|svn|bzr)\+")


@dataclass
class _Reading:
    """The lines that have been read so far."""

    folder: Path
    lines: list[str] = field(default_factory=list)
    constraints: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)


def read(path: Path, folder: Path) -> Requirements:
    """Return what a requirements file asks for, with all that it includes.

    Args:
        path: the file.
        folder: the project's.

    Raises:
        ProjectError: a line is none that pip understands, a file that is included is missing or includes itself, or
            something is needed from outside of the project's folder.
    """
    reading = _Reading(folder)
    _follow(path, (), reading, reading.lines)
    return Requirements(
        lines=tuple(reading.lines),
        constraints=tuple(dict.fromkeys(reading.constraints)),
        places=reading.places,
        left_out=tuple(reading.left_out),
    )


def _follow(path: Path, above: tuple[Path, ...], reading: _Reading, into: list[str]) -> None:
    here = path.resolve()
    if here in above:
        way = " -> ".join(one.name for one in (*above[above.index(here) :], here))
        raise ProjectError(f"{above[-1]} includes itself: {way}. Remove one of the lines.")
    if not path.is_file():
        by = f"{above[-1]} asks for {path}, which" if above else str(path)
        raise ProjectError(f"{by} is not there.")
    for number, line in _logical_lines(read_text(path)):
        if found := _INCLUDE.fullmatch(line):
            _follow(path.parent / found["path"], (*above, here), reading, into)
        elif found := _CONSTRAINT.fullmatch(line):
            _follow(path.parent / found["path"], (*above, here), reading, reading.constraints)
        elif (kept := _kept(line, path, number, reading)) is not None:
            into.append(kept)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield each line with its number, without comments; lines that are continued are joined."""
    start, joined = 0, ""
    for number, raw in enumerate(text.splitlines(), start=1):
        start = start if joined else number
        if raw.endswith("\\") and not raw.lstrip().startswith("#"):
            joined += raw[:-1] + " "
            continue
        line = _COMMENT.sub("", joined + raw).strip()
        joined = ""
        if line:
            yield start, re.sub(r"\s+", " ", line)
    if joined.strip():
        yield start, re.sub(r"\s+", " ", joined.strip())


def _kept(line: str, path: Path, number: int, reading: _Reading) -> str | None:
    """Return a line as pip gets it; None for one that is left out."""
    if found := _FIND_LINKS.fullmatch(line):
        where = found["where"]
        return f"--find-links {where if _URL.match(where) else _inside(path, where, reading.folder)}"
    if line.partition(" ")[0].partition("=")[0] in _OPTIONS:
        return line
    if found := _EDITABLE.fullmatch(line):
        line = found["what"]
    elif line.startswith("-"):
        raise ProjectError(f"{path}:{number} has the option {line.partition(' ')[0]}, which is not known here.")
    what = _PER_LINE.split(line)[0].strip()
    if _URL.match(what) and not what.startswith("file:"):
        return line
    place = what.partition(";")[0].partition("[")[0].strip().removeprefix("file://").removeprefix("file:")
    if what.startswith((".", "/", "file:")) or place.endswith(_ARCHIVES):
        if place.endswith(_ARCHIVES):
            return line.replace(what.partition(";")[0].strip(), _inside(path, place, reading.folder))
        reading.left_out.append(f"{what} ({path.name}:{number}): the app's own code is mounted")
        return None
    try:
        name = canonicalize_name(Requirement(what).name)
    except InvalidRequirement as error:
        said = str(error).splitlines()[0]
        raise ProjectError(f"{path}:{number} is no requirement: {what!r}. {said}.") from None
    # The first place is the one that a reader of the files finds first.
    reading.places.setdefault(name, f"{_shown(path, reading.folder)}:{number}")
    return line


def _shown(path: Path, folder: Path) -> str:
    """Return a path as a person of the project would name it."""
    here, above = path.resolve(), folder.resolve()
    return here.relative_to(above).as_posix() if here.is_relative_to(above) else str(here)


def _inside(path: Path, place: str, folder: Path) -> str:
    """Return the path that something of the project has in a container."""
    for start in (path.parent, folder):
        there = (start / place).resolve()
        if there.exists():
            if not there.is_relative_to(folder.resolve()):
                raise ProjectError(f"{path} needs {there}, which is outside of {folder}: move it into the folder.")
            return f"{APP_INSIDE}/{there.relative_to(folder.resolve()).as_posix()}"
    raise ProjectError(f"{path} needs {place}, which is not there.")
