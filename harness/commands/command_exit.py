"""The command `harness`: its handling of signals and errors, and its exit code."""

import contextlib
import io
import os
import shlex
import signal
import stat
import sys
import traceback
from types import FrameType
from typing import NoReturn

import click
from rich.text import Text

from harness.console import Console, Outputs
from harness.errors import HarnessError, told
from harness.printable import printable

WRONG_USE = 2
"""The exit code of wrong use, and of an environment in which nothing can be run."""

_INTERRUPTED = 130


class _Interrupts:
    """A signal handler. The first signal raises KeyboardInterrupt; later ones are ignored during the clean-up.

    An interrupted clean-up would leave something behind. The clean-up is bounded in time.
    """

    def __init__(self) -> None:
        self.is_awaited = False
        """True if the next signal raises KeyboardInterrupt."""

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        if self.is_awaited:
            self.is_awaited = False
            raise KeyboardInterrupt


interrupts = _Interrupts()

at_end = contextlib.ExitStack()
"""What is called when the command has ended and its error was shown."""


def run(command: click.Command) -> NoReturn:
    """Run the command with the arguments of its command line, and exit.

    The exit code is the command's outcome, regardless of its output and of signals.
    """
    outputs = Outputs()
    outputs.replace()
    _take_signals()
    code = _exit_code(command)
    # The interpreter removes what is left when it ends, which must not be interrupted either.
    interrupts.is_awaited = False
    at_end.close()
    if (lost := outputs.flush()) is not None:
        complain(lost)
        outputs.flush()
    sys.exit(code)


def _exit_code(command: click.Command) -> int:
    """Run the command, print its error if there is one, and return the exit code."""
    try:
        code: int | None = command.main(standalone_mode=False)
    except click.ClickException as error:
        said = io.StringIO()
        error.show(said)
        # The message may repeat an argument.
        click.echo(printable(said.getvalue()), err=True, nl=False)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt) as error:
        return _interrupted(error.__cause__ or error)
    except HarnessError as error:
        complain(told(error))
        return WRONG_USE
    except Exception as error:  # noqa: BLE001 - a traceback would end with 1, which means a broken promise.
        if sys.flags.dev_mode:
            traceback.print_exception(error)
        again = shlex.join(["python", "-X", "dev", "-m", "harness", *sys.argv[1:]])
        text = " ".join(told(error).split())
        complain(f"unexpected, please report it: {text}. The traceback is shown by: {again}")
        return WRONG_USE
    return code or 0


def _interrupted(error: BaseException) -> int:
    """Print that it was interrupted, and whether anything is left; return the exit code."""
    if left := told(error):
        complain(f"interrupted, and not everything could be taken down: {left}")
        return WRONG_USE
    Console(stderr=True, soft_wrap=True).print("interrupted; everything that was started has been taken down.")
    return _INTERRUPTED


def complain(text: str) -> None:
    """Print a text as an error."""
    console = Console(stderr=True, soft_wrap=True)
    console.print(Text("error: ", "bold red"), end="")
    console.print(text)


def _take_signals() -> None:
    """Install the signal handlers; from now on the first signal interrupts."""
    interrupts.is_awaited = True
    for number, handler in ((signal.SIGINT, interrupts), (signal.SIGTERM, interrupts), (signal.SIGHUP, _hang_up)):
        # `nohup` ignores SIGHUP, and so does a shell SIGINT for a process in the background: both stay ignored.
        if number is signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _hang_up(number: int, frame: FrameType | None) -> None:
    """Redirect output to the null device if the terminal is gone: a failing write would stop the taking down."""
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device.
        for output in (1, 2):
            if stat.S_ISCHR(os.fstat(output).st_mode):
                os.dup2(nowhere.fileno(), output)
    interrupts(number, frame)
