"""The output of `harness run --ci`: plain progress lines, a JUnit file in the run folder, annotations of the job."""

import os
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import click

from harness.audit.audit import Audit
from harness.audit.run_folder import RunFolder
from harness.commands.command_exit import at_end, complain
from harness.errors import told
from harness.report import ci_annotations, progress
from harness.report.junit import JUnitFile, Suite
from harness.report.write_report import REPORT

JUNIT = "junit.xml"
"""The name of the JUnit file in a run folder."""


class CiOutput:
    """The output of a run for the CI system around it; nothing, unless it is asked for."""

    def __init__(self, name: str, *, is_asked: bool, as_json: bool, has_junit: bool) -> None:
        """Begin the output.

        Args:
            name: of the scenario.
            is_asked: True for `--ci`.
            as_json: True if the standard output has JSON alone.
            has_junit: True if a JUnit file is written elsewhere: a CI system that reads both would count all twice.
        """
        self._name, self._is_asked, self._to_stderr = name, is_asked, as_json
        self._has_junit = has_junit
        self._is_github = is_asked and os.environ.get("GITHUB_ACTIONS") == "true"
        self._is_gitlab = is_asked and bool(os.environ.get("GITLAB_CI"))
        self._file: JUnitFile | None = None
        self._stopped = ""
        self._stop()

    def progress(self) -> AbstractContextManager[tuple[progress.Say, progress.Tell]]:
        """Show progress: lines for a log, or bars."""
        return progress.of_lines() if self._is_asked else progress.of_tasks()

    def begin(self, folder: RunFolder) -> None:
        """Write the JUnit file into the new run folder, unless there is another; it says that nothing is known yet."""
        if self._is_asked and not self._has_junit:
            self._file = JUnitFile(folder.path / JUNIT, self._name, complain)

    def adding(self, add: Callable[[Suite], None]) -> Callable[[Suite], None]:
        """Return a function that writes a suite where `add` does, and into the run folder."""

        def both(suite: Suite) -> None:
            add(suite)
            if self._file is not None:
                self._file.add(suite)
                self._file = None

        return both

    def conclude(self, audited: Audit, folder: Path) -> None:
        """Annotate the job with what a run has found. What cannot be written is told, and changes no verdict."""
        if self._is_github:
            self._resume()
            for line in ci_annotations.of_audit(self._name, audited, folder):
                self._write(line)
        if self._is_gitlab and (folder / REPORT).is_file():
            try:
                ci_annotations.link_for_gitlab(self._name, audited.verdict, folder / REPORT, os.environ)
            except OSError as error:
                complain(f"the links for GitLab cannot be written: {error}.")

    def fail(self, error: BaseException) -> None:
        """Annotate the job with the error that ended the run, and write it into the JUnit file, if there is one."""
        text = told(error) or type(error).__name__
        if self._file is not None:
            self._file.fail(text)
        if self._is_github:
            self._resume()
            self._write(ci_annotations.command("error", self._name, text))
            # The error itself is shown after this, and may quote the log of a worker.
            self._stop()
            # What other commands of the step say is taken for commands again.
            at_end.callback(self._resume)

    def _stop(self) -> None:
        """Let GitHub take no line of the output for a command: a task may write any line into its error."""
        if self._is_github:
            self._stopped = secrets.token_hex(16)
            self._write(f"::stop-commands::{self._stopped}")

    def _resume(self) -> None:
        if self._stopped:
            sys.stderr.flush()
            self._write(f"::{self._stopped}::")
            self._stopped = ""

    def _write(self, line: str) -> None:
        click.echo(line, err=self._to_stderr)


@contextmanager
def around(name: str, *, is_asked: bool, as_json: bool, has_junit: bool) -> Iterator[CiOutput]:
    """Yield the output for a CI system, with the arguments of `CiOutput`; an error is written there, and goes on."""
    output = CiOutput(name, is_asked=is_asked, as_json=as_json, has_junit=has_junit)
    try:
        yield output
    except BaseException as error:
        output.fail(error)
        raise
