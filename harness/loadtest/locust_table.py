"""A run in Locust's own table and list of errors, and as one line per second for the user at the terminal."""

import gevent
from locust.env import Environment

from harness.loadtest.messages import Live
from harness.measure.durations import write_duration
from harness.measure.load_account import NOTHING_YET, Sample
from harness.measure.stages import Stage

_BURST = 200
"""The number of durations that Locust gets before other greenlets run."""


class TaskFailed(Exception):  # noqa: N818 - it names what happened.
    """A task that ended otherwise than expected."""


class LocustTable:
    """Locust's own statistics, and the sample of the last second."""

    def __init__(self, environment: Environment) -> None:
        """Create it without samples."""
        self._environment = environment
        self.live = NOTHING_YET
        """The sample of the last second, of the current or the last run."""

    def begin(self) -> None:
        """Begin a run: forget the sample of the run before."""
        self.live = NOTHING_YET

    def fire(self, kind: str, name: str, duration_ms: float, error: Exception | None) -> None:
        """Add one duration to the row of a type and a name, with the error if there was one."""
        self._environment.events.request.fire(
            request_type=kind, name=name, response_time=duration_ms, response_length=0, exception=error, context={}
        )

    def take(self, live: Live) -> None:
        """Add the events of one second to Locust's statistics."""
        self.live = live.sample
        count = 0
        for passed in live.passed:
            for duration_ms in passed.durations_ms:
                self.fire(passed.stage.value.upper(), passed.name, duration_ms, None)
                count += 1
                if count % _BURST == 0:
                    gevent.sleep(0)
        for one in live.errors:
            for _ in range(one.count):
                self._environment.stats.log_error("E2E", one.name, TaskFailed(one.error))


def line(live: Sample, begin_t: float | None) -> str:
    """Return one second as a line for a terminal; `begin_t` is the begin of the load, Unix time, None before it."""
    e2e = live.stages.get(Stage.E2E)
    took = f"e2e p50 {write_duration(e2e.p50 / 1000)}, p99 {write_duration(e2e.p99 / 1000)}" if e2e else "e2e -"
    bad = {"failed": live.failed, "refused": live.refused, "unknown": live.unknown}
    lost = [f"{count} {name}" for name, count in bad.items() if count]
    down = [f"{name} is down" for name, is_up in (live.up or {}).items() if not is_up]
    parts = [
        f"{max(live.t - begin_t, 0) if begin_t is not None else 0:5.0f} s",
        f"in {live.in_per_s:.0f}/s, out {live.out_per_s:.0f}/s",
        f"backlog {live.backlog}",
        took,
        f"{live.ended} ended",
        *lost,
        *down,
    ]
    return " | ".join(parts)
