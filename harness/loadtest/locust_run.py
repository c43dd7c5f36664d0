"""The load tests of one Locust process, from its first event to its exit code.

A Locust worker only makes its share of the load. Every other process starts a stack process. For each run, it has the
stack process bring a stack up, drives the legs of the run, and has the stack drained, audited and taken down. It ends
with the worst exit code of its runs.
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
"""The longest wait for Locust to start the senders, in seconds."""
_ORPHAN_S = 1.0
"""The interval, in seconds, at which a Locust worker checks that its parent still runs."""


class LocustRun:
    """The driver of the load tests of one Locust process, which run one after another."""

    def __init__(self, environment: Environment, parts: Mapping[str, Part]) -> None:
        """Create it without starting anything.

        Args:
            environment: Locust's environment in this process.
            parts: the classes that take part, by name.
        """
        self.environment = environment
        runner = environment.runner
        self._parts = parts
        self._run = RunState()
        self._table = LocustTable(environment)
        names = "+".join(sorted({one.scenario.name for one in parts.values()}))
        self.last_word = LastWord(environment, f"load.{names}")
        self.generator = Generator({name: one.scenario for name, one in parts.items()}, self._table.fire)
        self._worker = LocustWorker(runner, self.generator) if isinstance(runner, WorkerRunner) else None
        self._processes: LoadProcesses = (
            LocustMaster(runner) if isinstance(runner, MasterRunner) else OneProcess(self.generator)
        )
        self._client: StackClient | None = None
        self._legs: Legs | None = None
        """The driver of the legs of the current or the last run; None until the stack of the run is up."""
        self._run_time_s: float | None = None
        self._spawned = Event()
        self._opening: gevent.Greenlet[[StackClient], None] | None = None
        self._driver: gevent.Greenlet[[], None] | None = None
        self._freezing: gevent.Greenlet[[], None] | None = None
        self._closing: gevent.Greenlet[[], None] | None = None
        self._finishing: gevent.Greenlet[[], None] | None = None
        self.closed: Closed | None = None
        """The stack process's account of the last run; None before the first account."""

    @property
    def phase(self) -> str:
        """The phase of the run, for display: `checking`, `rest`, `opening`, `on` or `closing`."""
        return self._run.phase

    @property
    def live(self) -> Sample:
        """The sample of the last second, of the current or the last run."""
        return self._table.live

    # ---------------------------------------------------------------------------------- the handlers of Locust's events

    def prepare(self) -> None:
        """Start the stack process, and have it check the order. Raises HarnessError if the run is not possible."""
        gevent.signal_handler(signal.SIGINT, self._on_ctrl_c)
        options = self.environment.parsed_options
        if self._worker is not None:
            if options.processes:
                gevent.spawn(self._end_with_parent, self._worker)
            return
        self.last_word.begin()
        if options.headless or options.autostart:
            # Locust would count the run time from now on, including the time that the stack takes to come up.
            self._run_time_s, options.run_time = options.run_time, None
            if self._run_time_s is not None or options.stages or options.find_knee or options.find_workers:
                logging.getLogger("locust.main").addFilter(_is_to_be_logged)
            if isinstance(self._processes, LocustMaster) and options.expect_workers_max_wait:
                # If workers are missing, Locust would end with exit code 1, which means a broken promise.
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
        """Bring the stack up, and begin the load when Locust has started all senders."""
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
        # Locust sets this state when it starts the first sender. In an earlier state it would ignore a stop.
        self.environment.runner.update_state("spawning")
        # In a greenlet of its own: Locust kills the greenlet that calls this when the number of users is changed.
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
            # The stack process has ended since it answered.
            return
        self._run.move(RunEvent.OPENED)
        self._legs = Legs(self._parts, self._processes, client.ask, opened, options, run_time_s=self._run_time_s)
        self._driver = gevent.spawn(self._drive)
        self._driver.link_exception(lambda driver: self._fail(driver.exception or HarnessError("it is over.")))

    def _take_run_time(self) -> None:
        """Take the run time over from Locust's page, which would count it from the click, before the stack is up."""
        page = self.environment.web_ui
        if page is None or page._run_time_greenlet is None:  # noqa: SLF001 - nothing else tells that the value is new.
            return
        page._cancel_run_time_timer()  # noqa: SLF001 - the timer would stop the run too early.
        self._run_time_s = self.environment.parsed_options.run_time

    def spawned(self) -> None:
        """Note that Locust has started all senders."""
        self._spawned.set()

    def freeze(self) -> None:
        """End the leg while the senders still run, so that the counts are exact."""
        if self._worker is None:
            if self.environment.web_ui is None and not self._run.has_begun:
                # A listener may have stopped the run before it began. The main greenlet waits for the runner's end.
                self._finish(leave=True)
            # Locust may kill the greenlet that calls this, and may call it again.
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
        """Bring the current run to its end, and then end the stack process."""
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

    # ------------------------------------------------------------------------------------------------ the end of a run

    def _finish(self, *, leave: bool) -> None:
        """End the run, as Locust's own `-t` does.

        Args:
            leave: True to end the process as well. Without a page, the process always ends with its run.
        """
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
        # Locust does not know the run time, see `prepare`, and so would not carry out --autoquit.
        if options.autostart and options.autoquit >= 0 and not self._run.is_leaving:
            gevent.sleep(options.autoquit)
            self._run.leave()
        if self._run.is_leaving:
            runner.quit()
            page.stop()

    def _on_ctrl_c(self) -> None:
        """End the run, or the process.

        This runs in a greenlet of its own. As an exception, Ctrl-C would hit the greenlet that runs at that moment,
        which may be a sender.
        """
        is_again = self._run.tell_to_end()
        page = self.environment.web_ui
        if self._worker is not None:
            if is_again:
                sys.exit(INTERRUPTED)
            # KeyboardInterrupt makes Locust end a worker; `quit` then waits for the end of the leg.
            hub = gevent.get_hub()
            if hub.parent is not None:
                hub.loop.run_callback(hub.parent.throw, KeyboardInterrupt)
            return
        # Locust itself handles Ctrl-C only while its page is up.
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
        # gevent raises the SystemExit of a greenlet in the main one.
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
            # `prepare` waits for the stack process's answer, and then ends the process.
            return
        # gevent raises the SystemExit of a greenlet in the main one.
        sys.exit(INTERRUPTED)

    def _on_gone(self, error: HarnessError) -> None:
        # Without a stack process, no further run is possible.
        self._run.leave()
        self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """End a run that cannot go on. There is no account of it."""
        if self._run.fail():
            self.last_word.went_wrong(error)
            self._finish(leave=False)

    def _end_with_parent(self, worker: LocustWorker) -> None:
        """End the process when its parent has ended.

        A master that was killed sends no message, and Locust's worker would run for a minute more.
        """
        while not worker.is_orphan:
            gevent.sleep(_ORPHAN_S)
        self.environment.runner.quit()

    # -------------------------------------------------------------------------------------------------------- the load

    def _drive(self) -> None:
        """Wait for the senders, run all legs, and end the run. A load without an end runs until it is stopped."""
        self._spawned.wait(timeout=_SPAWN_S)
        if self._legs is not None:
            self._legs.drive()
        self._finish(leave=False)

    def _on_live(self, live: Live) -> None:
        self._table.take(live)
        if not (self._run.is_at_rest or self._run.is_abandoned):
            say(line(live.sample, self._legs.begin_t if self._legs is not None else None))


def _is_to_be_logged(record: logging.LogRecord) -> bool:
    """Return False for Locust's message that the run has no time limit, and True for every other one.

    The message would be wrong: the harness itself ends the run.
    """
    return not record.getMessage().startswith("No run time limit set")
