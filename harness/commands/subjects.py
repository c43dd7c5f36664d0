"""The subjects that `harness survive` and `harness rehearse` send: the steps of a scenario, or tasks of an app."""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from harness.commands.scenario_options import scenario_folder
from harness.errors import UsageError
from harness.project.app_tasks import tasks_in
from harness.project.settings import Settings, load
from harness.project.source_files import Sources
from harness.running import sending
from harness.running.run import find_scenario, stack_for
from harness.running.survive import OneTask, Subject
from harness.stack.project_stack import spec_of

_SHOWN = 5
"""The number of tasks that an error names."""


def of_scenario(name: str, app: str | None, app_dir: Path | None) -> list[Subject]:
    """Return a scenario and its stack. Raises UsageError."""
    scenario = find_scenario(name, scenario_folder(app_dir))
    said = {"app": app, "folder": app_dir}
    stack = stack_for(scenario, load(app_dir or Path()), said)
    return [Subject(name=name, stack=stack, scenario=scenario)]


def of_tasks(settings: Settings, tasks: Sequence[str], args: Sequence[str], kwargs: Sequence[str]) -> list[Subject]:
    """Return tasks, each with its stack; without names those that anybody can send. Raises UsageError."""
    if len(args) > len(tasks) or len(kwargs) > len(tasks):
        raise UsageError("there are more --args or --kwargs than --task: each belongs to the task in its place.")
    named = list(tasks) or list(_harmless(settings))
    stack = spec_of(settings, workers=1, mailbox=True)
    subjects = []
    for number, task in enumerate(named):
        given = sending.parsed(args[number]) if number < len(args) else []
        by_name = sending.parsed(kwargs[number]) if number < len(kwargs) else {}
        if not isinstance(given, list):
            raise UsageError(f"--args {args[number]} is no JSON array, such as '[\"a@b.example\", 3]'.")
        if not isinstance(by_name, dict):
            raise UsageError(f"--kwargs {kwargs[number]} is no JSON object, such as '{{\"amount\": 3}}'.")
        subjects.append(Subject(name=task, stack=stack, scenario=OneTask(task, given, by_name)))
    return subjects


def _harmless(settings: Settings) -> Iterator[str]:
    """Yield the tasks in the app's sources that anybody can send. Raises UsageError if there is none."""
    sources = Sources(settings.folder)
    found = tasks_in(sources)
    yield from (harmless := [task.name(PurePosixPath()) for task in found if task.is_harmless])
    if not harmless:
        seen = [f"{task.name(PurePosixPath())}({', '.join(task.arguments)})" for task in found[:_SHOWN]]
        there = ", ".join(seen) or f"no tasks in the files of {settings.folder}"
        raise UsageError(
            "say what to send: --task NAME --args JSON, or a scenario. No task was found that needs no arguments and "
            f"touches nothing outside of itself; there are {there}."
        )
