"""The pytest-celery door without an engine: what is parsed, refused and journaled."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import psutil
import pytest
from celery import Celery
from pytest_celery import CeleryWorkerContainer

from harness import app_binding, celery_setup
from harness.celery_setup import worker
from harness.containers.app_node import CODE_INSIDE
from harness.errors import UsageError
from harness.records import journal
from harness.records.event import Event, Kind
from harness.records.journal import Writer
from harness.stack.stack import Stack

pytest_plugins = ["pytester"]

BROKER = "amqp://user:secret@broker:5672/vhost"

TESTS = """
def test_first(celery_setup): pass
def test_second(celery_setup): pass
"""


SESSION = """
import pytest
from types import SimpleNamespace

@pytest.fixture(scope="session")
def _harness_session():
    return SimpleNamespace(broker=SimpleNamespace(is_up=lambda: True))
"""


class Unstarted(Stack):
    """A stack without nodes."""

    def __enter__(self) -> Self:
        return self

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (CeleryWorkerContainer.command("-c", "1"), [*CeleryWorkerContainer.command()[4:], "-c", "1"]),
        ("celery --app app worker -P solo", ["-P", "solo"]),
    ],
)
def test_a_command_of_celery_worker_is_taken_apart(command: list[str] | str, options: list[str]) -> None:
    assert worker.parsed_command(command) == ("app", options)


@pytest.mark.parametrize(
    "command", [[], ["sh"], ["celery", "-A", "app", "beat"], CeleryWorkerContainer.command(debugpy=True)]
)
def test_any_other_command_is_refused(command: list[str]) -> None:
    with pytest.raises(UsageError, match="give `celery -A <app> worker` and its options"):
        worker.parsed_command(command)


def test_only_the_stock_command_counts_as_the_default() -> None:
    class Other(CeleryWorkerContainer):  # type: ignore[misc]  # untyped.
        @classmethod
        def worker_queue(cls) -> str:
            return "other"

        @classmethod
        def command(cls, *_: str, **__: Any) -> list[str]:
            return ["celery", "-A", "app", "worker"]

    assert celery_setup.default_command(Other)[-2:] == ["-Q", "other"]
    assert Other.command() != celery_setup.default_command(Other)
    assert CeleryWorkerContainer.command() == celery_setup.default_command(CeleryWorkerContainer)


def test_the_environment_keeps_the_way_to_the_agent_and_what_the_test_adds() -> None:
    given = {"CELERY_BROKER_URL": BROKER, "PYTHONPATH": "/app", "SHOP": 1}
    env = worker.worker_env(given, {"broker"}, "/more")
    assert env["PYTHONPATH"] == f"{CODE_INSIDE}:/app:/more"
    assert env["SHOP"] == "1"
    # No backend was asked for, so none may come from elsewhere.
    assert env["CELERY_RESULT_BACKEND"] == ""


@pytest.mark.parametrize(
    "url", [None, "memory://", "amqp://broker//", "amqp://broker//;amqp://broker-2//", "redis://redis-1/0"]
)
def test_a_worker_may_use_any_broker_of_its_test_or_its_own_memory(url: str | None) -> None:
    given = {} if url is None else {"CELERY_BROKER_URL": url}
    env = worker.worker_env(given, {"broker", "broker-2", "redis-1"})
    assert env.get("CELERY_BROKER_URL") == url


@pytest.mark.parametrize(
    "url", ["amqp://user:secret@elsewhere/", "amqp://broker//;amqp://user:secret@elsewhere:5672//"]
)
def test_another_broker_is_refused_and_no_password_shown(url: str) -> None:
    with pytest.raises(UsageError, match="here it can be the harness's alone") as refused:
        worker.worker_env({"CELERY_BROKER_URL": url}, {"broker"})
    assert "secret" not in str(refused.value)


def test_a_class_asks_for_a_version_or_takes_any() -> None:
    class Old(CeleryWorkerContainer):  # type: ignore[misc]  # untyped.
        @classmethod
        def version(cls) -> str:
            return "5.4.0"

    assert worker.needed_version(Old) == "5.4.0"
    assert worker.needed_version(CeleryWorkerContainer) == ""
    assert worker.needed_version(None) == ""


def test_an_image_without_a_command_runs_what_its_arguments_say() -> None:
    assert worker.stock_command(
        {"CELERY_WORKER_NAME": "old", "CELERY_WORKER_QUEUE": "olds", "CELERY_LOG_LEVEL": "DEBUG"}
    ) == ["celery", "-A", "app", "worker", "--loglevel=DEBUG", "-n", "old@%h", "-Q", "olds"]


def test_files_are_written_and_processes_can_be_listed_without_psutil(tmp_path: Path) -> None:
    content = CeleryWorkerContainer.initial_content()
    assert b"psutil" in content["utils.py"]
    worker.write_app(celery_setup.without_psutil(content), tmp_path)
    assert "import *" in (tmp_path / "app.py").read_text()
    assert (tmp_path / "pytest_celery/vendors/worker/tasks.py").is_file()
    spaces: dict[str, Any] = {}
    exec((tmp_path / "utils.py").read_text(), spaces)  # noqa: S102 - as a worker would import it.
    (mine,) = [one for one in json.loads(spaces["get_running_processes_info"]()) if one["pid"] == os.getpid()]
    other = psutil.Process()
    assert mine["name"] == other.name()
    assert mine["username"] == other.username()
    assert mine["cmdline"] == other.cmdline()
    assert mine["create_time"] == pytest.approx(other.create_time(), abs=2)
    assert mine["memory_percent"] == pytest.approx(other.memory_percent(), rel=0.2)


def test_a_utils_module_of_the_tests_own_is_left_as_it_is() -> None:
    assert celery_setup.without_psutil({"utils.py": b"mine = 1\n"}) == {"utils.py": b"mine = 1\n"}


@dataclass(frozen=True)
class Message:
    """What of Celery's own is looked at."""

    headers: dict[str, Any]
    body: Any


def journaled(folder: Path, message: Message, error: Exception | None = None) -> list[Event]:
    """Return the journal's events after an app sent a message, or failed to."""

    def send(_producer: object, _name: str, _message: Message, **options: Any) -> str:
        assert options == {"queue": "celery"}
        if error:
            raise error
        return "sent"

    app = SimpleNamespace(
        amqp=SimpleNamespace(send_task_message=send),
        conf=SimpleNamespace(broker_transport_options={}, task_default_delivery_mode=2),
    )
    writer = Writer(folder, node="test", role="producer")
    app_binding.journal_sends(app, writer)
    try:
        assert app.amqp.send_task_message(None, "shop.pay", message, queue="celery") == "sent"
    except ConnectionError:
        assert error
    writer.close()
    return [event for event in journal.read(folder) if event.kind is not Kind.OPENED]


def test_what_the_app_sends_is_journaled_with_what_is_to_follow(tmp_path: Path) -> None:
    def signature(task: str) -> dict[str, Any]:
        return {"task": "t", "options": {"task_id": task}, "kwargs": {}, "subtask_type": None}

    embedded = {"chain": [signature("c"), signature("b")], "chord": None}
    headers = {"id": "a", "eta": "2026-01-02T03:04:05+00:00", "expires": None}
    # Arguments may look like anything.
    body: Any = ([{"options": {"task_id": "no"}}], {}, embedded)
    intended, accepted = journaled(tmp_path, Message(headers, body))
    assert (intended.kind, intended.task) == (Kind.INTENDED, "a")
    assert intended.data == {
        "name": "shop.pay",
        "retries": 0,
        "due": 1767323045.0,
        "follow": ["b", "c"],
        "steps": [{"task": "b", "name": "t", "way": "next"}, {"task": "c", "name": "t", "way": "later"}],
    }
    assert (accepted.kind, accepted.task, accepted.data) == (Kind.ACCEPTED, "a", {"confirmed": False})


def test_a_send_that_fails_is_unknown_and_raises(tmp_path: Path) -> None:
    message = Message({"id": "a"}, ([], {}, {}))
    intended, unknown = journaled(tmp_path, message, ConnectionError("gone"))
    assert intended.kind is Kind.INTENDED
    assert (unknown.kind, unknown.data) == (Kind.UNKNOWN, {"reason": "ConnectionError: gone"})


def test_a_message_of_the_old_protocol_is_journaled_and_one_without_an_id_is_not(tmp_path: Path) -> None:
    intended, accepted = journaled(tmp_path, Message({}, {"id": "a", "task": "shop.pay", "retries": 1}))
    assert (intended.task, intended.data) == ("a", {"name": "shop.pay", "retries": 1})
    assert accepted.task == "a"


def test_a_message_without_an_id_is_sent_and_not_journaled(tmp_path: Path) -> None:
    assert journaled(tmp_path, Message({}, {})) == []


SPEC = """
def test_it(celery_stack):
    assert (celery_stack.spec.app, celery_stack.spec.workers) == ("app", 0)
    assert celery_stack.spec.env == {"SHOP": "1"}
"""


@pytest.mark.parametrize(
    ("settings", "outcome"),
    [
        ('app = "shop.app"\nworkers = 3\nenv = { SHOP = "1" }', {"passed": 1}),
        ('env = { SHOP = "2" }', {"failed": 1}),
        ('evn = { SHOP = "1" }', {"errors": 1}),
        ('env = { SHOP = "1" }\napt = ["libpq5"]', {"passed": 1}),
    ],
)
def test_the_environment_of_the_settings_is_that_of_the_workers_and_the_app_is_pytest_celerys(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, settings: str, outcome: dict[str, int]
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setattr("harness.plugin.Stack", Unstarted)
    pytester.makeconftest(SESSION)
    pytester.makepyfile(SPEC)
    (pytester.path / "harness.toml").write_text(settings)
    options = ["-p", "harness.celery_setup", "-p", "harness.plugin", "-p", "no:cacheprovider"]
    done = pytester.runpytest_inprocess(*options)
    done.assert_outcomes(**outcome)
    done.stdout.no_fnmatch_line("*Traceback*")


def test_the_components_win_over_pytest_celerys_in_every_order_of_loading(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(TESTS)
    for before, after in (((), ()), (("-p", "pytest_celery.plugin"), ()), ((), ("-p", "pytest_celery.plugin"))):
        options = [*before, "-p", "harness.celery_setup", *after, "-p", "harness.plugin", "-p", "no:cacheprovider"]
        done = pytester.runpytest_inprocess("--collect-only", "-q", *options)
        parameters = "celery_setup_worker-celery_rabbitmq_broker-celery_sqlite_backend"
        done.stdout.fnmatch_lines([f"*::test_first[[]{parameters}]", f"*::test_second[[]{parameters}]"])


def test_an_app_connects_anew_after_its_test_and_other_apps_keep_their_connections() -> None:
    first, other = Celery("first", broker="memory://"), Celery("other", broker="memory://elsewhere")
    for app in (first, other):
        with app.producer_pool.acquire() as producer:
            producer.connection.ensure_connection()
    kept = other.pool
    celery_setup.forget_connections(first)
    # The next test's app has the same URL.
    for app in (first, Celery("second", broker="memory://")):
        with app.producer_pool.acquire() as producer:
            assert producer.connection.ensure_connection()
    assert other.pool is kept
    with kept.acquire() as connection:
        assert connection.ensure_connection()
