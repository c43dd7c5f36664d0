"""What is written to a terminal, a pipe or a file for people to read.

Whatever it holds is text: it is shown as it is, with no markup in it and no sequence that a terminal would obey. And
where it cannot be written, because the disk is full or the reader is gone, nothing else fails.
"""

import errno
import io
import os
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from harness.printable import printable


class Console(RichConsole):
    """Rich's console, which takes no text for markup and lets no text reach the terminal unescaped."""

    def __init__(self, **options: Any) -> None:
        """As Rich's; what is not said is without emoji codes, markup and highlighting."""
        super().__init__(**{"emoji": False, "markup": False, "highlight": False, **options})

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
