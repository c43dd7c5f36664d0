"""The scenario: a file is made or copied, imported, and the result compared with a prediction."""

import contextlib
import json
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness import Drive, Effect, Expect, Finding, Scenario, Verdict
from harness.errors import UsageError
from harness.scenario import Option
from scenarios.bulk_data.columns import COLUMNS
from scenarios.bulk_data.made_file import write_file
from scenarios.bulk_data.order_file import (
    DELIMITER_RULE,
    LINE_LIMIT,
    described_by,
    is_delimiter,
    other_delimiter,
    shown_delimiter,
)
from scenarios.bulk_data.order_row import COMMA
from scenarios.bulk_data.prediction import Prediction, read_only_uri

if TYPE_CHECKING:
    from harness.producer import Producer
    from harness.stack.stack import Stack

_ROWS = 10_000


class BulkData(Scenario):
    """Imports a file of orders, twice at once, and many times under load; it must be there once, as the last has it.

    There is no request over HTTP. A client would need the file, which `prepare` makes in the run folder. The web
    producer stores an uploaded file under its own name, which would be a different argument of the task.
    """

    name = "bulk_data"
    app = "scenarios.app"
    options = (
        Option(
            name="rows", help=f"How many rows a made file has; {_ROWS:,} if not said.", default=None, kind=int, least=0
        ),
        Option(name="data", help="A CSV file of orders to import instead of a made one.", default=None, kind=Path),
        Option(
            name="delimiter", help="What separates the values of --data, such as ';' or tab.", default=None, kind=str
        ),
    )
    count = 2

    def prepare(self, stack: "Stack", drive: Drive) -> None:
        """Make the file, or copy the given one.

        Raises:
            UsageError: the given file is empty, cannot be read or has another delimiter, or two options contradict.
        """
        target = _file_of(stack)
        given, rows, delimiter = (self.value(drive, name) for name in ("data", "rows", "delimiter"))
        if given is None:
            if delimiter is not None:
                raise UsageError("--delimiter says how --data is written: give --data as well, or leave it out.")
            described_by(target).unlink(missing_ok=True)
            write_file(target, rows=_ROWS if rows is None else rows, seed=drive.seed)
            return
        if rows is not None:
            raise UsageError("--rows is for a made file, and --data gives one: leave one of the two out.")
        delimiter = _told_delimiter(delimiter)
        _copy(given, target)
        described_by(target).write_text(json.dumps({"dialect": {"delimiter": delimiter}}))
        with target.open("rb") as file:
            other = other_delimiter(file.readline(LINE_LIMIT), delimiter)
        if other is not None:
            said = f"are separated by {shown_delimiter(other)}, not by {shown_delimiter(delimiter)}"
            raise UsageError(f"the columns of --data {given} {said}: give --delimiter {shown_delimiter(other)}.")

    def step(self, producer: "Producer", number: int, seed: int) -> None:
        """Import the file; two consecutive steps use the same import_id."""
        import_id = _import_of(number, seed)
        # Small chunks, so that even a small file becomes many tasks, on many workers.
        given = {"path": "/harness/run/app/orders.csv", "import_id": import_id, "chunk_bytes": 128 * 1024}
        expect = Expect(effects=[f"row:import-{import_id}"])
        producer.send("scenarios.bulk_data.import_orders", kwargs=given, expect=expect)

    def effects(self, stack: "Stack", drive: Drive) -> Iterator[Effect]:
        """Yield one effect for each time that an import was closed."""
        del drive
        for import_id, times in _begun(_database_of(stack)):
            yield from [Effect(key=f"row:import-{import_id}")] * times

    def check(self, stack: "Stack", drive: Drive) -> Iterator[Finding]:
        """Check that rows, rejects and totals are the predicted ones, and that each group has exactly its chunks.

        The audit checks that every task has its row in `celery_taskmeta`, and each import its effect once.
        """
        # A refused import is a failed task, and its file need not be readable at all.
        found = _database_of(stack)
        sent = {_import_of(number, drive.seed) for number in drive.numbers}
        begun = [import_id for import_id, _ in _begun(found) if import_id in sent]
        if begun:
            delimiter = _told_delimiter(self.value(drive, "delimiter"))
            with (
                tempfile.TemporaryDirectory() as folder,
                contextlib.closing(Prediction(_file_of(stack), Path(folder) / "told.sqlite3", delimiter)) as prediction,
            ):
                yield from prediction.differences(found, begun)
        saved = [row.result for row in stack.results.groups()]
        yield from group_differences(saved, _sent_chunks(stack.folder.journal))


def _told_delimiter(given: str | None) -> str:
    """Return the delimiter that an option sets. Raises UsageError for an impossible one."""
    delimiter = {None: COMMA, "tab": "\t", "\\t": "\t"}.get(given, given)
    if not is_delimiter(delimiter):
        raise UsageError(f"--delimiter {given!r} cannot be: {DELIMITER_RULE}; `tab` is one, too.")
    return str(delimiter)


def _copy(given: str | Path, target: Path) -> None:
    """Copy the given file. Raises UsageError if it cannot be copied or is empty."""
    hint = f"Give a CSV file with the columns {', '.join(COLUMNS)}."
    try:
        if not Path(given).is_file():
            raise UsageError(f"--data {given} is no file. {hint}")
        shutil.copyfile(given, target)
    except OSError as error:
        raise UsageError(f"--data {given} cannot be copied into the run folder: {error}. {hint}") from error
    if target.stat().st_size == 0:
        raise UsageError(f"--data {given} is empty (0 bytes). {hint}")


def _import_of(number: int, seed: int) -> str:
    """Return the id of the import that a step sends."""
    return f"orders-{seed}-{number // 2}"


def _file_of(stack: "Stack") -> Path:
    return stack.folder.path / "app" / "orders.csv"


def _database_of(stack: "Stack") -> Path:
    return stack.folder.path / "app" / "app.sqlite3"


def _begun(found: Path) -> list[tuple[str, int]]:
    """Return the imports that the app has begun, in order, each with the number of times it was closed."""
    if not found.exists():
        return []
    with contextlib.closing(sqlite3.connect(read_only_uri(found), uri=True, timeout=60)) as reader:
        # Another scenario on the same stack uses the same file, and the first import creates this table.
        if reader.execute("SELECT 1 FROM sqlite_master WHERE name = 'imports'").fetchone() is None:
            return []
        return reader.execute("SELECT import_id, closings FROM imports ORDER BY number").fetchall()


def _sent_chunks(journal: Path) -> list[frozenset[str]]:
    """Return the ids of the chunks that were sent, by import task, from the journal."""
    sent: dict[str | None, set[str]] = {}
    for path in sorted(journal.glob("*.jsonl")):
        with path.open("rb") as file:
            for line in file:
                # Few of the lines need decoding, and the last line of a process that died may be cut off.
                if b'"scenarios.bulk_data.load_chunk"' in line and line.endswith(b"\n"):
                    event = json.loads(line)
                    # A chunk that is retried was sent before.
                    if event["kind"] == "intended" and not event.get("retries"):
                        sent.setdefault(event.get("parent"), set()).add(event["task"])
    return [frozenset(members) for members in sent.values()]


def group_differences(saved: Sequence[bytes | None], sent: Sequence[frozenset[str]]) -> Iterator[Finding]:
    """Yield a finding if the saved groups are not those that were sent.

    Args:
        saved: `result` of each row of `celery_tasksetmeta`.
        sent: the ids of the chunks of each import.
    """
    groups = []
    for result in saved:
        try:
            _, members = json.loads(result or b"")
            groups.append(tuple(sorted(task for (task, _), _ in members)))
        except (ValueError, TypeError):
            groups.append(("unreadable",))
    expected = Counter(tuple(sorted(members)) for members in sent)
    wrong = (Counter(groups) - expected) + (expected - Counter(groups))
    if wrong:
        tasks = tuple(sorted({task for members in wrong for task in members} - {"unreadable"})[:10])
        text = f"{len(groups)} groups are saved and {len(sent)} were sent, and they do not have the same members"
        yield Finding(code="group-differs", verdict=Verdict.FAIL, count=wrong.total(), text=text, tasks=tasks)


scenario = BulkData()
