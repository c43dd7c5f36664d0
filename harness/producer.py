"""The producer: sends tasks with confirms, and journals the intent before and the outcome after.

A task that is named goes through the producer's own Celery app, which has no result backend: the first `delay()` of an
ordinary app opens the result database, and each further thread opens it again. A task or a signature goes through the
app that it belongs to, which is bound to the broker for that long. The file is long because a name, a task and a canvas
are sent by one class, with one journal.
"""

import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import amqp
import kombu
from celery import Celery
from celery.utils.nodenames import anon_nodename
from kombu.exceptions import EncodeError
from kombu.serialization import dumps

from harness.app_binding import AppBinding, Sending, app_of, expectation_of, sending
from harness.broker_connection import BROKER_ERRORS, Link, cause_of, said
from harness.errors import BrokerError, UsageError
from harness.records.event import Kind
from harness.records.expectation import Expect
from harness.records.journal import Writer
from harness.records.message import DEFAULT_QUEUE
from harness.records.moment import Moment, Reach, go_on
from harness.records.route import Route, Routes
from harness.records.values import Json

_REPR_SIZE = 1024
"""The most characters of the arguments in a worker's log and events, as in `Task.argsrepr_maxsize`."""
_SHORT_STRING = 255
"""The most bytes that AMQP allows for the name of a queue and in a message's properties."""
_PRIORITIES = range(256)


@dataclass(frozen=True, kw_only=True)
class Sent:
    """The outcome of one send of a task."""

    task: str
    """The task's id; of a chain and of a chord that of the last task, of a group its own."""
    outcome: Kind
    """ACCEPTED (the broker confirmed it), REFUSED (it certainly does not have it) or UNKNOWN (it may have it)."""
    reason: str | None = None
    """The reason for the outcome; None if the task was accepted."""

    @property
    def accepted(self) -> bool:
        """True if the broker confirmed the task."""
        return self.outcome is Kind.ACCEPTED


class Producer:
    """Sends tasks. Threads and greenlets may share one; each send in flight has its own connection."""

    def __init__(
        self,
        broker_url: str,
        journal: Writer,
        *,
        results_url: str | None = None,
        timeout_s: float = 5.0,
        reach: Reach = go_on,
    ) -> None:
        """Create the producer; it connects at the first `send`.

        Args:
            broker_url: an AMQP URL, with the vhost; for a cluster the URLs of its nodes, separated by semicolons.
            journal: gets intents and outcomes.
            results_url: the result backend of an app that is bound, as Celery takes it; None for none.
            timeout_s: the longest wait for each of connecting to a node, declaring a queue, and a confirm, in seconds.
            reach: is called before a task is published, before its confirm is awaited, and when it is accepted.
        """
        self._journal = journal
        self._reach = reach
        self._timeout_s = timeout_s
        self._app = Celery("harness.producer", broker=broker_url, set_as_current=False)
        # The environment's setting for results (CELERY_RESULT_BACKEND) overrides the constructor, but not this.
        self._app.backend_cls = "disabled"
        self._app.conf.update(task_serializer="json", accept_content=["json"])
        self._send_message = self._app.amqp.send_task_message
        self._url = broker_url
        self._results_url = results_url
        self.routes = Routes()
        """The app's routes, as the workers tell them."""
        self.serializer: str | None = None
        """The serializer of what is sent by name; None for JSON."""
        self._queues: dict[Route, kombu.Queue | None] = {}
        self._bindings: dict[int, AppBinding] = {}
        self._origin = anon_nodename()
        self._idle: deque[Link] = deque()
        self._due_t: float | None = None

    def __enter__(self) -> Self:
        """Return the producer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every idle connection."""
        self.close()

    def close(self) -> None:
        """Close every idle connection, and end every binding. A later `send` connects again."""
        while self._bindings:
            self._bindings.popitem()[1].close()
        while self._idle:
            self._idle.pop().close()

    @contextmanager
    def bound(self, app: Celery) -> Iterator[Celery]:
        """Bind an app of this process to the broker, the results and the journal, and undo it afterwards.

        In it, what is sent through the app is journaled as what `send` sends, and results can be waited for.

        Raises:
            UsageError: its settings cannot be read, or it is bound to another stack.
        """
        binding = self._binding(app)
        try:
            with binding:
                yield app
        finally:
            if not binding.is_bound:
                binding.close()

    def _binding(self, app: Celery) -> AppBinding:
        if id(app) not in self._bindings:
            made = AppBinding(
                app, self._url, self._results_url, self._journal, timeout_s=self._timeout_s, reach=self._reach
            )
            # Another thread may have made one meanwhile.
            self._bindings.setdefault(id(app), made)
        return self._bindings[id(app)]

    def at(self, due_t: float) -> "Producer":
        """Return a view of this producer, for tasks that were due at `due_t` (Unix time, seconds) and are sent now.

        A load test counts latency from that time. Counted from the time of the send, the latency would not include a
        delay of the sender.
        """
        # `copy.copy` is slower: each call looks up how to copy, which takes a thirtieth of a whole send.
        view = object.__new__(type(self))
        vars(view).update(vars(self), _due_t=due_t)
        return view

    def send(
        self,
        name: Any,
        args: Sequence[Json] = (),
        kwargs: Mapping[str, Json] | None = None,
        *,
        expect: Expect | Mapping[str, Expect] | None = None,
        countdown_s: float | None = None,
        eta: datetime | None = None,
        expires_s: float | None = None,
        queue: str | None = None,
        priority: int | None = None,
        task_id: str | None = None,
    ) -> Sent:
        """Send one task once, without a retry, or a signature as Celery sends it. For the outcome see `Sent`.

        Writes `intended` (name, due and expiry time, expectation), publishes, and writes the outcome. The task is due
        now (or at the time given to `at`), `countdown_s` seconds from now, or at `eta`. An existing queue is used
        unchanged; a missing one is declared as Celery does, the first time that a connection uses it. If it is deleted
        later, tasks for it are refused.

        A task or a signature goes through the app that it belongs to, with its routes, its serializer and its retries
        of a publish. Each message that it sends is journaled.

        Args:
            name: the task's registered name; or a task of an app, or a signature, canvas included.
            args: its positional arguments, as JSON values; further ones for a signature that has some.
            kwargs: its keyword arguments, as JSON values.
            expect: the outcome that the audit demands; by default only the state SUCCESS. For a canvas it is that of
                the task that has its result, which is the last of a chain and the body of a chord; or, by the names of
                tasks, that of every task in it with this name.
            countdown_s: seconds that the worker holds the task back.
            eta: the time until which the worker holds it back, with a time zone; not together with `countdown_s`.
            expires_s: seconds from now after which it must not run any more.
            queue: its queue; by default, the app's routes decide, as the workers tell them.
            priority: 0 to 255, for a queue that has priorities.
            task_id: its id; a new one by default.

        Raises:
            UsageError: no message can be made of these arguments. Nothing was journaled, and nothing was sent.
            JournalError: the intent or the outcome could not be written.
        """
        task = task_id or str(uuid.uuid4())
        _check_names(task_id=task, **_given({"queue": queue}))
        _check_priority(priority)
        times = _Times.of(time.time(), countdown_s, eta, expires_s)
        if hasattr(name, "apply_async"):
            given = {"args": tuple(args), "kwargs": dict(kwargs or {}), "queue": queue, "priority": priority}
            return self._apply(name, task, expect, {**given, "eta": times.eta, "expires": expires_s})
        _check_names(name=name)
        if isinstance(expect, Mapping):
            raise UsageError(f"{name} is one task: give `expect` as one Expect.")
        route = self.routes.of(name) if queue is None else Route.to_queue(queue)
        message = self._message(task, name, args, kwargs, eta=times.eta, expires=times.expires)
        given_priority = route.priority if priority is None else priority
        options = _given({"priority": given_priority, "expiration": expires_s, "serializer": self.serializer})
        self._intend(task, name, expect, times, route)
        self._reach(Moment.SENDING, task, name)
        sent = self._publish(task, name, message, route, options)
        told: Json = {"confirmed": True} if sent.accepted else {"reason": sent.reason}
        self._journal.write(sent.outcome, task, **told)
        if sent.accepted:
            self._reach(Moment.PUBLISHED, task, name)
        return sent

    def _intend(self, task: str, name: str, expect: Expect | None, times: "_Times", route: Route) -> None:
        """Write the intent to send a task by its name. Raises UsageError if the expectation is not JSON."""
        about = {
            "due": self._due_t if times.due is None else times.due.timestamp(),
            "expires": times.expires and times.expires.timestamp(),
            "queue": None if route.place == DEFAULT_QUEUE else route.place,
        }
        self._journal.write(Kind.INTENDED, task, name=name, **expectation_of(name, expect), **_given(about))

    def _message(
        self, task: str, name: str, args: Sequence[Json], kwargs: Mapping[str, Json] | None, **times: datetime | None
    ) -> Any:
        """Return the message that `Celery.send_task` would publish.

        `send_task` itself also makes an AsyncResult and looks up settings for each task. Together, these two take as
        long as the rest of a send.
        """
        try:
            positional, named = list(args), dict(kwargs or {})
            # They are encoded again when they are published. That is too late for this check, because the intent has
            # been journaled by then; and the receivers of Celery's signals must get them unencoded.
            dumps((positional, named), serializer="json")
        except (TypeError, ValueError, EncodeError) as error:
            raise UsageError(f"the arguments of {name} are not JSON, as a list and a mapping: {error}") from error
        return self._app.amqp.as_task_v2(
            task,
            name,
            positional,
            named,
            # Celery's own rendering of the arguments is slower: it walks through them in Python.
            argsrepr=repr(args)[:_REPR_SIZE],
            kwargsrepr=repr(named)[:_REPR_SIZE],
            origin=self._origin,
            **times,
        )

    def _apply(
        self, signature: Any, task: str, expect: Expect | Mapping[str, Expect] | None, given: Mapping[str, Any]
    ) -> Sent:
        """Send a task or a signature through its own app, and return the outcome of its messages together.

        Args:
            signature: the task or the signature.
            task: the id that it gets.
            expect: the outcome that the audit demands of it, or of its tasks by their names.
            given: the arguments of its `apply_async`.
        """
        what = Sending.of(task, signature, expect, self._due_t)
        app = app_of(signature.app, Path())
        with self._binding(app), sending(what):
            try:
                result = signature.apply_async(task_id=task, **_given(given))
            except (TypeError, ValueError, EncodeError, *BROKER_ERRORS) as error:
                if not what.outcomes:
                    raise UsageError(f"{signature!r} cannot be sent: {said(error)}") from error
                result = None
        if not what.outcomes:
            raise UsageError(f"{signature!r} has sent nothing.")
        if result is not None and what.untold:
            raise UsageError(
                f"{signature!r} was sent, but no message has the id of {', '.join(what.untold)}: nothing can be "
                "expected of it."
            )
        worst = next((one for one in what.outcomes if one[0] is not Kind.ACCEPTED), what.outcomes[-1])
        return Sent(task=getattr(result, "id", task), outcome=worst[0], reason=worst[1])

    def _publish(self, task: str, name: str, message: Any, route: Route, options: Mapping[str, Any]) -> Sent:
        """Publish a message, and return the outcome. A producer that publishes in another way overrides this."""
        try:
            link = self._link_to(route)
        except BrokerError as error:
            # Nothing was published yet.
            return Sent(task=task, outcome=Kind.REFUSED, reason=str(error))
        options = {**self._destination(route), "confirm_timeout": self._timeout_s, **options}
        try:
            returned = link.publish(self._send_message, name, message, **options)
        except amqp.exceptions.MessageNacked:
            self._idle.append(link)
            return Sent(task=task, outcome=Kind.REFUSED, reason="the broker answered nack")
        except BROKER_ERRORS as error:
            is_refused = isinstance(cause_of(error), amqp.exceptions.ChannelError)
            return Sent(task=task, outcome=Kind.REFUSED if is_refused else Kind.UNKNOWN, reason=said(error))
        self._idle.append(link)
        if returned is not None:
            reason = f"unroutable: no queue {route.place!r}: {said(returned)}"
            return Sent(task=task, outcome=Kind.REFUSED, reason=reason)
        return Sent(task=task, outcome=Kind.ACCEPTED)

    def _queue(self, route: Route) -> Any:
        """Return the queue of a route as Celery declares it; None if it has none."""
        if route not in self._queues:
            queue = None
            if route.queue is not None:
                if route.exchange or route.arguments:
                    exchange = kombu.Exchange(route.exchange or route.queue, type=route.exchange_type)
                    given = {"routing_key": route.routing_key, "queue_arguments": dict(route.arguments) or None}
                    queue = kombu.Queue(route.queue, exchange, **given)
                else:
                    queue = self._app.amqp.queues[route.queue]
            self._queues[route] = queue
        return self._queues[route]

    def _destination(self, route: Route) -> dict[str, Any]:
        """Return the options of a publish that lead a message along a route."""
        by_exchange = {"exchange": route.exchange, "routing_key": route.routing_key} if route.exchange else {}
        return {"queue": self._queue(route), "exchange_type": route.exchange_type, **by_exchange}

    def _link_to(self, route: Route) -> Link:
        """Return a connection on which the queue is known to exist. Raises BrokerError."""
        try:
            link = self._link()
        except BrokerError as error:
            raise BrokerError(f"no connection: {error}") from error
        queue = self._queue(route)
        if queue is None:
            return link
        try:
            link.find(queue)
        except BROKER_ERRORS as error:
            raise BrokerError(f"no queue {route.queue!r}: {said(error)}") from error
        return link

    def _link(self) -> Link:
        """Return an idle connection that is alive, or a new one. Raises BrokerError."""
        while self._idle:
            link = self._idle.pop()
            if link.alive():
                return link
            link.abandon()
        return Link.open(self._app, self._url, self._timeout_s, written=self._written)

    def _written(self, message: Any) -> None:
        self._reach(Moment.UNCONFIRMED, message.headers["id"], message.headers["task"])


def _check_names(**names: str) -> None:
    for what, name in names.items():
        try:
            size = len(name.encode())
        except (AttributeError, UnicodeEncodeError) as error:
            raise UsageError(f"{what}={name!r} is no text: {error}") from error
        if size > _SHORT_STRING:
            raise UsageError(f"{what}={name!r} has {size} bytes; AMQP has room for {_SHORT_STRING}.")


def _check_priority(priority: int | None) -> None:
    if priority is not None and not (isinstance(priority, int) and priority in _PRIORITIES):
        raise UsageError(f"priority={priority!r} is none; give a whole number from 0 to 255.")


def _given(members: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members that are not None."""
    return {name: value for name, value in members.items() if value is not None}


class _Times(NamedTuple):
    """The times of a task that is sent."""

    due: datetime | None
    """The time at which it is due; None for now."""
    eta: datetime | None
    """The time until which the worker holds it back; None if it does not."""
    expires: datetime | None
    """The time after which it must not run; None if there is none."""

    @classmethod
    def of(cls, now_s: float, countdown_s: float | None, eta: datetime | None, expires_s: float | None) -> "_Times":
        """Return the times that the arguments of `Producer.send` ask for. Raises UsageError."""
        due = _due(now_s, countdown_s, eta)
        held = due if countdown_s or eta else None
        return cls(due=due, eta=held, expires=_moment(now_s, "expires_s", expires_s))


def _due(now_s: float, countdown_s: float | None, eta: datetime | None) -> datetime | None:
    """Return the time at which a task is due; None if it is due now. Raises UsageError."""
    if eta is None:
        return _moment(now_s, "countdown_s", countdown_s)
    if countdown_s is not None:
        raise UsageError(f"a task is due at eta={eta} or countdown_s={countdown_s!r} from now; give one of them.")
    if eta.tzinfo is None:
        raise UsageError(f"eta={eta} says no time zone, so it could be any hour; give one, such as UTC.")
    return eta.astimezone(UTC)


def _moment(now_s: float, what: str, after_s: float | None) -> datetime | None:
    """Return the time `after_s` seconds from now; None if `after_s` is None. Raises UsageError."""
    if after_s is None:
        return None
    try:
        return datetime.fromtimestamp(now_s + after_s, UTC)
    except (TypeError, ValueError, OverflowError, OSError) as error:
        raise UsageError(f"{what}={after_s!r} leads to no point in time: {error}") from error
