"""The choice of the engine: the only place that decides it."""

from harness.containers import docker_engine
from harness.containers.engine import Engine


def connect() -> Engine:
    """Return the engine of this machine; the caller closes it.

    Raises:
        EngineError: none answers; the message says where it was looked for and what to do.
    """
    return docker_engine.connect()
