"""A fault: a node is asked to shut down, and killed if it has not ended within a grace period."""

import signal
from collections.abc import Callable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import ClassVar

from harness.audit.in_hand import InHand, NodeJournal, in_hand
from harness.containers.engine import State
from harness.containers.node import Node
from harness.errors import EngineError, UsageError, WaitTimeout
from harness.faults.ended_node import EndedNode
from harness.faults.fault import SETTLED_S, counted
from harness.faults.silence import RECENT_BYTES, JournalSilence
from harness.measure.durations import parse_duration_s
from harness.wait import wait_until

GRACE_S = 10.0
"""The default grace period in seconds: that of `docker stop`. Kubernetes has 30."""
_SHOWN = 5
"""The most ids of cut tasks that the words name."""


class Shutdown(StrEnum):
    """The ways in which a worker of Celery shuts down."""

    WARM = "warm"
    """By SIGTERM, as an orchestrator does it: it takes no more tasks, and ends when those that it runs have ended."""
    SOFT = "soft"
    """By SIGQUIT: as a warm one for `worker_soft_shutdown_timeout` seconds at most, then as a cold one. Without this
    setting it is a cold one."""
    COLD = "cold"
    """By SIGQUIT: it cancels the tasks that it runs."""


_SIGNALS: Mapping[Shutdown, signal.Signals] = {
    Shutdown.WARM: signal.SIGTERM,
    Shutdown.SOFT: signal.SIGQUIT,
    Shutdown.COLD: signal.SIGQUIT,
}


def shutdown_of(text: str) -> Shutdown:
    """Return the shutdown of a name. Raises UsageError for another text."""
    try:
        return Shutdown(text.lower())
    except ValueError:
        raise UsageError(f"{text!r} is no shutdown; give one of {', '.join(Shutdown)}.") from None


class Stop(EndedNode):
    """A node that is asked to shut down, and gets SIGKILL if it has not ended after a grace period.

    It is broken when it is down, however it came down; so injecting it takes up to the grace period. Affected are the
    tasks that it held when it was asked. Those that it had begun and did not end are cut.

    Proof: that of `EndedNode`; and an exit by SIGKILL if, and only if, the grace period was over.
    """

    kind = "stop"
    doing = "stopped"
    options: ClassVar[Mapping[str, Callable[[str], object]]] = MappingProxyType(
        {"how": shutdown_of, "grace_s": parse_duration_s}
    )

    def __init__(self, node: str = "worker", *, how: Shutdown | str = Shutdown.WARM, grace_s: float = GRACE_S) -> None:
        """Describe the fault.

        Args:
            node: see `Fault`.
            how: the kind of shutdown: `warm`, `soft` or `cold`. Only a worker has the last two.
            grace_s: seconds until it is killed.
        """
        super().__init__(node)
        self.how = shutdown_of(how)
        self.grace_s = grace_s
        self._asked = InHand()
        """The tasks that it held when it was asked to shut down."""
        self.was_killed = False
        """True if it was killed, because it had not ended within the grace period."""
        self.exit_code: int | None = None
        """The code with which it ended; None before."""
        self.took_s = 0.0
        """Seconds from the request to its end."""

    def _choose(self) -> Node:
        victim = super()._choose()
        if self.how is not Shutdown.WARM and victim not in self._stack.workers:
            raise UsageError(f"{victim.name} is no worker, so it has no {self.how} shutdown; it has a warm one.")
        return victim

    def _break(self, victim: Node) -> None:
        begin_t = self._now()
        if victim is not self._stack.broker:
            journal = NodeJournal(self._stack.folder.journal, victim.name, recent_bytes=RECENT_BYTES)
            self._asked = in_hand(journal.recent())
        victim.kill(_SIGNALS[self.how].name)
        try:
            wait_until(lambda: not victim.is_up(), what=f"{victim.name} has ended", timeout_s=self.grace_s)
        except WaitTimeout:
            self.was_killed = True
            self._kill(victim)
        self.took_s = self._now() - begin_t
        self.exit_code = victim.container.state().exit_code

    def _kill(self, victim: Node) -> None:
        try:
            victim.kill()
        except EngineError:
            # In this moment it has ended by itself.
            if victim.is_up():
                raise
            self.was_killed = False
        wait_until(lambda: not victim.is_up(), what=f"{victim.name} is gone", timeout_s=SETTLED_S)

    def _affected(self) -> tuple[str, ...]:
        asked = (*sorted(self._asked.begun), *sorted(self._asked.waiting))
        return tuple(dict.fromkeys((*self.cut, *asked, *super()._affected())))

    @property
    def cut(self) -> tuple[str, ...]:
        """The ids of the tasks that it had begun, and had not ended when it was down."""
        return tuple(sorted(self._silence.had.begun)) if isinstance(self._silence, JournalSilence) else ()

    def _unbroken(self, before: State | None) -> str | None:
        is_killed = before is not None and before.exit_code == 128 + signal.SIGKILL
        if self.was_killed and not is_killed:
            return f"{self.node} was to be killed after its grace period, and was seen {before}."
        if is_killed and not self.was_killed:
            return f"{self.node} was killed within its grace period, by somebody else: it was seen {before}."
        return super()._unbroken(before)

    def words(self) -> str:
        """Return how it ended, the tasks that it held when it was asked, and those that were cut."""
        how = f"{self.how}, {_SIGNALS[self.how].name}"
        if self.was_killed:
            end = f"was killed after a grace period of {self.grace_s:g} s"
        else:
            end = f"ended by itself with {self.exit_code} after {self.took_s:.1f} s"
        begun = f"{self.node} was {self.doing} ({how}), and {end}"
        if not self._asked.begun and not self._asked.waiting:
            return f"{begun}; {super().words().partition('; ')[2]}"
        had = f"it had {len(self._asked.begun)} begun and {len(self._asked.waiting)} waiting when it was asked"
        again = f"; delivered again: {self.redelivered} of {self.overlapped}"
        if not self.cut:
            return f"{begun}; {had}, and cut none{again}"
        more = ", ..." if len(self.cut) > _SHOWN else ""
        cut = f"{counted(len(self.cut), 'task was', 'tasks were')} cut: {', '.join(self.cut[:_SHOWN])}{more}"
        return f"{begun}; {had}; {cut}{again}"
