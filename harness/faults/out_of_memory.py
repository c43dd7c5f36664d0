"""A fault: a node has little memory left, and the kernel kills what asks for more."""

from types import MappingProxyType

from harness.audit.in_hand import NodeJournal, pool_of
from harness.containers.engine import State, Status
from harness.containers.node import Node
from harness.errors import UsageError
from harness.faults.fault import counted
from harness.faults.node_fault import BROKER, NodeFault, refuse_shared
from harness.faults.silence import RECENT_BYTES, Silence, Unwatched
from harness.records.event import Event, Exited, Kind

_ROOM_MB = 16.0
_MOST_MB = 2**30
"""More than this is no number that an engine takes."""
_KILLED = -9
_LOOK = """
cd /sys/fs/cgroup
if [ -e memory/memory.usage_in_bytes ]; then
    cat memory/memory.usage_in_bytes memory/memory.oom_control
    grep -w inactive_file memory/memory.stat
else
    cat memory.current memory.events
    grep -w inactive_file memory.stat
fi
"""
"""Writes how many bytes the node uses, how many of its processes the kernel killed, and how many of the bytes are
cached files that were read only once: cgroups of version 1 or 2."""


def megabytes(text: str) -> float:
    """Return a number of MiB. Raises ValueError for a text that is none, not above zero, or more than any node has."""
    value = float(text)
    if not 0 < value < _MOST_MB:
        raise ValueError(f"{text} is not above 0 and below {_MOST_MB}.")
    return value


class OutOfMemory(NodeFault):
    """A memory limit that is a little above what the node uses. Who asks for more is killed by the kernel.

    That is the process of the node that uses the most, and seldom another one: a process of a worker's pool, or the
    worker itself. Affected are the tasks that the killed processes ran. Healing takes the limit away, and starts the
    node again if it ended.

    Proof: the kernel counted a killed process while the limit held. A limit that nobody reaches shows nothing.
    """

    kind = "out-of-memory"
    doing = "short of memory"
    options = MappingProxyType({"room_mb": megabytes})

    def __init__(self, node: str = "worker", *, room_mb: float = _ROOM_MB) -> None:
        """Describe the fault.

        Args:
            node: see `Fault`.
            room_mb: how much more memory than now the node may use, in MiB. Cached files that were read twice count as
                used, and the kernel may give them up before it kills; others do not count.
        """
        super().__init__(node)
        self._room_bytes = int(room_mb * 2**20)
        self._journal: NodeJournal | None = None
        self._said: list[Event] = []
        self._kills_before = 0
        self.kills = 0
        """How many processes the kernel killed, as far as it was counted."""

    @property
    def needs_own_broker(self) -> bool:
        """True if it is the broker that has little memory."""
        return self.wanted == BROKER

    def _choose(self) -> Node:
        return refuse_shared(self._stack, super()._choose(), self.doing)

    def _silence_of(self, victim: Node) -> Silence:
        del victim
        # It goes on, until the kernel kills something.
        return Unwatched()

    def _before_it_breaks(self, victim: Node) -> None:
        if victim in self._stack.workers:
            self._journal = NodeJournal(self._stack.folder.journal, victim.name, recent_bytes=RECENT_BYTES)
            self._said = self._journal.recent()

    def _break(self, victim: Node) -> None:
        used_bytes, self._kills_before = _look(victim)
        victim.limit_memory(used_bytes + self._room_bytes)

    def _look(self, victim: Node) -> None:
        super()._look(victim)
        # After a start, another pool is read.
        self.tasks = self._affected()
        # In a node without memory, not even the counter could be read.
        victim.limit_memory(None)
        if victim.is_up():
            self.kills = _look(victim)[1] - self._kills_before
        elif victim.container.state().out_of_memory:
            self.kills = 1

    def _mend(self, victim: Node) -> None:
        victim.limit_memory(None)
        if not victim.is_up():
            victim.start()
            victim.wait_ready()

    def _affected(self) -> tuple[str, ...]:
        if self._journal is None:
            return ()
        self._said.extend(self._journal.read())
        parent, pool = pool_of(self._said)
        ended = self._before is not None and self._before.status is Status.EXITED
        begin_t = self.injected_t or 0.0
        killed = {
            event.of(Exited)["child"]
            for event in self._said
            if event.kind is Kind.EXITED
            and event.pid == parent
            and event.t >= begin_t
            and event.of(Exited)["code"] == _KILLED
        }
        met = (one.begun for one in pool if ended or one.pid in killed)
        return tuple(sorted({*self.tasks, *(task for begun in met for task in begun)}))

    def _unbroken(self, before: State | None) -> str | None:
        if not self.kills:
            room_mb = self._room_bytes / 2**20
            return (
                f"the kernel killed no process of {self.node}: none asked for more than it could get, {room_mb:g} MiB "
                f"and what cached files that were read twice took; it was seen {before}."
            )
        return None

    def words(self) -> str:
        """Return how many processes the kernel killed, and which tasks they ran."""
        done = f"{self.node} was {self.doing}; the kernel killed {counted(self.kills, 'process', 'processes')} of it"
        if not self.tasks:
            return f"{done}, which ran no task (overlapped=0)"
        return f"{done}, with {counted(len(self.tasks), 'task', 'tasks')}: {', '.join(self.tasks)}"


def _look(victim: Node) -> tuple[int, int]:
    """Return how many bytes a node uses, and how many of its processes the kernel has killed so far.

    Cached files that were read only once are left out: the kernel gives them up first.
    """
    said = victim.container.execute("sh", "-c", _LOOK)
    first, *others = said.splitlines() or [""]
    counts = dict(line.split() for line in others if len(line.split()) == 2)  # noqa: PLR2004 - a name and its value.
    try:
        return int(first) - int(counts["inactive_file"]), int(counts["oom_kill"])
    except (ValueError, KeyError):
        raise UsageError(f"the memory of {victim.name} cannot be read: its kernel says {said.strip()!r}.") from None
