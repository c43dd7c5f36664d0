"""What the tests that need an engine share."""

import ipaddress
import socket
from collections.abc import Callable, Iterator
from contextlib import closing

import docker
import pytest

from harness.containers import images
from harness.containers.engine import Engine
from harness.containers.engine_choice import connect
from harness.containers.image_recipes import Image
from harness.containers.ownership import OWNER_LABEL
from harness.errors import EngineError


@pytest.fixture(scope="session", autouse=True)
def _images_are_there() -> None:
    """Build the images of most stacks before any test begins: the time limits of the tests are not for building."""
    try:
        engine = connect()
    except EngineError:
        # Each test says so.
        return
    with closing(engine):
        for image in (Image.RABBITMQ, Image.NODE):
            images.ensure(engine, image, say=print)


@pytest.fixture(scope="module")
def client() -> Iterator[docker.DockerClient]:
    """Yield a client that sees the engine from outside."""
    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """Yield the engine as the harness has it. At the end, remove what the module's tests started through it."""
    with closing(connect()) as engine:
        yield engine
        engine.remove_mine()


@pytest.fixture
def started_by(client: docker.DockerClient) -> Callable[[int], list[str]]:
    """Tells which containers and networks of one process are there now."""

    def find(pid: int) -> list[str]:
        ours = {"label": OWNER_LABEL}
        found = [*client.api.containers(all=True, filters=ours), *client.api.networks(filters=ours)]
        return [str(one["Id"]) for one in found if one["Labels"][OWNER_LABEL].split("/")[2] == str(pid)]

    return find


@pytest.fixture
def beyond(client: docker.DockerClient) -> Iterator[tuple[int, list[str]]]:
    """Yield a port on which this machine listens on all its addresses, and the addresses that a node could know."""
    with socket.create_server(("", 0)) as server:
        (pool, *_) = client.networks.get("bridge").attrs["IPAM"]["Config"]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way_out:
            # Nothing is sent: this only tells which of its addresses the machine would use.
            way_out.connect(("192.0.2.1", 9))
            addresses = {str(ipaddress.ip_network(pool["Subnet"])[1]), way_out.getsockname()[0]}
        yield server.getsockname()[1], sorted(addresses)
