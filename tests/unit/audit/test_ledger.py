"""The ledger: what a run still waits for, told from its journal alone."""

import json
from collections import defaultdict
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from harness.audit.ledger import Ledger

ALIVE = ["worker-1", "worker-2"]

Say = Callable[..., None]


@pytest.fixture
def say(tmp_path: Path) -> Say:
    """Return a function that adds a line to a node's journal, by default a second after the line before."""
    seconds = count(1_000)
    numbers: defaultdict[Path, count[int]] = defaultdict(count)

    def write(node: str, kind: str, task: str | None = None, /, *, pid: int = 1, **data: Any) -> None:
        path = tmp_path / f"{node}.{pid}.1.jsonl"
        about = {"task": task} if task else {}
        line = {"n": next(numbers[path]), "t": float(next(seconds)), "kind": kind, **about, **data}
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    return write


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


def sends(say: Say, task: str, outcome: str = "accepted") -> None:
    say("producer", "intended", task)
    say("producer", outcome, task)


def test_a_retry_can_be_with_another_worker_before_the_execution_that_asked_for_it_ends(
    ledger: Ledger, say: Say
) -> None:
    sends(say, "a")
    say("worker-1", "received", "a")
    say("worker-1", "started", "a")
    say("worker-1", "intended", "a", retries=1)
    say("worker-2", "received", "a", eta=2_000.0)
    say("worker-1", "finished", "a", state="RETRY")
    ledger.update()
    assert ledger.held(ALIVE, unacked=True) == {"a"}
    assert ledger.holder("a") == "worker-2"
    assert ledger.held(["worker-1"], unacked=True) == set()
    say("worker-2", "started", "a")
    say("worker-2", "finished", "a", state="SUCCESS")
    ledger.update()
    assert ledger.held(ALIVE, unacked=True) == set()


def test_a_retry_that_its_own_worker_took_before_the_execution_ended_is_held(ledger: Ledger, say: Say) -> None:
    sends(say, "a")
    for kind in ("received", "started", "received"):
        say("worker-1", kind, "a")
    say("worker-1", "finished", "a", state="RETRY")
    ledger.update()
    assert ledger.held(ALIVE, unacked=True) == {"a"}
    # What it had before it died, it has not any more.
    for kind in ("up", "received", "started"):
        say("worker-1", kind, "a" if kind != "up" else None)
    say("worker-1", "finished", "a", state="RETRY")
    ledger.update()
    assert ledger.held(ALIVE, unacked=True) == set()


def test_beats_ticks_are_counted_by_their_entries_once_the_broker_has_them(ledger: Ledger, say: Say) -> None:
    say("beat-1", "intended", "a", entry="hourly", at=1.0)
    say("beat-1", "intended", "b", entry="hourly", at=2.0)
    say("beat-1", "intended", "c", entry="nightly", at=2.0)
    say("worker-1", "intended", "d")
    ledger.update()
    assert ledger.ticks == {}
    for task in ("a", "c", "d"):
        say("beat-1", "accepted", task)
    # A retry is sent under the same id, and is no tick.
    say("worker-1", "intended", "a")
    say("worker-1", "accepted", "a")
    ledger.update()
    assert ledger.ticks == {"hourly": 1, "nightly": 1}


def test_nothing_is_known_of_an_empty_journal(ledger: Ledger) -> None:
    ledger.update()
    assert (ledger.sent, ledger.ended, ledger.open(), ledger.held(ALIVE, unacked=True)) == (0, 0, set(), set())


def test_a_task_is_open_until_it_ends(ledger: Ledger, say: Say) -> None:
    sends(say, "a")
    sends(say, "b")
    ledger.update()
    assert (ledger.sent, ledger.ended, ledger.open()) == (2, 0, {"a", "b"})
    say("worker-1", "finished", "a", state="SUCCESS")
    ledger.update()
    assert (ledger.sent, ledger.ended, ledger.open()) == (2, 1, {"b"})


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        ("finished", "SUCCESS"),
        ("finished", "FAILURE"),
        ("revoked", None),
        ("discarded", None),
    ],
)
def test_whatever_ends_a_task_it_is_held_no_more(ledger: Ledger, say: Say, kind: str, state: str | None) -> None:
    sends(say, "a")
    say("worker-1", "received", "a")
    ledger.update()
    assert ledger.held(ALIVE, unacked=True) == {"a"}
    say("worker-1", kind, "a", **({"state": state} if state else {}))
    ledger.update()
    assert (ledger.ended, ledger.open(), ledger.held(ALIVE, unacked=True)) == (1, set(), set())


@pytest.mark.parametrize("state", ["RETRY", "IGNORED", "REJECTED"])
def test_a_task_that_may_come_again_is_neither_held_nor_ended(ledger: Ledger, say: Say, state: str) -> None:
    sends(say, "a")
    say("worker-1", "started", "a")
    say("worker-1", "finished", "a", state=state)
    ledger.update()
    assert (ledger.ended, ledger.open(), ledger.held(ALIVE, unacked=True)) == (0, {"a"}, set())


def test_a_replacement_that_runs_is_held(ledger: Ledger, say: Say) -> None:
    sends(say, "a")
    say("worker-1", "started", "a")
    say("worker-1", "finished", "a", state="IGNORED")
    say("worker-1", "started", "a")
    ledger.update()
    assert ledger.held(ALIVE, unacked=False) == {"a"}


def test_what_was_received_and_acknowledged_and_never_began_is_held_by_nobody(ledger: Ledger, say: Say) -> None:
    sends(say, "a", "b")
    say("worker-1", "received", "a")
    say("worker-1", "received", "b")
    say("worker-1", "started", "b")
    ledger.update()
    assert ledger.held(ALIVE, unacked=True) == {"a", "b"}
    assert ledger.held(ALIVE, unacked=False) == {"b"}


def test_a_refused_task_was_sent_and_is_not_open(ledger: Ledger, say: Say) -> None:
    sends(say, "a", "refused")
    ledger.update()
    assert (ledger.sent, ledger.open()) == (1, set())


def test_a_task_of_unknown_outcome_is_open(ledger: Ledger, say: Say) -> None:
    sends(say, "a", "unknown")
    say("producer", "intended", "b")
    ledger.update()
    assert ledger.open() == {"a", "b"}


def test_what_was_once_accepted_stays_open_when_a_later_publish_is_refused(ledger: Ledger, say: Say) -> None:
    sends(say, "a")
    say("worker-1", "refused", "a")
    ledger.update()
    assert ledger.open() == {"a"}


def test_what_a_dead_node_held_is_not_held(ledger: Ledger, say: Say) -> None:
    say("worker-1", "started", "a")
    say("worker-2", "started", "b")
    ledger.update()
    assert ledger.held(["worker-2"], unacked=True) == {"b"}


def test_what_a_node_held_before_it_restarted_is_not_held(ledger: Ledger, say: Say) -> None:
    say("worker-1", "up")
    say("worker-1", "started", "a")
    say("worker-1", "up")
    say("worker-1", "started", "b")
    ledger.update()
    assert ledger.held(ALIVE, unacked=True) == {"b"}


def test_each_worker_that_runs_a_task_holds_it(ledger: Ledger, say: Say) -> None:
    say("worker-1", "started", "a")
    say("worker-2", "started", "a")
    ledger.update()
    assert ledger.held(["worker-1"], unacked=True) == ledger.held(["worker-2"], unacked=True) == {"a"}
    assert ledger.holder("a") == "worker-2"
    say("worker-1", "finished", "a", state="SUCCESS")
    ledger.update()
    assert ledger.held(["worker-1"], unacked=True) == set()
    assert ledger.held(["worker-2"], unacked=True) == {"a"}


def test_a_later_execution_of_a_task_that_has_ended_is_held(ledger: Ledger, say: Say) -> None:
    sends(say, "a")
    for kind, state in (("received", None), ("started", None), ("finished", "SUCCESS"), ("received", None)):
        say("worker-1", kind, "a", **({"state": state} if state else {}))
    ledger.update()
    assert (ledger.ended, ledger.held(ALIVE, unacked=True)) == (1, {"a"})
    say("worker-1", "started", "a")
    ledger.update()
    assert ledger.held(ALIVE, unacked=False) == {"a"}
    say("worker-1", "finished", "a", state="FAILURE")
    ledger.update()
    assert (ledger.ended, ledger.held(ALIVE, unacked=True)) == (1, set())


def test_what_a_process_ran_that_is_gone_is_held_by_nobody(ledger: Ledger, say: Say) -> None:
    say("worker-1", "started", "a", pid=7)
    say("worker-1", "started", "b", pid=8)
    ledger.update()
    say("worker-1", "exited", child=7, code=-9)
    ledger.update()
    assert ledger.held(ALIVE, unacked=True) == {"b"}


def test_a_beginning_that_is_read_after_its_process_was_seen_to_be_gone_is_over(ledger: Ledger, say: Say) -> None:
    say("worker-1", "exited", child=7, code=-9, t=50.0)
    ledger.update()
    say("worker-1", "started", "a", pid=7, t=49.0)
    # A later process of the same number is another one.
    say("worker-1", "started", "b", pid=7, t=51.0)
    ledger.update()
    assert ledger.held(ALIVE, unacked=True) == {"b"}


def test_a_receipt_that_is_read_after_the_beginning_is_no_second_message(ledger: Ledger, say: Say) -> None:
    say("worker-1", "started", "a", pid=7, t=51.0)
    ledger.update()
    say("worker-1", "received", "a", t=50.0)
    say("worker-1", "finished", "a", state="SUCCESS", pid=7, t=52.0)
    ledger.update()
    assert ledger.held(ALIVE, unacked=True) == set()
    say("worker-1", "received", "a", t=53.0)
    ledger.update()
    assert ledger.held(ALIVE, unacked=True) == {"a"}


def test_a_message_that_the_broker_took_back_and_delivered_again_is_one_message(ledger: Ledger, say: Say) -> None:
    say("worker-1", "received", "a")
    say("worker-1", "received", "a", redelivered=True)
    say("worker-1", "started", "a")
    say("worker-1", "finished", "a", state="SUCCESS")
    ledger.update()
    assert ledger.held(ALIVE, unacked=True) == set()
    # Two messages of one id are two.
    for kind in ("received", "received", "started"):
        say("worker-1", kind, "b")
    say("worker-1", "finished", "b", state="SUCCESS")
    ledger.update()
    assert ledger.held(ALIVE, unacked=True) == {"b"}


def test_of_a_receipt_and_a_beginning_of_one_instant_the_receipt_was_first(ledger: Ledger, say: Say) -> None:
    say("worker-1", "started", "a", pid=7, t=51.0)
    ledger.update()
    say("worker-1", "received", "a", t=51.0)
    say("worker-1", "finished", "a", state="SUCCESS", pid=7, t=52.0)
    ledger.update()
    assert ledger.held(ALIVE, unacked=True) == set()


def test_a_second_message_that_came_before_the_first_began_is_held_also_if_that_is_read_later(
    ledger: Ledger, say: Say
) -> None:
    say("worker-1", "received", "a", t=50.0)
    say("worker-1", "started", "a", pid=7, t=52.0)
    ledger.update()
    say("worker-1", "received", "a", t=51.0)
    say("worker-1", "finished", "a", state="SUCCESS", pid=7, t=53.0)
    ledger.update()
    assert ledger.held(ALIVE, unacked=True) == {"a"}


@pytest.mark.parametrize("receipts", [[False, False, False], [False, False, False, True]])
def test_each_beginning_takes_one_of_several_messages(ledger: Ledger, say: Say, receipts: list[bool]) -> None:
    for is_redelivered in receipts:
        say("worker-1", "received", "a", redelivered=is_redelivered)
    held = []
    for _ in range(3):
        say("worker-1", "started", "a")
        say("worker-1", "finished", "a", state="SUCCESS")
        ledger.update()
        held.append(ledger.held(ALIVE, unacked=True))
    assert held == [{"a"}, {"a"}, set()]


def test_of_two_executions_in_one_process_each_ends_by_itself(ledger: Ledger, say: Say) -> None:
    # As a pool of threads has them.
    for kind in ("started", "started", "finished"):
        say("worker-1", kind, "a", state="SUCCESS")
    ledger.update()
    assert ledger.held(ALIVE, unacked=True) == {"a"}
    say("worker-1", "finished", "a", state="SUCCESS")
    ledger.update()
    assert ledger.held(ALIVE, unacked=True) == set()


def test_how_often_a_task_began_and_asked_to_run_again_is_counted(ledger: Ledger, say: Say) -> None:
    for _ in range(2):
        say("worker-1", "started", "a")
        say("worker-1", "retried", "a")
    say("worker-1", "started", "a")
    ledger.update()
    assert (ledger.starts("a"), ledger.retries("a")) == (3, 2)
    assert (ledger.starts("b"), ledger.retries("b")) == (0, 0)
    assert ledger.started() == {"a"}


def test_the_end_of_a_process_without_a_number_takes_nothing_away(ledger: Ledger, say: Say) -> None:
    say("worker-1", "started", "a", pid=1)
    say("worker-1", "exited", code=0)
    ledger.update()
    assert ledger.held(ALIVE, unacked=True) == {"a"}


def test_a_revocation_takes_a_message_out_of_a_workers_hands_and_a_termination_does_not(
    ledger: Ledger, say: Say
) -> None:
    say("worker-1", "received", "a")
    say("worker-1", "revoked", "a", reason="revoked")
    for kind in ("received", "started", "received"):
        say("worker-1", kind, "b")
    say("worker-1", "revoked", "b", reason="terminated by signal 15")
    say("worker-1", "finished", "b", state="UNKNOWN")
    ledger.update()
    assert ledger.held(ALIVE, unacked=True) == {"b"}


def test_an_end_that_is_read_before_the_sending_counts(ledger: Ledger, say: Say) -> None:
    say("worker-1", "finished", "a", state="SUCCESS")
    ledger.update()
    assert ledger.ended == 0  # Nobody has sent it, as far as is known.
    sends(say, "a")
    ledger.update()
    assert (ledger.sent, ledger.ended, ledger.open(), ledger.held(ALIVE, unacked=True)) == (1, 1, set(), set())


def test_what_a_parent_process_says_of_its_child_closes_one_execution(ledger: Ledger, say: Say) -> None:
    say("worker-1", "started", "a", pid=2, t=4.0)
    say("worker-1", "finished", "a", state="FAILURE", outside=True, t=5.0)
    ledger.update()
    assert ledger.held(ALIVE, unacked=True) == set()
    say("worker-1", "started", "a", pid=3, t=6.0)
    say("worker-1", "finished", "a", state="UNKNOWN", pid=2, t=7.0)
    ledger.update()
    assert ledger.held(ALIVE, unacked=True) == {"a"}


def test_within_one_reading_time_decides_and_not_the_order_of_the_files(ledger: Ledger, say: Say) -> None:
    say("worker-1", "exited", child=2, code=0, t=5.0)
    say("worker-1", "started", "a", t=4.0, pid=2)
    ledger.update()
    assert ledger.held(ALIVE, unacked=True) == set()


def test_what_workers_send_is_told_from_what_is_sent_to_them(ledger: Ledger, say: Say) -> None:
    say("producer", "opened", node="producer", pid=1, role="producer")
    say("worker-1", "opened", node="worker-1", pid=1, role="worker")
    sends(say, "a")
    sends(say, "c")
    say("worker-1", "intended", "b")
    say("worker-1", "intended", "a", retries=1)
    ledger.update()
    assert (ledger.sent, ledger.sent_to_app) == (3, 2)


def test_who_sends_which_tasks_is_counted_by_their_names(ledger: Ledger, say: Say) -> None:
    say("producer", "intended", "a", name="poll")
    for number in range(3):
        say("worker-1", "started", "a", name="poll", pid=2)
        say("worker-1", "intended", f"b-{number}", name="poll", pid=2)
    say("beat-1", "intended", "c", name="tick", entry="often", at=1.0)
    ledger.update()
    assert ledger.senders == {("poll", "poll"): 3, ("beat", "tick"): 1}


def test_a_chord_that_waits_is_known_with_its_members_until_it_is_unlocked(ledger: Ledger, say: Say) -> None:
    say("worker-1", "intended", "m", name="member", t=1.0)
    say("worker-1", "intended", "u", name="celery.chord_unlock", members=["m"], follow=["body"], t=2.0)
    for t in (3.0, 5.0):
        say("worker-1", "started", "u", name="celery.chord_unlock", t=t)
        say("worker-1", "finished", "u", state="RETRY", t=t + 1)
    ledger.update()
    (chord,) = ledger.chords
    assert (chord.task, chord.body, list(chord.members)) == ("u", "body", ["m"])
    assert (chord.attempts, chord.last_attempt_t, ledger.last_motion_t) == (2, 5.0, 1.0)
    say("worker-1", "started", "u", t=7.0)
    say("worker-1", "finished", "u", state="SUCCESS", t=8.0)
    ledger.update()
    assert list(ledger.chords) == []


def test_the_worker_that_was_ready_last_tells_where_the_app_sends_its_tasks(say: Say, ledger: Ledger) -> None:
    assert ledger.routes.of("pay").queue == "celery"
    say("worker-1", "ready", queues={}, default_route={"queue": "shop", "routing_key": "shop"})
    ledger.update()
    assert ledger.routes.of("pay").queue == "shop"
    # Beat has no queues, and a line of somebody else may have anything.
    say("beat-1", "ready", at=1.0)
    say("worker-2", "ready", queues={}, default_route="shop")
    ledger.update()
    assert ledger.routes.of("pay").queue == "shop"
