"""A shop imports its orders: a large CSV file becomes rows of the app's own database.

`import_orders` looks through the file once, cuts it into chunks at line ends, and sends one `load_chunk` for each;
when all have ended, `close_import` writes the totals. No process ever holds more of the file than a block or a batch.

Any of them may run again, at any point, and changes nothing by it. Each row carries a version made of the import's
number and the row's place in the file, and only a higher version replaces a lower: so it is the file that decides
which of two rows for one order wins, and not which chunk ran first. What was closed stays closed. A second import of
a file under the same import_id finds all its work done.
"""

import contextlib
import functools
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from celery import Task, chord
from celery.utils.time import get_exponential_backoff_interval
from kombu.exceptions import OperationalError as BrokerError
from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from scenarios.app import app, ask_again, database
from scenarios.bulk_data.order_file import (
    CHUNK_BYTES,
    LINE_LIMIT,
    PLACE_BITS,
    BadFile,
    Chunk,
    delimiter_of,
    open_file,
    read_header,
    read_lines,
    survey,
)
from scenarios.bulk_data.order_row import BadRow, Row, read_row
from scenarios.bulk_data.tables import IMPORT_ID_CHARACTERS, close, create_tables, number_of, register, store

BATCH_ROWS = 1000
"""How many rows are written in one transaction."""

BACKOFF_LIMIT_S = 60
"""The longest pause before another attempt."""

_BROKEN = (OperationalError, PoolTimeout, BrokerError)
"""What may be better a little later: the database, or the broker that a chord could not be sent to."""


@functools.cache
def _tables_of(engine: Engine) -> Engine:
    create_tables(engine)
    return engine


def load(path: str, import_id: str, chunk: Chunk, engine: Engine, *, limit: int = LINE_LIMIT) -> dict[str, int]:
    """Load a chunk, batch by batch.

    Args:
        path: the file.
        import_id: an import that was registered.
        chunk: the part to load.
        engine: the app's database.
        limit: the most bytes that a line may have.

    Returns:
        How many rows were read, good, and rejected; the latter two add up to the first.

    Raises:
        BadFile: the file is gone, or it was changed since the chunk was cut.
    """
    read = rejected = 0
    base = number_of(engine, import_id) << PLACE_BITS
    orders: dict[str, Row] = {}
    rejects: list[Row] = []
    with open_file(path) as file:
        layout = read_header(file, delimiter=delimiter_of(path))
        for number, (offset, line) in enumerate(read_lines(file, chunk, limit=limit), chunk.first_line):
            if line == b"":
                continue
            read += 1
            try:
                row = read_row(line, layout)
            except BadRow as bad:
                rejected += 1
                rejects.append({"import_id": import_id, "line": number, "reason": bad.args[0]})
            else:
                row["version"] = base + offset
                orders[row["order_id"]] = row
            if len(orders) + len(rejects) >= BATCH_ROWS:
                store(engine, orders.values(), rejects)
                orders, rejects = {}, []
    store(engine, orders.values(), rejects)
    return {"read": read, "good": read - rejected, "rejected": rejected}


_LASTING: dict[str, Any] = {"acks_late": True, "max_retries": 12, "default_retry_delay": 5}
"""The delay, in seconds, is for a task whose pool process died; Celery would have it wait for three minutes."""


def _again(task: Task, error: Exception) -> Exception:
    """The exception with which `task` asks for another run, after a pause; `error` is raised if it had its last."""
    pause_s = get_exponential_backoff_interval(1, task.request.retries, BACKOFF_LIMIT_S, full_jitter=True)
    return ask_again(task, pause_s, error)


def _id_of(task: Task, part: str) -> str:
    """The id of something that a task sends: the same from every run of that task."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{task.request.id}/{part}"))


def save_group(group: str, members: Sequence[str]) -> None:
    """Record in `celery_tasksetmeta` what a group consists of, unless an earlier run did."""
    if app.GroupResult.restore(group) is None:
        # Celery only inserts. If another run does so just now, it inserts the same.
        with contextlib.suppress(IntegrityError):
            app.GroupResult(group, [app.AsyncResult(member) for member in members]).save()


@app.task(bind=True, name="scenarios.bulk_data.import_orders", throws=(BadFile,), **_LASTING)
def import_orders(  # noqa: D417 - `self` is Celery's.
    self: Task, path: str, import_id: str, chunk_bytes: int = CHUNK_BYTES
) -> dict[str, Any]:
    """Import a file of orders: send a task for each of its chunks, and one that closes the import after them.

    A second run of this task sends the same ids again, so that whatever the first was able to send is not doubled.

    Args:
        path: where the workers see the file.
        import_id: names the import, in 1 to 100 characters; a file that is imported again keeps its own.
        chunk_bytes: about how much of the file one task loads.

    Returns:
        ``{"import_id": ..., "group": ..., "callback": ..., "chunks": ...}``: two ids, and how many chunks there are.

    Raises:
        BadFile: the file as a whole is refused.
    """
    if not 1 <= len(import_id) <= IMPORT_ID_CHARACTERS or chunk_bytes < 1:
        raise ValueError(f"an import_id has 1 to {IMPORT_ID_CHARACTERS} characters, and a chunk at least 1 byte.")
    with open_file(path) as file:
        found = survey(file, delimiter=delimiter_of(path), chunk_bytes=chunk_bytes)
    group, callback = _id_of(self, "group"), _id_of(self, "callback")
    members = [_id_of(self, str(number)) for number in range(len(found.chunks))]
    header = [
        load_chunk.s(path, import_id, **asdict(chunk)).set(task_id=member)
        for member, chunk in zip(members, found.chunks, strict=True)
    ]
    try:
        register(_tables_of(database()), import_id, found)
        # Before anything is sent: what runs can then be looked up.
        save_group(group, members)
        chord(header, close_import.s(import_id)).set(task_id=group).apply_async(task_id=callback)
    except _BROKEN as error:
        raise _again(self, error) from error
    return {"import_id": import_id, "group": group, "callback": callback, "chunks": len(members)}


@app.task(bind=True, name="scenarios.bulk_data.load_chunk", throws=(BadFile,), **_LASTING)
def load_chunk(self: Task, path: str, import_id: str, *, offset: int, length: int, first_line: int) -> dict[str, int]:
    """Load one chunk; arguments and result as `Chunk` and `load` have them."""
    try:
        chunk = Chunk(offset=offset, length=length, first_line=first_line)
        return load(path, import_id, chunk, _tables_of(database()))
    except _BROKEN as error:
        raise _again(self, error) from error


@app.task(bind=True, name="scenarios.bulk_data.close_import", **_LASTING)
def close_import(self: Task, results: list[dict[str, int]], import_id: str) -> dict[str, int]:
    """Close an import, now that all its chunks are loaded; results and result as `close` has them."""
    try:
        return close(_tables_of(database()), import_id, results)
    except _BROKEN as error:
        raise _again(self, error) from error
