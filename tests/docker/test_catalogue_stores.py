"""Checks of the catalogue about results, revocations, and later workers. docs/catalogue.md lists all checks."""

import time

import pytest
from celery import Celery

from harness.faults import LockResults
from harness.records.expectation import Expect
from harness.records.verdict import Fate
from harness.stack.stack import Stack
from harness.wait import wait_until
from tests.docker.accounts import failing, met, reasons, said

BARE = ["--without-mingle", "--without-gossip"]
CHECKS = {"app": "checks", "app_folder": "tests/docker/apps"}
ONE = {**CHECKS, "options": ["--concurrency=1", *BARE]}
pytestmark = [pytest.mark.docker, pytest.mark.catalogue]

LOCKED_S = 22.0
"""Longer than Celery itself would try, four times for 5 s."""


@pytest.mark.stack(app="endings", app_folder="tests/docker/apps", options=["--concurrency=1", *BARE])
def test_results_that_are_locked_for_longer_than_celery_tries_are_stored_and_keep_no_sender_waiting(
    stack: Stack,
) -> None:
    client = Celery("client", set_as_current=False)
    with stack.app(client), stack.inject(LockResults()) as fault:
        began_s = time.monotonic()
        client.send_task("work", kwargs={"key": "own"})
        assert time.monotonic() - began_s < LOCKED_S / 2
        sent = stack.producer.send("work", kwargs={"key": "x"}, expect=Expect(result="done", effects=["x"]))
        wait_until(lambda: time.monotonic() - began_s > LOCKED_S, what="the lock has lasted", timeout_s=2 * LOCKED_S)
        assert stack.results.row(sent.task) is None
    audit = stack.settle()
    assert audit.passed, audit.text()
    assert fault.landed() is None
    assert met(audit) == {Fate.OK: 2}


@pytest.mark.stack(**CHECKS, workers=2, options=["--concurrency=4", *BARE])
def test_several_workers_make_the_tables_at_once_and_write_a_row_for_each_task(stack: Stack) -> None:
    for number in range(60):
        stack.producer.send("act", [f"{number}"], expect=Expect(result=f"{number}"))
    audit = stack.settle()
    assert audit.passed, audit.text()
    assert met(audit) == {Fate.OK: 60}
    assert stack.results.count("SUCCESS") == stack.results.count() == 60
    assert set(audit.workers) == {"worker-1", "worker-2"}


@pytest.mark.stack(**ONE, env={"SETTINGS": '{"worker_prefetch_multiplier": 8}'})
def test_a_revocation_that_no_worker_heard_is_told_and_what_one_holds_is_not_shared_with_a_later_one(
    stack: Stack,
) -> None:
    # Workers keep what was revoked in their memory: Celery's documentation, Workers Guide: Revoking tasks.
    (worker,) = stack.workers
    worker.stop(10)
    sent = stack.producer.send("act", ["revoked"], expect=Expect(state="REVOKED"))
    app = Celery(broker=stack.login.amqp_url_outside, backend="disabled", set_as_current=False)
    with app.connection_for_write() as connection:
        app.control.revoke(sent.task, connection=connection)
    worker.start()
    worker.wait_ready()
    audit = stack.settle()
    assert met(audit) == {Fate.WRONG: 1}, audit.text()
    assert "expected REVOKED, came SUCCESS" in said(audit, "wrong")
    # https://github.com/celery/celery/issues/2541: on RabbitMQ 4, no more than the prefetch allows.
    due_s = 20.0
    began_s = time.monotonic()
    tasks = [stack.producer.send("act", [f"{number}", 1.0], countdown_s=due_s).task for number in range(6)]
    wait_until(lambda: all(stack.ledger.holder(task) for task in tasks), what="it holds all of them", timeout_s=20)
    stack.add_worker()
    assert time.monotonic() - began_s < due_s
    audit = stack.settle(timeout_s=60)
    assert failing(audit) == {"wrong"}, audit.text()
    assert audit.workers == {"worker-1": 7, "worker-2": 0}
    assert "Most were held by worker-1" in said(audit, "hoarded")
    assert reasons(audit)["hoarded"] == ["worker_prefetch_multiplier is 8 (app)"]
