"""The file with a project's settings: harness.toml, or the table [tool.harness] of pyproject.toml."""

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import UsageError
from harness.project.schema import KEYS, nearest
from harness.records.regular_file import open_regular

OWN = "harness.toml"
SHARED = "pyproject.toml"
TABLE = "tool.harness"
_WHERE = f"Settings are keys of {OWN}, or of [{TABLE}] in {SHARED}"


@dataclass(frozen=True, kw_only=True)
class SettingsFile:
    """The content of a settings file, before its values are checked."""

    path: Path
    table: str = ""
    """The table of the settings; empty for the whole file."""
    values: Mapping[str, object] = field(default_factory=dict)

    def place_of(self, key: str, at: str = "") -> str:
        """Return where a key is, or a place below it, such as `/shop/pyproject.toml: tool.harness.options[0]`."""
        return f"{self.path}: {f'{self.table}.' if self.table else ''}{key}{at}"


def find(start: Path) -> SettingsFile | None:
    """Return the settings file of the project that a folder belongs to; None if it has no settings.

    The project is the first folder, upwards from `start`, that has one of the two files. The search does not leave a
    repository: it ends at a folder with `.git`.

    Raises:
        UsageError: a file cannot be read, is no TOML, has a key that is no setting, or both files have settings.
    """
    project = _project(Path(os.path.realpath(start)))
    return None if project is None else find_in(project)


def find_in(project: Path) -> SettingsFile | None:
    """Return the settings file of a folder, as `find` does, and search nowhere else."""
    try:
        own = _own(project / OWN) if (project / OWN).exists() else None
        shared = _shared(project / SHARED) if (project / SHARED).exists() else None
    except OSError as error:
        raise UsageError(f"the settings of {project} cannot be read: {error}.") from error
    if own and shared and own.values and shared.values:
        raise UsageError(f"{own.path} and [{TABLE}] in {shared.path} both have settings: move them into one of them.")
    found = next((one for one in (own, shared) if one is not None and one.values), None)
    if found is not None:
        _check_keys(found)
    return found


def _project(start: Path) -> Path | None:
    for folder in (start, *start.parents):
        if any((folder / name).exists() for name in (OWN, SHARED)):
            return folder
        if (folder / ".git").exists():
            return None
    return None


def _own(path: Path) -> SettingsFile:
    return SettingsFile(path=path, values=_read(path))


def _shared(path: Path) -> SettingsFile | None:
    values: object = _read(path)
    for name in TABLE.split("."):
        if not isinstance(values, Mapping):
            raise UsageError(f"{path}: {TABLE} is no table. {_WHERE}: write [{TABLE}], and below it the keys.")
        if name not in values:
            return None
        values = values[name]
    if not isinstance(values, Mapping):
        raise UsageError(f"{path}: {TABLE} is no table. {_WHERE}: write [{TABLE}], and below it the keys.")
    return SettingsFile(path=path, table=TABLE, values=values)


def _read(path: Path) -> dict[str, object]:
    with open_regular(path) as file:
        content = file.read()
    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UsageError(f"{path} is not UTF-8, in line {line}: save it as UTF-8.") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is no TOML: {error}.") from error


def _check_keys(file: SettingsFile) -> None:
    for key in file.values:
        if key not in KEYS:
            raise UsageError(f"{file.place_of(key)} is no setting. {' '.join(_hints(file, key))}")


def _hints(file: SettingsFile, key: str) -> Iterator[str]:
    near = nearest(key, KEYS)
    if not file.table and key == "tool":
        yield f"In {OWN} the settings are at the top, without [{TABLE}]."
    elif near is not None:
        yield f"Did you mean {near}?"
    else:
        yield f"There are: {', '.join(KEYS)}."
