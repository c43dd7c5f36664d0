"""The command `harness audit`: the audit of a run, made again from its folder."""

from pathlib import Path

import click

from harness.audit.audit import audit
from harness.audit.run_folder import RUNS, RunFolder
from harness.commands.command_exit import complain
from harness.commands.shared_options import AS_JSON, FOLDER, examples, print_json
from harness.console import Console
from harness.errors import RunFolderError
from harness.report import markdown, step_summary, terminal


@click.command("audit", epilog=examples("harness audit", "harness audit .harness/runs/20261124T101500-emails --json"))
@click.argument("folder", type=FOLDER, default=RUNS / "latest")
@AS_JSON
def audit_(*, folder: Path, as_json: bool) -> int:
    """Audit a run again, from nothing but its FOLDER (the newest, unless given), and rewrite its audit.json."""
    opened = RunFolder.open(folder)
    audited = audit(opened)
    terminal.show(Console(stderr=as_json), audited)
    if as_json:
        print_json({**audited.to_json(), "folder": str(opened.path)})
    step_summary.append(lambda: markdown.of_audit(audited.name, audited, str(opened.path)), complain)
    try:
        opened.write("audit.json", audited.to_json())
    except RunFolderError as error:
        complain(f"{error}. The verdict stands; it is only not written down.")
    return audited.verdict.exit_code
