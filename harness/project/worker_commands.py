"""The command lines of a project: in compose files, Dockerfiles, Procfile, scripts, units, the README."""

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import yaml

from harness.project.command_line import Command, commands_in
from harness.project.source_files import Sources, is_test

COMPOSE = r"(docker-)?compose.*\.ya?ml"
DOCKERFILE = r"(.*\.)?(Dockerfile|Containerfile)(\..*)?"
_PROSE = r".*\.(md|rst)"
_SHELL = re.compile(r"#!.*\b(ba|da|z|)sh\b")
_IN_A_SENTENCE = re.compile(r"(`+)([^`]+)\1")
"""Code between the words of a sentence."""
_FENCE = re.compile(r"\s*(```|~~~)")
_BLOCK = re.compile(r"\t| {4}")
"""The begin of a line of code, in a text for people."""
_ASSIGNED = re.compile(r"\s*(?:export\s+)?([A-Za-z_]\w*)\s*[:?]?=\s*['\"]?([^'\"#]*?)['\"]?\s*")
"""A line of a script or a Makefile that sets a variable."""
_PREFIXES: Mapping[str, str] = {
    r"Procfile.*": r"^[\w-]+:",
    r".*\.service": r"^ExecStart\s*=[-@:+!]*",
    r".*\.(conf|ini|cfg)": r"^command\s*=",
    r"(GNU)?[Mm]akefile|.*\.mk|[Jj]ustfile": r"^\s+[@-]*",
    _PROSE: r"^\s*([$>]\s+)?",
    r".*\.(sh|bash)": r"^\s*",
}
"""The text before the command on a line, by the name of the file."""
_PRODUCTION = re.compile(r"prod|staging|live", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Line:
    """A command line that stands somewhere in a project, as a shell takes it."""

    text: str
    path: PurePosixPath
    """The file that has it."""
    place: str
    """The place in the file."""
    env: Mapping[str, str] = field(default_factory=dict)
    """The values of variables at that place."""

    @property
    def source(self) -> str:
        """The file, and the place in it."""
        return f"{self.path}: {self.place}"


def is_for_production(path: PurePosixPath) -> bool:
    """Return whether a file says by its name that it is for production; no value is taken from such a file."""
    return bool(_PRODUCTION.search(path.name))


def is_prose(path: PurePosixPath) -> bool:
    """Return whether a file is for people to read, so that not all that looks like a command is one."""
    return re.fullmatch(_PROSE, path.name) is not None


def command_lines(sources: Sources) -> tuple[Line, ...]:
    """Return the command lines of a project, the most telling first."""
    found = [
        *_in_compose(sources),
        *_in_dockerfiles(sources),
        *(line for pattern, prefix in _PREFIXES.items() for line in _in_lines(sources, pattern, prefix)),
        *_in_scripts(sources),
    ]
    return tuple(sorted(found, key=lambda line: distrust(line.path)))


def distrust(path: PurePosixPath) -> tuple[bool, bool]:
    """Return how little a file tells of how a test has to start the app; files that tell more come first.

    A file for production, or for people, may start things that no other file does. So it counts last, and not never.
    """
    return is_for_production(path), is_prose(path)


def worker_commands(lines: Iterable[Line]) -> tuple[Command, ...]:
    """Return the commands in these lines that start workers or beat."""
    found = ((line, command) for line in lines for command in commands_in(line.text, line.source, line.env))
    # A sentence about Celery is no command.
    return tuple(command for line, command in found if command.app is not None or not is_prose(line.path))


def compose_services(sources: Sources) -> Iterator[tuple[PurePosixPath, str, Mapping[str, Any]]]:
    """Yield the services of all compose files: the file, the service's name, what it says."""
    for path in sources.named(COMPOSE):
        try:
            said = yaml.safe_load(sources.text(path))
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            sources.notes.append(f"{path} was skipped, because it is no valid YAML: {str(error).splitlines()[0]}.")
            continue
        services = said.get("services") if isinstance(said, dict) else None
        for name, service in services.items() if isinstance(services, dict) else ():
            if isinstance(service, dict):
                yield path, str(name), service


def environment_of(service: Mapping[str, Any]) -> dict[str, str]:
    """Return what a compose service sets in its environment, as far as a value stands there."""
    said = service.get("environment")
    if isinstance(said, dict):
        return {str(name): _scalar(value) for name, value in said.items() if value is not None}
    if isinstance(said, list):
        pairs = (str(one).partition("=") for one in said)
        return {name: value for name, equals, value in pairs if equals}
    return {}


def _scalar(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _in_compose(sources: Sources) -> Iterator[Line]:
    for path, name, service in compose_services(sources):
        text = " ".join(filter(None, (_shell(service.get("entrypoint")), _shell(service.get("command")))))
        yield Line(text=text.replace("$$", "$"), path=path, place=f"service {name}", env=environment_of(service))


def _shell(said: Any) -> str:
    """Return a command as a shell takes it; it is a text, or a list of words."""
    if isinstance(said, list):
        return shlex.join(str(word) for word in said)
    return " ".join(said.split("\n")) if isinstance(said, str) else ""


def _in_dockerfiles(sources: Sources) -> Iterator[Line]:
    for path in sources.named(DOCKERFILE):
        said: dict[str, str] = {}
        for number, line in numbered_lines(sources.text(path)):
            found = re.match(r"\s*(CMD|ENTRYPOINT)\s+(.*)", line, re.IGNORECASE)
            if found:
                said[found[1].upper()] = _exec_form(found[2])
                last = number
        if said:
            text = f"{said.get('ENTRYPOINT', '')} {said.get('CMD', '')}".strip()
            yield Line(text=text, path=path, place=f"line {last}")


def _exec_form(text: str) -> str:
    """Return a command of a Dockerfile as a shell takes it; it may be a JSON list."""
    try:
        words = json.loads(text)
    except ValueError:
        return text
    return _shell(words) if isinstance(words, list) else text


def numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield lines with their numbers; a line that ends with a backslash goes on."""
    begin, whole = 0, ""
    for number, line in enumerate(text.splitlines(), start=1):
        begin = begin or number
        whole += line
        if whole.endswith("\\"):
            whole = whole[:-1] + " "
            continue
        yield begin, whole
        begin, whole = 0, ""
    if whole:
        yield begin, whole


def _in_lines(sources: Sources, pattern: str, prefix: str) -> Iterator[Line]:
    for path in sources.named(pattern):
        if not is_test(path):
            yield from _in_text(sources, path, prefix)


def _in_scripts(sources: Sources) -> Iterator[Line]:
    """Yield the lines of scripts whose name has no ending."""
    for path in sources.files:
        if not path.suffix and not path.name.startswith(".") and _SHELL.match(sources.text(path)):
            yield from _in_text(sources, path, "")


def _in_text(sources: Sources, path: PurePosixPath, prefix: str) -> Iterator[Line]:
    """Yield the lines of a file that have a prefix, with the variables that lines before them set."""
    begins = re.compile(prefix)
    env: dict[str, str] = {}
    is_code = not is_prose(path)
    for number, line in numbered_lines(sources.text(path)):
        if is_prose(path) and _FENCE.match(line):
            is_code = not is_code
        quoted = [] if is_code or _BLOCK.match(line) else [code for _, code in _IN_A_SENTENCE.findall(line)]
        found = begins.match(line)
        for text in quoted or ([line[found.end() :].strip()] if found else []):
            yield Line(text=text, path=path, place=f"line {number}", env=env)
        if assigned := _ASSIGNED.fullmatch(line):
            env = {**env, assigned[1]: assigned[2]}
