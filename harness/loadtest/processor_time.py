"""The processor time of a load process: its real-time priority, and the time that the host of its machine took."""

import contextlib
import math
import os
import sys
from typing import NamedTuple

import psutil


def set_realtime_priority(*, is_on: bool) -> None:
    """Give this thread real-time priority over the other processes of its machine, or its normal priority again.

    On the machine of a stack under load, waiting for a processor delays the generator. On two cores that were busy with
    300 tasks a second, the 99th percentile of the delay was 5 to 9 ms. Real-time priority reduced it to 0.2 to 3 ms; a
    lower nice value did not. Real-time priority requires root, CAP_SYS_NICE or a limit `rtprio`. Without these, this
    function changes nothing, and the delay is measured.

    Args:
        is_on: True for real-time priority, False for the normal one.
    """
    if sys.platform != "linux":
        return
    # Its child processes have the normal priority.
    policy = (os.SCHED_RR if is_on else os.SCHED_OTHER) | os.SCHED_RESET_ON_FORK
    # Some sandboxes do not have this system call.
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, policy, os.sched_param(1 if is_on else 0))


class MachineTimes(NamedTuple):
    """Two times of all processors of this machine together, counted from its start, in seconds."""

    stolen_s: float
    """The time that the host of a virtual machine took (steal time); 0 if the system does not report it."""
    all_s: float
    """The whole time, busy or idle."""

    @classmethod
    def read(cls) -> "MachineTimes":
        """Return the times up to now."""
        times = psutil.cpu_times()._asdict()
        # The time of a guest is also part of the time of the process that runs it.
        guests_s = times.get("guest", 0.0) + times.get("guest_nice", 0.0)
        return cls(stolen_s=times.get("steal", 0.0), all_s=math.fsum(times.values()) - guests_s)

    def share_stolen_since(self, before: "MachineTimes") -> float:
        """Return the share of the processor time since an earlier reading that the host took, from 0 to 1."""
        return (self.stolen_s - before.stolen_s) / max(self.all_s - before.all_s, 0.001)
