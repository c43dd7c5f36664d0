"""The process that owns the stack of a load test, and measures what the load does to it.

Whoever makes the load has no time for anything else: reading journals there would make it late. So the load process
starts ``python -m harness.loadtest.stack_process`` and the two exchange lines of JSON, orders on the standard input and
what this process has to say on its standard output. Orders, by their member `do`; each has an `id`, and one `answer` or
`error` with the same:

    check    see whether an order could be carried out, before anything is started
    open     bring up a stack, or attach to one
    expect   a leg begins, and is to be measured from `begin_t` until `end_t`
    begin    the first arrival of all is due at `t`: faults are timed from there
    leg      a leg has ended: wait until all its tasks have, and answer with its figures
    workers  have at least so many workers
    close    nothing more is sent: settle, audit, judge, write, take down
    drop     take the stack down without an account

In between it says `live` once a second, and `say` with a line for whoever waits. The input's end is what a load process
leaves behind, also one that was killed: it interrupts whatever is being done, and everything is taken down.
"""

import contextlib
import io
import json
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from types import FrameType
from typing import Self

from harness.console import Console
from harness.containers import images
from harness.containers.engine_choice import connect
from harness.containers.image_recipes import Image
from harness.errors import HarnessError, UsageError, told
from harness.loadtest.messages import Order
from harness.loadtest.stack_under_load import Account, StackUnderLoad
from harness.records.values import Json
from harness.report import terminal
from harness.stack.attached import reach
from harness.stack.shared_parts import SharedParts

Tell = Callable[[dict[str, Json]], None]
"""Takes a message for the load process."""
Shield = Callable[[], AbstractContextManager[None]]
"""Makes a context that nothing interrupts."""


class StackProcess:
    """One load test after another, on one session. A context manager: what it started is gone when it ends."""

    def __init__(self, tell: Tell, shield: Shield = nullcontext) -> None:
        """Nothing is started yet.

        Args:
            tell: takes every message; called from several threads, one at a time.
            shield: what is taken down in it is taken down to the end.
        """
        self._tell_now = tell
        self._shield = shield
        self._telling = threading.Lock()
        self._session: SharedParts | None = None
        self._closing = ExitStack()
        self._under_load: StackUnderLoad | None = None
        self._order: Order | None = None

    def __enter__(self) -> Self:
        """The stack process itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Take everything down."""
        with self._shield():
            try:
                self.drop()
            finally:
                self._closing.close()

    def tell(self, said: str, **more: Json) -> None:
        """Send one message."""
        with self._telling:
            self._tell_now({"said": said, **more})

    def check(self, order: Order) -> None:
        """Raises HarnessError for an order that cannot be carried out, as far as that is seen without starting it."""
        StackUnderLoad(order, self.tell)
        if order.broker_url is None:
            connect().close()
        else:
            reach(order.broker_url, order.results_url or "")

    def open(self, order: Order) -> dict[str, Json]:
        """Bring up what the order says, and return what load processes have to know of it."""
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
                self.tell("say", line=line)

        # To build an image can take minutes, and may be interrupted.
        with contextlib.closing(connect()) as engine:
            for image in Image:
                images.ensure(engine, image, say=say)
        # What the engine was just asked for when somebody interrupts would come to be when nobody takes it down.
        with self._shield():
            session = SharedParts(say)
            session.start()
            return self._closing.enter_context(session)

    @property
    def loaded(self) -> StackUnderLoad:
        """The load test that is open. Raises UsageError if none is."""
        if self._under_load is None:
            raise UsageError("no load test is open.")
        return self._under_load

    def close(self, value: Mapping[str, Json]) -> dict[str, Json]:
        """Settle and judge the load test, and take its stack down.

        Returns:
            The `report`, its `folder`, the `exit_code`, and as `left` what was wrong if the stack could not be taken
            down, else None: what is known of the tasks is not lost with it.
        """
        left = None
        try:
            account = self.loaded.account(value)
        except BaseException:
            self.drop()
            raise
        try:
            self.drop()
        except HarnessError as error:
            left = _text_of(error)
        folder, exit_code = str(account.folder), account.said["exit_code"]
        return {"report": self._report(account), "folder": folder, "exit_code": exit_code, "left": left}

    def drop(self) -> None:
        """Take the stack down without an account of it, if one is up."""
        with self._shield():
            if self._under_load is not None:
                loaded, self._under_load = self._under_load, None
                loaded.down()

    def _report(self, account: Account) -> str:
        out = io.StringIO()
        is_colourful = self._order is not None and self._order.is_colourful
        console = Console(
            file=out,
            width=self._order.width if self._order is not None else None,
            force_terminal=is_colourful,
            no_color=not is_colourful,
        )
        for part in terminal.load(account.said, account.audited, str(account.folder)):
            console.print(part, soft_wrap=isinstance(part, str))
        return out.getvalue()


def obey(stack_process: StackProcess, order: Mapping[str, Json]) -> dict[str, Json]:
    """Carry out one order, and return the answer. Raises HarnessError if that cannot be done."""
    match order["do"]:
        case "check":
            stack_process.check(Order.from_json(order["order"]))
        case "open":
            return stack_process.open(Order.from_json(order["order"]))
        case "begin":
            stack_process.loaded.begin(order["t"])
        case "expect":
            stack_process.loaded.expect(order["begin_t"], order["end_t"])
        case "leg":
            return {"figures": stack_process.loaded.leg(order["leg"])}
        case "workers":
            return {"workers": stack_process.loaded.set_workers(order["count"])}
        case "close":
            return stack_process.close(order)
        case "drop":
            stack_process.drop()
        case unknown:
            raise UsageError(f"the stack process knows no order {unknown!r}.")
    return {}


def serve(stack_process: StackProcess, orders: Iterator[Mapping[str, Json]]) -> None:
    """Carry out one order after another, and answer each, whatever goes wrong."""
    for order in orders:
        try:
            stack_process.tell("answer", id=order["id"], **obey(stack_process, order))
        except HarnessError as error:
            stack_process.tell("error", id=order["id"], text=_text_of(error))
        except Exception as error:  # noqa: BLE001 - whoever waits for the answer has to hear of it.
            traceback.print_exc()
            text = f"unexpected, please report it: {type(error).__name__}: {error}"
            stack_process.tell("error", id=order["id"], text=text)


def _text_of(error: HarnessError) -> str:
    return told(error)


class _Gone(BaseException):
    """The load process has gone, or wants to wait no longer."""


class _Orders:
    """The orders on standard input. Its end interrupts what is being done, but for what is shielded."""

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
        # A thread can interrupt the main one by a signal alone.
        signal.pthread_kill(main, signal.SIGUSR1)

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        self._is_gone = True
        if self._is_busy and not self._shields:
            self._is_busy = False
            raise _Gone

    @contextlib.contextmanager
    def shield(self) -> Iterator[None]:
        """What is done in it is done to the end; an interruption waits until it is over."""
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1
        if self._is_gone and self._is_busy and not self._shields:
            self._is_busy = False
            raise _Gone

    def each(self) -> Iterator[Mapping[str, Json]]:
        """One order after another, until the end."""
        while (line := self._lines.get()) is not None and not self._is_gone:
            self._is_busy = True
            yield json.loads(line)
            self._is_busy = False


def main() -> None:
    """Carry out orders until the input ends."""
    # Ctrl-C in a terminal goes to all its processes. The load process decides what it means, and says so.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # What libraries print must not come between the messages.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def tell(message: dict[str, Json]) -> None:
        # The load process may have gone; the input's end follows.
        with contextlib.suppress(BrokenPipeError):
            out.write(json.dumps(message) + "\n")
            out.flush()

    orders = _Orders()
    try:
        with contextlib.suppress(_Gone), StackProcess(tell, orders.shield) as stack_process:
            serve(stack_process, orders.each())
    except HarnessError as error:
        sys.exit(f"error: not everything could be taken down: {_text_of(error)}")


if __name__ == "__main__":
    main()
