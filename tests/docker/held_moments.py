"""What is to be seen of a task that is held at a moment, whatever the pool."""

import sqlite3
from contextlib import closing

from harness.records.expectation import Expect
from harness.records.moment import Moment
from harness.records.verdict import Fate, Verdict
from harness.stack.stack import Stack
from harness.wait import wait_until
from tests.docker.accounts import met

EXECUTED = (
    Moment.RECEIVED,
    Moment.STARTED,
    Moment.EFFECT,
    Moment.RETURNED,
    Moment.STORED,
    Moment.ACKNOWLEDGED,
)
"""The moments of a task after it was published, in their order."""


def written(stack: Stack) -> list[str]:
    """Return the keys that the tasks have written."""
    file = stack.folder.path / "app" / "moments.sqlite3"
    if not file.exists():
        return []
    with closing(sqlite3.connect(file)) as connection:
        return [key for (key,) in connection.execute("SELECT key FROM written ORDER BY rowid")]


def wait_unacked(stack: Stack, count: int) -> None:
    """Wait until the broker knows of so many messages that are not acknowledged."""

    def unacked() -> int:
        return sum(queue.unacked for queue in stack.task_queues())

    wait_until(
        lambda: unacked() == count, what=f"{count} unacknowledged", timeout_s=20, last_seen=lambda: str(unacked())
    )


def is_there_and_no_further(stack: Stack, moment: Moment, task: str, *, key: str) -> None:
    """Check the evidence of a task that is held at a moment. `key` is what it writes."""
    if moment not in EXECUTED:
        # Its message may have reached a worker, and then anything may have become of it.
        assert moment is not Moment.SENDING or task not in stack.ledger.started()
        return
    assert (task in stack.ledger.started()) == (moment is not Moment.RECEIVED)
    assert (key in written(stack)) == (moment not in {Moment.RECEIVED, Moment.STARTED})
    assert (stack.results.row(task) is not None) == (moment in {Moment.STORED, Moment.ACKNOWLEDGED})


def check_every_moment(stack: Stack) -> None:
    for moment in EXECUTED:
        with stack.hold("moments.commit", moment) as hold:
            sent = stack.producer.send("moments.commit", [moment.value], expect=Expect(result=moment.value))
            held = hold.wait()
            assert (held.task, held.node, held.moment) == (sent.task, "worker-1", moment)
            is_there_and_no_further(stack, moment, sent.task, key=moment.value)
            wait_unacked(stack, int(moment is not Moment.ACKNOWLEDGED))
            assert not hold.is_over
        # Else the next hold would take this one.
        wait_unacked(stack, 0)
    audit = stack.settle(timeout_s=20)
    assert audit.verdict is Verdict.PASS, audit.text()
    assert met(audit) == {Fate.OK: len(EXECUTED)}
