"""A system that tasks are sent to: what a load test needs of it, and how its account is made."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Protocol, Self

from harness.app_binding import app_of
from harness.audit.audit import Audit, audit
from harness.audit.ledger import Ledger
from harness.audit.run_folder import RunFolder
from harness.containers.node import Node
from harness.errors import UsageError, noted_on
from harness.producer import Producer
from harness.records.event import Event, Kind
from harness.records.expectation import Effect, Promise
from harness.records.journal import Writer
from harness.records.moment import Reach, go_on
from harness.records.values import Json
from harness.records.verdict import Finding
from harness.stack.limits import LIMIT_S, TIMEOUT_S, Limits

PRODUCER = "producer"
"""The node of the producer: the process that sends tasks from outside."""
Watch = Callable[[Ledger], None]
"""Gets the ledger after each update."""


class System(Protocol):
    """The interface that a load test needs; `Stack` and `Attached` implement it."""

    folder: RunFolder
    """The run's folder."""

    @property
    def producer(self) -> Producer:
        """The producer that sends tasks to it."""
        ...

    @property
    def workers(self) -> Sequence[Node]:
        """Its workers; none if they are run elsewhere."""

    @property
    def workers_up(self) -> Mapping[str, bool] | None:
        """The state of each worker, by name: True if it is up. None if the workers are run elsewhere."""

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Pass every event to `listener` when `follow` finds it. Call it before anything is started or sent."""

    def follow(self) -> None:
        """Pass what has happened since the last call to the listeners."""

    def settle(
        self,
        timeout_s: float = TIMEOUT_S,
        *,
        limit_s: float = LIMIT_S,
        effects: Callable[[], Iterable[Effect]] | None = None,
        checks: Callable[[], Iterable[Finding]] | None = None,
        watch: Watch = lambda _: None,
    ) -> Audit:
        """Wait until everything is at rest, and audit; see `AccountedSystem.settle`."""
        ...

    def close(self) -> None:
        """Take down its own parts, and disconnect from the rest. A second time does nothing."""


class AccountedSystem(ABC):
    """The common part of systems: a context manager with a producer and a ledger; it comes to rest and is audited."""

    _not_running: ClassVar[str]
    """The error of a system that is used before it is started or after it was closed, as a sentence."""
    _app_name: str | None = None
    """The app that the workers run, as `celery -A` takes it; None if that is not known."""
    _app_folder = Path()
    """The folder that it is imported from."""

    def __init__(self, folder: RunFolder, *, promise: Promise | None, about: Mapping[str, Json] | None) -> None:
        """Create the system without starting anything.

        Args:
            folder: the run's folder, new and empty.
            promise: what is demanded of every task.
            about: more for run.json, such as scenario and seed.
        """
        self.folder = folder
        self.promise = promise or Promise()
        self._about = dict(about or {})
        self._ledger = Ledger(folder.journal)
        self._closing = ExitStack()
        self._producer: Producer | None = None
        self.audited: Audit | None = None
        """The audit of the last `settle`."""

    def __enter__(self) -> Self:
        """Start everything; return when tasks can be sent. Raises HarnessError if that fails; nothing is left then."""
        try:
            self._start()
        except BaseException as error:
            with noted_on(error):
                self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take down its own parts, and disconnect from the rest, also after an error."""
        with noted_on(error):
            self.close()

    @abstractmethod
    def _start(self) -> None:
        """Start or reach its parts, and register with `_closing` how each is taken down."""

    def _start_producer(self, broker_url: str, results_url: str | None = None, *, reach: Reach = go_on) -> None:
        """Begin the producer's journal, and connect the producer to the broker.

        Args:
            broker_url: as for the producer.
            results_url: the result backend of an app that is bound to this system; None for none.
            reach: as for the producer.
        """
        journal = Writer(self.folder.journal, node=PRODUCER, role="producer")
        self._closing.callback(journal.close)
        journal.write(Kind.UP)
        producer = Producer(broker_url, journal, results_url=results_url, reach=reach)
        self._producer = self._closing.enter_context(producer)

    def _learn_routes(self) -> None:
        """Tell the producer where the app sends its tasks, as the workers that are ready say."""
        self.producer.routes = self.ledger.routes

    @property
    def producer(self) -> Producer:
        """The producer that sends tasks to this system. Raises UsageError if the system is not running."""
        if self._producer is None:
            raise UsageError(self._not_running)
        return self._producer

    @contextmanager
    def app(self, which: Any = None) -> Iterator[Any]:
        """Bind a Celery app of this process, and undo it afterwards.

        In it, whatever is sent through the app goes to this system, and is accounted for as what the producer sends:
        `delay`, `apply_async` and canvas, of a test or of the app's own code. Results can be waited for with `get`.
        What other apps send is left alone, and so is what this one sends afterwards.

        Args:
            which: the app, or what `celery -A` takes, which is imported here; by default, the one that the workers run.

        Raises:
            UsageError: it is no Celery app, cannot be imported, or is bound to another system.
        """
        with self.producer.bound(app_of(which or self._app_name, self._app_folder)) as app:
            yield app

    def close(self) -> None:
        """Take down its own parts, and disconnect from the rest. A second time does nothing."""
        self._closing.close()
        self._producer = None

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Pass every event to `listener` when it is found. Call it before anything is started or sent."""
        self._ledger.listeners.append(listener)

    @property
    def ledger(self) -> Ledger:
        """The ledger of the journal up to now."""
        self._ledger.update()
        return self._ledger

    def settle(
        self,
        timeout_s: float = TIMEOUT_S,
        *,
        limit_s: float = LIMIT_S,
        effects: Callable[[], Iterable[Effect]] | None = None,
        checks: Callable[[], Iterable[Finding]] | None = None,
        watch: Watch = lambda _: None,
    ) -> Audit:
        """Wait until everything is at rest, record what is left, and audit.

        The deadline is no error: the audit reports the fate of every task.

        Args:
            timeout_s: seconds to wait for the next task to end; each task that ends restarts it.
            limit_s: seconds to wait in total, for tasks that keep sending each other.
            effects: what can be seen in the app's own data, called after everything came to rest.
            checks: the scenario's own findings, called after that.
            watch: gets the ledger after each update.
        """
        findings = self._come_to_rest(Limits(timeout_s=timeout_s, limit_s=limit_s), watch)
        if effects is not None:
            self._saw(self.folder.write_effects(effects))
        findings += self._look_at_rows()
        if checks is not None:
            findings += checks()
        if checks is not None or findings:
            self.folder.write("checks.json", {"findings": [finding.to_json() for finding in findings]})
        self._before_audit()
        self.audited = audit(self.folder)
        self.folder.write("audit.json", self.audited.to_json())
        return self.audited

    @abstractmethod
    def _come_to_rest(self, limits: Limits, watch: Watch) -> list[Finding]:
        """Wait, write broker.json, and return the findings beside it."""

    def _saw(self, effects: int) -> None:  # noqa: B027 - most systems have nothing to do then.
        """Note how many effects were seen."""

    def _look_at_rows(self) -> list[Finding]:
        """Write the effects in the app's own database, and return a finding for each query that failed."""
        return []

    def _before_audit(self) -> None:  # noqa: B027 - the same.
        """Note that the audit follows."""
