"""The timetable of faults for a stack under load."""

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from harness.errors import HarnessError, UsageError
from harness.faults.fault import Fault, Target
from harness.faults.fault_account import account_of, recoveries_of
from harness.faults.fault_text import KINDS, fault_of
from harness.faults.kill_pool_process import KillPoolProcess
from harness.measure.durations import parse_duration_s
from harness.measure.load_account import FaultAccount
from harness.measure.recovery import Recovery, Signs
from harness.records.finding_codes import Code
from harness.records.moment import Arrival, Moment
from harness.records.verdict import Finding, Verdict

DEFAULT_FOR_S = 5.0
"""Default duration of a fault in seconds. A shorter fault meets fewer tasks; a longer one needs a longer load, because
the recovery is measured as well."""
_JOIN_S = 180.0
"""The longest wait for the thread that injects and heals. It may have to wait for a worker, which has 120 s to get
ready after its start (`Node.wait_ready`). A fault that is not healed in time has not landed. A longer wait would delay
the account if the engine does nothing."""
_REACHED_S = 20.0
"""Seconds after all steps were taken within which a task has to reach the moment of a fault. A killed worker takes some
seconds until it goes on with the tasks that are left."""
_LOOK_S = 0.02
"""Seconds between two looks whether a task has reached the moment of a fault."""
MOMENTS = (Moment.RECEIVED, Moment.STARTED, Moment.EFFECT, Moment.RETURNED, Moment.STORED, Moment.ACKNOWLEDGED)
"""The moments at which a fault can be planned: those of a task that is with a worker."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One planned fault and its time, or its moment."""

    fault: str
    """The fault as the command line writes it; see `harness.faults.fault_text`."""
    at_s: float = 0.0
    """Seconds after the load begins. Of no meaning with a moment."""
    for_s: float = DEFAULT_FOR_S
    """Seconds from its injection to its healing."""
    moment: Moment | None = None
    """The moment of a task at which it is injected, instead of a time; the task is held until then."""
    nth: int = 1
    """Which one of the tasks that reach the moment, from 1; on the broken node, if the fault names a certain one."""

    def __post_init__(self) -> None:
        """Refuse what is no fault, a negative time, and a duration of zero. Raises UsageError."""
        fault_of(self.fault)
        if self.at_s < 0 or self.for_s <= 0:
            raise UsageError(f"the fault {self} can never be; let it begin at 0s or later, and last more than 0s.")
        if self.moment is not None and (self.moment not in MOMENTS or self.nth < 1):
            raise UsageError(f"the fault {self} can never be; the moments are {', '.join(MOMENTS)}, counted from 1.")

    @property
    def needs_link(self) -> bool:
        """True if the stack needs a link for it."""
        return fault_of(self.fault).needs_link

    def __str__(self) -> str:
        when = f"{self.at_s:g}s" if self.moment is None else f"{self.moment.value}:{self.nth}"
        return f"{self.fault}@{when}+{self.for_s:g}s"


def parse(text: str) -> Planned:
    """Parse a planned fault. Raises UsageError.

    Args:
        text: ``kill-worker@20s`` or ``kill-worker@20s+10s``: the fault, its time, its duration; or the moment of a task
            in the place of the time, as in ``kill-worker@started`` or ``kill-worker-2@started:3+10s``.
    """
    name, at, moment = text.strip().partition("@")
    if not at:
        example = f"{name if name.partition('-')[0] in KINDS else 'kill-worker'}@20s+5s"
        raise UsageError(f"{text!r} says no time; write FAULT@WHEN or FAULT@WHEN+HOW-LONG, such as {example}.")
    begin, plus, duration = moment.partition("+")
    for_s = parse_duration_s(duration) if plus else DEFAULT_FOR_S
    if not begin[:1].isalpha():
        return Planned(fault=name, at_s=parse_duration_s(begin), for_s=for_s)
    reached, _, nth = begin.partition(":")
    if reached not in MOMENTS or not re.fullmatch(r"|[1-9]\d{0,8}", nth):
        raise UsageError(
            f"{begin!r} is neither a time nor a moment; a moment is {', '.join(MOMENTS)}, or the third task that "
            "reaches it, as in started:3."
        )
    return Planned(fault=name, for_s=for_s, moment=Moment(reached), nth=int(nth or 1))


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


class Held(Protocol):
    """A task that is held at a moment of its life, or is to be held."""

    @property
    def held(self) -> Arrival | None:
        """The task, once it is held; None before."""

    def let_go(self) -> None:
        """Let it go on, or hold none any more."""


class HoldingTarget(Target, Protocol):
    """A stack that can hold tasks."""

    def hold(
        self, name: str | None, moment: Moment, *, task: str | None = None, nth: int = 1, node: str | None = None
    ) -> Held:
        """Hold the next task that reaches a moment, until the handle lets it go on."""


class FaultTimetable:
    """A runner of planned faults: injects and heals them, one after another, in its own thread."""

    def __init__(
        self,
        stack: HoldingTarget,
        planned: Sequence[Planned],
        *,
        signs: Signs | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Plan the faults; `start` begins.

        Args:
            stack: the stack that they break; it must stay up until `stop` has returned.
            planned: in any order. They may overlap; while one is being healed, which for a worker lasts until it is
                ready, others are healed as well, and the next one that is to be injected waits.
            signs: gets the events of the stack's journal, from whoever reads it; None if no recovery is measured.
            now: returns Unix time in seconds.
        """
        self._now = now
        self._signs = signs
        self._begin_t = 0.0
        self.records: list[Record] = []
        """The outcome of each fault, in the order of their times. Final once `stop` has returned."""
        turns = Counter[str]()
        self._stack = stack
        self._held = dict[int, Held]()
        """The task at whose moment a fault is injected, by the fault's number."""
        self._given_up_t = float("inf")
        """The time after which no task is waited for any more."""
        for plan in sorted(planned, key=lambda plan: plan.at_s):
            fault = fault_of(plan.fault)
            fault.on(stack, turn=turns[fault.name], now=now)
            turns[fault.name] += 1
            self.records.append(Record(planned=plan, fault=fault))
        self._begun: set[int] = set()
        self._over: set[int] = set()
        self._healers: list[threading.Thread] = []
        """The threads that heal a fault each; none if the caller of `advance` heals."""
        self._is_threaded = False
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
        self.arm()
        self._thread = threading.Thread(target=self._run, args=[begin_t], name="faults", daemon=True)
        self._thread.start()

    def arm(self) -> None:
        """Hold the tasks at whose moments faults are planned. `start` calls this; without it, any caller may."""
        for number, record in enumerate(self.records):
            if (moment := record.planned.moment) is not None:
                wanted = record.fault.wanted
                node = wanted if re.fullmatch(r"worker-\d+", wanted) else None
                self._held[number] = self._stack.hold(None, moment, nth=record.planned.nth, node=node)

    def give_up(self, after_s: float) -> None:
        """Wait no longer than some seconds for a task to reach the moment of a fault."""
        self._given_up_t = self._now() + after_s

    def finish(self) -> None:
        """Return when every fault was injected and healed, at its time; then stop.

        A fault that is not healed three minutes after the last of these times has not landed, nor has one whose moment
        no task reaches within 20 s.
        """
        self.give_up(_REACHED_S)
        ends_t = [
            (self._begin_t + plan.at_s if plan.moment is None else self._given_up_t) + plan.for_s
            for plan in (one.planned for one in self.records)
        ]
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
        begin_s, end_s = (t - self._begin_t for t in (fault.begin_t or 0.0, fault.healed_t or 0.0))
        after = "" if recovery is None else f"; {recovery.words()}"
        return f"{record.planned}: {fault.words()}; from {begin_s:.1f} s until {end_s:.1f} s of the run{after}."

    def _run(self, begin_t: float) -> None:
        self._is_threaded = True
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
                self._begin_healing(number)
            else:
                self._inject(number)
        return None if due is None else due[0]

    def _next(self) -> tuple[float, int] | None:
        """Return the time and the number of the next fault that is due; None if nothing is left."""
        due = []
        # What is broken while another fault is being healed could be taken for a part of that.
        least_t = self._now() + _LOOK_S if any(healer.is_alive() for healer in self._healers) else 0.0
        for number, record in enumerate(self.records):
            if number in self._held and number not in self._begun:
                is_due = self._held[number].held is not None or self._now() >= self._given_up_t
                due.append((least_t if is_due else self._now() + _LOOK_S, number))
            elif number not in self._begun:
                due.append((max(self._begin_t + record.planned.at_s, least_t), number))
            elif number not in self._over:
                # A fault that came late lasts as long as planned; one that was injected in part is healed at once.
                due.append(((record.injected_t or 0.0) + record.planned.for_s, number))
        return min(due, default=None)

    def _inject(self, number: int) -> None:
        if number in self._held:
            self._inject_at_moment(number, self._held[number])
            return
        self._begun.add(number)
        fault = self.records[number].fault
        self._note(number, self._attempt(fault.inject), "it is not healed yet.")

    def _inject_at_moment(self, number: int, hold: Held) -> None:
        record, arrival = self.records[number], hold.held
        if arrival is None and self._now() < self._given_up_t:
            return
        self._begun.add(number)
        try:
            if arrival is None:
                self._over.add(number)
                plan = record.planned
                self._note(number, None, f"no task was number {plan.nth} to come to the moment {plan.moment}.")
            else:
                _aim(record.fault, arrival)
                self._note(number, self._attempt(record.fault.inject), "it is not healed yet.")
        finally:
            hold.let_go()

    def _begin_healing(self, number: int) -> None:
        self._over.add(number)
        if not self._is_threaded:
            self._heal(number)
            return
        # A worker may wait for a broker that is to be healed after it.
        healer = threading.Thread(target=self._heal, args=[number], name="healing", daemon=True)
        self._healers.append(healer)
        healer.start()

    def _heal(self, number: int) -> None:
        fault = self.records[number].fault
        error = self._attempt(fault.heal)
        self._note(number, error, fault.landed())

    def _heal_all(self) -> None:
        """Heal what is broken, all of it before any is waited for. One that could not be healed is tried once more."""
        for hold in self._held.values():
            hold.let_go()
        for number in sorted(self._begun):
            if number not in self._over:
                self._begin_healing(number)
        for healer in self._healers:
            healer.join()
        for number in sorted(self._begun):
            never_came = number in self._held and self._held[number].held is None
            if self.records[number].healed_t is None and not never_came:
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


def _aim(fault: Fault, arrival: Arrival) -> None:
    """Let a fault break the worker that has the task, unless it names another node, or its process."""
    if fault.wanted == "worker":
        fault.wanted = arrival.node
    if isinstance(fault, KillPoolProcess):
        fault.task = fault.task or arrival.task
