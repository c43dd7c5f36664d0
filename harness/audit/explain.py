"""The texts of findings: the tasks by name and count, what was seen of the first ones, and what to look at."""

import json
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from harness.audit.blamed_settings import QUORUM_LIMIT
from harness.audit.evidence_database import Database
from harness.audit.remains import DeadLetter, How, QueueLeft
from harness.audit.witnesses import Witnesses
from harness.records.message import DEFAULT_QUEUE
from harness.records.values import Json
from harness.records.verdict import Fate

_NOBODY = "no worker ever began "
_SHOWN = 3
"""The number of tasks, or of other items, that a finding explains. Each takes a sentence, so that more would make the
finding too long to read."""
_LONGEST_CHARS = 160
"""The most characters of a value or a reason that are shown: two lines of 80 columns."""
_NAMES = 3
"""The number of task names that a finding shows. The query `names` returns one more, to tell that there are others."""


class Story(NamedTuple):
    """The evidence on one task: one row of the query `stories`."""

    task: str
    name: str | None
    queue: str | None
    starts: int
    ending: str | None
    outcome: str
    status: str | None
    error: str | None
    expect_state: str
    expect_result: str | None
    expect_error: str | None
    codec: str | None
    value: str | None
    discarded: str | None
    discarded_by: str | None
    workers: str | None
    code: int | None
    is_transient: bool
    """True if it was sent as transient, and a worker lost its connection after that."""


class ChordStory(NamedTuple):
    """The evidence on one chord whose body was not sent: one row of the query `chord_stories`."""

    body: str
    name: str | None
    members: int
    unsent: int
    waits_for: Sequence[str] | None
    """The first of the members that it waits for; None if there are none."""
    awaited: int
    """The number of the members that it waits for."""
    unlock: str | None
    looks: int


class OrderStory(NamedTuple):
    """The evidence on one task that began before one that it follows: one row of the query `order_stories`."""

    task: str
    name: str | None
    predecessor: str
    predecessor_name: str | None
    is_body: bool
    has_ended: bool
    others: int


@dataclass(frozen=True)
class Explainer:
    """An explainer of findings: turns the evidence on tasks into sentences."""

    database: Database
    witnesses: Witnesses

    def names(self, tasks: Sequence[str], count: int) -> str:
        """Count and name the tasks, such as `3 shop.welcome, 1 shop.pay`; only count them if no name is known.

        Args:
            tasks: the ids that are known, of `count` tasks.
            count: how many there are in all.
        """
        found = self.database.all("names", tasks=list(tasks))
        if not found:
            return str(count)
        others = " and others" if found[_NAMES:] else ""
        if count > len(tasks):
            return f"{count} ({', '.join(str(name) for name, _ in found[:_NAMES])}{others})"
        return ", ".join(f"{times} {name}" for name, times in found[:_NAMES]) + others

    def fate(self, fate: Fate, tasks: Sequence[str]) -> str:
        """Return what was seen of the first tasks of a fate, and what to look at; empty if there is nothing to add."""
        tell = self._tellers().get(fate)
        if tell is None:
            return ""
        stories = [Story(*row) for row in self.database.all("stories", tasks=list(tasks[:_SHOWN]))]
        # What is to be said of several tasks that nobody began is said once.
        told: dict[str, str] = {}
        for story in stories:
            text = tell(story)
            nobody, name, why = text.partition(of(story))
            if nobody == _NOBODY:
                told[why] = f"{told[why]}, {name}" if why in told else f"{nobody}{name}"
            elif text:
                told[text] = ""
        return "; ".join(f"{names}{text}" for text, names in told.items())

    def _tellers(self) -> Mapping[Fate, Callable[[Story], str]]:
        return {
            Fate.LOST: self._lost,
            Fate.DUPLICATED: self._duplicated,
            Fate.WRONG: self._wrong,
            Fate.UNRECORDED: self._unrecorded,
            Fate.UNKNOWN: self._unknown,
        }

    def _lost(self, story: Story) -> str:
        if story.ending is not None and story.discarded is None:
            keys = ", ".join(shown(key) for (key,) in self.database.all("absent_keys", task=story.task))
            return f"{of(story)} ended as {story.ending}, and its effect {keys} never came"
        if letter := self._dead(story.task):
            return f"{of(story)} is a dead letter: {lies(letter)}"
        if story.discarded is not None:
            return _discarded(story)
        if story.starts:
            where = f" on {shortened(story.workers)}" if story.workers else ""
            return f"{of(story)} {began(story)}{where} and never came to an end{self._drop(story)}"
        return f"{_NOBODY}{of(story)}{self._limits(story)}"

    def _dead(self, task: str) -> DeadLetter | None:
        return next((letter for letter in self.witnesses.remains.dead if letter.task == task), None)

    def _queue(self, story: Story) -> QueueLeft | None:
        name = story.queue or DEFAULT_QUEUE
        return next((queue for queue in self.witnesses.remains.queues if queue.name == name), None)

    def _drop(self, story: Story) -> str:
        """Return why a task that began was not delivered again."""
        queue = self._queue(story)
        if queue is not None and queue.kind == "quorum":
            limit = queue.arguments.get("x-delivery-limit", QUORUM_LIMIT)
            if isinstance(limit, int) and story.starts > limit >= 0:
                return (
                    f": dropped by the broker after {story.starts} deliveries, because `{queue.name}` has a delivery "
                    f"limit of {limit} and no dead-letter exchange took it"
                )
        return ""

    def _limits(self, story: Story) -> str:
        """Return why a task may never have reached a worker: the limits of its queue, or that the queue is missing."""
        queue = self._queue(story)
        arguments = queue.arguments if queue is not None else {}
        said = [
            f"{text} {arguments[key]}"
            for key, text in (
                ("x-message-ttl", "keeps a message for no more milliseconds than"),
                ("x-max-length", "holds no more messages than"),
                ("x-max-length-bytes", "holds no more bytes than"),
            )
            if key in arguments
        ]
        if queue is not None and said:
            return f": `{queue.name}` {' and '.join(said)}"
        if queue is None and self.witnesses.remains.queues:
            return (
                f": there is no queue `{story.queue or DEFAULT_QUEUE}`: it was deleted, or no queue is bound to that "
                "routing key"
            )
        if story.is_transient:
            return ": it was sent as transient, and a worker lost its connection to the broker after that"
        return ": look for a queue that was purged or deleted, a broker that lost it, and a worker that dropped it"

    def _duplicated(self, story: Story) -> str:
        times = self.database.all("repeated_keys", task=story.task)
        keys = ", ".join(f"{shown(key)} came {count} times" for key, count in times)
        return f"{of(story)} {began(story)}" + (f", and its effect {keys}" if keys else "")

    def _wrong(self, story: Story) -> str:
        if story.ending == "SUCCESS" and story.expect_state != "SUCCESS":
            return f"{of(story)}: expected {story.expect_state}, came SUCCESS"
        if story.ending == "FAILURE":
            return f"{of(story)}: expected the error {story.expect_error}, came {story.error}"
        expected, came = shortened(story.expect_result or "?"), shortened(story.value or "a long result")
        return f"{of(story)}: expected {expected}, came {came}"

    def _unrecorded(self, story: Story) -> str:
        if story.discarded is not None:
            return _discarded(story)
        row = "there is no row" if story.status is None else f"its row says {story.status or 'nothing of a state'}"
        return f"{of(story)} ended as {story.ending}, and {row}: look at the result backend in the worker's log"

    def _unknown(self, story: Story) -> str:
        if story.ending is None and story.outcome == "unconfirmed":
            return (
                f"{of(story)} was sent without a confirm, and no worker received it: nobody can say whether the broker "
                "ever had it"
            )
        if story.ending is None and story.outcome in {"unknown", "none"}:
            return f"of {of(story)} nobody knows whether the broker took it: its sender was not told"
        if story.status == "SUCCESS" and not story.starts:
            return (
                f"the row of {of(story)} says that it succeeded, and no journal says that it began: "
                "that of the process which ran it is lost"
            )
        if story.ending == "SUCCESS" and story.expect_result is not None and story.status is None:
            return f"the row of {of(story)} was cleaned up, so its result cannot be compared"
        if story.ending == "SUCCESS" and story.expect_result is not None and story.codec != "json":
            return (
                f"the result of {of(story)} is not JSON and is not decoded, and no worker said what it is, so it can "
                "not be compared: only a value that JSON has can be expected"
            )
        return ""

    def unexpected_failures(self) -> Iterator[str]:
        """Yield the first recorded traceback of a task that failed unexpectedly, with the task and the worker."""
        for task, traceback, worker in self.database.all("first_traceback"):
            yield f"{task} on {worker}:\n{str(traceback).rstrip()}"

    def reasons(self) -> str:
        """Return the most frequent errors of the tasks that failed unexpectedly, as text."""
        said = (f"{count} {error}: {message}".rstrip(": ") for error, message, count in self.database.all("reasons"))
        return "; ".join(shortened(one) for one in said)

    def failed_without_effects(self) -> str:
        """Return how many of the tasks that failed unexpectedly did not have their effects, as text; empty if none."""
        count, tasks = self.database.sample("failed_without_effects")
        if not count or not self.witnesses.effects_readable:
            return ""
        keys = [shown(key) for task in tasks[:_SHOWN] for (key,) in self.database.all("absent_keys", task=task)]
        return f"; effects of {count} of them never came: {_few(keys)}"

    def workers(self, tasks: Sequence[str]) -> str:
        """Return the outcome of the first tasks on each worker, as text."""
        stories = [Story(*row) for row in self.database.all("stories", tasks=list(tasks[:_SHOWN]))]
        return "; ".join(f"{of(story)} {began(story)}: {shortened(story.workers or '?')}" for story in stories)

    def never_sent(self) -> tuple[int, tuple[str, ...], str]:
        """Return the number of promised tasks that were not sent, the ids of their predecessors, and a sentence."""
        ((promised,),) = self.database.all("promised_count")
        # Without promised tasks, the query over all tasks is not needed.
        found = self.database.all("never_sent") if promised else []
        steps = [
            f"{name} ({task})" if task != predecessor else f"{name}, a link of it" for task, name, predecessor in found
        ]
        after = sorted({str(predecessor) for _, _, predecessor in found})
        text = f"{_few(steps)} should have followed {_few(after)}, which ended, and nobody ever sent it"
        return len(found), tuple(after), text

    def chords(self, tasks: Sequence[str]) -> str:
        """Return what the first chords wait for, as text."""
        stories = [ChordStory(*row) for row in self.database.all("chord_stories", tasks=list(tasks[:_SHOWN]))]
        return "; ".join(_of_chord(story) for story in stories)

    def order(self, tasks: Sequence[str]) -> str:
        """Return what the first tasks that began too early should have followed, as text."""
        return "; ".join(
            _of_order(OrderStory(*row)) for row in self.database.all("order_stories", tasks=list(tasks[:_SHOWN]))
        )

    def hasty(self, tasks: Sequence[str]) -> str:
        """Return how much too early the first tasks began that were sent in a transaction, and what to do, as text."""
        said = [
            f"{name or 'a task'} ({task}) began, and the transaction in which it was sent was rolled back"
            if rolled_back
            else f"{name or 'a task'} ({task}) began {early_s * 1000:.0f} ms before the commit"
            for task, name, rolled_back, early_s in self.database.all("hasty_stories", tasks=list(tasks[:_SHOWN]))
        ]
        return f"{'; '.join(said)}. Send it after the commit"

    def dead_letters(self) -> str:
        """Return where the dead letters are, by task name, queue, origin and reason, as text."""
        counts: dict[tuple[str, str, str, str], int] = {}
        for letter in self.witnesses.remains.dead:
            key = (letter.name or "message", letter.queue, letter.origin, letter.reason)
            counts[key] = counts.get(key, 0) + 1
        said = [
            f"{count} {name} in `{queue}`, from `{origin}` ({reason})"
            for (name, queue, origin, reason), count in counts.items()
        ]
        return f"at rest as dead letters, and nobody consumes them: {_few(said)}"

    def differing_queues(self) -> list[str]:
        """Return the queue arguments that differ from a worker's declaration: settings that are not in force."""
        return [
            f"`{queue.name}` has {key}={shown(has.get(key))}, and the app says {shown(value)}"
            for queue in self.witnesses.remains.queues
            # A queue need not be declared with its type.
            for has in ({"x-queue-type": queue.kind, **queue.arguments},)
            for key, value in queue.declared.items()
            if has.get(key) != value
        ]

    def waiting(self) -> str:
        """Return what was still in flight when the wait for rest ended, as a clause; empty if nothing was."""
        settled = self.witnesses.remains.settled
        return f": {_few(settled.waiting)}" if settled and settled.waiting else ""

    def sending(self) -> str | None:
        """Return which tasks kept sending others; None unless this ended the wait for rest."""
        settled = self.witnesses.remains.settled
        if settled is None or settled.how is not How.LIMIT or not settled.sending:
            return None
        said = [f"{sender or 'a task'} sent {count} {name}" for sender, name, count in settled.sending]
        return (
            f"the app did not come to rest within {settled.waited_s:g} s: {_few(said)}. "
            "What goes on for ever needs an end before it is judged: stop it, or give settle a shorter limit_s"
        )


def _of_order(story: OrderStory) -> str:
    role = "the body of a chord, began before its member" if story.is_body else "a step of a chain, began before"
    others = f" and {story.others} more" if story.others else ""
    end = "had succeeded" if story.has_ended else "had succeeded, and it never did"
    before = f"{story.predecessor_name or 'a task'} ({story.predecessor})"
    return f"{story.name or 'a task'} ({story.task}), {role} {before}{others} {end}"


def _of_chord(story: ChordStory) -> str:
    name = f"{story.name} ({story.body})"
    unlock = f"; celery.chord_unlock ({story.unlock}) looked {story.looks} times" if story.unlock else ""
    if story.unsent:
        absent = _few(story.waits_for or (), story.awaited)
        return f"of the {story.members} members before {name}, {story.unsent} were never sent: {absent}"
    if not story.waits_for:
        return f"{name} was never sent, though all {story.members} members ended and are recorded{unlock}"
    return f"{name} waits for {_few(story.waits_for, story.awaited)}, which left no result{unlock}"


def _discarded(story: Story) -> str:
    return f"{story.discarded_by} discarded {of(story)}: {shortened(story.discarded or '')}"


def of(story: Story) -> str:
    """Return the task's name and id."""
    return f"{story.name or 'a task'} ({story.task})"


def began(story: Story) -> str:
    """Return how often a task began, and how its process ended, as text."""
    times = "once" if story.starts == 1 else f"{story.starts} times"
    died = "" if story.code is None or story.code >= 0 else f", its process was killed by {_signal(-story.code)}"
    return f"began {times}{died}"


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def lies(letter: DeadLetter) -> str:
    """Return where a dead letter is, and why, as text."""
    times = "once" if letter.count == 1 else f"{letter.count} times"
    return f"it lies in `{letter.queue}`, because `{letter.origin}` got rid of it ({letter.reason}, {times})"


def shown(text: Json) -> str:
    """Return a value as JSON on one line, shortened as by `shortened`."""
    return shortened(json.dumps(text, ensure_ascii=False))


def shortened(text: str) -> str:
    """Return the first 160 characters of a text on one line, with an ellipsis if it is longer."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_CHARS else f"{line[:_LONGEST_CHARS]}..."


def _few(texts: Iterable[str], count: int | None = None) -> str:
    """Return the first texts, and how many more there are: of `count`, if `texts` are not all."""
    every = list(texts)
    more = (len(every) if count is None else count) - _SHOWN
    more_text = f" and {more} more" if more > 0 else ""
    return ", ".join(every[:_SHOWN]) + more_text
