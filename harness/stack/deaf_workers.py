"""Finds the workers that run and no longer consume a queue that they should consume.

The queues themselves say how many consumers they have. That is compared with the number of workers that should consume
them. Which worker is absent is told by the tags of the consumers, each of which begins with its worker's name. The
broker lists them some seconds late, so a list counts only while it has as many consumers as the queue itself says.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from harness.audit.ledger import Ledger
from harness.audit.remains import Deaf, Remains
from harness.containers.broker_node import QueueCount, QueueLook
from harness.errors import HarnessError
from harness.records.message import consumer_tag
from harness.stack.settling import INTERVAL_S
from harness.wait import REAL, Clock

BACK_S = 32.0
"""Seconds that a worker may take to consume again. Celery tries to reconnect at intervals that grow to 30 s (kombu's
`interval_max`), and then declares and consumes. A shorter time would call a worker deaf that is about to come back; a
longer one would delay the end of each run that has a deaf worker."""
_TELL_S = 10.0
"""Seconds that the broker may take to list the consumers as they are, twice its interval of 5 s. After a shorter time,
the worker could not be named; a longer one would delay the end of the run further."""


class Source(Protocol):
    """A system whose workers may be deaf."""

    @property
    def ledger(self) -> Ledger:
        """The ledger of the journal up to now."""
        ...

    def task_queues(self) -> list[QueueCount]:
        """Return what the queues hold. Raises HarnessError if the broker does not answer."""
        ...

    def look(self, queues: Collection[str]) -> Mapping[str, QueueLook]:
        """Return what these queues report of their consumers. Raises HarnessError if the broker does not answer."""
        ...

    def consumers(self) -> Mapping[str, Sequence[str]]:
        """Return the tags of each queue's consumers, some seconds late. Raises HarnessError on no answer."""
        ...

    def alive(self) -> set[str]:
        """Return the names of the workers that run."""
        ...


def all_consume(ledger: Ledger, remains: Remains) -> bool:
    """Return whether each queue has as many consumers as workers that should consume it, by what was just seen."""
    should = _by_queue(ledger.consuming)
    have = {queue.name: queue.consumers or 0 for queue in remains.queues}
    return all(have.get(queue, 0) >= len(nodes) for queue, nodes in should.items())


def find(
    source: Source, *, within_s: float, say: Callable[[str], None] = lambda _: None, clock: Clock = REAL
) -> tuple[Deaf, ...]:
    """Return each queue that a worker which runs should consume and does not; empty if the broker does not answer.

    Args:
        source: the system.
        within_s: seconds that a worker may take to consume again; no more than `BACK_S` count.
        say: gets a line if a worker is waited for.
        clock: measures the time.
    """
    began_s = clock.now()
    until_s = began_s + min(max(within_s, 0.0), BACK_S)
    is_told = False
    while True:
        try:
            found = _look(source)
        except HarnessError:
            # The remains report it.
            return ()
        if not found:
            return ()
        # A worker that is not known by name gets the time that the broker may take to list the consumers.
        later_s = max(until_s, began_s + _TELL_S) if not all(one.absent for one in found) else until_s
        if clock.now() >= later_s:
            return found
        if not is_told:
            say(f"waiting: {'; '.join(one.text for one in found)}")
            is_told = True
        clock.sleep(INTERVAL_S)


def _look(source: Source) -> tuple[Deaf, ...]:
    alive = source.alive()
    should = _by_queue({node: queues for node, queues in source.ledger.consuming.items() if node in alive})
    if not should:
        return ()
    looks = source.look(should)
    if all(queue in looks and looks[queue].consumers >= len(nodes) for queue, nodes in should.items()):
        return ()
    listed = source.consumers()
    # A queue that does not answer is gone, or exclusive to its worker's connection.
    there = {queue.name for queue in source.task_queues()} if set(should) - set(looks) else set()
    found = []
    for queue, nodes in sorted(should.items()):
        look = looks.get(queue)
        tags = listed.get(queue, ())
        if look is None and queue in there:
            continue
        consumers = None if look is None else look.consumers
        if consumers is not None and consumers >= len(nodes):
            continue
        is_current = len(tags) == (consumers or 0)
        absent = [node for node in nodes if not any(tag.startswith(consumer_tag(node)) for tag in tags)]
        found.append(
            Deaf(
                queue=queue,
                consumers=consumers,
                workers=tuple(sorted(nodes)),
                absent=tuple(sorted(absent)) if is_current else (),
            )
        )
    return tuple(found)


def _by_queue(consuming: Mapping[str, Collection[str]]) -> dict[str, list[str]]:
    """Return the workers that should consume each queue."""
    should: dict[str, list[str]] = {}
    for node, queues in consuming.items():
        for queue in queues:
            should.setdefault(queue, []).append(node)
    return should
