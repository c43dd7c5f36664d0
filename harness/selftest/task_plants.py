"""Defects of tasks beside their fates, each planted in the record of a clean run: what they did, and what they left."""

from harness.records.event import Kind
from harness.records.verdict import Fate, Verdict
from harness.selftest.evidence import PICKLED, Evidence
from harness.selftest.plant import Plants

FAIL, UNKNOWN, REMARK = Verdict.FAIL, Verdict.UNKNOWN, Verdict.PASS
_AGES_S = 7_200.0
PLANTS = Plants[Evidence]()
plant = PLANTS.add

# ------------------------------------------------------------------------------------------------------------- runs


@plant(FAILED_ON_ONE_WORKER=FAIL, RAN_AGAIN=REMARK)
def failed_on_one_worker(evidence: Evidence) -> None:
    """A broadcast fails on one of two workers."""
    task = evidence.task("receipt")
    own = evidence.journal[evidence.file_of(task, Kind.STARTED)][0]["node"]
    other = next(node for node in ("worker-1", "worker-2") if node != own)
    evidence.run_again(task, evidence.files_of(other)[-1], state="FAILURE", redelivered=False)


@plant(FAILED_RUN=REMARK, RAN_AGAIN=REMARK)
def failed_run(evidence: Evidence) -> None:
    """A first run of a task fails, and the second succeeds."""
    task = evidence.task("receipt")
    evidence.run_again(task, evidence.file_of(task, Kind.STARTED), state="FAILURE", redelivered=True)


@plant({Fate.RECOVERED: 1}, REFUSED_BUT_RAN=FAIL, RECOVERED=REMARK)
def refused_but_ran(evidence: Evidence) -> None:
    """The producer is told that a task was refused, and it runs."""
    evidence.refuse(evidence.task("receipt"))


@plant(RAN_AGAIN=REMARK)
def ran_again(evidence: Evidence) -> None:
    """A task runs twice where the promise allows it."""
    task = evidence.task("receipt")
    evidence.run_again(task, evidence.file_of(task, Kind.STARTED), redelivered=True)


@plant(HAD_AGAIN=REMARK)
def had_again(evidence: Evidence) -> None:
    """A mail comes twice where at-least-once is promised."""
    evidence.promise(effects="at-least-once")
    evidence.repeat_mail()


@plant(EARLY=FAIL)
def early(evidence: Evidence) -> None:
    """A task begins five seconds before it is due."""
    task = evidence.task("note")
    evidence.change(task, Kind.INTENDED, due=evidence.lines(task, Kind.STARTED)[0]["t"] + 5.0)


@plant(LATE=FAIL)
def late(evidence: Evidence) -> None:
    """A task succeeds two hours after it was due, and one hour is promised."""
    evidence.promise(deadline_s=_AGES_S / 2)
    task = evidence.task("receipt")
    evidence.change(task, Kind.INTENDED, due=evidence.lines(task, Kind.INTENDED)[0]["t"] - _AGES_S)


@plant(UNFAIR=FAIL)
def unfair(evidence: Evidence) -> None:
    """One of two workers runs all tasks, and an even share is promised."""
    evidence.promise(fairness=0.9)
    _all_on_one_worker(evidence)


@plant(FAIRNESS_UNKNOWN=UNKNOWN)
def fairness_unknown(evidence: Evidence) -> None:
    """An even share is promised, and there is one worker."""
    unfair(evidence)
    for name in evidence.files_of("worker-2"):
        del evidence.journal[name]
        (evidence.folder.journal / name).unlink()
    evidence.run["nodes"].remove("worker-2")


@plant(RESTLESS=UNKNOWN)
def restless(evidence: Evidence) -> None:
    """Tasks keep sending each other until the limit is reached."""
    evidence.broker["settled"] = {"how": "limit", "waited_s": 60.0, "waiting": [], "sending": [["a", "b", 1017]]}


@plant({Fate.FAILED: -1}, NOTHING_SENT=UNKNOWN)
def nothing_sent(evidence: Evidence) -> None:
    """Nobody sends any task."""
    evidence.without_beat()
    _unsend_all(evidence)


@plant(LEFT_AFTER_END=UNKNOWN)
def left_after_end(evidence: Evidence) -> None:
    """A message of a task that has ended is still in its queue."""
    evidence.broker["messages"] = [evidence.task("receipt")]


# ------------------------------------------------------------------------------------------------- what nobody sent


@plant(UNEXPECTED_EXECUTIONS=FAIL)
def unexpected_execution(evidence: Evidence) -> None:
    """A worker runs a task that nobody sent."""
    task = evidence.task("order")
    evidence.forget_effects("order:0")
    evidence.drop(task, Kind.INTENDED, Kind.ACCEPTED)
    evidence.delete_row(task)


@plant(UNEXPECTED_ROWS=FAIL)
def unexpected_row(evidence: Evidence) -> None:
    """A row is there for a task that nobody sent."""
    evidence.add_row("a-stranger")


@plant(UNEXPECTED_EFFECTS=FAIL)
def unexpected_effect(evidence: Evidence) -> None:
    """A task sends a mail that nobody expects."""
    stray = {"kind": "mail", "key": "mail:<stray@shop>", "also": [], "task": evidence.task("receipt")}
    evidence.effects["mailbox.jsonl"].append(stray)


@plant(UNEXPECTED_MESSAGES=FAIL)
def unexpected_message(evidence: Evidence) -> None:
    """A message is left that nobody sent."""
    evidence.broker["messages"] = ["a-stranger"]


# ------------------------------------------------------------------------------------------------- canvas


@plant(NEVER_SENT=FAIL)
def chain_broken(evidence: Evidence) -> None:
    """The second step of a chain is never sent."""
    evidence.unsend(evidence.task("second"))


@plant(NEVER_SENT=FAIL)
def link_broken(evidence: Evidence) -> None:
    """The link of a task is never sent."""
    note = next(
        str(line["task"])
        for nth in range(2)
        for line in evidence.lines(evidence.task("note", nth), Kind.INTENDED)
        if "parent" in line
    )
    evidence.unsend(note)


@plant(GROUPS_HALF_SENT=FAIL)
def group_half_sent(evidence: Evidence) -> None:
    """A saved group names a member that nobody sent."""
    evidence.save_group("a-group", evidence.task("left"), "a-member-that-nobody-sent")


@plant(CHORDS_HALF_SENT=FAIL)
def chord_half_sent(evidence: Evidence) -> None:
    """A member of a chord is never sent, nor is its body."""
    evidence.unsend(evidence.task("right"))
    evidence.unsend(evidence.task("body"))


@plant(CHORDS_HOPELESS=FAIL)
def chord_hopeless(evidence: Evidence) -> None:
    """All members of a chord end, and its body is never sent."""
    evidence.unsend(evidence.task("body"))


@plant({Fate.PENDING: 1}, CHORDS_WAITING=UNKNOWN, PENDING=UNKNOWN)
def chord_waiting(evidence: Evidence) -> None:
    """A member of a chord still waits, and so does the body."""
    evidence.unsend(evidence.task("body"))
    task = evidence.task("right")
    evidence.unrun(task)
    evidence.broker["messages"] = [task]


# ------------------------------------------------------------------------------------------------- rows and queues


@plant({Fate.UNRECORDED: 1}, UNRECORDED=FAIL, ROW_DELETED=FAIL)
def row_deleted(evidence: Evidence) -> None:
    """A row is deleted before it expires."""
    evidence.delete_row(evidence.task("receipt"))


@plant(ROW_EXPIRED=REMARK)
def row_expired(evidence: Evidence) -> None:
    """A row is cleaned up after it expired."""
    task = evidence.task("note")
    file = evidence.file_of(task, Kind.FINISHED)
    for node in ("worker-1", "worker-2"):
        settings = next(line for line in evidence.journal[evidence.files_of(node)[0]] if line["kind"] == "settings")
        settings["result_expires"] = 0.001
    evidence.delete_row(task)
    cleanup = {"name": "celery.backend_cleanup"}
    last_t = max(float(line["t"]) for line in evidence.journal[file])
    producer = evidence.files_of("producer")[0]
    evidence.say(producer, Kind.INTENDED, "cleanup", t=last_t, **cleanup)
    evidence.say(producer, Kind.ACCEPTED, "cleanup", t=last_t, confirmed=True)
    evidence.say(file, Kind.STARTED, "cleanup", t=last_t + 0.01, retries=0, redelivered=False, **cleanup)
    evidence.say(file, Kind.FINISHED, "cleanup", t=last_t + 0.02, state="SUCCESS", ignored=True)


@plant(UNDECODED=REMARK)
def undecoded(evidence: Evidence) -> None:
    """A result is pickled, and nobody compares it."""
    evidence.change_row(evidence.task("pulse"), result=PICKLED)


@plant(UNFINISHED_ROWS=REMARK)
def unfinished_row(evidence: Evidence) -> None:
    """The row of a task that ignores its result says STARTED."""
    task = evidence.task("pulse")
    evidence.change(task, Kind.FINISHED, ignored=True)
    evidence.change_row(task, status="STARTED")


@plant(QUEUES_DIFFER=REMARK)
def queue_differs(evidence: Evidence) -> None:
    """A queue is not of the type that the app declares."""
    evidence.broker["queues"][0]["declared"] = {"x-queue-type": "quorum"}


@plant(DEAD_LETTERS=REMARK)
def dead_letter(evidence: Evidence) -> None:
    """A message of a task that ended is a dead letter."""
    evidence.bury(evidence.task("receipt"))


def _all_on_one_worker(evidence: Evidence) -> None:
    """Move the runs of the second worker to the first, whose processes then have them."""
    for name in evidence.files_of("worker-2"):
        moved = [line for line in evidence.journal[name] if "task" in line]
        evidence.journal[name] = [line for line in evidence.journal[name] if "task" not in line]
        evidence.journal[evidence.files_of("worker-1")[-1]] += moved


def _unsend_all(evidence: Evidence) -> None:
    for task in {str(line["task"]) for lines in evidence.journal.values() for line in lines if "task" in line}:
        evidence.unsend(task)
