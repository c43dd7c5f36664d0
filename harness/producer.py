"""The producer: sends tasks with confirms, and journals the intent before and the outcome after.

It publishes through a Celery app of its own that has no result backend: the first `delay()` of an ordinary app
opens the result database, and each further thread opens it again.
"""

import contextlib
import select
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import amqp
import kombu
from celery import Celery
from celery.utils.nodenames import anon_nodename
from kombu.exceptions import EncodeError, OperationalError
from kombu.serialization import dumps

from harness.errors import BrokerError, UsageError
from harness.records.event import Kind
from harness.records.expectation import Expect
from harness.records.journal import Writer, encode
from harness.records.message import DEFAULT_QUEUE
from harness.records.values import Json

_REPR_SIZE = 1024
"""Characters of the arguments that a worker's log and events show, as in `Task.argsrepr_maxsize`."""
_SHORT_STRING = 255
"""The most bytes that AMQP has room for in the name of a queue and in a message's properties."""
_PRIORITIES = range(256)
_FRESH_S = 0.02
"""For how long a connection is alive after the broker's last confirm on it."""
BROKER_ERRORS = (OSError, amqp.AMQPError, OperationalError)


@dataclass(frozen=True, kw_only=True)
class Sent:
    """One task that was offered to the broker."""

    task: str
    """The task's id."""
    outcome: Kind
    """ACCEPTED (the broker confirmed it), REFUSED (it surely has it not) or UNKNOWN (nobody can say)."""
    reason: str | None = None
    """What was seen, unless it was accepted."""

    @property
    def accepted(self) -> bool:
        """Whether the broker confirmed it."""
        return self.outcome is Kind.ACCEPTED


class Producer:
    """Sends tasks by name. Threads and greenlets may share one; each send in flight has a connection of its own."""

    def __init__(self, broker_url: str, journal: Writer, *, timeout_s: float = 5.0) -> None:
        """Nothing is connected until the first `send`.

        Args:
            broker_url: an AMQP URL, with the vhost; of a cluster those of its nodes, with a semicolon between them.
            journal: where intents and outcomes go.
            timeout_s: the longest wait for each of connecting to a node, declaring a queue, and a confirm.
        """
        self._journal = journal
        self._timeout_s = timeout_s
        self._app = Celery("harness.producer", broker=broker_url, set_as_current=False)
        # What the environment says of results (CELERY_RESULT_BACKEND) wins over the constructor, but not over this.
        self._app.backend_cls = "disabled"
        self._app.conf.update(task_serializer="json", accept_content=["json"])
        self._send_message = self._app.amqp.send_task_message
        self._url = broker_url
        self._origin = anon_nodename()
        self._idle: deque[Link] = deque()
        self._due_t: float | None = None

    def __enter__(self) -> Self:
        """The producer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every connection."""
        self.close()

    def close(self) -> None:
        """Close every idle connection. A later `send` connects again."""
        while self._idle:
            self._idle.pop().close()

    def at(self, due_t: float) -> "Producer":
        """The same producer, for what was to be sent at `due_t` (Unix time, seconds) and is sent now.

        A load test counts latency from there: from the moment of sending, whatever held the sender up would hide it.
        """
        # `copy.copy` finds out anew each time how that is done, which is a thirtieth of all that a send takes.
        view = object.__new__(type(self))
        vars(view).update(vars(self), _due_t=due_t)
        return view

    def send(
        self,
        name: str,
        args: Sequence[Json] = (),
        kwargs: Mapping[str, Json] | None = None,
        *,
        expect: Expect | None = None,
        countdown_s: float | None = None,
        eta: datetime | None = None,
        expires_s: float | None = None,
        queue: str = DEFAULT_QUEUE,
        priority: int | None = None,
        task_id: str | None = None,
    ) -> Sent:
        """Send one task, once: nothing is tried again, so that the outcome is one of three.

        Writes `intended` (name, due and expiry time, what is expected), publishes, and writes the outcome. The
        task is due now (or when `at` says), `countdown_s` seconds from now, or at `eta`. A queue that is there is used
        as it is; one that is not is declared as Celery does, the first time that a connection meets it. If it is
        deleted later, tasks for it are refused.

        Args:
            name: the task's registered name.
            args: its positional arguments, JSON.
            kwargs: its keyword arguments, JSON.
            expect: what the audit shall demand; nothing beyond SUCCESS if not given.
            countdown_s: seconds that the worker holds the task back.
            eta: until when the worker holds it back, instead; with a time zone.
            expires_s: seconds after which it is not to be run any more.
            queue: where it is sent; the default is Celery's.
            priority: 0 to 255, for a queue that has priorities.
            task_id: its id; a new one if not given.

        Raises:
            UsageError: no message can be made of this. Nothing was journaled and nothing sent.
            JournalError: the intent or the outcome could not be written.
        """
        task = task_id or str(uuid.uuid4())
        _check_names(name=name, task_id=task, queue=queue)
        if priority is not None and not (isinstance(priority, int) and priority in _PRIORITIES):
            raise UsageError(f"priority={priority!r} is none; give a whole number from 0 to 255.")
        now_s = time.time()
        due = _due(now_s, countdown_s, eta)
        expiry = _moment(now_s, "expires_s", expires_s)
        message = self._message(task, name, args, kwargs, eta=due if countdown_s or eta else None, expires=expiry)
        intent: dict[str, Json] = {"name": name, **_expectation(name, expect)}
        if due is not None or self._due_t is not None:
            intent["due"] = due.timestamp() if due is not None else self._due_t
        if expiry is not None:
            intent["expires"] = expiry.timestamp()
        if queue != DEFAULT_QUEUE:
            intent["queue"] = queue
        self._journal.write(Kind.INTENDED, task, **intent)
        options = {"priority": priority, "expiration": expires_s}
        sent = self._publish(
            task, name, message, queue, {key: value for key, value in options.items() if value is not None}
        )
        if sent.accepted:
            self._journal.write(Kind.ACCEPTED, task, confirmed=True)
        else:
            self._journal.write(sent.outcome, task, reason=sent.reason)
        return sent

    def _message(
        self, task: str, name: str, args: Sequence[Json], kwargs: Mapping[str, Json] | None, **times: datetime | None
    ) -> Any:
        """What `Celery.send_task` publishes.

        It does more: an AsyncResult, and settings that it looks up for each task. Together they take as long as
        all the rest.
        """
        try:
            positional, named = list(args), dict(kwargs or {})
            # They are encoded once more when they are published, where it is too late to say that nothing was
            # intended; and whoever listens to Celery's signals there is to see them as they are.
            dumps((positional, named), serializer="json")
        except (TypeError, ValueError, EncodeError) as error:
            raise UsageError(f"the arguments of {name} are not JSON, as a list and a mapping: {error}") from error
        return self._app.amqp.as_task_v2(
            task,
            name,
            positional,
            named,
            # Celery's own rendering of the arguments walks through them in Python.
            argsrepr=repr(args)[:_REPR_SIZE],
            kwargsrepr=repr(named)[:_REPR_SIZE],
            origin=self._origin,
            **times,
        )

    def _publish(self, task: str, name: str, message: Any, queue: str, options: Mapping[str, Any]) -> Sent:
        try:
            link = self._link_to(queue)
        except BrokerError as error:
            # Up to here nothing was published.
            return Sent(task=task, outcome=Kind.REFUSED, reason=str(error))
        options = {"queue": self._app.amqp.queues[queue], "confirm_timeout": self._timeout_s, **options}
        try:
            returned = link.publish(self._send_message, name, message, **options)
        except amqp.exceptions.MessageNacked:
            self._idle.append(link)
            return Sent(task=task, outcome=Kind.REFUSED, reason="the broker answered nack")
        except BROKER_ERRORS as error:
            refused = isinstance(_cause(error), amqp.exceptions.ChannelError)
            return Sent(task=task, outcome=Kind.REFUSED if refused else Kind.UNKNOWN, reason=said(error))
        self._idle.append(link)
        if returned is not None:
            return Sent(task=task, outcome=Kind.REFUSED, reason=f"unroutable: no queue {queue!r}: {said(returned)}")
        return Sent(task=task, outcome=Kind.ACCEPTED)

    def _link_to(self, queue: str) -> "Link":
        """A connection on which the queue was seen to be there. Raises BrokerError."""
        try:
            link = self._link()
        except BrokerError as error:
            raise BrokerError(f"no connection: {error}") from error
        try:
            link.find(self._app.amqp.queues[queue])
        except BROKER_ERRORS as error:
            raise BrokerError(f"no queue {queue!r}: {said(error)}") from error
        return link

    def _link(self) -> "Link":
        """An idle connection that is alive, or a new one."""
        while self._idle:
            link = self._idle.pop()
            if link.alive():
                return link
            link.abandon()
        return Link.open(self._app, self._url, self._timeout_s)


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


def _check_names(**names: str) -> None:
    for what, name in names.items():
        try:
            size = len(name.encode())
        except (AttributeError, UnicodeEncodeError) as error:
            raise UsageError(f"{what}={name!r} is no text: {error}") from error
        if size > _SHORT_STRING:
            raise UsageError(f"{what}={name!r} has {size} bytes; AMQP has room for {_SHORT_STRING}.")


def _expectation(name: str, expect: Expect | None) -> dict[str, Json]:
    """What a journal line says of an expectation, once it is known to be JSON."""
    said = (expect or Expect()).to_json()
    try:
        encode(said)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"what is expected of {name} is not JSON: {error}; give a value that JSON has.") from error
    return said


def _due(now_s: float, countdown_s: float | None, eta: datetime | None) -> datetime | None:
    """When a task is due; None for at once."""
    if eta is None:
        return _moment(now_s, "countdown_s", countdown_s)
    if countdown_s is not None:
        raise UsageError(f"a task is due at eta={eta} or countdown_s={countdown_s!r} from now; give one of them.")
    if eta.tzinfo is None:
        raise UsageError(f"eta={eta} says no time zone, so it could be any hour; give one, such as UTC.")
    return eta.astimezone(UTC)


def _moment(now_s: float, what: str, after_s: float | None) -> datetime | None:
    """The time that is so many seconds from now; None if none are given."""
    if after_s is None:
        return None
    try:
        return datetime.fromtimestamp(now_s + after_s, UTC)
    except (TypeError, ValueError, OverflowError, OSError) as error:
        raise UsageError(f"{what}={after_s!r} leads to no point in time: {error}") from error


def _cause(error: BaseException) -> BaseException:
    """Kombu wraps the transport's error; the error itself says more."""
    return error.__cause__ if isinstance(error, OperationalError) and error.__cause__ else error


def said(error: BaseException) -> str:
    """An error of the broker or of the way to it, in one line with its kind."""
    cause = _cause(error)
    return f"{type(cause).__name__}: {cause}".rstrip(": ")
