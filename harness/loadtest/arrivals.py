"""The pace of a load test: when each arrival is due, whoever generates it and whether or not it can keep up."""

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from harness.errors import UsageError
from harness.measure.durations import parse_duration_s
from harness.records.values import Json

MOST_PER_S = 100_000.0
"""More arrivals a second than any Python process can make."""


class Arrival(StrEnum):
    """How arrivals follow one another."""

    CONSTANT = "constant"
    """At even distances."""
    POISSON = "poisson"
    """Independently of one another, as those of many users who know nothing of each other."""


@dataclass(frozen=True, kw_only=True)
class RateStage:
    """So many arrivals a second, for so long."""

    rate: float
    """Arrivals per second; 0 for a pause."""
    duration_s: float
    """Seconds; infinite for a stage that somebody ends."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All arrivals of one leg of a load test, or one generator's share of them."""

    stages: tuple[RateStage, ...]
    arrival: Arrival = Arrival.CONSTANT
    seed: int = 1
    """Of the distances between Poisson arrivals."""
    share: int = 0
    """Which of the generators this plan is for, from 0."""
    shares: int = 1
    """How many generators share the arrivals."""

    def __post_init__(self) -> None:
        """Refuse what has no arrivals to deal out."""
        if not self.stages or any(math.isinf(stage.duration_s) for stage in self.stages[:-1]):
            raise ValueError("a plan has at least one stage, and none but its last may be endless.")
        if not 0 <= self.share < self.shares:
            raise ValueError(f"there is no share {self.share} of {self.shares}; shares are counted from 0.")

    @classmethod
    def steady(cls, rate: float, duration_s: float = math.inf) -> "Plan":
        """One rate all the time."""
        return cls(stages=(RateStage(rate=rate, duration_s=duration_s),))

    @property
    def duration_s(self) -> float:
        """Seconds from the first stage's begin to the last one's end; infinite if the last has none."""
        return math.fsum(stage.duration_s for stage in self.stages)

    @property
    def rate(self) -> float:
        """Arrivals per second over all stages, weighted by their durations; that of an endless stage alone."""
        if math.isinf(self.duration_s):
            return self.stages[-1].rate
        return self.rate_between(0.0, self.duration_s)

    def rate_between(self, begin_s: float, end_s: float) -> float:
        """Arrivals per second that are planned from one time until another, in seconds from the begin."""
        if end_s <= begin_s:
            return 0.0
        planned, stage_begin_s = 0.0, 0.0
        for stage in self.stages:
            stage_end_s = stage_begin_s + stage.duration_s
            planned += stage.rate * max(min(stage_end_s, end_s) - max(stage_begin_s, begin_s), 0.0)
            stage_begin_s = stage_end_s
        return planned / (end_s - begin_s)

    def until(self, duration_s: float) -> "Plan":
        """The same plan, ended after so many seconds if it has not ended before."""
        stages, left_s = [], duration_s
        for stage in self.stages:
            if left_s > 0:
                stages.append(replace(stage, duration_s=min(stage.duration_s, left_s)))
            left_s -= stage.duration_s
        return replace(self, stages=tuple(stages))

    def arrivals(self) -> Iterator[float]:
        """When this share's arrivals are due, in seconds from the begin, in order.

        The first of a stage's constant arrivals is due when it begins, so that 100 a second for half a second are 50,
        and a part of an arrival is one: 1 a second for half a second is one.

        Constant arrivals are dealt out in turns, so that several generators are as even together as one. The sum of
        independent Poisson processes is one with the sum of their rates.
        """
        begin_s = 0.0
        for number, stage in enumerate(self.stages):
            offsets = self._poisson(stage, number) if self.arrival is Arrival.POISSON else self._constant(stage)
            yield from (begin_s + offset_s for offset_s in offsets)
            begin_s += stage.duration_s

    def _constant(self, stage: RateStage) -> Iterator[float]:
        if not stage.rate:
            return
        # A rounding error must not make one arrival more.
        count = math.inf if math.isinf(stage.duration_s) else round(stage.rate * stage.duration_s, 6)
        for number in itertools.count(self.share, self.shares):
            if number >= count:
                return
            yield number / stage.rate

    def _poisson(self, stage: RateStage, number: int) -> Iterator[float]:
        if not stage.rate:
            return
        chance = random.Random(f"{self.seed}:{number}:{self.share}/{self.shares}")  # noqa: S311 - arrivals, no secret.
        own_rate = stage.rate / self.shares
        offset_s = chance.expovariate(own_rate)
        while offset_s < stage.duration_s:
            yield offset_s
            offset_s += chance.expovariate(own_rate)

    def to_json(self) -> dict[str, Json]:
        """For a message to another generator; `from_json` reads it back. An endless stage lasts null seconds."""
        return {
            "stages": [[one.rate, None if math.isinf(one.duration_s) else one.duration_s] for one in self.stages],
            "arrival": self.arrival.value,
            "seed": self.seed,
            "share": self.share,
            "shares": self.shares,
        }

    @classmethod
    def from_json(cls, value: dict[str, Json]) -> "Plan":
        """The plan that `to_json` wrote. Raises ValueError, TypeError or KeyError on anything else."""
        return cls(
            stages=tuple(
                RateStage(rate=float(rate), duration_s=math.inf if duration_s is None else float(duration_s))
                for rate, duration_s in value["stages"]
            ),
            arrival=Arrival(value["arrival"]),
            seed=int(value["seed"]),
            share=int(value["share"]),
            shares=int(value["shares"]),
        )


def parse_rate(text: str) -> float:
    """Arrivals per second. Raises UsageError for what is no number, negative, or beyond MOST_PER_S."""
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 <= rate <= MOST_PER_S:
        raise UsageError(f"{text!r} is no rate; give the arrivals per second, from 0 to {MOST_PER_S:.0f}.")
    return rate


def parse_stages(text: str) -> Sequence[RateStage]:
    """The stages of ``100:30s,500:30s``. Raises UsageError."""
    stages = []
    for part in text.split(","):
        rate, colon, duration = part.strip().partition(":")
        if not colon:
            raise UsageError(f"{part!r} is no stage; write stages as RATE:DURATION, such as 100:30s,500:30s.")
        stages.append(RateStage(rate=parse_rate(rate), duration_s=parse_duration_s(duration)))
        if not stages[-1].duration_s:
            raise UsageError(f"the stage {part!r} lasts no time; give it a duration such as 30s.")
    if not any(stage.rate for stage in stages):
        raise UsageError(f"the stages {text!r} have no arrivals; give one of them a rate above 0.")
    return tuple(stages)
