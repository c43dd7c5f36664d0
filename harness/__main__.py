"""The command `harness`, also as `python -m harness`."""

import os
import signal
from types import FrameType


def main() -> None:
    """Import the command, which takes a while, and run it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    from harness.commands.cli import main as run  # noqa: PLC0415 - a Ctrl-C meanwhile has to find somebody who takes it.

    run()


def _leave(_number: int, _frame: FrameType | None) -> None:
    """End at once: nothing has been started, and wherever this is, a traceback of it would tell nobody anything."""
    os.write(2, b"\ninterrupted; nothing had been started.\n")
    os._exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
