"""The witnesses of a run: their evidence, loaded into tables, and the findings about the witnesses themselves.

DuckDB holds the tables: it reads JSON lines in parallel and spills what does not fit into memory. `witnesses.sql` loads
the evidence, and `audit.sql` evaluates it.

The witnesses are read one after another, while the run may still go on. So the lengths of the journal files are noted
first, and the lines that were added since are read last: for the tasks in these lines, the witnesses do not show the
same point in time, and nothing can be concluded. The file is long because each witness is loaded in the one order that
allows this.
"""

import json
import math
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain, starmap
from pathlib import Path
from typing import NamedTuple

from harness.audit.evidence_database import Database
from harness.audit.json_lines import LineFiles, shown
from harness.audit.remains import Remains
from harness.audit.row_file import RowFile
from harness.audit.run_folder import RunFolder, row_file
from harness.errors import ResultsError, RunFolderError
from harness.records import values
from harness.records.event import LATE_WORD_S
from harness.records.finding_codes import Code
from harness.records.journal import FORMAT, HIGHEST, KINDS, TASKLESS, TIME_BOUNDS, first_fault, parsed
from harness.records.message import result_ids
from harness.records.regular_file import open_regular
from harness.records.values import Json
from harness.records.verdict import Finding, Verdict

_MOST_GROWTH_BYTES = 1 << 28
"""The most bytes by which a journal may grow while it is read. The growth is read into memory as a whole. More growth
is not searched, and makes the verdict unknown."""
_SHORT_CHARS = 100
"""The most characters of an expectation or a result in the database; it holds a longer one as a digest. A smaller value
would show less of a wrong result; a larger one would need more memory for a million tasks."""
_SLOTS = 4_000
"""The most slots of time in which the load of the workers is compared. More would take longer for a long run; in fewer,
a worker could seem to have been idle while another held messages, when the one came after the other."""
_SLOT_S = 0.05
"""The shortest slot, in seconds. A shorter one would be no longer than what a message takes from its receipt to its
task."""
_LINES_OF_LOADS = 500_000
"""The most lines of a journal of which each task is looked at for how long a worker held it; of a longer one, every
second, every third and so on. More would make the audit of a million tasks slower."""
_MAILBOX = "mailbox.jsonl"
"""The file of effects that only the mailbox writes."""


_OF_THE_JOURNAL = (
    *("entries", "runs", "followers", "span", "wants", "early_runs"),
    *(
        "owners",
        "executions",
        "cuts",
        "fanouts",
        "discards",
        "tracebacks",
        "promised",
        "children",
        "called",
        "unlocks",
        "hasties",
    ),
    *("settings", "cleanups", "given"),
)
"""The queries that build tables from the journal's lines, before the lines are dropped."""


class Unwitnessed(StrEnum):
    """A kind of evidence that a run lacks, because its stack runs elsewhere; run.json names it."""

    EXECUTIONS = "executions"
    """No worker kept a journal. Only a task's row says how it ended."""
    BROKER = "broker"
    """The broker was not asked what was left in it."""
    EFFECTS = "effects"
    """The effects of the tasks were not recorded."""


class _File(NamedTuple):
    """One row of the query `of_files`: the figures of a journal file."""

    name: str
    node: str | None
    lines: int
    missing: int
    damaged: int
    doubled: bool
    may_have_beat: bool


@dataclass
class Witnesses:
    """A loader of the evidence of each witness; it collects the findings about the witnesses themselves."""

    database: Database
    folder: RunFolder
    unwitnessed: Collection[Unwitnessed] = ()
    """The kinds of evidence that do not exist, so that they are reported once and not missed in each task."""
    findings: list[Finding] = field(default_factory=list)
    about: dict[str, Json] = field(default_factory=dict)
    incomplete: bool = False
    """True if the journal or the broker's remains are incomplete, so that no task can be called lost."""
    journal_incomplete: bool = False
    """True if the journal is incomplete, so that no execution can be called unexpected."""
    results_readable: bool = True
    effects_readable: bool = True
    without_beat: frozenset[Path] = frozenset()
    """The journal files that were read completely and contain no line of beat."""
    workers: dict[str, int] = field(default_factory=dict)
    memory_mb: dict[str, float] = field(default_factory=dict)
    growth_mb: dict[str, tuple[float, int]] = field(default_factory=dict)
    """Per worker, by how many MiB a process of it grew in 1,000 tasks, and over how many tasks that was measured."""
    remains: Remains = field(default_factory=Remains)
    _work: dict[str, float] = field(default_factory=dict)
    """The time in which tasks ran, if there were several workers, as parameters of the query `hoarded`."""

    @property
    def executions(self) -> bool:
        """True if the workers kept journals."""
        return Unwitnessed.EXECUTIONS not in self.unwitnessed

    def load(self, nodes: Sequence[str], row_kinds: Sequence[str] = ()) -> None:
        """Read all evidence; the table `fact` then has every entry.

        Args:
            nodes: those that must have journals.
            row_kinds: the kinds of effects that queries find in the app's own database.

        Raises:
            RunFolderError: a damaged file can no longer be read.
        """
        if self.unwitnessed:
            self.about["unwitnessed"] = [one.value for one in Unwitnessed if one in self.unwitnessed]
        self._journals = LineFiles(self.folder.journal, self.database.scratch / "journal")
        rows = RowFile(self.folder.results, self.folder.results.name)
        # The rows are exported in Python while the database reads the journal on another core. The export starts after
        # the lengths of the journal files are noted: a row is stored before the journal says that a task ended.
        with ThreadPoolExecutor(1) as pool:
            exported = self.database.scratch / "results.csv"
            export = pool.submit(rows.export, exported, dated=not self.executions)
            try:
                self._journal(nodes)
                if not self.executions:
                    self.incomplete = True
                    text = "nobody saw the workers: whether a task ran more than once is not known."
                    self._say(Code.UNWITNESSED_EXECUTIONS, Verdict.UNKNOWN, 1, text)
                watched = self._effects(row_kinds, has_mailbox="mailbox" in nodes)
                self._results(rows, export, exported)
            except BaseException:
                rows.stopped.set()
                raise
        if Unwitnessed.BROKER in self.unwitnessed:
            self._nothing_left()
        else:
            self._left()
        self.database.run("moving", file=self.database.write("moving.jsonl", self._moving()))
        if (copied_t := self._copied_t()) is not None:
            self.database.run("moved_since", copied_t=copied_t)
        self.database.run("gone", results_readable=self.results_readable)
        self.database.run("effects_of", **watched)
        self.database.run("entries_run")
        self.database.run("facts", executions=self.executions)
        if self.executions and self.database.sample("unseen")[0]:
            # The journal of a process that ran tasks is lost, and with it what these tasks sent.
            self.incomplete = self.journal_incomplete = True

    def _journal(self, nodes: Sequence[str]) -> None:
        files = self._read_lines()
        torn = self._journals.torn
        # A torn last line is not JSON either, and has its own finding.
        missing = {
            file.name: count
            for file in files
            if (count := max(abs(file.missing), file.damaged - (file.name in torn), int(file.doubled)))
        }
        self.about["journal"] = {
            "files": len(self._journals.names),
            "lines": sum(file.lines for file in files),
            "torn": len(torn),
            "missing": sum(missing.values()),
        }
        if missing:
            text = f"lines are missing in {self._journals.list(missing)}{self._first_fault(missing)}."
            self._say(Code.JOURNAL_INCOMPLETE, Verdict.UNKNOWN, sum(missing.values()), text)
        silent = sorted(set(nodes) - {file.node for file in files})
        if silent:
            self._say(Code.JOURNAL_SILENT, Verdict.UNKNOWN, len(silent), f"no journal of {', '.join(silent)}.")
        if missing or silent:
            self.incomplete = self.journal_incomplete = True
        self.without_beat = frozenset(
            self._journals.originals[file.name]
            for file in files
            if not file.may_have_beat and file.name not in missing and file.name not in torn
        )
        for query in _OF_THE_JOURNAL:
            self.database.run(query)
        self.database.run("disorders", untold_s=LATE_WORD_S)
        self.growth_mb = {node: (mb, tasks) for node, mb, tasks in self.database.all("growths")}
        self._loads(sum(file.lines for file in files))
        self.workers = dict(self.database.all("workers"))
        self.memory_mb = {node: round(peak_kb / 1024, 1) for node, peak_kb in self.database.all("memory")}
        self.database.run("forget_lines")

    def _loads(self, lines: int) -> None:
        """Sum up which worker ran and held how much at what time, if there were several."""
        self.database.run("presences")
        ((workers,),) = self.database.all("presence_count")
        for begin_t, end_t in self.database.all("work_span") if workers > 1 else ():
            slot = {"begin_t": begin_t, "slot_s": max((end_t - begin_t) / _SLOTS, _SLOT_S)}
            one_in = lines // _LINES_OF_LOADS + 1
            self.database.run("helds", one_in=one_in)
            self.database.run("loads", one_in=one_in, **slot)
            self._work = {**slot, "end_t": end_t}

    def hoarded(self) -> list[tuple[str, float, float]]:
        """Return per worker the seconds of idle processes while others held messages, and those while it held them.

        Seconds of several processes are added up. Empty if there were not several workers.
        """
        if not self._work:
            return []
        return [
            (str(node), float(idle_s), float(held_s))
            for node, idle_s, held_s in self.database.all("hoarded", alive=list(self.remains.alive), **self._work)
        ]

    def _read_lines(self) -> list["_File"]:
        """Load the journal's lines; return the figures of each file."""
        self._speak_of(self._journals)
        self.database.run("word", kinds=sorted(KINDS))
        self.database.run("line_table")
        if not self._journals.names:
            return self._files()
        known = {
            "taskless": sorted(TASKLESS),
            "format": FORMAT,
            "highest": HIGHEST,
            **TIME_BOUNDS,
            "short": _SHORT_CHARS,
        }
        longest = self._journals.longest
        self.database.run("lines", files=self._journals.paths, longest=longest, **known)
        found = self._files()
        if damaged := [file.name for file in found if file.damaged > (file.name in self._journals.torn)]:
            # A lone surrogate is a likely reason why the database cannot read a line.
            for name in damaged:
                self.database.run("forget_file", file=name)
                copy = self._mended(self._journals, name)
                self.database.run("lines", files=[copy], longest=self._journals.longest, **known)
            found = self._files()
        return found

    def _files(self) -> list["_File"]:
        self.database.run("files")
        return [_File(*row) for row in self.database.all("of_files")]

    def _mended(self, files: LineFiles, name: str) -> str:
        try:
            return files.mend(name)
        except (OSError, ValueError) as error:
            raise RunFolderError(f"cannot read {files.folder.name}/{files.names[name]}: {error}.") from error

    def _first_fault(self, files: Iterable[str]) -> str:
        """Return the first fault in some files, for display; empty if there is none."""
        for file in files:
            fault = first_fault(self._journals.scratch / file)
            if fault is not None:
                return f"; {self._journals.names[file]}, line {fault[0]}: {fault[1]}"
        return ""

    def _effects(self, row_kinds: Sequence[str], *, has_mailbox: bool) -> dict[str, Json]:
        """Load the effects; return which kinds were observed until the end, as parameters of `effects_of`."""
        rested = Unwitnessed.BROKER in self.unwitnessed or (self.folder.path / "broker.json").exists()
        seen = [kind for kind in row_kinds if rested and (self.folder.path / row_file(kind)).exists()]
        self.database.run("row_kinds", kinds=list(row_kinds), seen=seen)
        ((wanted,),) = self.database.all("want_count")
        if Unwitnessed.EFFECTS in self.unwitnessed:
            # Effects were not observed, so none is missed in any task; expected effects are reported once.
            self.about["effects"] = {"files": 0, "torn": 0}
            self.database.run("no_effects")
            self.database.run("other_names")
            self.database.run("forget_wants")
            if wanted:
                text = "effects are expected, and nobody saw the world that they are in."
                self._say(Code.UNWITNESSED_EFFECTS, Verdict.UNKNOWN, wanted, text)
            return {"mails": False, "others": False}
        files = LineFiles(self.folder.effects, self.database.scratch / "effects")
        self._speak_of(files)
        self.about["effects"] = {"files": len(files.names), "torn": len(files.torn)}
        damaged = self._read_effects(files)
        self.database.run("other_names")
        if damaged:
            text = f"lines cannot be read in {files.list(damaged)}."
            self._say(Code.EFFECTS_DAMAGED, Verdict.UNKNOWN, sum(damaged.values()), text)
        self.effects_readable = self.effects_readable and not damaged
        of_rows = {Path(row_file(kind)).name for kind in row_kinds}
        watched = self._watched({*files.names.values()} - of_rows, rested=rested, has_mailbox=has_mailbox)
        ((unwatched,),) = self.database.all("unwatched_wants", **watched)
        if unwatched:
            text = "effects are expected, and nobody was there to look for them when all had come to rest."
            self._say(Code.EFFECTS_ABSENT, Verdict.UNKNOWN, unwatched, text)
        return watched

    def _read_effects(self, files: LineFiles) -> dict[str, int]:
        """Load the effect lines; return the number of unreadable lines per file."""
        if files.names:
            self.database.run("effects", files=files.paths, longest=files.longest)
        else:
            self.database.run("no_effects")
        damaged: dict[str, int] = dict(self.database.all("damaged_effects"))
        if any(count > (file in files.torn) for file, count in damaged.items()):
            for file in damaged:
                self._mended(files, file)
            self.database.run("forget_effects")
            self.database.run("effects", files=files.paths, longest=files.longest)
            damaged = dict(self.database.all("damaged_effects"))
        return {file: count for file, lines in damaged.items() if (count := lines - (file in files.torn))}

    @staticmethod
    def _watched(files: Collection[str], *, rested: bool, has_mailbox: bool) -> dict[str, Json]:
        """Return which kinds of effects were observed until the end.

        A mail is in the mailbox's file before its sender gets the reply. That no further mail will come is known only
        when everything has come to rest, which is when the broker is asked. Other effects are collected after that, and
        their file appears when all of them are written.
        """
        others = any(file != _MAILBOX for file in files)
        mails = _MAILBOX in files if _MAILBOX in files or has_mailbox else others
        return {"mails": rested and mails, "others": rested and others}

    def _results(self, rows: RowFile, export: Future[int], exported: Path) -> None:
        self.database.run("row_table")
        self.database.run("expected")
        self.database.run("grouped")
        try:
            count = export.result()
            self.about["results"] = {"readable": True, "rows": count}
            if count:
                self.database.run("rows", file=str(exported), short=_SHORT_CHARS)
                self.database.run("use_given")
            exported.unlink()
            self._decide(rows)
            self._groups(rows)
        except ResultsError as error:
            self.results_readable = False
            self.about["results"] = {"readable": False}
            self._say(Code.RESULTS_UNREADABLE, Verdict.UNKNOWN, 1, str(error))

    def _copied_t(self) -> float | None:
        """Return when the rows were copied into the run folder; None if workers stored them there."""
        if not (self.folder.path / "results.json").exists():
            return None
        try:
            copied_t = self.folder.read("results.json").get("copied_t")
        except RunFolderError:
            copied_t = None
        if isinstance(copied_t, float) and math.isfinite(copied_t):
            return copied_t
        self.results_readable = False
        text = f"when the rows were copied is not known: results.json says {shown(json.dumps(copied_t))}."
        self._say(Code.RESULTS_UNREADABLE, Verdict.UNKNOWN, 1, text)
        return None

    def _groups(self, rows: RowFile) -> None:
        """Load the members of the groups that the app has saved."""
        members = [{"taskset": taskset, "task": task} for taskset, saved in rows.groups() for task in _members(saved)]
        if members:
            self.database.run("add_grouped", file=self.database.write("grouped.jsonl", members))

    def _decide(self, rows: RowFile) -> None:
        """Compare long results with the expected ones by the digests of their values, and read long failures."""
        self.database.run("odd")
        self.database.run("undecided")
        ((long,),) = self.database.all("long_count")
        if long:
            found = self.database.stream(
                "long_expectations", files=self._journals.paths, longest=self._journals.longest
            )
            digests = (_decided(str(task), str(text)) for task, text in found)
            self.database.run("add_expected", file=self.database.write("expected.jsonl", digests))
        undecided = (str(task) for (task,) in self.database.stream("undecided_tasks"))
        failures = (str(task) for (task,) in self.database.stream("long_failures"))
        more = chain(starmap(_decided, rows.results(undecided)), starmap(_shortened, rows.results(failures)))
        self.database.run("put_back", file=self.database.write("more.jsonl", more))

    def _nothing_left(self) -> None:
        text = "nobody saw the broker: whether a task without a row still waits there is not known."
        self._say(Code.UNWITNESSED_BROKER, Verdict.UNKNOWN, 1, text)
        self.incomplete = True
        self.about["broker"] = {"readable": False, "left": 0}
        self.database.run("left", tasks=[], asked_t=None)
        self.database.run("dead", tasks=[])

    def _left(self) -> None:
        tasks: list[str] = []
        try:
            self.remains = Remains.from_json(self.folder.read("broker.json"))
        except (RunFolderError, KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            text = f"what was left in the broker is not known: {type(error).__name__}."
            self._say(Code.BROKER_UNREAD, Verdict.UNKNOWN, 1, text)
            self.incomplete, readable = True, False
        else:
            tasks = sorted({*self.remains.messages, *self.remains.held})
            readable = self.remains.reason is None
            if anonymous := self.remains.anonymous:
                text = "messages without a task's id are left in the queues."
                self._say(Code.MESSAGES_ANONYMOUS, Verdict.UNKNOWN, anonymous, text)
            if not readable:
                text = f"the broker could not be read: {self.remains.reason}"
                self._say(Code.BROKER_UNREAD, Verdict.UNKNOWN, 1, text)
                self.incomplete = True
        self.about["broker"] = {"readable": readable, "left": len(tasks)}
        self.database.run("left", tasks=tasks, asked_t=self.remains.asked_t)
        self.database.run("went_on", asked_t=self.remains.asked_t)
        self.database.run("dead", tasks=[letter.task for letter in self.remains.dead if letter.task is not None])

    def _moving(self) -> Iterator[dict[str, Json]]:
        """Yield the tasks that the journal has named since the reading began."""
        for path in sorted(self.folder.journal.glob("*.jsonl")):
            begin = self._journals.ends.get(path, 0)
            try:
                with open_regular(path) as file:
                    growth = os.fstat(file.fileno()).st_size - begin
                    if growth > _MOST_GROWTH_BYTES:
                        text = f"{shown(path.name)} grew by {growth} bytes while it was read."
                        self._say(Code.JOURNAL_GROWING, Verdict.UNKNOWN, 1, text)
                        self.incomplete = self.journal_incomplete = True
                        continue
                    file.seek(begin)
                    added = file.read(max(0, growth))
            except OSError:
                # It was reported before, or is new and not a regular file.
                continue
            for line in added.split(b"\n"):
                yield from _named(line)

    def _speak_of(self, files: LineFiles) -> None:
        """Report what is wrong with the files of a folder."""
        name = files.folder.name
        for text in files.unreadable:
            self._say(Code(f"{name}-unreadable"), Verdict.UNKNOWN, 1, text)
            if files.folder == self.folder.effects:
                self.effects_readable = False
            else:
                self.incomplete = self.journal_incomplete = True
        if files.torn:
            torn = ", ".join(files.names[file] for file in sorted(files.torn))
            self._say(Code(f"{name}-torn"), Verdict.PASS, len(files.torn), f"the last line of {torn} has no end.")

    def _say(self, code: Code, verdict: Verdict, count: int, text: str) -> None:
        self.findings.append(Finding(code=code, verdict=verdict, count=count, text=text))


def _named(line: bytes) -> Iterator[dict[str, Json]]:
    try:
        value = parsed(line)
    except ValueError:
        return
    if value.get("task") is not None:
        yield {"task": values.readable(value["task"]), "effects": values.readable(value.get("effects"))}


def _decided(task: str, text: str | bytes) -> dict[str, Json]:
    """Return a value that the database does not hold or cannot read, as a line of digest and start."""
    try:
        digest = values.digest(text)
    except (ValueError, RecursionError):
        return {"task": task, "codec": "other"}
    start = text[:_SHORT_CHARS] if isinstance(text, str) else text[:_SHORT_CHARS].decode("utf-8", "replace")
    return {"task": task, "codec": "json", "digest": digest, "start": values.readable(start)}


def _members(saved: bytes) -> Iterator[str]:
    """Yield the task ids in a saved group: JSON of ``[[id, parent], [[[id, parent], children], ...]]``."""
    try:
        yield from result_ids([json.loads(saved)])
    except (ValueError, RecursionError):
        # An older Celery pickled it.
        return


def _shortened(task: str, failure: bytes) -> dict[str, Json]:
    """Return a failure whose text is too long, as a line with a shortened message."""
    try:
        said = values.loads(failure)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        return {"task": task, "codec": "other"}
    message = said.get("exc_message")
    # Celery stores the exception's arguments.
    parts = message if isinstance(message, list) and message else [message]
    words = ", ".join(part if isinstance(part, str) else json.dumps(part) for part in parts)
    value = {"exc_type": said.get("exc_type"), "exc_message": words[:_SHORT_CHARS]}
    return {"task": task, "codec": "json", "value": json.dumps(values.readable(value))}
