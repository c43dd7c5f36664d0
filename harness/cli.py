"""The shell door: `harness run`, `timelapse`, `up`, `down`, `status`, `audit`, `doctor`, `clean`.

Exit codes: 0 pass, 1 fail, 2 wrong use or environment, 3 unknown.
"""

import io
import math
import os
import shlex
import shutil
import signal
import stat
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import click
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from harness import __version__
from harness.audit.audit import Audit, audit
from harness.audit.beat.crontab import RULE
from harness.audit.run_folder import RunFolder
from harness.console import Console, Outputs
from harness.containers import images
from harness.containers.engine import connect, network_leads_out
from harness.containers.ownership import explained, remove_all, sweep
from harness.errors import HarnessError, RunFolderError, UsageError, told
from harness.printable import printable
from harness.records.verdict import Verdict
from harness.report import terminal
from harness.running import playground, timelapse
from harness.running.run import Plan, execute, find_scenario
from harness.scenario import Drive, Option, Scenario
from harness.stack.shared_parts import SharedParts

_RUNS = Path(".harness") / "runs"
_WRONG_USE = 2
_INTERRUPTED = 130
_LOW_DISK_GB = 2.0
_OWN_APP = "scenarios.app"
_SCENARIO = "celery_harness.scenario"
"""Where the scenario of a command line is kept while the line is taken apart."""


class _Folder(click.Path):
    """A folder. One whose name is no UTF-8 is refused: no container can see it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path. Raises click.BadParameter."""
        try:
            os.fspath(value).encode()
        except UnicodeEncodeError:
            self.fail(f"the name of the folder {printable(os.fspath(value))} is no UTF-8: rename it.", param, ctx)
        return super().convert(value, param, ctx)


_FOLDER = _Folder(path_type=Path)


class _Interrupts:
    """Ctrl-C and its like: the first raises KeyboardInterrupt, and those that follow find everything being taken down.

    Taking down must not be interrupted, or something would be left. It is bounded, so nobody waits for ever.
    """

    def __init__(self) -> None:
        self.is_awaited = False
        """Whether the next one interrupts."""

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        if self.is_awaited:
            self.is_awaited = False
            raise KeyboardInterrupt


_interrupts = _Interrupts()


def main() -> None:
    """The command `harness`."""
    outputs = Outputs()
    outputs.replace()
    _interrupts.is_awaited = True
    for number, handler in ((signal.SIGINT, _interrupts), (signal.SIGTERM, _interrupts), (signal.SIGHUP, _hang_up)):
        # `nohup` asks to be left alone, and so does a shell of what it starts in the background.
        if number is signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)
    code = _run()
    # What is left when the interpreter ends is removed then, which is not to be interrupted either.
    _interrupts.is_awaited = False
    if (lost := outputs.flush()) is not None:
        _complain(lost)
        outputs.flush()
    sys.exit(code)


def _run() -> int:
    """Run the command, say what went wrong, and return the exit code."""
    try:
        code: int | None = cli.main(standalone_mode=False)
    except click.ClickException as error:
        said = io.StringIO()
        error.show(said)
        # It may repeat what was given as an argument.
        click.echo(printable(said.getvalue()), err=True, nl=False)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt) as error:
        return _interrupted(error.__cause__ or error)
    except HarnessError as error:
        _complain(told(error))
        return _WRONG_USE
    except Exception as error:  # noqa: BLE001 - a traceback would end with 1, which means a broken promise.
        if sys.flags.dev_mode:
            traceback.print_exception(error)
        again = shlex.join(["python", "-X", "dev", "-m", "harness", *sys.argv[1:]])
        text = " ".join(told(error).split())
        _complain(f"unexpected, please report it: {text}. The traceback is shown by: {again}")
        return _WRONG_USE
    return code or 0


def _interrupted(error: BaseException) -> int:
    """Say that it was, and whether anything is left; returns the exit code."""
    if left := told(error):
        _complain(f"interrupted, and not everything could be taken down: {left}")
        return _WRONG_USE
    Console(stderr=True, soft_wrap=True).print("interrupted; everything that was started has been taken down.")
    return _INTERRUPTED


def _complain(text: str) -> None:
    console = Console(stderr=True, soft_wrap=True)
    console.print(Text("error: ", "bold red"), end="")
    console.print(text)


def _hang_up(number: int, frame: FrameType | None) -> None:
    """The terminal is gone: to write to it would fail, in the middle of taking everything down."""
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device.
        for output in (1, 2):
            if stat.S_ISCHR(os.fstat(output).st_mode):
                os.dup2(nowhere.fileno(), output)
    _interrupts(number, frame)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="harness")
def cli() -> None:
    """Do my tasks survive? Real RabbitMQ, real Celery workers, and every task accounted for."""


class _RunCommand(click.Command):
    """Takes the options of the scenario that is named, beside those that all scenarios have."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        first = self.make_parser(ctx)
        first.ignore_unknown_options = True
        # Nothing is decided here: only which scenario it is, and where its module lies.
        named, _, _ = first.parse_args(args=list(args))
        name = named.get("scenario")
        # An option of a scenario's own is not known as one before the scenario is, which has to come first.
        if isinstance(name, str) and not name.startswith("-"):
            ctx.meta[_SCENARIO] = find_scenario(name, Path(named.get("app_dir") or "."))
        return super().parse_args(ctx, args)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        common = super().get_params(ctx)
        scenario: Scenario | None = ctx.meta.get(_SCENARIO)
        return common if scenario is None else [*common[:-1], *_owns(scenario, common), common[-1]]


def _owns(scenario: Scenario, common: Sequence[click.Parameter]) -> list[click.Option]:
    """The options of a scenario's own. Raises UsageError for one that could be mistaken for another."""
    owns = [_own(option) for option in scenario.options]
    taken = {name for param in common for name in (param.name, *param.opts)}
    for own in owns:
        if not taken.isdisjoint({own.name, *own.opts}):
            raise UsageError(f"{scenario.name} has an option {own.name!r}, and there is another: rename its own.")
        taken |= {own.name, *own.opts}
    return owns


def _own(option: Option) -> click.Option:
    """An option of a scenario's own, as the shell has it."""
    kind: click.ParamType[Any]
    if option.kind is Path:
        kind = click.Path(path_type=Path, exists=True, dir_okay=False, readable=True)
    elif option.kind is int:
        kind = click.IntRange(min=None if option.least is None else math.ceil(option.least))
    elif option.kind is float:
        kind = click.FloatRange(min=option.least)
    else:
        kind = click.STRING
    shown = option.default is not None
    flag = "--" + option.name.replace("_", "-")
    return click.Option([flag, option.name], type=kind, default=option.default, show_default=shown, help=option.help)


@cli.command(cls=_RunCommand)
@click.argument("scenario")
@click.option("--count", type=click.IntRange(min=1), help="How many steps to drive.  [default: the scenario's own]")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed sends the same tasks.")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="How many workers to start.")
@click.option(
    "--worker-option",
    "options",
    multiple=True,
    help="An option of `celery worker`, instead of the harness's own; repeatable.",
)
@click.option("--app", help="Another Celery app than the scenario's, as `celery -A` takes it.")
@click.option(
    "--app-dir",
    type=_FOLDER,
    default=Path(),
    help="The folder that scenario and app are imported from.  [default: here]",
)
@click.option("--runs", "root", type=_FOLDER, default=_RUNS, show_default=True, help="Where the run folder is made.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="Seconds without any task ending after which waiting ends.",
)
@click.pass_context
def run(
    ctx: click.Context,
    /,
    *,
    scenario: str,
    count: int | None,
    seed: int,
    workers: int,
    options: tuple[str, ...],
    app: str | None,
    app_dir: Path,
    root: Path,
    timeout_s: float,
    **own: Any,
) -> int:
    """Run SCENARIO on a stack of its own, and account for every task.

    SCENARIO is the name of a module in scenarios/, such as `emails`, or any dotted module. Some have options of their
    own: `harness run SCENARIO --help`.
    """
    found: Scenario = ctx.meta.get(_SCENARIO) or find_scenario(scenario, app_dir)
    plan = Plan(
        scenario=found,
        drive=Drive(count=count or found.count, seed=seed, options=own),
        root=root,
        app=app,
        app_folder=app_dir.absolute(),
        workers=workers,
        options=options or None,
        timeout_s=timeout_s,
    )
    console = Console()
    with _progress() as (say, tell), SharedParts(say) as session:
        folder, audited = execute(session, plan, tell)
    _show(console, audited)
    console.print(f"run folder: {folder.path}", soft_wrap=True)
    return audited.verdict.exit_code


@cli.command()
@click.argument("app", required=False)
@click.option("--workers", type=click.IntRange(min=0), default=2, show_default=True, help="How many workers to start.")
@click.option("--web", "routes", help="The module with the web producer's own routes.  [default: scenarios.web]")
@click.option("--app-dir", type=_FOLDER, default=Path(), help="The folder that APP is imported from.  [default: here]")
@click.option("--runs", "root", type=_FOLDER, default=_RUNS, show_default=True, help="Where the run folder is made.")
@click.option("--logs", is_flag=True, help="Show what every node says.")
@click.option("-d", "--detach", is_flag=True, help="Return when it is up; `harness down` ends it.")
def up(
    *, app: str | None, workers: int, routes: str | None, app_dir: Path, root: Path, logs: bool, detach: bool
) -> None:
    """Bring up a stack to play with: broker, workers, beat, a mailbox and a web producer. Ctrl-C takes it down.

    APP is what `celery -A` takes; the default is scenarios.app, where there is one.
    """
    if logs and detach:
        raise click.UsageError("--logs shows them here, and --detach leaves: give one of the two.")
    console = Console(soft_wrap=True)
    app = app or _own_app(app_dir)
    if routes is None:
        routes = "scenarios.web" if app == _OWN_APP else ""
    plan = playground.Plan(app=app, app_folder=app_dir.absolute(), routes=routes, workers=workers, root=root)

    def say(line: str) -> None:
        Console(stderr=True, soft_wrap=True).print(line)

    if detach:
        own = [app, f"--workers={workers}", f"--web={routes}", f"--app-dir={app_dir}", f"--runs={root}"]
        _describe(console, playground.detach(own, say))
        return
    with playground.up(plan, say) as (ground, stack):
        _describe(console, ground)
        if logs:
            playground.follow(stack, _log_writer(console, ground.nodes))
        with suppress(KeyboardInterrupt):
            playground.watch(stack, say)
        # A second Ctrl-C from here on leaves this out, and only takes everything down.
        _interrupts.is_awaited = True
        say("settling; Ctrl-C skips this")
        _show(console, playground.settle(stack))
    console.print(f"run folder: {ground.folder}")


def _own_app(app_dir: Path) -> str:
    """The app that is brought up where none is named. Raises UsageError if it is not there."""
    if (app_dir / "scenarios" / "app.py").is_file():
        return _OWN_APP
    raise UsageError(
        f"no app is named, and {app_dir.absolute()} has no {_OWN_APP} either: give yours as `celery -A` takes it, "
        "such as `harness up shop.app`; --app-dir says where it is imported from."
    )


def _describe(console: Console, ground: playground.Playground) -> None:
    """What is where, and what to try."""
    login = f"login {playground.USER}, password {playground.PASSWORD}"
    for name, value in (
        ("app", ground.app),
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
    """Writes a node's name in its own colour, then the line."""
    colours = ("cyan", "green", "yellow", "magenta", "blue", "bright_red")
    styles = {name: colours[number % len(colours)] for number, name in enumerate(nodes)}
    width = max(map(len, nodes))

    def write(name: str, line: str) -> None:
        console.print(Text(f"{name:>{width}} | ", styles.get(name, "")).append(printable(line), "default"))

    return write


@cli.command()
def down() -> None:
    """Take down what `harness up` brought up, wherever it runs."""
    console = Console(soft_wrap=True)
    ground = playground.down()
    if ground is None:
        console.print("nothing was up.")
        return
    if not ground.is_complete:
        console.print("down. It was still being brought up.")
        return
    _show_written(console, Path(ground.folder))
    console.print(f"down. Its run folder: {ground.folder}")


def _show_written(console: Console, folder: Path) -> None:
    """What a run has written down of its audit; nothing if it was killed before."""
    written = folder / "audit.json"
    try:
        if written.exists():
            _show(console, Audit.from_json(RunFolder.open(folder).read(written.name)))
    except RunFolderError as error:
        _complain(str(error))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        _complain(f"{written} is not what an audit writes: {error!r} is missing or wrong.")


@cli.command()
def status() -> int:
    """Show what `harness up` brought up: 0 if all of it runs, 1 if a node does not, 3 if nothing is up."""
    console = Console(soft_wrap=True)
    ground = playground.read()
    if ground is None:
        console.print("nothing is up.")
    elif not ground.lives():
        console.print("nothing is up: the process that owned it was killed. `harness down` removes what it left.")
    elif not ground.is_complete:
        console.print("it is still being brought up.")
    else:
        return _show_status(console, ground)
    return Verdict.UNKNOWN.exit_code


def _show_status(console: Console, ground: playground.Playground) -> int:
    nodes, tasks = playground.status(ground)
    _describe(console, ground)
    for name, state in nodes.items():
        console.print(
            Text(printable(f"{name}: ")).append(printable(state), "green" if state == "running" else "bold red")
        )
    console.print(", ".join(f"{count} {what}" for what, count in tasks.items()))
    return 0 if all(state == "running" for state in nodes.values()) else Verdict.FAIL.exit_code


@cli.command("audit")
@click.argument("folder", type=_FOLDER, default=_RUNS / "latest")
def audit_(folder: Path) -> int:
    """Audit a run again, from nothing but its FOLDER (the newest, unless given), and rewrite its audit.json."""
    opened = RunFolder.open(folder)
    audited = audit(opened)
    _show(Console(), audited)
    try:
        opened.write("audit.json", audited.to_json())
    except RunFolderError as error:
        _complain(f"{error}. The verdict stands; it is only not written down.")
    return audited.verdict.exit_code


@cli.command("timelapse")
@click.argument("app")
@click.option("--from", "begin", required=True, metavar="TIME", help="Such as 2026-10-24T12:00.")
@click.option("--to", "end", required=True, metavar="TIME", help="Later than --from; it does not count itself.")
@click.option("--tz", help="The zone of both, and beat's setting `timezone`.  [default: the app's own]")
@click.option(
    "--speed", type=float, default=2880.0, show_default=True, help="How many times as fast beat's clock runs."
)
@click.option(
    "--app-dir", type=_FOLDER, default=Path(), help="The folder that the app is imported from.  [default: here]"
)
@click.option("--runs", "root", type=_FOLDER, default=_RUNS, show_default=True, help="Where the run folder is made.")
def timelapse_(*, app: str, begin: str, end: str, tz: str | None, speed: float, app_dir: Path, root: Path) -> int:
    """Let beat live through some days in seconds, and account for every tick of APP's own schedule.

    APP is what `celery -A` takes. A time that comes twice in its zone is taken for the first, unless it is given with
    an offset, such as 2026-10-25T02:30+01:00.
    """
    lapse = timelapse.Lapse(
        app=app,
        begin=timelapse.moment(begin),
        end=timelapse.moment(end),
        tz=tz,
        speed=speed,
        root=root,
        app_folder=app_dir.absolute(),
    )
    with _clock_progress() as (say, tell), SharedParts(say) as session:
        began = time.monotonic()
        folder, audited = timelapse.execute(session, lapse, tell)
        took_s = time.monotonic() - began
    console = Console()
    _show(console, audited)
    lapsed = folder.read("run.json")["timelapse"]
    shown = timedelta(seconds=lapsed["to_t"] - lapsed["from_t"])
    console.print(f"{lapsed['from']} to {lapsed['to']}: {shown} in {took_s:.0f} s", soft_wrap=True)
    console.print(f"run folder: {folder.path}", soft_wrap=True)
    return audited.verdict.exit_code


@cli.command()
def doctor() -> int:
    """Look at what a run needs: engine, images, their sources, disk. Says what to do about each red line."""
    console = Console(soft_wrap=True)
    healthy = True

    def line(name: str, detail: str, *, ok: bool | None) -> None:
        nonlocal healthy
        healthy &= ok is not False
        mark = {True: ("ok  ", "green"), None: ("note", "yellow"), False: ("bad ", "bold red")}[ok]
        console.print(Text.assemble(mark, printable(f" {name}: {detail}")))

    line("harness", f"{__version__}, Python {sys.version.partition(' ')[0]}", ok=True)
    free_gb = shutil.disk_usage(Path.cwd()).free / 1e9
    advice = (
        "" if free_gb >= _LOW_DISK_GB else f"; runs and images want {_LOW_DISK_GB:g} GB: make room, or run elsewhere"
    )
    line("disk", f"{free_gb:.1f} GB free here{advice}", ok=free_gb >= _LOW_DISK_GB)
    try:
        client = connect()
        version = client.version()
        line("engine", f"{version['Version']}, API {version['ApiVersion']}, {version['Os']}/{version['Arch']}", ok=True)
        leads_out = network_leads_out()
        line("network", "open, by HARNESS_NETWORK" if leads_out else "closed; HARNESS_NETWORK=open opens it", ok=True)
        for name, ok, detail in images.sources(client):
            line(name, detail, ok=ok)
    except HarnessError as error:
        line("engine", str(error), ok=False)
    return 0 if healthy else _WRONG_USE


@cli.command()
@click.option(
    "--all", "everything", is_flag=True, help="Also what living runs have started, of anybody on this engine."
)
@click.option("--runs", is_flag=True, help="Also the run folders below .harness/runs.")
@click.option("--images", "with_images", is_flag=True, help="Also the images that the harness built.")
def clean(*, everything: bool, runs: bool, with_images: bool) -> None:
    """Remove the containers, networks and volumes that killed runs left behind."""
    console = Console(soft_wrap=True)
    client = connect()
    removed = remove_all(client) if everything else sweep(client)
    for name in removed:
        console.print(f"removed {name}")
    if with_images:
        for tag in images.ours(client):
            with explained(f"removing the image {tag}"):
                client.images.remove(tag, force=True)
            console.print(f"removed image {tag}")
    if runs and _RUNS.is_dir():
        shutil.rmtree(_RUNS)
        console.print(f"removed {_RUNS}")
    if not (removed or runs or with_images):
        console.print("nothing was left behind.")


def _show(console: Console, audited: Audit) -> None:
    if audited.is_timelapse:
        console.print(terminal.ticks(audited))
        console.print("verdict: ", terminal.verdict(audited), f". {RULE}", sep="")
    else:
        console.print(terminal.accounting(audited))
    found = terminal.findings(audited)
    if found is not None:
        console.print(found)


@contextmanager
def _progress() -> Iterator[tuple[Callable[[str], None], Callable[[str, int, int], None]]]:
    """A line for each thing that takes its time, and a bar each for what was sent and what has ended."""
    columns = (TextColumn("{task.description:>6}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        known: dict[str, Any] = {}

        def say(line: str) -> None:
            bars.console.print(line)

        def tell(what: str, done: int, total: int) -> None:
            if what not in known:
                known[what] = bars.add_task(what, total=total)
            bars.update(known[what], completed=done, total=total)

        yield say, tell


@contextmanager
def _clock_progress() -> Iterator[tuple[Callable[[str], None], timelapse.Progress]]:
    """A line for each thing that takes its time, and a bar for what beat's clock shows."""
    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        days = bars.add_task("", total=1.0)

        def say(line: str) -> None:
            bars.console.print(line)

        def tell(now: datetime, over: float) -> None:
            bars.update(days, completed=over, description=now.isoformat(sep=" ", timespec="minutes"))

        yield say, tell
