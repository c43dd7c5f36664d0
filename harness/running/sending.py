"""Sending tasks to a stack that another process has brought up, and waiting for their results."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from harness.audit.results import Results, exception_in
from harness.audit.run_folder import RunFolder
from harness.errors import UsageError, WaitTimeout
from harness.producer import Producer, Sent
from harness.records.event import Kind
from harness.records.journal import Writer
from harness.records.route import told_in
from harness.records.values import Json
from harness.running.playground import Playground
from harness.wait import wait_until

NODE = "shell"
"""The node of a process that sends from the shell."""
_INTERVAL_S = 0.2
"""Seconds between two looks at the results. A longer interval would show a result later; a shorter one would keep the
file busy that the workers write to."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """One task to send from the shell, and how often."""

    name: str
    """The task's registered name."""
    args: Sequence[Json] = ()
    kwargs: Mapping[str, Json] = field(default_factory=dict)
    count: int = 1
    queue: str | None = None
    countdown_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The end of one task."""

    task: str
    status: str
    """SUCCESS, FAILURE or REVOKED."""
    text: str
    """The result as JSON, or the exception."""


def parsed(text: str) -> Json:
    """Return the value of a JSON text. Raises UsageError."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{text} is no JSON ({error}). A text stands in double quotes: '{json.dumps(text)}'."
        ) from None


def ready(ground: Playground | None) -> Playground:
    """Return the stack that tasks can be sent to. Raises UsageError if there is none."""
    if ground is None or not ground.lives():
        raise UsageError(
            "nothing is up here: `harness up APP` brings a stack up, in another terminal or with --detach."
        )
    if not ground.is_complete:
        raise UsageError("the stack is still being brought up: `harness status` shows when it is up.")
    return ground


def send(ground: Playground, order: Order) -> Iterator[Sent]:
    """Send the tasks one after another, with the routes of the app, and yield the outcome of each.

    They are in a journal of this process's own, so that the audit at the end of the stack accounts for them.

    Raises:
        UsageError: no message can be made of this order.
        JournalError: the journal cannot be written.
    """
    folder = RunFolder.open(Path(ground.folder))
    with closing(Writer(folder.journal, node=NODE, role="producer")) as journal:
        journal.write(Kind.UP)
        with Producer(ground.amqp, journal) as producer:
            producer.routes = told_in(folder.journal)
            for _ in range(order.count):
                yield producer.send(
                    order.name, order.args, order.kwargs, queue=order.queue, countdown_s=order.countdown_s
                )


def answers(ground: Playground, tasks: Sequence[str], timeout_s: float) -> Iterator[Answer]:
    """Yield the end of each task as soon as its row is there; none for those that have not ended when time is over.

    Args:
        ground: the stack.
        tasks: their ids.
        timeout_s: the longest wait for the next one of them, in seconds.

    Raises:
        ResultsError: the results cannot be read.
    """
    results = Results.of_file(Path(ground.results))
    waiting = dict.fromkeys(tasks)

    def ended() -> list[Answer]:
        found = [ending for endings in results.endings(list(waiting)) for ending in endings]
        return [Answer(task=one.task, status=one.status, text=_text(results, one.task, one.status)) for one in found]

    while waiting:
        try:
            found = wait_until(ended, what="tasks end", timeout_s=timeout_s, interval_s=_INTERVAL_S)
        except WaitTimeout:
            return
        for answer in found:
            del waiting[answer.task]
        yield from found


def _text(results: Results, task: str, status: str) -> str:
    row = results.row(task)
    stored = row.result if row is not None else None
    if status == "FAILURE":
        return exception_in(stored)
    try:
        return json.dumps(json.loads(stored or b"null"), ensure_ascii=False)
    except (ValueError, RecursionError):
        return "a result that is not JSON"
