"""The pytest plugin: a stack for each test, and an accounting of every task at the end.

    @pytest.mark.stack(app="scenarios.app", workers=2, options=["--concurrency=4"])  # or in the project's settings.
    def test_receipts(stack, mailbox, results):
        stack.producer.send("scenarios.emails.send_receipt", kwargs={"order": order})
        assert stack.settle().passed

Fixtures: `stack`, fresh and isolated; `mailbox`, which adds a mail server to the stack; `results`, the result tables;
`bound_app`, the app in the test process, whose own sends go to the stack. A test that does not settle, or sends more
tasks afterwards, is settled at its end, and fails unless the audit passes.
"""

import re
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from harness.audit.audit import Audit
from harness.audit.results import Results
from harness.audit.run_folder import RUNS, RunFolder
from harness.console import Console, columns_of
from harness.containers.mailbox import Mailbox
from harness.errors import HarnessError, UsageError, told
from harness.printable import printable
from harness.project.settings import Settings, load
from harness.records.expectation import Promise
from harness.report import markdown, step_summary, terminal
from harness.report.write_report import try_to_write
from harness.stack.project_stack import spec_of
from harness.stack.shared_parts import SharedParts
from harness.stack.stack import Stack, StackSpec

MARKER = (
    "stack(app=None, app_folder=None, workers=None, options=None, env=None, promise=None, own_broker=False, "
    "link=False, movable_clocks=False, small_disk=False): what the `stack` fixture starts. What it leaves out is taken "
    "from the project's settings. app: what `celery -A` gets; app_folder: where it is imported from, relative to the "
    "rootdir; "
    "workers: how many, one unless said; options: of `celery worker`; env: more environment for the workers; promise: "
    "a harness.Promise; own_broker: True for a broker that no other test uses, which takes seconds to start; link: "
    "True if the broker is reached through a link, for the faults of connections; movable_clocks: True for the fault "
    "ClockJump; small_disk: True, with own_broker=True, for the fault FullDisk."
)
_stack_key = pytest.StashKey[Stack]()
_failed_key = pytest.StashKey[bool]()
_audits_key = pytest.StashKey[list[tuple[str, Audit, Path]]]()
_interrupts_key = pytest.StashKey["_Interrupts"]()
_ATTRIBUTE = "celery_harness"
"""The attribute of a test's report with its audit and its run folder. A worker of pytest-xdist sends only reports."""


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker; let SIGTERM clean up as Ctrl-C does."""
    config.addinivalue_line("markers", MARKER)
    config.stash[_audits_key] = []
    config.pluginmanager.register(_Accountant(config.stash[_audits_key]), "celery-harness-accountant")
    config.stash[_interrupts_key] = _Interrupts()
    config.pluginmanager.register(config.stash[_interrupts_key], "celery-harness-interrupts")
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)
        config.add_cleanup(_restore_sigterm)
    # Cleanups are called in reverse order.
    config.add_cleanup(config.stash[_interrupts_key].end)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    # As pytest itself does for Ctrl-C: fixtures are torn down, and the summary is written.
    raise KeyboardInterrupt("SIGTERM")


def _restore_sigterm() -> None:
    # After an interrupt it is ignored until the end of the process.
    if signal.getsignal(signal.SIGTERM) is _terminate:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.fixture(scope="session")
def _harness_session(request: pytest.FixtureRequest) -> Iterator[SharedParts]:
    reporter: Any = request.config.pluginmanager.get_plugin("terminalreporter")
    capture: Any = request.config.pluginmanager.get_plugin("capturemanager")

    def say(line: str) -> None:
        if reporter is None:  # As in a worker of pytest-xdist.
            return
        with capture.global_and_fixture_disabled():
            reporter.write_line(f"harness: {printable(line)}")

    request.config.stash[_interrupts_key].begin()
    with SharedParts(say) as session:
        try:
            session.start()
        except HarnessError as error:
            # pytest caches this for every test that asks for a stack, so nothing is tried twice.
            raise _failed(error) from None
        yield session


@pytest.fixture
def _harness_settings(request: pytest.FixtureRequest) -> Settings:
    """Return the settings of the project that the test belongs to; also for `harness.celery_setup`.

    Where several projects share a rootdir, each has its own.
    """
    try:
        nearest = load(request.path.parent)
        return nearest if nearest.project is not None else load(request.config.rootpath)
    except HarnessError as error:
        raise _failed(error) from None


@pytest.fixture
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    """Provide a fresh stack, as the marker `stack` and the settings describe it; all is removed after the test."""
    try:
        spec, promise = _marked(request)
    except HarnessError as error:
        raise _failed(error) from None
    with _running(request, spec, promise) as running:
        yield running


@pytest.fixture
def _harness_running(request: pytest.FixtureRequest) -> Callable[..., AbstractContextManager[Stack]]:
    """Return a function that runs a stack as `stack` does; for `harness.celery_setup`, whose tests have no marker."""
    return partial(_running, request)


@contextmanager
def _running(
    request: pytest.FixtureRequest,
    spec: StackSpec,
    promise: Promise | None = None,
    *,
    noted_after_s: float | None = None,
) -> Iterator[Stack]:
    """Run a stack for one test; account for its tasks and take it down after the test.

    Args:
        request: of the test.
        spec: what to start.
        promise: what is demanded of every task.
        noted_after_s: if given, the audit is only recorded and fails no test; seconds to wait for the next task to end.
    """
    try:
        # Only after the spec was found valid: this starts a broker.
        session: SharedParts = request.getfixturevalue("_harness_session")
        folder = RunFolder.create(request.config.rootpath / RUNS, _slug(request.node.name))
        running = Stack(session, spec, folder, promise=promise, about={"test": request.node.nodeid})
        running.__enter__()
    except HarnessError as error:
        raise _failed(error) from None
    request.node.stash[_stack_key] = running
    wrong: list[str] = []
    try:
        yield running
        if not request.node.stash.get(_failed_key, False):
            with _noted(wrong):
                wrong += _unaccounted(running, noted_after_s)
            if wrong:
                # The nodes are gone before pytest reports this, so that their logs have to be in the text.
                wrong += [f"--- {title} ---\n{text}" for title, text in _sections(running)]
    finally:
        with _noted(wrong):
            running.close()
        if wrong or request.node.stash.get(_failed_key, False):
            _report(request.node, running)
    if wrong:
        pytest.fail("\n".join(wrong), pytrace=False)


def _report(item: pytest.Item, running: Stack) -> None:
    """Write the report of a test that failed, and show where it is. Of a passed test, nobody reads one."""
    said: list[str] = []
    written = try_to_write(running.folder.path, said.append)
    item.add_report_section(
        "teardown", "report of the run", printable("\n".join([*said, *([str(written)] if written else [])]))
    )


def _marked(request: pytest.FixtureRequest) -> tuple[StackSpec, Promise | None]:
    """Return the stack and the promise of a test's marker and the settings. Raises UsageError."""
    marker = request.node.get_closest_marker("stack")
    args, said = ((), {}) if marker is None else (marker.args, marker.kwargs)
    try:
        return _spec(request, *args, **said)
    except TypeError as error:
        said = str(error).removeprefix("_spec() ")
        raise UsageError(f"{request.node.nodeid} has a marker that cannot be: {said}. There is {MARKER}") from error


def _spec(
    request: pytest.FixtureRequest,
    app: str | None = None,
    *,
    app_folder: Path | str | None = None,
    workers: int | None = None,
    options: Sequence[str] | None = None,
    env: Mapping[str, str] | None = None,
    promise: Promise | None = None,
    own_broker: bool = False,
    link: bool = False,
    movable_clocks: bool = False,
    small_disk: bool = False,
) -> tuple[StackSpec, Promise | None]:
    """Return the stack and the promise of the marker; its arguments are the arguments of this function."""
    settings: Settings = request.getfixturevalue("_harness_settings")
    said = {"app": app, "folder": app_folder, "workers": workers, "options": options, "env": env}
    holding = settings.over("the marker", said, folder=request.config.rootpath)
    if holding.app is None:
        raise UsageError(
            f"{request.node.nodeid} uses `stack`, and no app is named: say what `celery -A` takes, in the marker, as "
            '@pytest.mark.stack(app="shop.app"), or for all tests in pyproject.toml, as app = "shop.app" below '
            "[tool.harness]."
        )
    spec = spec_of(holding, workers=1, mailbox="mailbox" in request.fixturenames)
    spec = replace(spec, own_broker=own_broker, link=link, movable_clocks=movable_clocks, small_disk=small_disk)
    return spec, promise


def _failed(error: HarnessError) -> BaseException:
    """Return the exception that makes pytest print only the message."""
    return pytest.fail.Exception(_text(error), pytrace=False)


def _text(error: HarnessError) -> str:
    return printable(told(error))


@contextmanager
def _noted(wrong: list[str]) -> Iterator[None]:
    """Add an error of the harness to `wrong` instead of raising it, so that the following steps still run."""
    try:
        yield
    except HarnessError as error:
        wrong.append(_text(error))


def _unaccounted(running: Stack, noted_after_s: float | None) -> list[str]:
    """Settle what a passed test sent after its last audit. Return the failure in lines; empty if there is none."""
    ledger = running.ledger
    # Tasks that the app itself sends after the test's audit are not the test's.
    if not ledger.sent or (running.audited is not None and running.accounted >= ledger.sent_to_app):
        return []
    limits = running.limits_left
    if noted_after_s is not None:
        running.settle(noted_after_s, limit_s=limits.limit_s)
        return []
    audit = running.settle(limits.timeout_s, limit_s=limits.limit_s)
    return [] if audit.passed else ["the test passed, its tasks did not.", audit.text()]


def _sections(running: Stack) -> Iterator[tuple[str, str]]:
    """Yield what a failing test shows of its stack, as title and text: the run folder, the nodes' last log lines."""
    yield "run folder", printable(str(running.folder.path))
    try:
        for name, text in running.logs():
            yield f"last log lines of {name}", printable(text)
    except HarnessError as error:
        # An exception here would break pytest's report. If one node cannot be read, the next would hang as well.
        yield "last log lines", printable(f"They could not be read: {error}")


@pytest.fixture
def mailbox(stack: Stack) -> Mailbox:
    """Provide the mail server of the test's stack."""
    return stack.mailbox


@pytest.fixture
def bound_app(stack: Stack) -> Iterator[Any]:
    """Provide the stack's app, imported into this process: what the test and the app's own code send is accounted for.

    See `Stack.app`.
    """
    with ExitStack() as binding:
        try:
            app = binding.enter_context(stack.app())
        except HarnessError as error:
            raise _failed(error) from None
        yield app


@pytest.fixture
def results(stack: Stack) -> Results:
    """Provide the result tables of the test's stack."""
    return stack.results


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the nodes' last log lines and the run folder to a failing test, while its stack is still up."""
    made = yield
    running = item.stash.get(_stack_key, None)
    # In the setup another fixture failed; if one fails at its teardown, the stack may be gone already.
    if made.failed and running is not None and call.when in {"setup", "call"}:
        item.stash[_failed_key] = True
        if running.audited is not None:
            # An assertion shows only the beginning of it.
            made.sections.append(("accounting", running.audited.text()))
        made.sections.extend(_sections(running))
    if call.when == "teardown" and running is not None and running.audited is not None:
        said = {"name": item.name, "audit": running.audited.to_json(), "folder": str(running.folder.path)}
        setattr(made, _ATTRIBUTE, said)
    return made


class _Accountant:
    """Collects the audits from the tests' reports, also from other processes."""

    def __init__(self, audits: list[tuple[str, Audit, Path]]) -> None:
        self._audits = audits

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the audit out of a report that carries one."""
        said = getattr(report, _ATTRIBUTE, None)
        if said is not None:
            self._audits.append((said["name"], Audit.from_json(said["audit"]), Path(said["folder"])))


class _Interrupts:
    """A signal handler while a session is up: the first Ctrl-C or SIGTERM starts its end, later ones are ignored."""

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        """The handlers that this one has replaced."""

    def begin(self) -> None:
        """Become the handler of both signals, where the default one would interrupt."""
        if threading.current_thread() is threading.main_thread():
            for number, known in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, _terminate)):
                if signal.getsignal(number) is known:
                    self._before[number] = signal.signal(number, self)

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        """Interrupt, once."""
        for other in self._before:
            signal.signal(other, signal.SIG_IGN)
        raise KeyboardInterrupt(signal.Signals(number).name)

    def pytest_runtest_setup(self) -> None:
        """Interrupt again at the next signal: the last interrupt was caught, and another test begins."""
        for number in self._before:
            signal.signal(number, self)

    def end(self) -> None:
        """Restore the earlier handlers, unless the process is about to end because of an interrupt."""
        for number, before in self._before.items():
            if signal.getsignal(number) is self:
                signal.signal(number, before)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the accounting table: a line for each stack that was audited."""
    audits = config.stash[_audits_key]
    if not audits:
        return
    terminalreporter.section("celery harness")
    console = Console(
        file=terminalreporter._tw._file,  # noqa: SLF001 - the writer of the terminal has no public name.
        width=columns_of(terminalreporter._tw._file),  # noqa: SLF001 - the same.
        force_terminal=terminalreporter.hasmarkup,
        no_color=not terminalreporter.hasmarkup,
    )
    console.print(terminal.ledger([(name, audit) for name, audit, _ in audits]))
    folders = audits[-1][2].parent
    console.print(f"run folders: {folders}", soft_wrap=True)

    def complain(text: str) -> None:
        sys.stderr.write(f"harness: {printable(text)}\n")

    rows = [(name, audit) for name, audit, _ in audits]
    step_summary.append(lambda: markdown.of_session(rows, str(folders)), complain)


def _slug(name: str) -> str:
    """Return a test's name in a form for the names of a folder and a vhost."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-")[:60]
