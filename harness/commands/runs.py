"""The commands `harness runs` and `harness compare`: what there is, and what has changed."""

import webbrowser
from pathlib import Path

import click

from harness.audit.run_folder import RUNS, RunFolder
from harness.commands.command_exit import complain
from harness.commands.shared_options import AS_JSON, FOLDER, examples, print_json, runs_option
from harness.console import Console
from harness.errors import RunFolderError
from harness.report import markdown, run_comparison, run_list, step_summary
from harness.report.write_report import write_history

_HISTORY = "history.html"


@click.command("runs", epilog=examples("harness runs", "harness runs --last 5 --json", "harness runs --open"))
@runs_option("Where the run folders are.")
@click.option("--last", type=click.IntRange(min=1), help="Only so many, the newest.")
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write them as a page instead: verdicts, fates and durations over time, with links to the reports.",
)
@click.option(
    "--open", "is_opened", is_flag=True, help=f"Open the page in a browser. Without --html, it is {_HISTORY} there."
)
@AS_JSON
def runs(*, root: Path, last: int | None, html: Path | None, is_opened: bool, as_json: bool) -> None:
    """List the runs, newest first: verdict, tasks, the fates that are not ok, duration.

    A folder that has no verdict is listed as broken, with the reason.
    """
    if root != RUNS and not root.exists():
        raise RunFolderError(f"there is no folder {root}: --runs names the one in which the run folders are.")
    listed = run_list.runs_in(root)[:last]
    page = html or (root / _HISTORY if is_opened else None)
    if page is not None:
        write_history(listed, root, page)
    if as_json:
        print_json({"runs": [one.to_json() for one in listed]} | ({} if page is None else {"page": str(page)}))
    elif page is not None:
        Console(soft_wrap=True).print(f"page: {page}")
    elif listed:
        Console().print(run_list.table(listed))
    else:
        Console(soft_wrap=True).print(f"there is no run in {root}.")
    if page is not None and is_opened and not webbrowser.open(page.absolute().as_uri()):
        complain(f"no browser could be started. Open {page.absolute()} in one.")


@click.command(
    "compare",
    epilog=examples(
        "harness compare .harness/runs/20261124T101500-emails .harness/runs/latest",
        "harness compare baseline .harness/runs/latest --slower 1.5 --json",
    ),
)
@click.argument("before", type=FOLDER)
@click.argument("after", type=FOLDER)
@click.option(
    "--slower",
    type=click.FloatRange(min=1),
    metavar="RATIO",
    help="Also worse: a stage whose p95 is more than this many times as long.  [default: durations are only shown]",
)
@AS_JSON
def compare(*, before: Path, after: Path, slower: float | None, as_json: bool) -> int:
    """Compare the run AFTER with the run BEFORE: fates, durations of the stages, findings.

    The exit code is 0 if AFTER is not worse, 1 if it is worse, 2 for wrong use, and 3 if nobody can say. Worse is: a
    larger share of tasks that are lost, duplicated, wrong or unrecorded, another broken promise, or one that more tasks
    broke; or, with --slower, a longer stage. Two runs of `harness survive` are compared cell by cell.
    """
    said = run_comparison.compare(_opened(before), _opened(after), slower=slower)
    console = Console(stderr=as_json)
    if as_json:
        print_json(said.to_json())
    for part in run_comparison.parts(said):
        console.print(part)
    lines = [f"{word}: {one}" for word in ("worse", "unknown", "better") for one in getattr(said, word)]
    step_summary.append(lambda: markdown.of_lines("Comparison of two runs", said.verdict, lines), complain)
    return said.verdict.exit_code


def _opened(path: Path) -> RunFolder:
    """Open a run folder, or that of `harness survive`, which has no run of its own. Raises RunFolderError."""
    try:
        if (path / "survive.json").exists():
            return RunFolder(path.resolve())
    except OSError as error:
        raise RunFolderError(f"cannot look into {path}: {error.strerror}.") from error
    return RunFolder.open(path)
