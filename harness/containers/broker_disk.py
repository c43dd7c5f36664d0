"""A small disk for the data of a broker. It can be filled up, so that what the broker writes is refused."""

from harness.containers.engine import Engine, NodeSpec
from harness.containers.node import Node

SIZE_MB = 256
"""RabbitMQ raises its disk alarm below 50 MB, by default."""
_REFUSED = "No space left on device"


class BrokerDisk(Node):
    """A container that has the volume of a broker's data, and does nothing.

    The volume is in memory, and is there for as long as a container that runs has it: so the data outlive the broker's
    own end.
    """

    def __init__(self, engine: Engine, *, image: str, name: str, volume: str, inside: str) -> None:
        """Create the node without starting it.

        Args:
            engine: runs it.
            image: the broker's, so that both write as the same user.
            name: the node's name.
            volume: from `Engine.create_volume`, with SIZE_MB.
            inside: the place of the broker's data.
        """
        self._ballast, self._probe = f"{inside}/celery-harness-ballast", f"{inside}/celery-harness-probe"
        spec = NodeSpec(name=name, image=image, command=("sleep", "infinity"), volumes={inside: volume}, user=None)
        super().__init__(engine, spec)

    def fill(self) -> bool:
        """Write until a write is refused, and return whether one was, for the reason that no space is left."""
        return _REFUSED in self._written(f"dd if=/dev/zero of={self._ballast} bs=64k 2>&1 || true")

    def is_full(self) -> bool:
        """Return whether a write of 1 MiB is refused at this moment, for the reason that no space is left."""
        return _REFUSED in self._written(f"head -c 1048576 /dev/zero 2>&1 >{self._probe} || true; rm -f {self._probe}")

    def free(self) -> None:
        """Remove what `fill` wrote."""
        self.container.execute("rm", "-f", self._ballast)

    def _written(self, command: str) -> str:
        return self.container.execute("sh", "-c", command)
