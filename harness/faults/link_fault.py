"""The common part of all faults of the connections between clients and the broker, which the stack's link disturbs."""

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from harness.audit.in_hand import Receipts
from harness.errors import UsageError
from harness.faults.fault import Fault, counted, is_meant
from harness.records.link import Disturbance, Report, Trouble, Way

if TYPE_CHECKING:
    from harness.containers.tcp_link import Disturbing


def way_of(text: str) -> Way:
    """Return the direction of a text. Raises UsageError for another text."""
    try:
        return Way(text)
    except ValueError:
        raise UsageError(f"{text!r} is no direction; give {' or '.join(Way)}, or nothing for both.") from None


class LinkFault(Fault):
    """A disturbance of the connections of one client, or of all. The link itself counts what it did: that is the proof.

    A client is a node that connects to the broker: a worker, a beat, the web producer, or `producer`, which is the
    process of the test. Without one, all are disturbed. The stack needs a link, as `link=True` gives it one.
    """

    trouble: ClassVar[Trouble]
    needs_link = True

    def __init__(self, node: str = "") -> None:
        """Describe the fault. `node` is the client: its name, or what it is; empty for all."""
        super().__init__(node)
        self._disturbing: Disturbing | None = None
        self._report = Report()
        self._receipts: Receipts | None = None
        self._redelivered = set[str]()

    def _disturbance(self, client: str | None) -> Disturbance:
        """Return what the link is to do to a client; None for all."""
        return Disturbance(trouble=self.trouble, client=client)

    @abstractmethod
    def _unproven(self, report: Report) -> str | None:
        """Return why the report does not prove the fault; None if it does."""

    @abstractmethod
    def _did(self, report: Report) -> str:
        """Return what was done by the report, in a few words that follow the client's name."""

    def inject(self) -> None:
        """Disturb the connections. Raises UsageError without a link or such a client, HarnessError if that fails."""
        client = self._choose()
        self.node = client or "every client"
        self._receipts = Receipts(self._stack.folder.journal)
        self.begun_t = self._now()
        self._disturbing = self._stack.link.disturb(self._disturbance(client))
        self.injected_t = self._now()
        self._report = self._disturbing.report()
        self.tasks = self._report.tasks

    def heal(self) -> None:
        """End the disturbance, if it was not ended before. Raises HarnessError."""
        if self._disturbing is None or self.healed_t is not None:
            return
        self._report = self._disturbing.end()
        self.tasks = self._report.tasks
        self.healed_t = self._now()

    def report(self) -> Report:
        """Return what the link has done until now, or until it was healed. Raises HarnessError."""
        if self._disturbing is not None and self.healed_t is None:
            self._report = self._disturbing.report()
            self.tasks = self._report.tasks
        return self._report

    def _choose(self) -> str | None:
        """Return the next of the clients that are meant; None for all."""
        clients = self._stack.link.clients
        if not self.wanted:
            return None
        meant = [one for one in clients if is_meant(one, self.wanted)]
        if not meant:
            raise UsageError(f"no {self.wanted} connects to the broker of this stack; there are {', '.join(clients)}.")
        return meant[self._turn % len(meant)]

    def landed(self) -> str | None:
        """Return None with the proof that the class describes, else one sentence: what is missing."""
        return self._unfinished() or self._unproven(self._report)

    @property
    def redelivered(self) -> int:
        """Number of affected tasks that were delivered again since, as far as `follow` has read."""
        return len(self._redelivered)

    def follow(self) -> None:
        """Read which of the tasks were delivered again."""
        if self._receipts is not None and self.injected_t is not None:
            for one in self._receipts.read(frozenset(self.tasks)):
                if one.is_again and one.t >= self.injected_t:
                    self._redelivered.add(one.task)

    def words(self) -> str:
        """Return what was done, how many tasks it met, and how many of them were delivered again."""
        met = "it met no task (overlapped=0)"
        if self.tasks:
            met = f"it met {counted(self.overlapped, 'task', 'tasks')}; delivered again: {self.redelivered}"
        return f"{self.node}: {self._did(self._report)}; {met}"
