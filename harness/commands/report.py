"""The command `harness report`: one page of a run, made anew."""

import webbrowser
from pathlib import Path

import click

from harness.audit.run_folder import RUNS
from harness.commands.command_exit import complain
from harness.commands.shared_options import AS_JSON, FOLDER, examples, print_json
from harness.console import Console
from harness.report.run_view import view_of
from harness.report.write_report import REPORT, write_view


@click.command(
    "report",
    epilog=examples("harness report --open", "harness report .harness/runs/latest --output /tmp/report.html"),
)
@click.argument("folder", type=FOLDER, default=RUNS / "latest")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"The file to write.  [default: {REPORT} in the run folder]",
)
@click.option("--open", "is_opened", is_flag=True, help="Open it in a browser.")
@AS_JSON
def report(*, folder: Path, output: Path | None, is_opened: bool, as_json: bool) -> None:
    """Write the report of the run in FOLDER (the newest, unless given): one HTML file that needs no network.

    The exit code is 0 if the report was written, whatever its verdict; `harness audit` has that for its exit code.
    """
    view = view_of(folder.resolve())
    written = write_view(view, folder.resolve(), output)
    if as_json:
        said = {"report": str(written), "name": view.name, "verdict": view.verdict.value, "sentence": view.sentence}
        print_json({**said, "notes": list(view.notes)})
    else:
        Console(soft_wrap=True).print(f"report: {written}")
    if is_opened and not webbrowser.open(written.absolute().as_uri()):
        complain(f"no browser could be started. Open {written.absolute()} in one.")
