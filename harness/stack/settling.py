"""Settling: waits until everything is at rest, names what it waits for, and ends when nothing in flight can change.

In flight is what waits in a queue, what a worker holds, and what was sent and has not ended. Each of them is an item
with a description, and with whether it can still move by itself.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from harness.audit.ledger import Chord, Ledger, Received
from harness.audit.remains import How, Settled
from harness.containers.broker_node import QueueCount, QueueLook, Waiting
from harness.errors import EngineError, HarnessError
from harness.stack.limits import Limits, Wait
from harness.wait import REAL, Clock

_CALM_S = 1.0
"""Seconds for which nothing may be able to move before the wait ends: a sent task may not be in a queue yet. A shorter
time would call such a task lost; a longer one is added to every wait that ends stuck."""
_REPORT_INTERVALS = 1.2
"""The wait for a queue that reports at intervals, in intervals: one, and a margin of a fifth for a late report. Without
the margin, a queue that reports late would count as empty."""
INTERVAL_S = 0.05
"""Seconds between two looks. A longer interval would end every wait later; a shorter one would ask the broker more
often, and so take processor time from the workers."""
_FIRST_WORD_S = 3.0
"""A wait that is shorter than this, in seconds, is not announced, so that the output of a short run stays short. A
longer silence would look like a standstill."""
_BETWEEN_WORDS_S = 10.0
"""Seconds between two announcements. A shorter time would fill the log of a long wait; a longer one would look like a
standstill."""
_SHOWN = 3
"""The number of items that an announcement names, and of members that a chord does. It is one line, which has no room
for more."""
_MISSED_HEARTBEATS = 3
"""The intervals without a heartbeat in which RabbitMQ gives up a connection whose peer is gone: it looks once in each,
and needs two looks without any data (its `rabbit_heartbeat`). Only then does it deliver again what was on that
connection. A smaller number would call such messages unknown; a larger one would delay the end of a run in which a
worker without a journal holds them."""
DELAYED = "celery_delayed_"
"""The prefix of the queues in which native delayed delivery keeps messages."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """Something in flight."""

    text: str
    """A description, for people to read."""
    can_move: bool
    several: str = ""
    """A description of several items of this kind, to follow their number; empty if there is no such kind."""
    given_back_after_s: float = 0.0
    """The seconds after which the broker delivers it again at the latest if its holder is gone; 0 if it does not."""


class Source(Protocol):
    """A system that can settle."""

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

    def peek(self, queue: str) -> Sequence[Waiting]:
        """Return the messages that wait in a queue. Raises HarnessError if the broker does not answer."""
        ...

    def alive(self) -> set[str]:
        """Return the names of the workers that run."""
        ...


def settle(
    source: Source,
    limits: Limits,
    *,
    say: Callable[[str], None] = lambda _: None,
    watch: Callable[[Ledger], None] = lambda _: None,
    clock: Clock = REAL,
    now_t: Callable[[], float] = time.time,
) -> Settled:
    """Wait until everything is at rest, or nothing can move any more, or a limit is reached.

    Args:
        source: the system that settles.
        limits: how long to wait.
        say: gets a line about what is waited for, if it takes long.
        watch: gets the ledger after each update.
        clock: measures the limits.
        now_t: Unix time in seconds, for tasks that are due later.
    """
    wait, calm, teller = Wait(limits, clock), _Calm(clock), _Teller(clock, say)
    sent_before: Counter[tuple[str, str]] | None = None
    while True:
        # The queues are asked before the journal is read: a task leaves its queue after it left its trace.
        queues = _queues(source)
        ledger = source.ledger
        watch(ledger)
        sent_before = Counter(ledger.senders) if sent_before is None else sent_before
        wait.note(ledger.ended)
        items, calm_s = _in_flight(source, queues, ledger, now_t(), wait.left_s)
        teller.tell(items)
        how = _over(items, ledger, wait, is_calm=calm.lasts(items, calm_s))
        if how is not None:
            sending = (Counter(ledger.senders) - sent_before).most_common()
            return Settled(
                how=how,
                waited_s=wait.waited_s,
                waiting=tuple(summed_up(items)),
                sending=tuple((sender, name, count) for (sender, name), count in sending),
            )
        wait.rest(INTERVAL_S)


def _over(items: Sequence[Item], ledger: Ledger, wait: Wait, *, is_calm: bool) -> How | None:
    """Return why the wait is over; None if it is not."""
    if not items and not ledger.unended:
        return How.REST
    if is_calm:
        return How.STUCK
    # If there is anything else in flight, the wait ends as usual.
    return wait.over(given_back_after_s=min((item.given_back_after_s for item in items), default=0.0))


class _Calm:
    """Distinguishes a pause from the end. At the end, nothing can move for some time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since_s: float | None = None

    def lasts(self, items: Sequence[Item], calm_s: float) -> bool:
        """Return whether nothing could move for `calm_s` seconds, given the items in flight now."""
        if any(item.can_move for item in items):
            self._since_s = None
            return False
        now_s = self._clock.now()
        self._since_s = now_s if self._since_s is None else self._since_s
        return now_s - self._since_s >= calm_s


class _Teller:
    """Announces what is waited for: not at once, not too often, and not the same text twice in a row."""

    def __init__(self, clock: Clock, say: Callable[[str], None]) -> None:
        self._clock = clock
        self._say = say
        self._next_s = clock.now() + _FIRST_WORD_S
        self._said = ""

    def tell(self, items: Sequence[Item]) -> None:
        """Take the items in flight now."""
        if not items or self._clock.now() < self._next_s:
            return
        text = described(summed_up(items))
        if text != self._said:
            self._say(f"waiting: {text}")
            self._said = text
        self._next_s = self._clock.now() + _BETWEEN_WORDS_S


def summed_up(items: Sequence[Item]) -> list[str]:
    """Return what is in flight, each kind once, in the order in which they were found."""
    kinds: dict[str, list[Item]] = {}
    for item in items:
        kinds.setdefault(item.several or item.text, []).append(item)
    return [found[0].text if len(found) == 1 else f"{len(found)} {kind}" for kind, found in kinds.items()]


def described(texts: Sequence[str]) -> str:
    """Return the first of some items in one line."""
    more = f"; and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return "; ".join(texts[:_SHOWN]) + more


# ------------------------------------------------------------------------------------------------- what is in flight


def _queues(source: Source) -> list[QueueCount] | Item:
    """Return what the queues hold, or an item that says that the broker does not answer."""
    try:
        return source.task_queues()
    except HarnessError as error:
        return _silence(error)


def _in_flight(
    source: Source, queues: list[QueueCount] | Item, ledger: Ledger, now_t: float, left_s: float
) -> tuple[list[Item], float]:
    """Return everything in flight, and for how many seconds nothing may be able to move before the wait ends."""
    if isinstance(queues, Item):
        return [queues], _CALM_S
    try:
        view = _View(ledger=ledger, queues=queues, alive=source.alive(), now_t=now_t, until_t=now_t + left_s)
        items = list(view.in_hand())
        looks: Mapping[str, QueueLook] | None = None
        if not any(item.can_move for item in items):
            waiting = [queue.name for queue in queues if queue.ready or queue.unacked or not queue.is_live]
            looks = source.look(waiting) if waiting else {}
        items += view.in_queues(looks)
    except HarnessError as error:
        return [_silence(error)], _CALM_S
    sampled_s = max((queue.sampled_s for queue in queues), default=0.0)
    return items, _CALM_S + _REPORT_INTERVALS * sampled_s


def _silence(error: HarnessError) -> Item:
    """Return an item that can move: a silent broker may hold messages, a silent engine hides which workers run."""
    who = "container engine" if isinstance(error, EngineError) else "broker"
    return Item(text=f"the {who} does not answer ({str(error).partition('.')[0]})", can_move=True)


@dataclass(frozen=True, kw_only=True)
class _View:
    """The state at one moment."""

    ledger: Ledger
    queues: Sequence[QueueCount]
    alive: Collection[str]
    now_t: float
    until_t: float
    """Unix time in seconds; a task that is due later does not move before the wait ends."""

    @property
    def unacked(self) -> int:
        """The number of messages that are delivered and not acknowledged."""
        return sum(queue.unacked for queue in self.queues)

    @property
    def consumed(self) -> set[str]:
        """The queues that the workers which are alive consumed when they were ready."""
        return {name for node in self.alive for name in self.ledger.consumes.get(node, ())}

    def in_hand(self) -> Iterator[Item]:
        """Yield what the workers run, and what they have received."""
        running = list(self.ledger.running(self.alive))
        received = list(self.ledger.received(self.alive)) if self.unacked else []
        idle = self._idle_chords()
        for chord in self.ledger.chords:
            if chord.task in idle:
                yield Item(text=self._of_chord(chord), can_move=False)
        for run in running:
            if run.task not in idle:
                seconds = max(self.now_t - run.t, 0.0)
                text = f"{run.name or 'a task'} ({run.task}) runs on {run.node} for {seconds:.0f} s"
                yield Item(text=text, can_move=True, several=f"{run.name or 'tasks'} run on {run.node}")
        for one in received:
            if one.task not in idle:
                yield self._of_received(one)

    def _of_received(self, one: Received) -> Item:
        name = f"{one.name or 'a task'} ({one.task})"
        if one.eta is None or one.eta <= self.now_t:
            several = f"{one.name or 'tasks'} wait in {one.node}"
            return Item(text=f"{name} waits in {one.node}", can_move=True, several=several)
        text = f"{name} is held by {one.node} for another {one.eta - self.now_t:.0f} s"
        several = f"{one.name or 'tasks'} are held by {one.node} until their time comes"
        return Item(text=text, can_move=one.eta <= self.until_t, several=several)

    def _idle_chords(self) -> set[str]:
        """Return the chord-unlock tasks whose last attempt is later than any other motion: they looked in vain."""
        moved_t = self.ledger.last_motion_t
        return {chord.task for chord in self.ledger.chords if chord.last_attempt_t > moved_t}

    def _of_chord(self, chord: Chord) -> str:
        absent = [member for member in chord.members if not self.ledger.has_ended(member)]
        members = ", ".join(absent[:_SHOWN]) or "results that none of its members left"
        return f"celery.chord_unlock looked {chord.attempts} times and waits for {members}"

    def in_queues(self, looks: Mapping[str, QueueLook] | None) -> Iterator[Item]:
        """Yield what the queues hold.

        Args:
            looks: what they report of their consumers; None if they were not asked, because something else moves.
        """
        for queue in self.queues:
            look = looks.get(queue.name) if looks is not None else None
            ready = max(queue.ready, look.ready if look else 0)
            if ready:
                yield self._of_ready(queue, ready, look)
            elif queue.unacked:
                yield from self._of_unacked(queue, look)

    def _of_ready(self, queue: QueueCount, ready: int, look: QueueLook | None) -> Item:
        if look is None:
            return Item(text=f"{ready} in `{queue.name}`", can_move=True)
        wait = "waits" if ready == 1 else "wait"
        if look.consumers:
            return Item(text=f"{ready} {wait} in `{queue.name}`, consumers: {look.consumers}", can_move=True)
        text = f"{ready} {wait} in `{queue.name}`, which nobody consumes"
        if queue.name in self.consumed:
            return Item(text=f"{text}, though a worker did", can_move=True)
        if queue.expires_messages or queue.name.startswith(DELAYED) or self._expire_soon(queue.name):
            return Item(text=f"{ready} in `{queue.name}`, until their time comes", can_move=self._due_soon(queue))
        others = ", ".join(sorted(self.consumed)) or "nothing"
        whole = f"{text}; workers consume: {others}" if self.alive else f"{text}; no worker runs"
        return Item(text=whole, can_move=False)

    def _of_unacked(self, queue: QueueCount, look: QueueLook | None) -> Iterator[Item]:
        """Yield the messages that consumers hold, unless the journal of our workers accounts for them already."""
        known = len(self.ledger.held(self.alive, unacked=True))
        if queue.unacked > known:
            can_move = bool(self.alive) or look is None or look.consumers > 0
            after_s = _MISSED_HEARTBEATS * max(self.ledger.heartbeats.values(), default=0.0)
            text = f"{queue.unacked} of `{queue.name}` are with a consumer"
            yield Item(text=text, can_move=can_move, given_back_after_s=after_s)

    def _expire_soon(self, queue: str) -> bool:
        return any(
            one.expires_t is not None and self.now_t - _CALM_S <= one.expires_t <= self.until_t
            for one in self.ledger.unended.values()
            if one.queue == queue
        )

    def _due_soon(self, queue: QueueCount) -> bool:
        """Return whether one of the tasks that may wait there is due before the wait ends."""
        if not queue.name.startswith(DELAYED):
            return True
        due = [one.due_t for one in self.ledger.unended.values() if one.due_t is not None]
        return not due or min(due) <= self.until_t
