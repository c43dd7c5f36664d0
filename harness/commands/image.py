"""The command `harness image`: the image of an app."""

from contextlib import closing
from pathlib import Path

import click

from harness.commands.shared_options import AS_JSON, FOLDER, examples, print_json, settings_of
from harness.console import Console
from harness.containers import app_image, app_image_facts
from harness.containers.engine_choice import connect
from harness.stack.project_stack import image_plan


@click.command("image", epilog=examples("harness image", "harness image --app-dir ../shop --show --json"))
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
