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


class _Lossy(io.FileIO):
    """A file descriptor that takes everything, and remembers why it lost the first thing that could not be written."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.failed: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write some bytes; those that cannot be written count as written."""
        if self.failed is None:
            try:
                return super().write(data) or 0
            except OSError as error:
                self.failed = error
        return memoryview(data).nbytes


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
                self._lossy[name] = _Lossy(stream.fileno())
                setattr(sys, name, _writer(self._lossy[name], stream))

    def flush(self) -> str | None:
        """Write what is left, and say why standard output is not complete; None if it is, or if nobody reads it."""
        for name in self._lossy:
            getattr(sys, name).flush()
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


def _writer(raw: _Lossy, before: io.TextIOWrapper) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=before.encoding,
        # A name of a file may be no text at all, and a terminal may not know all of Unicode.
        errors="backslashreplace",
        line_buffering=before.line_buffering or raw.fileno() == 2,  # noqa: PLR2004 - standard error.
    )
