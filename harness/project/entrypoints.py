"""The way an own image starts its worker: word by word, because a shell in between decides who gets a signal."""

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from harness.project.command_line import commands_in
from harness.project.source_files import Sources
from harness.project.worker_commands import DOCKERFILE, compose_services, distrust, numbered_lines

_SHELL = ("/bin/sh", "-c")
"""What a Dockerfile's CMD or ENTRYPOINT is given to, if it is no JSON array."""


@dataclass(frozen=True, kw_only=True)
class Entrypoint:
    """The command that a container of a worker runs."""

    words: tuple[str, ...]
    source: str
    """The file that says so, and the place in it."""


def entrypoint_of(sources: Sources, app: str) -> Entrypoint | None:
    """Return how a project starts the worker of an app in a container; None if no file says it."""
    found = [*_in_compose(sources), *_in_dockerfiles(sources)]
    found.sort(key=lambda one: distrust(one[0]))
    return next((one for _, one in found if _starts_worker(one.words, sources, app)), None)


def _in_compose(sources: Sources) -> Iterator[tuple[PurePosixPath, Entrypoint]]:
    for path, name, service in compose_services(sources):
        words = (*_words(service.get("entrypoint")), *_words(service.get("command")))
        if words:
            yield path, Entrypoint(words=words, source=f"{path}: service {name}")


def _words(said: Any) -> tuple[str, ...]:
    """Return the words of a command in a compose file; it is a text, which no shell reads, or a list."""
    try:
        words = said if isinstance(said, list) else shlex.split(said) if isinstance(said, str) else []
    except ValueError:
        return ()
    return tuple(str(word).replace("$$", "$") for word in words)


def _in_dockerfiles(sources: Sources) -> Iterator[tuple[PurePosixPath, Entrypoint]]:
    for path in sources.named(DOCKERFILE):
        said: dict[str, tuple[str, ...]] = {}
        last = 0
        for number, line in numbered_lines(sources.text(path)):
            if re.match(r"\s*FROM\s", line, re.IGNORECASE):
                # Another stage begins; what those before it run, the image does not.
                said = {}
            elif found := re.match(r"\s*(CMD|ENTRYPOINT)\s+(.*)", line, re.IGNORECASE):
                said[found[1].upper()], last = _exec_form(found[2]), number
        entrypoint, command = said.get("ENTRYPOINT", ()), said.get("CMD", ())
        # The shell form of ENTRYPOINT takes no arguments.
        words = entrypoint if entrypoint[:2] == _SHELL else (*entrypoint, *command)
        if words:
            yield path, Entrypoint(words=words, source=f"{path}: line {last}")


def _exec_form(text: str) -> tuple[str, ...]:
    try:
        words = json.loads(text)
    except ValueError:
        words = None
    return tuple(map(str, words)) if isinstance(words, list) else (*_SHELL, text.strip())


def _starts_worker(words: Sequence[str], sources: Sources, app: str) -> bool:
    """Return whether a command starts a worker of an app, itself or by a script of the project that it names."""
    texts = [shlex.join(words)]
    files = {path.name: path for path in sources.files}
    texts += [sources.text(files[name]) for word in words if (name := PurePosixPath(word).name) in files]
    commands = [one for text in texts for line in text.splitlines() for one in commands_in(line, "")]
    return any(not one.is_beat and one.app == app for one in commands)
