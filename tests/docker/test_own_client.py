"""What an app's own code sends from the test process, and where the producer sends what it is given by name."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from celery import Celery, chain, chord, group
from flask import Flask

from harness import Expect
from harness.records.verdict import Fate
from harness.stack.stack import Stack

APPS = Path(__file__).parent / "apps"
pytestmark = [
    pytest.mark.docker,
    # Celery's own advice against an attribute that apps still have.
    pytest.mark.filterwarnings("ignore:(?s).*'queue' task attribute"),
    pytest.mark.stack(
        app="routed",
        app_folder="tests/docker/apps",
        options=["--concurrency=2", "--without-gossip", "--without-mingle", "-Q", "shop,mails,reports"],
    ),
]
WAIT_S = 20


@pytest.fixture
def routed() -> ModuleType:
    """Import the app once more, as a test of the app's own would."""
    spec = importlib.util.spec_from_file_location("routed", APPS / "routed.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # As the settings for tests often do.
    module.app.conf.task_always_eager = True
    return module


def fates(audit: Any) -> dict[Fate, int]:
    return {fate: count for fate, count in audit.fates.items() if count}


def test_what_the_app_sends_in_the_test_process_is_accounted_for_and_answers(stack: Stack, routed: ModuleType) -> None:
    add, total = routed.add, routed.total
    before = routed.app.conf.broker_url
    with stack.app(routed.app) as app:
        assert app is routed.app
        assert routed.checkout(1).get(timeout=WAIT_S) == 2
        assert chain(add.s(1, 2), add.s(4)).delay().get(timeout=WAIT_S) == 7
        assert group(add.s(1, 1), add.s(2, 2)).delay().get(timeout=WAIT_S) == [2, 4]
        assert chord([add.s(1, 1), add.s(2, 2)], total.s()).delay().get(timeout=WAIT_S) == 6
        pool = app.pool
    assert routed.app.conf.broker_url == before
    assert pool._closed  # noqa: SLF001 - nothing else shows it.
    # Each of them: one, a chain of two, a group of two, a chord of two with its body and its unlocking.
    audit = stack.settle()
    assert audit.passed, audit.text()
    assert fates(audit) == {Fate.OK: 9}
    # Settings of the app's own are in force again: it runs tasks in place.
    assert routed.checkout(1).get() == 2
    assert stack.ledger.sent == 9


def test_what_is_sent_past_the_binding_is_unexpected(stack: Stack, routed: ModuleType) -> None:
    with stack.app(routed.app):
        assert routed.checkout(1).get(timeout=WAIT_S) == 2
    routed.app.conf.update(task_always_eager=False, broker_url=stack.login.amqp_url_outside, result_backend=None)
    routed.checkout(2)
    routed.app.pool.force_close_all()
    audit = stack.settle()
    assert not audit.passed
    assert audit.fates[Fate.OK] == 1
    assert "unexpected-executions" in {finding.code for finding in audit.findings}


def test_a_view_is_called_and_what_it_sends_is_accounted_for(stack: Stack, bound_app: Celery) -> None:
    shop = Flask("shop")
    shop.testing = True

    @shop.post("/orders/<int:order>")
    def checkout(order: int) -> str:
        return str(bound_app.tasks["routed.add"].delay(order, 1).id)

    task = shop.test_client().post("/orders/7").text
    audit = stack.settle()
    assert audit.passed, audit.text()
    assert fates(audit) == {Fate.OK: 1}
    row = stack.results.row(task)
    assert row is not None
    assert row.status == "SUCCESS"


def test_a_task_and_a_signature_are_sent_with_what_is_expected_of_them(stack: Stack, routed: ModuleType) -> None:
    add = routed.add
    right = stack.producer.send(add, [1, 2], expect=Expect(result=3))
    wrong = stack.producer.send(add.s(1).set(countdown=0.1), [1], expect=Expect(result=3))
    tail = stack.producer.send(chain(add.s(1, 2), add.s(4)))
    assert [one.accepted for one in (right, wrong, tail)] == [True] * 3
    audit = stack.settle()
    assert fates(audit) == {Fate.OK: 3, Fate.WRONG: 1}
    (finding,) = [one for one in audit.findings if one.code == "wrong"]
    assert finding.tasks == (wrong.task,)
    assert "expected 3, came 2" in finding.text
    row = stack.results.row(tail.task)
    assert row is not None
    assert row.status == "SUCCESS"


def test_what_is_expected_of_a_canvas_is_demanded_of_its_tasks(stack: Stack, routed: ModuleType) -> None:
    add, total = routed.add, routed.total
    send = stack.producer.send
    send(chain(add.s(1, 2), add.s(4), add.s(5)), expect=Expect(result=12))
    send(chord([add.s(1, 1), add.s(2, 2)], total.s()), expect={"routed.total": Expect(result=6)})
    send(group(add.s(1, 1), add.s(2, 0)), expect={"routed.add": Expect(result=2)})
    audit = stack.settle()
    assert audit.passed, audit.text()
    ok = audit.fates[Fate.OK]
    wrong = {
        send(chain(add.s(1, 2), add.s(4)), expect=Expect(result=8)).task,
        send(chord([add.s(1, 1), add.s(2, 2)], total.s()), expect=Expect(result=7)).task,
    }
    audit = stack.settle()
    assert audit.fates[Fate.WRONG] == 2
    assert audit.fates[Fate.OK] > ok
    (finding,) = [one for one in audit.findings if one.code == "wrong"]
    assert set(finding.tasks) == wrong
    assert "expected 8, came 7" in finding.text


def test_what_is_sent_by_name_goes_where_the_app_would_send_it(stack: Stack) -> None:
    send = stack.producer.send
    send("routed.add", [1, 2], expect=Expect(result=3))
    send("routed.mail", expect=Expect(result="mails"))
    send("routed.own", expect=Expect(result="mails"))
    send("routed.own", queue="shop", expect=Expect(result="shop"))
    send("routed.report", expect=Expect(result=["reports", "reports.daily"]))
    audit = stack.settle()
    assert audit.passed, audit.text()
    assert fates(audit) == {Fate.OK: 5}


def test_what_nobody_consumes_is_told_at_once(stack: Stack) -> None:
    for _ in range(3):
        assert stack.producer.send("routed.dust").accepted
    audit = stack.settle()
    assert fates(audit) == {Fate.PENDING: 3}
    assert "3 wait in `attic`, which nobody consumes; workers consume: mails, reports, shop" in audit.text()
