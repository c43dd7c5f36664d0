"""The command `harness rehearse`: what does a deploy do to the tasks?"""

import re
import shlex
from dataclasses import replace
from functools import partial
from pathlib import Path

import click

from harness.audit.run_folder import RUNS, RunFolder
from harness.commands import subjects
from harness.commands.shared_options import AS_JSON, DEFAULT_FOLDER, FOLDER, SET, examples, print_json, settings_of
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
from harness.running import rehearse, version_skew
from harness.running.survive import Subject
from harness.stack.shared_parts import SharedParts

_OURS = "harness"
"""The entrypoint that is the harness's own command."""


@click.command(
    "rehearse",
    epilog=examples(
        "harness rehearse emails --rolling --grace 10s",
        "harness rehearse --task shop.invoice --args '[7]' --grace 30s --json",
        "harness rehearse --old ../shop-1.4 --new . --app shop",
    ),
)
@click.argument("scenario", required=False)
@click.option("--task", "tasks", multiple=True, metavar="NAME", help="A task to send instead; repeatable.")
@click.option("--args", "args", multiple=True, metavar="JSON", help="Its arguments, a JSON array; one for each --task.")
@click.option("--kwargs", "kwargs", multiple=True, metavar="JSON", help="Its keyword arguments, a JSON object.")
@click.option("--rolling", is_flag=True, help="Replace the workers one by one under load.  [default]")
@click.option(
    "--grace",
    default=f"{rehearse.GRACE_S:g}s",
    show_default=True,
    help="How long a worker may take to end after SIGTERM, until it gets SIGKILL.",
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
@click.option("--workers", type=click.IntRange(min=1), default=rehearse.WORKERS, show_default=True, help="How many.")
@click.option(
    "--count",
    type=click.IntRange(min=1),
    default=rehearse.MOST_STEPS,
    show_default=True,
    help="The most steps to drive.",
)
@SET
@click.option("--app", help="The Celery app, as `celery -A` takes it.  [default: the scenario's, or the settings']")
@click.option("--app-dir", type=FOLDER, help=f"The folder that app and scenario are imported from.  {DEFAULT_FOLDER}")
@click.option("--runs", "root", type=FOLDER, default=RUNS, show_default=True, help="Where the run folders are made.")
@AS_JSON
def rehearse_(
    *,
    scenario: str | None,
    tasks: tuple[str, ...],
    args: tuple[str, ...],
    kwargs: tuple[str, ...],
    rolling: bool,
    grace: str,
    old: str | None,
    new: str | None,
    surge: bool,
    no_proof: bool,
    entrypoint: str | None,
    workers: int,
    count: int,
    overrides: tuple[tuple[str, Json], ...],
    app: str | None,
    app_dir: Path | None,
    root: Path,
    as_json: bool,
) -> int:
    """Rehearse a deploy: replace the workers one by one under load, as an orchestrator does, and account for all.

    What is sent: SCENARIO, or the --task with its --args, or else those tasks of the app that need no arguments and
    touch nothing outside of themselves.

    It says what was lost, doubled and delayed, for how long no worker took tasks, and the shortest grace period that
    cuts no task, proven by a second run. With --old and --new, no worker is replaced: what the producers of each
    version send is run by the workers of the other one. The exit code is 1 if a promise was broken or a task was cut.
    """
    if (old is None) is not (new is None):
        raise click.UsageError("--old and --new belong together.")
    if rolling and old is not None:
        raise click.UsageError("--rolling replaces workers of one version: give it, or --old and --new.")
    if scenario and tasks:
        raise click.UsageError("give a scenario or tasks, not both.")
    console = Console(stderr=as_json)
    if old is not None and new is not None:
        what = partial(_version, scenario=scenario, tasks=tasks, args=args, kwargs=kwargs, app=app, app_dir=app_dir)
        versions = [_with_settings(one, overrides) for one in (what("old", old), what("new", new))]
        folder = RunFolder.create(root, "rehearse-skew")
        rehearsal = Rehearsal(name=f"{old} and {new}", what="skew")
        with progress.of_tasks() as (say, _), SharedParts(say) as session:
            rehearsal.runs += version_skew.skew(session, versions[0], versions[1], folder.path, say)
        return _conclude(rehearsal, folder, console, as_json=as_json)
    deploy = rehearse.Deploy(grace_s=parse_duration_s(grace), surge=surge)
    settings = settings_of(app_dir, app=app)
    sent = (
        subjects.of_scenario(scenario, app, app_dir) if scenario else subjects.of_tasks(settings, tasks, args, kwargs)
    )
    name = scenario or settings.app or "the app"
    sent = [_started(subject, settings, entrypoint, workers, console) for subject in sent]
    sent = [replace(one, stack=replace(one.stack, settings=dict(overrides))) for one in sent]
    folder = RunFolder.create(root, f"rehearse-{name}")
    rehearsal = Rehearsal(name=name, what="rolling")
    with progress.of_tasks() as (say, _), SharedParts(say) as session:
        for subject in sent:

            def run_with(grace_s: float, subject: Subject = subject) -> Rehearsed:
                changed = replace(deploy, grace_s=grace_s)
                return rehearse.rolling(session, subject, folder.path, changed, most_steps=count)

            say(f"{subject.name}: the workers are replaced one by one")
            first = run_with(deploy.grace_s)
            rehearsal.runs.append(first)
            if not no_proof:
                own = rehearse.with_proof(first, Rehearsal(name=subject.name, what="rolling"), run_with, say)
                rehearsal.take_grace(own)
    return _conclude(rehearsal, folder, console, as_json=as_json)


def _version(
    name: str,
    place: str,
    *,
    scenario: str | None,
    tasks: tuple[str, ...],
    args: tuple[str, ...],
    kwargs: tuple[str, ...],
    app: str | None,
    app_dir: Path | None,
) -> version_skew.Version:
    """Return one version of the app: a folder, or an image for the folder of the app."""
    is_folder = Path(place).is_dir()
    if not is_folder and re.match(r"[./~]", place):
        raise UsageError(f"--{name} {place} is no folder.")
    if is_folder and scenario:
        raise UsageError(
            f"a scenario is imported once, and --{name} {place} is a folder of its own: give --task, or nothing for "
            "the tasks that anybody can send, or two images."
        )
    where = Path(place) if is_folder else app_dir
    settings = settings_of(where, app=app)
    named = partial(subjects.of_scenario, scenario, app, where) if scenario else None
    sent = named() if named else subjects.of_tasks(settings, tasks, args, kwargs)
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
