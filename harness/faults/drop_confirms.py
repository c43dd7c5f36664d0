"""A fault: the broker takes messages, and its confirms do not arrive."""

from harness.faults.fault import counted
from harness.faults.link_fault import LinkFault
from harness.records.link import Report, Trouble


class DropConfirms(LinkFault):
    """The broker's confirms of published messages never arrive. So the sender cannot know that a message was taken.

    The broker's refusals arrive. A client that asks for no confirms notices nothing.

    Proof: the number of messages whose confirms were dropped.
    """

    kind = "drop-confirms"
    trouble = Trouble.DROP_CONFIRMS

    def _unproven(self, report: Report) -> str | None:
        return None if report.frames else f"the broker confirmed no message of {self.node}, so none could be dropped."

    def _did(self, report: Report) -> str:
        return f"the {counted(report.frames, 'confirm', 'confirms')} of the broker did not arrive"
