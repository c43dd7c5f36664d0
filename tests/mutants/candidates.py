"""Choose the tests that can notice each change, from what an observed run of all tests has shown."""

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path

from tests.mutants.observer import ENOUGH_TESTS, Change, Plan, Seen
from tests.mutants.places import Place

_SECTION = re.compile(r"^-- name: (.+)$", re.MULTILINE)


class Candidates:
    """Knows which tests can notice each of some places."""

    def __init__(self, project: Path, places: Iterable[Place]) -> None:
        """Prepare to observe. `project` is the root of the project."""
        self._places = {place.key: place for place in places}
        self._sources = {file: (project / file).read_text() for file in {one.file for one in self._places.values()}}
        self._numbers = {
            key: number for number, (key, place) in enumerate(self._places.items()) if place.file.endswith(".sql")
        }
        self._seen: list[Seen] = []

    def plan(self, seen: Path) -> Plan:
        """Return what to observe. `seen` is the file for what comes of it."""
        changes = [self._change(number, self._places[key]) for key, number in self._numbers.items()]
        python = sorted(file for file in self._sources if file.endswith(".py"))
        return Plan(changes=changes, python=python, seen=str(seen))

    def _change(self, number: int, place: Place) -> Change:
        source = self._sources[place.file]
        section = max(
            (match for match in _SECTION.finditer(source) if match.start() <= place.start),
            key=lambda match: match.start(),
        )
        following = _SECTION.search(source, section.end())
        end = following.start() if following else len(source)
        query = source[section.end() + 1 : end]
        start = place.start - section.end() - 1
        text = query[:start] + place.new + query[start + len(place.old) :]
        return Change(number=number, query=section[1].strip(), text=text)

    def add(self, seen: Seen) -> None:
        """Take what one process has seen."""
        self._seen.append(seen)

    def of(self, place: Place) -> list[str] | None:
        """Return the node ids of the tests that can notice a change; None if any test can."""
        if place.key in self._numbers:
            number = self._numbers[place.key]
            are_all = all(len(seen.queries.get(number, ())) < ENOUGH_TESTS for seen in self._seen)
            return self.probable(place) if are_all else None
        lines = lines_of(self._sources[place.file], place)
        if lines is None:
            return None
        by_line: list[Mapping[int, Sequence[str]]] = [seen.lines[place.file] for seen in self._seen]
        return sorted({test for tests in by_line for line in lines for test in tests.get(line, ())})

    def probable(self, place: Place) -> list[str]:
        """Return the tests that most probably notice a change that any test can notice."""
        number = self._numbers.get(place.key, -1)
        return sorted(chain(*(seen.queries.get(number, ()) for seen in self._seen)))


def lines_of(source: str, place: Place) -> range | None:
    """Return the lines of the statement that a place is in; None for one that runs when the file is imported.

    Of a statement that contains others, it returns the lines of its head.
    """
    found: range | None = None
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for statement in chain(*map(_statements, function.body)):
                lines = range(statement.lineno, _end(statement) + 1)
                if place.line in lines:
                    found = lines
    return found


def _statements(statement: ast.stmt) -> Iterable[ast.stmt]:
    return (node for node in ast.walk(statement) if isinstance(node, ast.stmt))


def _end(statement: ast.stmt) -> int:
    """Return the last line of a statement without the statements in it."""
    inner = [node.lineno for node in ast.walk(statement) if isinstance(node, ast.stmt) and node is not statement]
    last = statement.end_lineno or statement.lineno
    return max(statement.lineno, min(inner) - 1) if inner else last
