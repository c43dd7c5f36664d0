"""The PostgreSQL service: one server, with a separate database and user for each stack."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql

from harness.containers.service import Lease, Server, new_user
from harness.errors import ServiceError

_ADMIN = "harness"
_TIMEOUT_S = 10


class PostgreSQL(Server):
    """A PostgreSQL server, on loopback and on its network."""

    hostname = "postgresql"
    port = 5432

    def lease(self) -> Lease:
        """Make a database and a user who owns it, and has no rights elsewhere.

        Raises:
            ServiceError: the server refused.
        """
        user, password = new_user()
        name = sql.Identifier(user)
        with self._connected() as connection:
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(name, sql.Literal(password)))
            connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(name, name))
            # By default, everybody may connect to every database.
            connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name))
        login = f"{user}:{password}"
        host, port = self.container.host_port(self.port)
        inside = f"postgresql://{login}@{self.hostname}:{self.port}/{user}"
        return Lease(
            user=user,
            password=password,
            database=user,
            url_inside=inside,
            url_outside=f"postgresql+psycopg://{login}@{host}:{port}/{user}",
            values={
                "database.url": inside,
                "database.host": self.hostname,
                "database.port": str(self.port),
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
        host, port = self.container.host_port(self.port)
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

    def _ping(self) -> None:
        with self._connected() as connection:
            connection.execute("SELECT 1")
