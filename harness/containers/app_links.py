"""The paths of an app's folder that lead out of it: what its links, and the folders that it imports from, point to.

Inside a node, the app's folder is `/app`. A link `common -> ../common` leads to `/common` there, so that the target is
mounted at that place. What would hide a folder of the node's own system is not mounted.
"""

import os
import posixpath
import re
import stat
from collections.abc import Callable, Collection, Iterator
from pathlib import Path, PurePosixPath

from harness.containers.app_node import inside_app
from harness.errors import UsageError
from harness.project.needs import APP_INSIDE, Mount

LEFT_OUT = frozenset(
    {".git", ".hg", ".svn", ".harness", "node_modules", "__pycache__", ".tox", ".nox", ".mypy_cache", ".pytest_cache"}
)
"""Names in a project's folder that no app reads: the files of tools."""
_SYSTEMS = re.compile(r"/((bin|boot|dev|etc|harness|harness-code|lib|lib32|lib64|libx32|proc|sbin|sys|usr)(/.*)?)?")
_SYSTEMS_PARENTS = re.compile(r"/(home|media|mnt|opt|root|run|srv|tmp|var)")
"""Folders of a system in which an app may have folders of its own."""
_MOST_ENTRIES = 50_000
"""The most entries of an app's folder that are looked at. It takes about a second."""


def is_left_out(entry: Path) -> bool:
    """Return whether this file or folder is a tool's, and not the app's."""
    return entry.name in LEFT_OUT or (entry / "pyvenv.cfg").exists()


def mounts_of_links(folder: Path, *, say: Callable[[str], None], leave_out: Collection[Path] = ()) -> tuple[Mount, ...]:
    """Return the mounts that make the links of an app's folder lead to what they lead to outside. All are read-only.

    Args:
        folder: the app's folder.
        say: gets a sentence about what cannot be followed.
        leave_out: folders that are not looked into.
    """
    found: dict[str, Mount] = {}
    for link in _links(folder.resolve(), say, frozenset(leave_out)):
        text = str(link.readlink())
        inside = inside_app(posixpath.join(link.parent.relative_to(folder.resolve()).as_posix(), text))
        if _is_within_app(inside) or not _can_be_mounted(link):
            continue
        if not _hides_system(inside):
            found[inside] = Mount(host=link.resolve(), inside=inside)
        elif not text.startswith("/"):
            say(
                f"the link {link} is not followed: inside a node it leads to {inside}, a folder of the node's own. "
                "Use another name for what it points to, or put a copy in its place."
            )
    return tuple(found.values())


def outside_folder(folder: Path, path: str) -> Mount | None:
    """Return the mount for a folder that the app imports from; None if it is in the app's folder.

    Raises:
        UsageError: there is no such folder, or it would hide a folder of the node's own system.
    """
    if path.startswith("/") or not (folder / path).is_dir():
        raise UsageError(
            f"pythonpath names {path!r}, which is no folder relative to {folder}. Give folders like 'src' or '../lib'."
        )
    inside = inside_app(path)
    if _is_within_app(inside):
        return None
    if _hides_system(inside):
        raise UsageError(
            f"pythonpath names {path!r}: inside a node this is {inside}, a folder of the node's own. Let the app's "
            "folder be a folder above both, or use another name."
        )
    return Mount(host=(folder / path).resolve(), inside=inside)


def _links(folder: Path, say: Callable[[str], None], leave_out: frozenset[Path]) -> Iterator[Path]:
    """Yield the links in a folder. What cannot be read is passed over: a node runs as the same user."""
    seen = 0
    for at, folders, files in os.walk(folder):
        here = Path(at)
        for name in (*folders, *files):
            if (here / name).is_symlink():
                yield here / name
        seen += len(folders) + len(files)
        if seen > _MOST_ENTRIES:
            say(f"{folder} has more than {_MOST_ENTRIES:,} entries: links in the rest of it are not followed.")
            return
        folders[:] = [name for name in folders if not is_left_out(here / name) and here / name not in leave_out]


def _can_be_mounted(link: Path) -> bool:
    """Return whether a link leads to a file or a folder. A socket of the machine would let the app out of its node."""
    try:
        mode = link.stat().st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def _is_within_app(inside: str) -> bool:
    return PurePosixPath(inside).is_relative_to(APP_INSIDE)


def _hides_system(inside: str) -> bool:
    return bool(_SYSTEMS.fullmatch(inside) or _SYSTEMS_PARENTS.fullmatch(inside))
