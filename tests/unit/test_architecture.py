"""docs/architecture.md names files that exist, and has a place for each folder and each module at the top.

A long module says why it is long.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "architecture.md"
LONG_LINES = 400
"""The number of lines up to which nobody asks."""
_OF_A_RUN = {"run.json", "results.sqlite3", "broker.json", "checks.json", "audit.json", "report.html"}
"""Files of a run folder, which this repository does not have."""


def missing_from(text: str) -> Iterator[str]:
    """Yield each file or folder that the text names and that does not exist.

    A name is a path from the repository's root, or it is in the folder of a file that the same paragraph or row names
    before it.
    """
    for block in re.split(r"\n\s*\n|\n(?=\||\d+\. )", text):
        folders = [ROOT]
        for name in re.findall(r"`([\w./-]+(?:\.\w+|/))`", block):
            found = next((path for folder in folders if (path := folder / name).exists()), None)
            if found is not None:
                folders.append(found if found.is_dir() else found.parent)
            elif name not in _OF_A_RUN and name not in {"effects/", "logs/"}:
                yield name


def test_each_file_that_the_page_names_exists() -> None:
    assert list(missing_from(PAGE.read_text())) == []


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("| `harness/commands/cli.py`, `gone.py` |", ["gone.py"]),
        ("`harness/stack/settling.py` asks `stack.py`.", []),
        ("`harness/stack/settling.py` decides.\n\nThen `stack.py` follows.", ["stack.py"]),
        ("| `harness/commands/cli.py` |\n| `plugin.py` |", ["plugin.py"]),
        ("in `harness/nowhere/`", ["harness/nowhere/"]),
    ],
)
def test_a_name_of_no_file_is_found(text: str, missing: list[str]) -> None:
    assert list(missing_from(text)) == missing


def test_each_part_of_the_harness_has_a_floor_on_the_page() -> None:
    modules = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("harness/*.py")}
    folders = {f"{path.parent.relative_to(ROOT).as_posix()}/" for path in ROOT.glob("harness/*/__init__.py")}
    floors, _, _ = PAGE.read_text().partition("## How a task travels")
    named = set(re.findall(r"`([\w./-]+)`", floors))
    named |= {f"harness/{name}" for name in named}
    assert (modules | folders) - named == {"harness/__init__.py", "harness/__main__.py"}


def is_unexplained(source: str) -> bool:
    """Return whether a module is long, and its docstring does not say why."""
    return source.count("\n") > LONG_LINES and " long because " not in " ".join(
        (ast.get_docstring(ast.parse(source)) or "").split()
    )


def test_a_long_module_says_why_it_is_long() -> None:
    modules = [*ROOT.glob("harness/**/*.py"), *ROOT.glob("scenarios/**/*.py")]
    assert [path for path in modules if is_unexplained(path.read_text())] == []


@pytest.mark.parametrize(
    ("docstring", "lines", "unexplained"),
    [
        ("Sends tasks.", LONG_LINES, False),
        ("Sends tasks.", LONG_LINES + 1, True),
        ("Sends tasks. It is long\nbecause there are many.", LONG_LINES + 2, False),
    ],
)
def test_only_a_long_module_without_a_reason_is_unexplained(docstring: str, lines: int, *, unexplained: bool) -> None:
    source = f'"""{docstring}"""'
    assert is_unexplained(source + "\n" * (lines - source.count("\n"))) is unexplained
