"""A fault: one process of a worker's pool gets a signal, while the worker goes on."""

import signal
from types import MappingProxyType

from harness.audit.in_hand import NodeJournal, PoolProcess, pool_of
from harness.containers.engine import State, Status
from harness.containers.node import Node
from harness.errors import UsageError
from harness.faults.fault import SETTLED_S, counted
from harness.faults.kill import signal_of
from harness.faults.node_fault import NodeFault
from harness.faults.redeliveries import Redeliveries
from harness.faults.silence import RECENT_BYTES, Silence, Unwatched
from harness.records.event import Event, Exited, Kind
from harness.wait import wait_until

_REFILLED_S = 30.0
"""Seconds within which the worker must have another process in its place. Celery needs one."""
_CHILDREN = """
import pathlib, sys
for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
    try:
        state, parent = stat.read_text().rpartition(")")[2].split()[:2]
    except OSError:
        continue
    if parent == sys.argv[1] and state != "Z":
        print(stat.parent.name)
"""
"""Writes the ids of the processes that a process has started and that have not ended."""
_KILL = "import os, sys; os.kill(int(sys.argv[1]), int(sys.argv[2]))"


class KillPoolProcess(NodeFault):
    """A signal to one process of a worker's pool, by default SIGKILL. The worker itself goes on.

    It is the process that runs a certain task, or that which has run its task for the longest time, or else one that
    runs none. Affected is the task that it ran.

    Proof: the worker saw that process end by the signal. It starts another one by itself; healing waits for that.
    """

    kind = "kill-pool-process"
    doing = "killed"
    options = MappingProxyType({"signal": signal_of, "task": str})

    def __init__(
        self, node: str = "worker", *, signal: signal.Signals = signal.SIGKILL, task: str | None = None
    ) -> None:
        """Describe the fault.

        Args:
            node: the worker; see `Fault`.
            signal: what is sent. A process that does not end by it within ten seconds is an error.
            task: the id or the name of the task whose process it is; by default that of any.
        """
        super().__init__(node)
        self.signal = signal
        self.task = task
        """The id or the name of the task; None for any."""
        self._parent = 0
        self._processes = 0
        self.pid: int | None = None
        """The process that was killed, as its container sees it."""
        self._code: int | None = None
        self._met: frozenset[str] = frozenset()
        self._redeliveries: Redeliveries | None = None

    def _choose(self) -> Node:
        victim = super()._choose()
        if victim not in self._stack.workers:
            raise UsageError(f"{victim.name} is no worker, so it has no pool whose process could be killed.")
        return victim

    def _silence_of(self, victim: Node) -> Silence:
        del victim
        # The worker goes on.
        return Unwatched()

    def _break(self, victim: Node) -> None:
        folder = self._stack.folder.journal
        self._redeliveries = Redeliveries(self._stack.folder, victim.name)
        journal = NodeJournal(folder, victim.name, recent_bytes=RECENT_BYTES)
        said = journal.recent()
        self._parent, pool = pool_of(said)
        children = self._children(victim)
        self._processes = len(children)
        self.pid = self._chosen(victim, [one for one in pool if one.pid in children], children)
        victim.container.execute("python", "-c", _KILL, str(self.pid), str(int(self.signal)))

        def is_gone() -> bool:
            said.extend(journal.read())
            self._code = self._exit(said)
            return self._code is not None

        wait_until(is_gone, what=f"process {self.pid} of {victim.name} is gone", timeout_s=SETTLED_S)
        # It may have begun another task meanwhile; now it writes nothing more.
        _, pool = pool_of(said)
        self._met = next((one.begun for one in pool if one.pid == self.pid), frozenset())

    def _children(self, victim: Node) -> set[int]:
        return {int(line) for line in victim.container.execute("python", "-c", _CHILDREN, str(self._parent)).split()}

    def _chosen(self, victim: Node, pool: list[PoolProcess], children: set[int]) -> int:
        if not children:
            raise UsageError(f"{victim.name} has no pool of processes, so none could be {self.doing}.")
        busy = sorted((one for one in pool if one.begun), key=lambda one: one.since_t)
        if self.task is not None:
            running = [one for one in busy if self.task in one.begun | one.names]
            if not running:
                runs = ", ".join(sorted(name for one in busy for name in one.names)) or "none"
                raise UsageError(f"no process of {victim.name} runs the task {self.task}; it runs: {runs}.")
            return running[0].pid
        return busy[0].pid if busy else min(children)

    def _exit(self, said: list[Event]) -> int | None:
        """Return the code with which the worker saw the process end; None if it has not."""
        exits = (event.of(Exited) for event in said if event.kind is Kind.EXITED and event.pid == self._parent)
        return next((one["code"] for one in exits if one["child"] == self.pid), None)

    def _mend(self, victim: Node) -> None:
        if self.injected_t is None:
            return
        wait_until(
            lambda: len(self._children(victim)) >= self._processes,
            what=f"{victim.name} has another process in its pool",
            timeout_s=_REFILLED_S,
        )

    def _affected(self) -> tuple[str, ...]:
        return tuple(sorted(self._met))

    def _unbroken(self, before: State | None) -> str | None:
        if self._code != -self.signal:
            return f"process {self.pid} of {self.node} was to end by {self.signal.name}, and ended with {self._code}."
        if before is None or before.status is not Status.RUNNING:
            return f"{self.node} itself was to go on, and was seen {before}."
        return None

    @property
    def redelivered(self) -> int:
        """Number of affected tasks that were delivered again, as far as `follow` has read."""
        return 0 if self._redeliveries is None else len(self._redeliveries.again & self._met)

    def follow(self) -> None:
        """Read whether the affected task was delivered again."""
        if self._redeliveries is not None and self.injected_t is not None:
            self._redeliveries.read(self._met, self.injected_t)

    def words(self) -> str:
        """Return which process got which signal, and the task that it ran."""
        done = f"process {self.pid} of {self.node} was {self.doing} by {self.signal.name}"
        if not self._met:
            return f"{done}; it ran no task (overlapped=0)"
        met = f"{counted(len(self._met), 'task', 'tasks')}: {', '.join(sorted(self._met))}"
        return f"{done}; it ran {met}; delivered again: {self.redelivered} of {len(self._met)}"
