"""Attached: a broker, workers and results that run elsewhere, in place of an own `Stack`.

There is no journal of those workers, the broker is not asked what is left in it, and the effects of the tasks are not
observed. Only the result table tells what ended, and when; what it does not tell, the audit calls unknown.
"""

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from harness.audit import results_copy
from harness.audit.results import Ending, Results, exception_in
from harness.audit.run_folder import RunFolder
from harness.audit.witnesses import Unwitnessed
from harness.broker_connection import shown
from harness.containers.node import Node
from harness.errors import ResultsError
from harness.records.event import Event, Kind
from harness.records.expectation import Promise
from harness.records.finding_codes import Code
from harness.records.values import Json
from harness.records.verdict import Finding, Verdict
from harness.stack.accounted_system import PRODUCER, AccountedSystem, Watch
from harness.stack.attached_urls import check_broker_url, reach_both, without_passwords
from harness.stack.limits import Limits, Wait
from harness.wait import REAL

NODE = "results"
"""The node named in the events of `Attached.poll`."""
_LOOK_S = 0.25
"""Seconds that one look at the results lasts; it reads a thousand ids at a time, and can last a little longer. A longer
look would keep its caller waiting; a shorter one would need more turns until all open tasks were looked up."""
_REST_PER_LOOK = 3
"""The rest after a look, as a multiple of its duration: looks take at most a quarter of one connection's time. The
database is somebody else's, and its workers need it."""
_LEAST_REST_S = 0.2
"""The least rest after a look. Without it, a database that answers fast would be asked without a pause. A row is seen
later by as long as the rest lasts."""
_SETTLE_INTERVAL_S = 0.1
"""Seconds between two checks whether the wait is over. The journal is read each time; most of these checks fall into
the rest after a look, and read no rows."""
_LEAST_ROUNDS = 2
"""The number of times that all open tasks are looked up before the wait ends in vain. The first of these rounds may
have begun before the last task ended."""
_MOST_TIMEOUTS = 2
"""The wait for a database that does not answer, as a multiple of the time-out. One time-out alone would end the wait
without a look at some tasks; without a bound, a database that is down would be waited for until the limit."""
_ZONE_STEP_S = 900
"""All zones are whole quarters of an hour from UTC (the tz database, all zones since 1972)."""
_ASIDE_S = _ZONE_STEP_S / 2
"""The greatest error of a worker's clock, in seconds. A clock that differs more is taken for one in another zone. Half
of the step between two zones is the most that can be told from a zone."""
_SAME_S = 0.001
"""The tolerance, in seconds, within which a row still has the time that was seen before, apart from whole steps of
zones. Unix time as a float is exact to less than a microsecond. A larger value would miss that a row was written
again."""
_NEVER_ASKED = "it runs elsewhere, and was not asked"


class Attached(AccountedSystem):
    """A connection to a broker and workers that run elsewhere. A context manager; it starts and ends nothing there."""

    _not_running = "nothing is attached; use it as `with Attached(...) as attached:`."

    def __init__(
        self,
        broker_url: str,
        results_url: str,
        folder: RunFolder,
        *,
        promise: Promise | None = None,
        about: Mapping[str, Json] | None = None,
    ) -> None:
        """Create it without connecting.

        Args:
            broker_url: an AMQP URL, with the vhost.
            results_url: where the workers store their results, an SQLAlchemy URL, also in Celery's form with `db+`.
            folder: the run's folder, new and empty.
            promise: what is demanded of every task.
            about: more for run.json, such as scenario and seed.

        Raises:
            UsageError: `broker_url` is no AMQP URL.
            ResultsError: `results_url` cannot be used, for example because its driver is not installed.
        """
        check_broker_url(broker_url)
        super().__init__(folder, promise=promise, about=about)
        self.producer_url = broker_url
        """The URL to which load processes send tasks. It holds the password; no file does."""
        self._results = Results(results_url)
        self._results_url = f"db+{results_url.removeprefix('db+')}"
        self._open = _Open()
        self._ledger.listeners.append(self._open.take)
        self._zone = _Zone()
        self._rested_s = REAL.now()

    def _start(self) -> None:
        """Check that the broker answers and the results can be read, and begin the journal.

        Raises:
            BrokerError: the broker does not answer, or refuses the login of this URL.
            ResultsError: the results cannot be read.
        """
        reach_both(self.producer_url, self._results)
        self._start_producer(self.producer_url, self._results_url)
        self._write_run_file(list(Unwitnessed))

    @property
    def ended(self) -> int:
        """The number of tasks that have been seen with a final row."""
        return len(self._open.ended)

    def poll(self) -> list[Event]:
        """Return the tasks whose final rows have been found since the last call, sorted by time, each of them once.

        Tasks are looked up by their ids, a thousand at a time, in turns. So the number of other rows does not matter,
        nor does the `date_done` that another machine's clock wrote. A look takes about a quarter of a second and is
        followed by a longer rest, in which this returns nothing. If one look cannot cover all open tasks, several
        looks do. A database that does not answer is no error here; `settle` reports it.

        Returns:
            Events of kind FINISHED, or REVOKED, from the node `results`: `t` is the row's `date_done` as Unix time,
            `data` has `state`, and for a failure `error`.
        """
        self._ledger.update()
        if REAL.now() < self._rested_s:
            return []
        began_s = REAL.now()
        events = self._look(began_s + _LOOK_S)
        self._rested_s = REAL.now() + max(_LEAST_REST_S, _REST_PER_LOOK * (REAL.now() - began_s))
        return events

    def _look(self, until_s: float) -> list[Event]:
        events: list[Event] = []
        try:
            for endings in self._results.endings(self._open.turn()):
                events += [self._event(ending) for ending in endings if ending.task not in self._open.ended]
                if REAL.now() >= until_s:
                    break
        except ResultsError:
            # `settle` will find out whether the results can be read at the end.
            self._open.look_again()
        else:
            self._open.looked()
        return sorted(events, key=lambda event: event.t)

    def _event(self, ending: Ending) -> Event:
        now_t = time.time()
        t = now_t if ending.done is None else self._zone.unix_time(ending.done, self._open.since_t, now_t)
        self._open.end(ending.task, t)
        data: dict[str, Json] = {"state": ending.status}
        if ending.status == "FAILURE":
            data["error"] = exception_in(ending.result)
        kind = Kind.REVOKED if ending.status == "REVOKED" else Kind.FINISHED
        return Event(kind=kind, t=t, n=-1, node=NODE, pid=-1, task=ending.task, data=data)

    def follow(self) -> None:
        """Pass the events of sent tasks and of found rows since the last call to the listeners; see `poll`."""
        for event in self.poll():
            for listener in self._ledger.listeners:
                listener(event)

    @property
    def workers(self) -> Sequence[Node]:
        """The workers: none, because they are not managed here."""
        return ()

    @property
    def workers_up(self) -> None:
        """The state of the workers: None, because it is not known here."""
        return

    def _come_to_rest(self, limits: Limits, watch: Watch) -> list[Finding]:
        """Wait until every accepted task has a final row, and copy the rows of this run's tasks.

        A task that is still open at the deadline is no error: the audit reports its fate as unknown. The listeners get
        the rows that are found meanwhile.
        """
        wait = Wait(limits)
        self._open.rounds = 0
        while not self._is_over(wait, limits, watch):
            wait.rest(_SETTLE_INTERVAL_S)
        findings = self._copy()
        remains = {"queues": [], "messages": [], "held": [], "anonymous": 0}
        self.folder.write("broker.json", {"readable": False, "reason": _NEVER_ASKED, **remains})
        return findings

    def _is_over(self, wait: Wait, limits: Limits, watch: Watch) -> bool:
        self.follow()
        watch(self._ledger)
        wait.note(self.ended)
        # A database that does not answer is asked again, but not without limit.
        has_looked = self._open.rounds >= _LEAST_ROUNDS or wait.idle_s >= _MOST_TIMEOUTS * limits.timeout_s
        is_in_vain = wait.idle_s >= limits.timeout_s and has_looked
        return not self._open.accepted or is_in_vain or wait.waited_s >= limits.limit_s

    def _copy(self) -> list[Finding]:
        """Copy the rows. If that fails, the folder has no results, and the finding says why."""
        try:
            results_copy.copy(self._results, self._open.known, self.folder.results, self._when)
        except ResultsError as error:
            # With the rows of an earlier look only, the other tasks would seem to have none.
            self.folder.results.unlink(missing_ok=True)
            return [Finding(code=Code.RESULTS_NOT_COPIED, verdict=Verdict.UNKNOWN, count=1, text=str(error))]
        return []

    def _when(self, task: str, done: datetime) -> float:
        """Return the time at which the copy says that a task ended: when it was seen to, unless its row has changed."""
        now_t = time.time()
        seen_t = self._open.ended.get(task)
        if seen_t is None:
            return self._zone.unix_time(done, self._open.since_t, now_t)
        aside_s = _as_utc(done) - seen_t
        if abs(aside_s - _whole_steps_s(aside_s)) < _SAME_S:
            return seen_t
        return self._zone.unix_time(done, seen_t, now_t)

    def _saw(self, effects: int) -> None:
        # If no effect at all was seen, the effects stay unwitnessed.
        if effects:
            self._write_run_file([Unwitnessed.EXECUTIONS, Unwitnessed.BROKER])

    def _write_run_file(self, unwitnessed: Sequence[Unwitnessed]) -> None:
        value = {
            **self.folder.head(self._about, "celery", "kombu", "sqlalchemy"),
            "attached": {"broker": shown(self.producer_url), "results": self._results.where},
            "promise": self.promise.to_json(),
            "nodes": [PRODUCER],
            "unwitnessed": [one.value for one in unwitnessed],
        }
        self.folder.write("run.json", without_passwords(value))


class _Open:
    """The tasks of a run that have no final row yet, in turns, and those that have one."""

    def __init__(self) -> None:
        self.known: dict[str, None] = {}
        """All tasks that were intended to be sent, in order."""
        self.accepted: set[str] = set()
        """Tasks that the broker has accepted and that have not ended."""
        self.ended: dict[str, float] = {}
        """The end of each task that has ended, Unix time."""
        self.rounds = 0
        """The number of times that all open tasks have been looked up since the last of them ended."""
        self.since_t = self._began_t = time.time()
        """A row that is found now, and was not before, was written after this, Unix time."""
        self._refused: set[str] = set()
        self._waiting: deque[str] = deque()
        self._left = 0
        """The number of tasks that have not had their turn in this round."""

    def take(self, event: Event) -> None:
        """Take an event of the journal."""
        task = event.task
        if task is None:
            return
        if event.kind is Kind.INTENDED and task not in self.known:
            self.known[task] = None
            self._waiting.append(task)
        elif event.kind is Kind.REFUSED:
            self._refused.add(task)
        elif event.kind is Kind.ACCEPTED and task not in self.ended:
            self.accepted.add(task)

    def end(self, task: str, t: float) -> None:
        """Record that a task has a final row."""
        self.rounds = 0
        self.ended[task] = t
        self.accepted.discard(task)

    def turn(self) -> Iterator[str]:
        """Yield the open tasks that have not had their turn in this round; after the last one, a new round begins."""
        if not self._left:
            self._left, self._began_t = len(self._waiting), time.time()
        while self._left:
            self._left -= 1
            task = self._waiting.popleft()
            if task not in self.ended and task not in self._refused:
                self._waiting.append(task)
                yield task

    def looked(self) -> None:
        """Note that the tasks that had their turn were looked up."""
        if not self._left:
            self.rounds += 1
            self.since_t = self._began_t

    def look_again(self) -> None:
        """Begin the round again: the tasks that had their turn could not be looked up."""
        self._left = 0


class _Zone:
    """Computes the Unix time of `date_done`, which is written in an unnamed zone; see `Results.endings`.

    A row that was absent at one look and present at the next was written in between. That gives the zone, as long as
    the clocks of the machines agree to seven minutes.
    """

    def __init__(self) -> None:
        self._east_s = 0.0

    def unix_time(self, done: datetime, since_t: float, now_t: float) -> float:
        """Return when a row was written that was absent at `since_t` and present at `now_t`; all in Unix time."""
        t = _as_utc(done) - self._east_s
        if not since_t - _ASIDE_S <= t <= now_t + _ASIDE_S:
            self._east_s = _whole_steps_s(_as_utc(done) - now_t)
            t = _as_utc(done) - self._east_s
        return t


def _as_utc(done: datetime) -> float:
    """Return the Unix time of a naive time, as if it were UTC."""
    return done.replace(tzinfo=UTC).timestamp()


def _whole_steps_s(aside_s: float) -> float:
    """Return the nearest offset of a zone, in seconds."""
    return _ZONE_STEP_S * round(aside_s / _ZONE_STEP_S)
