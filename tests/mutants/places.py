"""Find the places of a source file where one small change can be planted."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

_PYTHON = {
    "<": "<=",
    "<=": "<",
    ">": ">=",
    ">=": ">",
    "==": "!=",
    "!=": "==",
    "+": "-",
    "-": "+",
    "+=": "-=",
    "-=": "+=",
    "and": "or",
    "or": "and",
    "not": "",
    "is": "is not",
    "True": "False",
    "False": "True",
    "min": "max",
    "max": "min",
    "any": "all",
    "all": "any",
    "break": "continue",
    "continue": "break",
    # Small numbers count things. A larger one is a limit, and nobody promised its exact value.
    **{str(number): str(number + 1) for number in range(4)},
}
"""What each token of Python becomes."""

_SQL = {
    r"\bAND\b": "OR",
    r"\bOR\b": "AND",
    r"\bNOT ": "",
    r"\bIS NULL\b": "IS NOT NULL",
    r"(?<!NOT )\bIN \(": "NOT IN (",
    r"<>": "=",
    r"<=": "<",
    r">=": ">",
    r"(?<![<>]) = ": " <> ",
    r" > ": " >= ",
    r" < ": " <= ",
    r" \+ ": " - ",
    r" - ": " + ",
    r"\bmax\(": "min(",
    r"\bmin\(": "max(",
    r"\bsum\(": "max(",
    r"\barg_max\(": "arg_min(",
    r"\barg_min\(": "arg_max(",
    r"\bbool_or\(": "bool_and(",
    r"\bbool_and\(": "bool_or(",
    r"\bgreatest\(": "least(",
    r"\bleast\(": "greatest(",
    r"\btrue\b": "false",
    r"\bfalse\b": "true",
    r"\bLEFT JOIN\b": "JOIN",
    r"\bDISTINCT (?!FROM\b)": "",
    r"\bWHEN ": "WHEN false AND ",
    r"\bWHERE ": "WHERE true OR ",
    r"\bDESC\b": "ASC",
    **{rf"(?<![\w.$]){number}(?![\w.])": str(number + 1) for number in range(4)},
}
"""What the text that each pattern matches in SQL becomes."""

_COMMENT_OR_STRING = re.compile(r"--[^\n]*|'[^']*'")
_LONGEST = 100
"""Characters of anything that is shown."""
Key = tuple[str, str, str, str, int]
_Change = tuple[int, int, str]
"""The characters from the first number up to the second become the text."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """One change of one file."""

    file: str
    """The path below the project's root."""
    start: int
    old: str
    new: str
    line: int
    """The number of the line in which the change begins, from 1."""
    text: str
    """That line, stripped."""
    nth: int
    """Which one it is among equal changes of equal lines of the file, from 1."""

    def __str__(self) -> str:
        """Describe the change in one line."""
        old, new = (" ".join(text.split()) for text in (self.old, self.new))
        return f"{self.file}:{self.line}: {_short(old)!r} -> {_short(new)!r}: {_short(self.text)}"

    @property
    def key(self) -> Key:
        """Tell the change from every other one, whatever line it moves to."""
        return self.file, self.text, self.old, self.new, self.nth

    def planted(self, source: str) -> str:
        """Return the source with the change in it."""
        return source[: self.start] + self.new + source[self.start + len(self.old) :]


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def places(file: str, source: str) -> list[Place]:
    """Return all places of a file, in order. Each change leaves Python that compiles; of SQL nobody knows."""
    changes = sorted(set(_of_sql(source) if file.endswith(".sql") else _of_python(source)))
    found: list[Place] = []
    seen: dict[tuple[str, str, str], int] = {}
    for start, end, new in changes:
        begin = source.rfind("\n", 0, start) + 1
        text = source[begin:].partition("\n")[0].strip()
        same = (text, source[start:end], new)
        place = Place(
            file=file,
            start=start,
            old=source[start:end],
            new=new,
            line=source.count("\n", 0, start) + 1,
            text=text,
            nth=seen.get(same, 0) + 1,
        )
        if file.endswith(".sql") or _compiles(place.planted(source)):
            seen[same] = place.nth
            found.append(place)
    return found


def _of_sql(source: str) -> Iterator[_Change]:
    code = _COMMENT_OR_STRING.sub(lambda match: "~" * len(match[0]), source)
    for pattern, new in _SQL.items():
        yield from ((match.start(), match.end(), new) for match in re.finditer(pattern, code))
    for match in _COMMENT_OR_STRING.finditer(source):
        if match[0].startswith("'"):
            yield match.end() - 1, match.end() - 1, "~"


def _of_python(source: str) -> Iterator[_Change]:
    tree, offsets = ast.parse(source), _Offsets(source)
    left_alone = [offsets.span(node) for node in _left_alone(tree)]
    for change in (*_of_tokens(source, offsets), *_of_nodes(tree, source, offsets)):
        if not any(start <= change[0] < end for start, end in left_alone):
            yield change


def _left_alone(tree: ast.AST) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            # It is a message, and older Pythons do not say where in it things stand.
            yield node
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.LShift) and isinstance(node.left, ast.Constant):
            # Some bytes: a limit as well.
            yield node
        elif isinstance(node, ast.Name) and node.id == "TYPE_CHECKING":
            # It is for the type checker alone.
            yield node
        elif isinstance(node, ast.ClassDef):
            # Whether a record can be changed says nothing of what it holds.
            yield from node.decorator_list


def _of_tokens(source: str, offsets: "_Offsets") -> Iterator[_Change]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.string in _PYTHON and token.type in {tokenize.OP, tokenize.NAME, tokenize.NUMBER}:
            start = offsets.of_character(*token.start)
            yield start, start + len(token.string), _PYTHON[token.string]


def _of_nodes(tree: ast.AST, source: str, offsets: "_Offsets") -> Iterator[_Change]:
    for node in ast.walk(tree):
        if isinstance(node, ast.If | ast.IfExp):
            yield from _negated(node.test, source, offsets)
        elif isinstance(node, ast.comprehension):
            for test in node.ifs:
                yield from _negated(test, source, offsets)
        elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In):
            end = offsets.span(node.left)[1]
            if match := re.compile(r"\)*\s*(in)\b").match(source, end):
                yield match.start(1), match.end(1), "not in"
        elif isinstance(node, ast.Return) and node.value is not None and not isinstance(node.value, ast.Constant):
            yield (*offsets.span(node.value), "None")
        elif isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant):
            yield (*offsets.span(node), "pass")


def _negated(test: ast.expr, source: str, offsets: "_Offsets") -> Iterator[_Change]:
    # A `not` and some comparisons have changes of their own that come to the same.
    opposable = ast.Eq | ast.NotEq | ast.Is | ast.IsNot | ast.In | ast.NotIn
    is_simple = isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], opposable)
    if not is_simple and not isinstance(test, ast.UnaryOp):
        start, end = offsets.span(test)
        yield start, end, f"(not ({source[start:end]}))"


class _Offsets:
    """Where in a source text each line begins."""

    def __init__(self, source: str) -> None:
        self._lines = source.splitlines(keepends=True)
        self._begins = [0, *accumulate(map(len, self._lines))]

    def of_character(self, line: int, column: int) -> int:
        """Return the offset of a column that counts characters, as tokens do."""
        return self._begins[line - 1] + column

    def of_byte(self, line: int, column: int) -> int:
        """Return the offset of a column that counts bytes of UTF-8, as syntax trees do."""
        return self._begins[line - 1] + len(self._lines[line - 1].encode()[:column].decode())

    def span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        """Return where a node begins and ends."""
        end_line, end_column = node.end_lineno, node.end_col_offset
        assert end_line is not None
        assert end_column is not None
        return self.of_byte(node.lineno, node.col_offset), self.of_byte(end_line, end_column)


def _compiles(source: str) -> bool:
    try:
        compile(source, "<planted>", "exec", dont_inherit=True)
    except SyntaxError:
        return False
    return True
