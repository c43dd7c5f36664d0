"""The generator of a load test. It makes each arrival when it is due, and gives it to a free sender.

It runs in a Locust process under gevent. Nothing may block there, because the dispatcher would miss its next arrival.
The delay that remains is measured.
"""

import contextlib
import gc
import itertools
import json
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gevent
import psutil
from gevent.event import Event
from gevent.queue import Empty, Queue
from geventhttpclient import HTTPClient

from harness.errors import UsageError
from harness.loadtest.processor_time import MachineTimes, set_realtime_priority
from harness.loadtest.publish_pipeline import Pipelined
from harness.loadtest.worker_messages import Go, Offer, WindowCounts
from harness.measure.load_account import Counts
from harness.measure.stages import Histogram
from harness.printable import printable
from harness.producer import Producer, Sent
from harness.records.event import Kind
from harness.records.journal import Writer
from harness.scenario import Scenario

_log = logging.getLogger("harness.load")

PATIENCE_S = 5.0
"""The longest time that an arrival waits for a free sender. After that it is dropped."""
GRACE_S = 0.25
"""The time at the end of a leg in which senders may still take the arrivals that were due before."""
FREEZE_S = 30.0
"""The longest wait for the sends in flight at the end of a leg."""
NODE = "load"
"""The node name in the load processes' journals."""
_POLL_S = 0.005
_CATCH_UP = 10
"""The number of late arrivals after which the dispatcher lets other greenlets run."""
_HTTP_TIMEOUT_S = 15.0
_SHOWN_ERRORS = 10


class NotAccepted(Exception):  # noqa: N818 - it names what happened.
    """The broker or the web producer did not take a task, or its outcome is unknown."""


class Dropped(Exception):  # noqa: N818 - it names what happened.
    """No sender was free for an arrival."""


Fire = Callable[[str, str, float, Exception | None], None]
"""Takes a row of Locust's table: type, name, milliseconds, and the error."""


class _Tallying(Pipelined):
    """A producer that counts the outcomes of its sends, and reports each send to Locust."""

    def __init__(self, broker_url: str, journal: Writer, tally: Counter[str], fire: Fire) -> None:
        super().__init__(broker_url, journal)
        self._tally = tally
        self._fire = fire

    def send(self, name: str, *args: Any, **options: Any) -> Sent:
        began_t = time.time() if self._due_t is None else self._due_t
        try:
            sent = super().send(name, *args, **options)
        except UsageError:
            # No task was intended or sent.
            raise
        except BaseException:
            self._tally["unknown"] += 1
            raise
        self._tally[sent.outcome.value] += 1
        error = None if sent.accepted else NotAccepted(f"{sent.outcome.value}: {sent.reason}")
        self._fire("PUBLISH", name, (time.time() - began_t) * 1000, error)
        return sent


@dataclass
class _Mix:
    """Distributes arrivals over scenarios in proportion to their weights, as evenly as whole numbers allow."""

    scenarios: Sequence[tuple[Scenario, float]]
    """The scenarios with their weights."""
    _given: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self._given = [0] * len(self.scenarios)

    def next(self) -> Scenario:
        """Return the scenario of the next arrival."""
        behind = min(range(len(self._given)), key=lambda one: (self._given[one] + 1) / self.scenarios[one][1])
        self._given[behind] += 1
        return self.scenarios[behind][0]


class Generator:
    """The generator of one process. It makes each arrival when it is due, and gives it to a free sender."""

    def __init__(
        self,
        scenarios: Mapping[str, Scenario],
        fire: Fire,
        *,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = gevent.sleep,
    ) -> None:
        """Create a generator that sends nothing before `go`.

        Args:
            scenarios: the scenarios, by their names in a `Go`.
            fire: receives every send.
            now: returns the Unix time in seconds.
            sleep: lets other greenlets run for a number of seconds.
        """
        self._scenarios = scenarios
        self._fire = fire
        self._now = now
        self._sleep = sleep
        self._mix = _Mix([])
        self._queue: Queue[tuple[float, Scenario]] = Queue()
        self._dispatcher: gevent.Greenlet[[Go], None] | None = None
        self._go: Go | None = None
        self._going = Event()
        self._in_flight = 0
        self._producer: Producer | None = None
        self._journal: Writer | None = None
        self._http: HTTPClient | None = None
        self._process = psutil.Process()
        self._tally: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._window: Counter[str] = Counter()
        self._numbers: Counter[str] = Counter()
        self._lateness = Histogram()
        self._broken: list[str] = []
        self._cpu_s = self._began_s = 0.0
        self._machine = MachineTimes.read()
        self._arrivals: Iterator[float] = iter(())
        self._next_t: float | None = None
        """The due time of the arrival that the dispatcher waits for."""
        self._until_t = math.inf
        """The end of the leg: arrivals that are due later are never offered."""

    def go(self, go: Go) -> None:
        """Begin a leg. Raises JournalError if the journal cannot be opened."""
        scenarios = [(self._scenarios[name], weight) for name, weight in go.scenarios]
        if self._producer is None:
            self._open(go)
        self._go = go
        self._window, self._numbers, self._lateness = Counter(), Counter(), Histogram()
        times = self._process.cpu_times()
        self._cpu_s, self._began_s = times.user + times.system, time.monotonic()
        self._machine = MachineTimes.read()
        self._arrivals, self._next_t, self._until_t = go.plan.arrivals(), None, math.inf
        self._mix = _Mix(scenarios)
        self._going.set()
        if go.is_open:
            set_realtime_priority(is_on=True)
            self._dispatcher = gevent.spawn(self._dispatch, go)

    def _open(self, go: Go) -> None:
        """Begin a run: open the journal, and create the producer or the HTTP client."""
        # A garbage collection visits all objects. With Locust and Celery loaded this takes tens of milliseconds, and
        # nothing is sent during it. The objects that exist now stay for the whole run, so they are excluded.
        gc.freeze()
        self._journal = Writer(go.journal, node=NODE, role="producer", now=self._now)
        self._journal.write(Kind.UP)
        self._producer = self._sends_with(go.broker_url, self._journal)
        self._producer.routes = go.routes
        if go.web_url is not None:
            self._http = HTTPClient.from_url(
                go.web_url, concurrency=1000, connection_timeout=_HTTP_TIMEOUT_S, network_timeout=_HTTP_TIMEOUT_S
            )

    def _sends_with(self, broker_url: str, journal: Writer) -> Producer:
        return _Tallying(broker_url, journal, self._tally, self._fire)

    def _dispatch(self, go: Go) -> None:
        for number, offset_s in enumerate(self._arrivals):
            due_t = self._next_t = go.begin_t + offset_s
            wait_s = due_t - self._now()
            # A late dispatcher must not block the other greenlets until it has caught up.
            if wait_s > 0 or number % _CATCH_UP == 0:
                self._sleep(max(wait_s, 0))
            if due_t > self._until_t:
                return
            self._offer(due_t, go)
            self._next_t = None
            self._queue.put((due_t, self._mix.next()))
            self._drop_stale()

    def _offer(self, due_t: float, go: Go) -> None:
        self._counts["offered"] += 1
        if go.window[0] <= due_t < go.window[1]:
            self._window["offered"] += 1
            self._lateness.record(self._now() - due_t)

    def _drop_stale(self) -> None:
        while self._queue.qsize():
            due_t, _ = self._queue.peek()
            if self._now() - due_t < PATIENCE_S:
                return
            self._drop(*self._queue.get_nowait(), f"no sender was free for {PATIENCE_S:g} s")

    def _drop(self, due_t: float, scenario: Scenario, why: str) -> None:
        self._counts["dropped"] += 1
        if self._go is not None and self._go.window[0] <= due_t < self._go.window[1]:
            self._window["dropped"] += 1
        self._fire("PUBLISH", scenario.name, (self._now() - due_t) * 1000, Dropped(why))

    def serve(self) -> None:
        """Take arrivals and send them until the greenlet is killed. Every sender runs this."""
        while True:
            self._going.wait()
            go = self._go
            if go is None:
                continue
            if go.is_open:
                due_t, scenario = self._queue.get()
            else:
                self._sleep(max(go.begin_t - self._now(), 0))
                if not self._going.is_set():
                    continue
                due_t, scenario = self._now(), self._mix.next()
                self._offer(due_t, go)
            self._send(go, due_t, scenario)

    def _send(self, go: Go, due_t: float, scenario: Scenario) -> None:
        """Send one arrival, and wait for the end of the send."""
        producer = self._producer
        if producer is None:
            # The run was broken off. It has no account, so this arrival need not be counted.
            return
        number = go.bases.get(scenario.name, 0) + go.plan.share + self._numbers[scenario.name] * go.plan.shares
        self._numbers[scenario.name] += 1
        self._counts["sent"] += 1
        self._in_flight += 1
        # In a greenlet of its own: Locust can kill its users at any time, but the outcome of a send that has begun has
        # to be known.
        gevent.spawn(self._perform, go, producer, due_t, number, scenario).join()

    def _perform(self, go: Go, producer: Producer, due_t: float, number: int, scenario: Scenario) -> None:
        try:
            if self._http is not None:
                self._request(self._http, due_t, number, scenario, go)
            else:
                scenario.step(producer.at(due_t), number, go.seed)
        except Exception as error:  # noqa: BLE001 - a scenario's step may raise anything; it is told, and the run goes on.
            self._counts["broken"] += 1
            self._break(f"step {number} of {scenario.name}: {type(error).__name__}: {error}")
            self._fire("PUBLISH", scenario.name, (self._now() - due_t) * 1000, error)
        else:
            self._counts["done"] += 1
        finally:
            self._in_flight -= 1

    def _request(self, http: HTTPClient, due_t: float, number: int, scenario: Scenario, go: Go) -> None:
        request = scenario.request(number, go.seed)
        if request is None:
            raise UsageError(f"{scenario.name} has no request() for step {number}.")
        headers = {"Content-Type": request.content_type, "Harness-Due": f"{due_t:.6f}"}
        error: Exception | None = None
        try:
            answer = http.post(request.path, body=request.body, headers=headers)
            body = answer.read()
        except (OSError, ValueError) as broken:
            # Without a connection, nothing was requested. An answer that is not HTTP raises ValueError.
            outcome = Kind.REFUSED if isinstance(broken, ConnectionRefusedError) else Kind.UNKNOWN
            error = NotAccepted(f"{outcome.value}: {type(broken).__name__}: {broken}")
        else:
            outcome, error = _answered(answer.status_code, body)
        self._tally[outcome.value] += 1
        self._fire("PUBLISH", f"POST {request.path}", (self._now() - due_t) * 1000, error)

    def complain(self, text: str) -> None:
        """Record an error for the account; it makes the verdict unknown."""
        self._break(text)

    def _break(self, text: str) -> None:
        if len(self._broken) < _SHOWN_ERRORS:
            _log.error("%s", printable(text))
            self._broken.append(text)

    def freeze(self) -> Offer:
        """End the leg: stop the arrivals, wait for the sends in flight, and return all counts, which are exact then."""
        now_t = self._until_t = self._now()
        go = self._go
        if go is not None and go.is_open:
            self._wait(lambda: (self._next_t or math.inf) > now_t and not self._queue.qsize(), GRACE_S)
        if self._dispatcher is not None:
            self._dispatcher.kill(block=True)
            self._dispatcher = None
        self._going.clear()
        if go is not None and go.is_open:
            self._drop_rest(go, now_t)
        self._wait(lambda: not self._in_flight, FREEZE_S)
        set_realtime_priority(is_on=False)
        if self._in_flight:
            self._break(f"{self._in_flight} sends were still in flight after {FREEZE_S:g} s")
        times = self._process.cpu_times()
        took_s = max(time.monotonic() - self._began_s, 0.001)
        stolen = MachineTimes.read().share_stolen_since(self._machine)
        bases = go.bases if go is not None else {}
        share, shares = (go.plan.share, go.plan.shares) if go is not None else (0, 1)
        return Offer(
            counts=Counts(**self._counts, **self._tally),
            window=WindowCounts(**self._window),
            lateness=self._lateness.encode(),
            stolen=round(stolen, 4),
            cpu=round((times.user + times.system - self._cpu_s) / took_s, 4),
            steps={
                name: (bases.get(name, 0) + share, bases.get(name, 0) + share + count * shares, shares)
                for name, count in self._numbers.items()
            },
            broken=tuple(self._broken),
            until_t=now_t,
        )

    def _wait(self, is_over: Callable[[], bool], timeout_s: float) -> None:
        until_t = self._now() + timeout_s
        while not is_over() and self._now() < until_t:
            self._sleep(_POLL_S)

    def _drop_rest(self, go: Go, now_t: float) -> None:
        """Drop the arrivals that were due but that no sender took, or that the dispatcher was too late for."""
        with contextlib.suppress(Empty):
            while True:
                self._drop(*self._queue.get_nowait(), "the leg was over before a sender was free")
        waited_for = [] if self._next_t is None else [self._next_t]
        for due_t in itertools.chain(waited_for, (go.begin_t + offset_s for offset_s in self._arrivals)):
            if due_t > now_t:
                break
            self._offer(due_t, go)
            self._drop(due_t, self._mix.next(), "the dispatcher was late")
        # A second freeze of the leg must find no arrivals.
        self._arrivals, self._next_t = iter(()), None

    def close(self) -> None:
        """End the run. The counts of the next leg begin at zero."""
        gc.unfreeze()
        set_realtime_priority(is_on=False)
        # A run that is broken off is not frozen before this.
        self._going.clear()
        if self._dispatcher is not None:
            self._dispatcher.kill(block=True)
            self._dispatcher = None
        if self._producer is not None:
            self._producer.close()
        if self._journal is not None:
            self._journal.close()
        if self._http is not None:
            self._http.close()
        self._producer = self._journal = self._http = self._go = None
        self._tally, self._counts, self._broken = Counter(), Counter(), []


def _answered(status: int, body: bytes) -> tuple[Kind, Exception | None]:
    """Return the outcome and the error that an answer of the web producer means."""
    if status == 202:  # noqa: PLR2004 - HTTP's Accepted.
        return Kind.ACCEPTED, None
    try:
        said = json.loads(body)
        outcome = Kind.UNKNOWN if said.get("outcome") == Kind.UNKNOWN.value else Kind.REFUSED
        detail = said.get("detail")
    except (ValueError, AttributeError):
        # An error that does not come from the web producer itself says nothing about the task.
        outcome, detail = Kind.UNKNOWN, body[:200].decode("utf-8", "replace")
    return outcome, NotAccepted(f"{outcome.value}: {status}: {detail}")
