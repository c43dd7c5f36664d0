"""Progress bars for a terminal, on standard error."""

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


@contextmanager
def of_tasks() -> Iterator[tuple[Callable[[str], None], Callable[[str, int, int], None]]]:
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
