"""The pytest-celery entry point: tests that are written against `celery_setup` run on the harness without a change.

    python -m pytest -p harness.celery_setup

The broker is the session's RabbitMQ with a vhost and a user for each test. The backend is a SQLite file for each
test. A worker is the harness's own, under the agent, with the app that pytest-celery makes of its fixtures. What is
not supported raises an error. See docs/pytest-celery.md.
"""

import inspect
import os
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import kombu.pools
import pytest

from harness.app_binding import journal_sends
from harness.celery_setup.container import ServedContainer
from harness.celery_setup.docker import ContainerClient
from harness.celery_setup.worker import get_running_processes_info, needed_version, write_app
from harness.containers.app_node import RESULTS_URL_INSIDE
from harness.errors import HarnessError, UsageError, told
from harness.printable import printable
from harness.records.journal import Writer
from harness.stack.project_stack import spec_of
from harness.stack.shared_parts import SharedParts
from harness.stack.stack import Stack

try:
    import pytest_celery
    import pytest_celery.plugin
    from pytest_docker_tools.exceptions import TimeoutError as LogTimeout
except ImportError as error:
    _sentence = f"{error}. Install it with the harness: pip install 'celery-harness[pytest-celery]'"
    if "PYTEST_VERSION" in os.environ:
        # pytest would show the import's traceback, in thirty lines.
        sys.stderr.write(f"error: {_sentence}\n")
        raise SystemExit(2) from None
    raise ImportError(_sentence) from error

_CALM_S = 3.0
"""Seconds that a finished test waits for the next task to end. Tasks that it left open are pending then."""
_DEFAULT_QUEUE = "celery"
_ASKING = "celery-harness-asking"
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
    manager.register(_AskingFixtures(), _ASKING)
    manager.register(_Components(), "celery-harness-components")
    patch = pytest.MonkeyPatch()
    config.add_cleanup(patch.undo)
    _serve(patch)


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


# ------------------------------------------------------------------------------------------------- their classes


def _serve(patch: pytest.MonkeyPatch) -> None:
    """Teach pytest-celery's base classes about the harness's containers. What a test overrides stays overridden."""
    base, node, broker = pytest_celery.CeleryTestContainer, pytest_celery.CeleryTestNode, pytest_celery.CeleryTestBroker
    is_ready, hostname, wait, restart = base.ready, node.hostname, node.wait_for_log, broker.restart
    port = base._wait_port  # noqa: SLF001 - the only place where pytest-celery looks a port up.

    def ready(self: Any) -> Any:
        return self._container.check_up() if isinstance(self._container, ServedContainer) else is_ready(self)

    def wait_port(self: Any, number: str) -> Any:
        # Where this process runs in a container itself, pytest-docker-tools would take the inner port.
        served = isinstance(self._container, ServedContainer)
        return self._container.host_port(number) if served else port(self, number)

    def name_of_host(self: Any) -> Any:
        # The harness gives containers host names that differ from their ids.
        served = isinstance(getattr(self.container, "_container", None), ServedContainer)
        return self.container.attrs["Config"]["Hostname"] if served else hostname(self)

    def wait_for_log(self: Any, log: str, message: str = "", timeout: float = pytest_celery.RESULT_TIMEOUT) -> None:
        inner = getattr(self.container, "_container", None)
        if not isinstance(inner, ServedContainer):
            wait(self, log, message, timeout)
        elif not inner.has_logged(log, timeout):
            raise LogTimeout(f"Timeout of {timeout}s exceeded")

    def restart_broker(self: Any, *args: Any, **options: Any) -> None:
        restart(self, *args, **options)
        if self.app:
            forget_connections(self.app)

    patch.setattr(base, "ready", ready)
    patch.setattr(base, "_wait_port", wait_port)
    patch.setattr(node, "hostname", name_of_host)
    patch.setattr(node, "wait_for_log", wait_for_log)
    patch.setattr(broker, "restart", restart_broker)


def forget_connections(app: Any) -> None:
    """Close an app's connections, and make it connect anew.

    Pools are the process's own, by URL. The next test has the same URL, and a broker that was started again another
    port.
    """
    own = [app._pool, app.amqp._producer_pool]  # noqa: SLF001 - the public names would make pools.
    for group in (kombu.pools.producers, kombu.pools.connections):
        for key, pool in list(group.items()):
            if any(pool is one for one in own):
                pool.force_close_all()
                group.pop(key)
    app._pool = app.amqp._producer_pool = None  # noqa: SLF001 - as Celery itself does after a fork.


# ------------------------------------------------------------------------------------------------------- who asks


class _Request:
    """The fixture that is being set up, and what it may ask for."""

    def __init__(self, request: pytest.FixtureRequest, fixture: str, function: Any) -> None:
        self._request = request
        self.fixture = fixture
        # The function that pytest-docker-tools makes has the class among its globals, and nowhere else.
        self.container_cls = getattr(function, "__globals__", {}).get("wrapper_class")

    def more_options(self, command: Sequence[str] | str) -> list[str]:
        return _without_mingle(self.container_cls, command)

    def stack(self) -> Stack:
        stack: Stack = self._request.getfixturevalue("celery_stack")
        return stack

    def folder(self) -> Path:
        factory: pytest.TempPathFactory = self._request.getfixturevalue("tmp_path_factory")
        return factory.mktemp("celery_setup")


class _AskingFixtures:
    """Knows which fixture is being set up at present: pytest-docker-tools does not tell its client who asks."""

    def __init__(self) -> None:
        self._requests: list[_Request] = []

    def __call__(self) -> _Request:
        return self._requests[-1]

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, object, object]:
        self._requests.append(_Request(request, fixturedef.argname, fixturedef.func))
        try:
            with _plain_failure():
                return (yield)
        finally:
            self._requests.pop()


# ---------------------------------------------------------------------------------------------------- the fixtures


class _Components:
    """The fixtures that replace pytest-celery's."""

    # A session's fixture must not be a method of an object.
    @pytest.fixture(scope="session")
    @staticmethod
    def docker_client(request: pytest.FixtureRequest, _harness_session: SharedParts) -> Iterator[ContainerClient]:
        asking: Any = request.config.pluginmanager.get_plugin(_ASKING)
        client = ContainerClient(_harness_session, asking)
        yield client
        client.close()

    @pytest.fixture
    def celery_stack(self, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
        """Provide the harness's stack below `celery_setup`, for what pytest-celery has no interface for."""
        # The app is pytest-celery's, and each worker's options are those of its command.
        own = {"app": "app", "folder": tmp_path_factory.mktemp("celery_setup"), "workers": 0, "options": ()}
        # What the project says of its own app does not concern it.
        own |= {"pythonpath": (), "queues": (), "prepare": (), "writable": False}
        settings = request.getfixturevalue("_harness_settings")
        with _plain_failure():
            asked = spec_of(settings.over("celery_setup", own), workers=0, own_image=False)
            spec = replace(asked, guest=True)
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
        self, docker_client: ContainerClient, default_rabbitmq_broker_cls: Any, default_rabbitmq_broker_image: str
    ) -> Any:
        return default_rabbitmq_broker_cls(docker_client.run(default_rabbitmq_broker_image))

    @pytest.fixture(params=["celery_sqlite_backend"])
    def celery_backend(self, request: pytest.FixtureRequest) -> Any:
        return request.getfixturevalue(request.param)

    @pytest.fixture
    def celery_sqlite_backend(self, celery_stack: Stack) -> SQLiteTestBackend:
        return SQLiteTestBackend(celery_stack.folder.results)

    @pytest.fixture
    def celery_setup_app(self, celery_setup_app: Any, default_worker_container_cls: Any) -> Any:
        """Provide pytest-celery's app, whose default queue is the worker's.

        What pytest-celery itself sends without a queue is for a back end that needs no task of its own. Here the
        body of a chord waits for a task, which would go where nobody consumes.
        """
        queue = default_worker_container_cls.worker_queue()
        # What update_app_config of the test's own set is here, and nothing has been read from the app yet.
        if queue != _DEFAULT_QUEUE and "task_default_queue" not in celery_setup_app._preconf:  # noqa: SLF001 - see above.
            celery_setup_app.conf.task_default_queue = queue
        return celery_setup_app

    @pytest.fixture
    def default_worker_initial_content(self, default_worker_initial_content: Mapping[str, bytes]) -> dict[str, bytes]:
        return without_psutil(default_worker_initial_content)

    @pytest.fixture
    def default_worker_container(
        self, _new_container: NewWorker, default_worker_container_cls: Any, default_worker_command: Sequence[str]
    ) -> Any:
        return _new_container(default_worker_container_cls, default_worker_command)

    @pytest.fixture
    def celery_harness_worker(
        self,
        _new_container: NewWorker,
        default_worker_cls: Any,
        default_worker_container_cls: Any,
        default_worker_app: Any,
    ) -> NewWorker:
        """Return a function that starts one more worker, for a cluster of several."""

        def start(container_cls: Any = default_worker_container_cls, command: Sequence[str] | None = None) -> Any:
            container = _new_container(container_cls, container_cls.command() if command is None else command)
            return default_worker_cls(container=container, app=default_worker_app)

        return start

    @pytest.fixture
    def _new_container(
        self,
        request: pytest.FixtureRequest,
        docker_client: ContainerClient,
        tmp_path_factory: pytest.TempPathFactory,
        default_worker_env: Mapping[str, str],
        default_worker_initial_content: Mapping[str, bytes],
    ) -> NewWorker:
        if ports := request.getfixturevalue("default_worker_ports"):
            raise UsageError(f"default_worker_ports is {ports!r}; a worker of the harness publishes no ports.")
        more = _own_log_level(request)

        def start(container_cls: Any, command: Sequence[str]) -> Any:
            with _plain_failure():
                served = docker_client.worker(
                    command,
                    more=[*_without_mingle(container_cls, command), *more],
                    env=default_worker_env,
                    app_folder=write_app(default_worker_initial_content, tmp_path_factory.mktemp("app")),
                    version=needed_version(container_cls),
                )
            return container_cls(served)

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
        forget_connections(app)
        journal.close()


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


def _without_mingle(container_cls: Any, command: Sequence[str] | str) -> list[str]:
    """Return the option that saves a second at each start. A command of the test's own is not changed."""
    is_default = issubclass(container_cls or object, pytest_celery.CeleryWorkerContainer) and (
        list(command) == default_command(container_cls)
    )
    return ["--without-mingle"] if is_default else []


def _own_log_level(request: pytest.FixtureRequest) -> list[str]:
    """Return the option for the fixture with the log level, if a test has a fixture of its own for it."""
    name = "default_worker_celery_log_level"
    fixtures = request._fixturemanager.getfixturedefs(name, request.node) or ()  # noqa: SLF001 - nothing public tells.
    # pytest-celery's own would say what some folder's class says: it is of the session.
    if not fixtures or fixtures[-1].func.__module__.startswith("pytest_celery."):
        return []
    return [f"--loglevel={request.getfixturevalue(name)}"]


def without_psutil(content: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return a worker's files, with a process list that needs no psutil: an image of the user's own may lack it."""
    stock, own = inspect.getsource(pytest_celery.utils), inspect.getsource(get_running_processes_info)
    return {name: own.encode() if text == stock.encode() else text for name, text in content.items()}
