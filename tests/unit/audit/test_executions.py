"""Executions: deaths of every kind, several workers, and what the audit says of each."""

import re
from pathlib import Path
from typing import Any

import pytest

from harness.audit.audit import Audit
from harness.audit.run_folder import RunFolder
from harness.records.expectation import Delivery, Effects, Promise
from harness.records.verdict import Fate, Verdict
from tests.fakes.world import World, codes, finding


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return the world of a run of which one task went well."""
    world = World(RunFolder.create(tmp_path, "test"))
    world.fine("a")
    return world


def begin(world: World, task: str, process: str = "worker-1.7", **data: Any) -> None:
    world.say(process, "started", task, name="mail", retries=0, **data)


def end(world: World, task: str, state: str = "SUCCESS", process: str = "worker-1.7", **data: Any) -> None:
    world.say(process, "finished", task, state=state, **data)


@pytest.mark.parametrize("outside", [True, False])
def test_an_execution_that_was_unwound_is_a_death_and_excuses_a_second_effect(world: World, *, outside: bool) -> None:
    world.promise = Promise(effects=Effects.ONCE_UNLESS_KILLED)
    world.intend("x")
    begin(world, "x")
    end(world, "x", state="UNKNOWN")
    if outside:
        world.say("worker-1", "finished", "x", state="FAILURE", error="TimeLimitExceeded: 2", outside=True)
    begin(world, "x", process="worker-1.8")
    end(world, "x", process="worker-1.8")
    world.record("x")
    world.mail("x")
    world.mail("x")
    found = world.audit()
    assert found.fates[Fate.OK] == 2
    assert {"had-again", "ran-again"} <= codes(found, Verdict.PASS)
    assert found.verdict is Verdict.PASS
    # The sibling that ended both times has no excuse.
    world.lines["worker-1.7"][-1]["state"] = "SUCCESS"
    assert world.audit().fates[Fate.DUPLICATED] == 1


def test_a_message_put_back_by_its_task_is_no_run_more_than_promised(world: World) -> None:
    world.promise = Promise(delivery=Delivery.AT_MOST_ONCE)
    world.intend("x")
    begin(world, "x")
    end(world, "x", state="REJECTED")
    begin(world, "x")
    end(world, "x")
    world.record("x")
    world.mail("x")
    assert world.audit().fates[Fate.OK] == 2
    world.lines["worker-1.7"][2]["state"] = "SUCCESS"
    assert world.audit().fates[Fate.DUPLICATED] == 1


def broadcast(world: World, *, redelivered: bool = False) -> None:
    world.nodes.append("worker-2")
    world.intend("x")
    begin(world, "x", redelivered=False)
    end(world, "x")
    begin(world, "x", process="worker-2.3", redelivered=redelivered)
    world.record("x")
    world.mail("x")


def test_a_message_that_goes_to_several_workers_may_run_once_in_each(world: World) -> None:
    world.promise = Promise(delivery=Delivery.AT_MOST_ONCE)
    broadcast(world)
    end(world, "x", process="worker-2.3")
    found = world.audit()
    assert (found.verdict, found.fates[Fate.OK]) == (Verdict.PASS, 2)
    # The second run of one worker is one too many.
    begin(world, "x", process="worker-2.3")
    end(world, "x", process="worker-2.3")
    assert world.audit().fates[Fate.DUPLICATED] == 1


def test_a_message_that_came_again_is_no_broadcast(world: World) -> None:
    world.promise = Promise(delivery=Delivery.AT_MOST_ONCE)
    broadcast(world, redelivered=True)
    end(world, "x", process="worker-2.3")
    assert world.audit().fates[Fate.DUPLICATED] == 1


@pytest.mark.parametrize("outcome", ["accepted", "unconfirmed", None])
def test_a_task_that_was_published_twice_is_no_broadcast(world: World, outcome: str | None) -> None:
    world.promise = Promise(delivery=Delivery.AT_MOST_ONCE)
    world.intend("x", outcome)
    broadcast(world)
    end(world, "x", process="worker-2.3")
    assert world.audit().fates[Fate.DUPLICATED] == 1


def test_one_of_several_workers_that_fails_is_told_although_the_row_is_a_success(world: World) -> None:
    broadcast(world)
    end(world, "x", state="FAILURE", process="worker-2.3", error="KeyError: 'x'")
    found = world.audit()
    assert codes(found, Verdict.FAIL) == {"failed-on-one-worker"}
    text = finding(found, "failed-on-one-worker").text
    assert "worker-1 SUCCESS, worker-2 FAILURE (KeyError: 'x')" in text
    assert "failed-run" not in codes(found, Verdict.PASS)


def test_a_task_that_failed_on_several_workers_is_counted_once(world: World) -> None:
    broadcast(world)
    for worker in (2, 3):
        if worker != 2:
            begin(world, "x", process=f"worker-{worker}.3")
        end(world, "x", state="FAILURE", process=f"worker-{worker}.3", error="KeyError: 'x'")
    assert finding(world.audit(), "failed-on-one-worker").count == 1


def test_a_failed_run_beside_a_success_is_told_and_changes_nothing(world: World) -> None:
    begin(world, "a")
    end(world, "a", state="FAILURE", error="RuntimeError: the second run failed")
    found = world.audit()
    assert (found.verdict, found.fates[Fate.OK]) == (Verdict.PASS, 1)
    assert "RuntimeError: the second run failed" in finding(found, "failed-run").text
    assert "began 2 times" in finding(found, "ran-again").text


def test_a_run_that_its_task_asked_for_is_no_run_again(world: World) -> None:
    world.intend("x")
    world.execute("x", state="RETRY")
    world.execute("x")
    world.record("x")
    world.mail("x")
    assert "ran-again" not in codes(world.audit(), Verdict.PASS)
    world.execute("x")
    assert "ran-again" in codes(world.audit(), Verdict.PASS)


def test_a_failure_that_was_expected_is_no_failed_run(world: World) -> None:
    world.intend("x", expect={"state": "FAILURE"}, effects=[])
    begin(world, "x")
    end(world, "x", state="FAILURE", error="KeyError: 1")
    world.record("x", "FAILURE", {"exc_type": "KeyError"})
    found = world.audit()
    assert found.verdict is Verdict.PASS
    assert codes(found, Verdict.PASS) == set()


def test_a_broadcast_that_one_worker_got_again_is_still_one(world: World) -> None:
    broadcast(world)
    begin(world, "x", redelivered=True)
    end(world, "x")
    end(world, "x", state="FAILURE", process="worker-2.3", error="KeyError: 'x'")
    assert codes(world.audit(), Verdict.FAIL) == {"failed-on-one-worker"}


def test_of_each_worker_its_last_ending_is_told(world: World) -> None:
    world.execute("a", state="FAILURE", node="worker-1")
    for number, (state, error) in enumerate([("RETRY", "Retry: 1"), ("FAILURE", "KeyError: 1")]):
        begin(world, "a", process=f"worker-2.{number}", redelivered=True)
        end(world, "a", state=state, error=error, process=f"worker-2.{number}")
        end(world, "a", state="UNKNOWN", process=f"worker-2.{number}")
    text = finding(world.audit(), "failed-run").text
    assert text.endswith("mail (a) began 4 times: worker-1 FAILURE, worker-2 FAILURE (KeyError: 1)")


def test_a_process_is_killed_by_what_ended_it_after_the_task_began(world: World) -> None:
    world.intend("x")
    begin(world, "x", process="worker-1.6")
    # A number is given to a later process again.
    for number, code in ((6, -15), (7, -1)):
        world.say("worker-1", "exited", child=number, code=code)
    begin(world, "x")
    for code in (-9, 0):
        world.say("worker-1", "exited", child=7, code=code)
    assert "mail (x) began 2 times, its process was killed by SIGKILL" in lost(world)


@pytest.mark.parametrize("often", ["worker-1", "worker-2"])
def test_of_two_workers_whose_processes_were_killed_the_one_that_began_the_task_more_often_is_told(
    world: World, often: str
) -> None:
    world.intend("x")
    for worker, code in (("worker-1", -9), ("worker-2", -11)):
        for number in range(2 if worker == often else 1):
            begin(world, "x", process=f"{worker}.{number + 7}")
            world.say(worker, "exited", child=number + 7, code=code)
    signal = "SIGKILL" if often == "worker-1" else "SIGSEGV"
    assert f"mail (x) began 3 times, its process was killed by {signal}" in lost(world)


def test_a_process_that_was_killed_in_the_second_of_its_runs_of_a_task_is_told(world: World) -> None:
    world.intend("x")
    begin(world, "x")
    end(world, "x", state="RETRY")
    begin(world, "x")
    world.say("worker-1", "exited", child=7, code=-9)
    assert "mail (x) began 2 times, its process was killed by SIGKILL" in lost(world)


def test_a_process_that_was_killed_while_it_unwound_its_task_is_told(world: World) -> None:
    world.intend("x")
    begin(world, "x")
    end(world, "x", state="UNKNOWN")
    world.say("worker-1", "exited", child=7, code=-15)
    assert "mail (x) began once, its process was killed by SIGTERM on worker-1" in lost(world)


def test_a_process_that_was_killed_as_soon_as_its_task_began_is_told(world: World) -> None:
    world.intend("x")
    begin(world, "x")
    world.say("worker-1", "exited", child=7, code=-9)
    world.lines["worker-1"][-1]["t"] = world.lines["worker-1.7"][-1]["t"]
    assert "its process was killed by SIGKILL" in lost(world)


@pytest.mark.parametrize(
    ("process", "killed"), [("worker-1.7", ""), ("worker-1.6", ", its process was killed by SIGKILL")]
)
def test_a_process_that_is_killed_after_it_ended_its_task_was_not_killed_by_it(
    world: World, process: str, killed: str
) -> None:
    world.intend("x")
    begin(world, "x", process=process)
    if killed:
        world.say("worker-1", "exited", child=6, code=-9)
    else:
        end(world, "x", process=process)
    begin(world, "x")
    end(world, "x")
    world.say("worker-1", "exited", child=7, code=-15)
    world.record("x")
    for _ in range(3):
        world.mail("x")
    assert f"mail (x) began 2 times{killed}, and" in finding(world.audit(), "duplicated").text


def test_a_process_that_ended_its_task_as_soon_as_that_began_was_not_killed_by_it(world: World) -> None:
    """A clock may show the same time twice."""
    world.intend("x")
    begin(world, "x")
    end(world, "x")
    for line in world.lines["worker-1.7"][-2:]:
        line["t"] = 1_100.0
    world.say("worker-1", "exited", child=7, code=-9)
    world.lines["worker-1"][-1]["t"] = 1_200.0
    begin(world, "x", process="worker-1.8")
    end(world, "x", process="worker-1.8")
    world.record("x")
    for _ in range(2):
        world.mail("x")
    assert "mail (x) began 2 times, and" in finding(world.audit(), "duplicated").text


def test_of_two_tasks_that_never_ended_one_is_told_with_the_signal_that_killed_its_process(world: World) -> None:
    for task, process in (("x", "worker-1.7"), ("y", "worker-1.8")):
        world.intend(task)
        begin(world, task, process=process)
    world.say("worker-1", "exited", child=7, code=-9)
    found = world.audit()
    assert "mail (x) began once, its process was killed by SIGKILL on worker-1 and" in finding(found, "lost").text
    assert "mail (y) began once on worker-1 and" in finding(found, "lost").text


# -------------------------------------------------------------------------------------------------- why a task is lost


def lost(world: World) -> str:
    found = world.audit()
    assert found.fates[Fate.LOST] == 1
    return finding(found, "lost").text


def queue(world: World, name: str = "celery", kind: str = "quorum", arguments: dict[str, Any] | None = None) -> None:
    assert world.remains
    counts = {"ready": 0, "unacked": 0, "consumers": 1}
    world.remains["queues"].append({"name": name, "kind": kind, **counts, "arguments": arguments or {}})


def poison(world: World, times: int, **intent: Any) -> None:
    world.intend("x", **intent)
    for number in range(times):
        begin(world, "x", process=f"worker-1.{number + 7}")
        world.say("worker-1", "exited", child=number + 7, code=-9)


def test_a_message_that_the_broker_dropped_at_its_delivery_limit_is_lost_with_the_number_of_deliveries(
    world: World,
) -> None:
    poison(world, 3)
    queue(world, arguments={"x-delivery-limit": 2})
    text = lost(world)
    assert text.startswith("1 mail: ")
    assert "began 3 times, its process was killed by SIGKILL" in text
    assert "dropped by the broker after 3 deliveries" in text
    assert "a delivery limit of 2" in text


@pytest.mark.parametrize(
    ("times", "kind", "arguments"),
    [(2, "quorum", {"x-delivery-limit": 2}), (3, "classic", {"x-delivery-limit": 2}), (3, "quorum", {})],
)
def test_a_task_that_was_lost_before_its_limit_was_not_dropped(
    world: World, times: int, kind: str, arguments: dict[str, Any]
) -> None:
    poison(world, times)
    queue(world, kind=kind, arguments=arguments)
    assert "dropped" not in lost(world)


def test_rabbitmqs_own_limit_holds_where_nobody_sets_one(world: World) -> None:
    poison(world, 21, queue="mails")
    queue(world, "mails")
    assert "`mails` has a delivery limit of 20" in lost(world)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"x-message-ttl": 100}, "keeps a message for no more milliseconds than 100"),
        ({"x-max-length": 5}, "holds no more messages than 5"),
        ({"x-max-length-bytes": 50}, "holds no more bytes than 50"),
        ({}, "look for a queue that was purged or deleted"),
    ],
)
def test_a_task_that_nobody_began_is_lost_with_what_its_queue_does_to_messages(
    world: World, arguments: dict[str, Any], words: str
) -> None:
    world.intend("x")
    queue(world, kind="classic", arguments=arguments)
    text = lost(world)
    assert "no worker ever began mail (x)" in text
    assert words in text


def test_a_queue_that_is_gone_is_named(world: World) -> None:
    world.intend("x", queue="mails")
    queue(world)
    assert "there is no queue `mails`" in lost(world)


def test_a_retry_that_was_lost_is_looked_for_in_its_own_queue_and_goes_by_the_first_name(world: World) -> None:
    world.intend("x", name="mail", queue="mails")
    world.execute("x", state="RETRY")
    world.intend("x", name="again", queue="again")
    queue(world, "mails", kind="classic")
    text = lost(world)
    assert text.startswith("1 mail: ")
    assert "mail (x) began once and never came to an end" in text
    queue(world, "again", arguments={"x-delivery-limit": 0})
    assert "`again` has a delivery limit of 0" in lost(world)


def test_an_effect_that_never_came_is_named(world: World) -> None:
    world.intend("x")
    world.execute("x")
    world.record("x")
    assert 'mail (x) ended as SUCCESS, and its effect "mail:x" never came' in lost(world)


def test_of_several_effects_those_are_named_that_never_came(world: World) -> None:
    world.intend("x", effects=["mail:x1", "mail:x", "mail:x2"])
    world.execute("x")
    world.record("x")
    world.mail("x")
    assert 'mail (x) ended as SUCCESS, and its effect "mail:x1", "mail:x2" never came' in lost(world)


def test_of_many_effects_that_never_came_three_are_named(world: World) -> None:
    world.intend("x", effects=[f"mail:{number}" for number in range(4)])
    world.execute("x")
    world.record("x")
    world.mail("x")
    assert lost(world).endswith('its effect "mail:0", "mail:1", "mail:2" never came')


def dead(world: World, task: str | None = "x", reason: str = "delivery_limit") -> None:
    assert world.remains
    letter = {"task": task, "name": "mail", "queue": "dead", "origin": "celery", "reason": reason, "count": 1}
    world.remains.setdefault("dead", []).append(letter)


def test_a_task_that_never_ended_and_is_a_dead_letter_is_lost_and_says_where_it_lies(world: World) -> None:
    poison(world, 2)
    dead(world)
    assert "it lies in `dead`, because `celery` got rid of it (delivery_limit, once)" in lost(world)
    found = world.audit()
    assert found.verdict is Verdict.FAIL
    assert finding(found, "dead-letters").tasks == ("x",)


def test_a_dead_letter_that_nobody_knew_to_be_accepted_is_lost_too(world: World) -> None:
    world.intend("x", "unconfirmed")
    dead(world, reason="expired")
    assert "(expired, once)" in lost(world)


def test_a_dead_letter_without_an_id_hides_no_other(world: World) -> None:
    dead(world, None)
    dead(world, "stranger")
    assert "unexpected-messages" in codes(world.audit(), Verdict.FAIL)


def test_a_dead_letter_of_a_task_that_failed_as_expected_is_a_remark(world: World) -> None:
    world.intend("x", expect={"state": "FAILURE", "error": "Reject"}, effects=[])
    begin(world, "x")
    end(world, "x", state="REJECTED")
    world.say("worker-1", "finished", "x", state="FAILURE", error="Reject: no", outside=True)
    world.record("x", "FAILURE", {"exc_type": "Reject"})
    dead(world, reason="rejected")
    dead(world, reason="rejected")
    found = world.audit()
    assert (found.verdict, found.fates[Fate.FAILED]) == (Verdict.PASS, 1)
    remark = finding(found, "dead-letters")
    assert (remark.verdict, remark.count) == (Verdict.PASS, 2)
    assert "2 mail in `dead`, from `celery` (rejected)" in remark.text


def test_a_dead_letter_that_nobody_sent_is_unexpected(world: World) -> None:
    dead(world, task="stranger")
    assert "unexpected-messages" in codes(world.audit(), Verdict.FAIL)


# ------------------------------------------------------------------------------------------- messages thrown away


@pytest.mark.parametrize(("outcome", "fate"), [("accepted", Fate.LOST), ("unconfirmed", Fate.UNRECORDED)])
def test_a_message_that_a_worker_threw_away_is_no_revocation(world: World, outcome: str, fate: Fate) -> None:
    world.intend("x", outcome, effects=[])
    reason = "ContentDisallowed: Refusing to deserialize pickle"
    world.say("worker-1", "discarded", "x", reason=reason, content_type="application/x-python-serialize")
    found = world.audit()
    assert (found.verdict, found.fates[fate]) == (Verdict.FAIL, 1)
    text = finding(found, fate.value).text
    assert f"worker-1 discarded mail (x): {reason}" in text
    assert "revoked" not in found.text()


@pytest.mark.parametrize("is_first", [True, False])
def test_a_message_that_one_worker_began_and_another_threw_away_was_thrown_away(
    world: World, *, is_first: bool
) -> None:
    world.nodes.append("worker-2")
    world.intend("x", "unconfirmed", effects=[])
    for begins in (is_first, not is_first):
        if begins:
            begin(world, "x")
        else:
            world.say("worker-2", "discarded", "x", reason="NotRegistered: mail")
    found = world.audit()
    assert found.fates[Fate.UNRECORDED] == 1
    assert "worker-2 discarded mail (x): NotRegistered: mail" in finding(found, "unrecorded").text


def test_a_task_that_was_revoked_while_it_ran_ended_so(world: World) -> None:
    world.promise = Promise(recorded=False)
    world.intend("x", expect={"state": "REVOKED"}, effects=[])
    begin(world, "x")
    world.say("worker-1", "revoked", "x", reason="terminated")
    found = world.audit()
    assert (found.verdict, found.fates[Fate.FAILED]) == (Verdict.PASS, 1)


def test_of_two_workers_that_threw_a_message_away_the_last_one_is_named(world: World) -> None:
    world.nodes.append("worker-2")
    world.intend("x", effects=[])
    for node, reason in (("worker-2", "NotRegistered: mail"), ("worker-1", "ContentDisallowed: pickle")):
        world.say(node, "discarded", "x", reason=reason)
    assert "worker-1 discarded mail (x): ContentDisallowed: pickle" in lost(world)


def test_a_message_that_was_thrown_away_and_has_a_row_ended_as_that_says(world: World) -> None:
    world.intend("x", effects=[])
    world.say("worker-1", "discarded", "x", reason="NotRegistered: mail")
    world.record("x", "FAILURE", {"exc_type": "NotRegistered"})
    found = world.audit()
    assert found.fates[Fate.FAILED] == 1
    assert codes(found, Verdict.FAIL) == {"failed-unexpectedly"}


@pytest.mark.parametrize(("expires", "fate"), [(None, Fate.LOST), (1_003.0, Fate.FAILED)])
def test_a_message_without_an_expiry_never_expires(world: World, expires: float | None, fate: Fate) -> None:
    about: dict[str, Any] = {"expires": expires} if expires else {}
    world.intend("x", **about)
    assert world.audit().fates[fate] == 1


# ----------------------------------------------------------------------------------------------- what findings say


def test_wrong_says_what_was_expected_and_what_came(world: World) -> None:
    world.intend("x", expect={"result": "1.10"}, effects=[])
    world.execute("x")
    world.record("x", result={"__type__": "decimal", "__value__": "1.10"})
    text = finding(world.audit(), "wrong").text
    assert 'mail (x): expected "1.10", came {"__type__": "decimal", "__value__": "1.10"}' in text


def test_a_long_value_is_shown_by_its_beginning(world: World) -> None:
    world.intend("x", expect={"result": "a" * 1_000}, effects=[])
    world.execute("x")
    world.record("x", result="b" * 1_000)
    text = finding(world.audit(), "wrong").text
    assert re.search(r'expected "a{40,160}\.\.\., came "b{40,160}\.\.\.', text)
    assert len(text) < 600


def test_another_error_and_another_state_are_named(world: World) -> None:
    world.intend("x", expect={"state": "FAILURE", "error": "MailRefused"}, effects=[])
    world.execute("x", state="FAILURE")
    world.record("x", "FAILURE", {"exc_type": "KeyError"})
    world.intend("y", expect={"state": "FAILURE"}, effects=[])
    world.execute("y")
    world.record("y")
    text = finding(world.audit(), "wrong").text
    assert "mail (x): expected the error MailRefused, came KeyError" in text
    assert "mail (y): expected FAILURE, came SUCCESS" in text


def test_unknown_says_what_would_settle_it(world: World) -> None:
    world.intend("x", "unconfirmed")
    found = finding(world.audit(), "unknown")
    assert "1 mail: " in found.text
    assert "mail (x) was sent without a confirm" in found.text
    assert "confirm_publish" in found.reasons[0].remedy


def test_a_sender_that_was_not_told_is_why_it_is_unknown(world: World) -> None:
    world.intend("x", "unknown")
    assert "of mail (x) nobody knows whether the broker took it" in finding(world.audit(), "unknown").text


def test_a_task_without_a_row_says_how_it_ended(world: World) -> None:
    world.intend("x")
    world.execute("x")
    world.mail("x")
    assert "mail (x) ended as SUCCESS, and there is no row" in finding(world.audit(), "unrecorded").text
    world.record("x", "STARTED", b"{}")
    assert "and its row says STARTED" in finding(world.audit(), "unrecorded").text


def test_a_second_effect_says_how_often_it_came(world: World) -> None:
    world.mail("a")
    world.mail("a")
    text = finding(world.audit(), "duplicated").text
    assert 'mail (a) began once, and its effect "mail:a" came 3 times' in text


def test_of_many_effects_that_came_again_three_are_named(world: World) -> None:
    keys = [f"mail:{number}" for number in range(4)]
    world.intend("x", effects=keys)
    world.execute("x")
    world.record("x")
    for key in keys * 2:
        world.mail("x", key=key)
    text = finding(world.audit(), "duplicated").text
    assert text.endswith('"mail:0" came 2 times, "mail:1" came 2 times, "mail:2" came 2 times')


def test_of_two_tasks_each_is_told_with_its_own_effects_that_came_again(world: World) -> None:
    world.fine("x")
    for task in ("a", "x", "x"):
        world.mail(task)
    text = finding(world.audit(), "duplicated").text
    assert 'mail (a) began once, and its effect "mail:a" came 2 times; ' in text
    assert text.endswith('mail (x) began once, and its effect "mail:x" came 3 times')


def test_a_process_that_ended_after_its_task_did_is_not_spoken_of(world: World) -> None:
    world.intend("x")
    begin(world, "x")
    end(world, "x")
    world.say("worker-1", "exited", child=7, code=-9)
    world.record("x")
    world.mail("x")
    world.mail("x")
    text = finding(world.audit(), "duplicated").text
    assert text.endswith('mail (x) began once, and its effect "mail:x" came 2 times')


def test_pending_says_what_was_waited_for(world: World) -> None:
    world.intend("x", queue="mails")
    assert world.remains
    world.remains["messages"] = ["x"]
    waiting = ["1 waits in `mails`, which nobody consumes; workers consume: celery"]
    world.remains["settled"] = {"how": "stuck", "waited_s": 1.0, "waiting": waiting, "sending": []}
    assert finding(world.audit(), "pending").text.endswith(waiting[0])


def test_names_are_counted_and_of_ten_ids_three_are_shown(world: World) -> None:
    for number in range(12):
        world.intend(f"x-{number:02}", name="mail" if number % 3 else "pay", outcome=None)
    found = world.audit()
    assert finding(found, "unknown").text.startswith("12 (mail, pay): ")
    assert len(finding(found, "unknown").tasks) == 10
    (line,) = [line for line in found.text().splitlines() if "unknown unknown" in line]
    assert "x-03" not in line


def test_an_app_that_never_comes_to_rest_is_named_with_the_task_that_keeps_sending(world: World) -> None:
    assert world.remains
    settled = {"how": "limit", "waited_s": 10.0, "waiting": [], "sending": [["poll", "poll", 9], ["beat", "tick", 2]]}
    world.remains["settled"] = settled
    found = world.audit()
    assert found.verdict is Verdict.UNKNOWN
    assert finding(found, "restless").count == 1
    text = finding(found, "restless").text
    assert "did not come to rest within 10 s: poll sent 9 poll, beat sent 2 tick" in text
    for other in ({**settled, "how": "timeout"}, {**settled, "sending": []}):
        world.remains["settled"] = other
        assert world.audit().verdict is Verdict.PASS


def test_a_failure_that_nobody_expected_shows_its_traceback_right_after_the_verdict(world: World) -> None:
    world.intend("x", effects=[])
    begin(world, "x")
    traceback = 'Traceback (most recent call last):\n  File "app.py", line 3\nKeyError: 1\n'
    end(world, "x", state="FAILURE", error="KeyError: 1", traceback=traceback)
    world.record("x", "FAILURE", {"exc_type": "KeyError", "exc_message": ["1"]})
    found = world.audit()
    assert found.text().splitlines()[1:4] == [
        "  x on worker-1:",
        "  Traceback (most recent call last):",
        '    File "app.py", line 3',
    ]
    assert Audit.from_json(found.to_json()) == found
    # One that was expected is no news.
    world.lines["producer"][-2]["expect"] = {"state": "FAILURE"}
    found = world.audit()
    assert (found.verdict, found.tracebacks) == (Verdict.PASS, ())


def test_a_traceback_of_a_task_that_succeeded_in_the_end_is_no_traceback_of_a_failure(world: World) -> None:
    world.intend("x", expect={"state": "FAILURE"}, effects=[])
    for state, traceback in (("FAILURE", "KeyError: 1"), ("SUCCESS", None)):
        begin(world, "x")
        end(world, "x", state=state, traceback=traceback)
    world.record("x")
    found = world.audit()
    assert (found.fates[Fate.WRONG], found.tracebacks) == (1, ())


def test_of_several_failures_of_a_task_the_last_is_shown(world: World) -> None:
    world.nodes.append("worker-2")
    world.intend("x")
    for process, error in (("worker-2.9", "OldError"), ("worker-1.8", "LastError")):
        begin(world, "x", process=process)
        end(world, "x", state="FAILURE", process=process, error=f"{error}: 1", traceback=f"{error}: 1")
    world.record("x", "FAILURE", {"exc_type": "LastError", "exc_message": ["1"]})
    assert world.audit().tracebacks == ("x on worker-1:\nLastError: 1",)


def test_the_executions_of_a_worker_are_those_of_all_its_processes(world: World) -> None:
    for task, process in (("x", "worker-1.8"), ("y", "worker-1.8"), ("v", "worker-1.9")):
        world.intend(task)
        begin(world, task, process=process)
    assert world.audit().workers == {"worker-1": 4}


def test_of_several_tasks_that_failed_unexpectedly_the_first_one_shows_its_traceback(world: World) -> None:
    for task in ("y", "x"):
        world.intend(task)
        begin(world, task)
        end(world, task, state="FAILURE", error="KeyError: 1", traceback=f"KeyError: {task}")
        world.record(task, "FAILURE", {"exc_type": "KeyError", "exc_message": ["1"]})
    assert world.audit().tracebacks == ("x on worker-1:\nKeyError: x",)


def test_an_audit_shows_itself_and_begins_with_the_verdict(world: World) -> None:
    world.intend("x")
    found = world.audit()
    assert repr(found) == str(found) == found.text()
    assert repr(found).startswith("fail: 2 sent: 1 ok, 1 lost\n")
