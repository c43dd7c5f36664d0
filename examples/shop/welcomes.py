"""What the shop's users do all day, as a scenario: `harness run shop.welcomes`, or under load with locustfile.py."""

from typing import TYPE_CHECKING

from harness import Delivery, Effects, Expect, Promise, Scenario, mail

if TYPE_CHECKING:
    from harness.producer import Producer


class Welcomes(Scenario):
    """Every new customer is welcomed once."""

    name = "welcomes"
    app = "shop.app"
    mailbox = True
    promise = Promise(delivery=Delivery.AT_LEAST_ONCE, effects=Effects.ONCE_UNLESS_KILLED)

    def step(self, producer: "Producer", number: int, seed: int) -> None:
        """Register one customer."""
        address = f"customer.{seed}.{number}@example.com"
        producer.send("shop.welcome", [address], expect=Expect(result=address, effects=[mail(to=address)]))


scenario = Welcomes()
