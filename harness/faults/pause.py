"""A fault: a node is frozen, and continues."""

from harness.containers.engine import State, Status
from harness.containers.node import Node
from harness.errors import UsageError
from harness.faults.fault import SETTLED_S
from harness.faults.node_fault import NodeFault
from harness.wait import wait_until


class Pause(NodeFault):
    """A frozen node: all processes of its container stop, and its connections stay open without an answer.

    A frozen broker accepts, confirms and delivers no task, for every stack of the session.

    Proof: the engine reported the container as paused when the fault began and when it ended; the journal of a worker
    or a beat was silent; of a broker, no send was confirmed meanwhile. A confirm that was on its way may be journaled
    up to a second late.
    """

    kind = "pause"
    doing = "paused"

    def _break(self, victim: Node) -> None:
        victim.pause()
        wait_until(
            lambda: victim.container.state().status is Status.PAUSED,
            what=f"{victim.name} is paused",
            timeout_s=SETTLED_S,
        )

    def _mend(self, victim: Node) -> None:
        state = victim.container.state()
        if state.status is Status.PAUSED:
            victim.unpause()
        elif state.status is not Status.RUNNING:
            # Something else stopped it.
            raise UsageError(f"{victim.name} cannot be unpaused: it is {state}.")

    def _unbroken(self, before: State | None) -> str | None:
        if before is None or before.status is not Status.PAUSED:
            return f"{self.node} was not paused any more when it was to be healed: it was seen {before}."
        return None
