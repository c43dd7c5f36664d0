"""A stack under load: it is brought up, measured, disturbed by faults, drained, audited and judged."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.audit.audit import Audit
from harness.audit.run_folder import RunFolder
from harness.errors import UsageError
from harness.faults.timetable import FaultTimetable, parse
from harness.loadtest.live_figures import Measure
from harness.loadtest.load_verdict import Judgement, differences, judge
from harness.loadtest.messages import Close, LegCounts, Live, Opened, Order, Say, StepRange
from harness.loadtest.scenarios_together import promise, scenarios_of, spec
from harness.measure.figures import Figures, Objective, bottleneck, not_sustained, overload
from harness.measure.load_account import FaultAccount, LoadAccount, Probe, Sample
from harness.measure.recovery import Signs
from harness.measure.stages import Stage
from harness.records.expectation import Effect
from harness.records.verdict import Finding
from harness.running.run import checked
from harness.scenario import Drive, Scenario, Steps
from harness.stack.accounted_system import System
from harness.stack.attached import Attached
from harness.stack.shared_parts import SharedParts
from harness.stack.stack import Stack
from harness.wait import REAL

_FOLLOW_S = 0.25
_LIVE_S = 1.0
_JOIN_S = 30.0
_DRAIN_PATIENCE_S = 60.0
"""The longest wait of a leg for the next of its tasks to end."""


@dataclass(frozen=True, kw_only=True)
class Account:
    """The account of a load test."""

    said: LoadAccount
    """The content of load.json."""
    audited: Audit
    folder: Path


class StackUnderLoad:
    """One stack or attached broker, its run folder, and its figures."""

    def __init__(self, order: Order, tell: Callable[[Say | Live], None]) -> None:
        """Create it without starting anything. Raises UsageError if the order cannot be carried out."""
        self._order = order
        self._tell = tell
        self._scenarios = scenarios_of(order)
        self._objectives = [Objective.parse(text) for text in order.objectives]
        self._faults = [parse(text) for text in order.faults]
        if order.broker_url is None:
            self._spec = spec(order, self._scenarios)
        elif self._faults:
            raise UsageError("faults are for a stack of one's own: whoever runs the other one has to break it.")
        self.measure = Measure()
        self._signs = Signs(self.measure.stages)
        self.samples: list[Sample] = []
        """The samples of the run, one per second."""
        self._system: System | None = None
        self._own: Stack | None = None
        """The same system if the harness started it: scenarios can access it, and it can take workers and faults."""
        self._timetable: FaultTimetable | None = None
        self._figures: list[Figures] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._follower: threading.Thread | None = None
        self._follower_error: str | None = None

    def up(self, session: SharedParts | None) -> Opened:
        """Bring up a stack on a session, or attach to one, and return what load processes have to know about it."""
        order, scenarios = self._order, self._scenarios
        folder = RunFolder.create(order.root, "load-" + "-".join(one.name for one in scenarios))
        about = {
            "scenarios": [one.name for one in scenarios],
            "seed": order.seed,
            **({} if order.command is None else {"command": order.command}),
            "load": {**order.about.to_json(), "faults": list(order.faults), "objectives": list(order.objectives)},
        }
        promised = promise(scenarios)
        if order.broker_url is not None:
            attached = Attached(order.broker_url, order.results_url or "", folder, promise=promised, about=about)
            attached.listen(self.measure.take)
            self._system = attached.__enter__()
            return self._opened(order.broker_url, None)
        if session is None:
            raise UsageError("there is no session to bring a stack up on.")
        stack = Stack(session, self._spec, folder, promise=promised, about=about)
        # Listen from the first event on: the workers report their number of processes when they start.
        stack.listen(self.measure.take)
        if self._faults:
            stack.listen(self._signs.take)
        self._system = self._own = stack.__enter__()
        routes = {one.routes for one in scenarios if one.routes}
        if order.via_http:
            stack.add_web(routes.pop() if routes else "")
        for scenario in scenarios:
            self._say(f"preparing {scenario.name}")
            scenario.prepare(stack, self._drive(scenario, {}))
        return self._opened(stack.broker_url, stack.web.url if order.via_http else None)

    def _opened(self, broker_url: str, web_url: str | None) -> Opened:
        system = self._up_system
        system.follow()
        if self._own is not None and self._faults:
            self._timetable = FaultTimetable(self._own, self._faults, signs=self._signs)
        self._follower = threading.Thread(target=self._follow, name="follower", daemon=True)
        self._follower.start()
        routes = system.producer.routes
        return Opened(folder=system.folder.path, broker_url=broker_url, web_url=web_url, routes=routes)

    def _say(self, line: str) -> None:
        self._tell(Say(line=line))

    @property
    def _up_system(self) -> System:
        if self._system is None:
            raise UsageError("the load test is not up.")
        return self._system

    @property
    def workers(self) -> int:
        """The number of workers; 0 if the harness did not start them."""
        return len(self._system.workers) if self._system is not None else 0

    @property
    def processes(self) -> int:
        """The number of tasks that all workers together run at once, as far as they have reported it."""
        return sum(self.measure.stages.processes.values())

    # During the load.

    def _follow(self) -> None:
        next_s = REAL.now() + _LIVE_S
        try:
            while not self._over.wait(_FOLLOW_S):
                with self._lock:
                    self._up_system.follow()
                if REAL.now() >= next_s:
                    next_s = max(next_s + _LIVE_S, REAL.now())
                    self._live()
        except Exception as error:  # noqa: BLE001 - the run goes on, and a finding reports the error.
            self._follower_error = f"the journal was not followed to the end: {type(error).__name__}: {error}"
            self._say(self._follower_error)

    def _live(self) -> None:
        up = self._up_system.workers_up
        with self._lock:
            live = self.measure.live(time.time(), up)
        self.samples.append(live.sample)
        self._tell(live)

    def begin(self, t: float) -> None:
        """Time the faults from `t`, at which the first arrival of the run is due."""
        if self._timetable is not None:
            self._timetable.start(t)

    def expect(self, begin_t: float, end_t: float) -> None:
        """Measure the leg that begins, from one Unix time until another."""
        with self._lock:
            self.measure.open_window(begin_t, end_t)

    def leg(self, leg: LegCounts) -> Figures:
        """Wait until the tasks of the leg have ended, and return its figures."""
        self._drain()
        with self._lock:
            figures = self._measured(leg)
        self._figures.append(figures)
        return figures

    def _measured(self, leg: LegCounts) -> Figures:
        return self.measure.figures(leg, workers=self.workers, processes=self.processes)

    def _drain(self) -> None:
        """Wait until the backlog is empty, or until no task has ended for a while."""
        ended, since_s = -1, REAL.now()
        while True:
            with self._lock:
                backlog, now = self.measure.stages.backlog, self.measure.stages.ended
            if now != ended:
                ended, since_s = now, REAL.now()
            if backlog <= 0 or REAL.now() - since_s > min(self._order.timeout_s, _DRAIN_PATIENCE_S):
                return
            self._over.wait(_FOLLOW_S)

    def set_workers(self, count: int) -> None:
        """Start workers until there are at least this many."""
        stack = self._own
        if stack is None:
            raise UsageError("workers can be added to a stack of one's own only.")
        while len(stack.workers) < count:
            stack.add_worker()
        with self._lock:
            self._up_system.follow()

    # The end.

    def account(self, close: Close) -> Account:
        """Settle, audit and judge the run, write load.json, and return the account; `close` has the final counts."""
        system = self._up_system
        if self._timetable is not None:
            # Heal the faults first: otherwise the tasks could not come to rest.
            self._timetable.stop()
        self._stop_following()
        drives = [(scenario, self._drive(scenario, close.steps)) for scenario in self._scenarios]
        if self._own is not None:
            for scenario, drive in drives:
                scenario.finish(self._own, drive)
        audited, drained_s = self._settle(system, drives, close)
        # Locust's tables have to be complete.
        self._live()
        figures = None
        if close.leg is not None:
            figures = self._measured(close.leg)
            self._figures.append(figures)
        judged = judge(audited, figures, self._objectives, broken_off=close.broken_off)
        said = self._said(judged, figures, close, drained_s)
        system.folder.write("load.json", said.to_json())
        return Account(said=said, audited=audited, folder=system.folder.path)

    def _drive(self, scenario: Scenario, steps: Mapping[str, Sequence[StepRange]]) -> Drive:
        ranges = [range(*one) for one in steps.get(scenario.name, ())]
        own = self._order.options.get(scenario.name, {})
        taken = Steps(ranges)
        return Drive(count=len(taken), steps=taken, seed=self._order.seed, options=own)

    def _stop_following(self) -> None:
        self._over.set()
        if self._follower is not None:
            self._follower.join(timeout=_JOIN_S)

    def _settle(self, system: System, drives: Sequence[tuple[Scenario, Drive]], close: Close) -> tuple[Audit, float]:
        """Return the audit, and the seconds until all tasks came to rest."""
        begin_s = last_s = rest_s = REAL.now()

        def watch(_: object) -> None:
            nonlocal last_s
            if REAL.now() - last_s >= _LIVE_S:
                last_s = REAL.now()
                self._live()

        def effects() -> Iterator[Effect]:
            nonlocal rest_s
            rest_s = REAL.now()
            if self._own is not None:
                for scenario, drive in drives:
                    yield from scenario.effects(self._own, drive)

        def checks() -> Iterator[Finding]:
            self._say("everything came to rest; checking and auditing")
            if self._own is not None:
                for scenario, drive in drives:
                    yield from checked(scenario, self._own, drive)
            yield from self._findings(close)

        self._say("draining")
        audited = system.settle(self._order.timeout_s, effects=effects, checks=checks, watch=watch)
        return audited, rest_s - begin_s

    def _findings(self, close: Close) -> Iterator[Finding]:
        """Yield the findings that only a load test has."""
        broken = [*close.broken, *([self._follower_error] if self._follower_error else [])]
        generated = self.measure.generated
        yield from differences(close.counts, generated, via_http=self._order.via_http, broken=broken)
        if self._timetable is not None:
            yield from self._timetable.findings(self._backlogs())

    def _said(self, judged: Judgement, figures: Figures | None, close: Close, drained_s: float) -> LoadAccount:
        histograms = self.measure.histograms
        return LoadAccount(
            is_open=self._order.is_open,
            about=self._order.about,
            exit_code=judged.exit_code,
            reason=judged.reason,
            invalid=judged.invalid,
            objectives=judged.objectives,
            bottleneck=self._bottleneck(figures),
            figures=figures,
            legs=tuple(self._figures),
            probes=tuple(self._probe(one) for one in self._figures) if figures is None else (),
            stages={stage: one.summary() for stage, one in histograms.items()},
            backlog_max=self._most_backlog(),
            workers=dict(sorted(self.measure.stages.begun_on.items())),
            faults=self._fault_accounts(),
            drained_s=round(drained_s, 3),
            counts=close.counts,
            search=close.search,
            hdr={stage: one.encode() for stage, one in histograms.items()},
            samples=tuple(self.samples),
        )

    def _bottleneck(self, figures: Figures | None) -> str | None:
        """Return the bottleneck of an overload as a sentence; None without an overload or without workers' journals."""
        if figures is None or not figures.processes or not overload(figures, self._objectives):
            return None
        return bottleneck(figures).sentence

    def _most_backlog(self) -> int:
        edges = (edge for figures in self._figures for edge in (figures.backlog_begin, figures.backlog_end))
        return max((*(sample.backlog for sample in self.samples), *edges), default=0)

    def _probe(self, figures: Figures) -> Probe:
        """Return a row of a search's table."""
        reasons, is_valid = not_sustained(figures, self._objectives)
        e2e = figures.of(Stage.E2E)
        return Probe(
            workers=figures.workers,
            rate=figures.rate,
            completed_per_s=round(figures.completed_per_s, 1),
            e2e_p50_s=e2e.p50_s,
            e2e_p99_s=e2e.p99_s,
            backlog_growth=figures.backlog_end - figures.backlog_begin,
            is_valid=is_valid,
            why_not=next(iter(reasons), None),
        )

    def _fault_accounts(self) -> tuple[FaultAccount, ...]:
        if self._timetable is None:
            return ()
        return tuple(self._timetable.accounts(self._backlogs()))

    def _backlogs(self) -> list[tuple[float, int]]:
        """Return the backlog, with the time of each sample."""
        return [(one.t, one.backlog) for one in self.samples]

    def down(self) -> None:
        """Take down everything that is up. A second call does nothing."""
        if self._timetable is not None:
            self._timetable.stop()
        self._stop_following()
        if self._system is not None:
            system, self._system, self._own = self._system, None, None
            system.close()
