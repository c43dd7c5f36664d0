"""The codes of findings are listed in one place: the code of the harness uses these, and the docs explain each."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.records.finding_codes import Code

ROOT = Path(__file__).parents[3]


def own_words(text: str) -> Iterator[str]:
    """Yield each code that a call of `Finding` gives as a text of its own."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "Finding":
            for keyword in node.keywords:
                if keyword.arg == "code" and isinstance(keyword.value, ast.Constant | ast.JoinedStr):
                    yield ast.unparse(keyword.value)


def test_each_finding_of_the_harness_has_a_listed_code() -> None:
    said = {str(path): list(own_words(path.read_text())) for path in (ROOT / "harness").rglob("*.py")}
    assert {path: words for path, words in said.items() if words} == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Finding(code='new', count=1)", ["'new'"]),
        ("verdict.Finding(code=f'{x}-torn')", ["f'{x}-torn'"]),
        ("Finding(code=Code(f'{x}-torn'))", []),
        ("Finding(code=Code.LOST)", []),
    ],
)
def test_a_code_that_is_not_listed_is_noticed(text: str, words: list[str]) -> None:
    assert list(own_words(text)) == words


def test_the_docs_explain_each_code_and_no_other() -> None:
    page = (ROOT / "docs" / "accounting.md").read_text()
    table = page.partition("| finding | verdict | means |")[2].partition("\n\n")[0]
    explained = {code for row in table.splitlines() for code in re.findall(r"`([a-z-]+)`", row.split(" | ")[0])}
    assert explained == {code.value for code in Code}
