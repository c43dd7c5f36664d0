"""A fault: what a client and the broker send to each other comes late."""

from types import MappingProxyType

from harness.errors import UsageError
from harness.faults.fault import counted
from harness.faults.link_fault import LinkFault, way_of
from harness.records.link import Disturbance, Report, Trouble, Way


class Latency(LinkFault):
    """Every byte comes some time late, in each direction or in one.

    Proof: bytes arrived that late. Those that the healing lets go before their time do not count.
    """

    kind = "latency"
    trouble = Trouble.LATENCY
    options = MappingProxyType({"seconds": float, "way": way_of})

    def __init__(self, node: str = "", *, seconds: float = 0.2, way: Way | None = None) -> None:
        """Describe the fault.

        Args:
            node: the client; see `LinkFault`.
            seconds: how late, in each direction.
            way: the direction; None for both.

        Raises:
            UsageError: `seconds` is not above 0.
        """
        super().__init__(node)
        if not 0 < seconds < float("inf"):
            raise UsageError(f"seconds is {seconds:g}; give a number above 0.")
        self.seconds, self.way = seconds, way

    def _disturbance(self, client: str | None) -> Disturbance:
        return Disturbance(trouble=self.trouble, client=client, amount=self.seconds, way=self.way)

    def _unproven(self, report: Report) -> str | None:
        if not report.byte_count:
            return f"no byte of {self.node} came {self.seconds:g} s late."
        return None

    def _did(self, report: Report) -> str:
        return f"{counted(report.byte_count, 'byte', 'bytes')} came {self.seconds:g} s late"
