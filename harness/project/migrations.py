"""The commands that make an app's tables: what the project shows, else what its framework is known to have."""

import re
import shlex
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import PurePosixPath
from typing import Any

from harness.project.command_line import simple_commands
from harness.project.source_files import Sources, is_test
from harness.project.worker_commands import Line

_PYTHON = re.compile(r"python[\d.]*")
_PYTHONS_WITH_VALUE = frozenset({"-W", "-X"})
_TOOLS = frozenset({"alembic", "flask"})
"""Programs of others that a module of the same name starts as well."""
_MAKES, _OF_WHAT = "(init|create|setup|upgrade|update)", "(db|database|tables|schema)"
_OWN = re.compile(
    rf"migrat|(^|_)({_MAKES}_?{_OF_WHAT}|{_OF_WHAT}_?{_MAKES})(_|$)",
    re.IGNORECASE,
)
"""The name of a program of the project that makes its tables, or of its subcommand."""
_ANOTHER = re.compile(
    r"(^|_)((make|create|new|add|generate)_?migrations?|downgrade|rollback|revision|check|status|history|show|list|reset"
    r"|drop)(_|$)",
    re.IGNORECASE,
)
"""The name of a command that has to do with migrations, and makes no tables."""
_ONLY_SHOWS = frozenset({"--check", "--plan", "--sql", "--fake", "--help"})


@dataclass(frozen=True, kw_only=True)
class Migration:
    """A command that makes an app's tables."""

    source: str
    """The file that shows it, and the place in it."""
    file: PurePosixPath
    """The file that it runs or reads, in the project."""
    folder: PurePosixPath | None
    """The folder that it has to be run in, or be able to import from; None if any folder above the file will do."""
    is_imported: bool = False
    """True if it only has to be able to import from the folder."""
    words: tuple[str, ...]
    """The command; `{}` stands for the path of the file."""

    def command_in(self, working: PurePosixPath, imported: Collection[PurePosixPath]) -> str | None:
        """Return the command as it is run in a folder; None if it cannot be.

        Args:
            working: the folder.
            imported: the folders that Python imports from, beside it.
        """
        places = {working, *imported} if self.is_imported else {working}
        if not self.file.is_relative_to(working) or not (self.folder is None or self.folder in places):
            return None
        path = str(self.file.relative_to(working))
        return shlex.join(path if word == "{}" else word for word in self.words)


def migrations_in(
    sources: Sources, lines: Iterable[Line], *, framework: str, imported: Collection[str]
) -> tuple[Migration, ...]:
    """Return the commands that make an app's tables, in the order in which they are run.

    Args:
        sources: the project.
        lines: its command lines, the most telling first.
        framework: the framework of its app.
        imported: the names of the packages that it imports.
    """
    if framework == "django":
        # Whatever else a project starts, its tables are made in this way.
        for path in sources.named(r"manage\.py"):
            words = ("python", "{}", "migrate", "--noinput")
            return (Migration(source=str(path), file=path, folder=None, words=words),)
    shown = _Shown(sources)
    for _, of_file in groupby(lines, key=lambda line: line.path):
        # A file may have several, such as one that makes the database and one that fills it.
        found: dict[tuple[str, ...], Migration] = {}
        for one in (one for line in of_file for one in shown.in_line(line)):
            found.setdefault((*one.words, str(one.file)), one)
        if found:
            return tuple(found.values())
    return tuple(_usual(sources, imported))


def _usual(sources: Sources, imported: Collection[str]) -> Iterator[Migration]:
    """Yield the command that is known to be the one, by the files that are there."""
    if "flask_migrate" in imported:
        # Without a name, the command looks for these two.
        for path in sources.named(r"(wsgi|app)\.py"):
            words = ("flask", "--app", "{}", "db", "upgrade")
            yield Migration(source=str(path), file=path, folder=path.parent, words=words)
            return
    for path in sources.named(r"alembic\.ini"):
        if "flask_migrate" not in imported:
            yield Migration(source=str(path), file=path, folder=path.parent, words=("alembic", "upgrade", "head"))
            return


class _Shown:
    """Finds the commands that a project shows."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._scripts = _console_scripts(sources)

    def in_line(self, line: Line) -> Iterator[Migration]:
        """Yield the commands of a line that make tables."""
        env = dict(line.env)
        for words in simple_commands(line.text, line.env):
            env |= {name: value for name, equals, value in (word.partition("=") for word in words) if equals}
            until = next((number for number, word in enumerate(words) if ">" in word or "<" in word), len(words))
            found = self._in_words(words[:until], replace(line, env=env))
            if found is not None:
                yield found

    def _in_words(self, words: Sequence[str], line: Line) -> Migration | None:
        """Return the command of some words, of which the first may only start it, such as `poetry run`."""
        for number, word in enumerate(words):
            name, rest = PurePosixPath(word).name, words[number + 1 :]
            if any("$" in one for one in rest) or _ONLY_SHOWS.intersection(rest):
                continue
            if _PYTHON.fullmatch(name):
                return self._of_python(rest, line)
            if name in _TOOLS:
                return self._of_tool(name, rest, line)
            if name in self._scripts:
                return self._of_script(name, rest, line)
        return None

    def _of_python(self, words: Sequence[str], line: Line) -> Migration | None:
        rest = list(words)
        while rest and rest[0].startswith("-") and rest[0] != "-m":
            del rest[: 2 if rest[0] in _PYTHONS_WITH_VALUE else 1]
        match rest:
            case ["-m", name, *more] if name in _TOOLS:
                return self._of_tool(name, more, line)
            case ["-m", name, *more] if _makes_tables(name.rpartition(".")[2], more):
                place = self._module(name)
                if place is not None:
                    return self._own(line, *place, ("python", "-m", name, *more))
            case [script, *more] if script.endswith(".py") and _makes_tables(PurePosixPath(script).stem, more):
                file = self._file(script)
                if file is not None:
                    return Migration(source=line.source, file=file, folder=None, words=("python", "{}", *more))
        return None

    def _of_tool(self, name: str, words: Sequence[str], line: Line) -> Migration | None:
        """Return Alembic's command, or Flask-Migrate's, if it names the file that it needs or has that beside it."""
        match name, list(words):
            case "alembic", [*options, "upgrade", "head" | "heads"]:
                config = _value(options, "-c", "--config")
                path = self._file(config or "alembic.ini")
                if path is not None:
                    folder = _above(path, config or "alembic.ini")
                    return Migration(
                        source=line.source, file=path, folder=folder, words=("alembic", *options, "upgrade", words[-1])
                    )
            case "flask", [*options, "db", "upgrade"]:
                app = _value(options, "-A", "--app") or line.env.get("FLASK_APP") or ""
                place = self._module(app.partition(":")[0].removesuffix(".py").replace("/", "."))
                if place is not None:
                    return self._own(line, *place, ("flask", "--app", app, "db", "upgrade"))
        return None

    def _of_script(self, name: str, words: Sequence[str], line: Line) -> Migration | None:
        """Return a console script as what it calls: the project itself is not installed where a stack runs it."""
        module, function = self._scripts[name]
        place = self._module(module)
        if place is None or not _makes_tables(name, words):
            return None
        code = f"from {module} import {function.partition('.')[0]}; {function}()"
        return self._own(line, *place, ("python", "-c", code, *words))

    def _own(self, line: Line, path: PurePosixPath, folder: PurePosixPath, words: tuple[str, ...]) -> Migration:
        return Migration(source=line.source, file=path, folder=folder, is_imported=True, words=words)

    def _module(self, name: str) -> tuple[PurePosixPath, PurePosixPath] | None:
        """Return the file of a module of the project, and the folder that it is imported from."""
        stem = PurePosixPath(*(part for part in name.split(".") if part))
        if not stem.name:
            return None
        for path in (stem.with_name(f"{stem.name}.py"), stem / "__main__.py", stem / "__init__.py"):
            file = self._file(str(path))
            if file is not None:
                return file, _above(file, str(path))
        return None

    def _file(self, name: str) -> PurePosixPath | None:
        """Return the file of the project that a command names from the folder that it is run in."""
        path = PurePosixPath(name)
        matching = (one for one in self._sources.files if one == path or str(one).endswith(f"/{path}"))
        return next((one for one in matching if not is_test(one)), None)


def _makes_tables(name: str, arguments: Sequence[str]) -> bool:
    """Return whether a program of the project makes its tables, by its name and its arguments."""
    said = "_".join(word for word in (name, *arguments) if not word.startswith("-")).replace("-", "_")
    return _OWN.search(said) is not None and _ANOTHER.search(said) is None


def _above(path: PurePosixPath, name: str) -> PurePosixPath:
    """Return the folder in which a path has this name."""
    return PurePosixPath(*path.parts[: len(path.parts) - len(PurePosixPath(name).parts)])


def _value(words: Sequence[str], short: str, long: str) -> str | None:
    """Return the value of an option."""
    for number, word in enumerate(words):
        if word in {short, long}:
            return words[number + 1] if number + 1 < len(words) else None
        if word.startswith(f"{long}="):
            return word.partition("=")[2]
    return None


def _console_scripts(sources: Sources) -> Mapping[str, tuple[str, str]]:
    """Return the console scripts of a project: the module and the function of each, by its name."""
    found: dict[str, tuple[str, str]] = {}
    for path in sources.named(r"pyproject\.toml"):
        try:
            said: Any = tomllib.loads(sources.text(path))
        except tomllib.TOMLDecodeError:
            continue  # Who writes the settings says what is wrong with it.
        for keys in (("project", "scripts"), ("tool", "poetry", "scripts")):
            table = said
            for key in keys:
                table = table.get(key) if isinstance(table, dict) else None
            for name, target in table.items() if isinstance(table, dict) else ():
                module, colon, function = str(target).partition(":")
                if colon:
                    found[name] = (module.strip(), function.strip())
    return found
