"""The link as a node: the clients of a stack reach the broker through it, and it disturbs their connections.

`harness.inside.link_control` runs in it.
"""

import json
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Self
from urllib.parse import urlsplit

from harness.containers.app_node import inside_command, inside_env, inside_mounts
from harness.containers.engine import Engine, NodeSpec
from harness.containers.node import Node
from harness.containers.run_socket import address_of
from harness.errors import EngineError, RecordError, ServiceError
from harness.records.link import LONGEST_LINE, SOCKET, Disturbance, Order, Report

NAME = "link"
_PORT = 5672
_ANSWERS_WITHIN_S = 10.0


class TcpLink(Node):
    """Forwards TCP connections to the broker. Each client has a port of its own there."""

    def __init__(
        self,
        engine: Engine,
        *,
        image: str,
        run_folder: Path,
        network: str,
        host: str,
        broker_url: str,
        outside: str,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """Create the node without starting it.

        Args:
            engine: runs it.
            image: the node image.
            run_folder: the run's folder.
            network: the network of the broker.
            host: its name on the network; stacks that share a network need different ones.
            broker_url: the broker's URL inside the network.
            outside: the client outside of the network: its port is published on loopback.
            labels: more labels.
        """
        broker = urlsplit(broker_url)
        spec = NodeSpec(
            name=NAME,
            image=image,
            command=inside_command("link_control"),
            env=inside_env(NAME)
            | {
                "HARNESS_LINK_BROKER": f"{broker.hostname}:{broker.port}",
                "HARNESS_LINK_CLIENT": outside,
                "HARNESS_LINK_PORT": str(_PORT),
            },
            mounts=inside_mounts(run_folder),
            ports=(_PORT,),
            aliases=(host,),
            labels=dict(labels or {}),
            read_only=True,
        )
        super().__init__(engine, spec, network=network, missing=self._lacks)
        self._host = host
        self._folder = run_folder
        self._outside = outside
        self._ports = {outside: _PORT}
        self._lock = Lock()

    @property
    def clients(self) -> Sequence[str]:
        """The clients that reach the broker through it: names of nodes."""
        return list(self._ports)

    def url_inside(self, client: str, broker_url: str) -> str:
        """Return the URL by which a client reaches the broker inside the network. Raises ServiceError."""
        with self._lock:
            if client not in self._ports:
                with Wire(self._folder) as wire:
                    self._ports[client] = wire.ask(Order(listen=client)).port or 0
        return _at(broker_url, self._host, self._ports[client])

    def url_outside(self, broker_url: str) -> str:
        """Return the URL by which the client outside reaches the broker."""
        return _at(broker_url, *self.container.host_port(_PORT))

    def disturb(self, what: Disturbance) -> "Disturbing":
        """Begin a disturbance. Raises ServiceError."""
        wire = Wire(self._folder)
        try:
            wire.ask(Order(disturb=what))
        except BaseException:
            wire.close()
            raise
        return Disturbing(wire)

    def remove(self) -> None:
        """Kill and remove it, and its socket."""
        super().remove()
        (self._folder / SOCKET).unlink(missing_ok=True)

    def _lacks(self) -> str | None:
        try:
            self.container.host_port(_PORT)
            with Wire(self._folder) as wire:
                wire.ask(Order())
        except (ServiceError, EngineError) as error:
            return f"an answer ({error})"
        return None


class Disturbing:
    """A disturbance that lasts. It also ends with the process that began it."""

    def __init__(self, wire: "Wire") -> None:
        """Take over the connection that began it."""
        self._wire = wire
        self._last: Report | None = None

    def report(self) -> Report:
        """Return what it has done: until now, or until its end. Raises ServiceError if the link does not answer."""
        return self._last or self._wire.ask(Order())

    def end(self) -> Report:
        """End it, and return what it has done. A second time returns the same. Raises ServiceError."""
        if self._last is None:
            try:
                self._last = self._wire.ask(Order(end=True))
            finally:
                # Whether or not the link has heard it: this ends the disturbance, too.
                self._wire.close()
        return self._last


class Wire:
    """A connection to the socket of a link. A context manager."""

    def __init__(self, folder: Path) -> None:
        """Connect to the link of a run folder. Raises ServiceError if it is not there."""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_ANSWERS_WITHIN_S)
        try:
            with address_of(folder, SOCKET) as address:
                self._socket.connect(address)
        except OSError as error:
            self._socket.close()
            raise ServiceError(f"the link does not take orders: {error}.") from error
        self._answers = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.close()

    def ask(self, order: Order) -> Report:
        """Send an order, and return the answer. Raises ServiceError: there is none, or the link refuses."""
        try:
            self._socket.sendall(json.dumps(order.to_json()).encode() + b"\n")
            line = self._answers.readline(LONGEST_LINE)
            report = Report.from_json(json.loads(line)) if line else Report(error="it has ended")
        except (OSError, ValueError, RecordError) as error:
            raise ServiceError(f"the link does not answer: {error or type(error).__name__}.") from error
        if report.error is not None:
            raise ServiceError(f"the link cannot do that: {report.error}.")
        return report

    def close(self) -> None:
        """Close the connection, which ends its disturbance."""
        self._answers.close()
        self._socket.close()


def _at(url: str, host: str, port: int) -> str:
    """Return a URL with another host and port."""
    parts = urlsplit(url)
    user = parts.netloc.rpartition("@")[0]
    return parts._replace(netloc=f"{user}@{host}:{port}" if user else f"{host}:{port}").geturl()
