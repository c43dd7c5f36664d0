"""What the tests that need an engine share."""

from collections.abc import Callable, Iterator
from contextlib import closing

import docker
import pytest

from harness.containers.engine import Engine
from harness.containers.engine_choice import connect
from harness.containers.ownership import OWNER_LABEL


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
