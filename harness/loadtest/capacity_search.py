"""The searches of a load test: the highest rate that a stack sustains, and the fewest workers that sustain a rate.

Both use the stack through `probe` alone: a callback that puts a load on the stack for a while and returns the figures.

The method follows two other load generators. OpenMessaging Benchmark's RateController raises the rate until the backlog
grows or an objective on the 99th percentile is missed. It doubles the rate at first; its last steps are 5 %. RabbitMQ
PerfTest's RateVsLatencyScenario finds the highest rate, and then measures latencies at shares of it, up to 1.05. Both
follow one continuous run. Here, each probe is a leg of its own and begins with an empty backlog, so that a probe that
was too fast does not affect the next.

On a busy machine, probes disagree, and searches end at different rates. Two rules make them agree. First, the next two
probes after one that was too fast are placed on both sides of the rate that it completed, 5 % apart, regardless of the
first rate of the search. The reason: near the limit, the rate that a saturated stack completes varies less from run to
run than the result of a probe. Second, two probes, or two of three, have to agree at each end of the bracket. At the
upper end, a short disturbance looks like an overload, and would hide all rates above it. The lower end is the result.

The host of a virtual machine may take its processors away for minutes. A probe that fails during that time shows
nothing about the stack: it is void, and is repeated. The number of repetitions is limited: if the host never gives the
processors back, the stack has to be measured without them.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from harness.measure.durations import write_duration
from harness.measure.figures import Bottleneck, Figures, Objective, Part, bottleneck, not_sustained, taken_by_host
from harness.measure.load_account import KneeFound, WorkersFound
from harness.measure.stages import Stage

MOST_PROBES = 16
"""The most probes of one search for a knee. Its sweep takes at most one more for each of SHARES. At 10 s each, and a
second before that is not measured, they take about three minutes. Fewer would leave a wider gap if the search begins
far from the knee; more would keep a search going on a machine on which no two probes agree."""
MOST_VOID = 16
"""The most void probes of one search. A void probe failed while the host took processor time; it is repeated. With as
many as MOST_PROBES, the host can double the length of a search, and not more."""
SHARES = (0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.05)
"""The rates of the sweep, as shares of the knee. The last one is above the knee, as in RabbitMQ PerfTest, so that there
are latencies of an overload as well. Each share takes one probe."""
_ASCENT_RATIO = 2
"""The ratio of one rate to the next, until one is not sustained, as in OpenMessaging Benchmark. A larger one would
begin the bracket with a wider gap; a smaller one would need more probes to get there."""
_BRACKET_RATIO = 1.05
"""The ratio of the ends of the bracket at which the search is over, as in OpenMessaging Benchmark. A probe of ten
seconds at 500/s detects an excess of 2.5 % (see `overload`), so that a much smaller ratio would show chance alone."""
_WIDE_RATIO = 1.25
"""The ratio of the ends of the bracket above which a rate that failed once is tried again at once. A smaller one would
repeat more failures that are none by chance; a larger one would believe more short disturbances."""
_BESIDE_RATIOS = (0.99, 1.039)
"""The next rates, as ratios to the rate that was completed: one just below it, and one above it. They are a little less
apart than _BRACKET_RATIO, so that the search is over if one holds and the other fails. `overload` tolerates a load that
is a little too high, so that the upper one is farther from the completed rate."""
_NEAR_SHARE = 0.0125
"""The least distance of a next rate from both ends of the bracket, as a share of the rate. It is a quarter of what the
bracket leaves open in the end. A rate that is closer would give no new information."""
_SAME_SHARE = 0.025
"""The distance, as a share of the rate, within which a probe of the search stands for one of the sweep. It is half of
what the bracket leaves open. A larger one would put a probe beside its share; a smaller one would need more probes."""
_SETTLED_PROBES = 2
"""The probes at one rate that have to agree; with one more, the majority decides. One alone can fail by a short
disturbance, or hold by chance. More would take longer at each end of the bracket."""
_CLEAR_SHARE = 0.90
"""The share of the due tasks below which one valid probe is enough to call a rate too high. A probe of ten seconds
lacks more than a second's worth of tasks then. A higher share would let shorter disturbances decide alone; a lower one
would repeat more probes that are far too fast."""
_DESCENT_RATIO = 4.0
"""The ratio of a rate that failed to the next one, if no rate has held yet and the completed rate leads to none. A
larger one could pass the knee by far; a smaller one would need more probes until a rate holds."""
_LEAST_RATE_PER_S = 1.0
"""The least rate that is tried, in arrivals per second. At less, a probe of ten seconds has fewer than ten tasks, of
which `overload` lets five be absent."""
_GAIN_RATIO = 1.03
"""The ratio of completed tasks to the best before, below which one more worker is of no use. It is a little more than
the 2.5 % that a probe of ten seconds at 500/s detects (see `overload`). A smaller one would take chance for a gain; a
larger one would end the search while workers still help."""
_USELESS_WORKERS = 2
"""The number of such workers, one after another, that end the search. One alone may have met a short disturbance; more
would take two or three probes each."""

Say = Callable[[str], None]
"""Shows a line to the user."""


@dataclass(frozen=True, kw_only=True)
class _Trial:
    """One probe and its result."""

    at: float
    """The rate, or the number of workers, that was tried."""
    figures: Figures
    reasons: Sequence[str]
    """The reasons why the load was not sustained, or was not as intended; empty if it was sustained."""
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
        """True if it failed while the host took processor time."""
        return not self.is_sustained and bool(taken_by_host(self.figures))

    @property
    def done(self) -> float:
        """The share of the due tasks that was completed, from 0 to 1."""
        return min(self.figures.completed / self.figures.tasks, 1.0) if self.figures.tasks else 0.0

    @property
    def text(self) -> str:
        if self.reasons:
            return f"{'not sustained' if self.is_valid else 'invalid'}: {self.reasons[0]}"
        return f"sustained, e2e p99 {write_duration(self.figures.of(Stage.E2E).p99_s)}."


class _Trials:
    """All probes of a search. A rate holds if most of its probes were sustained, and fails if most were not."""

    def __init__(self) -> None:
        self.made: list[_Trial] = []
        """All probes, in order."""
        self.all: list[_Trial] = []
        """The probes that count, in order."""

    def add(self, trial: _Trial) -> None:
        """Add a probe. It counts unless it is void, and there are fewer than MOST_VOID void ones."""
        if not trial.is_void or self.void >= MOST_VOID:
            self.all.append(trial)
        self.made.append(trial)

    @property
    def void(self) -> int:
        """The number of probes that do not count."""
        return len(self.made) - len(self.all)

    @property
    def void_said(self) -> list[str]:
        """A sentence about the void probes; empty if there are none."""
        if not self.void:
            return []
        worst = max(trial.figures.stolen for trial in self.made)
        probes = "1 probe was" if self.void == 1 else f"{self.void} probes were"
        return [f"{probes} void and made again: the host took up to {worst:.0%} of the processor time (steal)."]

    def said(self, trial: _Trial) -> str:
        """Return the result of the last probe, as text for the user."""
        return trial.text if self.all and self.all[-1] is trial else f"void, once more: {trial.reasons[0]}"

    def at(self, rate: float) -> list[_Trial]:
        """Return the probes at a rate that count, in order."""
        return [trial for trial in self.all if trial.at == rate]

    def balance(self, rate: float) -> int:
        """Return the number of sustained probes at a rate minus the number of the others."""
        return sum(1 if trial.is_sustained else -1 for trial in self.at(rate))

    def is_settled(self, rate: float) -> bool:
        """Return whether a rate needs no further probe: two agree, one failed clearly, or there are three."""
        trials = self.at(rate)
        if any(trial.is_valid and not trial.is_sustained and trial.done < _CLEAR_SHARE for trial in trials):
            return self.balance(rate) < 0
        return abs(self.balance(rate)) >= _SETTLED_PROBES or len(trials) > _SETTLED_PROBES

    @property
    def tied(self) -> float | None:
        """The first rate with as many sustained probes as others; None if there is none."""
        return next((trial.at for trial in self.all if not self.balance(trial.at)), None)

    @property
    def low(self) -> float | None:
        """The highest rate that holds; None if there is none."""
        return max((trial.at for trial in self.all if self.balance(trial.at) > 0), default=None)

    @property
    def high(self) -> float | None:
        """The lowest rate that fails, above all that hold: a failure below these was a short disturbance."""
        return min((one.at for one in self.all if self.balance(one.at) < 0 and one.at > (self.low or 0)), default=None)

    def is_typical(self, trial: _Trial) -> bool:
        """Return whether a probe agrees with most probes at its rate."""
        return trial.is_sustained == (self.balance(trial.at) > 0)

    def failure(self, rate: float) -> _Trial:
        """Return the last probe at a rate that was not sustained, preferably one with a valid load."""
        failed = [trial for trial in self.at(rate) if not trial.is_sustained]
        return next((trial for trial in reversed(failed) if trial.is_valid), failed[-1])


def find_knee(
    probe: Callable[[float], Figures], *, start: float, objectives: Sequence[Objective], say: Say
) -> KneeFound:
    """Find the highest rate that is sustained, to within 5 %, and measure at shares of it.

    The search doubles the rate until it is not sustained, and then narrows the bracket, as this module describes. It
    makes 16 probes at most, and 7 for the sweep; void ones do not count. If only the generator reaches its limit, the
    knee is at least the rate that the generator could make. No rate is tried below 1 arrival per second, or below
    `start` if that is less.

    Args:
        probe: puts this rate of arrivals on the stack, and blocks until the figures are measured. Poisson arrivals
            should have the same seed each time, so that probes differ by the stack alone.
        start: the first rate.
        objectives: the objectives that have to hold, in addition to completing the tasks.
        say: receives the result of each probe.
    """
    trials = _Trials()
    least = min(start, _LEAST_RATE_PER_S)
    while len(trials.all) < MOST_PROBES and (rate := _next_rate(trials, start, least)) is not None:
        number = len(trials.all) + 1
        trials.add(trial := _Trial.of(rate, probe(rate), objectives))
        say(f"probe {number} of at most {MOST_PROBES}: {rate:g}/s {trials.said(trial)}")
    if trials.low is None:
        return _no_knee(trials)
    return _knee(trials, trials.low, _sweep(probe, trials, trials.low, objectives, say))


def _next_rate(trials: _Trials, start: float, least: float) -> float | None:
    """Return the rate of the next probe; None if the search is over."""
    if not trials.all:
        return start
    if trials.tied is not None:
        return trials.tied
    low, high = trials.low, trials.high
    if high is None:
        # Without a tie and without a rate that fails, there is a rate that holds.
        return _round((low or start) * _ASCENT_RATIO)
    gap = high / low if low is not None else math.inf
    if gap > _BRACKET_RATIO and high > least:
        # A short disturbance far above the rates that hold would mislead the search for many probes.
        is_doubtful = gap > _WIDE_RATIO and not trials.is_settled(high)
        return high if is_doubtful else max(_within(trials.failure(high), low), least)
    return next((rate for rate in (high, low) if rate is not None and not trials.is_settled(rate)), None)


def _within(failure: _Trial, low: float | None) -> float:
    """Return a rate within the bracket: close to the rate that was completed at its upper end, or in the middle."""
    high, floor = failure.at, low or 0.0
    if failure.is_valid and failure.done < 1 / _BRACKET_RATIO:
        for factor in _BESIDE_RATIOS:
            rate = _round(high * failure.done * factor)
            # A candidate very close to an end would give no new information.
            if floor * (1 + _NEAR_SHARE) < rate < high / (1 + _NEAR_SHARE):
                return rate
    if low is not None:
        return _round(math.sqrt(low * high))
    return _round(high / _DESCENT_RATIO) if failure.done else 0.0


def _sweep(
    probe: Callable[[float], Figures], trials: _Trials, knee: float, objectives: Sequence[Objective], say: Say
) -> list[_Trial]:
    """Return a probe for each share of the knee; take it from the search if the search has one near that rate."""
    sweep = []
    for share in SHARES:
        rate = _round(knee * share)
        near = [one for one in trials.all if abs(one.at / rate - 1) <= _SAME_SHARE and trials.is_typical(one)]
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
    if failure is not None and failure.at / rate > _BRACKET_RATIO:
        yield f"The {MOST_PROBES} probes left a gap up to {failure.at:g}/s."
    elif not trials.is_settled(rate):
        yield f"It was not confirmed within {MOST_PROBES} probes."
    yield from trials.void_said
    contrary = sorted({one.at for one in sweep if not one.is_sustained and one.at < rate})
    if contrary:
        below = ", ".join(f"{at:g}/s" for at in contrary)
        yield f"But {below} below it was not sustained: the machine was not quiet."


def _limit(found: Bottleneck | None) -> list[str]:
    """Return a sentence about the limit; none if it was the generator, which the reason already names."""
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

    Two of three probes decide whether a number of workers sustains the rate; one probe that completes less than 90 % of
    its tasks can decide alone. The search ends early in two cases in which more workers do not help: two additional
    workers in succession each complete less than 3 % more than the best before, or the generator cannot make the rate.

    Args:
        probe: puts the rate on this number of workers, and blocks until the figures are measured.
        rate: arrivals per second.
        most: the most workers to try.
        objectives: the objectives that have to hold, in addition to completing the tasks.
        say: receives the result of each probe.
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
        useless = useless + 1 if done_per_s < best_per_s * _GAIN_RATIO else 0
        best_per_s = max(best_per_s, done_per_s)
        if useless >= _USELESS_WORKERS or not trials.failure(count).is_valid:
            break
    last = trials.failure(trials.all[-1].at)
    found = bottleneck(last.figures)
    why = f"{_workers(int(last.at))} did not sustain {rate:g}/s: {last.reasons[0]}"
    if useless >= _USELESS_WORKERS:
        why += f" The last {_USELESS_WORKERS} of them added less than {_GAIN_RATIO - 1:.0%} each."
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
    """Round a rate to three digits; the error is at most half a percent, less than any probe can measure."""
    return float(f"{rate:.3g}")
