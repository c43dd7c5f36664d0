"""The command `harness rehearse`: what does a deploy do to the tasks?"""

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from harness.audit.run_folder import RunFolder
from harness.commands import subjects
from harness.commands.shared_options import (
    AS_JSON,
    DEFAULT_FOLDER,
    FOLDER,
    SET,
    examples,
    print_json,
    runs_option,
    settings_of,
)
from harness.console import Console
from harness.errors import UsageError
from harness.measure.durations import parse_duration_s
from harness.printable import printable
from harness.project.entrypoints import entrypoint_of
from harness.project.settings import Settings
from harness.project.source_files import Sources
from harness.records.rehearsal import Rehearsal, Rehearsed
from harness.records.values import Json
from harness.report import progress, rehearsal_report, survive_grid
from harness.running import broker_upgrade, rehearse, scaling, version_skew
from harness.running.deploying import GRACE_S, MOST_STEPS
from harness.running.survive import Subject
from harness.stack.shared_parts import SharedParts

_OURS = "harness"
"""The entrypoint that is the harness's own command."""


@click.command(
    "rehearse",
    epilog=examples(
        "harness rehearse emails --rolling --grace 10s",
        "harness rehearse --task shop.invoice --args '[7]' --grace 30s --json",
        "harness rehearse emails --scale 1-4-1 --grace 30s",
        "harness rehearse emails --broker-upgrade --old-broker rabbitmq:4.1-management",
        "harness rehearse --old ../shop-1.4 --new . --app shop",
    ),
)
@click.argument("scenario", required=False)
@click.option("--task", "tasks", multiple=True, metavar="NAME", help="A task to send instead; repeatable.")
@click.option("--args", "args", multiple=True, metavar="JSON", help="Its arguments, a JSON array; one for each --task.")
@click.option("--kwargs", "kwargs", multiple=True, metavar="JSON", help="Its keyword arguments, a JSON object.")
@click.option("--rolling", is_flag=True, help="Replace the workers one by one under load.  [default]")
@click.option(
    "--scale",
    metavar="N-N-N",
    help="Instead: add workers and take them away under load, such as 1-4-1 for one, then four, then one again.",
)
@click.option(
    "--broker-upgrade",
    is_flag=True,
    help="Instead: stop the broker under load, and start the next one with its data.",
)
@click.option("--old-broker", metavar="IMAGE", help="The broker before.  [default: the harness's, as for other stacks]")
@click.option("--new-broker", metavar="IMAGE", help="The broker after.  [default: RabbitMQ of the next series]")
@click.option(
    "--grace",
    metavar="DURATION",
    help=f"How long a worker may take to end after SIGTERM, until it gets SIGKILL.  [default: {GRACE_S:g}s]",
)
@click.option(
    "--old", metavar="FOLDER|IMAGE", help="The version that runs, and --new the one that replaces it: instead."
)
@click.option("--new", metavar="FOLDER|IMAGE", help="A folder with its app, or an image with its packages.")
@click.option("--surge", is_flag=True, help="Start the new worker before the old one is asked to stop.")
@click.option("--no-proof", is_flag=True, help="Make no second run with the shortest grace period.")
@click.option(
    "--entrypoint",
    metavar="COMMAND",
    help=f"How a worker's container starts, such as 'sh -c \"celery -A shop worker\"'; `{_OURS}` for the harness's own "
    "way.  [default: as a compose file or a Dockerfile says it for this app]",
)
@click.option("--workers", type=click.IntRange(min=1), help=f"How many there are.  [default: {rehearse.WORKERS}]")
@click.option("--count", type=click.IntRange(min=1), help=f"The most steps to drive.  [default: {MOST_STEPS}]")
@SET
@click.option("--app", help="The Celery app, as `celery -A` takes it.  [default: the scenario's, or the settings']")
@click.option("--app-dir", type=FOLDER, help=f"The folder that app and scenario are imported from.  {DEFAULT_FOLDER}")
@runs_option("Where the run folders are made.")
@AS_JSON
def rehearse_(**said: Any) -> int:
    """Rehearse a deploy under load, as an orchestrator does it, and account for all: replace the workers one by one.

    What is sent: SCENARIO, or the --task with its --args, or else those tasks of the app that need no arguments and
    touch nothing outside of themselves.

    It says what was lost, doubled and delayed, for how long no worker took tasks, and the shortest grace period that
    cuts no task, proven by a second run. With --scale, workers are added and taken away instead; with
    --broker-upgrade, the broker is replaced; with --old and --new, what the producers of each version send is run by
    the workers of the other one. The exit code is 1 if a promise was broken or a task was cut.
    """
    asked = _Asked(**said)
    asked.check()
    console = Console(stderr=asked.as_json)
    if asked.old is not None and asked.new is not None:
        return _two_versions(asked, asked.old, asked.new, console)
    settings = settings_of(asked.app_dir, app=asked.app)
    if asked.scenario:
        found = subjects.of_scenario(asked.scenario, asked.app, asked.app_dir)
    else:
        found = subjects.of_tasks(settings, asked.tasks, asked.args, asked.kwargs)
    name = asked.scenario or settings.app or "the app"
    workers = asked.workers or rehearse.WORKERS
    sent = [_started(one, settings, asked.entrypoint, workers, console) for one in found]
    sent = [replace(one, stack=replace(one.stack, settings=dict(asked.overrides))) for one in sent]
    with progress.of_tasks() as (say, _), SharedParts(say) as session:
        run, what = _deploy(asked, session)
        # Only here: what is refused leaves no folder behind.
        folder = RunFolder.create(asked.root, f"rehearse-{name}")
        rehearsal = Rehearsal(name=name, what=what)
        for subject in sent:
            run_with = partial(run, session, subject, folder.path)
            say(f"{subject.name}: {_DOING[what]}")
            first = run_with(asked.grace_s)
            rehearsal.runs.append(first)
            # No worker is asked to stop where the broker is replaced.
            if first.replaced and not asked.no_proof:
                own = rehearse.with_proof(first, Rehearsal(name=subject.name, what=what), run_with, say)
                rehearsal.take_grace(own)
    return _conclude(rehearsal, folder, console, as_json=asked.as_json)


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """The arguments of the command line."""

    scenario: str | None
    tasks: tuple[str, ...]
    args: tuple[str, ...]
    kwargs: tuple[str, ...]
    rolling: bool
    scale: str | None
    broker_upgrade: bool
    old_broker: str | None
    new_broker: str | None
    grace: str | None
    old: str | None
    new: str | None
    surge: bool
    no_proof: bool
    entrypoint: str | None
    workers: int | None
    count: int | None
    overrides: tuple[tuple[str, Json], ...]
    app: str | None
    app_dir: Path | None
    root: Path
    as_json: bool

    @property
    def grace_s(self) -> float:
        """The grace period in seconds. Raises UsageError."""
        return GRACE_S if self.grace is None else parse_duration_s(self.grace)

    @property
    def most_steps(self) -> int:
        """The most steps to drive."""
        return self.count or MOST_STEPS

    def check(self) -> None:
        """Raise click.UsageError for what does not go together, and UsageError for what is no value."""
        if (self.old is None) is not (self.new is None):
            raise click.UsageError("--old and --new belong together.")
        kinds = {
            "--rolling": self.rolling,
            "--scale": self.scale,
            "--broker-upgrade": self.broker_upgrade,
            "--old with --new": self.old,
        }
        if len(given := [name for name, value in kinds.items() if value]) > 1:
            raise click.UsageError(f"{' and '.join(given)} are different deploys: rehearse them one at a time.")
        self._refuse_unused(next(iter(given), ""))
        if (self.old_broker or self.new_broker) and not self.broker_upgrade:
            raise click.UsageError("--old-broker and --new-broker belong to --broker-upgrade.")
        if self.old_broker and self.old_broker == self.new_broker:
            raise click.UsageError(
                "--old-broker and --new-broker are the same image, so that nothing would be upgraded."
            )
        if self.scenario and self.tasks:
            raise click.UsageError("give a scenario or tasks, not both.")
        _ = self.grace_s
        if self.scale is not None:
            scaling.sizes_of(self.scale)

    def _refuse_unused(self, kind: str) -> None:
        """Raise click.UsageError for options that a kind of deploy does not use."""
        why, unused = _UNUSED.get(kind, ("", ()))
        said = {
            "--surge": self.surge,
            "--no-proof": self.no_proof,
            "--workers": self.workers,
            "--entrypoint": self.entrypoint,
            "--count": self.count,
            "--grace": self.grace,
        }
        if given := [f"no {name}" for name in unused if said[name]]:
            raise click.UsageError(f"{why}: {' and '.join(given)}.")


_UNUSED = {
    "--scale": ("--scale says itself when there are how many workers", ("--workers", "--surge")),
    "--broker-upgrade": ("--broker-upgrade asks no worker to stop", ("--surge", "--no-proof", "--grace")),
    "--old with --new": (
        "--old with --new lets each version send a few tasks to workers that are not stopped",
        ("--surge", "--no-proof", "--workers", "--entrypoint", "--count", "--grace"),
    ),
}
"""By kind of deploy: why it does not use some options, and these."""
_Run = Callable[[SharedParts, Subject, Path, float], Rehearsed]
"""Rehearses what a subject sends, in a folder, with a grace period in seconds."""
_DOING = {
    "rolling": "the workers are replaced one by one",
    "scale": "workers are added and taken away",
    "broker-upgrade": "the broker is upgraded with its data",
}


def _deploy(asked: _Asked, session: SharedParts) -> tuple[_Run, str]:
    """Return what rehearses the deploy that was asked for, and its kind. Raises UsageError, ImageError."""
    if asked.scale is not None:
        sizes = scaling.sizes_of(asked.scale)

        def scaled(session: SharedParts, subject: Subject, root: Path, grace_s: float) -> Rehearsed:
            how = scaling.Scaling(sizes=sizes, grace_s=grace_s)
            return scaling.scaled(session, subject, root, how, most_steps=asked.most_steps)

        return scaled, "scale"

    if asked.broker_upgrade:
        brokers = _brokers(session, asked)

        def upgraded(session: SharedParts, subject: Subject, root: Path, _grace_s: float) -> Rehearsed:
            return broker_upgrade.upgraded(session, subject, root, brokers, most_steps=asked.most_steps)

        return upgraded, "broker-upgrade"

    def rolling(session: SharedParts, subject: Subject, root: Path, grace_s: float) -> Rehearsed:
        how = rehearse.Deploy(grace_s=grace_s, surge=asked.surge)
        return rehearse.rolling(session, subject, root, how, most_steps=asked.most_steps)

    return rolling, "rolling"


def _brokers(session: SharedParts, asked: _Asked) -> broker_upgrade.Upgrade:
    """Return the brokers that were asked for. Raises UsageError if that is no upgrade, ImageError."""
    old = session.broker_image_of(asked.old_broker)
    new = session.broker_image_of(asked.new_broker, is_next=True)
    return broker_upgrade.Upgrade(
        old_image=old, new_image=new, old=session.broker_version(old), new=session.broker_version(new)
    )


def _two_versions(asked: _Asked, old: str, new: str, console: Console) -> int:
    """Let two versions of the app meet, and return the exit code."""
    versions = [_with_settings(_version(asked, *one), asked.overrides) for one in (("old", old), ("new", new))]
    folder = RunFolder.create(asked.root, "rehearse-skew")
    rehearsal = Rehearsal(name=f"{old} and {new}", what="skew")
    with progress.of_tasks() as (say, _), SharedParts(say) as session:
        rehearsal.runs += version_skew.skew(session, versions[0], versions[1], folder.path, say)
    return _conclude(rehearsal, folder, console, as_json=asked.as_json)


def _version(asked: _Asked, name: str, place: str) -> version_skew.Version:
    """Return one version of the app: a folder, or an image for the folder of the app."""
    is_folder = Path(place).is_dir()
    if not is_folder and re.match(r"[./~]", place):
        raise UsageError(f"--{name} {place} is no folder.")
    if is_folder and asked.scenario:
        raise UsageError(
            f"a scenario is imported once, and --{name} {place} is a folder of its own: give --task, or nothing for "
            "the tasks that anybody can send, or two images."
        )
    where = Path(place) if is_folder else asked.app_dir
    settings = settings_of(where, app=asked.app)
    if asked.scenario:
        sent = subjects.of_scenario(asked.scenario, asked.app, where)
    else:
        sent = subjects.of_tasks(settings, asked.tasks, asked.args, asked.kwargs)
    if not is_folder:
        sent = [replace(one, stack=replace(one.stack, image=place, build=None)) for one in sent]
    return version_skew.Version(name=name, subjects=sent)


def _with_settings(version: version_skew.Version, overrides: tuple[tuple[str, Json], ...]) -> version_skew.Version:
    subjects_ = [replace(one, stack=replace(one.stack, settings=dict(overrides))) for one in version.subjects]
    return replace(version, subjects=subjects_)


def _started(subject: Subject, settings: Settings, entrypoint: str | None, workers: int, console: Console) -> Subject:
    """Return the subject with so many workers, which are started as the project starts them."""
    words: tuple[str, ...] = ()
    if entrypoint is None:
        found = entrypoint_of(Sources(settings.folder), subject.stack.app)
        if found is not None:
            words = found.words
            console.print(printable(f"workers start as in {found.source}: {shlex.join(words)}"), soft_wrap=True)
    elif entrypoint != _OURS:
        try:
            words = tuple(shlex.split(entrypoint))
        except ValueError as error:
            raise UsageError(f"--entrypoint {entrypoint} is no command: {error}.") from None
    return replace(subject, stack=replace(subject.stack, workers=workers, entrypoint=words))


def _conclude(rehearsal: Rehearsal, folder: RunFolder, console: Console, *, as_json: bool) -> int:
    """Write and show the outcome, and return the exit code."""
    said = rehearsal.to_json()
    folder.write("rehearsal.json", said)
    (folder.path / "rehearsal.md").write_text(rehearsal_report.markdown(rehearsal), encoding="utf-8")
    if as_json:
        print_json(said)
    for part in rehearsal_report.parts(rehearsal):
        console.print(part)
    console.print("verdict: ", survive_grid.verdict_of(rehearsal.verdict), sep="")
    console.print(f"run folder: {folder.path}", soft_wrap=True)
    return rehearsal.verdict.exit_code
