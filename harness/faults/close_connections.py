"""A fault: the broker closes the connections of a node, which may connect again at once."""

from harness.containers.engine import State, Status
from harness.containers.node import Node
from harness.errors import UsageError, WaitTimeout
from harness.faults.fault import SETTLED_S, counted
from harness.faults.redeliveries import RedeliveringFault
from harness.faults.silence import JournalOfOneThatGoesOn, Silence
from harness.wait import wait_until

_BACK_S = 30.0
"""Seconds that healing waits for a new connection. Celery connects again at once, and then at growing intervals."""


class CloseConnections(RedeliveringFault):
    """The broker closes all connections of a node, as an administrator or a proxy does.

    The node goes on, and may connect again at once; nothing is left to heal. Affected are the tasks that a worker
    held: the broker delivers their messages again.

    Proof: the broker had these connections, has closed each, and at least one of them was gone. One whose client does
    not read may be listed for another 30 s. Healing waits for a new connection, and the words say if none has come.
    """

    kind = "close-connections"
    doing = "disconnected"

    def __init__(self, node: str = "worker") -> None:
        """Describe the fault; see `Fault`."""
        super().__init__(node)
        self.closed: frozenset[str] = frozenset()
        """The names of the connections that were closed."""
        self.is_back: bool | None = None
        """True if the node connected again before the end of the healing; None before."""

    def _choose(self) -> Node:
        victim = super()._choose()
        if victim is self._stack.broker:
            raise UsageError("a broker closes the connections of others: name the node whose connections they are.")
        return victim

    def _silence_of(self, victim: Node) -> Silence:
        silence = super()._silence_of(victim)
        stack = self._stack
        return JournalOfOneThatGoesOn(stack.folder, victim.name) if victim in stack.workers else silence

    def _break(self, victim: Node) -> None:
        broker, login = self._stack.broker, self._stack.login
        found = self._connections(victim)
        if not found:
            raise UsageError(
                f"{victim.name} has no connection of its own to the broker, so none could be closed. Behind a link, "
                "Reset ends its connections."
            )
        closed: set[str] = set()

        def is_done() -> bool:
            closed.update(name for name in found - closed if broker.close_connection(name))
            there = broker.connections(login).keys()
            return found - closed <= found - there and bool(found - there)

        wait_until(is_done, what=f"the connections of {victim.name} are closed", timeout_s=SETTLED_S)
        self.closed = frozenset(found)

    def _connections(self, victim: Node) -> set[str]:
        addresses = victim.container.addresses()
        open_now = self._stack.broker.connections(self._stack.login)
        return {name for name, address in open_now.items() if address in addresses}

    def _mend(self, victim: Node) -> None:
        if not self.closed:
            return
        try:
            self.is_back = wait_until(
                lambda: bool(self._connections(victim) - self.closed),
                what=f"{victim.name} has connected again",
                timeout_s=_BACK_S,
            )
        except WaitTimeout:
            # That is what became of it, and no failure of the healing.
            self.is_back = False

    def _unbroken(self, before: State | None) -> str | None:
        if before is None or before.status is not Status.RUNNING:
            return f"{self.node} was to go on without its connections, and was seen {before}."
        return None

    def words(self) -> str:
        """Return how many connections were closed, the tasks that the node held, and whether it connected again."""
        closed = counted(len(self.closed), "connection", "connections")
        away = f"; it has not connected again within {_BACK_S:g} s" if self.is_back is False else ""
        return f"{closed} closed: {super().words()}{away}"
