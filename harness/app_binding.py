"""A Celery app of this process, bound to a stack: what it sends goes to the stack's broker, and into its journal.

For the time of the binding, the app has other connections, another result backend and a few other settings. Nothing of
its own is changed: it is set aside, and put back at the end. Other apps of the process are left alone. The file is long
because whatever is set aside in an app is put back by the same class.
"""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import amqp
from celery import Celery
from celery.app.utils import find_app
from kombu import pools
from kombu.exceptions import EncodeError
from kombu.utils.url import parse_url

from harness.broker_connection import Written, before_confirm, cause_of, said
from harness.errors import UsageError
from harness.records.event import Kind
from harness.records.expectation import Expect
from harness.records.journal import Writer, encode
from harness.records.message import Message, has_one_result, is_transient, names_in, place_of
from harness.records.moment import Moment, Reach, go_on
from harness.records.values import Json

_BUSY_TIMEOUT_S = 60.0
"""The longest wait for a locked result file, as in the workers (`harness.inside.app_settings`)."""
_ASIDE = ("_local", "_backend_cache", "_pool", "amqp", "backend_cls")
"""The attributes of an app that hold its connections, its result backend and what it derived from its settings."""
_URLS = ("broker_url", "broker_read_url", "broker_write_url", "result_backend")
"""The settings that Celery takes from the environment first."""
_MARK = "_harness_binding"
_ABSENT = object()
_lock = threading.RLock()


@dataclass
class Sending:
    """A send by the harness itself: what is known of its tasks beyond their messages."""

    task: str
    """The id of the task; of a canvas, that of the task that has its result."""
    expectation: Mapping[str, Json]
    """What is expected of it, as members of its line in the journal."""
    by_name: Mapping[str, Mapping[str, Json]]
    """The same of every task of a canvas, by the task's name."""
    due_t: float | None = None
    """The time when the task was due, Unix time in seconds, if that was earlier than now."""
    told: dict[str, str] = field(default_factory=dict)
    """The tasks whose expectation is in the journal: their names by their ids."""
    outcomes: list[tuple[Kind, str | None]] = field(default_factory=list)
    """The outcome of each message that was sent, with its reason."""

    @classmethod
    def of(
        cls, task: str, signature: Any, expect: Expect | Mapping[str, Expect] | None, due_t: float | None
    ) -> "Sending":
        """Return what is known of a task or a signature before it is sent.

        Args:
            task: the id that it gets.
            signature: the task or the signature.
            expect: what is expected of the task that has its result, or of its tasks by their names.
            due_t: the time when it was due, if that was earlier than now.

        Raises:
            UsageError: the signature has no such task, or an expectation is not JSON.
        """
        if isinstance(expect, Mapping):
            names = set(names_in(signature))
            if unknown := sorted(set(expect) - names):
                raise UsageError(
                    f"`expect` names {unknown[0]}, and {signature!r} has no such task. It has: "
                    f"{', '.join(sorted(names)) or 'none'}."
                )
            return cls(task, {}, {name: expectation_of(name, one) for name, one in expect.items()}, due_t)
        if expect is not None and not has_one_result(signature):
            raise UsageError(
                f"{signature!r} has several results, and `expect` is for one: give it by the names of tasks, as in "
                'expect={"shop.pay": Expect(...)}; or leave it out, and each has to succeed.'
            )
        return cls(task, expectation_of(str(signature), expect), {}, due_t)

    def tell(self, task: str, name: str) -> Mapping[str, Json]:
        """Return what is expected of a task, the first time; empty if that is nothing or in the journal already."""
        own = self.expectation if task == self.task else {}
        said = own or self.by_name.get(name, {})
        if not said or task in self.told:
            return {}
        self.told[task] = name
        return said

    @property
    def untold(self) -> list[str]:
        """The tasks of which something is expected and that no message has announced, by name or id."""
        alone = [self.task] if self.expectation and self.task not in self.told else []
        return alone + sorted(name for name, said in self.by_name.items() if said and name not in self.told.values())


def expectation_of(name: str, expect: Expect | None) -> dict[str, Json]:
    """Return an expectation as members of a journal line. Raises UsageError if it is not JSON."""
    members = (expect or Expect()).to_json()
    try:
        encode(members)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"what is expected of {name} is not JSON: {error}; give a value that JSON has.") from error
    return members


_sending: ContextVar[Sending | None] = ContextVar("_sending", default=None)


@contextlib.contextmanager
def sending(what: Sending) -> Iterator[None]:
    """Let the journal know what is sent in here."""
    before = _sending.set(what)
    try:
        yield
    finally:
        _sending.reset(before)


def journal_sends(app: Any, journal: Writer, *, vhost: str | None = None, reach: Reach = go_on) -> None:
    """Make an app journal what it sends. Unlike signals, this leaves the other apps of this process alone.

    Args:
        app: the Celery app; its present `amqp` sends so from now on.
        journal: gets the intent of each task, and its outcome.
        vhost: what goes elsewhere, over a connection of the caller's own, is not journaled; None journals all.
        reach: is called before a task is published, before its confirm is awaited, and when it is accepted.
    """
    send = app.amqp.send_task_message

    def journaled(producer: Any, name: str, message: Any, *args: Any, **options: Any) -> Any:
        intent = Message.of(name, message.headers, message.body)
        if intent is None or (vhost is not None and producer.connection.virtual_host != vhost):
            return send(producer, name, message, *args, **options)
        mine = _sending.get()
        queue = options.get("queue")
        line = intent.to_json(queue if isinstance(queue, str) else place_of([queue], options.get("routing_key")))
        line |= _delivery(app, queue, options.get("delivery_mode"))
        if mine is not None:
            if mine.task == intent.task and mine.due_t is not None:
                line = {"due": mine.due_t} | line
            line |= mine.tell(intent.task, intent.name)
        journal.write(Kind.INTENDED, intent.task, **line)
        for step in intent.steps if mine is not None else ():
            if step.task is not None and mine is not None and (expected := mine.tell(step.task, step.name)):
                journal.write(Kind.EXPECTED, step.task, **expected)
        begun: list[bool] = []
        reach(Moment.SENDING, intent.task, intent.name)
        try:
            with _watched(producer, begun, lambda _: reach(Moment.UNCONFIRMED, intent.task, intent.name)):
                answer = send(producer, name, message, *args, **options)
        except Exception as error:
            outcome, reason = _outcome(error) if begun else Kind.REFUSED, said(error)
            journal.write(outcome, intent.task, reason=reason)
            if mine is not None:
                mine.outcomes.append((outcome, reason))
            raise
        journal.write(Kind.ACCEPTED, intent.task, confirmed=_confirms(producer))
        if mine is not None:
            mine.outcomes.append((Kind.ACCEPTED, None))
        reach(Moment.PUBLISHED, intent.task, intent.name)
        return answer

    app.amqp.send_task_message = journaled


def _delivery(app: Any, queue: Any, given: Any) -> dict[str, Json]:
    """Return the member of a line that says that the broker need not keep a message on disk; empty if it must.

    Args:
        app: the app that sends it.
        queue: its queue; a name, or None, decides nothing.
        given: the delivery mode that the caller asked for, or the task.
    """
    of_queue = getattr(getattr(queue, "exchange", None), "delivery_mode", None)
    return {"transient": True} if is_transient(given, of_queue, app.conf.task_default_delivery_mode) else {}


@contextlib.contextmanager
def _watched(producer: Any, begun: list[bool], written: Written) -> Iterator[None]:
    """Note in `begun` that a message may have been written: its producer had a connection, at some attempt.

    `written` is called when it certainly was, and nobody has waited for its confirm.
    """
    publish = getattr(producer, "_publish", None)
    if publish is None:
        begun.append(True)
        yield
        return

    def publish_when_connected(*args: Any, **options: Any) -> Any:
        # This connects, or raises.
        channel = producer.channel
        if hasattr(channel, "_basic_publish"):
            before_confirm(channel, written)
        begun.append(True)
        return publish(*args, **options)

    # The pool lends a producer to one thread at a time.
    producer._publish = publish_when_connected  # noqa: SLF001 - what is public says nothing of the single attempts.
    try:
        yield
    finally:
        del producer._publish  # noqa: SLF001 - the same.


def _outcome(error: Exception) -> Kind:
    """Return REFUSED if the broker certainly does not have the message, else UNKNOWN."""
    cause = cause_of(error)
    certain = (EncodeError, amqp.exceptions.MessageNacked, amqp.exceptions.ChannelError)
    return Kind.REFUSED if isinstance(cause, certain) else Kind.UNKNOWN


def _confirms(producer: Any) -> bool:
    options = getattr(getattr(producer, "connection", None), "transport_options", None) or {}
    return bool(options.get("confirm_publish"))


class AppBinding:
    """A binding of one app. As a context manager it may be entered repeatedly, also by several threads at once."""

    def __init__(
        self,
        app: Celery,
        broker_url: str,
        results_url: str | None,
        journal: Writer,
        *,
        timeout_s: float,
        reach: Reach = go_on,
    ) -> None:
        """Prepare the binding without touching the app.

        Args:
            app: the app.
            broker_url: an AMQP URL, with the vhost.
            results_url: the result backend as Celery takes it; None for no results.
            journal: gets what is sent.
            timeout_s: the longest wait for each answer of the broker, in seconds.
            reach: as for `journal_sends`.
        """
        self._app = app
        self._reach = reach
        self._urls = dict.fromkeys(_URLS, broker_url) | {"result_backend": results_url or "disabled"}
        is_file = self._urls["result_backend"].startswith("db+sqlite")
        self._engine_options = {"connect_args": {"timeout": _BUSY_TIMEOUT_S}} if is_file else {}
        self._vhost = parse_url(broker_url.partition(";")[0])["virtual_host"]
        self._journal = journal
        self._timeout_s = timeout_s
        self._depth = 0
        self._mine: dict[str, Any] = {}
        self._before: dict[str, Any] = {}
        self._settings: dict[str, Any] = {}
        self._conf: Any = None
        self._conf_class: Any = None

    def __enter__(self) -> Self:
        """Bind the app. Raises UsageError if its settings cannot be read, or if another stack has bound it."""
        with _lock:
            if self._depth == 0:
                self._bind()
            self._depth += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put the app's own back when the last one leaves; the connections stay for the next one."""
        with _lock:
            # After `close` there is nothing to undo.
            if self._depth:
                self._depth -= 1
                if self._depth == 0:
                    self._unbind()

    @property
    def is_bound(self) -> bool:
        """True if somebody is in it."""
        return self._depth > 0

    def close(self) -> None:
        """Put the app's own back, whoever is still in it, and close the connections."""
        with _lock:
            if self._depth:
                self._depth = 0
                self._unbind()
            made, pool = self._mine.get("amqp", _ABSENT), self._mine.get("_pool")
            self._mine = {}
        if made is not _ABSENT:
            # Celery's AMQP object listens to changes of the settings for as long as they live.
            observers = self._conf._observers  # noqa: SLF001 - there is no public way to stop listening.
            observers[:] = [one for one in observers if getattr(one, "__self__", None) is not made]
        if pool is not None:
            _forget(pool)
            pool.force_close_all()

    def _bind(self) -> None:
        app = self._app
        if vars(app).get(_MARK) is not None:
            raise UsageError(f"the app {app.main!r} is bound to another stack: leave that binding first.")
        self._conf = _settings_of(app)
        options = dict(self._conf.broker_transport_options or {})
        bounds = {"read_timeout": self._timeout_s, "write_timeout": self._timeout_s}
        self._settings = {
            **self._urls,
            "broker_use_ssl": False,
            # Without confirms, nobody would know what the broker took.
            "broker_transport_options": {**bounds, **options, "confirm_publish": True},
            # Test settings often run tasks in place, and then nothing is sent at all.
            "task_always_eager": False,
            "database_table_names": {},
            "database_table_schemas": {},
            "database_engine_options": self._engine_options,
            "database_engine_callback": None,
            # Otherwise the first send would wait for the result file, and not only the first look at a result.
            "database_create_tables_at_setup": False,
        }
        self._conf_class = type(self._conf)
        self._before = {name: vars(app).get(name, _ABSENT) for name in _ASIDE}
        fresh: dict[str, Any] = {
            "_local": threading.local(),
            "_backend_cache": None,
            "_pool": None,
            "backend_cls": None,
        }
        vars(app)[_MARK] = self
        try:
            self._conf.maps.insert(0, self._settings)
            object.__setattr__(self._conf, "__class__", _with_urls(self._conf_class, self._urls))
            _put(app, self._mine or {"amqp": _ABSENT, "_local": threading.local(), **fresh})
            if not self._mine:
                journal_sends(app, self._journal, vhost=self._vhost, reach=self._reach)
        except BaseException:
            self._unbind()
            self._mine = {}
            raise

    def _unbind(self) -> None:
        app = self._app
        self._mine = {name: vars(app).get(name, _ABSENT) for name in _ASIDE}
        _put(app, self._before)
        object.__setattr__(self._conf, "__class__", self._conf_class)
        # By identity: an app's own mapping may be equal.
        self._conf.maps[:] = [one for one in self._conf.maps if one is not self._settings]
        vars(app).pop(_MARK, None)


def _forget(pool: Any) -> None:
    """Make Kombu forget a pool of connections, so that nobody gets it who connects to that broker later."""
    for group in (pools.producers, pools.connections):
        # A publish adds options to the connection that is the key, so that the pool is not found under it any more.
        for key, found in list(group.items()):
            if pool in (found, getattr(found, "connections", None)):
                dict.__delitem__(group, key)


def app_of(which: Any, folder: Path) -> Celery:
    """Return the Celery app that is meant.

    Args:
        which: the app itself, or what `celery -A` takes, which is imported here.
        folder: where it is imported from.

    Raises:
        UsageError: it is no Celery app, or cannot be imported.
    """
    if isinstance(which, str):
        which = _imported(which, folder)
    # `celery.current_app` stands for another object.
    app = which._get_current_object() if hasattr(which, "_get_current_object") else which  # noqa: SLF001
    if not isinstance(app, Celery):
        raise UsageError(f"{app!r} is no Celery app: give the app itself, or what `celery -A` takes.")
    return app


def _imported(name: str, folder: Path) -> Any:
    sys.path.insert(0, str(folder))
    try:
        return find_app(name)
    except Exception as error:
        raise UsageError(
            f"{name} cannot be imported in this process: {type(error).__name__}: {error}. Install here what it needs; "
            "the workers have an image of their own."
        ) from error
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder))


def _settings_of(app: Celery) -> Any:
    """Return the app's settings, read by now. Raises UsageError."""
    try:
        _ = app.conf.task_always_eager
    except Exception as error:
        raise UsageError(
            f"the settings of the app {app.main!r} cannot be read: {type(error).__name__}: {error}"
        ) from error
    return app.conf


def _with_urls(base: type, urls: Mapping[str, str]) -> type:
    """Return a class of settings that takes these URLs, whatever the environment says."""
    return type(base.__name__, (base,), {name: property(_answering(url)) for name, url in urls.items()})


def _answering(url: str) -> Callable[[Any], str]:
    return lambda _settings: url


def _put(app: Celery, attributes: Mapping[str, Any]) -> None:
    """Set an app's own attributes, and remove those that are to be absent."""
    for name, value in attributes.items():
        if value is _ABSENT:
            vars(app).pop(name, None)
        else:
            vars(app)[name] = value
