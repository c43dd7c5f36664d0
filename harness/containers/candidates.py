"""The candidates for one image, each on a base from another source: one that is there, or the first that can be had."""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from harness.containers.engine import Engine, PullError
from harness.containers.image_recipes import Source
from harness.containers.packages import Say, locked, step
from harness.errors import HarnessError


class Candidate(Protocol):
    """An image on a base from one source, which could be built."""

    @property
    def source(self) -> Source:
        """The source of its base."""

    @property
    def base(self) -> str:
        """The reference of its base."""

    @property
    def tag(self) -> str:
        """Its own reference."""


C = TypeVar("C", bound=Candidate)


def present(engine: Engine, candidates: Iterable[Candidate]) -> str | None:
    """Return the first of the images that is there; None if there is none."""
    return next((one.tag for one in candidates if engine.has_image(one.tag)), None)


def built_once(who: str, lock: str, *, present: Callable[[], str | None], build: Callable[[], str], say: Say) -> str:
    """Return an image that is present, or build it. Of several processes one builds, and the others wait for it.

    Args:
        who: the beginning of each line of progress.
        lock: the name of the lock of all who would build the same image.
        present: returns the image that is there; None if none is, or if it is to be built anyway.
        build: builds the image, and returns its reference.
        say: gets the progress.

    Raises:
        WaitTimeout: another process has held the lock for too long.
    """
    if tag := present():
        say(f"{who}: {tag} is present")
        return tag
    with locked(lock, say):
        if tag := present():
            say(f"{who}: {tag} is present, another process has built it")
            return tag
        return build()


def with_base(
    engine: Engine,
    candidates: Sequence[C],
    *,
    who: str,
    bootstrap: Callable[[C], None],
    refused: Callable[[C, PullError], HarnessError],
    say: Say,
) -> C:
    """Return the first image whose base can be had; the base is present then.

    Args:
        engine: gets the base.
        candidates: the image on a base from each source, in the order to try them.
        who: the beginning of each line of progress.
        bootstrap: makes the base of a candidate from the distribution's packages.
        refused: returns the error if the base of the last candidate cannot be pulled.
        say: gets the progress.
    """
    for one in candidates:
        if one.source is Source.BOOTSTRAP:
            bootstrap(one)
        elif not engine.has_image(one.base):
            try:
                pull(engine, one.base, say)
            except PullError as error:
                if one is candidates[-1]:
                    raise refused(one, error) from None
                say(f"{who}: {one.base} cannot be pulled ({error}), so its base is made from packages")
                continue
        return one
    raise AssertionError("The last candidate has a base, or its error was raised.")


def pull(engine: Engine, reference: str, say: Say) -> None:
    """Pull an image, and say so. Raises PullError."""
    with step(say, f"pulling {reference}"):
        engine.pull(reference)
