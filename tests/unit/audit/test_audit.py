"""Every fate, every finding, and that each has something that turns it red."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.audit.audit import Audit, audit
from harness.audit.run_folder import RunFolder, dump
from harness.errors import RunFolderError
from harness.records.expectation import Delivery, Effects, Expect, Promise
from harness.records.verdict import Fate, Finding, Verdict
from tests.fakes.world import World, codes, finding


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(RunFolder.create(tmp_path, "test"))
    world.fine("a")
    world.fine("b")
    return world


def test_a_clean_run_passes(world: World) -> None:
    found = world.audit()
    assert found.verdict is Verdict.PASS
    assert found.findings == ()
    assert found.fates[Fate.OK] == found.entries == 2
    assert found.workers == {"worker-1": 2}
    assert found.e2e_ms["p50"] == 3000.0
    assert found.witnesses["results"] == {"readable": True, "rows": 2}


def lost_before_start(world: World) -> None:
    world.intend("x")


def lost_in_mid_task(world: World) -> None:
    world.intend("x")
    world.execute("x", state=None)


def lost_effect(world: World) -> None:
    world.intend("x")
    world.execute("x")
    world.record("x")


def effect_twice(world: World) -> None:
    world.fine("x")
    world.mail("x")


def another_result(world: World) -> None:
    world.intend("x")
    world.execute("x")
    world.record("x", result={"ok": "y"})
    world.mail("x")


def success_where_failure_was_expected(world: World) -> None:
    world.intend("x", expect={"state": "FAILURE"})
    world.execute("x")
    world.record("x")
    world.mail("x")


def another_error(world: World) -> None:
    world.intend("x", expect={"state": "FAILURE", "error": "MailRefused"}, effects=[])
    world.execute("x", state="FAILURE")
    world.record("x", "FAILURE", {"exc_type": "KeyError"})


def no_row(world: World) -> None:
    world.intend("x")
    world.execute("x")
    world.mail("x")


def row_still_started(world: World) -> None:
    no_row(world)
    world.record("x", "STARTED", b"{}")


def nobody_knows(world: World) -> None:
    world.intend("x", "unknown")


def producer_died(world: World) -> None:
    world.intend("x", None)


def without_confirm_and_gone(world: World) -> None:
    world.intend("x", "unconfirmed")


def pickled(world: World) -> None:
    world.intend("x")
    world.execute("x")
    world.record("x", result=b"\x80\x05K\x01.")
    world.mail("x")


def pickled_where_only_a_digest_was_expected(world: World) -> None:
    world.intend("x", expect={"start": '{"ok": "x', "digest": "0" * 64})
    world.execute("x")
    world.record("x", result=b"\x80\x05K\x01.")
    world.mail("x")


def row_without_execution(world: World) -> None:
    world.intend("x")
    world.record("x")
    world.mail("x")


def left_in_the_broker(world: World) -> None:
    world.intend("x")
    assert world.remains
    world.remains["messages"] = ["x"]


@pytest.mark.parametrize(
    ("provoke", "fate", "verdict"),
    [
        (lost_before_start, Fate.LOST, Verdict.FAIL),
        (lost_in_mid_task, Fate.LOST, Verdict.FAIL),
        (lost_effect, Fate.LOST, Verdict.FAIL),
        (effect_twice, Fate.DUPLICATED, Verdict.FAIL),
        (another_result, Fate.WRONG, Verdict.FAIL),
        (success_where_failure_was_expected, Fate.WRONG, Verdict.FAIL),
        (another_error, Fate.WRONG, Verdict.FAIL),
        (no_row, Fate.UNRECORDED, Verdict.FAIL),
        (row_still_started, Fate.UNRECORDED, Verdict.FAIL),
        (nobody_knows, Fate.UNKNOWN, Verdict.UNKNOWN),
        (producer_died, Fate.UNKNOWN, Verdict.UNKNOWN),
        (without_confirm_and_gone, Fate.UNKNOWN, Verdict.UNKNOWN),
        (pickled, Fate.UNKNOWN, Verdict.UNKNOWN),
        (pickled_where_only_a_digest_was_expected, Fate.UNKNOWN, Verdict.UNKNOWN),
        (row_without_execution, Fate.UNKNOWN, Verdict.UNKNOWN),
        (left_in_the_broker, Fate.PENDING, Verdict.UNKNOWN),
    ],
)
def test_each_deviation_has_its_own_fate_and_no_other(
    world: World, provoke: Callable[[World], None], fate: Fate, verdict: Verdict
) -> None:
    provoke(world)
    found = world.audit()
    assert {met: times for met, times in found.fates.items() if times} == {Fate.OK: 2, fate: 1}
    assert found.verdict is verdict
    assert codes(found, verdict) == {fate.value}
    assert [finding.tasks for finding in found.findings if finding.code == fate.value] == [("x",)]


def test_an_expected_failure_is_accounted_for_and_passes(world: World) -> None:
    world.intend("x", expect={"state": "FAILURE", "error": "MailRefused"}, effects=[])
    world.execute("x", state="FAILURE")
    world.record("x", "FAILURE", {"exc_type": "MailRefused"})
    found = world.audit()
    assert (found.verdict, found.fates[Fate.FAILED]) == (Verdict.PASS, 1)


def test_a_failure_that_nobody_expected_fails_the_run(world: World) -> None:
    world.intend("x")
    world.execute("x", state="FAILURE")
    world.record("x", "FAILURE", {"exc_type": "KeyError"})
    found = world.audit()
    assert found.fates[Fate.FAILED] == 1
    assert codes(found, Verdict.FAIL) == {"failed-unexpectedly"}


def fail(world: World, *failures: tuple[str, str]) -> str:
    """Let one task fail with each class and message; return what the audit says of them."""
    for number, (error, message) in enumerate(failures):
        task = f"x{number}"
        world.intend(task)
        world.execute(task, state="FAILURE")
        world.record(task, "FAILURE", {"exc_type": error, "exc_message": [message], "exc_module": "shop"})
        world.mail(task)
    return finding(world.audit(), "failed-unexpectedly").text


def test_a_failure_that_nobody_expected_is_told_with_its_reason(world: World) -> None:
    text = fail(world, ("BadFile", "it is empty"), ("BadFile", "it is empty"), ("KeyError", ""))
    assert text.endswith("(2 BadFile: it is empty; 1 KeyError)")


@pytest.mark.parametrize("more", ["", " " * 3 + "x" * 200], ids=["short", "long"])
def test_an_error_with_a_number_keeps_its_words(world: World, more: str) -> None:
    world.intend("x")
    world.execute("x", state="FAILURE")
    world.record("x", "FAILURE", {"exc_type": "OSError", "exc_message": [30, f"Read-only file system{more}"]})
    assert "1 OSError: 30, Read-only file system" in finding(world.audit(), "failed-unexpectedly").text


def test_of_four_reasons_the_three_most_frequent_are_told(world: World) -> None:
    errors = ["TypeError", "BadFile", "BadFile", "KeyError", "IndexError"]
    text = fail(world, *((error, "") for error in errors))
    assert text.endswith("(2 BadFile; 1 IndexError; 1 KeyError)")


def test_the_reasons_of_unexpected_failures_are_not_those_of_other_failures(world: World) -> None:
    world.intend("expected", expect={"state": "FAILURE"}, effects=[])
    world.execute("expected", state="FAILURE")
    world.record("expected", "FAILURE", {"exc_type": "Refused", "exc_message": ["no"]})
    # It fails as well, and the loss of its effect is what counts.
    world.intend("lost", expect={"state": "FAILURE"})
    world.execute("lost", state="FAILURE")
    world.record("lost", "FAILURE", {"exc_type": "Refused", "exc_message": ["no"]})
    text = fail(world, ("BadFile", "empty"))
    assert "BadFile" in text
    assert "Refused" not in text


def test_effects_that_an_unexpected_failure_did_not_have_are_told(world: World) -> None:
    text = fail(world, ("BadFile", ""), ("BadFile", ""), ("BadFile", ""))
    assert "never came" not in text
    world.mails = [mail for mail in world.mails if mail["task"] not in {"x0", "x2"}]
    # An expected failure does without its effects, which is a loss of its own.
    world.intend("expected", expect={"state": "FAILURE"})
    world.execute("expected", state="FAILURE")
    world.record("expected", "FAILURE", {"exc_type": "BadFile"})
    said = finding(world.audit(), "failed-unexpectedly").text
    assert said == f'{text}; effects of 2 of them never came: "mail:x0", "mail:x2"'


def test_effects_that_nobody_could_see_are_not_missed_in_a_failure(world: World) -> None:
    world.intend("x")
    world.execute("x", state="FAILURE")
    world.record("x", "FAILURE", {"exc_type": "BadFile"})
    assert 'effects of 1 of them never came: "mail:x"' in finding(world.audit(), "failed-unexpectedly").text
    (world.folder.effects / "others.jsonl").write_text("no JSON\n")
    assert finding(world.audit(), "failed-unexpectedly").text.endswith("(1 BadFile)")
    (world.folder.effects / "others.jsonl").unlink()
    world.unwitnessed = ["effects"]
    assert finding(world.audit(), "failed-unexpectedly").text.endswith("(1 BadFile)")


def test_a_failure_without_a_word_is_told_by_its_class_alone(world: World) -> None:
    world.intend("x")
    world.execute("x", state="FAILURE")
    world.record("x", "FAILURE", {"exc_type": "BadFile", "exc_module": "shop"})
    world.mail("x")
    assert finding(world.audit(), "failed-unexpectedly").text.endswith("(1 BadFile)")


def test_a_task_that_failed_and_then_was_revoked_is_told_by_its_row(world: World) -> None:
    world.intend("x")
    world.say("worker-1", "started", "x", retries=0)
    world.say("worker-1", "finished", "x", state="FAILURE", error="KeyError: 1")
    world.record("x", "REVOKED", {"exc_type": "TaskRevokedError", "exc_message": ["revoked"]})
    world.mail("x")
    assert finding(world.audit(), "failed-unexpectedly").text.endswith("(1 revoked: revoked)")


@pytest.mark.parametrize("is_listed", [True, False])
def test_of_a_long_reason_the_beginning_is_told(world: World, *, is_listed: bool) -> None:
    message = "it is " + "very " * 60 + "empty"
    world.intend("x")
    world.execute("x", state="FAILURE")
    world.record("x", "FAILURE", {"exc_type": "BadFile", "exc_message": [message] if is_listed else message})
    text = finding(world.audit(), "failed-unexpectedly").text
    assert "BadFile: it is very very very" in text
    assert "empty" not in text


@pytest.mark.parametrize("state", ["SUCCESS", "FAILURE"])
def test_without_a_row_the_worker_says_how_a_task_ended(world: World, state: str) -> None:
    world.intend("x", expect={"state": state}, effects=[])
    world.execute("x", state=state)
    assert f"ended as {state}, and there is no row" in finding(world.audit(), "unrecorded").text
    world.promise = Promise(recorded=False)
    assert world.audit().verdict is Verdict.PASS


def test_without_a_row_the_worker_says_that_it_revoked_a_task(world: World) -> None:
    world.intend("x", expect={"state": "REVOKED"}, effects=[])
    world.say("worker-1", "revoked", "x", reason="revoked")
    assert "ended as REVOKED, and there is no row" in finding(world.audit(), "unrecorded").text


def test_a_task_that_nobody_sent_and_that_was_revoked_did_not_run(world: World) -> None:
    world.say("worker-1", "revoked", "x", reason="revoked")
    assert world.audit().verdict is Verdict.PASS
    world.execute("x")
    assert codes(world.audit(), Verdict.FAIL) == {"unexpected-executions"}


def test_what_is_expected_of_a_task_is_what_was_said_when_it_was_first_sent(world: World) -> None:
    for expected in ({"result": "first"}, {"result": "after"}, {"result": "zuletzt"}):
        world.intend("x", expect=expected, effects=[])
    world.execute("x")
    world.record("x", result="first")
    assert world.audit().fates[Fate.OK] == 3
    world.lines["producer"][-6]["expect"], world.lines["producer"][-2]["expect"] = expected, {"result": "first"}
    assert world.audit().fates[Fate.WRONG] == 1


def test_a_refused_task_is_accounted_for(world: World) -> None:
    world.intend("x", "refused")
    found = world.audit()
    assert (found.verdict, found.fates[Fate.REFUSED]) == (Verdict.PASS, 1)


def test_a_refused_task_that_ran_is_a_lie_of_the_broker(world: World) -> None:
    world.intend("x", "refused")
    world.execute("x")
    world.record("x")
    world.mail("x")
    found = world.audit()
    assert found.fates[Fate.RECOVERED] == 1
    assert codes(found, Verdict.FAIL) == {"refused-but-ran"}


@pytest.mark.parametrize("unwitnessed", [["executions"], []])
def test_the_row_of_a_refused_task_shows_that_it_ran_only_where_no_worker_left_a_journal(
    world: World, unwitnessed: list[str]
) -> None:
    world.unwitnessed = unwitnessed
    world.intend("x", "refused")
    world.record("x")
    world.mail("x")
    assert ("refused-but-ran" in codes(world.audit(), Verdict.FAIL)) is bool(unwitnessed)


def test_a_task_of_unknown_outcome_that_ran_is_recovered(world: World) -> None:
    world.intend("x", "unknown")
    world.execute("x")
    world.record("x")
    world.mail("x")
    found = world.audit()
    assert (found.verdict, found.fates[Fate.RECOVERED]) == (Verdict.PASS, 1)


def test_a_publish_without_confirm_that_ran_is_ok(world: World) -> None:
    world.intend("x", "unconfirmed")
    world.execute("x")
    world.record("x")
    world.mail("x")
    assert world.audit().fates[Fate.OK] == 3


def test_a_retry_that_was_published_and_never_ran_is_lost(world: World) -> None:
    world.intend("x")
    world.execute("x", state="RETRY")
    world.say("worker-1", "retried", "x")
    world.say("worker-1", "intended", "x", name="mail")
    world.say("worker-1", "accepted", "x", confirmed=True)
    assert world.audit().fates[Fate.LOST] == 1


@pytest.mark.parametrize(("outcome", "fate"), [("accepted", Fate.LOST), (None, Fate.UNKNOWN)])
def test_what_is_expected_of_a_task_is_no_outcome_of_its_publish(world: World, outcome: str | None, fate: Fate) -> None:
    world.intend("x", outcome)
    world.say("worker-1", "expected", "x", expect={"result": {"ok": "x"}})
    assert world.audit().fates[fate] == 1


def test_an_outcome_of_the_same_instant_as_its_publish_is_its_outcome(world: World) -> None:
    world.intend("x")
    world.lines["producer"][-1]["t"] = world.lines["producer"][-2]["t"]
    assert world.audit().fates[Fate.LOST] == 1


@pytest.mark.parametrize(("later_s", "fate"), [(1.0, Fate.LOST), (0.0, Fate.LOST), (-1.0, Fate.UNKNOWN)])
def test_a_run_that_began_after_the_last_publish_proves_that_the_broker_had_it(
    world: World, later_s: float, fate: Fate
) -> None:
    world.intend("x")
    world.execute("x", state="RETRY")
    world.intend("x", "unknown")
    intended = next(line for line in reversed(world.lines["producer"]) if line["kind"] == "intended")
    world.execute("x", state=None)
    world.lines["worker-1"][-1]["t"] = intended["t"] + later_s
    assert world.audit().fates[fate] == 1


@pytest.mark.parametrize("times", [(1_000.0, 9_000.0), (9_000.0, 1_000.0)])
def test_a_task_has_expired_when_the_time_of_each_of_its_messages_is_over(
    world: World, times: tuple[float, float]
) -> None:
    for expires in times:
        world.intend("x", expires=expires, expect={"state": "REVOKED"}, effects=[])
    assert world.audit().fates[Fate.LOST] == 1


def test_of_several_failures_the_last_one_is_the_error(world: World) -> None:
    world.intend("x", expect={"state": "FAILURE", "error": "MailRefused"}, effects=[])
    for error in ("KeyError: 1", "MailRefused: no"):
        world.say("worker-1", "started", "x")
        world.say("worker-1", "finished", "x", state="FAILURE", error=error)
    world.record("x", "FAILURE", b"\x80\x05K\x01.")
    assert world.audit().fates[Fate.FAILED] == 1


def test_a_task_that_retried_and_then_set_itself_aside_has_ended_so(world: World) -> None:
    world.intend("x", expect={"state": "IGNORED"}, effects=[])
    world.execute("x", state="RETRY")
    world.intend("x", expect={"state": "IGNORED"}, effects=[])
    world.execute("x", state="IGNORED")
    found = world.audit()
    assert (found.verdict, found.fates[Fate.FAILED]) == (Verdict.PASS, 1)


def test_latency_counts_to_the_first_success(world: World) -> None:
    world.intend("x")
    for _ in range(3):
        world.execute("x")
    world.record("x")
    world.mail("x")
    assert world.audit().e2e_ms["max"] == 3_000.0


def test_latency_counts_from_the_first_due_time_even_if_the_task_retried(world: World) -> None:
    world.intend("x", due=1_000.0)
    world.say("worker-1", "intended", "x", name="mail", due=5_000.0)
    world.say("worker-1", "accepted", "x", confirmed=True)
    world.execute("x")
    world.record("x")
    world.mail("x")
    assert world.audit().e2e_ms["max"] == 13_000.0


def test_running_twice_breaks_only_a_promise_of_at_most_once(world: World) -> None:
    world.execute("a", state=None)
    found = world.audit()
    assert found.verdict is Verdict.PASS
    assert codes(found, Verdict.PASS) == {"ran-again"}
    world.promise = Promise(delivery=Delivery.AT_MOST_ONCE)
    found = world.audit()
    assert (found.fates[Fate.DUPLICATED], found.fates[Fate.OK]) == (1, 1)


@pytest.mark.parametrize("is_lost", [True, False])
def test_a_task_that_began_twice_is_remarked_on_unless_a_finding_says_more(world: World, *, is_lost: bool) -> None:
    world.intend("x")
    world.execute("x", state=None)
    world.execute("x", state=None if is_lost else "SUCCESS")
    if not is_lost:
        world.record("x")
        world.mail("x")
    found = world.audit()
    assert found.fates[Fate.LOST if is_lost else Fate.OK] == (1 if is_lost else 3)
    assert ("ran-again" in codes(found, Verdict.PASS)) is not is_lost


def test_a_second_effect_is_excused_by_a_death_only_where_the_promise_says_so(world: World) -> None:
    world.promise = Promise(effects=Effects.ONCE_UNLESS_KILLED)
    world.mail("a")
    assert world.audit().fates[Fate.DUPLICATED] == 1
    world.execute("a", state=None)
    found = world.audit()
    assert found.verdict is Verdict.PASS
    assert "had-again" in codes(found, Verdict.PASS)
    world.promise = Promise(effects=Effects.EXACTLY_ONCE)
    assert world.audit().fates[Fate.DUPLICATED] == 1


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("effects", [["mail:x"], ["mail:x", "mail:other"], ["mail:x", "mail:x"]])
def test_each_death_excuses_one_effect_however_often_that_was_named(
    world: World, effects: list[str], times: int
) -> None:
    world.promise = Promise(effects=Effects.ONCE_UNLESS_KILLED)
    world.intend("x", effects=effects)
    if times > 1:
        world.execute("x", state="RETRY")
        world.intend("x", effects=effects)
    world.execute("x", state=None)
    world.execute("x")
    world.record("x")
    world.mail("x", key="mail:other")
    for _ in range(2):
        world.mail("x")
    assert world.audit().fates[Fate.DUPLICATED] == 0
    world.mail("x")
    assert world.audit().fates[Fate.DUPLICATED] == 1


def test_the_deaths_of_all_tasks_that_share_an_effect_excuse_it(world: World) -> None:
    world.promise = Promise(effects=Effects.ONCE_UNLESS_KILLED)
    for task in ("a", "b"):
        world.intend(task, effects=["mail:both"])
        world.execute(task, state=None)
        world.execute(task)
    for _ in range(3):
        world.mail("a", key="mail:both")
    assert world.audit().fates[Fate.DUPLICATED] == 0
    world.mail("a", key="mail:both")
    assert world.audit().fates[Fate.DUPLICATED] == 2


def test_a_death_that_the_parent_process_reported_is_still_a_death(world: World) -> None:
    world.promise = Promise(effects=Effects.ONCE_UNLESS_KILLED)
    world.execute("a", state=None)
    world.say("worker-1", "finished", "a", state="FAILURE", outside=True)
    world.mail("a")
    assert world.audit().fates[Fate.DUPLICATED] == 0


def test_what_nobody_sent_is_unexpected_in_every_witness(world: World) -> None:
    world.execute("stranger")
    world.record("stranger")
    world.mail("stranger")
    found = world.audit()
    assert found.fates == {**dict.fromkeys(Fate, 0), Fate.OK: 2}
    assert codes(found, Verdict.FAIL) == {"unexpected-executions", "unexpected-rows", "unexpected-effects"}


def test_an_effect_of_nobody_is_unexpected_unless_a_task_may_have_had_any(world: World) -> None:
    world.mails.append({"t": 1.0, "kind": "mail", "key": "mail:odd"})
    assert codes(world.audit(), Verdict.FAIL) == {"unexpected-effects"}
    world.intend("x", effects=None)
    world.execute("x")
    world.record("x")
    assert world.audit().verdict is Verdict.PASS


def test_an_effect_of_nobody_is_counted_once_however_often_it_came(world: World) -> None:
    for _ in range(2):
        world.mail("stranger")
    assert finding(world.audit(), "unexpected-effects").count == 1


def test_another_effect_of_a_task_that_said_its_effects_is_unexpected_though_another_task_said_none(
    world: World,
) -> None:
    world.intend("x", effects=None)
    world.execute("x")
    world.record("x")
    world.mail("a", key="mail:other")
    found = world.audit()
    assert codes(found, Verdict.FAIL) == {"unexpected-effects"}
    assert finding(found, "unexpected-effects").tasks == ("mail:other",)


def test_an_effect_that_never_came_is_named_although_another_has_an_odd_name(world: World) -> None:
    world.intend("x")
    world.execute("x")
    world.record("x")
    world.mails[0]["also"] = [None]
    assert '"mail:x"' in finding(world.audit(), "lost").text


def test_effects_of_a_task_that_declared_none_are_not_unexpected(world: World) -> None:
    world.intend("x", effects=None)
    world.execute("x")
    world.record("x")
    world.mail("x", key="mail:whatever")
    assert world.audit().verdict is Verdict.PASS


def test_of_several_effects_those_that_came_more_than_once_are_named(world: World) -> None:
    world.intend("x", effects=["mail:once", "mail:thrice", "mail:twice"])
    world.execute("x")
    world.record("x")
    for times, key in enumerate(("mail:once", "mail:twice", "mail:thrice"), 1):
        for _ in range(times):
            world.mail("x", key=key)
    text = finding(world.audit(), "duplicated").text
    assert text.endswith('and its effect "mail:thrice" came 3 times, "mail:twice" came 2 times')


@pytest.mark.parametrize(
    ("said", "unexpected"), [(["mail:x"], {"unexpected-effects"}), ([], {"unexpected-effects"}), (None, set())]
)
def test_an_effect_of_an_unknown_task_is_expected_only_if_some_task_said_nothing_of_its_effects(
    world: World, said: list[str] | None, unexpected: set[str]
) -> None:
    world.intend("x", effects=said)
    world.execute("x")
    world.record("x")
    world.mails.append({"t": 1.0, "kind": "row", "key": "row:1"})
    if said:
        world.mail("x")
    assert codes(world.audit(), Verdict.FAIL) == unexpected


def test_the_order_of_an_objects_members_means_nothing(world: World) -> None:
    world.intend("x", expect={"result": {"b": "ü", "a": 1}})
    world.execute("x")
    world.record("x", result={"a": 1, "b": "ü"})
    world.mail("x")
    assert world.audit().fates[Fate.OK] == 3


def test_a_task_that_ignores_its_result_needs_no_row(world: World) -> None:
    world.intend("x", expect={})
    world.say("worker-1", "started", "x")
    world.say("worker-1", "finished", "x", state="SUCCESS", ignored=True)
    world.mail("x")
    assert world.audit().fates[Fate.OK] == 3


@pytest.mark.parametrize(("result", "fate"), [(None, Fate.OK), (1, Fate.WRONG)])
def test_none_can_be_expected(world: World, result: Any, fate: Fate) -> None:
    world.intend("x", expect={"result": None})
    world.execute("x")
    world.record("x", result=json.dumps(result).encode())
    world.mail("x")
    assert world.audit().fates[fate] == 2 + (fate is Fate.OK) - (fate is Fate.WRONG)


@pytest.mark.parametrize(
    ("shares", "index"),
    [([2, 2], 1.0), ([4, 0], 0.5), ([3, 1], 0.8), ([2, 2, 2], 1.0), ([5], None), ([0, 0], None)],
)
def test_the_workers_shares_have_jains_index(world: World, shares: list[int], index: float | None) -> None:
    world.lines.clear()
    world.rows.clear()
    world.mails.clear()
    world.nodes = ["producer", *(f"worker-{number}" for number in range(len(shares)))]
    for node in world.nodes:
        world.say(node, "ready")
    for number, share in enumerate(shares):
        for task in (f"t-{number}-{one}" for one in range(share)):
            world.intend(task)
            world.execute(task, node=f"worker-{number}")
            world.record(task)
            world.mail(task)
    assert world.audit().fairness == index


def test_a_worker_with_a_beat_of_its_own_that_began_nothing_has_its_share(world: World) -> None:
    world.nodes.append("worker-2")
    world.say("worker-2", "ready")
    world.say("worker-2.9", "ready")
    world.lines["worker-2.9"][0]["role"] = "beat"
    assert world.audit().workers == {"worker-1": 2, "worker-2": 0}


@pytest.mark.parametrize(
    ("fairness", "verdict", "code"),
    [(0.8, Verdict.PASS, set()), (0.81, Verdict.FAIL, {"unfair"})],
)
def test_a_share_out_below_the_promised_fairness_is_a_broken_promise(
    world: World, fairness: float, verdict: Verdict, code: set[str]
) -> None:
    world.promise = Promise(fairness=fairness)
    world.nodes.append("worker-2")
    for task, node in (("x", "worker-1"), ("y", "worker-2")):
        world.intend(task)
        world.execute(task, node=node)
        world.record(task)
        world.mail(task)
    found = world.audit()
    assert found.workers == {"worker-1": 3, "worker-2": 1}
    assert (found.verdict, codes(found, Verdict.FAIL)) == (verdict, code)
    if code:
        assert f"and {fairness:g} is demanded: worker-1 3, worker-2 1." in finding(found, "unfair").text


def test_a_fairness_that_nobody_could_show_is_unknown(world: World) -> None:
    world.promise = Promise(fairness=0.5)
    found = world.audit()
    assert codes(found, Verdict.UNKNOWN) == {"fairness-unknown"}
    assert finding(found, "fairness-unknown").text.endswith("there were not two workers with work: worker-1 2.")


def test_where_no_worker_was_there_none_had_a_share(tmp_path: Path) -> None:
    world = World(RunFolder.create(tmp_path, "run"), nodes=["producer"], promise=Promise(fairness=0.5))
    world.intend("x")
    assert finding(world.audit(), "fairness-unknown").text.endswith("there were not two workers with work: none.")


@pytest.mark.parametrize(("later_s", "retries"), [(1.0, 0), (0.0, 0), (0.0, 7)])
def test_an_execution_before_its_time_is_a_broken_promise(world: World, later_s: float, retries: int) -> None:
    world.intend("x", due=2_000.0)
    (intended,) = (line for line in world.lines["producer"] if line.get("task") == "x" and line["kind"] == "intended")
    world.say("worker-1", "started", "x", t=intended["t"] + later_s, retries=retries)
    world.say("worker-1", "finished", "x", state="SUCCESS")
    world.record("x")
    world.mail("x")
    found = world.audit()
    assert found.verdict is Verdict.FAIL
    assert [finding.tasks for finding in found.findings if finding.code == "early"] == [("x",)]


def test_a_task_that_began_too_early_twice_is_counted_once(world: World) -> None:
    world.intend("x", due=9_000.0)
    world.execute("x", state="RETRY")
    world.execute("x")
    world.record("x")
    world.mail("x")
    assert finding(world.audit(), "early").count == 1


@pytest.mark.parametrize(("retries", "is_early"), [(0, False), (1, True), (7, True)])
def test_the_first_message_that_comes_again_is_not_held_against_the_time_of_a_retry(
    world: World, retries: int, *, is_early: bool
) -> None:
    world.intend("x")
    world.say("worker-1", "started", "x", retries=0)
    world.say("worker-1", "intended", "x", name="mail", retries=1, due=2_000.0)
    world.say("worker-1", "accepted", "x", confirmed=True)
    # Here the worker died, before it acknowledged the first message. A number that nobody published is held against the
    # last publish.
    world.say("worker-2", "started", "x", t=1_900.0, retries=retries)
    world.say("worker-2", "finished", "x", state="RETRY", t=1_901.0)
    world.say("worker-2", "started", "x", t=2_001.0, retries=1)
    world.say("worker-2", "finished", "x", state="SUCCESS", t=2_002.0)
    world.nodes.append("worker-2")
    world.record("x")
    world.mail("x")
    assert ("early" in codes(world.audit(), Verdict.FAIL)) is is_early


@pytest.mark.parametrize(("began_t", "is_early"), [(1_900.0, True), (2_100.0, False)])
def test_of_two_messages_of_one_retry_the_first_that_is_due_may_begin(
    world: World, began_t: float, *, is_early: bool
) -> None:
    world.intend("x")
    for node, due in (("worker-1", 2_000.0), ("worker-2", 2_500.0)):
        world.say(node, "started", "x", retries=0)
        world.say(node, "intended", "x", name="mail", retries=1, due=due)
        world.say(node, "accepted", "x", confirmed=True)
    world.say("worker-2", "started", "x", t=began_t, retries=1)
    world.say("worker-2", "finished", "x", state="SUCCESS", t=2_600.0)
    world.nodes.append("worker-2")
    world.record("x")
    world.mail("x")
    assert ("early" in codes(world.audit(), Verdict.FAIL)) is is_early


def test_the_first_message_of_a_task_without_a_number_of_retries_is_not_held_against_the_time_of_a_retry(
    world: World,
) -> None:
    world.intend("x")
    world.say("worker-1", "intended", "x", name="mail", retries=1, due=2_000.0)
    world.say("worker-1", "accepted", "x", confirmed=True)
    world.say("worker-1", "started", "x", t=1_900.0)
    world.say("worker-1", "finished", "x", state="SUCCESS", t=1_901.0)
    world.record("x")
    world.mail("x")
    assert "early" not in codes(world.audit(), Verdict.FAIL)


@pytest.mark.parametrize("retries", [0, 7], ids=["of that publish", "of no publish"])
def test_a_worker_may_begin_a_task_a_millisecond_early(world: World, retries: int) -> None:
    world.intend("x", due=2_000.001)
    # The difference of both as it is calculated, to the last digit.
    world.say("worker-1", "started", "x", t=2_000.001 - 0.001, retries=retries)
    world.say("worker-1", "finished", "x", state="SUCCESS", t=2_001.0)
    world.record("x")
    world.mail("x")
    assert world.audit().verdict is Verdict.PASS


def test_a_task_whose_retry_was_sent_and_never_accepted_is_unknown(world: World) -> None:
    world.intend("x")
    world.execute("x", state="RETRY")
    world.say("worker-1", "intended", "x", name="mail", retries=1)
    found = world.audit()
    assert (found.fates[Fate.UNKNOWN], found.fates[Fate.LOST]) == (1, 0)


def test_a_message_of_nobodys_task_is_no_execution_before_it_begins(world: World) -> None:
    world.say("worker-1", "received", "x", name="mail")
    world.say("worker-1", "exited", child=9, code=0)
    found = world.audit()
    assert found.verdict is Verdict.PASS
    assert sum(found.fates.values()) == 2


def test_a_revocation_of_nobodys_task_is_no_execution(world: World) -> None:
    world.say("worker-1", "revoked", "x")
    assert world.audit().verdict is Verdict.PASS


def test_each_execution_is_held_against_the_time_of_its_own_publishing(world: World) -> None:
    # The first was due at once, the retry later; and it waited.
    world.intend("x")
    world.say("worker-1", "started", "x")
    world.say("worker-1", "intended", "x", name="mail", due=1_015.0)
    world.say("worker-1", "finished", "x", state="RETRY")
    for _ in range(3):
        world.say("worker-1", "ready")
    world.execute("x")
    world.record("x")
    world.mail("x")
    found = world.audit()
    assert found.verdict is Verdict.PASS, found.text()


def test_a_workers_memory_is_the_sum_of_its_processes_peaks(world: World) -> None:
    world.say("worker-1", "finished", "a", state="SUCCESS", peak_kb=50 * 1024)
    world.say("worker-1", "finished", "b", state="SUCCESS", peak_kb=60 * 1024)
    folder = world.write()
    other = (folder.journal / "worker-1.1.1.jsonl").read_text()
    (folder.journal / "worker-1.2.1.jsonl").write_text(other)
    assert audit(folder).memory_mb == {"worker-1": 120.0}


def test_a_deadline_that_passed_is_a_broken_promise(world: World) -> None:
    for enough_s in (3.5, 3.0):
        world.promise = Promise(deadline_s=enough_s)
        assert world.audit().verdict is Verdict.PASS
    world.promise = Promise(deadline_s=2.5)
    found = world.audit()
    assert codes(found, Verdict.FAIL) == {"late"}


def test_a_run_without_tasks_is_unknown(tmp_path: Path) -> None:
    world = World(RunFolder.create(tmp_path, "empty"), nodes=[])
    found = world.audit()
    assert (found.verdict, found.entries) == (Verdict.UNKNOWN, 0)
    assert codes(found, Verdict.UNKNOWN) == {"nothing-sent"}
    assert finding(found, "nothing-sent").text == "no task was sent, so nothing was shown."


@pytest.mark.parametrize(
    ("tasks", "text", "shown"),
    [
        (("task-1", "task-2", "task-3"), "3 tasks: lost", "3 tasks: lost (task-1, task-2, task-3)"),
        (("task-1", "task-2", "task-3", "task-4"), "it: lost", "it: lost (task-1, task-2, task-3 and 1 more)"),
        (("task-1", "task-2"), "task-1 and another: lost", "task-1 and another: lost (task-2)"),
        (("task-1",), "task-1: lost", "task-1: lost"),
    ],
)
def test_a_finding_is_shown_with_the_first_three_ids_that_its_text_does_not_name(
    world: World, tasks: tuple[str, ...], text: str, shown: str
) -> None:
    one = Finding(code="lost", verdict=Verdict.FAIL, count=len(tasks), text=text, tasks=tasks)
    assert replace(world.audit(), findings=(one,)).text().splitlines()[-1] == f"  fail    lost: {shown}"


def test_the_file_of_an_audit_says_in_which_format_it_is(world: World) -> None:
    assert world.audit().to_json()["format"] == 1


def test_a_run_in_which_everything_was_refused_is_unknown(tmp_path: Path) -> None:
    world = World(RunFolder.create(tmp_path, "refused"), nodes=["producer"])
    world.intend("x", "refused")
    found = world.audit()
    assert codes(found, Verdict.UNKNOWN) == {"nothing-sent"}
    assert finding(found, "nothing-sent").text == "every task was refused, so nothing was shown."


def test_a_line_cut_off_at_the_end_is_tolerated_and_said(world: World) -> None:
    file = world.write().journal / "worker-1.1.1.jsonl"
    file.write_text(file.read_text() + '{"n":9,"t":1.0,"kind":"star')
    found = audit(world.folder)
    assert found.verdict is Verdict.PASS
    assert codes(found, Verdict.PASS) == {"journal-torn"}
    assert found.fates[Fate.OK] == 2


def test_a_process_that_was_killed_in_its_first_line_lost_no_other(world: World) -> None:
    world.say("worker-1.7", "ready")
    folder = world.write()
    path = folder.journal / "worker-1.7.1.jsonl"
    path.write_bytes(path.read_bytes()[:20])
    found = audit(folder)
    assert (found.verdict, [one.code for one in found.findings]) == (Verdict.PASS, ["journal-torn"])


def test_a_line_missing_in_the_middle_makes_a_task_unknown_that_else_were_lost(world: World) -> None:
    world.intend("x")
    file = world.write().journal / "worker-1.1.1.jsonl"
    assert audit(world.folder).fates[Fate.LOST] == 1
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:1] + lines[2:]))
    found = audit(world.folder)
    assert (found.fates[Fate.LOST], found.fates[Fate.UNKNOWN]) == (0, 1)
    assert "journal-incomplete" in codes(found, Verdict.UNKNOWN)


def test_a_damaged_line_in_the_middle_is_a_missing_line(world: World) -> None:
    file = world.write().journal / "worker-1.1.1.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([*lines[:1], '{"n": 1, "t": 10\n', *lines[2:]]))
    assert codes(audit(world.folder), Verdict.UNKNOWN) == {"journal-incomplete"}


def test_damaged_lines_at_the_end_are_missing_too(world: World) -> None:
    file = world.write().journal / "worker-1.1.1.jsonl"
    file.write_text(file.read_text() + "nonsense\nmore of it\n")
    assert codes(audit(world.folder), Verdict.UNKNOWN) == {"journal-incomplete"}


@pytest.mark.parametrize("damaged", ["nonsense", '{"kind": "mail", "task": "a", "also": ["mail:a"]}'])
def test_a_damaged_line_of_effects_makes_a_missing_effect_unknown(world: World, damaged: str) -> None:
    file = world.write().effects / "mailbox.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([f"{damaged}\n", *lines[1:]]))
    found = audit(world.folder)
    assert codes(found, Verdict.UNKNOWN) == {"effects-damaged", "unknown"}
    assert (found.fates[Fate.LOST], found.fates[Fate.UNKNOWN]) == (0, 1)


def test_a_line_of_effects_that_is_cut_off_at_the_end_is_not_a_damaged_one(world: World) -> None:
    file = world.write().effects / "mailbox.jsonl"
    file.write_text(file.read_text() + '{"kind": "mail", "task": "a", "ke')
    found = audit(world.folder)
    assert found.verdict is Verdict.PASS
    assert "effects-damaged" not in {one.code for one in found.findings}
    assert found.witnesses["effects"] == {"files": 1, "torn": 1}


def test_beside_a_line_of_effects_that_is_cut_off_the_damaged_ones_are_counted(world: World) -> None:
    file = world.write().effects / "mailbox.jsonl"
    file.write_text("nonsense\n" + file.read_text() + '{"kind": "mail", "task": "a", "ke')
    assert finding(audit(world.folder), "effects-damaged").count == 1


def test_an_audit_survives_its_own_json(world: World) -> None:
    effect_twice(world)
    found = world.audit()
    assert Audit.from_json(json.loads(dump(found.to_json()))) == found


def test_a_node_without_a_journal_is_a_silent_witness(world: World) -> None:
    world.nodes.append("worker-2")
    assert codes(world.audit(), Verdict.UNKNOWN) == {"journal-silent"}


def test_unreadable_results_are_unknown_and_never_a_pass(world: World) -> None:
    world.folder.results.write_bytes(b"this is no database" * 100)
    found = world.audit()
    assert found.fates[Fate.UNKNOWN] == 2
    assert codes(found, Verdict.UNKNOWN) == {"results-unreadable", "unknown"}
    assert found.witnesses["results"] == {"readable": False}
    assert str(world.folder.path) not in found.text()


def test_absent_results_are_unknown(world: World) -> None:
    world.write().results.unlink()
    assert "results-unreadable" in codes(audit(world.folder), Verdict.UNKNOWN)


def test_absent_effects_are_unknown_and_not_lost(world: World) -> None:
    (world.write().effects / "mailbox.jsonl").unlink()
    found = audit(world.folder)
    assert (found.fates[Fate.LOST], found.fates[Fate.UNKNOWN]) == (0, 2)


def test_without_the_brokers_remains_nothing_is_lost_but_unknown(world: World) -> None:
    world.intend("x")
    world.remains = None
    found = world.audit()
    assert (found.fates[Fate.LOST], found.fates[Fate.UNKNOWN]) == (0, 1)
    assert "broker-unread" in codes(found, Verdict.UNKNOWN)


def test_what_the_scenarios_own_checks_found_counts(world: World) -> None:
    finding = {"code": "attachment", "verdict": "fail", "count": 1, "text": "no attachment", "tasks": ["a"]}
    world.folder.write("checks.json", {"findings": [finding]})
    assert codes(world.audit(), Verdict.FAIL) == {"attachment"}


def test_a_copy_of_the_folder_gives_the_same_audit_byte_for_byte(world: World, tmp_path: Path) -> None:
    lost_before_start(world)
    effect_twice(world)
    world.folder.results.write_bytes(b"no database")
    before = dump(world.audit().to_json())
    copy = shutil.copytree(world.folder.path, tmp_path / "elsewhere")
    assert dump(audit(RunFolder.open(copy)).to_json()) == before


def test_a_folder_without_a_run_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"run\.json"):
        RunFolder.open(tmp_path)
    with pytest.raises(RunFolderError, match="is no folder"):
        RunFolder.open(tmp_path / "nothing")


def test_a_run_file_of_something_else_is_refused(world: World) -> None:
    world.write().write("run.json", {"name": "x"})
    with pytest.raises(RunFolderError, match="promise"):
        audit(world.folder)


def test_if_all_effects_are_absent_their_witness_still_makes_them_lost(world: World) -> None:
    world.mails.clear()
    assert world.audit().fates[Fate.LOST] == 2


def test_without_any_witness_of_effects_the_audit_says_so(world: World) -> None:
    (world.write().effects / "mailbox.jsonl").unlink()
    assert "effects-absent" in codes(audit(world.folder), Verdict.UNKNOWN)


@pytest.mark.parametrize(
    ("remains", "code", "verdict"),
    [
        ({"messages": ["stranger"]}, "unexpected-messages", Verdict.FAIL),
        ({"messages": ["a"]}, "left-after-end", Verdict.UNKNOWN),
        ({"anonymous": 3}, "messages-anonymous", Verdict.UNKNOWN),
    ],
)
def test_what_is_left_in_the_broker_is_never_a_pass(
    world: World, remains: dict[str, Any], code: str, verdict: Verdict
) -> None:
    assert world.remains
    world.remains |= remains
    found = world.audit()
    assert found.verdict is verdict
    assert codes(found, verdict) == {code}


@pytest.mark.parametrize(("status", "expected"), [("FAILURE", Verdict.PASS), ("SUCCESS", Verdict.FAIL)])
def test_a_failure_recorded_for_the_rest_of_a_chain_is_expected(world: World, status: str, expected: Verdict) -> None:
    world.intend("x", follow=["y"], expect={"state": "FAILURE"}, effects=[])
    world.execute("x", state="FAILURE")
    world.record("x", "FAILURE", {"exc_type": "KeyError"})
    world.record("y", status, {"exc_type": "KeyError"})
    assert world.audit().verdict is expected


@pytest.mark.parametrize("follow", [[None], [None, "z"], []])
def test_a_failure_of_nobody_is_not_excused_by_a_follower_without_a_name(
    world: World, follow: list[str | None]
) -> None:
    world.intend("x", follow=follow, expect={"state": "FAILURE"}, effects=[])
    world.execute("x", state="FAILURE")
    world.record("x", "FAILURE", {"exc_type": "KeyError"})
    world.record("y", "FAILURE", {"exc_type": "KeyError"})
    assert codes(world.audit(), Verdict.FAIL) == {"unexpected-rows"}


def test_a_failure_of_a_follower_that_ran_is_not_excused(world: World) -> None:
    world.intend("x", follow=["y"], expect={"state": "FAILURE"}, effects=[])
    world.execute("x", state="FAILURE")
    world.record("x", "FAILURE", {"exc_type": "KeyError"})
    world.execute("y", state="FAILURE")
    world.record("y", "FAILURE", {"exc_type": "KeyError"})
    assert codes(world.audit(), Verdict.FAIL) == {"unexpected-executions", "unexpected-rows"}


def test_a_task_that_was_replaced_and_ran_again_is_ok(world: World) -> None:
    world.promise = Promise(delivery=Delivery.AT_MOST_ONCE)
    world.intend("x")
    world.execute("x", state="IGNORED")
    world.say("worker-1", "intended", "x", name="mail")
    world.say("worker-1", "accepted", "x", confirmed=True)
    world.execute("x")
    world.record("x")
    world.mail("x")
    found = world.audit()
    assert (found.verdict, found.fates[Fate.OK]) == (Verdict.PASS, 3)


def test_a_replacement_that_never_ran_is_lost(world: World) -> None:
    world.intend("x")
    world.say("worker-1", "started", "x")
    world.say("worker-1", "intended", "x", name="mail")
    world.say("worker-1", "accepted", "x", confirmed=True)
    world.say("worker-1", "finished", "x", state="IGNORED")
    assert world.audit().fates[Fate.LOST] == 1


def test_a_task_that_set_itself_aside_is_accounted_for_if_that_was_expected(world: World) -> None:
    world.intend("x", expect={"state": "IGNORED"}, effects=[])
    world.execute("x", state="IGNORED")
    found = world.audit()
    assert (found.verdict, found.fates[Fate.FAILED]) == (Verdict.PASS, 1)


@pytest.mark.parametrize(("left", "fate"), [(["x"], Fate.PENDING), ([], Fate.LOST)])
def test_a_task_that_was_put_back_is_pending_or_lost(world: World, left: list[str], fate: Fate) -> None:
    world.intend("x")
    world.execute("x", state="REJECTED")
    assert world.remains
    world.remains["messages"] = left
    assert world.audit().fates[fate] == 1


def test_a_result_that_was_expected_and_is_not_there_to_see_is_unknown(world: World) -> None:
    world.promise = Promise(recorded=False)
    world.rows = world.rows[:1]
    found = world.audit()
    assert (found.fates[Fate.OK], found.fates[Fate.UNKNOWN]) == (1, 1)


@pytest.mark.parametrize(
    ("error", "fate"), [("MailRefused: no", Fate.FAILED), ("KeyError: 1", Fate.WRONG), (None, Fate.UNKNOWN)]
)
def test_where_the_row_does_not_say_the_error_the_journal_does(world: World, error: str | None, fate: Fate) -> None:
    world.intend("x", expect={"state": "FAILURE", "error": "MailRefused"}, effects=[])
    world.say("worker-1", "started", "x")
    world.say("worker-1", "finished", "x", state="FAILURE", **({"error": error} if error else {}))
    world.record("x", "FAILURE", b"\x80\x05K\x01.")
    assert world.audit().fates[fate] == 1


def test_the_only_effect_of_a_task_that_was_sent_twice_is_missed(world: World) -> None:
    world.intend("x")
    world.execute("x", state="RETRY")
    world.intend("x")
    world.execute("x")
    world.record("x")
    found = world.audit()
    assert found.fates[Fate.LOST] == 1
    assert 'its effect "mail:x" never came' in finding(found, "lost").text


def test_a_breach_counts_though_more_may_come(world: World) -> None:
    world.intend("x")
    world.execute("x", state=None)
    world.mail("x")
    world.mail("x")
    assert world.remains
    world.remains["messages"] = ["x"]
    found = world.audit()
    assert found.fates[Fate.DUPLICATED] == 1
    assert "had-again" not in codes(found, Verdict.PASS)


def test_what_began_was_accepted_even_without_a_confirm(world: World) -> None:
    world.intend("x", "unconfirmed")
    world.execute("x", state=None)
    assert world.audit().fates[Fate.LOST] == 1


@pytest.mark.parametrize(("expires", "fate"), [(1_000.0, Fate.FAILED), (9_000.0, Fate.LOST)])
def test_a_message_that_expired_in_the_broker_is_revoked_and_one_that_had_time_left_is_lost(
    world: World, expires: float, fate: Fate
) -> None:
    world.intend("x", expires=expires, expect={"state": "REVOKED"}, effects=[])
    found = world.audit()
    assert found.fates[fate] == 1
    assert found.passed is (fate is Fate.FAILED)


@pytest.mark.parametrize(
    ("asked_t", "fate"), [(9_001.0, Fate.FAILED), (9_000.0, Fate.FAILED), (8_999.0, Fate.LOST), (None, Fate.LOST)]
)
def test_a_message_may_have_expired_after_the_last_line_of_all_and_before_the_broker_was_asked(
    world: World, asked_t: float | None, fate: Fate
) -> None:
    world.intend("x", expires=9_000.0, expect={"state": "REVOKED"}, effects=[])
    assert world.remains
    world.remains["t"] = asked_t
    assert world.audit().fates[fate] == 1


@pytest.mark.parametrize(("deaths", "fate"), [(1, Fate.OK), (0, Fate.DUPLICATED)])
def test_a_death_excuses_a_second_effect_of_every_task_that_shares_it(world: World, deaths: int, fate: Fate) -> None:
    world.promise = Promise(effects=Effects.ONCE_UNLESS_KILLED)
    for task in ("x", "y"):
        world.intend(task, effects=["mail:shared"])
        world.execute(task)
        world.record(task)
        world.mail(task, key="mail:shared")
    for _ in range(deaths):
        world.execute("x", state=None)
    found = world.audit()
    assert found.fates[fate] == (4 if fate is Fate.OK else 2)


@pytest.mark.parametrize(
    ("expected", "result", "fate"),
    [(True, 1, Fate.WRONG), ([0], [False], Fate.WRONG), ({"a": [1]}, {"a": [1.0]}, Fate.OK), ([1], [1, 2], Fate.WRONG)],
)
def test_results_are_compared_as_json_values(world: World, expected: Any, result: Any, fate: Fate) -> None:
    world.intend("x", expect={"result": expected})
    world.execute("x")
    world.record("x", result=json.dumps(result).encode())
    world.mail("x")
    assert world.audit().fates[fate] == (3 if fate is Fate.OK else 1)


def test_an_effect_of_an_expected_failure_is_expected_too(world: World) -> None:
    world.intend("x", expect={"state": "FAILURE"})
    world.execute("x", state="FAILURE")
    world.record("x", "FAILURE", {})
    assert world.audit().fates[Fate.LOST] == 1


def test_a_retry_that_the_parent_made_after_a_death_is_no_retry_that_the_task_asked_for(world: World) -> None:
    world.promise = Promise(delivery=Delivery.AT_MOST_ONCE)
    world.intend("x")
    world.execute("x", state=None)
    world.say("worker-1", "intended", "x", name="mail")
    world.say("worker-1", "accepted", "x", confirmed=True)
    world.say("worker-1", "retried", "x")
    world.execute("x")
    world.record("x")
    world.mail("x")
    assert world.audit().fates[Fate.DUPLICATED] == 1


def test_a_row_that_contradicts_all_who_saw_the_task_run_is_unknown(world: World) -> None:
    world.intend("x")
    world.execute("x", state="FAILURE")
    world.record("x")
    world.mail("x")
    assert world.audit().fates[Fate.UNKNOWN] == 1


def test_a_large_result_does_not_stop_the_audit(world: World) -> None:
    world.intend("x", expect={})
    world.execute("x")
    world.record("x", result="x" * 3_000_000)
    world.mail("x")
    found = world.audit()
    assert (found.verdict, found.fates[Fate.OK]) == (Verdict.PASS, 3)
    assert found.findings == ()


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_journal_that_may_not_be_read_is_unknown(world: World) -> None:
    (world.write().journal / "worker-1.1.1.jsonl").chmod(0)
    assert "journal-unreadable" in codes(audit(world.folder), Verdict.UNKNOWN)


def test_a_folder_where_a_journal_should_be_is_unknown(world: World) -> None:
    (world.write().journal / "worker-2.1.1.jsonl").mkdir()
    assert codes(audit(world.folder), Verdict.UNKNOWN) == {"journal-unreadable"}


def test_an_audit_leaves_nothing_behind(world: World) -> None:
    before = sorted(path for path in world.write().path.rglob("*"))
    audit(world.folder)
    assert sorted(path for path in world.folder.path.rglob("*")) == before


def test_an_effect_cannot_be_expected_twice() -> None:
    with pytest.raises(ValueError, match="expected twice"):
        Expect(effects=["mail:a", "mail:a"])


ELSEWHERE = {"unwitnessed-executions", "unwitnessed-broker"}


@pytest.fixture
def elsewhere(tmp_path: Path) -> World:
    """Return the world of a run whose broker and workers the harness did not start."""
    world = World(RunFolder.create(tmp_path, "elsewhere"), nodes=["producer"], remains=None)
    world.unwitnessed = ["executions", "broker", "effects"]
    for task in ("a", "b"):
        world.intend(task, effects=None)
        world.record(task)
        world.done[task] = 1_010.0
    return world


def unwitnessed_and(found: Audit, *more: str) -> bool:
    """Whether each of what nobody saw is said once, and these beside it."""
    return sorted(finding.code for finding in found.findings) == sorted((*ELSEWHERE, *more))


def test_where_nobody_saw_the_workers_the_rows_say_how_tasks_ended_and_no_more_is_known(elsewhere: World) -> None:
    found = elsewhere.audit()
    assert (found.verdict, found.fates[Fate.OK]) == (Verdict.UNKNOWN, 2)
    assert unwitnessed_and(found)
    assert codes(found, Verdict.UNKNOWN) == ELSEWHERE
    # The first was due at 1000, the second at 1002.
    assert (found.e2e_ms["max"], found.e2e_ms["p50"]) == (10_000.0, 8_000.0)
    assert found.witnesses["unwitnessed"] == ["executions", "broker", "effects"]
    assert found.witnesses["broker"] == {"readable": False, "left": 0}
    assert found.witnesses["effects"] == {"files": 0, "torn": 0}
    # The negative control: the same folder, had there been workers under the harness's eyes.
    elsewhere.unwitnessed = []
    assert elsewhere.audit().fates[Fate.UNKNOWN] == 2


def wrong_elsewhere(world: World) -> None:
    world.intend("x", effects=None)
    world.record("x", result={"ok": "y"})


def another_error_elsewhere(world: World) -> None:
    world.intend("x", expect={"state": "FAILURE", "error": "MailRefused"}, effects=None)
    world.record("x", "FAILURE", {"exc_type": "KeyError"})


def failed_elsewhere(world: World) -> None:
    world.intend("x", effects=None)
    world.record("x", "FAILURE", {"exc_type": "KeyError", "exc_message": ["y"]})


def revoked_elsewhere(world: World) -> None:
    world.intend("x", effects=None)
    world.record("x", "REVOKED", {"exc_type": "TaskRevokedError"})


def no_row_elsewhere(world: World) -> None:
    world.intend("x", effects=None)


def expired_elsewhere(world: World) -> None:
    # Its time is over; but a worker may have taken it before that.
    world.intend("x", effects=None, expires=1_000.0, expect={"state": "REVOKED"})


def begun_elsewhere(world: World) -> None:
    world.intend("x", effects=None)
    world.record("x", "STARTED", {})


def never_told_elsewhere(world: World) -> None:
    world.intend("x", "unknown", effects=None)


@pytest.mark.parametrize(
    ("provoke", "fate", "verdict", "more"),
    [
        (wrong_elsewhere, Fate.WRONG, Verdict.FAIL, ["wrong"]),
        (another_error_elsewhere, Fate.WRONG, Verdict.FAIL, ["wrong"]),
        (failed_elsewhere, Fate.FAILED, Verdict.FAIL, ["failed-unexpectedly"]),
        (revoked_elsewhere, Fate.FAILED, Verdict.FAIL, ["failed-unexpectedly"]),
        (no_row_elsewhere, Fate.UNKNOWN, Verdict.UNKNOWN, ["unknown"]),
        (expired_elsewhere, Fate.UNKNOWN, Verdict.UNKNOWN, ["unknown"]),
        (begun_elsewhere, Fate.UNKNOWN, Verdict.UNKNOWN, ["unknown", "unfinished-rows"]),
        (never_told_elsewhere, Fate.UNKNOWN, Verdict.UNKNOWN, ["unknown"]),
    ],
)
def test_elsewhere_too_each_deviation_has_its_own_fate_and_no_other(
    elsewhere: World, provoke: Callable[[World], None], fate: Fate, verdict: Verdict, more: list[str]
) -> None:
    provoke(elsewhere)
    found = elsewhere.audit()
    assert {met: times for met, times in found.fates.items() if times} == {Fate.OK: 2, fate: 1}
    assert found.verdict is verdict
    assert unwitnessed_and(found, *more)


@pytest.mark.parametrize(("outcome", "fate"), [("unknown", Fate.RECOVERED), ("unconfirmed", Fate.OK)])
def test_elsewhere_a_row_proves_that_the_broker_had_the_task(elsewhere: World, outcome: str, fate: Fate) -> None:
    elsewhere.intend("x", outcome, effects=None)
    elsewhere.record("x")
    assert elsewhere.audit().fates[fate] == 1 + 2 * (fate is Fate.OK)


@pytest.mark.parametrize("status", ["SUCCESS", "STARTED"])
def test_elsewhere_a_row_of_a_refused_task_is_a_lie_of_the_broker(elsewhere: World, status: str) -> None:
    elsewhere.intend("x", "refused", effects=None)
    assert elsewhere.audit().verdict is Verdict.UNKNOWN
    elsewhere.folder.results.unlink()
    elsewhere.record("x", status)
    assert "refused-but-ran" in codes(elsewhere.audit(), Verdict.FAIL)


def test_elsewhere_an_expected_failure_is_accounted_for(elsewhere: World) -> None:
    elsewhere.intend("x", expect={"state": "FAILURE", "error": "KeyError"}, effects=None)
    elsewhere.record("x", "FAILURE", {"exc_type": "KeyError"})
    found = elsewhere.audit()
    assert (found.verdict, found.fates[Fate.FAILED]) == (Verdict.UNKNOWN, 1)
    assert unwitnessed_and(found)


def test_elsewhere_effects_are_spoken_of_only_where_some_are_expected(elsewhere: World) -> None:
    elsewhere.intend("x", effects=["mail:x", "mail:y"])
    elsewhere.record("x")
    found = elsewhere.audit()
    assert unwitnessed_and(found, "unwitnessed-effects")
    assert [finding.count for finding in found.findings if finding.code == "unwitnessed-effects"] == [2]
    assert found.fates[Fate.OK] == 3


def test_elsewhere_effects_that_somebody_saw_are_held_against_the_promise(elsewhere: World) -> None:
    elsewhere.unwitnessed.remove("effects")
    for task in ("x", "y", "z"):
        elsewhere.intend(task)
        elsewhere.record(task)
    elsewhere.mail("x")
    elsewhere.mail("y")
    elsewhere.mail("y")
    found = elsewhere.audit()
    assert (found.fates[Fate.OK], found.fates[Fate.DUPLICATED], found.fates[Fate.LOST]) == (3, 1, 1)
    # Whether a death excuses the second one, only a worker's journal could say.
    elsewhere.promise = Promise(effects=Effects.ONCE_UNLESS_KILLED)
    assert elsewhere.audit().fates[Fate.UNKNOWN] == 1


def test_elsewhere_a_deadline_counts_to_when_the_row_was_written(elsewhere: World) -> None:
    elsewhere.promise = Promise(deadline_s=10.0)
    assert elsewhere.audit().verdict is Verdict.UNKNOWN
    elsewhere.promise = Promise(deadline_s=9.0)
    assert codes(elsewhere.audit(), Verdict.FAIL) == {"late"}


def test_elsewhere_an_ending_without_a_time_is_in_no_latency(elsewhere: World) -> None:
    elsewhere.done.clear()
    found = elsewhere.audit()
    assert (found.fates[Fate.OK], found.e2e_ms) == (2, {})


def test_elsewhere_results_that_are_not_there_are_no_pass(elsewhere: World) -> None:
    elsewhere.write().results.unlink()
    found = audit(elsewhere.folder)
    assert found.fates[Fate.UNKNOWN] == 2
    assert unwitnessed_and(found, "results-unreadable", "unknown")


def test_a_copy_of_a_run_elsewhere_gives_the_same_audit_byte_for_byte(elsewhere: World, tmp_path: Path) -> None:
    wrong_elsewhere(elsewhere)
    before = dump(elsewhere.audit().to_json())
    copy = shutil.copytree(elsewhere.folder.path, tmp_path / "copy")
    assert dump(audit(RunFolder.open(copy)).to_json()) == before


@pytest.mark.parametrize("unwitnessed", ["everything", ["mailbox"], 7])
def test_a_run_file_that_names_no_witness_is_refused(elsewhere: World, unwitnessed: Any) -> None:
    folder = elsewhere.write()
    folder.write("run.json", {**folder.read("run.json"), "unwitnessed": unwitnessed})
    with pytest.raises(RunFolderError, match="is not what a run writes"):
        audit(folder)
