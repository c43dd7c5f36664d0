"""The run folder: what one run leaves behind, and all that an audit reads.

<root>/<UTC time>-<name>/
    run.json            what was run: versions, settings, seed, command, the promise, the witnesses expected
    journal/*.jsonl     what was sent and what ran
    results.sqlite3     the result tables
    effects/*.jsonl     what the tasks did to the world, one line an effect: t, kind, key, task
    broker.json         what was left in the queues at the end
    checks.json         what the scenario's own checks found
    control/            what the nodes are told while they run
    app/                the application's own data
    logs/<node>.log
    audit.json          the verdict
<root>/latest           points to the newest
"""

import contextlib
import json
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TextIO

from harness import __version__
from harness.errors import RunFolderError
from harness.records.expectation import Effect
from harness.records.regular_file import open_regular
from harness.records.values import Json

_LEAST_FREE_MB = 50
"""Less than this is gone before a worker has written its first lines."""
_LARGEST = 1 << 28
"""Bytes of a JSON file; the ids of millions of tasks take less."""
HOME = ".harness"
"""The folder that holds whatever the harness leaves in a project, and that version control is to pass over."""
_INSIDE = ("journal", "effects", "logs", "control", "app")


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run, and its JSON files."""

    path: Path

    @classmethod
    def create(cls, root: Path, name: str) -> "RunFolder":
        """Make ``root/<UTC time>-<name>`` and point ``root/latest`` to it.

        Raises:
            RunFolderError: the folder cannot be made (no permission, a name that is no UTF-8), or there is hardly any
                space.
        """
        _refuse_no_text(root.absolute())
        stem = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{name}"
        try:
            root.mkdir(parents=True, exist_ok=True)
            free_mb = shutil.disk_usage(root).free / 1e6
            if free_mb < _LEAST_FREE_MB:
                raise RunFolderError(f"only {free_mb:.1f} MB are free at {root}: make room, or let runs lie elsewhere.")
            for folder in (root, root.parent):
                if folder.name == HOME:
                    keep_out_of_version_control(folder)
            path = _make_new(root, stem)
            for inside in _INSIDE:
                (path / inside).mkdir()
            _point(root / "latest", path.name)
        except OSError as error:
            raise RunFolderError(
                f"cannot make a run folder under {root}: {error}. Is there space and permission?"
            ) from error
        return cls(path.absolute())

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """An existing run folder.

        Raises:
            RunFolderError: there is no folder there, it cannot be read, or it holds no run.
        """
        advice = "A run folder lies under .harness/runs; `latest` is the newest."
        try:
            if not path.is_dir():
                raise RunFolderError(f"{path} is no folder. {advice}")
            if not (path / "run.json").exists():
                raise RunFolderError(f"{path} is no run folder: it has no run.json. {advice}")
        except OSError as error:
            raise RunFolderError(f"cannot look into {path}: {error}") from error
        folder = cls(path.resolve())
        _refuse_no_text(folder.path)
        folder.read("run.json")
        return folder

    @property
    def journal(self) -> Path:
        """The folder of the journal files."""
        return self.path / "journal"

    @property
    def results(self) -> Path:
        """The SQLite file of the result tables."""
        return self.path / "results.sqlite3"

    @property
    def effects(self) -> Path:
        """The folder of the effects."""
        return self.path / "effects"

    @property
    def logs(self) -> Path:
        """The folder of the nodes' logs."""
        return self.path / "logs"

    def write(self, name: str, value: Json) -> None:
        """Write `value` to the JSON file `name`, whole or not at all.

        Raises:
            RunFolderError: it cannot be written.
        """
        # A command's arguments may hold bytes that are no text; `read` understands this form of them.
        with self._whole(name) as file:
            file.write(dump(value))

    def write_lines(self, name: str, values: Iterable[Json]) -> None:
        """Write each value as a line of JSON to the file `name`, all of them or none.

        Raises:
            RunFolderError: it cannot be written.
        """
        with self._whole(name) as file:
            file.writelines(json.dumps(value) + "\n" for value in values)

    @contextlib.contextmanager
    def _whole(self, name: str) -> Iterator[TextIO]:
        """A file that takes its place when all of it is written, and leaves nothing if that cannot be."""
        target = self.path / name
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            try:
                with partial.open("w", encoding="utf-8", errors="surrogatepass") as file:
                    yield file
                partial.replace(target)
            except BaseException:
                # Where even that is refused, why it could not be written is what has to be known.
                with contextlib.suppress(OSError):
                    partial.unlink()
                raise
        except OSError as error:
            raise RunFolderError(f"cannot write {target}: {error}") from error

    def head(self, about: Mapping[str, Json], *packages: str) -> dict[str, Json]:
        """What run.json begins with, whatever was run.

        Args:
            about: more of it, such as scenario and seed; or the command, if that is not this process's own.
            packages: installed ones, whose versions matter.
        """
        versions = {package: version(package) for package in packages}
        return {
            "format": 1,
            "name": self.path.name,
            "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            **about,
            "versions": {"harness": __version__, "python": platform.python_version(), **versions},
        }

    def write_effects(self, effects: Callable[[], Iterable[Effect]]) -> int:
        """Write down the effects that can be seen now, and return how many lines that took.

        Raises:
            RunFolderError: they cannot be written. Whatever else goes wrong is a line, too.
        """
        count = 0

        def counted() -> Iterator[dict[str, Json]]:
            nonlocal count
            for line in _seen(effects):
                count += 1
                yield line

        self.write_lines("effects/seen.jsonl", counted())
        return count

    def read(self, name: str) -> dict[str, Json]:
        """The JSON object in the file `name`.

        Raises:
            RunFolderError: the file is missing, unreadable, or holds no JSON object.
        """
        target = self.path / name
        try:
            with open_regular(target) as file:
                text = file.read(_LARGEST + 1)
            if len(text) > _LARGEST:
                raise RunFolderError(f"cannot read {target}: it has more than {_LARGEST} bytes.")
            value = json.loads(text)
        except (OSError, ValueError, RecursionError) as error:
            raise RunFolderError(f"cannot read {target}: {error}") from error
        if not isinstance(value, Mapping):
            raise RunFolderError(f"{target} holds no JSON object.")
        return dict(value)


def keep_out_of_version_control(folder: Path) -> None:
    """Let a folder ignore itself; a `.gitignore` that is there stays as it is. Raises OSError."""
    with contextlib.suppress(FileExistsError), (folder / ".gitignore").open("x", encoding="utf-8") as file:
        file.write("*\n")


def dump(value: Json) -> str:
    """`value` as the JSON text of every file of a run folder: indented, non-ASCII as it is, a final newline."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _refuse_no_text(path: Path) -> None:
    """Raise RunFolderError for a path that no database and no container can be told of."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise RunFolderError(
            f"the name of the folder {path} is no UTF-8: rename it, or let runs lie elsewhere."
        ) from None


def _seen(effects: Callable[[], Iterable[Effect]]) -> Iterator[dict[str, Json]]:
    try:
        for effect in effects():
            line = effect.to_json()
            # A key that is no JSON, such as a UUID, has to come to light here too.
            json.dumps(line)
            yield line
    except Exception as error:  # noqa: BLE001 - whatever looking goes wrong with, the run is still to be audited.
        # A line without a key tells the audit that this witness has not said everything.
        yield {"unseen": f"{type(error).__name__}: {error}"}


def _make_new(root: Path, stem: str) -> Path:
    # Runs of the same name can begin within one second.
    for number in range(1, 10_000):
        path = root / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise FileExistsError(root / stem)


def _point(link: Path, target: str) -> None:
    # Two runs may move the link at once; a rename is atomic where unlink and symlink are not.
    fresh = link.with_name(f".latest.{os.getpid()}.{target}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(link)
