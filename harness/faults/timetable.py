"""The timetable of faults for a stack under load."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from harness.errors import HarnessError, UsageError
from harness.faults.fault import Fault, Target
from harness.faults.fault_account import account_of, recoveries_of
from harness.faults.fault_text import KINDS, fault_of
from harness.measure.durations import parse_duration_s
from harness.measure.load_account import FaultAccount
from harness.measure.recovery import Recovery, Signs
from harness.records.finding_codes import Code
from harness.records.verdict import Finding, Verdict

DEFAULT_FOR_S = 5.0
"""Default duration of a fault in seconds. A shorter fault meets fewer tasks; a longer one needs a longer load, because
the recovery is measured as well."""
_JOIN_S = 180.0
"""The longest wait for the thread that injects and heals. It may have to wait for a worker, which has 120 s to get
ready after its start (`Node.wait_ready`). A fault that is not healed in time has not landed. A longer wait would delay
the account if the engine does nothing."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One planned fault and its time."""

    fault: str
    """The fault as the command line writes it; see `harness.faults.fault_text`."""
    at_s: float
    """Seconds after the load begins."""
    for_s: float = DEFAULT_FOR_S
    """Seconds from its injection to its healing."""

    def __post_init__(self) -> None:
        """Refuse what is no fault, a negative time, and a duration of zero. Raises UsageError."""
        fault_of(self.fault)
        if self.at_s < 0 or self.for_s <= 0:
            raise UsageError(f"the fault {self} can never be; let it begin at 0s or later, and last more than 0s.")

    @property
    def needs_link(self) -> bool:
        """True if the stack needs a link for it."""
        return fault_of(self.fault).needs_link

    def __str__(self) -> str:
        return f"{self.fault}@{self.at_s:g}s+{self.for_s:g}s"


def parse(text: str) -> Planned:
    """Parse ``kill-worker@20s`` or ``kill-worker@20s+10s``: the fault, its time, its duration. Raises UsageError."""
    name, at, moment = text.strip().partition("@")
    if not at:
        example = f"{name if name.partition('-')[0] in KINDS else 'kill-worker'}@20s+5s"
        raise UsageError(f"{text!r} says no time; write FAULT@WHEN or FAULT@WHEN+HOW-LONG, such as {example}.")
    begin, plus, duration = moment.partition("+")
    for_s = parse_duration_s(duration) if plus else DEFAULT_FOR_S
    return Planned(fault=name, at_s=parse_duration_s(begin), for_s=for_s)


def needs_own_broker(planned: Iterable[Planned]) -> bool:
    """Return whether one of these faults needs a broker of the stack's own."""
    return any(fault_of(one.fault).needs_own_broker for one in planned)


@dataclass(frozen=True, kw_only=True)
class Record:
    """The outcome of one planned fault."""

    planned: Planned
    fault: Fault
    missing: str | None = "the run ended before it was due."
    """The reason why it did not land, in one sentence; None if it landed."""
    error: str | None = None
    """The first error while it was injected or healed."""

    @property
    def landed(self) -> bool:
        """True if there is proof that it was broken until it was healed, and there was no error."""
        return self.missing is None and self.error is None and self.fault.window is not None

    @property
    def injected_t(self) -> float | None:
        """The time when it was seen broken, Unix time in seconds."""
        return self.fault.injected_t

    @property
    def healed_t(self) -> float | None:
        """The time when it was healed, Unix time in seconds."""
        return self.fault.healed_t


def finding_of(account: FaultAccount) -> Finding:
    """Return what the verdict has to say of a planned fault."""
    landed = account.missing is None and account.error is None
    return Finding(
        code=Code.FAULT if landed else Code.FAULT_NOT_LANDED,
        verdict=Verdict.PASS if landed else Verdict.UNKNOWN,
        count=1,
        text=account.text,
        tasks=account.tasks if landed else (),
    )


class FaultTimetable:
    """A runner of planned faults: injects and heals them, one after another, in its own thread."""

    def __init__(
        self,
        stack: Target,
        planned: Sequence[Planned],
        *,
        signs: Signs | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Plan the faults; `start` begins.

        Args:
            stack: the stack that they break; it must stay up until `stop` has returned.
            planned: in any order. They may overlap; while one is being healed, which for a worker lasts until it is
                ready, the next one waits.
            signs: gets the events of the stack's journal, from whoever reads it; None if no recovery is measured.
            now: returns Unix time in seconds.
        """
        self._now = now
        self._signs = signs
        self._begin_t = 0.0
        self.records: list[Record] = []
        """The outcome of each fault, in the order of their times. Final once `stop` has returned."""
        turns = Counter[str]()
        for plan in sorted(planned, key=lambda plan: plan.at_s):
            fault = fault_of(plan.fault)
            fault.on(stack, turn=turns[fault.name], now=now)
            turns[fault.name] += 1
            self.records.append(Record(planned=plan, fault=fault))
        self._begun: set[int] = set()
        self._over: set[int] = set()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, begin_t: float) -> None:
        """Start the thread; the faults' times count from `begin_t`, Unix time in seconds, which may be in the past.

        Raises:
            UsageError: it was started before.
        """
        if self._thread is not None:
            raise UsageError("the faults have been started already; plan them anew for another run.")
        self._begin_t = begin_t
        self._thread = threading.Thread(target=self._run, args=[begin_t], name="faults", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Return when every fault was injected and healed, at its time; then stop.

        A fault that is not healed three minutes after the last of these times has not landed.
        """
        ends_t = [self._begin_t + plan.at_s + plan.for_s for plan in (one.planned for one in self.records)]
        if self._thread is not None:
            self._thread.join(max(0.0, max(ends_t, default=0.0) - self._now()) + _JOIN_S)
        self.stop()

    def stop(self, timeout_s: float = _JOIN_S) -> None:
        """Stop injecting, heal what is broken, and return when that is done, after `timeout_s` seconds at most.

        A fault that is still not healed then has not landed. A second call does nothing.
        """
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def findings(self, samples: Sequence[tuple[float, int]] = ()) -> Iterator[Finding]:
        """Return one finding for each fault: a remark that it landed, or `fault-not-landed` with verdict unknown.

        Args:
            samples: about one a second, in time order: Unix time in seconds, backlog.
        """
        return map(finding_of, self.accounts(samples))

    def accounts(self, samples: Sequence[tuple[float, int]]) -> Iterator[FaultAccount]:
        """Yield what load.json holds of each fault. For the samples see `findings`."""
        landed = [one for one in self.records if one.landed]
        for record in landed:
            # This comes first: it reads which tasks the fault affected.
            record.fault.follow()
        recoveries = iter(recoveries_of([one.fault for one in landed], self._signs, samples))
        for record in self.records:
            if record.landed:
                recovery = next(recoveries)
                yield account_of(record.fault, self._told(record, recovery), str(record.planned), recovery=recovery)
            else:
                missing = record.missing or (None if record.error else "it was not healed.")
                text = f"{record.planned} did not land: {record.error or missing}"
                yield account_of(record.fault, text, str(record.planned), missing=missing, error=record.error)

    def _told(self, record: Record, recovery: Recovery | None) -> str:
        fault = record.fault
        begin_s, end_s = (t - self._begin_t for t in (fault.injected_t or 0.0, fault.healed_t or 0.0))
        after = "" if recovery is None else f"; {recovery.words()}"
        return f"{record.planned}: {fault.words()}; from {begin_s:.1f} s until {end_s:.1f} s of the run{after}."

    def _run(self, begin_t: float) -> None:
        try:
            while (next_t := self.advance(begin_t)) is not None:
                # Every wait ends: at the next fault's time, or at `stop`.
                if self._stopped.wait(max(0.0, next_t - self._now())):
                    return
        finally:
            self._heal_all()

    def advance(self, begin_t: float) -> float | None:
        """Do all that is due by now, and return when the next is due, Unix time in seconds; None if nothing is left.

        The thread calls this; without `start`, any caller may.
        """
        self._begin_t = begin_t
        while (due := self._next()) is not None and due[0] <= self._now() and not self._stopped.is_set():
            _, number = due
            if number in self._begun:
                self._heal(number)
            else:
                self._inject(number)
        return None if due is None else due[0]

    def _next(self) -> tuple[float, int] | None:
        """Return the time and the number of the next fault that is due; None if nothing is left."""
        due = []
        for number, record in enumerate(self.records):
            if number not in self._begun:
                due.append((self._begin_t + record.planned.at_s, number))
            elif number not in self._over:
                # A fault that came late lasts as long as planned; one that was injected in part is healed at once.
                due.append(((record.injected_t or 0.0) + record.planned.for_s, number))
        return min(due, default=None)

    def _inject(self, number: int) -> None:
        self._begun.add(number)
        fault = self.records[number].fault
        self._note(number, self._attempt(fault.inject), "it is not healed yet.")

    def _heal(self, number: int) -> None:
        self._over.add(number)
        fault = self.records[number].fault
        error = self._attempt(fault.heal)
        self._note(number, error, fault.landed())

    def _heal_all(self) -> None:
        """Heal what is broken. A fault that could not be healed in time is tried once more."""
        for number in sorted(self._begun):
            if number not in self._over or self.records[number].healed_t is None:
                self._heal(number)

    def _note(self, number: int, error: str | None, missing: str | None) -> None:
        before = self.records[number]
        # The first error is the one to report.
        self.records[number] = replace(before, missing=missing, error=before.error or error)

    @staticmethod
    def _attempt(act: Callable[[], None]) -> str | None:
        """Call it, and return its error in one sentence; None without an error."""
        try:
            act()
        except HarnessError as error:
            return str(error).partition("\n")[0]
        except Exception as error:  # noqa: BLE001 - the load goes on, and the verdict reports the failure of this fault.
            return f"{type(error).__name__}: {error}"
        return None
