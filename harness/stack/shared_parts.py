"""The parts that stacks share: the engine, the images, a network, and one broker."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from types import TracebackType
from typing import Self

from harness.containers import app_image, broker_choice, images
from harness.containers.broker_node import BrokerNode
from harness.containers.engine import Engine, network_leads_out
from harness.containers.engine_choice import connect
from harness.containers.image_recipes import Image, is_replaced
from harness.containers.ownership import sweep
from harness.errors import EngineError, noted_on
from harness.project.dependencies import Plan
from harness.project.needs import Network
from harness.records.event import Settings
from harness.stack.services import Services
from harness.stack.stack_spec import StackSpec

Say = Callable[[str], None]
"""Takes a line of progress."""


@dataclass(frozen=True, kw_only=True)
class _Started:
    """The parts of a started session."""

    engine: Engine
    network: str
    leads_out: bool
    broker: BrokerNode
    services: Services


class SharedParts:
    """Starts all parts at the first use of one, and takes them down with `close`. A context manager."""

    def __init__(self, say: Say = lambda _: None, *, broker_ports: Sequence[int] = ()) -> None:
        """Create it without starting anything.

        Args:
            say: gets a line about each thing that takes long.
            broker_ports: the ports of this machine for the broker; see `harness.containers.broker_choice.new_broker`.
        """
        self.say = say
        """Takes a line of progress."""
        self._broker_ports = broker_ports
        self._started: _Started | None = None
        self._open_network: str | None = None
        self._joining = Lock()
        self._closing = ExitStack()
        self._closed = False
        self._told: set[str] = set()

    def __enter__(self) -> Self:
        """Return the session."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take everything down."""
        with noted_on(error):
            self.close()

    def start(self) -> None:
        """Remove what dead owners left, find or build the images, start the broker; a second time does nothing.

        Raises:
            UsageError: HARNESS_NETWORK is neither `closed` nor `open`.
            EngineError: no engine answers, or the session has been closed.
            ImageError: an image can neither be found nor made.
            StartError: the broker does not come up.
        """
        self._ensure()

    def close(self) -> None:
        """Remove the broker and the network, if they were ever started; a second time does nothing.

        Raises:
            EngineError: something could not be removed. Everything else was.
        """
        self._closed, self._started = True, None
        self._closing.close()

    def say_once(self, line: str) -> None:
        """Report something that holds for many stacks, the first time only."""
        if line not in self._told:
            self._told.add(line)
            self.say(line)

    @property
    def engine(self) -> Engine:
        """The engine. The first use of this or a property below starts everything, and raises what `start` does."""
        return self._ensure().engine

    @property
    def broker(self) -> BrokerNode:
        """The broker."""
        return self._ensure().broker

    @property
    def services(self) -> Services:
        """The services beside the broker. None is started yet."""
        return self._ensure().services

    @property
    def network(self) -> str:
        """The network of the broker and of most nodes; it leads out only if HARNESS_NETWORK is `open`."""
        return self._ensure().network

    def network_of(self, wanted: Network) -> str:
        """Return a network for the nodes of a stack; on each, the broker has the same name.

        Args:
            wanted: CLOSED for the session's own network. OPEN for one that leads out, which is made at the first use.

        Raises:
            EngineError: the network cannot be made, or the broker cannot join it.
        """
        started = self._ensure()
        if wanted is Network.CLOSED or started.leads_out:
            return started.network
        with self._joining:
            if self._open_network is None:
                # An engine that orders networks by name keeps the broker's ports on the first one, which is `session`.
                self._open_network = started.engine.create_network("world", leads_out=True)
                started.broker.join(self._open_network, started.broker.name)
                started.services.join(self._open_network)
            return self._open_network

    @cached_property
    def worker_image(self) -> str:
        """The image of workers whose app has no image of its own. It is built at the first use, which may not come."""
        return images.ensure(self.engine, Image.NODE, say=self.say)

    @cached_property
    def mailbox_image(self) -> str:
        """The image of mailboxes: always the harness's own, because a user's worker image may lack a mail server."""
        if not is_replaced(Image.NODE):
            return self.worker_image
        return images.ensure(self.engine, Image.NODE, say=self.say, ours=True)

    def image_of(self, reference: str | None, build: Plan | None = None) -> str:
        """Return the image of a stack's app.

        Args:
            reference: an image to use as it is, pulled if it is not present.
            build: what the app's own image is made of, which is built if it is not present. Without either, it is the
                image of workers.

        Raises:
            ImageError: it is neither present, nor can be pulled or built.
        """
        if reference is None and build is not None:
            # Each stack of a session asks, and all hear the same.
            return app_image.ensure(self.engine, build, say=self.say_once)
        if reference is None:
            return self.worker_image
        images.ensure_present(self.engine, reference, say=self.say_once)
        return reference

    def broker_image_of(self, reference: str | None, *, is_next: bool = False) -> str:
        """Return the image of a broker.

        Args:
            reference: an image to use as it is, pulled if it is not present; None for the session's own.
            is_next: without a reference, that of the next series, which is built if it is not present.

        Raises:
            ImageError: it is neither present, nor can be pulled or built.
        """
        if reference is not None:
            images.ensure_present(self.engine, reference, say=self.say_once)
            return reference
        return broker_choice.next_image(self.engine, say=self.say) if is_next else self.broker.spec.image

    def broker_version(self, image: str) -> str:
        """Return the version of the broker in an image. Raises UsageError if it has none."""
        return broker_choice.version_of(self.engine, image)

    def tell_concurrency(self, spec: StackSpec, settings: Iterable[Settings]) -> None:
        """Report it, once in a session, if the harness's default options win over the app's own concurrency.

        Args:
            spec: the stack, whose own options nothing is said about.
            settings: the settings of each of its workers.
        """
        for said in settings if spec.options is None else ():
            own, used = said.get("worker_concurrency"), said.get("concurrency")
            if own and used != own:
                self.say_once(
                    f"a worker runs {used} tasks at once: the harness's default --concurrency={used} wins over the "
                    f"app's worker_concurrency of {own}, unless a stack names its own options"
                )

    def _ensure(self) -> _Started:
        if self._closed:
            raise EngineError("the session has been closed.")
        if self._started is None:
            try:
                self._started = self._up()
            except BaseException as error:
                with noted_on(error):
                    self._closing.close()
                raise
        return self._started

    def _up(self) -> _Started:
        leads_out = network_leads_out()
        engine = connect()
        # Closed last. Cleanup at the interpreter's exit that still needs the engine opens a new connection.
        self._closing.callback(engine.close)
        swept = sweep(engine)
        if swept:
            self.say(f"swept {len(swept)} leftovers of a run that was killed")
        broker_image = images.ensure(engine, broker_choice.IMAGE, say=self.say)
        network = engine.create_network("session", leads_out=leads_out)
        self._closing.callback(engine.remove_network, network)
        # The broker and the services may join the open network later, and have to be gone before it.
        self._closing.callback(self._remove_open_network, engine)
        services = Services(engine, network, self.say)
        self._closing.callback(services.close)
        broker = broker_choice.new_broker(engine, image=broker_image, network=network, kept_ports=self._broker_ports)
        self._closing.callback(broker.remove)
        broker.start()
        broker.wait_ready()
        return _Started(
            engine=engine,
            network=network,
            leads_out=leads_out,
            broker=broker,
            services=services,
        )

    def _remove_open_network(self, engine: Engine) -> None:
        if self._open_network is not None:
            engine.remove_network(self._open_network)
            self._open_network = None
