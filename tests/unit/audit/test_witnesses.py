"""What the witnesses say is read whatever stands in it, and no witness accuses another of what came later."""

import json
import math
import os
import pickle
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Self

import duckdb
import pytest

from harness.audit import evidence_database, results, witnesses
from harness.audit.audit import Audit, audit
from harness.audit.evidence_database import Database
from harness.audit.row_file import RowFile
from harness.audit.run_folder import RunFolder
from harness.errors import RunFolderError
from harness.records import values
from harness.records.expectation import Expect, Promise, mail
from harness.records.journal import encode
from harness.records.values import Json
from harness.records.verdict import Fate, Verdict
from harness.report.run_view import view_of

LONE = "caf\udce9.csv"


@dataclass
class Run:
    """Writes a run folder, one task after another."""

    folder: RunFolder
    nodes: list[str] = field(default_factory=lambda: ["producer", "worker-1"])
    lines: dict[str, list[dict[str, Json]]] = field(default_factory=dict)
    rows: list[tuple[object, object, object]] = field(default_factory=list)
    mails: list[dict[str, Json]] = field(default_factory=list)
    row_kinds: list[str] = field(default_factory=list)
    asked_t: float | None = None
    clock: Iterator[int] = field(default_factory=lambda: count(1_000))

    def say(self, file: str, kind: str, task: str | None = None, **data: Json) -> None:
        node, _, pid = file.partition(".")
        first = {"n": 0, "t": 0.0, "kind": "opened", "node": node, "pid": int(pid or 1), "role": node.partition("-")[0]}
        lines = self.lines.setdefault(f"{node}.{pid or 1}.1", [first])
        line: dict[str, Json] = {"n": len(lines), "t": float(next(self.clock)), "kind": kind}
        lines.append(line | ({} if task is None else {"task": task}) | data)

    def intend(self, task: str, expect: Expect | None = None, **data: Json) -> None:
        self.say("producer", "intended", task, name="work", **(expect or Expect()).to_json(), **data)
        self.say("producer", "accepted", task, confirmed=True)

    def run(self, task: str, state: str = "SUCCESS", **data: Json) -> None:
        self.say("worker-1", "started", task, name="work")
        self.say("worker-1", "finished", task, state=state, **data)

    def record(self, task: str, result: object, status: str = "SUCCESS") -> None:
        self.rows.append((task, status, result))

    def work(self, task: str, result: object, expect: Expect | None = None) -> None:
        self.intend(task, expect)
        self.run(task)
        self.record(task, result)

    def journal(self, name: str) -> Path:
        return self.folder.journal / f"{name}.1.1.jsonl"

    def write(self) -> RunFolder:
        said = {"name": "run", "promise": Promise().to_json(), "nodes": self.nodes}
        self.folder.write("run.json", {**said, "stack": {"effects": self.row_kinds}})
        remains = {"readable": True, "queues": [], "messages": [], "held": []}
        self.folder.write("broker.json", remains | ({} if self.asked_t is None else {"t": self.asked_t}))
        for name, lines in self.lines.items():
            (self.folder.journal / f"{name}.jsonl").write_text("".join(f"{encode(line)}\n" for line in lines))
        if self.mails:
            self.folder.write_lines("effects/mailbox.jsonl", self.mails)
        results.create(self.folder.results)
        with closing(sqlite3.connect(self.folder.results)) as connection:
            connection.execute("CREATE TABLE celery_taskmeta (task_id TEXT, status TEXT, result BLOB)")
            connection.executemany("INSERT INTO celery_taskmeta VALUES (?, ?, ?)", self.rows)
            connection.commit()
        return self.folder

    def audit(self) -> Audit:
        return audit(self.write())


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(RunFolder.create(tmp_path, "run"))


def codes(found: Audit) -> set[str]:
    return {finding.code for finding in found.findings}


def fates(found: Audit) -> dict[Fate, int]:
    return {fate: count for fate, count in found.fates.items() if count}


def about(found: Audit, code: str) -> tuple[Verdict, int, str]:
    (finding,) = (finding for finding in found.findings if finding.code == code)
    return finding.verdict, finding.count, finding.text


STRANGE = [
    r"\N",
    "",
    "NULL",
    "x",
    "+",
    'a "quoted" one, with a comma',
    "two\nlines\r\n",
    "a\x00b",
    "\\",
    "'",
    "ä 🐘",
    "\ufdd0",
]


@pytest.mark.parametrize("text", STRANGE)
def test_any_text_is_an_id_and_a_result(run: Run, text: str) -> None:
    run.work(f"{text}-1", json.dumps(text).encode(), Expect(result=text))
    run.work(text or "-", json.dumps(text).encode(), Expect(result=text))
    run.work("wrong", json.dumps(f"{text} ").encode(), Expect(result=text))
    assert fates(run.audit()) == {Fate.OK: 2, Fate.WRONG: 1}


@pytest.mark.parametrize("status", [r"\N", "", None, "two\nlines", "\x00"])
def test_any_text_is_a_status(run: Run, status: str | None) -> None:
    run.intend("a")
    run.run("a")
    run.rows.append(("a", status, b"1"))
    found = run.audit()
    assert fates(found) == {Fate.UNRECORDED: 1}
    assert "unfinished-rows" in codes(found)


def test_a_status_that_is_no_text_is_none(run: Run) -> None:
    run.intend("a")
    run.run("a")
    run.rows.append(("a", b"\xff\xfe", b"1"))
    assert "ended as SUCCESS, and its row says nothing of a state" in about(run.audit(), "unrecorded")[2]


def test_an_id_that_is_no_text_is_an_unexpected_row_and_stops_nothing(run: Run) -> None:
    run.work("a", b"1")
    run.rows.append((b"\xff\xfe", "SUCCESS", b"1"))
    # A row without an id is nobody's.
    run.rows.append((None, "SUCCESS", b"1"))
    found = run.audit()
    assert fates(found) == {Fate.OK: 1}
    assert about(found, "unexpected-rows")[1] == 1


def test_a_row_without_a_result_is_told_from_one_whose_result_is_null(run: Run) -> None:
    run.work("none", None)
    run.work("null", b"null", Expect(result=None))
    run.work("asked", None, Expect(result=None))
    found = run.audit()
    assert fates(found) == {Fate.OK: 2, Fate.UNKNOWN: 1}
    assert "undecoded" not in codes(found)


@pytest.mark.parametrize(
    ("value", "other"),
    [
        (LONE, "caf\udcea.csv"),
        ({"b": [LONE], "a": 1}, {"a": 1, "b": ["caf\\udce9.csv"]}),
        ({LONE: 1}, {"caf\\udce9.csv": 1}),
        ("x" * 90, "x" * 91),
        ("x" * 99, "x" * 98 + "y"),
        ("x" * 1_000, "x" * 999 + "y"),
        ("x" * 3_000, "x" * 2_999 + "y"),
        (["ä"] * 1_000, ["ä"] * 999 + ["a"]),
        ("x" * 2_000_000, "x" * 1_999_999 + "y"),
        (list(range(3_000)), [*range(2_999), 2_998]),
        ([1.5] * 800, [1.5] * 799 + [True]),
    ],
    ids=lambda value: str(len(ascii(value))),
)
def test_a_result_of_any_length_is_compared_by_value(run: Run, value: Json, other: Json) -> None:
    run.work("same", json.dumps(value).encode(), Expect(result=value))
    run.work("other", json.dumps(other).encode(), Expect(result=value))
    run.work("turned", json.dumps(value).encode(), Expect(result=other))
    run.work("after", b'"short"', Expect(result="short"))
    found = run.audit()
    assert fates(found) == {Fate.OK: 2, Fate.WRONG: 2}
    assert codes(found) == {"wrong"}


@pytest.mark.parametrize("length", [1_000, 100_000])
def test_a_long_result_is_never_a_short_one_that_was_expected(run: Run, length: int) -> None:
    run.work("x", json.dumps(["x" * length]).encode(), Expect(result=["x"]))
    run.work("y", json.dumps({"text": "x" * length}).encode(), Expect(result={"text": "x"}))
    assert fates(run.audit()) == {Fate.WRONG: 2}


def test_a_short_expectation_and_a_short_result_are_shown_whole(run: Run) -> None:
    run.work("x", b'{"text": 2}', Expect(result={"text": 1}))
    assert about(run.audit(), "wrong")[2].endswith('work (x): expected {"text":1}, came {"text": 2}')


@pytest.mark.parametrize(("length", "is_whole"), [(87, True), (88, False)])
def test_an_expectation_of_a_hundred_characters_is_shown_whole(run: Run, *, length: int, is_whole: bool) -> None:
    run.work("x", b"1", Expect(result="x" * length))
    assert len(encode({"result": "x" * length})) == (100 if is_whole else 101)
    shown = f'"{"x" * length}"' if is_whole else f'"{"x" * 49}...'
    assert about(run.audit(), "wrong")[2].endswith(f"work (x): expected {shown}, came 1")


def test_a_long_result_is_the_one_that_was_expected(run: Run) -> None:
    run.work("x", json.dumps("x" * 1_000).encode(), Expect(result="x" * 1_000))
    assert fates(run.audit()) == {Fate.OK: 1}


def test_a_long_expectation_says_its_state_and_its_error_too(run: Run) -> None:
    for task, error in (("expected", "Refused"), ("other", "Lost")):
        run.intend(task, Expect(state="FAILURE", error=error, result="x" * 200))
        run.run(task, "FAILURE")
        run.record(task, b'{"exc_type": "Refused", "exc_message": ["no"]}', "FAILURE")
    found = run.audit()
    assert fates(found) == {Fate.FAILED: 1, Fate.WRONG: 1}
    assert codes(found) == {"wrong"}
    assert "work (other): expected the error Lost, came Refused" in about(found, "wrong")[2]


def test_a_long_expectation_is_read_again_from_a_journal_whose_last_line_has_no_end(run: Run) -> None:
    value = {"b": "x" * 200, "a": 1}
    run.work("x", json.dumps(value).encode(), Expect(result=dict(sorted(value.items()))))
    folder = run.write()
    with run.journal("producer").open("a") as file:
        file.write('{"n": 3, "t": 5.0, "ki')
    assert fates(audit(folder)) == {Fate.OK: 1}


@pytest.mark.parametrize("length", [1, 60, 500, 5_000])
def test_the_order_of_members_and_the_way_a_number_is_written_mean_nothing(run: Run, length: int) -> None:
    value = {f"key {number}": number for number in range(length)}
    stored = json.dumps({key: float(value[key]) for key in reversed(value)}).encode()
    run.work("same", stored, Expect(result=value))
    run.work("other", stored, Expect(result=value | {"key 0": False}))
    run.work("large", stored, Expect(result=value | {"key 0": 12345678901234567890123}))
    assert fates(run.audit()) == {Fate.OK: 1, Fate.WRONG: 2}


def test_whole_numbers_beyond_64_bits_are_compared_to_the_last_digit(run: Run) -> None:
    number = 12345678901234567890123
    run.work("same", str(number).encode(), Expect(result=number))
    run.work("other", str(number + 1).encode(), Expect(result=number))
    run.work("endless", b"1" * 5_000, Expect(result=number))
    assert fates(run.audit()) == {Fate.OK: 1, Fate.WRONG: 2}


@pytest.mark.parametrize("text", [b"NaN", b"Infinity", b"[-Infinity]", json.dumps([math.nan] * 2_000).encode()])
def test_what_is_json_to_python_alone_is_no_expected_value(run: Run, text: bytes) -> None:
    run.work("unasked", text)
    run.work("asked", text, Expect(result=[1]))
    assert fates(run.audit()) == {Fate.OK: 1, Fate.WRONG: 1}


@pytest.mark.parametrize("result", [pickle.dumps({"ok": 1}), b"\xff" * 5_000, b"no json", b"{" * 5_000])
def test_a_result_that_is_no_json_is_unknown_with_the_reason_where_it_was_asked_for(run: Run, result: bytes) -> None:
    run.work("unasked", result)
    run.work("asked", result, Expect(result={"ok": 1}))
    found = run.audit()
    assert fates(found) == {Fate.OK: 1, Fate.UNKNOWN: 1}
    (reason,) = (finding for finding in found.findings if finding.code == "unknown")
    assert (reason.verdict, reason.tasks) == (Verdict.UNKNOWN, ("asked",))
    assert "the result of work (asked) is not JSON and is not decoded" in reason.text


def test_a_result_nested_too_deep_to_be_read_is_never_what_was_expected(run: Run) -> None:
    run.work("short", b"[" * 40 + b"]" * 40, Expect(result=[]))
    run.work("deep", b"[" * 2_000 + b"]" * 2_000, Expect(result=[]))
    run.work("deeper", b"[" * 900_000 + b"]" * 900_000, Expect(result=[]))
    found = run.audit()
    assert fates(found) == {Fate.WRONG: 1, Fate.UNKNOWN: 2}
    assert about(found, "undecoded")[1] == 2


@pytest.mark.parametrize("length", [10, 1_000, 100_000])
def test_a_failure_says_its_class_and_its_beginning_however_long_it_is(run: Run, length: int) -> None:
    failure = json.dumps({"exc_type": "Refused", "exc_message": [f"no{LONE}" + "x" * length], "exc_module": "shop"})
    for task, error in (("expected", "Refused"), ("other", "Lost")):
        run.intend(task, Expect(state="FAILURE", error=error))
        # What the row says counts.
        run.run(task, "FAILURE", error="Elsewhere: no")
        run.record(task, failure.encode(), "FAILURE")
    assert fates(run.audit()) == {Fate.FAILED: 1, Fate.WRONG: 1}


@pytest.mark.parametrize(
    ("failure", "is_decoded"),
    [(b"[1]", True), (b"\xff", False), (json.dumps(["no"] * 50_000).encode(), False), (b"\xff" * 100_000, False)],
)
def test_of_a_failure_without_a_class_the_worker_tells_it(run: Run, failure: bytes, *, is_decoded: bool) -> None:
    for task, error in (("expected", "Refused"), ("other", "Lost")):
        run.intend(task, Expect(state="FAILURE", error=error))
        run.run(task, "FAILURE", error="Refused: no")
        run.record(task, failure, "FAILURE")
    found = run.audit()
    assert fates(found) == {Fate.FAILED: 1, Fate.WRONG: 1}
    assert [one.count for one in found.findings if one.code == "undecoded"] == ([] if is_decoded else [2])


@pytest.mark.parametrize("length", [10, 1_000, 100_000])
def test_a_failure_in_the_place_of_a_result_says_its_class_however_long_it_is(run: Run, length: int) -> None:
    failure = json.dumps({"exc_type": "Refused", "exc_message": [f"no{LONE}" + "x" * length], "exc_module": "shop"})
    run.intend("x", Expect(result={"ok": "y" * length}))
    run.run("x", "FAILURE", error="Elsewhere: no")
    run.record("x", failure.encode(), "FAILURE")
    found = run.audit()
    assert fates(found) == {Fate.FAILED: 1}
    assert "Refused" in about(found, "failed-unexpectedly")[2]


@pytest.mark.parametrize("length", [10, 100_000])
@pytest.mark.parametrize(
    ("message", "told"),
    [
        (["no {}", 7], "Refused: no xx"),
        ("no {}", "Refused: no xx"),
        ([{"no": "{}"}], 'Refused: {"no": *"xx'),
        ({"no": "{}"}, 'Refused: {"no": *"xx'),
    ],
)
def test_a_failure_tells_its_message_however_long_and_in_whatever_form_it_is_stored(
    run: Run, message: Json, told: str, length: int
) -> None:
    run.intend("x")
    run.run("x", "FAILURE")
    failure = json.dumps({"exc_type": "Refused", "exc_message": message}).replace("{}", "x" * length)
    run.record("x", failure.encode(), "FAILURE")
    assert re.search(told, about(run.audit(), "failed-unexpectedly")[2])


def test_a_lone_surrogate_in_a_line_hides_nothing_in_it(run: Run) -> None:
    run.intend("a", Expect(state="IGNORED", effects=[f"row:{LONE}"]), reason=LONE)
    run.run("a", "IGNORED", error=f"Ignore: {LONE}", ignored=True)
    run.folder.write_lines("effects/seen.jsonl", [{"kind": "row", "key": f"row:{LONE}", "task": "a"}])
    found = run.audit()
    assert not codes(found) & {"journal-incomplete", "unexpected-executions", "unexpected-effects", "effects-damaged"}
    assert found.fates[Fate.LOST] == 0


def test_large_results_and_expectations_are_judged_in_less_memory_than_they_take(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence_database, "_MEMORY_MB", 60)
    for number in range(40):
        value = f"{number:02}" * 500_000
        run.work(f"task-{number}", json.dumps(value).encode(), Expect(result=value if number else "other"))
    assert fates(run.audit()) == {Fate.OK: 39, Fate.WRONG: 1}


@pytest.mark.parametrize(
    ("size", "processors", "threads"),
    [(11_000_000, None, "1"), (11_000_000, 2, "2"), (11_000_000, 64, "4"), (9_000_000, 64, "1")],
)
def test_only_for_much_evidence_some_threads_share_the_memory_however_many_processors_there_are(
    run: Run, monkeypatch: pytest.MonkeyPatch, size: int, processors: int | None, threads: str
) -> None:
    connect, given = duckdb.connect, []

    def connected(database: str, *, config: dict[str, Any]) -> duckdb.DuckDBPyConnection:
        given.append(config["threads"])
        return connect(database, config=config)

    monkeypatch.setattr(os, "cpu_count", lambda: processors)
    monkeypatch.setattr(duckdb, "connect", connected)
    run.work("a", b"1")
    with (run.folder.path / "much").open("wb") as much:
        much.truncate(size)
    (run.folder.path / "gone").symlink_to("nowhere")
    assert run.audit().verdict is Verdict.PASS
    assert given == [threads]


def test_evidence_that_is_too_much_for_the_memory_is_said_with_its_folder(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence_database, "_MEMORY_MB", 1)
    run.work("a", b"1")
    with pytest.raises(RunFolderError, match=rf"evidence in .*{run.folder.path.name} cannot be audited: .*Memory"):
        run.audit()


LONG = {"b": ["x"] * 400, "a": 1}


@pytest.mark.parametrize(
    ("said", "expected", "fate"),
    [
        ({"returned": [{"ok": 1}]}, {"ok": 1}, Fate.OK),
        ({"returned": [{"ok": 1}]}, {"ok": True}, Fate.WRONG),
        ({"returned": [None]}, None, Fate.OK),
        ({"returned": [None]}, 0, Fate.WRONG),
        ({"start": "caf", "digest": values.digest(json.dumps(LONE))}, LONE, Fate.OK),
        ({"start": "caf", "digest": values.digest(json.dumps(LONE))}, "caf\\udce9.csv", Fate.WRONG),
        ({"returned": ["x" * 150]}, "x" * 150, Fate.OK),
        ({"returned": ["x" * 150]}, "x" * 149 + "y", Fate.WRONG),
        ({"start": "{", "digest": values.digest(json.dumps(LONG))}, {"a": 1, "b": ["x"] * 400}, Fate.OK),
        ({"start": "{", "digest": values.digest(json.dumps(LONG))}, LONG | {"a": 2}, Fate.WRONG),
        ({"start": "{", "digest": values.digest(json.dumps(LONG))}, 1, Fate.WRONG),
        ({}, {"ok": 1}, Fate.UNKNOWN),
    ],
)
def test_a_result_that_is_pickled_is_judged_by_what_the_worker_said(
    run: Run, said: dict[str, Json], expected: Json, fate: Fate
) -> None:
    run.intend("x", Expect(result=expected))
    run.run("x", **said)
    run.record("x", pickle.dumps("whatever"))
    assert fates(run.audit()) == {fate: 1}


@pytest.mark.parametrize(
    ("said", "expected", "fate"),
    [
        ({"returned": [None]}, None, Fate.OK),
        ({"returned": [None]}, 1, Fate.WRONG),
        # A row that has lost what the worker returned proves neither.
        ({"returned": [1]}, 1, Fate.UNKNOWN),
        ({}, None, Fate.UNKNOWN),
    ],
)
def test_none_is_pickled_as_no_result_and_judged_all_the_same(
    run: Run, said: dict[str, Json], expected: Json, fate: Fate
) -> None:
    run.intend("x", Expect(result=expected))
    run.run("x", **said)
    run.record("x", None)
    assert fates(run.audit()) == {fate: 1}


@pytest.mark.parametrize(("expected", "fate"), [(2, Fate.OK), (1, Fate.WRONG)])
def test_of_two_values_that_workers_returned_the_last_is_in_a_row_that_cannot_be_read(
    run: Run, expected: Json, fate: Fate
) -> None:
    run.intend("x", Expect(result=expected))
    run.run("x", returned=[1])
    run.run("x", returned=[2])
    run.record("x", b"\x80\x05K\x02.")
    assert fates(run.audit()) == {fate: 1}


@pytest.mark.parametrize("pickled", ["no text", "a text that is no JSON"])
@pytest.mark.parametrize(("expected", "fate"), [(1, Fate.OK), (2, Fate.WRONG)])
def test_what_a_worker_returned_stands_for_a_large_row_and_for_one_that_is_no_json(
    run: Run, pickled: str, expected: Json, fate: Fate
) -> None:
    run.intend("x", Expect(result=expected))
    run.run("x", returned=[1])
    run.record("x", b"\x80" * 4_000 if pickled == "no text" else b"I1.")
    assert fates(run.audit()) == {fate: 1}


def test_what_a_worker_said_does_not_stand_for_a_result_that_can_be_read(run: Run) -> None:
    run.intend("x", Expect(result=1))
    run.run("x", returned=[1])
    run.record("x", b"2")
    assert fates(run.audit()) == {Fate.WRONG: 1}


# What went on while the witnesses were read.

Meanwhile = Callable[[Callable[[], None]], None]


class OneAfterAnother:
    """Takes the place of the pool that exports the rows: it does so before the journal is loaded, or after."""

    def __init__(self, happens: Callable[[], None], *, is_late: bool) -> None:
        """Have something happen when the rows are asked for, or when they are used."""
        self._happens = happens
        self._is_late = is_late

    def __call__(self, _: int) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, export: Callable[..., int], *args: Any, **options: Any) -> Self:
        self._export = partial(export, *args, **options)
        if not self._is_late:
            self._happens()
        return self

    def result(self) -> int:
        if self._is_late:
            self._happens()
        return self._export()


@pytest.fixture(params=[False, True], ids=["before the journal is loaded", "after the journal is loaded"])
def meanwhile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    """Let something happen after the journal's lengths were noted, and before the rows are read."""
    return lambda happens: monkeypatch.setattr(
        witnesses, "ThreadPoolExecutor", OneAfterAnother(happens, is_late=request.param)
    )


def add(run: Run, file: str, *lines: dict[str, Json]) -> None:
    path = run.journal(file)
    said = path.read_text() if path.exists() else ""
    begin = said.count("\n")
    path.write_text(
        said + "".join(f"{encode({'n': begin + k, 't': 2_000.0} | line)}\n" for k, line in enumerate(lines))
    )


def store(run: Run, task: str) -> None:
    with closing(sqlite3.connect(run.folder.results)) as connection:
        connection.execute("INSERT INTO celery_taskmeta VALUES (?, 'SUCCESS', '1')", (task,))
        connection.commit()


def test_a_task_that_ends_while_the_witnesses_are_read_is_pending(run: Run, meanwhile: Meanwhile) -> None:
    run.work("done", b"1", Expect(result=1))
    run.intend("x", Expect(result=1))
    run.say("worker-1", "started", "x", name="work")

    run.intend("y", Expect(result=1))

    def they_end() -> None:
        add(run, "worker-1", {"kind": "finished", "task": "x", "state": "SUCCESS", "store_s": 0.1})
        add(run, "worker-1", {"kind": "started", "task": "y"}, {"kind": "finished", "task": "y", "state": "SUCCESS"})

    meanwhile(they_end)
    found = run.audit()
    assert fates(found) == {Fate.OK: 1, Fate.PENDING: 2}
    assert found.verdict is Verdict.UNKNOWN


def test_what_is_sent_and_runs_while_the_witnesses_are_read_is_nothing_unexpected(
    run: Run, meanwhile: Meanwhile
) -> None:
    run.work("done", b"1", Expect(effects=["mail:done"]))
    run.mails.append({"key": "mail:done", "task": "done"})

    def it_goes_on() -> None:
        for number in range(50):
            task = f"new-{number}"
            add(run, "producer", {"kind": "intended", "task": task, "name": "work", "effects": [f"mail:{task}"]})
            add(
                run,
                "worker-1",
                {"kind": "started", "task": task},
                {"kind": "finished", "task": task, "state": "SUCCESS"},
            )
            store(run, task)
            mails = run.folder.effects / "mailbox.jsonl"
            mails.write_text(mails.read_text() + json.dumps({"key": f"mail:{task}", "task": None}) + "\n")

    meanwhile(it_goes_on)
    found = run.audit()
    assert not {code for code in codes(found) if code.startswith("unexpected")}
    assert found.fates[Fate.UNRECORDED] == found.fates[Fate.LOST] == found.fates[Fate.DUPLICATED] == 0


@pytest.mark.parametrize("task", ["new", None])
def test_an_effect_of_a_task_that_is_sent_between_the_looks_at_journal_and_effects_is_nothing_unexpected(
    run: Run, monkeypatch: pytest.MonkeyPatch, task: str | None
) -> None:
    run.work("done", b"1", Expect(effects=["mail:done"]))
    run.mails.append({"key": "mail:done", "task": "done"})
    run_query = Database.run

    def run_query_then_send(self: Database, query: str, **values: Json) -> None:
        run_query(self, query, **values)
        if query == "forget_lines":  # It ends the reading of the journal.
            add(run, "producer", {"kind": "intended", "task": "new", "name": "work"})
            with (run.folder.effects / "mailbox.jsonl").open("a") as file:
                file.write(json.dumps({"key": "row:new", "task": task}) + "\n")

    monkeypatch.setattr(Database, "run", run_query_then_send)
    assert "unexpected-effects" not in codes(run.audit())


def test_an_effect_of_nobody_is_unexpected_where_every_task_said_its_effects(run: Run) -> None:
    run.work("done", b"1", Expect(effects=["mail:done"]))
    run.mails += [{"key": "mail:done", "task": "done"}, {"key": "row:new", "task": None}]
    assert "unexpected-effects" in codes(run.audit())


def test_what_was_too_much_before_is_too_much_whatever_comes(run: Run, meanwhile: Meanwhile) -> None:
    run.work("x", b"1", Expect(effects=["mail:x"]))
    run.mails += [{"key": "mail:x", "task": "x"}] * 2
    meanwhile(lambda: add(run, "worker-1", {"kind": "started", "task": "x"}))
    assert fates(run.audit()) == {Fate.DUPLICATED: 1}


def test_a_row_that_nobody_ever_spoke_of_stays_unexpected_while_others_move(run: Run, meanwhile: Meanwhile) -> None:
    run.work("done", b"1")

    def it_goes_on() -> None:
        add(run, "worker-1", {"kind": "woke"})
        store(run, "stranger")

    meanwhile(it_goes_on)
    found = run.audit()
    assert (fates(found), found.verdict) == ({Fate.OK: 1}, Verdict.FAIL)
    assert "unexpected-rows" in codes(found)


def test_a_journal_that_grows_without_end_is_not_read_without_end(
    run: Run, meanwhile: Meanwhile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(witnesses, "_MOST_GROWTH_BYTES", 100)
    run.work("done", b"1")
    meanwhile(lambda: add(run, "worker-1", *[{"kind": "woke"}] * 20))
    assert about(run.audit(), "journal-growing")[:2] == (Verdict.UNKNOWN, 1)


@pytest.mark.parametrize("less", [0, 1])
def test_a_journal_may_grow_by_as_much_as_is_looked_at(
    run: Run, meanwhile: Meanwhile, monkeypatch: pytest.MonkeyPatch, less: int
) -> None:
    run.work("done", b"1")

    def it_grows() -> None:
        path = run.journal("worker-1")
        before = path.stat().st_size
        add(run, "worker-1", {"kind": "woke"})
        monkeypatch.setattr(witnesses, "_MOST_GROWTH_BYTES", path.stat().st_size - before - less)

    meanwhile(it_grows)
    assert ("journal-growing" in codes(run.audit())) is bool(less)


@pytest.mark.parametrize("spoil", ["grows", "comes"])
def test_beside_a_journal_that_cannot_be_followed_the_others_are(
    run: Run, meanwhile: Meanwhile, monkeypatch: pytest.MonkeyPatch, spoil: str
) -> None:
    monkeypatch.setattr(witnesses, "_MOST_GROWTH_BYTES", 100)
    run.intend("x")
    run.say("worker-1", "ready")

    def it_goes_on() -> None:
        if spoil == "grows":
            add(run, "producer", *[{"kind": "woke"}] * 20)
        else:
            run.journal("another").mkdir()
        add(run, "worker-1", {"kind": "started", "task": "x"})

    meanwhile(it_goes_on)
    assert fates(run.audit()) == {Fate.PENDING: 1}


def test_what_was_sent_after_the_broker_was_asked_may_lie_there(run: Run) -> None:
    run.intend("before")
    run.asked_t = float(next(run.clock))
    run.intend("after")
    run.intend("begun")
    run.say("worker-1", "started", "begun", name="work")
    run.work("ended", b"1")
    found = run.audit()
    assert fates(found) == {Fate.LOST: 1, Fate.PENDING: 2, Fate.OK: 1}
    assert "left-after-end" not in codes(found)


def test_what_was_sent_or_begun_as_the_broker_was_asked_may_lie_there(run: Run) -> None:
    run.intend("begun")
    run.clock = count(2_000)
    run.intend("sent")
    run.say("worker-1", "started", "begun", name="work", t=2_000.0)
    run.asked_t = 2_000.0
    assert fates(run.audit()) == {Fate.PENDING: 2}
    run.folder.results.unlink()
    run.asked_t = 2_001.0
    assert fates(run.audit()) == {Fate.LOST: 2}


def test_what_began_as_it_was_sent_was_taken_from_the_broker(run: Run) -> None:
    run.asked_t = 1_000.0
    run.clock = count(2_000)
    run.intend("x")
    run.say("worker-1", "started", "x", name="work", t=2_000.0)
    run.say("worker-1", "finished", "x", state="SUCCESS")
    run.record("x", b"1")
    assert codes(run.audit()) == set()


# What is expected of the world, and who looked.


def seen(run: Run, *keys: str) -> None:
    run.folder.write_lines("effects/seen.jsonl", [{"kind": "row", "key": key, "task": None} for key in keys])


def test_an_effect_is_lost_only_if_somebody_looked_for_its_kind(run: Run) -> None:
    for key in ("mail:x", "row:x"):
        run.work(key, b"1", Expect(effects=[key]))
    run.mails.append({"key": "mail:other", "task": None})
    found = run.audit()
    assert fates(found) == {Fate.LOST: 1, Fate.UNKNOWN: 1}
    assert {finding.code: finding.tasks for finding in found.findings}["lost"] == ("mail:x",)
    seen(run)
    assert fates(audit(run.folder)) == {Fate.LOST: 2}


def test_nobody_looked_until_the_end_where_the_run_never_came_to_rest(run: Run) -> None:
    run.work("x", b"1", Expect(effects=["mail:x"]))
    run.mails.append({"key": "mail:other", "task": "y"})
    run.write()
    (run.folder.path / "broker.json").unlink()
    found = audit(run.folder)
    assert fates(found) == {Fate.UNKNOWN: 1}
    assert {"effects-absent", "broker-unread"} <= codes(found)


def test_rows_do_not_speak_for_a_mailbox_that_was_there(run: Run) -> None:
    run.nodes.append("mailbox")
    run.say("mailbox", "ready")
    run.work("x", b"1", Expect(effects=["mail:x"]))
    seen(run, "row:y")
    assert fates(run.audit()) == {Fate.UNKNOWN: 1}
    run.nodes.remove("mailbox")
    run.folder.results.unlink()
    assert fates(run.audit()) == {Fate.LOST: 1}


def a_mail(run: Run, number: int, to: str = "zoe@example.com", task: str | None = None) -> None:
    also = [mail(to=to), mail(to=to, subject="Hi"), mail(subject="Hi")]
    run.mails.append({"kind": "mail", "key": f"mail:random-{number}", "also": also, "task": task})


def test_where_nothing_was_said_of_effects_a_mail_is_nothing_unexpected(run: Run) -> None:
    run.work("x", b"1")
    a_mail(run, 1)
    assert run.audit().findings == ()


def test_where_every_task_said_its_effects_another_mail_is_unexpected(run: Run) -> None:
    run.work("x", b"1", Expect(effects=[]))
    a_mail(run, 1)
    assert codes(run.audit()) == {"unexpected-effects"}


@pytest.mark.parametrize(
    ("key", "mails", "fate"),
    [
        (mail(to="Zoe@example.com"), 1, Fate.OK),
        (mail(to="zoe@example.com", subject="Hi"), 1, Fate.OK),
        (mail(subject="Hi"), 1, Fate.OK),
        (mail(to="zoe@example.com"), 2, Fate.DUPLICATED),
        (mail(to="zoe@example.com", subject="Hello"), 1, Fate.LOST),
        (mail(to="li@example.com"), 1, Fate.LOST),
    ],
)
def test_a_mail_of_any_id_is_expected_by_recipient_and_subject(run: Run, key: str, mails: int, fate: Fate) -> None:
    run.work("x", b"1", Expect(effects=[key]))
    for number in range(mails):
        a_mail(run, number)
    found = run.audit()
    assert fates(found) == {fate: 1}
    assert ("unexpected-effects" in codes(found)) is (fate is Fate.LOST)


def rows(run: Run, kind: str, *keys: str, task: str | None = None) -> None:
    run.row_kinds.append(kind)
    lines = [{"kind": kind, "key": f"{kind}:{key}", "task": task} for key in keys]
    run.folder.write_lines(f"effects/rows-{kind}.jsonl", lines)


@pytest.mark.parametrize(
    ("keys", "fate"), [(["7"], Fate.OK), (["7", "7"], Fate.DUPLICATED), (["77"], Fate.LOST), ([], Fate.LOST)]
)
def test_a_row_is_judged_as_a_mail_is(run: Run, keys: list[str], fate: Fate) -> None:
    run.work("x", b"1", Expect(effects=["order:7"]))
    rows(run, "order", *keys)
    found = run.audit()
    assert fates(found) == {fate: 1}
    assert ("unexpected-effects" in codes(found)) is (keys == ["77"])


def test_rows_of_a_kind_are_unexpected_where_one_of_the_kind_is_expected_or_nothing_at_all(run: Run) -> None:
    run.work("x", b"1", Expect(effects=["order:7"]))
    rows(run, "order", "7")
    rows(run, "refund", "1", task="x")
    assert run.audit().findings == ()
    rows(run, "order", "7", "8")
    assert about(audit(run.folder), "unexpected-effects")[1] == 1
    # Whoever says nothing of effects may have any.
    run.work("y", b"1")
    run.folder.results.unlink()
    assert run.audit().findings == ()


def test_where_all_tasks_expect_no_effect_any_row_is_unexpected(run: Run) -> None:
    run.work("x", b"1", Expect(effects=[]))
    rows(run, "order", "7")
    assert codes(run.audit()) == {"unexpected-effects"}


def test_rows_of_a_kind_that_nobody_saw_leave_only_their_tasks_unknown(run: Run) -> None:
    for key in ("order:7", "refund:7", "row:7", "mail:7"):
        run.work(key, b"1", Expect(effects=[key]))
    run.mails.append({"key": "mail:7", "task": None})
    rows(run, "order")
    run.row_kinds.append("refund")
    found = run.audit()
    # A query speaks for its own kind alone.
    assert fates(found) == {Fate.OK: 1, Fate.LOST: 1, Fate.UNKNOWN: 2}
    assert about(found, "lost")[2].startswith("1 work")
    assert about(found, "effects-absent")[1] == 2


def test_something_can_be_expected_of_a_task_that_a_worker_sends(run: Run) -> None:
    for task in ("right", "wrong", "lacks", "never"):
        said = Expect(result=1, effects=["order:7"] if task == "lacks" else None)
        run.say("producer", "expected", task, **said.to_json())
    rows(run, "order")
    run.intend("first")
    run.run("first")
    run.record("first", b"0")
    for task in ("right", "wrong", "lacks"):
        run.say("worker-1", "intended", task, name="work", retries=0, parent="first")
        run.say("worker-1", "accepted", task, confirmed=True)
        run.run(task)
        run.record(task, b"2" if task == "wrong" else b"1")
    found = run.audit()
    # What nobody ever sent has no fate; the message that announced it says so.
    assert fates(found) == {Fate.OK: 2, Fate.WRONG: 1, Fate.LOST: 1}
    assert {finding.code: finding.tasks for finding in found.findings} == {"wrong": ("wrong",), "lost": ("lacks",)}


# Folders that are damaged, of another version, or made to harm.


def change(run: Run, find: str, put: str, file: str = "worker-1") -> Audit:
    """Audit a clean run after one line of it was changed."""
    run.work("a", b"1")
    run.work("b", b"1")
    path = run.write().journal / f"{file}.1.1.jsonl"
    text = path.read_text()
    assert find in text
    path.write_text(text.replace(find, put, 1))
    return audit(run.folder)


LINE = '{"n":2,"t":1003.0,"kind":"finished","task":"a","state":"SUCCESS"}'


@pytest.mark.parametrize(
    ("find", "put", "where"),
    [
        (
            LINE,
            LINE.replace("finished", "exploded"),
            "line 3: its kind is 'exploded', which this version does not know",
        ),
        (LINE, LINE.replace("1003.0", "NaN"), "line 3: its time is nan"),
        (LINE, LINE.replace("1003.0", "1e999"), "line 3: its time is inf"),
        (LINE, LINE.replace("1003.0", "1e308"), "line 3: its time is 1e+308"),
        (LINE, LINE.replace("1003.0", "-1e308"), "line 3: its time is -1e+308"),
        *(
            (LINE, LINE.replace('"task"', f'"{name}":{value},"task"'), f"line 3: its {name} is {float(value)!r}")
            for name, value in (
                *((name, "1e308") for name in ("due", "expires", "eta", "at", "until", "next")),
                *((name, "-1e308") for name in ("store_s", "since_store_s", "took_s", "planned_s")),
            )
        ),
        (LINE, LINE.replace(',"state":"SUCCESS"', ""), "line 3: it does not say its state"),
        (LINE, LINE.replace(',"task":"a"', ""), "line 3: its task is None"),
        (LINE, LINE.replace('"n":2', '"n":1'), "line 3: its number 1 has come before"),
        (LINE, LINE.replace('"n":2', '"n":-2'), "line 3: its number is -2"),
        (LINE, LINE.replace('"n":2', '"n":9223372036854775807'), "line 3: its number is 9223372036854775807"),
        (LINE, "[1]", "line 3: it is no JSON object"),
        (LINE, "{" * 3_000_000, "line 3: it is no JSON"),
        (LINE + "\n", "", "line 3: no line has the number 2"),
        ('"kind":"opened"', '"format":2,"kind":"opened"', "line 1: its format is 2, and this version reads 1"),
    ],
)
def test_a_line_that_no_run_writes_is_unknown_with_its_file_and_line(run: Run, find: str, put: str, where: str) -> None:
    found = change(run, find, put)
    assert found.verdict is Verdict.UNKNOWN
    verdict, number, text = about(found, "journal-incomplete")
    assert verdict is Verdict.UNKNOWN
    assert number >= 1
    assert text.startswith("lines are missing in worker-1.1.1.jsonl (")
    assert where in text


@pytest.mark.parametrize("date", ["253402300799.0", "-62135596800.0"], ids=["never", "the first day of the calendar"])
@pytest.mark.parametrize("member", ["due", "expires", "eta"])
def test_each_date_of_the_calendar_is_a_date(run: Run, member: str, date: str) -> None:
    found = change(run, LINE, LINE.replace('"task"', f'"{member}":{date},"task"'))
    assert found.verdict is Verdict.PASS
    assert view_of(run.folder.path).audit == found


@pytest.mark.parametrize("t", ["0.0", "0.5"])
@pytest.mark.parametrize("member", ["at", "until", "next"])
def test_each_time_since_the_first_second_of_the_clock_is_a_time(run: Run, member: str, t: str) -> None:
    found = change(run, LINE, LINE.replace('"task"', f'"{member}":{t},"task"'))
    assert found.verdict is Verdict.PASS


@pytest.mark.parametrize("member", ["at", "until", "next"])
def test_a_time_before_the_clock_began_is_none(run: Run, member: str) -> None:
    found = change(run, LINE, LINE.replace('"task"', f'"{member}":-0.5,"task"'))
    assert f"line 3: its {member} is -0.5" in about(found, "journal-incomplete")[2]


def test_a_file_that_does_not_say_who_wrote_it_speaks_for_nobody(run: Run) -> None:
    found = change(run, '"kind":"opened"', '"kind":"up"')
    assert about(found, "journal-silent")[0] is Verdict.UNKNOWN


def test_an_interruption_ends_the_reading_of_rows(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise whoever presses Ctrl-C waits for the last row."""
    run.work("a", b"1")
    ended = []

    def export(self: RowFile, _target: Path, *, dated: bool) -> int:
        ended.append(self.stopped.wait(30))
        return int(dated)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(RowFile, "export", export)
    monkeypatch.setattr(witnesses.Witnesses, "_journal", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.audit()
    assert ended == [True]


def test_a_line_that_is_written_otherwise_and_says_the_same_is_read(run: Run) -> None:
    assert change(run, LINE, f" {LINE.replace(',', ' , ')} ").verdict is Verdict.PASS


def test_a_number_that_comes_twice_hides_no_line_that_is_lost(run: Run) -> None:
    """The count of the lines is right, and so is the highest number."""
    found = change(run, '"n":3,', '"n":1,')
    assert "line 4: its number 1 has come before" in about(found, "journal-incomplete")[2]


def test_two_pairs_of_numbers_that_come_twice_hide_nothing_either(run: Run) -> None:
    """The sum of the numbers is right as well: 1 and 4 stand for 2 and 3."""
    run.work("a", b"1")
    run.work("b", b"1")
    path = run.write().journal / "worker-1.1.1.jsonl"
    path.write_text(path.read_text().replace('"n":2,', '"n":1,').replace('"n":3,', '"n":4,'))
    assert "journal-incomplete" in codes(audit(run.folder))


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir])
@pytest.mark.parametrize("folder", ["journal", "effects"])
def test_what_is_no_regular_file_is_said_and_not_read(run: Run, folder: str, make: Callable[[Path], None]) -> None:
    run.work("a", b"1")
    run.write()
    make(run.folder.path / folder / "zero.1.1.jsonl")
    found = audit(run.folder)
    assert about(found, f"{folder}-unreadable")[1:] == (1, "zero.1.1.jsonl: no regular file.")
    assert found.verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(("folder", "fate"), [("journal", Fate.UNKNOWN), ("effects", Fate.LOST)])
def test_only_a_journal_that_cannot_be_read_may_hold_the_end_of_a_task(run: Run, folder: str, fate: Fate) -> None:
    run.work("a", b"1")
    run.intend("x")
    run.say("worker-1", "started", "x", name="work")
    (run.write().path / folder / "zero.1.1.jsonl").mkdir()
    assert fates(audit(run.folder)) == {Fate.OK: 1, fate: 1}


def test_where_a_file_of_effects_cannot_be_read_a_missing_effect_is_unknown(run: Run) -> None:
    run.nodes.append("mailbox")
    run.work("x", b"1", Expect(effects=["mail:x"]))
    run.mails = [{"t": 1.0, "kind": "mail", "key": "other", "task": "x"}]
    run.write()
    assert fates(audit(run.folder)) == {Fate.LOST: 1}
    (run.folder.effects / "zero.1.1.jsonl").mkdir()
    assert fates(audit(run.folder)) == {Fate.UNKNOWN: 1}


def test_a_file_may_be_called_anything(run: Run) -> None:
    run.work("a", b"1")
    run.write()
    journal = run.folder.journal
    for name, strange in (("producer", b"*[?].jsonl"), ("worker-1", b"caf\xe9 {a,b}\n'.jsonl")):
        (journal / f"{name}.1.1.jsonl").rename(journal / os.fsdecode(strange))
    assert audit(run.folder).verdict is Verdict.PASS
    os.truncate(journal / os.fsdecode(b"caf\xe9 {a,b}\n'.jsonl"), 30)
    assert r"caf\xe9 {a,b}" in about(audit(run.folder), "journal-torn")[2]


def test_where_a_pools_process_left_no_journal_nothing_is_called_unexpected(run: Run) -> None:
    """The process that ran `a` sent `b`, and both is known of its rows and of its parent alone."""
    run.intend("a")
    run.say("worker-1", "received", "a", name="work")
    run.say("worker-2", "started", "b", name="work")
    run.say("worker-2", "finished", "b", state="SUCCESS")
    run.record("a", b"1")
    run.record("b", b"1")
    found = run.audit()
    assert found.verdict is Verdict.UNKNOWN
    assert fates(found) == {Fate.UNKNOWN: 1}
    assert "no journal says that it began" in about(found, "unknown")[2]
    assert about(found, "unexpected-executions")[0] is Verdict.UNKNOWN
    assert about(found, "unexpected-rows")[0] is Verdict.UNKNOWN


def test_where_every_journal_is_whole_what_nobody_sent_is_unexpected(run: Run) -> None:
    run.work("a", b"1")
    run.say("worker-1", "started", "b", name="work")
    run.record("b", b"1")
    found = run.audit()
    assert about(found, "unexpected-executions")[0] is Verdict.FAIL
    assert about(found, "unexpected-rows")[0] is Verdict.FAIL


@pytest.mark.parametrize(
    "damage",
    [
        {"promise": []},
        {"promise": {"delivery": []}},
        {"promise": Promise().to_json() | {"deadline_s": 10**400}},
        {"nodes": 5},
        {"nodes": None},
        {"unwitnessed": [[]]},
        {"unwitnessed": ["nothing"]},
        {"timelapse": "today"},
        {"timelapse": {"from_t": None}},
    ],
)
def test_a_run_file_of_wrong_types_is_an_error_that_names_it(run: Run, damage: dict[str, Json]) -> None:
    run.work("a", b"1")
    run.write()
    run.folder.write("run.json", run.folder.read("run.json") | damage)
    with pytest.raises(RunFolderError, match=r"run\.json"):
        audit(run.folder)


@pytest.mark.parametrize(
    "damage",
    [
        {"messages": 5},
        {"messages": None},
        {"held": {"a": 1}, "queues": [5]},
        {"queues": [{"name": "celery"}]},
        {"queues": [{"name": "celery", "ready": "many", "unacked": 0}]},
        {"dead": [[]]},
        {"t": "noon"},
        {"t": 10**400},
        {"anonymous": []},
        {"settled": 5},
    ],
)
def test_remains_of_wrong_types_are_unknown(run: Run, damage: dict[str, Json]) -> None:
    run.work("a", b"1")
    run.write()
    run.folder.write("broker.json", run.folder.read("broker.json") | damage)
    found = audit(run.folder)
    assert about(found, "broker-unread")[0] is Verdict.UNKNOWN
    assert found.to_json()["witnesses"]["broker"] == {"readable": False, "left": 0}


# Rows that were stored and are not there.


def cleaned_up(
    run: Run,
    *after_s: int,
    expires_s: float | None = 3600.0,
    zone: str = "America/Los_Angeles",
    enable_utc: bool = True,
) -> Audit:
    """Audit a run in which a worker stored the row of `x`, and cleaned up at the given seconds after that."""
    run.work("other", b"1")
    run.say("worker-1", "settings", timezone=zone, result_expires=expires_s, enable_utc=enable_utc)
    run.intend("x")
    run.run("x", store_s=0.01)
    stored_t = int(run.lines["worker-1.1.1"][-1]["t"])
    for number, one_s in enumerate(after_s):
        cleanup = f"cleanup{number}"
        run.intend(cleanup)
        run.clock = count(stored_t + one_s - 1)
        run.say("worker-1", "started", cleanup, name="celery.backend_cleanup")
        run.say("worker-1", "finished", cleanup, state="SUCCESS", store_s=0.01)
        run.record(cleanup, b"null")
    return run.audit()


def test_a_row_that_was_cleaned_up_after_its_time_is_accounted_for(run: Run) -> None:
    found = cleaned_up(run, 3_600)
    assert (fates(found), found.verdict) == ({Fate.OK: 3}, Verdict.PASS)
    verdict, number, text = about(found, "row-expired")
    assert (verdict, number) == (Verdict.PASS, 1)
    assert text.endswith("ran celery.backend_cleanup 3600 s later, with result_expires of 3600 s")


def test_of_several_cleanups_that_one_is_named_that_found_the_row_expired(run: Run) -> None:
    found = cleaned_up(run, 10, 3_700, 7_300)
    _, _, text = about(found, "row-expired")
    assert "ran celery.backend_cleanup 3700 s later, with result_expires of 3600 s" in text


@pytest.mark.parametrize(("after_s", "code"), [(3_650, "row-deleted"), (3_750, "row-expired")])
def test_the_time_of_a_row_that_was_stored_again_begins_anew(run: Run, after_s: int, code: str) -> None:
    run.say("worker-1", "settings", timezone="UTC", result_expires=3600.0)
    run.intend("x")
    run.run("x", store_s=0.01)
    stored_t = int(run.lines["worker-1.1.1"][-1]["t"])
    for name, later_s in (("work", 100), ("celery.backend_cleanup", after_s)):
        task = "x" if name == "work" else "cleanup"
        if task != "x":
            run.intend(task)
            run.record(task, b"null")
        run.clock = count(stored_t + later_s - 1)
        run.say("worker-1", "started", task, name=name)
        run.say("worker-1", "finished", task, state="SUCCESS", store_s=0.01)
    assert code in codes(run.audit())


def test_a_row_of_a_failure_that_is_gone_is_deleted_like_that_of_a_success(run: Run) -> None:
    run.intend("x", Expect(state="FAILURE"))
    run.run("x", "FAILURE", store_s=0.01)
    assert about(run.audit(), "row-deleted")[0] is Verdict.FAIL


def test_a_row_that_is_gone_is_told_with_the_worker_that_wrote_it(run: Run) -> None:
    """A worker that retried the task before wrote a row as well, and one that ended it again later wrote none."""
    run.intend("x")
    run.say("worker-0", "started", "x", name="work")
    run.say("worker-0", "finished", "x", state="RETRY", store_s=0.01)
    run.run("x", store_s=0.01)
    run.say("worker-2", "started", "x", name="work")
    run.say("worker-2", "finished", "x", state="SUCCESS")
    assert "by worker-1, and gone at the end" in about(run.audit(), "row-deleted")[2]


def test_a_row_that_two_workers_wrote_is_told_with_the_last_of_them(run: Run) -> None:
    run.intend("x")
    run.run("x", "FAILURE", store_s=0.01)
    run.say("worker-2", "started", "x", name="work")
    run.say("worker-2", "finished", "x", state="SUCCESS", store_s=0.01)
    assert "written at 00:16:45 UTC by worker-2, and gone" in about(run.audit(), "row-deleted")[2]


def test_a_row_that_is_gone_is_told_also_where_a_journal_does_not_say_whose_it_is(run: Run) -> None:
    run.intend("x")
    run.run("x", store_s=0.01)
    run.lines["worker-1.1.1"][0]["kind"] = "up"
    assert "row-deleted" in codes(run.audit())


def test_of_several_cleanups_before_its_time_the_first_is_named(run: Run) -> None:
    _, _, text = about(cleaned_up(run, 10, 20), "row-deleted")
    assert "ran celery.backend_cleanup 10 s later" in text


def test_a_row_that_was_deleted_before_its_time_fails_and_the_zone_is_named(run: Run) -> None:
    found = cleaned_up(run, 3_599)
    assert found.verdict is Verdict.FAIL
    verdict, number, text = about(found, "row-deleted")
    assert (verdict, number) == (Verdict.FAIL, 1)
    assert "x was written at 00:16:48 UTC by worker-1; worker-1 ran celery.backend_cleanup 3599 s later" in text
    assert "America/Los_Angeles" in text


def test_a_row_that_was_deleted_as_soon_as_it_was_written_went_by_that_cleanup(run: Run) -> None:
    _, _, text = about(cleaned_up(run, 0), "row-deleted")
    assert "worker-1 ran celery.backend_cleanup 0 s later" in text


def test_where_an_app_counts_in_local_time_its_zone_is_not_blamed(run: Run) -> None:
    _, _, text = about(cleaned_up(run, 3_599, enable_utc=False), "row-deleted")
    assert "Los_Angeles" not in text


def test_where_nobody_told_the_expiry_a_deletion_is_no_expiry(run: Run) -> None:
    found = cleaned_up(run, 1_000_000, expires_s=None)
    assert about(found, "row-deleted")[0] is Verdict.FAIL


def test_a_row_of_a_task_that_nobody_sent_is_not_missed(run: Run) -> None:
    run.intend("x")
    run.run("x", store_s=0.01)
    run.run("nobody's", store_s=0.01)
    assert about(run.audit(), "row-deleted")[1] == 1


def test_a_row_that_was_never_stored_was_not_deleted(run: Run) -> None:
    run.intend("x")
    run.run("x")
    assert codes(run.audit()) == {"unrecorded"}


def test_a_row_that_went_without_a_cleanup_is_deleted_and_after_its_time_unknown(run: Run) -> None:
    run.say("worker-1", "settings", timezone="UTC", result_expires=50.0)
    run.intend("x")
    run.run("x", store_s=0.01)
    found = run.audit()
    verdict, _, text = about(found, "row-deleted")
    assert verdict is Verdict.FAIL
    assert "no worker ran celery.backend_cleanup" in text
    stored_t = int(run.lines["worker-1.1.1"][-1]["t"])
    run.say("worker-1", "down")
    for later_s, verdict in ((49, Verdict.FAIL), (50, Verdict.UNKNOWN)):
        run.lines["worker-1.1.1"][-1]["t"] = float(stored_t + later_s)
        run.folder.results.unlink()
        assert about(run.audit(), "row-deleted")[0] is verdict


def test_a_row_that_is_gone_is_deleted_also_where_no_worker_told_its_settings(run: Run) -> None:
    run.intend("x")
    run.run("x", store_s=0.01)
    assert about(run.audit(), "row-deleted")[0] is Verdict.FAIL
    run.folder.results.unlink()
    run.work("cleanup", b"null")
    run.lines["worker-1.1.1"][-2]["name"] = "celery.backend_cleanup"
    _, _, text = about(run.audit(), "row-deleted")
    assert "worker-1 ran celery.backend_cleanup" in text


def test_where_the_rows_cannot_be_read_none_is_called_deleted(run: Run) -> None:
    run.intend("x")
    run.run("x", store_s=0.01)
    run.write()
    run.folder.results.write_bytes(b"no database" * 100)
    assert codes(audit(run.folder)) == {"results-unreadable", "unknown"}
