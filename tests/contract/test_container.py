"""What every `Container` must do, whatever it is made of. Another way to run nodes adds itself to `RUNNERS`.

The fake that other tests use is held to the same.
"""

import ipaddress
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass

import pytest

from harness.containers.engine import LOOPBACK, Container, NodeSpec, State, Status
from harness.containers.engine_choice import connect
from harness.containers.image_recipes import Image
from harness.containers.images import ensure
from harness.errors import EngineError
from harness.wait import wait_until
from tests.fakes.container import FakeContainer, Program, Reaction

PORT = 8000


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A program, twice."""

    source: str
    """In Python."""
    acted: Program
    """As a fake acts it."""


# It greets whoever connects, and counts its starts in a file, to show what outlives a stop.
GREETER = f"""
import pathlib, signal, socket, sys
starts = pathlib.Path("/tmp/starts")
starts.write_text((starts.read_text() if starts.exists() else "") + "x")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
server = socket.create_server(("0.0.0.0", {PORT}))
print("start", len(starts.read_text()), flush=True)
while True:
    client, _ = server.accept()
    with client:
        client.sendall(b"hello")
"""


def act_command(command: Sequence[str]) -> str:
    """Act the commands that the tests run in it."""
    if "SystemExit" in command[-1]:
        raise EngineError(f"{command[0]} ended with 3: why")
    return "said\n"


PROGRAM = Subject(
    source=GREETER,
    acted=Program(
        says=lambda start: [f"start {start}"],
        reacts={"SIGTERM": Reaction(ends_with=7)},
        executes=act_command,
    ),
)

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
STUBBORN = Subject(
    source=DEAF,
    acted=Program(says=lambda _: ["deaf"], reacts={}),
)

# It says something as often as it is asked to, and something more at its end.
TALKER = """
import signal, sys
signal.signal(signal.SIGUSR1, lambda *_: print("now", flush=True))
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
print("before", flush=True)
try:
    while True:
        signal.pause()
finally:
    print("Grüße")
"""
TALKS = Subject(
    source=TALKER,
    acted=Program(
        says=lambda _: ["before"],
        reacts={"SIGUSR1": Reaction(says=["now"]), "SIGTERM": Reaction(says=["Grüße"], ends_with=0)},
    ),
)

ENDS = Subject(
    source="print('one'); print('two'); raise SystemExit(3)",
    acted=Program(says=lambda _: ["one", "two"], ends_with=3),
)

Runner = Callable[[Subject], Container]
"""Runs a program on a network of its own and returns the container."""


def docker_runner() -> Iterator[Runner]:
    with closing(connect()) as engine:
        image = ensure(engine, Image.NODE, say=print)
        network = engine.create_network("contract")

        def run(subject: Subject) -> Container:
            command = ("python", "-uc", subject.source)
            spec = NodeSpec(name="subject", image=image, command=command, ports=(PORT,))
            return engine.run(spec, network=network)

        yield run
        engine.remove_network(network)


def fake_runner() -> Iterator[Runner]:
    with ExitStack() as closing_all:

        def run(subject: Subject) -> Container:
            server = closing_all.enter_context(socket.create_server((LOOPBACK, 0)))
            # Else whoever waits for a client would not hear that it is closed.
            closing_all.callback(server.shutdown, socket.SHUT_RDWR)
            container = FakeContainer(program=subject.acted, ports={PORT: server.getsockname()[1]})
            threading.Thread(target=greet, args=(server, container), daemon=True).start()
            return container

        yield run


def greet(server: socket.socket, container: Container) -> None:
    """Greet each client as the program does while it runs."""
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        with client:
            if container.state().status is Status.RUNNING:
                client.sendall(b"hello")


RUNNERS = [
    pytest.param(fake_runner, id="fake"),
    pytest.param(docker_runner, id="docker", marks=pytest.mark.docker),
]


@pytest.fixture(scope="module", params=RUNNERS)
def runner(request: pytest.FixtureRequest) -> Iterator[Runner]:
    yield from request.param()


@pytest.fixture
def run(runner: Runner) -> Iterator[Runner]:
    """Yield the runner; at the end of the test, remove all that it started."""
    started: list[Container] = []

    def remembering(subject: Subject) -> Container:
        started.append(runner(subject))
        return started[-1]

    yield remembering
    for container in started:
        container.remove()


@pytest.fixture
def container(run: Runner) -> Container:
    """Return the program's container, once it is up and greeting."""
    container = run(PROGRAM)
    wait_greeting(container)
    return container


def greeting(container: Container, timeout_s: float = 1.0) -> bytes:
    """Return what the program sends to a client; empty if it sends nothing."""
    try:
        with socket.create_connection(container.host_port(PORT), timeout_s) as client:
            client.settimeout(timeout_s)
            return client.recv(5)
    except (OSError, EngineError):
        return b""


def wait_greeting(container: Container) -> None:
    wait_until(lambda: greeting(container) == b"hello", what="a greeting", timeout_s=20)


def wait_exited(container: Container) -> State:
    wait_until(lambda: container.state().status is Status.EXITED, what="the exit", timeout_s=20)
    return container.state()


def test_it_runs_and_its_port_is_on_loopback(container: Container) -> None:
    assert container.state() == State(status=Status.RUNNING)
    assert container.host_port(PORT)[0] == "127.0.0.1"


def test_whoever_follows_it_hears_every_line_from_then_on_and_the_end(run: Runner) -> None:
    talks = run(TALKS)
    wait_until(lambda: "before" in talks.logs(), what="its first line", timeout_s=20)
    heard: list[str] = []

    def listen() -> None:
        for line in talks.follow():
            heard.append(line)  # noqa: PERF402 - it is looked at meanwhile.

    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(listen)

        def is_heard() -> bool:
            # What is said before the stream is open is not heard.
            talks.kill("SIGUSR1")
            return bool(heard)

        wait_until(is_heard, what="a line is heard", timeout_s=20, interval_s=0.2)
        talks.kill("SIGTERM")
        following.result(timeout=20)
    assert set(heard[:-1]) == {"now"}
    assert heard[-1] == "Grüße"


def test_following_ends_when_it_is_removed(container: Container) -> None:
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(lambda: list(container.follow()))
        container.remove()
        assert following.result(timeout=20) == []
    assert list(container.follow()) == []


def test_a_port_that_was_not_published_is_an_error(container: Container) -> None:
    with pytest.raises(EngineError, match="not published"):
        container.host_port(PORT + 1)


def test_a_program_that_ends_is_exited_with_its_code_and_its_log_stays(run: Runner) -> None:
    ended = run(ENDS)
    assert wait_exited(ended) == State(status=Status.EXITED, exit_code=3)
    assert ended.logs().splitlines() == ["one", "two"]
    assert ended.logs(tail=1).splitlines() == ["two"]


def test_one_more_command_runs_in_it_and_one_that_fails_is_an_error(container: Container) -> None:
    assert container.execute("python", "-c", "print('said')") == "said\n"
    with pytest.raises(EngineError, match="ended with 3: why"):
        container.execute("python", "-c", "print('why'); raise SystemExit(3)")
    container.kill()
    wait_exited(container)
    with pytest.raises(EngineError):
        container.execute("python", "-c", "")


def test_it_has_an_address_while_it_runs(container: Container) -> None:
    assert [str(ipaddress.ip_address(address)) for address in container.addresses()]
    container.kill()
    wait_exited(container)
    assert container.addresses() == set()


def test_a_kill_ends_it_at_once_and_says_by_which_signal(container: Container) -> None:
    container.kill()
    assert wait_exited(container).exit_code == 128 + 9


def test_a_signal_reaches_the_program(container: Container) -> None:
    container.kill("SIGTERM")
    assert wait_exited(container).exit_code == 7


def test_a_paused_one_says_nothing_until_it_is_unpaused(container: Container) -> None:
    container.pause()
    assert container.state().status is Status.PAUSED
    assert greeting(container, timeout_s=0.3) == b""
    container.unpause()
    assert container.state().status is Status.RUNNING
    assert greeting(container) == b"hello"


def test_its_memory_can_be_limited_and_be_as_before(container: Container) -> None:
    container.limit_memory(1 << 29)
    for _ in range(2):
        container.limit_memory(None)
    assert greeting(container) == b"hello"


def test_a_paused_one_can_be_killed(container: Container) -> None:
    container.pause()
    container.kill()
    assert wait_exited(container).exit_code == 128 + 9


def test_stop_lets_it_end_by_itself(container: Container) -> None:
    container.stop(10)
    assert container.state() == State(status=Status.EXITED, exit_code=7)


def test_stop_kills_what_does_not_listen(run: Runner) -> None:
    deaf = run(STUBBORN)
    wait_until(lambda: "deaf" in deaf.logs(), what="the program is deaf", timeout_s=20)
    deaf.stop(1)
    assert deaf.state().exit_code == 128 + 9


def test_started_again_it_has_its_files_and_its_log(container: Container) -> None:
    container.stop(10)
    container.start()
    wait_greeting(container)
    assert container.logs().splitlines() == ["start 1", "start 2"]


def test_removed_it_is_gone_and_a_second_time_is_fine(container: Container) -> None:
    container.remove()
    container.remove()
    assert container.state().status is Status.GONE
    assert container.logs() == ""
    with pytest.raises(EngineError):
        container.kill()
