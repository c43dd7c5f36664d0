"""The end of a command that has an audit: what it prints, and what it writes for people and for CI systems."""

from collections.abc import Callable, Iterable
from pathlib import Path

from harness.audit.audit import Audit
from harness.commands.command_exit import complain
from harness.commands.shared_options import print_json
from harness.console import Console
from harness.report import checks, junit, markdown, step_summary, terminal
from harness.report.junit import Suite
from harness.report.write_report import try_to_write


def conclude(
    name: str,
    audited: Audit,
    folder: Path,
    *,
    add: Callable[[Suite], None] = lambda _: None,
    lines: Iterable[str] = (),
    as_json: bool = False,
) -> int:
    """Show an audit, write its report and what CI systems read, and return the exit code.

    Args:
        name: of what was run, the same in each run.
        audited: the audit.
        folder: the run folder.
        add: takes the suite for the JUnit file.
        lines: more to print.
        as_json: True to print the audit as JSON, and for people on standard error.
    """
    console = Console(stderr=as_json)
    if as_json:
        print_json({**audited.to_json(), "folder": str(folder)})
    terminal.show(console, audited)
    for line in lines:
        console.print(line, soft_wrap=True)
    written = try_to_write(folder, complain)
    console.print(f"run folder: {folder}", soft_wrap=True)
    if written is not None:
        console.print(f"report: {written}", soft_wrap=True)
    step_summary.append(lambda: markdown.of_audit(name, audited, str(folder)), complain)
    add(junit.suite(name, checks.of_audit(audited), verdict=audited.verdict, folder=folder, text=audited.text()))
    return audited.verdict.exit_code
