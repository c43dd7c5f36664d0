"""The command `harness export`: a run for the tools that show traces."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

import click

from harness.audit.journal_in_order import JournalInOrder
from harness.audit.run_folder import RUNS, RunFolder
from harness.commands.command_exit import complain
from harness.commands.shared_options import AS_JSON, FOLDER, examples, print_json
from harness.console import Console
from harness.errors import RunFolderError, UsageError
from harness.measure.load_account import FaultAccount, LoadAccount
from harness.records.regular_file import replacing
from harness.records.verdict import Verdict
from harness.report.otlp import OtlpTraces
from harness.report.perfetto import PerfettoTrace, spans_of

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(
    "export",
    epilog=examples(
        "harness export --perfetto trace.json", "harness export .harness/runs/latest --otlp traces.jsonl --json"
    ),
)
@click.argument("run", type=FOLDER, default=RUNS / "latest")
@click.option("--perfetto", type=_FILE, metavar="FILE", help="As a trace for ui.perfetto.dev and chrome://tracing.")
@click.option("--otlp", type=_FILE, metavar="FILE", help="As traces of OpenTelemetry: OTLP/JSON, a message a line.")
@AS_JSON
def export(*, run: Path, perfetto: Path | None, otlp: Path | None, as_json: bool) -> int:
    """Write a RUN (the newest, unless given) for other tools: each publishing and each execution of its tasks.

    The exit code is 0, or 3 if lines of the journal could not be read, so that something is not there.
    """
    _check(perfetto, otlp)
    folder = RunFolder.open(run)
    if not any(folder.journal.glob("*.jsonl")):
        raise RunFolderError(f"{folder.path} has no journal, so that there is nothing to export.")
    events = JournalInOrder(folder.journal)
    about = {"run": folder.path.name}
    with ExitStack() as files:
        trace = None
        if perfetto is not None:
            trace = PerfettoTrace(files.enter_context(_whole(perfetto)), _faults(folder), about)
            trace.begin()
        traces = (
            OtlpTraces(files.enter_context(_whole(otlp)), {"celery_harness.run": folder.path.name}) if otlp else None
        )
        count = 0
        for span in spans_of(events, trace):
            count += 1
            if trace is not None:
                trace.span(span)
            if traces is not None:
                traces.span(span)
        if trace is not None:
            trace.end()
        if traces is not None:
            traces.flush()
    written = [str(path) for path in (perfetto, otlp) if path is not None]
    if as_json:
        print_json({"files": written, "spans": count, "damaged": events.damaged})
    Console(stderr=as_json, soft_wrap=True).print(f"wrote {count:,} spans to {' and '.join(written)}")
    if events.damaged:
        complain(f"{events.damaged:,} lines of the journal could not be read, so that what they said is not there.")
        return Verdict.UNKNOWN.exit_code
    return Verdict.PASS.exit_code


def _check(perfetto: Path | None, otlp: Path | None) -> None:
    """Raise UsageError if there is nothing to write, or one file for two formats."""
    if perfetto is None and otlp is None:
        raise UsageError("say what to write: --perfetto FILE, --otlp FILE, or both.")
    if perfetto is not None and otlp is not None and perfetto.resolve() == otlp.resolve():
        raise UsageError(f"--perfetto and --otlp both name {perfetto}: give each a file of its own.")


def _faults(folder: RunFolder) -> list[FaultAccount]:
    """Return the faults of a run. Raises RunFolderError."""
    if (folder.path / "load.json").exists():
        return list(LoadAccount.from_json(folder.read("load.json")).faults)
    if not (folder.path / "faults.json").exists():
        return []
    faults = folder.read("faults.json").get("faults")
    if not isinstance(faults, list):
        raise RunFolderError(f"{folder.path / 'faults.json'} has no list of faults.")
    return [FaultAccount.from_json(one) for one in faults]


@contextmanager
def _whole(path: Path) -> Iterator[TextIO]:
    """Open a file that replaces `path` when it is complete, and is removed on an error. Raises RunFolderError."""
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is no file: give the name of one that is there, or of a new one.")
    try:
        with replacing(path) as partial, partial.open("w", encoding="utf-8") as file:
            yield file
    except OSError as error:
        raise RunFolderError(f"cannot write {path}: {error.strerror}.") from error
