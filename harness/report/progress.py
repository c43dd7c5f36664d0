"""Progress on standard error: bars for a terminal, lines for a log."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from harness.console import Console

Say = Callable[[str], None]
"""Shows a line."""
Tell = Callable[[str, int, int], None]
"""Shows how much of something is done: its name, the number done, and the total."""
_EVERY_S = 10.0
"""Seconds between two lines of progress in a log. A CI system shows no more than the last lines of a long one."""


@contextmanager
def of_tasks() -> Iterator[tuple[Say, Tell]]:
    """Show progress lines, and a bar each for sent and for ended tasks. Yield the functions that update them."""
    columns = (TextColumn("{task.description:>6}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        known: dict[str, Any] = {}

        def say(line: str) -> None:
            bars.console.print(line)

        def tell(what: str, done: int, total: int) -> None:
            if what not in known:
                known[what] = bars.add_task(what, total=total)
            bars.update(known[what], completed=done, total=total)

        yield say, tell


@contextmanager
def of_lines() -> Iterator[tuple[Say, Tell]]:
    """Show progress as lines for a log: at most one in ten seconds of each kind, and one when all is done."""
    console = Console(stderr=True, soft_wrap=True, no_color=True)
    began_s, shown_s, finished = time.monotonic(), dict[str, float](), set[tuple[str, int]]()

    def say(line: str) -> None:
        console.print(line)

    def tell(what: str, done: int, total: int) -> None:
        now_s = time.monotonic()
        is_last = done >= total and (what, total) not in finished
        if is_last or (done < total and now_s - shown_s.get(what, began_s - _EVERY_S) >= _EVERY_S):
            shown_s[what] = now_s
            finished.update([(what, total)] if is_last else [])
            console.print(f"{what}: {done:,} of {total:,} after {now_s - began_s:.0f} s")

    yield say, tell


@contextmanager
def of_clock() -> Iterator[tuple[Callable[[str], None], Callable[[datetime, float], None]]]:
    """Show progress lines, and a bar for the time on beat's clock. Yield the functions that update them."""
    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        days = bars.add_task("", total=1.0)

        def say(line: str) -> None:
            bars.console.print(line)

        def tell(now: datetime, over: float) -> None:
            bars.update(days, completed=over, description=now.isoformat(sep=" ", timespec="minutes"))

        yield say, tell


@contextmanager
def of_plants(total: int) -> Iterator[tuple[Callable[[str], None], Callable[[str], None]]]:
    """Show progress lines, and a bar for the plants of a selftest. Yield the functions that update them."""
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        plants = bars.add_task("", total=total)

        def say(line: str) -> None:
            bars.console.print(line)

        def tell(name: str) -> None:
            bars.update(plants, advance=1, description=name)

        yield say, tell
