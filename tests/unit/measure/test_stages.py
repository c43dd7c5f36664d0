"""The stages of a task's way: each is measured once, however its events come in, and what has ended is forgotten."""

import random
from collections import Counter
from collections.abc import Iterable
from itertools import permutations
from typing import Any

import pytest

from harness.measure.stages import Counts, Histogram, Passed, Stage, Stages
from harness.records.event import Event, Kind

LOAD, WORKER, PARENT = ("load", 1), ("worker-1", 7), ("worker-1", 5)
T = 1_000_000.0


def said(kind: Kind, t: float, task: str | None = "a", by: tuple[str, int] = LOAD, **data: Any) -> Event:
    """Return an event `t` seconds after T."""
    return Event(kind=kind, t=T + t, n=0, node=by[0], pid=by[1], task=task, data=data)


def intended(t: float = 0.0, task: str = "a", **data: Any) -> Event:
    return said(Kind.INTENDED, t, task, name="app.add", **data)


def accepted(t: float, task: str = "a") -> Event:
    return said(Kind.ACCEPTED, t, task)


def started(t: float, task: str = "a", by: tuple[str, int] = WORKER) -> Event:
    return said(Kind.STARTED, t, task, by)


def finished(t: float, task: str = "a", by: tuple[str, int] = WORKER, state: str = "SUCCESS", **data: Any) -> Event:
    return said(Kind.FINISHED, t, task, by, state=state, **data)


class Seen:
    """Stages, and what passed them."""

    def __init__(self, *events: Event) -> None:
        """Having taken these events."""
        self.passed: list[Passed] = []
        self.stages = Stages(self.passed.append)
        self.take(events)

    def take(self, events: Iterable[Event]) -> "Seen":
        for event in events:
            self.stages.take(event)
        return self

    @property
    def durations(self) -> dict[str, list[float]]:
        """Per stage, in the order seen."""
        found: dict[str, list[float]] = {}
        for one in self.passed:
            found.setdefault(one.stage.value, []).append(round(one.duration_s, 6))
        return found

    @property
    def counts(self) -> dict[str, int]:
        names = ("intended", "accepted", "refused", "unknown", "begun", "ended", "failed", "backlog", "held")
        return {name: count for name in names if (count := getattr(self.stages, name))}


ORDINARY = (
    intended(0.1, due=T),
    accepted(0.3),
    said(Kind.RECEIVED, 0.4, by=PARENT),
    started(1),
    finished(3, store_s=0.5),
)
STAGES = {"publish": [0.3], "queue": [1], "run": [1.5], "store": [0.5], "e2e": [3]}
COUNTS = {"intended": 1, "accepted": 1, "begun": 1, "ended": 1}


def test_a_task_passes_each_stage_once_from_when_it_was_due() -> None:
    seen = Seen(*ORDINARY)
    assert seen.durations == STAGES
    assert seen.counts == COUNTS
    assert {(one.task, one.name, one.due_t, one.error) for one in seen.passed} == {("a", "app.add", T, None)}
    assert seen.stages.begun_on == {"worker-1": 1}


LATE_INTENT = [order for order in permutations(ORDINARY) if order.index(ORDINARY[3]) < order.index(ORDINARY[4])]


@pytest.mark.parametrize("order", LATE_INTENT)
def test_files_that_are_read_one_after_another_change_nothing(order: tuple[Event, ...]) -> None:
    seen = Seen(*order)
    seen.stages.forget_early(T + 100)
    assert {stage: sorted(durations) for stage, durations in seen.durations.items()} == STAGES
    assert seen.counts == COUNTS
    assert seen.stages.begun_on == {"worker-1": 1}


def test_events_before_the_intent_are_put_in_order_of_time() -> None:
    seen = Seen(finished(3, store_s=0.5), started(1), accepted(0.3), intended(0, due=T))
    assert {stage: sorted(durations) for stage, durations in seen.durations.items()} == STAGES
    assert seen.counts == COUNTS


def test_a_confirm_that_comes_after_the_end_is_measured_and_not_counted_twice() -> None:
    seen = Seen(intended(), started(0.01), finished(0.02))
    assert seen.counts == COUNTS | {"held": 1}
    seen.take([accepted(0.05)])
    assert seen.durations["publish"] == [0.05]
    assert seen.counts == COUNTS


@pytest.mark.parametrize("outcome", [Kind.UNKNOWN, Kind.REFUSED])
def test_another_outcome_after_the_end_changes_nothing(outcome: Kind) -> None:
    seen = Seen(intended(), started(1), finished(2), said(outcome, 5))
    assert seen.counts == COUNTS
    assert "publish" not in seen.durations


def test_a_retry_is_timed_from_the_first_intent_and_each_execution_for_itself() -> None:
    seen = Seen(
        intended(),
        accepted(0.1),
        started(1),
        said(Kind.INTENDED, 1.5, by=WORKER, name="app.add", retries=1, due=T + 9),
        said(Kind.ACCEPTED, 1.6, by=WORKER),
        said(Kind.RETRIED, 1.7, by=PARENT, reason="again"),
        finished(2, state="RETRY", store_s=0.25),
        started(9.5),
        finished(10),
    )
    assert seen.durations == {"publish": [0.1], "queue": [1], "run": [0.75, 0.5], "store": [0.25], "e2e": [10]}
    assert seen.counts == COUNTS
    assert seen.stages.begun_on == {"worker-1": 2}


def test_a_retry_that_is_read_before_the_first_intent_is_no_first_intent() -> None:
    again = said(Kind.INTENDED, 1.5, by=WORKER, name="app.add", retries=1, due=T + 9)
    seen = Seen(
        started(1), again, said(Kind.ACCEPTED, 1.6, by=WORKER), finished(2, state="RETRY"), intended(), accepted(0.1)
    )
    assert seen.durations == {"queue": [1], "run": [1], "publish": [0.1]}
    assert seen.counts == {"intended": 1, "accepted": 1, "begun": 1, "backlog": 1, "held": 1}


def test_a_retry_of_a_task_that_nobody_intended_is_no_new_task() -> None:
    again = said(Kind.INTENDED, 1.5, by=WORKER, name="app.add", retries=1)
    assert Seen(again, said(Kind.ACCEPTED, 1.6, by=WORKER)).counts == {"held": 2}


def test_a_task_that_is_replaced_by_another_of_its_id_stays_the_same_task() -> None:
    replaced = said(Kind.INTENDED, 1.5, by=WORKER, name="app.other")
    seen = Seen(started(1), replaced, finished(2, state="IGNORED"), intended(), started(4), finished(5))
    assert seen.durations["e2e"] == [5]
    assert [one.name for one in seen.passed if one.stage is Stage.E2E] == ["app.add"]
    assert seen.stages.intended == 1


def test_what_was_refused_is_over() -> None:
    seen = Seen(intended(), said(Kind.REFUSED, 0.5))
    assert seen.counts == {"intended": 1, "refused": 1}
    assert seen.passed == []


def test_a_retry_that_was_refused_says_nothing_of_the_task() -> None:
    seen = Seen(intended(), started(1), said(Kind.REFUSED, 2, by=WORKER))
    assert seen.counts == {"intended": 1, "accepted": 1, "begun": 1, "backlog": 1, "held": 1}


def test_an_unknown_outcome_is_known_once_a_worker_has_the_task() -> None:
    seen = Seen(intended(), said(Kind.UNKNOWN, 5))
    assert seen.counts == {"intended": 1, "unknown": 1, "held": 1}
    seen.take([said(Kind.RECEIVED, 6, by=PARENT)])
    assert seen.counts == {"intended": 1, "accepted": 1, "backlog": 1, "held": 1}
    seen.take([started(6), finished(7)])
    assert seen.counts == COUNTS
    assert seen.durations == {"queue": [6], "run": [1], "e2e": [7]}
    assert seen.stages.in_flight_at(T + 6.5) == 1


def test_an_execution_whose_process_was_killed_has_an_end_and_no_run() -> None:
    lost = finished(4, by=PARENT, state="FAILURE", error="WorkerLostError: signal 9", outside=True)
    seen = Seen(intended(), accepted(0.1), started(1), lost)
    assert seen.durations == {"publish": [0.1], "queue": [1], "e2e": [4]}
    assert seen.passed[-1].error == "FAILURE: WorkerLostError: signal 9"
    assert seen.counts == COUNTS | {"failed": 1}


def test_a_redelivered_task_counts_the_run_that_came_to_its_end() -> None:
    other = ("worker-2", 9)
    seen = Seen(intended(), accepted(0.1), started(1), started(60, by=other), finished(62, by=other))
    assert seen.durations == {"publish": [0.1], "queue": [1], "run": [2], "e2e": [62]}
    assert seen.stages.begun_on == {"worker-1": 1, "worker-2": 1}
    assert seen.counts == COUNTS


def test_two_executions_at_the_same_time_are_not_mixed_up() -> None:
    other = ("worker-2", 9)
    seen = Seen(intended(), started(1), started(5, by=other), finished(6), accepted(0.1))
    assert seen.durations["run"] == [5]
    # The second one ends when the task has long been accounted for.
    seen.take([finished(8, by=other)])
    assert seen.durations["e2e"] == [6]
    assert seen.stages.ended == 1
    seen.stages.forget_early(T + 100)
    assert seen.counts == COUNTS
    assert seen.stages.forgotten == 1


@pytest.mark.parametrize("kind", [Kind.REVOKED, Kind.DISCARDED])
def test_what_will_not_run_has_ended(kind: Kind) -> None:
    seen = Seen(intended(), accepted(0.1), said(kind, 2, by=PARENT, reason="expired"))
    assert seen.counts == {"intended": 1, "accepted": 1, "ended": 1, "failed": 1}
    assert seen.passed[-1].error == f"{kind.value.upper()}: expired"
    assert seen.durations == {"publish": [0.1], "e2e": [2]}


@pytest.mark.parametrize(
    ("expected", "end", "error"),
    [
        ("FAILURE", finished(1, state="FAILURE", error="ValueError: no"), None),
        ("REVOKED", said(Kind.REVOKED, 1, by=PARENT, reason="expired"), None),
        ("FAILURE", finished(1), "SUCCESS"),
        ("SUCCESS", finished(1, state="FAILURE", error="ValueError: no"), "FAILURE: ValueError: no"),
    ],
)
def test_a_task_fails_that_ends_otherwise_than_expected(expected: str, end: Event, error: str | None) -> None:
    seen = Seen(intended(expect={"state": expected}), accepted(0.1), end)
    assert seen.passed[-1].stage is Stage.E2E
    assert seen.passed[-1].error == error
    assert seen.stages.failed == (error is not None)


def test_a_task_that_stores_nothing_has_no_store_stage() -> None:
    assert "store" not in Seen(intended(), started(1), finished(2)).durations


def test_a_countdown_is_part_of_no_publishing() -> None:
    seen = Seen(intended(0, due=T + 30), accepted(0.2), started(30.5), finished(31))
    assert seen.durations == {"publish": [0.2], "queue": [0.5], "run": [0.5], "e2e": [1]}


def test_the_backlog_can_be_told_for_any_time_in_any_order_of_reading() -> None:
    events = []
    chance = random.Random(3)  # noqa: S311 - an order, no secret.
    for number in range(500):
        task, t = f"t{number}", number / 10
        events.append([intended(t, task), accepted(t + 0.05, task), started(t + 4, task), finished(t + 5, task)])
    read = sorted((event for task in events for event in task), key=lambda event: event.t + chance.uniform(0, 3))
    seen = Seen(*read)
    assert seen.stages.in_flight_at(T + 20) == 50
    assert seen.stages.in_flight_at(T + 50) == 50
    assert seen.stages.in_flight_at(T) == 0
    assert seen.stages.in_flight_at(T + 1e6) == seen.stages.backlog == 0
    assert seen.stages.ended_between(T + 10, T + 30) == 200
    assert seen.stages.ended_between(T - 1e5, T + 1e5) == 500


def test_counts_agree_with_a_plain_count_whatever_the_order() -> None:
    chance = random.Random(5)  # noqa: S311 - times, no secret.
    times = [T + chance.uniform(0, 2_000) for _ in range(3_000)]
    counts = Counts()
    for t in times:
        counts.add(t)
    bins = Counter(int(t * 10) for t in times)
    for _ in range(50):
        begin_t, end_t = sorted(T + chance.uniform(-100, 2_100) for _ in range(2))
        assert counts.before(end_t) == sum(of for bin_, of in bins.items() if bin_ < int(end_t * 10))
        plain = sum(of for bin_, of in bins.items() if int(begin_t * 10) <= bin_ < int(end_t * 10))
        assert counts.between(begin_t, end_t) == plain
    assert counts.total == 3_000


def test_the_counts_of_a_day_are_small() -> None:
    counts = Counts()
    for second in range(0, 86_400, 10):
        counts.add(T + second)
    # 864 blocks of a hundred seconds each; a look at any time reads their sums and one block.
    assert len(counts._blocks) <= 865  # noqa: SLF001 - its memory is what this is about.
    assert sum(block.itemsize * len(block) for block in counts._blocks.values()) < 4_000_000  # noqa: SLF001 - the same.


def test_nothing_is_held_of_ten_thousand_tasks_that_have_ended() -> None:
    seen = Seen()
    for number in range(10_000):
        task, t = f"t{number}", number / 100
        seen.take([intended(t, task), started(t + 0.001, task), finished(t + 0.002, task), accepted(t + 0.003, task)])
    assert seen.stages.ended == 10_000
    assert seen.stages.held == 0
    assert seen.stages.forgotten == 0


def test_what_comes_after_the_end_is_held_until_it_is_forgotten() -> None:
    seen = Seen()
    for number in range(1_000):
        task = f"t{number}"
        seen.take([intended(number, task), accepted(number, task), started(number, task), finished(number, task)])
        seen.take([started(number + 1, task), finished(number + 1, task)])
        seen.stages.forget_early(T + number - 30)
        assert seen.stages.held < 100
    assert seen.stages.ended == 1_000
    assert seen.stages.begun_on == {"worker-1": 2_000}
    seen.stages.forget_early(T + 2_000)
    assert seen.stages.held == 0
    assert seen.stages.forgotten == 2_000


def test_a_task_whose_outcome_never_comes_is_forgotten_after_its_end() -> None:
    seen = Seen(intended(), started(1), finished(2))
    seen.stages.forget_early(T + 1.9)
    assert seen.stages.held == 1
    seen.stages.forget_early(T + 2.1)
    assert seen.stages.held == 0


def test_tasks_in_flight_are_never_forgotten() -> None:
    seen = Seen(intended(), accepted(0.1))
    seen.stages.forget_early(T + 1e6)
    assert seen.take([started(2e6), finished(2e6 + 1)]).durations["e2e"] == [2e6 + 1]


def test_events_that_nobody_fetches_are_bounded_even_if_nobody_forgets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.measure.stages._MOST_EARLY_EVENTS", 50)
    seen = Seen(*(started(number, f"t{number}") for number in range(200)))
    assert seen.stages.held == 50
    assert seen.stages.forgotten == 150
    # The newest are those that are kept.
    assert seen.take([intended(150, "t199"), intended(0, "t0")]).durations == {"queue": [49]}


def test_a_worker_says_how_many_tasks_it_runs_at_once() -> None:
    seen = Seen(
        said(Kind.SETTINGS, 0, None, PARENT, concurrency=2),
        said(Kind.SETTINGS, 0, None, ("beat-1", 3), confirm_publish=True),
        said(Kind.READY, 0, None, PARENT),
    )
    assert seen.stages.processes == {"worker-1": 2}
    assert seen.stages.held == 0


def durations_s(count: int = 5_000) -> list[float]:
    chance = random.Random(2)  # noqa: S311 - durations, no secret.
    return [chance.lognormvariate(-4, 1.5) for _ in range(count)]


def test_a_histogram_keeps_three_digits() -> None:
    histogram, durations = Histogram(), sorted(durations_s())
    for duration_s in durations:
        histogram.record(duration_s)
    summary = histogram.summary()
    assert summary.count == histogram.count == 5_000
    assert summary.mean_s == pytest.approx(sum(durations) / 5_000, rel=0.001)
    for share, figure_s in ((0.5, summary.p50_s), (0.95, summary.p95_s), (0.99, summary.p99_s), (1, summary.max_s)):
        assert figure_s == pytest.approx(durations[int(5_000 * share) - 1], rel=0.002)
        assert histogram.quantile_s(share) == figure_s


def test_histograms_add_up_also_when_they_were_sent_as_text() -> None:
    whole, parts = Histogram(), [Histogram(), Histogram()]
    for number, duration_s in enumerate(durations_s()):
        whole.record(duration_s)
        parts[number % 2].record(duration_s)
    total = Histogram()
    total.add(parts[0])
    total.add(Histogram.decode(parts[1].encode()))
    assert vars(total.summary()) == pytest.approx(vars(whole.summary()), rel=0.001)


def test_a_histogram_takes_what_no_clock_should_say() -> None:
    histogram = Histogram()
    for duration_s in (-5, 0, 1e-9, 1e9):
        histogram.record(duration_s)
    assert histogram.count == 4
    assert histogram.summary().p50_s == pytest.approx(1e-6)
    assert histogram.summary().max_s == pytest.approx(86_400, rel=0.001)


def test_an_empty_histogram_has_no_durations() -> None:
    assert set(vars(Histogram().summary()).values()) == {0}
    assert Histogram().quantile_s(0.99) == 0
    assert Histogram.decode(Histogram().encode()).count == 0
