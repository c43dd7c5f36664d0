"""A scenario: what is done to a stack, and what must hold afterwards. One definition serves every door.

A scenario's module is also the app's module: workers import it, in containers that have neither Docker nor
pytest. So this module imports the records alone.
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


@dataclass(frozen=True)
class Steps(Collection[int]):
    """The numbers of the steps that several generators took: as small as its ranges, however many numbers they have.

    Iterated over, they ascend.
    """

    ranges: Sequence[range] = ()
    """Each ascends, and no number is in two of them."""

    def __post_init__(self) -> None:
        """Refuse what would count a step twice, or is no number of a step."""
        for one in self.ranges:
            if one.step < 1 or (one and one.start < 0):
                raise ValueError(f"{one} holds no steps: they count from 0, upwards.")
        for one, other in itertools.combinations(sorted(self.ranges, key=len), 2):
            # Two with one step between their numbers seldom meet, and are told apart without a look at the numbers.
            meet = (one.start - other.start) % math.gcd(one.step, other.step) == 0
            if meet and any(number in other for number in one):
                raise ValueError(f"{one} and {other} have a step in common: each was taken once.")

    @classmethod
    def dealt(cls, taken: Sequence[int]) -> "Steps":
        """The steps of generators that deal them out in turns: number i of n takes i, i + n, i + 2n, and so on.

        Args:
            taken: how many each of them took.
        """
        count = len(taken)
        return cls([range(first, first + count * steps, count) for first, steps in enumerate(taken)])

    def __contains__(self, number: object) -> bool:
        """Whether this step was taken."""
        return any(number in one for one in self.ranges)

    def __iter__(self) -> Iterator[int]:
        """All numbers, ascending."""
        return heapq.merge(*self.ranges)

    def __len__(self) -> int:
        """How many steps were taken."""
        return sum(map(len, self.ranges))


@dataclass(frozen=True, kw_only=True)
class Drive:
    """How often a scenario is stepped through, and from which seed; the same drive sends the same tasks."""

    count: int
    """How many steps are taken."""
    seed: int
    options: Mapping[str, Any] = field(default_factory=dict)
    """Values of the scenario's own options, by name; what is not there has its default."""
    steps: Collection[int] | None = None
    """The numbers of the steps that were taken, if they are not the first `count`; ascending, as in `Steps`."""

    def __post_init__(self) -> None:
        """Refuse other steps than were counted."""
        if self.steps is not None and len(self.steps) != self.count:
            raise ValueError(f"a drive of {self.count} steps cannot have taken {len(self.steps)}.")

    @property
    def numbers(self) -> Collection[int]:
        """The numbers of the steps that were taken: 0 to `count` - 1, unless a load test took others."""
        return range(self.count) if self.steps is None else self.steps


@dataclass(frozen=True, kw_only=True)
class Request:
    """A step as a web client would take it: a POST to the web producer."""

    path: str
    """Such as `/emails`."""
    body: bytes
    content_type: str = "application/json"

    def __post_init__(self) -> None:
        """Refuse a path that no request could have."""
        if not re.fullmatch(r"/[!-~]*", self.path):
            raise ValueError(f"{self.path!r} is no path of a request: begin with a slash, and quote what is not ASCII.")


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
    routes: str = ""
    """The module with the web producer's routes that take its requests; see `Stack.add_web`."""

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

    def request(self, number: int, seed: int) -> Request | None:
        """The same user action over HTTP: what `routes` makes of it is the task that `step` sends, as expected there.

        Args:
            number: as in `step`.
            seed: the drive's.

        Returns:
            None, if this step cannot be taken over HTTP; that is so for every step, unless a scenario says otherwise.
        """
        del number, seed
        return None

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
            drive: what was sent; its `numbers` say which steps, and need not be without gaps.
        """
        del stack, drive
        return ()

    def value(self, drive: Drive, option: str) -> Any:
        """What a drive says of an option, or its default. Raises KeyError for an option that there is not."""
        defaults = {one.name: one.default for one in self.options}
        return drive.options.get(option, defaults[option])
