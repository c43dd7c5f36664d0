"""The end of a Locust process: the report of its last run, and the worst exit code of all runs."""

import logging
import sys
from typing import TextIO

from locust.env import Environment

from harness.errors import HarnessError
from harness.loadtest.messages import Closed
from harness.loadtest.run_legs import say
from harness.printable import printable

_log = logging.getLogger("harness.load")

WRONG_USE = 2
INTERRUPTED = 130
_FROM_GOOD_TO_BAD = (0, 3, 1, WRONG_USE, INTERRUPTED)


class LastWord:
    """The report that is still to be shown, and the exit code of the process."""

    def __init__(self, environment: Environment) -> None:
        """Create it before the end of any run."""
        self._environment = environment
        self.exit_code: int | None = None
        """The worst exit code of all runs; None before the end of the first."""
        self._unread: str | None = None
        """The report that was not shown yet."""

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
        if closed.left is not None:
            _log.error("the stack was not taken down to its end: %s", printable(closed.left))
            self.exit_with(WRONG_USE)

    def nothing_ran(self, code: int, *, has_begun: bool) -> None:
        """Report that there is no account, because nothing was sent."""
        why = "it was stopped while its stack came up" if has_begun else "none was begun"
        self._unread = f"There is no account of a run (exit code {code}): {why}, so nothing was sent.\n"
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
        self._unread = f"There is no account of the run (exit code {WRONG_USE}): {first_line}\n"
        self.exit_with(WRONG_USE)

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


def _worse(one: int, other: int) -> int:
    """Return the worse of two exit codes. A code that is not the harness's own comes from a listener, and is kept."""
    return max(
        one,
        other,
        key=lambda code: _FROM_GOOD_TO_BAD.index(code) if code in _FROM_GOOD_TO_BAD else len(_FROM_GOOD_TO_BAD),
    )
