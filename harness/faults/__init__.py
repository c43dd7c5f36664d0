"""Faults: injected and healed while tasks flow. One fault per file, and the timetable of a run's faults.

A planned fault without proof makes the verdict unknown: a run that passes because no fault took effect shows nothing.
"""

from harness.faults.fault import Fault
from harness.faults.kill import Kill
from harness.faults.lock_results import LockResults
from harness.faults.mail import RejectMail, SlowMail
from harness.faults.noop import Noop
from harness.faults.partition import Partition
from harness.faults.pause import Pause

__all__ = ["Fault", "Kill", "LockResults", "Noop", "Partition", "Pause", "RejectMail", "SlowMail"]
