"""The report: how long it takes to write and to open, and how large it is."""

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from selenium.webdriver.support.wait import WebDriverWait

from harness.stack.shared_parts import SharedParts
from tests.bench.load import Figure
from tests.browser import READY_S, chromium, is_ready

_TASKS = (1_000, 100_000, 1_000_000)
_ROUNDS = 5
_OPEN_S = 3.0
_LARGEST_MB = 12.0
_MOST_MB = 700


def report(_session: SharedParts, root: Path) -> Iterator[Figure]:
    """Write the reports of runs of a thousand tasks to a million, each in a process of its own, and open them."""
    for tasks in _TASKS:
        script = [sys.executable, str(Path(__file__).with_name("synthetic.py")), str(root), str(tasks)]
        folder = Path(subprocess.run(script, check=True, capture_output=True, text=True).stdout.strip())
        seconds, peak_mb = _written(folder)
        size_mb = (folder / "report.html").stat().st_size / 1e6
        opened = _opened(folder / "report.html")
        of = f"report of {tasks:,} tasks"
        yield f"{of}, time to write", f"{seconds:.1f} s, {peak_mb:.0f} MB", f"< {_MOST_MB} MB", peak_mb < _MOST_MB
        yield f"{of}, size", f"{size_mb:.2f} MB", f"< {_LARGEST_MB:.0f} MB", size_mb < _LARGEST_MB
        median = statistics.median(opened)
        yield (
            f"{of}, opening in Chromium",
            f"{median:.2f} s ({min(opened):.2f} to {max(opened):.2f})",
            "< 3 s",
            median < _OPEN_S,
        )
        shutil.rmtree(folder)


def _written(folder: Path) -> tuple[float, float]:
    """Return the seconds and the peak memory of `harness report`."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "harness", "report", folder], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"the report ended with {process.returncode}")
    return time.perf_counter() - began, usage.ru_maxrss / 1024


def _opened(page: Path) -> list[float]:
    """Return the seconds until the page's script is done, each time in a new document."""
    seconds = []
    with chromium() as browser:
        for _ in range(_ROUNDS):
            browser.get("about:blank")
            began = time.perf_counter()
            browser.get(page.as_uri())
            WebDriverWait(browser, READY_S, 0.01).until(is_ready)
            seconds.append(time.perf_counter() - began)
    return seconds
