"""Faults: injected and healed while tasks flow. One fault per file, and the timetable of a run's faults.

A planned fault without proof makes the verdict unknown: a run that passes because no fault took effect shows nothing.
"""

from harness.faults.bandwidth import Bandwidth
from harness.faults.clock_jump import ClockJump
from harness.faults.close_connections import CloseConnections
from harness.faults.disk_alarm import DiskAlarm
from harness.faults.drop_confirms import DropConfirms
from harness.faults.fault import Fault
from harness.faults.full_disk import FullDisk
from harness.faults.half_open import HalfOpen
from harness.faults.hold_acks import HoldAcks
from harness.faults.kill import Kill
from harness.faults.kill_pool_process import KillPoolProcess
from harness.faults.latency import Latency
from harness.faults.lock_results import LockResults
from harness.faults.mail import RejectMail, SlowMail
from harness.faults.memory_alarm import MemoryAlarm
from harness.faults.noop import Noop
from harness.faults.out_of_memory import OutOfMemory
from harness.faults.partition import Partition
from harness.faults.pause import Pause
from harness.faults.reset import Reset
from harness.faults.restart import Restart
from harness.faults.stop import Shutdown, Stop
from harness.faults.two_beats import TwoBeats

__all__ = [
    "Bandwidth",
    "ClockJump",
    "CloseConnections",
    "DiskAlarm",
    "DropConfirms",
    "Fault",
    "FullDisk",
    "HalfOpen",
    "HoldAcks",
    "Kill",
    "KillPoolProcess",
    "Latency",
    "LockResults",
    "MemoryAlarm",
    "Noop",
    "OutOfMemory",
    "Partition",
    "Pause",
    "RejectMail",
    "Reset",
    "Restart",
    "Shutdown",
    "SlowMail",
    "Stop",
    "TwoBeats",
]
