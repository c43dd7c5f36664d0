"""A scenario: the actions on a stack, and the conditions that must hold afterwards.

One definition serves the shell, pytest and Locust.

A scenario's module is also the app's module: workers import it, in containers that have neither Docker nor pytest. So
this module imports only the records.
"""

import heapq
import itertools
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from harness.records.expectation import Effect, Promise
from harness.records.verdict import Finding

if TYPE_CHECKING:
    from harness.producer import Producer
    from harness.stack.stack import Stack


@dataclass(frozen=True, kw_only=True)
class Option:
    """An option of one scenario, which `harness run` accepts beside the common ones."""

    name: str
    """The name, such as `rows` for `--rows`."""
    help: str
    """One sentence for `--help`."""
    default: int | float | str | Path | None
    kind: type[int] | type[float] | type[str] | type[Path]
    """The type of the value; a Path must be an existing file."""
    least: float | None = None
    """The smallest accepted number; None without a limit."""

    def __post_init__(self) -> None:
        """Refuse a name that cannot be both a shell option and a Python keyword argument. Raises ValueError."""
        if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", self.name):
            raise ValueError(f"an option cannot be named {self.name!r}: use small letters, digits and single `_`.")


@dataclass(frozen=True)
class Steps(Collection[int]):
    """The numbers of the steps that several generators took, ascending when iterated over.

    Its memory depends on the number of ranges, not on the number of steps.
    """

    ranges: Sequence[range] = ()
    """Ascending ranges without a common number."""

    def __post_init__(self) -> None:
        """Refuse ranges that count a step twice, or contain numbers that are no steps. Raises ValueError."""
        for one in self.ranges:
            if one.step < 1 or (one and one.start < 0):
                raise ValueError(f"{one} holds no steps: they count from 0, upwards.")
        for one, other in itertools.combinations(sorted(self.ranges, key=len), 2):
            # Two ranges with one step width seldom meet, and are told apart without a look at the numbers.
            meet = (one.start - other.start) % math.gcd(one.step, other.step) == 0
            if meet and any(number in other for number in one):
                raise ValueError(f"{one} and {other} have a step in common: each was taken once.")

    @classmethod
    def dealt(cls, taken: Sequence[int]) -> "Steps":
        """Return the steps of generators that take turns: generator i of n takes i, i + n, i + 2n, and so on.

        Args:
            taken: the number of steps that each of them took.
        """
        count = len(taken)
        return cls([range(first, first + count * steps, count) for first, steps in enumerate(taken)])

    def __contains__(self, number: object) -> bool:
        """Return whether this step was taken."""
        return any(number in one for one in self.ranges)

    def __iter__(self) -> Iterator[int]:
        """Yield all numbers, ascending."""
        return heapq.merge(*self.ranges)

    def __len__(self) -> int:
        """Return the number of steps taken."""
        return sum(map(len, self.ranges))


@dataclass(frozen=True, kw_only=True)
class Drive:
    """The steps and the seed of one pass through a scenario; the same drive sends the same tasks."""

    count: int
    """The number of steps."""
    seed: int
    options: Mapping[str, Any] = field(default_factory=dict)
    """Values of the scenario's own options, by name; an absent one has its default."""
    steps: Collection[int] | None = None
    """The numbers of the steps that were taken, if they are not the first `count`; ascending, as in `Steps`."""

    def __post_init__(self) -> None:
        """Refuse a number of steps other than `count`. Raises ValueError."""
        if self.steps is not None and len(self.steps) != self.count:
            raise ValueError(f"a drive of {self.count} steps cannot have taken {len(self.steps)}.")

    @property
    def numbers(self) -> Collection[int]:
        """The numbers of the steps that were taken: 0 to `count` - 1, unless a load test took others."""
        return range(self.count) if self.steps is None else self.steps


@dataclass(frozen=True, kw_only=True)
class Request:
    """A step as an HTTP request: a POST to the web producer."""

    path: str
    """The path, such as `/emails`."""
    body: bytes
    content_type: str = "application/json"

    def __post_init__(self) -> None:
        """Refuse a path that is not valid in a request. Raises ValueError."""
        if not re.fullmatch(r"/[!-~]*", self.path):
            raise ValueError(f"{self.path!r} is no path of a request: begin with a slash, and quote what is not ASCII.")


class Scenario:
    """The base of a scenario: a subclass sets what it needs and defines `step`; its module has an instance `scenario`.

    A drive calls `prepare`, then `step` `count` times, then `finish`; when everything has come to rest, `effects` and
    `check`.
    """

    name: str
    app: str = ""
    """The argument of `celery -A`; empty for the app in the settings of the project."""
    promise: Promise = Promise()
    mailbox: bool = False
    """True if the stack needs a mailbox."""
    env: Mapping[str, str] = MappingProxyType({})
    """Additional environment for the nodes. Their files belong below /harness/run/app, which is `app` in the run
    folder."""
    worker_options: Sequence[str] | None = None
    """Options of `celery worker`; None for the harness's own."""
    options: Sequence[Option] = ()
    """The scenario's own options."""
    count: int = 100
    """The default number of steps of a drive."""
    routes: str = ""
    """The module with the web producer's routes that accept its requests; see `Stack.add_web`."""

    def prepare(self, stack: "Stack", drive: Drive) -> None:
        """Set up what the first step needs, such as a file or another node; nothing by default."""

    def step(self, producer: "Producer", number: int, seed: int) -> None:
        """Take one user action: send one or more tasks.

        Args:
            producer: sends and journals.
            number: counts the steps of a drive from 0; all that varies comes from it and from `seed`.
            seed: the drive's.
        """
        raise NotImplementedError

    def request(self, number: int, seed: int) -> Request | None:
        """Return the same user action as an HTTP request, from which `routes` sends the same task as `step`.

        Args:
            number: as in `step`.
            seed: the drive's.

        Returns:
            The request; None if this step cannot be taken over HTTP, as by default for every step.
        """
        del number, seed
        return None

    def finish(self, stack: "Stack", drive: Drive) -> None:
        """Do what must follow the last step, before the wait for rest; nothing by default."""

    def effects(self, stack: "Stack", drive: Drive) -> Iterable[Effect]:
        """Return the effects that can be seen in the app's own data, such as rows of its database; none by default.

        Mails are not included, because the mailbox records them. Called when everything has come to rest.
        """
        del stack, drive
        return ()

    def check(self, stack: "Stack", drive: Drive) -> Iterable[Finding]:
        """Return findings on what must hold beyond the accounting, when everything has come to rest; none by default.

        A check that raises makes the verdict unknown, never a pass.

        Args:
            stack: still up, with its mailbox and results.
            drive: what was sent; its `numbers` are the steps, which may have gaps.
        """
        del stack, drive
        return ()

    def value(self, drive: Drive, option: str) -> Any:
        """Return a drive's value of an option, or its default. Raises KeyError for an unknown option."""
        defaults = {one.name: one.default for one in self.options}
        return drive.options.get(option, defaults[option])
