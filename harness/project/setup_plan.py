"""The output of `harness init` in a project: settings, a test, a line in .gitignore. It overwrites nothing."""

import difflib
import json
import os
import shlex
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from harness.errors import UsageError
from harness.project.celery_apps import SOURCE_FOLDERS
from harness.project.discovery import ROOT, Candidate, Project
from harness.project.needs import APP_INSIDE
from harness.project.proposed_values import MADE_UP, Value
from harness.project.settings_file import OWN, SHARED, TABLE, find_in
from harness.project.smoke_test import SmokeTest, place_for

_INSIDE = PurePosixPath(APP_INSIDE)
"""Where a node sees the folder that its worker runs in."""
_IGNORED = ".harness/"
_EXCLUDES = "--exclude-queues="


@dataclass(frozen=True, kw_only=True)
class Draft:
    """The settings for an app, as they are proposed."""

    app: str
    import_folder: PurePosixPath = ROOT
    """The folder that the app is imported from, in the project."""
    more_folders: tuple[PurePosixPath, ...] = ()
    """Other folders that the project imports from."""
    options: tuple[str, ...] = ()
    other_options: tuple[str, ...] = ()
    """The options of other workers of the project, one sentence each."""
    queues: tuple[str, ...] = ()
    prepare: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    """Why the app's folder has to be writable."""
    mounts: tuple[str, ...] = ()
    env: Mapping[str, Value] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    """Where the worker's command line was found."""

    def toml(self, *, table: str) -> str:
        """Return the settings as TOML.

        Args:
            table: the name of the table that they are in; empty for a file of their own.
        """
        prefix = f"{table}." if table else ""
        lines = [f"[{table}]"] if table else []
        read = f", which read {', '.join(self.sources)}" if self.sources else ""
        lines += [f"# Written by `harness init`{read}.", *self._keys()]
        if self.env:
            lines += ["", f"[{prefix}env]"]
            for value in self.env.values():
                lines += env_lines(value)
        return "\n".join(lines) + "\n"

    def _keys(self) -> Iterator[str]:
        yield f"app = {_text(self.app)}"
        folder = _working_folder(self.import_folder)
        if folder != ROOT:
            yield f"folder = {_text(str(folder))}"
        others = [*([] if folder == self.import_folder else [self.import_folder]), *self.more_folders]
        if others:
            yield f"pythonpath = {_list([str(one) for one in others])}"
        yield from (f"# {sentence}" for sentence in self.other_options)
        for key, values in (
            ("options", self.options),
            ("queues", self.queues),
            ("services", self.services),
            ("prepare", self.prepare),
            ("mounts", self.mounts),
        ):
            if values:
                yield f"{key} = {_list(list(values))}"
        if self.written:
            yield f"writable = true # Because of {'; '.join(self.written)}."


def _working_folder(import_folder: PurePosixPath) -> PurePosixPath:
    """Return the folder in which a worker runs, by the folder that its app is imported from."""
    return import_folder.parent if import_folder.name in SOURCE_FOLDERS else import_folder


def env_lines(value: Value) -> Iterator[str]:
    """Yield the lines of one variable, as TOML: where the value comes from, and the value."""
    is_template = value.origin == "the stack's own"
    text = value.value if is_template else value.value.replace("{", "{{").replace("}", "}}")
    if value.value == MADE_UP:
        yield "# Made up by `harness init`: it is no secret."
    elif value.origin != "the stack's own":
        yield f"# From {value.origin}."
    yield f"{value.name} = {_text(text)}"


def _text(text: str) -> str:
    # A basic string of TOML is one of JSON, except for this character.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _list(texts: list[str]) -> str:
    return f"[{', '.join(map(_text, texts))}]"


def draft(project: Project, candidate: Candidate) -> Draft:
    """Return the settings that a project's app needs, as far as its files show them."""
    needs, working = project.needs, _working_folder(candidate.folder)
    queues = project.queues(candidate)
    options = _options(candidate, queues)
    prepare = prepared(project, candidate)
    return Draft(
        app=candidate.app,
        import_folder=candidate.folder,
        more_folders=candidate.more_folders,
        # The harness's own options are left out if there are others; a test that fails shows the log.
        options=(*options, "--loglevel=info") if options else (),
        other_options=tuple(other_options(candidate)),
        queues=queues,
        prepare=tuple(prepare),
        services=needs.services,
        written=needs.written,
        mounts=tuple(_mounts(project, working)),
        env=needs.env,
        sources=tuple(dict.fromkeys([*(command.source for command in candidate.commands), *prepare.values()])),
    )


def prepared(project: Project, candidate: Candidate) -> Mapping[str, str]:
    """Return the commands that make the app's tables, each with where it was found."""
    folder = candidate.folder
    return project.needs.prepare_in(_working_folder(folder), folder, *candidate.more_folders)


def not_prepared(project: Project, candidate: Candidate) -> Iterator[str]:
    """Yield a sentence for each command that makes the app's tables, and that cannot be run in the app's folder."""
    folder = candidate.folder
    for source in project.needs.not_prepared_in(_working_folder(folder), folder, *candidate.more_folders):
        yield f"{source} makes tables, with a command that cannot be run from the app's folder: say one with `prepare`."


def _options(candidate: Candidate, queues: Collection[str]) -> tuple[str, ...]:
    """Return the options that all workers of a stack have."""
    chosen = candidate.worker
    if chosen is None:
        return ()
    # What one worker leaves to the others would be consumed by none.
    return tuple(
        one
        for one in chosen.options
        if not (one.startswith(_EXCLUDES) and set(one.removeprefix(_EXCLUDES).split(",")) & set(queues))
    )


def other_options(candidate: Candidate) -> Iterator[str]:
    """Yield a sentence for each worker of the project whose options a stack's workers do not have."""
    chosen = candidate.worker
    if chosen is None:
        return
    for one in candidate.other_workers:
        has = f"has {shlex.join(one.options)}" if one.options else "has no options"
        yield f"{one.source} {has}; a stack's workers are all alike, and have those of {chosen.source}."


def _mounts(project: Project, folder: PurePosixPath) -> Iterator[str]:
    """Yield a mount for each link that leads out of the project, at the place where the link leads to inside a node."""
    for link, target in project.outward.items():
        if link.is_relative_to(folder):
            leads_to = os.path.normpath(_INSIDE / link.relative_to(folder).parent / (project.root / link).readlink())
            yield f"{os.path.relpath(target, project.root)}:{leads_to}"


@dataclass(frozen=True, kw_only=True)
class Change:
    """A file that is made, or that gets more text at its end."""

    path: Path
    before: str | None
    """What is there; None if there is no such file."""
    added: str

    def diff(self, root: Path) -> str:
        """Return the change as a unified diff."""
        name = self.path.relative_to(root).as_posix()
        before = (self.before or "").replace("\r\n", "\n")
        after = before + self.added.replace("\r\n", "\n")
        lines = difflib.unified_diff(
            before.splitlines(keepends=True),
            after.splitlines(keepends=True),
            "/dev/null" if self.before is None else f"a/{name}",
            f"b/{name}",
        )
        # A last line without an end is marked as diff does.
        return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)

    def write(self) -> None:
        """Make the file, or add to it. Raises UsageError if it cannot be written, or if it has appeared meanwhile."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("x" if self.before is None else "a", encoding="utf-8", newline="") as file:
                file.write(self.added)
        except OSError as error:
            raise UsageError(f"{self.path} cannot be written: {error.strerror}.") from error


@dataclass(frozen=True, kw_only=True)
class SetupPlan:
    """The changes, and what is there already and is left as it is."""

    root: Path
    changes: tuple[Change, ...]
    kept: tuple[str, ...]
    """What is left as it is, and why, one sentence each."""
    test: PurePosixPath
    """The path of the test file, in the project."""
    settings: Path
    """The file with the settings."""

    @property
    def writes_settings(self) -> bool:
        """True if the settings are new."""
        return any(change.path == self.settings for change in self.changes)


def add_variable(path: Path, value: Value) -> None:
    """Add a variable to settings that were written just now, whose table `env` is the last thing in the file.

    Raises:
        UsageError: the file cannot be read or written.
    """
    table = "env" if path.name == OWN else f"{TABLE}.env"
    said = find_in(path.parent)
    has_table = said is not None and "env" in said.values
    lines = [*([] if has_table else ["", f"[{table}]"]), *env_lines(value)]
    before = _read(path) or ""
    Change(path=path, before=before, added=_at_the_end(before, "\n".join(lines) + "\n")).write()


def plan(project: Project, candidate: Candidate, settings: Draft) -> SetupPlan:
    """Return what has to be written for an app. Writes nothing.

    Raises:
        UsageError: a file that would be added to cannot be read, or the settings that are there are wrong.
    """
    root = project.root
    kept: list[str] = []
    path, settings_change = _settings(root, settings)
    if settings_change is None:
        kept.append(f"{path.name} has settings for the harness: they are left as they are.")
    test = _existing_test(root) or place_for(root)
    test_change = None
    if (root / test).exists():
        kept.append(f"{test} is there: it is left as it is.")
    else:
        task = project.first_task(candidate) if project.traffic.is_clear else None
        smoke = SmokeTest(
            sends=None if task is None else task.name(candidate.folder),
            queue=project.traffic.default_queue,
        )
        if (shown := project.shown_task(candidate)) is not None:
            smoke = replace(
                smoke,
                shown=shown.name(candidate.folder),
                arguments=shown.arguments,
                keywords=shown.keywords,
                address=shown.mails_to,
            )
        test_change = Change(path=root / test, before=None, added=smoke.text())
    changes = (settings_change, test_change, _ignored(root))
    return SetupPlan(
        root=root,
        changes=tuple(change for change in changes if change is not None),
        kept=tuple(kept),
        test=test,
        settings=path,
    )


def _existing_test(root: Path) -> PurePosixPath | None:
    """Return the test file that an earlier `harness init` wrote, if pytest's settings have changed since."""
    found = (path for folder in ("tests", "test") for path in sorted((root / folder).glob("*harness_smoke*.py")))
    return next((PurePosixPath(path.relative_to(root).as_posix()) for path in found), None)


def _settings(root: Path, settings: Draft) -> tuple[Path, Change | None]:
    """Return the file for the settings, and the change; None for no change if it has settings already."""
    said = find_in(root)
    if said is not None:
        return said.path, None
    own, shared = root / OWN, root / SHARED
    in_own = settings.toml(table="")
    before = _read(own)
    if before is not None:
        return own, Change(path=own, before=before, added=_at_the_end(before, in_own))
    before = _read(shared)
    if before is not None:
        added = _at_the_end(before, settings.toml(table=TABLE), blank=True)
        if _is_toml(before + added):
            return shared, Change(path=shared, before=before, added=added)
        # Such as `tool = {...}` in one line, to which no table can be added.
    return own, Change(path=own, before=None, added=in_own)


def _ignored(root: Path) -> Change | None:
    path = root / ".gitignore"
    before = _read(path)
    if before is not None and {line.strip().strip("/") for line in before.splitlines()} & {_IGNORED.strip("/")}:
        return None
    return Change(path=path, before=before, added=_at_the_end(before or "", f"{_IGNORED}\n"))


def _at_the_end(before: str, text: str, *, blank: bool = False) -> str:
    """Return a text as it is added to a file: on lines of its own, and with the file's ends of lines."""
    if before and not before.endswith("\n"):
        text = f"\n{text}"
    if before and blank:
        text = f"\n{text}"
    return text.replace("\n", "\r\n") if "\r\n" in before else text


def _is_toml(text: str) -> bool:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return True


def _read(path: Path) -> str | None:
    """Return a file's text with its ends of lines; None if there is none. Raises UsageError."""
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}. Nothing was written.") from error
