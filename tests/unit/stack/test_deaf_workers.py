"""Workers that run and do not consume what they should."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from harness.audit.remains import Deaf, Remains
from harness.containers.broker_node import QueueLook
from harness.stack.deaf_workers import all_consume, find
from harness.stack.left_in_broker import remains
from tests.unit.stack.broker_and_journal import World


@dataclass
class Workers(World):
    """Two workers that consume one queue; the broker has a list of its consumers."""

    tags: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.workers = {"worker-1", "worker-2"}
        self.holds(consumers=2)
        self.name("worker-1", "worker-2")
        for node in self.workers:
            self.say(node, "up")
            self.say(node, "ready", queues={"celery": {}})

    def name(self, *nodes: str) -> None:
        self.tags["celery"] = [f"{node}/{number}" for number, node in enumerate(nodes)]

    def consumers(self) -> dict[str, list[str]]:
        return self.tags

    def deafen(self, listed: tuple[str, ...] = ("worker-1",)) -> None:
        self.holds(consumers=1)
        self.name(*listed)

    def find(self, within_s: float = 60.0) -> tuple[Deaf, ...]:
        return find(self, within_s=within_s, say=self.said.append, clock=self.clock)

    @property
    def all_consume(self) -> bool:
        return all_consume(self.ledger, remains(self, clock=self.clock))


@pytest.fixture
def world(tmp_path: object) -> Workers:
    return Workers(tmp_path)  # type: ignore[arg-type]


def test_workers_that_consume_what_they_should_are_seen_at_once(world: Workers) -> None:
    assert world.all_consume
    assert world.find() == ()
    assert (world.now_s, world.said) == (0.0, [])


def test_a_worker_that_does_not_consume_is_named_after_it_had_time_to_come_back(world: Workers) -> None:
    world.deafen()
    assert not world.all_consume
    (one,) = world.find()
    assert one == Deaf(queue="celery", consumers=1, workers=("worker-1", "worker-2"), absent=("worker-2",))
    assert one.text == "worker-2 runs and does not consume `celery`, though it did"
    assert world.now_s == pytest.approx(32.0, abs=0.1)
    assert world.said == [f"waiting: {one.text}"]
    assert Remains.from_json(json.loads(json.dumps(Remains(deaf=[one]).to_json()))).deaf == (one,)


def test_no_more_time_is_taken_than_is_left(world: Workers) -> None:
    world.deafen()
    assert world.find(within_s=3.0)
    assert world.now_s == pytest.approx(3.0, abs=0.1)


def test_one_that_comes_back_in_time_is_not_deaf(world: Workers) -> None:
    world.deafen()
    world.later = [(20.0, lambda: world.holds(consumers=2))]
    assert world.find() == ()
    assert world.now_s == pytest.approx(20.0, abs=0.1)


def test_while_the_broker_lists_another_number_of_consumers_nobody_is_named(world: Workers) -> None:
    world.deafen(("worker-1", "worker-2"))
    (one,) = world.find(within_s=0.0)
    assert one.absent == ()
    assert one.text == "only 1 of worker-1, worker-2 consumes `celery`, which each of them did"
    assert world.now_s == pytest.approx(10.0, abs=0.1)


def test_the_list_is_waited_for(world: Workers) -> None:
    world.deafen(("worker-1", "worker-2"))
    world.later = [(5.0, lambda: world.name("worker-2"))]
    assert world.find(within_s=0.0)[0].absent == ("worker-1",)
    assert world.now_s == pytest.approx(5.0, abs=0.1)


def test_a_queue_that_is_gone_has_no_consumers(world: Workers) -> None:
    world.queues, world.looks, world.tags = [], {}, {}
    (one,) = world.find(within_s=0.0)
    assert (one.consumers, one.absent) == (None, ("worker-1", "worker-2"))
    assert one.text == "worker-1, worker-2 run and do not consume `celery`, which is gone, though they did"


def be_killed(world: Workers) -> None:
    world.workers = {"worker-1"}


def go_down(world: Workers) -> None:
    world.say("worker-2", "down")


def come_up_again(world: Workers) -> None:
    world.say("worker-2", "up")


def be_told_to_cancel(world: Workers) -> None:
    world.say("worker-2", "ready", queues={})


def let_its_queue_be_exclusive(world: Workers) -> None:
    del world.looks["celery"]


def let_another_client_consume(world: Workers) -> None:
    world.looks["celery"] = QueueLook(ready=0, consumers=3)


def let_the_broker_be_silent(world: Workers) -> None:
    world.tags = {}
    world.fault = "It is gone."
    del world.looks["celery"]


@pytest.mark.parametrize(
    "change",
    [
        be_killed,
        go_down,
        come_up_again,
        be_told_to_cancel,
        let_its_queue_be_exclusive,
        let_another_client_consume,
        let_the_broker_be_silent,
    ],
)
def test_a_worker_that_need_not_consume_is_not_deaf(world: Workers, change: Callable[[Workers], None]) -> None:
    world.deafen()
    change(world)
    assert world.find() == ()
    assert world.now_s == 0.0
