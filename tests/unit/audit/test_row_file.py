"""The rows of a result file: any content is exported as it is, and what has no end is refused."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from harness.audit import row_file
from harness.audit.results import create
from harness.audit.row_file import RowFile
from harness.errors import ResultsError

TABLE = "CREATE TABLE celery_taskmeta (task_id TEXT, status TEXT, result BLOB, date_done DATETIME)"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.sqlite3"


def fill(path: Path, *statements: str, rows: tuple[tuple[object, ...], ...] = ()) -> RowFile:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        for row in rows:
            connection.execute("INSERT INTO celery_taskmeta VALUES (?, ?, ?, ?)", row)
        connection.commit()
    return RowFile(path, path.name)


def exported(file: RowFile, folder: Path, *, dated: bool = False) -> list[str]:
    target = folder / "rows.csv"
    count = file.export(target, dated=dated)
    lines = target.read_text().splitlines()
    assert len(lines) == count
    return lines


def x(text: str) -> str:
    return f"x{text.encode().hex().upper()}"


def test_null_is_told_from_any_text(path: Path, tmp_path: Path) -> None:
    rows = ((None, None, None, None), ("", "", b"", None), (r"\N", "x", b"+", None))
    lines = exported(fill(path, TABLE, rows=rows), tmp_path)
    assert lines == [",,,", "x,x,x,", f"{x(chr(92) + 'N')},{x('x')},{x('+')},"]


def test_a_status_that_only_looks_like_a_success_is_itself(path: Path, tmp_path: Path) -> None:
    rows = tuple(
        (None, status, None, None) for status in (b"SUCCESS", "success", "SUCCESS ", "xSUCCESS", "SUCCESS,", "FAILURE")
    )
    lines = exported(fill(path, TABLE, rows=rows), tmp_path)
    texts = [line.split(",")[1] for line in lines]
    assert texts == [x("SUCCESS"), x("success"), x("SUCCESS "), x("xSUCCESS"), x("SUCCESS,"), "FAILURE"]


def test_a_row_says_when_its_task_ended_if_that_is_asked(path: Path, tmp_path: Path) -> None:
    file = fill(path, TABLE, rows=(("a", "SUCCESS", None, "2026-11-22 18:00:00.250000"), ("b", "STARTED", None, None)))
    assert exported(file, tmp_path, dated=True) == [
        f"{x('a')},SUCCESS,,{x('2026-11-22 18:00:00.250000')}",
        f"{x('b')},{x('STARTED')},,",
    ]


def test_a_long_result_stays_behind_and_is_read_by_its_task(path: Path, tmp_path: Path) -> None:
    long = b"x" * 100_000
    file = fill(path, TABLE, rows=(("a", "SUCCESS", long, None), ("b", "SUCCESS", None, None)))
    assert exported(file, tmp_path)[0] == f"{x('a')},SUCCESS,+,"
    assert list(file.results(["a", "b", "nobody"])) == [("a", long)]


def test_a_result_that_is_text_is_read_as_its_bytes(path: Path) -> None:
    file = fill(path, TABLE, rows=(("a", "SUCCESS", "ü", None),))
    assert list(file.results(["a"])) == [("a", "ü".encode())]


def test_when_a_task_ended_is_missed_only_where_it_is_asked(path: Path, tmp_path: Path) -> None:
    file = fill(path, "CREATE TABLE celery_taskmeta (task_id TEXT, status TEXT, result BLOB)")
    assert exported(file, tmp_path) == []
    with pytest.raises(ResultsError, match="has no stored column date_done"):
        file.export(tmp_path / "rows.csv", dated=True)


def test_a_value_that_is_too_large_for_memory_is_refused(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = fill(path, TABLE, rows=(("a", "SUCCESS", b"x" * 5_000, None),))
    monkeypatch.setattr(row_file, "_LONGEST_VALUE_BYTES", 4_000)
    with pytest.raises(ResultsError, match="too big"):
        file.export(tmp_path / "rows.csv", dated=False)


def test_saved_groups_are_read_if_there_are_any(path: Path) -> None:
    assert list(fill(path, TABLE).groups()) == []
    groups = "CREATE TABLE celery_tasksetmeta (taskset_id TEXT, result BLOB)"
    odd = "INSERT INTO celery_tasksetmeta VALUES ('a', x'5B5D'), (NULL, x'5B5D'), ('b', NULL), ('c', 'text')"
    assert list(fill(path, groups, odd).groups()) == [("a", b"[]")]


def test_groups_in_a_view_are_none_of_celerys(path: Path) -> None:
    file = fill(path, TABLE, "CREATE VIEW celery_tasksetmeta AS SELECT 'a' AS taskset_id, x'5B5D' AS result")
    assert list(file.groups()) == []


def test_an_id_has_an_end(path: Path, tmp_path: Path) -> None:
    (line,) = exported(fill(path, TABLE, rows=(("a" * 3_000_000, "SUCCESS", None, None),)), tmp_path)
    assert len(line) < 3_000


def test_where_nothing_was_ever_stored_there_is_nothing(path: Path, tmp_path: Path) -> None:
    create(path)
    assert exported(RowFile(path, path.name), tmp_path) == []


def test_tables_of_another_name_are_named(path: Path, tmp_path: Path) -> None:
    file = fill(path, "CREATE TABLE my_results (task_id TEXT)", "CREATE TABLE my_groups (task_id TEXT)")
    sentence = "results.sqlite3 has no table celery_taskmeta; it has my_groups, my_results.*database_table_names"
    with pytest.raises(ResultsError, match=sentence):
        file.export(tmp_path / "rows.csv", dated=False)


ENDLESS = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS task_id, '' AS status, '' AS result"
)


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        (f"CREATE VIEW celery_taskmeta AS {ENDLESS} FROM n", "is a view"),
        ("CREATE VIRTUAL TABLE celery_taskmeta USING rtree(task_id, status, result)", "is a virtual table"),
        ("CREATE TABLE celery_taskmeta (task_id TEXT, status TEXT)", "no stored column result"),
        (
            "CREATE TABLE celery_taskmeta (task_id, status, result AS (zeroblob(1000000000)) VIRTUAL)",
            "no stored column result",
        ),
    ],
)
def test_what_is_no_table_of_celerys_is_refused(path: Path, tmp_path: Path, statement: str, what: str) -> None:
    with pytest.raises(ResultsError, match=what):
        fill(path, statement).export(tmp_path / "rows.csv", dated=False)


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [a_pipe, a_device, Path.mkdir])
def test_what_is_no_regular_file_is_refused_at_once(path: Path, tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(path)
    with pytest.raises(ResultsError, match=r"results\.sqlite3 is no regular file"):
        RowFile(path, path.name).export(tmp_path / "rows.csv", dated=False)


def test_a_file_that_is_missing_or_no_database_is_an_error_that_names_it(path: Path, tmp_path: Path) -> None:
    file = RowFile(path, path.name)
    for _ in range(2):
        with pytest.raises(ResultsError, match=r"cannot read results\.sqlite3"):
            file.export(tmp_path / "rows.csv", dated=False)
        path.write_bytes(b"this is no database" * 100)


def test_a_folder_whose_name_is_no_text_is_read(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9 100%?#[1]")
    folder.mkdir()
    assert len(exported(fill(folder / "r.sqlite3", TABLE, rows=(("a", "SUCCESS", None, None),)), tmp_path)) == 1


def many(path: Path) -> RowFile:
    return fill(path, TABLE, rows=tuple((f"{number}", "SUCCESS", None, None) for number in range(5_000)))


def test_reading_ends_when_it_takes_too_long(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = many(path)
    monkeypatch.setattr(row_file, "_STEPS", 100)
    monkeypatch.setattr(row_file, "_LIMIT_S", 0.0)
    with pytest.raises(ResultsError, match="takes longer than 0 s"):
        file.export(tmp_path / "rows.csv", dated=False)


def test_reading_ends_when_nobody_wants_the_rows_any_more(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = many(path)
    monkeypatch.setattr(row_file, "_STEPS", 100)
    file.stopped.set()
    with pytest.raises(ResultsError, match="interrupted"):
        file.export(tmp_path / "rows.csv", dated=False)


def test_more_rows_than_bytes_are_refused(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = many(path)
    monkeypatch.setattr(row_file, "_LEAST_BYTES", 10)
    monkeypatch.setattr(row_file, "_bytes_of", lambda _: 0)
    with pytest.raises(ResultsError, match="more rows than bytes"):
        file.export(tmp_path / "rows.csv", dated=False)


@pytest.mark.parametrize("log", [0, 1_000])
def test_a_file_may_have_as_many_rows_as_bytes_with_its_log(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: int
) -> None:
    file = many(path)
    if log:
        # What stands in it belongs to no database, and is passed over.
        path.with_name(f"{path.name}-wal").write_bytes(b"x" * log)
    most = 5_000 - path.stat().st_size - log
    monkeypatch.setattr(row_file, "_LEAST_BYTES", most)
    assert file.export(tmp_path / "rows.csv", dated=False) == 5_000
    monkeypatch.setattr(row_file, "_LEAST_BYTES", most - 1)
    with pytest.raises(ResultsError, match="more rows than bytes"):
        file.export(tmp_path / "rows.csv", dated=False)


def test_an_audit_does_without_sqlalchemy() -> None:
    """It would take an eighth of a second of each audit."""
    said = "import sys, harness.audit.audit; sys.exit('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", said], check=False).returncode == 0
