"""The agent: connects the journal to a Celery process, then becomes `celery`.

``python -m harness.inside.agent -A app worker --concurrency=2`` does what ``celery -A app worker
--concurrency=2`` does, for any app, without a change to it, with Celery 5.2 to 5.7. In a container
`harness.inside.start` runs it. It reads these variables; the first two are required:

    HARNESS_JOURNAL         the folder of the journal files
    HARNESS_NODE            the name of this node
    HARNESS_SETTINGS        Celery settings that override the app's own, a JSON object
    HARNESS_CLOCK_OFFSET_S  seconds that this container's clock is ahead; the journal is stamped with the real time
    HARNESS_CLOCK_FILE      the file with the offset of this container's clock, if it can be moved while it runs
    HARNESS_CLOCK_SPEED     the speed of this container's clock as a multiple of real time
    HARNESS_RUN             the run folder, where a worker's beat keeps its schedule unless the app sets the path

Every process of the worker, including the pool's children, writes its own journal file. `harness.records.event` has the
kinds of the lines and their members. A task that another task or beat sends gets `intended` and `accepted` here, as a
producer writes them. The file is long because all signals of Celery that the journal needs are connected here.
"""

import contextlib
import logging
import math
import os
import platform
import resource
import runpy
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from signal import SIGKILL
from typing import Any

import celery
import kombu
from billiard.popen_fork import Popen
from celery import Celery, signals
from celery.app.amqp import AMQP
from celery.backends.base import Backend
from celery.worker.consumer import Consumer

from harness.errors import JournalError
from harness.inside.app_results import keep_table_names, returned, stores_json, with_driver
from harness.inside.app_routes import routes
from harness.inside.app_settings import settings_in, tune_sqlite, use_settings, without_tls
from harness.inside.beat_watch import BeatWatch, in_short
from harness.inside.breakpoints import Breakpoints
from harness.inside.image_check import installed
from harness.inside.kernel_kills import KernelKills
from harness.inside.live_settings import confirms, options_of, plain, settings_of
from harness.inside.missing_module import AppImport
from harness.inside.node_clock import ClockWatch, real_time
from harness.inside.open_transactions import OpenTransactions
from harness.records.event import LATE_WORD_S, UNWOUND, Kind
from harness.records.journal import Writer
from harness.records.message import Message, consumer_tag, is_transient, place_of, task_of
from harness.records.moment import Moment
from harness.records.values import Json

_logger = logging.getLogger(__name__)
_TRACEBACKS = 3
"""The number of tracebacks that a process writes per class of exception: many failures share a few causes."""
_LONGEST_TRACEBACK = 4_000
"""The most characters of a traceback; a longer one is cut to its end, where the error is."""
_RUNS_OF_SAMPLE = 50
"""The number of executions from one look at the memory of the process to the next. A smaller number would make the
journal larger; with a larger one, more tasks would be needed before a growth can be told."""


class Agent:
    """Journals the signals of Celery. There is one per process; pool children inherit it by fork."""

    def __init__(self, journal: Writer, breakpoints: Breakpoints) -> None:
        """Create the agent without connecting anything; see `connect`."""
        self._journal = journal
        self._breakpoints = breakpoints
        self._running: set[str] = set()
        """The tasks whose execution has begun in this process and has not ended."""
        self._confirms = False
        self._is_worker = False
        self._app: Celery | None = None
        """The app of the worker or of beat; None before it is set up."""
        self._beat = BeatWatch(
            journal, speed=float(os.environ.get("HARNESS_CLOCK_SPEED", "1")), reach=breakpoints.reach
        )
        self._transactions = OpenTransactions(self._on_transaction)
        self._peak_kb = 0
        self._ran = 0
        """The number of executions that have ended in this process."""
        self._stored_s: dict[str, float] = {}
        """Seconds spent so far on storing results, by running task."""
        self._stored_at: dict[str, float] = {}
        """When the last result of each running task was stored, by `time.monotonic`."""
        self._tracebacks: dict[str, str] = {}
        """The traceback of each running task that has failed."""
        self._told: Counter[str] = Counter()
        """The number of tracebacks that this process has written, by class of exception."""

    def connect(self) -> None:
        """Connect every signal, with strong references: the agent lives as long as the process."""
        for signal, receiver in (
            (signals.worker_ready, self._on_ready),
            (signals.worker_shutdown, self._on_down),
            (signals.beat_init, self._on_beat),
            (signals.celeryd_after_setup, self._on_setup),
            (signals.task_received, self._on_received),
            (signals.task_prerun, self._on_started),
            (signals.task_postrun, self._on_finished),
            (signals.task_failure, self._on_failure),
            (signals.task_retry, self._on_retried),
            (signals.task_revoked, self._on_revoked),
            (signals.task_rejected, self._on_rejected),
            (signals.task_unknown, self._on_unknown),
            (signals.before_task_publish, self._on_publish),
            (signals.after_task_publish, self._on_published),
        ):
            signal.connect(receiver, weak=False)

    def time_stores(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """Time every backend's `store_result`: Celery has no signal between a task's end and its row."""
        store_result = Backend.store_result

        def timed_store_result(backend: Backend, task_id: str, *args: Any, **options: Any) -> Any:
            began = clock()
            # A store that fails records no time: the audit takes a time for a row that was written.
            stored = store_result(backend, task_id, *args, **options)
            if task_id in self._running:
                self._stored_s[task_id] = self._stored_s.get(task_id, 0.0) + clock() - began
                self._stored_at[task_id] = time.monotonic()
            return stored

        Backend.store_result = timed_store_result

    def watch_children(self) -> None:
        """Journal the exit of each child process: the death of a pool process may send no signal of Celery's."""
        poll, kills = Popen.poll, KernelKills()

        def watched_poll(child: Any, *args: Any, **options: Any) -> Any:
            was_there = child.returncode is None
            code = poll(child, *args, **options)
            if was_there and code is not None:
                said: dict[str, Json] = {"out_of_memory": True} if code == -SIGKILL and kills.is_more() else {}
                self._say_aside(Kind.EXITED, child=child.pid, code=code, **said)
            return code

        Popen.poll = watched_poll

    def watch_errbacks(self) -> None:
        """Journal the errbacks that are called for a failed task: Celery runs some in place and sends nothing."""
        call = Backend._call_task_errbacks  # noqa: SLF001 - nothing public is called for one that runs in place.

        def watched_call(backend: Backend, request: Any, *args: Any, **options: Any) -> Any:
            names = [str(errback.get("task")) for errback in request.errbacks]
            self._say_aside(Kind.ERRBACK, request.id, names=names)
            return call(backend, request, *args, **options)

        Backend._call_task_errbacks = watched_call  # noqa: SLF001 - the same.

    def _say_aside(self, kind: Kind, task: str | None = None, **data: Json) -> None:
        """Write a line from within Celery's own work. A JournalError is only logged."""
        try:
            self._journal.write(kind, task, **data)
        except JournalError:
            _logger.exception("the journal cannot say %r", kind.value)

    def watch_transactions(self) -> None:
        """Journal the tasks that are sent in a transaction of the app's database, when it ends."""
        self._transactions.connect()

    def _on_transaction(self, task: str, was_rolled_back: bool) -> None:  # noqa: FBT001 - a callback's own arguments.
        said: dict[str, Json] = {"rolled_back": True} if was_rolled_back else {}
        self._say_aside(Kind.COMMITTED, task, **said)

    def watch_queues(self, node: str) -> None:
        """Give a worker's consumers tags that name its node, and journal the queues again when they are changed."""
        task_consumer = AMQP.TaskConsumer

        def tagged_task_consumer(amqp: AMQP, *args: Any, **options: Any) -> Any:
            return task_consumer(amqp, *args, **({"tag_prefix": consumer_tag(node)} | options))

        AMQP.TaskConsumer = tagged_task_consumer
        for name in ("add_task_queue", "cancel_task_queue"):
            setattr(Consumer, name, self._changing_queues(getattr(Consumer, name)))

    def _changing_queues(self, change: Callable[..., Any]) -> Callable[..., Any]:
        def changed(consumer: Consumer, *args: Any, **options: Any) -> Any:
            done = change(consumer, *args, **options)
            self._on_ready(consumer)
            return done

        return changed

    def watch_decoding(self) -> None:
        """Journal the messages that the worker discards because it cannot decode them: Celery only logs them."""
        on_decode_error = Consumer.on_decode_error

        def watched_on_decode_error(consumer: Consumer, message: Any, exc: BaseException) -> Any:
            self._discard(message, exc)
            return on_decode_error(consumer, message, exc)

        Consumer.on_decode_error = watched_on_decode_error

    def watch_connection(self) -> None:
        """Journal that the worker notices the loss of its connection, and that it consumes again.

        An error that closes the channel alone ends the worker, unless `broker_channel_error_retry` is set.
        """
        on_lost, on_ready = Consumer.on_connection_error_after_connected, Consumer.on_ready
        start = Consumer.start
        is_lost = False

        def watched_start(consumer: Consumer, *args: Any, **options: Any) -> Any:
            try:
                return start(consumer, *args, **options)
            except getattr(consumer, "channel_errors", ()) as error:
                self._say_aside(Kind.DISCONNECTED, reason=in_short(error))
                raise

        def watched_on_lost(consumer: Consumer, exc: BaseException, *args: Any, **options: Any) -> Any:
            nonlocal is_lost
            is_lost = True
            self._say_aside(Kind.DISCONNECTED, reason=in_short(exc))
            return on_lost(consumer, exc, *args, **options)

        def watched_on_ready(consumer: Consumer, *args: Any, **options: Any) -> Any:
            nonlocal is_lost
            if is_lost:
                is_lost = False
                self._say_aside(Kind.RECONNECTED)
            return on_ready(consumer, *args, **options)

        Consumer.on_connection_error_after_connected = watched_on_lost
        Consumer.on_ready = watched_on_ready
        Consumer.start = watched_start

    def watch_beat(self, schedule_file: Path | None) -> None:
        """Watch how beat begins, also the beat inside a worker. Must be called before the app is imported."""
        self._beat.prepare(schedule_file)

    def up(self, argv: list[str]) -> None:
        """Journal that the process has started."""
        versions = {"python": platform.python_version(), "celery": celery.__version__, "kombu": kombu.__version__}
        if sqlalchemy := installed("sqlalchemy"):
            versions["sqlalchemy"] = sqlalchemy
        self._journal.write(Kind.UP, argv=argv, versions=versions)

    # Each receiver takes the arguments that Celery sends with its signal.

    def _on_setup(self, instance: Any, **_: Any) -> None:
        self._confirms = confirms(instance.app)
        self._is_worker = True
        self._app = instance.app
        self._journal.write(Kind.SETTINGS, **settings_of(instance))
        for options in options_of(instance.app):
            self._journal.write(Kind.OPTIONS, **options)

    def _on_beat(self, sender: Any, **_: Any) -> None:
        self._confirms = confirms(sender.app)
        self._app = sender.app
        self._beat.begin(sender, confirm_publish=self._confirms, says_ready=not self._is_worker)

    def _on_ready(self, sender: Any = None, **_: Any) -> None:
        app = getattr(sender, "app", None)
        queues = (
            {} if app is None else {name: _queue(app, queue) for name, queue in app.amqp.queues.consume_from.items()}
        )
        said = {} if app is None else {**_heartbeat(sender), **routes(app)}
        self._journal.write(Kind.READY, queues=queues, **said)

    def _on_down(self, **_: Any) -> None:
        self._journal.write(Kind.DOWN)

    def _on_received(self, request: Any, **_: Any) -> None:
        said: dict[str, Json] = {"name": request.name, "redelivered": _redelivered(request.delivery_info)}
        if request.eta is not None:
            said["eta"] = request.eta.timestamp()
        self._journal.write(Kind.RECEIVED, request.id, **said)
        self._breakpoints.reach(Moment.RECEIVED, request.id, request.name)

    def _on_started(self, task_id: str, task: Any, **_: Any) -> None:
        request = task.request
        self._running.add(task_id)
        if request.is_eager:
            # A task that another one calls in its own process is a part of that one: it was never sent.
            return
        self._journal.write(
            Kind.STARTED,
            task_id,
            name=task.name,
            retries=request.retries,
            redelivered=_redelivered(request.delivery_info),
        )
        self._breakpoints.start(task_id, task)

    def _on_finished(self, task_id: str, task: Any, state: str | None, retval: Any, **_: Any) -> None:
        self._running.discard(task_id)
        stored_s = self._stored_s.pop(task_id, None)
        since_store_s = time.monotonic() - self._stored_at.pop(task_id, math.inf)
        if task.request.is_eager:
            return
        said: dict[str, Json] = {"state": state or UNWOUND}
        traceback = self._tracebacks.pop(task_id, None)
        if isinstance(retval, BaseException):
            said["error"] = in_short(retval)
            if traceback and self._told[type(retval).__name__] < _TRACEBACKS:
                self._told[type(retval).__name__] += 1
                said["traceback"] = traceback
        if task.ignore_result or task.request.ignore_result:
            said["ignored"] = True
        if stored_s is not None:
            said["store_s"] = round(stored_s, 6)
            if since_store_s >= LATE_WORD_S:
                said["since_store_s"] = round(since_store_s, 6)
            if state == "SUCCESS" and not stores_json(task.backend):
                said |= returned(retval)
        peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if peak_kb > self._peak_kb:
            self._peak_kb = said["peak_kb"] = peak_kb
        self._journal.write(Kind.FINISHED, task_id, **said, **self._memory())

    def _memory(self) -> dict[str, Json]:
        """Return the resident memory of this process and how much it has run, now and then."""
        self._ran += 1
        if self._ran % _RUNS_OF_SAMPLE:
            return {}
        # Only Linux has that file.
        with contextlib.suppress(OSError):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            return {"rss_kb": pages * resource.getpagesize() // 1024, "ran": self._ran}
        return {}

    def _on_failure(self, task_id: str, exception: BaseException, einfo: Any = None, **_: Any) -> None:
        # Inside an execution, `finished` follows with the same information. Outside of one, the parent reports
        # for a child that has exited: WorkerLostError, TimeLimitExceeded.
        if task_id in self._running:
            self._tracebacks[task_id] = str(getattr(einfo, "traceback", ""))[-_LONGEST_TRACEBACK:]
        else:
            self._journal.write(Kind.FINISHED, task_id, state="FAILURE", error=in_short(exception), outside=True)

    def _on_retried(self, request: Any, reason: Any, **_: Any) -> None:
        self._journal.write(Kind.RETRIED, request.id, reason=str(reason))

    def _on_revoked(self, *, request: Any, terminated: bool, signum: Any, expired: bool, **_: Any) -> None:
        reason = "expired" if expired else f"terminated by signal {signum}" if terminated else "revoked"
        self._journal.write(Kind.REVOKED, request.id, reason=reason)

    def _on_rejected(self, message: Any, exc: BaseException | None, **_: Any) -> None:
        self._discard(message, exc)

    def _discard(self, message: Any, error: BaseException | None) -> None:
        """Journal that a worker has discarded a message."""
        # A body that cannot be decoded is not searched, but Celery names the task in two other places.
        task = (message.headers or {}).get("id") or (message.properties or {}).get("correlation_id")
        self._say_aside(
            Kind.DISCARDED,
            task if isinstance(task, str) else None,
            reason=in_short(error) if error else "a message that is no task",
            content_type=str(message.content_type),
        )

    def _on_unknown(self, id: str, exc: BaseException, **_: Any) -> None:  # noqa: A002 - the signal's own name for it.
        self._journal.write(Kind.DISCARDED, id, reason=in_short(exc))

    def _on_publish(
        self, sender: str, headers: Mapping[str, Any], body: Any, routing_key: Any = None, declare: Any = (), **_: Any
    ) -> None:
        message = Message.of(str(sender), headers, body)
        if message is not None:
            if message.parent is None and (sender_task := celery.current_app.current_worker_task) is not None:
                # Celery's old protocol does not tell the parent of a task.
                message = replace(message, parent=sender_task.request.id)
            queue = place_of(declare or (), routing_key)
            said = {"transient": True} if self._is_transient(message.name, declare or ()) else {}
            self._journal.write(Kind.INTENDED, message.task, **message.to_json(queue), **said, **self._beat.sending())
            self._transactions.sending(message.task)
            self._breakpoints.reach(Moment.SENDING, message.task, message.name)

    def _is_transient(self, name: str, declared: Iterable[Any]) -> bool:
        """Return whether the broker need not keep a message on disk, by the task, its queue, and the app's settings."""
        if self._app is None:
            return False
        of_queues = (getattr(getattr(queue, "exchange", None), "delivery_mode", None) for queue in declared)
        of_task = getattr(self._app.tasks.get(name), "delivery_mode", None)
        return is_transient(of_task, *of_queues, self._app.conf.task_default_delivery_mode)

    def _on_published(self, sender: str, headers: Mapping[str, Any], body: Any, **_: Any) -> None:
        task = task_of(headers, body)
        if task is not None:
            self._journal.write(Kind.ACCEPTED, task, confirmed=self._confirms)
            self._beat.note_sent(task, str(sender))
            self._breakpoints.reach(Moment.PUBLISHED, task, str(sender))


def _queue(app: Celery, queue: Any) -> dict[str, Json]:
    """Return the arguments that an app declares for a queue; the settings add the type of the default queue."""
    arguments = {str(name): plain(value) for name, value in (queue.queue_arguments or {}).items()}
    kind = app.conf.get("task_default_queue_type")
    if kind and queue.name == app.conf.task_default_queue:
        arguments.setdefault("x-queue-type", str(kind))
    return {"arguments": arguments, "durable": bool(queue.durable)}


def _heartbeat(consumer: Consumer) -> dict[str, Json]:
    """Return the heartbeat that a worker's connection has agreed on with the broker; empty if it has none to tell."""
    connection = getattr(consumer, "connection", None)
    return {} if connection is None else {"heartbeat_s": connection.get_heartbeat_interval() or 0}


def _redelivered(delivery_info: Mapping[str, Any] | None) -> bool:
    return bool((delivery_info or {}).get("redelivered"))


def _call_process(name: str) -> None:
    """Give this process, and those that it forks, the name that they would have without the agent."""
    # Only Linux has that file, and a program that is told apart by its name is no reason to fail.
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(name)


def main(argv: list[str]) -> None:
    """Journal this process, and run `celery` with the arguments given."""
    folder, node = os.environ["HARNESS_JOURNAL"], os.environ["HARNESS_NODE"]
    role = next((word for word in argv if word in {"worker", "beat"}), "celery")
    now = real_time()
    journal = Writer(folder, node=node, role=role, now=now)
    # Without a run folder nobody can hold anything.
    breakpoints = Breakpoints(Path(os.environ.get("HARNESS_RUN", folder)), node)
    agent = Agent(journal, breakpoints)
    _call_process("celery")
    agent.up(argv)
    if "HARNESS_CLOCK_FILE" in os.environ:
        ClockWatch(journal, now).start()
    agent.connect()
    breakpoints.connect()
    agent.time_stores()
    agent.watch_children()
    agent.watch_errbacks()
    agent.watch_decoding()
    agent.watch_queues(node)
    agent.watch_transactions()
    agent.watch_connection()
    agent.watch_beat(Path(run, "beat", node) if (run := os.environ.get("HARNESS_RUN")) else None)
    use_settings(without_tls() | settings_in(os.environ.get("HARNESS_SETTINGS", "{}")))
    results_url = os.environ["CELERY_RESULT_BACKEND"] = with_driver(os.environ.get("CELERY_RESULT_BACKEND", ""))
    tune_sqlite(results_url)
    keep_table_names(results_url)
    app_import = AppImport()
    app_import.watch()
    sys.argv = ["celery", *argv]
    with app_import.told():
        # As `python -m celery` does: Celery's own messages then name that command. The package itself cannot be named
        # here: once Celery 5.2 is imported, its module has no specification that runpy could find.
        runpy.run_module("celery.__main__", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
