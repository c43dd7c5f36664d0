"""Docker's options for a node beside its image, command and ports, as plain dictionaries.

They set the node's identity on its machine, and limit the harm that it can do. No engine is asked.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.containers.engine import CALLER, LOOPBACK, NodeSpec, memory_limit_bytes
from harness.containers.image_recipes import is_ours

NO_RESOLVER = {"dns": [LOOPBACK], "dns_opt": ["timeout:1", "attempts:3"]}
"""A lookup of an outside name fails soon: nothing answers on the container's own loopback."""

_MOST_PROCESSES = 4096
"""Threads count, too. A worker has some dozens; a fork bomb is stopped before the machine is full."""
_STEPS_DOWN = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"]
"""The capabilities for an image whose entry point starts as root and changes to its own user, such as RabbitMQ's."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """The engine's description of its machine."""

    security: frozenset[str] = frozenset()
    """Security options, such as `rootless` and `selinux`."""
    memory_bytes: int = 0

    @classmethod
    def from_info(cls, info: Mapping[str, Any]) -> "Host":
        """Read the machine from the engine's description of itself."""
        said: list[str] = info.get("SecurityOptions") or []
        security = frozenset(option.removeprefix("name=").partition(",")[0] for option in said)
        return cls(security=security, memory_bytes=info.get("MemTotal", 0))


def options_of(spec: NodeSpec, host: Host, *, user_of_image: str = "root") -> dict[str, Any]:
    """Return the options that testcontainers has no method for; `with_kwargs` needs all of them in one call."""
    options: dict[str, Any] = {
        "hostname": spec.hostname or spec.name,
        "labels": dict(spec.labels),
        # Unlike a volume mapping, a mount of a path that does not exist is an error, not an empty new folder.
        "mounts": [
            {"Target": mount.inside, "Source": str(mount.host.absolute()), "Type": "bind", "ReadOnly": mount.read_only}
            for mount in spec.mounts
        ]
        + [{"Target": inside, "Source": name, "Type": "volume"} for inside, name in spec.volumes.items()],
        **_limits(spec, host, user_of_image),
        **spec.processors,
    }
    if spec.user == CALLER:
        # A rootless engine runs as the caller itself, and shows the caller as root inside.
        options["user"] = "0:0" if "rootless" in host.security else f"{os.getuid()}:{os.getgid()}"
    elif spec.user is not None:
        options["user"] = spec.user
    if spec.working_dir is not None:
        options["working_dir"] = spec.working_dir
    return options


def _limits(spec: NodeSpec, host: Host, user_of_image: str) -> dict[str, Any]:
    """Return the options that keep a node from harming the machine, with any code in it."""
    limits: dict[str, Any] = {
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "pids_limit": _MOST_PROCESSES,
    }
    if "selinux" in host.security:
        # Otherwise no mount could be read. Relabelling would change the caller's own files.
        limits["security_opt"].append("label=disable")
    if spec.user is None and user_of_image.partition(":")[0] in {"root", "0"}:
        limits["cap_add"] = _STEPS_DOWN
    if memory_bytes := memory_limit_bytes(host.memory_bytes):
        # The same value twice: no swap in addition.
        limits |= {"mem_limit": memory_bytes, "memswap_limit": memory_bytes}
    if spec.read_only and is_ours(spec.image):
        # Programs may be unpacked there and run, as elsewhere.
        limits |= {"read_only": True, "tmpfs": {"/tmp": "exec,mode=1777"}}  # noqa: S108 - inside the container.
    return limits
