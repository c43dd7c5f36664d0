"""The command `harness init`: which app, what is written, whether it starts, and what to do next."""

import os
import shlex
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

import click

from harness.commands.shared_options import FOLDER, examples
from harness.console import Console
from harness.errors import StartError, UsageError
from harness.printable import printable
from harness.project.app_complaints import missing_module, missing_variables
from harness.project.discovery import Candidate, Project, discover
from harness.project.proposed_values import Value
from harness.project.schema import KEYS
from harness.project.settings import load
from harness.project.settings_file import find_in
from harness.project.setup_plan import SetupPlan, add_variable, draft, not_prepared, other_options, plan, prepared
from harness.running.first_start import FirstStart, has_started, remember, start_once
from harness.stack.project_stack import spec_of
from harness.stack.shared_parts import SharedParts

_MOST_VARIABLES = 10
"""How many variables are added one after the other, each of which shows only when the one before is there."""
_MOST_SHOWN = 20


@click.command("init", epilog=examples("harness init", "harness init ../shop --app shop.app --dry-run"))
@click.argument("folder", type=FOLDER, default=Path())
@click.option("--app", help="The Celery app, as `celery -A` takes it, if there are several or none is found.")
@click.option("--dry-run", is_flag=True, help="Only show what would be written.")
@click.option("--yes", is_flag=True, help="Ask nothing; of several apps, take the likeliest.")
def init_(*, folder: Path, app: str | None, dry_run: bool, yes: bool) -> None:
    """Set up the harness for the project in FOLDER (here, unless given): settings, and a first test.

    Reads the project's files to find its Celery app, and overwrites none of them. Then starts one worker in a
    container, shows its tasks, and says what to do next.
    """
    init(folder, app, dry_run=dry_run, yes=yes)


def init(folder: Path, app: str | None, *, dry_run: bool, yes: bool) -> None:
    """Set the harness up in a project's folder; see `harness init`.

    Raises:
        UsageError: no app is found, several are and nobody chooses, or a file cannot be written.
        StartError: all was written, and a worker of the app does not start.
    """
    console = Console(soft_wrap=True)
    app = app or _app_of_settings(folder)
    project = discover(folder, app)
    candidate = _chosen(console, project, app, yes=yes)
    made = plan(project, candidate, draft(project, candidate))
    _show(console, project, candidate)
    if dry_run:
        for change in made.changes:
            console.print(printable(change.diff(project.root)), end="")
    elif made.changes and not yes and sys.stdin.isatty():
        names = ", ".join(os.path.relpath(change.path, project.root) for change in made.changes)
        click.confirm(f"Write {names}?", default=True, abort=True)
    for sentence in made.kept:
        console.print(printable(sentence))
    if not made.changes and not dry_run and has_started(spec_of(load(project.root), workers=1), project.root):
        console.print("nothing is left to write, and a worker has started with these settings before.")
        _tell_next(console, project, made)
        return
    if not made.changes:
        console.print("nothing is left to write.")
    if dry_run:
        console.print("nothing was written, because of --dry-run.")
        return
    for change in made.changes:
        change.write()
        console.print(printable(f"wrote {os.path.relpath(change.path, project.root)}"))
    _tell(console, _tried(console, project, made))
    _tell_next(console, project, made)


def _app_of_settings(folder: Path) -> str | None:
    """Return the app that a project's settings name already; None if it has none. Raises UsageError."""
    file = find_in(folder)
    if file is None:
        return None
    settings = load(folder)
    if settings.app is None:
        raise UsageError(
            f"{file.path} has settings, and names no app: say there what `celery -A` takes, such as "
            f"app = {KEYS['app'].example}."
        )
    return settings.app


def _chosen(console: Console, project: Project, app: str | None, *, yes: bool) -> Candidate:
    """Return the app that is meant, after asking if there is a terminal to ask on. Raises UsageError."""
    if app is not None:
        return project.candidate(app)
    certain = project.choice()
    if certain is not None:
        return certain
    lines = [printable(one.said()) for one in project.candidates]
    if yes:
        return project.candidates[0]
    if not sys.stdin.isatty():
        listed = "\n".join(f"  --app {line}" for line in lines)
        raise UsageError(
            f"several Celery apps were found in {project.root}. Say with --app which one is meant:\n{listed}"
        )
    for number, line in enumerate(lines, start=1):
        console.print(f"{number:>3}  {line}")
    number = click.prompt("Which of these apps is meant?", type=click.IntRange(1, len(lines)), default=1)
    return project.candidates[number - 1]


def _show(console: Console, project: Project, candidate: Candidate) -> None:
    """Print what was found."""
    needs, traffic = project.needs, project.traffic
    facts = [
        ("app", candidate.said()),
        *(("worker", source) for source in dict.fromkeys(one.source for one in candidate.commands if not one.is_beat)),
        ("also found", ", ".join(one.app for one in project.candidates if one is not candidate)),
        ("framework", "" if needs.framework == "plain" else needs.framework),
        ("queues", ", ".join(project.queues(candidate))),
        ("beat", "a schedule; in a test, stack.add_beat() starts beat" if _has_beat(project) else ""),
        ("serializers", ", ".join(sorted(traffic.serializers - {"json", "application/json"}))),
        ("services", ", ".join(needs.services)),
        *(("prepare", f"{command}, from {source}") for command, source in prepared(project, candidate).items()),
        *(("variable", f"{value.name}, {value.origin}") for value in needs.env.values()),
        *(
            ("lacks", f"{one.name}, which {one.path} reads in line {one.line}: give it a value below `env`")
            for one in needs.lacking
        ),
        *(("note", note) for note in (*other_options(candidate), *not_prepared(project, candidate), *project.notes)),
    ]
    for name, text in facts:
        if text:
            console.print(printable(f"{name:<12}{text}"))


def _has_beat(project: Project) -> bool:
    return project.traffic.has_schedule or any(command.is_beat or command.with_beat for command in project.commands)


def _tried(console: Console, project: Project, made: SetupPlan) -> FirstStart:
    """Start a worker; add variables that only now turn out to be needed, as far as the project shows their values."""

    def say(line: str) -> None:
        Console(stderr=True, soft_wrap=True).print(line)

    with SharedParts(say) as session:
        for _attempt in range(_MOST_VARIABLES):
            spec = spec_of(load(project.root), workers=1)
            try:
                started = start_once(session, spec, project.root)
            except StartError as error:
                for value in _mended(project, made, spec.env, error):
                    console.print(
                        printable(f"the app asks for {value.name}: added to {made.settings.name}, from {value.origin}")
                    )
            else:
                remember(spec, project.root)
                return started
    raise UsageError(f"more than {_MOST_VARIABLES} variables are missing: see the settings in {made.settings}.")


def _mended(project: Project, made: SetupPlan, env: Collection[str], error: StartError) -> Sequence[Value]:
    """Add the variables that a worker asked for to the settings. Raises StartError with what else to do."""
    log = str(error)
    lacking = [name for name in missing_variables(log) if name not in env]
    values = [value for name in lacking if (value := project.needs.value_for(name)) is not None]
    if not values or not made.writes_settings:
        raise StartError(f"{_advice(made, lacking, missing_module(log))}{log}") from error
    for value in values:
        add_variable(made.settings, value)
    return values


def _advice(made: SetupPlan, lacking: Sequence[str], module: str | None) -> str:
    if lacking:
        names = ", ".join(lacking)
        return f"the app wants the environment variable {names}: give it a value below `env` in {made.settings}.\n"
    if module is not None:
        return (
            f"the app imports {module}, which its image lacks: name what it needs with `dependencies` in "
            f"{made.settings}, or an image that has it in HARNESS_WORKER_IMAGE.\n"
        )
    return f"everything is written, and a worker does not start yet; the settings are in {made.settings}.\n"


def _tell(console: Console, started: FirstStart) -> None:
    """Print the tasks."""
    if not started.tasks:
        console.print("\na worker started, and knows no task of the app: is the module with the tasks imported?")
        return
    count = len(started.tasks)
    tasks = "1 task" if count == 1 else f"{count} tasks"
    console.print(f"\na worker started. It consumes {', '.join(started.queues)}, and knows {tasks}:")
    for name in started.tasks[:_MOST_SHOWN]:
        console.print(printable(f"  {name}"))
    if count > _MOST_SHOWN:
        console.print(f"  and {count - _MOST_SHOWN} more")


def _tell_next(console: Console, project: Project, made: SetupPlan) -> None:
    """Print the one next command."""
    there = "" if project.root == Path.cwd().resolve() else f"cd {shlex.quote(str(project.root))} && "
    console.print(printable(f"\nnext:  {there}pytest {shlex.quote(str(made.test))}"))
