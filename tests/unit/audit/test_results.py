"""The result tables: read only, beside a writer, and never unpickled."""

import json
import pickle
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from harness.audit import results as module
from harness.audit.results import Ending, GroupRow, Results, Row, create, decode, fold
from harness.audit.results_copy import copy, copy_all
from harness.errors import ResultsError

ROWS = [("a", "SUCCESS", b'{"ok": 1}'), ("b", "FAILURE", b"{}"), ("c", "STARTED", None)]


def fill(path: Path) -> sqlite3.Connection:
    """Write the results that a worker leaves, and return the open connection."""
    create(path)
    writer = sqlite3.connect(path)
    writer.execute("CREATE TABLE celery_taskmeta (id INTEGER, task_id TEXT UNIQUE, status TEXT, result BLOB)")
    writer.execute("CREATE TABLE celery_tasksetmeta (id INTEGER, taskset_id TEXT UNIQUE, result BLOB)")
    writer.executemany("INSERT INTO celery_taskmeta (task_id, status, result) VALUES (?, ?, ?)", ROWS)
    writer.execute("INSERT INTO celery_tasksetmeta (taskset_id, result) VALUES ('g', '[]')")
    writer.commit()
    return writer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.sqlite3"


@pytest.fixture
def writer(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(fill(path)) as writer:
        yield writer


@pytest.fixture
def results(path: Path, writer: sqlite3.Connection) -> Results:
    del writer
    return Results.of_file(path)


def test_a_new_file_is_in_wal_mode_and_stays_so(path: Path) -> None:
    create(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_file_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"nowhere/results\.sqlite3.* full or read-only\?"):
        create(tmp_path / "nowhere" / "results.sqlite3")


def test_what_cannot_be_in_wal_mode_is_refused() -> None:
    with pytest.raises(ResultsError, match=r"WAL mode \(it stays memory\)"):
        create(Path(":memory:"))


def test_rows_are_read_as_they_are_stored(results: Results) -> None:
    assert list(results.rows()) == [Row(task=task, status=status, result=result) for task, status, result in ROWS]


def test_one_row_is_found_by_its_task(results: Results) -> None:
    assert results.row("a") == Row(task="a", status="SUCCESS", result=b'{"ok": 1}')
    assert results.row("nobody") is None


def test_rows_are_counted_all_or_by_status(results: Results) -> None:
    assert (results.count(), results.count("SUCCESS"), results.count("REVOKED")) == (3, 1, 0)


def test_text_in_place_of_bytes_is_read_as_it_is(results: Results, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "results.sqlite3")) as connection, connection:
        connection.execute("UPDATE celery_taskmeta SET result = 'text' WHERE task_id = 'a'")
    row = results.row("a")
    assert row is not None
    assert row.result == "text"  # type: ignore[comparison-overlap] # a foreign file may hold any value.


def test_groups_are_read(results: Results) -> None:
    (group,) = results.groups()
    assert group == GroupRow(taskset="g", result=group.result)


def test_nothing_can_be_written_through_it(results: Results) -> None:
    engine = results._engine  # noqa: SLF001 - it is the connection that has to refuse.
    with engine.connect() as connection, pytest.raises(sa.exc.OperationalError, match="readonly"):
        connection.execute(sa.text("DELETE FROM celery_taskmeta"))
    assert results.count() == 3


def test_a_writer_in_a_transaction_keeps_nobody_from_reading(writer: sqlite3.Connection, results: Results) -> None:
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("DELETE FROM celery_taskmeta")
    assert results.count() == 3
    writer.commit()
    assert results.count() == 0


def test_tables_that_are_not_there_yet_have_no_rows(path: Path) -> None:
    create(path)
    results = Results.of_file(path)
    assert (list(results.rows()), results.groups()) == ([], [])
    assert (results.count(), results.row("a")) == (0, None)


def test_a_missing_file_is_an_error_and_is_not_made(path: Path) -> None:
    with pytest.raises(ResultsError, match=r"results\.sqlite3: unable to open"):
        Results.of_file(path).count()
    assert not path.exists()


def test_a_file_that_is_no_database_is_an_error(path: Path) -> None:
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(ResultsError, match="not a database"):
        list(Results.of_file(path).rows())


@pytest.mark.parametrize("name", ["a b", "why?mode=rw", "100%", "50%25", "c#", "ä", "a&b=c"])
def test_a_path_may_hold_what_means_something_in_a_url(tmp_path: Path, name: str) -> None:
    path = tmp_path / name / "results.sqlite3"
    path.parent.mkdir()
    fill(path).close()
    assert Results.of_file(path).count() == 3


@pytest.mark.parametrize("prefix", ["", "db+"])
def test_celerys_form_of_a_url_is_understood(path: Path, results: Results, prefix: str) -> None:
    assert Results(f"{prefix}sqlite:///{path}").count() == results.count()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "results.sqlite3",
        "redis://localhost/0",
        "postgresql+nosuchdriver://u:secret@h/d",
        "postgresql://u:secret@h:x/d?password=secret",
        "postgresql://u:p@secret/secret@h/d",
    ],
)
def test_a_url_that_cannot_be_used_is_an_error_without_a_password(url: str) -> None:
    with pytest.raises(ResultsError, match="cannot use the results URL") as caught:
        Results(url)
    assert "secret" not in str(caught.value)


@pytest.mark.skipif(sa.__version__.startswith("1."), reason="SQLAlchemy 1.4 does not know psycopg 3")
def test_a_driver_that_is_not_installed_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    # As Python does where there is no such module.
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(
        ResultsError, match=r"its driver psycopg is not installed.*install the package psycopg\[binary\]"
    ):
        Results("postgresql+psycopg://u:secret@h/d")
    monkeypatch.setitem(sys.modules, "MySQLdb", None)
    with pytest.raises(ResultsError, match="install the package mysqlclient"):
        Results("mysql://u:secret@h/d")


def test_a_server_that_does_not_answer_is_an_error_without_a_password() -> None:
    pytest.importorskip("psycopg")
    # Nobody listens on port 1.
    theirs = Results("db+postgresql+psycopg://u:secret@127.0.0.1:1/d?password=secret")
    with pytest.raises(ResultsError, match=r"u:\*\*\*@127\.0\.0\.1:1/d.*refused") as caught:
        theirs.count()
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


DONE = datetime(2026, 11, 22, 20, 0, 0, 250_000)  # noqa: DTZ001 - as a row has it, without a zone.


@pytest.fixture
def dated(path: Path) -> Results:
    """Return the results that workers without the agent leave."""
    create(path)
    rows: list[tuple[str, str, bytes, str | None]]
    rows = [(f"t-{number}", "SUCCESS", b"1", f"{DONE}") for number in range(7)]
    rows += [("f", "FAILURE", b'{"exc_type": "KeyError"}', f"{DONE}"), ("v", "REVOKED", b"{}", None)]
    rows += [("s", "STARTED", b"{}", None), ("r", "RETRY", b"{}", None)]
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE celery_taskmeta (task_id TEXT, status TEXT, result BLOB, date_done DATETIME)")
        connection.executemany("INSERT INTO celery_taskmeta VALUES (?, ?, ?, ?)", rows)
        connection.commit()
    return Results.of_file(path)


def test_the_endings_of_some_tasks_are_found_by_their_ids(dated: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK_IDS", 3)
    asked = ["t-0", "nobody", "f", "v", "s", "r", "t-6"]
    first, second, third = (sorted(part) for part in dated.endings(iter(asked)))
    assert first == [Ending("f", "FAILURE", DONE, b'{"exc_type": "KeyError"}'), Ending("t-0", "SUCCESS", DONE, None)]
    assert second == [Ending("v", "REVOKED", None, None)]
    assert third == [Ending("t-6", "SUCCESS", DONE, None)]
    assert list(dated.endings([])) == []


def test_no_more_ids_are_taken_than_are_looked_up(dated: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK_IDS", 3)
    asked = iter(["t-0", "t-1", "t-2", "t-3"])
    next(dated.endings(asked))
    assert list(asked) == ["t-3"]


def copied(path: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        query = "SELECT task_id, status, result, date_done FROM celery_taskmeta ORDER BY task_id"
        return connection.execute(query).fetchall()


def test_where_there_is_no_table_yet_nothing_has_ended(path: Path, tmp_path: Path) -> None:
    create(path)
    theirs = Results.of_file(path)
    assert list(theirs.endings(["a"])) == [[]]
    target = tmp_path / "copy.sqlite3"
    assert copy(theirs, ["a"], target, lambda _, done: done.timestamp()) == 0
    assert copied(target) == []


def test_a_copy_has_the_rows_that_were_asked_for_and_no_other(
    dated: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK_IDS", 2)
    target = tmp_path / "copy.sqlite3"
    target.write_bytes(b"what was there before")
    asked = ["t-1", "nobody", "f", "s", "v"]

    def two_hours_west(_: str, done: datetime) -> float:
        return done.replace(tzinfo=UTC).timestamp() - 7_200

    assert copy(dated, asked, target, two_hours_west) == 4
    assert copied(target) == [
        ("f", "FAILURE", b'{"exc_type": "KeyError"}', "2026-11-22 18:00:00.250000"),
        ("s", "STARTED", b"{}", None),
        ("t-1", "SUCCESS", b"1", "2026-11-22 18:00:00.250000"),
        ("v", "REVOKED", b"{}", None),
    ]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["copy.sqlite3", "results.sqlite3"]


def test_a_copy_that_cannot_be_made_leaves_nothing_and_is_an_error(dated: Results, path: Path, tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"cannot copy the results to .*nowhere"):
        copy(dated, ["f"], tmp_path / "nowhere" / "copy.sqlite3", lambda _, done: done.timestamp())
    path.unlink()
    with pytest.raises(ResultsError, match="unable to open"):
        copy(dated, ["f"], tmp_path / "copy.sqlite3", lambda _, done: done.timestamp())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("stored", "value"), [(None, None), (b"null", None), (b'{"a": [1, "\xc3\xa4"]}', {"a": [1, "ä"]})]
)
def test_a_json_result_is_decoded(stored: bytes | None, value: object) -> None:
    assert decode(Row(task="a", status="SUCCESS", result=stored)) == value


class Bomb:
    """Goes off when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return pytest.fail, ("it was unpickled",)


@pytest.mark.parametrize(
    ("stored", "what"),
    [
        (pickle.dumps(Bomb()), "pickled"),
        (b"\xff", "not JSON"),
        (json.dumps("a").encode()[:-1], "not JSON"),
        (b"[" * 100_000, "nested too deep"),
    ],
)
def test_what_is_not_json_is_not_decoded(stored: bytes, what: str) -> None:
    with pytest.raises(ResultsError, match=f"task a is {what}, and is not decoded"):
        decode(Row(task="a", status="SUCCESS", result=stored))


def test_folding_leaves_one_file_that_holds_everything(tmp_path: Path) -> None:
    path = tmp_path / "results.sqlite3"
    create(path)
    # A process that is killed closes nothing.
    code = (
        "import os, sqlite3, sys; database = sqlite3.connect(sys.argv[1]);"
        "database.execute('CREATE TABLE celery_taskmeta (task_id TEXT, status TEXT, result BLOB)');"
        "database.execute(\"INSERT INTO celery_taskmeta VALUES ('a', 'SUCCESS', NULL)\");"
        "database.commit(); os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert path.with_name("results.sqlite3-wal").stat().st_size
    fold(path)
    assert [file.name for file in tmp_path.iterdir()] == ["results.sqlite3"]
    assert Results.of_file(path).count("SUCCESS") == 1


def test_a_copy_of_everything_has_the_rows_of_both_tables_as_they_are(dated: Results, tmp_path: Path) -> None:
    target = tmp_path / "copy.sqlite3"
    target.write_bytes(b"what was there before")
    with closing(sqlite3.connect(tmp_path / "results.sqlite3")) as connection, connection:
        connection.execute("CREATE TABLE celery_tasksetmeta (taskset_id TEXT, result BLOB)")
        connection.execute("INSERT INTO celery_tasksetmeta VALUES ('g', x'5b5d')")
    copy_all(dated, target)
    theirs = Results.of_file(target)
    assert list(theirs.rows()) == list(dated.rows())
    assert theirs.groups() == [GroupRow(taskset="g", result=b"[]")]
    (ours,), (endings,) = theirs.endings(["f", "t-1"]), dated.endings(["f", "t-1"])
    assert sorted(ours) == sorted(endings)


def test_a_copy_of_everything_from_a_database_without_tables_is_empty(path: Path, tmp_path: Path) -> None:
    create(path)
    copy_all(Results.of_file(path), tmp_path / "copy.sqlite3")
    theirs = Results.of_file(tmp_path / "copy.sqlite3")
    assert (list(theirs.rows()), theirs.groups()) == ([], [])


def test_a_copy_of_everything_that_fails_leaves_what_was_there(dated: Results, path: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy.sqlite3"
    target.write_bytes(b"what was there before")
    path.write_bytes(b"no database" * 100)
    with pytest.raises(ResultsError, match="cannot read the results"):
        copy_all(dated, target)
    assert target.read_bytes() == b"what was there before"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["copy.sqlite3", "results.sqlite3"]
