"""The producer and a real broker: the queues that it meets there, and what it says of those that are gone."""

import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import amqp
import kombu
import pytest

from harness.audit import results
from harness.audit.run_folder import RunFolder
from harness.producer import Producer
from harness.records.event import Kind
from harness.records.journal import Writer
from harness.records.verdict import Fate
from harness.stack.attached import Attached
from harness.stack.stack import Stack

pytestmark = [
    pytest.mark.docker,
    pytest.mark.stack(app="faulty", app_folder="tests/docker/apps", workers=0),
]

BOUND_S = 12.0
"""Twice the producer's time-out, and some more for a machine that is busy."""
OF_SOMEBODY_ELSE = [{"x-max-priority": 10}, {"x-queue-type": "quorum"}, {"x-message-ttl": 60_000}]


@contextmanager
def a_channel(stack: Stack) -> Iterator[Any]:
    with kombu.Connection(stack.login.amqp_url_outside, connect_timeout=5) as connection:
        yield connection.default_channel


def declare(stack: Stack, queue: str, arguments: Mapping[str, Any]) -> None:
    with a_channel(stack) as channel:
        channel.queue_declare(queue, durable=True, auto_delete=False, arguments=dict(arguments))


def fates(stack: Stack) -> dict[Fate, int]:
    """Return the tasks' fates; no worker takes tasks, so those that the broker has are pending."""
    return {fate: count for fate, count in stack.settle(timeout_s=0.5).fates.items() if count}


@pytest.mark.parametrize("arguments", OF_SOMEBODY_ELSE, ids=lambda arguments: next(iter(arguments)))
def test_a_queue_that_is_there_is_used_as_it_is(stack: Stack, arguments: Mapping[str, Any]) -> None:
    declare(stack, "theirs", arguments)
    # The negative control: to declare it as Celery does is an error.
    with pytest.raises(amqp.exceptions.PreconditionFailed):
        declare(stack, "theirs", {})
    for _ in range(3):
        sent = stack.producer.send("act", queue="theirs", priority=5)
        assert sent.accepted, sent.reason
    # The broker counts a quorum queue late, and every message is found all the same.
    assert fates(stack) == {Fate.PENDING: 3}


def test_a_queue_that_is_not_there_is_declared_as_celery_does(stack: Stack) -> None:
    for _ in range(3):
        sent = stack.producer.send("act", queue="new")
        assert sent.accepted, sent.reason
    assert fates(stack) == {Fate.PENDING: 3}
    declare(stack, "new", {})
    with a_channel(stack) as channel:
        channel.queue_bind("new", exchange="new", routing_key="new")
        with pytest.raises(amqp.exceptions.PreconditionFailed):
            channel.exchange_declare("new", type="fanout", durable=True, auto_delete=False)


def test_no_channel_but_the_one_for_publishing_stays_open(stack: Stack) -> None:
    declare(stack, "theirs", {"x-max-priority": 10})
    for queue in ("theirs", "new", "newer"):
        assert stack.producer.send("act", queue=queue).accepted
    assert fates(stack) == {Fate.PENDING: 3}
    (link,) = stack.producer._idle  # noqa: SLF001 - nothing else shows it at once.
    # Number 0 is the connection itself.
    assert sorted(link.connection.connection.channels) == [0, 1]


def test_what_is_sent_to_a_queue_that_was_deleted_is_refused(stack: Stack) -> None:
    assert stack.producer.send("act", queue="gone").accepted
    assert stack.producer.send("act", queue="here").accepted
    with a_channel(stack) as channel:
        channel.queue_delete("gone")
    for _ in range(2):
        sent = stack.producer.send("act", queue="gone")
        assert sent.outcome is Kind.REFUSED
        assert sent.reason
        assert sent.reason.startswith("unroutable: no queue 'gone'")
    # The second would have been accepted by a new connection, so it is the old one that still tells them apart.
    assert stack.producer.send("act", queue="here").accepted
    declare(stack, "gone", {"x-max-priority": 10})
    assert stack.producer.send("act", queue="gone").accepted
    assert fates(stack) == {Fate.PENDING: 3, Fate.REFUSED: 2, Fate.LOST: 1}


def test_a_queue_that_cannot_be_declared_refuses_each_task(stack: Stack) -> None:
    with a_channel(stack) as channel:
        channel.exchange_declare("theirs", type="fanout", durable=True, auto_delete=False)
    for _ in range(2):
        sent = stack.producer.send("act", queue="theirs")
        assert sent.outcome is Kind.REFUSED
        assert sent.reason
        assert sent.reason.startswith("no queue 'theirs': PreconditionFailed")
    assert stack.producer.send("act", queue="here").accepted
    assert fates(stack) == {Fate.PENDING: 1, Fate.REFUSED: 2}


def test_of_a_cluster_with_a_dead_node_the_live_one_takes_the_tasks(stack: Stack, tmp_path: Path) -> None:
    live = stack.login.amqp_url_outside
    # Nobody listens on port 1, and to a user that it does not know, the broker itself is no better.
    login, _, place = live.removeprefix("amqp://").rpartition("@")
    dead, strange = f"amqp://{login}@127.0.0.1:1/{stack.login.vhost}", f"amqp://nobody:wrong@{place}"
    reasons: dict[str, str | None] = {}
    with closing(Writer(stack.folder.journal, node="cluster", role="producer")) as journal:
        for name, nodes in {
            "first": [dead, live],
            "last": [live, dead],
            "strange": [strange, live],
            "none": [strange, dead],
        }.items():
            with Producer(";".join(nodes), journal) as producer:
                sent = producer.send("act", queue="here")
                reasons[name] = sent.reason
    none = reasons.pop("none")
    assert reasons == dict.fromkeys(("first", "last", "strange"))
    assert none is not None
    assert none.startswith(f"no connection: none of 2 nodes; the last, 127.0.0.1:1/{stack.login.vhost}: ConnectionRef")
    assert fates(stack) == {Fate.PENDING: 3, Fate.REFUSED: 1}
    # Who attaches to such a cluster is let in as well.
    results.create(tmp_path / "results.sqlite3")
    url = f"sqlite:///{tmp_path / 'results.sqlite3'}"
    with Attached(f"{dead};{live}", url, RunFolder.create(tmp_path, "attached")) as attached:
        assert attached.producer.send("act", queue="here").accepted


def test_a_broker_that_pauses_before_a_queue_was_met_is_given_up_in_time(stack: Stack) -> None:
    assert stack.producer.send("act", queue="met").accepted
    stack.broker.pause()
    try:
        begun_s = time.monotonic()
        sent = stack.producer.send("act", queue="not-met")
        took_s = time.monotonic() - begun_s
    finally:
        stack.broker.unpause()
    assert sent.outcome is Kind.REFUSED
    assert sent.reason
    assert sent.reason.startswith("no queue 'not-met': ")
    assert took_s < BOUND_S
    assert stack.producer.send("act", queue="not-met").accepted
    assert fates(stack) == {Fate.PENDING: 2, Fate.REFUSED: 1}
