"""The Python that an app's image has, and which environment markers hold there."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from packaging.markers import Marker

_MACHINES = ("x86_64", "aarch64")
_PATCHES = (0, 99)
_QUOTED_IN = re.compile(r"""(["'])(?P<name>[^"']+)\1\s+(?P<not>not\s+)?in\s+(?P<set>extras|dependency_groups)""")
_ALWAYS, _NEVER = "python_version >= '0'", "python_version < '0'"


@dataclass(frozen=True)
class Target:
    """CPython of one minor version on Linux. The patch version and the machine are known only to the image."""

    python: str
    """The minor version, such as `3.13`."""

    def holds(self, marker: str) -> bool | None:
        """Return whether a marker holds there; None if that depends on the patch version or the machine.

        Raises:
            ValueError: it is no marker.
        """
        if not marker:
            return True
        parsed = Marker(marker)
        answers = {parsed.evaluate(environment) for environment in self._environments}
        return answers.pop() if len(answers) == 1 else None

    @cached_property
    def _environments(self) -> list[dict[str, str]]:
        return list(self._possible())

    def _possible(self) -> Iterator[dict[str, str]]:
        for machine in _MACHINES:
            for patch in _PATCHES:
                full = f"{self.python}.{patch}"
                yield {
                    "implementation_name": "cpython",
                    "implementation_version": full,
                    "os_name": "posix",
                    "platform_machine": machine,
                    "platform_python_implementation": "CPython",
                    "platform_release": "",
                    "platform_system": "Linux",
                    "platform_version": "",
                    "python_full_version": full,
                    "python_version": self.python,
                    "sys_platform": "linux",
                    "extra": "",
                }


def chosen(marker: str, extras: frozenset[str], groups: frozenset[str]) -> str:
    """Return a lock's marker for a choice of extras and groups, in words that pip knows.

    pip itself knows neither `'redis' in extras` nor `'dev' in dependency_groups`.
    """

    def said(found: re.Match[str]) -> str:
        among = extras if found["set"] == "extras" else groups
        return _ALWAYS if (found["name"] in among) is not bool(found["not"]) else _NEVER

    return _QUOTED_IN.sub(said, marker)
