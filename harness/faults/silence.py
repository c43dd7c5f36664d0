"""The evidence that a node did nothing while it was broken, and the tasks that this affected."""

from collections.abc import Callable
from typing import Protocol

from harness.audit.in_hand import InHand, NodeJournal, in_hand
from harness.audit.run_folder import RunFolder
from harness.faults.fault import counted
from harness.records.event import Accepted, Kind

RECENT_BYTES = 1 << 20
"""Bytes at the end of each journal file that are read for the tasks that a worker holds: some 7,000 lines. Hours of
load make long files, and recent receipts are at their end. More bytes would delay the time of the injection; with
fewer, a task that was received long before is not counted as affected."""
_LATE_S = 1.0
"""Seconds by which a confirm that was on its way may be journaled after the broker was broken. A shorter time would
call a fault not landed on a busy machine; a longer one would hide a broker that still confirmed."""


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
        if not self.tasks:
            return "its journal shows no task in hand (overlapped=0)"
        met = ", ".join(f"{count} {words}" for words, count in parts.items() if count)
        return f"it had {counted(len(self.tasks), 'task', 'tasks')} in hand: {met}"


class NoConfirms:
    """The silence of a broker: no send is confirmed. The tasks that are sent meanwhile are affected."""

    def __init__(self, folder: RunFolder, broker: str, now: Callable[[], float]) -> None:
        """Note what the journals hold now."""
        self._journal = NodeJournal(folder.journal, "*", recent_bytes=0)
        self._broker = broker
        self._now = now
        self._confirmed = 0
        self._injected_t = 0.0
        self.tasks: tuple[str, ...] = ()

    def begin(self, injected_t: float) -> None:
        """Note the time."""
        self._injected_t = injected_t

    def end(self) -> None:
        """Read what was sent meanwhile, and what was confirmed."""
        said = [event for event in self._journal.read() if event.t >= self._injected_t]
        self._confirmed = sum(
            event.kind is Kind.ACCEPTED
            and event.t > self._injected_t + _LATE_S
            and event.of(Accepted).get("confirmed", True)
            for event in said
        )
        sent = (event.task for event in said if event.kind is Kind.INTENDED and event.task is not None)
        self.tasks = tuple(dict.fromkeys(sent))

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
        if not self.tasks:
            return "nothing was sent meanwhile (overlapped=0)"
        return f"{counted(len(self.tasks), 'task was', 'tasks were')} sent meanwhile"


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
