"""The command `harness timelapse`: some days of beat in seconds."""

import time
from datetime import timedelta
from pathlib import Path

import click

from harness.commands.command_exit import complain
from harness.commands.conclusion import conclude
from harness.commands.shared_options import AS_JSON, DEFAULT_FOLDER, FOLDER, JUNIT, examples, runs_option, settings_of
from harness.report import progress
from harness.report.junit import written
from harness.running import timelapse
from harness.stack.project_stack import spec_of
from harness.stack.shared_parts import SharedParts


@click.command(
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
@runs_option("Where the run folder is made.")
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
