"""What the figures of a leg say: each rule at its limit, once on the good side of it and once on the bad one."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import pytest

from harness.errors import UsageError
from harness.measure.durations import parse_duration_s, write_duration
from harness.measure.figures import (
    Bottleneck,
    Figures,
    Objective,
    Part,
    bottleneck,
    invalid,
    not_sustained,
    overload,
)
from harness.measure.stages import Stage, Summary


def takes(p99_s: float, mean_s: float | None = None, count: int = 5_000) -> Summary:
    mean_s = p99_s / 2 if mean_s is None else mean_s
    return Summary(count=count, mean_s=mean_s, p50_s=mean_s, p95_s=p99_s * 0.9, p99_s=p99_s, max_s=p99_s * 1.1)


ORDINARY = {
    Stage.PUBLISH: takes(0.004),
    Stage.QUEUE: takes(0.010),
    Stage.RUN: takes(0.004, 0.001),
    Stage.STORE: takes(0.003, 0.0005),
    Stage.E2E: takes(0.020),
}


def leg(stages: Mapping[Stage, Summary] = ORDINARY, **changes: Any) -> Figures:
    """Ten seconds at 500 a second, on two processes that keep up with it."""
    figures: dict[str, Any] = {
        "rate": 500.0,
        "duration_s": 10.0,
        "workers": 1,
        "processes": 2,
        "offered": 5_000,
        "dropped": 0,
        "tasks": 5_000,
        "completed": 5_000,
        "backlog_begin": 3,
        "backlog_end": 4,
        "stages": stages,
        "lateness_p99_s": 0.003,
        "generator_cpu": 0.5,
    }
    return Figures(**{**figures, **changes})


def ended(summary: Summary) -> Mapping[Stage, Summary]:
    return {**ORDINARY, Stage.E2E: summary}


NOTHING = takes(0, count=0)


def test_an_ordinary_leg_is_valid_and_sustained() -> None:
    assert invalid(leg()) == []
    assert overload(leg(), [Objective.parse("e2e:p99<500ms")]) == []


def test_figures_survive_json() -> None:
    figures = leg(is_open=False)
    read = Figures.from_json(json.loads(json.dumps(figures.to_json(), allow_nan=False)))
    assert read == figures
    assert read.completed_per_s == 500
    assert leg(duration_s=0.0).completed_per_s == 0


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        (leg(lateness_p99_s=0.011), "its p99 was 11 ms, more than 10 ms"),
        (leg(ended(takes(2)), lateness_p99_s=0.21), "its p99 was 210 ms, more than 200 ms"),
        (leg(ended(NOTHING), lateness_p99_s=0.011), "more than 10 ms"),
        (leg(generator_cpu=0.81), "81% of a core, more than 80%"),
        (leg(dropped=51), r"sent 99\.0% of the 5,000 arrivals .* no sender was free for 51 of them"),
        (leg(offered=4_600), "only 4,600 arrivals were due where 5,000 were planned"),
        (leg(offered=0, tasks=0, completed=0), "no arrival was due"),
        (leg(is_open=False, rate=0.0, generator_cpu=0.81), "81% of a core"),
    ],
)
def test_a_leg_is_invalid_whose_generator_did_not_do_its_part(figures: Figures, said: str) -> None:
    (reason,) = invalid(figures)
    assert re.search(said, reason)
    assert _is_one_sentence(reason)
    assert bottleneck(figures).what is Part.GENERATOR
    assert reason in bottleneck(figures).sentence


@pytest.mark.parametrize(
    "figures",
    [
        leg(lateness_p99_s=0.010),
        leg(ended(takes(2)), lateness_p99_s=0.20),
        leg(generator_cpu=0.80),
        leg(dropped=50),
        # As few as Poisson arrivals may be.
        leg(offered=4_800),
        leg(offered=5_300),
        # A closed loop has no plan, so that it can neither be late nor leave anything out.
        leg(is_open=False, rate=0.0, lateness_p99_s=9.0, dropped=5_000),
    ],
)
def test_up_to_its_limits_a_leg_is_valid(figures: Figures) -> None:
    assert invalid(figures) == []


def test_a_host_that_takes_the_machine_away_is_named_where_the_generator_is_late() -> None:
    assert invalid(leg(stolen=0.9)) == []
    (reason,) = invalid(leg(lateness_p99_s=0.011, stolen=0.224))
    assert reason.endswith("more than 10 ms, and its machine's host took 22% of the processor time (steal).")
    (reason,) = invalid(leg(lateness_p99_s=0.011, stolen=0.01))
    assert reason.endswith("more than 10 ms.")


def test_what_is_sustained_by_a_generator_that_had_a_hard_time_is_sustained() -> None:
    objectives = [Objective.parse("e2e:p99<500ms")]
    hard: dict[str, Any] = {"lateness_p99_s": 0.4, "generator_cpu": 0.95}
    assert not_sustained(leg(**hard), objectives) == ([], True)
    # It may be to blame for what is not.
    reasons, is_known = not_sustained(leg(**hard, completed=4_000), objectives)
    assert (len(reasons), is_known) == (2, False)
    assert "the generator took 95% of a core" in reasons[0]
    reasons, is_known = not_sustained(leg(completed=4_000), objectives)
    assert is_known
    assert "4,000 of 5,000 tasks ended" in reasons[0]
    # A host that takes the machine away slows all that is on it.
    assert not_sustained(leg(stolen=0.5), objectives) == ([], True)
    reasons, is_known = not_sustained(leg(completed=4_000, stolen=0.15), objectives)
    assert not is_known
    assert "host took 15% of the processor time (steal), at which nobody can say" in reasons[0]
    assert not_sustained(leg(completed=4_000, stolen=0.14), objectives)[1]
    # Less than what was asked for shows nothing, however well it went.
    reasons, is_known = not_sustained(leg(dropped=51), objectives)
    assert not is_known
    assert "no sender was free for 51 of them" in reasons[0]


def test_every_reason_is_told() -> None:
    assert len(invalid(leg(lateness_p99_s=1, generator_cpu=1.0, dropped=4_000, offered=4_500))) == 4


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        (leg(completed=4_870), r"4,870 of 5,000 tasks ended \(97\.4%\), at 487 per second where 500 were due"),
        (leg(backlog_begin=10, backlog_end=140), "the backlog grew from 10 to 140 in 10 s, by more than 125"),
        (leg(duration_s=60.0, tasks=30_000, completed=29_390), "tasks ended"),
        (leg(tasks=100, completed=88), "88 of 100 tasks ended"),
        (leg(tasks=9, completed=3), "3 of 9 tasks ended"),
        (leg(tasks=0, completed=0, dropped=20), "no task was sent at 4,980 arrivals"),
        # What is more than the pool runs waits.
        (leg(processes=200, backlog_begin=0, backlog_end=330), "the backlog grew from 0 to 330"),
    ],
)
def test_a_load_is_not_sustained_that_is_not_completed(figures: Figures, said: str) -> None:
    (reason,) = overload(figures)
    assert re.search(said, reason)
    assert _is_one_sentence(reason)


@pytest.mark.parametrize(
    "figures",
    [
        # A quarter of a second's hiccup at the end of the window.
        leg(completed=4_880, backlog_end=123),
        leg(duration_s=60.0, tasks=30_000, completed=29_410),
        # By so much do a hundred Poisson arrivals vary.
        leg(rate=10.0, offered=100, tasks=100, completed=91, backlog_begin=0, backlog_end=9),
        leg(rate=1.0, offered=9, tasks=9, completed=5),
        # What was in the queue before is worked off.
        leg(completed=6_000, backlog_begin=1_000, backlog_end=0),
        # Tasks that take longer than the warm-up fill the pool; none of them waits.
        leg(processes=400, completed=4_650, backlog_begin=50, backlog_end=400),
        leg(offered=0, tasks=0, completed=0),
    ],
)
def test_chance_makes_no_overload(figures: Figures) -> None:
    assert overload(figures) == []


def test_an_objective_that_is_missed_is_an_overload_with_its_figure() -> None:
    missed = [Objective.parse(text) for text in ("e2e:p99<20ms", "e2e:p99<=20ms", "queue:mean<1ms", "store:max<=1s")]
    assert overload(leg(), missed) == [
        "e2e p99 was 20 ms: not e2e p99 < 20 ms.",
        "queue mean was 5 ms: not queue mean < 1 ms.",
    ]


def test_an_objective_of_a_stage_that_no_task_passed_neither_holds_nor_is_missed() -> None:
    objective = Objective.parse("store:p99<1s")
    for stages in ({**ORDINARY, Stage.STORE: NOTHING}, {Stage.E2E: takes(0.02)}):
        assert objective.holds(leg(stages)) is None
        assert objective.figure_s(leg(stages)) is None
        assert overload(leg(stages), [objective]) == []
    assert objective.holds(leg()) is True
    assert objective.figure_s(leg()) == 0.003


@pytest.mark.parametrize(
    ("text", "objective", "shown"),
    [
        (
            "e2e:p99<500ms",
            Objective(stage=Stage.E2E, stat="p99", limit_s=0.5),
            "e2e p99 < 500 ms",
        ),
        (
            " queue : mean <= 1m30s ",
            Objective(stage=Stage.QUEUE, stat="mean", limit_s=90, or_equal=True),
            "queue mean <= 1 m 30 s",
        ),
        ("run:max<2", Objective(stage=Stage.RUN, stat="max", limit_s=2), "run max < 2 s"),
    ],
)
def test_an_objective_is_read_as_it_is_written(text: str, objective: Objective, shown: str) -> None:
    assert Objective.parse(text) == objective
    assert objective.text == shown


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no objective; write it as"),
        ("e2e", "is no objective"),
        ("e2e:p99", "is no objective"),
        ("e2e:p99>1s", "is no objective"),
        ("e2e:p99<", "is no objective"),
        ("e2e:p99<=<1s", "is no objective"),
        ("e2e p99<1s", "is no objective"),
        ("end:p99<1s", "'end' in 'end:p99<1s' is no stage; there are publish, queue, run, store, e2e"),
        ("e2e:p90<1s", "'p90' in 'e2e:p90<1s' is no figure of a stage; there are p50, p95, p99, max, mean"),
        ("e2e:count<1s", "'count'"),
        ("e2e:p99<fast", "'fast' is no duration"),
        ("e2e:p99<-1s", "'-1s' is no duration"),
        ("e2e:p99<0s", "is zero"),
    ],
)
def test_an_objective_that_cannot_be_is_refused_in_one_sentence(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        Objective.parse(text)
    assert said in str(caught.value)
    assert _is_one_sentence(str(caught.value))


def limit(stages: Mapping[Stage, Summary] | None = None, **changes: Any) -> Bottleneck:
    return bottleneck(leg({**ORDINARY, **(stages or {})}, **changes))


def test_a_full_pool_is_limited_by_what_takes_most_of_its_time() -> None:
    assert limit({Stage.RUN: takes(0.01, 0.003)}) == Bottleneck(
        what=Part.RUN,
        sentence="The limit is running tasks: the 2 pool processes were busy 88% of the time, 86% of that with it, "
        "3 ms a task.",
    )
    assert limit({Stage.STORE: takes(0.01, 0.003)}) == Bottleneck(
        what=Part.STORE,
        sentence="The limit is storing results: the 2 pool processes were busy 100% of the time, 75% of that with it, "
        "3 ms a task.",
    )


def test_executions_count_as_often_as_they_were() -> None:
    # Each task was executed twice: 500 a second, of 1.6 ms twice, on two processes.
    twice = takes(0.003, 0.0016, count=10_000)
    assert limit({Stage.RUN: twice, Stage.STORE: NOTHING}).what is Part.RUN
    assert leg({**ORDINARY, Stage.RUN: twice, Stage.STORE: NOTHING}).busy == pytest.approx(0.8)
    assert limit({Stage.RUN: takes(0.003, 0.0016), Stage.STORE: NOTHING}).what is not Part.RUN


def test_a_slow_broker_or_confirm_is_the_limit_of_a_pool_that_has_time() -> None:
    slow = limit({Stage.PUBLISH: takes(3), Stage.E2E: takes(5)})
    assert slow.what is Part.PUBLISH
    assert "its p99 was 3 s of 5 s end to end" in slow.sentence
    assert "busy 38% of the time" in slow.sentence


def test_a_queue_before_a_pool_that_has_time_is_the_limit_otherwise() -> None:
    waiting = limit({Stage.PUBLISH: takes(2), Stage.QUEUE: takes(4.9), Stage.E2E: takes(5)})
    assert waiting.what is Part.QUEUE
    assert "busy 38% of the time" in waiting.sentence
    assert "waited 4.9 s" in waiting.sentence


def test_a_task_that_is_slow_on_its_own_is_its_own_limit() -> None:
    slow = limit(
        {Stage.RUN: takes(0.9, 0.8), Stage.E2E: takes(1), Stage.STORE: takes(0.1, 0.01)}, processes=2, completed=5
    )
    assert slow.what is Part.RUN
    assert "it took 800 ms a task, with 1 s end to end" in slow.sentence


def test_what_was_not_measured_is_no_limit() -> None:
    nothing = dict.fromkeys(Stage, NOTHING)
    for figures in (leg(nothing, completed=0), leg({}, completed=0), leg(processes=0)):
        assert figures.busy == 0
        assert bottleneck(figures).what is Part.QUEUE
    assert math.isfinite(leg({**nothing, Stage.RUN: takes(1, count=3)}).busy)


def test_a_bottleneck_survives_json() -> None:
    said = json.loads(json.dumps(limit().to_json()))
    assert said == {"what": "queue", "sentence": limit().sentence}


@pytest.mark.parametrize(
    ("text", "duration_s"),
    [("30s", 30), ("500ms", 0.5), ("2m", 120), ("1h30m", 5_400), ("1.5s", 1.5), ("90", 90), ("1s500ms", 1.5), ("0", 0)],
)
def test_a_duration_is_read_as_it_is_written(text: str, duration_s: float) -> None:
    assert parse_duration_s(text) == pytest.approx(duration_s)


@pytest.mark.parametrize("text", ["", "s", "-1s", "1d", "1 s", "1e3", "inf", "nan", "1h30", "1.s", "9" * 400])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no duration; write it as"):
        parse_duration_s(text)


@pytest.mark.parametrize(
    ("duration_s", "text"),
    [
        (0, "0 ms"),
        (0.0000014, "0.0014 ms"),
        (0.0046, "4.6 ms"),
        (0.1234, "123 ms"),
        (0.99996, "1 s"),
        (5.432, "5.43 s"),
        (59.99, "60 s"),
        (60, "1 m"),
        (3_725, "1 h 2 m 5 s"),
    ],
)
def test_a_duration_is_written_in_the_unit_that_suits_it(duration_s: float, text: str) -> None:
    assert write_duration(duration_s) == text


def _is_one_sentence(text: str) -> bool:
    return text.endswith(".") and "\n" not in text and ". " not in text
