"""A stack that is up, as its page shows it, and what the page's buttons do to it."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from harness.audit.ledger import Ledger
from harness.errors import BrokerError, EngineError, UsageError
from harness.faults.kill import Kill
from harness.records.moment import Moment
from harness.records.typed_json import Record
from harness.report import live_page
from harness.report.live_page import MOMENTS, LiveHold, LiveNode, LiveQueue, LiveView
from harness.report.page import page
from harness.report.run_view import view_of
from harness.running.first_step import FirstStep
from harness.running.live_tasks import LatestTasks
from harness.stack.holds import Hold
from harness.stack.stack import Stack
from harness.wait import REAL

_KEPT_S = 0.5
"""Seconds for which a view is kept, so that several open pages cost as much as one."""
_REPORT_KEPT_S = 3.0
_MOST_SENT = 1_000
"""The most tasks of one order. A load test sends more."""
_MOST_HOLDS = 20
_END_S = 20.0
"""Seconds that the end waits for an order that is being carried out. A worker that is being started takes some."""

_T = TypeVar("_T")


class Do(StrEnum):
    """The actions of the buttons."""

    SEND = "send"
    FIRST = "first"
    KILL = "kill"
    START = "start"
    HOLD = "hold"
    LET_GO = "let-go"
    KILL_HELD = "kill-held"


@dataclass(frozen=True, kw_only=True)
class Order(Record):
    """An order of somebody at the page, as the page sends it."""

    do: Do
    name: str = ""
    """A task's registered name; for a hold, nothing means any."""
    args: str = "[]"
    """A JSON array."""
    kwargs: str = "{}"
    """A JSON object."""
    count: int = 1
    node: str = ""
    moment: Moment = Moment.STARTED
    hold: int = 0
    """The number of a hold."""


class LiveStack:
    """A stack and its page's view of it. Threads may share it; orders are carried out one after another."""

    def __init__(self, stack: Stack, first: FirstStep | None = None) -> None:
        """Begin to follow the journal of a stack that is up.

        Args:
            stack: the stack.
            first: what the button for the web producer sends; None for no such button.
        """
        self._stack = stack
        self._first = first
        self._latest = LatestTasks()
        self._ledger = Ledger(stack.folder.journal)
        self._ledger.listeners.append(self._latest.take)
        self._view = _Kept(self._look, _KEPT_S)
        self._report = _Kept(lambda: page(view_of(stack.folder.path)), _REPORT_KEPT_S)
        self._ordering = threading.Lock()
        self._is_over = False
        self._killed: dict[str, Kill] = {}
        self._holds: dict[int, tuple[str, Hold]] = {}
        self._numbers = 0
        self._does: dict[Do, Callable[[Order], str]] = {
            Do.SEND: self._send,
            Do.FIRST: self._send_first,
            Do.KILL: self._kill,
            Do.START: self._start,
            Do.HOLD: self._hold,
            Do.LET_GO: self._let_go,
            Do.KILL_HELD: self._kill_held,
        }

    def page(self, links: Mapping[str, str], token: str) -> str:
        """Return the page, with links to others; its orders show the token."""
        stack, label = self._stack, "" if self._first is None else self._first.label
        here = {"The report as of now": "/report"}
        return live_page.page(stack.spec.app, str(stack.folder.path), here | dict(links), token=token, first=label)

    def view(self) -> LiveView:
        """Return the stack as it is now, or was half a second ago."""
        return self._view.get()

    def report(self) -> str:
        """Return the report of the run as it is now, or was some seconds ago. Raises RunFolderError."""
        return self._report.get()

    def do(self, order: Order) -> str:
        """Carry out an order, and return a sentence that says what was done.

        Raises:
            UsageError: it cannot be carried out, or the stack is being taken down.
            HarnessError: it failed.
        """
        with self._ordering:
            if self._is_over:
                raise UsageError("the stack is being taken down.")
            return self._does[order.do](order)

    def end(self) -> None:
        """Carry out no more orders, and wait for one that is being carried out, for a bounded time.

        Another call waits for nothing: what did not end in that time is not waited for again.
        """
        if self._is_over:
            return
        # Before the wait: an order of many steps stops at the next one.
        self._is_over = True
        if self._ordering.acquire(timeout=_END_S):
            self._ordering.release()

    def _look(self) -> LiveView:
        # Before the journal is read: a task leaves its line before it is held, and is then shown as one that runs.
        holds = tuple(
            _shown(number, hold, name) for number, (name, hold) in list(self._holds.items()) if not hold.is_over
        )
        self._ledger.update()
        notes = list[str]()
        names = {name for said in self._ledger.settings.values() for name in said.get("tasks", ())}
        return LiveView(
            now_t=time.time(),
            sent=self._ledger.sent,
            ended=self._ledger.ended,
            running=sum(1 for _ in self._ledger.running()),
            nodes=tuple(self._nodes(notes)),
            queues=self._queues(notes),
            tasks=self._latest.tasks(),
            holds=holds,
            names=tuple(sorted(map(str, names))),
            notes=tuple(notes),
        )

    def _nodes(self, notes: list[str]) -> Iterator[LiveNode]:
        workers = {worker.name for worker in self._stack.workers}
        for node in (self._stack.broker, *self._stack.nodes()):
            try:
                state = str(node.container.state().status)
            except EngineError as error:
                notes.append(f"{node.name}: {error}")
                state = "unknown"
            yield LiveNode(name=node.name, state=state, is_worker=node.name in workers)

    def _queues(self, notes: list[str]) -> tuple[LiveQueue, ...]:
        try:
            counts = self._stack.broker.queues(self._stack.login.vhost)
        except BrokerError as error:
            notes.append(f"the broker: {error}")
            return ()
        return tuple(LiveQueue(name=one.name, ready=one.ready, unacked=one.unacked) for one in counts)

    def _send(self, order: Order) -> str:
        args, kwargs = _of_kind(order.args, list, "an array, such as [3]"), _of_kind(order.kwargs, dict, "an object")
        known = self.view().names
        if known and order.name not in known:
            raise UsageError(f"no worker knows the task {order.name!r}; there are {', '.join(known)}.")
        if not 1 <= order.count <= _MOST_SENT:
            raise UsageError(f"{order.count} tasks cannot be sent at once: 1 to {_MOST_SENT} can.")
        for accepted in range(order.count):
            # One that the broker does not confirm takes seconds, and so would each of the rest.
            if self._is_over:
                raise UsageError(f"{accepted} of {order.count} were sent: the stack is being taken down.")
            sent = self._stack.producer.send(order.name, args, kwargs)
            if not sent.accepted:
                raise BrokerError(
                    f"{accepted} of {order.count} were accepted, then none was sent any more; "
                    f"{sent.outcome.value}: {sent.reason}"
                )
        return f"Sent {order.name}: {sent.task}" if order.count == 1 else f"Sent {order.count} times {order.name}."

    def _send_first(self, _: Order) -> str:
        if self._first is None:
            raise UsageError("the web producer of this stack has no routes that are known here.")
        status, text = self._stack.web.post(self._first.path, self._first.body)
        return f"The web producer answered {status}: {text}"

    def _kill(self, order: Order) -> str:
        name = self._worker(order.node)
        self._killed[name] = self._stack.inject(Kill(name))
        return f"{name} was killed. Start brings it back; so does the end of the stack."

    def _start(self, order: Order) -> str:
        name = self._worker(order.node)
        fault = self._killed.pop(name, None)
        worker = next(one for one in self._stack.workers if one.name == name)
        if fault is not None:
            fault.heal()
        elif worker.is_up():
            raise UsageError(f"{name} runs already.")
        else:
            worker.start()
            worker.wait_ready()
        return f"{name} is back."

    def _worker(self, name: str) -> str:
        there = [worker.name for worker in self._stack.workers]
        if name not in there:
            raise UsageError(f"there is no worker {name!r}; there are {', '.join(there) or 'none'}.")
        return name

    def _hold(self, order: Order) -> str:
        if order.moment not in MOMENTS:
            raise UsageError(f"this page holds no task at {order.moment.value!r}: the sender would be held.")
        self._holds = {number: one for number, one in self._holds.items() if not one[1].is_over}
        if len(self._holds) >= _MOST_HOLDS:
            raise UsageError(f"{_MOST_HOLDS} tasks are held or awaited already: let some go.")
        hold = self._stack.hold(order.name or None, order.moment)
        self._numbers += 1
        self._holds[self._numbers] = order.name, hold
        return f"The next {order.name or 'task'} that is {order.moment.value} is held there."

    def _let_go(self, order: Order) -> str:
        self._taken(order.hold).let_go()
        return "It goes on."

    def _kill_held(self, order: Order) -> str:
        hold = self._taken(order.hold)
        if hold.held is None:
            raise UsageError("no task is held there yet, so that there is no process to kill.")
        hold.kill()
        return f"The process of {hold.held.task} was killed at {hold.moment.value}."

    def _taken(self, number: int) -> Hold:
        _, hold = self._holds.get(number, ("", None))
        if hold is None or hold.is_over:
            raise UsageError(f"there is no hold {number}, or it is over.")
        return hold


def _shown(number: int, hold: Hold, name: str) -> LiveHold:
    held = hold.held
    where = "" if held is None else f"{held.task} on {held.node}"
    return LiveHold(number=number, whom=name or "any task", moment=hold.moment.value, held=where)


def _of_kind(text: str, kind: type[_T], words: str) -> _T:
    """Return the value of a JSON text. Raises UsageError if it is not of this kind."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{text} is no JSON ({error}).") from None
    if not isinstance(value, kind):
        raise UsageError(f"{text} is not {words}.")
    return value


class _Kept(Generic[_T]):
    """A value that is made anew when it is asked for and too old; one thread makes it, and others wait."""

    def __init__(self, make: Callable[[], _T], kept_s: float) -> None:
        self._make, self._kept_s = make, kept_s
        self._lock = threading.Lock()
        self._made: tuple[float, _T] | None = None

    def get(self) -> _T:
        with self._lock:
            if self._made is None or REAL.now() - self._made[0] > self._kept_s:
                value = self._make()
                self._made = REAL.now(), value
            return self._made[1]
