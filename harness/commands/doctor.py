"""The command `harness doctor`: what a run needs, and what of it is there."""

from pathlib import Path

import click
from rich.text import Text

from harness.commands.command_exit import WRONG_USE
from harness.commands.shared_options import AS_JSON, FOLDER, examples, print_json
from harness.console import Console
from harness.printable import printable
from harness.running import doctor


@click.command("doctor", epilog=examples("harness doctor", "harness doctor --app shop.app --app-dir ../shop --json"))
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
