"""A fault: a worker acknowledges messages, and the broker does not learn it."""

from harness.faults.fault import counted
from harness.faults.link_fault import LinkFault
from harness.records.link import Report, Trouble


class HoldAcks(LinkFault):
    """Acknowledgements of delivered messages arrive at the healing, and never if their connection ends before.

    Rejections arrive. A worker gets no more messages than its prefetch count allows meanwhile.

    Proof: the number of messages whose acknowledgements were held.
    """

    kind = "hold-acks"
    trouble = Trouble.HOLD_ACKS

    def _unproven(self, report: Report) -> str | None:
        return None if report.frames else f"{self.node} acknowledged no message, so nothing could be held."

    def _did(self, report: Report) -> str:
        gone = f", {report.gone} of them until their connection or channel ended" if report.gone else ""
        return f"{counted(report.frames, 'acknowledgement was', 'acknowledgements were')} held{gone}"
