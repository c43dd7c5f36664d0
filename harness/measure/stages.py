"""The stages of a task's life, measured from the journal while it is written: publish, queue, run, store, end to end.

    publish  due until the broker's confirm
    queue    due until the first execution begins, whether or not the confirm was there by then
    run      an execution, without the time to store its result; each of them, if there are several
    store    the time in which the result backend stored an execution's result
    e2e      due until the task ended and its row was stored

A task with a countdown is due later than it is published; its publishing is measured from the time when it was sent.

Memory is bounded by the tasks in flight: a task that has ended, and whose outcome is known, is forgotten.
"""

from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from hdrh.histogram import HdrHistogram

from harness.records.event import FINAL_STATES, OUTCOMES, Ended, Event, Finished, Intended, Kind, Settings
from harness.records.typed_json import Record
from harness.records.values import Json

_LONGEST_US = 24 * 3600 * 1_000_000
"""The longest duration that is told from longer ones: a day. A histogram needs memory for each doubling of it."""
_DIGITS = 3
"""Significant digits of a duration, so that a quantile is wrong by a thousandth at most. One more would need about ten
times the memory."""
_BINS_PER_S = 10
"""The resolution of the times at which tasks are accepted and end. A window may begin and end a tenth of a second early
by it. A finer one would need more memory in a run of days."""
_BLOCK_BINS = 1_000
"""Bins that have a common sum. Larger blocks make the sum over one block slower, smaller ones that over all blocks; the
result is the same."""
_MOST_EARLY_EVENTS = 100_000
"""The most events that are held until the intent of their task is read. It bounds the memory if nobody calls
`forget_early`. A smaller number would drop events of tasks whose intents are read later, so that these tasks seem
open."""


class Stage(StrEnum):
    """A stage of a task's life, or all of it (`e2e`)."""

    PUBLISH = "publish"
    QUEUE = "queue"
    RUN = "run"
    STORE = "store"
    E2E = "e2e"


@dataclass(frozen=True, kw_only=True)
class Summary(Record):
    """The durations of one stage, in seconds."""

    count: int
    mean_s: float
    p50_s: float
    p95_s: float
    p99_s: float
    max_s: float


class Histogram:
    """A histogram of durations with three significant digits, from 1 us to a day, in constant memory."""

    def __init__(self) -> None:
        """Create an empty histogram."""
        self._counts = HdrHistogram(1, _LONGEST_US, _DIGITS)
        # The library's own mean takes tens of milliseconds; it is used for decoded histograms only.
        self._sum_us = 0.0

    def record(self, duration_s: float) -> None:
        """Count one duration in seconds. Less than a microsecond, also below zero, counts as one."""
        duration_us = min(max(round(duration_s * 1e6), 1), _LONGEST_US)
        self._counts.record_value(duration_us)
        self._sum_us += duration_us

    def add(self, other: "Histogram") -> None:
        """Add the counts of another histogram."""
        self._counts.add(other._counts)  # noqa: SLF001 - of the same class.
        self._sum_us += other._sum_us  # noqa: SLF001 - of the same class.

    @property
    def count(self) -> int:
        """Number of durations counted."""
        return int(self._counts.get_total_count())

    def quantile_s(self, share: float) -> float:
        """Return the duration in seconds that this share of all, from 0 to 1, does not exceed; 0 if empty."""
        return self._counts.get_value_at_percentile(share * 100) / 1e6 if self.count else 0.0

    def summary(self) -> Summary:
        """Return the figures of all durations."""
        if not self.count:
            return Summary(count=0, mean_s=0.0, p50_s=0.0, p95_s=0.0, p99_s=0.0, max_s=0.0)
        p50_us, p95_us, p99_us = self._counts.get_percentile_to_value_dict([50, 95, 99]).values()
        return Summary(
            count=self.count,
            mean_s=round(self._sum_us / self.count / 1e6, 6),
            p50_s=p50_us / 1e6,
            p95_s=p95_us / 1e6,
            p99_s=p99_us / 1e6,
            max_s=self._counts.get_max_value() / 1e6,
        )

    def encode(self) -> str:
        """Return it as compressed text in HdrHistogram's own format, which its tools in other languages read."""
        return bytes(self._counts.encode()).decode("ascii")

    @classmethod
    def decode(cls, text: str) -> "Histogram":
        """Read the result of `encode`."""
        made = cls()
        made._counts.decode_and_add(text.encode("ascii"))
        made._sum_us = made._counts.get_mean_value() * made.count
        return made


class Counts:
    """Counts per tenth of a second, over days. They take 40 bytes a second; a sum takes microseconds."""

    def __init__(self) -> None:
        """Create an empty series."""
        self.total = 0
        self._blocks: dict[int, array[int]] = {}
        self._sums: Counter[int] = Counter()

    def add(self, t: float) -> None:
        """Count one at a Unix time in seconds, in any order."""
        block, bin_ = divmod(int(t * _BINS_PER_S), _BLOCK_BINS)
        if block not in self._blocks:
            self._blocks[block] = array("I", [0]) * _BLOCK_BINS
        self._blocks[block][bin_] += 1
        self._sums[block] += 1
        self.total += 1

    def before(self, t: float) -> int:
        """Return the number counted before a Unix time, to the tenth of a second before it."""
        block, bin_ = divmod(int(t * _BINS_PER_S), _BLOCK_BINS)
        count = sum(of for number, of in self._sums.items() if number < block)
        return count + sum(self._blocks.get(block, ())[:bin_])

    def between(self, begin_t: float, end_t: float) -> int:
        """Return the number counted from one time until another, to the tenth of a second."""
        return self.before(end_t) - self.before(begin_t)


@dataclass(slots=True)
class _Way:
    """The progress of one task."""

    name: str
    due_t: float
    publish_t: float
    """The time from which its publishing is measured."""
    by: tuple[str, int]
    """The process that intended it. An outcome from another process is that of a retry."""
    expect: str = "SUCCESS"
    accepted: bool = False
    """True if the broker accepted it, by its outcome or its execution."""
    unknown: bool = False
    """True if its outcome is `unknown`, and no execution has shown yet that the broker accepted it."""
    concluded: bool = False
    """True if its outcome was read."""
    begun: bool = False
    runs: dict[tuple[str, int], float] | None = None
    """The times when its open executions began, by process."""
    ended_t: float | None = None


@dataclass(frozen=True, kw_only=True)
class Passed:
    """One stage that one task has passed."""

    task: str
    name: str
    """The task's registered name."""
    stage: Stage
    duration_s: float
    due_t: float
    error: str | None = None
    """The end of the task, if `stage` is `e2e` and the end is not the expected one; else None."""


class Stages:
    """A converter of events into durations and counts.

    Files are read one after another, so that the events of one task can come out of order. An event before the task's
    intent is held until the intent is read. An event after the task's end, or of a task without an intent, looks the
    same, so the owner must call `forget_early` regularly.
    """

    def __init__(self, passed: Callable[[Passed], None]) -> None:
        """Create it without tasks. `passed` is called for every stage that a task has passed."""
        self._passed = passed
        self._open: dict[str, _Way] = {}
        self._ended: dict[str, _Way] = {}
        """Tasks that have ended and whose outcome was not read yet: a fast task can end before its confirm arrives."""
        self._early: dict[str, list[Event]] = {}
        self._early_count = 0
        self.intended = 0
        self.accepted = 0
        """Tasks that the broker accepted, by its confirm or their execution."""
        self.refused = 0
        self.unknown = 0
        """Tasks whose outcome is `unknown` and that no worker has received yet."""
        self.begun = 0
        self.ended = 0
        self.failed = 0
        """Tasks that ended other than expected."""
        self.accepted_at = Counts()
        """The times when tasks were accepted."""
        self.ended_at = Counts()
        """The times when tasks ended; all of them had been accepted."""
        self.begun_on: Counter[str] = Counter()
        """Executions begun, per node, also of tasks that had ended or that have no intent."""
        self.processes: dict[str, int] = {}
        """Per worker, the number of tasks that it runs at once."""
        self.forgotten = 0
        """Events dropped because their task has no intent, or because they came after its end."""

    @property
    def backlog(self) -> int:
        """Tasks that the broker accepted and that have not ended."""
        return self.accepted - self.ended

    @property
    def held(self) -> int:
        """Number of tasks and early events in memory."""
        return len(self._open) + len(self._ended) + self._early_count

    def in_flight_at(self, t: float) -> int:
        """Return the backlog at a time, to the tenth of a second before it."""
        return self.accepted_at.before(t) - self.ended_at.before(t)

    def ended_between(self, begin_t: float, end_t: float) -> int:
        """Return how many tasks ended from one time until another, to the tenth of a second."""
        return self.ended_at.between(begin_t, end_t)

    def take(self, event: Event) -> None:
        """Process one event of the journal."""
        if event.kind is Kind.SETTINGS:
            if isinstance(concurrency := event.of(Settings).get("concurrency"), int):
                self.processes[event.node] = concurrency
            return
        if event.task is None:
            return
        if event.kind is Kind.STARTED:
            self.begun_on[event.node] += 1
        if event.task in self._open:
            self._go_on(event, event.task, self._open[event.task])
        elif event.task in self._ended and event.kind in OUTCOMES:
            self._conclude(event, event.task, self._ended[event.task])
        elif event.kind is Kind.INTENDED and not self._is_again(event, event.task):
            self._intend(event, event.task)
        else:
            self._hold(event, event.task)

    def forget_early(self, before_t: float) -> None:
        """Drop what has waited since before `before_t`, in Unix seconds.

        This concerns events of tasks without an intent or after their end, and ended tasks whose outcome did not come.
        Without calls to this, at most 100,000 events are held; the oldest are dropped first.
        """
        for task in [task for task, events in self._early.items() if events[-1].t < before_t]:
            self._drop(task)
        for task in [task for task, way in self._ended.items() if way.ended_t is None or way.ended_t < before_t]:
            del self._ended[task]

    def _is_again(self, event: Event, task: str) -> bool:
        """Return whether an intent is a repetition: an execution that was read already sends the task again."""
        if event.of(Intended).get("retries"):
            return True
        return any(one.kind is Kind.STARTED and one.t <= event.t for one in self._early.get(task, ()))

    def _hold(self, event: Event, task: str) -> None:
        self._early.setdefault(task, []).append(event)
        self._early_count += 1
        while self._early_count > _MOST_EARLY_EVENTS:
            self._drop(next(iter(self._early)))

    def _drop(self, task: str) -> None:
        count = len(self._early.pop(task))
        self._early_count -= count
        self.forgotten += count

    def _intend(self, event: Event, task: str) -> None:
        self.intended += 1
        data = event.of(Intended)
        due_t = float(data.get("due", event.t))
        self._open[task] = _Way(
            name=str(data.get("name")),
            due_t=due_t,
            publish_t=min(due_t, event.t),
            by=(event.node, event.pid),
            expect=data.get("expect", {}).get("state", "SUCCESS"),
        )
        early = self._early.pop(task, [])
        self._early_count -= len(early)
        for one in sorted(early, key=lambda one: one.t):
            if (way := self._open.get(task)) is not None:
                self._go_on(one, task, way)
            elif (way := self._ended.get(task)) is not None and one.kind in OUTCOMES:
                self._conclude(one, task, way)
            else:
                self._hold(one, task)

    def _go_on(self, event: Event, task: str, way: _Way) -> None:
        # A further intent is a retry: its time counts from the first one, because the user waits for all of it.
        if event.kind in OUTCOMES:
            self._conclude(event, task, way)
        elif event.kind in {Kind.RECEIVED, Kind.STARTED, Kind.FINISHED, Kind.REVOKED, Kind.DISCARDED}:
            # A task that a worker has was accepted by the broker, regardless of its outcome.
            self._accept(way, event.t)
            if event.kind is Kind.STARTED:
                self._start(event, task, way)
            elif event.kind is Kind.FINISHED:
                self._finish(event, task, way)
            elif event.kind is not Kind.RECEIVED:
                state = event.kind.value.upper()
                self._end(event, task, way, state, event.of(Ended).get("reason"))

    def _accept(self, way: _Way, t: float) -> None:
        if way.accepted:
            return
        way.accepted = True
        self.accepted += 1
        self.accepted_at.add(t)
        if way.unknown:
            way.unknown = False
            self.unknown -= 1

    def _conclude(self, event: Event, task: str, way: _Way) -> None:
        if way.concluded or (event.node, event.pid) != way.by:
            return
        way.concluded = True
        if event.kind is Kind.ACCEPTED:
            self._accept(way, event.t)
            self._pass(task, way, Stage.PUBLISH, event.t - way.publish_t)
        elif not way.accepted:
            if event.kind is Kind.REFUSED:
                self.refused += 1
                del self._open[task]
            else:
                self.unknown += 1
                way.unknown = True
        self._ended.pop(task, None)

    def _start(self, event: Event, task: str, way: _Way) -> None:
        if way.runs is None:
            way.runs = {}
        way.runs[event.node, event.pid] = event.t
        if not way.begun:
            way.begun = True
            self.begun += 1
            self._pass(task, way, Stage.QUEUE, event.t - way.due_t)

    def _finish(self, event: Event, task: str, way: _Way) -> None:
        # The end that a parent process reports for a killed child does not come from the process that began.
        started_t = (way.runs or {}).pop((event.node, event.pid), None)
        data = event.of(Finished)
        if started_t is not None and not data.get("outside"):
            store_s = float(data.get("store_s", 0.0))
            self._pass(task, way, Stage.RUN, event.t - started_t - store_s)
            if "store_s" in data:
                self._pass(task, way, Stage.STORE, store_s)
        if (state := str(data.get("state"))) in FINAL_STATES:
            self._end(event, task, way, state, data.get("error"))

    def _end(self, event: Event, task: str, way: _Way, state: str, error: Json) -> None:
        self.ended += 1
        self.ended_at.add(event.t)
        unexpected = state != way.expect
        self.failed += unexpected
        way.ended_t = event.t
        del self._open[task]
        if not way.concluded:
            self._ended[task] = way
        said = f"{state}: {error}" if error else state
        self._pass(task, way, Stage.E2E, event.t - way.due_t, said if unexpected else None)

    def _pass(self, task: str, way: _Way, stage: Stage, duration_s: float, error: str | None = None) -> None:
        self._passed(Passed(task=task, name=way.name, stage=stage, duration_s=duration_s, due_t=way.due_t, error=error))
