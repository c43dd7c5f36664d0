"""What the processes of a load test tell each other: each message comes through as it was, or is a clear error."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.errors import RecordError
from harness.loadtest.arrivals import Plan
from harness.loadtest.messages import (
    Begin,
    Check,
    Close,
    Closed,
    Done,
    Drop,
    EndedBadly,
    EndLeg,
    Expect,
    Failed,
    Live,
    Measured,
    NumberedAnswer,
    NumberedOrder,
    Open,
    Opened,
    Order,
    PassedStage,
    Said,
    Say,
    SetWorkers,
    StackOrder,
    line_of,
    said_in,
)
from harness.loadtest.worker_messages import Frozen, Go, JournalPart, Offer, WindowCounts
from harness.measure.figures import Bottleneck, Part
from harness.measure.load_account import Asked, Counts, KneeFound, Quantiles, Sample, Search, WorkersFound
from harness.measure.stages import Stage
from harness.records.check import Check as RunCheck
from harness.records.typed_json import Record
from harness.records.values import Json
from harness.records.verdict import Verdict
from tests.fakes.leg import COUNTS, LEG, VALID

CHECK = RunCheck(name="the load test passes", verdict=Verdict.FAIL, kind="fail", text="too slow")
ORDER = Order(
    modules=("shop", "till"),
    app_folder=Path("/here"),
    root=Path("/here/runs"),
    about=Asked(rate="50", stages="50:10s", arrival="poisson", via="http", loop="open"),
    worker_options=("-c", "4"),
    options={"shop": {"size": [1, {"of": None}]}},
    objectives=("e2e:p99<1s",),
    faults=("kill-worker@20s",),
)
LIMIT = Bottleneck(what=Part.RUN, sentence="The limit is running tasks.")
KNEE = KneeFound(
    rate=400.0, above=None, is_at_least=True, probes=(VALID,), sweep=(), bottleneck=LIMIT, text="The knee."
)
WORKERS = WorkersFound(count=2, rate=400.0, best_per_s=410.5, probes=(VALID,), bottleneck=None, text="2 workers.")
CLOSE = Close(
    counts=COUNTS,
    steps={"shop": ((0, 10, 2), (1, 11, 2))},
    broken=("step 1 of shop: KeyError",),
    leg=LEG,
    search=None,
    broken_off=None,
)
CLOSES = (
    CLOSE,
    Close(counts=Counts(), steps={}, broken=(), leg=None, search=Search(knee=KNEE, text="The knee."), broken_off=None),
    Close(
        counts=Counts(), steps={}, broken=(), leg=None, search=Search(workers=WORKERS, text="2."), broken_off="ended."
    ),
)
ORDERS: tuple[StackOrder, ...] = (
    Check(order=ORDER),
    Open(order=ORDER),
    Expect(begin_t=1.5, end_t=4e9),
    Begin(t=1.5),
    EndLeg(leg=LEG),
    SetWorkers(count=3),
    *CLOSES,
    Drop(),
)


@pytest.mark.parametrize("order", ORDERS, ids=lambda one: type(one).__name__)
def test_an_order_comes_through_as_it_was(order: StackOrder) -> None:
    given = NumberedOrder(number=7, order=order)
    line = given.to_line()
    assert (line.count("\n"), line[-1]) == (1, "\n")
    assert NumberedOrder.from_line(line) == given


LIVE = Live(
    sample=Sample(
        t=1.0,
        sent=3,
        begun_on={"worker-1": 2},
        stages={Stage.RUN: Quantiles(count=1, p50=1.5, p95=1.5, p99=1.5, max=1.5)},
        up={"worker-1": True},
    ),
    passed=(PassedStage(name="mail", stage=Stage.RUN, durations_ms=(1.5, 2)),),
    errors=(EndedBadly(name="mail", error="FAILURE: KeyError", count=1),),
)
SAID: tuple[Said, ...] = (
    Say(line="preparing shop"),
    LIVE,
    Live(sample=Sample(t=1.0), passed=(), errors=()),
    *(
        NumberedAnswer(number=7, answer=answer)
        for answer in (
            Done(),
            Opened(folder=Path("/runs/1"), broker_url="amqp://here", web_url=None),
            Measured(figures=VALID),
            Closed(
                report="the report\n",
                folder=Path("/runs/1"),
                exit_code=3,
                left="worker-1 is still there.",
                checks=(CHECK,),
            ),
            Failed(text="no engine answers."),
        )
    ),
)


@pytest.mark.parametrize("said", SAID)
def test_what_the_stack_process_says_comes_through_as_it_was(said: Said) -> None:
    assert said_in(line_of(said)) == said
    assert said_in(line_of(said).encode()) == said


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"do": "dance"}, "the stack process knows no order 'dance': {'do': 'dance', 'id': 7}."),
        ({"do": ["open"]}, "the stack process knows no order ['open']"),
        ({}, "the stack process knows no order None"),
        ({"do": "check", "order": {**ORDER.to_json(), "modules": "shop"}}, "`modules` of Order should be a list"),
        ({"do": "open"}, "Open has no `order`"),
        ({"do": "expect", "begin_t": 1.0, "end_t": None}, "`end_t` of Expect should be a number, and is None."),
        ({"do": "begin", "t": "now"}, "`t` of Begin should be a number, and is 'now'."),
        ({"do": "leg", "leg": {**LEG.to_json(), "is_open": 1}}, "`is_open` of LegCounts should be true or false"),
        ({"do": "workers", "count": 1.5}, "`count` of SetWorkers should be a whole number, and is 1.5."),
        ({"do": "close", **CLOSE.to_json(), "steps": {"shop": [[1, 2]]}}, "`steps` of Close should be a list of 3"),
        ({"do": "close", **CLOSE.to_json(), "search": {"knee": {}}}, "Search has no `text`"),
    ],
)
def test_an_order_that_cannot_be_read_is_answered_with_what_was_seen(wrong: dict[str, Json], reason: str) -> None:
    given = NumberedOrder.from_line(json.dumps({**wrong, "id": 7}))
    assert isinstance(given, NumberedAnswer)
    assert given.number == 7
    assert isinstance(given.answer, Failed)
    assert given.answer.text.startswith(reason)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("open, please", "a message of the load test is no JSON: 'open, please'."),
        ("[]", r"should be an object, and is \[\]."),
        ('{"do": "drop"}', "an order has no `id`"),
        ('{"do": "drop", "id": "one"}', "`id` of Numbered should be a whole number, and is 'one'."),
    ],
)
def test_an_order_without_a_number_is_an_error(line: str, reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        NumberedOrder.from_line(line)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"said": "nothing"}, "the stack process never says 'nothing'"),
        ({"said": "nothing", "id": 1}, "the stack process never answers 'nothing'"),
        ({"said": "say", "id": 1, "line": "x"}, "the stack process never answers 'say'"),
        ({"said": "say"}, "Say has no `line`"),
        ({"said": "live", **LIVE.to_json(), "passed": [{"name": "mail"}]}, "PassedStage has no `stage`"),
        ({"said": "live", **LIVE.to_json(), "errors": None}, "`errors` of Live should be a list, and is None."),
        ({"said": "live", "sample": {"t": 1.0, "stages": {"run": {"count": 1}}}}, "Quantiles has no `p50`"),
        ({"said": "opened", "id": 1, "folder": 1}, "`folder` of Opened should be a path, and is 1."),
        ({"said": "measured", "id": 1, "figures": None}, "Figures should be an object, and is None."),
        ({"said": "closed", "id": 1, "report": ""}, "Closed has no `folder`"),
        ({"said": "error", "id": 1}, "Failed has no `text`"),
    ],
)
def test_what_the_stack_process_never_says_is_an_error_that_names_it(wrong: dict[str, Json], reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        said_in(json.dumps(wrong))


def test_bytes_that_are_no_text_are_an_error() -> None:
    with pytest.raises(RecordError, match="is no JSON"):
        said_in(b'{"said": "\xff"}\n')


# --------------------------------------------------------------------------------------------- a master and its workers

GO = Go(
    run="run",
    leg=7,
    plan=Plan.steady(10),
    begin_t=1.5,
    window=(2.5, 4e9),
    broker_url="amqp://here",
    web_url=None,
    scenarios=(("Mails", 1.0),),
    bases={"shop": 3},
    seed=1,
    is_open=True,
    journal="/runs/1/journal",
)
OFFER = Offer(
    counts=CLOSE.counts,
    window=WindowCounts(offered=2, dropped=1),
    lateness="HISTF",
    cpu=0.5,
    steps={"shop": (0, 10, 2)},
    broken=("step 1 of shop: KeyError",),
    until_t=9.5,
)
PART = JournalPart(run="run", name="load.1.2.jsonl", offset=4, bytes=b"\x00\xff")


@pytest.mark.parametrize("one", [GO, Frozen(leg=7, offer=OFFER), Frozen(leg=7, offer=Offer()), PART])
def test_a_message_of_a_master_or_a_worker_comes_through_as_it_was(one: Record) -> None:
    assert type(one).from_json(one.to_json()) == one


@pytest.mark.parametrize(
    ("kind", "wrong", "reason"),
    [
        (Go, {**GO.to_json(), "plan": {"stages": 1}}, "`plan` of Go should be of Plan, and is {'stages': 1}."),
        (Go, {**GO.to_json(), "window": [1.0]}, r"`window` of Go should be a list of 2, and is \[1.0\]."),
        (Go, None, "Go should be an object, and is None."),
        (Frozen, {"leg": 7, "offer": {"cpu": "much"}}, "`cpu` of Offer should be a number, and is 'much'."),
        (Frozen, {"leg": 7}, "Frozen has no `offer`"),
        (JournalPart, {**PART.to_json(), "bytes": "text"}, "`bytes` of JournalPart should be bytes, and is 'text'."),
    ],
)
def test_a_message_that_cannot_be_read_is_an_error_that_names_what_was_seen(
    kind: type[Record], wrong: Any, reason: str
) -> None:
    with pytest.raises(RecordError, match=reason):
        kind.from_json(wrong)
