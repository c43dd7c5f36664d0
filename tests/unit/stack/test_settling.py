"""Settling: what it waits for, what it says, and that it ends when nothing on its list can change."""

from pathlib import Path

import pytest

from harness.audit.remains import How, Settled
from harness.containers.broker_node import QueueCount, QueueLook
from harness.stack.limits import Limits
from harness.stack.settling import described, settle
from tests.unit.stack.broker_and_journal import START_T, World

UNLOCK = "celery.chord_unlock"


class Between(World):
    """A stack in which something happens whenever the broker has just said what its queues hold."""

    def task_queues(self) -> list[QueueCount]:
        queues = super().task_queues()
        self.say("worker-1", "started", "a", name="nap")
        return queues


def test_a_run_without_tasks_is_at_rest_at_once(world: World) -> None:
    settled = world.settle()
    assert (settled.how, settled.waited_s, settled.waiting) == (How.REST, 0.0, ())


def test_what_has_ended_and_left_nothing_behind_is_at_rest_at_once(world: World) -> None:
    world.send("a")
    world.end("a")
    assert world.settle().how is How.REST


def test_an_execution_is_waited_for_also_of_a_task_that_has_ended_before(world: World) -> None:
    world.send("a")
    world.end("a")
    world.say("worker-1", "started", "a", name="nap", pid=2)
    world.at(30, "finished", "a", state="SUCCESS", pid=2)
    settled = world.settle()
    assert settled.how is How.REST
    assert settled.waited_s == pytest.approx(30, abs=0.2)


def test_what_was_sent_and_is_nowhere_is_given_up_after_a_second(world: World) -> None:
    world.send("a")
    settled = world.settle()
    assert settled.how is How.STUCK
    assert settled.waited_s == pytest.approx(1.0, abs=0.1)


def test_where_a_queue_reports_in_turns_a_report_is_waited_for(world: World) -> None:
    world.send("a")
    world.holds(sampled_s=5.0, consumers=1)
    assert world.settle().waited_s == pytest.approx(7.0, abs=0.1)


def test_of_several_queues_the_slowest_report_is_waited_for(world: World) -> None:
    world.send("a")
    world.holds(sampled_s=5.0, consumers=1)
    world.holds("mails", sampled_s=1.0, consumers=1)
    assert world.settle().waited_s == pytest.approx(7.0, abs=0.1)


def test_a_queue_that_reports_in_turns_is_asked_itself(world: World) -> None:
    world.send("a")
    world.holds(sampled_s=5.0, consumers=1)
    world.looks["celery"] = QueueLook(ready=1, consumers=1)
    settled = world.settle(timeout_s=20)
    assert (settled.how, settled.waiting) == (How.TIMEOUT, ("1 waits in `celery`, consumers: 1",))


def test_a_message_that_appears_meanwhile_is_waited_for(world: World) -> None:
    world.send("a")
    world.later = [(0.8, lambda: world.holds(ready=1, consumers=1)), (5.0, lambda: setattr(world, "queues", []))]
    world.at(5.0, "started", "a", name="nap")
    world.at(9.0, "finished", "a", state="SUCCESS")
    settled = world.settle()
    assert settled.how is How.REST
    assert settled.waited_s == pytest.approx(9.0, abs=0.2)


def test_a_queue_that_nobody_consumes_is_given_up_and_named_with_those_that_are_consumed(world: World) -> None:
    world.send("a", "b", queue="mails")
    world.holds("mails", ready=2)
    settled = world.settle()
    assert settled.how is How.STUCK
    assert settled.waited_s < 1.2
    assert settled.waiting == ("2 wait in `mails`, which nobody consumes; workers consume: celery",)


def test_without_any_worker_nothing_is_waited_for(world: World) -> None:
    world.workers = set()
    world.send("a", "b")
    world.holds(ready=1, unacked=1)
    settled = world.settle()
    assert settled.how is How.STUCK
    assert settled.waited_s < 1.2
    assert settled.waiting == ("1 waits in `celery`, which nobody consumes; no worker runs",)


def test_unacknowledged_messages_of_a_worker_that_is_gone_are_not_waited_for(world: World) -> None:
    world.workers = set()
    world.send("a")
    world.holds(unacked=1)
    settled = world.settle()
    assert (settled.how, settled.waiting) == (How.STUCK, ("1 of `celery` are with a consumer",))


@pytest.mark.parametrize(("workers", "consumers"), [({"worker-1"}, 0), (set(), 1)])
def test_unacknowledged_messages_that_somebody_may_still_have_are_waited_for(
    world: World, workers: set[str], consumers: int
) -> None:
    world.workers = workers
    world.send("a")
    world.holds(unacked=1, consumers=consumers)
    assert world.settle(timeout_s=20).how is How.TIMEOUT


def cut_off(world: World, heartbeat_s: float = 60.0) -> None:
    """Have the broker still wait for a worker that is gone, after everything has ended."""
    world.say("worker-1", "ready", queues={"celery": {}}, heartbeat_s=heartbeat_s)
    world.send("a")
    world.end("a")
    world.holds(unacked=1, consumers=1)


def test_the_broker_has_the_time_to_give_up_a_connection_that_is_gone(world: World) -> None:
    cut_off(world)
    world.later = [(170.0, lambda: setattr(world, "queues", []))]
    settled = world.settle()
    assert settled.how is How.REST
    assert settled.waited_s == pytest.approx(170.0, abs=0.2)


def test_a_message_that_the_broker_does_not_give_back_by_three_heartbeats_is_with_somebody(world: World) -> None:
    cut_off(world)
    settled = world.settle()
    assert (settled.how, settled.waiting) == (How.TIMEOUT, ("1 of `celery` are with a consumer",))
    assert settled.waited_s == pytest.approx(180.0, abs=0.2)


def test_the_exact_time_of_three_heartbeats_is_enough(world: World) -> None:
    cut_off(world)
    assert world.settle(step_s=0.5).waited_s == 180.0


def test_whoever_allows_less_time_for_the_next_task_does_not_wait_for_heartbeats(world: World) -> None:
    cut_off(world)
    settled = world.settle(timeout_s=59.0)
    assert settled.how is How.TIMEOUT
    assert settled.waited_s == pytest.approx(59.0, abs=0.2)


def test_whoever_allows_less_time_in_total_does_not_wait_for_heartbeats(world: World) -> None:
    cut_off(world)
    settled = world.settle(limit_s=100.0)
    assert settled.how is How.LIMIT
    assert settled.waited_s == pytest.approx(100.0, abs=0.2)


def test_a_connection_without_heartbeats_is_not_given_up(world: World) -> None:
    cut_off(world, heartbeat_s=0.0)
    assert world.settle().waited_s == pytest.approx(60.0, abs=0.2)


def test_of_several_workers_the_slowest_heartbeat_counts(world: World) -> None:
    world.say("worker-2", "ready", queues={}, heartbeat_s=30.0)
    cut_off(world, heartbeat_s=40.0)
    assert world.settle().waited_s == pytest.approx(120.0, abs=0.2)


def test_beside_a_task_that_hangs_nobody_waits_for_heartbeats(world: World) -> None:
    cut_off(world)
    world.holds(unacked=2, consumers=1)
    world.send("b")
    world.say("worker-1", "received", "b", name="nap")
    world.say("worker-1", "started", "b", name="nap")
    assert world.settle().waited_s == pytest.approx(60.0, abs=0.2)


def test_a_queue_that_a_worker_consumed_and_lost_sight_of_is_waited_for(world: World) -> None:
    world.send("a")
    world.holds(ready=1)
    settled = world.settle(timeout_s=20)
    assert (settled.how, settled.waiting) == (
        How.TIMEOUT,
        ("1 waits in `celery`, which nobody consumes, though a worker did",),
    )


def test_a_queue_that_somebody_else_consumes_is_waited_for(world: World) -> None:
    world.send("a", queue="mails")
    world.holds("mails", ready=1, consumers=1)
    assert world.settle(timeout_s=20).how is How.TIMEOUT


def test_a_queue_of_which_the_broker_does_not_say_who_consumes_it_is_waited_for(world: World) -> None:
    world.send("a", queue="mails")
    world.holds("mails", ready=1, consumers=None)
    settled = world.settle(timeout_s=20)
    assert (settled.how, settled.waiting) == (How.TIMEOUT, ("1 in `mails`",))


def test_while_something_runs_nobody_asks_who_consumes_the_rest(world: World) -> None:
    world.send("a", "b", queue="mails")
    world.say("worker-1", "started", "a", name="nap")
    world.holds("mails", ready=1)
    world.at(10, "finished", "a", state="SUCCESS")
    settled = world.settle()
    assert settled.how is How.STUCK
    assert settled.waited_s == pytest.approx(11.0, abs=0.3)
    assert world.looked < 25


def test_the_time_out_counts_from_the_last_task_that_ended(world: World) -> None:
    world.send("a", "b")
    world.say("worker-1", "started", "b", name="nap", pid=2)
    world.say("worker-1", "started", "a", name="nap", pid=3)
    world.at(15, "finished", "a", state="SUCCESS", pid=3)
    settled = world.settle(timeout_s=20)
    assert settled.how is How.TIMEOUT
    assert settled.waited_s == pytest.approx(35, abs=0.2)
    assert settled.waiting == ("nap (b) runs on worker-1 for 35 s",)


def test_the_limit_ends_what_goes_on_for_ever_and_says_which_task_keeps_sending(world: World) -> None:
    world.send("poll-0")

    def poll(number: int) -> None:
        world.say("worker-1", "started", f"poll-{number}", name="poll")
        world.say("worker-1", "intended", f"poll-{number + 1}", name="poll")
        world.say("worker-1", "accepted", f"poll-{number + 1}")
        eta = START_T + world.now_s + 0.5
        world.say("worker-1", "received", f"poll-{number + 1}", name="poll", eta=eta)
        world.end(f"poll-{number}")
        world.later.append((world.now_s + 0.5, lambda: poll(number + 1)))

    world.holds(unacked=1, consumers=1)
    poll(0)
    settled = world.settle(timeout_s=5, limit_s=10)
    assert settled.how is How.LIMIT
    assert settled.waited_s == pytest.approx(10, abs=0.2)
    ((sender, name, count),) = settled.sending
    assert (sender, name) == ("poll", "poll")
    assert 15 < count < 21
    left = Limits(timeout_s=5, limit_s=10).left_after(settled, at_most=Limits(timeout_s=60, limit_s=120))
    assert (left.timeout_s, left.limit_s) == (5, 0)


def test_the_wait_counts_from_its_own_beginning_and_so_does_what_was_sent_meanwhile(world: World) -> None:
    world.say("worker-1", "started", "poll", name="poll")
    world.say("worker-1", "intended", "a", name="poll")
    world.now_s = 40.0
    world.say("worker-1", "intended", "b", name="poll")
    settled = world.settle(timeout_s=60, limit_s=20)
    assert (settled.how, settled.sending) == (How.LIMIT, ())
    assert settled.waited_s == pytest.approx(20, abs=0.1)


@pytest.mark.parametrize("limits", [{"timeout_s": 0.0}, {"limit_s": 0.0}])
def test_where_no_time_is_given_one_look_is_all(world: World, limits: dict[str, float]) -> None:
    world.send("a")
    world.holds(ready=1, consumers=1)
    assert world.settle(**limits).waited_s == 0.0


@pytest.mark.parametrize("limits", [{"timeout_s": 20.0}, {"limit_s": 20.0}])
def test_what_is_due_just_after_the_time_is_over_is_not_waited_for(world: World, limits: dict[str, float]) -> None:
    held(world, "a", 20.9)
    settled = world.settle(**limits)
    assert settled.how is How.STUCK
    assert settled.waited_s < 1.2


def test_that_nothing_moves_is_believed_after_a_second_and_not_later(world: World) -> None:
    world.send("a")
    settled = world.settle(step_s=0.25)
    assert (settled.how, settled.waited_s) == (How.STUCK, 1.0)


def test_who_watches_is_shown_the_ledger_at_every_look(world: World) -> None:
    world.send("a")
    world.holds(ready=1, consumers=1)
    seen: list[int] = []
    settle(world, Limits(timeout_s=0.0), watch=lambda ledger: seen.append(ledger.sent), clock=world.clock)
    assert seen == [1]


def test_a_task_that_began_after_the_queues_were_asked_is_not_overlooked(tmp_path: Path) -> None:
    world = Between(tmp_path)
    world.send("a")
    assert world.settle(timeout_s=0.0).waiting == ("nap (a) runs on worker-1 for 0 s",)


def test_what_limits_leave_is_no_more_than_somebody_allows() -> None:
    settled = Settled(how=How.REST, waited_s=4.0)
    at_most = Limits(timeout_s=60, limit_s=120)
    assert Limits(timeout_s=90, limit_s=3600).left_after(settled, at_most=at_most) == at_most
    assert Limits(timeout_s=9, limit_s=10).left_after(settled, at_most=at_most) == Limits(timeout_s=9, limit_s=6)


# ---------------------------------------------------------------------------------------------- what is due later


def held(world: World, task: str, eta: float) -> None:
    world.send(task, due=START_T + eta)
    world.say("worker-1", "received", task, name="nap", eta=START_T + eta)
    world.holds(unacked=1, consumers=1)


def test_what_a_worker_holds_back_is_waited_for(world: World) -> None:
    held(world, "a", 30)
    world.later = [(30, world.queues.clear)]
    world.at(30, "started", "a", name="nap")
    world.at(31, "finished", "a", state="SUCCESS")
    settled = world.settle()
    assert settled.how is How.REST
    assert settled.waited_s == pytest.approx(31, abs=0.2)
    assert world.said[0] == "waiting: nap (a) is held by worker-1 for another 27 s"


def test_what_is_held_back_beyond_the_time_out_is_not_waited_for(world: World) -> None:
    held(world, "a", 300)
    settled = world.settle(timeout_s=20)
    assert settled.how is How.STUCK
    assert settled.waited_s < 1.2
    assert settled.waiting == ("nap (a) is held by worker-1 for another 299 s",)


def test_a_task_whose_time_has_come_is_waited_for_in_a_worker(world: World) -> None:
    held(world, "a", -5)
    settled = world.settle(timeout_s=20)
    assert (settled.how, settled.waiting) == (How.TIMEOUT, ("nap (a) waits in worker-1",))


def test_what_is_due_now_waits_in_its_worker_and_what_is_due_when_time_is_over_is_waited_for(world: World) -> None:
    held(world, "a", 0)
    assert world.settle(timeout_s=0).waiting == ("nap (a) waits in worker-1",)
    world.end("a")
    held(world, "b", 20)
    assert world.settle(timeout_s=20, step_s=0.25).how is How.TIMEOUT


@pytest.mark.parametrize(("due", "how"), [(15, How.TIMEOUT), (20, How.TIMEOUT), (300, How.STUCK)])
def test_a_delayed_message_is_waited_for_if_it_comes_in_time(world: World, due: float, how: How) -> None:
    world.send("a", due=START_T + due)
    world.holds("celery_delayed_4", ready=1)
    settled = world.settle(timeout_s=20, step_s=0.25)
    assert settled.how is how
    assert settled.waiting == ("1 in `celery_delayed_4`, until their time comes",)


def test_of_several_delayed_messages_the_next_one_is_waited_for(world: World) -> None:
    for number, due in enumerate((300, 15, 200)):
        world.send(f"a-{number}", due=START_T + due)
    world.holds("celery_delayed_4", ready=3)
    assert world.settle(timeout_s=20).how is How.TIMEOUT


def test_a_queue_that_a_message_leaves_after_a_time_is_waited_for(world: World) -> None:
    world.send("a", queue="again-in-10-s")
    world.holds("again-in-10-s", ready=1, arguments={"x-message-ttl": 10_000})
    assert world.settle(timeout_s=20).how is How.TIMEOUT


@pytest.mark.parametrize(
    ("expires", "how", "seconds"), [(10, How.STUCK, 12.25), (20, How.TIMEOUT, 20), (300, How.STUCK, 1)]
)
def test_a_message_that_expires_in_a_queue_that_nobody_consumes_is_waited_for_until_a_second_after(
    world: World, expires: float, how: How, seconds: float
) -> None:
    world.send("a", queue="mails", expires=START_T + expires)
    world.holds("mails", ready=1)
    settled = world.settle(timeout_s=20, step_s=0.25)
    assert (settled.how, settled.waited_s) == (how, seconds)


# ------------------------------------------------------------------------------------------------------- chords


def chord(world: World, *members: str) -> None:
    """Send the members and the task that waits for them, which looks once a second."""
    for member in members:
        world.send(member)
    world.say("worker-1", "intended", "u", name=UNLOCK, members=list(members), follow=["body"])
    world.say("worker-1", "accepted", "u")
    for number in range(40):
        world.at(number, "started", "u", name=UNLOCK)
        world.at(number + 0.1, "finished", "u", state="RETRY")
        world.at(number + 0.1, "received", "u", name=UNLOCK, eta=START_T + number + 1)
    world.holds(unacked=1, consumers=1)


def test_a_chord_that_looked_in_vain_after_all_else_came_to_rest_is_given_up(world: World) -> None:
    chord(world, "a", "b")
    world.later.append((5.5, lambda: world.end("a")))
    world.say("worker-1", "started", "a", name="nap")
    settled = world.settle(timeout_s=30)
    assert settled.how is How.STUCK
    # The member that runs is waited for, then one more look, then a second.
    assert 6.0 < settled.waited_s < 8.5
    (text,) = settled.waiting
    assert text.endswith("times and waits for b")
    assert text.startswith("celery.chord_unlock looked ")


def test_a_chord_that_began_to_look_just_when_something_moved_has_to_look_again(world: World) -> None:
    chord(world, "a", "b")
    world.later.insert(0, (5.0, lambda: world.end("a")))
    world.say("worker-1", "started", "a", name="nap")
    settled = world.settle(timeout_s=30, step_s=0.125)
    assert settled.how is How.STUCK
    assert settled.waited_s == 7.125


def test_a_chord_is_waited_for_while_a_member_may_still_come(world: World) -> None:
    chord(world, "a", "b")
    world.holds(ready=1, unacked=1, consumers=1)
    assert world.settle(timeout_s=15).how is How.TIMEOUT


def test_a_chord_whose_member_waits_where_nobody_consumes_is_given_up(world: World) -> None:
    chord(world, "a")
    world.holds("mails", ready=1)
    settled = world.settle(timeout_s=30)
    assert settled.how is How.STUCK
    assert settled.waited_s < 4
    assert "waits for a" in settled.waiting[0]
    assert settled.waiting[1].startswith("1 waits in `mails`, which nobody consumes")


def test_a_chord_whose_members_all_ended_and_left_no_results_says_so(world: World) -> None:
    chord(world, "a")
    world.end("a")
    (text,) = world.settle(timeout_s=30).waiting
    assert text.endswith("waits for results that none of its members left")


# --------------------------------------------------------------------------------------------- what it tells meanwhile


def test_what_is_waited_for_is_told_after_three_seconds_and_not_twice(world: World) -> None:
    world.send("a")
    world.holds("mails", ready=1, consumers=1)
    world.settle(timeout_s=40)
    assert world.said == ["waiting: 1 waits in `mails`, consumers: 1"]


def test_what_changes_is_told_again_after_ten_seconds(world: World) -> None:
    world.send("a")
    world.say("worker-1", "started", "a", name="nap")
    world.settle(timeout_s=20, step_s=0.25)
    assert world.said == [f"waiting: nap (a) runs on worker-1 for {seconds} s" for seconds in (3, 13)]


def test_a_short_wait_is_not_spoken_of(world: World) -> None:
    world.send("a")
    world.say("worker-1", "started", "a", name="nap")
    world.at(2, "finished", "a", state="SUCCESS")
    world.settle()
    assert world.said == []


def test_several_of_one_kind_are_counted(world: World) -> None:
    for number in range(5):
        world.send(f"r-{number}")
        world.say("worker-1", "started", f"r-{number}", name="nap", pid=number + 2)
    for number in range(3):
        world.say("worker-1", "received", f"w-{number}", name="pay")
        world.say("worker-1", "received", f"e-{number}", name="pay", eta=START_T + 500)
    world.holds(unacked=9, consumers=1)
    assert world.settle(timeout_s=4).waiting == (
        "5 nap run on worker-1",
        "3 pay wait in worker-1",
        "3 pay are held by worker-1 until their time comes",
    )
    assert world.said == [
        "waiting: 5 nap run on worker-1; 3 pay wait in worker-1; 3 pay are held by worker-1 until their time comes"
    ]


def test_of_many_items_the_first_are_told() -> None:
    assert described(["a", "b"]) == "a; b"
    assert described(["a", "b", "c", "d", "e"]) == "a; b; c; and 2 more"


def test_a_broker_that_does_not_answer_is_waited_for(world: World) -> None:
    world.fault = "The management API does not answer GET /api/queues. More of it"
    settled = world.settle(timeout_s=20)
    assert settled.how is How.TIMEOUT
    assert settled.waiting == ("the broker does not answer (The management API does not answer GET /api/queues)",)
    world.later = [(world.now_s + 5, lambda: setattr(world, "fault", None))]
    assert world.settle(timeout_s=20).how is How.REST


def test_an_engine_that_does_not_answer_is_waited_for_and_named(world: World) -> None:
    world.engine_fault = "The container engine did not answer within 15 s. More of it"
    settled = world.settle(timeout_s=20)
    assert settled.how is How.TIMEOUT
    (text,) = settled.waiting
    assert text == "the container engine does not answer (The container engine did not answer within 15 s)"


def test_a_settling_is_written_down_with_all_it_knows() -> None:
    settled = Settled(how=How.LIMIT, waited_s=10.04, waiting=("1 in `celery`",), sending=(("poll", "poll", 9),))
    assert settled.to_json() == {
        "how": "limit",
        "waited_s": 10.0,
        "waiting": ["1 in `celery`"],
        "sending": [["poll", "poll", 9]],
    }
