"""A real run in which nothing goes wrong. Its record is the control; defects are planted in copies of it."""

from pathlib import Path

from harness.audit.audit import Audit
from harness.audit.run_folder import RunFolder
from harness.project.needs import EffectQuery
from harness.records.event import Event, Kind
from harness.records.expectation import Expect, mail
from harness.records.values import Json
from harness.stack.shared_parts import SharedParts
from harness.stack.stack import Stack, StackSpec
from harness.wait import wait_until

RECEIPTS = 3
ORDERS = 2
COMPARED = RECEIPTS + ORDERS + 2
"""The tasks whose results are compared: also that which is retried, and that which sends the canvas."""
_PULSES = 5
"""Ticks of beat that are waited for. A plant leaves out two of them in a row, with others before and after."""
_READY_S = 60.0
"""The longest wait for these ticks, in seconds. They take five; a shorter wait would end on a busy machine."""


def spec(**own: Json) -> StackSpec:
    """Return the stack of the selftest's app, with what is said over it."""
    options = ["--concurrency=2", "--without-mingle", "--without-gossip"]
    return StackSpec(app="app", app_folder=Path(__file__).parent, options=options, **own)


def record(session: SharedParts, root: Path) -> tuple[RunFolder, Audit]:
    """Run all tasks of the app on two workers, with a mailbox and beat, and return the run folder and the audit."""
    folder = RunFolder.create(root, "selftest")
    rows = {"order": EffectQuery(query="SELECT number FROM orders")}
    stack = Stack(session, spec(workers=2, mailbox=True, effects=rows), folder)
    ticks = _Ticks()
    stack.listen(ticks.take)
    with stack:
        beat = stack.add_beat()
        send = stack.producer.send
        for number in range(RECEIPTS):
            to = f"customer.{number}@example.com"
            send("receipt", [to], expect=Expect(result=to, effects=[mail(to=to)]))
        for number in range(ORDERS):
            send("order", [number], expect=Expect(result=number, effects=[f"order:{number}"]))
        send("fail", expect=Expect(state="FAILURE", error="KeyError", effects=[]))
        send("again", expect=Expect(result="done", effects=[]))
        send("canvas", expect=Expect(result="sent", effects=[]))
        send("note", countdown_s=0.5, expect=Expect(effects=[]))
        wait_until(lambda: ticks.count(stack) >= _PULSES, what="beat sent its ticks", timeout_s=_READY_S)
        beat.stop()
        return folder, stack.settle()


class _Ticks:
    """Counts what beat sends."""

    def __init__(self) -> None:
        self._sent = 0

    def take(self, event: Event) -> None:
        """Take one event of the journal."""
        self._sent += event.kind is Kind.INTENDED and "entry" in event.data

    def count(self, stack: Stack) -> int:
        """Read the journal, and return the number of ticks so far."""
        stack.follow()
        return self._sent
