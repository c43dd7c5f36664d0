"""The agent: its receivers on Celery's own signals, sent by Celery's own tracer and publisher."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import celery
import kombu
import pytest
import sqlalchemy as sa
from billiard.popen_fork import Popen
from celery import Celery, signals
from celery.app import defaults
from celery.app.amqp import AMQP
from celery.app.trace import build_tracer
from celery.backends.base import Backend
from celery.beat import Scheduler, Service
from celery.concurrency.thread import TaskPool
from celery.exceptions import Ignore, Reject, WorkerLostError
from celery.worker.consumer import Consumer

from harness.inside import agent as module
from harness.inside.agent import Agent
from harness.inside.app_settings import tune_sqlite
from harness.inside.breakpoints import Breakpoints
from harness.inside.kernel_kills import KernelKills
from harness.records import journal
from harness.records.event import Kind
from harness.records.journal import Writer

CONNECTED = tuple(getattr(signals, name) for name in signals.__all__)

Run = Callable[..., None]
Lines = list[tuple[str, str | None, dict[str, Any]]]


@pytest.fixture
def _signals_restored() -> Iterator[None]:
    before = [list(signal.receivers) for signal in CONNECTED]
    yield
    for signal, receivers in zip(CONNECTED, before, strict=True):
        signal.receivers = receivers
        signal.sender_receivers_cache.clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "journal"
    folder.mkdir()
    return folder


@pytest.fixture
def agent(folder: Path, tmp_path: Path, _signals_restored: None) -> Iterator[Agent]:
    with closing(Writer(folder, node="worker-1", role="worker")) as writer:
        agent = Agent(writer, Breakpoints(tmp_path, "worker-1"))
        agent.connect()
        yield agent


def pay(amount: int) -> int:
    return 100 // amount


def quiet() -> None:
    """Nobody wants to know."""


def again(self: Any) -> None:
    raise self.retry(exc=ConnectionError("the bank is closed"), countdown=60)


def give_up(how: str) -> None:
    raise Ignore if how == "ignore" else Reject


@pytest.fixture
def app() -> Iterator[Celery]:
    """Yield an app as a worker has it, but with its broker and its results in memory."""
    app = Celery("shop", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.task_default_queue = "of-the-agents-tests"

    app.task(pay, name="pay", shared=False)
    app.task(quiet, name="quiet", ignore_result=True, shared=False)
    app.task(again, name="again", bind=True, shared=False)
    app.task(give_up, name="give_up", shared=False)
    with closing(app):
        yield app


@pytest.fixture
def run(app: Celery) -> Run:
    """Return a function that executes a task as a worker's pool process does."""

    def execute(name: str, *args: Any, task_id: str = "t-1", **request: Any) -> None:
        task = app.tasks[name]
        trace = build_tracer(name, task, app=app)
        said = {"id": task_id, "task": name, "retries": 0, "delivery_info": {}, **request}
        trace(task_id, args, {}, said)

    return execute


def said(folder: Path) -> Lines:
    """Return the journal's lines after the first, without the memory, which depends on what ran before."""
    return [
        (event.kind.value, event.task, {name: value for name, value in event.data.items() if name != "peak_kb"})
        for event in journal.read(folder)
        if event.kind is not Kind.OPENED
    ]


STARTED = {"retries": 0, "redelivered": False}


@pytest.mark.usefixtures("agent")
def test_every_fiftieth_execution_tells_the_memory_of_its_process(run: Run, folder: Path) -> None:
    for number in range(101):
        run("pay", 4, task_id=f"t-{number}")
    told = {data["ran"]: data["rss_kb"] for kind, _, data in said(folder) if kind == "finished" and "ran" in data}
    assert set(told) == {50, 100}
    assert all(1_000 < kb < 100_000_000 for kb in told.values())


@pytest.mark.usefixtures("agent")
def test_an_execution_is_a_start_and_an_end_with_its_state(run: Run, folder: Path) -> None:
    run("pay", 4)
    assert said(folder) == [("started", "t-1", {"name": "pay", **STARTED}), ("finished", "t-1", {"state": "SUCCESS"})]


def test_an_end_says_how_long_its_result_took_to_store(
    agent: Agent, run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([10.0, 10.25])
    monkeypatch.setattr(Backend, "store_result", Backend.store_result)  # It is put back after the test.
    agent.time_stores(lambda: next(clock))
    run("pay", 4)
    run("quiet", task_id="t-2")
    ends = {task: data for kind, task, data in said(folder) if kind == "finished"}
    assert ends["t-1"]["store_s"] == 0.25
    assert "store_s" not in ends["t-2"]


@pytest.mark.usefixtures("agent")
def test_a_start_says_whether_the_message_came_before_and_how_often_the_task_retried(run: Run, folder: Path) -> None:
    run("pay", 4, retries=2, delivery_info={"redelivered": True})
    assert said(folder)[0] == ("started", "t-1", {"name": "pay", "retries": 2, "redelivered": True})


@pytest.mark.usefixtures("agent")
def test_a_failure_is_one_end_with_its_error(run: Run, folder: Path) -> None:
    run("pay", 0)
    _, *ends = said(folder)
    assert [(kind, data["state"], data["error"].partition(":")[0], "outside" in data) for kind, _, data in ends] == [
        ("finished", "FAILURE", "ZeroDivisionError", False)
    ]


@pytest.mark.usefixtures("agent")
@pytest.mark.parametrize(
    ("name", "args", "asked"), [("quiet", (), {}), ("pay", (4,), {"ignore_result": True})], ids=["by task", "by sender"]
)
def test_an_end_says_when_no_row_is_to_be_expected(
    run: Run, folder: Path, name: str, args: tuple[int, ...], asked: dict[str, Any]
) -> None:
    run(name, *args, **asked)
    assert said(folder)[-1] == ("finished", "t-1", {"state": "SUCCESS", "ignored": True})


@pytest.mark.usefixtures("agent")
@pytest.mark.parametrize(("how", "state"), [("ignore", "IGNORED"), ("reject", "REJECTED")])
def test_a_task_that_gives_itself_up_ends(run: Run, folder: Path, how: str, state: str) -> None:
    run("give_up", how)
    (_, _, end) = said(folder)[-1]
    assert end["state"] == state


@pytest.mark.usefixtures("agent")
def test_a_retry_is_published_and_ends_the_execution_but_not_the_task(run: Run, folder: Path) -> None:
    run("again", delivery_info={"routing_key": "of-the-agents-tests"})
    lines = said(folder)
    assert [(kind, task) for kind, task, _ in lines] == [
        (kind, "t-1") for kind in ("started", "intended", "accepted", "retried", "finished")
    ]
    _, intended, _, retried, finished = (data for _, _, data in lines)
    assert (intended["name"], intended["retries"]) == ("again", 1)
    assert intended["due"] > datetime.now(UTC).timestamp() + 30
    assert "the bank is closed" in retried["reason"]
    assert finished["state"] == "RETRY"


@pytest.mark.usefixtures("agent")
def test_a_failure_that_the_parent_process_reports_is_outside_of_any_execution(app: Celery, folder: Path) -> None:
    error = WorkerLostError("signal 9 (SIGKILL)")
    signals.task_failure.send(sender=app.tasks["pay"], task_id="t-1", exception=error)
    assert said(folder) == [
        ("finished", "t-1", {"state": "FAILURE", "error": "WorkerLostError: signal 9 (SIGKILL)", "outside": True})
    ]


@pytest.mark.usefixtures("agent")
def test_a_message_that_was_taken_says_when_it_is_due(app: Celery, folder: Path) -> None:
    due = datetime(2026, 1, 2, tzinfo=UTC)
    for task, eta in (("t-1", None), ("t-2", due)):
        request = SimpleNamespace(id=task, name="pay", delivery_info={"redelivered": True}, eta=eta)
        signals.task_received.send(sender=app, request=request)
    assert said(folder) == [
        ("received", "t-1", {"name": "pay", "redelivered": True}),
        ("received", "t-2", {"name": "pay", "redelivered": True, "eta": due.timestamp()}),
    ]


@pytest.mark.usefixtures("agent")
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({}, "revoked"),
        ({"expired": True}, "expired"),
        ({"terminated": True, "signum": "SIGTERM"}, "terminated by signal SIGTERM"),
    ],
)
def test_a_revoked_task_says_why_it_will_not_run(app: Celery, folder: Path, how: dict[str, Any], reason: str) -> None:
    sent = {"terminated": False, "signum": None, "expired": False} | how
    signals.task_revoked.send(sender=app.tasks["pay"], request=SimpleNamespace(id="t-1"), **sent)
    assert said(folder) == [("revoked", "t-1", {"reason": reason})]


@pytest.mark.usefixtures("agent")
@pytest.mark.parametrize(
    ("headers", "error", "line"),
    [
        ({"id": "t-1"}, ValueError("no args"), ("t-1", "ValueError: no args")),
        (None, None, (None, "a message that is no task")),
        ({"id": 5}, None, (None, "a message that is no task")),
    ],
)
def test_a_message_that_the_worker_refuses_is_discarded(
    app: Celery, folder: Path, headers: Any, error: Exception | None, line: Any
) -> None:
    message = SimpleNamespace(headers=headers, properties={}, content_type="application/json")
    signals.task_rejected.send(sender=app, message=message, exc=error)
    task, reason = line
    assert said(folder) == [("discarded", task, {"reason": reason, "content_type": "application/json"})]


def test_the_tags_of_a_workers_consumers_name_its_node(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AMQP, "TaskConsumer", AMQP.TaskConsumer)
    monkeypatch.setattr(Consumer, "add_task_queue", Consumer.add_task_queue)
    monkeypatch.setattr(Consumer, "cancel_task_queue", Consumer.cancel_task_queue)
    agent.watch_queues("worker-1")
    with Celery("shop", broker="memory://") as app, app.connection_for_read() as connection:
        consumer = app.amqp.TaskConsumer(connection)
    assert consumer.tag_prefix == "worker-1/"
    assert [queue.name for queue in consumer.queues] == ["celery"]


def test_the_queues_are_journaled_again_when_remote_control_changes_them(
    agent: Agent, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AMQP, "TaskConsumer", AMQP.TaskConsumer)
    monkeypatch.setattr(Consumer, "add_task_queue", Consumer.add_task_queue)
    monkeypatch.setattr(Consumer, "cancel_task_queue", Consumer.cancel_task_queue)
    agent.watch_queues("worker-1")
    with Celery("shop", broker="memory://") as app, app.connection_for_read() as connection:
        consumer = SimpleNamespace(app=app, task_consumer=app.amqp.TaskConsumer(connection))
        Consumer.add_task_queue(consumer, "more")
        Consumer.cancel_task_queue(consumer, "celery")
    assert [sorted(data["queues"]) for kind, _, data in said(folder) if kind == "ready"] == [
        ["celery", "more"],
        ["more"],
    ]


def test_a_message_that_cannot_be_decoded_is_discarded_and_named_by_its_other_header(
    agent: Agent, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_decode_error(_consumer: object, message: Any, exc: Exception) -> str:
        return f"{message.content_type}: {exc}"

    monkeypatch.setattr(Consumer, "on_decode_error", on_decode_error)
    agent.watch_decoding()
    message = SimpleNamespace(headers={}, properties={"correlation_id": "t-1"}, content_type="application/x-yaml")
    assert Consumer.on_decode_error(None, message, ValueError("no")) == "application/x-yaml: no"
    line = ("discarded", "t-1", {"reason": "ValueError: no", "content_type": "application/x-yaml"})
    assert said(folder) == [line]


def test_a_worker_says_that_it_lost_its_connection_and_that_it_consumes_again(
    agent: Agent, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Consumer, "on_connection_error_after_connected", lambda _consumer, exc: f"lost {exc}")
    monkeypatch.setattr(Consumer, "on_ready", lambda _consumer: "ready")
    monkeypatch.setattr(Consumer, "start", Consumer.start)
    agent.watch_connection()
    # The first time, `ready` says it.
    assert Consumer.on_ready(None) == "ready"
    assert said(folder) == []
    assert Consumer.on_connection_error_after_connected(None, OSError("gone")) == "lost gone"
    assert Consumer.on_ready(None) == "ready"
    assert Consumer.on_ready(None) == "ready"
    assert said(folder) == [("disconnected", None, {"reason": "OSError: gone"}), ("reconnected", None, {})]


def test_a_worker_that_ends_with_its_channel_says_why(
    agent: Agent, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(consumer: SimpleNamespace) -> None:
        raise consumer.error

    for name in ("on_connection_error_after_connected", "on_ready"):
        monkeypatch.setattr(Consumer, name, getattr(Consumer, name))
    monkeypatch.setattr(Consumer, "start", start)
    agent.watch_connection()
    for error in (LookupError("the channel is closed"), ValueError("another matter")):
        with pytest.raises(type(error)):
            Consumer.start(SimpleNamespace(error=error, channel_errors=(LookupError,)))
    # Before Celery 5.3, a consumer did not tell them apart.
    with pytest.raises(LookupError):
        Consumer.start(SimpleNamespace(error=LookupError()))
    assert said(folder) == [("disconnected", None, {"reason": "LookupError: the channel is closed"})]


def test_a_child_process_that_the_kernel_killed_for_memory_is_told_from_others(
    agent: Agent, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poll(child: SimpleNamespace) -> int:
        child.returncode = child.code
        return int(child.code)

    monkeypatch.setattr(Popen, "poll", poll)
    events = tmp_path / "memory.events"
    events.write_text("oom 4\noom_kill 3\n")
    monkeypatch.setattr("harness.inside.agent.KernelKills", lambda: KernelKills(tmp_path))
    agent.watch_children()
    for pid, code, kills in ((7, -9, 3), (8, -9, 4), (9, -9, 4), (10, -15, 5)):
        events.write_text(f"oom 4\noom_kill {kills}\n")
        Popen.poll(SimpleNamespace(pid=pid, code=code, returncode=None))
    assert [(data["child"], data.get("out_of_memory", False)) for _, _, data in said(folder)] == [
        (7, False),
        (8, True),
        (9, False),
        (10, False),
    ]


def test_a_child_process_that_is_gone_is_told_once_with_what_ended_it(
    agent: Agent, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = {7: iter([None, -9]), 8: iter([0])}

    def poll(child: SimpleNamespace, _flag: int = 0) -> int | None:
        if child.returncode is None:
            child.returncode = next(codes[child.pid])
        code: int | None = child.returncode
        return code

    monkeypatch.setattr(Popen, "poll", poll)
    agent.watch_children()
    killed, done = SimpleNamespace(pid=7, returncode=None), SimpleNamespace(pid=8, returncode=None)
    assert [Popen.poll(killed), Popen.poll(killed), Popen.poll(killed, 0), Popen.poll(done)] == [None, -9, -9, 0]
    assert said(folder) == [("exited", None, {"child": 7, "code": -9}), ("exited", None, {"child": 8, "code": 0})]


def test_a_journal_that_cannot_be_written_does_not_end_what_celery_does(
    agent: Agent, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def poll(child: SimpleNamespace) -> int:
        child.returncode = -9
        return -9

    monkeypatch.setattr(Popen, "poll", poll)
    agent.watch_children()
    folder.rmdir()
    assert Popen.poll(SimpleNamespace(pid=7, returncode=None)) == -9
    assert "the journal cannot say 'exited'" in caplog.text


def test_an_errback_that_runs_in_place_is_told(
    agent: Agent, app: Celery, run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backend, "_call_task_errbacks", vars(Backend)["_call_task_errbacks"])
    agent.watch_errbacks()
    called = []

    def sorry(request: Any, _error: Exception, _traceback: Any) -> None:
        called.append(request.id)

    run("pay", 0, errbacks=[app.task(sorry, name="sorry", shared=False).s()])
    assert called == ["t-1"]
    assert ("errback", "t-1", {"names": ["sorry"]}) in said(folder)


@pytest.mark.usefixtures("agent")
def test_the_first_failures_of_a_class_say_where_they_were_raised(run: Run, folder: Path) -> None:
    for number in range(5):
        run("pay", 0, task_id=f"t-{number}")
    told = [data.get("traceback", "") for kind, _, data in said(folder) if kind == "finished"]
    assert ["return 100 // amount" in one for one in told] == [True, True, True, False, False]
    run("pay", "x", task_id="t-9")
    assert "TypeError" in said(folder)[-1][2]["traceback"]


@pytest.mark.usefixtures("agent")
def test_a_task_of_the_old_protocol_that_a_task_sends_is_journaled_under_its_id(app: Celery, folder: Path) -> None:
    app.conf.task_protocol = 1
    app.send_task("pay", (4,), task_id="t-2")
    assert [(kind, task) for kind, task, _ in said(folder)] == [("intended", "t-2"), ("accepted", "t-2")]


@pytest.mark.usefixtures("agent")
@pytest.mark.parametrize(
    ("options", "queue"),
    [
        ({"queue": "of-the-bank"}, "of-the-bank"),
        ({"exchange": "of-the-agents-tests", "routing_key": "nobody"}, "nobody"),
        ({"exchange": "of-the-agents-tests", "routing_key": "of-the-agents-tests"}, "of-the-agents-tests"),
        ({"queue": "topics", "routing_key": "topic.high"}, "topics"),
        ({"queue": "bound", "routing_key": "second"}, "bound"),
    ],
)
def test_what_is_sent_names_its_queue_or_the_routing_key_that_leads_elsewhere(
    app: Celery, folder: Path, options: dict[str, Any], queue: str
) -> None:
    exchange = kombu.Exchange("bound")
    app.conf.task_queues = [
        kombu.Queue("of-the-agents-tests"),
        kombu.Queue("of-the-bank"),
        kombu.Queue("topics", kombu.Exchange("topics", type="topic"), routing_key="topic.#"),
        kombu.Queue("bound", [kombu.binding(exchange, routing_key=key) for key in ("first", "second")]),
    ]
    app.send_task("pay", (4,), **options)
    assert [about.get("queue") for kind, _, about in said(folder) if kind == "intended"] == [queue]


@pytest.mark.usefixtures("agent")
@pytest.mark.parametrize(
    ("of_task", "of_queue", "of_app", "is_told"),
    [(None, None, 1, True), (None, None, 2, False), (None, "transient", 2, True), (2, 1, 1, False), (1, 2, 2, True)],
)
def test_what_the_broker_need_not_keep_on_disk_is_told(
    app: Celery, folder: Path, of_task: int | None, of_queue: str | None, of_app: int, *, is_told: bool
) -> None:
    worker = SimpleNamespace(app=app, concurrency=1, pool_cls=TaskPool)
    signals.celeryd_after_setup.send(sender="w@w", instance=worker, conf=app.conf)
    app.conf.task_default_delivery_mode = of_app
    app.conf.task_queues = [
        kombu.Queue("of-the-agents-tests", kombu.Exchange("of-the-agents-tests", delivery_mode=of_queue))
    ]
    app.tasks["pay"].delivery_mode = of_task
    app.send_task("pay", (4,))
    assert [about.get("transient", False) for kind, _, about in said(folder) if kind == "intended"] == [is_told]


@pytest.mark.usefixtures("agent")
@pytest.mark.parametrize("protocol", [1, 2])
def test_what_a_task_sends_names_its_parent_in_either_protocol(
    app: Celery, run: Run, folder: Path, protocol: int
) -> None:
    app.conf.task_protocol = protocol
    run("pay", 4, callbacks=[app.tasks["quiet"].si().set(task_id="t-2")])
    assert [(task, about.get("parent")) for kind, task, about in said(folder) if kind == "intended"] == [("t-2", "t-1")]


@pytest.mark.usefixtures("agent")
def test_what_a_task_sends_is_journaled_as_a_producer_would(app: Celery, folder: Path) -> None:
    app.send_task("pay", (4,), task_id="t-2", parent_id="t-1")
    assert said(folder) == [
        ("intended", "t-2", {"name": "pay", "retries": 0, "parent": "t-1", "queue": "of-the-agents-tests"}),
        ("accepted", "t-2", {"confirmed": False}),
    ]


@pytest.mark.usefixtures("agent")
def test_a_task_that_another_one_calls_is_a_part_of_it_and_nobody_sent_it(app: Celery, folder: Path) -> None:
    app.tasks["pay"].apply([4], task_id="t-1")
    assert said(folder) == []


@pytest.mark.usefixtures("agent")
def test_what_is_sent_names_what_is_to_follow_it_and_when_it_expires(app: Celery, folder: Path) -> None:
    pay = app.tasks["pay"]
    last = celery.chain(pay.si(1), pay.si(2), pay.si(3)).apply_async(expires=60)
    (kind, first, about), _ = said(folder)
    assert (kind, first) == ("intended", last.parent.parent.id)
    assert about["follow"] == [last.parent.id, last.id]
    assert about["expires"] == pytest.approx(time.time() + 60, abs=30)


@pytest.mark.usefixtures("agent")
def test_what_is_sent_names_the_body_of_the_chord_that_follows_it(app: Celery, folder: Path) -> None:
    pay = app.tasks["pay"]
    body = celery.chain(pay.si(1), celery.group(pay.si(2), pay.si(3)), pay.si(4)).apply_async()
    (_, _, about), _ = said(folder)
    assert body.id in about["follow"]


@pytest.mark.usefixtures("agent")
@pytest.mark.parametrize("confirms", [True, False])
def test_a_publish_counts_as_confirmed_only_where_the_app_asks_for_confirms(
    app: Celery, folder: Path, *, confirms: bool
) -> None:
    app.conf.update(broker_transport_options={"confirm_publish": confirms}, task_acks_late=True, timezone="UTC")
    signals.celeryd_after_setup.send(sender="w@w", instance=SimpleNamespace(app=app, concurrency=2), conf=app.conf)
    app.send_task("pay", (4,), task_id="t-2")
    (_, _, settings), *_, accepted = said(folder)
    assert (settings["confirm_publish"], settings["concurrency"], settings["task_acks_late"]) == (confirms, 2, True)
    assert accepted == ("accepted", "t-2", {"confirmed": confirms})


@pytest.mark.usefixtures("agent")
def test_a_worker_says_which_tasks_of_its_app_it_knows_and_none_of_celerys_own(app: Celery, folder: Path) -> None:
    signals.celeryd_after_setup.send(sender="w@w", instance=SimpleNamespace(app=app, concurrency=2), conf=app.conf)
    (_, _, settings), *_ = said(folder)
    assert "celery.chord" in app.tasks
    assert "pay" in settings["tasks"]
    assert not [name for name in settings["tasks"] if name.startswith("celery.")]


@pytest.mark.usefixtures("agent")
def test_a_worker_says_what_is_in_force_its_command_line_first_and_which_options_tasks_set_themselves(
    app: Celery, folder: Path
) -> None:
    app.conf.update(task_acks_late=True, task_time_limit=60, worker_soft_shutdown_timeout=5, result_expires=None)
    app.task(pay, name="early", acks_late=False, time_limit=5, acks_on_failure_or_timeout=False, shared=False)
    app.task(pay, name="sure", autoretry_for=(OSError,), retry_kwargs={"max_retries": None}, shared=False)
    app.task(pay, name="same", acks_late=True, time_limit=60, max_retries=3, shared=False)
    worker = SimpleNamespace(app=app, concurrency=2, pool_cls=TaskPool, prefetch_multiplier=1, time_limit=30)
    worker.max_memory_per_child = 90_000
    signals.celeryd_after_setup.send(sender="w@w", instance=worker, conf=app.conf)
    (_, _, settings), *options = said(folder)
    expected = {"pool": "threads", "prefetch_multiplier": 1, "worker_prefetch_multiplier": 4, "time_limit": 30}
    assert expected.items() <= settings.items()
    assert (settings["worker_soft_shutdown_timeout"], settings["result_expires"]) == (5, None)
    assert settings["worker_max_memory_per_child"] == 90_000
    assert "task_acks_on_timeout" not in settings
    said_of = {about.pop("name"): about for _, _, about in options}
    # An app also has the shared tasks of every module that another test of this process has imported.
    own = {"early", "quiet", "sure", "same"}
    assert {name: about for name, about in said_of.items() if name in own} == {
        "early": {"acks_late": False, "time_limit": 5, "acks_on_failure_or_timeout": False},
        "quiet": {"ignore_result": True},
        "same": {"acks_late": True, "time_limit": 60},
        "sure": {"autoretry_for": ["OSError"], "max_retries": None},
    }


@pytest.mark.usefixtures("agent")
@pytest.mark.parametrize("confirms", [True, False])
def test_a_tick_of_beat_names_its_entry_and_is_confirmed_only_where_the_app_asks_for_it(
    app: Celery, folder: Path, *, confirms: bool
) -> None:
    app.conf.broker_transport_options = {"confirm_publish": confirms}
    app.conf.beat_schedule = {"soon": {"task": "pay", "args": (4,), "schedule": 60.0}}
    service = Service(app, scheduler_cls=Scheduler)
    signals.beat_init.send(sender=service)
    service.scheduler.apply_entry(service.scheduler.schedule["soon"])
    app.send_task("pay", (4,))
    entries = [data.get("entry") for kind, _, data in said(folder) if kind == "intended"]
    accepted = [data["confirmed"] for kind, _, data in said(folder) if kind == "accepted"]
    assert (entries, accepted) == (["soon", None], [confirms, confirms])


@pytest.mark.usefixtures("agent")
def test_a_worker_with_a_beat_of_its_own_is_not_ready_before_it_consumes(app: Celery, folder: Path) -> None:
    signals.celeryd_after_setup.send(sender="w@w", instance=SimpleNamespace(app=app, concurrency=2), conf=app.conf)
    signals.beat_init.send(sender=Service(app, scheduler_cls=Scheduler))
    assert [kind for kind, _, _ in said(folder) if kind != "options"] == ["settings", "settings"]
    assert said(folder)[-1][2]["at"] == pytest.approx(time.time(), abs=60.0)
    signals.worker_ready.send(sender=app)
    assert said(folder)[-1][0] == "ready"


@pytest.mark.usefixtures("agent")
def test_a_worker_says_when_it_consumes_and_when_it_leaves(app: Celery, folder: Path) -> None:
    signals.worker_ready.send(sender=app)
    signals.worker_shutdown.send(sender=app)
    assert [kind for kind, _, _ in said(folder)] == ["ready", "down"]


@pytest.fixture
def _as_a_node(_signals_restored: None, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set what a container gives the agent."""
    monkeypatch.setattr(sys, "argv", ["agent"])
    monkeypatch.setenv("HARNESS_JOURNAL", str(folder))
    monkeypatch.setenv("HARNESS_NODE", "node-1")
    monkeypatch.delenv("CELERY_RESULT_BACKEND", raising=False)
    # What the agent changes in Celery's classes is as it was once the test is over.
    monkeypatch.setattr(Backend, "store_result", Backend.store_result)
    monkeypatch.setattr(Service, "start", Service.start)
    for name in ("add_periodic_task", "_add_periodic_task"):
        monkeypatch.setattr(Celery, name, vars(Celery)[name])
    monkeypatch.setitem(defaults.DEFAULTS, "beat_schedule_filename", "celerybeat-schedule")


@pytest.mark.usefixtures("_as_a_node")
@pytest.mark.parametrize(
    ("argv", "role", "output"),
    [
        (["--quiet", "worker", "--help"], "worker", "celery worker [OPTIONS]"),
        (["beat", "--help"], "beat", "celery beat [OPTIONS]"),
        (["--version"], "celery", celery.__version__),
    ],
)
def test_the_agent_says_that_it_is_up_and_becomes_celery(
    folder: Path, capsys: pytest.CaptureFixture[str], argv: list[str], role: str, output: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        module.main(argv)
    assert not ended.value.code
    assert output in capsys.readouterr().out
    opened, up = journal.read(folder)
    assert (opened.node, opened.data["role"]) == ("node-1", role)
    packages = {"python", "celery", "kombu", "sqlalchemy"}
    assert (up.kind, up.data["argv"], set(up.data["versions"])) == (Kind.UP, argv, packages)


@pytest.mark.usefixtures("_as_a_node", "capsys")
@pytest.mark.parametrize("run", [None, "/somewhere/run"])
def test_a_schedule_is_kept_in_the_run_folder_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, run: str | None
) -> None:
    monkeypatch.delenv("HARNESS_RUN", raising=False)
    if run is not None:
        monkeypatch.setenv("HARNESS_RUN", run)
    with pytest.raises(SystemExit):
        module.main(["--version"])
    expected = "celerybeat-schedule" if run is None else "/somewhere/run/beat/node-1"
    assert defaults.DEFAULTS["beat_schedule_filename"] == expected


@pytest.mark.usefixtures("agent")
def test_the_speed_of_a_clock_is_that_of_the_container(
    app: Celery, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.conf.broker_transport_options = {"read_timeout": 2}
    monkeypatch.setenv("HARNESS_CLOCK_SPEED", "50")
    with closing(Writer(folder, node="beat-1", role="beat")) as writer:
        Agent(writer, Breakpoints(folder.parent, "beat-1")).connect()
        signals.beat_init.send(sender=Service(app, scheduler_cls=Scheduler))
    assert app.conf.broker_transport_options == {"read_timeout": 100.0}


@pytest.mark.usefixtures("_as_a_node")
@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_settings_that_are_none_end_the_node_with_their_name(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("HARNESS_SETTINGS", text)
    with pytest.raises(SystemExit, match="HARNESS_SETTINGS is no JSON object: "):
        module.main(["--version"])


@pytest.fixture
def _listeners_removed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Remove the agent's listeners at the end, which would last as long as the process that all tests share."""
    listening: list[tuple[Any, ...]] = []
    listen = sa.event.listen

    def remembered(target: Any, *given: Any, **options: Any) -> None:
        listen(target, *given, **options)
        if target is sa.Engine:
            listening.append((target, *given))

    monkeypatch.setattr(sa.event, "listen", remembered)
    yield
    for given in listening:
        sa.event.remove(*given)


def settings_of(url: str) -> tuple[int, int]:
    """Busy timeout in ms, and `synchronous`: 2 is FULL, 1 is NORMAL."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        timeout, synchronous = (
            connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in ("busy_timeout", "synchronous")
        )
    return timeout, synchronous


@pytest.mark.usefixtures("_listeners_removed")
def test_only_connections_to_the_result_file_are_tuned(tmp_path: Path) -> None:
    results, other = (f"sqlite:///{tmp_path / name}.sqlite3" for name in ("results", "app"))
    untuned = settings_of(results)
    tune_sqlite(f"db+{results}")
    assert settings_of(results) == (60_000, 1)
    assert settings_of(other) == untuned != (60_000, 1)


@pytest.mark.usefixtures("_listeners_removed")
@pytest.mark.parametrize("url", ["", "redis://localhost/0", "db+postgresql://localhost/results"])
def test_other_result_backends_are_left_alone(tmp_path: Path, url: str) -> None:
    before = settings_of(f"sqlite:///{tmp_path}/a.sqlite3")
    tune_sqlite(url)
    assert settings_of(f"sqlite:///{tmp_path}/a.sqlite3") == before
