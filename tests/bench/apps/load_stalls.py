"""The load test of `noop`, which also measures for how long a greenlet keeps all others from running.

What is measured is the CPU time between two switches of greenlets: what the machine gives to others meanwhile is no
stall of ours. The longest goes to the file that HARNESS_BENCH_STALLS names.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

import greenlet
import noop
from locust import events

from harness.load import Load


class Noop(Load):
    """Tasks that do nothing."""

    scenario = noop.scenario


class _Stalls:
    """A tracer of greenlets."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self.longest_in = "nothing"
        self._since_s: float | None = None

    def __call__(self, event: str, args: tuple[Any, Any]) -> None:
        now_s = time.thread_time()
        if event in {"switch", "throw"} and self._since_s is not None and now_s - self._since_s > self.longest_s:
            self.longest_s, self.longest_in = now_s - self._since_s, repr(args[0])
        self._since_s = time.thread_time()


_stalls = _Stalls()


@events.spawning_complete.add_listener
def _watch(**_: Any) -> None:
    # What comes before is Locust's own start.
    greenlet.settrace(_stalls)


@events.test_stopping.add_listener
def _report(**_: Any) -> None:
    greenlet.settrace(None)
    said = {"longest_ms": _stalls.longest_s * 1000, "longest_in": _stalls.longest_in}
    Path(os.environ["HARNESS_BENCH_STALLS"]).write_text(json.dumps(said))
