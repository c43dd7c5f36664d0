"""What the tests of settling and of what is left share."""

from pathlib import Path

import pytest

from tests.unit.stack.broker_and_journal import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return a stack whose only worker is ready."""
    world = World(tmp_path)
    world.say("worker-1", "up")
    world.say("worker-1", "ready", queues={"celery": {}})
    return world
