"""A fault: a second beat runs the schedule of a first one."""

from harness.audit.in_hand import NodeJournal
from harness.containers.engine import State, Status
from harness.containers.node import Node
from harness.errors import UsageError
from harness.faults.fault import counted
from harness.faults.node_fault import NodeFault
from harness.faults.silence import Silence, Unwatched
from harness.records.event import Event, Kind


class TwoBeats(NodeFault):
    """A second beat for the same schedule, as when two replicas of it are deployed.

    It has the app, the clock and the settings of the first one, and a schedule file of its own. Healing removes it.
    Affected are the tasks that it sends.

    Proof: both were running when healing began, and the second one's journal has an `up` and is ready.
    """

    kind = "two-beats"
    doing = "doubled"

    def __init__(self, node: str = "beat") -> None:
        """Describe the fault; `node` is the first beat, see `Fault`."""
        super().__init__(node)
        self.twin: Node | None = None
        """The second beat."""
        self._journal: NodeJournal | None = None
        self._said: list[Event] = []
        self._of_twin: State | None = None

    def _choose(self) -> Node:
        first = super()._choose()
        if first not in self._stack.beats:
            raise UsageError(f"{first.name} is no beat, so it has no schedule that another one could run.")
        return first

    def _silence_of(self, victim: Node) -> Silence:
        del victim
        # The first one goes on.
        return Unwatched()

    def _break(self, victim: Node) -> None:
        first = next(beat for beat in self._stack.beats if beat is victim)
        self.twin = first.twin(f"{first.name}-twin")
        self._journal = NodeJournal(self._stack.folder.journal, self.twin.name, recent_bytes=0)
        self._stack.add(self.twin)

    def _look(self, victim: Node) -> None:
        super()._look(victim)
        if self.twin is not None:
            self._of_twin = self.twin.container.state()

    def _mend(self, victim: Node) -> None:
        del victim
        if self.twin is None:
            return
        self.twin.save_logs(self._stack.folder.logs)
        self.twin.remove()
        if self._journal is not None:
            self._said += self._journal.read()

    def _affected(self) -> tuple[str, ...]:
        sent = (event.task for event in self._said if event.kind is Kind.INTENDED and event.task is not None)
        return tuple(dict.fromkeys(sent))

    def _unbroken(self, before: State | None) -> str | None:
        for name, state in ((self.node, before), (self.twin and self.twin.name, self._of_twin)):
            if state is None or state.status is not Status.RUNNING:
                return f"both beats were to run, and {name} was seen {state}."
        if not {Kind.UP, Kind.READY} <= {event.kind for event in self._said}:
            return f"the journal of {self.twin and self.twin.name} does not show that it was ready."
        return None

    def words(self) -> str:
        """Return what ran beside which beat, and how many tasks it sent."""
        sent = counted(self.overlapped, "task was", "tasks were") if self.tasks else "nothing was"
        none = "" if self.tasks else " (overlapped=0)"
        return f"{self.twin and self.twin.name} ran the schedule of {self.node} as well; {sent} sent by it{none}"
