"""A connection to the broker, and Celery's producer on it."""

import contextlib
import select
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import amqp
import kombu
from celery import Celery
from kombu.exceptions import OperationalError

from harness.errors import BrokerError

BROKER_ERRORS = (OSError, amqp.AMQPError, OperationalError)
"""What goes wrong between here and a broker."""

_FRESH_S = 0.02
"""For how long a connection is alive after the broker's last confirm on it."""


@dataclass
class Link:
    """One connection, and Celery's producer on it. Whatever breaks it also closes its socket."""

    connection: kombu.Connection
    producer: Any
    found: set[str] = field(default_factory=set)
    """The queues that were seen to be there."""
    _used_s: float = field(default_factory=time.monotonic)
    _returned: list[amqp.AMQPError] = field(default_factory=list)
    _poll: select.poll = field(default_factory=select.poll)

    @classmethod
    def open(cls, app: Celery, url: str, timeout_s: float, *, awaits: bool = True) -> "Link":
        """Connect; see `connect` for what it takes and raises."""
        connection = connect(url, timeout_s, awaits=awaits)
        try:
            producer = app.amqp.Producer(connection, auto_declare=False)
            link = cls(connection, producer)
            producer.on_return = link._on_return
            link._poll.register(connection.connection.sock, select.POLLIN)
        except BROKER_ERRORS as error:
            connection.collect()
            raise BrokerError(said(error)) from error
        except BaseException:
            connection.collect()
            raise
        return link

    def find(self, queue: Any) -> None:
        """See to it that a queue is there; after the first time this costs nothing.

        It is looked up before it is declared, because the broker refuses the declaration of a queue that was
        declared with other arguments, such as a priority queue or a quorum queue.

        Args:
            queue: Celery's idea of the queue.
        """
        if queue.name in self.found:
            return
        try:
            # An error closes the channel on which it happens; the one for publishing has to stay open.
            channel = self.connection.channel()
            try:
                channel.queue_declare(queue.name, passive=True)
            except amqp.exceptions.NotFound:
                # The library has opened the channel again.
                queue.declare(channel=channel)
            channel.close()
        except BaseException:
            self.abandon()
            raise
        self.found.add(queue.name)

    def publish(
        self, send_message: Callable[..., None], name: str, message: Any, **options: Any
    ) -> amqp.AMQPError | None:
        """Publish, and wait for the confirm.

        Returns:
            What the broker said if no queue took the message; it confirms that too, but it returns it first.
        """
        self._returned.clear()
        try:
            # Without `declare`, Kombu would be asked what is declared already, and that is slow.
            send_message(self.producer, name, message, retry=False, mandatory=True, declare=(), **options)
        except amqp.exceptions.MessageNacked:
            raise
        except BaseException:
            # The next confirm on this channel could be the answer to this message, so it is not used again.
            self.abandon()
            raise
        self._used_s = time.monotonic()
        return self._returned[0] if self._returned else None

    def _on_return(self, error: amqp.AMQPError, _exchange: str, _routing_key: str, _message: Any) -> None:
        self._returned.append(error)

    def alive(self) -> bool:
        """Whether the broker has not closed the connection while it was idle.

        Nothing is expected on an idle connection: whatever there is to read is its end, or a notice that
        publishing is blocked, which the library keeps. One that was just used is taken to be alive: to look would
        cost a tenth of a send under gevent, and it could as well end between the look and the send.
        """
        if time.monotonic() - self._used_s < _FRESH_S or not self._poll.poll(0):
            return True
        try:
            self.connection.drain_events(timeout=0.001)
        except TimeoutError:
            return True
        except (OSError, amqp.AMQPError):
            return False
        return bool(self.connection.connected)

    def abandon(self) -> None:
        """Close the socket without a word: the other side may not be there to answer."""
        self.connection.collect()

    def close(self) -> None:
        """Close it in good order, as far as that is possible."""
        with contextlib.suppress(OSError, amqp.AMQPError):
            self.connection.release()


def connect(url: str, timeout_s: float, *, awaits: bool = True) -> kombu.Connection:
    """Connect to a broker; to the first node of a cluster that lets itself be connected to.

    Each is tried once. Kombu's own way ends at a node that refuses the user, and another may know it.

    Args:
        url: as the producer has it.
        timeout_s: the longest wait for each node to connect, and later for each answer.
        awaits: whether the library is to ask for a confirm of each message, and to wait for it.

    Raises:
        BrokerError: no node could be connected to; it says what was seen of the last one.
    """
    *first, last = url.split(";")
    for node in first:
        with contextlib.suppress(*BROKER_ERRORS):
            return _connect_to_node(node, timeout_s, awaits=awaits)
    try:
        return _connect_to_node(last, timeout_s, awaits=awaits)
    except BROKER_ERRORS as error:
        which = f"none of {len(first) + 1} nodes; the last, {shown(last)}: " if first else ""
        raise BrokerError(f"{which}{said(error)}") from error


def _connect_to_node(url: str, timeout_s: float, *, awaits: bool) -> kombu.Connection:
    options = {"confirm_publish": awaits, "read_timeout": timeout_s, "write_timeout": timeout_s}
    connection = kombu.Connection(url, connect_timeout=timeout_s, heartbeat=0, transport_options=options)
    try:
        connection.ensure_connection(max_retries=0)
    except BaseException:
        connection.collect()
        raise
    return connection


def shown(url: str) -> str:
    """The hosts and vhosts of a broker's URL, without users and passwords."""
    return ";".join(part.rpartition("@")[2].partition("?")[0] for part in url.split(";"))


def cause_of(error: BaseException) -> BaseException:
    """Kombu wraps the transport's error; the error itself says more."""
    return error.__cause__ if isinstance(error, OperationalError) and error.__cause__ else error


def said(error: BaseException) -> str:
    """An error of the broker or of the way to it, in one line with its kind."""
    cause = cause_of(error)
    return f"{type(cause).__name__}: {cause}".rstrip(": ")
