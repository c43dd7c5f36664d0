"""The end of a Locust process: the report of its last run, and the worst exit code of all runs."""

import logging
import sys
from pathlib import Path
from typing import TextIO

from locust.env import Environment

from harness.errors import HarnessError
from harness.loadtest.messages import Closed
from harness.loadtest.run_legs import say
from harness.printable import printable
from harness.records.verdict import Verdict
from harness.report import step_summary
from harness.report.junit import JUnitFile, suite

_log = logging.getLogger("harness.load")

WRONG_USE = 2
INTERRUPTED = 130
_FROM_GOOD_TO_BAD = (0, 3, 1, WRONG_USE, INTERRUPTED)


class LastWord:
    """The report that is still to be shown, and the exit code of the process."""

    def __init__(self, environment: Environment, name: str) -> None:
        """Create it before the end of any run. `name` is that of the load test for CI systems."""
        self._environment = environment
        self._name = name
        self._junit: JUnitFile | None = None
        self.exit_code: int | None = None
        """The worst exit code of all runs; None before the end of the first."""
        self._unread: str | None = None
        """The report that was not shown yet."""

    def begin(self) -> None:
        """Begin the JUnit file, if one is asked for. Raises UsageError if it cannot be written."""
        if path := self._environment.parsed_options.junit:
            self._junit = JUnitFile(Path(path), self._name, _complain)

    @property
    def output(self) -> TextIO:
        """The stream for the report: with `--json`, the standard output has only Locust's JSON."""
        return sys.stderr if self._environment.parsed_options.json else sys.stdout

    def exit_with(self, code: int) -> None:
        """Set the exit code, unless that of an earlier run is worse."""
        self.exit_code = _worse(self.exit_code or 0, code)
        self._environment.process_exit_code = _worse(self._environment.process_exit_code or 0, self.exit_code)

    def take(self, closed: Closed) -> None:
        """Take the account of a run, with its report and its exit code."""
        self.exit_with(closed.exit_code)
        self._unread = closed.report
        if self._junit is not None:
            verdict = next((one for one in Verdict if one.exit_code == closed.exit_code), Verdict.UNKNOWN)
            self._junit.add(suite(self._name, closed.checks, verdict=verdict, folder=closed.folder, text=closed.report))
        step_summary.append(lambda: closed.summary, _complain)
        if closed.left is not None:
            _log.error("the stack was not taken down to its end: %s", printable(closed.left))
            self.exit_with(WRONG_USE)

    def nothing_ran(self, code: int, *, has_begun: bool) -> None:
        """Report that there is no account, because nothing was sent."""
        why = "it was stopped while its stack came up" if has_begun else "none was begun"
        self._no_account(f"There is no account of a run (exit code {code}): {why}, so nothing was sent.")
        self.exit_with(code)

    def went_wrong(self, error: BaseException) -> None:
        """Report that a run has no account, because of an error."""
        if isinstance(error, HarnessError):
            _log.error("%s", printable(str(error)))
        else:
            _log.error("unexpected, please report it: %s", error, exc_info=error)
        # Locust's page lists exceptions. At a terminal, Locust's tables follow the message above.
        self._environment.runner.log_exception("harness", printable(str(error)), "")
        first_line = str(error).partition("\n")[0]
        self._no_account(f"There is no account of the run (exit code {WRONG_USE}): {first_line}")
        self.exit_with(WRONG_USE)

    def _no_account(self, text: str) -> None:
        self._unread = f"{text}\n"
        if self._junit is not None:
            self._junit.fail(text)

    def report(self) -> None:
        """Show the report of the last run, below the output of Locust itself."""
        if self._unread is not None:
            output = self.output
            output.write(self._unread)
            output.flush()
            self._unread = None

    def say(self, exit_code: int) -> None:
        """Show the report, and end the process here if it would end with a better exit code than that of its runs.

        Locust's own example of a listener sets the exit code to 0 if only few requests failed.
        """
        self.report()
        if self.exit_code is not None and _worse(exit_code, self.exit_code) != exit_code:
            say(f"a listener set the exit code to {exit_code}; by the account it is {self.exit_code}")
            sys.exit(self.exit_code)


def _complain(text: str) -> None:
    _log.error("%s", printable(text))


def _worse(one: int, other: int) -> int:
    """Return the worse of two exit codes. A code that is not the harness's own comes from a listener, and is kept."""
    return max(
        one,
        other,
        key=lambda code: _FROM_GOOD_TO_BAD.index(code) if code in _FROM_GOOD_TO_BAD else len(_FROM_GOOD_TO_BAD),
    )
