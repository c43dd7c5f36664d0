"""The load process's side of the stack process: a subprocess that takes orders, answers them, and sends messages."""

import contextlib
import itertools
import logging
import signal
import sys
from collections.abc import Callable
from typing import TypeVar

import gevent
from gevent.event import AsyncResult
from gevent.subprocess import PIPE, Popen

from harness.errors import HarnessError, RecordError
from harness.loadtest.messages import Answer, Failed, Live, NumberedOrder, Said, Say, StackOrder, said_in
from harness.printable import printable
from harness.records.typed_json import seen

_log = logging.getLogger("harness.load")

A = TypeVar("A", bound=Answer)


class StackClient:
    """A running `harness.loadtest.stack_process`, with its orders and messages; see `harness.loadtest.messages`."""

    def __init__(
        self,
        *,
        on_say: Callable[[str], None],
        on_live: Callable[[Live], None],
        on_gone: Callable[[HarnessError], None],
    ) -> None:
        """Start the stack process. The callbacks are called from one greenlet, one at a time.

        Args:
            on_say: takes a line for the user.
            on_live: takes the events of the last second.
            on_gone: takes the error if the stack process has ended without being asked to.
        """
        self._on_say = on_say
        self._on_live = on_live
        self._on_gone = on_gone
        self._is_to_end = False
        # A session of its own: Ctrl-C goes to all processes in the foreground of a terminal, but the stack process
        # still has to drain, to audit, and to take the stack down.
        self._process = Popen(
            [sys.executable, "-P", "-m", "harness.loadtest.stack_process"],
            stdin=PIPE,
            stdout=PIPE,
            start_new_session=True,
        )
        if self._process.stdin is None or self._process.stdout is None:
            raise HarnessError("the process of the stack was started without pipes.")
        self._in, self._out = self._process.stdin, self._process.stdout
        self._waiting: dict[int, AsyncResult[Answer]] = {}
        """The expected answers, by the order's number."""
        self._numbers = itertools.count(1)
        self._reader = gevent.spawn(self._read)

    def _read(self) -> None:
        for line in self._out:
            # A killed stack process can leave an incomplete line, which is no message.
            if not line.endswith(b"\n"):
                break
            try:
                self._take(said_in(line))
            except RecordError as error:
                _log.error("%s", printable(str(error)))
                # The line may be the answer to an order, which would then wait for ever.
                self._fail_all(str(error))
        gone = _gone(self._process.wait())
        if not self._is_to_end:
            self._is_to_end = True
            self._on_gone(gone)
        self._fail_all(str(gone))

    def _take(self, said: Said) -> None:
        if isinstance(said, Say):
            self._on_say(said.line)
        elif isinstance(said, Live):
            self._on_live(said)
        elif (waiting := self._waiting.get(said.number)) is not None:
            waiting.set(said.answer)
        elif isinstance(said.answer, Failed):
            # Nobody waits for the answer to this order.
            _log.error("%s", printable(said.answer.text))

    def _fail_all(self, text: str) -> None:
        for waiting in list(self._waiting.values()):
            waiting.set(Failed(text=text))

    def order(self, order: StackOrder) -> int:
        """Give an order without waiting for its answer, and return its number.

        Raises:
            HarnessError: the stack process has ended.
        """
        number = next(self._numbers)
        try:
            self._in.write(NumberedOrder(number=number, order=order).to_line().encode())
            self._in.flush()
        except (OSError, ValueError) as error:
            raise HarnessError("the process of the stack has ended, and takes no orders.") from error
        return number

    def ask(self, order: StackOrder, answer: type[A]) -> A:
        """Give an order, and return its answer. The wait has no limit, because the stack process limits its own waits.

        Args:
            order: the order.
            answer: the kind of the answer if the order was carried out.

        Raises:
            HarnessError: the order was not carried out, or the stack process has ended.
            RecordError: the answer has another kind.
        """
        # The answer cannot be read before this greenlet waits for it.
        number = self.order(order)
        waiting = self._waiting[number] = AsyncResult()
        if self._reader.ready():
            waiting.set(Failed(text="the process of the stack has ended."))
        try:
            found = waiting.get()
        finally:
            del self._waiting[number]
        if isinstance(found, answer):
            return found
        if isinstance(found, Failed):
            raise HarnessError(found.text)
        raise RecordError(f"the stack process should have answered {answer.__name__}, and answered {seen(found)}.")

    def end(self) -> bool:
        """Close the process's input, so that it takes everything down, and wait for its end. A second call only waits.

        Returns:
            True if everything was taken down. Otherwise the process has reported what was not.
        """
        self._is_to_end = True
        with contextlib.suppress(OSError, ValueError):
            self._in.close()
        code = self._process.wait()
        self._reader.join(timeout=5)
        return code == 0


def _gone(code: int) -> HarnessError:
    how = f"was killed ({signal.Signals(-code).name})" if code < 0 else f"has ended with exit code {code}"
    return HarnessError(f"the process of the stack {how}: there is no account, and the next start sweeps what it left.")
