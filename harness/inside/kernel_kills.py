"""Tells whether the kernel has killed a process of this container for memory."""

import contextlib
from pathlib import Path

_COUNTS = ("memory.events", "memory/memory.oom_control")
"""The files of cgroups of version 2 and of version 1 that count the processes that the kernel killed."""


class KernelKills:
    """Counts the processes of this container that the kernel killed for memory, from one look to the next."""

    def __init__(self, cgroup: Path = Path("/sys/fs/cgroup")) -> None:
        """Take the first look.

        Args:
            cgroup: where the kernel tells of the container's control group.
        """
        self._cgroup = cgroup
        self._seen = self._count()

    def is_more(self) -> bool:
        """Return whether there are more than at the last look; False if the kernel does not tell."""
        before, self._seen = self._seen, self._count()
        return self._seen > before

    def _count(self) -> int:
        for name in _COUNTS:
            with contextlib.suppress(OSError, ValueError, KeyError):
                counts = dict(line.split(maxsplit=1) for line in (self._cgroup / name).read_text().splitlines())
                return int(counts["oom_kill"])
        return 0
