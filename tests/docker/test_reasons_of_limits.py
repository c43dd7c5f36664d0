"""Reasons of limits: of memory, of time for an acknowledgement, of what a worker takes ahead, and of a broker's memory.

Each thing is provoked with the setting that is to blame, and with the line that the audit proposed.
"""

import json

import pytest

from harness.audit.audit import Audit
from harness.faults import OutOfMemory, Restart
from harness.records.event import Kind
from harness.records.expectation import Delivery, Expect, Promise
from harness.records.moment import Moment
from harness.records.verdict import Fate
from harness.stack.stack import Stack
from harness.wait import wait_until
from tests.docker.accounts import codes, failing, met
from tests.docker.test_reasons import arguments, env, remedies

BARE = ["--without-mingle", "--without-gossip"]
NEEDY = {"app": "needy", "app_folder": "tests/docker/apps", "options": ["--concurrency=1", *BARE]}
pytestmark = [pytest.mark.docker, pytest.mark.catalogue]

ROOM_MB = 150
"""The memory that is left for tasks which keep 40 MiB each: some of them fit into it."""


def starve(stack: Stack) -> Audit:
    """Have tasks keep more memory than there is."""
    worker = stack.workers[0]
    stack.producer.send("keep", [1])
    wait_until(lambda: worker.said(Kind.FINISHED), what="the pool process has begun", timeout_s=30)
    with stack.inject(OutOfMemory("worker", room_mb=ROOM_MB)):
        for _ in range(6):
            stack.producer.send("keep", [40])
        wait_until(lambda: len(worker.said(Kind.FINISHED)) >= 7, what="all have ended", timeout_s=60)
    return stack.settle()


@pytest.mark.stack(**NEEDY)
def test_a_process_that_grew_until_the_kernel_killed_it_names_the_limit_that_would_have_replaced_it(
    stack: Stack,
) -> None:
    audit = starve(stack)
    assert met(audit) == {Fate.OK: 6, Fate.FAILED: 1}, audit.text()
    ((reason, line),) = remedies(audit)["failed-unexpectedly"]
    assert reason == "worker_max_memory_per_child is None (app)"
    assert 100_000 < limit_kb(line) < 1024 * (ROOM_MB + 100)


def limit_kb(line: str) -> int:
    """Return the limit that a proposed line sets."""
    return int(line.removeprefix("app.conf.worker_max_memory_per_child = "))


@pytest.mark.stack(**NEEDY, env=env(("", "app.conf.worker_max_memory_per_child = 150000")))
def test_with_such_a_limit_processes_are_replaced_and_none_is_killed(stack: Stack) -> None:
    audit = starve(stack)
    assert met(audit) == {Fate.OK: 7}, audit.text()
    # Nobody came to the container's limit any more.
    assert failing(audit) == {"fault-not-landed"}


HURRIED = 'Queue("celery", queue_arguments={"x-consumer-timeout": 1500})'
LONG_S = 2.4


def take_long(stack: Stack) -> Audit:
    """Have a task take longer than the broker waits for its acknowledgement, if it waits 1.5 s."""
    # A channel looks at its time-outs once a minute, and at the interval that was set when it was opened.
    stack.broker.container.execute("rabbitmqctl", "eval", "application:set_env(rabbit, channel_tick_interval, 300).")
    for _ in range(2):
        stack.add_worker()
    stack.producer.send("act", ["long"], {"pause_s": LONG_S}, expect=Expect(result="long"))
    return stack.settle(timeout_s=20)


OWN = {**NEEDY, "workers": 0, "own_broker": True, "promise": Promise(delivery=Delivery.AT_MOST_ONCE)}


# celery/celery#6760: each worker that gets it ends as well, because Celery does not go on after a closed channel.
@pytest.mark.stack(**OWN, env={"ARGUMENTS": arguments(HURRIED)})
def test_a_queue_that_wants_an_early_acknowledgement_is_named_and_its_workers_end_one_by_one(stack: Stack) -> None:
    audit = take_long(stack)
    assert met(audit) == {Fate.DUPLICATED: 1}, audit.text()
    ((reason, line),) = remedies(audit)["duplicated"]
    assert reason == "x-consumer-timeout is 1500 (queue celery)"
    assert json.loads(arguments(line))["x-consumer-timeout"] == 3000
    assert not any(worker.is_up() for worker in stack.workers)


@pytest.mark.stack(**OWN, env={"ARGUMENTS": arguments(HURRIED.replace("1500", "3000"))})
def test_a_queue_that_waits_for_longer_delivers_it_once(stack: Stack) -> None:
    audit = take_long(stack)
    assert audit.passed, audit.text()
    assert met(audit) == {Fate.OK: 1}
    assert all(worker.is_up() for worker in stack.workers)


def restart_broker(stack: Stack) -> Audit:
    """Restart the broker while messages of a worker and one of the test wait in the queue."""
    with stack.hold("act", Moment.STARTED) as hold:
        stack.producer.send("send_on", [["running", "waiting"], {}])
        hold.wait()
        # The producer of a test asks the broker to keep what it sends.
        stack.producer.send("act", ["kept"], expect=Expect(result="kept"))
        stack.inject(Restart("broker", grace_s=30)).heal()
    return stack.settle(timeout_s=60)


# Without a queue of its own for remote control, a worker that connects anew is not refused.
CALM = {"worker_enable_remote_control": False, "broker_transport_options": {"confirm_publish": True}}
RESTARTED = {**NEEDY, "own_broker": True}


@pytest.mark.stack(**RESTARTED, env=env(**CALM, task_default_delivery_mode=1))
def test_what_was_sent_as_transient_is_lost_with_its_broker_and_what_was_not_is_there(stack: Stack) -> None:
    audit = restart_broker(stack)
    # What ran goes on in its worker.
    assert met(audit) == {Fate.OK: 3, Fate.LOST: 1}, audit.text()
    said = [("task_default_delivery_mode is 1 (app)", PERSISTENT[1])]
    assert remedies(audit) == {"lost": said}


PERSISTENT = ("", "app.conf.task_default_delivery_mode = 2")


@pytest.mark.stack(**RESTARTED, env=env(PERSISTENT, **CALM))
def test_with_the_proposed_line_a_restart_of_the_broker_loses_nothing(stack: Stack) -> None:
    audit = restart_broker(stack)
    assert audit.passed, audit.text()
    assert met(audit) == {Fate.OK: 4}


PAIR = {**NEEDY, "workers": 2}


def run_beside(stack: Stack) -> Audit:
    """Send a long task, and short ones once it runs."""
    long = stack.producer.send("act", ["long"], {"pause_s": 3})
    wait_until(lambda: long.task in stack.ledger.started(), what="the long task runs", timeout_s=30)
    for number in range(6):
        stack.producer.send("act", [f"short-{number}"])
    return stack.settle()


@pytest.mark.stack(**PAIR, env=env(worker_prefetch_multiplier=8))
def test_a_worker_that_takes_much_ahead_names_how_much(stack: Stack) -> None:
    audit = run_beside(stack)
    assert audit.passed, audit.text()
    assert remedies(audit) == {"hoarded": [("worker_prefetch_multiplier is 8 (app)", AHEAD[1])]}


AHEAD = ("", "app.conf.worker_prefetch_multiplier = 1")


@pytest.mark.stack(**PAIR, env=env(AHEAD))
def test_with_the_proposed_line_no_worker_idles_beside_waiting_messages(stack: Stack) -> None:
    audit = run_beside(stack)
    assert audit.passed, audit.text()
    assert codes(audit) == set()
