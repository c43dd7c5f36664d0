"""How a node is run: the one module that knows testcontainers.

Everything else sees an `Engine` that turns a `NodeSpec` into a `Container`. Whatever is started carries the
label of its owner: see `harness.containers.ownership`.
"""

import atexit
import contextlib
import ipaddress
import os
import re
import secrets
import signal
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, cast

import docker
import requests
from docker.context import Context, ContextAPI
from docker.errors import APIError, NotFound
from docker.models.containers import Container as DockerPyContainer
from docker.types import EndpointConfig, IPAMConfig, IPAMPool, Mount
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer as TestContainer

from harness.containers import images, time_limits
from harness.containers.ownership import (
    ENGINE_LABEL,
    NODE_LABEL,
    OWNER_LABEL,
    Owner,
    explained,
    remove_container,
    remove_doomed,
    remove_held,
)
from harness.errors import EngineError, HarnessError, UsageError

CALLER = "caller"
"""The user of a node that is to be whoever runs this process, as seen from outside."""
LOOPBACK = "127.0.0.1"
_PROBE_TIMEOUT_S = 5
_REQUEST_TIMEOUT_S = 30
_EXIT_TIMEOUT_S = 20
_CONNECTIONS = 32
_SUBNET_ATTEMPTS = 20
_MOST_PROCESSES = 4096
"""Threads count, too. A worker has some dozens; what goes on to fork is stopped before the machine is full."""
_LEAST_MEMORY_MB = 64
_NO_RESOLVER = {"dns": [LOOPBACK], "dns_opt": ["timeout:1", "attempts:3"]}
"""Who asks for a name outside hears soon that there is none; the container's own loopback answers nobody."""
_STEPS_DOWN = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"]
"""What the entry point of an image needs that starts as root and goes on as a user of its own, as RabbitMQ's does."""


# ------------------------------------------------------------------------------------------------- the engine


def connect() -> docker.DockerClient:
    """The container engine that the `docker` command would use: DOCKER_HOST, else the current context.

    Raises:
        EngineError: nothing answers within 5 seconds, or what answers is no engine.
    """
    try:
        client = docker.from_env(timeout=_PROBE_TIMEOUT_S, max_pool_size=_CONNECTIONS)
        client.ping()
    except Exception as error:  # noqa: BLE001 - docker-py raises a bare Exception for a damaged context, among others.
        raise EngineError(_no_engine(error)) from None
    # Only the first answer has to be quick: building an image or stopping a node takes its time.
    client.api.timeout = _REQUEST_TIMEOUT_S
    time_limits.limit(client.api)
    return client


def _no_engine(error: Exception) -> str:
    where = _endpoint()
    seen = str(error).removeprefix("Error while fetching server API version: ")
    if "FileNotFoundError" in seen:
        advice = "Is an engine installed and started? If it listens elsewhere, set DOCKER_HOST to its address."
    elif "PermissionError" in seen:
        advice = "Let this user use the engine (for Docker: the group `docker`, then log in again), or run it rootless."
    elif "refused" in seen:
        advice = "Nobody listens there: start the engine, or correct the address."
    elif "timed out" in seen:
        advice = f"It accepted the connection and said nothing for {_PROBE_TIMEOUT_S} s: restart the engine."
    else:
        advice = "`docker version` should show both a client and a server; when it does, try again."
    return f"No container engine answers at {where}. Seen: {seen}. {advice}"


def _endpoint() -> str:
    """Where `connect` looks, in words: the address, and what named it."""
    if address := os.environ.get("DOCKER_HOST"):
        return f"{address} (from DOCKER_HOST)"
    try:
        # The annotations do not say that a context may be missing.
        context = cast("Context | None", ContextAPI.get_context(os.environ.get("DOCKER_CONTEXT")))
    except Exception as error:  # noqa: BLE001 - docker-py raises a bare Exception for a damaged context.
        return f"the current Docker context, which cannot be read ({error})"
    if context is None:
        return "the default socket (the current Docker context does not exist; DOCKER_HOST is not set)"
    return f"{context.Host or 'the default socket'} (Docker context {context.Name!r}; DOCKER_HOST is not set)"


# ------------------------------------------------------------------------------------------------- containers


class Status(StrEnum):
    """What a container is doing."""

    RUNNING = "running"
    PAUSED = "paused"
    EXITED = "exited"
    GONE = "gone"


@dataclass(frozen=True, kw_only=True)
class State:
    """A container's status, and how it ended if it did."""

    status: Status
    exit_code: int | None = None
    """None unless the status is `exited`; 128 + n if signal n ended it."""
    out_of_memory: bool = False

    def __str__(self) -> str:
        if self.exit_code is None:
            return self.status.value
        return f"exited with {self.exit_code}{' (out of memory)' if self.out_of_memory else ''}"


class Container(Protocol):
    """A started node, seen from outside. Nothing in here is particular to containers.

    Every method may raise EngineError. After `remove`, `state` is `gone` and `remove` does nothing.
    """

    @property
    def id(self) -> str:
        """What the engine calls it."""

    def state(self) -> State:
        """What it is doing now."""

    def logs(self, tail: int | None = None) -> str:
        """Its output and errors, the last `tail` lines or all; also after it exited, empty once it is gone."""

    def follow(self) -> Iterator[str]:
        """Each line that it says from now on, as it comes; ends with the container."""

    def host_port(self, port: int) -> tuple[str, int]:
        """Where this machine reaches a published port now. A restart may change it."""

    def kill(self, signal: str = "SIGKILL") -> None:
        """Send a signal to its first process."""

    def pause(self) -> None:
        """Freeze all its processes."""

    def unpause(self) -> None:
        """Let them go on."""

    def stop(self, timeout_s: int) -> None:
        """Ask it to stop with SIGTERM, and kill it after `timeout_s` seconds."""

    def start(self) -> None:
        """Start it again with the same command and disk, after it exited."""

    def remove(self) -> None:
        """Kill it if it runs, and forget it with its anonymous volumes."""


@dataclass(frozen=True, kw_only=True)
class MountSpec:
    """A folder or file of this machine that a container sees."""

    host: Path
    inside: str
    read_only: bool = True

    def __post_init__(self) -> None:
        """Raises UsageError for a name that the engine cannot be told."""
        try:
            str(self.host).encode()
        except UnicodeEncodeError:
            raise UsageError(f"the name of {self.host} is no UTF-8, so no container can see it: rename it.") from None


@dataclass(frozen=True, kw_only=True)
class NodeSpec:
    """All there is to say about a container before it is started."""

    name: str
    """Unique within its stack; letters, digits, `-` and `_`."""
    image: str
    command: tuple[str, ...] = ()
    """Empty for the image's own."""
    env: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[MountSpec, ...] = ()
    ports: tuple[int, ...] = ()
    """TCP ports to publish on 127.0.0.1, each under a port that the engine picks."""
    hostname: str | None = None
    """None for the node's name."""
    aliases: tuple[str, ...] = ()
    """More names for it on its network; the node's name is always one."""
    user: str | None = CALLER
    """By default the caller, so that it leaves no file that the caller cannot delete; None for the image's own."""
    labels: Mapping[str, str] = field(default_factory=dict)
    working_dir: str | None = None
    read_only: bool = False
    """Whether nothing but its mounts and /tmp can be written, and /tmp is in memory; never of an image not ours."""

    def __post_init__(self) -> None:
        """Raises UsageError for a name that could not be the name of a host and of a file."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,40}", self.name):
            raise UsageError(f"{self.name!r} cannot name a node: use at most 41 letters, digits, `-` and `_`.")


@dataclass(frozen=True, kw_only=True)
class _Host:
    """What the engine says of the machine that it runs on."""

    security: frozenset[str] = frozenset()
    """Such as `rootless` and `selinux`."""
    memory_bytes: int = 0

    @classmethod
    def from_info(cls, info: Mapping[str, Any]) -> "_Host":
        said: list[str] = info.get("SecurityOptions") or []
        security = frozenset(option.removeprefix("name=").partition(",")[0] for option in said)
        return cls(security=security, memory_bytes=info.get("MemTotal", 0))


def network_leads_out() -> bool:
    """Whether HARNESS_NETWORK opens the nodes' network: to the machine that they run on, and beyond it.

    Raises:
        UsageError: it says neither `closed` nor `open`.
    """
    said = os.environ.get("HARNESS_NETWORK") or "closed"
    if said not in {"closed", "open"}:
        raise UsageError(f"HARNESS_NETWORK is {said!r}; it can be closed (or be unset) or open.")
    return said == "open"


def memory_limit_bytes(memory_bytes: int) -> int:
    """How much memory one node may take on a machine that has so much: HARNESS_MEMORY_MB, else half of it.

    Raises:
        UsageError: HARNESS_MEMORY_MB is no number of megabytes, or too few to start anything.
    """
    said = os.environ.get("HARNESS_MEMORY_MB")
    if not said:
        return memory_bytes // 2
    if not re.fullmatch(r"[0-9]{1,9}", said) or int(said) < _LEAST_MEMORY_MB:
        raise UsageError(f"HARNESS_MEMORY_MB is {said!r}; give megabytes, {_LEAST_MEMORY_MB} or more.")
    return int(said) * 1_000_000


def states_of(client: docker.DockerClient, owner: Owner) -> dict[str, str]:
    """What the nodes that a process started are doing, by name. Of several of one name, any."""
    with explained("listing containers"):
        found = client.api.containers(all=True, filters={"label": OWNER_LABEL})
    return {one["Labels"][NODE_LABEL]: one["State"] for one in found if owner.is_named_by(one["Labels"][OWNER_LABEL])}


class Engine:
    """Starts and removes containers and networks, each under the label of the current process.

    Threads may share an engine. A process that forks makes a new one in the child. What is left when the
    interpreter exits is removed then.
    """

    def __init__(self, client: docker.DockerClient) -> None:
        """Asks the engine nothing yet.

        Args:
            client: from `connect`.
        """
        self.client = client
        self._pid = os.getpid()
        self._name = secrets.token_hex(4)
        self._closed_networks: set[str] = set()
        # A watchdog container would have to be pulled; owner labels and `sweep` do its work.
        testcontainers_config.ryuk_disabled = True
        atexit.register(self._at_exit)

    def run(self, spec: NodeSpec, *, network: str | None = None) -> Container:
        """Create and start a container.

        Args:
            spec: what to run; its image must be there already.
            network: from `create_network`; None for the engine's default network, which has no names.

        Raises:
            EngineError: the engine refused, for instance because a mounted folder does not exist.
        """
        with explained(f"looking for the image {spec.image}"):
            try:
                image = self.client.images.get(spec.image)
            except NotFound:
                # Left to itself, testcontainers would now try to pull it.
                raise EngineError(f"The image {spec.image} of {spec.name} is not there any more.") from None
        container = _foreign(spec, self.client)
        options = _options(spec, self._host, user_of_image=image.attrs["Config"].get("User") or "root")
        if network in self._closed_networks:
            options |= _NO_RESOLVER
        options["labels"] = self._labels() | {NODE_LABEL: spec.name} | options["labels"]
        options["network"] = network or "bridge"
        if network:
            # The version is that of the API; aliases came with 1.22, which every engine of today has.
            names = [spec.name, *spec.aliases]
            options["networking_config"] = {network: EndpointConfig(self.client.api.api_version, aliases=names)}
        container.tmpfs = options.pop("tmpfs", {})
        container.with_kwargs(**options)
        with explained(f"starting {spec.name} from {spec.image}"):
            try:
                container.start()
            except BaseException:
                # A container that was created and could not be started is of no use to anybody.
                self._forget_half_started(container)
                raise
        return _DockerContainer(container.get_wrapped_container(), name=spec.name)

    def create_network(self, name: str, *, leads_out: bool = False) -> str:
        """Make a network whose nodes reach each other by name, and return its full name, with `name` in it.

        Args:
            name: part of the full one.
            leads_out: whether they reach anything else. Their published ports are reached either way.
        """
        full_name = f"celery-harness-{name}-{secrets.token_hex(4)}"
        with explained(f"creating the network {full_name}"):
            if leads_out:
                self.client.networks.create(full_name, driver="bridge", labels=self._labels())
            else:
                self._create_closed(full_name)
                self._closed_networks.add(full_name)
        return full_name

    def _create_closed(self, name: str) -> None:
        """Make a network whose way out is an address that nobody has.

        The engine's own kind, `internal`, publishes no ports, and some versions of it let nodes reach every address of
        the machine. Addresses are not translated either, for an engine that knows nothing of such gateways.
        """
        closed = {"com.docker.network.bridge.enable_ip_masquerade": "false", "com.docker.network.enable_ipv6": "false"}
        for attempt in range(1, _SUBNET_ATTEMPTS + 1):
            subnet = self._free_subnet(name)
            pool = IPAMPool(subnet=str(subnet), aux_addresses={"DefaultGatewayIPv4": str(subnet[-2])})
            ipam = IPAMConfig(pool_configs=[pool])
            try:
                self.client.networks.create(name, driver="bridge", options=closed, ipam=ipam, labels=self._labels())
            except APIError as error:
                # Somebody else was given that subnet in between.
                if "overlap" in str(error).lower() and attempt < _SUBNET_ATTEMPTS:
                    continue
                raise
            return

    def _free_subnet(self, name: str) -> ipaddress.IPv4Network:
        """A subnet out of those that the engine may use; it alone knows which, and tells by giving one away."""
        api = self.client.api
        made = api.create_network(name, driver="bridge", labels=self._labels())["Id"]
        try:
            pools = api.inspect_network(made)["IPAM"]["Config"]
        finally:
            api.remove_network(made)
        return next(ipaddress.IPv4Network(pool["Subnet"]) for pool in pools if ":" not in pool["Subnet"])

    def remove_network(self, name: str) -> None:
        """Remove a network that no container is on any more; nothing happens if it is gone.

        Raises:
            EngineError: after two seconds there is still a container on it.
        """
        with explained(f"removing the network {name}"):
            # For a moment the engine still counts a container that was stopped and removed at the same time.
            if not remove_held(self.client.api.remove_network, name):
                raise EngineError(f"The network {name} cannot be removed: a container is still on it.")

    def remove_mine(self) -> list[str]:
        """Remove every container, network and volume that was started through this engine; their names."""
        here = Owner.here()
        return remove_doomed(self.client, here.is_named_by, f"{ENGINE_LABEL}={self._name}")

    @cached_property
    def _host(self) -> _Host:
        with explained("describing itself"):
            return _Host.from_info(self.client.info())

    def _labels(self) -> dict[str, str]:
        return {OWNER_LABEL: str(Owner.here()), ENGINE_LABEL: self._name}

    def _at_exit(self) -> None:
        # A forked child inherits this registration and the parent's connections, which are not its to use.
        if os.getpid() != self._pid:
            return
        if threading.current_thread() is threading.main_thread():
            # It is bounded, and half of it would be left if it were interrupted.
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
        self.client.api.timeout = _EXIT_TIMEOUT_S
        # Nobody is left to be told; the next start sweeps what could not be removed now.
        with contextlib.suppress(HarnessError):
            self.remove_mine()

    @staticmethod
    def _forget_half_started(container: TestContainer) -> None:
        if container._container is not None:  # noqa: SLF001 - get_wrapped_container raises where there is none.
            # Why it could not be started is what has to be known; its label tells the next sweep what is left.
            with contextlib.suppress(APIError, requests.RequestException):
                container.get_wrapped_container().remove(force=True, v=True)


_environment = threading.Lock()


def _foreign(spec: NodeSpec, client: docker.DockerClient) -> TestContainer:
    """The testcontainers idea of `spec`, talking through `client`."""
    # testcontainers looks for an engine of its own and writes DOCKER_HOST into the environment. Giving the
    # API version keeps it from connecting; then it gets our client, so that both talk to the same engine.
    with _environment:
        before = os.environ.get("DOCKER_HOST")
        container = TestContainer(spec.image, docker_client_kw={"version": client.api.api_version})
        if before is None:
            os.environ.pop("DOCKER_HOST", None)
        else:
            os.environ["DOCKER_HOST"] = before
    own = container.get_docker_client()
    own.client.close()
    own.client = client
    # The reference is complete; a prefix for images of the public registry must not be put before it.
    container.image = spec.image
    container.env = dict(spec.env)
    # An address alone means: this address, and any free port. testcontainers passes it on as it is.
    container.ports = cast("dict[str, int | None]", {f"{port}/tcp": (LOOPBACK,) for port in spec.ports})
    container.with_name(f"celery-harness-{spec.name}-{secrets.token_hex(4)}")
    if spec.command:
        container.with_command(list(spec.command))
    return container


def _options(spec: NodeSpec, host: _Host, *, user_of_image: str = "root") -> dict[str, Any]:
    """What testcontainers has no method for; `with_kwargs` takes all of it at once or forgets."""
    options: dict[str, Any] = {
        "hostname": spec.hostname or spec.name,
        "labels": dict(spec.labels),
        # Unlike a volume mapping, a mount of a path that does not exist is an error, not an empty new folder.
        "mounts": [
            Mount(target=mount.inside, source=str(mount.host.absolute()), type="bind", read_only=mount.read_only)
            for mount in spec.mounts
        ],
        **_limits(spec, host, user_of_image),
    }
    if spec.user == CALLER:
        # A rootless engine runs as the caller itself, and shows it as root inside.
        options["user"] = "0:0" if "rootless" in host.security else f"{os.getuid()}:{os.getgid()}"
    elif spec.user is not None:
        options["user"] = spec.user
    if spec.working_dir is not None:
        options["working_dir"] = spec.working_dir
    return options


def _limits(spec: NodeSpec, host: _Host, user_of_image: str) -> dict[str, Any]:
    """What keeps a node from harming the machine, whatever the code in it does."""
    limits: dict[str, Any] = {
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "pids_limit": _MOST_PROCESSES,
    }
    if "selinux" in host.security:
        # Nothing that is mounted could be read otherwise. Relabelling it would change the caller's own files.
        limits["security_opt"].append("label=disable")
    if spec.user is None and user_of_image.partition(":")[0] in {"root", "0"}:
        limits["cap_add"] = _STEPS_DOWN
    if memory_bytes := memory_limit_bytes(host.memory_bytes):
        # Both the same: no swap on top.
        limits |= {"mem_limit": memory_bytes, "memswap_limit": memory_bytes}
    if spec.read_only and images.is_ours(spec.image):
        # Programs may be unpacked there and run, as anywhere.
        limits |= {"read_only": True, "tmpfs": {"/tmp": "exec,mode=1777"}}  # noqa: S108 - inside the container.
    return limits


class _DockerContainer:
    """A `Container` of Docker's."""

    def __init__(self, wrapped: DockerPyContainer, *, name: str) -> None:
        self._wrapped = wrapped
        self._name = name
        self._api = cast("docker.APIClient", wrapped.client.api)  # type: ignore[union-attr]  # a started one has a client

    @property
    def id(self) -> str:
        return cast("str", self._wrapped.id)

    def state(self) -> State:
        with self._doing("looking at"):
            try:
                state = self._api.inspect_container(self.id)["State"]
            except NotFound:
                return State(status=Status.GONE)
        if state["Paused"]:
            return State(status=Status.PAUSED)
        if state["Running"]:
            return State(status=Status.RUNNING)
        return State(status=Status.EXITED, exit_code=state["ExitCode"], out_of_memory=state.get("OOMKilled", False))

    def logs(self, tail: int | None = None) -> str:
        with self._doing("reading the log of"), contextlib.suppress(NotFound):
            text: bytes = self._wrapped.logs(tail="all" if tail is None else tail)
            return text.decode(errors="replace")
        return ""

    def follow(self) -> Iterator[str]:
        with self._doing("following the log of"):
            rest = b""
            try:
                for part in self._wrapped.logs(stream=True, follow=True, tail=0):
                    *lines, rest = (rest + part).split(b"\n")
                    yield from (line.decode(errors="replace") for line in lines)
            except APIError as error:
                # Docker says "not found" of a container that is gone, and "conflict" of one that is about to be.
                if error.status_code not in {requests.codes.not_found, requests.codes.conflict}:
                    raise

    def host_port(self, port: int) -> tuple[str, int]:
        with self._doing("looking up a port of"):
            bound = self._api.port(self.id, port)
        if not bound:
            raise EngineError(f"Port {port} of {self._name} is not published; it is {self.state()}.")
        return LOOPBACK, int(bound[0]["HostPort"])

    def kill(self, signal: str = "SIGKILL") -> None:
        with self._doing(f"sending {signal} to"):
            self._wrapped.kill(signal)

    def pause(self) -> None:
        with self._doing("pausing"):
            self._wrapped.pause()

    def unpause(self) -> None:
        with self._doing("unpausing"):
            self._wrapped.unpause()

    def stop(self, timeout_s: int) -> None:
        with self._doing("stopping"):
            self._wrapped.stop(timeout=timeout_s)

    def start(self) -> None:
        with self._doing("starting again"):
            self._wrapped.start()

    def remove(self) -> None:
        with self._doing("removing"):
            remove_container(self._api, self.id)

    def _doing(self, what: str) -> contextlib.AbstractContextManager[None]:
        return explained(f"{what} {self._name}")
