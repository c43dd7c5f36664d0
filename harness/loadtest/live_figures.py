"""The live figures of a load test, measured from the journal: per leg, in total, and of the last second."""

import time
from collections import Counter, defaultdict
from collections.abc import Mapping

from harness.loadtest.messages import EndedBadly, LegCounts, Live, PassedStage
from harness.measure.figures import Figures
from harness.measure.load_account import Quantiles, Sample
from harness.measure.quantiles import quantiles
from harness.measure.stages import Histogram, Passed, Stage, Stages
from harness.records.event import Event, Intended, Kind

_GENERATORS = frozenset({"load", "web"})
"""The nodes that send the tasks of a load test: the load processes, or the web producer for them."""
_PERCENTS = (50, 95, 99)
_EARLY_S = 30.0
"""The longest wait of an event for the intent of its task. After that it is dropped."""


class Measure:
    """The figures of a load while it runs, from the journal: per leg, in total, and since the last call of `live`."""

    def __init__(self) -> None:
        """Create it without events."""
        self.stages = Stages(self._pass)
        self.histograms = {stage: Histogram() for stage in Stage}
        """The durations per stage of all tasks, also of those before and after the windows."""
        self.generated = 0
        """Number of tasks that the load processes, or the web producer for them, intended to send."""
        self._window = (0.0, 0.0)
        """The begin and the end of the due times of measured tasks; empty before `open_window`."""
        self._in_window: dict[Stage, Histogram] = {}
        self._fresh: defaultdict[tuple[str, Stage], list[float]] = defaultdict(list)
        self._errors: Counter[tuple[str, str]] = Counter()
        self._before: Counter[str] = Counter()
        self._before_t = time.time()
        self._tasks_in_window = 0

    def take(self, event: Event) -> None:
        """Process one event of the journal."""
        if event.kind is Kind.INTENDED:
            if event.node in _GENERATORS:
                self.generated += 1
            data = event.of(Intended)
            if self._is_in_window(float(data.get("due", event.t))) and not data.get("retries"):
                self._tasks_in_window += 1
        self.stages.take(event)

    def _pass(self, passed: Passed) -> None:
        self.histograms[passed.stage].record(passed.duration_s)
        self._fresh[passed.name, passed.stage].append(passed.duration_s)
        if passed.error is not None:
            self._errors[passed.name, passed.error] += 1
        if self._is_in_window(passed.due_t):
            self._in_window[passed.stage].record(passed.duration_s)

    def _is_in_window(self, due_t: float) -> bool:
        return self._window[0] <= due_t < self._window[1]

    def open_window(self, begin_t: float, end_t: float) -> None:
        """Measure the tasks that are due from one time until another. Call this before the first of them ends."""
        self._window = (begin_t, end_t)
        self._in_window = {stage: Histogram() for stage in Stage}
        self._tasks_in_window = 0

    def figures(self, leg: LegCounts, *, workers: int, processes: int) -> Figures:
        """Return the figures of the leg whose window is open; `leg` has the generators' counts."""
        begin_t, end_t = self._window
        # A leg can end during its warm-up.
        end_t = max(min(end_t, leg.until_t), begin_t)
        return Figures(
            rate=leg.rate,
            duration_s=round(end_t - begin_t, 3),
            workers=workers,
            processes=processes,
            offered=leg.offered,
            dropped=leg.dropped,
            tasks=self._tasks_in_window,
            completed=self.stages.ended_between(begin_t, end_t),
            backlog_begin=self.stages.in_flight_at(begin_t),
            backlog_end=self.stages.in_flight_at(end_t),
            stages={stage: histogram.summary() for stage, histogram in self._in_window.items()},
            lateness_p99_s=leg.lateness_p99_s,
            generator_cpu=leg.cpu,
            stolen=leg.stolen,
            is_open=leg.is_open,
        )

    def live(self, now_t: float, up: Mapping[str, bool] | None = None) -> Live:
        """Return what happened since the last call, a second ago.

        Args:
            now_t: Unix time.
            up: True for each worker that is up, False for each other one; None if that is not known.
        """
        stages = self.stages
        self.stages.forget_early(now_t - _EARLY_S)
        took_s = max(now_t - self._before_t, 0.001)
        counts = Counter(intended=stages.intended, accepted=stages.accepted, ended=stages.ended)
        fresh, self._fresh = self._fresh, defaultdict(list)
        errors, self._errors = self._errors, Counter()
        live = Live(
            sample=Sample(
                t=now_t,
                sent=stages.intended,
                accepted=stages.accepted,
                refused=stages.refused,
                unknown=stages.unknown,
                ended=stages.ended,
                failed=stages.failed,
                backlog=stages.backlog,
                in_per_s=round((counts["accepted"] - self._before["accepted"]) / took_s, 1),
                out_per_s=round((counts["ended"] - self._before["ended"]) / took_s, 1),
                begun_on=dict(sorted(stages.begun_on.items())),
                stages=_quantiles(fresh),
                up=up,
            ),
            # The load processes measure publishing themselves.
            passed=tuple(
                PassedStage(name=name, stage=stage, durations_ms=tuple(round(one * 1000, 3) for one in durations))
                for (name, stage), durations in fresh.items()
                if stage is not Stage.PUBLISH
            ),
            errors=tuple(EndedBadly(name=name, error=error, count=count) for (name, error), count in errors.items()),
        )
        self._before, self._before_t = counts, now_t
        return live


def _quantiles(fresh: Mapping[tuple[str, Stage], list[float]]) -> dict[Stage, Quantiles]:
    """Return the median, the 95th and 99th percentile, and the maximum per stage since the last call of `live`."""
    found: dict[Stage, Quantiles] = {}
    for stage in Stage:
        passed = [one for (_, of), durations in fresh.items() if of is stage for one in durations]
        if passed:
            in_ms = {name: round(value_s * 1000, 3) for name, value_s in quantiles(passed, _PERCENTS).items()}
            found[stage] = Quantiles(count=len(passed), **in_ms)
    return found
