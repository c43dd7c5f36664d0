"""A fault: the broker is frozen, and continues."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from harness.audit.in_hand import NodeJournal
from harness.containers.engine import State, Status
from harness.errors import UsageError
from harness.faults.fault import Fault, Target, counted
from harness.faults.pausing import not_paused, pause, unpause
from harness.records.event import Accepted, Kind

if TYPE_CHECKING:
    from harness.containers.node import Node

_LATE_S = 1.0
"""Seconds by which a confirm that was on its way may be journaled after the broker was frozen. A shorter time would
call a fault not landed on a busy machine; a longer one would hide a broker that still confirmed."""


class PauseBroker(Fault):
    """A frozen broker: it accepts, confirms and delivers no task, and its connections stay open.

    It affects every stack of the session. There is no fault that kills or restarts the broker: RabbitMQ stores new
    queues up to two seconds late, and its ports change (see `harness.containers.rabbitmq.Broker`).

    Proof: the engine reported the container as paused when the fault began and when it ended, and no send was confirmed
    meanwhile. A confirm that was on its way may be journaled up to a second late.
    """

    name = "pause-broker"

    def __init__(self, stack: Target, *, turn: int = 0, now: Callable[[], float] = time.time) -> None:
        """Prepare the fault without injecting it."""
        super().__init__(stack, turn=turn, now=now)
        self._victim: Node | None = None
        self._journal: NodeJournal | None = None
        self._before: State | None = None
        self._confirmed = 0

    def inject(self) -> None:
        """Freeze the broker. Raises UsageError if it does not run, HarnessError if it cannot be frozen."""
        broker = self._stack.broker
        if (status := broker.container.state().status) is not Status.RUNNING:
            raise UsageError(f"{broker.name} is {status} already, so it cannot be paused.")
        self._victim, self.node = broker, broker.name
        self._journal = NodeJournal(self._stack.folder.journal, "*", recent_bytes=0)
        pause(broker)
        self.injected_t = self._now()

    def heal(self) -> None:
        """Unfreeze the broker. Raises UsageError if it is down."""
        if self._victim is None or self._journal is None or self.healed_t is not None:
            return
        if self.injected_t is not None and self._before is None:
            said = [event for event in self._journal.read() if event.t >= self.injected_t]
            self._confirmed = sum(
                event.kind is Kind.ACCEPTED
                and event.t > self.injected_t + _LATE_S
                and event.of(Accepted).get("confirmed", True)
                for event in said
            )
            sent = (event.task for event in said if event.kind is Kind.INTENDED and event.task is not None)
            self.tasks = tuple(dict.fromkeys(sent))
            self._before = self._victim.container.state()
        unpause(self._victim)
        self.healed_t = self._now()

    def landed(self) -> str | None:
        """Return None with the proof that the class describes, else one sentence: what is missing."""
        if (reason := self._unfinished() or not_paused(self.node, self._before)) is not None:
            return reason
        if self._confirmed:
            confirmed = counted(self._confirmed, "send was", "sends were")
            return f"{confirmed} confirmed while {self.node} was said to be paused."
        return None

    def words(self) -> str:
        """Return what was done, and how many tasks were sent meanwhile."""
        met = f"{counted(self.overlapped, 'task was', 'tasks were')} sent meanwhile"
        return f"{self.node} was paused; {met if self.overlapped else 'nothing was sent meanwhile (overlapped=0)'}"
