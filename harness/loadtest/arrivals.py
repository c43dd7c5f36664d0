"""The arrivals of a load test. Each has a due time, which depends neither on the generator nor on its delay."""

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
"""The highest rate in arrivals per second. It is more than any Python process can make."""


class Arrival(StrEnum):
    """The distribution of arrivals over time."""

    CONSTANT = "constant"
    """Arrivals at equal distances."""
    POISSON = "poisson"
    """Arrivals that are independent of one another, like those of many independent users."""


@dataclass(frozen=True, kw_only=True)
class RateStage:
    """A rate of arrivals, and its duration."""

    rate: float
    """Arrivals per second; 0 for a pause."""
    duration_s: float
    """Seconds; infinite for a stage that lasts until the run is stopped."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All arrivals of one leg of a load test, or one generator's share of them."""

    stages: tuple[RateStage, ...]
    arrival: Arrival = Arrival.CONSTANT
    seed: int = 1
    """The random seed for the distances between Poisson arrivals."""
    share: int = 0
    """The number of this plan's generator, from 0."""
    shares: int = 1
    """The number of generators that share the arrivals."""

    def __post_init__(self) -> None:
        """Check the stages and the share. Raises ValueError."""
        if not self.stages or any(math.isinf(stage.duration_s) for stage in self.stages[:-1]):
            raise ValueError("a plan has at least one stage, and none but its last may be endless.")
        if not 0 <= self.share < self.shares:
            raise ValueError(f"there is no share {self.share} of {self.shares}; shares are counted from 0.")

    @classmethod
    def steady(cls, rate: float, duration_s: float = math.inf) -> "Plan":
        """Return a plan with one rate."""
        return cls(stages=(RateStage(rate=rate, duration_s=duration_s),))

    @property
    def duration_s(self) -> float:
        """Seconds from the begin of the first stage to the end of the last; infinite if the last has no end."""
        return math.fsum(stage.duration_s for stage in self.stages)

    @property
    def rate(self) -> float:
        """Arrivals per second over all stages, weighted by duration. If the last stage is endless, its rate alone."""
        if math.isinf(self.duration_s):
            return self.stages[-1].rate
        return self.rate_between(0.0, self.duration_s)

    def rate_between(self, begin_s: float, end_s: float) -> float:
        """Return the planned arrivals per second from one time until another, both in seconds from the begin."""
        if end_s <= begin_s:
            return 0.0
        planned, stage_begin_s = 0.0, 0.0
        for stage in self.stages:
            stage_end_s = stage_begin_s + stage.duration_s
            planned += stage.rate * max(min(stage_end_s, end_s) - max(stage_begin_s, begin_s), 0.0)
            stage_begin_s = stage_end_s
        return planned / (end_s - begin_s)

    def until(self, duration_s: float) -> "Plan":
        """Return the same plan, limited to this duration."""
        stages, left_s = [], duration_s
        for stage in self.stages:
            if left_s > 0:
                stages.append(replace(stage, duration_s=min(stage.duration_s, left_s)))
            left_s -= stage.duration_s
        return replace(self, stages=tuple(stages))

    def arrivals(self) -> Iterator[float]:
        """Yield the due times of this share's arrivals in order, in seconds from the begin.

        The first constant arrival of a stage is due when the stage begins. So 100 a second for half a second are 50
        arrivals. A fraction of an arrival counts as one: 1 a second for half a second is one arrival.

        The generators take constant arrivals in turns, so that several generators are together as even as one. The sum
        of independent Poisson processes is a Poisson process with the sum of their rates.
        """
        begin_s = 0.0
        for number, stage in enumerate(self.stages):
            offsets = self._poisson(stage, number) if self.arrival is Arrival.POISSON else self._constant(stage)
            yield from (begin_s + offset_s for offset_s in offsets)
            begin_s += stage.duration_s

    def _constant(self, stage: RateStage) -> Iterator[float]:
        if not stage.rate:
            return
        # A rounding error must not add an arrival.
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
        """Return the plan as a JSON object; `from_json` reads it back. The duration of an endless stage is null."""
        return {
            "stages": [[one.rate, None if math.isinf(one.duration_s) else one.duration_s] for one in self.stages],
            "arrival": self.arrival.value,
            "seed": self.seed,
            "share": self.share,
            "shares": self.shares,
        }

    @classmethod
    def from_json(cls, value: dict[str, Json]) -> "Plan":
        """Return the plan that `to_json` wrote. Raises ValueError, TypeError or KeyError for anything else."""
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
    """Return the arrivals per second. Raises UsageError if the text is no number from 0 to MOST_PER_S."""
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 <= rate <= MOST_PER_S:
        raise UsageError(f"{text!r} is no rate; give the arrivals per second, from 0 to {MOST_PER_S:.0f}.")
    return rate


def parse_stages(text: str) -> Sequence[RateStage]:
    """Parse stages such as ``100:30s,500:30s``. Raises UsageError."""
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
