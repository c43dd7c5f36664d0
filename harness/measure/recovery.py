"""The recovery from a fault: how soon it was noticed, and how soon all was as before. Measured from the journal."""

from array import array
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf

from harness.measure.durations import write_duration
from harness.measure.stages import Stages
from harness.records.event import Event, Exited, Finished, Kind, Received
from harness.records.typed_json import Record

BEFORE_S = 10.0
"""Seconds before a fault, over which the highest backlog is its reference, and the throughput the one to compare with.
With about one sample a second, there are ten. Fewer samples would miss the variation of the backlog; more would take in
the start of the load, or the fault before."""
MARGIN_TASKS = 5
"""The backlog has recovered if it exceeds the reference by this many tasks at most: the backlog of an open loop always
varies. `overload` allows as many. A smaller margin would report a longer recovery, or none; a larger one would call a
backlog recovered that still grows at a low rate."""
MARGIN_SHARE = 0.1
"""The same margin as a share of the reference; the larger of both counts. A backlog that is high varies by more
tasks."""
CALM_S = 3.0
"""Seconds for which the backlog must stay there: about three samples. A shorter time would take a chance minimum for
the recovery; a longer one would find none in a load that ends soon after the fault."""
_LEAST_S = 3.0
"""The shortest time over which a throughput is measured. Over less, a few tasks more or less are a large share."""
_LEAST_TASKS = 10
"""The fewest tasks before the fault that a throughput is compared with, for the same reason."""
_STEP_S = 0.1
"""The resolution of a backlog that is read from the journal; that of `Stages`."""
_LONGEST_S = 600.0
"""Seconds after the healing over which the backlog is read from the journal. It bounds the work for a long run."""
_SIGNS = frozenset({Kind.DISCONNECTED, Kind.REFUSED, Kind.UNKNOWN})


@dataclass(frozen=True, kw_only=True)
class Recovery(Record):
    """The figures of a recovery. None for each that the run does not show."""

    noticed_s: float | None
    """Seconds from the injection until somebody noticed it: a worker lost its connection, a process died, a send was
    not accepted, a message was delivered again, or a task that the fault met failed or asked to run again."""
    reconnected_s: float | None
    """Seconds from the begin of healing until every node that had lost its connection, or was started again, was ready;
    None if none had, or one never was."""
    first_task_s: float | None
    """Seconds from the begin of healing until the first task began on the broken node, or on any if that is no
    worker."""
    backlog_s: float | None
    """Seconds from the injection until the backlog was back at its reference; see `backlog_recovery`."""
    empty_s: float | None
    """Seconds from the begin of healing until no task was in flight."""
    throughput: float | None
    """Tasks that ended per second afterwards, over those before; each over ten seconds at most, with work to do."""
    redelivered: int
    """Number of messages that were delivered again from the injection on, until the next fault or the end."""

    def words(self) -> str:
        """Return the figures that there are, in a few words."""
        return "; ".join(self._parts())

    def _parts(self) -> Iterator[str]:
        if self.noticed_s is not None:
            yield f"noticed after {write_duration(self.noticed_s)}"
        healed = {"ready again": self.reconnected_s, "the first task": self.first_task_s}
        after = [f"{name} after {write_duration(value_s)}" for name, value_s in healed.items() if value_s is not None]
        if self.empty_s is not None:
            after.append(f"nothing in flight after {write_duration(self.empty_s)}")
        if after:
            yield f"from the healing on, {', '.join(after)}"
        if self.backlog_s is None:
            yield "the backlog was not seen to come back to where it had been"
        elif self.backlog_s:
            yield f"after {write_duration(self.backlog_s)} the backlog was back where it had been"
        else:
            yield "the backlog did not grow"
        if self.throughput is not None:
            yield f"the throughput afterwards was {self.throughput:.0%} of that before"
        if self.redelivered:
            yield f"{self.redelivered} {'message was' if self.redelivered == 1 else 'messages were'} delivered again"


@dataclass(frozen=True, kw_only=True)
class Window:
    """The times of a fault, Unix time in seconds, and what it met."""

    begun_t: float
    healing_t: float
    """When healing began."""
    healed_t: float
    node: str | None
    tasks: Collection[str]
    until_t: float = inf
    """When the next fault began; what comes later is not counted."""

    def holds(self, t: float) -> bool:
        """Return whether a time is after the injection, and before the next fault."""
        return self.begun_t < t <= self.until_t


class Signs:
    """The signs of recoveries in the journal: collected event by event, and summed up at the end.

    Memory: eight bytes for each execution and each message that was delivered again.
    """

    def __init__(self, stages: Stages) -> None:
        """Begin without events. `stages` must be given the same events, by whoever gives them to this."""
        self._stages = stages
        self._noticed = array("d")
        self._again = array("d")
        self._errors: list[tuple[float, str]] = []
        self._lost: defaultdict[str, list[float]] = defaultdict(list)
        """Per worker, when it lost its connection."""
        self._up: defaultdict[str, list[float]] = defaultdict(list)
        """Per node, when it was started."""
        self._back: defaultdict[str, list[float]] = defaultdict(list)
        """Per node, when it was ready."""
        self._started: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))
        """Per worker, the times of its executions."""
        self._sent_t = (inf, -inf)
        """When the first and the last task were sent."""
        self._last_t = -inf

    def take(self, event: Event) -> None:
        """Process one event of the journal. Files may be read one after another."""
        kind, t = event.kind, event.t
        self._last_t = max(self._last_t, t)
        if kind is Kind.STARTED:
            self._started[event.node].append(t)
        elif kind is Kind.INTENDED:
            self._sent_t = (min(self._sent_t[0], t), max(self._sent_t[1], t))
        elif kind is Kind.RECEIVED and event.of(Received).get("redelivered"):
            self._again.append(t)
        elif kind in _SIGNS or (kind is Kind.EXITED and event.of(Exited).get("code")):
            self._noticed.append(t)
        elif event.task is not None and (
            kind is Kind.RETRIED or (kind is Kind.FINISHED and event.of(Finished).get("error"))
        ):
            self._errors.append((t, event.task))
        if kind is Kind.DISCONNECTED:
            self._lost[event.node].append(t)
        elif kind is Kind.UP:
            self._up[event.node].append(t)
        elif kind in {Kind.RECONNECTED, Kind.READY}:
            self._back[event.node].append(t)

    def recovery(self, window: Window, samples: Sequence[tuple[float, int]] | None = None) -> Recovery:
        """Return the figures of one fault. Call it when the run is at rest.

        Args:
            window: the times of the fault.
            samples: see `backlog_recovery`; None to take them from the journal.
        """
        seen = self._samples(window) if samples is None else list(samples)
        empty_t = self._emptied(window, seen)
        if seen and not seen[-1][1]:
            # Nothing was in flight at the end, and nothing more came: it stayed so.
            seen.append((seen[-1][0] + CALM_S, 0))
        first_t = self._first_task(window)
        return Recovery(
            noticed_s=_after(window.begun_t, self._first_sign(window)),
            reconnected_s=_after(window.healing_t, self._reconnected(window)),
            first_task_s=_after(window.healing_t, first_t),
            backlog_s=_rounded(backlog_recovery(seen, begun_t=window.begun_t, healed_t=window.healed_t)),
            empty_s=_after(window.healing_t, empty_t),
            throughput=self._throughput(window, first_t, seen),
            redelivered=sum(map(window.holds, self._again)),
        )

    @staticmethod
    def _emptied(window: Window, seen: Sequence[tuple[float, int]]) -> float | None:
        """Return when nothing was in flight any more after the healing; None if that was not seen."""
        empty_t = next((t for t, backlog in seen if t >= window.healed_t and not backlog), None)
        return window.healed_t if empty_t is None and seen and not seen[-1][1] else empty_t

    def _first_sign(self, window: Window) -> float | None:
        met = (t for t, task in self._errors if task in window.tasks)
        return min((t for times in (self._noticed, self._again, met) for t in times if window.holds(t)), default=None)

    def _reconnected(self, window: Window) -> float | None:
        """Return when the last node that had lost its connection was ready again; None if none had, or one was not."""
        back = []
        for node, ready in self._back.items():
            again = self._up[node] if any(t <= window.begun_t for t in self._up[node]) else []
            lost_t = min(filter(window.holds, (*self._lost[node], *again)), default=None)
            if lost_t is not None:
                back.append(min((t for t in ready if t > lost_t and window.holds(t)), default=None))
        known = [t for t in back if t is not None]
        return max(known) if known and len(known) == len(back) else None

    def _first_task(self, window: Window) -> float | None:
        node = window.node
        ours = [self._started[node]] if node in self._started and node else list(self._started.values())
        return min((t for times in ours for t in times if window.healing_t <= t <= window.until_t), default=None)

    def _throughput(self, window: Window, first_t: float | None, samples: Sequence[tuple[float, int]]) -> float | None:
        first_sent_t, last_sent_t = self._sent_t
        begin_t = max(window.begun_t - BEFORE_S, first_sent_t)
        before_s = window.begun_t - begin_t
        before = self._stages.ended_between(begin_t, window.begun_t) if before_s >= _LEAST_S else 0
        if before < _LEAST_TASKS or first_t is None:
            return None
        again_t = max(first_t, window.healed_t)
        # Without work there is no throughput to compare.
        busy_t = max((t for t, backlog in samples if backlog), default=last_sent_t)
        after_s = min(again_t + BEFORE_S, window.until_t, max(busy_t, last_sent_t)) - again_t
        if after_s < _LEAST_S:
            return None
        after = self._stages.ended_between(again_t, again_t + after_s)
        return round((after / after_s) / (before / before_s), 3)

    def _samples(self, window: Window) -> list[tuple[float, int]]:
        begin_t = window.begun_t - BEFORE_S
        end_t = min(self._last_t, window.healed_t + _LONGEST_S)
        steps = range(int(max(0.0, end_t - begin_t) / _STEP_S) + 1)
        samples = [(t, self._stages.in_flight_at(t)) for t in (begin_t + step * _STEP_S for step in steps)]
        if end_t == self._last_t:
            # What the last events changed, to which no step came.
            samples.append((end_t + _STEP_S, self._stages.in_flight_at(end_t + _STEP_S)))
        return samples


def until_next(windows: Iterable[Window]) -> list[Window]:
    """Return the windows of a run's faults, each ending where the next fault began."""
    every = list(windows)
    begins = [one.begun_t for one in every]
    return [replace(one, until_t=min((t for t in begins if t > one.begun_t), default=inf)) for one in every]


def _after(begin_t: float, t: float | None) -> float | None:
    return None if t is None else round(max(0.0, t - begin_t), 3)


def _rounded(value_s: float | None) -> float | None:
    return None if value_s is None else round(value_s, 3)


def backlog_recovery(samples: Sequence[tuple[float, int]], *, begun_t: float, healed_t: float | None) -> float | None:
    """Return the seconds from an injection until the backlog was back at its reference and stayed there for 3 s.

    The reference is the highest backlog of the 10 s before; for the margin see MARGIN_TASKS. 0 if the backlog was never
    above reference and margin.

    Args:
        samples: about one a second or more, in time order: Unix time in seconds, backlog.
        begun_t: the time when the fault was injected.
        healed_t: the time when it was healed; None if it was not.

    Returns:
        Seconds; None if the backlog did not return, or if nothing was measured before the fault or for 3 s afterwards.
    """
    before = [backlog for t, backlog in samples if begun_t - BEFORE_S <= t <= begun_t]
    if not before:
        return None
    most = max(before) + max(MARGIN_TASKS, max(before) * MARGIN_SHARE)
    after = [(t, backlog <= most) for t, backlog in samples if t > begun_t]
    # A backlog that comes and goes while the fault lasts has not recovered. A backlog that grows after the end, as
    # after a pause of the broker, must do so within CALM_S; later growth has other reasons.
    end_t = (after[-1][0] if after else begun_t) if healed_t is None else healed_t + CALM_S
    left_t = max((t for t, is_back in after if not is_back and t <= end_t), default=begun_t)
    for number, (t, _) in enumerate(after):
        if t > left_t and after[-1][0] >= t + CALM_S:
            calm = [is_back for later_t, is_back in after[number:] if later_t <= t + CALM_S]
            if all(calm):
                return 0.0 if left_t == begun_t else t - begun_t
    return None
