"""The faults that a test injects into its stack: what each did, and what the verdict has to say of it."""

from collections import Counter
from dataclasses import dataclass
from typing import TypeVar

from harness.audit.in_hand import is_any_sent
from harness.errors import HarnessError, noted_on
from harness.faults.fault import SHOWN_TASKS, Fault, Target
from harness.faults.fault_account import account_of, recoveries_of, write_accounts
from harness.measure.recovery import Recovery, Signs
from harness.measure.stages import Stages
from harness.records.finding_codes import Code
from harness.records.journal import read
from harness.records.verdict import Finding, Verdict

AnyFault = TypeVar("AnyFault", bound=Fault)


@dataclass
class _Injected:
    fault: Fault
    error: str | None = None
    """The first error while it was injected or healed, in one sentence."""


class Injections:
    """The faults of one stack, in the order in which they were injected."""

    def __init__(self, stack: Target) -> None:
        """Begin without a fault. `stack` is what they break."""
        self._stack = stack
        self._all: list[_Injected] = []
        self._turns = Counter[str]()

    def inject(self, fault: AnyFault) -> AnyFault:
        """Inject a fault, and return it when it is seen broken. If that fails, what was broken is healed at once.

        Raises:
            HarnessError: it cannot be injected, or was used before.
        """
        fault.on(self._stack, turn=self._turns[fault.name])
        self._turns[fault.name] += 1
        one = _Injected(fault)
        self._all.append(one)
        try:
            fault.inject()
        except BaseException as error:
            one.error = _sentence(error)
            with noted_on(error):
                fault.heal()
            raise
        return fault

    def heal_all(self) -> None:
        """Heal what is still broken, the latest first. A fault that cannot be healed becomes a finding."""
        for one in reversed(self._all):
            if one.fault.healed_t is None:
                try:
                    one.fault.heal()
                except HarnessError as error:
                    one.error = one.error or _sentence(error)

    def findings(self) -> list[Finding]:
        """Return one finding for each fault, and write faults.json. Call it when all is healed and at rest.

        A fault without proof and one that met no task are unknown: the run does not show what it was there to show.

        Raises:
            RunFolderError: the file cannot be written.
        """
        if not self._all:
            return []
        reasons = [one.error or one.fault.landed() for one in self._all]
        for one in self._all:
            one.fault.follow()
        landed = [one.fault for one, reason in zip(self._all, reasons, strict=True) if reason is None]
        recoveries = iter(recoveries_of(landed, self._signs() if landed else None))
        found, accounts = [], []
        for one, reason in zip(self._all, reasons, strict=True):
            recovery = next(recoveries) if reason is None else None
            found.append(self._finding(one.fault, reason, recovery))
            account = account_of(one.fault, found[-1].text, missing=reason, error=one.error, recovery=recovery)
            accounts.append(account)
        write_accounts(self._stack.folder, accounts)
        return found

    def _signs(self) -> Signs:
        """Read the whole journal."""
        signs = Signs(stages := Stages(lambda _: None))
        for event in sorted(read(self._stack.folder.journal), key=lambda event: event.t):
            stages.take(event)
            signs.take(event)
        return signs

    def _finding(self, fault: Fault, reason: str | None, recovery: Recovery | None) -> Finding:
        if reason is not None:
            text = f"{fault.name} did not land: {reason}"
            return Finding(code=Code.FAULT_NOT_LANDED, verdict=Verdict.UNKNOWN, count=1, text=text)
        begin_t, end_t = fault.begin_t or 0.0, fault.healed_t or 0.0
        if fault.meets_tasks and not fault.tasks and not is_any_sent(self._stack.folder.journal, begin_t, end_t):
            text = (
                f"{fault.name}: {fault.words()}; nor was a task sent until it was healed. So this run does not "
                "show what becomes of tasks then: hold a task meanwhile, or send some."
            )
            return Finding(code=Code.FAULT_MET_NOTHING, verdict=Verdict.UNKNOWN, count=1, text=text)
        after = "" if recovery is None else f"; {recovery.words()}"
        text = f"{fault.name}: {fault.words()}; it lasted {end_t - begin_t:.1f} s{after}."
        return Finding(code=Code.FAULT, verdict=Verdict.PASS, count=1, text=text, tasks=fault.tasks[:SHOWN_TASKS])


def _sentence(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
