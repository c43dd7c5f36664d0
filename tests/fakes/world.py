"""A run that never was: writes the run folder that it would have left."""

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any

from harness.audit import results
from harness.audit.audit import Audit, audit
from harness.audit.run_folder import RunFolder
from harness.records.expectation import Promise
from harness.records.verdict import Finding, Verdict


@dataclass
class World:
    """Writes the run folder that a run would have left."""

    folder: RunFolder
    promise: Promise = field(default_factory=Promise)
    nodes: list[str] = field(default_factory=lambda: ["producer", "worker-1"])
    remains: dict[str, Any] | None = field(
        default_factory=lambda: {"readable": True, "queues": [], "messages": [], "held": []}
    )
    rows: list[tuple[str, str, bytes | None]] = field(default_factory=list)
    done: dict[str, float] = field(default_factory=dict)
    """The tasks whose rows say when they ended."""
    unwitnessed: list[str] = field(default_factory=list)
    mails: list[dict[str, Any]] = field(default_factory=list)
    lines: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    rows_written: list[tuple[str, str, bytes | None]] | None = None
    clock: Iterator[int] = field(default_factory=lambda: count(1_000))

    def say(self, process: str, kind: str, task: str | None = None, **data: Any) -> None:
        """Add a line to the journal of a process: of `worker-1`, or of its child 7 as `worker-1.7`."""
        node, _, pid = process.partition(".")
        about = {"node": node, "pid": int(pid or 1), "role": node.partition("-")[0]}
        lines = self.lines.setdefault(process, [{"n": 0, "t": 0.0, "kind": "opened", **about}])
        line = {"n": len(lines), "t": float(next(self.clock)), "kind": kind, **data}
        lines.append(line if task is None else {**line, "task": task})

    def intend(self, task: str, outcome: str | None = "accepted", **data: Any) -> None:
        data = {"name": "mail", "expect": {"result": {"ok": task}}, "effects": [f"mail:{task}"], **data}
        self.say("producer", "intended", task, **data)
        if outcome == "unconfirmed":
            self.say("producer", "accepted", task, confirmed=False)
        elif outcome:
            self.say("producer", outcome, task, **({"confirmed": True} if outcome == "accepted" else {}))

    def execute(self, task: str, state: str | None = "SUCCESS", node: str = "worker-1") -> None:
        self.say(node, "started", task, retries=0)
        if state:
            self.say(node, "finished", task, state=state)

    def record(self, task: str, status: str = "SUCCESS", result: Any = None) -> None:
        value = {"ok": task} if result is None else result
        self.rows.append((task, status, value if isinstance(value, bytes) else json.dumps(value).encode()))

    def mail(self, task: str, key: str | None = None) -> None:
        self.mails.append({"t": 1.0, "kind": "mail", "key": key or f"mail:{task}", "task": task})

    def fine(self, task: str) -> None:
        self.intend(task)
        self.execute(task)
        self.record(task)
        self.mail(task)

    def write(self) -> RunFolder:
        run = {"name": "test", "promise": self.promise.to_json(), "nodes": self.nodes}
        self.folder.write("run.json", {**run, "unwitnessed": self.unwitnessed} if self.unwitnessed else run)
        if self.remains is not None:
            self.folder.write("broker.json", self.remains)
        for process, lines in self.lines.items():
            text = "".join(json.dumps(line) + "\n" for line in lines)
            name = process if "." in process else f"{process}.1"
            (self.folder.journal / f"{name}.1.jsonl").write_text(text)
        (self.folder.effects / "mailbox.jsonl").write_text("".join(json.dumps(mail) + "\n" for mail in self.mails))
        if self.rows_written != self.rows and (self.rows_written is not None or not self.folder.results.exists()):
            # A test may have put something else in the place of the file.
            self.folder.results.unlink(missing_ok=True)
            self.rows_written = list(self.rows)
            results.create(self.folder.results)
            connection = sqlite3.connect(self.folder.results)
            connection.execute(
                "CREATE TABLE celery_taskmeta (task_id TEXT UNIQUE, status TEXT, result BLOB, date_done DATETIME)"
            )
            dates = {task: f"{datetime.fromtimestamp(t, UTC):%Y-%m-%d %H:%M:%S.%f}" for task, t in self.done.items()}
            rows = [(*row, dates.get(row[0])) for row in self.rows]
            connection.executemany("INSERT INTO celery_taskmeta VALUES (?, ?, ?, ?)", rows)
            connection.commit()
            connection.close()
        return self.folder

    def audit(self) -> Audit:
        return audit(self.write())


def codes(found: Audit, verdict: Verdict) -> set[str]:
    return {one.code for one in found.findings if one.verdict is verdict}


def finding(found: Audit, code: str) -> Finding:
    """Return the only finding of that code."""
    (one,) = [one for one in found.findings if one.code == code]
    return one
