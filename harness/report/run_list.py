"""The runs of a folder, newest first, as their folders say; a folder that cannot be read is listed as such."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from harness.audit.audit import Audit
from harness.audit.journal_in_order import span_s
from harness.audit.run_folder import RunFolder
from harness.console import STYLES, Words
from harness.errors import HarnessError, RunFolderError
from harness.measure.durations import write_duration
from harness.measure.load_account import LoadAccount
from harness.printable import printable, printable_name
from harness.records.event import Kind
from harness.records.journal import parsed
from harness.records.regular_file import open_regular
from harness.records.rehearsal import Rehearsal
from harness.records.survival import Survival
from harness.records.typed_json import DAMAGED, Record
from harness.records.verdict import Fate, Verdict
from harness.report.survive_grid import compared

_COUNTED = ("lost", "doubled", "failed", "pending", "refused", "cut")
"""What is counted of the runs of a rehearsal."""
_STAMP = re.compile(r"(\d{8}T\d{6})-(.+)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class ListedRun(Record):
    """One run folder, as a list shows it."""

    name: str
    """The name of the run, without its time."""
    folder: str
    begun: str | None
    """The time when the folder was made, in ISO format; None if its name does not say it."""
    verdict: Verdict | None
    """None if the folder does not say it."""
    entries: int = 0
    """The tasks that were sent, of `rehearse` by all runs; of `survive`, the cells."""
    fates: Mapping[str, int] = field(default_factory=dict)
    """The fates that occurred, without `ok`; of `survive`, the outcomes; of `rehearse`, what its report counts."""
    e2e_ms: Mapping[str, float] = field(default_factory=dict)
    """The quantiles of the time from due to success in milliseconds, by names such as `p95`; empty if none is known."""
    duration_s: float | None = None
    """Seconds from the first to the last line of the journal."""
    note: str | None = None
    """What the verdict does not tell, in a sentence, such as what the baseline of `survive` said; None for nothing."""
    broken: str | None = None
    """The reason why there is no verdict; None if there is one."""


def runs_in(root: Path) -> list[ListedRun]:
    """Return the runs in a folder, newest first. Raises RunFolderError if it cannot be read."""
    try:
        folders = [path for path in root.iterdir() if path.is_dir() and not path.is_symlink()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunFolderError(f"cannot look into {root}: {error.strerror}.") from error
    return [listed(path) for path in sorted(folders, key=lambda path: path.name, reverse=True)]


def listed(path: Path) -> ListedRun:
    """Return the line of one folder. Nothing that lies there makes it fail."""
    begun, name = _begun(path.name)
    about = {"name": name, "folder": str(path), "begun": begun}
    try:
        if (path / "survive.json").exists():
            return _survival(path, about)
        return _rehearsal(path, about) if (path / "rehearsal.json").exists() else _run(path, about)
    except (HarnessError, OSError) as error:
        return ListedRun.from_json({**about, "verdict": None, "broken": str(error)})
    except DAMAGED as error:
        return ListedRun.from_json(
            {**about, "verdict": None, "broken": f"it has not what a run writes: {type(error).__name__}: {error}"}
        )


def verdict_in(folder: RunFolder, audited: Audit) -> Verdict:
    """Return the verdict of a run: that of a load test has more to it than the audit of its tasks."""
    if not (folder.path / "load.json").exists():
        return audited.verdict
    said = LoadAccount.from_json(folder.read("load.json"))
    return next((one for one in Verdict if one.exit_code == said.exit_code), Verdict.UNKNOWN)


def audit_in(folder: RunFolder) -> Audit:
    """Return the audit that a run has written. Raises RunFolderError."""
    if not (folder.path / "audit.json").exists():
        if _sent_nothing(folder):
            raise RunFolderError(f"{folder.path} has no audit.json: no task was sent, so that there was none to judge.")
        raise RunFolderError(
            f"{folder.path} has no audit.json: the run still goes on, or was killed; `harness audit` audits it."
        )
    try:
        return Audit.from_json(folder.read("audit.json"))
    except DAMAGED as error:
        raise RunFolderError(f"{folder.path / 'audit.json'} is not what an audit writes: {error!r}.") from error


def _sent_nothing(folder: RunFolder) -> bool:
    """Return whether a run has ended without having sent a task, as one that only looks whether a worker starts."""
    nodes = folder.read("run.json").get("nodes", [])
    # A stack that is taken down saves the logs of its nodes.
    has_ended = any(folder.logs.joinpath(f"{name}.log").exists() for name in nodes)
    return has_ended and not any(_has_sent(path) for path in folder.journal.glob("*.jsonl"))


def _has_sent(path: Path) -> bool:
    with open_regular(path) as file:
        # One line at a time: the journal of a load test is long, and its first lines tell already.
        for line in file:
            try:
                kind = parsed(line)["kind"]
            except ValueError:
                continue
            if kind == Kind.INTENDED:
                return True
    return False


def survival_in(folder: RunFolder) -> Survival:
    """Return the outcome that `harness survive` has written. Raises RunFolderError."""
    try:
        return Survival.from_json(folder.read("survive.json"))
    except DAMAGED as error:
        raise RunFolderError(
            f"{folder.path / 'survive.json'} is not what `harness survive` writes: {error!r}."
        ) from error


def _begun(name: str) -> tuple[str | None, str]:
    """Return the time in a folder's name, and the rest of it."""
    found = _STAMP.fullmatch(name)
    if found is None:
        return None, name
    try:
        moment = datetime.strptime(found[1], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None, name
    return moment.isoformat(), found[2]


def _run(path: Path, about: Mapping[str, str | None]) -> ListedRun:
    folder = RunFolder.open(path)
    audited = audit_in(folder)
    fates = {fate.value: count for fate, count in audited.fates.items() if count and fate is not Fate.OK}
    return ListedRun(
        name=str(about["name"]),
        folder=str(about["folder"]),
        begun=about["begun"],
        verdict=verdict_in(folder, audited),
        entries=audited.entries,
        fates=fates,
        e2e_ms={str(key): float(value) for key, value in audited.e2e_ms.items()},
        duration_s=span_s(folder.journal),
    )


def _survival(path: Path, about: Mapping[str, str | None]) -> ListedRun:
    survival = survival_in(RunFolder(path))
    met = [one.outcome.value for one in survival.results]
    return ListedRun(
        name=str(about["name"]),
        folder=str(about["folder"]),
        begun=about["begun"],
        verdict=survival.verdict,
        entries=len(met),
        fates={outcome: met.count(outcome) for outcome in dict.fromkeys(met) if outcome != "ok"},
        note=compared(survival) or None,
    )


def _rehearsal(path: Path, about: Mapping[str, str | None]) -> ListedRun:
    rehearsal = Rehearsal.from_json(RunFolder(path).read("rehearsal.json"))
    counted = {name: sum(getattr(one, name) for one in rehearsal.runs) for name in _COUNTED}
    grace_s = rehearsal.shortest_grace_s
    return ListedRun(
        name=str(about["name"]),
        folder=str(about["folder"]),
        begun=about["begun"],
        verdict=rehearsal.verdict,
        entries=sum(one.sent for one in rehearsal.runs),
        fates={name: count for name, count in counted.items() if count},
        note=None if grace_s is None else f"the shortest grace period is {grace_s} s",
    )


def table(runs: list[ListedRun]) -> Table:
    """Return the runs as a table, a line each."""
    made = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("begun (UTC)", "run", "verdict", "sent", "not ok", "took"):
        made.add_column(column, no_wrap=column in {"begun (UTC)", "verdict", "took"})
    for one in runs:
        verdict = Text("broken", "yellow") if one.verdict is None else Text(one.verdict.value, STYLES[one.verdict])
        made.add_row(
            "" if one.begun is None else one.begun[:19].replace("T", " "),
            Words(printable_name(one.name)),
            verdict,
            "" if one.verdict is None else f"{one.entries:,}",
            Words(words(one)),
            "" if one.duration_s is None else write_duration(one.duration_s),
        )
    return made


def words(run: ListedRun) -> str:
    """Return why a run has no verdict, or else the fates that are not ok, and what the verdict does not tell."""
    if run.broken:
        return printable(run.broken)
    fates = ", ".join(f"{count:,} {name}" for name, count in run.fates.items())
    return printable_name("; ".join(filter(None, [fates, run.note])))
