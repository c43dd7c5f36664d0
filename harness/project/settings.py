"""The settings of a project: from its file, the environment, and what a marker or a command line says over them.

The environment wins over the file. What is said at the place of use, as a marker or on a command line, wins over both.
docs/settings.md describes each key.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from harness.errors import UsageError
from harness.project import env_file, templates
from harness.project.needs import EffectQuery, Mount, Network, ResultsIn, Service
from harness.project.schema import KEYS, Dependency, MisfitError, Writable
from harness.project.settings_file import find

__all__ = ["COMMAND_LINE", "DEFAULT", "Settings", "load"]

DEFAULT = "default"
"""The source of a setting that nobody has said."""
COMMAND_LINE = "the command line"
"""The source of a setting that an option of a command says."""
_NAMES_QUEUES = re.compile(r"--queues(=.*)?|-Q.*", re.DOTALL)
_Of = Callable[[str, str], str]
"""Returns where a key was said, and the place below it, which may be empty."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings that hold, each with a value for its key, and where each was said."""

    folder: Path
    """The folder that the app is imported from."""
    app: str | None = None
    """The argument of `celery -A`."""
    pythonpath: tuple[Path, ...] = ()
    """More folders that the app imports from."""
    options: tuple[str, ...] | None = None
    """Options of `celery worker`; None for the default ones."""
    workers: int | None = None
    """The number of a stack's workers; None for the door's own number."""
    env: Mapping[str, str] = field(default_factory=dict)
    """The environment of the nodes that run the app, that of `env_file` included; values have templates, see
    `harness.project.templates`."""
    env_file: Path | None = None
    python: str | None = None
    """The version of Python in the app's image."""
    dependencies: tuple[Dependency, ...] = ()
    apt: tuple[str, ...] = ()
    """Debian packages in the app's image."""
    dockerfile: Path | None = None
    image: str | None = None
    """An image for the workers, to use as it is."""
    queues: tuple[str, ...] = ()
    """The queues that workers consume; empty for the app's own."""
    prepare: tuple[str, ...] = ()
    """Commands that run before the workers start."""
    writable: Writable = False
    mounts: tuple[Mount, ...] = ()
    services: tuple[Service, ...] = ()
    """The servers that a stack has beside the broker."""
    results: ResultsIn = ResultsIn.SQLITE
    effects: Mapping[str, EffectQuery] = field(default_factory=dict)
    """The queries that find effects in the app's own database, by the kind of the effects."""
    network: Network = Network.CLOSED
    project: Path | None = None
    """The folder of the file that they are in; None if there is no such file."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """The place where each setting was said, by key; keys with their default are left out."""

    def source(self, key: str) -> str:
        """Return where a setting was said, such as `HARNESS_APP`; DEFAULT if nobody has said it."""
        return self.sources.get(key, DEFAULT)

    def over(self, said_by: str, said: Mapping[str, object], *, folder: Path | None = None) -> Self:
        """Return these settings with others over them. Values that are None are not said.

        An environment is added to the one that holds, and its values are taken as they are, without templates.

        Args:
            said_by: who says them, such as `the marker`.
            said: values by key.
            folder: what relative paths are relative to; the working directory, unless given.

        Raises:
            UsageError: a value is not of its key's type.
        """
        asked = {key: value for key, value in said.items() if value is not None}
        found = _read(asked, folder or Path.cwd(), lambda key, at: f"{key}{at} of {said_by}")
        if "env" in found:
            found["env"] = {**self.env, **{name: templates.escaped(text) for name, text in found["env"].items()}}
        before = {**self.sources}
        if _names_queues(found):
            # These options are nearer than the queues that were said before.
            before.pop("queues", None)
            found.setdefault("queues", ())
        return replace(self, **found, sources={**before, **dict.fromkeys(asked, said_by)})


def load(project: Path) -> Settings:
    """Return the settings that hold in a folder: those of its file, and the environment variables over them.

    Args:
        project: the folder of the project, or one below it; `harness.project.settings_file.find` searches from there.

    Raises:
        UsageError: a file or a variable has something that is no setting; or a file or folder that it names is missing.
    """
    file = find(project)
    said: dict[str, Any] = {}
    sources: dict[str, str] = {}
    if file is not None:
        said = _read(file.values, file.path.parent, file.place_of)
        sources = {key: file.place_of(key) for key in said}
    if "env" in said:
        templates.check(said["env"], sources["env"])
    heard = _read(_variables(), Path.cwd(), _variable_of, spoken=True)
    if _names_queues(heard):
        said.pop("queues", None)
        sources.pop("queues", None)
    said |= heard
    sources |= {key: _variable_of(key) for key in heard}
    for key, value in said.items():
        _check_present(key, value, sources[key])
    if "env_file" in said:
        from_file = {name: templates.escaped(text) for name, text in env_file.read(said["env_file"]).items()}
        said["env"] = {**from_file, **said.get("env", {})}
        sources["env"] = ", ".join([*([sources["env"]] if "env" in sources else []), str(said["env_file"])])
    folder = file.path.parent if file is not None else project.absolute()
    said_in = None if file is None else file.path.parent
    return Settings(**{"folder": folder, **said}, project=said_in, sources=MappingProxyType(sources))


def _variables() -> dict[str, object]:
    """Return what the environment variables say, as a file would have it. An empty variable says nothing."""
    found: dict[str, object] = {}
    for name, key in KEYS.items():
        if key.variable is not None and (text := os.environ.get(key.variable)):
            try:
                found[name] = key.split(text)
            except ValueError as error:
                raise UsageError(f"{key.variable} cannot be split into words: {error}.") from error
    return found


def _variable_of(key: str, at: str = "") -> str:
    return f"{KEYS[key].variable}{at}"


def _read(said: Mapping[str, object], folder: Path, place_of: _Of, *, spoken: bool = False) -> dict[str, Any]:
    """Return the values by key, as `Settings` has them. Raises UsageError.

    Args:
        said: the values as they were said.
        folder: what relative paths are relative to.
        place_of: where a key was said.
        spoken: True if they were said in environment variables, for the example in an error.
    """
    found: dict[str, Any] = {}
    for name, value in said.items():
        key = KEYS[name]
        try:
            found[name] = key.read(value, folder)
        except MisfitError as misfit:
            example = f"{key.variable}={key.spoken}" if spoken else f"{name} = {key.example}"
            raise UsageError(f"{place_of(name, misfit.at)} {misfit}, such as: {example}") from misfit
    if "queues" in found and _names_queues(found):
        raise UsageError(
            f"{place_of('queues', '')} and {place_of('options', '')} both name queues: leave them out of one."
        )
    return found


def _names_queues(found: Mapping[str, Any]) -> bool:
    return any(_NAMES_QUEUES.fullmatch(option) for option in found.get("options") or ())


def _check_present(key: str, value: Any, place: str) -> None:
    """Raise UsageError if a file or a folder that a setting names is missing."""
    folders = {"folder": (value,), "pythonpath": value}.get(key, ())
    files = {"env_file": (value,), "dockerfile": (value,), "dependencies": value}.get(key, ())
    for path in folders:
        if not path.is_dir():
            raise UsageError(f"{place} names {path}, which is no folder.")
    for path in files:
        if isinstance(path, Path) and not path.is_file():
            advice = " A single requirement goes into a list." if key == "dependencies" else ""
            raise UsageError(f"{place} names {path}, which is no file.{advice}")
    for mount in value if key == "mounts" else ():
        if not mount.host.exists():
            raise UsageError(f"{place} names {mount.host}, which does not exist.")
