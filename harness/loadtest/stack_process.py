"""The process that owns the stack of a load test, and measures it under load.

A load process must do nothing else: reading journals would delay its arrivals. So it starts
``python -m harness.loadtest.stack_process``. The two exchange lines of JSON: orders on the standard input of this
process, and messages on its standard output; see `harness.loadtest.messages`. This process answers each order. During a
load test it also sends `Live` once a second, and `Say` with a line for the user. When the load process ends or is
killed, the input ends. This interrupts the current order, and everything is taken down.
"""

import contextlib
import io
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from types import FrameType
from typing import Self, assert_never

from harness.console import Console
from harness.containers import broker_choice, images
from harness.containers.engine_choice import connect
from harness.errors import HarnessError, RecordError, UsageError, told
from harness.loadtest.messages import (
    Answer,
    Begin,
    Check,
    Close,
    Closed,
    Done,
    Drop,
    EndLeg,
    Expect,
    Failed,
    Measured,
    NumberedAnswer,
    NumberedOrder,
    Open,
    Opened,
    Order,
    Said,
    Say,
    SetWorkers,
    StackOrder,
    line_of,
)
from harness.loadtest.stack_under_load import Account, StackUnderLoad
from harness.report import checks, markdown, terminal
from harness.report.write_report import try_to_write
from harness.stack.attached_urls import reach
from harness.stack.shared_parts import SharedParts

Tell = Callable[[Said], None]
"""Sends a message to the load process."""
Shield = Callable[[], AbstractContextManager[None]]
"""Creates a context that nothing interrupts."""


class StackProcess:
    """A series of load tests on one session. It is a context manager, which takes everything down at its end."""

    def __init__(self, tell: Tell, shield: Shield = nullcontext) -> None:
        """Create it without starting anything.

        Args:
            tell: takes every message; called from several threads, one at a time.
            shield: creates the context for taking down, which must not be interrupted.
        """
        self._tell_now = tell
        self._shield = shield
        self._telling = threading.Lock()
        self._session: SharedParts | None = None
        self._closing = ExitStack()
        self._under_load: StackUnderLoad | None = None
        self._order: Order | None = None

    def __enter__(self) -> Self:
        """Return the stack process itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Take everything down."""
        with self._shield():
            try:
                self.drop()
            finally:
                self._closing.close()

    def tell(self, said: Said) -> None:
        """Send one message."""
        with self._telling:
            self._tell_now(said)

    def check(self, order: Order) -> None:
        """Check an order without starting anything. Raises HarnessError if it cannot be carried out."""
        StackUnderLoad(order, self.tell)
        if order.broker_url is None:
            connect().close()
        else:
            reach(order.broker_url, order.results_url or "")

    def open(self, order: Order) -> Opened:
        """Bring up a stack, or attach to one, and return what load processes have to know about it."""
        self.drop()
        if self._session is None and order.broker_url is None:
            self._session = self._start_session()
        self._order, self._under_load = order, StackUnderLoad(order, self.tell)
        try:
            return self._under_load.up(self._session)
        except BaseException:
            self.drop()
            raise

    def _start_session(self) -> SharedParts:
        said: set[str] = set()

        def say(line: str) -> None:
            if line not in said:
                said.add(line)
                self.tell(Say(line=line))

        # Building an image can take minutes, and may be interrupted. The session needs no other at its start.
        with contextlib.closing(connect()) as engine:
            images.ensure(engine, broker_choice.IMAGE, say=say)
        # After an interruption, the engine would still create what it was asked for, and nobody would take it down.
        with self._shield():
            session = SharedParts(say)
            session.start()
            return self._closing.enter_context(session)

    @property
    def loaded(self) -> StackUnderLoad:
        """The open load test. Raises UsageError if there is none."""
        if self._under_load is None:
            raise UsageError("no load test is open.")
        return self._under_load

    def close(self, close: Close) -> Closed:
        """Settle and judge the load test, take its stack down, and return the account.

        A stack that cannot be taken down is not an error here, so that the account is not lost.
        """
        left = None
        try:
            account = self.loaded.account(close)
        except BaseException:
            self.drop()
            raise
        try:
            self.drop()
        except HarnessError as error:
            left = _text_of(error)
        exit_code = account.said.exit_code
        written = try_to_write(account.folder, lambda line: self.tell(Say(line=line)))
        return Closed(
            report=self._report(account, written),
            folder=account.folder,
            exit_code=exit_code,
            left=left,
            checks=tuple(checks.of_load(account.said, account.audited)),
            summary=markdown.of_load(account.audited.name, account.said, account.audited, str(account.folder)),
        )

    def drop(self) -> None:
        """Take the stack down without an account, if one is up."""
        with self._shield():
            if self._under_load is not None:
                loaded, self._under_load = self._under_load, None
                loaded.down()

    def _report(self, account: Account, written: Path | None) -> str:
        out = io.StringIO()
        is_colourful = self._order is not None and self._order.is_colourful
        console = Console(
            file=out,
            width=self._order.width if self._order is not None else None,
            force_terminal=is_colourful,
            no_color=not is_colourful,
        )
        report = None if written is None else str(written)
        for part in terminal.load(account.said, account.audited, str(account.folder), report):
            console.print(part, soft_wrap=isinstance(part, str))
        return out.getvalue()


def obey(stack_process: StackProcess, order: StackOrder) -> Answer:
    """Carry out one order, and return the answer. Raises HarnessError if that cannot be done."""
    match order:
        case Open():
            return stack_process.open(order.order)
        case EndLeg():
            return Measured(figures=stack_process.loaded.leg(order.leg))
        case Close():
            return stack_process.close(order)
        case Check():
            stack_process.check(order.order)
        case Begin():
            stack_process.loaded.begin(order.t)
        case Expect():
            stack_process.loaded.expect(order.begin_t, order.end_t)
        case SetWorkers():
            stack_process.loaded.set_workers(order.count)
        case Drop():
            stack_process.drop()
        case _:
            assert_never(order)
    return Done()


def serve(stack_process: StackProcess, lines: Iterator[str]) -> None:
    """Carry out one order after another, and answer each, also after an error."""
    for line in lines:
        try:
            given = NumberedOrder.from_line(line)
        except RecordError as error:
            # Without a number, the order cannot be answered.
            stack_process.tell(Say(line=str(error)))
            continue
        if isinstance(given, NumberedOrder):
            given = NumberedAnswer(number=given.number, answer=_answer(stack_process, given.order))
        stack_process.tell(given)


def _answer(stack_process: StackProcess, order: StackOrder) -> Answer:
    try:
        return obey(stack_process, order)
    except HarnessError as error:
        return Failed(text=_text_of(error))
    except Exception as error:  # noqa: BLE001 - the load process waits for the answer.
        traceback.print_exc()
        return Failed(text=f"unexpected, please report it: {type(error).__name__}: {error}")


def _text_of(error: HarnessError) -> str:
    return told(error)


class _Gone(BaseException):
    """The load process has ended, or has closed the input."""


class _Orders:
    """The orders on standard input. The end of the input interrupts the current order, unless it is shielded."""

    def __init__(self) -> None:
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._is_busy = self._is_gone = False
        self._shields = 0
        signal.signal(signal.SIGUSR1, self._interrupt)
        threading.Thread(target=self._read, args=(threading.get_ident(),), name="orders", daemon=True).start()

    def _read(self, main: int) -> None:
        for line in sys.stdin:
            self._lines.put(line)
        self._lines.put(None)
        # A thread can interrupt the main thread only by a signal.
        signal.pthread_kill(main, signal.SIGUSR1)

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        self._is_gone = True
        if self._is_busy and not self._shields:
            self._is_busy = False
            raise _Gone

    @contextlib.contextmanager
    def shield(self) -> Iterator[None]:
        """Delay an interruption until the end of this context."""
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1
        if self._is_gone and self._is_busy and not self._shields:
            self._is_busy = False
            raise _Gone

    def each(self) -> Iterator[str]:
        """Yield one order after another, until the input ends."""
        while (line := self._lines.get()) is not None and not self._is_gone:
            self._is_busy = True
            yield line
            self._is_busy = False


def main() -> None:
    """Carry out orders until the input ends."""
    # Ctrl-C in a terminal goes to all its processes. The load process decides what happens, and closes the input.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # The output of libraries must not be mixed with the messages.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def tell(said: Said) -> None:
        # The load process may have ended; the end of the input follows.
        with contextlib.suppress(BrokenPipeError):
            out.write(line_of(said))
            out.flush()

    orders = _Orders()
    try:
        with contextlib.suppress(_Gone), StackProcess(tell, orders.shield) as stack_process:
            serve(stack_process, orders.each())
    except HarnessError as error:
        sys.exit(f"error: not everything could be taken down: {_text_of(error)}")


if __name__ == "__main__":
    main()
