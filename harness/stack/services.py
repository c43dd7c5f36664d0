"""The services of a session: a server of each kind, started when the first stack asks for it."""

from collections.abc import Callable
from contextlib import ExitStack
from threading import Lock

from harness.containers import images
from harness.containers.engine import Engine
from harness.containers.image_recipes import Image
from harness.containers.service import Lease, Server
from harness.errors import UsageError
from harness.project.needs import Service


class Services:
    """Starts a server when its first lease is taken; `close` removes all."""

    def __init__(self, engine: Engine, network: str, say: Callable[[str], None]) -> None:
        """Create it without starting anything.

        Args:
            engine: runs the servers.
            network: the network of all nodes.
            say: gets a line about each thing that takes long.
        """
        self._engine = engine
        self._network = network
        self._say = say
        self._servers: dict[Service, Server] = {}
        self._joined: list[str] = []
        self._lock = Lock()
        self._closing = ExitStack()

    def lease(self, service: Service) -> Lease:
        """Make a database and a user for one stack.

        Raises:
            UsageError: the driver for such a server is not installed.
            ImageError: its image can neither be found nor made.
            StartError: the server does not come up.
            ServiceError: it refuses.
        """
        with self._lock:
            if service not in self._servers:
                self._servers[service] = self._started(service)
            return self._servers[service].lease()

    def end(self, service: Service, lease: Lease) -> None:
        """Remove what `lease` made. Raises ServiceError if the server refuses."""
        self._servers[service].end(lease)

    def join(self, network: str) -> None:
        """Let every server, and every later one, have its name on one more network. Raises EngineError."""
        with self._lock:
            self._joined.append(network)
            for service, server in self._servers.items():
                server.join(network, service.value)

    def close(self) -> None:
        """Remove all servers. Raises EngineError if one could not be removed; all others were."""
        self._closing.close()

    def _started(self, service: Service) -> Server:
        image = images.ensure(self._engine, Image(service.value), say=self._say)
        server = _server(service, self._engine, image, self._network)
        self._closing.callback(server.remove)
        server.start()
        for network in self._joined:
            server.join(network, service.value)
        server.wait_ready()
        return server


def _server(service: Service, engine: Engine, image: str, network: str) -> Server:
    """Create a server without starting it. Raises UsageError if its driver is not installed."""
    try:
        if service is Service.POSTGRESQL:
            from harness.containers.postgresql import PostgreSQL  # noqa: PLC0415 - it needs the extra `services`.

            return PostgreSQL(engine, image=image, network=network)
        from harness.containers.redis import Redis  # noqa: PLC0415 - the same.

        return Redis(engine, image=image, network=network)
    except ImportError as error:
        raise UsageError(
            f"the service {service} needs the package {error.name} beside the harness, and it is not installed: "
            "pip install 'celery-harness[services]'"
        ) from error
