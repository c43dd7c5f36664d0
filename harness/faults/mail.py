"""Faults: the mail server is slow, or refuses every mail."""

from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Iterator
from math import inf
from types import MappingProxyType

from harness.audit.in_hand import lines_of
from harness.containers.mailbox import Mailbox
from harness.errors import UsageError, WaitTimeout
from harness.faults.fault import Fault, candidates, counted
from harness.records.event import Kind

_ALL = "*"
_REPLIES = {4: "4.3.0 try again later", 5: "5.7.1 refused"}


class MailFault(Fault):
    """A mail server that answers each recipient in its own way; its other rules are there again afterwards.

    Proof: when the fault began and when it ended, the server answered a recipient that the harness asked for in that
    way. The mails that met it are counted by the server.

    The tasks that it met are those that ran when a mail met it. If several tasks run at once, there may be some among
    them that sent none.
    """

    breaks_node = False

    def __init__(self) -> None:
        """Describe the fault."""
        super().__init__()
        self._mailbox: Mailbox | None = None
        self._rule: int | None = None
        self._is_proven = False
        """True if it still answered in that way when healing began."""
        self.mails = 0
        """Number of recipients that met the fault."""

    @abstractmethod
    def _begin(self, mailbox: Mailbox) -> int:
        """Set the rule, and return its number."""

    @property
    @abstractmethod
    def _doing(self) -> str:
        """Return what happened to a mail, in words, such as `refused with 451`."""

    def inject(self) -> None:
        """Set the rule. Raises UsageError if the stack has no mailbox, HarnessError if that does not answer."""
        boxes = [node for node in candidates(self._stack, "mailbox") if isinstance(node, Mailbox)]
        if not boxes:
            raise UsageError("the stack has no mailbox; ask for one with mailbox=True, or the fixture `mailbox`.")
        (self._mailbox,) = boxes
        self.node = self._mailbox.name
        self.begun_t = self._now()
        self._rule = self._begin(self._mailbox)
        if not self._mailbox.applies(self._rule):
            raise WaitTimeout(f"{self.node} did not apply its new rule within ten seconds.")
        self.injected_t = self._now()

    def heal(self) -> None:
        """Take the rule away, if that was not done before."""
        if self._mailbox is None or self._rule is None or self.healed_t is not None:
            return
        try:
            if self.injected_t is not None:
                self._is_proven = self._mailbox.applies(self._rule)
        finally:
            self._mailbox.withdraw(self._rule)
            self.healed_t = self._now()

    def landed(self) -> str | None:
        """Return None with the proof that the class describes, else one sentence: what is missing."""
        if (reason := self._unfinished()) is not None:
            return reason
        return None if self._is_proven else f"{self.node} answered otherwise when it was to be healed."

    def follow(self) -> None:
        """Read which mails met it, and which tasks ran then."""
        if self._mailbox is None or self._rule is None:
            return
        met_t = [use.t for use in self._mailbox.uses(self._rule)]
        self.mails = len(met_t)
        if met_t:
            self.tasks = tuple(dict.fromkeys(self._running(met_t)))

    def _running(self, met_t: list[float]) -> Iterator[str]:
        """Yield the tasks that ran at one of these times, in order; a task once for each of its executions."""
        folder = self._stack.folder.journal
        ends: dict[str, list[float]] = {}
        for said in lines_of(folder, Kind.FINISHED):
            ends.setdefault(said["task"], []).append(said["t"])
        for said in sorted(lines_of(folder, Kind.STARTED), key=lambda said: float(said["t"])):
            # An execution whose process died has no end of its own, and is taken to have lasted until the next one's.
            end_t = min((t for t in ends.get(said["task"], ()) if t >= said["t"]), default=inf)
            first = bisect_left(met_t, said["t"])
            if first < len(met_t) and met_t[first] <= end_t:
                yield said["task"]

    def words(self) -> str:
        """Return what was done to how many mails, and how many tasks ran then."""
        if not self.mails:
            return f"every mail was to be {self._doing}; none came (overlapped=0)"
        mails, tasks = counted(self.mails, "mail was", "mails were"), counted(len(self.tasks), "task", "tasks")
        return f"{mails} {self._doing}; {tasks} ran then"


class SlowMail(MailFault):
    """A mail server that answers each recipient late."""

    kind = "slow-mail"
    options = MappingProxyType({"delay_s": float})

    def __init__(self, delay_s: float = 5.0) -> None:
        """Describe the fault; `delay_s` is the delay of each answer in seconds, below 3600."""
        super().__init__()
        self.delay_s = delay_s

    def _begin(self, mailbox: Mailbox) -> int:
        return mailbox.answer(_ALL, delay_s=self.delay_s, first=True)

    @property
    def _doing(self) -> str:
        return f"answered after {self.delay_s:g} s"


class RejectMail(MailFault):
    """A mail server that refuses each recipient: for now with a code of 4xx, for ever with one of 5xx."""

    kind = "reject-mail"
    options = MappingProxyType({"code": int})

    def __init__(self, code: int = 451) -> None:
        """Describe the fault.

        Args:
            code: the SMTP code of the refusal.

        Raises:
            UsageError: it is no code of a refusal.
        """
        super().__init__()
        if code // 100 not in _REPLIES:
            raise UsageError(f"{code} refuses no mail; give a code from 400 to 599, such as 451 or 550.")
        self.code = code

    def _begin(self, mailbox: Mailbox) -> int:
        return mailbox.answer(_ALL, f"{self.code} {_REPLIES[self.code // 100]}", first=True)

    @property
    def _doing(self) -> str:
        return f"refused with {self.code}"
