"""A fault: a client and the broker are connected by a slow line."""

from types import MappingProxyType

from harness.errors import UsageError
from harness.faults.fault import counted
from harness.faults.link_fault import LinkFault, way_of
from harness.records.link import Disturbance, Report, Trouble, Way


class Bandwidth(LinkFault):
    """No more than some bytes per second pass, in each direction or in one. The connections of a client share them.

    Proof: bytes had to wait for others.
    """

    kind = "bandwidth"
    trouble = Trouble.BANDWIDTH
    options = MappingProxyType({"bytes_per_s": float, "way": way_of})

    def __init__(self, node: str = "", *, bytes_per_s: float = 10_000, way: Way | None = None) -> None:
        """Describe the fault.

        Args:
            node: the client; see `LinkFault`.
            bytes_per_s: how many bytes pass in a second, in each direction.
            way: the direction; None for both.

        Raises:
            UsageError: `bytes_per_s` is not above 0.
        """
        super().__init__(node)
        if not 0 < bytes_per_s < float("inf"):
            raise UsageError(f"bytes_per_s is {bytes_per_s:g}; give a number above 0. HalfOpen lets nothing pass.")
        self.bytes_per_s, self.way = bytes_per_s, way

    def _disturbance(self, client: str | None) -> Disturbance:
        return Disturbance(trouble=self.trouble, client=client, amount=self.bytes_per_s, way=self.way)

    def _unproven(self, report: Report) -> str | None:
        if not report.byte_count:
            return f"no byte of {self.node} had to wait: it sent and got less than {self.bytes_per_s:g} bytes a second."
        return None

    def _did(self, report: Report) -> str:
        return f"{counted(report.byte_count, 'byte', 'bytes')} waited for a line of {self.bytes_per_s:g} bytes a second"
