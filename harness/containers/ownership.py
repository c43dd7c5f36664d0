"""The owners of what was started, and which of them are dead.

Every container, network and volume has the label of its owner, the process that started it. With it, `sweep` finds
what a dead owner left behind.
"""

import hashlib
import math
import os
import platform
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from harness.containers.engine import Engine

OWNER_LABEL = "celery-harness.owner"
"""The process that started a container or a network: see `Owner`."""
ENGINE_LABEL = "celery-harness.engine"
"""The `Engine` of that process: it may have several, and each removes its own."""
NODE_LABEL = "celery-harness.node"
"""The node's name within its stack."""
RUN_LABEL = "celery-harness.run"
"""The name of the run that a node belongs to, if there is one."""

_START_TOLERANCE_S = 2.0


# -------------------------------------------------------------------------------------------------- ownership


@dataclass(frozen=True, kw_only=True)
class Owner:
    """A process, with a name that no other process of any machine has."""

    place: str
    """The machine and its pid namespace; pids are meaningless outside of it."""
    boot: str
    """The boot of that machine; `-` if the system does not tell boots apart."""
    pid: int
    start_s: float
    """The start of the process, in seconds since the boot: unlike a Unix time, it does not change with the clock."""

    @classmethod
    def here(cls) -> "Owner":
        """Return the current process."""
        pid = os.getpid()
        return cls(place=_place(), boot=_boot(), pid=pid, start_s=_process_start_s(pid) or 0.0)

    @classmethod
    def from_label(cls, label: str) -> "Owner | None":
        """Return the owner whose `str` is `label`; None if it is none."""
        try:
            place, boot, pid, start_s = label.split("/")
            return cls(place=place, boot=boot, pid=int(pid), start_s=float(start_s))
        except ValueError:
            return None

    @staticmethod
    def lives(label: str) -> bool:
        """Return whether the process that `label` names may still run."""
        return not owner_is_dead(label, Owner.here(), _process_start_s)

    def is_named_by(self, label: str) -> bool:
        """Return whether `label` names this process; the start times may differ by rounding."""
        other = Owner.from_label(label)
        return (
            other is not None
            and (other.place, other.boot, other.pid) == (self.place, self.boot, self.pid)
            and abs(other.start_s - self.start_s) <= _START_TOLERANCE_S
        )

    def __str__(self) -> str:
        return f"{self.place}/{self.boot}/{self.pid}/{self.start_s:.2f}"


def owner_is_dead(label: str, here: Owner, process_start_s: Callable[[int], float | None]) -> bool:
    """Return whether the owner named by `label` has certainly ended.

    Args:
        label: the value of an owner label.
        here: any process of the place from which we judge. Owners of other places never count as dead.
        process_start_s: returns when the process with this pid started, in seconds since the boot; None if there is
            no such process, NaN if there is one and nothing more is known.
    """
    owner = Owner.from_label(label)
    if owner is None or owner.place != here.place:
        return False
    if owner.boot != here.boot:
        return True
    start_s = process_start_s(owner.pid)
    # A process that started at another time has only the same number. NaN compares false: it lives.
    return start_s is None or abs(start_s - owner.start_s) > _START_TOLERANCE_S


def _process_start_s(pid: int) -> float | None:
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return process.create_time() - psutil.boot_time()
    except psutil.AccessDenied:
        return math.nan
    except psutil.NoSuchProcess:
        # If /proc hides the processes of other users, only the system call tells that they exist.
        return math.nan if psutil.pid_exists(pid) else None


def _place() -> str:
    try:
        machine = Path("/etc/machine-id").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        machine = f"{uuid.getnode():x}"
    # Containers of one image may share a machine id and differ in the host name; virtual machines of one
    # template the other way round.
    name = hashlib.sha256(f"{machine} {platform.node()}".encode()).hexdigest()[:16]
    try:
        namespace = os.stat("/proc/self/ns/pid").st_ino  # noqa: PTH116 - the link's target is what is asked for.
    except OSError:
        namespace = 0
    return f"{name}.{namespace}"


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "-"


# --------------------------------------------------------------------------------------------------- sweeping


def sweep(engine: Engine) -> list[str]:
    """Remove the containers, networks and volumes of every dead owner of this place, and return their names.

    What a living process started, here or elsewhere, stays. Any number of sweepers may run at once.

    Raises:
        EngineError: the engine does not answer or failed to remove something.
    """
    here = Owner.here()
    return engine.remove_owned(lambda owner: owner_is_dead(owner, here, _process_start_s))


def remove_all(engine: Engine) -> list[str]:
    """Remove everything that has an owner label, dead or alive, ours or not, and return the names.

    Raises:
        EngineError: the engine does not answer or failed to remove something.
    """
    return engine.remove_owned(lambda _: True)
