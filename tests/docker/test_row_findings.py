"""What the rows say, and what an audit makes of it: what was expected and what came, and rows that are no endings."""

import pytest

from harness.records.event import Kind
from harness.records.expectation import Expect
from harness.records.verdict import Fate, Verdict
from harness.stack.stack import Stack
from harness.wait import wait_until
from tests.docker.accounts import codes, failing, met, said

ONE = {
    "app": "endings",
    "app_folder": "tests/docker/apps",
    "options": ["--concurrency=1", "--without-mingle", "--without-gossip"],
}
pytestmark = pytest.mark.docker


@pytest.mark.stack(**ONE)
def test_a_wrong_result_is_told_with_what_was_expected_and_what_came(stack: Stack) -> None:
    send = stack.producer.send
    send("give", ["tuple"], expect=Expect(result=[1, 2]))
    send("give", ["float"], expect=Expect(result=1))
    decimal = send("give", ["decimal"], expect=Expect(result="1.10"))
    flag = send("give", ["flag"], expect=Expect(result=1))
    error = send("give", ["error"], expect=Expect(state="FAILURE", error="KeyError"))
    audit = stack.settle()
    assert met(audit) == {Fate.OK: 2, Fate.WRONG: 3}, audit.text()
    assert failing(audit) == {"wrong"}
    wrong = said(audit, "wrong")
    assert f'give ({decimal.task}): expected "1.10", came {{"__type__": "decimal", "__value__": "1.10"}}' in wrong
    assert f"give ({flag.task}): expected 1, came true" in wrong
    assert f"give ({error.task}): expected the error KeyError, came ValueError" in wrong


@pytest.mark.stack(**ONE)
def test_a_long_result_is_shown_in_part_and_a_success_that_was_not_to_be_is_told(stack: Stack) -> None:
    stack.producer.send("give", ["long"], expect=Expect(result=["y"]))
    unwanted = stack.producer.send("give", ["tuple"], expect=Expect(state="FAILURE"))
    audit = stack.settle()
    assert met(audit) == {Fate.WRONG: 2}, audit.text()
    assert f"give ({unwanted.task}): expected FAILURE, came SUCCESS" in said(audit, "wrong")
    assert 'expected ["y"], came ["xxx' in said(audit, "wrong")
    assert len(said(audit, "wrong")) < 800


@pytest.mark.stack(**ONE, env={"SETTINGS": '{"result_serializer": "pickle"}'})
def test_a_pickled_result_is_judged_by_what_its_worker_said_and_the_row_is_never_decoded(stack: Stack) -> None:
    stack.producer.send("give", ["tuple"], expect=Expect(result=[1, 2]))
    wrong = stack.producer.send("give", ["tuple"], expect=Expect(result=[1, 3]))
    stack.producer.send("give", ["decimal"])
    audit = stack.settle()
    assert met(audit) == {Fate.OK: 2, Fate.WRONG: 1}, audit.text()
    assert failing(audit) == {"wrong"}
    assert f"give ({wrong.task}): expected [1,3], came [1,2]" in said(audit, "wrong")


@pytest.mark.stack(**ONE, env={"SETTINGS": '{"task_track_started": true}'})
def test_the_row_of_a_task_that_a_kill_cut_short_is_no_ending(stack: Stack) -> None:
    killed = stack.producer.send("early", kwargs={"key": "x", "how": "", "times": 1})
    wait_until(lambda: stack.results.row(killed.task), what="its row is there", timeout_s=20)
    stack.workers[0].kill()
    audit = stack.settle()
    assert met(audit) == {Fate.LOST: 1}, audit.text()
    assert codes(audit) == {"lost", "unfinished-rows"}


@pytest.mark.stack(**ONE, env={"SETTINGS": '{"task_reject_on_worker_lost": true}'})
def test_the_body_of_a_chord_that_is_sent_twice_because_its_sender_died_ran_again(stack: Stack) -> None:
    stack.producer.send("gather", ["sum"])
    audit = stack.settle()
    assert audit.verdict is Verdict.PASS, audit.text()
    assert met(audit) == {Fate.OK: 5}
    assert codes(audit) == {"ran-again"}
    # So did what waits for the members, whose process died when it had sent the body.
    assert said(audit, "ran-again").startswith("1 body, 1 celery.chord_unlock")
    assert "began 2 times" in said(audit, "ran-again")


@pytest.mark.stack(**ONE)
def test_a_message_that_is_too_large_for_the_broker_is_refused(stack: Stack) -> None:
    sent = stack.producer.send("work", kwargs={"key": "x" * 17_000_000})
    assert sent.outcome is Kind.REFUSED
    stack.producer.send("work", kwargs={"key": "fine"})
    audit = stack.settle()
    assert audit.verdict is Verdict.PASS, audit.text()
    assert met(audit) == {Fate.OK: 1, Fate.REFUSED: 1}
