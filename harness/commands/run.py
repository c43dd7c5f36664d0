"""The command `harness run`: a scenario on a stack of its own."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from harness.commands import ci_output, run_chaos
from harness.commands.command_exit import complain
from harness.commands.conclusion import conclude
from harness.commands.scenario_options import RunCommand, scenario_of
from harness.commands.shared_options import AS_JSON, DEFAULT_FOLDER, FOLDER, JUNIT, SET, examples, runs_option
from harness.console import Console
from harness.faults.timetable import parse
from harness.measure.durations import parse_duration_s
from harness.project.settings import load
from harness.records.values import Json
from harness.records.verdict import Verdict
from harness.report.junit import written
from harness.running.run import Plan, execute, for_faults, stack_for
from harness.scenario import Drive
from harness.stack.limits import TIMEOUT_S
from harness.stack.shared_parts import SharedParts


@click.command(
    cls=RunCommand,
    epilog=examples(
        "harness run emails --count 500 --workers 2",
        "harness run emails --fault kill-worker@1s+5s --junit junit.xml",
        "harness run emails --chaos --seed 7 --shrink",
        "harness run emails --json",
        "harness run emails --ci",
    ),
)
@click.argument("scenario")
@click.option("--count", type=click.IntRange(min=1), help="How many steps to drive.  [default: the scenario's own]")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed sends the same tasks.")
@click.option("--workers", type=click.IntRange(min=1), help="How many workers.  [default: the settings', or 1]")
@click.option(
    "--worker-option",
    "options",
    multiple=True,
    help="An option of `celery worker`, instead of the harness's own; repeatable.",
)
@SET
@click.option("--app", help="Another Celery app than the scenario's, as `celery -A` takes it.")
@click.option("--app-dir", type=FOLDER, help=f"The folder that scenario and app are imported from.  {DEFAULT_FOLDER}")
@runs_option("Where the run folder is made.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0),
    default=TIMEOUT_S,
    show_default=True,
    help="Seconds without any task ending after which waiting ends.",
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="FAULT@WHEN",
    help="What to break, and when after the first step or at which moment of a task, such as kill-worker@1s, "
    "kill-worker@1s+5s or kill-worker@started:3; repeatable.",
)
@click.option("--over", metavar="DURATION", help="Spread the steps evenly over this time, such as 5s.")
@click.option("--chaos", "is_chaotic", is_flag=True, help="Break several things at once, which the seed draws.")
@click.option(
    "--shrink", "shrinks", is_flag=True, help="If it fails, find the smallest set of faults that still fails."
)
@click.option(
    "--write-test",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write what --shrink finds as a test for pytest, into a new file.",
)
@JUNIT
@click.option(
    "--ci",
    "is_ci",
    is_flag=True,
    help="Write for a CI system: progress as plain lines, junit.xml in the run folder (in its place --junit FILE), and "
    "annotations of the job on GitHub and GitLab.",
)
@AS_JSON
@click.pass_context
def run(
    ctx: click.Context,
    /,
    *,
    scenario: str,
    count: int | None,
    seed: int,
    workers: int | None,
    options: tuple[str, ...],
    overrides: tuple[tuple[str, Json], ...],
    app: str | None,
    app_dir: Path | None,
    root: Path,
    timeout_s: float,
    faults: tuple[str, ...],
    junit: Path | None,
    is_ci: bool,
    as_json: bool,
    over: str | None,
    is_chaotic: bool,
    shrinks: bool,
    write_test: Path | None,
    **own: Any,
) -> int:
    """Run SCENARIO on a stack of its own, and account for every task.

    SCENARIO is the name of a module in scenarios/, such as `emails`, or any dotted module. Some have options of their
    own: `harness run SCENARIO --help`.

    With --chaos, the same seed breaks the same things.
    """
    if is_chaotic and faults:
        raise click.UsageError("--chaos draws the faults, and --fault names them: give one of the two.")
    if shrinks and not (is_chaotic or faults):
        raise click.UsageError("--shrink leaves out faults: give --chaos, or some --fault.")
    run_chaos.check(write_test, shrinks=shrinks)
    has_junit = junit is not None
    with (
        written(junit, scenario, complain) as add,
        ci_output.around(scenario, is_asked=is_ci, as_json=as_json, has_junit=has_junit) as ci,
    ):
        found = scenario_of(ctx, scenario, app_dir)
        said = {"app": app, "folder": app_dir, "workers": workers, "options": options or None}
        planned, over_s = [parse(text) for text in faults], parse_duration_s(over) if over else 0.0
        spec = replace(stack_for(found, load(app_dir or Path()), said), settings=dict(overrides))
        drive = Drive(count=count or found.count, seed=seed, options=own)
        console = Console(stderr=as_json)
        if is_chaotic:
            spec = replace(spec, workers=workers or max(spec.workers, run_chaos.LEAST_WORKERS))
            drawn = run_chaos.drawn(seed, spec, drive.count)
            planned, over_s = list(drawn.planned), over_s or drawn.over_s
            console.print(f"chaos, seed {seed}: {', '.join(map(str, planned))}", soft_wrap=True)
        plan = Plan(
            scenario=found,
            drive=drive,
            stack=for_faults(spec, planned),
            faults=planned,
            over_s=over_s,
            about={"chaos": is_chaotic} if is_chaotic else {},
            root=root,
            timeout_s=timeout_s,
        )
        with ci.progress() as (say, tell), SharedParts(say) as session:
            folder, audited = execute(session, plan, tell, ci.begin)
            code = conclude(found.name, audited, folder.path, add=ci.adding(add), as_json=as_json)
            ci.conclude(audited, folder.path)
            if shrinks and audited.verdict is Verdict.FAIL:
                asked = run_chaos.Asked(
                    scenario=scenario, said=run_chaos.said_of(ctx.params), app_dir=app_dir, write_test=write_test
                )
                found_with = run_chaos.shrunk(
                    console, asked, plan, spec, lambda other: execute(session, other, tell)[1]
                )
                code = found_with.exit_code
        return code
