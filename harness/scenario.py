"""A scenario: what is done to a stack, and what must hold afterwards. One definition serves every door.

A scenario's module is also the app's module: workers import it, in containers that have neither Docker nor
pytest. So this module imports the records alone.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from harness.evidence.records import Effect, Finding, Promise

if TYPE_CHECKING:
    from harness.producer import Producer
    from harness.stack import Stack


@dataclass(frozen=True, kw_only=True)
class Option:
    """An option of one scenario alone, which `harness run` takes beside those that all have."""

    name: str
    """Such as `rows`, for `--rows`."""
    help: str
    """One sentence for `--help`."""
    default: int | float | str | Path | None
    kind: type[int] | type[float] | type[str] | type[Path]
    """What a value is; of Path, an existing file."""
    least: float | None = None
    """The smallest number that makes sense."""

    def __post_init__(self) -> None:
        """Refuse a name that a shell's option and a keyword of Python's could not share."""
        if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", self.name):
            raise ValueError(f"an option cannot be named {self.name!r}: use small letters, digits and single `_`.")


@dataclass(frozen=True, kw_only=True)
class Drive:
    """How often a scenario is stepped through, and from which seed; the same drive sends the same tasks."""

    count: int
    seed: int
    options: Mapping[str, Any] = field(default_factory=dict)
    """Values of the scenario's own options, by name; what is not there has its default."""


class Scenario:
    """Subclass it, say what it needs, and write `step`; an instance named `scenario` is what the doors look for.

    A drive is: `prepare`, then `count` times `step`, then `finish`; when everything came to rest, `effects` and
    `check`.
    """

    name: str
    app: str
    """What `celery -A` gets."""
    promise: Promise = Promise()
    mailbox: bool = False
    """Whether the stack needs a mailbox."""
    env: Mapping[str, str] = MappingProxyType({})
    """More environment for the nodes. Their files belong below /harness/run/app, which is `app` in the run folder."""
    worker_options: Sequence[str] | None = None
    """Options of `celery worker`; None takes the harness's own."""
    options: Sequence[Option] = ()
    """Options of its own."""
    count: int = 100
    """How many steps a drive has, unless somebody says otherwise."""

    def prepare(self, stack: "Stack", drive: Drive) -> None:
        """What has to be there before the first step, such as a file or a node more; nothing by default."""

    def step(self, producer: "Producer", number: int, seed: int) -> None:
        """One user action: send one or more tasks.

        Args:
            producer: sends and journals.
            number: counts the steps of a drive from 0; all that varies comes from it and from `seed`.
            seed: the drive's.
        """
        raise NotImplementedError

    def finish(self, stack: "Stack", drive: Drive) -> None:
        """What has to happen after the last step, before everything is expected to come to rest; nothing by default."""

    def effects(self, stack: "Stack", drive: Drive) -> Iterable[Effect]:
        """The effects that can be seen in the app's own world, such as rows of its database; none by default.

        Mails need not be told, the mailbox does that. Asked when everything came to rest.
        """
        del stack, drive
        return ()

    def check(self, stack: "Stack", drive: Drive) -> Iterable[Finding]:
        """What must hold beyond the accounting, asked when everything came to rest; nothing by default.

        A check that fails to run makes the verdict unknown, never a pass.

        Args:
            stack: still up, with its mailbox and results.
            drive: what was sent.
        """
        del stack, drive
        return ()

    def value(self, drive: Drive, option: str) -> Any:
        """What a drive says of an option, or its default. Raises KeyError for an option that there is not."""
        defaults = {one.name: one.default for one in self.options}
        return drive.options.get(option, defaults[option])
