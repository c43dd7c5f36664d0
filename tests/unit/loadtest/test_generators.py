"""The generator: each arrival when it is due, and counts that add up however a leg ends."""

import faulthandler
import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import gevent
import pytest

from harness.loadtest.arrivals import Plan, RateStage
from harness.loadtest.generators import PATIENCE_S, Generator, _answered, _Mix
from harness.loadtest.processor_time import MachineTimes
from harness.loadtest.worker_messages import Go
from harness.measure.stages import Histogram
from harness.producer import Producer, Sent
from harness.records.event import Kind
from harness.records.journal import Writer
from harness.scenario import Scenario

ROOT = Path(__file__).parents[3]


class Clock:
    """Time that passes when somebody sleeps, and then for all."""

    def __init__(self) -> None:
        """Set the clock to a thousand seconds past the epoch."""
        self.t = 1000.0

    def now(self) -> float:
        return self.t

    def sleep(self, duration_s: float) -> None:
        self.t += duration_s
        # Whoever is ready has its turn, and whoever that wakes up.
        for _ in range(4):
            gevent.sleep(0)


class Outgoing:
    """Stands for a producer: takes what is sent, at once."""

    def __init__(self, tally: Any) -> None:
        """Count in `tally`."""
        self.tally = tally
        self.due: list[float] = []
        self._due_t = 0.0

    def at(self, due_t: float) -> "Outgoing":
        self._due_t = due_t
        return self

    def send(self, *_: Any, **__: Any) -> Sent:
        self.due.append(self._due_t)
        self.tally[Kind.ACCEPTED.value] += 1
        return Sent(task="t", outcome=Kind.ACCEPTED)

    def close(self) -> None:
        pass


class Gate(Scenario):
    """Each step waits until somebody lets it through, or fails if it is told to."""

    name = "gate"
    app = "gate"

    def __init__(self) -> None:
        """Every step may pass."""
        self.open = gevent.event.Event()
        self.open.set()
        self.numbers: list[int] = []
        self.breaks_at: set[int] = set()

    def step(self, producer: Producer, number: int, seed: int) -> None:
        del seed
        self.numbers.append(number)
        self.open.wait()
        if number in self.breaks_at:
            raise KeyError("on purpose")
        producer.send("task")


class Sender(Generator):
    """A generator whose producer needs no broker."""

    outgoing: Outgoing

    def _sends_with(self, broker_url: str, journal: Writer) -> Producer:
        del broker_url, journal
        self.outgoing = Outgoing(self._tally)
        return cast("Producer", self.outgoing)


class Bench:
    """A generator with its clock, its scenario, and what it told Locust."""

    def __init__(self, journal: Path) -> None:
        """Write the journal to that folder."""
        self.clock, self.scenario = Clock(), Gate()
        self.fired: list[tuple[str, str, float, Exception | None]] = []
        self.generator = Sender(
            {"Gate": self.scenario},
            lambda *told: self.fired.append(told),
            now=self.clock.now,
            sleep=self.clock.sleep,
        )
        self.journal = journal
        self.users: list[gevent.Greenlet[[], None]] = []

    def go(self, rate: float = 10.0, duration_s: float = 1.0, **more: Any) -> None:
        plan = Plan(stages=(RateStage(rate=rate, duration_s=duration_s),))
        begin_t = self.clock.t
        go = Go(
            run="run",
            leg=0,
            plan=plan,
            begin_t=begin_t,
            window=(begin_t, begin_t + duration_s),
            broker_url="",
            web_url=None,
            scenarios=(("Gate", 1.0),),
            bases={},
            seed=1,
            is_open=True,
            journal=str(self.journal),
        )
        self.generator.go(replace(go, **more))

    def start_users(self, count: int) -> None:
        self.users += [gevent.spawn(self.generator.serve) for _ in range(count)]
        gevent.sleep(0)

    def run(self, turns: int = 100) -> None:
        for _ in range(turns):
            gevent.sleep(0)

    def freeze(self) -> Mapping[str, Any]:
        said = self.generator.freeze()
        counts = said.counts
        assert counts.offered == counts.sent + counts.dropped, counts
        return cast("Mapping[str, Any]", json.loads(json.dumps(said.to_json())))


@pytest.fixture(scope="module", autouse=True)
def _hub() -> Iterator[None]:
    """Destroy the hub of this module's greenlets, which would keep other libraries from ending properly."""
    yield
    gevent.get_hub().destroy(destroy_loop=True)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    gevent.killall(made.users)
    made.generator.close()


def test_what_lives_before_a_run_is_not_looked_at_for_garbage_while_it_lasts(bench: Bench) -> None:
    bench.start_users(1)
    assert gc.get_freeze_count() == 0
    bench.go(rate=10, duration_s=1)
    assert gc.get_freeze_count() > 10_000
    bench.run()
    bench.freeze()
    bench.generator.close()
    assert gc.get_freeze_count() == 0


def test_every_arrival_is_sent_once_with_the_time_it_was_due(bench: Bench) -> None:
    bench.start_users(3)
    bench.go(rate=10, duration_s=1)
    bench.run()
    said = bench.freeze()
    assert said["counts"] == {
        "offered": 10,
        "sent": 10,
        "dropped": 0,
        "done": 10,
        "broken": 0,
        "accepted": 10,
        "refused": 0,
        "unknown": 0,
    }
    assert bench.generator.outgoing.due == pytest.approx([1000 + number / 10 for number in range(10)])
    assert bench.scenario.numbers == list(range(10))
    assert said["steps"] == {"gate": [0, 10, 1]}
    assert said["window"] == {"offered": 10, "dropped": 0}
    assert said["broken"] == []


def test_what_the_host_took_from_the_machine_is_told_of_each_leg(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([MachineTimes(7, 1000), MachineTimes(9, 1010), MachineTimes(20, 2000), MachineTimes(20, 2010)])
    monkeypatch.setattr(MachineTimes, "read", lambda: next(times))
    bench.go(rate=10, duration_s=1)
    assert bench.freeze()["stolen"] == pytest.approx(2 / 10)
    bench.go(rate=10, duration_s=1)
    assert bench.freeze()["stolen"] == 0.0


@pytest.mark.skipif(sys.platform != "linux", reason="no other system has these calls")
def test_arrivals_by_a_plan_come_before_whatever_else_the_machine_does_and_only_those(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(os, "sched_setscheduler", lambda _pid, policy, _param: asked.append(policy))
    first, as_any = (policy | os.SCHED_RESET_ON_FORK for policy in (os.SCHED_RR, os.SCHED_OTHER))
    bench.go(rate=10, duration_s=1)
    assert asked == [first]
    bench.freeze()
    assert asked == [first, as_any]
    # Whoever sends as fast as can be would leave nothing to the stack.
    bench.go(is_open=False)
    bench.freeze()
    assert first not in asked[1:]
    # A run that is broken off is not frozen.
    bench.go(rate=10, duration_s=1)
    bench.generator.close()
    assert asked[-2:] == [first, as_any]


@pytest.mark.skipif(sys.platform != "linux", reason="no other system has these calls")
def test_a_generator_that_may_not_come_first_does_without(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    bench.start_users(1)
    bench.go(rate=10, duration_s=1)
    bench.run()
    assert bench.freeze()["counts"]["sent"] == 10


def test_a_share_takes_the_numbers_of_its_share_and_begins_where_the_last_leg_ended(bench: Bench) -> None:
    bench.start_users(1)
    plan = Plan(stages=(RateStage(rate=10, duration_s=1),), share=1, shares=2)
    bench.go(plan=plan, bases={"gate": 100})
    bench.run()
    assert bench.freeze()["steps"] == {"gate": [101, 111, 2]}
    assert bench.scenario.numbers == [101, 103, 105, 107, 109]


def test_what_no_sender_takes_in_time_is_dropped_and_told(bench: Bench) -> None:
    bench.go(rate=1, duration_s=10)
    bench.run()
    said = bench.freeze()
    assert said["counts"]["dropped"] == said["counts"]["offered"] == 10
    assert said["counts"]["sent"] == 0
    reasons = {str(error) for *_, error in bench.fired}
    assert reasons == {f"no sender was free for {PATIENCE_S:g} s", "the leg was over before a sender was free"}
    assert said["window"] == {"offered": 10, "dropped": 10}


def test_a_leg_ended_early_offers_nothing_that_was_due_later(bench: Bench) -> None:
    bench.start_users(2)
    bench.go(rate=10, duration_s=3600)
    while bench.clock.t < 1001.05:
        gevent.sleep(0)
    offered = bench.freeze()["counts"]["offered"]
    assert offered == len(bench.generator.outgoing.due)
    bench.run()
    assert bench.freeze()["counts"]["offered"] == offered


def test_a_sender_killed_in_the_midst_of_a_send_lets_the_send_come_to_its_end(bench: Bench) -> None:
    bench.scenario.open.clear()
    bench.start_users(2)
    bench.go(rate=10, duration_s=0.2)
    bench.run()
    gevent.killall(bench.users)
    assert len(bench.scenario.numbers) == 2
    gevent.spawn(bench.scenario.open.set)
    said = bench.freeze()
    assert said["counts"]["done"] == said["counts"]["accepted"] == 2
    assert said["broken"] == []


def test_a_send_that_never_ends_is_told_and_not_waited_for_for_ever(bench: Bench) -> None:
    bench.scenario.open.clear()
    bench.start_users(2)
    bench.go(rate=10, duration_s=0.2)
    bench.run()
    said = bench.freeze()
    assert said["broken"] == ["2 sends were still in flight after 30 s"]
    assert (said["counts"]["sent"], said["counts"]["done"]) == (2, 0)
    bench.scenario.open.set()


def test_a_step_that_raises_is_counted_and_the_others_go_on(bench: Bench) -> None:
    bench.scenario.breaks_at = {1}
    bench.start_users(1)
    bench.go(rate=10, duration_s=0.5)
    bench.run()
    said = bench.freeze()
    assert (said["counts"]["done"], said["counts"]["broken"], said["counts"]["accepted"]) == (4, 1, 4)
    assert said["broken"] == ["step 1 of gate: KeyError: 'on purpose'"]


def test_a_late_generator_is_measured(bench: Bench) -> None:
    bench.start_users(1)
    bench.go(rate=10, duration_s=1)
    # Something holds the whole process up.
    bench.clock.t += 0.5
    bench.run()
    lateness = Histogram.decode(bench.freeze()["lateness"])
    assert lateness.quantile_s(0.99) == pytest.approx(0.5, rel=0.01)


def test_a_closed_loop_sends_again_when_a_send_is_done_and_stops_at_once(bench: Bench) -> None:
    bench.start_users(1)
    bench.go(is_open=False)
    while len(bench.scenario.numbers) < 5:
        gevent.sleep(0)
    said = bench.freeze()
    sent = said["counts"]["sent"]
    assert said["counts"]["done"] == sent >= 5
    bench.run()
    assert len(bench.scenario.numbers) == sent


def test_each_run_counts_anew_and_each_leg_goes_on_counting(bench: Bench) -> None:
    bench.start_users(1)
    for total in (5, 10):
        bench.go(rate=10, duration_s=0.5)
        bench.run()
        assert bench.freeze()["counts"]["offered"] == total
    bench.generator.close()
    bench.go(rate=10, duration_s=0.5)
    bench.run()
    assert bench.freeze()["counts"]["offered"] == 5


def test_the_scenarios_are_dealt_out_by_their_weights() -> None:
    one, other = Gate(), Gate()
    mix = _Mix([(one, 1.0), (other, 0.25)])
    given = [mix.next() for _ in range(100)]
    assert (given.count(one), given.count(other)) == (80, 20)
    assert given[:10].count(other) == 2


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (202, b"{}", Kind.ACCEPTED),
        (503, b'{"outcome": "refused", "detail": "no connection"}', Kind.REFUSED),
        (504, b'{"outcome": "unknown", "detail": "no confirm"}', Kind.UNKNOWN),
        (422, b'{"detail": []}', Kind.REFUSED),
        (500, b"Internal Server Error", Kind.UNKNOWN),
        (500, b'"text"', Kind.UNKNOWN),
    ],
)
def test_what_an_answer_means(status: int, body: bytes, outcome: Kind) -> None:
    seen, error = _answered(status, body)
    assert seen is outcome
    assert (error is None) == (outcome is Kind.ACCEPTED)


def test_an_order_to_go_comes_through_a_message_as_it_was(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    orders: list[Go] = []
    monkeypatch.setattr(bench.generator, "go", orders.append)
    bench.go()
    (go,) = orders
    assert Go.from_json(json.loads(json.dumps(go.to_json()))) == go


def test_nothing_is_sent_before_a_leg_begins(bench: Bench) -> None:
    bench.start_users(3)
    bench.run()
    assert bench.scenario.numbers == []


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """End code that never yields to another greenlet, which gevent's own time-out could not end."""
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.mark.parametrize("is_open", [True, False])
def test_a_run_that_is_broken_off_leaves_its_senders_at_rest(bench: Bench, is_open: bool) -> None:  # noqa: FBT001
    bench.scenario.open.clear()
    bench.start_users(3)
    bench.go(rate=10, duration_s=1, is_open=is_open)
    bench.run(20)
    begun = len(bench.scenario.numbers)
    assert begun > 0
    with at_most(20):
        bench.generator.close()
        bench.scenario.open.set()
        bench.run()
    assert len(bench.scenario.numbers) == begun
    assert not any(user.dead for user in bench.users)


_FLEET = """
import sys, tempfile, zlib
from pathlib import Path
from types import SimpleNamespace as Of
import gevent
from harness.loadtest.load_processes import LocustMaster, LocustWorker
from harness.loadtest.worker_messages import Go, Offer
from harness.errors import HarnessError
from harness.loadtest.arrivals import Plan

class Clients(dict):
    @property
    def all(self):
        return list(self.values())

class Master:
    def __init__(self):
        self.clients, self.sent, self.heard = Clients(), [], {}
    def register_message(self, name, listener, concurrent=False):
        self.heard[name] = listener
    def send_message(self, name, data=None, client=None):
        self.sent.append((client, name, data))

journal = Path(tempfile.mkdtemp())
go = Go(run="run", leg=7, plan=Plan.steady(10), begin_t=0.0, window=(0.0, 1.0), broker_url="", web_url=None,
        scenarios=(), bases={}, seed=1, is_open=True, journal=str(journal))
master = Master()
fleet = LocustMaster(master)
try:
    fleet.go(go)
except HarnessError as error:
    assert "no load process is connected" in str(error)
else:
    raise AssertionError
for name in ("a", "b"):
    master.clients[name] = Of(id=name, state="running")
fleet.go(go)
assert [(one, data["plan"]["share"]) for one, name, data in master.sent] == [("a", 0), ("b", 1)]
# One that joins later has no share, and is not waited for.
master.clients["late"] = Of(id="late", state="ready")
frozen = lambda who, leg, n: master.heard["harness-frozen"](
    msg=Of(node_id=who, data={"leg": leg, "offer": Offer(cpu=n).to_json()}))
# What comes of an older leg is none of this one's.
frozen("a", 6, 1)
gevent.spawn_later(0.05, frozen, "a", 7, 2)
gevent.spawn_later(0.05, frozen, "b", 7, 3)
assert sorted(one.cpu for one in fleet.freeze()) == [2, 3]
# One that has gone is a finding, and no wait.
del master.clients["late"]
fleet.go(go)
frozen("a", 7, 2)
master.clients["b"].state = "missing"
with gevent.Timeout(5):
    offers = fleet.freeze()
assert "1 of 2 load processes did not answer at the end: b" in offers[1].broken[0], offers
# A journal comes in pieces, and a piece that is missing is told.
send = lambda offset, piece, run="run": master.heard["harness-journal"](
    msg=Of(node_id="a", data={"run": run, "name": "load.1.2.jsonl", "offset": offset, "bytes": zlib.compress(piece)}))
master.clients["b"].state = "running"
fleet.go(go)
send(0, b"one\\n"); send(4, b"two\\n"); send(0, b"old", run="another")
assert (journal / "load.1.2.jsonl").read_bytes() == b"one\\ntwo\\n"
frozen("a", 7, 2); frozen("b", 7, 2)
assert len(fleet.freeze()) == 2
send(99, b"late\\n")
assert "a part of a journal was lost" in fleet.freeze()[-1].broken[0]
# What nobody can read is told as well.
fleet.go(go)
for name in ("harness-frozen", "harness-journal"):
    master.heard[name](msg=Of(node_id="a", data={"run": "run", "leg": "seven"}))
frozen("a", 7, 2); frozen("b", 7, 2)
answer, part = fleet.freeze()[-1].broken
assert answer == "the answer of a cannot be read: `leg` of Frozen should be a whole number, and is 'seven'.", answer
assert part.startswith("a part of the journal of a cannot be read: JournalPart has no `name`: {"), part

class Generating:
    def __init__(self):
        self.done = []
    def go(self, go):
        self.done.append(go.journal)
        (Path(go.journal) / "load.5.6.jsonl").write_bytes(b"line\\n")
    def freeze(self):
        self.done.append("freeze")
        return Offer(cpu=1)
    def complain(self, text):
        self.done.append(text)
    def close(self):
        self.done.append("close")

def member(where):
    runner, generating = Master(), Generating()
    made = LocustWorker(runner, generating)
    runner.heard["harness-go"](msg=Of(data={**go.to_json(), "journal": str(where)}))
    return runner, generating, made

# Where the run folder is seen, the journal is written there, and nothing is shipped.
runner, generating, made = member(journal)
runner.heard["harness-freeze"](msg=Of(data=None))
assert [name for _, name, _ in runner.sent] == ["harness-frozen"], runner.sent
assert generating.done == ["close", str(journal), "freeze"], generating.done
# Elsewhere, all of it is shipped before the counts are told.
runner, generating, made = member("/nowhere/at/all")
runner.heard["harness-freeze"](msg=Of(data=None))
assert [name for _, name, _ in runner.sent] == ["harness-journal", "harness-frozen"], runner.sent
made.close()
runner.heard["harness-go"](msg=Of(data={"run": "run"}))
assert generating.done[-1] == "the order to go cannot be read: Go has no `leg`: {'run': 'run'}.", generating.done
assert not Path(generating.done[1]).exists()
print("all well")
"""


def test_a_master_and_its_workers_agree_on_what_was_sent() -> None:
    """In a process of its own: what has imported docker cannot import Locust."""
    done = subprocess.run(
        [sys.executable, "-c", _FLEET], capture_output=True, text=True, timeout=60, check=False, cwd=ROOT
    )
    assert done.stdout.endswith("all well\n"), done.stderr
