"""Writes the run folder of a run with a million tasks, as fast as a run would never write it."""

import json
import random
import sqlite3
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from harness.audit import results
from harness.audit.run_folder import RunFolder
from harness.records.expectation import Promise
from harness.records.journal import FORMAT

_WORKERS = 4
_START = 1_700_000_000.0


def write(root: Path, count: int, seed: int = 1) -> RunFolder:
    """Write a run folder below `root`: `count` tasks were sent, ran on four processes, and had one effect each."""
    folder = RunFolder.create(root, f"synthetic-{count}")
    nodes = ["producer", "worker-1"]
    folder.write("run.json", {"format": 1, "name": "synthetic", "promise": Promise().to_json(), "nodes": nodes})
    folder.write("broker.json", {"readable": True, "queues": [], "messages": [], "held": []})
    chance = random.Random(seed)  # noqa: S311 - ids, no secrets.
    tasks = [str(uuid.UUID(int=chance.getrandbits(128), version=4)) for _ in range(count)]
    _write_journal(folder, tasks)
    _write_results(folder, tasks, chance)
    return folder


def _write_journal(folder: RunFolder, tasks: list[str]) -> None:
    with ExitStack() as files:
        producer = files.enter_context(_Journal(folder.journal, "producer", 1))
        parent = files.enter_context(_Journal(folder.journal, "worker-1", 1))
        children = [files.enter_context(_Journal(folder.journal, "worker-1", 2 + n)) for n in range(_WORKERS)]
        effects = files.enter_context((folder.effects / "mailbox.jsonl").open("w"))
        for number, task in enumerate(tasks):
            t = _START + number / 1000
            expect = {"result": {"number": number}}
            producer.line(t, "intended", task, name="work", expect=expect, effects=[f"mail:{number}"])
            producer.line(t + 0.001, "accepted", task, confirmed=True)
            parent.line(t + 0.002, "received", task, name="work", redelivered=False)
            child = children[number % _WORKERS]
            child.line(t + 0.003, "started", task, name="work", retries=0, redelivered=False)
            child.line(t + 0.01, "finished", task, state="SUCCESS")
            effects.write(json.dumps({"t": t, "kind": "mail", "key": f"mail:{number}", "task": task}) + "\n")


class _Journal:
    """A journal file at given times; the harness's own writer stamps the present."""

    def __init__(self, folder: Path, node: str, pid: int) -> None:
        self._file = (folder / f"{node}.{pid}.1.jsonl").open("w")
        self._n = 0
        self.line(_START, "opened", None, node=node, pid=pid, role=node, format=FORMAT)

    def line(self, t: float, kind: str, task: str | None, **data: object) -> None:
        said = {"n": self._n, "t": t, "kind": kind, **({"task": task} if task else {}), **data}
        self._file.write(json.dumps(said, separators=(",", ":")) + "\n")
        self._n += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _write_results(folder: RunFolder, tasks: list[str], chance: random.Random) -> None:
    """Rows in the order of their ends, which is not that of their ids; the columns are Celery's."""
    results.create(folder.results)
    database = sqlite3.connect(folder.results)
    database.execute("PRAGMA synchronous=OFF")
    database.execute(
        "CREATE TABLE celery_taskmeta (id INTEGER PRIMARY KEY AUTOINCREMENT, task_id VARCHAR(155) UNIQUE, "
        "status VARCHAR(50), result BLOB, date_done DATETIME, traceback TEXT, children BLOB)"
    )
    numbers = list(range(len(tasks)))
    chance.shuffle(numbers)

    def rows() -> Iterator[tuple[str, str, bytes, str]]:
        for number in numbers:
            yield tasks[number], "SUCCESS", json.dumps({"number": number}).encode(), "2026-01-01 00:00:00"

    database.executemany("INSERT INTO celery_taskmeta (task_id, status, result, date_done) VALUES (?, ?, ?, ?)", rows())
    database.commit()
    database.close()


if __name__ == "__main__":
    sys.stdout.write(f"{write(Path(sys.argv[1]), int(sys.argv[2])).path}\n")
