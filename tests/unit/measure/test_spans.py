"""The journal as spans: begin, end, place and links of each publishing and each execution."""

import itertools
from collections import defaultdict
from typing import Any

import pytest

from harness.measure.spans import DIED, OPEN, Published, Ran, Span, Spans
from harness.records.event import Event, Kind


def event(t: float, kind: str, task: str | None = None, node: str = "w", pid: int = 7, **data: Any) -> Event:
    return Event(kind=Kind(kind), t=t, n=0, node=node, pid=pid, task=task, data=data)


def sent(task: str, t: float, **about: Any) -> list[Event]:
    return [
        event(t, "intended", task, "p", 1, name="pay", **about),
        event(t + 0.1, "accepted", task, "p", 1),
    ]


def ran(task: str, begin_t: float, end_t: float, **about: Any) -> list[Event]:
    return [
        event(begin_t, "started", task, name="pay", **about),
        event(end_t, "finished", task, state="SUCCESS", **about),
    ]


def spans(*events: Event) -> list[Span]:
    made = Spans()
    found = [span for one in sorted(events, key=lambda one: one.t) for span in made.take(one)]
    found += made.end()
    assert made.running == 0
    assert all(span.begin_t <= span.end_t for span in found)
    by_place = defaultdict(list)
    for span in found:
        by_place[span.place].append((span.begin_t, span.end_t))
    for times in by_place.values():
        for (_, end_t), (begin_t, _) in itertools.pairwise(sorted(times)):
            assert end_t <= begin_t, "spans of one lane overlap"
    return found


def runs(found: list[Span]) -> list[Ran]:
    return [one for one in found if isinstance(one, Ran)]


def publishings(found: list[Span]) -> dict[str, Published]:
    return {one.task: one for one in found if isinstance(one, Published)}


def test_a_task_is_published_and_runs() -> None:
    published, run = spans(*sent("a", 1.0), *ran("a", 2.0, 3.0))
    assert isinstance(published, Published)
    assert isinstance(run, Ran)
    assert (published.begin_t, published.end_t, published.outcome) == (1.0, 1.1, "accepted")
    assert (run.begin_t, run.end_t, run.state, run.root) == (2.0, 3.0, "SUCCESS", "a")
    assert run.sent is not None
    assert (run.sent.number, run.sent.begin_t) == (published.number, 1.0)


def test_tasks_at_once_in_one_process_have_lanes_of_their_own_and_those_one_after_another_share_one() -> None:
    at_once = runs(spans(*ran("a", 1.0, 4.0), *ran("b", 2.0, 3.0), *ran("c", 5.0, 6.0)))
    assert {run.task: run.place.lane for run in at_once} == {"a": 0, "b": 1, "c": 0}


def test_what_a_task_sends_belongs_to_its_execution_and_to_its_root() -> None:
    child = [event(2.5, "intended", "b", name="mail", parent="a"), event(2.6, "accepted", "b")]
    grandchild = [event(5.5, "intended", "c", name="log", parent="b"), event(5.6, "accepted", "c")]
    found = spans(*sent("a", 1.0), *ran("a", 2.0, 3.0), *child, *ran("b", 5.0, 6.0), *grandchild, *ran("c", 7.0, 8.0))
    keys = {run.task: run.key for run in runs(found)}
    of = publishings(found)
    assert (of["b"].parent_run, of["c"].parent_run) == (keys["a"], keys["b"])
    assert {one.root for one in found} == {"a"}


def test_a_retry_is_a_publishing_of_its_own_execution() -> None:
    again = [event(2.5, "intended", "a", name="pay", retries=1), event(2.6, "accepted", "a")]
    found = spans(*sent("a", 1.0), *ran("a", 2.0, 3.0)[:1], *again, *ran("a", 5.0, 6.0))
    first, second = sorted(runs(found), key=lambda run: run.begin_t)
    retry = publishings(found)["a"]
    assert (retry.retries, retry.parent_run) == (1, first.key)
    assert second.sent is not None
    assert second.sent.number == retry.number


@pytest.mark.parametrize(
    ("ends", "state", "end_t"),
    [
        ([event(4.0, "exited", child=7, pid=1)], DIED, 4.0),
        ([event(4.0, "up", pid=9)], DIED, 4.0),
        ([event(4.0, "finished", "a", pid=1, state="FAILURE", outside=True)], "FAILURE", 4.0),
        ([event(4.0, "exited", child=8, pid=1), event(5.0, "woke")], OPEN, 5.0),
        ([event(4.0, "up", node="other")], OPEN, 4.0),
    ],
)
def test_an_execution_that_did_not_end_ends_with_its_process_or_with_the_journal(
    ends: list[Event], state: str, end_t: float
) -> None:
    (run,) = runs(spans(*sent("a", 1.0), *ran("a", 2.0, 3.0)[:1], *ends))
    assert (run.state, run.end_t) == (state, end_t)


def test_a_second_delivery_after_the_end_is_linked_too() -> None:
    found = runs(spans(*sent("a", 1.0), *ran("a", 2.0, 3.0), *ran("a", 5.0, 6.0)))
    assert [run.sent is not None for run in found] == [True, True]


def test_what_nobody_sent_has_no_link() -> None:
    (run,) = runs(spans(*ran("a", 2.0, 3.0)))
    assert (run.sent, run.root) == (None, "a")


def test_a_clock_that_goes_back_makes_no_span_that_ends_before_it_begins() -> None:
    made = Spans()
    events = [event(5.0, "started", "a"), event(3.0, "finished", "a", state="SUCCESS"), event(2.0, "started", "b")]
    (run,) = [span for one in events for span in made.take(one)]
    assert (run.begin_t, run.end_t) == (5.0, 5.0)
    (after,) = made.end()
    assert after.begin_t == 5.0


def test_a_publishing_without_an_outcome_is_open_until_the_end() -> None:
    (published,) = spans(sent("a", 1.0)[0], event(9.0, "woke"))
    assert isinstance(published, Published)
    assert (published.outcome, published.end_t) == (OPEN, 9.0)


def test_the_memory_is_bounded_by_the_tasks_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.measure.spans._MOST_ENDED", 10)
    made = Spans()
    for number in range(1_000):
        for one in (*sent(f"t-{number}", float(number)), *ran(f"t-{number}", number + 0.2, number + 0.3)):
            list(made.take(one))
    held = [value for value in vars(made).values() if hasattr(value, "__len__")]
    assert sum(map(len, held)) < 20
