"""The Redis service: one server, with a separate numbered database and user for each stack."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import redis

from harness.containers.engine import Engine
from harness.containers.service import Lease, Server, new_user
from harness.errors import ServiceError

_DATABASES = 1024
"""The number of databases, as `redis.conf` sets it. The first one belongs to nobody."""
_TIMEOUT_S = 10
_RIGHTS = ("~*", "&*", "+@all", "-@admin", "-flushall", "-swapdb")
"""The rights of a stack's user: all keys and channels, but nothing that concerns the server or all databases."""


class Redis(Server):
    """A Redis server, on loopback and on its network.

    Redis has no rights for single databases: a user who selects another stack's database can read it.
    """

    hostname = "redis"
    port = 6379

    def __init__(self, engine: Engine, *, image: str, network: str) -> None:
        """Create the node without starting it."""
        super().__init__(engine, image=image, network=network)
        self._numbers = count(1)
        self._free: list[int] = []

    def lease(self) -> Lease:
        """Take an empty database, and make a user with a random password.

        Raises:
            ServiceError: the server refused, or all databases are taken.
        """
        number = self._free.pop() if self._free else next(self._numbers)
        if number >= _DATABASES:
            raise ServiceError(f"Redis has {_DATABASES} databases, and all of them are taken: close stacks.")
        user, password = new_user()
        with self._connected() as client:
            client.execute_command("ACL", "SETUSER", user, "on", f">{password}", *_RIGHTS)
        host, port = self.container.host_port(self.port)
        inside = f"redis://{user}:{password}@{self.hostname}:{self.port}/{number}"
        return Lease(
            user=user,
            password=password,
            database=str(number),
            url_inside=inside,
            url_outside=f"redis://{user}:{password}@{host}:{port}/{number}",
            values={
                "redis.url": inside,
                "redis.host": self.hostname,
                "redis.port": str(self.port),
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
        host, port = self.container.host_port(self.port)
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

    def _ping(self) -> None:
        with self._connected() as client:
            client.ping()
