"""The scenario `doubles`, but that the worker raises an exception for one task in ten, which nobody expects."""

from typing import TYPE_CHECKING

from harness import Expect
from tests.docker.apps.doubles import Doubles

if TYPE_CHECKING:
    from harness.producer import Producer


class Refusals(Doubles):
    """Each tenth number is below zero."""

    name = "refusals"

    def step(self, producer: "Producer", number: int, seed: int) -> None:
        """Send one task."""
        if number % 10:
            super().step(producer, number, seed)
        else:
            producer.send("attached.double", [-1 - number], expect=Expect(result=-2 - 2 * number))


scenario = Refusals()
