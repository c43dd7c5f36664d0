"""The choice of the broker."""

from harness.containers.broker_node import BrokerNode
from harness.containers.engine import Engine
from harness.containers.image_recipes import Image, is_replaced
from harness.containers.rabbitmq import SAMPLED_S, SAMPLED_S_OF_OURS, Broker

IMAGE = Image.RABBITMQ
"""The image of the broker."""


def new_broker(engine: Engine, *, image: str, network: str) -> BrokerNode:
    """Return the node of a new broker without starting it.

    Args:
        engine: runs it.
        image: the image of IMAGE's kind.
        network: the network of the nodes that use it.
    """
    # A user's own image may not have our setting.
    sampled_s = SAMPLED_S if is_replaced(IMAGE) else SAMPLED_S_OF_OURS
    return Broker(engine, image=image, network=network, sampled_s=sampled_s)
