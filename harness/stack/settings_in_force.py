"""Compares what the app asks for with what the broker has: settings that are not in force."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from harness.audit.ledger import Ledger
from harness.audit.remains import QueueLeft
from harness.errors import HarnessError
from harness.records.values import Json
from harness.stack.settling import DELAYED

_DEFAULT_HEARTBEAT_S = 120
"""Celery's default of `broker_heartbeat`, in seconds. RabbitMQ's default of 60 s always wins over it, and nobody asked
for it."""


class Source(Protocol):
    """A system whose app has settings."""

    @property
    def ledger(self) -> Ledger:
        """The ledger of the journal up to now."""
        ...

    def reaches_a_queue(self, exchange: str, routing_key: str | None) -> bool:
        """Return whether a message would reach a queue from there. Raises HarnessError on no answer."""
        ...


def differences(source: Source, queues: Sequence[QueueLeft]) -> list[str]:
    """Return a sentence for each setting that is not in force, given the queues as they were just seen."""
    ledger = source.ledger
    declared = {name: about for queues in ledger.consumes.values() for name, about in queues.items()}
    try:
        return [*_heartbeats(ledger), *_queues(source, queues, declared)]
    except HarnessError:
        # The broker does not answer. The remains report it.
        return []


def _heartbeats(ledger: Ledger) -> Iterator[str]:
    """Yield the workers that asked for another heartbeat than their connection has."""
    for node, has_s in sorted(ledger.heartbeats.items()):
        asked_s = ledger.settings.get(node, {}).get("broker_heartbeat")
        if asked_s is not None and asked_s not in {has_s, _DEFAULT_HEARTBEAT_S}:
            has = f"one every {has_s:g} s" if has_s else "no heartbeat"
            yield f"{node} says broker_heartbeat = {asked_s:g}, and its connection has {has}"


def _queues(source: Source, queues: Sequence[QueueLeft], declared: Mapping[str, Mapping[str, Json]]) -> Iterator[str]:
    for queue in queues:
        durable = declared.get(queue.name, {}).get("durable")
        if durable is not None and queue.durable is not None and durable != queue.durable:
            has, says = ("is", "is not") if queue.durable else ("is not", "is")
            yield f"`{queue.name}` {has} durable, and the app says that it {says}"
        yield from _dead_end(source, queue, queues)


def _dead_end(source: Source, queue: QueueLeft, queues: Sequence[QueueLeft]) -> Iterator[str]:
    """Yield a sentence if what a queue gets rid of, and should go to another one, reaches none."""
    exchange, key = queue.arguments.get("x-dead-letter-exchange"), queue.arguments.get("x-dead-letter-routing-key")
    if exchange is None or queue.name.startswith(DELAYED):
        # Celery makes the queues of native delayed delivery, also where no queue can get anything from them.
        return
    if exchange == "":
        # Messages keep their own routing key, which nobody knows, unless the queue gives them another.
        reaches = key is None or key in {other.name for other in queues}
        where = f"the queue `{key}`"
    else:
        reaches = source.reaches_a_queue(str(exchange), None if key is None else str(key))
        where = f"the exchange `{exchange}`" + (f" with the routing key `{key}`" if key is not None else "")
    if not reaches:
        yield f"`{queue.name}` gives its dead letters to {where}, and no queue gets them from there"
