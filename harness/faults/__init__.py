"""What is broken and mended while tasks flow: one fault a file, and the timetable of a run's faults.

A fault that was asked for and has no proof turns the verdict to unknown: a run that passes because nothing was broken
would say nothing.
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
"""Every fault by its name."""
