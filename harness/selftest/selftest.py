"""The selftest: a clean run as the control, then each plant, in its record or in real parts."""

from collections.abc import Generator
from pathlib import Path

from harness.records.finding_codes import Code
from harness.records.verdict import Fate
from harness.selftest import clean_run, live_plants, record_plants
from harness.selftest.plant import Outcome, Seen
from harness.stack.shared_parts import SharedParts

_CONTROL = Seen(fates={Fate.FAILED: 1})
"""What the audit of the clean run has to say: one task fails, as expected."""


def planted() -> int:
    """Return the number of outcomes of a whole selftest, the control among them."""
    return 1 + len(record_plants.plants()) + len(live_plants.PLANTS.all)


def codes() -> frozenset[str]:
    """Return the codes of all findings that have a plant."""
    return frozenset(code for wanted in _wanted() for code in wanted.findings)


def fates() -> frozenset[Fate]:
    """Return the fates that have a plant; `ok` is that of the control."""
    return frozenset({Fate.OK, *(fate for wanted in _wanted() for fate, count in wanted.fates.items() if count > 0)})


def _wanted() -> list[Seen]:
    of_record = [plant.wanted for plant in record_plants.plants()]
    return [*of_record, *(plant.wanted for plant in live_plants.PLANTS.all)]


def unplanted() -> frozenset[str]:
    """Return the fates and the codes of findings that have no plant. A test demands that there are none."""
    return frozenset({code.value for code in Code} - codes() | {fate.value for fate in set(Fate) - fates()})


def run(session: SharedParts, root: Path) -> Generator[Outcome, None, None]:
    """Yield the outcome of the control and of each plant, as they come.

    The plants in the record are audited while those in real parts are made.

    Args:
        session: has the broker.
        root: the folder in which run folders are created.

    Raises:
        HarnessError: a stack could not be started, or a run folder could not be written.
    """
    clean, audited = clean_run.record(session, root)
    seen = Seen.of(audited)
    defect = "Nothing: every task of the app, on two workers, with a mailbox and beat"
    yield Outcome(name="control", defect=defect, wanted=_CONTROL, seen=seen)
    with record_plants.RecordPlants(clean, seen) as of_record:
        yield from live_plants.outcomes(session, root)
        yield from of_record
