"""Chaos from a seed: several faults at once, broken one by one, and healed in another order."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from harness.faults.timetable import Planned
from harness.records.moment import Moment

_KILL = "kill-worker"
_KILLED_AT = (Moment.STARTED, Moment.RETURNED)
"""The moments of every task at which a worker that dies takes it along."""
_AT_MOMENT = (_KILL, "kill-pool-process-worker", "pause-worker")
"""The faults that may come at a moment; the others come at a time."""
_SLOW = (_KILL, "kill-pool-process-worker", "stop-worker", "restart-worker")
"""The faults whose healing waits for a process that starts."""
_OF_A_WORKER = (
    _KILL,
    "kill-pool-process-worker",
    "pause-worker",
    "stop-worker{number},grace_s=1s",
    "restart-worker{number},grace_s=1s",
    "partition-worker",
)
_OF_ITS_CONNECTIONS = (
    "latency-worker{number},seconds=0.2",
    "half-open-worker",
    "hold-acks-worker",
)
"""They need a link. Closed and reset connections are not among them: a worker of Celery 5.7 may end for good if it is
back before the broker has given up its queue for remote control."""
_OF_THE_MAILBOX = ("slow-mail,delay_s=0.3", "reject-mail,code=451")
_OF_THE_RESULTS = "lock-results"
_OF_THE_BROKER = "pause-broker"
_FIRST_S = 0.5
_GAPS_S = (0.3, 0.9)
"""The least and the most seconds between two faults, and between two healings."""
_BROKER_IN = 0.3
"""The share of the seeds that may break the broker: it has to be the stack's own, which takes seconds to start."""
_MOST_OTHERS = 3
"""The most faults beside the worker that is killed. With more, hardly any task would end before all is healed."""


@dataclass(frozen=True, kw_only=True)
class Ground:
    """The parts of a stack that can be broken."""

    workers: int
    has_mailbox: bool
    has_processes: bool
    """True if the pool of a worker has processes, one of which can die alone."""
    steps: int
    """The number of steps of the drive."""


@dataclass(frozen=True, kw_only=True)
class Chaos:
    """The faults that a seed draws, and the time over which the steps are spread."""

    seed: int
    planned: tuple[Planned, ...]
    over_s: float


def chaos(seed: int, ground: Ground) -> Chaos:
    """Draw faults from a seed. The same seed and the same ground give the same faults.

    A worker is always killed, at a moment of one of its tasks. Each of the other faults breaks something else, so that
    none is in the way of another's proof. None of them touches a witness of the audit, and none lasts so long that a
    task with retries could not bear it.

    Args:
        seed: any number.
        ground: what there is to break.
    """
    drawn = random.Random(f"chaos:{seed}")  # noqa: S311 - no secret.
    workers = [f"worker-{number}" for number in range(1, ground.workers + 1)]
    drawn.shuffle(workers)
    killed, *others = workers
    faults = [_of(_KILL, killed)]
    faults += drawn.sample(pool := _others(drawn, others, ground), drawn.randint(1, min(_MOST_OTHERS, len(pool))))
    head = faults[0]
    begins_s = _times(drawn, _FIRST_S, len(faults))
    heals_s = _times(drawn, begins_s[-1] + _FIRST_S, len(faults))
    over_s = heals_s[-1] + _FIRST_S
    order = _order(drawn, faults)
    planned = []
    for number, fault in enumerate(faults):
        begin_s, heal_s = begins_s[number], heals_s[order[number]]
        for_s = round(heal_s - begin_s, 1)
        is_at_moment = fault.startswith(_AT_MOMENT) and drawn.random() < 0.5  # noqa: PLR2004 - as often as not.
        if fault is head or is_at_moment:
            moment = drawn.choice(_KILLED_AT)
            nth = max(1, round(begin_s / over_s * ground.steps / ground.workers))
            planned.append(Planned(fault=fault, for_s=for_s, moment=moment, nth=nth))
        else:
            planned.append(Planned(fault=fault, at_s=begin_s, for_s=for_s))
    return Chaos(seed=seed, planned=tuple(planned), over_s=round(over_s, 1))


def _order(drawn: random.Random, faults: list[str]) -> list[int]:
    """Put the faults into an order in which they are broken, and return the turn in which each is healed: another one.

    A worker that has to start takes seconds. What only holds tasks back is healed before: else it would outlast the
    time limits of the tasks.
    """
    turns = list(range(len(faults)))
    while True:
        drawn.shuffle(faults)
        drawn.shuffle(turns)
        healed = [fault.startswith(_SLOW) for _, fault in sorted(zip(turns, faults, strict=True))]
        if turns != sorted(turns) and healed == sorted(healed):
            return turns


def _others(drawn: random.Random, workers: Sequence[str], ground: Ground) -> list[str]:
    """Return one fault for each thing that can be broken beside the killed worker."""
    has_link = drawn.random() < 0.5  # noqa: PLR2004 - as often as not.
    kinds = [kind for kind in _OF_A_WORKER if ground.has_processes or kind != "kill-pool-process-worker"]
    kinds += _OF_ITS_CONNECTIONS if has_link else ()
    faults = [_of(drawn.choice(kinds), worker) for worker in workers]
    faults.append(_OF_THE_RESULTS)
    if drawn.random() < _BROKER_IN:
        faults.append(_OF_THE_BROKER)
    return faults + ([drawn.choice(_OF_THE_MAILBOX)] if ground.has_mailbox else [])


def _of(kind: str, worker: str) -> str:
    """Return the fault of a kind for one worker, as the command line writes it."""
    number = worker.removeprefix("worker")
    return kind.format(number=number) if "{number}" in kind else f"{kind}{number}"


def _times(drawn: random.Random, first_s: float, count: int) -> list[float]:
    """Return so many times, in tenths of a second, one after another."""
    times = [first_s]
    while len(times) < count:
        times.append(times[-1] + drawn.uniform(*_GAPS_S))
    return [round(time, 1) for time in times]
