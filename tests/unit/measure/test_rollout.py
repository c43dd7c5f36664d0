"""Figures of a deploy, from events."""

import pytest

from harness.measure.rollout import begun_by, longest, longest_gap_s, overhead_s, untaken_s, waits
from harness.records.event import UNWOUND, Event, Kind


def event(t: float, kind: Kind, task: str, node: str = "worker-1", pid: int = 7, **data: object) -> Event:
    return Event(n=0, t=t, kind=kind, task=task, node=node, pid=pid, data={"name": "pay", **data})


def test_the_longest_execution_is_of_those_that_ended_in_their_own_process() -> None:
    said = [
        event(1.0, Kind.STARTED, "a"),
        event(1.0, Kind.STARTED, "cut", pid=8),
        event(2.0, Kind.STARTED, "a", node="worker-2"),
        event(5.0, Kind.FINISHED, "a", state="SUCCESS"),
        event(5.0, Kind.FINISHED, "a", node="worker-2", state="SUCCESS"),
        event(90.0, Kind.FINISHED, "cut", pid=8, state=UNWOUND),
    ]
    assert longest(said) == (4.0, "pay")
    assert longest(said[:3]) is None


def test_a_task_waits_from_its_first_publish_until_it_first_begins_and_one_with_a_time_of_its_own_does_not() -> None:
    said = [
        event(1.0, Kind.INTENDED, "a", node="producer"),
        event(1.0, Kind.INTENDED, "later", node="producer", due=50.0),
        event(3.0, Kind.STARTED, "a"),
        event(4.0, Kind.INTENDED, "a", node="worker-1"),
        event(9.0, Kind.STARTED, "a"),
        event(50.0, Kind.STARTED, "later"),
    ]
    assert list(waits(said)) == [(1.0, 2.0)]


@pytest.mark.parametrize(
    ("spans", "expected_s"),
    [
        ([], 10.0),
        ([(0.0, 20.0)], 0.0),
        ([(0.0, 12.0), (15.0, 20.0)], 3.0),
        ([(15.0, 20.0), (0.0, 12.0), (11.0, 13.0)], 2.0),
        ([(0.0, 12.0)], 8.0),
        ([(0.0, 5.0), (30.0, 40.0)], 10.0),
    ],
)
def test_the_time_in_which_nobody_took_tasks_is_what_no_span_covers(
    spans: list[tuple[float, float]], expected_s: float
) -> None:
    assert untaken_s(spans, 10.0, 20.0) == expected_s


def test_a_worker_ends_after_its_last_task_or_after_it_was_asked() -> None:
    said = [event(3.0, Kind.FINISHED, "a", state="SUCCESS"), event(8.0, Kind.FINISHED, "b", node="worker-2")]
    assert overhead_s(said, "worker-1", 1.0, 4.5) == 1.5
    assert overhead_s(said, "worker-1", 4.0, 4.5) == 0.5
    assert overhead_s(said, "worker-3", 4.0, 5.0) == 1.0


def test_what_each_node_began_between_two_times_is_counted() -> None:
    said = [
        event(1.0, Kind.STARTED, "a"),
        event(2.0, Kind.STARTED, "b"),
        event(2.0, Kind.STARTED, "c", node="worker-2"),
        event(2.5, Kind.FINISHED, "b"),
        event(3.0, Kind.STARTED, "d"),
    ]
    assert begun_by(said, 1.5, 3.0) == {"worker-1": 1, "worker-2": 1}


@pytest.mark.parametrize(
    ("begins", "expected_s"),
    [
        ([], None),
        ([9.0], None),
        ([9.0, 12.0], 2.0),
        ([11.0, 16.0, 19.0], 5.0),
        # The gap at the end goes on until the next task begins, and no further.
        ([11.0, 19.0, 28.0, 90.0], 9.0),
        ([11.0], 1.0),
    ],
)
def test_the_longest_gap_is_between_the_begins_of_tasks(begins: list[float], expected_s: float | None) -> None:
    said = [event(t, Kind.STARTED, str(t)) for t in begins]
    said.insert(1, event(11.5, Kind.FINISHED, "other"))
    assert longest_gap_s(sorted(said, key=lambda one: one.t), 10.0, 20.0) == expected_s
