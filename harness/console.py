"""Output to a terminal, a pipe or a file, for people to read.

Output is plain text: it is shown as it is, without markup and without control sequences for the terminal. If it cannot
be written, because the disk is full or the reader is gone, nothing else fails.
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
from harness.records.verdict import Verdict

STYLES = {Verdict.PASS: "green", Verdict.UNKNOWN: "yellow", Verdict.FAIL: "bold red"}
"""The style in which each verdict is shown."""
WIDE = 400
"""Columns of a log. No name is longer, so that each stays in one piece."""
READABLE = 100
"""Columns of a sentence where there is more room: longer lines are hard to read."""
_PIECE = re.compile(r"[^\s_./:,;=()\[\]-]*[_./:,;=()\[\]-]*")
"""A part of a word up to a place where it may be broken."""


def columns_of(stream: IO[str]) -> int:
    """Return the number of columns of a stream: COLUMNS, or the terminal's width; WIDE for a log."""
    if stream.isatty() or os.environ.get("COLUMNS"):
        return shutil.get_terminal_size((WIDE, 24)).columns
    return WIDE


class Words(Text):
    """Text that is broken between words; a word longer than a line is broken after punctuation.

    A name is never broken within such a piece, unless the piece is longer than a line.
    """

    def wrap(self, console: RichConsole, width: int, **options: Any) -> Lines:
        """Break it into lines of at most `width` columns. The options are Rich's, and are ignored."""
        del console, options
        lines = Lines()
        for line in self.split(allow_blank=True):
            lines.extend(line.divide(_breaks(line.plain, width)))
        for line in lines:
            line.rstrip_end(width)
        return lines


def _breaks(text: str, width: int) -> Iterator[int]:
    """Yield the positions at which a line begins, without the first one."""
    begin = 0
    for start, end in _atoms(text, width):
        if start > begin and cell_len(text[begin:end].rstrip()) > width:
            yield start
            begin = start


def _atoms(text: str, width: int) -> Iterator[tuple[int, int]]:
    """Yield begin and end of each part that is not broken: a word, or a piece or a character of one."""
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
    """Rich's console, without markup in texts and with all control characters escaped."""

    def __init__(self, **options: Any) -> None:
        """Create it with Rich's options; by default without emoji codes, markup and highlighting; wide for a log."""
        super().__init__(**{"emoji": False, "markup": False, "highlight": False, **options})
        if "width" not in options and not self.is_terminal:
            self.width = columns_of(self.file)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a string as Rich's text; characters that Rich would leave out are escaped."""
        return super().render_str(printable(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of a renderable: text with its style, escaped, or a control code of Rich's own."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))


class _Lossy(io.TextIOWrapper):
    """A text stream that accepts everything, and keeps the first error of a write."""

    failed: OSError | None = None

    def write(self, text: str, /) -> int:
        """Write a text, or lose it."""
        try:
            return super().write(text)
        except OSError as error:
            self._lose(error)
            return len(text)

    def flush(self) -> None:
        """Write the buffered text, or lose it."""
        try:
            super().flush()
        except OSError as error:
            self._lose(error)
            super().flush()

    def _lose(self, error: OSError) -> None:
        self.failed = self.failed or error
        # The buffered text goes there too, and all further output of this process and its children.
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device.
            os.dup2(nowhere.fileno(), self.fileno())


class Outputs:
    """Standard output and standard error, which do not fail after `replace`."""

    def __init__(self) -> None:
        """Create it without replacing the streams."""
        self._lossy: dict[str, _Lossy] = {}

    def replace(self) -> None:
        """Replace the two streams by ones that do not fail.

        Streams that are not the originals, such as a test's, stay.
        """
        for descriptor in (0, 1, 2):
            _occupy(descriptor)
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is not None and stream is getattr(sys, f"__{name}__"):
                self._lossy[name] = _lossy(stream)
                setattr(sys, name, self._lossy[name])

    def flush(self) -> str | None:
        """Write the buffered text, and return why output was lost; None if none was, or if the reader has left."""
        for stream in self._lossy.values():
            stream.flush()
        failed = self._lossy["stdout"].failed if "stdout" in self._lossy else None
        if failed is None or failed.errno == errno.EPIPE:
            return None
        return f"the output could not be written: {failed.strerror}. The exit code says what it would have said anyway."


def _occupy(descriptor: int) -> None:
    """Open a descriptor that the caller has closed; otherwise the next opened file would receive the output."""
    try:
        os.fstat(descriptor)
    except OSError:
        # The lowest free number is this one.
        os.open(os.devnull, os.O_RDWR)


def _lossy(stream: io.TextIOWrapper) -> _Lossy:
    """Return a stream of its own on the descriptor of another stream."""
    return _Lossy(
        io.BufferedWriter(io.FileIO(stream.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        # A file name need not be text, and a terminal may lack parts of Unicode.
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
    )
