"""How a Locust process ends: the report of its last run, and the worst exit code of all."""

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
    """What is left to be shown, and with what the process is to end."""

    def __init__(self, environment: Environment) -> None:
        """No run has come to its end."""
        self._environment = environment
        self.exit_code: int | None = None
        """The worst of all runs; None before any has come to its end."""
        self._unread: str | None = None
        """The report that was not shown yet."""

    @property
    def output(self) -> TextIO:
        """Where the report belongs: with `--json`, the standard output holds Locust's JSON alone."""
        return sys.stderr if self._environment.parsed_options.json else sys.stdout

    def exit_with(self, code: int) -> None:
        """The worst of all runs counts."""
        self.exit_code = _worse(self.exit_code or 0, code)
        self._environment.process_exit_code = _worse(self._environment.process_exit_code or 0, self.exit_code)

    def take(self, closed: Closed) -> None:
        """A run was accounted for."""
        self.exit_with(closed.exit_code)
        self._unread = closed.report
        if closed.left is not None:
            _log.error("the stack was not taken down to its end: %s", printable(closed.left))
            self.exit_with(WRONG_USE)

    def nothing_ran(self, code: int, *, has_begun: bool) -> None:
        """There is no account of any run."""
        why = "it was stopped while its stack came up" if has_begun else "none was begun"
        self._unread = f"There is no account of a run (exit code {code}): {why}, so nothing was sent.\n"
        self.exit_with(code)

    def went_wrong(self, error: BaseException) -> None:
        """There is no account of the run."""
        if isinstance(error, HarnessError):
            _log.error("%s", printable(str(error)))
        else:
            _log.error("unexpected, please report it: %s", error, exc_info=error)
        # Locust's page has a list of these; and at a terminal its tables come after what was said above.
        self._environment.runner.log_exception("harness", printable(str(error)), "")
        first_line = str(error).partition("\n")[0]
        self._unread = f"There is no account of the run (exit code {WRONG_USE}): {first_line}\n"
        self.exit_with(WRONG_USE)

    def report(self) -> None:
        """Show what became of the last run, below all that Locust itself prints."""
        if self._unread is not None:
            output = self.output
            output.write(self._unread)
            output.flush()
            self._unread = None

    def say(self, exit_code: int) -> None:
        """Show what is left to be shown, and end the process if it were to end with a better exit code than is due.

        Locust's own example of a listener sets the exit code to 0 where few requests failed.
        """
        self.report()
        if self.exit_code is not None and _worse(exit_code, self.exit_code) != exit_code:
            say(f"a listener set the exit code to {exit_code}; by the account it is {self.exit_code}")
            sys.exit(self.exit_code)


def _worse(one: int, other: int) -> int:
    """Return the worse of two exit codes. One that is not the harness's own is a listener's, and stays."""
    return max(
        one,
        other,
        key=lambda code: _FROM_GOOD_TO_BAD.index(code) if code in _FROM_GOOD_TO_BAD else len(_FROM_GOOD_TO_BAD),
    )
