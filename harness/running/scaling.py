"""Workers that are added and taken away under load, as an autoscaler does it, and all is audited."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from harness.errors import UsageError
from harness.records.rehearsal import Rehearsed
from harness.running.deploying import GRACE_S, MOST_STEPS, Deploying, under_load
from harness.running.survive import Subject
from harness.stack.shared_parts import SharedParts

_ROUNDS = 3
"""How often each worker could have as many tasks as it runs at once, until the number of workers is changed again."""
_MOST = 32


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """The numbers of workers, one after another."""

    sizes: Sequence[int]
    grace_s: float = GRACE_S

    def __str__(self) -> str:
        """Return the numbers as the command line takes them."""
        return "-".join(map(str, self.sizes))


def sizes_of(text: str) -> tuple[int, ...]:
    """Return the numbers of workers of a text such as `1-4-1`. Raises UsageError."""
    if not re.fullmatch(r"[0-9]{1,4}(-[0-9]{1,4})+", text):
        raise UsageError(f"{text!r} says no numbers of workers; give two or more, such as 1-4-1.")
    sizes = tuple(map(int, text.split("-")))
    if not all(1 <= size <= _MOST for size in sizes):
        raise UsageError(f"{text} asks for {min(sizes)} to {max(sizes)} workers; give numbers from 1 to {_MOST}.")
    if same := next((size for size, following in pairwise(sizes) if size == following), None):
        raise UsageError(f"{text} changes nothing from {same} to {same}; give a number once.")
    return sizes


def scaled(
    session: SharedParts, subject: Subject, root: Path, scaling: Scaling, *, most_steps: int = MOST_STEPS
) -> Rehearsed:
    """Change the number of workers while tasks are sent, and return what became of all.

    New workers start at once. Those that are taken away are the youngest, and all get SIGTERM at the same time.

    Args:
        session: has the broker and the images.
        subject: what is sent, and the stack. Its number of workers is not used.
        root: the folder that gets the run folder.
        scaling: the numbers of workers.
        most_steps: the most steps that are taken.

    Raises:
        UsageError: no task ends even before the first change.
        HarnessError: the stack, or a worker of it, does not start.
    """
    first, *following = scaling.sizes

    def change(deploying: Deploying) -> None:
        for size in following:
            more = size - len(deploying.alive)
            if more > 0:
                # There is work for all when they come: that is why somebody adds workers.
                deploying.load.workers = size
                deploying.start(more)
            else:
                deploying.end(deploying.alive[more:], scaling.grace_s)
                deploying.load.workers = size
            deploying.stay(_ROUNDS)

    return under_load(
        session,
        replace(subject, stack=replace(subject.stack, workers=first)),
        root,
        title=f"workers scaled {scaling}, grace {scaling.grace_s:g} s",
        run_name=f"scale-{subject.name}-{scaling}-grace-{scaling.grace_s:g}s",
        about={"scale": {"sizes": list(scaling.sizes), "grace_s": scaling.grace_s}},
        change=change,
        most_steps=most_steps,
    )
