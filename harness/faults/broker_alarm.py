"""The common part of the faults by which a broker raises an alarm, and takes no more messages."""

from typing import ClassVar

from harness.containers.broker_node import Alarm
from harness.containers.engine import State
from harness.containers.node import Node
from harness.faults.broker_fault import BrokerFault
from harness.faults.fault import SETTLED_S
from harness.faults.node_fault import BROKER, refuse_shared
from harness.wait import wait_until


class BrokerAlarm(BrokerFault):
    """A broker of the stack's own that says that it runs out of something, because its limit was changed.

    While the alarm lasts, it reads no more from a connection on which something is published. The first message of
    each connection is still taken and confirmed. Healing sets the limit back that the broker was started with.

    Proof: the broker listed the alarm when the fault began and when it ended. Affected are the tasks that were sent
    meanwhile.
    """

    alarm: ClassVar[Alarm]
    """The alarm that is raised."""

    def __init__(self, node: str = BROKER) -> None:
        """Describe the fault; see `Fault`."""
        super().__init__(node)
        self._is_raised = False
        """True if the limit may have been changed."""
        self._lasted = False

    def _choose(self) -> Node:
        # An alarm is for all vhosts.
        return refuse_shared(self._stack, super()._choose(), self.doing)

    def _break(self, victim: Node) -> None:
        self._is_raised = True
        self._stack.broker.raise_alarm(self.alarm)
        wait_until(self._is_listed, what=f"{victim.name} lists the {self.alarm} alarm", timeout_s=SETTLED_S)

    def _is_listed(self) -> bool:
        return self.alarm in self._stack.broker.alarms()

    def _look(self, victim: Node) -> None:
        super()._look(victim)
        self._lasted = self._is_listed()

    def _mend(self, victim: Node) -> None:
        if not self._is_raised:
            return
        self._stack.broker.end_alarm(self.alarm)
        wait_until(
            lambda: not self._is_listed(),
            what=f"{victim.name} lists the {self.alarm} alarm no more",
            timeout_s=SETTLED_S,
        )

    def _unbroken(self, before: State | None) -> str | None:
        if not self._lasted:
            return f"{self.node} listed no {self.alarm} alarm any more when it was to be healed: it was {before}."
        return None
