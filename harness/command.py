"""How the command `harness` runs: what a signal does to it, what it says of an error, and its exit code."""

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
    """Ctrl-C and its like: the first raises KeyboardInterrupt, and those that follow find everything being taken down.

    Taking down must not be interrupted, or something would be left. It is bounded, so nobody waits for ever.
    """

    def __init__(self) -> None:
        self.is_awaited = False
        """Whether the next one interrupts."""

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        if self.is_awaited:
            self.is_awaited = False
            raise KeyboardInterrupt


interrupts = _Interrupts()


def run(command: click.Command) -> NoReturn:
    """Run the command with what stands behind it on its line, and exit.

    Whatever it prints, and whatever signal comes, the exit code is what became of it.
    """
    outputs = Outputs()
    outputs.replace()
    _take_signals()
    code = _exit_code(command)
    # What is left when the interpreter ends is removed then, which is not to be interrupted either.
    interrupts.is_awaited = False
    if (lost := outputs.flush()) is not None:
        complain(lost)
        outputs.flush()
    sys.exit(code)


def _exit_code(command: click.Command) -> int:
    """Run the command, say what went wrong, and return the exit code."""
    try:
        code: int | None = command.main(standalone_mode=False)
    except click.ClickException as error:
        said = io.StringIO()
        error.show(said)
        # It may repeat what was given as an argument.
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
    """Say that it was, and whether anything is left; returns the exit code."""
    if left := told(error):
        complain(f"interrupted, and not everything could be taken down: {left}")
        return WRONG_USE
    Console(stderr=True, soft_wrap=True).print("interrupted; everything that was started has been taken down.")
    return _INTERRUPTED


def complain(text: str) -> None:
    """Say what went wrong, as an error."""
    console = Console(stderr=True, soft_wrap=True)
    console.print(Text("error: ", "bold red"), end="")
    console.print(text)


def _take_signals() -> None:
    """From here on the first signal interrupts."""
    interrupts.is_awaited = True
    for number, handler in ((signal.SIGINT, interrupts), (signal.SIGTERM, interrupts), (signal.SIGHUP, _hang_up)):
        # `nohup` asks to be left alone, and so does a shell of what it starts in the background.
        if number is signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _hang_up(number: int, frame: FrameType | None) -> None:
    """The terminal is gone: to write to it would fail, in the middle of taking everything down."""
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device.
        for output in (1, 2):
            if stat.S_ISCHR(os.fstat(output).st_mode):
                os.dup2(nowhere.fileno(), output)
    interrupts(number, frame)
