"""The command line: `harness init`, `run`, `timelapse`, `up`, `send`, `down`, `status`, `audit`, `selftest`, and more.

Exit codes: 0 pass, 1 fail, 2 wrong use or environment, 3 unknown.
"""

import shutil
import time
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.text import Text

from harness import __version__, chaos_command, command_exit, doctor, init_command
from harness.audit.audit import audit
from harness.audit.run_folder import RUNS, RunFolder
from harness.command_exit import WRONG_USE, complain
from harness.conclusion import conclude
from harness.console import Console
from harness.containers import app_image, app_image_facts, images
from harness.containers.engine_choice import connect
from harness.containers.ownership import remove_all, sweep
from harness.errors import RunFolderError
from harness.export_command import export
from harness.faults.timetable import parse
from harness.measure.durations import parse_duration_s
from harness.printable import printable
from harness.project.settings import load
from harness.records.values import Json
from harness.records.verdict import Verdict
from harness.rehearse_command import rehearse_
from harness.report import markdown, progress, step_summary, terminal
from harness.report.junit import written
from harness.report_command import report
from harness.running import timelapse
from harness.running.run import Plan, execute, for_faults, stack_for
from harness.runs_commands import compare, runs
from harness.scenario import Drive
from harness.scenario_options import RunCommand, scenario_of
from harness.selftest_command import selftest_
from harness.send_command import send
from harness.shared_options import AS_JSON, DEFAULT_FOLDER, FOLDER, JUNIT, SET, examples, print_json, settings_of
from harness.stack.limits import TIMEOUT_S
from harness.stack.project_stack import image_plan, spec_of
from harness.stack.shared_parts import SharedParts
from harness.survive_command import survive_
from harness.up_commands import down, status, up


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=examples("harness init", "harness run emails --count 500", "harness survive --quick", "harness runs"),
)
@click.version_option(__version__, prog_name="harness")
def cli() -> None:
    """Do my tasks survive? Real RabbitMQ, real Celery workers, and every task accounted for."""


def main() -> NoReturn:
    """Run the command `harness`."""
    command_exit.run(cli)


@cli.command(
    cls=RunCommand,
    epilog=examples(
        "harness run emails --count 500 --workers 2",
        "harness run emails --fault kill-worker@1s+5s --junit junit.xml",
        "harness run emails --chaos --seed 7 --shrink",
        "harness run emails --json",
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
@click.option("--runs", "root", type=FOLDER, default=RUNS, show_default=True, help="Where the run folder is made.")
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
    chaos_command.check(write_test, shrinks=shrinks)
    with written(junit, scenario, complain) as add:
        found = scenario_of(ctx, scenario, app_dir)
        said = {"app": app, "folder": app_dir, "workers": workers, "options": options or None}
        planned, over_s = [parse(text) for text in faults], parse_duration_s(over) if over else 0.0
        spec = replace(stack_for(found, load(app_dir or Path()), said), settings=dict(overrides))
        drive = Drive(count=count or found.count, seed=seed, options=own)
        console = Console(stderr=as_json)
        if is_chaotic:
            spec = replace(spec, workers=workers or max(spec.workers, chaos_command.LEAST_WORKERS))
            drawn = chaos_command.drawn(seed, spec, drive.count)
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
        with progress.of_tasks() as (say, tell), SharedParts(say) as session:
            folder, audited = execute(session, plan, tell)
            code = conclude(found.name, audited, folder.path, add=add, as_json=as_json)
            if shrinks and audited.verdict is Verdict.FAIL:
                asked = chaos_command.Asked(
                    scenario=scenario, said=chaos_command.said_of(ctx.params), app_dir=app_dir, write_test=write_test
                )
                found_with = chaos_command.shrunk(
                    console, asked, plan, spec, lambda other: execute(session, other, tell)[1]
                )
                code = found_with.exit_code
        return code


@cli.command("init", epilog=examples("harness init", "harness init ../shop --app shop.app --dry-run"))
@click.argument("folder", type=FOLDER, default=Path())
@click.option("--app", help="The Celery app, as `celery -A` takes it, if there are several or none is found.")
@click.option("--dry-run", is_flag=True, help="Only show what would be written.")
@click.option("--yes", is_flag=True, help="Ask nothing; of several apps, take the likeliest.")
def init_(*, folder: Path, app: str | None, dry_run: bool, yes: bool) -> None:
    """Set up the harness for the project in FOLDER (here, unless given): settings, and a first test.

    Reads the project's files to find its Celery app, and overwrites none of them. Then starts one worker in a
    container, shows its tasks, and says what to do next.
    """
    init_command.init(folder, app, dry_run=dry_run, yes=yes)


cli.add_command(survive_)
cli.add_command(rehearse_)
cli.add_command(up)
cli.add_command(send)
cli.add_command(down)
cli.add_command(status)
cli.add_command(report)
cli.add_command(selftest_)
cli.add_command(runs)
cli.add_command(compare)
cli.add_command(export)


@cli.command("audit", epilog=examples("harness audit", "harness audit .harness/runs/20261124T101500-emails --json"))
@click.argument("folder", type=FOLDER, default=RUNS / "latest")
@AS_JSON
def audit_(*, folder: Path, as_json: bool) -> int:
    """Audit a run again, from nothing but its FOLDER (the newest, unless given), and rewrite its audit.json."""
    opened = RunFolder.open(folder)
    audited = audit(opened)
    terminal.show(Console(stderr=as_json), audited)
    if as_json:
        print_json({**audited.to_json(), "folder": str(opened.path)})
    step_summary.append(lambda: markdown.of_audit(audited.name, audited, str(opened.path)), complain)
    try:
        opened.write("audit.json", audited.to_json())
    except RunFolderError as error:
        complain(f"{error}. The verdict stands; it is only not written down.")
    return audited.verdict.exit_code


@cli.command(
    "timelapse",
    epilog=examples(
        "harness timelapse shop.app --from 2026-10-24T12:00 --to 2026-10-26T12:00 --tz Europe/Berlin",
        "harness timelapse --from 2026-12-31 --to 2027-01-02 --speed 5760 --json",
    ),
)
@click.argument("app", required=False)
@click.option("--from", "begin", required=True, metavar="TIME", help="Such as 2026-10-24T12:00.")
@click.option("--to", "end", required=True, metavar="TIME", help="Later than --from; it does not count itself.")
@click.option("--tz", help="The zone of both, and beat's setting `timezone`.  [default: the app's own]")
@click.option(
    "--speed", type=float, default=2880.0, show_default=True, help="How many times as fast beat's clock runs."
)
@click.option("--app-dir", type=FOLDER, help=f"The folder that the app is imported from.  {DEFAULT_FOLDER}")
@click.option("--runs", "root", type=FOLDER, default=RUNS, show_default=True, help="Where the run folder is made.")
@JUNIT
@AS_JSON
def timelapse_(
    *,
    app: str | None,
    begin: str,
    end: str,
    tz: str | None,
    speed: float,
    app_dir: Path | None,
    root: Path,
    junit: Path | None,
    as_json: bool,
) -> int:
    """Let beat live through some days in seconds, and account for every tick of APP's own schedule.

    APP is what `celery -A` takes; the default is the settings' app. A time that comes twice in its zone is taken for
    the first, unless it is given with an offset, such as 2026-10-25T02:30+01:00.
    """
    with written(junit, "timelapse", complain) as add:
        lapse = timelapse.Lapse(
            stack=spec_of(settings_of(app_dir, app=app, workers=0), workers=0),
            begin=timelapse.moment(begin),
            end=timelapse.moment(end),
            tz=tz,
            speed=speed,
            root=root,
        )
        with progress.of_clock() as (say, tell), SharedParts(say) as session:
            began = time.monotonic()
            folder, audited = timelapse.execute(session, lapse, tell)
            took_s = time.monotonic() - began
        lapsed = folder.read("run.json")["timelapse"]
        shown = timedelta(seconds=lapsed["to_t"] - lapsed["from_t"])
        lines = [f"{lapsed['from']} to {lapsed['to']}: {shown} in {took_s:.0f} s"]
        return conclude("timelapse", audited, folder.path, add=add, lines=lines, as_json=as_json)


@cli.command("doctor", epilog=examples("harness doctor", "harness doctor --app shop.app --app-dir ../shop --json"))
@click.option("--app", help="The Celery app, as `celery -A` takes it.  [default: the settings']")
@click.option("--app-dir", type=FOLDER, default=Path(), help="The folder of the app's project.  [default: here]")
@AS_JSON
def doctor_(*, app: str | None, app_dir: Path, as_json: bool) -> int:
    """Look at what a run needs: settings, engine, images, their sources, disk. Says what to do about each red line.

    Of an app it reads the settings and tasks, and shows what may lose or double tasks, what that costs, and what to
    change. It runs nothing of the app.
    """
    console = Console(soft_wrap=True, stderr=as_json)
    facts = []
    for fact in doctor.facts(app_dir, app):
        facts.append(fact)
        mark = {True: ("ok  ", "green"), None: ("note", "yellow"), False: ("bad ", "bold red")}[fact.ok]
        console.print(Text.assemble(mark, printable(f" {fact.name}: {fact.detail}")))
    is_healthy = all(fact.ok is not False for fact in facts)
    if as_json:
        print_json({"healthy": is_healthy, "facts": [fact._asdict() for fact in facts]})
    return 0 if is_healthy else WRONG_USE


@cli.command("image", epilog=examples("harness image", "harness image --app-dir ../shop --show --json"))
@click.option("--app-dir", type=FOLDER, default=Path(), help="The folder of the app's project.  [default: here]")
@click.option("--show", is_flag=True, help="Only show what it is made of, and whether it is built.")
@click.option("--rebuild", is_flag=True, help="Build it even if it is there.")
@AS_JSON
def image_(*, app_dir: Path, show: bool, rebuild: bool, as_json: bool) -> None:
    """Build the image of your app, with its own Python and dependencies, unless it is there."""
    if show and rebuild:
        raise click.UsageError("--show builds nothing, and --rebuild builds: give one of the two.")
    plan = image_plan(settings_of(app_dir))
    with closing(connect()) as engine:
        if not show:
            app_image.ensure(engine, plan, say=Console(stderr=True, soft_wrap=True).print, rebuild=rebuild)
        if as_json:
            print_json(app_image_facts.to_json(engine, plan))
            return
        for line in app_image_facts.lines(engine, plan):
            Console(soft_wrap=True).print(line)


@cli.command(epilog=examples("harness clean", "harness clean --runs --images"))
@click.option(
    "--all", "everything", is_flag=True, help="Also what living runs have started, of anybody on this engine."
)
@click.option("--runs", "with_runs", is_flag=True, help="Also the run folders below .harness/runs.")
@click.option("--images", "with_images", is_flag=True, help="Also the images that the harness built.")
@AS_JSON
def clean(*, everything: bool, with_runs: bool, with_images: bool, as_json: bool) -> None:
    """Remove the containers, networks and volumes that killed runs left behind."""
    console = Console(soft_wrap=True, stderr=as_json)
    removed = []

    def tell(name: str) -> None:
        removed.append(name)
        console.print(f"removed {name}")

    with closing(connect()) as engine:
        for name in remove_all(engine) if everything else sweep(engine):
            tell(name)
        if with_images:
            for tag in images.ours(engine):
                engine.remove_image(tag)
                tell(f"image {tag}")
    if with_runs and RUNS.is_dir():
        shutil.rmtree(RUNS)
        tell(str(RUNS))
    if not (removed or with_runs or with_images):
        console.print("nothing was left behind.")
    if as_json:
        print_json({"removed": removed})
