"""The copy of an app's folder that its nodes may write to. The app's own folder is never changed.

It is a plain copy. An overlay of the engine's would be quicker for a large folder, but a folder of this machine can be
its lower layer only if the engine runs on this machine, as root, on a file system that allows it; and what nodes write
to it belongs to root.
"""

import contextlib
import os
import shutil
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from harness.containers.app_links import is_left_out
from harness.containers.app_node import inside_app
from harness.errors import RunFolderError, UsageError
from harness.project.needs import Mount
from harness.wait import Reports

_MOST_BYTES = 1_000_000_000
_MOST_FILES = 100_000
_MOST_MOUNTS = 200
_LEAST_FREE_BYTES = 50_000_000
_WHOLE = PurePosixPath()


def copy_app(
    source: Path,
    target: Path,
    wanted: Sequence[str] | None,
    *,
    say: Callable[[str], None],
    leave_out: Collection[Path] = (),
) -> tuple[Mount, ...]:
    """Make the folder that nodes see as the app's, and return the mounts that complete it.

    A link stays a link. A path of `wanted` that is a link is copied from where it leads to.

    Args:
        source: the app's own folder.
        target: the new folder.
        wanted: the paths that nodes may write to, relative to `source`; None for all. The folders above them take new
            files as well. Everything else is mounted there, read-only.
        say: gets the progress, if it takes more than a second.
        leave_out: folders that are not copied, beside those of tools.

    Raises:
        UsageError: it would be too large, or cannot be read.
        RunFolderError: the copy cannot be written.
    """
    plan = _Plan(source=source.resolve(), leave_out=frozenset(leave_out))
    roots = frozenset([_WHOLE] if wanted is None else [PurePosixPath(os.path.normpath(path)) for path in wanted])
    try:
        plan.visit(_WHOLE, roots)
    except OSError as error:
        raise UsageError(f"the app's folder cannot be copied: {error}. {_ADVICE}") from error
    try:
        plan.carry_out(target, say)
    except OSError as error:
        raise RunFolderError(f"cannot copy {source} to {target}: {error}") from error
    return tuple(plan.mounts)


def remove_copy(target: Path) -> None:
    """Remove the copy, whatever nodes have made of it. Raises RunFolderError."""
    try:
        with contextlib.suppress(FileNotFoundError):
            for at, folders, _ in os.walk(target):
                for name in folders:
                    # A folder without rights of its owner can be neither read nor emptied.
                    if not (Path(at) / name).is_symlink():
                        (Path(at) / name).chmod(stat.S_IRWXU)
            shutil.rmtree(target)
    except OSError as error:
        raise RunFolderError(f"cannot remove the copy {target}: {error}") from error


_ADVICE = "Name the paths that the app writes to, as in writable=['media']: only they are copied."


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """The files, folders and links to make; paths are relative to the app's folder."""

    source: Path
    leave_out: frozenset[Path]
    folders: list[PurePosixPath] = field(default_factory=list)
    files: list[PurePosixPath] = field(default_factory=list)
    links: list[PurePosixPath] = field(default_factory=list)
    stubs: list[PurePosixPath] = field(default_factory=list)
    """Empty files, over which the app's own are mounted."""
    mounts: list[Mount] = field(default_factory=list)
    sizes: Counter[str] = field(default_factory=Counter)
    """Bytes, by the first part of the path."""

    def visit(self, folder: PurePosixPath, roots: frozenset[PurePosixPath]) -> None:
        """Plan a folder: all of it if it is wanted, else what is wanted in it."""
        self.folders.append(folder)
        if folder in roots:
            self._take_all(folder)
            return
        above = {parent for root in roots for parent in root.parents}
        for path, entry in self._entries(folder):
            if path in above and entry.is_dir():
                self.visit(path, roots)
            elif path in roots and entry.is_dir():
                self.folders.append(path)
                self._take_all(path)
            elif path in roots and entry.is_file():
                self._take(path, entry)
            elif entry.is_symlink():
                self.links.append(path)
            elif entry.is_dir() or entry.is_file():
                self._mount(path, entry)

    def _take_all(self, folder: PurePosixPath) -> None:
        waiting = [folder]
        while waiting:
            for path, entry in self._entries(waiting.pop()):
                if entry.is_symlink():
                    self.links.append(path)
                elif is_left_out(Path(entry.path)):
                    continue
                elif entry.is_dir():
                    self.folders.append(path)
                    waiting.append(path)
                elif entry.is_file():
                    self._take(path, entry)

    def _entries(self, folder: PurePosixPath) -> Iterator[tuple[PurePosixPath, "os.DirEntry[str]"]]:
        with os.scandir(self.source / folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if Path(entry.path) not in self.leave_out:
                    yield folder / entry.name, entry

    def _take(self, path: PurePosixPath, entry: "os.DirEntry[str]") -> None:
        self.files.append(path)
        self.sizes[path.parts[0]] += entry.stat().st_size
        if self.sizes.total() > _MOST_BYTES or len(self.files) > _MOST_FILES:
            largest = ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in self.sizes.most_common(3))
            raise UsageError(
                f"a writable copy of {self.source} would have more than {_MOST_BYTES / 1e6:.0f} MB or {_MOST_FILES:,} "
                f"files (the largest up to here: {largest}). {_ADVICE}"
            )

    def _mount(self, path: PurePosixPath, entry: "os.DirEntry[str]") -> None:
        (self.folders if entry.is_dir() else self.stubs).append(path)
        self.mounts.append(Mount(host=self.source / path, inside=inside_app(path.as_posix())))
        if len(self.mounts) > _MOST_MOUNTS:
            raise UsageError(
                f"{path.parent} in {self.source} has too many files to make only some of them writable: name the whole "
                "folder."
            )

    def carry_out(self, target: Path, say: Callable[[str], None]) -> None:
        """Make all of it. Raises OSError."""
        total = self.sizes.total()
        target.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(target.parent).free
        if total + _LEAST_FREE_BYTES > free:
            raise RunFolderError(
                f"a writable copy of {self.source} takes {total / 1e6:.0f} MB, and only {free / 1e6:.0f} MB are free "
                f"at {target.parent}: make room, or let runs lie elsewhere. {_ADVICE}"
            )
        for folder in self.folders:
            (target / folder).mkdir()
        for stub in self.stubs:
            (target / stub).touch()
        for link in self.links:
            (target / link).symlink_to(self._leading((self.source / link).readlink()))
        reports = Reports()
        for number, file in enumerate(self.files, 1):
            if reports.is_due():
                say(f"copying the app's folder, {total / 1e6:.0f} MB: file {number:,} of {len(self.files):,}")
            # A file that somebody has removed by now is none of the app's.
            with contextlib.suppress(FileNotFoundError):
                shutil.copy2(self.source / file, target / file)
                (target / file).chmod((target / file).stat().st_mode | stat.S_IWUSR)

    def _leading(self, text: Path) -> str:
        """Return the text of a link so that it leads to the same place in a node."""
        if text.is_relative_to(self.source):
            return inside_app(text.relative_to(self.source).as_posix())
        return str(text)
