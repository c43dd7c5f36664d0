"""The choice of the broker."""

from collections.abc import Callable, Sequence

from harness.containers import images
from harness.containers.broker_disk import BrokerDisk
from harness.containers.broker_node import BrokerNode
from harness.containers.engine import Engine
from harness.containers.image_recipes import NEXT_RABBITMQ, Image
from harness.containers.rabbitmq import (
    AMQP_PORT,
    DATA,
    HOSTNAME,
    MANAGEMENT_PORT,
    Broker,
    version_of,
)

__all__ = ["IMAGE", "USUAL_PORTS", "new_broker", "new_disk", "next_image", "version_of"]

IMAGE = Image.RABBITMQ
"""The image of the broker."""
USUAL_PORTS = (AMQP_PORT, MANAGEMENT_PORT)
"""The ports at which people expect the broker and its page on their machine."""


def new_broker(
    engine: Engine,
    *,
    image: str,
    network: str,
    name: str = HOSTNAME,
    kept_ports: Sequence[int] = (),
    volume: str | None = None,
) -> BrokerNode:
    """Return the node of a new broker without starting it.

    Args:
        engine: runs it.
        image: the image of IMAGE's kind.
        network: the network of the nodes that use it.
        name: the node's name there.
        kept_ports: a port of this machine for each that it publishes; a restart does not change them. By default, and
            for one that is 0, the engine picks another at each start.
        volume: keeps its data, so that it can be upgraded; None to keep them in its container.
    """
    return Broker(engine, image=image, network=network, name=name, kept_ports=kept_ports, volume=volume)


def new_disk(engine: Engine, *, image: str, name: str, volume: str) -> BrokerDisk:
    """Return a small disk for the broker's data without starting it. `image` is the broker's."""
    return BrokerDisk(engine, image=image, name=name, volume=volume, inside=DATA)


def next_image(engine: Engine, *, say: Callable[[str], None]) -> str:
    """Return an image of the broker's next series, which is built if it is not present. Raises ImageError."""
    return images.ensure(engine, IMAGE, say=say, ours=True, release=NEXT_RABBITMQ)
