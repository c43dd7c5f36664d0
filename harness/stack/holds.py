"""Holding tasks at moments of their lives: the side of the harness. `harness.inside.breakpoints` is the other one."""

import os
import select
import socket
import threading
from collections import Counter, deque
from contextlib import suppress
from pathlib import Path
from signal import Signals
from types import TracebackType
from typing import Self

from harness.containers.run_socket import address_of
from harness.errors import UsageError, WaitTimeout
from harness.records.moment import SOCKET, Arrival, Moment

WAIT_S = 60.0
"""Seconds that `Hold.wait` waits by default."""
_LONGEST_LINE = 65_536
"""The most bytes of an arrival."""
_KEPT = 10_000
"""The number of arrivals that are kept."""
_SHOWN = 5
"""The number of other arrivals that an error names."""


class Hold:
    """The task that is held, or is to be held, at one moment. A context manager: it is let go at its end."""

    def __init__(
        self, holds: "Holds", moment: Moment, *, name: str | None, task: str | None, nth: int, node: str | None
    ) -> None:
        """Describe whom to hold; see `Holds.hold`."""
        self.moment = moment
        self.held: Arrival | None = None
        """The task, once it is held; None before."""
        self._holds = holds
        self._name = name
        self._task = task
        self._node = node
        self._left = nth
        self._asked_by = threading.get_ident()
        self._is_here = False
        """True if the held task is held in this process."""
        self._has_passed = False
        """True if the thread that has asked for the hold has itself brought a task there that was meant."""
        self._let_go, self._waker = socket.socketpair()
        self._is_over = False
        self._signal: Signals | None = None
        """The signal by which the held process is to end."""

    def __enter__(self) -> Self:
        """Return itself; it waits already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the task go on."""
        self.let_go()

    def __repr__(self) -> str:
        """Say whom it holds, or is to hold."""
        return f"<Hold of {self._whom()} at {self.moment}: {self.held or 'not yet'}>"

    def _whom(self) -> str:
        return " ".join(filter(None, (self._name or "any task", self._task, self._node and f"on {self._node}")))

    @property
    def is_over(self) -> bool:
        """True if nothing is held any more: it was let go, or its process has died."""
        return self._is_over

    def wait(self, timeout_s: float = WAIT_S) -> Arrival:
        """Wait until the task is held, and return it with its node and process.

        Raises:
            WaitTimeout: no such task has reached the moment. The message names what has reached others.
        """
        with self._holds.changed:
            self._holds.changed.wait_for(lambda: self.held is not None, timeout_s)
            if self.held is not None:
                return self.held
            seen = self._holds.seen.most_common(_SHOWN)
        others = ", ".join(f"{count} x {name} at {moment}" for (name, moment), count in seen)
        others = f"so far: {others}" if others else "no task has reached any moment"
        told = f"{self._whom()} has not reached {self.moment.value!r} within {timeout_s:g} s; {others}."
        if self._has_passed:
            told += " The thread that asks for a hold is not held itself: let another thread send the task."
        raise WaitTimeout(told)

    def let_go(self) -> None:
        """Let the task go on, or hold none any more. A second time does nothing."""
        with self._holds.changed:
            if not self._is_over:
                self._is_over = True
                self._waker.close()
                if self.held is None:
                    self._let_go.close()
                self._holds.changed.notify_all()

    def kill(self, signal: Signals = Signals.SIGKILL) -> None:
        """Let the held process end itself by a signal, at this moment.

        Raises:
            UsageError: no task is held, or it is held in the process of the test itself.
        """
        with self._holds.changed:
            if self.held is None or self._is_over:
                raise UsageError(f"{self!r} holds no task: wait() for it before you kill its process.")
            if self._is_here:
                raise UsageError(
                    f"{self!r} holds a thread of this process, which would die with its tests: let_go() lets it go on. "
                    "A producer that may die is the web producer, stack.add_web()."
                )
            self._signal = signal
        self.let_go()

    def takes(self, arrival: Arrival, *, is_here: bool = False) -> bool:
        """Decide whether to hold this one; if so, it is held from now on. The caller has the lock.

        Args:
            arrival: a task that has reached a moment.
            is_here: whether this thread has brought it there. The thread that has asked for the hold is not held:
                it is the one that lets go.
        """
        is_meant = (
            not self._is_over
            and self.held is None
            and arrival.moment is self.moment
            and self._name in {None, arrival.name}
            and self._task in {None, arrival.task}
            and self._node in {None, arrival.node}
        )
        if is_meant and is_here and threading.get_ident() == self._asked_by:
            self._has_passed = True
            return False
        if is_meant:
            self._left -= 1
            if not self._left:
                self.held, self._is_here = arrival, is_here
        return is_meant and self.held is not None

    def keep(self, connection: socket.socket | None = None) -> None:
        """Return when the task may go on, or when its process has died.

        Args:
            connection: the connection of that process; None if this thread is held.
        """
        with self._let_go:
            select.select([self._let_go, *([connection] if connection else [])], [], [])
        if self._signal is not None and connection is not None:
            # If it is dead already, nobody reads this.
            with suppress(OSError):
                connection.sendall(str(int(self._signal)).encode())
        self.let_go()


class Holds:
    """Holds tasks of one stack. It listens in the run folder from the first hold on, until `close`."""

    def __init__(self, folder: Path, *, node: str = "producer") -> None:
        """Prepare to listen.

        Args:
            folder: the run folder.
            node: the node of what this process itself sends.
        """
        self._folder = folder
        self._node = node
        self.changed = threading.Condition()
        """Notified when a task is held, and when one is held no more."""
        self.seen = Counter[tuple[str, Moment]]()
        """The number of arrivals, by the task's name and the moment, since the first hold."""
        self.arrivals: deque[Arrival] = deque(maxlen=_KEPT)
        """The latest arrivals, since the first hold or since `listen`."""
        self._holds: list[Hold] = []
        self._server: socket.socket | None = None

    def hold(
        self, name: str | None, moment: Moment, *, task: str | None = None, nth: int = 1, node: str | None = None
    ) -> Hold:
        """Hold the next task that reaches a moment, and return a handle at once.

        Args:
            name: the registered name of the task; None for any.
            moment: the moment.
            task: its id; None for any.
            nth: which one of those that reach the moment from now on, from 1.
            node: the node on which it is held; None for any.

        Raises:
            UsageError: `nth` is less than 1, or the run folder takes no socket.
        """
        if nth < 1:
            raise UsageError(f"nth is {nth}; the first task that comes is number 1.")
        self.listen()
        with self.changed:
            held = Hold(self, Moment(moment), name=name, task=task, nth=nth, node=node)
            self._holds.append(held)
        return held

    def listen(self) -> None:
        """Note the moments of all tasks from now on, without holding any. A second time does nothing.

        Raises:
            UsageError: the run folder takes no socket.
        """
        with self.changed:
            if self._server is None:
                self._server = self._open()
                threading.Thread(target=self._serve, args=(self._server,), name="holds", daemon=True).start()

    def reach(self, moment: Moment, task: str, name: str) -> None:
        """Say that a task has reached a moment in this thread, and return when it may go on."""
        if self._server is None:
            return
        arrival = Arrival(moment=moment, task=task, name=name, node=self._node, pid=os.getpid())
        if (holding := self._holding(arrival, is_here=True)) is not None:
            holding.keep()

    def _holding(self, arrival: Arrival, *, is_here: bool = False) -> Hold | None:
        """Return the hold that takes a task from now on; None if it may go on at once."""
        with self.changed:
            self.seen[arrival.name, arrival.moment] += 1
            if not is_here:
                self.arrivals.append(arrival)
            holding = next((hold for hold in self._holds if hold.takes(arrival, is_here=is_here)), None)
            self.changed.notify_all()
        return holding

    def let_all_go(self) -> None:
        """Let every held task go on, and hold none any more."""
        with self.changed:
            holds, self._holds = self._holds, []
        for hold in holds:
            hold.let_go()

    def close(self) -> None:
        """Let all go on, and stop listening. A second time does nothing."""
        with self.changed:
            server, self._server = self._server, None
        if server is not None:
            (self._folder / SOCKET).unlink(missing_ok=True)
            # A thread that accepts does not wake when its socket is merely closed.
            server.shutdown(socket.SHUT_RDWR)
            server.close()
        self.let_all_go()

    def _open(self) -> socket.socket:
        server = socket.socket(socket.AF_UNIX)
        try:
            with address_of(self._folder, SOCKET) as address:
                server.bind(address)
            server.listen(socket.SOMAXCONN)
        except OSError as error:
            server.close()
            raise UsageError(f"no task can be held: {self._folder} takes no socket ({error}).") from error
        return server

    def _serve(self, server: socket.socket) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                # `close` has closed it.
                return
            threading.Thread(target=self._answer, args=(connection,), name="hold", daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        """Let one arrival go on, at once or when it is no longer held. The end of the connection lets it go on."""
        with connection:
            line = connection.makefile("r", encoding="utf-8").readline(_LONGEST_LINE)
            try:
                arrival = Arrival.from_line(line)
            except ValueError:
                # The process died while it was telling.
                return
            if (holding := self._holding(arrival)) is not None:
                holding.keep(connection)
