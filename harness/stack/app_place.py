"""The app's folder as a stack's nodes see it: with what it leads to, and with what they may write to."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from harness.containers.app_copy import copy_app, remove_copy
from harness.containers.app_links import mounts_of_links, outside_folder
from harness.project.needs import APP_INSIDE, Mount
from harness.stack.stack_spec import StackSpec

_COPY = "copy"
"""The folder in the run folder where the copy is while the stack is up."""


@dataclass(frozen=True, kw_only=True)
class AppPlace:
    """The files of this machine that the nodes get that run the app."""

    folder: Path
    is_writable: bool
    mounts: tuple[Mount, ...]

    @classmethod
    def of(cls, spec: StackSpec, run_folder: Path, say: Callable[[str], None]) -> "AppPlace":
        """Find out what the app's folder leads to, and copy what nodes may write to.

        Raises:
            UsageError: the app's folder cannot be copied.
            RunFolderError: the copy cannot be written.
        """
        # A run folder may be in the app's folder. A copy of it would contain itself.
        leave_out = (run_folder.resolve(), *_root_of_runs(run_folder.resolve(), spec.app_folder.resolve()))
        outside = [outside_folder(spec.app_folder, folder) for folder in spec.pythonpath]
        led_to = [
            *(mount for mount in outside if mount is not None),
            *mounts_of_links(spec.app_folder, say=say, leave_out=leave_out),
        ]
        own = [
            Mount(host=spec.app_folder / mount.host, inside=mount.inside, read_only=mount.read_only)
            for mount in spec.mounts
        ]
        # Of two mounts at one place, the one that was asked for counts.
        by_inside = {mount.inside: mount for mount in (*led_to, *own)}
        if spec.writable is False:
            return cls(folder=spec.app_folder, is_writable=False, mounts=tuple(by_inside.values()))
        target = run_folder / _COPY
        rest = copy_app(spec.app_folder, target, spec.writable_paths, say=say, leave_out=leave_out)
        _make_room(target, own)
        by_inside = {mount.inside: mount for mount in rest} | by_inside
        return cls(folder=target, is_writable=True, mounts=tuple(by_inside.values()))


def remove_copy_of(run_folder: Path) -> None:
    """Remove the copy, if there is one. Raises RunFolderError."""
    remove_copy(run_folder / _COPY)


def _root_of_runs(run_folder: Path, app_folder: Path) -> tuple[Path, ...]:
    """Return the folder of all runs, unless the app is in it."""
    return () if app_folder.is_relative_to(run_folder.parent) else (run_folder.parent,)


def _make_room(target: Path, mounts: list[Mount]) -> None:
    """Make the places in the copy where something is mounted: what the engine makes there belongs to root."""
    for mount in mounts:
        inside = PurePosixPath(mount.inside)
        if not inside.is_relative_to(APP_INSIDE):
            continue
        place = target / inside.relative_to(APP_INSIDE)
        if mount.host.is_dir():
            place.mkdir(parents=True, exist_ok=True)
        elif not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
