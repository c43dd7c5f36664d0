"""Settling waits for whatever still moves by itself, and ends soon after nothing does."""

import pytest
from celery import Celery

from harness.producer import Sent
from harness.records.expectation import Expect
from harness.records.verdict import Fate, Verdict
from harness.stack.stack import Stack
from harness.wait import wait_until
from tests.docker.accounts import failing, met, said, settled
from tests.docker.connections import close_connections

ENDINGS = {"app": "endings", "app_folder": "tests/docker/apps"}
ONE = {**ENDINGS, "options": ["--concurrency=1", "--without-mingle", "--without-gossip"]}
SOLO = {**ENDINGS, "options": ["--pool=solo", "--without-mingle", "--without-gossip"]}
THREADS = {**ENDINGS, "options": ["--pool=threads", "--concurrency=1", "--without-mingle", "--without-gossip"]}
SOON_S = 4.0
"""No later than this it is over where nothing can move: a second is waited in any case, and the machine may be slow."""
pytestmark = pytest.mark.docker


def send(stack: Stack, name: str, key: str, countdown_s: float | None = None, **kwargs: object) -> Sent:
    expect = Expect(result="done", effects=[key])
    return stack.producer.send(name, kwargs={"key": key, **kwargs}, expect=expect, countdown_s=countdown_s)


def hand_on(stack: Stack, key: str, **options: object) -> None:
    stack.producer.send("hand_on", ["work", {"key": key}, options])


def wait_started(stack: Stack, sent: Sent) -> None:
    wait_until(lambda: sent.task in stack.ledger.started(), what=f"{sent.task} began", timeout_s=30)


def wait_held(stack: Stack, sent: Sent) -> None:
    wait_until(lambda: stack.ledger.holder(sent.task), what=f"a worker has {sent.task}", timeout_s=20)


def check_rest(stack: Stack, tasks: int) -> None:
    audit = stack.settle(timeout_s=20)
    assert audit.verdict is Verdict.PASS, audit.text()
    assert met(audit) == {Fate.OK: tasks}
    assert settled(stack)["how"] == "rest"


def send_what_moves(stack: Stack) -> int:
    """Send what takes its time by itself. Returns how many tasks that are."""
    send(stack, "retrying", "retried", times=2, countdown=1.2)
    send(stack, "work", "due", countdown_s=3)
    send(stack, "work", "slow", pause_s=1.5)
    for number in range(4):
        send(stack, "rated", f"rated-{number}")
    return 7


@pytest.mark.stack(**ONE)
def test_retries_times_and_rates_are_waited_for_and_what_comes_later_than_that_is_not(stack: Stack) -> None:
    count = send_what_moves(stack)
    check_rest(stack, count)
    late = send(stack, "work", "late", countdown_s=60)
    wait_held(stack, late)
    audit = stack.settle(timeout_s=10)
    assert met(audit) == {Fate.OK: count, Fate.PENDING: 1}, audit.text()
    assert f"work ({late.task}) is held by worker-1 for another" in said(audit, "pending")
    assert settled(stack)["how"] == "stuck"
    assert settled(stack)["waited_s"] < SOON_S


@pytest.mark.stack(**SOLO)
def test_a_worker_without_a_pool_is_waited_for(stack: Stack) -> None:
    check_rest(stack, send_what_moves(stack))


@pytest.mark.stack(**THREADS, env={"SETTINGS": '{"worker_prefetch_multiplier": 4}'})
def test_what_waits_in_a_worker_with_threads_is_waited_for(stack: Stack) -> None:
    check_rest(stack, send_what_moves(stack))


DELAYED = {"EXCHANGE": "topic", "ARGUMENTS": '{"x-queue-type": "quorum"}'}


@pytest.mark.stack(**ONE, env=DELAYED)
def test_what_the_broker_delays_is_waited_for_unless_its_time_comes_too_late(stack: Stack) -> None:
    hand_on(stack, "soon", countdown=3)
    check_rest(stack, 2)
    hand_on(stack, "late", countdown=600)
    audit = stack.settle(timeout_s=10)
    assert met(audit) == {Fate.OK: 3, Fate.PENDING: 1}, audit.text()
    assert "in `celery_delayed_" in said(audit, "pending")
    assert settled(stack)["how"] == "stuck"
    assert settled(stack)["waited_s"] < SOON_S


@pytest.mark.stack(**ONE)
def test_a_worker_that_has_lost_its_connection_is_waited_for_until_it_is_back(stack: Stack) -> None:
    first = stack.producer.send("work", kwargs={"key": "first", "pause_s": 2})
    for number in range(3):
        stack.producer.send("work", kwargs={"key": f"key-{number}"})
    wait_started(stack, first)
    wait_until(lambda: close_connections(stack), what="the broker knows of the connections", timeout_s=20)
    check_rest(stack, 4)


@pytest.mark.stack(**ONE)
def test_what_nobody_is_there_to_take_is_not_waited_for(stack: Stack) -> None:
    stack.producer.send("work", kwargs={"key": "x"}, queue="elsewhere")
    audit = stack.settle(timeout_s=20)
    assert met(audit) == {Fate.PENDING: 1}, audit.text()
    assert "1 waits in `elsewhere`, which nobody consumes; workers consume: " in said(audit, "pending")
    assert settled(stack)["waited_s"] < SOON_S
    running = stack.producer.send("work", kwargs={"key": "x", "pause_s": 60})
    stack.producer.send("work", kwargs={"key": "x", "pause_s": 60})
    wait_started(stack, running)
    stack.workers[0].kill()
    audit = stack.settle(timeout_s=20)
    assert met(audit) == {Fate.PENDING: 3}, audit.text()
    assert failing(audit) == {"pending"}
    assert "2 wait in `celery`, which nobody consumes; no worker runs" in said(audit, "pending")
    assert settled(stack)["how"] == "stuck"
    assert settled(stack)["waited_s"] < SOON_S


@pytest.mark.stack(**ONE)
def test_what_expires_where_nobody_takes_it_is_waited_for(stack: Stack) -> None:
    stack.producer.send("work", kwargs={"key": "x"}, queue="elsewhere", expires_s=2, expect=Expect(state="REVOKED"))
    audit = stack.settle(timeout_s=20)
    assert audit.verdict is Verdict.PASS, audit.text()
    assert met(audit) == {Fate.FAILED: 1}
    assert settled(stack)["waited_s"] >= 1.5


@pytest.mark.stack(**ONE)
def test_an_app_that_goes_on_sending_is_restless_and_named(stack: Stack) -> None:
    stack.producer.send("poll")
    audit = stack.settle(limit_s=3)
    assert "restless" in failing(audit), audit.text()
    assert "poll sent" in said(audit, "restless")
    assert settled(stack)["how"] == "limit"
    assert settled(stack)["waited_s"] < 3 + 1
    # The last one that it sent waits for ever.
    stack.workers[0].stop(5)
    audit = stack.settle()
    assert audit.fates[Fate.PENDING] == 1, audit.text()
    assert failing(audit) == {"pending"}
    assert settled(stack)["waited_s"] < SOON_S


def revoke(stack: Stack, sent: Sent) -> None:
    app = Celery(broker=stack.login.amqp_url_outside, backend="disabled", set_as_current=False)
    with app.connection_for_write() as connection:
        app.control.revoke(sent.task, connection=connection)


@pytest.mark.stack(**ONE)
def test_a_revoked_task_is_waited_for_and_a_worker_that_restarts_has_forgotten_what_was_revoked(stack: Stack) -> None:
    for key in ("revoked", "forgotten"):
        expect = Expect(state="REVOKED")
        sent = stack.producer.send("work", kwargs={"key": key}, countdown_s=4, expect=expect)
        wait_held(stack, sent)
        revoke(stack, sent)
        if key == "forgotten":
            stack.workers[0].restart(5)
            stack.workers[0].wait_ready()
        audit = stack.settle(timeout_s=20)
        assert settled(stack)["how"] == "rest"
        assert failing(audit) == ({"wrong"} if key == "forgotten" else set()), audit.text()
    assert met(audit) == {Fate.FAILED: 1, Fate.WRONG: 1}
    assert "expected REVOKED, came SUCCESS" in said(audit, "wrong")
