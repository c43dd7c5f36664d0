"""The record of a run, to plant a defect in: its journal, rows, effects and remains can be changed and written back."""

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from harness.audit.run_folder import RunFolder
from harness.records.event import Kind
from harness.records.values import Json
from harness.records.verdict import Finding

Line = dict[str, Json]
_RAN = (Kind.RECEIVED, Kind.STARTED, Kind.FINISHED, Kind.RETRIED)
PICKLED = b"\x80\x05K\x01."
"""A pickled 1, as Celery stores it with the serializer pickle."""
_KEPT = ("run.json", "broker.json", "results.sqlite3")


def copy(clean: Path, to: Path) -> RunFolder:
    """Copy of a run what an audit reads."""
    (to / "effects").mkdir(parents=True)
    shutil.copytree(clean / "journal", to / "journal")
    for path in [*(clean / name for name in _KEPT), *clean.glob("results.sqlite3-*"), *clean.glob("effects/*.jsonl")]:
        shutil.copy(path, to / path.relative_to(clean))
    return RunFolder(to)


class Evidence:
    """A copy of the record of a clean run. What is changed here is in the folder after `write`."""

    def __init__(self, folder: RunFolder) -> None:
        """Read the folder."""
        self.folder = folder
        self.journal: dict[str, list[Line]] = {
            path.name: _read(path) for path in sorted(folder.journal.glob("*.jsonl"))
        }
        """The lines of each file. `write` numbers them, except in the files of `as_they_are`."""
        self.as_they_are: set[str] = set()
        self.effects = {path.name: _read(path) for path in sorted(folder.effects.glob("*.jsonl"))}
        self.run = folder.read("run.json")
        self.broker = folder.read("broker.json")
        self.more: dict[str, str] = {}
        """Text to append to files, by their paths in the folder."""
        self._findings: list[Finding] = []

    # ------------------------------------------------------------------------------------------------- the journal

    def task(self, name: str, nth: int = 0) -> str:
        """Return the id of the nth task with a name, in the order in which they were sent."""
        sent = sorted(self._of_kind(Kind.INTENDED), key=lambda line: float(line["t"]))
        return list(dict.fromkeys(str(line["task"]) for line in sent if line["name"] == name))[nth]

    def _of_kind(self, kind: Kind) -> Iterator[Line]:
        return (line for lines in self.journal.values() for line in lines if line["kind"] == kind.value)

    def ticks(self) -> list[Line]:
        """Return the lines of beat's ticks, in order."""
        return sorted(
            (line for line in self._of_kind(Kind.INTENDED) if "entry" in line), key=lambda line: float(line["at"])
        )

    def lines(self, task: str, *kinds: Kind) -> list[Line]:
        """Return the lines about a task, of some kinds or of all."""
        return [line for _, line in self._where(task, *kinds)]

    def _where(self, task: str, *kinds: Kind) -> list[tuple[str, Line]]:
        wanted = {kind.value for kind in kinds or Kind}
        return [
            (name, line)
            for name, lines in self.journal.items()
            for line in lines
            if line.get("task") == task and line["kind"] in wanted
        ]

    def file_of(self, task: str, kind: Kind) -> str:
        """Return the name of the file that has the last line of a kind about a task."""
        return self._where(task, kind)[-1][0]

    def files_of(self, node: str) -> list[str]:
        """Return the names of a node's files, the main process's first."""
        return sorted(name for name, lines in self.journal.items() if lines[0]["node"] == node)

    def drop(self, task: str, *kinds: Kind) -> None:
        """Take away the lines about a task, of some kinds or of all."""
        gone = self.lines(task, *kinds)
        for name, lines in self.journal.items():
            self.journal[name] = [line for line in lines if not any(line is one for one in gone)]

    def change(self, task: str, kind: Kind, /, **members: Json) -> None:
        """Change members of the lines of a kind about a task; None takes a member away."""
        for line in self.lines(task, kind):
            line.update(members)
            for name in [name for name, value in members.items() if value is None]:
                del line[name]

    def say(self, file: str, kind: Kind, task: str | None = None, /, *, t: float | None = None, **more: Json) -> None:
        """Add a line to a file, by default at the time of its last one."""
        lines = self.journal[file]
        about = {} if task is None else {"task": task}
        lines.append({"t": lines[-1]["t"] if t is None else t, "kind": kind.value, **about, **more})

    def open(self, node: str, pid: int, role: str) -> str:
        """Begin a file of a new process, at the time at which the producer began, and return its name."""
        name = f"{node}.{pid}.1.jsonl"
        t = self.journal[self.files_of("producer")[0]][0]["t"]
        self.journal[name] = [{"t": t, "kind": "opened", "node": node, "pid": pid, "role": role, "format": 1}]
        return name

    def run_again(self, task: str, file: str, **finished: Json) -> None:
        """Let a task run once more, after its last run, in the process of a file."""
        start = self.lines(task, Kind.STARTED)[-1]
        t = float(self.lines(task, Kind.FINISHED)[-1]["t"])
        about = {**start, **finished}
        again = {name: value for name, value in about.items() if name in {"name", "retries", "redelivered"}}
        self.say(file, Kind.STARTED, task, t=t + 0.001, **again)
        self.say(file, Kind.FINISHED, task, t=t + 0.002, state=finished.get("state", "SUCCESS"))

    def unrun(self, task: str) -> None:
        """Take away that a task ran: its lines in the workers, what it sent, its row and its effects."""
        for line in self.lines(task, Kind.INTENDED):
            self.forget_effects(*line.get("effects", ()))
        self.drop(task, *_RAN)
        self.delete_row(task)

    def unsend(self, task: str) -> None:
        """Take away a task as if nobody had ever sent it."""
        self.unrun(task)
        self.drop(task)

    def refuse(self, task: str) -> None:
        """Let the broker refuse a task."""
        self.change(task, Kind.ACCEPTED, kind=Kind.REFUSED.value, confirmed=None, reason="the queue is full")

    def discard(self, task: str) -> None:
        """Let the worker that received a task discard its message."""
        file = self.file_of(task, Kind.RECEIVED)
        self.unrun(task)
        self.say(file, Kind.DISCARDED, task, reason="ContentDisallowed", content_type="application/x-python-serialize")

    # ------------------------------------------------------------------------------------------------ other witnesses

    def bury(self, task: str) -> None:
        """Leave a dead letter of a task."""
        letter = {
            "task": task,
            "name": "receipt",
            "queue": "dead",
            "origin": "celery",
            "reason": "rejected",
            "count": 1,
        }
        self.broker["dead"] = [letter]

    def repeat_mail(self) -> None:
        """Let the first mail come twice."""
        mails = self.effects["mailbox.jsonl"]
        mails.append(mails[0])

    def forget_effects(self, *keys: str) -> None:
        """Take away the effects with these keys."""
        for name, lines in self.effects.items():
            self.effects[name] = [line for line in lines if not {line["key"], *line.get("also", ())} & set(keys)]

    def delete_row(self, task: str) -> None:
        """Delete the row of a task, if it has one."""
        self._execute("DELETE FROM celery_taskmeta WHERE task_id = ?", task)

    def change_row(self, task: str, **columns: Json) -> None:
        """Change columns of the row of a task."""
        for name, value in columns.items():
            self._execute(f"UPDATE celery_taskmeta SET {name} = ? WHERE task_id = ?", value, task)  # noqa: S608 - the names are constants.

    def add_row(self, task: str, status: str = "SUCCESS", result: bytes = b"null") -> None:
        """Add a row for a task."""
        self._execute("INSERT INTO celery_taskmeta (task_id, status, result) VALUES (?, ?, ?)", task, status, result)

    def save_group(self, group: str, *members: str) -> None:
        """Add a group as Celery saves it."""
        saved = json.dumps([[group, None], [[[member, None], None] for member in members]]).encode()
        self._execute("INSERT INTO celery_tasksetmeta (taskset_id, result) VALUES (?, ?)", group, saved)

    def _execute(self, statement: str, *values: Json) -> None:
        with closing(sqlite3.connect(self.folder.results)) as database, database:
            database.execute(statement, values)

    def find(self, *findings: Finding) -> None:
        """Add findings that were made before the audit, as a run keeps them in checks.json."""
        self._findings += findings

    def promise(self, **members: Json) -> None:
        """Change what is promised of every task."""
        self.run["promise"] |= members

    def without_beat(self) -> None:
        """Take beat away, and all that it sent."""
        for tick in self.ticks():
            self.unsend(str(tick["task"]))
        for name in self.files_of("beat-1"):
            del self.journal[name]
            (self.folder.journal / name).unlink()
        self.run["nodes"].remove("beat-1")

    def write(self) -> None:
        """Write everything back."""
        for name, lines in self.journal.items():
            numbered = lines if name in self.as_they_are else [{**line, "n": n} for n, line in enumerate(lines)]
            _write(self.folder.journal / name, numbered)
        for name, lines in self.effects.items():
            _write(self.folder.effects / name, lines)
        self.folder.write("run.json", self.run)
        self.folder.write("broker.json", self.broker)
        if self._findings:
            self.folder.write("checks.json", {"findings": [finding.to_json() for finding in self._findings]})
        for name, text in self.more.items():
            with (self.folder.path / name).open("a", encoding="utf-8") as file:
                file.write(text)


def _read(path: Path) -> list[Line]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _write(path: Path, lines: list[Line]) -> None:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
