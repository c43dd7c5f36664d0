"""The interface of a broker's node: what a stack asks of its broker, and what the broker answers.

The stack uses brokers only through it. RabbitMQ is one; see `harness.containers.rabbitmq`.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from harness.containers.node import Node
from harness.records.values import Json


@dataclass(frozen=True, kw_only=True)
class Login:
    """A user with rights on one vhost only.

    A vhost is a part of a broker, with its own queues: of RabbitMQ a virtual host. Celery calls it `virtual_host` for
    every transport.
    """

    user: str
    password: str
    vhost: str
    amqp_url_inside: str
    """The URL for nodes on the broker's network."""
    amqp_url_outside: str
    """The URL for processes of this machine; after a restart, `BrokerNode.refresh` returns the new one."""


@dataclass(frozen=True, kw_only=True)
class QueueCount:
    """The number of messages in a queue."""

    name: str
    ready: int
    unacked: int
    sampled_s: float = 0.0
    """The greatest age of these counts, in seconds; 0 if they are live. Quorum queues report theirs at intervals."""
    kind: str = "classic"
    """`classic`, `quorum` or `stream`."""
    durable: bool | None = None
    """True if it survives a restart of the broker; None if that is not known."""
    arguments: Mapping[str, Json] = field(default_factory=dict)
    """The arguments of its declaration, such as `x-message-ttl`, and those of its policy under the same names."""

    @property
    def is_live(self) -> bool:
        """True if the counts are current."""
        return not self.sampled_s

    @property
    def expires_messages(self) -> bool:
        """True if messages in it expire after some time."""
        return "x-message-ttl" in self.arguments


@dataclass(frozen=True, kw_only=True)
class QueueLook:
    """The current counts of a queue, as the queue itself reports them."""

    ready: int
    consumers: int


@dataclass(frozen=True, kw_only=True)
class Death:
    """The last dead-lettering of a message."""

    queue: str
    """The queue that the message was in."""
    reason: str
    """`rejected`, `expired`, `maxlen` or `delivery_limit`."""
    count: int
    """Number of times that this queue dead-lettered it for this reason."""


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A message that waits in a queue, as its headers describe it; None for each header that it does not have."""

    task: str | None
    name: str | None
    eta: str | None
    """The time, in ISO 8601, before which it must not run; None if the sender asked for none."""
    death: Death | None = None
    """Its last dead-lettering; None if it was not dead-lettered."""


class Alarm(StrEnum):
    """The alarms in which a broker takes no more messages."""

    MEMORY = "memory"
    DISK = "disk"


class BrokerNode(Node, ABC):
    """A broker. Each stack that uses it has a vhost and a user there.

    Every method may raise BrokerError: the broker refused, or does not answer.
    """

    @abstractmethod
    def create_vhost(self, name: str) -> Login:
        """Create a vhost, and a user with a random password who has all rights there and none elsewhere."""

    @abstractmethod
    def welcome_guest(self) -> Login:
        """Empty the vhost that clients take by default, and let the user in whom they take by default."""

    @abstractmethod
    def delete_vhost(self, login: Login) -> None:
        """Delete a vhost with its content, close its connections, and delete its user. A second call does nothing."""

    @abstractmethod
    def refresh(self, login: Login) -> Login:
        """Return the same login with the current URLs."""

    @abstractmethod
    def admit(self, user: str, password: str, vhost: str) -> None:
        """Add a user with all rights in a vhost and none elsewhere, and access to that part of the management page."""

    @property
    @abstractmethod
    def administrator(self) -> tuple[str, str]:
        """Name and password of the one user with all rights; do not show them or leave them in a run folder."""

    @property
    @abstractmethod
    def management_url(self) -> str:
        """The URL of the management page; a restart may change it."""

    @abstractmethod
    def connections(self, login: Login) -> Mapping[str, str]:
        """Return the open connections of a user: the address of the client by the connection's name."""

    @abstractmethod
    def close_connection(self, name: str) -> bool:
        """Close a connection. Return False if the broker cannot yet, because the connection is seconds old, or is gone.

        The client learns it as an error. One that does not read keeps the connection listed for a while.
        """

    @abstractmethod
    def raise_alarm(self, alarm: Alarm) -> None:
        """Change the limit of a resource so that the broker raises an alarm, in all vhosts. Takes seconds."""

    @abstractmethod
    def end_alarm(self, alarm: Alarm) -> None:
        """Set the limit back with which the broker was started. Takes seconds."""

    @abstractmethod
    def alarms(self) -> Collection[Alarm]:
        """Return the alarms that are raised now."""

    @abstractmethod
    def make_durable(self) -> None:
        """Write to disk what was declared until now, so that it outlives a SIGKILL of the broker. Takes seconds."""

    @abstractmethod
    def upgrade(self, image: str) -> None:
        """Start it anew from another image, with the data that it had. It is down before, and not ready yet on return.

        Its volume has the data, its name and its kept ports are the same, and its log is another one. Raises UsageError
        if its data are in the container alone.
        """

    @abstractmethod
    def queues(self, vhost: str) -> Sequence[QueueCount]:
        """Return all queues of a vhost with the messages that they hold now, sorted by name."""

    @abstractmethod
    def look(self, vhost: str, queues: Iterable[str]) -> Mapping[str, QueueLook]:
        """Return the numbers of ready messages and of consumers of some queues, as the queues themselves report them.

        A queue that is gone, or that is exclusive to another connection, is left out.
        """

    @abstractmethod
    def consumers(self, vhost: str) -> Mapping[str, Sequence[str]]:
        """Return the tags of the consumers of each queue that has any. They may be some seconds old."""

    @abstractmethod
    def reaches_a_queue(self, vhost: str, exchange: str, routing_key: str | None) -> bool:
        """Return whether a message that is published to an exchange would reach a queue.

        Args:
            vhost: of the exchange.
            exchange: its name; there need not be one.
            routing_key: of the message; None if it is not known: then any queue counts.
        """

    @abstractmethod
    def peek(self, vhost: str, queue: str) -> Sequence[Waiting]:
        """Return every ready message of a queue, in its order. All of them stay.

        During the call, consumers may not get them. Use it at the end of a run, or for queues without consumers.
        """
