"""Find the test files that can notice a change, the nearest first."""

import ast
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path

_FOLDERS = ("harness", "scenarios", "tests")
_FAR = 2
"""Imports between a file and a test of it; what is further off tests something else."""


class Reach:
    """Knows which test files of a project import which of its files."""

    def __init__(self, root: Path, tests: str) -> None:
        """Read all files. `tests` is the folder of the test files, below `root`."""
        self._tests = f"{tests}/"
        self._sources = {path.relative_to(root).as_posix(): path.read_text() for path in _files(root)}
        uses = {name: _used(name, text, self._sources) for name, text in self._sources.items()}
        # What the tests share is a part of each test that imports it.
        shared = {name for name in uses if name.startswith("tests/")}
        self._uses = {name: _through(shared, name, uses) for name in uses if name not in shared or self._is_test(name)}

    def _is_test(self, file: str) -> bool:
        return file.startswith(self._tests) and Path(file).name.startswith("test_")

    def tests_of(self, file: str) -> list[str]:
        """Return the test files that import a file, or who imports it, from the nearest on.

        A file that is no module belongs to the modules that name it.
        """
        distance = _distances(self._uses, {file} if file.endswith(".py") else self._naming(Path(file).name))
        reached = [one for one, count in distance.items() if self._is_test(one) and count <= _FAR]
        # One that is named for the file knows more about it than one that is nearer.
        stem = Path(file).stem
        return sorted(reached, key=lambda one: (stem not in Path(one).stem, distance[one], one))

    def _naming(self, name: str) -> set[str]:
        return {one for one, text in self._sources.items() if f'"{name}"' in text and not one.startswith("tests/")}


def _files(root: Path) -> Iterator[Path]:
    for folder in _FOLDERS:
        yield from (root / folder).rglob("*.py")


def _through(shared: set[str], name: str, uses: Mapping[str, set[str]]) -> set[str]:
    """Return what a file imports, itself or through the files that are shared."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        new = uses[waiting.pop()] - found
        found |= new
        waiting += new & shared
    return found


def _used(name: str, text: str, sources: Mapping[str, str]) -> set[str]:
    """Return the files that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text, name)):
        if isinstance(node, ast.Import):
            imported = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for module in imported:
            path = module.replace(".", "/")
            found |= {f"{path}.py", f"{path}/__init__.py"} & sources.keys()
    return found


def _distances(uses: Mapping[str, set[str]], near: set[str]) -> dict[str, int]:
    """Return how many imports lead from each file to one that is near, for those that reach any."""
    distance = dict.fromkeys(near, 0)
    waiting = deque(near)
    while waiting:
        used = waiting.popleft()
        for user, used_by_it in uses.items():
            if used in used_by_it and user not in distance:
                distance[user] = distance[used] + 1
                waiting.append(user)
    return distance
