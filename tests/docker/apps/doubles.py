"""A scenario for the app `attached`, whose workers somebody else has started."""

from typing import TYPE_CHECKING

from harness import Expect, Scenario

if TYPE_CHECKING:
    from harness.producer import Producer


class Doubles(Scenario):
    """Each arrival has one number doubled."""

    name = "doubles"
    app = "attached"

    def step(self, producer: "Producer", number: int, seed: int) -> None:
        """Send one task; to the app, numbers below 14 are special."""
        del seed
        producer.send("attached.double", [number + 14], expect=Expect(result=2 * (number + 14)))


scenario = Doubles()
