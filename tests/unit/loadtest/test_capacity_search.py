"""The searches of a load test, on a model: a queue before a pool, with noise, and a generator with limits."""

import heapq
import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import pytest

from harness.loadtest.arrivals import Arrival, Plan
from harness.loadtest.capacity_search import MOST_PROBES, MOST_VOID, SHARES, find_knee, find_workers
from harness.measure.figures import Figures, Objective, Part
from harness.measure.load_account import KneeFound
from harness.measure.stages import Stage, Summary

WARM_S, WINDOW_S = 2.0, 10.0
OBJECTIVE = Objective.parse("e2e:p99<100ms")


def summary(durations_s: Sequence[float]) -> Summary:
    ranked = sorted(durations_s) or [0.0]
    p50_s, p95_s, p99_s = (ranked[math.ceil(len(ranked) * share) - 1] for share in (0.5, 0.95, 0.99))
    mean_s = math.fsum(ranked) / len(ranked)
    return Summary(count=len(durations_s), mean_s=mean_s, p50_s=p50_s, p95_s=p95_s, p99_s=p99_s, max_s=ranked[-1])


@dataclass
class Model:
    """Tasks that all take the same time, and as many at once as there are processes: 200 a second as it stands."""

    arrival: Arrival = Arrival.CONSTANT
    workers: int = 1
    run_s: float = 0.008
    store_s: float = 0.002
    noise: float = 0.0
    """Standard deviation, from one leg to the next, of how long a task takes; a share of that time."""
    hiccups: float = 0.0
    """How likely it is that a leg has one: everything stands still for 600 ms."""
    generator_per_s: float = math.inf
    """More arrivals than these it cannot make: it falls behind, and drops what it has not made when the leg ends."""
    late_s: float = 0.003
    """By how much each arrival is late at least."""
    most_per_s: float = math.inf
    """What the store of all workers together takes, such as one file that is locked for each row."""
    chance: random.Random = field(default_factory=lambda: random.Random(1))  # noqa: S311 - noise, no secret.
    rates: list[float] = field(default_factory=list)

    def probe(self, rate: float) -> Figures:
        self.rates.append(rate)
        processes = 2 * self.workers
        factor = max(self.chance.gauss(1, self.noise), 0.5)
        store_s = max(self.store_s, processes / self.most_per_s - self.run_s) * factor
        run_s = self.run_s * factor
        end_t = WARM_S + WINDOW_S
        stall_t = self.chance.uniform(0, end_t) if self.chance.random() < self.hiccups else math.inf
        due = list(Plan(stages=Plan.steady(rate, end_t).stages, arrival=self.arrival).arrivals())
        free = [0.0] * processes
        ways = []
        dropped, made_t = 0, 0.0
        for due_t in due:
            made_t = max(made_t + 1 / self.generator_per_s, due_t)
            if made_t >= end_t:
                dropped += due_t >= WARM_S
                continue
            began_t = max(heapq.heappop(free), made_t + self.late_s - 0.003)
            if stall_t <= began_t < stall_t + 0.6:
                began_t = stall_t + 0.6
            ended_t = began_t + run_s + store_s
            heapq.heappush(free, ended_t)
            ways.append((due_t, began_t, ended_t))
        inside = [way for way in ways if way[0] >= WARM_S]
        count = len(inside)
        behind_s = 0.0 if rate <= self.generator_per_s else end_t * (1 - self.generator_per_s / rate)
        return Figures(
            rate=rate,
            duration_s=WINDOW_S,
            workers=self.workers,
            processes=processes,
            offered=count + dropped,
            dropped=dropped,
            tasks=count,
            completed=sum(WARM_S <= ended_t < end_t for _, _, ended_t in ways),
            backlog_begin=sum(due_t < WARM_S <= ended_t for due_t, _, ended_t in ways),
            backlog_end=sum(ended_t >= end_t for _, _, ended_t in ways),
            stages={
                Stage.PUBLISH: summary([0.001] * count),
                Stage.QUEUE: summary([began_t - due_t for due_t, began_t, _ in inside]),
                Stage.RUN: summary([run_s] * count),
                Stage.STORE: summary([store_s] * count),
                Stage.E2E: summary([ended_t - due_t for due_t, _, ended_t in inside]),
            },
            lateness_p99_s=self.late_s + behind_s,
            generator_cpu=min(0.2 + 0.6 * rate / self.generator_per_s, 1.0),
        )

    def with_workers(self, rate: float) -> Callable[[int], Figures]:
        def probe(workers: int) -> Figures:
            self.workers = workers
            return self.probe(rate)

        return probe


def knee_of(model: Model, start: float = 50, objectives: Sequence[Objective] = ()) -> KneeFound:
    return find_knee(model.probe, start=start, objectives=objectives, say=lambda _: None)


@pytest.mark.parametrize("start", [0.5, 7, 50, 190, 1000, 20_000])
@pytest.mark.parametrize("arrival", list(Arrival))
def test_the_knee_is_found_from_wherever_the_search_begins(arrival: Arrival, start: float) -> None:
    model = Model(arrival)
    knee = knee_of(model, start)
    assert knee.rate == pytest.approx(200, rel=0.06)
    assert knee.rate is not None
    assert knee.above is not None
    assert knee.rate < knee.above <= knee.rate * 1.051
    assert not knee.is_at_least
    assert len(knee.probes) <= MOST_PROBES
    assert len(model.rates) <= MOST_PROBES + len(SHARES)
    assert knee.bottleneck is not None
    assert knee.bottleneck.what is Part.RUN
    assert "80% of that with it" in knee.text


def test_what_the_stack_completed_saves_probes() -> None:
    knee = knee_of(Model(), 50)
    # 50, 100, 200 and 400 a second, both sides of what was completed, and each end once more.
    assert len(knee.probes) <= 8
    assert len(knee_of(Model(), 3_000).probes) <= 6


@pytest.mark.parametrize("arrival", list(Arrival))
@pytest.mark.parametrize(("objectives", "capacity"), [((), 200), ((OBJECTIVE,), 190)])
def test_knees_of_one_noisy_machine_agree(arrival: Arrival, objectives: Sequence[Objective], capacity: float) -> None:
    rates = []
    for seed in range(12):
        chance = random.Random(seed)  # noqa: S311 - noise, no secret.
        model = Model(arrival, noise=0.02, hiccups=0.05, chance=chance)
        knee = knee_of(model, chance.uniform(20, 300), objectives)
        assert knee.rate is not None
        rates.append(knee.rate)
    assert max(rates) / min(rates) < 1.10, rates
    assert sum(rates) / len(rates) == pytest.approx(capacity, rel=0.06)


@pytest.mark.parametrize("at", [0, 1])
def test_a_hiccup_far_below_the_knee_does_not_hide_it(at: int) -> None:
    model = Model()

    def probe(rate: float) -> Figures:
        model.hiccups = 1.0 if len(model.rates) == at else 0.0
        figures = model.probe(rate)
        # The stall takes the end of the window, so that a backlog is seen.
        return figures if not model.hiccups else _stalled(figures)

    knee = find_knee(probe, start=50, objectives=(), say=lambda _: None)
    assert model.rates[at : at + 3] == [50 * 2**at] * 3
    assert knee.rate == pytest.approx(200, rel=0.05)


def _stalled(figures: Figures) -> Figures:
    return Figures(**{**vars(figures), "completed": figures.completed - 45, "backlog_end": figures.backlog_end + 45})


def test_a_rate_that_was_sustained_by_chance_is_not_believed() -> None:
    model = Model()
    lucky: list[float] = []

    def probe(rate: float) -> Figures:
        # The first probe above the capacity finds a machine that is faster than ever again.
        model.run_s = 0.006 if 205 < rate < 220 and not lucky else 0.008
        if model.run_s < 0.008:
            lucky.append(rate)
        return model.probe(rate)

    knee = find_knee(probe, start=50, objectives=(), say=lambda _: None)
    assert lucky
    assert knee.rate is not None
    assert knee.rate < lucky[0]
    assert knee.rate == pytest.approx(200, rel=0.05)


def test_an_objective_moves_the_knee() -> None:
    tight = knee_of(Model(Arrival.POISSON, run_s=0.08, store_s=0.01), 5, [Objective.parse("e2e:p99<200ms")])
    loose = knee_of(Model(Arrival.POISSON, run_s=0.08, store_s=0.01), 5)
    assert tight.rate is not None
    assert loose.rate is not None
    assert tight.rate < 0.9 * loose.rate
    assert "e2e p99 was" in tight.text
    assert "not e2e p99 < 200 ms" in tight.text


def test_a_generator_at_its_limit_leaves_a_knee_that_is_at_least_so_high() -> None:
    knee = knee_of(Model(generator_per_s=130))
    assert knee.rate == pytest.approx(130, rel=0.05)
    assert knee.is_at_least
    assert knee.bottleneck is not None
    assert knee.bottleneck.what is Part.GENERATOR
    assert knee.text.startswith(f"The knee is at least {knee.rate:g}/s")


def _taken_by_host(figures: Figures, stolen: float = 0.5) -> Figures:
    """Return the figures of a probe whose host took the share `stolen`; a third of its tasks did not end."""
    left = figures.tasks // 3
    return replace(figures, stolen=stolen, completed=figures.completed - left, backlog_end=figures.backlog_end + left)


@pytest.mark.parametrize("taken", [range(2), range(2, 6), range(3, 3 + MOST_VOID)])
def test_what_fails_while_the_host_takes_the_machine_away_does_not_move_the_knee(taken: range) -> None:
    model = Model()
    said: list[str] = []

    def probe(rate: float) -> Figures:
        figures = model.probe(rate)
        return _taken_by_host(figures) if len(model.rates) - 1 in taken else figures

    knee = find_knee(probe, start=50, objectives=(), say=said.append)
    undisturbed = knee_of(Model())
    assert (knee.rate, knee.above) == (undisturbed.rate, undisturbed.above)
    # All of them are told, in the figures as in words.
    assert len(knee.probes) == len(undisturbed.probes) + len(taken)
    assert sum("void, once more: " in line for line in said) == len(taken)
    assert f"{len(taken)} probes were void and made again: the host took up to 50%" in knee.text


def test_a_host_that_takes_next_to_nothing_makes_no_probe_void() -> None:
    model = Model()
    knee = find_knee(
        lambda rate: _taken_by_host(model.probe(rate), stolen=0.14), start=50, objectives=(), say=lambda _: None
    )
    # So few tasks are too few to be told from chance.
    assert knee.rate is not None
    assert knee.rate < 5
    assert "void" not in knee.text


def test_what_is_sustained_while_the_host_takes_the_machine_away_counts() -> None:
    model = Model()
    knee = find_knee(
        lambda rate: replace(model.probe(rate), stolen=0.0 if rate > 190 else 0.5),
        start=50,
        objectives=(),
        say=lambda _: None,
    )
    assert knee.rate == pytest.approx(200, rel=0.06)
    assert "void" not in knee.text


def test_a_host_that_never_leaves_off_ends_the_search() -> None:
    model = Model()
    knee = find_knee(lambda rate: _taken_by_host(model.probe(rate)), start=50, objectives=(), say=lambda _: None)
    assert knee.rate is not None
    assert knee.rate < 5
    assert MOST_VOID < len(knee.probes) <= MOST_VOID + MOST_PROBES
    assert "its machine's host took 50% of the processor time (steal), at which nobody can say" in knee.text
    assert f"{MOST_VOID} probes were void" in knee.text


def test_the_upper_end_of_a_knee_may_be_all_that_the_host_left_unknown() -> None:
    model = Model()

    def probe(rate: float) -> Figures:
        return _taken_by_host(model.probe(rate)) if rate > 100 else model.probe(rate)

    knee = find_knee(probe, start=50, objectives=(), say=lambda _: None)
    assert knee.rate == pytest.approx(100, rel=0.05)
    assert knee.is_at_least
    assert "The knee is at least 100/s" in knee.text
    assert "nobody can say" in knee.text


def test_no_worker_is_added_for_what_the_host_took() -> None:
    model = Model()

    def probe(workers: int) -> Figures:
        model.workers = workers
        figures = model.probe(150)
        return _taken_by_host(figures) if len(model.rates) <= 2 else figures

    found = find_workers(probe, rate=150, most=8, objectives=(), say=lambda _: None)
    assert found.count == 1
    assert len(found.probes) == 4
    assert "2 probes were void" in found.text


@pytest.mark.parametrize("objectives", [(), (Objective.parse("e2e:p99<500ms"),)])
def test_a_generator_that_is_always_a_little_late_finds_the_same_knee(objectives: Sequence[Objective]) -> None:
    model = Model(late_s=0.03)
    knee = knee_of(model, 50, objectives)
    assert knee.rate == pytest.approx(200, rel=0.06)
    assert not knee.is_at_least
    assert knee.bottleneck is not None
    assert knee.bottleneck.what is Part.RUN


def test_a_search_that_ends_before_anything_fails_says_so() -> None:
    model = Model(run_s=1e-7, store_s=0)
    cheap = model.probe(10)

    def probe(rate: float) -> Figures:
        model.rates.append(rate)
        return Figures(**{**vars(cheap), "rate": 10.0})

    knee = find_knee(probe, start=10, objectives=(), say=lambda _: None)
    assert len(knee.probes) == MOST_PROBES
    assert knee.rate == pytest.approx(10 * 2 ** (MOST_PROBES - 1), rel=0.01)
    assert knee.is_at_least
    assert knee.above is None
    assert knee.bottleneck is None
    assert "nothing faster was tried" in knee.text


def test_a_stack_that_does_nothing_has_no_knee_and_takes_few_probes() -> None:
    model = Model(run_s=1e6)
    knee = knee_of(model, 100)
    assert knee.rate is None
    assert knee.sweep == ()
    assert len(knee.probes) <= 3
    assert "not even 1/s was sustained" in knee.text
    assert "0 of " in knee.text


def test_an_objective_that_nothing_meets_leaves_no_knee() -> None:
    knee = knee_of(Model(), 100, [Objective.parse("e2e:p99<1ms")])
    assert knee.rate is None
    assert "e2e p99 was 10 ms: not e2e p99 < 1 ms. The limit is running tasks" in knee.text
    # At each rate twice: 100 a second, and four times less at each step down to one.
    assert len(knee.probes) == 10


def test_the_sweep_measures_each_share_of_the_knee_and_reuses_what_is_near() -> None:
    model = Model()
    knee = knee_of(model)
    assert knee.rate is not None
    assert [figures.rate for figures in knee.sweep] == pytest.approx([knee.rate * share for share in SHARES], rel=0.026)
    assert len(model.rates) < len(knee.probes) + len(SHARES)
    assert knee.sweep[5] in knee.probes
    assert knee.sweep[0].of(Stage.E2E).p99_s < 0.02 < knee.sweep[-1].of(Stage.E2E).p99_s


def test_a_sweep_that_contradicts_the_knee_says_so() -> None:
    model = Model()
    over = False

    def say(line: str) -> None:
        nonlocal over
        over = "of the knee" in line

    def probe(rate: float) -> Figures:
        # From the second point of the sweep the machine is three times slower.
        model.run_s = 0.03 if over else 0.008
        return model.probe(rate)

    knee = find_knee(probe, start=50, objectives=(), say=say)
    assert "the machine was not quiet" in knee.text


def test_a_search_tells_what_each_probe_found_and_survives_json() -> None:
    said: list[str] = []
    knee = find_knee(Model().probe, start=50, objectives=[OBJECTIVE], say=said.append)
    assert said[0] == f"probe 1 of at most {MOST_PROBES}: 50/s sustained, e2e p99 10 ms."
    assert any("not sustained: " in line for line in said)
    read = json.loads(json.dumps(knee.to_json(), allow_nan=False))
    assert read["rate"] == knee.rate
    assert Figures.from_json(read["sweep"][0]) == knee.sweep[0]
    assert read["bottleneck"]["what"] == "run"


def workers_for(model: Model, rate: float, most: int = 8) -> tuple[int | None, str, int]:
    found = find_workers(model.with_workers(rate), rate=rate, most=most, objectives=(), say=lambda _: None)
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["count"] == found.count
    return found.count, found.text, len(found.probes)


@pytest.mark.parametrize(("rate", "count"), [(50, 1), (190, 1), (230, 2), (390, 2), (900, 5)])
@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_the_fewest_workers_that_sustain_a_rate_are_found(rate: float, count: int, noise: float) -> None:
    found, text, probes = workers_for(Model(noise=noise), rate)
    assert found == count
    assert f"{rate:g}/s, and no fewer" in text
    assert probes <= count + 5


def test_too_few_workers_are_none_and_the_limit_is_named() -> None:
    found, text, probes = workers_for(Model(), 900, most=3)
    assert found is None
    assert probes == 3
    assert "3 workers did not sustain 900/s" in text
    assert "running tasks" in text


def test_workers_that_help_no_more_end_the_search() -> None:
    # One file takes the rows of all of them.
    model = Model(most_per_s=300)
    found = find_workers(model.with_workers(900), rate=900, most=8, objectives=(), say=lambda _: None)
    assert found.count is None
    assert max(figures.workers for figures in found.probes) == 4
    assert found.best_per_s == pytest.approx(300, rel=0.02)
    assert found.bottleneck is not None
    assert found.bottleneck.what is Part.STORE
    assert "added less than 3% each" in found.text


def test_workers_are_not_blamed_for_a_generator_that_cannot_make_the_rate() -> None:
    model = Model(generator_per_s=100)
    found = find_workers(model.with_workers(150), rate=150, most=8, objectives=(), say=lambda _: None)
    assert found.count is None
    assert {figures.workers for figures in found.probes} == {1}
    assert found.bottleneck is not None
    assert found.bottleneck.what is Part.GENERATOR


def test_one_hiccup_adds_no_worker() -> None:
    model = Model()

    def probe(workers: int) -> Figures:
        model.workers = workers
        figures = model.probe(150)
        return _stalled(figures) if len(model.rates) == 1 else figures

    found = find_workers(probe, rate=150, most=8, objectives=(), say=lambda _: None)
    assert found.count == 1
    assert len(found.probes) == 3
