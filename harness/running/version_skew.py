"""Two versions of an app at once, as during a deploy: each one's tasks are sent to the other one's workers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.audit.run_folder import RunFolder
from harness.records.event import Settings
from harness.records.rehearsal import Rehearsed
from harness.records.route import Routes
from harness.records.verdict import Finding
from harness.running.deploying import rehearsed
from harness.running.run import checked
from harness.running.survive import Subject
from harness.stack.shared_parts import Say, SharedParts
from harness.stack.stack import Stack

STEPS = 3
"""The steps of each subject in a run. One task of each name would do; more show that workers go on."""
_REST_S = 30.0
"""Seconds without the end of any task after which waiting for rest ends."""
_SERIALIZER = "task_serializer"


@dataclass(frozen=True, kw_only=True)
class Version:
    """One version of an app."""

    name: str
    """`old` or `new`."""
    subjects: Sequence[Subject]
    """What its producers send. The first one's stack is that of its workers."""


@dataclass(frozen=True, kw_only=True)
class Manner:
    """The way in which the producers of a version send."""

    routes: Routes
    serializer: str


def skew(session: SharedParts, old: Version, new: Version, root: Path, say: Say = lambda _: None) -> list[Rehearsed]:
    """Let each version's producers send to its own workers, and then to the other one's. Return what became of all.

    Args:
        session: has the broker and the images.
        old: the version that runs.
        new: the version that replaces it.
        root: the folder that gets the run folders.
        say: gets a line for each run.

    Raises:
        HarnessError: a stack does not start.
    """
    runs, manners = [], {}
    for version in (old, new):
        say(f"{version.name} producers with {version.name} workers")
        run, manners[version.name] = _mixed(session, version, version, root, None)
        runs.append(run)
    for producers, workers in ((new, old), (old, new)):
        say(f"{producers.name} producers with {workers.name} workers")
        run, _ = _mixed(session, producers, workers, root, manners[producers.name])
        runs.append(run)
    return runs


def _mixed(
    session: SharedParts, producers: Version, workers: Version, root: Path, manner: Manner | None
) -> tuple[Rehearsed, Manner]:
    """Send what one version sends to the workers of another one.

    Args:
        session: has the broker and the images.
        producers: what is sent.
        workers: the stack with its workers.
        root: the folder that gets the run folder.
        manner: how the producers send; None for that of the workers.

    Returns:
        What became of it, and the manner in which the workers' own producers send.
    """
    title = f"{producers.name} producers, {workers.name} workers"
    folder = RunFolder.create(root, title.replace(", ", "-").replace(" ", "-"))
    first = workers.subjects[0]
    promise = producers.subjects[0].scenario.promise
    spec = replace(first.stack, mailbox=any(one.stack.mailbox for one in (*producers.subjects, first)))
    with Stack(session, spec, folder, promise=promise, about={"producers": producers.name}) as stack:
        own = Manner(routes=stack.producer.routes, serializer=_serializer(stack.ledger.settings.values()))
        chosen = manner or own
        stack.producer.routes, stack.producer.serializer = chosen.routes, chosen.serializer
        drives = [(one.scenario, one.drive(STEPS)) for one in producers.subjects]
        for scenario, drive in drives:
            scenario.prepare(stack, drive)
            for number in drive.numbers:
                scenario.step(stack.producer, number, drive.seed)
            scenario.finish(stack, drive)

        def checks() -> Iterable[Finding]:
            for scenario, drive in drives:
                yield from checked(scenario, stack, drive)

        audit = stack.settle(
            _REST_S,
            effects=lambda: [effect for scenario, drive in drives for effect in scenario.effects(stack, drive)],
            checks=checks,
        )
    return rehearsed(title, folder, audit), own


def _serializer(said: Iterable[Settings]) -> str:
    """Return the serializer of the app by its workers' settings; JSON if they do not say it."""
    named = (dict(one).get(_SERIALIZER) for one in said)
    return next((one for one in named if isinstance(one, str)), "json")
