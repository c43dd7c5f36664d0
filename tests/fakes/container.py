"""Containers that are none, and an engine that runs them: for tests of what is done with nodes.

tests/contract holds the fake container to what a real one does.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import cast

from harness.containers.engine import LOOPBACK, Container, Engine, NodeSpec, PortTakenError, State, Status
from harness.errors import EngineError

UP = State(status=Status.RUNNING)
PAUSED = State(status=Status.PAUSED)


@dataclass(frozen=True, kw_only=True)
class Reaction:
    """What a program does when a signal reaches it."""

    says: Sequence[str] = ()
    ends_with: int | None = None
    """The exit code; None if it goes on."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """What runs in a fake container, as far as it is seen from outside."""

    says: Callable[[int], Sequence[str]] = lambda _: ()
    """The lines of each start, by its number; the first is 1."""
    ends_with: int | None = None
    """The exit code, if it ends by itself and at once."""
    reacts: Mapping[str, Reaction] = field(default_factory=lambda: {"SIGTERM": Reaction(ends_with=0)})
    """By the signal; any other does nothing to it, but for SIGKILL."""
    executes: Callable[[Sequence[str]], str] = lambda _: ""
    """What one more command in the container does and writes. Raises EngineError for one that fails."""


@dataclass
class FakeContainer:
    """Does what it is told, or refuses."""

    id: str = "fake"
    program: Program = field(default_factory=Program)
    ports: Mapping[int, int] = field(default_factory=dict)
    """Where each port that is published is reached."""
    now: State = UP
    exit_code: int = 137
    """Of one that is killed."""
    limit_bytes: int | None = None
    """The limit of its memory, if it was changed."""
    refuses: set[str] = field(default_factory=set)
    is_cut_off: bool = False
    """It does the next thing that it is told, and the answer is lost."""
    done: list[str] = field(default_factory=list)
    on_start: list[Callable[[], object]] = field(default_factory=list)
    """What happens at each start after the first."""

    def __post_init__(self) -> None:
        """Start it at once."""
        self._changed = threading.Condition()
        self._lines: list[str] = []
        self._starts = 0
        self._begin()

    def state(self) -> State:
        return self.now

    def logs(self, tail: int | None = None) -> str:
        lines = [] if self._is_gone() else self._lines[-tail:] if tail else self._lines
        return "".join(f"{line}\n" for line in lines)

    def follow(self) -> Iterator[str]:
        told = len(self._lines)
        while True:
            with self._changed:
                self._changed.wait_for(partial(self._has_news, told))
                new, ended = self._lines[told:], self._has_ended()
            yield from new
            told += len(new)
            if ended:
                return

    def host_port(self, port: int) -> tuple[str, int]:
        if port not in self.ports:
            raise EngineError(f"Port {port} of {self.id} is not published; it is {self.now}.")
        return LOOPBACK, self.ports[port]

    def addresses(self) -> set[str]:
        return set() if self._has_ended() else {LOOPBACK}

    def execute(self, *command: str) -> str:
        if self.now.status is not Status.RUNNING:
            raise EngineError(f"{self.id} is {self.now}, so that nothing can be run in it.")
        self.done.append(f"execute {command[0]}")
        return self.program.executes(command)

    def kill(self, signal: str = "SIGKILL") -> None:
        if signal == "SIGKILL":
            self._do("kill", _exited(self.exit_code))
            return
        reaction = self.program.reacts.get(signal, Reaction())
        ended = self.now if reaction.ends_with is None else _exited(reaction.ends_with)
        self._do(f"kill with {signal}", ended, reaction.says)

    def pause(self) -> None:
        self._do("pause", PAUSED)

    def unpause(self) -> None:
        self._do("unpause", UP)

    def limit_memory(self, limit_bytes: int | None) -> None:
        self.limit_bytes = limit_bytes

    def stop(self, timeout_s: int) -> None:
        del timeout_s
        reaction = self.program.reacts.get("SIGTERM", Reaction())
        code = self.exit_code if reaction.ends_with is None else reaction.ends_with
        self._do("stop", _exited(code), reaction.says)

    def start(self) -> None:
        self._do("start", UP)
        self._begin()
        for happens in self.on_start:
            happens()

    def remove(self) -> None:
        self._become(State(status=Status.GONE))

    def _do(self, what: str, state: State, says: Sequence[str] = ()) -> None:
        if self._is_gone():
            raise EngineError(f"there is no {self.id} to {what}.")
        if what in self.refuses:
            raise EngineError(f"the engine refuses to {what} it.\nAnd more.")
        self.done.append(what)
        self._become(state, says)
        if self.is_cut_off:
            self.is_cut_off = False
            raise EngineError("the engine does not answer.")

    def _begin(self) -> None:
        self._starts += 1
        ended = None if self.program.ends_with is None else _exited(self.program.ends_with)
        self._become(ended or self.now, self.program.says(self._starts))

    def _become(self, state: State, says: Sequence[str] = ()) -> None:
        with self._changed:
            self._lines += says
            self.now = state
            self._changed.notify_all()

    def _has_news(self, told: int) -> bool:
        return len(self._lines) > told or self._has_ended()

    def _is_gone(self) -> bool:
        return self.now.status is Status.GONE

    def _has_ended(self) -> bool:
        return self.now.status in {Status.EXITED, Status.GONE}


def _exited(code: int) -> State:
    return State(status=Status.EXITED, exit_code=code)


@dataclass
class FakeEngine:
    """Runs one fake container for each node, and keeps count of who is on which network."""

    programs: Mapping[str, Program] = field(default_factory=dict)
    """What runs in a node, by its name."""
    ports: Mapping[int, int] = field(default_factory=dict)
    """Where each port is reached that a node publishes."""
    ran: list[NodeSpec] = field(default_factory=list)
    """Each node that was run, in this order."""
    started: list[FakeContainer] = field(default_factory=list)
    networks: dict[str, list[FakeContainer]] = field(default_factory=dict)
    """Who is on each network."""

    def run(self, spec: NodeSpec, *, network: str | None = None) -> Container:
        taken = {port for one in self.started if one.state().status is Status.RUNNING for port in one.ports.values()}
        if taken & set(spec.kept_ports.values()):
            raise PortTakenError(f"{spec.name} cannot have its port: it is in use.")
        published = {port: self.ports[port] for port in spec.ports if port in self.ports} | dict(spec.kept_ports)
        container = FakeContainer(id=spec.name, program=self.programs.get(spec.name, Program()), ports=published)
        self.ran.append(spec)
        self.started.append(container)
        if network in self.networks:
            self.networks[network].append(container)
        return container

    def create_network(self, name: str, *, leads_out: bool = False) -> str:
        del leads_out
        full_name = f"fake-{name}-{len(self.networks)}"
        self.networks[full_name] = []
        return full_name

    def join(self, container: Container, network: str, *, names: Sequence[str], address: str | None = None) -> None:
        del names, address
        if network not in self.networks:
            raise EngineError(f"there is no network {network}.")
        if container in self.networks[network]:
            raise EngineError(f"{container.id} is on the network {network} already.")
        self.networks[network].append(cast("FakeContainer", container))

    def leave(self, container: Container, network: str) -> str:
        if not self.is_on(container, network):
            raise EngineError(f"{container.id} is not connected to network {network}.")
        self.networks[network].remove(cast("FakeContainer", container))
        return "192.0.2.1"

    def is_on(self, container: Container, network: str) -> bool:
        return any(one is container for one in self.networks.get(network, ()))

    def remove_network(self, name: str) -> None:
        if any(container.state().status is not Status.GONE for container in self.networks.get(name, ())):
            raise EngineError(f"The network {name} cannot be removed: a container is still on it.")
        self.networks.pop(name, None)


def fake_engine() -> Engine:
    """Return an engine that can run nodes, and nothing else."""
    return cast("Engine", FakeEngine())
