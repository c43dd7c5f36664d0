"""Defects of the parts themselves, each planted in a real stack, one after another, with a real audit after each."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.audit import results
from harness.audit.audit import Audit, AuditError
from harness.audit.run_folder import RunFolder
from harness.faults.kill import Kill
from harness.faults.pause import Pause
from harness.faults.timetable import FaultTimetable, parse
from harness.project.needs import EffectQuery
from harness.records.expectation import Expect
from harness.records.verdict import Fate, Finding, Verdict
from harness.running.run import checked
from harness.scenario import Drive, Scenario
from harness.selftest.clean_run import spec
from harness.selftest.plant import Outcome, Plant, Plants, Seen, sentence
from harness.stack.attached import Attached
from harness.stack.shared_parts import SharedParts
from harness.stack.stack import Stack
from harness.wait import wait_until

FAIL, UNKNOWN, REMARK = Verdict.FAIL, Verdict.UNKNOWN, Verdict.PASS
_LONG_S = 600.0
"""Seconds for which a task runs that is to be killed. No plant lasts as long."""
_STARTED_S = 60.0
"""The longest wait for a task to begin, in seconds. A shorter one would end on a busy machine."""


class LiveStack:
    """A real stack with one worker, in which plants are made one after another."""

    def __init__(self, session: SharedParts, root: Path) -> None:
        """Create it without starting anything; run folders are made in `root`."""
        self.session = session
        self.root = root
        self._closing = ExitStack()
        self.audited: Audit | None = None
        """The audit of the last plant; None if it was not made."""
        self.is_of_another = False
        """Whether the last audit was of another system than this stack."""

    def __enter__(self) -> Self:
        """Start the stack. Raises HarnessError."""
        rows = {"order": EffectQuery(query="SELECT number FROM orders")}
        folder = RunFolder.create(self.root, "selftest-live")
        self.stack = self._closing.enter_context(Stack(self.session, spec(effects=rows), folder))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the stack down."""
        self._closing.close()

    def forget(self) -> None:
        """Forget the last audit."""
        self.audited = None

    def send(self, name: str, *args: object) -> str:
        """Send a task without effects, and return its id."""
        return self.stack.producer.send(name, list(args), expect=Expect(effects=[])).task

    def settle(self, findings: Sequence[Finding] = ()) -> None:
        """Wait until everything is at rest, and audit."""
        self.is_of_another = False
        self.audited = self.stack.settle(checks=lambda: findings)


PLANTS = Plants[LiveStack]()
plant = PLANTS.add


@plant(EFFECTS_UNSEEN=UNKNOWN)
def rows_unseen(live: LiveStack) -> None:
    """The table that a query of the settings reads is not there."""
    live.send("note")
    live.settle()


@plant()
def control_of_the_stack(live: LiveStack) -> None:
    """Nothing: a task that writes a row."""
    live.stack.producer.send("order", [1], expect=Expect(result=1, effects=["order:1"]))
    live.settle()


class _Crashing(Scenario):
    """A scenario whose check raises an exception."""

    name = "crashing"

    def step(self, *_: object) -> None:
        """Do nothing."""

    def check(self, *_: object) -> Iterator[Finding]:
        """Raise."""
        raise KeyError("on purpose")


@plant(CHECK_CRASHED=UNKNOWN)
def check_crashed(live: LiveStack) -> None:
    """The check of a scenario raises an exception."""
    live.settle(list(checked(_Crashing(), live.stack, Drive(count=1, seed=1))))


@plant(FAULT_NOT_LANDED=UNKNOWN)
def fault_not_landed(live: LiveStack) -> None:
    """A run ends before a fault of its timetable is due."""
    table = FaultTimetable(live.stack, [parse("noop@3600s")])
    table.stop()
    live.settle(list(table.findings()))


@plant(FAULT_MET_NOTHING=UNKNOWN)
def fault_met_nothing(live: LiveStack) -> None:
    """A worker is paused while it has nothing to do."""
    with live.stack.inject(Pause()):
        pass
    live.settle()


@plant({Fate.LOST: 1}, LOST=FAIL, FAULT=REMARK)
def killed_in_mid_task(live: LiveStack) -> None:
    """A worker is killed in a task that it acknowledged early."""
    task = live.send("early", _LONG_S)
    wait_until(lambda: task in live.stack.ledger.started(), what="the task began", timeout_s=_STARTED_S)
    with live.stack.inject(Kill()):
        pass
    live.settle()


@plant({Fate.PENDING: 1}, PENDING=UNKNOWN)
def no_worker(live: LiveStack) -> None:
    """No worker runs any more when a task is sent."""
    live.stack.workers[0].stop()
    live.send("note")
    live.settle()


@plant(
    {Fate.UNKNOWN: 1},
    RESULTS_NOT_COPIED=UNKNOWN,
    UNKNOWN=UNKNOWN,
    UNWITNESSED_EXECUTIONS=UNKNOWN,
    UNWITNESSED_BROKER=UNKNOWN,
    RESULTS_UNREADABLE=UNKNOWN,
)
def results_not_copied(live: LiveStack) -> None:
    """The results of a run elsewhere are damaged before its end."""
    folder = RunFolder.create(live.root, "selftest-attached")
    elsewhere = folder.path / "app" / "elsewhere.sqlite3"
    results.create(elsewhere)
    with Attached(live.stack.login.amqp_url_outside, f"sqlite:///{elsewhere}", folder) as attached:
        attached.producer.send("note")
        elsewhere.write_bytes(b"no database" * 100)
        live.audited = attached.settle(timeout_s=0.5)
    live.is_of_another = True


def outcomes(session: SharedParts, root: Path) -> Iterator[Outcome]:
    """Make each plant in a real stack, and yield its outcome: what the audit says that it did not say before."""
    before = Seen()
    with LiveStack(session, root) as live:
        for one in PLANTS.all:
            outcome = _outcome(one, live, before)
            yield outcome
            if live.audited is not None and not live.is_of_another:
                before = Seen.of(live.audited)


def _outcome(one: Plant[LiveStack], live: LiveStack, before: Seen) -> Outcome:
    live.forget()
    try:
        one.make(live)
    except AuditError as error:
        return one.outcome(Seen(), error=sentence(error))
    except Exception as error:  # noqa: BLE001 - the others go on, and this one is told.
        return one.not_made(sentence(error))
    if live.audited is None:
        return one.not_made("it was not audited")
    return one.outcome(Seen.of(live.audited, Seen() if live.is_of_another else before))
