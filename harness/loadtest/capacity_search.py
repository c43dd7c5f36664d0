"""The searches of a load test: the highest rate that a stack sustains, and the fewest workers that sustain a rate.

Both see the stack through `probe` alone, a callback that puts a load on it for a while and returns the figures.

The method is that of two load generators of others. OpenMessaging Benchmark's RateController raises the rate until the
backlog grows or an objective on the 99th percentile is missed, by doubling at first and by 5 % in the end. RabbitMQ
PerfTest's RateVsLatencyScenario finds the highest rate, then measures latencies at shares of it, up to 1.05. Theirs
follow one run while it goes on; here each probe is a leg of its own, with a backlog that begins empty, so that one
that was too fast does not spoil the next.

Probes on a busy machine disagree, and searches that go different ways end at different rates. Two things make them
agree. What a saturated stack completes per second varies less from run to run than whether a rate near its limit is
sustained, so once a probe was too fast, the next two are laid to either side of what it completed, 5 % apart, wherever
the search began. And both ends of the bracket have to be seen twice, if need be the best of three: the upper one, since
a moment's hiccup looks like an overload and would hide all that is above it; the lower one, since it is the result.

The host of a virtual machine may take its processors away, for minutes. What fails meanwhile says nothing of the stack:
such a probe is void, and made again. That has an end as well: a host that never leaves off is what the stack has.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from harness.measure.durations import write_duration
from harness.measure.figures import Bottleneck, Figures, Objective, Part, bottleneck, not_sustained, taken_by_host
from harness.measure.load_account import KneeFound, WorkersFound
from harness.measure.stages import Stage

MOST_PROBES = 16
"""Of one search for a knee; its sweep takes as many as SHARES at most."""
MOST_VOID = 16
"""Of one search: so many probes that failed while the host took the machine away do not count, and are made again."""
SHARES = (0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.05)
"""Of the knee: at which rates the sweep measures."""
_BRACKET = 1.05
_WIDE = 1.25
_BESIDE = (0.99, 1.039)
"""What is completed of a load that is a little too high is within the room that `overload` leaves to chance."""
_NEAR = 0.0125
_SAME = 0.025
_SETTLED = 2
_CLEAR = 0.90
_DESCENT = 4.0
_LEAST_RATE = 1.0
_GAIN = 1.03
_USELESS = 2

Say = Callable[[str], None]
"""Takes a line for whoever waits."""


@dataclass(frozen=True, kw_only=True)
class _Trial:
    """One probe, and what it says."""

    at: float
    """The rate or the number of workers that was asked for."""
    figures: Figures
    reasons: Sequence[str]
    """Why the load was not sustained, or not what it should have been; none if it was sustained."""
    is_valid: bool

    @classmethod
    def of(cls, at: float, figures: Figures, objectives: Sequence[Objective]) -> "_Trial":
        reasons, is_valid = not_sustained(figures, objectives)
        return cls(at=at, figures=figures, reasons=reasons, is_valid=is_valid)

    @property
    def is_sustained(self) -> bool:
        return not self.reasons

    @property
    def is_void(self) -> bool:
        """Whether it failed while the host took the machine away."""
        return not self.is_sustained and bool(taken_by_host(self.figures))

    @property
    def done(self) -> float:
        """How much of what was due was completed, from 0 to 1."""
        return min(self.figures.completed / self.figures.tasks, 1.0) if self.figures.tasks else 0.0

    @property
    def text(self) -> str:
        if self.reasons:
            return f"{'not sustained' if self.is_valid else 'invalid'}: {self.reasons[0]}"
        return f"sustained, e2e p99 {write_duration(self.figures.of(Stage.E2E).p99_s)}."


class _Trials:
    """All probes of a search. A rate holds, or fails, if more of its probes say so than the contrary."""

    def __init__(self) -> None:
        self.made: list[_Trial] = []
        """In order."""
        self.all: list[_Trial] = []
        """Those that count."""

    def add(self, trial: _Trial) -> None:
        """Count it, unless the host took the machine away and may leave off."""
        if not trial.is_void or self.void >= MOST_VOID:
            self.all.append(trial)
        self.made.append(trial)

    @property
    def void(self) -> int:
        """How many of them do not count."""
        return len(self.made) - len(self.all)

    @property
    def void_said(self) -> list[str]:
        """That there are some, in a sentence; none if there are none."""
        if not self.void:
            return []
        worst = max(trial.figures.stolen for trial in self.made)
        probes = "1 probe was" if self.void == 1 else f"{self.void} probes were"
        return [f"{probes} void and made again: the host took up to {worst:.0%} of the processor time (steal)."]

    def said(self, trial: _Trial) -> str:
        """What a probe was, for whoever waits."""
        return trial.text if self.all and self.all[-1] is trial else f"void, once more: {trial.reasons[0]}"

    def at(self, rate: float) -> list[_Trial]:
        """The probes at a rate, in order."""
        return [trial for trial in self.all if trial.at == rate]

    def balance(self, rate: float) -> int:
        """How many more of the probes at a rate were sustained than were not."""
        return sum(1 if trial.is_sustained else -1 for trial in self.at(rate))

    def is_settled(self, rate: float) -> bool:
        """Whether nothing more needs to be asked at a rate: two agree, or one failed by far."""
        trials = self.at(rate)
        if any(trial.is_valid and not trial.is_sustained and trial.done < _CLEAR for trial in trials):
            return self.balance(rate) < 0
        return abs(self.balance(rate)) >= _SETTLED or len(trials) > _SETTLED

    @property
    def tied(self) -> float | None:
        """A rate whose probes contradict one another."""
        return next((trial.at for trial in self.all if not self.balance(trial.at)), None)

    @property
    def low(self) -> float | None:
        """The highest rate that holds."""
        return max((trial.at for trial in self.all if self.balance(trial.at) > 0), default=None)

    @property
    def high(self) -> float | None:
        """The lowest rate that fails, above all that hold: a failure below a rate that holds was a hiccup."""
        return min((one.at for one in self.all if self.balance(one.at) < 0 and one.at > (self.low or 0)), default=None)

    def is_typical(self, trial: _Trial) -> bool:
        """Whether a probe says what most of those at its rate say."""
        return trial.is_sustained == (self.balance(trial.at) > 0)

    def failure(self, rate: float) -> _Trial:
        """The last probe at a rate that was not sustained, one of the system under test's own doing if there is one."""
        failed = [trial for trial in self.at(rate) if not trial.is_sustained]
        return next((trial for trial in reversed(failed) if trial.is_valid), failed[-1])


def find_knee(
    probe: Callable[[float], Figures], *, start: float, objectives: Sequence[Objective], say: Say
) -> KneeFound:
    """Find the highest rate that is sustained, to within 5 %, and measure at shares of it.

    The rate is doubled until it is not sustained, and the bracket then narrowed; see this module for how. There are
    16 probes at most, and 7 for the sweep. Where none but the generator reaches its limit, the knee is at least the
    rate that it could make. Below 1 arrival per second, or `start` if that is less, nothing is tried.

    Args:
        probe: puts so many arrivals per second on the stack, and blocks until they are measured. Poisson arrivals
            should be of the same seed each time: what differs from probe to probe is then the stack alone.
        start: the first rate.
        objectives: what has to hold beside completing what is sent.
        say: is told what each probe found.
    """
    trials = _Trials()
    least = min(start, _LEAST_RATE)
    while len(trials.all) < MOST_PROBES and (rate := _next_rate(trials, start, least)) is not None:
        number = len(trials.all) + 1
        trials.add(trial := _Trial.of(rate, probe(rate), objectives))
        say(f"probe {number} of at most {MOST_PROBES}: {rate:g}/s {trials.said(trial)}")
    if trials.low is None:
        return _no_knee(trials)
    return _knee(trials, trials.low, _sweep(probe, trials, trials.low, objectives, say))


def _next_rate(trials: _Trials, start: float, least: float) -> float | None:
    """Where to probe next; None if nothing is left to be known."""
    if not trials.all:
        return start
    if trials.tied is not None:
        return trials.tied
    low, high = trials.low, trials.high
    if high is None:
        # Without a tie and without a rate that fails there is one that holds.
        return _round((low or start) * 2)
    gap = high / low if low is not None else math.inf
    if gap > _BRACKET and high > least:
        # A hiccup far above what holds would send the search the wrong way for many probes.
        return high if gap > _WIDE and not trials.is_settled(high) else max(_within(trials.failure(high), low), least)
    return next((rate for rate in (high, low) if rate is not None and not trials.is_settled(rate)), None)


def _within(failure: _Trial, low: float | None) -> float:
    """A rate between the ends of the bracket: beside what the stack completed at the upper one, or in the middle."""
    high, floor = failure.at, low or 0.0
    if failure.is_valid and failure.done < 1 / _BRACKET:
        for factor in _BESIDE:
            rate = _round(high * failure.done * factor)
            # A candidate right beside an end would tell nothing new.
            if floor * (1 + _NEAR) < rate < high / (1 + _NEAR):
                return rate
    if low is not None:
        return _round(math.sqrt(low * high))
    return _round(high / _DESCENT) if failure.done else 0.0


def _sweep(
    probe: Callable[[float], Figures], trials: _Trials, knee: float, objectives: Sequence[Objective], say: Say
) -> list[_Trial]:
    """A probe at each share of the knee, of the search if one was near."""
    sweep = []
    for share in SHARES:
        rate = _round(knee * share)
        near = [one for one in trials.all if abs(one.at / rate - 1) <= _SAME and trials.is_typical(one)]
        if near:
            sweep.append(min(reversed(near), key=lambda one: abs(one.at - rate)))
            continue
        sweep.append(_Trial.of(rate, probe(rate), objectives))
        say(f"{share:g} of the knee: {rate:g}/s {sweep[-1].text}")
    return sweep


def _knee(trials: _Trials, rate: float, sweep: Sequence[_Trial]) -> KneeFound:
    high = trials.high
    failure = None if high is None else trials.failure(high)
    found = None if failure is None else bottleneck(failure.figures)
    is_at_least = failure is None or not failure.is_valid
    return KneeFound(
        rate=rate,
        above=high,
        is_at_least=is_at_least,
        probes=tuple(trial.figures for trial in trials.made),
        sweep=tuple(trial.figures for trial in sweep),
        bottleneck=found,
        text=" ".join(_sentences(trials, rate, sweep, failure, found)),
    )


def _sentences(
    trials: _Trials, rate: float, sweep: Sequence[_Trial], failure: _Trial | None, found: Bottleneck | None
) -> Iterator[str]:
    if failure is None:
        yield f"The knee is at least {rate:g}/s: nothing faster was tried in {MOST_PROBES} probes."
    else:
        where = "at" if failure.is_valid else "at least"
        yield f"The knee is {where} {rate:g}/s: at {failure.at:g}/s {failure.reasons[0]}"
    yield from _limit(found)
    if failure is not None and failure.at / rate > _BRACKET:
        yield f"The {MOST_PROBES} probes left a gap up to {failure.at:g}/s."
    elif not trials.is_settled(rate):
        yield f"It was not confirmed within {MOST_PROBES} probes."
    yield from trials.void_said
    contrary = sorted({one.at for one in sweep if not one.is_sustained and one.at < rate})
    if contrary:
        below = ", ".join(f"{at:g}/s" for at in contrary)
        yield f"But {below} below it was not sustained: the machine was not quiet."


def _limit(found: Bottleneck | None) -> list[str]:
    """What the limit was, in a sentence; none where it was the generator, of which the reason said it already."""
    return [] if found is None or found.what is Part.GENERATOR else [found.sentence]


def _no_knee(trials: _Trials) -> KneeFound:
    lowest = trials.failure(min(trial.at for trial in trials.all))
    found = bottleneck(lowest.figures)
    said = [f"There is no knee: not even {lowest.at:g}/s was sustained: {lowest.reasons[0]}", *_limit(found)]
    return KneeFound(
        rate=None,
        above=lowest.at,
        is_at_least=False,
        probes=tuple(trial.figures for trial in trials.made),
        sweep=(),
        bottleneck=found,
        text=" ".join([*said, *trials.void_said]),
    )


def find_workers(
    probe: Callable[[int], Figures], *, rate: float, most: int, objectives: Sequence[Objective], say: Say
) -> WorkersFound:
    """Find the fewest workers that sustain a rate, from one upwards.

    A number of workers is settled by the best of three probes, or by one that left a tenth undone. The search ends
    early where two more workers in turn completed less than 3 % more than the best before them, and where the generator
    cannot make the rate: workers help neither.

    Args:
        probe: puts the rate on so many workers, and blocks until it is measured.
        rate: arrivals per second.
        most: the most workers to try.
        objectives: what has to hold beside completing what is sent.
        say: is told what each probe found.
    """
    trials = _Trials()
    best_per_s, useless = 0.0, 0
    for count in range(1, most + 1):
        while not trials.at(count) or not trials.is_settled(count):
            trials.add(trial := _Trial.of(count, probe(count), objectives))
            say(f"{_workers(count)} at {rate:g}/s: {trials.said(trial)}")
        done_per_s = max(trial.figures.completed_per_s for trial in trials.at(count))
        if trials.balance(count) > 0:
            text = f"{_workers(count)} sustain{'s' if count == 1 else ''} {rate:g}/s, and no fewer."
            return _workers_found(trials, rate, count, None, text)
        useless = useless + 1 if done_per_s < best_per_s * _GAIN else 0
        best_per_s = max(best_per_s, done_per_s)
        if useless >= _USELESS or not trials.failure(count).is_valid:
            break
    last = trials.failure(trials.all[-1].at)
    found = bottleneck(last.figures)
    why = f"{_workers(int(last.at))} did not sustain {rate:g}/s: {last.reasons[0]}"
    if useless >= _USELESS:
        why += f" The last {_USELESS} of them added less than {_GAIN - 1:.0%} each."
    return _workers_found(trials, rate, None, found, " ".join([why, *_limit(found)]))


def _workers_found(
    trials: _Trials, rate: float, count: int | None, found: Bottleneck | None, text: str
) -> WorkersFound:
    return WorkersFound(
        count=count,
        rate=rate,
        best_per_s=max((trial.figures.completed_per_s for trial in trials.made), default=0.0),
        probes=tuple(trial.figures for trial in trials.made),
        bottleneck=found,
        text=" ".join([text, *trials.void_said]),
    )


def _workers(count: int) -> str:
    return f"{count} worker" if count == 1 else f"{count} workers"


def _round(rate: float) -> float:
    """To three digits, as people write rates; half a percent is less than any probe can tell."""
    return float(f"{rate:.3g}")
