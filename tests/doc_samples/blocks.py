"""The fenced blocks of the documentation, and the code within its sentences."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
)
_FENCE = re.compile(r"^( *)(```+)(.*)$")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block."""

    page: str
    line: int
    """The line of its first fence, from 1."""
    language: str
    text: str

    def __str__(self) -> str:
        """Return its place."""
        return f"{self.page}:{self.line}"


def blocks_of(text: str, page: str) -> Iterator[Block]:
    """Yield the fenced blocks of a page. Raises ValueError for one without an end."""
    begun: tuple[int, str, str] | None = None
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        fence = _FENCE.match(line)
        if begun is None and fence:
            begun, lines = (number, fence[2], fence[3].strip()), []
        elif begun and fence and fence[2] == begun[1] and not fence[3].strip():
            yield Block(page=page, line=begun[0], language=begun[2], text="".join(f"{one}\n" for one in lines))
            begun = None
        elif begun:
            lines.append(line)
    if begun:
        raise ValueError(f"{page}:{begun[0]}: the block has no end.")


def blocks() -> list[Block]:
    """Return all fenced blocks of the documentation, by page and in order."""
    return [block for path in PAGES for block in blocks_of(path.read_text(), path.relative_to(ROOT).as_posix())]


def inline_of(text: str) -> Iterator[str]:
    """Yield the code within the sentences of a page, without its blocks; a line break in it is a space."""
    outside = re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.MULTILINE | re.DOTALL)
    for ticks, code in re.findall(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", outside, flags=re.DOTALL):
        if "\n\n" not in code and ticks:
            yield " ".join(code.split())


def inline() -> list[tuple[str, str]]:
    """Return all such code, with its page."""
    return [(path.relative_to(ROOT).as_posix(), code) for path in PAGES for code in inline_of(path.read_text())]
