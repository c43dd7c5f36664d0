"""Messages that share a connection, and a real broker: each has the outcome that is its own."""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kombu
import pytest

from harness.records.verdict import Fate
from harness.stack.stack import Stack

pytestmark = [
    pytest.mark.docker,
    pytest.mark.stack(app="faulty", app_folder="tests/docker/apps", workers=0),
]

ROOT = Path(__file__).parents[2]
BOUND_S = 12.0
"""Twice the producer's time-out, and some more for a machine that is busy."""
SENDERS = 64

Send = Callable[[str, int], Counter[tuple[str, str | None]]]
"""Sends so many tasks to a queue at once, and counts their outcomes, each with the first words of its reason."""


@pytest.fixture
def send(stack: Stack) -> Iterator[Send]:
    """In a process of its own: gevent has to own all of its sockets."""
    command = [sys.executable, "-m", "gevent.monkey", "--module", "tests.docker.pipelining"]
    with subprocess.Popen(
        [*command, stack.login.amqp_url_outside, str(stack.folder.journal)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        given, said = process.stdin, process.stdout

        def send(queue: str, count: int) -> Counter[tuple[str, str | None]]:
            given.write(f"{queue} {count}\n")
            given.flush()
            return Counter((outcome, _first_words(reason)) for outcome, reason in json.loads(said.readline()))

        try:
            yield send
            given.close()
            assert process.wait(timeout=BOUND_S) == 0
        finally:
            process.kill()


def _first_words(reason: str | None) -> str | None:
    return None if reason is None else reason.partition(":")[0]


@contextmanager
def a_channel(stack: Stack) -> Iterator[Any]:
    with kombu.Connection(stack.login.amqp_url_outside, connect_timeout=5) as connection:
        yield connection.default_channel


def fates(stack: Stack) -> dict[Fate, int]:
    """Return the tasks' fates; no worker takes tasks, so those that the broker has are pending."""
    return {fate: count for fate, count in stack.settle(timeout_s=0.5).fates.items() if count}


def test_all_that_are_sent_at_once_are_accepted_each_for_itself(stack: Stack, send: Send) -> None:
    for _ in range(20):
        assert send("celery", SENDERS) == {("accepted", None): SENDERS}
    assert fates(stack) == {Fate.PENDING: 20 * SENDERS}


def test_a_queue_that_is_full_refuses_those_that_it_did_not_take(stack: Stack, send: Send) -> None:
    full = {"x-max-length": 10, "x-overflow": "reject-publish"}
    with a_channel(stack) as channel:
        channel.queue_declare("full", durable=True, auto_delete=False, arguments=full)
    first, second = send("full", SENDERS), send("full", 5)
    nacked = ("refused", "the broker answered nack")
    # A queue has taken some more by the time its length is seen.
    assert first[nacked] > 0
    assert first.total() == first["accepted", None] + first[nacked] == SENDERS
    assert second == {nacked: 5}
    assert fates(stack) == {Fate.PENDING: first["accepted", None], Fate.REFUSED: first[nacked] + 5}


def test_what_no_queue_takes_comes_back_to_its_sender(stack: Stack, send: Send) -> None:
    assert send("gone", 3) == send("here", 3) == {("accepted", None): 3}
    with a_channel(stack) as channel:
        channel.queue_delete("gone")
    assert send("gone", SENDERS) == {("refused", "unroutable"): SENDERS}
    # The connection is none the worse for it.
    assert send("here", SENDERS) == {("accepted", None): SENDERS}
    assert fates(stack) == {Fate.PENDING: 3 + SENDERS, Fate.REFUSED: SENDERS, Fate.LOST: 3}


def test_a_queue_that_cannot_be_declared_refuses_each_task(stack: Stack, send: Send) -> None:
    with a_channel(stack) as channel:
        channel.exchange_declare("theirs", type="fanout", durable=True, auto_delete=False)
    for _ in range(2):
        assert send("theirs", SENDERS) == {("refused", "no queue 'theirs'"): SENDERS}
    assert send("here", 1) == {("accepted", None): 1}
    assert fates(stack) == {Fate.PENDING: 1, Fate.REFUSED: 2 * SENDERS}


def test_nobody_knows_of_what_a_broker_never_confirmed_and_none_waits_for_another(stack: Stack, send: Send) -> None:
    assert send("celery", SENDERS) == {("accepted", None): SENDERS}
    stack.broker.pause()
    try:
        begun_s = time.monotonic()
        unknown, refused = send("celery", SENDERS), send("celery", SENDERS)
        took_s = time.monotonic() - begun_s
    finally:
        stack.broker.unpause()
    assert unknown == {("unknown", "TimeoutError"): SENDERS}
    assert refused == {("refused", "no connection"): SENDERS}
    assert took_s < BOUND_S
    assert send("celery", SENDERS) == {("accepted", None): SENDERS}
    found = fates(stack)
    assert found.pop(Fate.REFUSED) == SENDERS
    # A paused broker has taken in what lay in its socket, or not.
    assert found.pop(Fate.PENDING) + found.pop(Fate.UNKNOWN, 0) == 3 * SENDERS
    assert not found


def test_a_connection_that_the_broker_has_closed_is_seen_before_the_next_send(stack: Stack, send: Send) -> None:
    assert send("celery", SENDERS) == {("accepted", None): SENDERS}
    stack.broker.delete_vhost(stack.login)
    assert send("celery", 1) == {("refused", "no connection"): 1}
    # Nobody knows what became of the others: their queue is gone.
    stack.settle(timeout_s=0.5)
