"""A fault: a connection stays open, and nothing passes."""

from types import MappingProxyType

from harness.faults.fault import counted
from harness.faults.link_fault import LinkFault, way_of
from harness.records.link import Disturbance, Report, Trouble, Way


class HalfOpen(LinkFault):
    """Nothing passes, in both directions or in one, and neither end is told: connections stay open.

    Even the end of a connection does not pass. New connections are accepted, and get no answer. Healing lets pass what
    was kept back, as TCP does after a short interruption. Only heartbeats can show either end that the other is gone.

    In one direction, it is a partition that only one side notices: what a worker sends is kept back, and it still
    gets tasks; or it gets nothing, and the broker still hears its heartbeats.

    Proof: bytes were kept back. A silent connection is the same with and without the fault. It is told how many bytes
    passed in the other direction. It may be none, as where the broker waits for an acknowledgement that is kept back.
    """

    kind = "half-open"
    trouble = Trouble.HALF_OPEN
    options = MappingProxyType({"way": way_of})

    def __init__(self, node: str = "", *, way: Way | None = None) -> None:
        """Describe the fault.

        Args:
            node: the client; see `LinkFault`.
            way: the direction in which nothing passes; None for both.
        """
        super().__init__(node)
        self.way = way

    def _disturbance(self, client: str | None) -> Disturbance:
        return Disturbance(trouble=self.trouble, client=client, way=self.way)

    def _unproven(self, report: Report) -> str | None:
        if not report.byte_count:
            return f"nothing was sent that could have been kept back from or for {self.node}."
        return None

    def _did(self, report: Report) -> str:
        kept = counted(report.byte_count, "byte", "bytes")
        other = f", and {counted(report.passed, 'byte', 'bytes')} passed the other way" if self.way is not None else ""
        return f"{kept} of {counted(report.connections, 'connection', 'connections')} were kept back{other}"
