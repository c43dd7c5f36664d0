"""Breakpoints: each pool holds one task at each moment of its life, and what happens to it then is known."""

import threading
import time

import pytest

from harness.records.event import Kind
from harness.records.expectation import Expect
from harness.records.moment import Moment
from harness.records.verdict import Fate, Verdict
from harness.stack.stack import Stack
from harness.wait import wait_until
from tests.docker.accounts import failing, met
from tests.docker.held_moments import check_every_moment, written

APP = {"app": "moments", "app_folder": "tests/docker/apps"}
ALONE = ("--without-mingle", "--without-gossip")
pytestmark = pytest.mark.docker


@pytest.mark.stack(**APP, options=["--pool=prefork", "--concurrency=1", *ALONE])
def test_a_pool_of_processes(stack: Stack) -> None:
    check_every_moment(stack)


@pytest.mark.stack(**APP, options=["--pool=threads", "--concurrency=2", *ALONE])
def test_a_pool_of_threads(stack: Stack) -> None:
    check_every_moment(stack)


@pytest.mark.stack(**APP, options=["--pool=solo", *ALONE])
def test_a_pool_of_one(stack: Stack) -> None:
    check_every_moment(stack)


@pytest.mark.stack(**APP, options=["--concurrency=1", *ALONE])
def test_a_process_that_dies_after_its_effect_has_it_again(stack: Stack) -> None:
    with stack.hold("moments.commit", Moment.EFFECT) as hold:
        sent = stack.producer.send("moments.commit", ["order"], expect=Expect(result="order"))
        assert hold.wait().task == sent.task
        hold.kill()
    audit = stack.settle(timeout_s=30)
    assert met(audit) == {Fate.OK: 1}, audit.text()
    assert stack.ledger.starts(sent.task) == 2
    assert written(stack) == ["order", "order"]


@pytest.mark.stack(**APP, options=["--concurrency=1", *ALONE])
def test_a_process_that_dies_before_its_result_is_stored_sends_the_next_step_again(stack: Stack) -> None:
    # https://github.com/celery/celery/issues/9835
    with stack.hold("moments.commit", Moment.RETURNED) as hold:
        stack.producer.send("moments.two_steps", ["order"])
        first = hold.wait().task
        hold.kill()
    stack.settle(timeout_s=30)
    assert stack.ledger.starts(first) == 2
    assert sorted(written(stack)) == ["order-1", "order-1", "order-2", "order-2"]


@pytest.mark.stack(**APP, options=["--concurrency=1", *ALONE], env={"ACKS": "early"})
def test_a_process_that_dies_at_its_start_is_lost_with_early_acknowledgement(stack: Stack) -> None:
    with stack.hold(None, Moment.STARTED, nth=2) as hold:
        ok = stack.producer.send("moments.commit", ["first"], expect=Expect(result="first"))
        lost = stack.producer.send("moments.commit", ["second"], expect=Expect(result="second"))
        assert hold.wait().task == lost.task
        assert stack.ledger.has_ended(ok.task)
        hold.kill()
    audit = stack.settle(timeout_s=20)
    assert written(stack) == ["first"]
    assert audit.verdict is Verdict.FAIL, audit.text()


@pytest.mark.stack(**APP, options=["--concurrency=1", *ALONE])
def test_settling_lets_every_task_go_on(stack: Stack) -> None:
    hold = stack.hold("moments.commit", Moment.STORED)
    stack.producer.send("moments.commit", ["forgotten"], expect=Expect(result="forgotten"))
    hold.wait()
    audit = stack.settle(timeout_s=20)
    assert audit.verdict is Verdict.PASS, audit.text()
    assert hold.is_over


@pytest.mark.stack(**APP, options=["--pool=solo", *ALONE])
def test_a_worker_that_is_the_first_process_of_its_container_dies_all_the_same(stack: Stack) -> None:
    with stack.hold("moments.commit", Moment.STARTED) as hold:
        sent = stack.producer.send("moments.commit", ["order"], expect=Expect(result="order"))
        assert hold.wait().pid == 1
        hold.kill()
    wait_until(lambda: not stack.workers[0].is_up(), what="the worker is dead", timeout_s=20)
    assert written(stack) == []
    stack.add_worker()
    audit = stack.settle(timeout_s=20)
    assert met(audit) == {Fate.OK: 1}, audit.text()
    assert stack.ledger.starts(sent.task) == 2


@pytest.mark.stack(**APP, options=["--concurrency=1", *ALONE])
@pytest.mark.parametrize("moment", [Moment.SENDING, Moment.UNCONFIRMED, Moment.PUBLISHED])
def test_what_a_thread_of_the_test_sends_is_held_before_and_after_its_confirm(stack: Stack, moment: Moment) -> None:
    sent = []
    with stack.hold("moments.commit", moment) as hold:
        thread = threading.Thread(target=lambda: sent.append(stack.producer.send("moments.commit", ["order"])))
        thread.start()
        held = hold.wait()
        assert (held.node, held.moment) == ("producer", moment)
        if moment is Moment.SENDING:
            assert not stack.ledger.started()
        else:
            wait_until(lambda: stack.ledger.has_ended(held.task), what="the task has run meanwhile", timeout_s=20)
        assert not sent
    thread.join(20)
    assert [one.task for one in sent if one.accepted] == [held.task]
    audit = stack.settle(timeout_s=20)
    assert audit.verdict is Verdict.PASS, audit.text()


@pytest.mark.stack(**APP, options=["--concurrency=1", *ALONE])
def test_a_step_of_a_chain_is_held_before_its_confirm(stack: Stack) -> None:
    with stack.hold("moments.commit", Moment.UNCONFIRMED) as hold:
        stack.producer.send("moments.send_on", ["order", "t-1"])
        held = hold.wait()
        assert (held.task, held.node, held.moment) == ("t-1", "worker-1", Moment.UNCONFIRMED)
        assert "t-1" not in stack.ledger.started()
    audit = stack.settle(timeout_s=20)
    assert met(audit) == {Fate.OK: 2}, audit.text()


@pytest.mark.stack(**APP, options=["--concurrency=1", *ALONE])
@pytest.mark.parametrize(
    ("moment", "ticks", "found"),
    [(Moment.SCHEDULE_SAVING, 2, {"tick-doubled"}), (Moment.SCHEDULE_SAVED, 1, set())],
)
def test_a_beat_that_dies_sends_a_tick_again_only_if_it_has_not_saved_it(
    stack: Stack, moment: Moment, ticks: int, found: set[str]
) -> None:
    with stack.hold("moments.tick", moment) as hold:
        # The next minute of its clock begins in a few seconds. If beat is not ready by then, it is one minute more.
        beat = stack.add_beat(ahead_s=-(time.time() + 5) % 60)
        assert hold.wait(120).node == "beat-1"
        hold.kill()
    wait_until(lambda: not beat.is_up(), what="beat is dead", timeout_s=20)
    assert stack.ledger.ticks["minutely"] == 1
    woke = len(beat.said(Kind.WOKE))
    beat.start()
    beat.wait_ready()
    wait_until(lambda: len(beat.said(Kind.WOKE)) >= woke + 1, what="beat has looked at its schedule", timeout_s=20)
    beat.stop()
    audit = stack.settle(timeout_s=20)
    assert stack.ledger.ticks["minutely"] == ticks, audit.text()
    assert met(audit) == {Fate.OK: ticks}, audit.text()
    assert failing(audit) == found, audit.text()
