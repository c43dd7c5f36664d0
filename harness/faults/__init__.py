"""Faults: injected and healed while tasks flow. One fault per file, and the timetable of a run's faults.

A planned fault without proof makes the verdict unknown: a run that passes because no fault took effect shows nothing.
"""

from collections.abc import Mapping
from types import MappingProxyType

from harness.faults.fault import Fault, Noop
from harness.faults.kill_worker import KillWorker
from harness.faults.pause_broker import PauseBroker
from harness.faults.pause_worker import PauseWorker

FAULTS: Mapping[str, type[Fault]] = MappingProxyType(
    {fault.name: fault for fault in (KillWorker, PauseWorker, PauseBroker, Noop)}
)
"""Every fault class by its name."""
