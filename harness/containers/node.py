"""A node: one container of a stack, with a name, a readiness check, and a log."""

from collections.abc import Callable
from pathlib import Path

from harness.containers.engine import Container, Engine, NodeSpec, State, Status
from harness.errors import EngineError, RunFolderError, StartError, WaitTimeout
from harness.wait import wait_until

_TAIL_LINES = 25
_REASON = "celery-harness: "
"""The beginning of the line in which a program of the harness says why its container ends; `harness.inside.start`."""

Missing = Callable[[], str | None]
"""Returns what a node still lacks to be ready, in a few words; None once it is ready."""


class Node:
    """A container with a name: `start` it, `wait_ready`, use it, and `remove` it."""

    def __init__(
        self, engine: Engine, spec: NodeSpec, *, network: str | None = None, missing: Missing | None = None
    ) -> None:
        """Create the node without starting it.

        Args:
            engine: runs it.
            spec: what to run.
            network: from `Engine.create_network`; None for the engine's default network.
            missing: called repeatedly by `wait_ready`; None for a node that is ready when it runs.
        """
        self.spec = spec
        self._engine = engine
        self._network = network
        self._missing = missing or (lambda: None)
        self._container: Container | None = None
        self._address: str | None = None
        """The address that it had on its network before it left it."""

    @property
    def name(self) -> str:
        """The node's name, unique within its stack."""
        return self.spec.name

    @property
    def container(self) -> Container:
        """The container of the node. Raises EngineError before the first `start`."""
        if self._container is None:
            raise EngineError(f"{self.name} has not been started.")
        return self._container

    def start(self) -> None:
        """Start it, or start it again if it exited. Raises EngineError if the engine refuses."""
        if self._container is None:
            self._container = self._engine.run(self.spec, network=self._network)
        else:
            self._container.start()

    def join(self, network: str, *names: str) -> None:
        """Connect the running node to one more network, under these names there. Published ports may change."""
        self._engine.join(self.container, network, names=names)

    def is_connected(self) -> bool:
        """Return whether it is on its network. Raises EngineError if it has none, as a node of the engine's default."""
        return self._engine.is_on(self.container, self._own_network())

    def disconnect(self) -> None:
        """Cut it off from its network: it goes on, and nothing reaches it, nor does it reach anything."""
        self._address = self._engine.leave(self.container, self._own_network())

    def reconnect(self) -> None:
        """Connect it to its network again, under its names and its address there. Published ports may change."""
        names = [self.name, *self.spec.aliases]
        self._engine.join(self.container, self._own_network(), names=names, address=self._address or None)

    def _own_network(self) -> str:
        if self._network is None:
            raise EngineError(f"{self.name} has no network of its own that it could leave.")
        return self._network

    def wait_ready(self, timeout_s: float = 120.0) -> None:
        """Return as soon as the node is ready.

        A broker takes six seconds on a quiet machine of two cores. On a virtual machine that got a tenth of its host's
        time, 60 s were not enough.

        Raises:
            StartError: the node died or was not ready after `timeout_s` seconds; the message ends with the reason that
                it gave, or with its last log lines.
        """
        seen: str | None = "nothing yet"

        def probe() -> bool:
            nonlocal seen
            state = self.container.state()
            if state.status in {Status.EXITED, Status.GONE}:
                raise StartError(f"{self.name} {_died(state)} before it was ready. {self._last_words()}")
            seen = self._missing()
            return seen is None

        try:
            wait_until(probe, what=f"{self.name} is ready", timeout_s=timeout_s, interval_s=0.03)
        except WaitTimeout:
            state = self.container.state()
            raise StartError(
                f"{self.name} was not ready within {timeout_s:g} s: it is {state}, and still lacks: {seen}. "
                f"{self._last_words()}"
            ) from None

    def is_up(self) -> bool:
        """Return whether it runs; true for a paused node as well."""
        return self._container is not None and self._container.state().status in {Status.RUNNING, Status.PAUSED}

    def last_lines(self, count: int) -> str:
        """Return the last `count` lines of its log; empty if it was never started or is gone."""
        return "" if self._container is None else self._container.logs(tail=count).strip()

    def kill(self, signal: str = "SIGKILL") -> None:
        """Send a signal to its first process."""
        self.container.kill(signal)

    def pause(self) -> None:
        """Freeze all its processes."""
        self.container.pause()

    def unpause(self) -> None:
        """Resume all its processes."""
        self.container.unpause()

    def limit_memory(self, limit_bytes: int | None) -> None:
        """Set the most memory that its processes may use; None for the limit that it was started with."""
        self.container.limit_memory(limit_bytes)

    def stop(self, timeout_s: int = 10) -> None:
        """Ask it to stop with SIGTERM (a warm shutdown), and kill it after `timeout_s` seconds."""
        self.container.stop(timeout_s)

    def restart(self, timeout_s: int = 10) -> None:
        """Stop it and start it; it is not ready yet on return. Published ports may change."""
        self.stop(timeout_s)
        self.start()

    def save_logs(self, folder: Path) -> Path | None:
        """Write its whole log to ``folder/<name>.log``, and return the path; None if it was never started or is gone.

        Raises:
            RunFolderError: the file cannot be written.
        """
        if self._container is None or self._container.state().status is Status.GONE:
            return None
        path = folder / f"{self.name}.log"
        try:
            path.write_text(self._container.logs(), encoding="utf-8")
        except OSError as error:
            raise RunFolderError(f"cannot write {path}: {error}") from error
        return path

    def remove(self) -> None:
        """Kill and remove it; nothing happens if it was never started or is gone. It can be started again."""
        if self._container is not None:
            self._container.remove()
            self._container = None

    def _last_words(self) -> str:
        said = self.last_lines(_TAIL_LINES)
        # A line of Celery's, such as that of a process that ends, may follow it.
        reasons = [line for line in said.splitlines() if line.startswith(_REASON)]
        if reasons:
            return reasons[-1].removeprefix(_REASON)
        return f"Its last log lines:\n{said}" if said else "It said nothing."


def _died(state: State) -> str:
    return "was removed" if state.status is Status.GONE else str(state)
