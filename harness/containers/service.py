"""The servers of services, which apps use beside the broker: their interface, and what a stack gets from one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


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


class Server(Protocol):
    """A server that stacks share."""

    def start(self) -> None:
        """Start it. Raises EngineError."""

    def join(self, network: str, *names: str) -> None:
        """Let it have these names on one more network. Raises EngineError."""

    def wait_ready(self) -> None:
        """Return when it answers. Raises StartError if it does not."""

    def lease(self) -> Lease:
        """Make a database and a user, and return them. Raises ServiceError if the server refuses."""

    def end(self, lease: Lease) -> None:
        """Remove a database and its user, and end their connections. Raises ServiceError if the server refuses."""

    def remove(self) -> None:
        """Remove the server, and all databases with it."""
