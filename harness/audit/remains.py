"""What was left in the broker and in the workers' hands when a run ended, and how waiting for it ended: broker.json."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum

from harness.records.values import Json


@dataclass(frozen=True, kw_only=True)
class QueueLeft:
    """One queue of the run's vhost."""

    name: str
    kind: str
    ready: int
    unacked: int
    consumers: int | None
    """None if it did not say."""
    arguments: Mapping[str, Json] = field(default_factory=dict)
    """What it was declared with, and what a policy adds."""
    declared: Mapping[str, Json] = field(default_factory=dict)
    """What the workers that consume it declare it with."""

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> "QueueLeft":
        """Read what was written. Raises ValueError, TypeError or KeyError on anything else."""
        consumers = value.get("consumers")
        return cls(
            name=str(value["name"]),
            kind=str(value.get("kind", "classic")),
            ready=int(value["ready"]),
            unacked=int(value["unacked"]),
            consumers=None if consumers is None else int(consumers),
            arguments=dict(value.get("arguments", {})),
            declared=dict(value.get("declared", {})),
        )


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """A message at rest in a queue that nobody consumes, because another queue got rid of it."""

    task: str | None
    name: str | None
    queue: str
    """Where it lies."""
    origin: str
    """The queue that it was in."""
    reason: str
    """Why it left that: `rejected`, `expired`, `maxlen` or `delivery_limit`."""
    count: int
    """How often that happened to it."""

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> "DeadLetter":
        """Read what was written. Raises ValueError, TypeError or KeyError on anything else."""
        return cls(
            task=None if value["task"] is None else str(value["task"]),
            name=None if value["name"] is None else str(value["name"]),
            queue=str(value["queue"]),
            origin=str(value["origin"]),
            reason=str(value["reason"]),
            count=int(value["count"]),
        )


class How(StrEnum):
    """Why settling ended."""

    REST = "rest"
    """Nothing is in flight, and every task has ended."""
    STUCK = "stuck"
    """Something is in flight or has not ended, and nothing can move any more."""
    TIMEOUT = "timeout"
    """No further task ended for as long as it was to be waited for the next one."""
    LIMIT = "limit"
    """Tasks still ended when the time that it was to take in all was over."""


@dataclass(frozen=True, kw_only=True)
class Settled:
    """How settling ended."""

    how: How
    waited_s: float
    waiting: tuple[str, ...] = ()
    """What was still in flight."""
    sending: tuple[tuple[str, str, int], ...] = ()
    """Which tasks sent others meanwhile, and how many: the sender's name, the sent one's name. Most come first."""

    def to_json(self) -> dict[str, Json]:
        """As it stands in broker.json."""
        return {
            "how": self.how.value,
            "waited_s": round(self.waited_s, 1),
            "waiting": list(self.waiting),
            "sending": [list(one) for one in self.sending],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> "Settled":
        """Read what was written. Raises ValueError, TypeError or KeyError on anything else."""
        return cls(
            how=How(value["how"]),
            waited_s=float(value["waited_s"]),
            waiting=tuple(str(text) for text in value.get("waiting", ())),
            sending=tuple((str(sender), str(name), int(count)) for sender, name, count in value.get("sending", ())),
        )


@dataclass(frozen=True, kw_only=True)
class Remains:
    """All that was left."""

    queues: Sequence[QueueLeft] = ()
    messages: Sequence[str] = ()
    """The ids of the tasks that wait in a queue."""
    anonymous: int = 0
    """Messages in which no task's id is found."""
    held: Sequence[str] = ()
    """The ids of the tasks that a worker has in hand."""
    dead: Sequence[DeadLetter] = ()
    reason: str | None = None
    """Why nobody knows all of it; None if this is all."""
    asked_t: float | None = None
    """When the broker was asked: Unix time in seconds."""
    settled: Settled | None = None
    """How waiting for rest ended; None if nobody waited."""

    def to_json(self) -> dict[str, Json]:
        """As it stands in broker.json."""
        return {
            "readable": self.reason is None,
            **({} if self.reason is None else {"reason": self.reason}),
            "queues": [asdict(queue) for queue in self.queues],
            "messages": list(self.messages),
            "anonymous": self.anonymous,
            "held": list(self.held),
            "dead": [asdict(letter) for letter in self.dead],
            **({} if self.asked_t is None else {"t": self.asked_t}),
            **({} if self.settled is None else {"settled": self.settled.to_json()}),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> "Remains":
        """Read what was written. Raises ValueError, TypeError or KeyError on anything else."""
        readable = value["readable"]
        return cls(
            queues=tuple(map(QueueLeft.from_json, value["queues"])),
            messages=tuple(str(task) for task in value["messages"]),
            anonymous=int(value.get("anonymous", 0)),
            held=tuple(str(task) for task in value["held"]),
            dead=tuple(map(DeadLetter.from_json, value.get("dead", ()))),
            reason=None if readable is True else str(value.get("reason", "it does not say why")),
            asked_t=None if value.get("t") is None else float(value["t"]),
            settled=Settled.from_json(value["settled"]) if value.get("settled") else None,
        )
