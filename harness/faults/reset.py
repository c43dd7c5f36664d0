"""A fault: connections are reset."""

from types import MappingProxyType

from harness.errors import UsageError
from harness.faults.fault import counted
from harness.faults.link_fault import LinkFault, way_of
from harness.records.link import Disturbance, Report, Trouble, Way


def yes_or_no(text: str) -> bool:
    """Return whether a text says yes. Raises UsageError for another text than `yes` and `no`."""
    if text not in {"yes", "no"}:
        raise UsageError(f"{text!r} is neither yes nor no.")
    return text == "yes"


class Reset(LinkFault):
    """The connections are reset, as by a firewall that forgets them. What was on its way is gone.

    If only one end is told, the other stays open, and hears nothing more. It is reset at the healing.

    Proof: the number of connections that were open and were reset.
    """

    kind = "reset"
    trouble = Trouble.RESET
    options = MappingProxyType({"new_too": yes_or_no, "way": way_of})

    def __init__(self, node: str = "", *, new_too: bool = False, way: Way | None = None) -> None:
        """Describe the fault.

        Args:
            node: the client; see `LinkFault`.
            new_too: whether connections that are opened before the healing are reset, too.
            way: the end that is told: TO_CLIENT or TO_BROKER; None for both.
        """
        super().__init__(node)
        self.new_too, self.way = new_too, way

    def _disturbance(self, client: str | None) -> Disturbance:
        return Disturbance(trouble=self.trouble, client=client, new_too=self.new_too, way=self.way)

    def _unproven(self, report: Report) -> str | None:
        return None if report.connections else f"{self.node} had no connection that could be reset."

    def _did(self, report: Report) -> str:
        return f"{counted(report.connections, 'connection was', 'connections were')} reset"
