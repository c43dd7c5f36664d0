"""The pytest-celery entry point: tests that are written against `celery_setup` run on the harness without a change.

    python -m pytest -p harness.celery_setup

The broker is the session's RabbitMQ with a vhost and a user for each test. The backend is a SQLite file for each
test. A worker is the harness's own, under the agent, with the app that pytest-celery makes of its fixtures. What is
not supported raises an error. See docs/pytest-celery.md.
"""

import inspect
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.app_binding import journal_sends
from harness.celery_setup_worker import (
    BUILD,
    build_fixture,
    check,
    get_running_processes_info,
    parsed_command,
    worker_env,
)
from harness.containers.app_node import RESULTS_URL_INSIDE, AppNode
from harness.containers.node import Node
from harness.containers.ownership import RUN_LABEL
from harness.containers.rabbitmq import AMQP_PORT
from harness.containers.worker import Worker
from harness.errors import HarnessError, StartError, UsageError, told
from harness.printable import printable
from harness.records.journal import Writer
from harness.stack.project_stack import spec_of
from harness.stack.shared_parts import SharedParts
from harness.stack.stack import Stack

try:
    import pytest_celery
    import pytest_celery.plugin
except ImportError as error:
    _sentence = f"{error}. Install it with the harness: pip install 'celery-harness[pytest-celery]'"
    if "PYTEST_VERSION" in os.environ:
        # pytest would show the import's traceback, in thirty lines.
        sys.stderr.write(f"error: {_sentence}\n")
        raise SystemExit(2) from None
    raise ImportError(_sentence) from error

_CALM_S = 3.0
"""Seconds that a finished test waits for the next task to end. Tasks that it left open are pending then."""
_LOG_LINES = 20
_FOREIGN = ("celery_redis_backend", "celery_redis_broker", "celery_memcached_backend", "celery_localstack_broker")
_OWN_CONTAINER = ("default_pytest_celery_network", "celery_base_worker_image", "default_worker_volume")
NewWorker = Callable[..., Any]
"""Starts one more worker, of `container_cls` (default_worker_container_cls) with `command` (the class's own)."""


def pytest_configure(config: pytest.Config) -> None:
    """Replace pytest-celery's components with the harness's.

    If two plugins have fixtures with one name, the one registered later wins. `-p` comes before installed plugins, so
    the fixtures cannot simply be in this module.
    """
    manager = config.pluginmanager
    if not manager.is_registered(pytest_celery.plugin):
        manager.register(pytest_celery.plugin, "pytest_celery.plugin")
    manager.register(_Components(), "celery-harness-components")


# ------------------------------------------------------------------------------------------------- the components


class SQLiteTestBackend(pytest_celery.CeleryTestBackend):  # type: ignore[misc]  # untyped, as said above.
    """Results in a SQLite file. It has no container: it cannot be killed or restarted, and it has no logs."""

    def __init__(self, path: Path) -> None:
        """Take the file's path in the test process; workers see the same file at RESULTS_URL_INSIDE."""
        super().__init__(None)
        self._path = path

    def ready(self) -> bool:
        """Return whether the file exists."""
        return self._path.exists()

    def config(self, *_: Any, **__: Any) -> dict[str, str]:
        """Return the URL for workers and the URL for this process."""
        return {"url": RESULTS_URL_INSIDE, "host_url": f"db+sqlite:///{self._path}"}

    def logs(self) -> str:
        """Return an empty string."""
        return ""

    def name(self) -> str:
        """Return the file's name."""
        return self._path.name

    def hostname(self) -> str:
        """Raise UsageError: a file has no host."""
        raise UsageError("the backend is a SQLite file, which has no host.")

    def kill(self, *_: Any, **__: Any) -> None:
        """Raise UsageError: there is no server."""
        raise UsageError("the backend is a SQLite file: there is no server to kill.")

    def restart(self, *_: Any, **__: Any) -> None:
        """Raise UsageError: there is no server."""
        raise UsageError("the backend is a SQLite file: there is no server to restart.")

    def teardown(self) -> None:
        """Do nothing: the file stays in the run folder."""


class _OnNode:
    """The actions of a pytest-celery container that go through the harness's node, so that the node knows of them."""

    _node: Node

    def ready(self) -> bool:
        """Return True if the node runs: its starter waits until it is ready. Raises StartError if it does not run."""
        if not self._node.is_up():
            said = self._node.last_lines(_LOG_LINES)
            raise StartError(f"{self._node.name} {self._node.container.state()}. Its last log lines:\n{said}")
        return True

    def kill(self, signal: str | int | None = None) -> None:
        self._node.kill("SIGKILL" if signal is None else str(signal))

    def restart(self, timeout: int = 10) -> None:
        self._node.restart(timeout)
        self._node.wait_ready()


class _Broker(_OnNode):
    """The broker's container, as one vhost sees it."""

    _stack: Stack
    _since_t: float
    _container: Any

    @property
    def url(self) -> str:
        return self._stack.login.amqp_url_inside

    @property
    def host_url(self) -> str:
        # A restart publishes another port.
        return self._stack.broker.refresh(self._stack.login).amqp_url_outside

    @property
    def port(self) -> int:
        return self._stack.broker.container.host_port(AMQP_PORT)[1]

    @property
    def vhost(self) -> str:
        return self._stack.login.vhost

    def logs(self) -> str:
        """Return the log since this test began: other tests share the broker."""
        text: bytes = self._container.logs(since=self._since_t)
        return text.decode(errors="replace")


class _Named:
    """A worker's name as Celery knows it: the harness gives containers host names that differ from their ids."""

    container: Any
    worker_name: str

    def hostname(self) -> str:
        return f"{self.worker_name}@{self.container.attrs['Config']['Hostname']}"


def _with(mixin: type, cls: type, **members: Any) -> Any:
    """Return a subclass of `mixin` and `cls`, in this order; `cls` may be a class of the test's own."""
    return type(cls.__name__, (mixin, cls), members)


# ---------------------------------------------------------------------------------------------------- the fixtures


def _refusing(name: str, scope: Any = "function") -> Any:
    # A session's fixture must not be a method of an object.
    @pytest.fixture(name=name, scope=scope)  # type: ignore[misc]  # mypy takes a method outside of a class amiss.
    @staticmethod
    def refuse() -> None:
        raise UsageError(
            f"{name} cannot be had with harness.celery_setup. The broker is RabbitMQ (celery_rabbitmq_broker), the "
            "backend SQLite (celery_sqlite_backend), a worker celery_setup_worker or celery_harness_worker(); "
            "containers and images of one's own cannot join them. Leave `-p harness.celery_setup` out for those."
        )

    return refuse


class _Components:
    """The fixtures that replace pytest-celery's."""

    @pytest.fixture
    def celery_stack(self, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
        """Provide the harness's stack below `celery_setup`, for what pytest-celery has no interface for."""
        # The app is pytest-celery's, and each worker's options are those of its command.
        own = {"app": "app", "folder": tmp_path_factory.mktemp("celery_setup"), "workers": 0, "options": ()}
        # What the project says of its own app does not concern it.
        own |= {"pythonpath": (), "queues": (), "prepare": (), "writable": False}
        settings = request.getfixturevalue("_harness_settings")
        with _plain_failure():
            spec = spec_of(settings.over("celery_setup", own), workers=0, own_image=False)
        with request.getfixturevalue("_harness_running")(spec, noted_after_s=_CALM_S) as stack:
            yield stack
            # Other tests share the broker.
            if not stack.broker.is_up():
                stack.broker.start()
                stack.broker.wait_ready()

    @pytest.fixture(params=["celery_rabbitmq_broker"])
    def celery_broker(self, request: pytest.FixtureRequest) -> Any:
        return request.getfixturevalue(request.param)

    @pytest.fixture
    def default_rabbitmq_broker(
        self, request: pytest.FixtureRequest, celery_stack: Stack, default_rabbitmq_broker_cls: type
    ) -> Any:
        broker = celery_stack.broker
        cls = _with(_Broker, default_rabbitmq_broker_cls, _node=broker, _stack=celery_stack, _since_t=time.time())
        return cls(_docker(_session(request), broker))

    @pytest.fixture(params=["celery_sqlite_backend"])
    def celery_backend(self, request: pytest.FixtureRequest) -> Any:
        return request.getfixturevalue(request.param)

    @pytest.fixture
    def celery_sqlite_backend(self, celery_stack: Stack) -> SQLiteTestBackend:
        return SQLiteTestBackend(celery_stack.folder.results)

    @pytest.fixture
    def default_worker_container(
        self, _new_container: NewWorker, default_worker_container_cls: Any, default_worker_command: Sequence[str]
    ) -> Any:
        return _new_container(default_worker_container_cls, default_worker_command)

    @pytest.fixture
    def celery_setup_worker(
        self, default_worker_cls: type, default_worker_container: Any, default_worker_app: Any
    ) -> Any:
        return _with(_Named, default_worker_cls)(container=default_worker_container, app=default_worker_app)

    @pytest.fixture
    def celery_harness_worker(
        self,
        _new_container: NewWorker,
        default_worker_cls: type,
        default_worker_container_cls: Any,
        default_worker_app: Any,
    ) -> NewWorker:
        """Return a function that starts one more worker, for a cluster of several."""

        def start(container_cls: Any = default_worker_container_cls, command: Sequence[str] | None = None) -> Any:
            container = _new_container(container_cls, container_cls.command() if command is None else command)
            return _with(_Named, default_worker_cls)(container=container, app=default_worker_app)

        return start

    @pytest.fixture
    def _new_container(
        self,
        request: pytest.FixtureRequest,
        celery_stack: Stack,
        tmp_path_factory: pytest.TempPathFactory,
        default_worker_env: Mapping[str, str],
        default_worker_initial_content: Mapping[str, bytes],
    ) -> NewWorker:
        session = _session(request)
        built_with = request.getfixturevalue("default_worker_container_session_cls")
        fixtures = {name: request.getfixturevalue(build_fixture(name)) for name in BUILD}
        log_level = request.getfixturevalue("default_worker_celery_log_level")
        ports = request.getfixturevalue("default_worker_ports")

        def start(container_cls: Any, command: Sequence[str]) -> Any:
            with _plain_failure():
                check(container_cls, built_with, fixtures, ports)
                app, options = parsed_command(command)
                if list(command) == default_command(container_cls):
                    # Saves a second at each start. A command of the test's own is not changed.
                    options.append("--without-mingle")
                if log_level != built_with.log_level():
                    options.append(f"--loglevel={log_level}")
                node = AppNode(
                    image=session.worker_image,
                    app=app,
                    app_folder=write_app(default_worker_initial_content, tmp_path_factory.mktemp("app")),
                    run_folder=celery_stack.folder.path,
                    network=session.network,
                    broker_url=celery_stack.login.amqp_url_inside,
                    # What the test's own fixtures say wins over the settings of the project.
                    env={**celery_stack.spec.env, **worker_env(default_worker_env, celery_stack.login.amqp_url_inside)},
                    labels={RUN_LABEL: celery_stack.folder.path.name},
                )
                name = f"worker-{len(celery_stack.workers) + 1}"
                worker = Worker(session.engine, node, name=name, options=options)
                celery_stack.workers.append(worker)
                celery_stack.add(worker)
            return _with(_OnNode, container_cls, _node=worker)(_docker(session, worker))

        return start

    @pytest.fixture
    def celery_setup(self, celery_setup: Any, celery_stack: Stack) -> Iterator[Any]:
        """Provide pytest-celery's fixture, or the test's own, with its app's sends in the journal."""
        app = celery_setup.app
        # pytest-celery clones the app to make the worker's files, and leaves shared tasks with the clone.
        app.set_current()
        journal = Writer(celery_stack.folder.journal, node="celery_setup", role="producer")
        journal_sends(app, journal)
        yield celery_setup
        # The vhost is about to be deleted. A connection that it closes would leave an open socket.
        app.pool.force_close_all()
        journal.close()


for _name in _FOREIGN:
    setattr(_Components, _name, _refusing(_name))
for _name in _OWN_CONTAINER:
    setattr(_Components, _name, _refusing(_name, "session"))


def _session(request: pytest.FixtureRequest) -> SharedParts:
    session: SharedParts = request.getfixturevalue("_harness_session")
    return session


def _docker(session: SharedParts, node: Node) -> Any:
    """Return the container of a node as docker-py's object."""
    return session.engine.native(node.container)


@contextmanager
def _plain_failure() -> Iterator[None]:
    """Make pytest print an error of the harness without a traceback."""
    try:
        yield
    except HarnessError as error:
        raise pytest.fail.Exception(printable(told(error)), pytrace=False) from None


# ------------------------------------------------------------------------------------------------------ the worker


def default_command(container_cls: Any) -> Sequence[str]:
    """Return the command that pytest-celery's own class would run with the names of this class."""
    command: Sequence[str] = pytest_celery.CeleryWorkerContainer.command.__func__(container_cls)
    return command


def write_app(content: Mapping[str, bytes], folder: Path) -> Path:
    """Write the files that pytest-celery would put into its volume. Return the folder."""
    stock = inspect.getsource(pytest_celery.utils).encode()
    for name, text in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(inspect.getsource(get_running_processes_info).encode() if text == stock else text)
    return folder
