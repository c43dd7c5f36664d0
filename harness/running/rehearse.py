"""A deploy, rehearsed: workers are replaced one by one under load, as an orchestrator does it, and all is audited."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.records.rehearsal import Rehearsal, Rehearsed
from harness.running.deploying import GRACE_S, MOST_STEPS, Deploying, under_load
from harness.running.survive import Subject
from harness.stack.shared_parts import Say, SharedParts

WORKERS = 2
_ROUNDS = 3
"""Grace periods that are tried. A task that was cut each time shows its length only when it has time to end."""
_MARGIN_S = 0.5
"""Seconds that are added to the longest execution: the worker has to hear the signal, and to acknowledge the task."""


@dataclass(frozen=True, kw_only=True)
class Deploy:
    """The way in which workers are replaced."""

    grace_s: float = GRACE_S
    surge: bool = False
    """True if the new worker is there before the old one is asked to stop."""


def rolling(
    session: SharedParts, subject: Subject, root: Path, deploy: Deploy, *, most_steps: int = MOST_STEPS
) -> Rehearsed:
    """Replace every worker once, one after another, while tasks are sent, and return what became of all.

    Args:
        session: has the broker and the images.
        subject: what is sent, and the stack with its workers.
        root: the folder that gets the run folder.
        deploy: how the workers are replaced.
        most_steps: the most steps that are taken.

    Raises:
        UsageError: no task ends even before a worker is replaced.
        HarnessError: the stack, or a worker of it, does not start.
    """

    def change(deploying: Deploying) -> None:
        for old in list(deploying.alive):
            if deploy.surge:
                deploying.start()
            deploying.end([old], deploy.grace_s)
            if not deploy.surge:
                deploying.start()

    return under_load(
        session,
        subject,
        root,
        title=f"{subject.stack.workers} workers replaced one by one, grace {deploy.grace_s:g} s",
        run_name=f"rolling-{subject.name}-grace-{deploy.grace_s:g}s",
        about={"rolling": {"grace_s": deploy.grace_s}},
        change=change,
        most_steps=most_steps,
    )


def needed_grace_s(run: Rehearsed) -> int | None:
    """Return the grace period in whole seconds in which every task of a run could have ended.

    It is that of the longest execution that was seen, as if it had begun when its worker was asked to stop. None if no
    grace period helps, because the signal does not reach Celery, or if no task ended.
    """
    if run.longest_s is None or any(one.is_deaf for one in run.replaced):
        return None
    return math.ceil(run.longest_s + _MARGIN_S)


def with_proof(
    first: Rehearsed, rehearsal: Rehearsal, run_with: Callable[[float], Rehearsed], say: Say = lambda _: None
) -> Rehearsal:
    """Find the shortest grace period, prove it by a run, and return the rehearsal with it.

    Args:
        first: the run with the grace period that was asked for.
        rehearsal: gets the shortest one and its proof.
        run_with: makes a run with a grace period in seconds.
        say: gets a line for each run.
    """
    needed_s = needed_grace_s(first)
    for _ in range(_ROUNDS):
        if needed_s is None:
            break
        say(f"once more, with a grace period of {needed_s} s")
        proof = run_with(needed_s)
        rehearsal.shortest_grace_s, rehearsal.proof = needed_s, proof
        rehearsal.is_proven = not proof.cut
        if rehearsal.is_proven:
            break
        # What was cut before may have ended now, and be longer than all that was seen.
        needed_s = max(needed_grace_s(proof) or 0, 2 * needed_s)
    return rehearsal
