"""What the tests that need an engine share."""

from collections.abc import Callable, Iterator

import docker
import pytest

from harness.containers.engine import connect
from harness.containers.ownership import OWNER_LABEL


@pytest.fixture(scope="module")
def client() -> Iterator[docker.DockerClient]:
    """A connection to the engine."""
    client = connect()
    yield client
    client.close()


@pytest.fixture
def started_by(client: docker.DockerClient) -> Callable[[int], list[str]]:
    """Tells which containers and networks of one process are there now."""

    def find(pid: int) -> list[str]:
        ours = {"label": OWNER_LABEL}
        found = [*client.api.containers(all=True, filters=ours), *client.api.networks(filters=ours)]
        return [str(one["Id"]) for one in found if one["Labels"][OWNER_LABEL].split("/")[2] == str(pid)]

    return find
