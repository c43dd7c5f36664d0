"""Finds the defects that are planted in the record: audits a changed copy of a clean run for each plant."""

import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.audit.audit import Audit, audit
from harness.audit.run_folder import RunFolder
from harness.selftest import beat_plants, fate_plants, task_plants, witness_plants, worker_plants
from harness.selftest.evidence import Evidence, copy
from harness.selftest.plant import Outcome, Plant, Seen, sentence

Auditor = Callable[[RunFolder], Audit]
_MOST_AT_ONCE = 4
"""The most audits at once. Each has a database of its own, with up to 300 MB; more would not be faster on most
machines."""


def plants() -> list[Plant[Evidence]]:
    """Return all plants in the record, in order."""
    every = (fate_plants, task_plants, witness_plants, worker_plants, beat_plants)
    return [one for module in every for one in module.PLANTS.all]


class RecordPlants:
    """Audits all plants in the record, in threads of its own. A context manager."""

    def __init__(self, clean: RunFolder, control: Seen) -> None:
        """Begin.

        Args:
            clean: the folder of a clean run.
            control: what its audit says.
        """
        self._pool = ThreadPoolExecutor(min(os.cpu_count() or 1, _MOST_AT_ONCE))
        self._outcomes = self._pool.map(lambda plant: outcome(plant, clean, control), plants())

    def __enter__(self) -> Iterator[Outcome]:
        """Return the outcomes, in order, as they come."""
        return self._outcomes

    def __exit__(self, *_: object) -> None:
        """End; what has not begun does not begin any more."""
        self._pool.shutdown(cancel_futures=True)


def outcome(plant: Plant[Evidence], clean: RunFolder, control: Seen, auditor: Auditor = audit) -> Outcome:
    """Make a plant in a copy of the record of a clean run, and return what the auditor says of it."""
    with tempfile.TemporaryDirectory(prefix="celery-harness-selftest-") as scratch:
        evidence = Evidence(copy(clean.path, Path(scratch) / "run"))
        try:
            plant.make(evidence)
            evidence.write()
        except Exception as error:  # noqa: BLE001 - the others go on, and this one is told.
            return plant.not_made(sentence(error))
        try:
            return plant.outcome(Seen.of(auditor(evidence.folder), control))
        except Exception as error:  # noqa: BLE001 - an audit that fails has found nothing.
            return plant.outcome(Seen(), error=sentence(error))
