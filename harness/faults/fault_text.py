"""Faults as the command line writes them: `kill-worker`, `kill-worker-2,signal=SIGTERM`."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from harness.errors import UsageError
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
from harness.faults.stop import Stop
from harness.faults.two_beats import TwoBeats

_FAULTS: tuple[type[Fault], ...] = (
    Bandwidth,
    ClockJump,
    CloseConnections,
    DiskAlarm,
    DropConfirms,
    FullDisk,
    HalfOpen,
    HoldAcks,
    Kill,
    KillPoolProcess,
    Latency,
    LockResults,
    MemoryAlarm,
    Noop,
    OutOfMemory,
    Partition,
    Pause,
    RejectMail,
    Reset,
    Restart,
    SlowMail,
    Stop,
    TwoBeats,
)
KINDS: Mapping[str, type[Fault]] = MappingProxyType({fault.kind: fault for fault in _FAULTS})
"""Every fault class by its kind."""
_NODES = ("worker", "beat", "web", "mailbox", "broker", "producer")
"""The nodes that a fault can break, by what they are."""


def fault_of(text: str) -> Fault:
    """Return the fault that a text describes, on no stack yet.

    Args:
        text: the kind, then `-` and the node if it breaks one, then the options: `kill-worker,signal=SIGTERM`.

    Raises:
        UsageError: there is no such kind or option, or a value is none of that option.
    """
    name, *options = text.strip().split(",")
    kind = max((kind for kind in KINDS if f"{name}-".startswith(f"{kind}-")), key=len, default=None)
    if kind is None:
        raise UsageError(f"there is no fault {name!r}; there are {', '.join(sorted(KINDS))}, as in kill-worker.")
    made = KINDS[kind]
    node = name.removeprefix(kind).removeprefix("-")
    if node and not made.breaks_node:
        raise UsageError(f"the fault {kind} breaks no node, so {node!r} cannot be named.")
    if node and not re.fullmatch(rf"({'|'.join(_NODES)})(-\d+)?", node):
        raise UsageError(
            f"there is no fault {name!r}, as no stack has a node {node!r}: a node is {', '.join(_NODES)}, or one of "
            "several, such as worker-2."
        )
    given: dict[str, Any] = {}
    for option in options:
        key, _, value = option.partition("=")
        if key not in made.options:
            there = ", ".join(sorted(made.options)) or "none"
            raise UsageError(f"the fault {kind} has no option {key!r}; it has {there}.")
        try:
            given[key] = made.options[key](value)
        except ValueError as error:
            raise UsageError(f"{option!r} of the fault {kind}: {error}") from None
    return made(**({"node": node} if node else {}), **given)
