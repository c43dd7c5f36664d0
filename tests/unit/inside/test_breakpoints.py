"""The moments that a process of a worker tells of, while Celery's own tracer runs a task."""

import contextlib
import logging
import smtplib
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import amqp
import pytest
import sqlalchemy as sa
from celery import Celery
from celery.app.trace import build_tracer
from celery.backends.base import Backend
from celery.signals import task_prerun
from kombu.message import Message

from harness.inside.breakpoints import Breakpoints
from harness.records.moment import SOCKET, Moment

WRAPPED = (
    *((Backend, name) for name in ("mark_as_done", "mark_as_failure", "mark_as_retry", "store_result")),
    (Message, "ack"),
    (amqp.Channel, "_basic_publish"),
    (smtplib.SMTP, "sendmail"),
    (sqlite3, "connect"),
    (sqlite3.dbapi2, "connect"),
    (sa.engine.default.DefaultDialect, "do_commit"),
)


class Recorded(Breakpoints):
    """Writes each moment down instead of telling it."""

    def __init__(self, folder: Path) -> None:
        """Write nothing down yet."""
        super().__init__(folder, "worker-1")
        self.moments: list[tuple[str, str]] = []

    def reach(self, moment: Moment, task: str, name: str) -> None:
        self.moments.append((moment.value, task))
        assert name in {"shop.pay", "shop.refund"}


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorded]:
    """Connect breakpoints to Celery as a worker does, with somebody who listens."""
    for owner, name in WRAPPED:
        monkeypatch.setattr(owner, name, getattr(owner, name))
    monkeypatch.setattr(smtplib.SMTP, "sendmail", lambda *_: {})
    monkeypatch.setattr(amqp.Channel, "_basic_publish", lambda *_, **__: None)
    monkeypatch.setattr(logging.getLogger("harness.effect"), "filters", [])
    monkeypatch.setattr(logging.getLogger("harness.effect"), "level", logging.NOTSET)
    (tmp_path / SOCKET).touch()
    recorded = Recorded(tmp_path)
    recorded.connect()

    def begin(task_id: str, task: object, **_: object) -> None:
        recorded.start(task_id, task)

    task_prerun.connect(begin)
    yield recorded
    task_prerun.disconnect(begin)


Run = Callable[[Callable[[], object]], list[str]]


@pytest.fixture
def run(tmp_path: Path, told: Recorded) -> Run:
    """Run a function as a task with Celery's tracer, and return the moments that it reached."""

    def executed(body: Callable[[], object]) -> list[str]:
        told.moments.clear()
        app = Celery("shop", backend=f"db+sqlite:///{tmp_path}/results.sqlite3", set_as_current=False)
        app.conf.task_track_started = True

        def pay() -> None:
            body()

        # Other apps of this process do not get it.
        task = app.task(pay, name="shop.pay", shared=False)
        build_tracer(task.name, task, app=app)("t1", (), {}, {"id": "t1", "delivery_info": {}})
        assert {one for _, one in told.moments} == {"t1"}
        return [moment for moment, _ in told.moments]

    return executed


PLAIN = ["started", "returned", "stored"]
WITH_EFFECT = ["started", "effect", "returned", "stored"]


def nothing() -> None:
    """Have no effect."""


def fail() -> None:
    raise ValueError


@pytest.mark.parametrize("body", [nothing, fail])
def test_an_execution_reaches_its_moments_in_order(run: Run, body: Callable[[], object]) -> None:
    assert run(body) == PLAIN


def test_a_mail_is_an_effect_and_only_the_first_is_told(run: Run) -> None:
    def send() -> None:
        server = object.__new__(smtplib.SMTP)
        for _ in range(2):
            smtplib.SMTP.sendmail(server, "a@a.example", ["b@b.example"], "")

    assert run(send) == WITH_EFFECT


def commit(file: Path) -> None:
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE IF NOT EXISTS paid (task)")
    connection.execute("INSERT INTO paid VALUES ('t1')")
    connection.commit()
    connection.close()


def commit_in_a_block(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS paid (task)")
        connection.execute("INSERT INTO paid VALUES ('t1')")
    connection.close()


def commit_by_sqlalchemy(file: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{file}")
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE IF NOT EXISTS paid (task)"))
    engine.dispose()


@pytest.mark.parametrize("write", [commit, commit_in_a_block, commit_by_sqlalchemy])
def test_a_commit_is_an_effect(run: Run, tmp_path: Path, write: Callable[[Path], None]) -> None:
    assert run(lambda: write(tmp_path / "shop.sqlite3")) == WITH_EFFECT


@pytest.mark.parametrize("disabled", [False, True])
def test_what_the_app_calls_an_effect_is_one_and_its_log_does_not_get_longer(
    run: Run, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, *, disabled: bool
) -> None:
    logger = logging.getLogger("harness.effect")
    # As `logging.config.dictConfig` does with the loggers that it does not know.
    monkeypatch.setattr(logger, "disabled", disabled)
    assert run(lambda: logger.debug("the card is charged")) == WITH_EFFECT
    assert run(lambda: logging.getLogger("shop").warning("the card is charged")) == PLAIN
    assert [record.name for record in caplog.records if record.name in {"harness.effect", "shop"}] == ["shop"]


def test_what_is_only_read_or_rolled_back_is_no_effect(run: Run, tmp_path: Path) -> None:
    def look() -> None:
        connection = sqlite3.connect(tmp_path / "shop.sqlite3")
        connection.execute("SELECT 1").fetchall()
        connection.commit()
        with contextlib.suppress(ZeroDivisionError), connection:
            connection.execute("CREATE TABLE paid (task)")
            connection.execute("INSERT INTO paid VALUES (?)", [1 / 0])
        connection.close()

    assert run(look) == PLAIN


def test_a_library_that_is_loaded_later_is_looked_at_then(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Connection:
        def commit(self) -> None:
            """Commit."""

    psycopg = ModuleType("psycopg")
    psycopg.Connection = Connection  # type: ignore[attr-defined]
    monkeypatch.delitem(sys.modules, "psycopg", raising=False)
    assert run(nothing) == PLAIN
    monkeypatch.setitem(sys.modules, "psycopg", psycopg)
    assert run(lambda: Connection().commit()) == WITH_EFFECT


def test_what_another_thread_does_is_no_effect_of_the_task(run: Run, tmp_path: Path) -> None:
    def wait() -> None:
        thread = threading.Thread(target=commit, args=(tmp_path / "shop.sqlite3",))
        thread.start()
        thread.join()

    assert run(wait) == PLAIN


def test_an_app_that_nobody_holds_is_left_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / SOCKET).unlink()
    before = sqlite3.connect
    assert run(lambda: commit(tmp_path / "shop.sqlite3")) == ["returned", "stored"]
    assert sqlite3.connect is before


@pytest.mark.parametrize(
    ("headers", "moments"), [({"id": "t1", "task": "shop.pay"}, [("unconfirmed", "t1")]), ({}, []), (None, [])]
)
def test_a_message_of_a_task_is_on_its_way_once_it_is_written(
    told: Recorded, headers: dict[str, str] | None, moments: list[tuple[str, str]]
) -> None:
    message = amqp.Message("", application_headers=headers)
    channel = object.__new__(amqp.Channel)
    channel._basic_publish(message, routing_key="celery")
    assert told.moments == moments


def test_what_a_parent_reports_of_a_dead_child_is_no_moment_of_the_task(told: Recorded, tmp_path: Path) -> None:
    app = Celery("shop", backend=f"db+sqlite:///{tmp_path}/results.sqlite3", set_as_current=False)
    request = SimpleNamespace(id="t1", chain=None, chord=None, errbacks=None)
    app.backend.mark_as_failure("t1", ValueError("gone"), request=request)
    assert told.moments == []
    assert app.backend.get_status("t1") == "FAILURE"


@pytest.mark.parametrize(
    ("headers", "moments"), [({"id": "t1", "task": "shop.pay"}, [("acknowledged", "t1")]), ({}, []), (None, [])]
)
def test_a_message_of_a_task_is_acknowledged(
    told: Recorded, headers: dict[str, str] | None, moments: list[tuple[str, str]]
) -> None:
    channel = SimpleNamespace(basic_ack=lambda *_, **__: None, no_ack_consumers=None)
    Message(channel=channel, headers=headers, delivery_tag=1, accept=["json"]).ack()
    assert told.moments == moments
