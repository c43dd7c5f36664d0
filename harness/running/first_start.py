"""The first start of somebody's app: one worker in a container, which says what tasks it knows."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from harness.audit.run_folder import HOME, RUNS, RunFolder
from harness.errors import UsageError
from harness.records.event import Kind, Ready
from harness.stack.shared_parts import SharedParts
from harness.stack.stack import Stack, StackSpec

_STARTED = "started"
"""The file that tells with which settings a worker has started."""


@dataclass(frozen=True, kw_only=True)
class FirstStart:
    """The tasks and queues of a worker that became ready."""

    tasks: tuple[str, ...]
    """The names of the app's own tasks."""
    queues: tuple[str, ...]
    """The queues that it consumes."""


def start_once(session: SharedParts, spec: StackSpec, root: Path) -> FirstStart:
    """Start one worker of an app, take it down again, and return what it said.

    Args:
        session: has the broker and the image.
        spec: describes the worker.
        root: the project's folder, which gets the run folder.

    Raises:
        StartError: the worker does not become ready; the message ends with its last log lines.
        HarnessError: a part of the stack does not start.
    """
    folder = RunFolder.create(root / RUNS, "init")
    with Stack(session, replace(spec, workers=1), folder) as stack:
        (worker,) = stack.workers
        (ready,) = worker.said(Kind.READY)
        return FirstStart(tasks=tuple(sorted(worker.tasks)), queues=tuple(sorted(ready.of(Ready)["queues"])))


def remember(spec: StackSpec, root: Path) -> None:
    """Note in a project's folder that a worker has started with these settings. Raises UsageError."""
    path = root / HOME / _STARTED
    try:
        path.parent.mkdir(exist_ok=True)
        path.write_text(_digest(spec))
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}.") from error


def has_started(spec: StackSpec, root: Path) -> bool:
    """Return whether the last worker that started did so with these settings, the app's packages included."""
    try:
        return (root / HOME / _STARTED).read_text() == _digest(spec)
    except (OSError, UnicodeDecodeError):
        return False


def _digest(spec: StackSpec) -> str:
    # Not the settings themselves: the environment may have secrets.
    return hashlib.sha256(repr(spec).encode(errors="surrogateescape")).hexdigest()
