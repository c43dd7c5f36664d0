"""Each fate has a stack that is misused on purpose and must turn red: in that fate and no other."""

import sqlite3
from contextlib import closing, suppress

import pytest
from celery import Celery

from harness.audit.audit import Audit
from harness.producer import Sent
from harness.records.event import Kind
from harness.records.expectation import Effects, Expect, Promise
from harness.records.verdict import Fate, Verdict
from harness.stack.stack import Stack
from harness.wait import wait_until

pytestmark = [
    pytest.mark.docker,
    pytest.mark.stack(app="faulty", app_folder="tests/docker/apps", options=["--concurrency=2", "--without-mingle"]),
]


def send(stack: Stack, key: str, name: str = "act", **kwargs: object) -> Sent:
    expect = Expect(result="done", effects=[key])
    return stack.producer.send(name, kwargs={"key": key, **kwargs}, expect=expect)


def met(audit: Audit) -> dict[Fate, int]:
    return {fate: count for fate, count in audit.fates.items() if count}


def failing(audit: Audit) -> set[str]:
    return {finding.code for finding in audit.findings if finding.verdict is not Verdict.PASS}


def wait_started(stack: Stack, task: str) -> None:
    wait_until(lambda: task in stack.ledger.started(), what=f"{task} started", timeout_s=20)


def test_what_works_passes(stack: Stack) -> None:
    for number in range(5):
        assert send(stack, f"key-{number}").accepted
    audit = stack.settle()
    assert audit.verdict is Verdict.PASS, audit.text()
    assert met(audit) == {Fate.OK: 5}


def test_a_task_that_a_worker_drops_silently_is_lost(stack: Stack) -> None:
    send(stack, "fine")
    gone = send(stack, "gone", name="dropped")
    audit = stack.settle(timeout_s=20)
    assert gone.task not in stack.ledger.started()
    assert met(audit) == {Fate.OK: 1, Fate.LOST: 1}, audit.text()
    assert failing(audit) == {"lost"}
    assert audit.verdict is Verdict.FAIL


def test_an_effect_that_happens_twice_is_duplicated(stack: Stack) -> None:
    send(stack, "once")
    send(stack, "twice", times=2)
    audit = stack.settle()
    assert met(audit) == {Fate.OK: 1, Fate.DUPLICATED: 1}, audit.text()
    assert failing(audit) == {"duplicated"}


def test_a_result_that_differs_is_wrong(stack: Stack) -> None:
    send(stack, "right")
    send(stack, "wrong", result="something else")
    audit = stack.settle()
    assert met(audit) == {Fate.OK: 1, Fate.WRONG: 1}, audit.text()
    assert failing(audit) == {"wrong"}


def test_a_task_whose_row_is_deleted_is_unrecorded(stack: Stack) -> None:
    send(stack, "kept")
    deleted = send(stack, "deleted")
    assert stack.settle().passed
    with closing(sqlite3.connect(stack.folder.results, timeout=10)) as database, database:
        assert database.execute("DELETE FROM celery_taskmeta WHERE task_id = ?", (deleted.task,)).rowcount == 1
    audit = stack.settle()
    assert met(audit) == {Fate.OK: 1, Fate.UNRECORDED: 1}, audit.text()
    assert failing(audit) == {"unrecorded", "row-deleted"}


def test_a_task_published_behind_the_producers_back_is_unexpected(stack: Stack) -> None:
    send(stack, "mine")
    stranger = Celery(broker=stack.login.amqp_url_outside, backend="disabled", set_as_current=False)
    with stranger.connection_for_write() as connection:
        stranger.send_task("act", kwargs={"key": "not mine"}, connection=connection)
    wait_until(lambda: stack.results.count() == 2, what="both ran", timeout_s=20)
    audit = stack.settle()
    assert met(audit) == {Fate.OK: 1}, audit.text()
    assert failing(audit) == {"unexpected-executions", "unexpected-rows", "unexpected-effects"}


def test_early_ack_and_a_kill_in_mid_task_lose_the_task(stack: Stack) -> None:
    send(stack, "before")
    assert stack.settle().passed
    doomed = send(stack, "doomed", name="early", pause_s=60)
    wait_started(stack, doomed.task)
    stack.workers[0].kill()
    audit = stack.settle()
    assert met(audit) == {Fate.OK: 1, Fate.LOST: 1}, audit.text()
    assert failing(audit) == {"lost"}


@pytest.mark.stack(
    app="faulty",
    app_folder="tests/docker/apps",
    workers=1,
    options=["--concurrency=1", "--without-mingle"],
    promise=Promise(effects=Effects.EXACTLY_ONCE),
)
def test_late_ack_and_a_kill_in_mid_task_lose_nothing(stack: Stack) -> None:
    doomed = send(stack, "doomed", pause_s=3)
    wait_started(stack, doomed.task)
    stack.workers[0].kill()
    stack.workers[0].start()
    stack.workers[0].wait_ready()
    audit = stack.settle()
    assert audit.verdict is Verdict.PASS, audit.text()
    assert met(audit) == {Fate.OK: 1}
    assert {finding.code for finding in audit.findings} == {"ran-again"}


def test_publishing_into_a_paused_broker_is_unknown_or_recovered_and_never_lost(stack: Stack) -> None:
    assert send(stack, "before").accepted
    stack.broker.pause()
    try:
        sent = [send(stack, f"paused-{number}") for number in range(3)]
    finally:
        stack.broker.unpause()
    # The first went out on a connection that stood; for the others none could be made.
    assert [one.outcome for one in sent] == [Kind.UNKNOWN, Kind.REFUSED, Kind.REFUSED]
    audit = stack.settle(timeout_s=30)
    fates = met(audit)
    assert fates.pop(Fate.OK) == 1
    assert fates.pop(Fate.REFUSED) == 2
    assert fates in ({Fate.RECOVERED: 1}, {Fate.UNKNOWN: 1}), audit.text()


def test_a_task_that_no_worker_takes_is_pending(stack: Stack) -> None:
    send(stack, "taken")
    assert stack.settle().passed
    stack.workers[0].stop()
    send(stack, "left")
    audit = stack.settle(timeout_s=2)
    assert met(audit) == {Fate.OK: 1, Fate.PENDING: 1}, audit.text()
    assert failing(audit) == {"pending"}
    assert audit.verdict is Verdict.UNKNOWN


def test_a_worker_without_its_agent_is_no_witness_and_nothing_passes(stack: Stack) -> None:
    send(stack, "seen")
    assert stack.settle().passed
    for path in stack.folder.journal.glob("worker-1.*"):
        with suppress(FileNotFoundError):
            path.unlink()
    audit = stack.settle(timeout_s=5)
    assert audit.verdict is Verdict.UNKNOWN, audit.text()
    assert "journal-silent" in failing(audit)


@pytest.mark.parametrize(("kind", "entries"), [("chain", 3), ("chord", 5)])
def test_tasks_that_tasks_send_are_accounted_for_like_all_others(stack: Stack, kind: str, entries: int) -> None:
    stack.producer.send("canvas", kwargs={"kind": kind}, expect=Expect(result=kind))
    audit = stack.settle()
    assert audit.verdict is Verdict.PASS, audit.text()
    # A chord on this backend has one task more, which waits for the header: celery.chord_unlock.
    assert met(audit) == {Fate.OK: entries}, audit.text()


def test_a_chain_that_breaks_is_one_failure_and_what_celery_records_for_its_rest_is_none(stack: Stack) -> None:
    stack.producer.send("canvas", kwargs={"kind": "broken chain"}, expect=Expect(result="broken chain"))
    audit = stack.settle()
    assert met(audit) == {Fate.OK: 2, Fate.FAILED: 1}, audit.text()
    assert failing(audit) == {"failed-unexpectedly"}
