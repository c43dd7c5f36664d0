"""The commands `harness up`, `status` and `down`: a stack for manual use."""

import shlex
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import click
from rich.text import Text

from harness.audit.audit import Audit
from harness.audit.run_folder import RunFolder
from harness.commands.command_exit import complain, interrupts
from harness.commands.shared_options import (
    AS_JSON,
    DEFAULT_FOLDER,
    FOLDER,
    examples,
    print_json,
    runs_option,
    settings_of,
)
from harness.console import Console
from harness.errors import RunFolderError, UsageError
from harness.printable import printable
from harness.records.typed_json import DAMAGED
from harness.records.verdict import Verdict
from harness.report import terminal
from harness.report.write_report import REPORT, try_to_write
from harness.running import playground
from harness.stack.project_stack import spec_of

_OWN_APP = "scenarios.app"


@click.command(
    epilog=examples(
        "harness up", "harness up --ports fixed", "harness up shop.app --logs", "harness up shop.app --workers 4 -d"
    )
)
@click.argument("app", required=False)
@click.option("--workers", type=click.IntRange(min=0), help="How many workers.  [default: the settings', or 2]")
@click.option("--web", "routes", help="The module with the web producer's own routes.  [default: scenarios.web]")
@click.option("--app-dir", type=FOLDER, help=f"The folder that APP is imported from.  {DEFAULT_FOLDER}")
@runs_option("Where the run folder is made.")
@click.option(
    "--ports",
    type=click.Choice(["free", "fixed"]),
    default="free",
    show_default=True,
    help="Ports of this machine: any that are free, or the usual ones (5672, 15672 and 8000), as far as they are free.",
)
@click.option("--logs", is_flag=True, help="Show what every node says.")
@click.option("-d", "--detach", is_flag=True, help="Return when it is up; `harness down` ends it.")
def up(
    *,
    app: str | None,
    workers: int | None,
    routes: str | None,
    app_dir: Path | None,
    root: Path,
    ports: str,
    logs: bool,
    detach: bool,
) -> None:
    """Bring up a stack to play with: broker, workers, beat, a mailbox and a web producer. Ctrl-C takes it down.

    Its page shows nodes, queues and tasks as they live, sends and holds tasks, and kills workers.

    APP is what `celery -A` takes; the default is the settings' app, or scenarios.app, where there is one.
    """
    if logs and detach:
        raise click.UsageError("--logs shows them here, and --detach leaves: give one of the two.")
    console = Console(soft_wrap=True)
    settings = settings_of(app_dir, app=app, workers=workers)
    if settings.app is None:
        settings = settings.over("the folder", {"app": _own_app(settings.folder)})
    spec = spec_of(settings, workers=2, mailbox=True)
    if routes is None:
        routes = "scenarios.web" if spec.app == _OWN_APP else ""
    plan = playground.Plan(stack=spec, routes=routes, root=root, usual_ports=ports == "fixed")

    def say(line: str) -> None:
        Console(stderr=True, soft_wrap=True).print(line)

    if detach:
        own = [spec.app, f"--workers={spec.workers}", f"--web={routes}", f"--runs={root}", f"--ports={ports}"]
        own += [] if app_dir is None else [f"--app-dir={app_dir}"]
        _describe(console, playground.detach(own, say))
        return
    with playground.up(plan, say) as (ground, stack, live):
        _describe(console, ground)
        if logs:
            playground.follow(stack, _log_writer(console, ground.nodes))
        with suppress(KeyboardInterrupt):
            playground.watch(stack, say)
        live.end()
        # A second Ctrl-C from here on skips the settling, and only takes everything down.
        interrupts.is_awaited = True
        say("settling; Ctrl-C skips this")
        terminal.show(console, playground.settle(stack))
    written = try_to_write(Path(ground.folder), complain)
    console.print(f"run folder: {ground.folder}")
    if written is not None:
        console.print(f"report: {written}")


def _own_app(folder: Path) -> str:
    """Return the default app. Raises UsageError if the folder does not have it."""
    if (folder / "scenarios" / "app.py").is_file():
        return _OWN_APP
    raise UsageError(
        f"no app is named, and {folder} has no {_OWN_APP} either: give yours as `celery -A` takes it, "
        "such as `harness up shop.app`, or in the settings; --app-dir says where it is imported from."
    )


def _describe(console: Console, ground: playground.Playground) -> None:
    """Print the addresses of a stack, and commands to try."""
    login = f"login {playground.USER}, password {playground.PASSWORD}"
    for name, value in (
        ("app", ground.app),
        ("page", ground.page),
        ("broker", ground.amqp),
        ("management page", f"{ground.management}  {login}"),
        ("administrator", f"name and password in {ground.administrator}"),
        ("web producer", f"{ground.web}  page {ground.web}/docs"),
        ("mails", ground.mails),
        ("results", ground.results),
        ("nodes", ", ".join(ground.nodes)),
    ):
        # No table: an address that is folded cannot be copied.
        console.print(Text(f"{name:<17}", "bold").append(printable(value), "default"))
    console.print("\nTry:")
    for line in (ground.first, shlex.join(["sqlite3", ground.results, "select * from celery_taskmeta"])):
        console.print(f"  {line}")
    console.print()


def _log_writer(console: Console, nodes: Sequence[str]) -> Callable[[str, str], None]:
    """Return a function that prints a node's name in its own colour, then the line."""
    colours = ("cyan", "green", "yellow", "magenta", "blue", "bright_red")
    styles = {name: colours[number % len(colours)] for number, name in enumerate(nodes)}
    width = max(map(len, nodes))

    def write(name: str, line: str) -> None:
        console.print(Text(f"{name:>{width}} | ", styles.get(name, "")).append(printable(line), "default"))

    return write


@click.command(epilog=examples("harness down", "harness down --json"))
@AS_JSON
def down(*, as_json: bool) -> None:
    """Take down what `harness up` brought up, wherever it runs."""
    console = Console(soft_wrap=True, stderr=as_json)
    ground = playground.down()
    if as_json:
        _print_written(ground)
    if ground is None:
        console.print("nothing was up.")
        return
    if not ground.is_complete:
        console.print("down. It was still being brought up.")
        return
    _show_written(console, Path(ground.folder))
    console.print(f"down. Its run folder: {ground.folder}")
    if (written := Path(ground.folder) / REPORT).exists():
        console.print(f"report: {written}")


def _print_written(ground: playground.Playground | None) -> None:
    """Print as JSON what was up, and the audit that it has written."""
    folder = None if ground is None or not ground.is_complete else Path(ground.folder)
    audit = None
    try:
        if folder is not None and (folder / "audit.json").exists():
            audit = RunFolder.open(folder).read("audit.json")
    except RunFolderError as error:
        complain(str(error))
    print_json({"was_up": ground is not None, "folder": None if folder is None else str(folder), "audit": audit})


def _show_written(console: Console, folder: Path) -> None:
    """Print the audit that a run has written; nothing if it was killed before."""
    written = folder / "audit.json"
    try:
        if written.exists():
            terminal.show(console, Audit.from_json(RunFolder.open(folder).read(written.name)))
    except RunFolderError as error:
        complain(str(error))
    except DAMAGED as error:
        complain(f"{written} is not what an audit writes: {error!r} is missing or wrong.")


@click.command(epilog=examples("harness status", "harness status --json"))
@AS_JSON
def status(*, as_json: bool) -> int:
    """Show what `harness up` brought up: 0 if all of it runs, 1 if a node does not, 3 if nothing is up."""
    console = Console(soft_wrap=True, stderr=as_json)
    ground = playground.read()
    is_there = ground is not None and ground.lives() and ground.is_complete
    if as_json and not is_there:
        print_json({"up": False})
    if ground is None:
        console.print("nothing is up.")
    elif not ground.lives():
        console.print("nothing is up: the process that owned it was killed. `harness down` removes what it left.")
    elif not ground.is_complete:
        console.print("it is still being brought up.")
    else:
        return _show_status(console, ground, as_json=as_json)
    return Verdict.UNKNOWN.exit_code


def _show_status(console: Console, ground: playground.Playground, *, as_json: bool) -> int:
    nodes, tasks = playground.status(ground)
    if as_json:
        names = ("app", "folder", "page", "amqp", "management", "web", "mails", "results")
        addresses = {name: getattr(ground, name) for name in names}
        print_json({"up": True, **addresses, "nodes": dict(nodes), "tasks": dict(tasks)})
    _describe(console, ground)
    for name, state in nodes.items():
        console.print(
            Text(printable(f"{name}: ")).append(printable(state), "green" if state == "running" else "bold red")
        )
    console.print(", ".join(f"{count} {what}" for what, count in tasks.items()))
    return 0 if all(state == "running" for state in nodes.values()) else Verdict.FAIL.exit_code
