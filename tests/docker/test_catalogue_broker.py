"""Checks of the catalogue about a broker that is away, short of memory, or lets connections go.

docs/catalogue.md lists all checks.
"""

import time
from functools import partial

import pytest
from celery import Celery
from kombu.exceptions import OperationalError

from harness.faults import CloseConnections, Kill, MemoryAlarm, Pause
from harness.records.expectation import Effects, Expect, Promise
from harness.records.moment import Moment
from harness.records.verdict import Fate
from harness.stack.stack import Stack
from harness.wait import wait_until
from tests.docker.accounts import met

BARE = ["--without-mingle", "--without-gossip"]
CALM = '{"worker_enable_remote_control": false}'
OWN = {
    "app": "checks",
    "app_folder": "tests/docker/apps",
    "options": ["--concurrency=1", *BARE],
    "env": {"SETTINGS": CALM},
    "own_broker": True,
    "promise": Promise(effects=Effects.AT_LEAST_ONCE),
}
BOUND_S = 30.0
"""Some times what the binding of an app allows for each answer of the broker, for a machine that is busy."""
PAUSED_S = 6.0
pytestmark = [pytest.mark.docker, pytest.mark.catalogue]


@pytest.mark.stack(**OWN)
def test_a_sender_is_answered_in_time_and_a_worker_consumes_after_each_reconnect(stack: Stack) -> None:
    client = Celery("client", set_as_current=False)
    with stack.app(client), stack.inject(Kill("broker")) as killed:
        for _ in range(2):
            check_refused(client)
    assert killed.landed() is None
    wait_consumes(stack)
    # https://github.com/celery/celery/issues/10386: a sender without a limit of its own would wait for the alarm's end.
    with stack.app(client), stack.inject(MemoryAlarm()) as alarm:
        check_refused(client)
    assert alarm.landed() is None
    # https://github.com/celery/celery/issues/8030 and others: a worker that is back and takes nothing.
    for number in range(3):
        with stack.hold("act", Moment.STARTED) as hold:
            stack.producer.send("act", [f"held-{number}"], expect=Expect(result=f"held-{number}"))
            hold.wait(timeout_s=60)
            with stack.inject(CloseConnections("worker")) as closed:
                pass
        assert (closed.landed(), closed.is_back) == (None, True)
        probe = stack.producer.send("act", ["probe"], expect=Expect(result="probe"))
        wait_until(partial(has_ended, stack, probe.task), what="the probe ran", timeout_s=60)
        wait_consumes(stack)
    audit = stack.settle(timeout_s=60)
    assert audit.passed, audit.text()
    found = met(audit)
    assert (found[Fate.OK], found[Fate.REFUSED]) == (6, 2), audit.text()
    # Whether the broker has what it did not confirm in the alarm, nobody knows.
    assert sum(found.values()) == 9


@pytest.mark.stack(**OWN)
def test_ticks_that_beat_sends_to_a_broker_that_stands_still_come_afterwards_each_once(stack: Stack) -> None:
    # https://github.com/celery/celery/issues/3409
    beat = stack.add_beat()
    wait_until(lambda: stack.ledger.ticks["pulse"] >= 2, what="it ticks", timeout_s=30)
    with stack.inject(Pause("broker")) as paused:
        until_s = time.monotonic() + PAUSED_S
        wait_until(lambda: time.monotonic() > until_s, what="the pause has lasted", timeout_s=2 * PAUSED_S)
    before = stack.ledger.ticks["pulse"]
    wait_until(lambda: stack.ledger.ticks["pulse"] >= before + 3, what="it ticks again", timeout_s=60)
    beat.stop()
    audit = stack.settle(timeout_s=60)
    assert audit.passed, audit.text()
    assert paused.landed() is None
    assert paused.overlapped >= PAUSED_S - 2
    (pulse,) = [ticks for ticks in audit.ticks if ticks.entry == "pulse"]
    assert met(audit) == {Fate.OK: pulse.sent}
    assert pulse.sent == pulse.expected


def check_refused(client: Celery) -> None:
    """Check that a send fails, and soon."""
    began_s = time.monotonic()
    with pytest.raises(OperationalError):
        client.send_task("act", ["refused"], retry=False)
    assert time.monotonic() - began_s < BOUND_S


def wait_consumes(stack: Stack) -> None:
    """Wait until the queue has one consumer, as at the beginning."""
    wait_until(lambda: stack.look({"celery"})["celery"].consumers == 1, what="the worker consumes", timeout_s=60)


def has_ended(stack: Stack, task: str) -> bool:
    return stack.ledger.has_ended(task)
