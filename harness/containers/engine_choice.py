"""Which engine is used: the one place that chooses."""

from harness.containers import docker_engine
from harness.containers.engine import Engine


def connect() -> Engine:
    """The engine of this machine; whoever asks for it closes it.

    Raises:
        EngineError: none answers; the message says where it was sought and what to do.
    """
    return docker_engine.connect()
