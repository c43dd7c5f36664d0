"""The common part of the faults by which the first process of a node ends, and is started again."""

from abc import abstractmethod

from harness.containers.engine import State, Status
from harness.containers.node import Node
from harness.faults.node_fault import BROKER, refuse_shared
from harness.faults.redeliveries import RedeliveringFault
from harness.faults.silence import BrokerDown, JournalSilence, Silence
from harness.records.event import Kind


class EndedNode(RedeliveringFault):
    """The end of the first process of a node's container. Healing starts the container again.

    Proof: the container had exited, and was still down when healing began; the journal of a worker or a beat was
    silent, and then had an `up` again; of a broker, no send was confirmed meanwhile. With its end, every connection to
    a broker has fallen.
    """

    @property
    def needs_own_broker(self) -> bool:
        """True if it ends the broker."""
        return self.wanted == BROKER

    @abstractmethod
    def _break(self, victim: Node) -> None:
        """End the first process of the node, and return when it is gone."""

    def _choose(self) -> Node:
        return refuse_shared(self._stack, super()._choose(), self.doing)

    def _silence_of(self, victim: Node) -> Silence:
        stack = self._stack
        if victim is stack.broker:
            return BrokerDown(stack.folder, victim.name, self._now, workers=[worker.name for worker in stack.workers])
        return super()._silence_of(victim)

    def _mend(self, victim: Node) -> None:
        if not victim.is_up():
            victim.start()
        victim.wait_ready()

    def _unbroken(self, before: State | None) -> str | None:
        if before is None or before.status is not Status.EXITED:
            return f"{self.node} was to be down, and was seen {before}."
        return None

    def landed(self) -> str | None:
        """Return None with the proof that the class describes, else one sentence: what is missing."""
        if (reason := super().landed()) is not None:
            return reason
        if isinstance(self._silence, JournalSilence) and Kind.UP not in self._silence.said_after:
            return f"the journal of {self.node} shows no new start, so another process may never have come."
        return None
