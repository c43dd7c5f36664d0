"""The evidence that a node did nothing while it was broken, and the tasks that this affected."""

from collections.abc import Callable, Sequence
from math import inf
from typing import Protocol

from harness.audit.in_hand import InHand, NodeJournal, in_hand
from harness.audit.run_folder import RunFolder
from harness.faults.fault import counted
from harness.records.event import Accepted, Event, Intended, Kind

RECENT_BYTES = 1 << 20
"""Bytes at the end of each journal file that are read for the tasks that a worker holds: some 7,000 lines. Hours of
load make long files, and recent receipts are at their end. More bytes would delay the time of the injection; with
fewer, a task that was received long before is not counted as affected."""
_LATE_S = 1.0
"""Seconds by which a confirm that was on its way may be journaled after the broker was broken. A shorter time would
call a fault not landed on a busy machine; a longer one would hide a broker that still confirmed."""


def _is_confirmed(event: Event, broken_t: float) -> bool:
    """Return whether a broker confirmed a send after it was broken; not one that was on its way."""
    is_late = event.t > broken_t + _LATE_S
    return event.kind is Kind.ACCEPTED and is_late and bool(event.of(Accepted).get("confirmed", True))


class Silence(Protocol):
    """The evidence of one node. Create it before the node is broken."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """The ids of the tasks that were affected, as far as they are known."""

    def begin(self, injected_t: float) -> None:
        """Read what the node was doing when it was broken, at this time."""

    def end(self) -> None:
        """Read what it did while it was broken. Call it before it is healed."""

    def after(self) -> None:
        """Read what it did when it was healed."""

    def broken_by(self, doing: str) -> str | None:
        """Return why it was not silent, or why that proves nothing; None with the proof.

        Args:
            doing: the state of the broken node in a word, such as `paused`.
        """

    def words(self) -> str:
        """Return the tasks that were affected, in a few words."""


class JournalSilence:
    """The silence of a node's own journal: of a worker or a beat."""

    def __init__(self, folder: RunFolder, node: str) -> None:
        """Note what the journal holds now."""
        self._journal = NodeJournal(folder.journal, node, recent_bytes=RECENT_BYTES)
        self._node = node
        self._is_witness = False
        self._spoke = 0
        self.said_after: set[Kind] = set()
        """The kinds of the lines since healing began."""
        self.had = InHand()
        """The tasks that it held when it was broken."""
        self.unacknowledged: frozenset[str] = frozenset()
        """Those that had ended, and whose message turned out not to be acknowledged."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that it held."""
        return (*sorted(self.had.begun), *sorted(self.had.waiting), *sorted(self.unacknowledged))

    def begin(self, injected_t: float) -> None:
        """Read what it held. From now on it writes nothing more."""
        del injected_t
        said = self._journal.recent()
        self._is_witness = bool(said)
        self.had = in_hand(said)

    def end(self) -> None:
        """Count what it wrote while it was broken."""
        self._spoke = len(self._journal.read())

    def after(self) -> None:
        """Read what it wrote since."""
        self.said_after = {event.kind for event in self._journal.read()}

    def broken_by(self, doing: str) -> str | None:
        """Return why its journal does not prove that it stood still; None if it does."""
        if not self._is_witness:
            return f"the journal of {self._node} has no lines, so that its silence proves nothing."
        if self._spoke:
            lines = counted(self._spoke, "more line", "more lines")
            return f"{self._node} wrote {lines} into its journal while it was {doing}."
        return None

    def words(self) -> str:
        """Return the tasks that it held, by its own journal."""
        parts = {
            "begun and not finished": len(self.had.begun),
            "received and not begun": len(self.had.waiting),
            "ended and not acknowledged": len(self.unacknowledged),
        }
        if not (tasks := sum(parts.values())):
            return "its journal shows no task in hand (overlapped=0)"
        met = ", ".join(f"{count} {words}" for words, count in parts.items() if count)
        return f"it had {counted(tasks, 'task', 'tasks')} in hand: {met}"


class JournalOfOneThatGoesOn(JournalSilence):
    """The tasks that a worker held when it was broken in such a way that it goes on."""

    def broken_by(self, doing: str) -> str | None:
        """Return None: it may write."""
        del doing
        return None


class NoConfirms:
    """The silence of a broker: no send is confirmed. The tasks that are sent meanwhile are affected."""

    def __init__(self, folder: RunFolder, broker: str, now: Callable[[], float]) -> None:
        """Note what the journals hold now."""
        self._journal = NodeJournal(folder.journal, "*", recent_bytes=0)
        self._broker = broker
        self._now = now
        self._confirmed = 0
        self._injected_t = 0.0
        self.sent: tuple[str, ...] = ()
        """The ids of the tasks that were sent meanwhile."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that were sent meanwhile."""
        return self.sent

    def begin(self, injected_t: float) -> None:
        """Note the time."""
        self._injected_t = injected_t

    def end(self) -> None:
        """Read what was sent meanwhile, and what was confirmed."""
        self._read([event for event in self._journal.read() if event.t >= self._injected_t])

    def _read(self, said: Sequence[Event]) -> None:
        """Take the lines of all journals since it was broken."""
        self._confirmed = sum(_is_confirmed(event, self._injected_t) for event in said)
        sent = (event.task for event in said if event.kind is Kind.INTENDED and event.task is not None)
        self.sent = tuple(dict.fromkeys(sent))

    def after(self) -> None:
        """Do nothing: what is confirmed afterwards is no contradiction."""

    def broken_by(self, doing: str) -> str | None:
        """Return how many sends were confirmed while it was broken; None if none was."""
        if self._confirmed:
            confirmed = counted(self._confirmed, "send was", "sends were")
            return f"{confirmed} confirmed while {self._broker} was said to be {doing}."
        return None

    def words(self) -> str:
        """Return how many tasks were sent meanwhile."""
        if not self.sent:
            return "nothing was sent meanwhile" + ("" if self.tasks else " (overlapped=0)")
        return f"{counted(len(self.sent), 'task was', 'tasks were')} sent meanwhile"


class Unconfirmed(NoConfirms):
    """The tasks that were sent to a broker while it took only some of them."""

    def __init__(self, folder: RunFolder, broker: str, now: Callable[[], float]) -> None:
        """Note what the journals hold now."""
        super().__init__(folder, broker, now)
        self.unconfirmed: tuple[str, ...] = ()
        """The tasks that were sent and not confirmed meanwhile."""

    def _read(self, said: Sequence[Event]) -> None:
        super()._read(said)
        taken = {event.task for event in said if event.kind is Kind.ACCEPTED}
        self.unconfirmed = tuple(task for task in self.sent if task not in taken)

    def broken_by(self, doing: str) -> str | None:
        """Return None: it may confirm some."""
        del doing
        return None

    def words(self) -> str:
        """Return how many tasks were sent meanwhile, and how many of them were not confirmed."""
        return f"{super().words()}, {len(self.unconfirmed)} without a confirm" if self.sent else super().words()


class BrokerDown(NoConfirms):
    """The silence of a broker whose connections have fallen. What its workers hold is affected as well."""

    def __init__(self, folder: RunFolder, broker: str, now: Callable[[], float], *, workers: Sequence[str]) -> None:
        """Note what the journals hold now. `workers` are the names of its workers."""
        super().__init__(folder, broker, now)
        self._workers = [NodeJournal(folder.journal, name, recent_bytes=RECENT_BYTES) for name in workers]
        self.had = InHand()
        """The tasks that the workers held when it went down."""
        self.unacknowledged: frozenset[str] = frozenset()
        """Those that had ended, and whose message turned out not to be acknowledged."""

    def begin(self, injected_t: float) -> None:
        """Read what the workers hold."""
        super().begin(injected_t)
        each = [in_hand([event for event in journal.recent() if event.t <= injected_t]) for journal in self._workers]
        self.had = InHand(
            begun=frozenset().union(*(one.begun for one in each)),
            waiting=frozenset().union(*(one.waiting for one in each)),
            ended=frozenset().union(*(one.ended for one in each)),
        )

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that the workers held, and those that were sent meanwhile."""
        held = (*sorted(self.had.begun), *sorted(self.had.waiting), *sorted(self.unacknowledged))
        return tuple(dict.fromkeys((*held, *self.sent)))

    def words(self) -> str:
        """Return how many tasks the workers held, and how many were sent meanwhile."""
        held = len(self.had.begun | self.had.waiting | self.unacknowledged)
        sent = super().words()
        return f"{counted(held, 'task was', 'tasks were')} with workers, and {sent}" if held else sent


class NoDeliveries(JournalSilence):
    """The evidence of a node that no network reaches: nothing is delivered to it, and nothing of its own is confirmed.

    It may go on: it ends what it has begun, and takes what had reached it before.
    """

    def __init__(self, folder: RunFolder, node: str) -> None:
        """Note what the journals hold now."""
        super().__init__(folder, node)
        self._all = NodeJournal(folder.journal, "*", recent_bytes=0)
        self._injected_t = 0.0
        self._sent: tuple[str, ...] = ()
        self._delivered = 0
        self._confirmed = 0

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that it held, and those that it sent meanwhile."""
        return tuple(dict.fromkeys((*super().tasks, *self._sent)))

    def begin(self, injected_t: float) -> None:
        """Read what it held."""
        super().begin(injected_t)
        self._injected_t = injected_t

    def end(self) -> None:
        """Read what it was sent and what it sent meanwhile."""
        said = [event for event in self._all.read() if event.t >= self._injected_t]
        own = [event for event in said if event.node == self._node]
        # A retry has the id of a task that may have been delivered before.
        sent_t = {
            event.task: event.t
            for event in said
            if event.kind is Kind.INTENDED and event.node != self._node and not event.of(Intended).get("retries")
        }
        self._delivered = sum(event.kind is Kind.RECEIVED and event.t > sent_t.get(event.task, inf) for event in own)
        self._confirmed = sum(_is_confirmed(event, self._injected_t) for event in own)
        self._sent = tuple(event.task for event in own if event.kind is Kind.INTENDED and event.task is not None)

    def broken_by(self, doing: str) -> str | None:
        """Return what reached it, or was confirmed; None if nothing did."""
        if not self._is_witness:
            return f"the journal of {self._node} has no lines, so that it proves nothing."
        if self._delivered:
            tasks = counted(self._delivered, "task that was", "tasks that were")
            return f"{self._node} received {tasks} sent while it was {doing}."
        if self._confirmed:
            sends = counted(self._confirmed, "send of its own was", "sends of its own were")
            return f"{self._node} was {doing}, and {sends} confirmed meanwhile."
        return None

    def words(self) -> str:
        """Return the tasks that it held, and how many it sent meanwhile."""
        sent = f"; it sent {counted(len(self._sent), 'task', 'tasks')} meanwhile" if self._sent else ""
        return f"{super().words()}{sent}"


class Unwatched:
    """No evidence beside the engine's: of a node that keeps no journal of its own, such as the mailbox."""

    tasks: tuple[str, ...] = ()

    def begin(self, injected_t: float) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Do nothing."""

    def after(self) -> None:
        """Do nothing."""

    def broken_by(self, doing: str) -> str | None:
        """Return None: the engine's word is all the proof."""
        del doing
        return None

    def words(self) -> str:
        """Return that nothing is known."""
        return "which tasks needed it is not known"
