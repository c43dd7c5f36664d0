"""What one Locust process does in a load test, from its first event to its exit code.

A worker of Locust's makes its share of the load, and that is all. Every other process starts a stack process, has it
bring a stack up when a run starts, drives the legs of the run, has it drained, audited and taken down when the run
stops, and ends with the worst exit code of its runs.
"""

import contextlib
import logging
import os
import shlex
import signal
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import TextIO

import gevent
from gevent.event import Event
from locust import User
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from harness.console import columns_of
from harness.errors import HarnessError, UsageError
from harness.loadtest.generators import Generator
from harness.loadtest.load_processes import LoadProcesses, LocustMaster, LocustWorker, OneProcess
from harness.loadtest.messages import Check, Closed, Done, Drop, Live, Open, Opened, Order
from harness.loadtest.options import celery_workers, check
from harness.loadtest.run_legs import Legs, Part, say
from harness.loadtest.stack_client import StackClient
from harness.measure.durations import parse_duration_s, write_duration
from harness.measure.load_account import NOTHING_YET, Asked, Sample
from harness.measure.stages import Stage
from harness.printable import printable
from harness.scenario import Scenario

_log = logging.getLogger("harness.load")

_SPAWN_S = 30.0
"""How long Locust may take to start the senders."""
_BURST = 200
"""How many figures are handed to Locust before other greenlets have their turn."""
_ORPHAN_S = 1.0
_WRONG_USE = 2
_INTERRUPTED = 130
_BADNESS = (0, 3, 1, _WRONG_USE, _INTERRUPTED)
"""Exit codes, from good to bad."""


class TaskFailed(Exception):  # noqa: N818 - it names what happened.
    """A task ended otherwise than expected."""


class Phase(StrEnum):
    """Of a run, in the process that owns the stack."""

    CHECKING = "checking"
    REST = "rest"
    OPENING = "opening"
    ON = "on"
    CLOSING = "closing"


class LocustRun:
    """Of the load tests of one Locust process, one after another."""

    def __init__(self, environment: Environment, parts: Mapping[str, Part]) -> None:
        """Nothing is started yet. `parts` are the classes that take part, by name."""
        self.environment = environment
        runner = environment.runner
        self._parts = parts
        self.generator = Generator({name: one.scenario for name, one in parts.items()}, self._fire)
        self._worker = LocustWorker(runner, self.generator) if isinstance(runner, WorkerRunner) else None
        self._processes: LoadProcesses = (
            LocustMaster(runner) if isinstance(runner, MasterRunner) else OneProcess(self.generator)
        )
        self._client: StackClient | None = None
        self._phase = Phase.REST
        self._legs: Legs | None = None
        """Of the run that is on, or was on last."""
        self._run_time_s: float | None = None
        self._spawned = Event()
        self._opening: gevent.Greenlet[[StackClient], None] | None = None
        self._driver: gevent.Greenlet[[], None] | None = None
        self._freezing: gevent.Greenlet[[], None] | None = None
        self._closing: gevent.Greenlet[[], None] | None = None
        self._finishing: gevent.Greenlet[[], None] | None = None
        self._is_broken = False
        """The run goes wrong, and what is left of it has no account."""
        self._has_begun = self._is_leaving = self._is_told_to_end = self._is_abandoned = False
        self._exit_code: int | None = None
        """The worst of all runs; None before any has come to its end."""
        self._unread: str | None = None
        """The report that was not shown yet."""
        self.closed: Closed | None = None
        """What the stack process said at the end of the last run."""
        self.live = NOTHING_YET
        """The last second of the run that is on, or was on last."""

    @property
    def phase(self) -> str:
        """Of the run: `checking`, `rest`, `opening`, `on` or `closing`."""
        return self._phase.value

    # ------------------------------------------------------------------------------------ what Locust's events lead to

    def prepare(self) -> None:
        """Start the stack process, and see that the run can be. Raises HarnessError if it cannot."""
        gevent.signal_handler(signal.SIGINT, self._on_ctrl_c)
        options = self.environment.parsed_options
        if self._worker is not None:
            if options.processes:
                gevent.spawn(self._end_with_parent, self._worker)
            return
        if options.headless or options.autostart:
            # Locust would count it from now on, with all that it takes to bring a stack up.
            self._run_time_s, options.run_time = options.run_time, None
            if self._run_time_s is not None or options.stages or options.find_knee or options.find_workers:
                logging.getLogger("locust.main").addFilter(_is_true)
            if isinstance(self._processes, LocustMaster) and options.expect_workers_max_wait:
                # Locust would end with 1, which means a broken promise.
                gevent.spawn_later(
                    options.expect_workers_max_wait, self._give_up, self._processes, options.expect_workers
                )
                options.expect_workers_max_wait = 0
        self._client = StackClient(on_say=say, on_live=self._on_live, on_gone=self._on_gone)
        self._phase = Phase.CHECKING
        try:
            self._client.ask(Check(order=self._order()), Done)
        except HarnessError:
            self._client.end()
            if not self._is_abandoned:
                raise
        if self._is_abandoned:
            sys.exit(_INTERRUPTED)
        self._phase = Phase.REST

    def start(self) -> None:
        """Bring the stack up, and begin as soon as all senders are there."""
        if self._worker is not None or self._client is None:
            return
        if self._closing is not None:
            self._closing.join()
        self._take_run_time()
        self._spawned.clear()
        self._freezing = self._closing = None
        self._legs, self.live = None, NOTHING_YET
        self._is_broken, self._has_begun, self._phase = False, True, Phase.OPENING
        # Locust says so when it starts the first sender; until then it would not hear of a stop.
        self.environment.runner.update_state("spawning")
        # In a greenlet of its own: Locust ends whoever calls this, when somebody changes the number of users.
        self._opening = gevent.spawn(self._open, self._client)
        self._opening.link_exception(lambda opening: self._fail(opening.exception or HarnessError("it is over.")))
        self._opening.join()

    def _open(self, client: StackClient) -> None:
        options = self.environment.parsed_options
        try:
            # The form of Locust's page may have set other options than the command line.
            check(options)
            opened = client.ask(Open(order=self._order()), Opened)
        except HarnessError as error:
            self._fail(error)
            return
        self._phase = Phase.ON
        self._legs = Legs(self._parts, self._processes, client.ask, opened, options, run_time_s=self._run_time_s)
        self._driver = gevent.spawn(self._drive)
        self._driver.link_exception(lambda driver: self._fail(driver.exception or HarnessError("it is over.")))

    def _take_run_time(self) -> None:
        """On Locust's page, a run time counts from the click, with all that it takes to bring a stack up."""
        page = self.environment.web_ui
        if page is None or page._run_time_greenlet is None:  # noqa: SLF001 - nothing else tells an old value of the form.
            return
        page._cancel_run_time_timer()  # noqa: SLF001 - it would stop the run too early.
        self._run_time_s = self.environment.parsed_options.run_time

    def spawned(self) -> None:
        """All senders are there."""
        self._spawned.set()

    def freeze(self) -> None:
        """End the leg while the senders are still there, so that the counts are exact."""
        if self._worker is None:
            if self.environment.web_ui is None and not self._has_begun:
                # A listener may have ended the run before it began, and whoever waits for its end is to hear of it.
                self._finish(leave=True)
            # Locust may end whoever calls this, and may call it again.
            self._freezing = self._freezing or gevent.spawn(self._freeze)
            self._freezing.join()

    def _freeze(self) -> None:
        if self._phase is Phase.OPENING and self._client is not None and self._opening is not None:
            self._opening.kill(block=True)
            self._phase = Phase.REST
            say("the run was stopped while its stack came up: there is no account of it")
            with contextlib.suppress(HarnessError):
                self._client.order(Drop())
        if self._driver is not None:
            self._driver.kill(block=True)
        self._driver = None
        if self._legs is not None:
            self._legs.end()

    def close(self) -> None:
        """Drain, audit, judge, and take the stack down."""
        if self._worker is None:
            self.freeze()
            self._closing = self._closing or gevent.spawn(self._close)
            self._closing.join()

    def _close(self) -> None:
        if self._phase is not Phase.ON or self._client is None or self._legs is None:
            return
        self._phase = Phase.CLOSING
        try:
            if self._is_broken:
                self._client.order(Drop())
            else:
                self.closed = self._client.ask(self._legs.result(), Closed)
                self._exit_with(self.closed.exit_code)
                self._unread = self.closed.report
                if self.closed.left is not None:
                    _log.error("the stack was not taken down to its end: %s", printable(self.closed.left))
                    self._exit_with(_WRONG_USE)
        except HarnessError as error:
            if not (self._is_broken or self._is_abandoned):
                self._say_error(error)
        self._processes.close()
        self._run_time_s = None if self.environment.web_ui is not None else self._run_time_s
        self._phase = Phase.REST
        if self.environment.web_ui is not None and not self._is_leaving:
            self.report()

    def quit(self) -> None:
        """See whatever is on to its end, and then the stack process off."""
        if self._worker is not None:
            self._worker.leave()
            return
        was_told_to_end, self._is_leaving, self._is_told_to_end = self._is_told_to_end, True, True
        if self._phase is Phase.OPENING:
            self._is_abandoned = True
            self._exit_with(_INTERRUPTED)
        else:
            self.close()
        if self._exit_code is None:
            self._say_nothing_ran(_INTERRUPTED if was_told_to_end else _WRONG_USE)
        if self._client is not None and not self._client.end():
            self._exit_with(_WRONG_USE)

    def _say_nothing_ran(self, code: int) -> None:
        why = "it was stopped while its stack came up" if self._has_begun else "none was begun"
        self._unread = f"There is no account of a run (exit code {code}): {why}, so nothing was sent.\n"
        self._exit_with(code)

    def report(self) -> None:
        """Show what became of the last run, below all that Locust itself prints."""
        if self._unread is not None:
            output = self._output()
            output.write(self._unread)
            output.flush()
            self._unread = None

    def _output(self) -> TextIO:
        """Return where the report belongs: with `--json`, the standard output holds Locust's JSON alone."""
        return sys.stderr if self.environment.parsed_options.json else sys.stdout

    def last_word(self, exit_code: int) -> None:
        """Show what is left to be shown, and end the process if it were to end with a better exit code than is due.

        Locust's own example of a listener sets the exit code to 0 where few requests failed.
        """
        self.report()
        if self._exit_code is not None and _worse(exit_code, self._exit_code) != exit_code:
            say(f"a listener set the exit code to {exit_code}; by the account it is {self._exit_code}")
            sys.exit(self._exit_code)

    # ------------------------------------------------------------------------------------------------- how a run ends

    def _finish(self, *, leave: bool) -> None:
        """End the run, as Locust's own -t does; `leave` ends the process as well, which without a page is the same."""
        self._is_leaving |= leave or self.environment.web_ui is None
        if self._finishing is None or self._finishing.ready():
            self._finishing = gevent.spawn(self._stop)

    def _stop(self) -> None:
        runner, page, options = self.environment.runner, self.environment.web_ui, self.environment.parsed_options
        if page is None:
            runner.quit()
            return
        runner.stop()
        # Locust does not see its own -t, see `prepare`.
        if options.autostart and options.autoquit >= 0 and not self._is_leaving:
            gevent.sleep(options.autoquit)
            self._is_leaving = True
        if self._is_leaving:
            runner.quit()
            page.stop()

    def _on_ctrl_c(self) -> None:
        """Called in a greenlet of its own: as an exception, Ctrl-C would hit whatever sends at that moment."""
        is_again, self._is_told_to_end = self._is_told_to_end, True
        page = self.environment.web_ui
        if self._worker is not None:
            if is_again:
                sys.exit(_INTERRUPTED)
            # Locust ends a worker at that, and `quit` sees the leg to its end.
            hub = gevent.get_hub()
            if hub.parent is not None:
                hub.loop.run_callback(hub.parent.throw, KeyboardInterrupt)
        elif self._phase is Phase.OPENING:
            self._abandon("interrupted while the stack came up: it is taken down")
        elif self._phase in {Phase.CHECKING, Phase.REST} and not self._has_begun and (page is None or not page.server):
            # Without a page, or with one that is not there yet, Locust itself would not hear of it.
            self._abandon("interrupted before anything was sent")
        elif self._phase is Phase.REST and self._is_leaving:
            say("everything is being taken down already")
        elif is_again:
            self._abandon("interrupted again: everything is taken down at once, without an account")
        elif self._phase is Phase.CLOSING:
            self._is_leaving = True
            say("nothing more is sent, and what was sent is waited for; Ctrl-C once more takes everything down at once")
            self._finish(leave=True)
        else:
            if self._phase is Phase.ON:
                say("interrupted: no more arrivals; Ctrl-C once more takes everything down at once")
            self._finish(leave=True)

    def _give_up(self, master: LocustMaster, expected: int) -> None:
        """End the process if no run has begun because load processes are missing."""
        if self._has_begun or self._is_leaving or master.count >= expected:
            return
        self._is_leaving = True
        _log.error(
            "%d of %d load processes have connected: start the others in time, or wait longer.", master.count, expected
        )
        self._exit_with(_WRONG_USE)
        self.environment.runner.quit()
        if self._client is not None:
            self._client.end()
        # Out of a greenlet, gevent takes this to the main one.
        sys.exit(_WRONG_USE)

    def _abandon(self, why: str) -> None:
        if self._is_abandoned:
            return
        self._is_abandoned = self._is_leaving = True
        self._exit_with(_INTERRUPTED)
        say(why)
        self._processes.close()
        if self._client is not None:
            self._client.end()
        if self._phase is Phase.CHECKING:
            # Whoever waits for the stack process's answer ends the process.
            return
        # Out of a greenlet, gevent takes this to the main one.
        sys.exit(_INTERRUPTED)

    def _on_gone(self, error: HarnessError) -> None:
        # Without a stack process, there can be no further run.
        self._is_leaving = True
        self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """The run cannot go on; there is no account of it."""
        if self._is_abandoned or self._is_broken or self._phase is Phase.CHECKING:
            return
        self._is_broken = True
        self._say_error(error)
        if self._phase is Phase.OPENING:
            self._phase = Phase.REST
        self._finish(leave=False)

    def _say_error(self, error: BaseException) -> None:
        if isinstance(error, HarnessError):
            _log.error("%s", printable(str(error)))
        else:
            _log.error("unexpected, please report it: %s", error, exc_info=error)
        # Locust's page has a list of these; and at a terminal its tables come after what was said above.
        self.environment.runner.log_exception("harness", printable(str(error)), "")
        first_line = str(error).partition("\n")[0]
        self._unread = f"There is no account of the run (exit code {_WRONG_USE}): {first_line}\n"
        self._exit_with(_WRONG_USE)

    def _exit_with(self, code: int) -> None:
        """The worst of all runs counts."""
        self._exit_code = _worse(self._exit_code or 0, code)
        self.environment.process_exit_code = _worse(self.environment.process_exit_code or 0, self._exit_code)

    def _end_with_parent(self, worker: LocustWorker) -> None:
        """A master that was killed tells its workers nothing, and Locust's own would go on for a minute."""
        while not worker.is_orphan:
            gevent.sleep(_ORPHAN_S)
        self.environment.runner.quit()

    # --------------------------------------------------------------------------------------------- what is to be done

    def _drive(self) -> None:
        """Do what the options say, then end the run; without an end of its own, somebody else ends it."""
        self._spawned.wait(timeout=_SPAWN_S)
        if self._legs is not None:
            self._legs.drive()
        self._finish(leave=False)

    def _order(self) -> Order:
        """What the stack process is to bring up."""
        options = self.environment.parsed_options
        modules = {one.scenario.name: _module(one.scenario) for one in self._parts.values()}
        own = {one.scenario.name: dict(one.options) for one in self._parts.values() if one.options}
        return Order(
            modules=tuple(modules.values()),
            app_folder=Path(options.app_dir or ".").absolute(),
            root=Path(options.runs).absolute(),
            app=options.app or None,
            workers=celery_workers(options),
            worker_options=tuple(options.worker_option) or None,
            seed=options.seed,
            options=own,
            via_http=options.via == "http",
            is_open=not options.closed,
            broker_url=options.broker_url or None,
            results_url=options.results or None,
            objectives=tuple(options.objective),
            faults=tuple(options.fault),
            timeout_s=parse_duration_s(options.drain_timeout),
            width=columns_of(self._output()),
            is_colourful=self._output().isatty() and "NO_COLOR" not in os.environ,
            # With `python -m`, the first is a path.
            command=shlex.join(["locust", *sys.argv[1:]]),
            about=Asked(
                rate=options.rate,
                stages=options.stages,
                arrival=str(options.arrival),
                via=options.via,
                loop="closed" if options.closed else "open",
            ),
        )

    # -------------------------------------------------------------------------------------------- what Locust is shown

    def _fire(self, kind: str, name: str, duration_ms: float, error: Exception | None) -> None:
        self.environment.events.request.fire(
            request_type=kind, name=name, response_time=duration_ms, response_length=0, exception=error, context={}
        )

    def _on_live(self, live: Live) -> None:
        self.live = live.sample
        count = 0
        for passed in live.passed:
            for duration_ms in passed.durations_ms:
                self._fire(passed.stage.value.upper(), passed.name, duration_ms, None)
                count += 1
                if count % _BURST == 0:
                    gevent.sleep(0)
        for one in live.errors:
            for _ in range(one.count):
                self.environment.stats.log_error("E2E", one.name, TaskFailed(one.error))
        if self._phase is not Phase.REST and not self._is_abandoned:
            say(_line(live.sample, self._legs.begin_t if self._legs is not None else None))


def _worse(one: int, other: int) -> int:
    """Return the worse of two exit codes. One that is not the harness's own is a listener's, and stays."""
    return max(one, other, key=lambda code: _BADNESS.index(code) if code in _BADNESS else len(_BADNESS))


def _is_true(record: logging.LogRecord) -> bool:
    """Whether Locust knows what it says: that there is no limit, it says of a run whose end is not its own affair."""
    return not record.getMessage().startswith("No run time limit set")


def _line(live: Sample, begin_t: float | None) -> str:
    """One second, in a line for a terminal."""
    e2e = live.stages.get(Stage.E2E)
    took = f"e2e p50 {write_duration(e2e.p50 / 1000)}, p99 {write_duration(e2e.p99 / 1000)}" if e2e else "e2e -"
    bad = {"failed": live.failed, "refused": live.refused, "unknown": live.unknown}
    lost = [f"{count} {name}" for name, count in bad.items() if count]
    down = [f"{name} is down" for name, is_up in (live.up or {}).items() if not is_up]
    parts = [
        f"{max(live.t - begin_t, 0) if begin_t is not None else 0:5.0f} s",
        f"in {live.in_per_s:.0f}/s, out {live.out_per_s:.0f}/s",
        f"backlog {live.backlog}",
        took,
        f"{live.ended} ended",
        *lost,
        *down,
    ]
    return " | ".join(parts)


def _module(scenario: Scenario) -> str:
    """Return the module that has a scenario as its `scenario`.

    Raises UsageError if none has: the stack process could not find it.
    """
    names = [type(scenario).__module__, *sys.modules]
    for name in names:
        module = sys.modules.get(name)
        # A locustfile may have it by that name too, and needs Locust, which the stack process must not import.
        if module is not None and vars(module).get("scenario") is scenario and not _is_locustfile(module):
            return name
    raise UsageError(f"no module has the scenario {scenario.name} as `scenario`: put `scenario = ...` into its module.")


def _is_locustfile(module: ModuleType) -> bool:
    return any(isinstance(one, type) and issubclass(one, User) for one in vars(module).values())
