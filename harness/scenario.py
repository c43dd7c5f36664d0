"""A scenario: what is done to a stack, and what must hold afterwards. One definition serves every door.

A scenario's module is also the app's module: workers import it, in containers that have neither Docker nor
pytest. So this module imports the records alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from harness.evidence.records import Finding, Promise

if TYPE_CHECKING:
    from harness.producer import Producer
    from harness.stack import Stack


@dataclass(frozen=True, kw_only=True)
class Drive:
    """How often a scenario is stepped through, and from which seed; the same drive sends the same tasks."""

    count: int
    seed: int


class Scenario:
    """Subclass it, say what it needs, and write `step`; an instance named `scenario` is what the doors look for."""

    name: str
    app: str
    """What `celery -A` gets."""
    promise: Promise = Promise()
    mailbox: bool = False
    """Whether the stack needs a mailbox."""
    env: Mapping[str, str] = MappingProxyType({})
    """More environment for the workers. Their files belong below /harness/run/app, which is `app` in the run folder."""
    worker_options: Sequence[str] | None = None
    """Options of `celery worker`; None takes the harness's own."""

    def step(self, producer: "Producer", number: int, seed: int) -> None:
        """One user action: send one or more tasks.

        Args:
            producer: sends and journals.
            number: counts the steps of a drive from 0; all that varies comes from it and from `seed`.
            seed: the drive's.
        """
        raise NotImplementedError

    def check(self, stack: "Stack", drive: Drive) -> Iterable[Finding]:
        """What must hold beyond the accounting, asked when everything came to rest; nothing by default.

        A check that fails to run makes the verdict unknown, never a pass.

        Args:
            stack: still up, with its mailbox and results.
            drive: what was sent.
        """
        del stack, drive
        return ()
