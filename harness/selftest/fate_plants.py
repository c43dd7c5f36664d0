"""Defects by which a task meets another fate, each planted in the record of a clean run."""

from harness.records.event import Kind
from harness.records.verdict import Fate, Verdict
from harness.selftest.evidence import PICKLED, Evidence
from harness.selftest.plant import Plants

FAIL, UNKNOWN, REMARK = Verdict.FAIL, Verdict.UNKNOWN, Verdict.PASS
PLANTS = Plants[Evidence]()
plant = PLANTS.add


@plant({Fate.LOST: 1}, LOST=FAIL)
def lost_before_it_began(evidence: Evidence) -> None:
    """An accepted message vanishes before any worker gets it."""
    evidence.unrun(evidence.task("receipt"))


@plant({Fate.LOST: 1}, LOST=FAIL)
def lost_in_mid_task(evidence: Evidence) -> None:
    """A worker acknowledges a task, begins it, and never ends it."""
    task = evidence.task("order")
    file, start = evidence.file_of(task, Kind.STARTED), evidence.lines(task, Kind.STARTED)[0]
    evidence.unrun(task)
    evidence.say(file, Kind.STARTED, task, t=start["t"], name=start["name"], retries=0, redelivered=False)


@plant({Fate.LOST: 1}, LOST=FAIL)
def lost_mail(evidence: Evidence) -> None:
    """A task succeeds, and its mail never comes."""
    evidence.forget_effects("mail:to=customer.0@example.com")


@plant({Fate.LOST: 1}, LOST=FAIL)
def lost_row_of_the_app(evidence: Evidence) -> None:
    """A task succeeds, and its row in the app's database is not there."""
    evidence.forget_effects("order:1")


@plant({Fate.LOST: 1}, LOST=FAIL)
def lost_as_discarded(evidence: Evidence) -> None:
    """A worker discards a message that the broker had confirmed."""
    evidence.discard(evidence.task("receipt"))


@plant({Fate.LOST: 1}, LOST=FAIL, DEAD_LETTERS=REMARK)
def lost_as_a_dead_letter(evidence: Evidence) -> None:
    """A message is dead-lettered before it ran."""
    task = evidence.task("receipt")
    evidence.unrun(task)
    evidence.bury(task)


@plant({Fate.DUPLICATED: 1}, DUPLICATED=FAIL)
def mail_twice(evidence: Evidence) -> None:
    """One mail comes twice."""
    evidence.repeat_mail()


@plant({Fate.DUPLICATED: 1}, DUPLICATED=FAIL)
def row_of_the_app_twice(evidence: Evidence) -> None:
    """One row of the app's database is there twice."""
    rows = evidence.effects["rows-order.jsonl"]
    rows.append(rows[0])


@plant({Fate.DUPLICATED: 1}, DUPLICATED=FAIL)
def run_twice(evidence: Evidence) -> None:
    """A task runs twice where at-most-once is promised."""
    evidence.promise(delivery="at-most-once")
    task = evidence.task("receipt")
    evidence.run_again(task, evidence.file_of(task, Kind.STARTED), redelivered=True)


@plant({Fate.WRONG: 1}, WRONG=FAIL)
def wrong_result(evidence: Evidence) -> None:
    """A row holds another result than the task was to return."""
    evidence.change_row(evidence.task("order"), result=b"1017")


@plant({Fate.WRONG: 1, Fate.FAILED: -1}, WRONG=FAIL)
def wrong_state(evidence: Evidence) -> None:
    """A task that was to fail succeeds."""
    task = evidence.task("fail")
    evidence.change(task, Kind.FINISHED, state="SUCCESS", error=None, traceback=None)
    evidence.change_row(task, status="SUCCESS", result=b"null")


@plant({Fate.WRONG: 1, Fate.FAILED: -1}, WRONG=FAIL)
def wrong_error(evidence: Evidence) -> None:
    """A task fails with another exception than expected."""
    task = evidence.task("fail")
    evidence.change(task, Kind.FINISHED, error="OSError: no space")
    evidence.change_row(task, result=b'{"exc_type": "OSError", "exc_message": ["no space"], "exc_module": "builtins"}')


@plant({Fate.UNRECORDED: 1}, UNRECORDED=FAIL)
def row_never_stored(evidence: Evidence) -> None:
    """A task ends, and its row was never stored."""
    task = evidence.task("receipt")
    evidence.change(task, Kind.FINISHED, store_s=None)
    evidence.delete_row(task)


@plant({Fate.UNRECORDED: 1}, UNRECORDED=FAIL, UNFINISHED_ROWS=REMARK)
def row_still_started(evidence: Evidence) -> None:
    """A task ends, and its row still says STARTED."""
    evidence.change_row(evidence.task("receipt"), status="STARTED", result=b"null")


@plant({Fate.UNRECORDED: 1}, UNRECORDED=FAIL)
def unrecorded_as_discarded(evidence: Evidence) -> None:
    """A worker discards a message that nobody had confirmed."""
    task = evidence.task("receipt")
    evidence.change(task, Kind.ACCEPTED, confirmed=False)
    evidence.discard(task)


@plant({Fate.UNKNOWN: 1}, UNKNOWN=UNKNOWN)
def publish_unanswered(evidence: Evidence) -> None:
    """A publish runs into a time-out, and nobody sees the task again."""
    task = evidence.task("receipt")
    evidence.unrun(task)
    evidence.change(task, Kind.ACCEPTED, kind=Kind.UNKNOWN.value, confirmed=None, reason="timed out")


@plant({Fate.UNKNOWN: 1}, UNKNOWN=UNKNOWN)
def publish_unconfirmed(evidence: Evidence) -> None:
    """A message is sent without a confirm, and nobody sees it again."""
    task = evidence.task("receipt")
    evidence.unrun(task)
    evidence.change(task, Kind.ACCEPTED, confirmed=False)


@plant({Fate.UNKNOWN: 1}, UNKNOWN=UNKNOWN, UNDECODED=REMARK)
def result_pickled(evidence: Evidence) -> None:
    """A result that is compared is pickled."""
    evidence.change_row(evidence.task("order"), result=PICKLED)


@plant({Fate.UNKNOWN: 1}, UNKNOWN=UNKNOWN)
def row_without_a_run(evidence: Evidence) -> None:
    """A row says SUCCESS, and no worker says that the task began."""
    evidence.drop(evidence.task("receipt"), Kind.STARTED, Kind.FINISHED)


@plant({Fate.PENDING: 1}, PENDING=UNKNOWN)
def left_in_the_queue(evidence: Evidence) -> None:
    """A message still waits in its queue at the end."""
    task = evidence.task("receipt")
    evidence.unrun(task)
    evidence.broker["messages"] = [task]


@plant({Fate.PENDING: 1}, PENDING=UNKNOWN)
def held_by_a_worker(evidence: Evidence) -> None:
    """A worker still holds a message at the end."""
    task = evidence.task("receipt")
    evidence.unrun(task)
    evidence.broker["held"] = [task]


@plant({Fate.REFUSED: 1}, REFUSED=REMARK)
def refused(evidence: Evidence) -> None:
    """The broker refuses a message, and the producer is told."""
    task = evidence.task("receipt")
    evidence.unrun(task)
    evidence.refuse(task)


@plant({Fate.RECOVERED: 1}, RECOVERED=REMARK)
def recovered(evidence: Evidence) -> None:
    """A publish runs into a time-out, and the task runs."""
    task = evidence.task("receipt")
    evidence.change(task, Kind.ACCEPTED, kind=Kind.UNKNOWN.value, confirmed=None, reason="timed out")


@plant({Fate.FAILED: 1}, FAILED_UNEXPECTEDLY=FAIL)
def failure(evidence: Evidence) -> None:
    """A task fails that was to succeed."""
    task = evidence.task("receipt")
    evidence.change(task, Kind.FINISHED, state="FAILURE", error="OSError: no space")
    row = b'{"exc_type": "OSError", "exc_message": ["no space"], "exc_module": "builtins"}'
    evidence.change_row(task, status="FAILURE", result=row)
    evidence.forget_effects("mail:to=customer.0@example.com")


@plant({Fate.FAILED: 1}, FAILED_UNEXPECTEDLY=FAIL)
def revoked(evidence: Evidence) -> None:
    """A worker revokes a task that was to succeed."""
    task = evidence.task("order")
    file = evidence.file_of(task, Kind.RECEIVED)
    evidence.unrun(task)
    evidence.say(file, Kind.REVOKED, task, reason="terminated")
    evidence.add_row(task, "REVOKED", b'{"exc_type": "TaskRevokedError", "exc_message": ["revoked"]}')
