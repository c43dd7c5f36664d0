"""The pace of a load: every arrival is planned once, by whichever generator, and bad plans are refused."""

import itertools
import json
import math

import pytest

from harness.errors import UsageError
from harness.loadtest.arrivals import MOST_PER_S, Arrival, Plan, RateStage, parse_rate, parse_stages

STAGES = (RateStage(rate=100, duration_s=0.5), RateStage(rate=0, duration_s=2), RateStage(rate=7, duration_s=3))


def plan(stages: tuple[RateStage, ...] = STAGES, arrival: Arrival = Arrival.CONSTANT, seed: int = 1) -> Plan:
    return Plan(stages=stages, arrival=arrival, seed=seed)


def share(of: Plan, number: int, shares: int) -> Plan:
    return Plan(stages=of.stages, arrival=of.arrival, seed=of.seed, share=number, shares=shares)


def test_constant_arrivals_are_even_exact_in_number_and_none_is_due_in_a_pause() -> None:
    due = list(plan().arrivals())
    assert len(due) == 50 + 21
    assert due[:50] == pytest.approx([number / 100 for number in range(50)])
    assert due[50:] == pytest.approx([2.5 + number / 7 for number in range(21)])


@pytest.mark.parametrize(
    ("rate", "duration_s", "count"),
    [(0.1, 30, 3), (1 / 3, 3, 1), (4.15, 60, 249), (1, 0.5, 1), (3, 1.5, 5), (1000.1, 10, 10001), (1e5, 0.3, 30_000)],
)
def test_a_rounding_error_makes_no_arrival_more_and_none_fewer(rate: float, duration_s: float, count: int) -> None:
    due = list(Plan.steady(rate, duration_s).arrivals())
    assert len(due) == count
    assert due[-1] < duration_s


@pytest.mark.parametrize("shares", [1, 2, 3, 7, 200])
def test_the_shares_of_constant_arrivals_are_all_of_them_and_each_once(shares: int) -> None:
    dealt = [list(share(plan(), number, shares).arrivals()) for number in range(shares)]
    assert sorted(itertools.chain(*dealt)) == list(plan().arrivals())
    # Every stage is dealt out evenly, to within one.
    for begin_s, end_s in ((0, 0.5), (2.5, 5.5)):
        counts = [sum(begin_s <= due_s < end_s for due_s in one) for one in dealt]
        assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("shares", [1, 4])
def test_poisson_arrivals_have_the_mean_and_the_spread_of_poisson_arrivals(shares: int) -> None:
    whole = plan((RateStage(rate=500, duration_s=40),), Arrival.POISSON)
    due = sorted(itertools.chain(*(share(whole, number, shares).arrivals() for number in range(shares))))
    assert len(due) == pytest.approx(20_000, abs=5 * math.sqrt(20_000))
    gaps = [after - before for before, after in itertools.pairwise(due)]
    mean_s = math.fsum(gaps) / len(gaps)
    spread_s = math.sqrt(math.fsum((gap - mean_s) ** 2 for gap in gaps) / len(gaps))
    # The standard deviation of exponential distances is their mean; that of even ones would be nothing.
    assert spread_s / mean_s == pytest.approx(1, abs=0.05)


def test_poisson_arrivals_are_the_same_for_the_same_seed_and_others_for_each_share_seed_and_stage() -> None:
    twice = (RateStage(rate=50, duration_s=4), RateStage(rate=50, duration_s=4))
    one = plan(twice, Arrival.POISSON)
    due = list(one.arrivals())
    assert due == list(plan(twice, Arrival.POISSON).arrivals())
    assert due == sorted(due)
    first, second = ([due_s for due_s in due if due_s < 4], [due_s - 4 for due_s in due if due_s >= 4])
    assert first[:5] != pytest.approx(second[:5])
    assert due[:5] != list(plan(twice, Arrival.POISSON, seed=2).arrivals())[:5]
    shares = [list(share(one, number, 2).arrivals()) for number in range(2)]
    assert not set(shares[0]) & set(shares[1])


@pytest.mark.parametrize("arrival", list(Arrival))
def test_every_arrival_lies_within_its_stage(arrival: Arrival) -> None:
    stages = (RateStage(rate=200, duration_s=1), RateStage(rate=0, duration_s=1), RateStage(rate=20, duration_s=1))
    due = list(plan(stages, arrival).arrivals())
    assert not any(1 <= due_s < 2 for due_s in due)
    assert sum(due_s < 1 for due_s in due) > sum(due_s >= 2 for due_s in due) > 0
    assert due[-1] < 3


@pytest.mark.parametrize("arrival", list(Arrival))
def test_an_endless_stage_goes_on_for_as_long_as_somebody_asks(arrival: Arrival) -> None:
    endless = plan((RateStage(rate=5, duration_s=1), RateStage(rate=10, duration_s=math.inf)), arrival)
    due = list(itertools.islice(endless.arrivals(), 1_000))
    assert due[-1] == pytest.approx(100, abs=20)
    assert math.isinf(endless.duration_s)
    assert endless.rate == 10


def test_the_rate_is_the_mean_over_all_stages_or_over_a_part_of_them() -> None:
    stages = plan((RateStage(rate=100, duration_s=30), RateStage(rate=500, duration_s=10)))
    assert stages.rate == pytest.approx(200)
    assert stages.rate_between(20, 40) == pytest.approx(300)
    assert stages.rate_between(35, 60) == pytest.approx(100)
    assert stages.rate_between(5, 5) == 0
    assert Plan.steady(80).rate_between(10, 20) == pytest.approx(80)


@pytest.mark.parametrize("one", [plan(), share(plan(arrival=Arrival.POISSON, seed=9), 2, 3), Plan.steady(12.5)])
def test_a_plan_survives_json(one: Plan) -> None:
    assert Plan.from_json(json.loads(json.dumps(one.to_json(), allow_nan=False))) == one


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stages": ()}, "at least one stage"),
        ({"stages": (RateStage(rate=1, duration_s=math.inf), STAGES[0])}, "none but its last"),
        ({"share": 2, "shares": 2}, "no share 2 of 2"),
        ({"share": 0, "shares": 0}, "no share 0 of 0"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Plan(**{"stages": STAGES, **changes})  # type: ignore[arg-type] # Each is of its own type.


def test_stages_are_read_as_they_are_written() -> None:
    assert parse_stages("100:30s, 0:1m,2.5:500ms") == (
        RateStage(rate=100, duration_s=30),
        RateStage(rate=0, duration_s=60),
        RateStage(rate=2.5, duration_s=0.5),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("100", "RATE:DURATION"),
        ("", "RATE:DURATION"),
        ("100:30s,", "RATE:DURATION"),
        ("fast:30s", "'fast' is no rate"),
        ("-1:30s", "'-1' is no rate"),
        ("nan:30s", "'nan' is no rate"),
        ("inf:30s", "'inf' is no rate"),
        ("100:soon", "'soon' is no duration"),
        ("100:", "'' is no duration"),
        ("100:0s", "lasts no time"),
        ("0:30s,0:10s", "no arrivals"),
    ],
)
def test_stages_that_cannot_be_are_refused_in_one_sentence(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        parse_stages(text)
    assert "\n" not in str(caught.value)


def test_a_rate_beyond_every_generator_is_refused() -> None:
    assert parse_rate(str(MOST_PER_S)) == MOST_PER_S
    with pytest.raises(UsageError, match="no rate"):
        parse_rate("100001")
