"""The PostgreSQL service: one server, with a separate database and user for each stack."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql

from harness.containers.engine import Engine, NodeSpec
from harness.containers.node import Node
from harness.containers.service import Lease
from harness.errors import EngineError, ServiceError

PORT = 5432
HOSTNAME = "postgresql"
_ADMIN = "harness"
_TIMEOUT_S = 10


class PostgreSQL(Node):
    """A PostgreSQL server, on loopback and on its network."""

    def __init__(self, engine: Engine, *, image: str, network: str) -> None:
        """Create the node without starting it.

        Args:
            engine: runs it.
            image: the harness's image of PostgreSQL.
            network: the network of the nodes that use it.
        """
        self._password = secrets.token_urlsafe(24)
        spec = NodeSpec(name=HOSTNAME, image=image, env={"HARNESS_PASSWORD": self._password}, ports=(PORT,), user=None)
        super().__init__(engine, spec, network=network, missing=self._lacks)

    def lease(self) -> Lease:
        """Make a database and a user who owns it, and has no rights elsewhere.

        Raises:
            ServiceError: the server refused.
        """
        user, password = f"stack_{secrets.token_hex(6)}", secrets.token_urlsafe(24)
        name = sql.Identifier(user)
        with self._connected() as connection:
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(name, sql.Literal(password)))
            connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(name, name))
            # By default, everybody may connect to every database.
            connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name))
        login = f"{user}:{password}"
        host, port = self.container.host_port(PORT)
        inside = f"postgresql://{login}@{HOSTNAME}:{PORT}/{user}"
        return Lease(
            user=user,
            password=password,
            database=user,
            url_inside=inside,
            url_outside=f"postgresql+psycopg://{login}@{host}:{port}/{user}",
            values={
                "database.url": inside,
                "database.host": HOSTNAME,
                "database.port": str(PORT),
                "database.name": user,
                "database.user": user,
                "database.password": password,
            },
        )

    def end(self, lease: Lease) -> None:
        """Remove a database and its user, and end their connections.

        Raises:
            ServiceError: the server refused.
        """
        name = sql.Identifier(lease.database)
        with self._connected() as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
            connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(name))

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection]:
        """Connect as the administrator, who commits each statement. Raises ServiceError for what fails in here."""
        host, port = self.container.host_port(PORT)
        try:
            with psycopg.connect(
                host=host,
                port=port,
                user=_ADMIN,
                password=self._password,
                dbname="postgres",
                connect_timeout=_TIMEOUT_S,
                options=f"-c statement_timeout={_TIMEOUT_S}s",
                autocommit=True,
            ) as connection:
                yield connection
        except psycopg.Error as error:
            raise ServiceError(f"PostgreSQL refused: {' '.join(str(error).split())}") from error

    def _lacks(self) -> str | None:
        try:
            with self._connected() as connection:
                connection.execute("SELECT 1")
        except (EngineError, ServiceError) as error:
            return str(error)
        return None
