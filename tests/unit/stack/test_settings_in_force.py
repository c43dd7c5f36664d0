"""Settings of the app that the broker does not have."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness.audit.remains import Remains
from harness.errors import BrokerError
from harness.stack.left_in_broker import remains
from harness.stack.settings_in_force import differences
from tests.unit.stack.broker_and_journal import World


@dataclass
class Settings(World):
    """A worker whose broker has exchanges that lead to a queue."""

    bound: set[tuple[str, str | None]] = field(default_factory=set)

    def reaches_a_queue(self, exchange: str, routing_key: str | None) -> bool:
        if self.fault:
            raise BrokerError(self.fault)
        return (exchange, routing_key) in self.bound

    @property
    def differences(self) -> list[str]:
        return differences(self, remains(self, clock=self.clock).queues)


@pytest.fixture
def world(tmp_path: Path) -> Settings:
    return Settings(tmp_path)


@pytest.mark.parametrize(
    ("asked_s", "has_s", "told"),
    [
        (300, 60, "one every 60 s"),
        (10, 0, "no heartbeat"),
        (10, 10, None),
        (0, 0, None),
        (120, 60, None),
        (None, 60, None),
    ],
)
def test_a_heartbeat_that_the_app_asked_for_is_compared(
    world: Settings, asked_s: float | None, has_s: float, told: str | None
) -> None:
    world.say("worker-1", "settings", broker_heartbeat=asked_s)
    world.say("worker-1", "ready", queues={}, heartbeat_s=has_s)
    world.say("worker-2", "ready", queues={})
    expected = f"worker-1 says broker_heartbeat = {asked_s}, and its connection has {told}"
    assert world.differences == ([expected] if told else [])


@pytest.mark.parametrize(
    ("declared", "has", "told"),
    [
        ({"durable": True}, {"durable": False}, ["`celery` is not durable, and the app says that it is"]),
        ({"durable": False}, {"durable": True}, ["`celery` is durable, and the app says that it is not"]),
        ({"durable": True}, {"durable": True}, []),
        ({"durable": True}, {}, []),
        ({}, {"durable": False}, []),
    ],
)
def test_the_durability_of_a_queue_is_compared(
    world: Settings, declared: dict[str, Any], has: dict[str, Any], told: list[str]
) -> None:
    world.say("worker-1", "ready", queues={"celery": declared})
    world.holds(**has)
    world.holds("mails", durable=False)
    assert world.differences == told


@pytest.mark.parametrize(
    ("exchange", "key", "whither"),
    [
        ("letters", None, "the exchange `letters`"),
        ("letters", "x", "the exchange `letters` with the routing key `x`"),
        ("", "absent", "the queue `absent`"),
        ("letters", "letter", None),
        ("", "celery", None),
        ("", None, None),
        (None, "x", None),
    ],
)
def test_dead_letters_that_reach_no_queue_are_told(
    world: Settings, exchange: str | None, key: str | None, whither: str | None
) -> None:
    world.bound = {("letters", "letter")}
    given = {"x-dead-letter-exchange": exchange, "x-dead-letter-routing-key": key}
    arguments = {name: value for name, value in given.items() if value is not None}
    world.holds(arguments=arguments)
    world.holds("celery_delayed_0", arguments=arguments)
    text = f"`celery` gives its dead letters to {whither}, and no queue gets them from there"
    assert world.differences == ([text] if whither else [])
    assert Remains.from_json(Remains(differing=[text]).to_json()).differing == (text,)


def test_of_a_broker_that_does_not_answer_nothing_is_told(world: Settings) -> None:
    world.holds(arguments={"x-dead-letter-exchange": "absent"})
    queues = remains(world, clock=world.clock).queues
    assert differences(world, queues)
    world.fault = "It is gone."
    assert differences(world, queues) == []
