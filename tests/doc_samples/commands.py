"""Can a command of the documentation be given as it stands? Each program has a rule of its own."""

import ast
import contextlib
import importlib.util
import io
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence

import click
import pytest

from harness.commands.cli import cli
from harness.errors import HarnessError
from tests.doc_samples.blocks import ROOT, Block

OTHERS = ("cd", "docker", "export", "kubectl", "mkdir", "source", "systemctl")
"""Programs of others, whose lines are only split into words."""
STANDS_FOR = {"APP": "shop.app", "NAME": "emails", "SCENARIO": "bulk_data", "refunds": "emails"}
"""What a page writes where the reader puts something of their own, and such a thing."""
_PARSE_LOCUST = """
import contextlib, io, json, sys
from harness import load
from harness.errors import HarnessError
from harness.loadtest import options
from locust.argument_parser import get_parser
for arguments in json.load(sys.stdin):
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            options.check(get_parser().parse_args(arguments))
    except (SystemExit, HarnessError) as error:
        print(json.dumps(said.getvalue() or str(error)))
    else:
        print(json.dumps(None))
"""


def given(block: Block) -> Iterator[str]:
    """Yield the commands of a block. In `console` they follow a `$`, and other lines are what they print.

    Raises:
        ValueError: a block of `console` has no command.
    """
    text = block.text.replace("\\\n", " ")
    lines = text.splitlines()
    if block.language == "console":
        found = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        if not found:
            raise ValueError(f"{block}: no line begins with `$ `.")
        yield from found
    else:
        yield from (line for line in lines if line.strip() and not line.startswith("#"))


def words_of(line: str) -> list[list[str]]:
    """Return the words of each command of a line, without its comment."""
    words = shlex.split(line, comments=True)
    commands: list[list[str]] = [[]]
    for word in words:
        if word in {"&&", "|", ";"}:
            commands.append([])
        else:
            commands[-1].append(word)
    return commands


class Commands:
    """The rules."""

    def __init__(self, options_of_pytest: Callable[[Sequence[str]], Sequence[str]]) -> None:
        """Begin.

        Args:
            options_of_pytest: returns the options among arguments that pytest does not know.
        """
        self.for_locust: list[tuple[str, list[str]]] = []
        """The lines for Locust, each with its place: one process reads them all; see `wrong_for_locust`."""
        self._unknown_to_pytest = options_of_pytest
        self._rules: Mapping[str, Callable[[Sequence[str]], Iterator[str]]] = {
            "harness": wrong_for_harness,
            "nox": wrong_for_nox,
            "pytest": self._wrong_for_pytest,
            "python": self._wrong_for_python,
            "python3": self._wrong_for_python,
        }

    def wrong(self, line: str, place: str) -> list[str]:
        """Return what is wrong with a line."""
        found: list[str] = []
        for command in words_of(line):
            words = list(command)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                found += _wrong_variable(words.pop(0).partition("=")[0])
            program, *arguments = words or [""]
            if program == "locust":
                self.for_locust.append((place, arguments))
                found += _wrong_locustfile(arguments)
            elif program in self._rules:
                found += self._rules[program](arguments)
            elif program not in OTHERS:
                found.append(f"nobody knows the program {program!r}")
        return [f"{place}: {line}: {one}" for one in found]

    def _wrong_for_pytest(self, arguments: Sequence[str]) -> Iterator[str]:
        rest = list(arguments)
        for index, word in enumerate(arguments):
            if word == "-p" and importlib.util.find_spec(arguments[index + 1]) is None:
                yield f"there is no plugin {arguments[index + 1]}"
        yield from (f"pytest has no option {option}" for option in self._unknown_to_pytest(rest))

    def _wrong_for_python(self, arguments: Sequence[str]) -> Iterator[str]:
        match arguments:
            case ["-m", "pytest", *rest]:
                yield from self._wrong_for_pytest(rest)
            case ["-m", "pip", "install" | "download", *what]:
                for one in what:
                    yield from _wrong_extras(one)
            case ["-m", "venv", _]:
                return
            case _:
                yield "nobody knows what Python does here"


def wrong_for_harness(arguments: Sequence[str], *, in_sentence: bool = False) -> Iterator[str]:
    """Yield what click's own parser says against a command line.

    Args:
        arguments: what follows `harness`.
        in_sentence: a sentence may name a command without what it needs, as in: `harness run` writes a report.
    """
    words = [STANDS_FOR.get(word, word) for word in arguments]
    try:
        with contextlib.redirect_stdout(io.StringIO()), cli.make_context("harness", list(words)) as context:
            name, command, rest = cli.resolve_command(context, list(words))
            assert command is not None
            with command.make_context(name, rest, parent=context):
                pass
    except click.exceptions.Exit:
        return  # --help and --version print, and end.
    except click.MissingParameter as error:
        if not in_sentence:
            yield error.format_message()
    except click.UsageError as error:
        yield error.format_message()
    except HarnessError as error:
        yield str(error)


def wrong_for_nox(arguments: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong: a session that the noxfile does not have."""
    before = list(arguments)[: arguments.index("--")] if "--" in arguments else list(arguments)
    if before[:1] != ["-s"] or len(before) < 2:
        yield "no session is named"
    yield from (f"there is no session {name}" for name in before[1:] if name not in sessions())


def sessions() -> set[str]:
    """Return the names of the sessions of the noxfile."""
    tree = ast.parse((ROOT / "noxfile.py").read_text())
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return {one.name for one in functions if any(ast.unparse(by) == "nox.session" for by in one.decorator_list)}


def _wrong_variable(name: str) -> Iterator[str]:
    if name.startswith("HARNESS_") and not any(name in path.read_text() for path in (ROOT / "harness").rglob("*.py")):
        yield f"the harness reads no variable {name}"


def _wrong_extras(requirement: str) -> Iterator[str]:
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = re.fullmatch(r"(?:.*/)?celery-harness\[(.+)\]", requirement)
    if named:
        yield from (f"there is no extra {extra}" for extra in named[1].split(",") if extra not in known)
    elif requirement != "nox":
        yield f"nobody knows the requirement {requirement}"


def _wrong_locustfile(arguments: Sequence[str]) -> Iterator[str]:
    path = next((arguments[index + 1] for index, word in enumerate(arguments) if word == "-f"), None)
    found = [folder / str(path) for folder in (ROOT, ROOT / "examples") if (folder / str(path)).is_file()]
    if not found:
        yield f"there is no locustfile {path}"
        return
    classes = set(re.findall(r"^class (\w+)", found[0].read_text(), re.MULTILINE))
    yield from (
        f"{path} has no {word}" for word in arguments if re.fullmatch("[A-Z][a-z]+", word) and word not in classes
    )


def wrong_for_locust(lines: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """Return what Locust's own parser, and the harness's check of its options, say against command lines."""
    done = subprocess.run(
        [sys.executable, "-c", _PARSE_LOCUST],
        input=json.dumps([arguments for _, arguments in lines]),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
        check=True,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    return [
        f"{place}: locust {' '.join(arguments)}: {answer}"
        for (place, arguments), answer in zip(lines, answers, strict=True)
        if answer is not None
    ]


def unknown_to_pytest(config: pytest.Config) -> Callable[[Sequence[str]], Sequence[str]]:
    """Return a function that tells the options that this pytest does not know."""

    def unknown(arguments: Sequence[str]) -> Sequence[str]:
        # pytest has no public way to parse a command line and to run nothing.
        _, rest = config._parser.parse_known_and_unknown_args(list(arguments))  # noqa: SLF001
        return [word for word in rest if word.startswith("-")]

    return unknown
