"""Writes the report of a run into its folder, for every door."""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from urllib.parse import quote

from harness.errors import RunFolderError
from harness.records.regular_file import replacing
from harness.records.survival import Survival
from harness.records.verdict import Verdict
from harness.report import history
from harness.report.page import page
from harness.report.run_list import ListedRun
from harness.report.run_view import RunView, view_of

REPORT = "report.html"
"""The name of the report in a run folder."""


def write_report(folder: Path, target: Path | None = None) -> Path:
    """Write the report of a run, whole or not at all, and return its path.

    Args:
        folder: the run folder, or the folder of a whole `harness survive`.
        target: the file to write; the folder's own report.html, unless given.

    Raises:
        RunFolderError: there is no run, its evidence cannot be read, or the report cannot be written.
    """
    return write_view(view_of(folder), folder, target)


def write_view(view: RunView, folder: Path, target: Path | None = None) -> Path:
    """Write the report of a view, as `write_report` does. Raises RunFolderError."""
    written = target or folder / REPORT
    write_page(written, page(view, _reports_of_cells(folder, written, view)))
    return written


def try_to_write(folder: Path, say: Callable[[str], None]) -> Path | None:
    """Write the report of a run that has its verdict; whatever goes wrong is said, and changes nothing else.

    Returns:
        The path of the report; None if it could not be written.
    """
    try:
        return write_report(folder)
    except Exception as error:  # noqa: BLE001 - the verdict stands, whatever the report meets.
        why = str(error) if isinstance(error, RunFolderError) else f"{type(error).__name__}: {error}"
        say(f"the report of {folder} could not be written; the verdict stands. {why}")
        return None


def write_survival(folder: Path, survival: Survival, say: Callable[[str], None]) -> Path | None:
    """Write the report of a whole `harness survive`, and those of the cells that break the promise.

    Returns:
        The path of the whole one; None if it could not be written, which is said.
    """
    for name in _broken(survival):
        if _is_file(folder / name / "run.json"):
            try_to_write(folder / name, say)
    return try_to_write(folder, say)


def _broken(survival: Survival) -> Iterable[str]:
    every = [*survival.results, *(result for remedy in survival.remedies for result in remedy.results)]
    broken = (one for one in every if survival.demand.verdict(one.outcome) is not Verdict.PASS)
    return dict.fromkeys(one.folder for one in broken)


def _reports_of_cells(folder: Path, written: Path, view: RunView) -> dict[str, str]:
    """Return the addresses of the reports of cells, seen from where the whole one is written."""
    if view.survival is None:
        return {}
    named = (one for remedy in view.survival.remedies for one in remedy.results)
    names = dict.fromkeys(one.folder for one in (*view.survival.results, *named))
    # A name from the file could lead out of the folder.
    inside = (name for name in names if name == Path(name).name)
    found = {name: folder / name / REPORT for name in inside}
    start = written.absolute().parent
    return {
        name: Path(os.path.relpath(path.absolute(), start)).as_posix() for name, path in found.items() if _is_file(path)
    }


def _is_file(path: Path) -> bool:
    """Return whether there is a file, as far as anybody may know: a folder may be one that nobody may look into."""
    try:
        return path.is_file()
    except OSError:
        return False


def write_history(runs: Sequence[ListedRun], root: Path, target: Path) -> None:
    """Write the history of the runs in a folder, with links to their reports. Raises RunFolderError."""
    start = target.absolute().parent
    reports = {}
    for one in runs:
        path = Path(one.folder).absolute() / REPORT
        if _is_file(path):
            # A colon at the begin of a folder's name must not make an address of another kind.
            reports[one.folder] = quote(Path(os.path.relpath(path, start)).as_posix(), errors="surrogateescape")
    write_page(target, history.page(runs, str(root), reports))


def write_page(target: Path, text: str) -> None:
    """Write a page that replaces an older one when it is complete. Raises RunFolderError."""
    try:
        with replacing(target) as partial:
            partial.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise RunFolderError(f"cannot write {target}: {error.strerror}.") from error
