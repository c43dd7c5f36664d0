"""The stack process: what it measures, how it judges, what it makes of several scenarios, and how it obeys."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any, Self, cast

import pytest

from harness.audit.audit import Audit
from harness.containers import broker_choice, images
from harness.errors import StartError, UsageError
from harness.loadtest import stack_process as module
from harness.loadtest.live_figures import Measure
from harness.loadtest.load_verdict import differences, judge
from harness.loadtest.messages import (
    Answer,
    Begin,
    Close,
    Closed,
    Done,
    Drop,
    EndedBadly,
    EndLeg,
    Expect,
    Failed,
    LegCounts,
    Measured,
    NumberedAnswer,
    NumberedOrder,
    Open,
    Opened,
    Order,
    Said,
    Say,
    SetWorkers,
    StackOrder,
)
from harness.loadtest.scenarios_together import promise, spec
from harness.loadtest.stack_process import StackProcess, serve
from harness.loadtest.stack_under_load import Account, StackUnderLoad
from harness.measure.figures import Figures, Objective
from harness.measure.load_account import Asked, LoadAccount
from harness.measure.stages import Stage
from harness.records.event import Event, Kind
from harness.records.expectation import Delivery, Effects, Promise
from harness.records.values import Json
from harness.records.verdict import Fate, Finding, Verdict
from harness.report import terminal
from harness.scenario import Scenario
from tests.fakes.leg import COUNTS, LEG, VALID

# ------------------------------------------------------------------------------------------------------- the measure


def event(kind: Kind, t: float, task: str = "t-1", node: str = "worker-1", **data: Json) -> Event:
    return Event(kind=kind, t=t, n=0, node=node, pid=1, task=task, data=data)


def life(task: str, due_t: float, node: str = "load", **ending: Json) -> list[Event]:
    """One task that took 10 ms to be published, 20 ms to begin, 30 ms to run, and 5 ms to be stored."""
    return [
        event(Kind.INTENDED, due_t, task, node, name="mail", due=due_t),
        event(Kind.ACCEPTED, due_t + 0.010, task, node),
        event(Kind.STARTED, due_t + 0.020, task),
        event(Kind.FINISHED, due_t + 0.055, task, state="SUCCESS", store_s=0.005, **ending),
    ]


def measured(measure: Measure, *lives: list[Event]) -> Measure:
    for event in sorted((one for life in lives for one in life), key=lambda one: one.t):
        measure.take(event)
    return measure


def test_a_leg_is_measured_in_its_window_and_all_tasks_in_all() -> None:
    measure = Measure()
    measure.open_window(1001.0, 1003.0)
    measured(measure, life("before", 1000.5), life("in", 1001.5), life("also", 1002.0), life("after", 1003.5))
    figures = measure.figures(LEG, workers=1, processes=2)
    assert (figures.tasks, figures.completed, figures.duration_s) == (2, 2, 2.0)
    assert figures.of(Stage.E2E).count == 2
    assert figures.of(Stage.E2E).p99_s == pytest.approx(0.055, rel=0.01)
    assert figures.of(Stage.RUN).p50_s == pytest.approx(0.030, rel=0.01)
    assert measure.histograms[Stage.E2E].count == 4
    assert measure.generated == 4


def test_a_window_that_ends_before_it_begins_has_no_length() -> None:
    measure = Measure()
    measure.open_window(1001.0, 4e9)
    figures = measure.figures(replace(LEG, until_t=1000.2), workers=1, processes=1)
    assert (figures.duration_s, figures.completed, figures.tasks) == (0.0, 0, 0)


def test_a_retry_is_no_further_task_and_what_tasks_send_was_not_generated() -> None:
    measure = Measure()
    measure.open_window(1000.0, 1010.0)
    measured(measure, life("one", 1001.0), life("child", 1002.0, node="worker-1"))
    measure.take(event(Kind.INTENDED, 1001.5, "one", "worker-1", name="mail", retries=1))
    assert measure.generated == 1
    assert measure.figures(LEG, workers=1, processes=1).tasks == 2


def test_what_happened_in_the_last_second_is_said_once() -> None:
    measure = Measure()
    measured(measure, life("one", 1001.0), life("two", 1001.1))
    live = measure.live(1002.0)
    said = live.sample
    assert (said.sent, said.accepted, said.ended, said.backlog) == (2, 2, 2, 0)
    assert said.stages[Stage.E2E].count == 2
    assert {one.stage.value for one in live.passed} == {"queue", "run", "store", "e2e"}
    json.dumps(live.to_json())
    again = measure.live(1003.0)
    assert (again.passed, again.errors, again.sample.stages) == ((), (), {})
    assert again.sample.in_per_s == again.sample.out_per_s == 0


def test_a_failure_is_an_error_of_its_task() -> None:
    measure = Measure()
    lives = life("one", 1001.0)
    measured(measure, [*lives[:3], event(Kind.FINISHED, 1001.1, "one", state="FAILURE", error="KeyError")])
    assert measure.live(1002.0).errors == (EndedBadly(name="mail", error="FAILURE: KeyError", count=1),)


# ------------------------------------------------------------------------------------------------------- the verdict


def audit(*findings: Finding, **fates: int) -> Audit:
    return Audit(
        name="load-shop",
        entries=sum(fates.values()) or 1,
        fates={fate: fates.get(fate.value, 0) for fate in Fate},
        findings=findings,
        e2e_ms={},
        workers={"worker-1": 1},
        memory_mb={},
        witnesses={},
    )


def finding(verdict: Verdict, code: str = "code") -> Finding:
    return Finding(code=code, verdict=verdict, count=1, text="text")


LATE = replace(VALID, lateness_p99_s=0.1)
MET, MISSED, UNSEEN = (Objective.parse(text) for text in ("e2e:p99<1s", "e2e:p99<200ms", "store:p99<1s"))
GOOD, BAD, UNSURE = audit(ok=100), audit(finding(Verdict.FAIL), lost=1), audit(finding(Verdict.UNKNOWN), ok=1)


@pytest.mark.parametrize(
    ("audited", "figures", "objectives", "exit_code"),
    [
        (GOOD, VALID, [], 0),
        (GOOD, VALID, [MET], 0),
        (GOOD, VALID, [MET, MISSED], 1),
        (GOOD, VALID, [UNSEEN], 3),
        (GOOD, VALID, [UNSEEN, MISSED], 1),
        (GOOD, LATE, [], 3),
        (GOOD, LATE, [MISSED], 3),
        (GOOD, replace(VALID, generator_cpu=0.9), [MISSED], 3),
        (GOOD, replace(VALID, stolen=0.2), [MISSED], 3),
        (GOOD, replace(VALID, stolen=0.1), [MISSED], 1),
        (GOOD, replace(VALID, stolen=0.9), [MET], 0),
        (BAD, replace(VALID, stolen=0.9), [MISSED], 1),
        (GOOD, replace(VALID, dropped=2), [], 3),
        (BAD, VALID, [], 1),
        (BAD, LATE, [], 1),
        (UNSURE, VALID, [MISSED], 3),
        (audit(finding(Verdict.UNKNOWN), unknown=1, ok=1), LATE, [], 1),
        (audit(finding(Verdict.UNKNOWN), pending=1, ok=1), VALID, [], 1),
        (audit(finding(Verdict.PASS), refused=1, ok=1), VALID, [], 0),
        (GOOD, None, [MISSED], 0),
    ],
)
def test_the_worst_counts(audited: Audit, figures: Figures | None, objectives: list[Objective], exit_code: int) -> None:
    judged = judge(audited, figures, objectives)
    assert judged.exit_code == exit_code, judged.reason
    assert judged.reason.endswith(".")


def test_a_run_that_was_broken_off_says_so_and_nothing_else_counts() -> None:
    judged = judge(GOOD, None, [], broken_off="the search was ended before it had found anything.")
    assert (judged.exit_code, judged.invalid) == (3, ("the search was ended before it had found anything.",))
    assert judge(BAD, None, [], broken_off="it was ended.").exit_code == 1


@pytest.mark.parametrize(
    ("changed", "generated", "via_http", "codes"),
    [
        ({}, 10, False, []),
        ({"offered": 13}, 10, False, ["offer-differs"]),
        ({"dropped": 1}, 10, False, ["offer-differs"]),
        ({"done": 8}, 10, False, ["offer-differs"]),
        ({}, 9, False, ["sent-differs"]),
        ({}, 11, False, ["sent-differs"]),
        ({"unknown": 0}, 10, False, ["sent-differs"]),
        ({}, 8, True, []),
        ({}, 7, True, ["sent-differs"]),
        ({}, 11, True, ["sent-differs"]),
    ],
)
def test_counts_that_differ_are_found(
    changed: Mapping[str, int], generated: int, *, via_http: bool, codes: list[str]
) -> None:
    found = list(differences(replace(COUNTS, **changed), generated, via_http=via_http, broken=[]))
    assert [one.code for one in found] == codes
    assert {one.verdict for one in found} <= {Verdict.UNKNOWN}


def test_what_went_wrong_in_a_generator_is_found() -> None:
    found = list(differences(COUNTS, 10, via_http=False, broken=["2 sends were still in flight after 30 s"]))
    assert [(one.code, one.text) for one in found] == [("generator-broken", "2 sends were still in flight after 30 s")]


# -------------------------------------------------------------------------------------------------- several scenarios


class Shop(Scenario):
    """A scenario that is nothing but what it says of itself."""

    app = "shop"

    def __init__(self, name: str, **said: Any) -> None:
        """Take the given attributes."""
        self.name = name
        for key, value in said.items():
            setattr(self, key, value)


def test_of_several_promises_the_weaker_holds() -> None:
    strong = Promise(delivery=Delivery.AT_MOST_ONCE, deadline_s=5, fairness=0.9, memory_growth_mb=1)
    weak = Promise(effects=Effects.ONCE_UNLESS_KILLED, deadline_s=60, fairness=0.5, memory_growth_mb=9)
    assert promise([Shop("one", promise=strong), Shop("two", promise=weak)]) == Promise(
        delivery=Delivery.AT_LEAST_ONCE,
        effects=Effects.ONCE_UNLESS_KILLED,
        deadline_s=60,
        fairness=0.5,
        memory_growth_mb=9,
    )
    none = Promise(recorded=False)
    both = promise([Shop("one", promise=strong), Shop("two", promise=none)])
    assert (both.deadline_s, both.fairness, both.memory_growth_mb, both.recorded) == (None, None, None, False)
    assert promise([Shop("one", promise=strong)]) == strong


ABOUT = Asked(rate="50", stages=None, arrival="constant", via="broker", loop="open")


def order(tmp_path: Path, **more: Any) -> Order:
    return Order(modules=("shop",), app_folder=tmp_path, root=tmp_path, about=ABOUT, **more)


def test_one_stack_has_all_that_its_scenarios_need(tmp_path: Path) -> None:
    one = Shop("one", env={"A": "1"}, worker_options=["--pool=solo"])
    other = Shop("two", env={"B": "2"}, mailbox=True)
    made = spec(order(tmp_path, workers=3), [one, other])
    assert (made.app, made.workers, made.mailbox, made.env) == ("shop", 3, True, {"A": "1", "B": "2"})
    assert made.options == ("--pool=solo",)
    assert spec(order(tmp_path, app="other", worker_options=("-c", "4")), [one]).options == ("-c", "4")


def test_a_stack_has_a_link_if_a_fault_needs_one(tmp_path: Path) -> None:
    assert spec(order(tmp_path, faults=("kill-worker@1s", "latency-worker@5s")), [Shop("one")]).link
    assert not spec(order(tmp_path, faults=("kill-worker@1s",)), [Shop("one")]).link


def test_what_neither_scenarios_nor_options_say_is_taken_from_the_settings_of_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HARNESS_WORKERS", raising=False)
    (tmp_path / "src").mkdir()
    text = 'app = "till"\nworkers = 3\noptions = ["-P", "solo"]\nfolder = "src"\nenv = { A = "0", C = "3" }'
    (tmp_path / "harness.toml").write_text(text)
    made = spec(order(tmp_path), [Shop("one", env={"A": "1"})])
    # The order has found the folder already.
    assert (made.app, made.app_folder, made.workers) == ("shop", tmp_path, 3)
    assert (made.options, made.env) == (("-P", "solo"), {"A": "1", "C": "3"})
    below = replace(order(tmp_path / "src", workers=1, worker_options=("-c", "4")), project=tmp_path)
    made = spec(below, [Shop("one", app=""), Shop("two", app="")])
    assert (made.app, made.app_folder, made.workers, made.options) == ("till", tmp_path / "src", 1, ("-c", "4"))


def test_a_stack_has_a_broker_of_its_own_if_a_fault_needs_it(tmp_path: Path) -> None:
    faults = ("kill-broker@1s", "memory-alarm@1s", "kill-worker@1s", "pause-broker@1s")
    made = [spec(order(tmp_path, faults=("noop@0s", fault)), [Shop("one")]) for fault in faults]
    assert [one.own_broker for one in made] == [True, True, False, False]


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ({"app": "till"}, "--app"),
        ({"worker_options": ["--pool=solo"]}, "--worker-option"),
        ({"env": {"A": "2"}}, "different values of A"),
    ],
)
def test_scenarios_that_do_not_go_together_are_refused(tmp_path: Path, said: Mapping[str, Any], advice: str) -> None:
    one = Shop("one", env={"A": "1"}, worker_options=["--pool=prefork"])
    with pytest.raises(UsageError, match=advice):
        spec(order(tmp_path), [one, Shop("two", **said)])


SHOP = """
from harness.scenario import Scenario

class Shop(Scenario):
    name = "keeper-shop"
    app = "shop"

scenario = Shop()
"""


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"faults": ["shave-the-cat@3s"]}, "no fault 'shave-the-cat'"),
        ({"faults": ["noop@3s"], "broker_url": "amqp://host", "results_url": "sqlite://"}, "a stack of one's own"),
        ({"via_http": True}, "cannot be driven over HTTP"),
        ({"objectives": ["soon"]}, "no objective"),
        ({"workers": -1}, "workers of the command line is -1"),
    ],
)
def test_an_order_that_cannot_be_is_refused_before_anything_starts(
    tmp_path: Path, said: Mapping[str, Any], reason: str
) -> None:
    (tmp_path / "loaded_shop.py").write_text(SHOP)
    with pytest.raises(UsageError, match=reason):
        StackUnderLoad(replace(order(tmp_path), modules=("loaded_shop",), **said), lambda *_, **__: None)


# --------------------------------------------------------------------------------------------------------- the orders


class FakeSharedParts:
    """Starts nothing, and knows when it was closed."""

    made: list["FakeSharedParts"]

    def __init__(self, say: object) -> None:
        """Nobody is told anything."""
        del say
        self.is_closed = False
        self.made.append(self)

    def start(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.is_closed = True


WELL = LoadAccount(
    is_open=True,
    exit_code=0,
    reason="all is well.",
    invalid=(),
    objectives=(),
    bottleneck=None,
    figures=VALID,
    probes=(),
    stages={},
    backlog_max=0,
    workers={},
    faults=(),
    drained_s=0.0,
    counts=COUNTS,
    search=None,
)


class FakeStackUnderLoad:
    """A load test that does as it is told."""

    made: list["FakeStackUnderLoad"]
    fails_at: str | None = None

    def __init__(self, order: Order, tell: object) -> None:
        """Nothing was done yet."""
        del order, tell
        self.done: list[Any] = []
        self.made.append(self)

    def _do(self, what: str, *more: Any) -> None:
        self.done.append((what, *more) if more else what)
        if what == self.fails_at:
            error = StartError("worker-1 exited.\nIts last log lines: none")
            error.add_note("and it could not be removed")
            raise error

    def up(self, session: object) -> Opened:
        assert session is FakeSharedParts.made[0]
        self._do("up")
        return Opened(folder=Path("runs/1"), broker_url="amqp://here", web_url=None)

    def begin(self, t: float) -> None:
        self._do("begin", t)

    def expect(self, begin_t: float, end_t: float) -> None:
        self._do("expect", begin_t, end_t)

    def leg(self, leg: LegCounts) -> Figures:
        self._do("leg", leg)
        return VALID

    def set_workers(self, count: int) -> None:
        self._do("workers", count)

    def account(self, close: Close) -> Account:
        assert close.counts == COUNTS
        self._do("account")
        return Account(said=WELL, audited=GOOD, folder=Path("runs/1"))

    def down(self) -> None:
        self._do("down")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Said]:
    FakeSharedParts.made, FakeStackUnderLoad.made = [], []
    monkeypatch.setattr(module, "SharedParts", FakeSharedParts)
    monkeypatch.setattr(module, "connect", StringIO)
    monkeypatch.setattr(images, "ensure", lambda _client, image, *, say: say(f"{image} is present"))
    monkeypatch.setattr(module, "StackUnderLoad", FakeStackUnderLoad)
    monkeypatch.setattr(terminal, "load", lambda *_: ["the report"])
    return []


OPEN = Open(order=order(Path()))
CLOSE = Close(counts=COUNTS, steps={}, broken=(), leg=LEG, search=None, broken_off=None)


def given(told: list[Said], *orders: StackOrder) -> list[Answer]:
    """Give the orders, and return the answers."""
    with StackProcess(told.append) as stack_process:
        serve(stack_process, (NumberedOrder(number=number, order=one).to_line() for number, one in enumerate(orders)))
    answers = [one for one in told if isinstance(one, NumberedAnswer)]
    assert [one.number for one in answers] == list(range(len(orders)))
    return [one.answer for one in answers]


def test_a_load_test_is_opened_driven_and_closed(told: list[Said]) -> None:
    answers = given(
        told, OPEN, Expect(begin_t=1.0, end_t=2.0), Begin(t=0.5), SetWorkers(count=2), EndLeg(leg=LEG), CLOSE
    )
    closed = answers[-1]
    assert isinstance(closed, Closed)
    assert {one.name for one in closed.checks} >= {"every task is accounted for", "the load test passes"}
    assert "100 tasks were sent: 100 ok" in closed.summary
    assert [*answers[:-1], replace(closed, checks=(), summary="")] == [
        Opened(folder=Path("runs/1"), broker_url="amqp://here", web_url=None),
        Done(),
        Done(),
        Done(),
        Measured(figures=VALID),
        Closed(report="the report\n", folder=Path("runs/1"), exit_code=0, left=None),
    ]
    (loaded,) = FakeStackUnderLoad.made
    steps = ["up", ("expect", 1.0, 2.0), ("begin", 0.5), ("workers", 2), ("leg", LEG), "account", "down"]
    assert loaded.done == steps
    assert FakeSharedParts.made[0].is_closed


def test_before_the_session_only_the_image_of_the_broker_is_built(told: list[Said]) -> None:
    given(told, OPEN)
    assert [one for one in told if isinstance(one, Say)] == [Say(line=f"{broker_choice.IMAGE} is present")]


def test_two_load_tests_share_a_session(told: list[Said]) -> None:
    given(told, OPEN, CLOSE, OPEN, Drop())
    assert [one.done for one in FakeStackUnderLoad.made] == [["up", "account", "down"], ["up", "down"]]
    assert len(FakeSharedParts.made) == 1


def test_what_nobody_closed_is_taken_down_at_the_end_and_before_the_next(told: list[Said]) -> None:
    given(told, OPEN, OPEN)
    assert [one.done for one in FakeStackUnderLoad.made] == [["up", "down"], ["up", "down"]]


@pytest.mark.parametrize("fails_at", ["up", "account"])
def test_what_goes_wrong_is_answered_and_taken_down(
    told: list[Said], monkeypatch: pytest.MonkeyPatch, fails_at: str
) -> None:
    monkeypatch.setattr(FakeStackUnderLoad, "fails_at", fails_at)
    answers = given(told, OPEN, CLOSE, OPEN)
    bad = answers[0 if fails_at == "up" else 1]
    text = "worker-1 exited.\nIts last log lines: none\nand it could not be removed"
    assert bad == Failed(text=text)
    assert FakeStackUnderLoad.made[0].done[-1] == "down"
    # And the next load test is none the worse for it.
    assert len(FakeStackUnderLoad.made) == 2


def test_an_account_outlives_a_stack_that_cannot_be_taken_down(
    told: list[Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeStackUnderLoad, "fails_at", "down")
    answers = given(told, OPEN, CLOSE, OPEN, CLOSE)
    for closed in (answers[1], answers[3]):
        assert isinstance(closed, Closed)
        assert (closed.report, closed.exit_code) == ("the report\n", 0)
        assert (closed.left or "").startswith("worker-1 exited.")


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"do": "dance"}, "knows no order 'dance'"),
        ({"do": "begin", "t": 1.0}, "no load test is open"),
        ({"do": "begin"}, "Begin has no `t`"),
        ({"do": "close", **CLOSE.to_json()}, "no load test is open"),
        ({"do": "open", "order": {}}, "Order has no `modules`: {}."),
    ],
)
def test_an_order_that_makes_no_sense_is_an_error_and_no_end(
    told: list[Said], capsys: pytest.CaptureFixture[str], wrong: Mapping[str, Json], reason: str
) -> None:
    lines = [json.dumps({**wrong, "id": 0}), NumberedOrder(number=1, order=OPEN).to_line()]
    with StackProcess(told.append) as stack_process:
        serve(stack_process, iter(lines))
    failed, opened = (one.answer for one in told if isinstance(one, NumberedAnswer))
    assert isinstance(failed, Failed)
    assert reason in failed.text
    assert isinstance(opened, Opened)
    assert "Traceback" not in capsys.readouterr().err


def test_what_nobody_expected_is_an_error_and_no_end(
    told: list[Said], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeStackUnderLoad, "begin", None)
    _, failed, opened = given(told, OPEN, Begin(t=1.0), OPEN)
    assert isinstance(failed, Failed)
    assert "unexpected, please report it: TypeError" in failed.text
    assert isinstance(opened, Opened)
    assert "Traceback" in capsys.readouterr().err


def test_a_line_that_is_no_order_is_told_and_no_end(told: list[Said]) -> None:
    with StackProcess(told.append) as stack_process:
        serve(stack_process, iter(["no order", NumberedOrder(number=1, order=OPEN).to_line()]))
    assert told[0] == Say(line="a message of the load test is no JSON: 'no order'.")
    assert isinstance(told[-1], NumberedAnswer)


def test_what_is_taken_down_is_shielded(told: list[Said]) -> None:
    depth, seen = 0, []

    @contextmanager
    def shield() -> Iterator[None]:
        nonlocal depth
        depth += 1
        yield
        depth -= 1

    with StackProcess(told.append, shield) as stack_process:
        stack_process.open(order(Path.cwd()))
        loaded = FakeStackUnderLoad.made[0]
        cast("Any", loaded).down = lambda: seen.append(depth)
    assert seen == [2]
