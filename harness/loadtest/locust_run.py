"""What one Locust process does in a load test, from its first event to its exit code.

A worker of Locust's makes its share of the load, and that is all. Every other process starts a stack process, has it
bring a stack up when a run starts, drives the legs of the run, has it drained, audited and taken down when the run
stops, and ends with the worst exit code of its runs.
"""

import contextlib
import logging
import signal
import sys
from collections.abc import Mapping

import gevent
from gevent.event import Event
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from harness.errors import HarnessError
from harness.loadtest.exit_report import INTERRUPTED, WRONG_USE, LastWord
from harness.loadtest.generators import Generator
from harness.loadtest.load_processes import LoadProcesses, LocustMaster, LocustWorker, OneProcess
from harness.loadtest.locust_table import LocustTable, line
from harness.loadtest.messages import Check, Closed, Done, Drop, Live, Open, Opened
from harness.loadtest.options import check
from harness.loadtest.run_legs import Legs, Part, say
from harness.loadtest.run_state import Heard, RunEvent, RunState, State
from harness.loadtest.stack_client import StackClient
from harness.loadtest.stack_order import order_of
from harness.measure.load_account import Sample

_log = logging.getLogger("harness.load")

_SPAWN_S = 30.0
"""How long Locust may take to start the senders."""
_ORPHAN_S = 1.0


class LocustRun:
    """Of the load tests of one Locust process, one after another."""

    def __init__(self, environment: Environment, parts: Mapping[str, Part]) -> None:
        """Nothing is started yet. `parts` are the classes that take part, by name."""
        self.environment = environment
        runner = environment.runner
        self._parts = parts
        self._run = RunState()
        self._table = LocustTable(environment)
        self.last_word = LastWord(environment)
        self.generator = Generator({name: one.scenario for name, one in parts.items()}, self._table.fire)
        self._worker = LocustWorker(runner, self.generator) if isinstance(runner, WorkerRunner) else None
        self._processes: LoadProcesses = (
            LocustMaster(runner) if isinstance(runner, MasterRunner) else OneProcess(self.generator)
        )
        self._client: StackClient | None = None
        self._legs: Legs | None = None
        """Of the run that is on, or was on last."""
        self._run_time_s: float | None = None
        self._spawned = Event()
        self._opening: gevent.Greenlet[[StackClient], None] | None = None
        self._driver: gevent.Greenlet[[], None] | None = None
        self._freezing: gevent.Greenlet[[], None] | None = None
        self._closing: gevent.Greenlet[[], None] | None = None
        self._finishing: gevent.Greenlet[[], None] | None = None
        self.closed: Closed | None = None
        """What the stack process said at the end of the last run."""

    @property
    def phase(self) -> str:
        """Of the run: `checking`, `rest`, `opening`, `on` or `closing`."""
        return self._run.phase

    @property
    def live(self) -> Sample:
        """The last second of the run that is on, or was on last."""
        return self._table.live

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
        try:
            self._client.ask(Check(order=order_of(options, self._parts, self.last_word.output)), Done)
        except HarnessError:
            self._client.end()
            if not self._run.is_abandoned:
                raise
        if self._run.is_abandoned:
            self._client.end()
            sys.exit(INTERRUPTED)
        self._run.move(RunEvent.CHECKED)

    def start(self) -> None:
        """Bring the stack up, and begin as soon as all senders are there."""
        if self._worker is not None or self._client is None:
            return
        if self._closing is not None:
            self._closing.join()
        self._take_run_time()
        self._spawned.clear()
        self._freezing = self._closing = None
        self._legs = None
        self._table.begin()
        self._run.move(RunEvent.BEGUN)
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
            opened = client.ask(Open(order=order_of(options, self._parts, self.last_word.output)), Opened)
        except HarnessError as error:
            self._fail(error)
            return
        if not self._run.can(RunEvent.OPENED):
            # The stack process has ended since it said so.
            return
        self._run.move(RunEvent.OPENED)
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
            if self.environment.web_ui is None and not self._run.has_begun:
                # A listener may have ended the run before it began, and whoever waits for its end is to hear of it.
                self._finish(leave=True)
            # Locust may end whoever calls this, and may call it again.
            self._freezing = self._freezing or gevent.spawn(self._freeze)
            self._freezing.join()

    def _freeze(self) -> None:
        if self._run.can(RunEvent.STOPPED) and self._client is not None and self._opening is not None:
            self._opening.kill(block=True)
            self._run.move(RunEvent.STOPPED)
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
        if not self._run.can(RunEvent.CLOSING) or self._client is None or self._legs is None:
            return
        self._run.move(RunEvent.CLOSING)
        try:
            if self._run.is_broken:
                self._client.order(Drop())
            else:
                self.closed = self._client.ask(self._legs.result(), Closed)
                self.last_word.take(self.closed)
        except HarnessError as error:
            if not (self._run.is_broken or self._run.is_abandoned):
                self.last_word.went_wrong(error)
        self._processes.close()
        self._run_time_s = None if self.environment.web_ui is not None else self._run_time_s
        self._run.move(RunEvent.CLOSED)
        if self.environment.web_ui is not None and not self._run.is_leaving:
            self.last_word.report()

    def quit(self) -> None:
        """See whatever is on to its end, and then the stack process off."""
        if self._worker is not None:
            self._worker.leave()
            return
        was_told_to_end = self._run.tell_to_end()
        self._run.leave()
        if self._run.state is State.OPENING:
            self._run.abandon()
            self.last_word.exit_with(INTERRUPTED)
        else:
            self.close()
        if self.last_word.exit_code is None:
            code = INTERRUPTED if was_told_to_end else WRONG_USE
            self.last_word.nothing_ran(code, has_begun=self._run.has_begun)
        if self._client is not None and not self._client.end():
            self.last_word.exit_with(WRONG_USE)

    # ------------------------------------------------------------------------------------------------- how a run ends

    def _finish(self, *, leave: bool) -> None:
        """End the run, as Locust's own -t does; `leave` ends the process as well, which without a page is the same."""
        if leave or self.environment.web_ui is None:
            self._run.leave()
        if self._finishing is None or self._finishing.ready():
            self._finishing = gevent.spawn(self._stop)

    def _stop(self) -> None:
        runner, page, options = self.environment.runner, self.environment.web_ui, self.environment.parsed_options
        if page is None:
            runner.quit()
            return
        runner.stop()
        # Locust does not see its own -t, see `prepare`.
        if options.autostart and options.autoquit >= 0 and not self._run.is_leaving:
            gevent.sleep(options.autoquit)
            self._run.leave()
        if self._run.is_leaving:
            runner.quit()
            page.stop()

    def _on_ctrl_c(self) -> None:
        """End the run, or the process. It runs in a greenlet: as an exception, Ctrl-C would hit whatever sends then."""
        is_again = self._run.tell_to_end()
        page = self.environment.web_ui
        if self._worker is not None:
            if is_again:
                sys.exit(INTERRUPTED)
            # Locust ends a worker at that, and `quit` sees the leg to its end.
            hub = gevent.get_hub()
            if hub.parent is not None:
                hub.loop.run_callback(hub.parent.throw, KeyboardInterrupt)
            return
        # Without a page, or with one that is not there yet, Locust itself would not hear of it.
        heard, said = self._run.interrupt(is_again=is_again, is_heard=page is not None and bool(page.server))
        if heard is Heard.ABANDON:
            self._abandon(said or "")
            return
        if said is not None:
            say(said)
        if heard is Heard.FINISH:
            self._finish(leave=True)

    def _give_up(self, master: LocustMaster, expected: int) -> None:
        """End the process if no run has begun because load processes are missing."""
        if self._run.has_begun or self._run.is_leaving or master.count >= expected:
            return
        self._run.leave()
        _log.error(
            "%d of %d load processes have connected: start the others in time, or wait longer.", master.count, expected
        )
        self.last_word.exit_with(WRONG_USE)
        self.environment.runner.quit()
        if self._client is not None:
            self._client.end()
        # Out of a greenlet, gevent takes this to the main one.
        sys.exit(WRONG_USE)

    def _abandon(self, why: str) -> None:
        if not self._run.abandon():
            return
        self.last_word.exit_with(INTERRUPTED)
        say(why)
        self._processes.close()
        if self._client is not None:
            self._client.end()
        if self._run.state is State.CHECKING:
            # Whoever waits for the stack process's answer ends the process.
            return
        # Out of a greenlet, gevent takes this to the main one.
        sys.exit(INTERRUPTED)

    def _on_gone(self, error: HarnessError) -> None:
        # Without a stack process, there can be no further run.
        self._run.leave()
        self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """End a run that cannot go on; there is no account of it."""
        if self._run.fail():
            self.last_word.went_wrong(error)
            self._finish(leave=False)

    def _end_with_parent(self, worker: LocustWorker) -> None:
        """End when the master is gone: one that was killed tells nothing, and Locust's worker goes on for a minute."""
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

    def _on_live(self, live: Live) -> None:
        self._table.take(live)
        if not (self._run.is_at_rest or self._run.is_abandoned):
            say(line(live.sample, self._legs.begin_t if self._legs is not None else None))


def _is_true(record: logging.LogRecord) -> bool:
    """Whether Locust knows what it says: that there is no limit, it says of a run whose end is not its own affair."""
    return not record.getMessage().startswith("No run time limit set")
