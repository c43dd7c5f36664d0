"""The broker of one stack: its part of the session's broker, or a broker of the stack's own."""

import secrets
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from harness.audit.run_folder import RunFolder
from harness.containers import broker_choice
from harness.containers.broker_disk import SIZE_MB, BrokerDisk
from harness.containers.broker_node import BrokerNode, Login
from harness.containers.engine import LOOPBACK, PortTakenError
from harness.errors import RunFolderError, UsageError
from harness.stack.shared_parts import SharedParts
from harness.stack.stack_spec import StackSpec

_LOG_LINES = 300
_PORTS = range(20_000, 30_000)
"""The ports that a broker of a stack's own may keep. Systems choose ports for outgoing connections above them, so that
nobody takes one while the broker is down."""
_ATTEMPTS = 10
_KILLED = 128 + signal.SIGKILL
"""The exit code of what was killed."""


class StackBroker:
    """The broker that a stack uses, and the stack's user and vhost there.

    A broker of the stack's own keeps its address on this machine while it is down, as a broker does elsewhere. So
    whatever is connected to it finds it again.
    """

    def __init__(self, session: SharedParts, spec: StackSpec, folder: RunFolder) -> None:
        """Prepare it without starting anything; `folder` gives the vhost its name, and gets the log."""
        self._session = session
        self._spec = spec
        self._folder = folder
        self._own: BrokerNode | None = None
        self._upgrades = 0
        self.was_killed = False
        """True if the broker did not end within its time at the last upgrade, so that it was killed."""
        self._volume: str | None = None
        """The volume of its data; None if they are in its container."""
        self._disk: BrokerDisk | None = None
        self._login: Login | None = None

    @property
    def node(self) -> BrokerNode:
        """The broker. Raises UsageError if it is one of the stack's own that is not running."""
        if not self._spec.own_broker:
            return self._session.broker
        if self._own is None:
            raise UsageError("the stack has no broker yet: it starts its own first.")
        return self._own

    @property
    def disk(self) -> BrokerDisk:
        """The small disk of its data. Raises UsageError if it has none."""
        if self._disk is None:
            raise UsageError(
                "the broker of this stack has no small disk to fill; ask for one with "
                "@pytest.mark.stack(own_broker=True, small_disk=True), or in its StackSpec."
            )
        return self._disk

    @property
    def login(self) -> Login | None:
        """The user and the vhost; None before and after they exist."""
        return self._login

    @contextmanager
    def opened(self, network: str) -> Iterator[Login]:
        """Start the broker if it is to be the stack's own, and yield its login; all is removed afterwards."""
        name = self._folder.path.name
        with ExitStack() as closing:
            if self._spec.own_broker:
                self._make_disk(closing)
                self._own = self._started(network)
                closing.callback(self._own.remove)
                self._own.wait_ready()
            broker = self.node
            self._login = broker.welcome_guest() if self._spec.guest else broker.create_vhost(name)
            if not self._spec.own_broker:
                closing.callback(broker.delete_vhost, self._login)
            closing.callback(self._save_log)
            try:
                yield self._login
            finally:
                self._login = None

    def make_durable(self) -> None:
        """Have a broker of the stack's own write to disk what was declared until now.

        Otherwise one that is killed within the first seconds could lose what the start of the stack has declared.
        """
        if self._own is not None:
            self._own.make_durable()

    def upgrade(self, image: str, timeout_s: int) -> None:
        """Stop a broker of the stack's own, and start it anew from another image, with its data. See `BrokerNode`.

        Args:
            image: the other image, which must be present.
            timeout_s: seconds within which it has to end before it is killed.
        """
        broker = self.node
        if self._own is None:
            raise UsageError(f"{broker.name} is shared by all stacks, so it cannot be upgraded.")
        self.was_killed = False
        if broker.is_up():
            broker.stop(timeout_s)
            self.was_killed = broker.container.state().exit_code == _KILLED
        self._save_log(f"{broker.name}-{self._upgrades}")
        self._upgrades += 1
        broker.upgrade(image)
        broker.wait_ready()

    def _make_disk(self, closing: ExitStack) -> None:
        """Make a place for the data, if they are to outlive the broker's container."""
        spec, engine = self._spec, self._session.engine
        if spec.broker_image is None and not spec.small_disk:
            return
        self._volume = engine.create_volume("broker", size_mb=SIZE_MB if spec.small_disk else None)
        closing.callback(engine.remove_volume, self._volume)
        if spec.small_disk:
            image = spec.broker_image or self._session.broker.spec.image
            self._disk = broker_choice.new_disk(
                engine, image=image, name=f"disk-{secrets.token_hex(4)}", volume=self._volume
            )
            closing.callback(self._disk.remove)
            self._disk.start()

    def _started(self, network: str) -> BrokerNode:
        shared = self._session.broker
        self._session.say_once("a stack starts a broker of its own")
        for attempt in range(1, _ATTEMPTS + 1):
            broker = broker_choice.new_broker(
                self._session.engine,
                image=self._spec.broker_image or shared.spec.image,
                network=network,
                # Stacks share the network. A number, so that a fault still finds it as `broker`.
                name=f"{shared.name}-{secrets.randbelow(900_000) + 100_000}",
                kept_ports=_free_ports(len(shared.spec.ports)),
                volume=self._volume,
            )
            try:
                broker.start()
            except PortTakenError:
                if attempt == _ATTEMPTS:
                    raise
            else:
                break
        return broker

    def _save_log(self, name: str = "") -> None:
        # Stacks share the session's broker, so that only the end of its log concerns this one.
        broker = self.node
        path = self._folder.logs / f"{name or broker.name}.log"
        try:
            path.write_text(broker.last_lines(_LOG_LINES) + "\n", encoding="utf-8")
        except OSError as error:
            raise RunFolderError(f"cannot write {path}: {error}") from error


def _free_ports(count: int) -> list[int]:
    """Return ports at which nothing on this machine listens now. If the engine's machine is another, it may refuse."""
    free = []
    for port in secrets.SystemRandom().sample(_PORTS, len(_PORTS)):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
        free.append(port)
        if len(free) == count:
            return free
    raise PortTakenError(f"no {count} ports from {_PORTS.start} to {_PORTS.stop - 1} are free for a broker.")
