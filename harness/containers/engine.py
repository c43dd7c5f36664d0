"""The interface of an engine: it runs nodes, connects them by networks, and has their images.

The rest of the harness uses engines only through it. Docker is one; see `harness.containers.docker_engine`.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import IO, Any, Protocol

from harness.errors import EngineError, ImageError, UsageError
from harness.project.needs import Mount, Network

CALLER = "caller"
"""The user of a node that runs as the caller of this process, as seen from outside."""
LOOPBACK = "127.0.0.1"
HOST_NETWORK = "host"
"""The engine's own network, where a node reaches what listens on the loopback of the engine's machine."""
_LEAST_MEMORY_MB = 64


# ------------------------------------------------------------------------------------------------- containers


class Status(StrEnum):
    """The state of a container."""

    RUNNING = "running"
    PAUSED = "paused"
    EXITED = "exited"
    GONE = "gone"


@dataclass(frozen=True, kw_only=True)
class State:
    """A container's status, and how it ended if it did."""

    status: Status
    exit_code: int | None = None
    """The exit code if the status is `exited`, and 128 + n if signal n ended it; else None."""
    out_of_memory: bool = False

    def __str__(self) -> str:
        if self.exit_code is None:
            return self.status.value
        return f"exited with {self.exit_code}{' (out of memory)' if self.out_of_memory else ''}"


class Container(Protocol):
    """A started node. The interface has nothing that only containers can do.

    Every method may raise EngineError. After `remove`, `state` is `gone` and `remove` does nothing.
    """

    @property
    def id(self) -> str:
        """The engine's id of it."""

    def state(self) -> State:
        """Return its current state."""

    def logs(self, tail: int | None = None) -> str:
        """Return its output and errors, the last `tail` lines or all; also after it exited, empty once it is gone."""

    def follow(self) -> Iterator[str]:
        """Yield each line of its output from now on, as it comes; ends with the container."""

    def host_port(self, port: int) -> tuple[str, int]:
        """Return the host and port at which this machine reaches a published port. A restart may change them."""

    def addresses(self) -> set[str]:
        """Return its IP addresses on its networks; empty if it does not run."""

    def execute(self, *command: str) -> str:
        """Run one more command in it, as its own user, and return what the command writes.

        Raises:
            EngineError: it does not run, or the command ended with another code than 0.
        """

    def kill(self, signal: str = "SIGKILL") -> None:
        """Send a signal to its first process."""

    def pause(self) -> None:
        """Freeze all its processes."""

    def unpause(self) -> None:
        """Resume all its processes."""

    def limit_memory(self, limit_bytes: int | None) -> None:
        """Set the most memory that its processes may use; None for the limit that it was started with."""

    def stop(self, timeout_s: int) -> None:
        """Ask it to stop with SIGTERM, and kill it after `timeout_s` seconds."""

    def start(self) -> None:
        """Start it again with the same command and disk, after it exited."""

    def remove(self) -> None:
        """Kill it if it runs, and remove it with its anonymous volumes."""


@dataclass(frozen=True, kw_only=True)
class NodeSpec:
    """The specification of a container before it is started."""

    name: str
    """The name, unique within its stack: letters, digits, `-` and `_`."""
    image: str
    command: tuple[str, ...] = ()
    """The command; empty for the image's own."""
    env: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    ports: tuple[int, ...] = ()
    """TCP ports to publish on 127.0.0.1, each under a port that the engine picks."""
    kept_ports: Mapping[int, int] = field(default_factory=dict)
    """The ports on 127.0.0.1 of some of these; a restart does not change them."""
    hostname: str | None = None
    """The host name; None for the node's name."""
    aliases: tuple[str, ...] = ()
    """More names on its network; the node's name is always one."""
    user: str | None = CALLER
    """The user inside; None for the image's own. The default is the caller, who can delete all files that it leaves."""
    labels: Mapping[str, str] = field(default_factory=dict)
    working_dir: str | None = None
    volumes: Mapping[str, str] = field(default_factory=dict)
    """By their places inside: volumes from `Engine.create_volume`, whose data outlive the container."""
    read_only: bool = False
    """True if only its mounts and /tmp, which is in memory, are writable; ignored for images of others."""
    processors: Mapping[str, int | str] = field(default_factory=dict)
    """Limits of its processors: any of `cpu_period`, `cpu_quota` and `cpuset_cpus`, as Docker defines them."""

    def __post_init__(self) -> None:
        """Raise UsageError for a name that cannot be the name of a host and of a file."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,40}", self.name):
            raise UsageError(f"{self.name!r} cannot name a node: use at most 41 letters, digits, `-` and `_`.")


# ------------------------------------------------------------------------------------------------- the engine


class PortTakenError(EngineError):
    """A port that a node was to have on this machine is in use."""


class PullError(ImageError):
    """An image cannot be pulled; the message is the reason, for a person."""


class Engine(Protocol):
    """Starts and removes containers, networks and volumes, each with the label of this process, and keeps images.

    Threads may share an engine. A process that forks makes a new one in the child. At the interpreter's exit, what is
    left is removed. Every method may raise EngineError.
    """

    def version(self) -> str:
        """Return the engine's name and version, for a person."""

    def architecture(self) -> str:
        """Return the architecture of its containers, such as `amd64`."""

    def close(self) -> None:
        """Close its connections. What it started goes on, and a later request opens them again."""

    def run(self, spec: NodeSpec, *, network: str | None = None) -> Container:
        """Create and start a container.

        Args:
            spec: what to run; its image must be present already.
            network: from `create_network`; None for the engine's default network, which has no names; or HOST_NETWORK.

        Raises:
            EngineError: the engine refused, for instance because a mounted folder does not exist.
            PortTakenError: one of its `kept_ports` is in use.
        """

    def native(self, container: Container) -> Any:
        """Return the container's object of the engine's own library, for a caller that uses that library."""

    def states(self, is_owner: Callable[[str], bool]) -> dict[str, str]:
        """Return the states of the nodes of some owners, by name. Of several nodes with one name, any.

        Args:
            is_owner: returns whether an owner label is one of theirs; see `harness.containers.ownership`.
        """

    def remove_owned(self, is_doomed: Callable[[str], bool]) -> list[str]:
        """Remove the containers, networks and volumes of some owners.

        Any number of processes may do so at once.

        Args:
            is_doomed: returns whether to remove what the owner with this label started.

        Returns:
            The names of what was removed.
        """

    def remove_mine(self) -> list[str]:
        """Remove every container, network and volume that was started through this engine. Return their names."""

    def create_network(self, name: str, *, leads_out: bool = False) -> str:
        """Make a network whose nodes reach each other by name, and return its full name, which contains `name`.

        Args:
            name: part of the full one.
            leads_out: whether they reach anything else. Their published ports can be reached either way.
        """

    def join(self, container: Container, network: str, *, names: Sequence[str], address: str | None = None) -> None:
        """Connect a container to one more network. Its published ports may change; nothing else about it does.

        Args:
            container: from `run`.
            network: from `create_network`.
            names: its names there.
            address: its address there, from `leave`. It may get another one if that is taken by now, or if the network
                leads out; None for any.
        """

    def leave(self, container: Container, network: str) -> str:
        """Disconnect a container from a network, and return the address that it had there.

        It goes on. On no network, its published ports cannot be reached.
        """

    def is_on(self, container: Container, network: str) -> bool:
        """Return whether a container is connected to a network."""

    def remove_network(self, name: str) -> None:
        """Remove a network that has no containers any more; nothing happens if it is gone.

        Raises:
            EngineError: after two seconds there is still a container on it.
        """

    def create_volume(self, name: str, *, size_mb: int | None = None) -> str:
        """Make a place for data that outlive a container, and return its full name, which contains `name`.

        Args:
            name: part of the full one.
            size_mb: the most that it holds. It is in memory then, and empty as soon as no container that runs has it.
                None for one on the engine's disk, without a limit of its own.
        """

    def remove_volume(self, name: str) -> None:
        """Remove a volume that no container has any more; nothing happens if it is gone.

        Raises:
            EngineError: after two seconds there is still a container that has it.
        """

    def has_image(self, reference: str) -> bool:
        """Return whether an image is present."""

    def images(self, label: str) -> list[str]:
        """Return the references of all images with a label of this name."""

    def pull(self, reference: str) -> None:
        """Fetch an image from its registry; gives up soon if the registry does not answer.

        Raises:
            PullError: the registry does not answer, or does not have it.
        """

    def build(
        self,
        context: IO[bytes],
        *,
        reference: str,
        dockerfile: str,
        arguments: Mapping[str, str],
        labels: Mapping[str, str],
        timeout_s: int,
    ) -> list[str]:
        """Build an image, and return the lines of the build's output.

        Args:
            context: a tar archive of the files that the Dockerfile copies, and of itself.
            reference: the name of the image.
            dockerfile: its name in the archive.
            arguments: of the Dockerfile.
            labels: of the image.
            timeout_s: how long the build may be silent, in seconds.

        Raises:
            ImageError: the build failed; the message ends with its last lines.
        """

    def import_image(self, tree: Path, *, reference: str, labels: Mapping[str, str]) -> str:
        """Make an image out of an archive of its files, and return the engine's answer."""

    def remove_image(self, reference: str) -> None:
        """Remove an image, even if a stopped container uses it."""


# ------------------------------------------------------------------------------------------------- settings


def network_leads_out() -> bool:
    """Return whether HARNESS_NETWORK opens the nodes' network: to the machine that they run on, and beyond it.

    Raises:
        UsageError: it is neither `closed` nor `open`.
    """
    said = os.environ.get("HARNESS_NETWORK") or Network.CLOSED
    if said not in set(Network):
        raise UsageError(f"HARNESS_NETWORK is {said!r}; it can be closed (or be unset) or open.")
    return said == Network.OPEN


def memory_limit_bytes(memory_bytes: int) -> int:
    """Return the memory limit of one node on a machine with `memory_bytes`: HARNESS_MEMORY_MB, else half of it.

    Raises:
        UsageError: HARNESS_MEMORY_MB is no number of megabytes, or too few to start anything.
    """
    said = os.environ.get("HARNESS_MEMORY_MB")
    if not said:
        return memory_bytes // 2
    if not re.fullmatch(r"[0-9]{1,9}", said) or int(said) < _LEAST_MEMORY_MB:
        raise UsageError(f"HARNESS_MEMORY_MB is {said!r}; give megabytes, {_LEAST_MEMORY_MB} or more.")
    return int(said) * 1_000_000
