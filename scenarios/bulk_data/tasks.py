"""A shop imports its orders: a large CSV file becomes rows of the app's own database.

`import_orders` reads the file once, cuts it into chunks at line ends, and sends one `load_chunk` for each. When all
have ended, `close_import` writes the totals. No process ever holds more of the file than a block or a batch.

Any of them may run again, at any time, and changes nothing by it. Each row has a version made of the import's number
and the row's place in the file, and only a higher version replaces a lower one. So the file decides which of two rows
for one order wins, and not the order in which chunks run. A closed import stays closed. A second import of a file
under the same import_id finds all its work done.
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
"""The most orders and rejects that are written in one transaction."""

BACKOFF_LIMIT_S = 60
"""The longest pause before another attempt, in seconds."""

_BROKEN = (OperationalError, PoolTimeout, BrokerError)
"""Errors that may pass: of the database, or of the broker when a chord is sent."""


@functools.cache
def _tables_of(engine: Engine) -> Engine:
    create_tables(engine)
    return engine


def load(path: str, import_id: str, chunk: Chunk, engine: Engine, *, limit: int = LINE_LIMIT) -> dict[str, int]:
    """Load a chunk, batch by batch.

    Args:
        path: the file.
        import_id: a registered import.
        chunk: the part to load.
        engine: the app's database.
        limit: the most bytes that a line may have.

    Returns:
        How many rows were `read`, `good`, and `rejected`; the latter two add up to the first.

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
"""The delay, in seconds, is for a task whose pool process died; Celery's default is three minutes."""


def _again(task: Task, error: Exception) -> Exception:
    """Return the exception with which `task` asks for a retry after a pause; the last run raises `error` instead."""
    pause_s = get_exponential_backoff_interval(1, task.request.retries, BACKOFF_LIMIT_S, full_jitter=True)
    return ask_again(task, pause_s, error)


def _id_of(task: Task, part: str) -> str:
    """Return the id of a task or group that a task sends: the same from every run of that task."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{task.request.id}/{part}"))


def save_group(group: str, members: Sequence[str]) -> None:
    """Record the members of a group in `celery_tasksetmeta`, unless an earlier run did."""
    if app.GroupResult.restore(group) is None:
        # Celery only inserts. If another run does so at the same time, it inserts the same.
        with contextlib.suppress(IntegrityError):
            app.GroupResult(group, [app.AsyncResult(member) for member in members]).save()


@app.task(bind=True, name="scenarios.bulk_data.import_orders", throws=(BadFile,), **_LASTING)
def import_orders(  # noqa: D417 - `self` is Celery's.
    self: Task, path: str, import_id: str, chunk_bytes: int = CHUNK_BYTES
) -> dict[str, Any]:
    """Import a file of orders: send a task for each of its chunks, and one that closes the import after them.

    A second run of this task sends the same ids again, so that what the first run sent is not doubled.

    Args:
        path: where the workers see the file.
        import_id: names the import, in 1 to 100 characters; a file that is imported again keeps its own.
        chunk_bytes: about how much of the file one task loads.

    Returns:
        ``{"import_id": ..., "group": ..., "callback": ..., "chunks": ...}``: two ids, and the number of chunks.

    Raises:
        BadFile: the file as a whole is refused.
        ValueError: `import_id` or `chunk_bytes` is out of range.
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
        # Before anything is sent, so that running chunks can be looked up.
        save_group(group, members)
        chord(header, close_import.s(import_id)).set(task_id=group).apply_async(task_id=callback)
    except _BROKEN as error:
        raise _again(self, error) from error
    return {"import_id": import_id, "group": group, "callback": callback, "chunks": len(members)}


@app.task(bind=True, name="scenarios.bulk_data.load_chunk", throws=(BadFile,), **_LASTING)
def load_chunk(self: Task, path: str, import_id: str, *, offset: int, length: int, first_line: int) -> dict[str, int]:
    """Load one chunk; arguments and result are those of `Chunk` and `load`."""
    try:
        chunk = Chunk(offset=offset, length=length, first_line=first_line)
        return load(path, import_id, chunk, _tables_of(database()))
    except _BROKEN as error:
        raise _again(self, error) from error


@app.task(bind=True, name="scenarios.bulk_data.close_import", **_LASTING)
def close_import(self: Task, results: list[dict[str, int]], import_id: str) -> dict[str, int]:
    """Close an import after all its chunks are loaded; `results` and the result are those of `close`."""
    try:
        return close(_tables_of(database()), import_id, results)
    except _BROKEN as error:
        raise _again(self, error) from error
