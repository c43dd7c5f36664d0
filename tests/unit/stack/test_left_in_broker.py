"""What is left in the broker and with the workers, dead letters among it."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from harness.audit.remains import DeadLetter, Remains
from harness.containers.broker_node import Death, QueueLook, Waiting
from harness.stack.left_in_broker import remains
from harness.wait import Clock
from tests.unit.stack.broker_and_journal import World


def waits(task: str | None, death: Death | None = None) -> Waiting:
    return Waiting(task=task, name="nap", eta=None, death=death)


def look(world: World) -> Remains:
    return remains(world, clock=world.clock)


def test_what_is_left_are_messages_and_what_workers_hold(world: World) -> None:
    world.holds(ready=2, unacked=1, consumers=1)
    world.messages["celery"] = [waits("b"), waits("a"), waits(None)]
    world.say("worker-1", "received", "c", name="nap")
    left = look(world)
    assert (left.messages, left.held, left.anonymous, left.reason) == (["a", "b"], ["c"], 1, None)
    (queue,) = left.queues
    assert (queue.name, queue.ready, queue.unacked, queue.consumers) == ("celery", 3, 1, 1)
    assert Remains.from_json(json.loads(json.dumps(left.to_json()))).to_json() == left.to_json()


def test_a_message_that_another_queue_got_rid_of_is_dead_where_nobody_consumes(world: World) -> None:
    world.holds("dead", ready=2)
    world.messages["dead"] = [waits("a", Death(queue="celery", reason="rejected", count=2)), waits("b")]
    left = look(world)
    assert left.messages == ["b"]
    letter = DeadLetter(task="a", name="nap", queue="dead", origin="celery", reason="rejected", count=2)
    assert list(left.dead) == [letter]
    assert Remains.from_json(left.to_json()).dead == (letter,)


def test_what_there_is_none_of_is_left_out_of_the_file() -> None:
    assert set(Remains().to_json()) == {"readable", "queues", "messages", "anonymous", "held", "dead"}
    left = Remains(alive=["worker-1"], differing=["A queue differs."], asked_t=5.0)
    assert (left.to_json()["alive"], Remains.from_json(left.to_json()).alive) == (["worker-1"], ("worker-1",))
    assert {"alive", "differing", "t"} < set(left.to_json())


@pytest.mark.parametrize("death", [Death(queue="celery_delayed_3", reason="expired", count=1), None])
def test_a_message_that_native_delayed_delivery_has_moved_is_no_dead_letter(world: World, death: Death | None) -> None:
    world.holds("mails", ready=1)
    world.messages["mails"] = [waits("a", death)]
    assert (look(world).messages, look(world).dead) == (["a"], [])


def test_messages_without_an_id_are_counted_dead_or_not(world: World) -> None:
    death = Death(queue="celery", reason="rejected", count=1)
    world.holds("dead", ready=4)
    world.messages["dead"] = [waits(None, death), waits("a", death), waits(None, death), waits(None)]
    assert look(world).anonymous == 3
    assert Remains.from_json({"readable": True, "queues": [], "messages": [], "held": []}) == Remains()


@pytest.mark.parametrize("left", [Remains(), Remains(asked_t=5.0), Remains(reason="no answer", asked_t=0.0)])
def test_what_was_left_is_read_as_it_was_written(left: Remains) -> None:
    written = left.to_json()
    assert None not in written.values()
    assert replace(Remains.from_json(written), queues=(), messages=(), held=(), dead=()) == left


def provide_consumers(world: World) -> None:
    world.holds("dead", ready=1, consumers=1)


def let_a_worker_have_consumed(world: World) -> None:
    world.say("worker-2", "ready", queues={"dead": {}})


def let_messages_leave(world: World) -> None:
    world.holds("dead", ready=1, arguments={"x-message-ttl": 1000})


@pytest.mark.parametrize("provide", [provide_consumers, let_a_worker_have_consumed, let_messages_leave])
def test_a_message_that_may_run_again_is_no_dead_letter(world: World, provide: Callable[[World], None]) -> None:
    world.holds("dead", ready=1)
    provide(world)
    world.messages["dead"] = [waits("a", Death(queue="celery", reason="rejected", count=1))]
    assert (look(world).messages, look(world).dead) == (["a"], [])


def test_broker_and_journal_are_asked_again_until_they_agree(world: World) -> None:
    world.holds(unacked=1, consumers=1)
    world.at(0.5, "started", "a", name="nap")
    left = look(world)
    assert (left.held, left.reason) == (["a"], None)
    assert world.now_s == pytest.approx(0.5, abs=0.1)


def test_where_they_do_not_agree_nobody_knows_all(world: World) -> None:
    world.holds(unacked=3, consumers=1)
    world.say("worker-1", "received", "a", name="nap")
    left = remains(world, clock=Clock(now=lambda: world.now_s, sleep=lambda _: world.sleep(0.25)))
    assert left.reason is not None
    assert left.reason.startswith("3 messages are unacknowledged, 1 are accounted for: a worker without a journal has")
    assert left.to_json()["readable"] is False
    assert Remains.from_json(left.to_json()).reason == left.reason
    assert world.now_s == 2.0


def test_of_a_broker_that_does_not_answer_the_workers_hands_are_known(world: World) -> None:
    world.fault = "It is gone.\nMore"
    world.say("worker-1", "received", "a", name="nap")
    left = look(world)
    assert (left.reason, left.held, left.queues) == ("It is gone.", ["a"], ())


def test_a_queue_that_reports_in_turns_is_looked_into_if_it_says_that_it_holds_something(world: World) -> None:
    world.holds("quorum", sampled_s=5.0)
    world.messages["quorum"] = [waits("a")]
    assert look(world).messages == []
    world.looks["quorum"] = QueueLook(ready=1, consumers=0)
    assert look(world).messages == ["a"]
    del world.looks["quorum"]
    assert look(world).messages == ["a"]
