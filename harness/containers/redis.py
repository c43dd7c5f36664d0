"""The Redis service: one server, with a separate numbered database and user for each stack."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import redis

from harness.containers.engine import Engine, NodeSpec
from harness.containers.node import Node
from harness.containers.service import Lease
from harness.errors import EngineError, ServiceError

PORT = 6379
HOSTNAME = "redis"
_DATABASES = 1024
"""The number of databases, as `redis.conf` sets it. The first one belongs to nobody."""
_TIMEOUT_S = 10
_RIGHTS = ("~*", "&*", "+@all", "-@admin", "-flushall", "-swapdb")
"""The rights of a stack's user: all keys and channels, but nothing that concerns the server or all databases."""


class Redis(Node):
    """A Redis server, on loopback and on its network.

    Redis has no rights for single databases: a user who selects another stack's database can read it.
    """

    def __init__(self, engine: Engine, *, image: str, network: str) -> None:
        """Create the node without starting it.

        Args:
            engine: runs it.
            image: the harness's image of Redis.
            network: the network of the nodes that use it.
        """
        self._password = secrets.token_urlsafe(24)
        self._numbers = count(1)
        self._free: list[int] = []
        spec = NodeSpec(name=HOSTNAME, image=image, env={"HARNESS_PASSWORD": self._password}, ports=(PORT,), user=None)
        super().__init__(engine, spec, network=network, missing=self._lacks)

    def lease(self) -> Lease:
        """Take an empty database, and make a user with a random password.

        Raises:
            ServiceError: the server refused, or all databases are taken.
        """
        number = self._free.pop() if self._free else next(self._numbers)
        if number >= _DATABASES:
            raise ServiceError(f"Redis has {_DATABASES} databases, and all of them are taken: close stacks.")
        user, password = f"stack_{secrets.token_hex(6)}", secrets.token_urlsafe(24)
        with self._connected() as client:
            client.execute_command("ACL", "SETUSER", user, "on", f">{password}", *_RIGHTS)
        host, port = self.container.host_port(PORT)
        inside = f"redis://{user}:{password}@{HOSTNAME}:{PORT}/{number}"
        return Lease(
            user=user,
            password=password,
            database=str(number),
            url_inside=inside,
            url_outside=f"redis://{user}:{password}@{host}:{port}/{number}",
            values={
                "redis.url": inside,
                "redis.host": HOSTNAME,
                "redis.port": str(PORT),
                "redis.database": str(number),
                "redis.user": user,
                "redis.password": password,
            },
        )

    def end(self, lease: Lease) -> None:
        """Remove a user, end their connections, and empty the database, which then is free.

        Raises:
            ServiceError: the server refused.
        """
        with self._connected(int(lease.database)) as client:
            client.execute_command("ACL", "DELUSER", lease.user)
            client.flushdb()
        self._free.append(int(lease.database))

    @contextmanager
    def _connected(self, number: int = 0) -> Iterator["redis.Redis"]:
        """Connect as the administrator. Raises ServiceError for what fails in here."""
        host, port = self.container.host_port(PORT)
        try:
            with redis.Redis(
                host=host,
                port=port,
                db=number,
                password=self._password,
                socket_timeout=_TIMEOUT_S,
                socket_connect_timeout=_TIMEOUT_S,
            ) as client:
                yield client
        except redis.RedisError as error:
            raise ServiceError(f"Redis refused: {error}") from error

    def _lacks(self) -> str | None:
        try:
            with self._connected() as client:
                client.ping()
        except (EngineError, ServiceError) as error:
            return str(error)
        return None
