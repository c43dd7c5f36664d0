"""What every engine must do with networks. The fake that other tests use is held to the same."""

import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import cast

import pytest

from harness.containers.engine import LOOPBACK, Container, Engine, NodeSpec, PortTakenError, Status
from harness.containers.engine_choice import connect
from harness.containers.image_recipes import Image
from harness.containers.images import ensure
from harness.errors import EngineError
from harness.wait import wait_until
from tests.fakes.container import FakeEngine

PORT = 8000
SLEEPER = ("python", "-c", "import time; time.sleep(600)")


@pytest.fixture(
    scope="module",
    params=[pytest.param("fake", id="fake"), pytest.param("docker", id="docker", marks=pytest.mark.docker)],
)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    if request.param == "fake":
        yield cast("Engine", FakeEngine(ports={PORT: 32_768}))
        return
    with closing(connect()) as engine:
        yield engine
        engine.remove_mine()


def image_of(engine: Engine) -> str:
    return "image" if isinstance(engine, FakeEngine) else ensure(engine, Image.NODE, say=print)


@pytest.fixture(scope="module")
def networks(engine: Engine) -> Iterator[tuple[str, str]]:
    """Yield two networks; the second one sorts behind the first, and leads out."""
    first, second = engine.create_network("first"), engine.create_network("second", leads_out=True)
    yield first, second
    engine.remove_network(first)
    engine.remove_network(second)


@pytest.fixture(scope="module")
def container(engine: Engine, networks: tuple[str, str]) -> Iterator[Container]:
    """Yield a container on the first network, which has joined the second one."""
    spec = NodeSpec(name="subject", image=image_of(engine), command=SLEEPER, ports=(PORT,))
    container = engine.run(spec, network=networks[0])
    before = container.host_port(PORT)
    engine.join(container, networks[1], names=["subject"])
    assert container.host_port(PORT) == before
    yield container
    container.remove()


def test_one_that_joins_a_network_goes_on(container: Container) -> None:
    assert container.state().status is Status.RUNNING


def test_one_that_is_on_a_network_already_cannot_join_it(
    engine: Engine, container: Container, networks: tuple[str, str]
) -> None:
    with pytest.raises(EngineError, match="already"):
        engine.join(container, networks[1], names=["subject"])


def test_nobody_can_join_a_network_that_is_not_there(engine: Engine, container: Container) -> None:
    with pytest.raises(EngineError, match="celery-harness-absent"):
        engine.join(container, "celery-harness-absent", names=["subject"])


def test_a_network_stays_while_one_that_joined_it_is_there(
    engine: Engine, container: Container, networks: tuple[str, str]
) -> None:
    assert container.state().status is Status.RUNNING
    with pytest.raises(EngineError, match="a container is still on it"):
        engine.remove_network(networks[1])


def test_one_that_left_a_network_is_not_on_it_and_gets_its_address_back(
    engine: Engine, container: Container, networks: tuple[str, str]
) -> None:
    network = networks[0]
    assert engine.is_on(container, network)
    address = engine.leave(container, network)
    assert address
    assert not engine.is_on(container, network)
    assert container.state().status is Status.RUNNING
    with pytest.raises(EngineError, match="not connected to network"):
        engine.leave(container, network)
    engine.join(container, network, names=["subject"], address=address)
    assert engine.is_on(container, network)
    assert engine.leave(container, network) == address
    # One that belongs to nobody there is no reason to stay away.
    engine.join(container, network, names=["subject"], address="203.0.113.1")
    assert engine.is_on(container, network)


def test_a_port_that_is_kept_is_the_same_after_a_restart_and_nobody_else_can_have_it(
    engine: Engine, container: Container, networks: tuple[str, str]
) -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
    spec = NodeSpec(name="keeper", image=image_of(engine), command=SLEEPER, ports=(PORT,), kept_ports={PORT: port})
    keeper = engine.run(spec, network=networks[0])
    assert keeper.host_port(PORT) == (LOOPBACK, port)
    with pytest.raises(PortTakenError, match="other cannot have its port"):
        engine.run(replace(spec, name="other"), network=networks[0])
    keeper.kill()
    wait_until(lambda: keeper.state().status is Status.EXITED, what="the exit", timeout_s=20)
    keeper.start()
    assert keeper.host_port(PORT) == (LOOPBACK, port)
    keeper.remove()
    assert container.state().status is Status.RUNNING


def test_a_network_that_is_not_there_is_removed_already(engine: Engine) -> None:
    engine.remove_network("celery-harness-absent")
