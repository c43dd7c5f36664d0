"""What is measured while a load goes on: the quantiles of one second, and which tasks belong to a leg."""

import pytest

from harness.loadtest.live_figures import Measure
from harness.loadtest.messages import LegCounts
from harness.measure.load_account import Quantiles
from harness.measure.stages import Stage
from harness.records.event import Event, Kind


def of(number: int, kind: Kind, t: float, node: str = "load") -> Event:
    return Event(kind=kind, t=t, n=0, node=node, pid=1, task=f"task-{number}")


def publish(measure: Measure, number: int, took_ms: int, t: float = 1000.0) -> None:
    measure.take(of(number, Kind.INTENDED, t))
    measure.take(of(number, Kind.ACCEPTED, t + took_ms / 1000))


@pytest.mark.parametrize(
    ("count", "quantiles"),
    [
        (1, {"p50": 1, "p95": 1, "p99": 1, "max": 1}),
        (2, {"p50": 1, "p95": 2, "p99": 2, "max": 2}),
        (3, {"p50": 2, "p95": 3, "p99": 3, "max": 3}),
        (20, {"p50": 10, "p95": 19, "p99": 20, "max": 20}),
        (100, {"p50": 50, "p95": 95, "p99": 99, "max": 100}),
        (101, {"p50": 51, "p95": 96, "p99": 100, "max": 101}),
    ],
)
def test_a_quantile_is_the_least_value_that_its_share_of_all_does_not_exceed(
    count: int, quantiles: dict[str, float]
) -> None:
    measure = Measure()
    for number in range(count, 0, -1):
        publish(measure, number, took_ms=number)
    sample = measure.live(1001.0).sample
    assert sample.stages == {Stage.PUBLISH: Quantiles(count=count, **quantiles)}
    assert sample.to_json()["stages"]["run"] == {}
    assert measure.live(1002.0).sample.stages == {}, "of the last second alone"


LEG = LegCounts(
    rate=1.0,
    is_open=True,
    offered=2,
    dropped=0,
    lateness_p99_s=0.0,
    cpu=0.0,
    stolen=0.0,
    until_t=1020.0,
)


def test_of_a_leg_are_the_tasks_that_are_due_in_its_window_and_none_before_there_is_one() -> None:
    measure = Measure()
    publish(measure, 1, took_ms=1, t=1002.0)
    measure.open_window(1001.0, 1003.0)
    for number, t in ((2, 1000.9), (3, 1001.0), (4, 1002.9), (5, 1003.0)):
        publish(measure, number, took_ms=1, t=t)
    figures = measure.figures(LEG, workers=1, processes=1)
    assert (figures.tasks, figures.stages[Stage.PUBLISH].count, figures.duration_s) == (2, 2, 2.0)
    assert measure.histograms[Stage.PUBLISH].count == measure.generated == 5
