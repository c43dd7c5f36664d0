"""broker.json: what was left in the broker and in the workers when a run ended, and how the wait for rest ended."""

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
    """Number of consumers; None if the broker did not report it."""
    arguments: Mapping[str, Json] = field(default_factory=dict)
    """The arguments of its declaration, and those that a policy adds."""
    durable: bool | None = None
    """True if it survives a restart of the broker; None if that is not known."""
    declared: Mapping[str, Json] = field(default_factory=dict)
    """The arguments with which its workers declare it."""

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> "QueueLeft":
        """Read the result of `asdict`. Raises ValueError, TypeError or KeyError on anything else."""
        consumers = value.get("consumers")
        return cls(
            name=str(value["name"]),
            kind=str(value.get("kind", "classic")),
            ready=int(value["ready"]),
            unacked=int(value["unacked"]),
            consumers=None if consumers is None else int(consumers),
            arguments=dict(value.get("arguments", {})),
            durable=None if value.get("durable") is None else bool(value["durable"]),
            declared=dict(value.get("declared", {})),
        )


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """A message in a queue without consumers that was dead-lettered by another queue."""

    task: str | None
    name: str | None
    queue: str
    """The queue where it is."""
    origin: str
    """The queue where it was."""
    reason: str
    """The reason of the dead-lettering: `rejected`, `expired`, `maxlen` or `delivery_limit`."""
    count: int
    """Number of times that it was dead-lettered for this reason."""

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> "DeadLetter":
        """Read the result of `asdict`. Raises ValueError, TypeError or KeyError on anything else."""
        return cls(
            task=None if value["task"] is None else str(value["task"]),
            name=None if value["name"] is None else str(value["name"]),
            queue=str(value["queue"]),
            origin=str(value["origin"]),
            reason=str(value["reason"]),
            count=int(value["count"]),
        )


@dataclass(frozen=True, kw_only=True)
class Deaf:
    """A queue that some worker should consume, which runs and does not."""

    queue: str
    consumers: int | None
    """Number of its consumers; None if there is no such queue any more."""
    workers: tuple[str, ...]
    """The names of the workers that run and should consume it."""
    absent: tuple[str, ...] = ()
    """The names of those that do not; empty if the broker did not say which they are."""

    @property
    def text(self) -> str:
        """Return it as a clause."""
        if self.absent:
            verb, it = ("runs and does", "it") if len(self.absent) == 1 else ("run and do", "they")
            gone = ", which is gone" if self.consumers is None else ""
            return f"{', '.join(self.absent)} {verb} not consume `{self.queue}`{gone}, though {it} did"
        verb = "consumes" if self.consumers == 1 else "consume"
        return f"only {self.consumers or 0} of {', '.join(self.workers)} {verb} `{self.queue}`, which each of them did"

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> "Deaf":
        """Read the result of `asdict`. Raises ValueError, TypeError or KeyError on anything else."""
        return cls(
            queue=str(value["queue"]),
            consumers=None if value["consumers"] is None else int(value["consumers"]),
            workers=tuple(str(node) for node in value["workers"]),
            absent=tuple(str(node) for node in value["absent"]),
        )


class How(StrEnum):
    """The reason why the wait for rest ended."""

    REST = "rest"
    """Nothing is in flight, and every task has ended."""
    STUCK = "stuck"
    """Something is in flight or has not ended, and nothing can make progress any more."""
    TIMEOUT = "timeout"
    """No task ended within the time-out between two ends."""
    LIMIT = "limit"
    """Tasks still ended when the limit of the whole wait was reached."""


@dataclass(frozen=True, kw_only=True)
class Settled:
    """The end of the wait for rest."""

    how: How
    waited_s: float
    waiting: tuple[str, ...] = ()
    """The items that were still in flight, one text each."""
    sending: tuple[tuple[str, str, int], ...] = ()
    """The tasks that sent others meanwhile: sender's name, sent task's name, number; the largest number comes first."""

    def to_json(self) -> dict[str, Json]:
        """Return it as it stands in broker.json."""
        return {
            "how": self.how.value,
            "waited_s": round(self.waited_s, 1),
            "waiting": list(self.waiting),
            "sending": [list(one) for one in self.sending],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> "Settled":
        """Read the result of `to_json`. Raises ValueError, TypeError or KeyError on anything else."""
        return cls(
            how=How(value["how"]),
            waited_s=float(value["waited_s"]),
            waiting=tuple(str(text) for text in value.get("waiting", ())),
            sending=tuple((str(sender), str(name), int(count)) for sender, name, count in value.get("sending", ())),
        )


@dataclass(frozen=True, kw_only=True)
class Remains:
    """Everything that was left when a run ended."""

    queues: Sequence[QueueLeft] = ()
    messages: Sequence[str] = ()
    """The ids of the tasks that wait in a queue."""
    anonymous: int = 0
    """Number of messages in which no task id is found."""
    held: Sequence[str] = ()
    """The ids of the tasks that a worker holds."""
    dead: Sequence[DeadLetter] = ()
    deaf: Sequence[Deaf] = ()
    alive: Sequence[str] = ()
    """The names of the workers that ran when the broker was asked."""
    differing: Sequence[str] = ()
    """A sentence for each setting of the app that is not in force."""
    reason: str | None = None
    """The reason why this is incomplete; None if it is complete."""
    asked_t: float | None = None
    """The time when the broker was asked, Unix time in seconds."""
    settled: Settled | None = None
    """The end of the wait for rest; None without a wait."""

    def to_json(self) -> dict[str, Json]:
        """Return it as it stands in broker.json."""
        return {
            "readable": self.reason is None,
            **({} if self.reason is None else {"reason": self.reason}),
            "queues": [asdict(queue) for queue in self.queues],
            "messages": list(self.messages),
            "anonymous": self.anonymous,
            "held": list(self.held),
            "dead": [asdict(letter) for letter in self.dead],
            **({"alive": list(self.alive)} if self.alive else {}),
            **({"differing": list(self.differing)} if self.differing else {}),
            **({"deaf": [asdict(one) for one in self.deaf]} if self.deaf else {}),
            **({} if self.asked_t is None else {"t": self.asked_t}),
            **({} if self.settled is None else {"settled": self.settled.to_json()}),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> "Remains":
        """Read the result of `to_json`. Raises ValueError, TypeError or KeyError on anything else."""
        readable = value["readable"]
        return cls(
            queues=tuple(map(QueueLeft.from_json, value["queues"])),
            messages=tuple(str(task) for task in value["messages"]),
            anonymous=int(value.get("anonymous", 0)),
            held=tuple(str(task) for task in value["held"]),
            dead=tuple(map(DeadLetter.from_json, value.get("dead", ()))),
            alive=tuple(str(node) for node in value.get("alive", ())),
            differing=tuple(str(text) for text in value.get("differing", ())),
            deaf=tuple(map(Deaf.from_json, value.get("deaf", ()))),
            reason=None if readable is True else str(value.get("reason", "it does not say why")),
            asked_t=None if value.get("t") is None else float(value["t"]),
            settled=Settled.from_json(value["settled"]) if value.get("settled") else None,
        )
