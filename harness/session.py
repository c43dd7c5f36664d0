"""What stacks share: the engine, the images, a network, and one broker."""

from collections.abc import Callable
from functools import cached_property
from types import TracebackType
from typing import Self

from harness.errors import EngineError
from harness.nodes import images
from harness.nodes.broker import Broker
from harness.nodes.engine import Engine, connect
from harness.nodes.owner import sweep

Say = Callable[[str], None]
"""Takes a line of progress."""


class Session:
    """Starts everything at its first use, and takes it down with `close`. A context manager."""

    def __init__(self, say: Say = lambda _: None) -> None:
        """Nothing is started yet; `say` is told what takes its time."""
        self.say = say
        """Takes a line of progress."""
        self._engine: Engine | None = None
        self._network = ""
        self._broker: Broker | None = None
        self._worker_image = ""

    def __enter__(self) -> Self:
        """The session itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take everything down."""
        self.close()

    def start(self) -> None:
        """Sweep what dead owners left, find or build the images, start the broker; the second time does nothing.

        Raises:
            EngineError: no engine answers.
            ImageError: an image can neither be found nor made.
            StartError: the broker does not come up.
        """
        if self._broker is not None:
            return
        client = connect()
        swept = sweep(client)
        if swept:
            self.say(f"swept {len(swept)} leftovers of a run that was killed")
        rabbitmq = images.ensure(client, images.Image.RABBITMQ, say=self.say)
        self._worker_image = images.ensure(client, images.Image.NODE, say=self.say)
        self._engine = Engine(client)
        try:
            self._network = self._engine.create_network("session")
            self._broker = Broker(self._engine, image=rabbitmq, network=self._network)
            self._broker.start()
            self._broker.wait_ready()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Remove the broker and the network; nothing happens if they were never started."""
        if self._broker is not None:
            self._broker.remove()
            self._broker = None
        if self._engine is not None and self._network:
            self._engine.remove_network(self._network)
            self._network = ""

    @property
    def engine(self) -> Engine:
        """The engine, from the start on."""
        self.start()
        if self._engine is None:
            raise EngineError("the session has been closed.")
        return self._engine

    @property
    def broker(self) -> Broker:
        """The broker, which the first use starts."""
        self.start()
        if self._broker is None:
            raise EngineError("the session has been closed.")
        return self._broker

    @property
    def network(self) -> str:
        """The network that all nodes are on."""
        return self._network

    @property
    def worker_image(self) -> str:
        """The image of workers."""
        return self._worker_image

    @cached_property
    def mailbox_image(self) -> str:
        """The image of mailboxes: always the harness's own, because one's own worker image need hold no mail server."""
        if not images.is_replaced(images.Image.NODE):
            return self._worker_image
        return images.ensure(self.engine.client, images.Image.NODE, say=self.say, ours=True)
