"""The producer: sends tasks with confirms, and journals the intent before and the outcome after.

It publishes through a Celery app of its own that has no result backend: the first `delay()` of an ordinary app
opens the result database, and each further thread opens it again.
"""

import contextlib
import select
import time
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import amqp
import kombu
from celery import Celery
from kombu.exceptions import EncodeError, OperationalError

from harness.errors import UsageError
from harness.evidence.journal import Writer
from harness.evidence.records import Expect, Json, Kind

_REPR_SIZE = 1024
"""Characters of the arguments that a worker's log and events show, as in `Task.argsrepr_maxsize`."""


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
            broker_url: an AMQP URL, with the vhost.
            journal: where intents and outcomes go.
            timeout_s: the longest wait for each of connecting, declaring a queue, and a confirm.
        """
        self._journal = journal
        self._timeout_s = timeout_s
        self._app = Celery("harness.producer", broker=broker_url, set_as_current=False)
        # What the environment says of results (CELERY_RESULT_BACKEND) wins over the constructor, but not over this.
        self._app.backend_cls = "disabled"
        self._app.conf.update(task_serializer="json", accept_content=["json"])
        self._send_message = self._app.amqp.send_task_message
        self._url = broker_url
        self._idle: deque[_Link] = deque()

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

    def send(
        self,
        name: str,
        args: Sequence[Json] = (),
        kwargs: Mapping[str, Json] | None = None,
        *,
        expect: Expect | None = None,
        countdown_s: float | None = None,
        expires_s: float | None = None,
        queue: str = "celery",
        priority: int | None = None,
        task_id: str | None = None,
    ) -> Sent:
        """Send one task, once: nothing is tried again, so that the outcome is one of three.

        Writes `intended` (name, due time, what is expected), publishes, and writes the outcome. The task is due
        now, or `countdown_s` seconds from now.

        Args:
            name: the task's registered name.
            args: its positional arguments, JSON.
            kwargs: its keyword arguments, JSON.
            expect: what the audit shall demand; nothing beyond SUCCESS if not given.
            countdown_s: seconds that the worker holds the task back.
            expires_s: seconds after which it is not to be run any more.
            queue: where it is sent; the default is Celery's.
            priority: 0 to 255, for a queue that has priorities.
            task_id: its id; a new one if not given.

        Raises:
            UsageError: the arguments cannot be written as JSON. It is journaled as refused.
            JournalError: the intent or the outcome could not be written.
        """
        task = task_id or str(uuid.uuid4())
        intent: dict[str, Json] = {"name": name, **(expect or Expect()).to_json()}
        if countdown_s is not None:
            intent["due"] = time.time() + countdown_s
        self._journal.write(Kind.INTENDED, task, **intent)
        # What `Celery.send_task` does, without its second half: an AsyncResult, and settings that it looks up
        # for each task. Together they take as long as all the rest.
        message = self._app.amqp.as_task_v2(
            task,
            name,
            list(args),
            dict(kwargs or {}),
            countdown=countdown_s,
            expires=expires_s,
            # Celery's own rendering of the arguments walks through them in Python.
            argsrepr=repr(args)[:_REPR_SIZE],
            kwargsrepr=repr(kwargs or {})[:_REPR_SIZE],
        )
        options = {"priority": priority, "expiration": expires_s}
        try:
            sent = self._publish(
                task, name, message, queue, {key: value for key, value in options.items() if value is not None}
            )
        except EncodeError as error:
            self._journal.write(Kind.REFUSED, task, reason=str(error))
            raise UsageError(f"the arguments of {name} are not JSON: {error}") from error
        if sent.accepted:
            self._journal.write(Kind.ACCEPTED, task, confirmed=True)
        else:
            self._journal.write(sent.outcome, task, reason=sent.reason)
        return sent

    def _publish(self, task: str, name: str, message: Any, queue: str, options: Mapping[str, Any]) -> Sent:
        try:
            link = self._link()
        except (OSError, amqp.AMQPError, OperationalError) as error:
            # Not connected is not published.
            return Sent(task=task, outcome=Kind.REFUSED, reason=f"no connection: {_said(error)}")
        try:
            self._send_message(
                link.producer,
                name,
                message,
                queue=self._app.amqp.queues[queue],
                retry=False,
                confirm_timeout=self._timeout_s,
                **link.declaring(queue),
                **options,
            )
        except amqp.exceptions.MessageNacked:
            self._idle.append(link)
            return Sent(task=task, outcome=Kind.REFUSED, reason="the broker answered nack")
        except (OSError, amqp.AMQPError, OperationalError) as error:
            # The next confirm on this channel could be the answer to this message, so it is not used again.
            link.abandon()
            refused = isinstance(_cause(error), amqp.exceptions.ChannelError)
            return Sent(task=task, outcome=Kind.REFUSED if refused else Kind.UNKNOWN, reason=_said(error))
        except BaseException:
            link.abandon()
            raise
        self._idle.append(link)
        return Sent(task=task, outcome=Kind.ACCEPTED)

    def _link(self) -> "_Link":
        """An idle connection that is alive, or a new one."""
        while self._idle:
            link = self._idle.pop()
            if link.alive():
                return link
            link.abandon()
        return _Link.open(self._app, self._url, self._timeout_s)


@dataclass
class _Link:
    """One connection, in confirm mode, and Celery's producer on it."""

    connection: kombu.Connection
    producer: Any
    _declared: set[str] = field(default_factory=set)
    _poll: select.poll = field(default_factory=select.poll)

    @classmethod
    def open(cls, app: Celery, url: str, timeout_s: float) -> "_Link":
        options = {"confirm_publish": True, "read_timeout": timeout_s, "write_timeout": timeout_s}
        connection = kombu.Connection(url, connect_timeout=timeout_s, heartbeat=0, transport_options=options)
        try:
            connection.ensure_connection(max_retries=0)
            producer = app.amqp.Producer(connection, auto_declare=False)
            link = cls(connection, producer)
            link._poll.register(connection.connection.sock, select.POLLIN)
        except BaseException:
            connection.collect()
            raise
        return link

    def declaring(self, queue: str) -> dict[str, Any]:
        """The option that keeps a queue from being declared again: even where Kombu remembers, asking it is slow."""
        if queue in self._declared:
            return {"declare": ()}
        self._declared.add(queue)
        return {}

    def alive(self) -> bool:
        """Whether the broker has not closed the connection while it was idle.

        Nothing is expected on an idle connection: whatever there is to read is its end, or a notice that
        publishing is blocked, which the library keeps.
        """
        if not self._poll.poll(0):
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


def _cause(error: BaseException) -> BaseException:
    """Kombu wraps the transport's error; the error itself says more."""
    return error.__cause__ if isinstance(error, OperationalError) and error.__cause__ else error


def _said(error: BaseException) -> str:
    cause = _cause(error)
    return f"{type(cause).__name__}: {cause}".rstrip(": ")
