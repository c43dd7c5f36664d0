"""The servers of tests that are written for pytest-celery, beside the session's broker.

Each is kept for the next test that asks for one like it: to start a server takes longer than most tests.
"""

import socket
from collections.abc import Collection, Sequence

from harness.containers import images
from harness.containers.engine import Engine, NodeSpec
from harness.containers.image_recipes import Image
from harness.containers.node import Node
from harness.containers.rabbitmq import Broker
from harness.errors import EngineError
from harness.project.needs import Mount
from harness.stack.shared_parts import SharedParts

REDIS_PORT = 6379
_TIMEOUT_S = 3.0
_SETTINGS = b"CONFIG GET *"


class KeptServers:
    """The brokers beside the session's own, and the Redis servers."""

    def __init__(self, session: SharedParts) -> None:
        """Take the session whose network they are on."""
        self._session = session
        self._brokers: list[Broker] = []
        self._redises: list[RedisServer] = []

    def close(self) -> None:
        """Remove them all."""
        for server in (*self._brokers, *self._redises):
            server.remove()

    def broker(self, taken: Collection[str]) -> Broker:
        """Return a broker that runs, with the vhost of `guest` empty.

        Args:
            taken: the names of the nodes that the test has already.
        """
        broker = next((one for one in self._brokers if one.name not in taken), None) or self._new_broker()
        if not broker.is_up():
            broker.start()
            broker.wait_ready()
        broker.welcome_guest()
        return broker

    def redis(self, command: Sequence[str], mounts: Sequence[Mount], taken: Collection[str]) -> "RedisServer":
        """Return a Redis server that runs, is empty, and has the settings that it started with.

        Args:
            command: the words that start it.
            mounts: the files that it sees.
            taken: the names of the nodes that the test has already.
        """
        for server in self._redises:
            if server.name not in taken and server.is_like(command, mounts):
                # A test may have killed it, or have set what the next one does not expect, such as a password.
                if not (server.is_up() and server.is_as_new()):
                    server.remove()
                    server.start()
                    server.wait_ready()
                return server
        return self._new_redis(command, mounts)

    def _new_broker(self) -> Broker:
        name = f"broker-{len(self._brokers) + 2}"
        like = self._session.broker.spec
        broker = Broker(self._session.engine, image=like.image, network=self._session.network, name=name)
        self._brokers.append(broker)
        return broker

    def _new_redis(self, command: Sequence[str], mounts: Sequence[Mount]) -> "RedisServer":
        spec = NodeSpec(
            name=f"redis-{len(self._redises) + 1}",
            image=images.ensure(self._session.engine, Image.REDIS, say=self._session.say),
            # It is reached by its network's address, without a password.
            command=(*command, *(() if "--protected-mode" in command else ("--protected-mode", "no"))),
            mounts=tuple(mounts),
            ports=(REDIS_PORT,),
            user=None,
        )
        server = RedisServer(self._session.engine, spec, network=self._session.network, asked=(command, mounts))
        self._redises.append(server)
        server.start()
        server.wait_ready()
        return server


class RedisServer(Node):
    """A Redis server that one test at a time has."""

    def __init__(
        self, engine: Engine, spec: NodeSpec, *, network: str, asked: tuple[Sequence[str], Sequence[Mount]]
    ) -> None:
        """Create the node without starting it.

        Args:
            engine: runs it.
            spec: what to run.
            network: the network of the nodes that use it.
            asked: the command and the mounts that were asked for.
        """
        super().__init__(engine, spec, network=network, missing=self._lacks)
        self._asked = (list(asked[0]), list(asked[1]))
        self._settings = b""

    def is_like(self, command: Sequence[str], mounts: Sequence[Mount]) -> bool:
        """Return whether it was asked for with this command and these mounts."""
        return self._asked == (list(command), list(mounts))

    def wait_ready(self, timeout_s: float = 120.0) -> None:
        """Return as soon as it is ready. Raises StartError as the base class does."""
        super().wait_ready(timeout_s)
        self._settings = self._answer_to(_SETTINGS)

    def is_as_new(self) -> bool:
        """Delete all keys. Return False if that failed, or if its settings are not those that it began with."""
        return self._answer_to(b"FLUSHALL").startswith(b"+OK") and self._answer_to(_SETTINGS) == self._settings

    def _lacks(self) -> str | None:
        """Connect as a client would."""
        answer = self._answer_to(b"PING")
        return None if answer.startswith((b"+PONG", b"-NOAUTH")) else f"an answer to PING (it said {answer!r})"

    def _answer_to(self, command: bytes) -> bytes:
        """Send a command, and return the answer, or the error if there is none."""
        said = b""
        try:
            with socket.create_connection(self.container.host_port(REDIS_PORT), _TIMEOUT_S) as connection:
                connection.settimeout(_TIMEOUT_S)
                # It answers both and closes.
                connection.sendall(command + b"\r\nQUIT\r\n")
                while part := connection.recv(65536):
                    said += part
        except (OSError, EngineError) as error:
            return str(error).encode()
        return said
