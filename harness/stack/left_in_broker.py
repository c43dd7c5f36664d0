"""The messages left in the broker and in the workers' hands when everything has come to rest."""

from collections.abc import Mapping
from dataclasses import replace

from harness.audit.remains import DeadLetter, QueueLeft, Remains
from harness.containers.broker_node import Death, QueueCount, QueueLook, Waiting
from harness.errors import HarnessError
from harness.records.values import Json
from harness.stack.settling import DELAYED, INTERVAL_S, Source
from harness.wait import REAL, Clock

_AGREE_S = 2.0
"""Seconds that broker and journal may take to agree on who has which message. A message can move between the two looks.
A shorter time would call what is left unknown on a busy machine; a longer one would delay every run in which some
worker keeps no journal."""


def remains(source: Source, *, clock: Clock = REAL) -> Remains:
    """Return what is in the queues and in the workers' hands now.

    A message can move between two looks. So the look is repeated, for two seconds at most, until the journal accounts
    for all of the broker's unacknowledged messages. If it never does, or if the broker does not answer, `reason` says
    why the result is incomplete.
    """
    until_s = clock.now() + _AGREE_S
    while True:
        try:
            found, excess = _look(source)
        except HarnessError as error:
            held = source.ledger.held(source.alive(), unacked=True)
            return Remains(held=sorted(held), reason=str(error).partition("\n")[0])
        if excess <= 0:
            return found
        if clock.now() >= until_s:
            # Some worker holds messages and did not journal it, so the tasks in them are unknown.
            known = len(found.held)
            reason = (
                f"{known + excess} messages are unacknowledged, {known} are accounted for: a worker without a journal "
                "has them, or one whose connection the broker has not given up yet"
            )
            return replace(found, reason=reason)
        clock.sleep(INTERVAL_S)


def _look(source: Source) -> tuple[Remains, int]:
    """Look once. Return what was found, and how many unacknowledged messages are not accounted for."""
    queues = source.task_queues()
    looks = source.look([queue.name for queue in queues])
    waiting = {queue.name: source.peek(queue.name) for queue in queues if _may_hold(queue, looks.get(queue.name))}
    unacked = sum(queue.unacked for queue in queues)
    ledger = source.ledger
    held = ledger.held(source.alive(), unacked=bool(unacked))
    consumed = {name: about for names in ledger.consumes.values() for name, about in names.items()}
    found, dead = [], []
    for queue in queues:
        look = looks.get(queue.name)
        is_resting = queue.name not in consumed and not queue.expires_messages and look and not look.consumers
        for message in waiting.get(queue.name, ()):
            if is_resting and message.death is not None and not message.death.queue.startswith(DELAYED):
                dead.append(_dead_letter(message, message.death, queue.name))
            else:
                found.append(message.task)
    known = sorted(task for task in found if task is not None)
    left = [
        _left(queue, looks.get(queue.name), len(waiting.get(queue.name, ())), consumed.get(queue.name, {}))
        for queue in queues
    ]
    anonymous = len(found) - len(known) + sum(letter.task is None for letter in dead)
    everything = Remains(queues=left, messages=known, anonymous=anonymous, held=sorted(held), dead=dead)
    return everything, unacked - len(held)


def _may_hold(queue: QueueCount, look: QueueLook | None) -> bool:
    """Return whether a queue may hold a message: one that reports at intervals may hold more than it reports."""
    return bool(queue.ready or (not queue.is_live and (look is None or look.ready)))


def _left(queue: QueueCount, look: QueueLook | None, waiting: int, about: Mapping[str, Json]) -> QueueLeft:
    return QueueLeft(
        name=queue.name,
        kind=queue.kind,
        ready=waiting,
        unacked=queue.unacked,
        consumers=look.consumers if look else None,
        durable=queue.durable,
        arguments=queue.arguments,
        declared=dict(about.get("arguments") or {}),
    )


def _dead_letter(message: Waiting, death: Death, queue: str) -> DeadLetter:
    return DeadLetter(
        task=message.task,
        name=message.name,
        queue=queue,
        origin=death.queue,
        reason=death.reason,
        count=death.count,
    )
