"""The command `harness survive`: do the tasks of an app survive? Without a test written for it."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click

from harness.audit.run_folder import RunFolder, own_command
from harness.commands import subjects
from harness.commands.command_exit import complain
from harness.commands.shared_options import DEFAULT_FOLDER, FOLDER, JUNIT, SET, examples, runs_option, settings_of
from harness.console import Console
from harness.errors import RunFolderError, UsageError
from harness.printable import printable
from harness.records.regular_file import replacing
from harness.records.survival import Demand, Survival
from harness.records.values import Json
from harness.report import checks, markdown, progress, step_summary, survive_grid
from harness.report.junit import Suite, suite, written
from harness.report.write_report import write_survival
from harness.running import survive
from harness.stack.shared_parts import SharedParts

BASELINE = Path("survive.json")
"""The baseline of a project, if it is there."""


@click.command(
    "survive",
    epilog=examples(
        "harness survive emails --quick",
        """harness survive --task shop.welcome --args '["a@b.example"]' --junit junit.xml""",
        "harness survive --quick --save",
    ),
)
@click.argument("scenario", required=False)
@click.option("--task", "tasks", multiple=True, metavar="NAME", help="A task to send instead; repeatable.")
@click.option("--args", "args", multiple=True, metavar="JSON", help="Its arguments, a JSON array; one for each --task.")
@click.option("--kwargs", "kwargs", multiple=True, metavar="JSON", help="Its keyword arguments, a JSON object.")
@click.option("--quick", "is_quick", is_flag=True, help="Only the eight cells that break most apps.")
@click.option("--full", "is_full", is_flag=True, help="All moments and faults.  [default]")
@click.option(
    "--promise",
    "demand",
    type=click.Choice([one.value for one in Demand]),
    default=Demand.AT_LEAST_ONCE.value,
    show_default=True,
    help="What is demanded of every task under every fault.",
)
@SET
@click.option("--app", help="The Celery app, as `celery -A` takes it.  [default: the scenario's, or the settings']")
@click.option("--app-dir", type=FOLDER, help=f"The folder that app and scenario are imported from.  {DEFAULT_FOLDER}")
@runs_option("Where the run folders are made.")
@click.option(
    "--baseline",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"Fail only on what got worse since this file.  [default: {BASELINE}, if it is there]",
)
@click.option("--save", is_flag=True, help="Write the outcome as the new baseline.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON on standard output.")
@JUNIT
def survive_(
    *,
    scenario: str | None,
    tasks: tuple[str, ...],
    args: tuple[str, ...],
    kwargs: tuple[str, ...],
    is_quick: bool,
    is_full: bool,
    demand: str,
    overrides: tuple[tuple[str, Json], ...],
    app: str | None,
    app_dir: Path | None,
    root: Path,
    baseline: Path | None,
    save: bool,
    as_json: bool,
    junit: Path | None,
) -> int:
    """Do my tasks survive? Hold each task at each moment of its life, do the worst to it, and account for all.

    What is sent: SCENARIO, or the --task with its --args, or else those tasks of the app that need no arguments and
    touch nothing outside of themselves.

    Each broken promise is shown with its reason, and run again with the option that mends it, set from outside. The
    exit code is 1 if a promise is broken; with a baseline, only if a cell is worse than there.
    """
    if is_quick and is_full:
        raise click.UsageError("--quick and --full exclude each other.")
    if scenario and tasks:
        raise click.UsageError("give a scenario or tasks, not both.")
    with written(junit, "survive", complain) as add:
        settings = settings_of(app_dir, app=app)
        before = _baseline(baseline, Demand(demand), save=save)
        if scenario:
            found = subjects.of_scenario(scenario, app, app_dir)
        else:
            found = subjects.of_tasks(settings, tasks, args, kwargs)
        sent = [replace(one, stack=replace(one.stack, settings=dict(overrides))) for one in found]
        name = scenario or settings.app or "the app"
        folder = RunFolder.create(root, f"survive-{name}")
        wanted = survive.QUICK if is_quick else survive.MEETS
        with progress.of_tasks() as (say, tell), SharedParts(say) as session:
            trials = []
            for subject in sent:
                say(f"{subject.name}: once without a fault")
                trials.append(survive.trial(session, subject, folder.path, wanted))
            survival = survive.survive(
                session,
                trials,
                folder.path,
                name=name,
                demand=Demand(demand),
                progress=lambda done, total: tell("cells", done, total),
            )
        code = _conclude(survival, folder, before, as_json=as_json, add=add)
    if save:
        # Last, so that an error of it costs nothing of the rest.
        _save(survival, baseline or BASELINE)
    return code


def _baseline(named: Path | None, demand: Demand, *, save: bool) -> Survival | None:
    """Return the outcome in a baseline; None if there is none, and none must be there. Raises UsageError."""
    path = named or BASELINE
    if not path.exists() and (save or named is None):
        if not path.parent.is_dir():
            raise UsageError(f"--baseline: there is no folder {path.parent}, into which --save could write.")
        return None
    try:
        before = Survival.from_json(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UsageError(f"the baseline {path} cannot be read: {error.strerror}. --save writes one.") from None
    except (AttributeError, ArithmeticError, ValueError, TypeError, KeyError) as error:
        raise UsageError(
            f"{path} is no outcome of `harness survive` ({error!r}): remove it; --save writes a new one."
        ) from None
    if before.demand is not demand:
        raise UsageError(
            f"the baseline {path} is of another promise: give --promise {before.demand.value}, as it has, "
            "or another --baseline."
        )
    return before


def _conclude(
    survival: Survival,
    folder: RunFolder,
    before: Survival | None,
    *,
    as_json: bool,
    add: Callable[[Suite], None],
) -> int:
    """Write and show the outcome, and return the exit code."""
    if before is not None:
        survival.baseline = survival.against(before)
    said = {**survival.to_json(), "command": own_command()}
    folder.write("survive.json", said)
    (folder.path / "survive.md").write_text(survive_grid.markdown(survival), encoding="utf-8")
    console = Console(stderr=as_json)
    if as_json:
        sys.stdout.write(json.dumps(said) + "\n")
    for part in survive_grid.parts(survival):
        console.print(part)
    verdict = survival.verdict
    if survival.baseline is not None:
        for words, changes in (("worse", survival.baseline.worse), ("better", survival.baseline.better)):
            for change in changes:
                console.print(f"{words}: {printable(str(change))}", soft_wrap=True)
        if not survival.baseline.worse:
            console.print(f"baseline: {printable(survive_grid.compared(survival))}.", soft_wrap=True)
    found = checks.of_survival(survival)
    add(suite(f"survive.{survival.name}", found, verdict=verdict, folder=folder.path, promise=survival.demand.value))
    step_summary.append(lambda: markdown.of_survival(survival, str(folder.path)), complain)
    console.print("verdict: ", survive_grid.verdict_of(verdict), sep="")
    _show_places(console, folder, survival)
    return verdict.exit_code


def _save(survival: Survival, target: Path) -> None:
    """Write an outcome as the new baseline, whole or not at all. Raises RunFolderError."""
    # What an older baseline said is no part of the new one.
    new = {**survival.to_json(), "command": own_command(), "verdict": survival.promise.value, "baseline": None}
    try:
        with replacing(target) as partial:
            partial.write_text(json.dumps(new, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise RunFolderError(
            f"the baseline {target} cannot be written: {error.strerror}. The run folder has the outcome."
        ) from error


def _show_places(console: Console, folder: RunFolder, survival: Survival) -> None:
    """Write the reports, and print where the whole one and its folder are."""
    written = write_survival(folder.path, survival, complain)
    console.print(f"run folder: {folder.path}", soft_wrap=True)
    if written is not None:
        console.print(f"report: {written}", soft_wrap=True)
