"""The legs of one run: their plans, their orders to the load processes, and their counts from all generators.

A leg is one plan of arrivals, from `go` until `freeze`. A normal run has one leg, a search has many.
"""

import argparse
import itertools
import math
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import gevent

from harness.errors import UsageError
from harness.loadtest.arrivals import Arrival, Plan, RateStage, parse_rate, parse_stages
from harness.loadtest.capacity_search import find_knee, find_workers
from harness.loadtest.load_processes import LoadProcesses
from harness.loadtest.messages import (
    Answer,
    Begin,
    Close,
    Done,
    EndLeg,
    Expect,
    LegCounts,
    Measured,
    Opened,
    SetWorkers,
    StackOrder,
    StepRange,
)
from harness.loadtest.options import probe_s
from harness.loadtest.worker_messages import Go, Offer
from harness.measure.durations import write_duration
from harness.measure.figures import Figures, Objective
from harness.measure.load_account import Counts, Search
from harness.measure.stages import Histogram
from harness.printable import printable
from harness.scenario import Scenario

WARM_UP_S = 1.0
"""The duration of the first part of a leg. Connections are made in it, and it is not measured."""
_LEAD_S = 0.3
"""The time between the order to go and the first arrival, in which the order reaches all generators."""
_FOR_EVER_S = 10 * 365 * 86_400.0
_LATEST_T = 4e9
"""A Unix time after the end of any run."""
_MOST_WORKERS = 8
A = TypeVar("A", bound=Answer)
_legs = itertools.count()
"""The numbers of the legs of all runs of this process."""


def say(line: str) -> None:
    """Show a line to the user at the terminal."""
    sys.stderr.write(f"{printable(line)}\n")
    sys.stderr.flush()


class Ask(Protocol):
    """A function that gives the stack process an order, and returns its answer; see `StackClient.ask`."""

    def __call__(self, order: StackOrder, answer: type[A]) -> A:
        """Give an order, and return its answer. Raises HarnessError if it could not be carried out."""
        ...


class Part(Protocol):
    """The part of a class of `harness.load.Load` that is used here."""

    scenario: Scenario
    options: Mapping[str, Any]
    weight: float


@dataclass(frozen=True, kw_only=True)
class _Leg:
    """The current leg."""

    plan: Plan
    begin_t: float
    is_open: bool


class Legs:
    """The driver of one run, leg by leg."""

    def __init__(
        self,
        parts: Mapping[str, Part],
        processes: LoadProcesses,
        ask: Ask,
        opened: Opened,
        options: argparse.Namespace,
        *,
        run_time_s: float | None,
    ) -> None:
        """Create the driver without sending anything.

        Args:
            parts: the classes that take part, by name.
            processes: the processes that send.
            ask: gives the stack process an order, and returns its answer.
            opened: the stack process's answer about its stack.
            options: Locust's parsed options.
            run_time_s: the duration of the load in seconds; None if its stages, or the user, end it.
        """
        self._parts = parts
        self._processes = processes
        self._ask = ask
        self._opened = opened
        self._options = options
        self._run_time_s = run_time_s
        self._leg: _Leg | None = None
        self._last: LegCounts | None = None
        self._offers: list[Offer] = []
        self._steps: defaultdict[str, list[StepRange]] = defaultdict(list)
        self._search: Search | None = None
        self.begin_t: float | None = None
        """The due time of the run's first arrival, Unix time; None before the first leg."""

    def drive(self) -> None:
        """Run the search or the load that the options describe; an endless load runs until it is stopped."""
        options = self._options
        objectives = [Objective.parse(text) for text in options.objective]
        rate, for_s = parse_rate(options.rate), probe_s(options)
        if options.find_knee:
            knee = find_knee(lambda at: self._probe(at, for_s), start=rate, objectives=objectives, say=say)
            self._search = Search(knee=knee, text=knee.text)
        elif options.find_workers:
            found = find_workers(
                lambda count: self._probe_with(count, rate, for_s),
                rate=rate,
                most=_MOST_WORKERS,
                objectives=objectives,
                say=say,
            )
            self._search = Search(workers=found, text=found.text)
        else:
            plan = self._plan()
            self._begin_leg(plan)
            is_endless = math.isinf(plan.duration_s)
            until = "until it is stopped" if is_endless else f"for {write_duration(plan.duration_s)}"
            say(f"{self._loop(plan)}, {until}")
            gevent.sleep(_FOR_EVER_S if is_endless else _LEAD_S + plan.duration_s)

    def _plan(self) -> Plan:
        options = self._options
        if options.stages:
            stages = tuple(parse_stages(options.stages))
        else:
            stages = (RateStage(rate=parse_rate(options.rate), duration_s=math.inf),)
        plan = Plan(stages=stages, arrival=Arrival(options.arrival), seed=options.seed)
        return plan if self._run_time_s is None else plan.until(self._run_time_s)

    def _loop(self, plan: Plan) -> str:
        if self._options.closed:
            return "closed loop: each sender sends when its last send is done"
        rates = ", ".join(f"{stage.rate:g}/s" for stage in plan.stages)
        return f"open loop: {rates}, {plan.arrival.value}"

    def _probe(self, rate: float, duration_s: float) -> Figures:
        """Run one leg at one rate, wait until all its tasks have ended, and return its figures."""
        options = self._options
        stage = RateStage(rate=rate, duration_s=WARM_UP_S + duration_s)
        self._begin_leg(Plan(stages=(stage,), arrival=Arrival(options.arrival), seed=options.seed))
        gevent.sleep(_LEAD_S + stage.duration_s)
        return self._ask(EndLeg(leg=self._end_leg()), Measured).figures

    def _probe_with(self, workers: int, rate: float, duration_s: float) -> Figures:
        self._ask(SetWorkers(count=workers), Done)
        return self._probe(rate, duration_s)

    def _begin_leg(self, plan: Plan) -> None:
        options = self._options
        begin_t = time.time() + _LEAD_S
        window = (begin_t + WARM_UP_S, min(begin_t + max(plan.duration_s, WARM_UP_S), _LATEST_T))
        bases = {name: max((stop for _, stop, _ in ranges), default=0) for name, ranges in self._steps.items()}
        # The window has to be known before the first of its tasks ends.
        self._ask(Expect(begin_t=window[0], end_t=window[1]), Done)
        self._processes.go(
            Go(
                run=self._opened.folder.name,
                leg=next(_legs),
                plan=plan,
                begin_t=begin_t,
                window=window,
                broker_url=self._opened.broker_url,
                web_url=self._opened.web_url,
                routes=self._opened.routes,
                scenarios=tuple((name, float(one.weight)) for name, one in self._parts.items()),
                bases=bases,
                seed=options.seed,
                is_open=not options.closed,
                journal=str(self._opened.folder / "journal"),
            )
        )
        self._leg = _Leg(plan=plan, begin_t=begin_t, is_open=not options.closed)
        if self.begin_t is None:
            self.begin_t = begin_t
            self._ask(Begin(t=begin_t), Done)

    def _end_leg(self) -> LegCounts:
        """Freeze all generators, and return their counts of the leg together."""
        leg, self._leg = self._leg, None
        if leg is None:
            raise UsageError("no leg has begun.")
        offers = self._offers = self._processes.freeze()
        lateness = Histogram()
        for offer in offers:
            if offer.lateness is not None:
                lateness.add(Histogram.decode(offer.lateness))
            for name, steps in offer.steps.items():
                self._steps[name].append(steps)
        until_t = max((offer.until_t for offer in offers if offer.until_t is not None), default=time.time())
        end_s = min(until_t - leg.begin_t, leg.plan.duration_s)
        return LegCounts(
            rate=leg.plan.rate_between(WARM_UP_S, end_s) if leg.is_open else 0.0,
            is_open=leg.is_open,
            offered=sum(offer.window.offered for offer in offers),
            dropped=sum(offer.window.dropped for offer in offers),
            lateness_p99_s=lateness.quantile_s(0.99),
            cpu=max((offer.cpu for offer in offers), default=0.0),
            stolen=max((offer.stolen for offer in offers), default=0.0),
            until_t=until_t,
        )

    def end(self) -> None:
        """End the current leg, if there is one."""
        if self._leg is not None:
            self._last = self._end_leg()

    def result(self) -> Close:
        """Return the order to close the run, with what the stack process needs to judge the load."""
        is_search = self._options.find_knee or self._options.find_workers
        return Close(
            counts=sum((offer.counts for offer in self._offers), Counts()),
            steps={name: tuple(ranges) for name, ranges in self._steps.items()},
            broken=tuple(text for offer in self._offers for text in offer.broken),
            leg=None if is_search else self._last,
            search=self._search,
            broken_off=_broken_off(is_search=is_search, search=self._search, leg=self._last),
        )


def _broken_off(*, is_search: bool, search: Search | None, leg: LegCounts | None) -> str | None:
    """Return why the run has no result, in one sentence; None if it has one."""
    if is_search:
        return "the search was ended before it had found anything." if search is None else None
    return "the run was ended before anything was to be sent." if leg is None else None
