"""Messages that a queue gets rid of, and messages that a worker throws away: each is named, with place and reason."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from kombu import Connection

from harness.records.expectation import Expect
from harness.records.verdict import Fate, Verdict
from harness.stack.stack import Stack
from tests.docker.accounts import codes, failing, met, reasons, said, settled

ONE = ["--concurrency=1", "--without-mingle", "--without-gossip"]
LETTERS = {"app": "letters", "app_folder": "tests/docker/apps", "options": ONE}
ENDINGS = {"app": "endings", "app_folder": "tests/docker/apps", "options": ONE}
pytestmark = pytest.mark.docker


@contextmanager
def channel(stack: Stack) -> Iterator[Any]:
    with Connection(stack.login.amqp_url_outside) as connection:
        yield connection.default_channel


@pytest.mark.stack(**LETTERS)
def test_a_dead_letter_is_at_rest_and_what_comes_back_after_a_time_is_waited_for(stack: Stack) -> None:
    stack.producer.send("refuse", queue="rejects", expect=Expect(state="FAILURE", error="Reject"))
    stack.producer.send("bounce", queue="bounces", expect=Expect(result="done"))
    stack.producer.send("act", queue="later", expect=Expect(result="done"))
    audit = stack.settle()
    assert audit.verdict is Verdict.PASS, audit.text()
    assert met(audit) == {Fate.OK: 2, Fate.FAILED: 1}
    # Celery records a failure for each message that a task refuses, also for the one that came back.
    assert codes(audit) == {"dead-letters", "failed-run"}
    assert "1 refuse in `dead`, from `rejects` (rejected)" in said(audit, "dead-letters")
    assert settled(stack)["waited_s"] < 4


@pytest.mark.stack(**LETTERS)
def test_what_a_queue_got_rid_of_is_lost_and_named_with_its_queue_and_why(stack: Stack) -> None:
    expired = stack.producer.send("act", queue="short")
    displaced = stack.producer.send("act", queue="small")
    stack.producer.send("act", queue="small")
    poison = stack.producer.send("poison", queue="fragile")
    audit = stack.settle(timeout_s=30)
    assert met(audit) == {Fate.LOST: 3, Fate.PENDING: 1}, audit.text()
    assert failing(audit) == {"lost", "pending"}
    assert codes(audit) == {"lost", "pending", "dead-letters"}
    for sent, place in (
        (expired, "it lies in `dead`, because `short` got rid of it (expired, once)"),
        (displaced, "it lies in `dead`, because `small` got rid of it (maxlen, once)"),
        (poison, "it lies in `dead`, because `fragile` got rid of it (delivery_limit, once)"),
    ):
        assert f"({sent.task}) is a dead letter: {place}" in said(audit, "lost")
    assert "1 waits in `small`, which nobody consumes" in said(audit, "pending")
    assert settled(stack)["how"] == "stuck"


@pytest.mark.stack(**LETTERS)
def test_what_a_queue_dropped_is_lost_with_what_the_queue_allows_and_what_it_refused_was_never_there(
    stack: Stack,
) -> None:
    expired = stack.producer.send("act", queue="brief")
    displaced = stack.producer.send("act", queue="tiny")
    stack.producer.send("act", queue="tiny")
    assert stack.producer.send("act", queue="strict").accepted
    assert not stack.producer.send("act", queue="strict").accepted
    audit = stack.settle()
    assert met(audit) == {Fate.LOST: 2, Fate.PENDING: 2, Fate.REFUSED: 1}, audit.text()
    assert failing(audit) == {"lost", "pending"}
    lost = said(audit, "lost")
    assert f"({expired.task}): `brief` keeps a message for no more milliseconds than 300" in lost
    assert f"({displaced.task}): `tiny` holds no more messages than 1" in lost
    assert settled(stack)["waited_s"] < 4


@pytest.mark.stack(**LETTERS)
def test_what_was_purged_and_what_went_with_its_queue_is_lost(stack: Stack) -> None:
    purged = stack.producer.send("act", queue="purged")
    deleted = stack.producer.send("act", queue="deleted")
    with channel(stack) as admin:
        assert admin.queue_purge("purged") == 1
        admin.queue_delete("deleted")
    audit = stack.settle()
    assert met(audit) == {Fate.LOST: 2}, audit.text()
    assert f"no worker ever began act ({purged.task}): look for a queue that was purged" in said(audit, "lost")
    assert f"({deleted.task}): there is no queue `deleted`" in said(audit, "lost")
    assert settled(stack)["waited_s"] < 4


CONFIRMS = '"broker_transport_options": {"confirm_publish": true}'


def hand_on(stack: Stack, name: str, **options: Any) -> None:
    stack.producer.send("hand_on", [name, {}, options])


@pytest.mark.stack(**ENDINGS, env={"SETTINGS": "{" + CONFIRMS + "}"})
def test_a_message_that_a_worker_throws_away_and_one_that_no_queue_is_bound_for_are_lost(stack: Stack) -> None:
    hand_on(stack, "moody", serializer="pickle", task_id="pickled")
    hand_on(stack, "no_such_task", task_id="unknown")
    hand_on(stack, "moody", exchange="celery", routing_key="nobody", task_id="unrouted")
    audit = stack.settle()
    # Of a task that it does not know, Celery records a failure.
    assert met(audit) == {Fate.OK: 3, Fate.FAILED: 1, Fate.LOST: 2}, audit.text()
    assert failing(audit) == {"failed-unexpectedly", "lost"}
    assert "worker-1 discarded moody (pickled): ContentDisallowed" in said(audit, "lost")
    assert reasons(audit)["lost"][0].startswith("accept_content is ['json']")
    assert "no worker ever began moody (unrouted): there is no queue `nobody`" in said(audit, "lost")
    assert "NotRegistered: no_such_task" in said(audit, "failed-unexpectedly")
    assert "revoked" not in audit.text()


@pytest.mark.stack(**ENDINGS)
def test_without_a_confirm_the_one_ended_without_a_row_and_of_the_other_nobody_knows(stack: Stack) -> None:
    hand_on(stack, "moody", serializer="pickle", task_id="pickled")
    hand_on(stack, "moody", exchange="celery", routing_key="nobody", task_id="unrouted")
    audit = stack.settle()
    assert met(audit) == {Fate.OK: 2, Fate.UNRECORDED: 1, Fate.UNKNOWN: 1}, audit.text()
    assert failing(audit) == {"unrecorded", "unknown"}
    assert "worker-1 discarded moody (pickled): ContentDisallowed" in said(audit, "unrecorded")
    assert "moody (unrouted) was sent without a confirm" in said(audit, "unknown")
    assert reasons(audit)["unknown"] == ["confirm_publish is False (sender)"]
    assert "revoked" not in audit.text()
    assert settled(stack)["waited_s"] < 4


@pytest.mark.stack(**ENDINGS, env={"SETTINGS": '{"accept_content": ["application/x-yaml"]}'})
def test_a_worker_that_accepts_no_json_discards_what_the_producer_sends(stack: Stack) -> None:
    stack.producer.send("work", kwargs={"key": "x"})
    audit = stack.settle()
    assert met(audit) == {Fate.LOST: 1}, audit.text()
    assert failing(audit) == {"lost"}
    assert "application/json" in said(audit, "lost")
    assert "revoked" not in audit.text()
