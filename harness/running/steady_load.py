"""A load that keeps workers busy for as long as it is wanted, and no more than busy."""

import threading
from types import TracebackType
from typing import Self

from harness.audit.ledger import Ledger
from harness.records.event import OUTCOMES, Event, Kind
from harness.scenario import Drive, Scenario
from harness.stack.accounted_system import PRODUCER
from harness.stack.stack import Stack
from harness.wait import wait_until

_MOST_PER_S = 20.0
"""The most steps per second. Faster tasks are met as well, and the audit has less to read."""
_IN_FLIGHT = 2
"""Tasks in flight for each process of a worker: one that runs, and one that waits for it."""
_LOOK_S = 0.02


class SteadyLoad:
    """Takes the steps of a scenario in a thread, as long as the workers keep up. A context manager."""

    def __init__(self, stack: Stack, scenario: Scenario, drive: Drive, *, workers: int) -> None:
        """Describe the load.

        Args:
            stack: gets the tasks.
            scenario: has the steps.
            drive: its steps are the most that are taken, without those that the broker refuses.
            workers: how many are kept busy.
        """
        self._stack, self._scenario, self._drive = stack, scenario, drive
        self.workers = workers
        """The number of workers that are kept busy. It may be changed at any time."""
        # The stack's own belongs to whoever adds and settles.
        self._ledger = Ledger(stack.folder.journal)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="steady load", daemon=True)
        self._error: Exception | None = None
        self._processes = 1
        """The processes of the worker that has the most; the ledger itself is the thread's alone."""
        self._outcomes = set[Kind]()
        """What became of what the present step sent."""
        self._ledger.listeners.append(self._hear)
        self.taken = 0
        """The number of steps that were taken."""
        self.refused = 0
        """The number of steps of which the broker took nothing."""
        self.last_taken_t = 0.0
        """When the last task was sent that the broker took, or may have taken, Unix time in seconds."""
        self.last_refused_t = 0.0
        """When the broker refused the last task that it refused, Unix time in seconds."""
        self.last_begun_t = 0.0
        """When the last task began, Unix time in seconds."""
        self.ended = 0
        """The number of tasks that have ended."""
        self.given_up = 0
        """The number of tasks that may never end, so that others are sent in their place."""

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, and raise what a step has raised, unless something else was raised."""
        self._stopped.set()
        self._thread.join()
        if error is None and self._error is not None:
            raise self._error

    @property
    def is_exhausted(self) -> bool:
        """True if all steps were taken, so that nothing more is sent. One that is refused makes room for another."""
        return self.taken - self.refused >= self._drive.count

    def wait_for(self, more: int, timeout_s: float) -> None:
        """Wait until so many more tasks have ended, or nothing more is sent. Raises WaitTimeout."""
        goal = self.ended + more
        wait_until(
            lambda: self.ended >= goal or self.is_exhausted or not self._thread.is_alive(),
            what=f"{more} more tasks have ended",
            timeout_s=timeout_s,
        )

    @property
    def busy(self) -> int:
        """The number of tasks in flight that keep all workers busy."""
        return _IN_FLIGHT * self.workers * self._processes

    def _run(self) -> None:
        try:
            while not self.is_exhausted:
                while not self._has_room():
                    if self._stopped.wait(_LOOK_S):
                        return
                self._take_step()
                if self._stopped.wait(1 / _MOST_PER_S):
                    return
            while not self._stopped.wait(_LOOK_S):
                self._has_room()
        except Exception as error:  # noqa: BLE001 - whoever waits for the load raises it.
            self._error = error

    def _take_step(self) -> None:
        self._outcomes.clear()
        self._scenario.step(self._stack.producer, self.taken, self._drive.seed)
        self._ledger.update()
        # In this order: nobody sees all steps taken because of one that was refused.
        self.refused += self._outcomes == {Kind.REFUSED}
        self.taken += 1

    def _hear(self, event: Event) -> None:
        if event.kind is Kind.STARTED:
            self.last_begun_t = max(self.last_begun_t, event.t)
        elif event.node == PRODUCER and event.kind in OUTCOMES:
            self._outcomes.add(event.kind)
            if event.kind is Kind.REFUSED:
                self.last_refused_t = max(self.last_refused_t, event.t)
            else:
                self.last_taken_t = max(self.last_taken_t, event.t)

    def _has_room(self) -> bool:
        self._ledger.update()
        self.ended = self._ledger.ended
        said = [one.get("concurrency") or 1 for one in self._ledger.settings.values()]
        self._processes = max(said, default=1)
        # Without those that the broker refused, which never begin.
        return len(self._ledger.unended) - self.given_up < self.busy
