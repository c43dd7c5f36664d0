"""The account of a fault, with its recovery: for load.json and for faults.json."""

from collections.abc import Iterable, Sequence

from harness.audit.run_folder import RunFolder
from harness.faults.fault import SHOWN_TASKS, Fault
from harness.measure.load_account import FaultAccount
from harness.measure.recovery import Recovery, Signs, until_next


def recoveries_of(
    faults: Sequence[Fault], signs: Signs | None, samples: Sequence[tuple[float, int]] | None = None
) -> list[Recovery | None]:
    """Return the recovery from each fault of a run, which must have landed; None for all without signs."""
    windows = [fault.window for fault in faults]
    if signs is None or None in windows:
        return [None] * len(faults)
    return [signs.recovery(window, samples) for window in until_next(one for one in windows if one is not None)]


def write_accounts(folder: RunFolder, accounts: Iterable[FaultAccount]) -> None:
    """Write faults.json. Raises RunFolderError."""
    folder.write("faults.json", {"format": 1, "faults": [account.to_json() for account in accounts]})


def account_of(
    fault: Fault,
    text: str,
    planned: str = "",
    *,
    missing: str | None = None,
    error: str | None = None,
    recovery: Recovery | None = None,
) -> FaultAccount:
    """Return the account of a fault; the arguments are the members that the fault itself does not know."""
    return FaultAccount(
        text=text,
        missing=missing,
        error=error,
        planned=planned,
        fault=fault.name,
        node=fault.node,
        begun_t=fault.begun_t,
        injected_t=fault.injected_t,
        healing_t=fault.healing_t,
        healed_t=fault.healed_t,
        overlapped=fault.overlapped,
        tasks=fault.tasks[:SHOWN_TASKS],
        redelivered=fault.redelivered,
        recovery=recovery,
    )
