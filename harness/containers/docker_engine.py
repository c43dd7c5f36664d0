"""The engine for Docker: the only module that imports docker-py's client and testcontainers.

The file is long because all that needs these two libraries is here. The rest is elsewhere: the options of a container
in `docker_options`, pulling from a registry in `docker_registry`, and `time_limits`.
"""

import atexit
import contextlib
import ipaddress
import os
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import IO, Any, cast

import docker
import requests
from docker import auth
from docker.context import Context, ContextAPI
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.models.containers import Container as DockerPyContainer
from docker.types import EndpointConfig, IPAMConfig, IPAMPool
from docker.utils import parse_host, parse_repository_tag
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer as TestContainer

from harness.containers import docker_registry, time_limits
from harness.containers.docker_options import NO_RESOLVER, Host, options_of
from harness.containers.engine import (
    HOST_NETWORK,
    LOOPBACK,
    Container,
    Engine,
    NodeSpec,
    PortTakenError,
    State,
    Status,
)
from harness.containers.ownership import ENGINE_LABEL, NODE_LABEL, OWNER_LABEL, Owner
from harness.containers.packages import tail
from harness.errors import EngineError, HarnessError, ImageError, WaitTimeout
from harness.wait import wait_until

_PROBE_TIMEOUT_S = 5
_REQUEST_TIMEOUT_S = 30
_EXIT_TIMEOUT_S = 20
_REMOVAL_TIMEOUT_S = 20
_HELD_TIMEOUT_S = 2
_CONNECTIONS = 32
_SUBNET_ATTEMPTS = 20
_PORT_TAKEN = ("port is already allocated", "address already in use")
"""What Docker says of a port that another container or another program has."""


# ------------------------------------------------------------------------------------------------ the connection


def connect() -> Engine:
    """Connect to the container engine that the `docker` command would use: DOCKER_HOST, else the current context.

    Raises:
        EngineError: nothing answers within 5 seconds, or what answers is no engine.
    """
    try:
        _refuse_deaf_socket()
        client = docker.from_env(timeout=_PROBE_TIMEOUT_S, max_pool_size=_CONNECTIONS)
        client.ping()
    except Exception as error:  # noqa: BLE001 - docker-py raises a bare Exception for a damaged context, among others.
        raise EngineError(_no_engine(error)) from None
    # Only the first answer has to be quick: building an image or stopping a node takes longer.
    client.api.timeout = _REQUEST_TIMEOUT_S
    time_limits.limit(client.api)
    return _DockerEngine(client)


def _refuse_deaf_socket() -> None:
    """Raise the error that docker-py would raise if nothing listens at its Unix socket.

    docker-py itself would leave its socket open then, and Python warns about that.
    """
    address = os.environ.get("DOCKER_HOST") or ContextAPI.kwargs_from_context().get("base_url")
    scheme, _, path = str(parse_host(address)).partition("://")
    if scheme != "http+unix":
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_TIMEOUT_S)
        try:
            probe.connect(f"/{path.removeprefix('/')}")
        except OSError as error:
            raise DockerException(str(("Connection aborted.", error))) from error


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
    """Return where `connect` looks, in words: the address, and its source."""
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


@contextlib.contextmanager
def _explained(doing: str) -> Iterator[None]:
    """Turn an error of the engine into an EngineError that says what was being done."""
    try:
        yield
    except APIError as error:
        raise EngineError(f"The engine failed at {doing}: {error.explanation or error}") from error
    except (DockerException, requests.RequestException) as error:
        raise EngineError(f"The engine did not answer at {doing}: {error}. Is it still running?") from error


# ------------------------------------------------------------------------------------------------ the engine


class _DockerEngine:
    """An `Engine` for Docker."""

    def __init__(self, client: docker.DockerClient) -> None:
        """Create it without a request to the engine."""
        self._client = client
        self._pid = os.getpid()
        self._name = secrets.token_hex(4)
        self._closed_networks: set[str] = set()
        self._ends_with_us = False
        # A watchdog container would have to be pulled; owner labels and `sweep` do its work.
        testcontainers_config.ryuk_disabled = True

    def version(self) -> str:
        seen = self._version()
        return f"{seen['Version']}, API {seen['ApiVersion']}, {seen['Os']}/{seen['Arch']}"

    def architecture(self) -> str:
        return cast("str", self._version()["Arch"])

    def close(self) -> None:
        self._client.close()

    def run(self, spec: NodeSpec, *, network: str | None = None) -> Container:
        with _explained(f"looking for the image {spec.image}"):
            try:
                image = self._client.images.get(spec.image)
            except NotFound:
                # testcontainers would otherwise try to pull it.
                raise EngineError(f"The image {spec.image} of {spec.name} is not there any more.") from None
        container = _foreign(spec, self._client)
        options = options_of(spec, self._host, user_of_image=image.attrs["Config"].get("User") or "root")
        if network in self._closed_networks:
            options |= NO_RESOLVER
        options["labels"] = self._labels() | {NODE_LABEL: spec.name} | options["labels"]
        options["network"] = network or "bridge"
        if network and network != HOST_NETWORK:
            # The version is the API's; aliases need 1.22, which every current engine has.
            names = [spec.name, *spec.aliases]
            options["networking_config"] = {network: EndpointConfig(self._client.api.api_version, aliases=names)}
        container.tmpfs = options.pop("tmpfs", {})
        container.with_kwargs(**options)
        with _explained(f"starting {spec.name} from {spec.image}"):
            try:
                container.start()
            except BaseException as error:
                # A container that was created and could not be started is useless.
                self._forget_half_started(container)
                if isinstance(error, APIError) and any(words in str(error) for words in _PORT_TAKEN):
                    raise PortTakenError(f"{spec.name} cannot have its port: {error.explanation or error}") from error
                raise
        return _DockerContainer(container.get_wrapped_container(), name=spec.name)

    def native(self, container: Container) -> Any:
        with _explained(f"looking at {container.id}"):
            return self._client.containers.get(container.id)

    def states(self, is_owner: Callable[[str], bool]) -> dict[str, str]:
        with _explained("listing containers"):
            found = self._client.api.containers(all=True, filters={"label": OWNER_LABEL})
        return {one["Labels"][NODE_LABEL]: one["State"] for one in found if is_owner(one["Labels"][OWNER_LABEL])}

    def remove_owned(self, is_doomed: Callable[[str], bool]) -> list[str]:
        return self._remove(is_doomed)

    def remove_mine(self) -> list[str]:
        here = Owner.here()
        return self._remove(here.is_named_by, f"{ENGINE_LABEL}={self._name}")

    def create_network(self, name: str, *, leads_out: bool = False) -> str:
        full_name = f"celery-harness-{name}-{secrets.token_hex(4)}"
        with _explained(f"creating the network {full_name}"):
            if leads_out:
                self._client.networks.create(full_name, driver="bridge", labels=self._labels())
            else:
                self._create_closed(full_name)
                self._closed_networks.add(full_name)
        return full_name

    def join(self, container: Container, network: str, *, names: Sequence[str], address: str | None = None) -> None:
        connect = partial(self._client.api.connect_container_to_network, container.id, network, aliases=list(names))
        with _explained(f"connecting {container.id} to the network {network}"):
            if address is not None:
                # The engine refuses an address on a network whose addresses it chose itself, and one that is taken.
                with contextlib.suppress(APIError):
                    connect(ipv4_address=address)
                    return
            connect()

    def leave(self, container: Container, network: str) -> str:
        with _explained(f"disconnecting {container.id} from the network {network}"):
            seen = self._networks_of(container).get(network)
            self._client.api.disconnect_container_from_network(container.id, network)
        return str(seen["IPAddress"]) if seen else ""

    def is_on(self, container: Container, network: str) -> bool:
        with _explained(f"looking at the networks of {container.id}"):
            return network in self._networks_of(container)

    def _networks_of(self, container: Container) -> dict[str, Any]:
        return cast("dict[str, Any]", self._client.api.inspect_container(container.id)["NetworkSettings"]["Networks"])

    def remove_network(self, name: str) -> None:
        with _explained(f"removing the network {name}"):
            # For a moment the engine still counts a container that was stopped and removed at the same time.
            if not _remove_held(self._client.api.remove_network, name):
                raise EngineError(f"The network {name} cannot be removed: a container is still on it.")

    def create_volume(self, name: str, *, size_mb: int | None = None) -> str:
        full_name = f"celery-harness-{name}-{secrets.token_hex(4)}"
        with _explained(f"creating the volume {full_name}"):
            small = {"type": "tmpfs", "device": "tmpfs", "o": f"size={size_mb}m,mode=1777"}
            self._client.volumes.create(full_name, driver_opts={} if size_mb is None else small, labels=self._labels())
        return full_name

    def remove_volume(self, name: str) -> None:
        with _explained(f"removing the volume {name}"):
            if not _remove_held(self._client.api.remove_volume, name):
                raise EngineError(f"The volume {name} cannot be removed: a container still has it.")

    def has_image(self, reference: str) -> bool:
        with _explained(f"looking for the image {reference}"):
            try:
                self._client.images.get(reference)
            except ImageNotFound:
                return False
        return True

    def images(self, label: str) -> list[str]:
        with _explained("listing images"):
            found = self._client.api.images(filters={"label": label})
        return [reference for image in found for reference in image["RepoTags"] or ()]

    def pull(self, reference: str) -> None:
        api = self._client.api
        repository, tag = parse_repository_tag(reference)
        with _explained(f"providing the image {reference}"):
            registry, _ = auth.resolve_repository_name(reference)
            credentials = auth.get_config_header(api, registry)
            docker_registry.pull(
                api,
                f"{api.base_url}/v{api.api_version}",
                reference,
                name={"fromImage": repository, "tag": tag or "latest"},
                login=credentials.decode() if credentials else None,
            )

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
        lines: list[str] = []
        with _explained(f"providing the image {reference}"):
            events = self._client.api.build(
                fileobj=context,
                custom_context=True,
                dockerfile=dockerfile,
                buildargs=dict(arguments),
                labels=dict(labels),
                tag=reference,
                rm=True,
                forcerm=True,
                use_config_proxy=True,
                timeout=timeout_s,
                decode=True,
            )
            for event in events:
                lines += event.get("stream", "").splitlines()
                if "error" in event:
                    raise ImageError(f"Building {reference} failed: {event['error']}\n{tail(lines)}")
        return lines

    def import_image(self, tree: Path, *, reference: str, labels: Mapping[str, str]) -> str:
        repository, tag = parse_repository_tag(reference)
        changes = [f"LABEL {name}={value}" for name, value in labels.items()]
        with _explained(f"providing the image {reference}"):
            answer = self._client.api.import_image_from_file(str(tree), repository=repository, tag=tag, changes=changes)
        return str(answer)

    def remove_image(self, reference: str) -> None:
        with _explained(f"removing the image {reference}"):
            self._client.images.remove(reference, force=True)

    def _create_closed(self, name: str) -> None:
        """Make a network whose gateway is an unused address, so that it has no way out.

        The engine's own kind, `internal`, publishes no ports, and some versions of it let nodes reach every address of
        the machine. Address translation is off as well, for engines that ignore the gateway.
        """
        closed = {"com.docker.network.bridge.enable_ip_masquerade": "false", "com.docker.network.enable_ipv6": "false"}
        for attempt in range(1, _SUBNET_ATTEMPTS + 1):
            subnet = self._free_subnet(name)
            pool = IPAMPool(subnet=str(subnet), aux_addresses={"DefaultGatewayIPv4": str(subnet[-2])})
            ipam = IPAMConfig(pool_configs=[pool])
            try:
                self._client.networks.create(name, driver="bridge", options=closed, ipam=ipam, labels=self._labels())
            except APIError as error:
                # Another client was given that subnet in between.
                if "overlap" in str(error).lower() and attempt < _SUBNET_ATTEMPTS:
                    continue
                raise
            return

    def _free_subnet(self, name: str) -> ipaddress.IPv4Network:
        """Return a free subnet of the engine's pools. Only the engine knows them, so a network is made and removed."""
        api = self._client.api
        made = api.create_network(name, driver="bridge", labels=self._labels())["Id"]
        try:
            pools = api.inspect_network(made)["IPAM"]["Config"]
        finally:
            api.remove_network(made)
        return next(ipaddress.IPv4Network(pool["Subnet"]) for pool in pools if ":" not in pool["Subnet"])

    def _remove(self, is_doomed: Callable[[str], bool], *labels: str) -> list[str]:
        """Remove what has a doomed owner's label and `labels`; containers first, because they hold the rest."""
        # The low-level lists are one request each. docker-py's own objects would inspect each thing again, and
        # fail on one that another sweeper removes in between.
        api = self._client.api
        ours = {"label": [OWNER_LABEL, *labels]}

        def doomed(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
            return [one for one in found if is_doomed(one["Labels"][OWNER_LABEL])]

        with _explained("removing what was left behind"):
            containers = doomed(api.containers(all=True, filters=ours))
            for container in containers:
                _remove_container(api, container["Id"])
            networks = doomed(api.networks(filters=ours))
            volumes = doomed(api.volumes(filters=ours)["Volumes"] or [])
            return [
                *(container["Names"][0].removeprefix("/") for container in containers),
                *(found["Name"] for found in networks if _remove_held(api.remove_network, found["Id"])),
                *(found["Name"] for found in volumes if _remove_held(api.remove_volume, found["Name"])),
            ]

    def _version(self) -> dict[str, Any]:
        with _explained("describing itself"):
            return self._client.version()

    @cached_property
    def _host(self) -> Host:
        with _explained("describing itself"):
            return Host.from_info(self._client.info())

    def _labels(self) -> dict[str, str]:
        """Return the labels of all that is started, and have it removed at the latest when the interpreter exits."""
        if not self._ends_with_us:
            self._ends_with_us = True
            atexit.register(self._at_exit)
        return {OWNER_LABEL: str(Owner.here()), ENGINE_LABEL: self._name}

    def _at_exit(self) -> None:
        # A forked child inherits this registration and the parent's connections, and must not use them.
        if os.getpid() != self._pid:
            return
        if threading.current_thread() is threading.main_thread():
            # It is bounded in time, and an interrupt would leave half of it.
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
        self._client.api.timeout = _EXIT_TIMEOUT_S
        # Errors cannot be reported any more; the next start sweeps what could not be removed now.
        with contextlib.suppress(HarnessError):
            self.remove_mine()

    @staticmethod
    def _forget_half_started(container: TestContainer) -> None:
        if container._container is not None:  # noqa: SLF001 - get_wrapped_container raises where there is none.
            # The first error matters more; the label tells the next sweep what is left.
            with contextlib.suppress(APIError, requests.RequestException):
                container.get_wrapped_container().remove(force=True, v=True)


_environment = threading.Lock()


def _foreign(spec: NodeSpec, client: docker.DockerClient) -> TestContainer:
    """Return the testcontainers object for `spec`, which uses `client`."""
    # testcontainers looks for an engine of its own and writes DOCKER_HOST into the environment. Giving the
    # API version keeps it from connecting; then it gets our client, so that both use the same engine.
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
    # The reference is complete; testcontainers must not add a prefix for images of the public registry.
    container.image = spec.image
    container.env = dict(spec.env)
    # An address alone means: this address, and any free port. testcontainers passes it on unchanged.
    container.ports = cast(
        "dict[str, int | None]",
        {
            f"{port}/tcp": (LOOPBACK, *([spec.kept_ports[port]] if port in spec.kept_ports else ()))
            for port in spec.ports
        },
    )
    container.with_name(f"celery-harness-{spec.name}-{secrets.token_hex(4)}")
    if spec.command:
        container.with_command(list(spec.command))
    return container


# ------------------------------------------------------------------------------------------------ removal


def _remove_container(api: docker.APIClient, name: str) -> None:
    """Kill a container if it runs, and remove it with its anonymous volumes; nothing happens if it is gone.

    Args:
        api: of the engine that runs it.
        name: its name or id.

    Raises:
        APIError: the engine failed to remove it.
        EngineError: another process is removing it, and was not done within 20 seconds.
    """
    try:
        api.remove_container(name, force=True, v=True)
    except NotFound:
        return
    except APIError as error:
        if error.status_code != requests.codes.conflict:
            raise
        # Another process is removing it. Until it is gone, its network is still held.
        try:
            wait_until(lambda: _is_gone(api, name), what=f"{name} is gone", timeout_s=_REMOVAL_TIMEOUT_S)
        except WaitTimeout:
            raise EngineError(
                f"Another process is removing the container {name}, and was not done within {_REMOVAL_TIMEOUT_S} s. "
                "Try again; if that does not help, restart the engine."
            ) from None


def _is_gone(api: docker.APIClient, name: str) -> bool:
    try:
        api.inspect_container(name)
    except NotFound:
        return True
    return False


def _remove_held(remove: Callable[[str], object], name: str) -> bool:
    """Remove a network or volume. Return False if a container still holds it after two seconds."""

    def attempt() -> bool:
        try:
            remove(name)
        except NotFound:
            return True
        except APIError as error:
            # If it is in use, Docker answers "forbidden" for a network and "conflict" for a volume.
            if error.status_code not in {requests.codes.forbidden, requests.codes.conflict}:
                raise
            return False
        return True

    try:
        return wait_until(attempt, what=f"nothing holds {name}", timeout_s=_HELD_TIMEOUT_S)
    except WaitTimeout:
        return False


# ------------------------------------------------------------------------------------------------ a container


class _DockerContainer:
    """A `Container` of Docker."""

    def __init__(self, wrapped: DockerPyContainer, *, name: str) -> None:
        self._wrapped = wrapped
        self._name = name
        self._api = cast("docker.APIClient", wrapped.client.api)  # type: ignore[union-attr]  # a started one has a client
        self._started_with: tuple[int, int] | None = None
        """The limits of memory, and of memory and swap, that it was started with; None if not asked for yet."""

    @property
    def id(self) -> str:
        return cast("str", self._wrapped.id)

    def state(self) -> State:
        with self._doing("looking at"):
            try:
                state = self._api.inspect_container(self.id)["State"]
            except NotFound:
                return State(status=Status.GONE)
        is_up = state["Paused"] or state["Running"]
        return State(
            status=Status.PAUSED if state["Paused"] else Status.RUNNING if is_up else Status.EXITED,
            exit_code=None if is_up else state["ExitCode"],
            out_of_memory=state.get("OOMKilled", False),
        )

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
                # Docker answers "not found" for a container that is gone, and "conflict" for one that is being removed.
                if error.status_code not in {requests.codes.not_found, requests.codes.conflict}:
                    raise

    def host_port(self, port: int) -> tuple[str, int]:
        with self._doing("looking up a port of"):
            bound = self._api.port(self.id, port)
        if not bound:
            raise EngineError(f"Port {port} of {self._name} is not published; it is {self.state()}.")
        return LOOPBACK, int(bound[0]["HostPort"])

    def addresses(self) -> set[str]:
        with self._doing("looking at"):
            networks = self._api.inspect_container(self.id)["NetworkSettings"]["Networks"]
        return {address for one in networks.values() if (address := one["IPAddress"])}

    def execute(self, *command: str) -> str:
        with self._doing(f"running {command[0]} in"):
            code, said = self._wrapped.exec_run(list(command))
        text = cast("bytes", said).decode(errors="replace")
        if code:
            raise EngineError(f"{command[0]} in {self._name} ended with {code}: {text.strip()}")
        return text

    def kill(self, signal: str = "SIGKILL") -> None:
        with self._doing(f"sending {signal} to"):
            self._wrapped.kill(signal)

    def pause(self) -> None:
        with self._doing("pausing"):
            self._wrapped.pause()

    def unpause(self) -> None:
        with self._doing("unpausing"):
            self._wrapped.unpause()

    def limit_memory(self, limit_bytes: int | None) -> None:
        with self._doing("limiting the memory of"):
            if self._started_with is None:
                host = self._api.inspect_container(self.id)["HostConfig"]
                # Zero means that there is no limit, and in an update that nothing changes.
                self._started_with = host["Memory"] or -1, host["MemorySwap"] or -1
            # The second limit is that of memory and swap together.
            memory, together = self._started_with if limit_bytes is None else (limit_bytes, limit_bytes)
            self._wrapped.update(mem_limit=memory, memswap_limit=together)

    def stop(self, timeout_s: int) -> None:
        with self._doing("stopping"):
            self._wrapped.stop(timeout=timeout_s)

    def start(self) -> None:
        with self._doing("starting again"):
            self._wrapped.start()

    def remove(self) -> None:
        with self._doing("removing"):
            _remove_container(self._api, self.id)

    def _doing(self, what: str) -> contextlib.AbstractContextManager[None]:
        return _explained(f"{what} {self._name}")
