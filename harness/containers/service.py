"""The servers of services, which apps use beside the broker: their common part, and what a stack gets from one."""

import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from harness.containers.engine import Engine, NodeSpec
from harness.containers.node import Node
from harness.errors import EngineError, ServiceError


@dataclass(frozen=True, kw_only=True)
class Lease:
    """One stack's part of a service: a database of its own, and a user who can use it."""

    user: str
    password: str = field(repr=False)
    database: str
    url_inside: str = field(repr=False)
    """The URL for nodes on the server's network."""
    url_outside: str = field(repr=False)
    """The URL for processes of this machine."""
    values: Mapping[str, str] = field(repr=False)
    """The values for templates in the app's environment, by name, such as `database.url`."""


class Server(Node, ABC):
    """A server that stacks share, on loopback and on its network."""

    hostname: ClassVar[str]
    """Its name on the network."""
    port: ClassVar[int]

    def __init__(self, engine: Engine, *, image: str, network: str) -> None:
        """Create the node without starting it.

        Args:
            engine: runs it.
            image: the harness's image of this service.
            network: the network of the nodes that use it.
        """
        self._password = secrets.token_urlsafe(24)
        spec = NodeSpec(
            name=self.hostname, image=image, env={"HARNESS_PASSWORD": self._password}, ports=(self.port,), user=None
        )
        super().__init__(engine, spec, network=network, missing=self._lacks)

    @abstractmethod
    def lease(self) -> Lease:
        """Make a database and a user, and return them. Raises ServiceError if the server refuses."""

    @abstractmethod
    def end(self, lease: Lease) -> None:
        """Remove a database and its user, and end their connections. Raises ServiceError if the server refuses."""

    @abstractmethod
    def _ping(self) -> None:
        """Ask it something as the administrator. Raises ServiceError if it does not answer."""

    def _lacks(self) -> str | None:
        try:
            self._ping()
        except (EngineError, ServiceError) as error:
            return str(error)
        return None


def new_user() -> tuple[str, str]:
    """Return the name and the password of a user for one more stack."""
    return f"stack_{secrets.token_hex(6)}", secrets.token_urlsafe(24)
