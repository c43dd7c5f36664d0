"""A connection to the broker, with Celery's producer."""

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

Written = Callable[[Any], None]
"""Is called with a message that was written to the broker and that the broker has not confirmed."""
BROKER_ERRORS = (OSError, amqp.AMQPError, OperationalError)
"""The errors of a broker and of the connection to it."""

_FRESH_S = 0.02
"""Seconds for which a connection counts as alive after the last publish on it."""


@dataclass
class Link:
    """One connection, with Celery's producer. An error that breaks it also closes its socket."""

    connection: kombu.Connection
    producer: Any
    found: set[str] = field(default_factory=set)
    """The queues that are known to exist."""
    _used_s: float = field(default_factory=time.monotonic)
    _returned: list[amqp.AMQPError] = field(default_factory=list)
    _poll: select.poll = field(default_factory=select.poll)

    @classmethod
    def open(
        cls, app: Celery, url: str, timeout_s: float, *, awaits: bool = True, written: Written | None = None
    ) -> "Link":
        """Connect; see `connect` for the arguments and errors, and `before_confirm` for `written`."""
        connection = connect(url, timeout_s, awaits=awaits)
        try:
            producer = app.amqp.Producer(connection, auto_declare=False)
            link = cls(connection, producer)
            producer.on_return = link._on_return
            if written is not None:
                before_confirm(producer.channel, written)
            link._poll.register(connection.connection.sock, select.POLLIN)
        except BROKER_ERRORS as error:
            connection.collect()
            raise BrokerError(said(error)) from error
        except BaseException:
            connection.collect()
            raise
        return link

    def find(self, queue: Any) -> None:
        """Make sure that a queue exists; after the first time this costs nothing.

        It is looked up before it is declared, because the broker refuses the declaration of a queue that was declared
        with other arguments, such as a priority queue or a quorum queue.

        Args:
            queue: Celery's object for the queue.
        """
        if queue.name in self.found:
            return
        try:
            # An error closes its channel; the channel for publishing has to stay open.
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
            The broker's reason if no queue took the message; such a message is returned first, and confirmed as well.
        """
        self._returned.clear()
        try:
            # Without `declare`, Kombu looks up what is declared already, which is slow.
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
        """Return whether the connection is still open after it was idle.

        Nothing is expected on an idle connection: data on it is either its end, or a notice that publishing is blocked,
        which the library stores. A connection that was just used counts as alive: the check would cost a tenth of a
        send under gevent, and the connection could as well end between the check and the send.
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
        """Close the socket without a closing handshake: the other side may not be there to answer."""
        self.connection.collect()

    def close(self) -> None:
        """Close the connection properly, as far as possible."""
        with contextlib.suppress(OSError, amqp.AMQPError):
            self.connection.release()


def before_confirm(channel: Any, written: Written) -> None:
    """Call a function after each message that is written to a channel, before its confirm is awaited.

    Args:
        channel: a channel of py-amqp, on which confirms are awaited.
        written: gets the message as py-amqp has it.
    """
    write = type(channel)._basic_publish  # noqa: SLF001 - what is public writes and waits.

    def publish(message: Any, *args: Any, **options: Any) -> Any:
        done = write(channel, message, *args, **options)
        written(message)
        return done

    channel._basic_publish = publish  # noqa: SLF001 - the same.


def connect(url: str, timeout_s: float, *, awaits: bool = True) -> kombu.Connection:
    """Connect to a broker: to the first node of a cluster that accepts a connection.

    Each node is tried once. Kombu's own failover ends at a node that refuses the user, and another may know it.

    Args:
        url: as for the producer.
        timeout_s: the longest wait for each node to connect, and later for each answer, in seconds.
        awaits: whether the library asks for a confirm of each message, and waits for it.

    Raises:
        BrokerError: no node could be connected to; the message gives the error of the last one.
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
    """Return the hosts and vhosts of a broker's URL, without users and passwords."""
    return ";".join(part.rpartition("@")[2].partition("?")[0] for part in url.split(";"))


def cause_of(error: BaseException) -> BaseException:
    """Return the transport's error that Kombu has wrapped, or the error itself: the inner one says more."""
    return error.__cause__ if isinstance(error, OperationalError) and error.__cause__ else error


def said(error: BaseException) -> str:
    """Return an error of the broker or of the connection in one line, with its class."""
    cause = cause_of(error)
    return f"{type(cause).__name__}: {cause}".rstrip(": ")
