"""What is said of tasks, told from what the database would say of them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.audit.evidence_database import Database
from harness.audit.explain import ChordStory, Explainer, Story, began, lies, shortened
from harness.audit.remains import DeadLetter, How, QueueLeft, Remains, Settled
from harness.audit.run_folder import RunFolder
from harness.audit.witnesses import Witnesses
from harness.records.values import Json
from harness.records.verdict import Fate


class Answers(Database):
    """A database that gives one answer to each query."""

    def __init__(self, **answers: list[tuple[Json, ...]]) -> None:
        """Give these answers, by the query's name."""
        self.answers = answers
        self.asked: list[str] = []

    def all(self, query: str, **_: Json) -> list[tuple[Json, ...]]:
        self.asked.append(query)
        return self.answers.get(query, [])


def explainer(
    *stories: tuple[Json, ...], left: Remains | None = None, settled: Settled | None = None, **answers: Any
) -> Explainer:
    """One that is told these stories."""
    database = Answers(stories=list(stories), **answers)
    remains = replace(left or Remains(), settled=settled)
    return Explainer(database, Witnesses(database, RunFolder(Path("nowhere")), remains=remains))


def story(**said: Any) -> Story:
    """Return the story of a task that was accepted and of which nothing else is known."""
    nothing = dict.fromkeys(Story._fields)
    known = {"task": "x", "name": "mail", "starts": 0, "outcome": "accepted", "expect_state": "SUCCESS"}
    return Story(**{**nothing, **known, **said})


def told(fate: Fate, left: Remains | None = None, /, **said: Any) -> str:
    return explainer(story(**said), left=left).fate(fate, ["x"])


def queue(name: str = "celery", kind: str = "quorum", **arguments: int) -> Remains:
    """Return the remains of a run with one queue, with arguments such as `max_length`."""
    named = {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
    return Remains(queues=[QueueLeft(name=name, kind=kind, ready=0, unacked=0, consumers=1, arguments=named)])


def letter(task: str | None = "x", name: str | None = "mail", count: int = 1) -> DeadLetter:
    return DeadLetter(task=task, name=name, queue="dead", origin="celery", reason="rejected", count=count)


# ---------------------------------------------------------------------------------------------------------- names


def names(*found: tuple[str, int], count: int, known: int) -> str:
    return explainer(names=list(found)).names(["x"] * known, count)


def test_tasks_are_counted_by_their_names() -> None:
    assert names(count=2, known=2) == "2"
    assert names(("mail", 2), count=2, known=2) == "2 mail"
    assert names(("mail", 2), ("pay", 1), ("log", 1), count=4, known=4) == "2 mail, 1 pay, 1 log"
    four = (("mail", 2), ("pay", 1), ("log", 1), ("nap", 1))
    assert names(*four, count=5, known=5) == "2 mail, 1 pay, 1 log and others"
    assert names(*four, count=12, known=10) == "12 (mail, pay, log and others)"
    assert names(("mail", 10), count=11, known=10) == "11 (mail)"


# ----------------------------------------------------------------------------------------------------------- lost


def test_a_lost_task_that_nobody_began_is_told_with_what_its_queue_does() -> None:
    nobody = "no worker ever began mail (x)"
    look = ": look for a queue that was purged or deleted, a broker that lost it, and a worker that dropped it"
    assert told(Fate.LOST) == nobody + look
    assert told(Fate.LOST, queue()) == nobody + look
    gone = ": it was sent as transient, and a worker lost its connection to the broker after that"
    assert told(Fate.LOST, queue(), is_transient=True) == nobody + gone
    assert told(Fate.LOST, queue(max_length=5)) == f"{nobody}: `celery` holds no more messages than 5"
    both = told(Fate.LOST, queue("mails", max_length=5, message_ttl=9), queue="mails")
    assert (
        both == f"{nobody}: `mails` keeps a message for no more milliseconds than 9 and holds no more messages than 5"
    )
    assert told(Fate.LOST, queue("mails")).startswith(f"{nobody}: there is no queue `celery`: it was deleted")
    assert told(Fate.LOST, queue(), queue="mails").startswith(f"{nobody}: there is no queue `mails`: it was deleted")


def test_of_several_tasks_that_nobody_began_the_cause_is_told_once() -> None:
    lost = [story(task=task, queue=queue) for task, queue in (("x", "mails"), ("y", "news"), ("z", "mails"))]
    began = story(task="v", starts=1)
    said = explainer(lost[0], lost[1], began, lost[2], left=queue("mails", max_length=5)).fate(Fate.LOST, ["x"])
    assert said == (
        "no worker ever began mail (x), mail (z): `mails` holds no more messages than 5; "
        "no worker ever began mail (y): there is no queue `news`: it was deleted, or no queue is bound to that routing "
        "key; mail (v) began once and never came to an end"
    )


def test_a_lost_task_that_began_is_told_with_why_it_was_not_delivered_again() -> None:
    assert told(Fate.LOST, starts=1) == "mail (x) began once and never came to an end"
    where = told(Fate.LOST, starts=2, workers="worker-1, worker-2")
    assert where == "mail (x) began 2 times on worker-1, worker-2 and never came to an end"
    dropped = told(Fate.LOST, queue(delivery_limit=2), starts=3)
    assert dropped == (
        "mail (x) began 3 times and never came to an end: dropped by the broker after 3 deliveries, because `celery` "
        "has a delivery limit of 2 and no dead-letter exchange took it"
    )


@pytest.mark.parametrize(
    ("limit", "starts", "is_dropped"),
    [(0, 1, True), (2, 2, False), (-1, 30, False), (None, 21, True), (None, 20, False)],
)
def test_a_queue_drops_what_it_delivered_more_often_than_its_limit(
    *, limit: int | None, starts: int, is_dropped: bool
) -> None:
    left = queue() if limit is None else queue(delivery_limit=limit)
    assert ("dropped by the broker" in told(Fate.LOST, left, starts=starts)) is is_dropped


def test_a_lost_effect_is_named() -> None:
    lost = explainer(story(ending="SUCCESS"), absent_keys=[("mail:x",), ("row:x",)]).fate(Fate.LOST, ["x"])
    assert lost == 'mail (x) ended as SUCCESS, and its effect "mail:x", "row:x" never came'


def test_a_message_that_was_thrown_away_says_by_whom_and_a_dead_letter_says_where_it_lies() -> None:
    thrown: dict[str, Any] = {"discarded": "NotRegistered: mail", "discarded_by": "worker-1", "ending": "DISCARDED"}
    words = "worker-1 discarded mail (x): NotRegistered: mail"
    assert told(Fate.LOST, **thrown).startswith(words)
    assert told(Fate.UNRECORDED, **thrown).startswith(words)
    lies_dead = "mail (x) is a dead letter: it lies in `dead`, because `celery` got rid of it (rejected, 2 times)"
    assert told(Fate.LOST, Remains(dead=[letter(task="y"), letter(count=2)]), **thrown) == lies_dead


# -------------------------------------------------------------------------------------------------- other fates


def test_a_duplicated_task_is_told_with_its_effects_if_some_came_again() -> None:
    assert told(Fate.DUPLICATED, starts=2) == "mail (x) began 2 times"
    again = explainer(story(starts=1), repeated_keys=[("mail:x", 2), ("row:x", 3)]).fate(Fate.DUPLICATED, ["x"])
    assert again == 'mail (x) began once, and its effect "mail:x" came 2 times, "row:x" came 3 times'


def test_a_wrong_ending_is_told_with_what_was_expected() -> None:
    assert told(Fate.WRONG, ending="SUCCESS", expect_state="FAILURE") == "mail (x): expected FAILURE, came SUCCESS"
    error = {"ending": "FAILURE", "expect_error": "KeyError", "error": "ValueError"}
    expected = "mail (x): expected the error KeyError, came ValueError"
    assert told(Fate.WRONG, **error) == told(Fate.WRONG, **error, expect_state="FAILURE") == expected
    assert told(Fate.WRONG, ending="SUCCESS", expect_result="1", value="2") == "mail (x): expected 1, came 2"
    assert told(Fate.WRONG, ending="SUCCESS") == "mail (x): expected ?, came a long result"


def test_an_unrecorded_ending_says_what_its_row_says() -> None:
    look = ": look at the result backend in the worker's log"
    assert told(Fate.UNRECORDED, ending="SUCCESS") == f"mail (x) ended as SUCCESS, and there is no row{look}"
    started = told(Fate.UNRECORDED, ending="SUCCESS", status="STARTED")
    assert started == f"mail (x) ended as SUCCESS, and its row says STARTED{look}"
    empty = told(Fate.UNRECORDED, ending="SUCCESS", status="")
    assert empty == f"mail (x) ended as SUCCESS, and its row says nothing of a state{look}"


NOBODY_KNOWS = "of mail (x) nobody knows whether the broker took it"
NO_CONFIRM = "mail (x) was sent without a confirm"
CLEANED_UP = "the row of mail (x) was cleaned up"
NOT_JSON = "the result of mail (x) is not JSON"
NO_JOURNAL = "the row of mail (x) says that it succeeded, and no journal says that it began"
SUCCEEDED = {"ending": "SUCCESS", "expect_result": "1", "starts": 1}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"outcome": "none"}, NOBODY_KNOWS),
        ({"outcome": "unknown"}, NOBODY_KNOWS),
        ({"outcome": "unconfirmed"}, NO_CONFIRM),
        ({"outcome": "accepted"}, ""),
        ({"outcome": "unknown", "ending": "FAILURE"}, ""),
        ({"outcome": "unconfirmed", "ending": "FAILURE"}, ""),
        ({"ending": "SUCCESS", "status": "SUCCESS"}, NO_JOURNAL),
        ({"ending": "FAILURE", "status": "FAILURE"}, ""),
        (SUCCEEDED, CLEANED_UP),
        ({**SUCCEEDED, "status": "SUCCESS", "codec": "other"}, NOT_JSON),
        ({**SUCCEEDED, "status": "SUCCESS", "codec": "json"}, ""),
        ({**SUCCEEDED, "expect_result": None, "status": "SUCCESS", "codec": "other"}, ""),
        ({**SUCCEEDED, "expect_result": None}, ""),
        ({**SUCCEEDED, "ending": "FAILURE"}, ""),
        ({**SUCCEEDED, "ending": "FAILURE", "status": "FAILURE", "codec": "other"}, ""),
    ],
)
def test_what_is_unknown_says_who_would_have_known(said: dict[str, Any], words: str) -> None:
    text = told(Fate.UNKNOWN, **said)
    assert text.startswith(words)
    assert bool(text) is bool(words)


def test_of_many_tasks_three_are_told_and_equal_words_once() -> None:
    stories = [story(task=task) for task in ("a", "b", "b")]
    assert explainer(*stories).fate(Fate.WRONG, ["a", "b", "b"]).count(";") == 1
    asked = explainer(story())
    assert asked.fate(Fate.PENDING, ["x"]) == asked.fate(Fate.OK, ["x"]) == ""
    assert asked.workers(["x"]) == "mail (x) began 0 times: ?"


# --------------------------------------------------------------------------------------------- chords and others


def chord(**said: Any) -> str:
    known = {"body": "b", "name": "sum", "members": 3, "unsent": 0, "waits_for": None, "awaited": 0}
    return explainer(chord_stories=[ChordStory(**{**known, "unlock": None, "looks": 0, **said})]).chords(["b"])


def test_a_chord_is_told_with_what_it_waits_for() -> None:
    assert chord(unsent=1, waits_for=["m"], awaited=1) == "of the 3 members before sum (b), 1 were never sent: m"
    recorded = "sum (b) was never sent, though all 3 members ended and are recorded"
    assert chord() == recorded
    assert chord(unlock="u", looks=2) == f"{recorded}; celery.chord_unlock (u) looked 2 times"
    assert chord(waits_for=["m", "n"], awaited=2) == "sum (b) waits for m, n, which left no result"
    four = chord(waits_for=["m", "n", "o"], awaited=4)
    assert four == "sum (b) waits for m, n, o and 1 more, which left no result"


def test_what_was_promised_and_never_sent_is_told_with_what_it_should_have_followed() -> None:
    asked = explainer(promised_count=[(3,)], never_sent=[("c", "mail", "b"), ("a", "thank", "a"), ("d", "log", "b")])
    assert asked.never_sent() == (
        3,
        ("a", "b"),
        "mail (c), thank, a link of it, log (d) should have followed a, b, which ended, and nobody ever sent it",
    )


def test_where_nothing_is_promised_nothing_is_looked_for() -> None:
    answers = Answers(promised_count=[(0,)], never_sent=[("c", "mail", "b")])
    assert Explainer(answers, Witnesses(answers, RunFolder(Path("nowhere")))).never_sent()[0] == 0
    assert answers.asked == ["promised_count"]


def test_dead_letters_are_counted_by_where_they_lie() -> None:
    left = Remains(dead=[letter(), letter(task="y"), letter(task=None, name=None)])
    assert explainer(left=left).dead_letters() == (
        "at rest as dead letters, and nobody consumes them: 2 mail in `dead`, from `celery` (rejected), "
        "1 message in `dead`, from `celery` (rejected)"
    )


def test_what_settling_waited_for_is_told_as_far_as_it_is_known() -> None:
    assert explainer().waiting() == ""
    stuck = Settled(how=How.STUCK, waited_s=0.0, waiting=("1 in `mails`",))
    assert explainer(settled=stuck).waiting() == ": 1 in `mails`"
    settled = Settled(how=How.LIMIT, waited_s=10.0, sending=(("", "poll", 9),))
    assert (explainer(settled=settled).sending() or "").startswith(
        "the app did not come to rest within 10 s: a task sent 9 poll. "
    )
    assert explainer(settled=replace(settled, how=How.TIMEOUT)).sending() is None
    assert explainer(settled=replace(settled, sending=())).sending() is None


def test_a_queue_is_told_that_is_not_as_the_app_says() -> None:
    has = {"x-max-length": 5, "x-queue-mode": "lazy"}
    says = {"x-max-length": 5, "x-queue-mode": "früh"}
    left = QueueLeft(name="mails", kind="classic", ready=0, unacked=0, consumers=1, arguments=has, declared=says)
    assert explainer(left=Remains(queues=[left])).differing_queues() == [
        '`mails` has x-queue-mode="lazy", and the app says "früh"'
    ]


def test_the_first_traceback_is_told_with_its_task_and_worker() -> None:
    asked = explainer(first_traceback=[("x", "Traceback:\n  KeyError: 1\n", "worker-1")])
    assert list(asked.unexpected_failures()) == ["x on worker-1:\nTraceback:\n  KeyError: 1"]


def test_the_most_frequent_errors_are_told_with_a_message_if_there_is_one() -> None:
    assert (
        explainer(reasons=[("BadFile", "it is: ", 2), ("KeyError", "", 1)]).reasons() == "2 BadFile: it is; 1 KeyError"
    )


# ---------------------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("starts", "code", "words"),
    [
        (1, None, "began once"),
        (2, 0, "began 2 times"),
        (1, 1, "began once"),
        (1, -9, "began once, its process was killed by SIGKILL"),
        (1, -99, "began once, its process was killed by signal 99"),
        (0, None, "began 0 times"),
    ],
)
def test_how_often_a_task_began_is_told_with_the_signal_that_ended_its_process(
    starts: int, code: int | None, words: str
) -> None:
    assert began(story(starts=starts, code=code)) == words


@pytest.mark.parametrize(("count", "times"), [(1, "once"), (2, "2 times"), (3, "3 times")])
def test_a_dead_letter_says_how_often_it_died(count: int, times: str) -> None:
    assert lies(letter(count=count)) == f"it lies in `dead`, because `celery` got rid of it (rejected, {times})"


def test_a_text_is_shortened_only_if_it_is_longer_than_a_line() -> None:
    assert shortened("a" * 160) == "a" * 160
    assert shortened("a" * 161) == "a" * 160 + "..."
    assert shortened(" a\n b\t") == "a b"
