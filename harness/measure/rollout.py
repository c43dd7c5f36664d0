"""Figures of a deploy, from the journal: the longest execution, the waits of tasks, the times without work."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from harness.records.event import UNWOUND, Event, Finished, Intended, Kind, Started


def longest(events: Sequence[Event]) -> tuple[float, str] | None:
    """Return the seconds of the longest execution that ended, and its task's name; None if none ended.

    Args:
        events: of the workers, in time order.
    """
    began: dict[tuple[str, int, str | None], tuple[float, str]] = {}
    found: tuple[float, str] | None = None
    for event in events:
        key = event.node, event.pid, event.task
        if event.kind is Kind.STARTED:
            began[key] = event.t, str(event.of(Started).get("name", ""))
        elif event.kind is Kind.FINISHED and key in began and event.of(Finished).get("state") != UNWOUND:
            begin_t, name = began.pop(key)
            found = max(found or (0.0, ""), (event.t - begin_t, name))
    return found


def waits(events: Sequence[Event]) -> Iterator[tuple[float, float]]:
    """Yield the time when each task was sent that was due at once, and the seconds until it first began.

    Args:
        events: of all nodes, in time order.
    """
    sent: dict[str, float] = {}
    begun = set[str]()
    for event in events:
        if event.task is None:
            continue
        if event.kind is Kind.INTENDED and event.of(Intended).get("due") is None:
            sent.setdefault(event.task, event.t)
        elif event.kind is Kind.STARTED and event.task in sent and event.task not in begun:
            begun.add(event.task)
            yield sent[event.task], event.t - sent[event.task]


def untaken_s(open_s: Iterable[tuple[float, float]], begin_s: float, end_s: float) -> float:
    """Return the seconds between two times in which nobody took tasks.

    Args:
        open_s: from when until when each worker took tasks.
        begin_s: the first of the two times.
        end_s: the other one.
    """
    gone_s, now_s = 0.0, begin_s
    for first_s, last_s in sorted(open_s):
        gone_s += max(0.0, min(first_s, end_s) - now_s)
        now_s = max(now_s, min(last_s, end_s))
    return gone_s + max(0.0, end_s - now_s)


def begun_by(events: Iterable[Event], begin_t: float, end_t: float) -> Mapping[str, int]:
    """Return the number of tasks that each node began between two times, if it began any."""
    return Counter(event.node for event in events if event.kind is Kind.STARTED and begin_t <= event.t < end_t)


def longest_gap_s(events: Iterable[Event], begin_t: float, end_t: float) -> float | None:
    """Return the longest time between two times in which no task began; None if none began before its end.

    The gap that the second time cuts counts until the next task began, and one that the first time cuts from there.

    Args:
        events: in time order.
        begin_t: the first of the two times.
        end_t: the other one.
    """
    found, last_t = None, begin_t
    for event in events:
        if event.kind is not Kind.STARTED or event.t < begin_t:
            continue
        found, last_t = max(found or 0.0, event.t - last_t), event.t
        if event.t >= end_t:
            break
    return found


def overhead_s(events: Sequence[Event], node: str, asked_t: float, ended_t: float) -> float:
    """Return the seconds from the end of a worker's last task, or from the request if it had none, to its own end.

    Args:
        events: in time order.
        node: the worker.
        asked_t: when it was asked to stop.
        ended_t: when it had ended.
    """
    ends = [event.t for event in events if event.node == node and event.kind is Kind.FINISHED]
    return max(0.0, ended_t - max([asked_t, *(t for t in ends if t <= ended_t)]))
