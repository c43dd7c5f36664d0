"""What tasks are sent to, whoever runs it: what a load test asks of it, and how its account is made."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Protocol

from harness.audit.audit import Audit, audit
from harness.audit.ledger import Ledger
from harness.audit.run_folder import RunFolder
from harness.containers.node import Node
from harness.records.event import Event
from harness.records.expectation import Effect, Promise
from harness.records.values import Json
from harness.records.verdict import Finding
from harness.stack.limits import Limits

Watch = Callable[[Ledger], None]
"""Is shown the ledger each time it was brought up to date."""


class System(Protocol):
    """What a load test needs: `Stack` and `Attached` keep it."""

    folder: RunFolder
    """The run's folder."""

    @property
    def workers(self) -> Sequence[Node]:
        """Its workers; none where somebody else runs them."""

    @property
    def workers_up(self) -> Mapping[str, bool] | None:
        """Which workers are up, by name; None where somebody else runs them."""

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Have `listener` shown every event, when `follow` finds it; ask before anything is started or sent."""

    def follow(self) -> None:
        """Show the listeners what has happened since the last call."""

    def settle(
        self,
        timeout_s: float = 60.0,
        *,
        limit_s: float = 3600.0,
        effects: Callable[[], Iterable[Effect]] | None = None,
        checks: Callable[[], Iterable[Finding]] | None = None,
        watch: Watch = lambda _: None,
    ) -> Audit:
        """Wait until everything is at rest, and audit; see `AccountedSystem.settle`."""
        ...

    def close(self) -> None:
        """Take down what is one's own, and disconnect from the rest. A second time does nothing."""


class AccountedSystem(ABC):
    """What systems do alike: they keep a ledger, come to rest, and are audited."""

    def __init__(self, folder: RunFolder, *, promise: Promise | None, about: Mapping[str, Json] | None) -> None:
        """Nothing is started yet.

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
        self.audited: Audit | None = None
        """What the last `settle` found."""

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Have `listener` shown every event, when it is found; ask before anything is started or sent."""
        self._ledger.listeners.append(listener)

    @property
    def ledger(self) -> Ledger:
        """What the journal tells up to now."""
        self._ledger.update()
        return self._ledger

    def settle(
        self,
        timeout_s: float = 60.0,
        *,
        limit_s: float = 3600.0,
        effects: Callable[[], Iterable[Effect]] | None = None,
        checks: Callable[[], Iterable[Finding]] | None = None,
        watch: Watch = lambda _: None,
    ) -> Audit:
        """Wait until everything is at rest, note what is left, and audit.

        The deadline is no error: the audit says what became of everything.

        Args:
            timeout_s: seconds to wait for the next task to end; as long as tasks end, it goes on.
            limit_s: seconds to wait in all, for tasks that send one another for ever.
            effects: what can be seen in the app's own world, asked after everything came to rest.
            checks: what the scenario itself has to say, asked after that.
            watch: is shown the ledger each time it was brought up to date.
        """
        findings = self._come_to_rest(Limits(timeout_s=timeout_s, limit_s=limit_s), watch)
        if effects is not None:
            self._saw(self.folder.write_effects(effects))
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
        """Wait, write broker.json, and return what has to be said beside it."""

    def _saw(self, effects: int) -> None:  # noqa: B027 - most systems have nothing to do then.
        """So many effects were seen."""

    def _before_audit(self) -> None:  # noqa: B027 - the same.
        """All has been asked, and the audit follows."""
