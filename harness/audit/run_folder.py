"""The run folder: the output of one run, and the whole input of an audit.

<root>/<UTC time>-<name>/
    run.json            the settings: versions, seed, command, the promise, the nodes that must have journals
    journal/*.jsonl     the journals: tasks sent and tasks executed
    results.sqlite3     the result tables
    effects/*.jsonl     the effects of the tasks, one line each: kind, key, task; the mailbox adds t and others
    broker.json         what was left in the queues at the end
    checks.json         the findings of the scenario's own checks
    faults.json         the faults that were injected: their times, their tasks, the recovery
    control/            commands to the nodes while they run
    app/                the application's own data
    copy/               the app's folder as nodes may write to it, while the stack is up
    logs/<node>.log
    audit.json          the audit, with the verdict
    report.html         the report, for people; `harness report` writes it anew
<root>/latest           a link to the newest run folder
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
from harness.printable import without_secret
from harness.records.expectation import Effect
from harness.records.regular_file import open_regular, replacing
from harness.records.values import Json

_LEAST_FREE_MB = 50
"""The least free space for a new run. Less is used up before a worker has written its first lines."""
_LARGEST_BYTES = 1 << 28
"""The most bytes of a JSON file. The ids of millions of tasks take less. A file is read as a whole, so that a larger
one could fill the memory."""
_MOST_NAMESAKES = 9_999
"""The most runs of one name in one second. It ends the search for a free name: no second has room for so many runs."""
HOME = ".harness"
"""The folder for all that the harness leaves in a project; version control ignores it."""
RUNS = Path(HOME) / "runs"
"""The folder of a project's run folders, unless another one is given."""
_INSIDE = ("journal", "effects", "logs", "control", "app")


@dataclass(frozen=True)
class RunFolder:
    """A run folder: the paths of one run, and its JSON files."""

    path: Path

    @classmethod
    def create(cls, root: Path, name: str) -> "RunFolder":
        """Create ``root/<UTC time>-<name>`` and point ``root/latest`` to it.

        Raises:
            RunFolderError: the folder cannot be created (no permission, a name that is not UTF-8), or less than 50 MB
                are free.
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
        """Open an existing run folder.

        Raises:
            RunFolderError: there is no folder there, it cannot be read, or it holds no run.
        """
        advice = f"A run folder lies under {RUNS}; `latest` is the newest."
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
        # A command's arguments may contain bytes that are not text; `read` accepts this form of them.
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
        """Open a file that replaces `name` when it is written completely, and is removed on an error.

        Raises RunFolderError.
        """
        target = self.path / name
        try:
            with replacing(target) as partial, partial.open("w", encoding="utf-8", errors="surrogatepass") as file:
                yield file
        except OSError as error:
            raise RunFolderError(f"cannot write {target}: {error}") from error

    def head(self, about: Mapping[str, Json], *packages: str) -> dict[str, Json]:
        """Return the first members of run.json, which all kinds of runs share.

        Args:
            about: more members, such as scenario and seed; or the command, if it is not this process's own.
            packages: installed packages whose versions are recorded.
        """
        versions = {package: version(package) for package in packages}
        return {
            "format": 1,
            "name": self.path.name,
            "command": own_command(),
            **about,
            "versions": {"harness": __version__, "python": platform.python_version(), **versions},
        }

    def write_effects(self, effects: Callable[[], Iterable[Effect]]) -> int:
        """Write the effects that can be seen now, and return the number of lines.

        Raises:
            RunFolderError: they cannot be written. Any other error becomes a line.
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
        """Read the JSON object in the file `name`.

        Raises:
            RunFolderError: the file is missing, unreadable, too large, or holds no JSON object.
        """
        target = self.path / name
        try:
            with open_regular(target) as file:
                text = file.read(_LARGEST_BYTES + 1)
            if len(text) > _LARGEST_BYTES:
                raise RunFolderError(f"cannot read {target}: it has more than {_LARGEST_BYTES} bytes.")
            value = json.loads(text)
        except (OSError, ValueError, RecursionError) as error:
            raise RunFolderError(f"cannot read {target}: {error}") from error
        if not isinstance(value, Mapping):
            raise RunFolderError(f"{target} holds no JSON object.")
        return dict(value)


def own_command() -> str:
    """Return the command line of this process without secrets, to be pasted into a shell."""
    program = Path(sys.argv[0]).name
    # With -m, Python puts the module's file there.
    began = ["python", "-m", "harness"] if program == "__main__.py" else [program]
    return shlex.join([*began, *map(without_secret, sys.argv[1:])])


def row_file(kind: str) -> str:
    """Return the name of the file of the effects of one kind that a query finds in the app's own database."""
    return f"effects/rows-{kind}.jsonl"


def keep_out_of_version_control(folder: Path) -> None:
    """Make version control ignore a folder; an existing `.gitignore` stays as it is. Raises OSError."""
    with contextlib.suppress(FileExistsError), (folder / ".gitignore").open("x", encoding="utf-8") as file:
        file.write("*\n")


def dump(value: Json) -> str:
    """Return `value` as JSON text for a file of a run folder: indented, non-ASCII as it is, a final newline."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _refuse_no_text(path: Path) -> None:
    """Raise RunFolderError for a path that is not UTF-8, which databases and containers do not accept."""
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
            # A key that is not JSON, such as a UUID, must fail here too.
            json.dumps(line)
            yield line
    except Exception as error:  # noqa: BLE001 - the run is audited whatever error occurs.
        # A line without a key tells the audit that this witness is incomplete.
        yield {"unseen": f"{type(error).__name__}: {error}"}


def _make_new(root: Path, stem: str) -> Path:
    # Runs of the same name can begin within one second.
    for number in range(1, _MOST_NAMESAKES + 1):
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
