"""Processes that die in mid-task, in every way there is: a death is no end, and excuses one effect each."""

import pytest
from celery import Celery

from harness.producer import Sent
from harness.records.expectation import Effects, Expect, Promise
from harness.records.verdict import Fate, Verdict
from harness.stack.stack import Stack
from harness.wait import wait_until
from tests.docker.accounts import codes, failing, met, reasons, said, settled

ONE = ["--concurrency=1", "--without-mingle", "--without-gossip"]
ENDINGS = {"app": "endings", "app_folder": "tests/docker/apps", "options": ONE}
MANY = {**ENDINGS, "options": ["--concurrency=6", "--without-mingle", "--without-gossip"]}
ONCE_UNLESS_KILLED = Promise(effects=Effects.ONCE_UNLESS_KILLED)
pytestmark = pytest.mark.docker


def send(stack: Stack, name: str, key: str, *, expect: Expect | None = None, **kwargs: object) -> Sent:
    expect = expect or Expect(result="done", effects=[key])
    return stack.producer.send(name, kwargs={"key": key, **kwargs}, expect=expect)


def wait_started(stack: Stack, sent: Sent) -> None:
    wait_until(lambda: sent.task in stack.ledger.started(), what=f"{sent.task} began", timeout_s=30)


def wait_ended(stack: Stack, sent: Sent) -> None:
    wait_until(lambda: stack.ledger.has_ended(sent.task), what=f"{sent.task} ended", timeout_s=30)


@pytest.mark.stack(**MANY, promise=ONCE_UNLESS_KILLED)
def test_whatever_a_pool_process_dies_of_the_task_runs_again_and_a_death_excuses_one_effect(stack: Stack) -> None:
    for how in ("SIGKILL", "os._exit", "sys.exit"):
        send(stack, "mortal", how, how=how, times=1)
    send(stack, "limited", "limit", how="limit", times=1)
    greedy = send(stack, "mortal", "greedy", how="SIGKILL", times=1, effects=2)
    audit = stack.settle()
    assert met(audit) == {Fate.OK: 4, Fate.DUPLICATED: 1}, audit.text()
    assert failing(audit) == {"duplicated"}
    assert greedy.task in said(audit, "duplicated")
    # Of the one that the limit killed, the parent process says that this execution failed.
    assert codes(audit) == {"duplicated", "failed-run", "had-again", "ran-again"}
    assert said(audit, "ran-again").startswith("3 mortal, 1 limited")


def terminate(stack: Stack, sent: Sent, signal: str) -> None:
    wait_started(stack, sent)
    app = Celery(broker=stack.login.amqp_url_outside, backend="disabled", set_as_current=False)
    with app.connection_for_write() as connection:
        app.control.revoke(sent.task, terminate=True, signal=signal, connection=connection)
    wait_ended(stack, sent)


@pytest.mark.stack(**MANY)
def test_a_death_that_is_an_end_is_an_accounted_failure_and_nothing_runs_again(stack: Stack) -> None:
    def expect(key: str, state: str = "FAILURE", error: str | None = None) -> Expect:
        return Expect(state=state, error=error, effects=[key])

    for how in ("SIGKILL", "os._exit", "sys.exit"):
        send(stack, "mourned", how, how=how, times=1, expect=expect(how, error="WorkerLostError"))
    send(stack, "early", "early", how="SIGKILL", times=1, expect=expect("early", error="WorkerLostError"))
    send(stack, "limited_for_good", "limit", how="", times=1, expect=expect("limit", error="TimeLimitExceeded"))
    send(stack, "warned", "heedless", heed=False, expect=expect("heedless", error="SoftTimeLimitExceeded"))
    send(stack, "warned", "heedful", heed=True)
    for signal in ("SIGTERM", "SIGKILL"):
        key = f"terminated by {signal}"
        sent = send(stack, "mourned", key, how="", times=1, expect=expect(key, "REVOKED"))
        terminate(stack, sent, signal)
    audit = stack.settle()
    assert audit.verdict is Verdict.PASS, audit.text()
    assert met(audit) == {Fate.OK: 1, Fate.FAILED: 8}
    assert codes(audit) == set()
    assert settled(stack)["how"] == "rest"


@pytest.mark.stack(**ENDINGS, env={"SETTINGS": '{"worker_soft_shutdown_timeout": 0.5}'}, promise=ONCE_UNLESS_KILLED)
def test_a_task_that_a_shutdown_interrupts_is_delivered_again_unless_it_was_acknowledged(stack: Stack) -> None:
    (worker,) = stack.workers
    for shutdown in ("soft", "cold"):
        sent = send(stack, "mourned", shutdown, how="", times=1)
        wait_started(stack, sent)
        worker.stop(2) if shutdown == "soft" else worker.kill("SIGQUIT")
        wait_until(lambda: not worker.is_up(), what="the worker ended", timeout_s=20)
        worker.start()
        worker.wait_ready()
        wait_ended(stack, sent)
    gone = send(stack, "early", "early", how="", times=1)
    wait_started(stack, gone)
    worker.stop(2)
    audit = stack.settle()
    assert met(audit) == {Fate.OK: 2, Fate.LOST: 1}, audit.text()
    assert failing(audit) == {"lost"}
    assert f"({gone.task}) began once on worker-1 and never came to an end" in said(audit, "lost")
    assert reasons(audit) == {"lost": ["task_acks_late is False (task early)"]}
    assert settled(stack)["waited_s"] < 4


QUORUM = {"ARGUMENTS": '{"x-queue-type": "quorum", "x-delivery-limit": 1}'}


@pytest.mark.stack(**ENDINGS, env=QUORUM, promise=ONCE_UNLESS_KILLED)
def test_a_message_that_the_broker_drops_at_its_delivery_limit_is_lost(stack: Stack) -> None:
    poison = send(stack, "mortal", "poison", how="SIGKILL", times=9)
    send(stack, "mortal", "once", how="SIGKILL", times=1)
    audit = stack.settle(timeout_s=30)
    assert met(audit) == {Fate.OK: 1, Fate.LOST: 1}, audit.text()
    assert failing(audit) == {"lost"}
    assert f"({poison.task}) began 2 times" in said(audit, "lost")
    assert "dropped by the broker after 2 deliveries" in said(audit, "lost")
    assert settled(stack)["how"] == "stuck"


SOLO = {**ENDINGS, "options": ["--pool=solo", "--without-mingle", "--without-gossip"]}


@pytest.mark.stack(**SOLO, promise=ONCE_UNLESS_KILLED)
def test_a_worker_that_dies_of_its_task_leaves_it_in_the_broker_until_it_comes_back(stack: Stack) -> None:
    sent = send(stack, "mortal", "solo", how="os._exit", times=1)
    wait_until(lambda: not stack.workers[0].is_up(), what="the worker died", timeout_s=20)
    audit = stack.settle(timeout_s=20)
    assert met(audit) == {Fate.PENDING: 1}, audit.text()
    assert "no worker runs" in said(audit, "pending")
    assert settled(stack)["waited_s"] < 4
    stack.workers[0].start()
    stack.workers[0].wait_ready()
    audit = stack.settle()
    assert audit.verdict is Verdict.PASS, audit.text()
    assert met(audit) == {Fate.OK: 1}
    assert codes(audit) == {"had-again", "ran-again"}
    assert stack.ledger.starts(sent.task) == 2


RECYCLED = {**ENDINGS, "options": [*ONE, "--max-tasks-per-child=1"]}


@pytest.mark.stack(**RECYCLED)
def test_pool_processes_that_are_replaced_between_tasks_are_no_deaths(stack: Stack) -> None:
    for number in range(2):
        send(stack, "work", f"key-{number}")
    audit = stack.settle()
    assert audit.verdict is Verdict.PASS, audit.text()
    assert met(audit) == {Fate.OK: 2}
    assert codes(audit) == set()
