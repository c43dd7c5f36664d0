"""What is written to a terminal, a pipe or a file for people to read.

Whatever it holds is text: it is shown as it is, with no markup in it and no sequence that a terminal would obey. And
where it cannot be written, because the disk is full or the reader is gone, nothing else fails.
"""

import errno
import io
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from typing import IO, Any

from rich.cells import cell_len
from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderableType
from rich.containers import Lines
from rich.segment import Segment
from rich.text import Text

from harness.printable import printable

WIDE = 400
"""Columns of a log: no name is longer, so that each is found as it is."""
READABLE = 100
"""Columns of a sentence where there is more room: longer lines are hard to read."""
_PIECE = re.compile(r"[^\s_./:,;=()\[\]-]*[_./:,;=()\[\]-]*")
"""A part of a word up to where a reader would break it."""


def columns_of(stream: IO[str]) -> int:
    """Return how many columns a stream has: COLUMNS says so, or the terminal; anything else is a log."""
    if stream.isatty() or os.environ.get("COLUMNS"):
        return shutil.get_terminal_size((WIDE, 24)).columns
    return WIDE


class Words(Text):
    """Text that is broken between words; a word that is longer than a line, where a reader would break it.

    A name is never broken in mid-word, unless the line has no room for a single piece of it.
    """

    def wrap(self, console: RichConsole, width: int, **options: Any) -> Lines:
        """Break it into lines of at most `width` columns. The options are those of Rich's, and change nothing."""
        del console, options
        lines = Lines()
        for line in self.split(allow_blank=True):
            lines.extend(line.divide(_breaks(line.plain, width)))
        for line in lines:
            line.rstrip_end(width)
        return lines


def _breaks(text: str, width: int) -> Iterator[int]:
    """Say before which characters a line of a text begins, but the first one."""
    begin = 0
    for start, end in _atoms(text, width):
        if start > begin and cell_len(text[begin:end].rstrip()) > width:
            yield start
            begin = start


def _atoms(text: str, width: int) -> Iterator[tuple[int, int]]:
    """Say from where to where each part of a text goes that is not broken: a word, or a piece or a character of one."""
    for word in re.finditer(r"\S+\s*", text):
        if cell_len(word[0].rstrip()) <= width:
            yield word.span()
            continue
        for piece in _PIECE.finditer(text, *word.span()):
            if cell_len(piece[0]) <= width:
                yield piece.span()
            else:
                yield from ((place, place + 1) for place in range(*piece.span()))


class Console(RichConsole):
    """Rich's console, which takes no text for markup and lets no text reach the terminal unescaped."""

    def __init__(self, **options: Any) -> None:
        """As Rich's; what is not said is without emoji codes, markup and highlighting, and a log is wide."""
        super().__init__(**{"emoji": False, "markup": False, "highlight": False, **options})
        if "width" not in options and not self.is_terminal:
            self.width = columns_of(self.file)

    def render_str(self, text: str, **options: Any) -> Text:
        """A string as text, and all of it: what Rich would leave out is written out as well."""
        return super().render_str(printable(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of something, which are text and its style, or a control code of Rich's own."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))


class _Lossy(io.TextIOWrapper):
    """A stream of text that takes everything, and remembers why the first thing that was lost could not be written."""

    failed: OSError | None = None

    def write(self, text: str, /) -> int:
        """Write, or lose, some text."""
        try:
            return super().write(text)
        except OSError as error:
            self._lose(error)
            return len(text)

    def flush(self) -> None:
        """Write, or lose, what is left."""
        try:
            super().flush()
        except OSError as error:
            self._lose(error)
            super().flush()

    def _lose(self, error: OSError) -> None:
        self.failed = self.failed or error
        # What is kept back in buffers goes there as well, and whatever else this process and its children say.
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device.
            os.dup2(nowhere.fileno(), self.fileno())


class Outputs:
    """Standard output and standard error, which never fail once they are `replaced`."""

    def __init__(self) -> None:
        """Nothing is replaced yet."""
        self._lossy: dict[str, _Lossy] = {}

    def replace(self) -> None:
        """Put streams that never fail in the place of the two; somebody else's, such as a test's, stay."""
        for descriptor in (0, 1, 2):
            _occupy(descriptor)
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is not None and stream is getattr(sys, f"__{name}__"):
                self._lossy[name] = _lossy(stream)
                setattr(sys, name, self._lossy[name])

    def flush(self) -> str | None:
        """Write what is left, and say why standard output is not complete; None if it is, or if nobody reads it."""
        for stream in self._lossy.values():
            stream.flush()
        failed = self._lossy["stdout"].failed if "stdout" in self._lossy else None
        if failed is None or failed.errno == errno.EPIPE:
            return None
        return f"the output could not be written: {failed.strerror}. The exit code says what it would have said anyway."


def _occupy(descriptor: int) -> None:
    """Open a descriptor that the caller has closed; else the next file that is opened gets the output into it."""
    try:
        os.fstat(descriptor)
    except OSError:
        # The lowest number that is free is this one.
        os.open(os.devnull, os.O_RDWR)


def _lossy(stream: io.TextIOWrapper) -> _Lossy:
    """A stream of one's own on the descriptor of another."""
    return _Lossy(
        io.BufferedWriter(io.FileIO(stream.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        # A name of a file may be no text at all, and a terminal may not know all of Unicode.
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
    )
