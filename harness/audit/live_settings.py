"""The settings that were in force in the workers of a run, as they journaled them when they began."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from harness.records.event import Kind
from harness.records.journal import parsed
from harness.records.regular_file import open_regular
from harness.records.values import Json

_HEAD_LINES = 1_000
"""The most lines of a file that are searched. A worker says its settings before its first task, and the options of 500
tasks at most."""
_LONGEST_BYTES = 1 << 20
"""The most bytes of one of these lines."""
_APP = "app"


class Value(NamedTuple):
    """The value of a setting, and where it was set."""

    value: Json
    where: str
    """`app`; `task` with the task's name; or `task_annotations` with the key that sets it there."""
    annotated: str | None = None
    """This key: the task's name, or `*`; None if it is not set there."""


@dataclass(frozen=True)
class _Worker:
    """The settings of one start of a worker."""

    node: str
    settings: Mapping[str, Json]
    options: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)
    """The options that each task or its annotations set, by the task's name."""


class LiveSettings:
    """The settings of all workers of a run."""

    def __init__(self, workers: Sequence[_Worker]) -> None:
        """Take the settings of each start of each worker; `read` finds them."""
        self._workers = workers

    @classmethod
    def read(cls, journal: Path) -> "LiveSettings":
        """Read the first lines of each worker's files in the folder of the journal."""
        return cls([worker for path in sorted(journal.glob("*.jsonl")) for worker in _workers(path)])

    @property
    def is_known(self) -> bool:
        """True if at least one worker said its settings."""
        return bool(self._workers)

    def setting(self, name: str, nodes: Sequence[str] = ()) -> Value | None:
        """Return the value of an app's setting; None if no worker said it, or if the workers differ.

        Args:
            name: the setting's name.
            nodes: the workers that are asked; empty for all. If none of them said anything, all are asked.
        """
        return _agreed([Value(worker.settings[name], _APP) for worker in self._of(nodes) if name in worker.settings])

    def option(self, name: str, task: str | None, nodes: Sequence[str] = (), default: str = "") -> Value | None:
        """Return the value of a task's option; None if it is not known, or if the workers differ.

        Args:
            name: the option's name, such as `acks_late`.
            task: the task's name.
            nodes: as in `setting`.
            default: the app's setting that holds where the task has none of its own; `task_` and the name if empty.
        """
        found = []
        for worker in self._of(nodes):
            own = worker.options.get(task or "", {})
            setting = default or f"task_{name}"
            if name in own:
                annotated = own.get("annotated")
                key = annotated.get(name) if isinstance(annotated, Mapping) else None
                where = f"task {task}" if key is None else f"task_annotations of {key}"
                found.append(Value(own[name], where, key))
            else:
                # A setting that is not set is not journaled.
                found.append(Value(worker.settings.get(setting), _APP))
        return _agreed(found)

    def _of(self, nodes: Sequence[str]) -> Sequence[_Worker]:
        return [worker for worker in self._workers if worker.node in nodes] or self._workers


def _agreed(values: Sequence[Value]) -> Value | None:
    """Return the value that all of them are; None if they differ, or if there is none."""
    return values[0] if values and all(value == values[0] for value in values) else None


def _workers(path: Path) -> Iterator[_Worker]:
    """Yield the settings that a journal file begins with, if a worker wrote them."""
    node, settings, options = "", None, {}
    for line in _head(path):
        if line["kind"] == Kind.OPENED:
            if line.get("role") != "worker":
                return
            node = str(line["node"])
        elif line["kind"] == Kind.SETTINGS and "schedule" not in line:
            settings = line
        elif line["kind"] == Kind.OPTIONS:
            options[str(line.get("name"))] = line
    if settings is not None:
        yield _Worker(node, settings, options)


def _head(path: Path) -> Iterator[dict[str, Json]]:
    """Yield the valid lines of a file before the first one about a task."""
    try:
        with open_regular(path) as file:
            for line in islice(iter(lambda: file.readline(_LONGEST_BYTES), b""), _HEAD_LINES):
                try:
                    value = parsed(line)
                except ValueError:
                    continue
                if value.get("task") is not None or value["kind"] == Kind.READY:
                    return
                yield value
    except OSError:
        # The witnesses say that it cannot be read.
        return
