"""One view of a run, from its folder alone: what the report shows, and whatever else shows a run.

It knows nothing of HTML. The same folder gives the same view, wherever it lies.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.audit.audit import Audit, audit
from harness.audit.evidence_database import Database, open_database
from harness.audit.run_folder import RunFolder
from harness.errors import RecordError, RunFolderError
from harness.measure.load_account import FaultAccount, LoadAccount
from harness.records.survival import Outcome, Survival
from harness.records.typed_json import DAMAGED
from harness.records.values import Json
from harness.records.verdict import Fate, Verdict
from harness.report import survive_grid
from harness.report.lives import Lives
from harness.report.run_logs import NodeLog, read_logs
from harness.report.view_tables import Tables, Timeline, read_tables

MOST_LIVES = 100_000
"""The most tasks whose lives are shown. They take some ten megabytes, and a browser opens them in a second."""


@dataclass(frozen=True, kw_only=True)
class RunView:
    """All that is to be said of a run."""

    name: str
    kind: str
    """What kind of run it was: `run`, `test`, `time-lapse`, `load test` or `survive`."""
    verdict: Verdict
    sentence: str
    """The verdict in one sentence."""
    about: Mapping[str, Json]
    """run.json; of a whole `harness survive` the command alone."""
    audit: Audit | None
    """The audit; None for a whole `harness survive`, whose cells have one each."""
    load: LoadAccount | None = None
    survival: Survival | None = None
    faults: tuple[FaultAccount, ...] = ()
    left: Mapping[str, Json] = field(default_factory=dict)
    """broker.json: what was left in the broker; empty if nobody asked it."""
    tables: Tables = field(default_factory=Tables)
    logs: tuple[NodeLog, ...] = ()
    notes: tuple[str, ...] = ()
    """What a reader has to know of the view itself, a sentence each."""

    @property
    def lives(self) -> Lives:
        """The lives of the tasks."""
        return self.tables.lives

    @property
    def timeline(self) -> Timeline | None:
        """The figures over time; None if no task was sent."""
        return self.tables.timeline

    @property
    def alive(self) -> Sequence[Json]:
        """The names of the workers that ran when the broker was asked; empty if nobody asked it."""
        named = self.left.get("alive")
        return named if isinstance(named, list) else ()

    @property
    def command(self) -> str:
        """The command that repeats the run; empty if it is not known."""
        test = self.about.get("test")
        if isinstance(test, str):
            return f"pytest {_quoted(test)}"
        command = self.about.get("command")
        return command if isinstance(command, str) else ""


def _quoted(text: str) -> str:
    return (
        text
        if all(letter.isalnum() or letter in "/._:-" for letter in text)
        else "'" + text.replace("'", "'\\''") + "'"
    )


def view_of(path: Path, *, most_lives: int = MOST_LIVES) -> RunView:
    """Return the view of the run in a folder. Reads it, and writes nothing.

    Args:
        path: a run folder, or the folder of a whole `harness survive`.
        most_lives: the most tasks whose lives are shown.

    Raises:
        RunFolderError: there is no run, or its evidence cannot be read.
    """
    if (path / "survive.json").is_file() and not (path / "run.json").exists():
        return _of_survival(RunFolder(path.resolve()))
    folder = RunFolder.open(path)
    about = folder.read("run.json")
    notes: list[str] = []
    found: list[Tables] = []
    stored = _stored_audit(folder, notes)
    named = [task for finding in (stored.findings if stored else ()) for task in finding.tasks]

    def look(database: Database) -> None:
        found.append(read_tables(database, folder, named=named, most=most_lives))

    audited = audit(folder, look)
    if not found:
        with open_database(folder.path) as database:
            found.append(read_tables(database, folder, named=(), most=most_lives, has_facts=False))
    if stored is not None and stored.fates != audited.fates:
        notes.append(
            "audit.json has other counts than the evidence gives today; what stands here of a single task is today's."
        )
    shown = audited
    if stored is not None and Verdict.worst([stored.verdict, audited.verdict]) is stored.verdict:
        shown = stored
    load = _load(folder, notes)
    faults = load.faults if load is not None else _faults(folder, notes)
    tables = found[0]
    windows = [(fault.begin_t - 1, (fault.healed_t or fault.begin_t) + 2) for fault in faults if fault.begin_t]
    is_load = (folder.path / "load.json").exists()
    verdict, sentence = _judged(shown, load) if load is not None or not is_load else _without_load(shown)
    return RunView(
        name=shown.name,
        kind=_kind(about, load),
        verdict=verdict,
        sentence=sentence,
        about=about,
        audit=shown,
        load=load,
        faults=tuple(faults),
        left=_optional(folder, "broker.json", notes),
        tables=tables,
        logs=read_logs(folder.logs, [*tables.seconds_of_interest, *windows]),
        notes=(*notes, *tables.notes),
    )


def _kind(about: Mapping[str, Json], load: LoadAccount | None) -> str:
    if load is not None:
        return "load test"
    if "timelapse" in about:
        return "time-lapse"
    return "test" if "test" in about else "run"


def _stored_audit(folder: RunFolder, notes: list[str]) -> Audit | None:
    """Return the audit as the run wrote it; None if there is none, and a note if it cannot be read."""
    said = _optional(folder, "audit.json", notes)
    if not said:
        return None
    try:
        return Audit.from_json(said)
    except DAMAGED as error:
        notes.append(f"audit.json is not what an audit writes ({error!r}), so that the run was audited anew.")
        return None


def _optional(folder: RunFolder, name: str, notes: list[str]) -> dict[str, Json]:
    if not (folder.path / name).exists():
        return {}
    try:
        return folder.read(name)
    except RunFolderError as error:
        notes.append(str(error))
        return {}


def _load(folder: RunFolder, notes: list[str]) -> LoadAccount | None:
    said = _optional(folder, "load.json", notes)
    if not said:
        return None
    try:
        return LoadAccount.from_json(said)
    except RecordError as error:
        notes.append(f"load.json is not what a load test writes: {error}")
        return None


def _faults(folder: RunFolder, notes: list[str]) -> Sequence[FaultAccount]:
    said = _optional(folder, "faults.json", notes).get("faults", [])
    try:
        return [FaultAccount.from_json(one) for one in said]
    except (RecordError, TypeError) as error:
        notes.append(f"faults.json is not what a run writes: {error}")
        return []


def _judged(audited: Audit, load: LoadAccount | None) -> tuple[Verdict, str]:
    """Return the verdict, and the sentence that says it."""
    if load is not None:
        verdict = next((one for one in Verdict if one.exit_code == load.exit_code), Verdict.UNKNOWN)
        return verdict, f"{_OPENINGS[verdict]}: {load.reason.rstrip('.')}. {_of_tasks(audited)}."
    if audited.is_timelapse:
        sent = sum(entry.sent for entry in audited.ticks)
        entries = _plural(len(audited.ticks), "entry", "entries")
        return audited.verdict, f"{_OPENINGS[audited.verdict]}: beat sent {sent:,} ticks of {entries}{_worst(audited)}."
    return audited.verdict, f"{_OPENINGS[audited.verdict]}: {_lower(_of_tasks(audited))}{_worst(audited)}."


def _without_load(audited: Audit) -> tuple[Verdict, str]:
    """Return the verdict on a load test whose own file cannot be read: its tasks alone prove nothing of the load."""
    verdict = Verdict.worst([audited.verdict, Verdict.UNKNOWN])
    sentence = f"{_OPENINGS[verdict]}: {_lower(_of_tasks(audited))}{_worst(audited)}; load.json cannot be read."
    return verdict, sentence


_OPENINGS = {Verdict.PASS: "Passed", Verdict.FAIL: "Failed", Verdict.UNKNOWN: "Unknown"}


def _of_tasks(audited: Audit) -> str:
    """Return what became of the tasks, in a few words."""
    if not audited.entries:
        return "No task was sent"
    if audited.fates[Fate.OK] == audited.entries:
        return f"All {audited.entries:,} tasks are ok" if audited.entries > 1 else "The one task is ok"
    met = [f"{count:,} {fate.value}" for fate, count in audited.fates.items() if count]
    return f"Of {_plural(audited.entries, 'task', 'tasks')} sent, {', '.join(met)}"


def _worst(audited: Audit) -> str:
    """Return the names of the findings that made the verdict; empty for a pass."""
    if audited.verdict is Verdict.PASS:
        return ""
    codes = dict.fromkeys(str(one.code) for one in audited.findings if one.verdict is audited.verdict)
    return f"; {_plural(len(codes), 'finding says', 'findings say')} so: {', '.join(codes)}"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _plural(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


def _of_survival(folder: RunFolder) -> RunView:
    try:
        stored = folder.read("survive.json")
        survival = Survival.from_json(stored)
    except DAMAGED as error:
        raise RunFolderError(
            f"{folder.path / 'survive.json'} is no outcome of `harness survive`: {error!r}."
        ) from error
    outcomes = [one.outcome for one in survival.results]
    counts = {outcome.value: outcomes.count(outcome) for outcome in Outcome}
    met = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    verdict = survival.verdict
    said = f"{_OPENINGS[verdict]}: of {_plural(len(outcomes), 'cell', 'cells')}, {met or 'none was tried'}"
    parts = [said, f"the promise was {survival.demand.value}", survive_grid.compared(survival)]
    return RunView(
        name=folder.path.name,
        kind="survive",
        verdict=verdict,
        sentence=f"{'; '.join(filter(None, parts))}.",
        about={"command": stored["command"]} if "command" in stored else {},
        audit=None,
        survival=survival,
    )
