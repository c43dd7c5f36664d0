"""The scenario of the import: its file, its delimiter, its steps, its effects and its check."""

import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import create_engine

from harness import Drive, Effect
from harness.errors import UsageError
from harness.records.event import Kind
from harness.records.journal import Writer
from harness.scenario import Steps
from scenarios.bulk_data.made_file import write_file
from scenarios.bulk_data.order_file import BadFile, Survey, delimiter_of
from scenarios.bulk_data.scenario import group_differences, scenario
from scenarios.bulk_data.tables import create_tables, register
from tests.unit.scenarios.bulk_data.orders import (
    BAD,
    GOOD,
    HEADER,
    begun_at_once,
    no_file,
    rows,
    run_import,
    saved,
    surveyed,
    write,
)

# The file and its delimiter


def test_the_same_seed_makes_the_same_file_with_the_usual_dirt(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_file(tmp_path / name, rows=20_000, seed=seed)
    content = (tmp_path / "a").read_bytes()
    assert content == (tmp_path / "b").read_bytes()
    assert content != (tmp_path / "c").read_bytes()
    lines = content.splitlines()[1:]
    assert sum(line != b"" for line in lines) == 20_000
    ids = Counter(line.partition(b",")[0] for line in lines if line.count(b",") == 5)
    assert 300 < sum(count - 1 for count in ids.values() if count > 1) < 700
    assert content.count(b"\r\n") > 50


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (no_file, "is no file"),
        (Path.mkdir, "is no file"),
        (Path.touch, "is empty"),
        (lambda path: path.symlink_to("/proc/self/mem"), "cannot be copied"),
    ],
)
def test_data_that_cannot_be_copied_or_is_empty_is_refused_before_anything_is_sent(
    tmp_path: Path, stack: Any, make: Any, said: str
) -> None:
    make(tmp_path / "given.csv")
    with pytest.raises(UsageError, match=f"--data .*given.csv {said}.* Give a CSV file with the columns order_id"):
        scenario.prepare(stack, Drive(count=2, seed=1, options={"data": tmp_path / "given.csv"}))


def test_data_that_is_given_is_what_is_imported_and_rows_say_how_many_are_made(tmp_path: Path, stack: Any) -> None:
    given = write(tmp_path / "given.csv", GOOD)
    scenario.prepare(stack, Drive(count=2, seed=1, options={"data": given}))
    assert (tmp_path / "app/orders.csv").read_bytes() == given.read_bytes()
    for count in (0, 7):
        scenario.prepare(stack, Drive(count=2, seed=1, options={"rows": count}))
        assert (tmp_path / "app/orders.csv").read_bytes().count(b"\n") >= count + 1


DELIMITERS = [(b";", "';'"), (b"\t", "tab"), (b"|", "'|'"), (b"^", "'^'"), (b" ", "' '")]


@pytest.mark.parametrize(("mark", "shown"), DELIMITERS)
@pytest.mark.parametrize(
    "header", [HEADER, b"note," + HEADER, b'"order_id"' + HEADER[8:], b"\xef\xbb\xbf" + HEADER[:50]]
)
def test_another_delimiter_is_named_with_the_way_to_say_it(
    tmp_path: Path, stack: Any, header: bytes, mark: bytes, shown: str
) -> None:
    path = write(tmp_path / "given.csv", header=header.replace(b",", mark))
    said = re.escape(f"are separated by {shown}, not by ','")
    with pytest.raises(BadFile, match=rf"{said}: say --delimiter {re.escape(shown)}\."):
        surveyed(path)
    with pytest.raises(
        UsageError, match=rf"columns of --data .*given.csv {said}: give --delimiter {re.escape(shown)}\."
    ):
        scenario.prepare(stack, Drive(count=2, seed=1, options={"data": path}))


@pytest.mark.parametrize(("mark", "shown"), DELIMITERS)
def test_a_file_with_the_delimiter_that_was_said_is_imported(
    tmp_path: Path, stack: Any, mark: bytes, shown: str
) -> None:
    inside = mark if mark != b"\t" else b"-"
    lines = [GOOD, GOOD.replace(b"A-1", b'"A%b2"' % inside.replace(mark, b",")), b"A-3,a", BAD[0][0]]
    header, *lines = (line.replace(b",", mark) for line in (HEADER, *lines))
    given = write(tmp_path / "given.csv", *lines, header=header)
    drive = Drive(count=2, seed=1, options={"data": given, "delimiter": shown.strip("'") or mark.decode()})
    scenario.prepare(stack, drive)
    engine = create_engine(f"sqlite:///{tmp_path}/app/app.sqlite3")
    create_tables(engine)
    assert run_import(tmp_path / "app/orders.csv", engine, "orders-1-0")["rejected"] == 2
    assert [row[0] for row in rows(engine, "orders")] == sorted(["A-1", f"A{inside.decode()}2"])
    assert list(scenario.check(stack, drive)) == []
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE orders SET quantity = 3 WHERE order_id = 'A-1'")
    engine.dispose()
    assert {finding.code for finding in scenario.check(stack, drive)} == {"rows-differ", "totals-differ"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"data": "given.csv", "rows": 5}, "--rows is for a made file, and --data gives one: leave one of the two out"),
        ({"data": "given.csv", "rows": 0}, "--rows is for a made file"),
        ({"delimiter": ";"}, "--delimiter says how --data is written: give --data as well"),
        ({"delimiter": ",", "rows": 5}, "--delimiter says how --data is written"),
        *(
            ({"data": "given.csv", "delimiter": delimiter}, f"--delimiter {delimiter!r} cannot be: it is one ASCII")
            for delimiter in ("", "::", '"', "a", "7", "_", "\n", "§")
        ),
        ({"data": "given.csv", "delimiter": ";"}, "separated by ',', not by ';': give --delimiter ','"),
    ],
)
def test_options_that_contradict_each_other_or_the_file_are_refused(
    tmp_path: Path, stack: Any, options: dict[str, Any], said: str
) -> None:
    given = write(tmp_path / "given.csv", GOOD)
    own = {**options, "data": given} if "data" in options else options
    with pytest.raises(UsageError, match=re.escape(said)):
        scenario.prepare(stack, Drive(count=2, seed=1, options=own))


def test_a_made_file_after_one_that_was_given_has_commas_again(tmp_path: Path, stack: Any) -> None:
    given = write(tmp_path / "given.csv", header=HEADER.replace(b",", b";"))
    path = tmp_path / "app/orders.csv"
    scenario.prepare(stack, Drive(count=2, seed=1, options={"data": given, "delimiter": ";"}))
    assert delimiter_of(path) == ";"
    scenario.prepare(stack, Drive(count=2, seed=1, options={"rows": 3}))
    assert delimiter_of(path) == ","


# Steps, effects and check


def test_every_closing_of_an_import_is_an_effect_and_without_a_database_there_is_none(stack: Any) -> None:
    drive = Drive(count=2, seed=1)
    assert list(scenario.effects(stack, drive)) == []
    engine = create_engine(f"sqlite:///{stack.folder.path}/app/app.sqlite3")
    with engine.begin() as connection:
        # As another scenario does, on the same stack.
        connection.exec_driver_sql("CREATE TABLE ticks (number)")
    assert list(scenario.effects(stack, drive)) == []
    assert list(scenario.check(stack, drive)) == []
    create_tables(engine)
    for import_id, closings in (("a", 0), ("b", 1), ("c", 2)):
        register(engine, import_id, Survey(size=1, digest="", chunks=()))
        with engine.begin() as connection:
            connection.exec_driver_sql("UPDATE imports SET closings = ? WHERE import_id = ?", (closings, import_id))
    engine.dispose()
    effects = [Effect(key=f"row:import-{import_id}") for import_id in ("b", "c", "c")]
    assert list(scenario.effects(stack, drive)) == effects


def test_the_check_compares_a_run_with_its_file_and_its_journal(stack: Any) -> None:
    drive = Drive(count=1, seed=4, options={"rows": 300})
    scenario.prepare(stack, drive)
    engine = create_engine(f"sqlite:///{stack.folder.path}/app/app.sqlite3")
    create_tables(engine)
    run_import(stack.folder.path / "app/orders.csv", engine, "orders-4-0")
    journal = Writer(stack.folder.journal, node="worker-1", role="worker")
    for task, retries in (("a", 0), ("b", 0), ("b", 1)):
        name = "scenarios.bulk_data.load_chunk"
        journal.write(Kind.INTENDED, task, name=name, retries=retries, parent="import" if not retries else task)
        journal.write(Kind.STARTED, task, name=name, retries=retries)
    journal.close()
    (torn,) = stack.folder.journal.iterdir()
    torn.write_bytes(torn.read_bytes() + b'{"kind":"intended","name":"scenarios.bulk_data.load_chunk","ta')
    stack.results.groups = lambda: [SimpleNamespace(result=saved("a", "b"))]
    assert list(scenario.check(stack, drive)) == []
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM orders WHERE order_id = (SELECT min(order_id) FROM orders)")
    engine.dispose()
    stack.results.groups = list
    assert {finding.code for finding in scenario.check(stack, drive)} == {
        "rows-missing",
        "totals-differ",
        "group-differs",
    }


def test_each_pair_of_steps_is_an_import_of_its_own_and_none_can_be_taken_over_http() -> None:
    sent: list[Any] = []
    producer: Any = SimpleNamespace(send=lambda name, **how: sent.append((name, how)))
    for number in (0, 1, 2, 7):
        scenario.step(producer, number, 9)
        assert scenario.request(number, 9) is None
    assert {name for name, _ in sent} == {"scenarios.bulk_data.import_orders"}
    import_ids = [how["kwargs"]["import_id"] for _, how in sent]
    assert import_ids == ["orders-9-0", "orders-9-0", "orders-9-1", "orders-9-3"]
    assert [list(how["expect"].effects) for _, how in sent] == [[f"row:import-{import_id}"] for import_id in import_ids]


def test_the_check_is_of_the_imports_that_were_sent_whatever_their_numbers(stack: Any) -> None:
    steps = Steps.dealt([2, 0, 1])  # 0, 2, 3
    drive = Drive(count=3, seed=4, options={"rows": 300}, steps=steps)
    scenario.prepare(stack, drive)
    engine = create_engine(f"sqlite:///{stack.folder.path}/app/app.sqlite3")
    create_tables(engine)
    begun_at_once(stack.folder.path / "app/orders.csv", engine, "orders-4-0", "orders-4-1", "orders-4-2")
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM rejects WHERE import_id = 'orders-4-2'")
    assert list(scenario.check(stack, drive)) == []
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM rejects WHERE import_id = 'orders-4-1'")
    engine.dispose()
    (finding,) = scenario.check(stack, drive)
    assert finding.code == "rejects-differ"
    assert "orders-4-1 line " in finding.text


def test_a_file_that_was_refused_is_left_to_the_audit(stack: Any) -> None:
    (stack.folder.path / "app/orders.csv").write_bytes(b"\xff\xfe no header at all")
    assert list(scenario.check(stack, Drive(count=1, seed=4))) == []


@pytest.mark.parametrize(
    ("rows_saved", "count"),
    [
        ([saved("a", "b"), saved("c")], 0),
        ([saved("c"), saved("b", "a")], 0),
        ([saved("a", "b")], 1),
        ([saved("a", "b"), saved("c"), saved("d")], 1),
        ([saved("a"), saved("c")], 2),
        ([saved("a", "b", "b"), saved("c")], 2),
        ([saved("a", "b"), None], 2),
        ([saved("a", "b"), b"\x80\x05"], 2),
        ([saved("a", "b"), b"[1, 2]"], 2),
    ],
)
def test_a_saved_group_must_have_the_chunks_that_were_sent_and_no_others(rows_saved: list[bytes], count: int) -> None:
    found = list(group_differences(rows_saved, [frozenset("ab"), frozenset("c")]))
    assert [(finding.code, finding.count) for finding in found] == ([("group-differs", count)] if count else [])
