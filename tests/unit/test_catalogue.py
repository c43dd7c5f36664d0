"""Each check of the catalogue is a test that exists and that somebody runs."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "catalogue.md"
RUN_BY_CI = ("tests/docker/", "tests/integration/")
"""The folders whose tests CI runs, unless they have the marker `catalogue`, with which another session runs them."""
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def rows(text: str) -> Iterator[list[str]]:
    """Yield the cells of each row of the tables, without those of their heads."""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and cells[1] != "provoked":
            yield cells


def faults(text: str) -> Iterator[str]:
    """Yield what is wrong with the tests that a page names."""
    for cells in rows(text):
        named = NAMED.findall(cells[3])
        if not named:
            yield f"{cells[0]} names no test"
        for file, name in named:
            if not file.startswith(RUN_BY_CI):
                yield f"{file} is not run"
            elif not (ROOT / file).is_file() or name not in names_in(ROOT / file):
                yield f"{file} has no {name}"


def names_in(path: Path) -> set[str]:
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}


def test_each_test_that_the_catalogue_names_exists() -> None:
    assert list(faults(PAGE.read_text())) == []


def test_every_row_is_whole_and_no_number_is_left_out() -> None:
    found = list(rows(PAGE.read_text()))
    assert all(len(cells) == 5 and all(cells) for cells in found)
    assert [cells[0] for cells in found if cells[0].isdigit()] == [str(number) for number in range(1, 24)]


def test_every_test_of_the_catalogues_own_files_is_in_it() -> None:
    named = set(NAMED.findall(PAGE.read_text()))
    for path in sorted((ROOT / "tests" / "docker").glob("test_catalogue_*.py")):
        own = {(str(path.relative_to(ROOT)), name) for name in names_in(path) if name.startswith("test_")}
        assert own <= named


HERE = "tests/docker/test_catalogue_beat.py"


@pytest.mark.parametrize(
    ("cell", "fault"),
    [
        ("nothing", "7 names no test"),
        (f"`{HERE}::test_nothing`", f"{HERE} has no test_nothing"),
        ("`tests/docker/test_nothing.py::test_x`", "tests/docker/test_nothing.py has no test_x"),
        ("`tests/soak/test_faults.py::test_every_kind_of_fault_is_here`", "tests/soak/test_faults.py is not run"),
    ],
)
def test_a_row_whose_test_is_not_there_is_found(cell: str, fault: str) -> None:
    assert list(faults(f"| number | provoked | a | test | b |\n|---|---|---|---|---|\n| 7 | x | y | {cell} | z |")) == [
        fault
    ]
