"""The clock of a node: the real time for its journal, and what its own wall clock shows.

Libfaketime may move a node's wall clock. The journal has the real time regardless, except under a clock that runs at
another speed.
"""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from harness.errors import JournalError
from harness.records.event import Kind
from harness.records.journal import Writer

LEAST_CHANGE_S = 0.5
"""The smallest change of the clock that is journaled. A smaller one may be an adjustment of the machine's own."""
_LOOK_S = 0.2
"""Seconds between two looks at the clock. The library itself takes up to a second to see a change."""


def real_time() -> Callable[[], float]:
    """Return a clock of the real time, Unix time in seconds, by the environment; see `harness.inside.agent`."""
    file = os.environ.get("HARNESS_CLOCK_FILE")
    if file is None:
        offset_s = float(os.environ.get("HARNESS_CLOCK_OFFSET_S", "0"))
        return lambda: time.time() - offset_s
    # The offset changes later; the monotonic clock does not.
    offset_s = float(Path(file).read_text(encoding="ascii").strip().removesuffix("s"))
    difference_s = time.time() - offset_s - time.monotonic()
    return lambda: time.monotonic() + difference_s


class ClockWatch:
    """Journals each change of the offset between this process's wall clock and the real time."""

    def __init__(self, journal: Writer, real: Callable[[], float], *, wall: Callable[[], float] = time.time) -> None:
        """Take the clocks. `look` or `start` begins."""
        self._journal = journal
        self._real = real
        self._wall = wall
        self._offset_s = 0.0

    def look(self) -> None:
        """Journal the offset if it has changed since the last look."""
        offset_s = self._wall() - self._real()
        if abs(offset_s - self._offset_s) >= LEAST_CHANGE_S:
            self._offset_s = offset_s
            self._journal.write(Kind.CLOCK, offset_s=round(offset_s, 3))

    def start(self) -> None:
        """Look again and again, in a thread of its own, until the process ends. Forked processes have none."""
        threading.Thread(target=self._go_on, name="harness-clock", daemon=True).start()

    def _go_on(self) -> None:
        pause = threading.Event()
        while not pause.wait(_LOOK_S):
            try:
                self.look()
            except JournalError:
                # The journal has a gap then, which the audit reports.
                return
