"""The Celery apps of a project, with how their workers are started and what they need. Nothing of it is run."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from harness.errors import UsageError
from harness.project.app_needs import Needs, needs_of
from harness.project.app_tasks import Task, Traffic, tasks_in, traffic_in
from harness.project.celery_apps import CeleryApp, celery_apps, import_folder, source_folders
from harness.project.command_line import Command
from harness.project.source_files import Sources, is_test
from harness.project.worker_commands import command_lines, distrust, is_prose, worker_commands

ROOT = PurePosixPath()
_USUAL = frozenset({"celery", "celery_app", "celeryapp", "celery_config", "celery_worker", "worker", "make_celery"})
_LIKELY = 35
"""The rank of an app that is neither part of tests nor of examples, at least."""
_ASIDE = re.compile(r"(^|/)(examples?|docs?|samples?|demos?|scripts|benchmarks?|fixtures)/")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A Celery app that a worker can be started with."""

    app: str
    """The argument of `celery -A`."""
    folder: PurePosixPath
    """The folder that it is imported from, in the project."""
    path: PurePosixPath
    """The module that has the app."""
    more_folders: tuple[PurePosixPath, ...] = ()
    """Other folders that the project imports from."""
    reasons: tuple[str, ...]
    """The reasons to take it for one, the best first."""
    commands: tuple[Command, ...] = ()
    """The command lines that name it."""
    rank: int = 0
    """The higher, the more likely it is the app that is meant."""

    @property
    def worker(self) -> Command | None:
        """The command line whose options a stack's workers have: the most telling one that has any."""
        return next((one for one in self.commands if one.options and not one.is_beat), None)

    @property
    def other_workers(self) -> tuple[Command, ...]:
        """The command lines of workers that have other options, in files that tell as much."""
        chosen = self.worker
        if chosen is None:
            return ()
        trust = distrust(_file_of(chosen))
        return tuple(
            one
            for one in self.commands
            if not one.is_beat
            and one.options != chosen.options
            # A line without any is often the shorter way to say the same.
            and (one.options or one.queues != chosen.queues)
            and distrust(_file_of(one)) == trust
        )

    def is_named(self, app: str) -> bool:
        """Return whether this is the app that somebody names; a variable may be left out."""
        return app in {self.app, self.app.partition(":")[0]}

    def said(self) -> str:
        """Return it in one line, with its reasons."""
        where = "" if self.folder == ROOT else f" in {self.folder}"
        return f"{self.app}{where}: {'; '.join(self.reasons)}"


@dataclass(frozen=True, kw_only=True)
class Project:
    """The apps, tasks and needs that were found in a folder."""

    root: Path
    candidates: tuple[Candidate, ...]
    """The likeliest first."""
    needs: Needs
    tasks: tuple[Task, ...]
    traffic: Traffic
    commands: tuple[Command, ...]
    """All command lines of workers and beat, also those that name no app."""
    outward: Mapping[PurePosixPath, Path]
    """The links that lead out of the folder, and where they lead."""
    notes: tuple[str, ...]
    """Sentences on what was left out, and on what else there is to know."""

    def candidate(self, app: str) -> Candidate:
        """Return the candidate that was asked for by name; the likeliest if none has it."""
        return next((one for one in self.candidates if one.is_named(app)), self.candidates[0])

    def choice(self) -> Candidate | None:
        """Return the app that is certainly meant; None if it could be one of several.

        One is certain if no other is beside it, or if it is the only one that a command line names. Apps of tests and
        of examples count only where there is nothing else.
        """
        likely = [one for one in self.candidates if one.rank >= _LIKELY] or list(self.candidates)
        named = [one for one in likely if one.commands]
        chosen = named if len(named) == 1 else likely
        return chosen[0] if len(chosen) == 1 else None

    def first_task(self, candidate: Candidate) -> Task | None:
        """Return a task that anybody can send: it needs no arguments, and touches nothing outside of itself."""
        near = (task for task in self.tasks if task.is_harmless and _is_below(task.path, candidate.folder))
        return min(near, key=lambda task: ("debug" not in task.function, str(task.path)), default=None)

    def shown_task(self, candidate: Candidate) -> Task | None:
        """Return the task that a comment shows how to send, one that seems to send a mail if there is one."""
        near = (task for task in self.tasks if _is_below(task.path, candidate.folder))
        return min(near, key=lambda task: (task.mails_to is None, str(task.path)), default=None)

    def queues(self, candidate: Candidate) -> tuple[str, ...]:
        """Return the queues that a worker has to consume so that it gets all tasks; empty for Celery's own choice."""
        named = {name for command in candidate.commands for name in command.queues} | self.traffic.queues
        default = self.traffic.default_queue or "celery"
        return tuple(sorted(named | {default})) if named - {default} else ()


class _Place(NamedTuple):
    """The place that the argument of a `-A` leads to."""

    folder: PurePosixPath
    path: PurePosixPath


def discover(root: Path, app: str | None = None) -> Project:
    """Read the project in a folder.

    Args:
        root: the folder.
        app: what `celery -A` takes, if somebody says so. Then it is among the candidates, whether it was found or not.

    Raises:
        UsageError: there is no such folder, or nothing in it uses Celery.
    """
    sources = Sources(root)
    apps = celery_apps(sources)
    lines = command_lines(sources)
    commands = worker_commands(lines)
    notes: list[str] = []
    candidates = _candidates(sources, apps, commands, notes)
    if app is not None and not any(one.is_named(app) for one in candidates):
        place = _place(sources, app) or _Place(folder=ROOT, path=_module(app))
        candidates = (
            Candidate(app=app, folder=place.folder, path=place.path, reasons=("you said so",)),
            *candidates,
        )
    if not candidates:
        raise UsageError(_nothing(sources, notes))
    candidates = tuple(replace(one, more_folders=source_folders(sources, one.folder)) for one in candidates)
    tasks = tasks_in(sources)
    notes += [
        f"{link} is a link that leads out of the folder, to {target}." for link, target in sources.outward.items()
    ]
    return Project(
        root=sources.root,
        candidates=candidates,
        needs=needs_of(sources, lines, commands),
        tasks=tasks,
        traffic=traffic_in(sources),
        commands=commands,
        outward=sources.outward,
        notes=(*sources.notes, *notes),
    )


def _nothing(sources: Sources, notes: Sequence[str]) -> str:
    python = sum(path.suffix == ".py" for path in sources.files)
    also = " ".join((*notes, *sources.notes))
    return (
        f"no Celery app was found in {sources.root}: none of its {python} Python files makes one with `Celery(...)`, "
        "and no command line of a worker names one. Give the folder of your project, or say what `celery -A` takes "
        f"with --app.{f' {also}' if also else ''}"
    )


def _candidates(
    sources: Sources, apps: Iterable[CeleryApp], commands: Sequence[Command], notes: list[str]
) -> tuple[Candidate, ...]:
    found: dict[tuple[PurePosixPath, str], Candidate] = {}
    for app in apps:
        folder = import_folder(sources, app.path)
        reason = f"{app.variable} = {app.made_by} in {app.path}, line {app.line}"
        found[app.path, app.variable] = Candidate(
            app=app.argument(folder), folder=folder, path=app.path, reasons=(reason,), rank=_rank(app)
        )
    for command in commands:
        if command.app is None:
            continue
        place = _place(sources, command.app)
        if place is None:
            if not is_prose(_file_of(command)):
                notes.append(f"{command.source} names the app {command.app}, and no file here has it.")
            continue
        _add(found, place, command)
    unnamed = [command for command in commands if command.app is None]
    if len(found) == 1 and unnamed:
        # A command line without -A can only mean the one app there is.
        (key,) = found
        found[key] = replace(found[key], commands=(*found[key].commands, *unnamed))
    return tuple(sorted(found.values(), key=lambda one: (-one.rank, one.app)))


def _add(found: dict[tuple[PurePosixPath, str], Candidate], place: _Place, command: Command) -> None:
    """Add a command line to the candidate that it names; to a new one if the sources show none."""
    app = str(command.app)
    variable = app.partition(":")[2] or (app.rpartition(".")[2] if _module(app).stem != place.path.stem else "")
    in_module = [key for key in found if key[0] == place.path]
    key = (place.path, variable)
    if key not in found:
        # `-A shop` may mean an app of any name.
        key = in_module[0] if in_module else (place.path, "")
    said = f"the command line in {command.source} names it"
    bonus = 40 if is_test(_file_of(command)) else 100
    known = found.get(key)
    if known is None:
        found[key] = Candidate(
            app=app, folder=place.folder, path=place.path, reasons=(said,), commands=(command,), rank=bonus
        )
        return
    reasons = (said, *known.reasons) if len(known.commands) < 1 else known.reasons
    found[key] = replace(
        known,
        # As the project itself says it.
        app=known.app if known.commands else app,
        folder=known.folder if known.commands else place.folder,
        reasons=reasons,
        commands=(*known.commands, command),
        rank=max(known.rank, bonus) + 1,
    )


def _file_of(command: Command) -> PurePosixPath:
    return PurePosixPath(command.source.partition(":")[0])


def _rank(app: CeleryApp) -> int:
    rank = 50 - min(len(app.path.parts), 10)
    if app.path.stem in _USUAL or app.variable in {"celery", "celery_app", "celeryapp"}:
        rank += 5
    if is_test(app.path):
        rank -= 40
    if _ASIDE.search(str(app.path)):
        rank -= 20
    return rank


def _module(app: str) -> PurePosixPath:
    """Return the path of the module that the argument of a `-A` names."""
    return PurePosixPath(*app.partition(":")[0].split(".")).with_suffix(".py")


def _place(sources: Sources, app: str) -> _Place | None:
    """Return the file that the argument of a `-A` leads to, and the folder that it is imported from.

    `shop` is shop.py, shop/celery.py or shop/__init__.py; `shop.app` is one of these, or a variable of `shop`.
    """
    module = app.partition(":")[0]
    parts = [part for part in re.split(r"[./]", module.removesuffix(".py")) if part]
    for names in (parts, parts[:-1]):
        if not names:
            continue
        stem = PurePosixPath(*names)
        # Celery looks into a package before it looks for a module in it.
        for path in (stem.with_name(f"{stem.name}.py"), stem / "celery.py", stem / "__init__.py"):
            matching = (one for one in sources.files if one == path or str(one).endswith(f"/{path}"))
            for one in matching:
                return _Place(folder=PurePosixPath(*one.parts[: len(one.parts) - len(path.parts)]), path=one)
    return None


def _is_below(path: PurePosixPath, folder: PurePosixPath) -> bool:
    return path.is_relative_to(folder) and not is_test(path)
