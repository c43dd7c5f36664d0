"""The import of orders: cutting, reading, writing, closing, and what is predicted of all that."""

import hashlib
import io
import json
import os
import random
import re
import sqlite3
import sys
import tracemalloc
import unicodedata
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery.backends.database import DatabaseBackend
from celery.exceptions import Reject, Retry
from kombu.exceptions import OperationalError as BrokerError
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError, OperationalError

from harness import Drive, Effect
from harness.errors import UsageError
from harness.records.event import Kind
from harness.records.journal import Writer
from harness.scenario import Steps
from scenarios.app import app, database, prepare_sqlite
from scenarios.bulk_data import order_file, order_row, prediction, tables, tasks
from scenarios.bulk_data.columns import COLUMNS
from scenarios.bulk_data.made_file import write_file
from scenarios.bulk_data.order_file import (
    BadFile,
    Chunk,
    Survey,
    delimiter_of,
    described_by,
    open_file,
    read_header,
    read_lines,
    survey,
)
from scenarios.bulk_data.order_row import Row, read_row
from scenarios.bulk_data.prediction import Prediction
from scenarios.bulk_data.scenario import group_differences, scenario
from scenarios.bulk_data.tables import close, create_tables, register, store
from scenarios.bulk_data.tasks import BATCH_ROWS, close_import, import_orders, load, load_chunk

HEADER = ",".join(COLUMNS).encode()
GOOD = b"A-1,zoe@example.com,TEA-01,2,1250,2024-05-17"
LAYOUT = read_header(io.BytesIO(HEADER))


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """Yield the app's database, which the tasks use, too."""
    monkeypatch.setenv("APP_DATABASE_URL", f"sqlite:///{tmp_path}/app.sqlite3")
    create_tables(database())
    yield database()
    database().dispose()


@pytest.fixture(params=["at once", "portably"])
def paths(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to write a batch, one after the other."""
    if request.param == "portably":
        monkeypatch.setattr(tables, "_write_at_once", tables.write_portably)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty result database, which the app uses during the test."""
    backend = DatabaseBackend(app=app, url=f"sqlite:///{tmp_path}/results.sqlite3")
    monkeypatch.setattr(app, "_backend_cache", backend)
    return tmp_path / "results.sqlite3"


def write(path: Path, *lines: bytes, header: bytes = HEADER, end: bytes = b"\n") -> Path:
    path.write_bytes(end.join((header, *lines)) + end)
    return path


def surveyed(path: Path, **options: Any) -> Survey:
    with open_file(path) as file:
        return survey(file, **options)


def run_import(path: Path, engine: Engine, import_id: str = "i", chunk_bytes: int = 200) -> dict[str, int]:
    """All that the tasks do, in one process."""
    found = surveyed(path, delimiter=delimiter_of(path), chunk_bytes=chunk_bytes)
    register(engine, import_id, found)
    counts = [load(str(path), import_id, chunk, engine) for chunk in found.chunks]
    assert all(one["good"] + one["rejected"] == one["read"] for one in counts)
    return close(engine, import_id, counts)


def rows(engine: Engine, table: str) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(f"SELECT * FROM {table} ORDER BY 1, 2")]  # noqa: S608 - a table of ours.


def codes(path: Path, tmp_path: Path, *import_ids: str) -> list[str]:
    """Return the codes of the differences that the check finds in the database of a test."""
    scratch = tmp_path / "told.sqlite3"
    scratch.unlink(missing_ok=True)
    with closing(Prediction(path, scratch)) as prediction:
        return [finding.code for finding in prediction.differences(tmp_path / "app.sqlite3", import_ids or ["i"])]


# Cutting


def test_chunks_are_whole_lines_that_follow_each_other_whatever_the_sizes(tmp_path: Path) -> None:
    chance = random.Random(5)  # noqa: S311 - test data.
    for _ in range(150):
        lines = [b"x" * chance.choice((0, 1, 5, 40, 300)) for _ in range(chance.randrange(40))]
        body = chance.choice((b"\n", b"\r\n")).join(lines) + chance.choice((b"", b"\n"))
        path = tmp_path / "orders.csv"
        path.write_bytes(HEADER + b"\n" + body)
        found = surveyed(path, chunk_bytes=chance.randint(1, 200), block_bytes=chance.randint(1, 300))
        content = path.read_bytes()
        assert (found.size, found.digest) == (len(content), hashlib.sha256(content).hexdigest())
        at = len(HEADER) + 1
        for chunk in found.chunks:
            assert chunk.offset == at
            assert chunk.first_line == content.count(b"\n", 0, at) + 1
            at += chunk.length
            assert at == len(content) or content[at - 1 : at] == b"\n"
        assert at == len(content)


def test_chunks_have_about_the_size_that_was_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "orders.csv", *[b"x" * 49] * 1000)
    lengths = [chunk.length for chunk in surveyed(path, chunk_bytes=1010, block_bytes=333).chunks]
    assert set(lengths[:-1]) == {1050}
    assert sum(lengths) == 50_000


def test_a_file_that_would_have_too_many_chunks_gets_larger_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "orders.csv", *[GOOD] * 100)
    assert len(surveyed(path, chunk_bytes=1).chunks) == 100
    monkeypatch.setattr(order_file, "MOST_CHUNKS", 7)
    assert len(surveyed(path, chunk_bytes=1).chunks) == 7


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_file_of_a_header_alone_is_one_empty_chunk(tmp_path: Path, engine: Engine, end: bytes) -> None:
    path = tmp_path / "orders.csv"
    path.write_bytes(HEADER + end)
    assert [chunk.length for chunk in surveyed(path).chunks] == [0]
    assert run_import(path, engine) == {"read": 0, "good": 0, "rejected": 0, "orders": 0, "total_cents": 0}
    assert codes(path, tmp_path) == []


# Files that are refused


def no_file(_path: Path) -> None:
    """There is nothing there."""


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (no_file, "No such file"),
        (Path.mkdir, "is a directory"),
        (os.mkfifo, "no regular file"),
        (Path.touch, r"empty \(0 bytes\)"),
        (
            lambda path: path.write_bytes(b"order_id,sku,quantity\n"),
            "lacks customer_email, unit_price_cents, ordered_at",
        ),
        (
            lambda path: path.write_bytes(HEADER.replace(b",", b";")),
            "separated by ';', not by ',': say --delimiter ';'",
        ),
        (lambda path: path.write_bytes(b"\xef\xbb\xbf"), "lacks order_id"),
        (lambda path: path.write_bytes(HEADER + b",sku\n"), "names sku more than once"),
        (lambda path: path.write_bytes(b'"' + HEADER + b"\n"), "a quote that is not closed"),
        (lambda path: path.write_text(HEADER.decode() + "\n", encoding="utf-16"), "not UTF-8; .* ff fe"),
        (lambda path: path.write_bytes(b"x" * 70_000), "longer than 65536 bytes"),
        (lambda path: path.write_bytes(HEADER + b"\r" + GOOD + b"\r"), "lacks ordered_at"),
    ],
)
def test_a_file_that_cannot_be_imported_is_refused_with_a_reason_and_not_tried_again(
    tmp_path: Path, engine: Engine, results: Path, make: Any, said: str
) -> None:
    path = tmp_path / "orders.csv"
    make(path)
    done = import_orders.apply(kwargs={"path": str(path), "import_id": "i"})
    assert (done.state, type(done.result)) == ("FAILURE", BadFile)
    with pytest.raises(BadFile, match=said):
        surveyed(path)
    assert rows(engine, "imports") == []
    assert not results.exists() or contents(results, "celery_tasksetmeta") == []


def contents(path: Path, table: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608 - a table of ours.


def test_a_file_that_the_versions_have_no_room_for_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "orders.csv", GOOD)
    monkeypatch.setattr(order_file, "PLACE_BITS", 6)
    with pytest.raises(BadFile, match="less than 1 TiB"):
        surveyed(path)


def test_another_file_under_a_known_import_id_is_refused(tmp_path: Path, engine: Engine) -> None:
    register(engine, "i", surveyed(write(tmp_path / "a.csv", GOOD)))
    register(engine, "i", surveyed(write(tmp_path / "same.csv", GOOD)))
    with pytest.raises(BadFile, match=r"import i is of another file.* give it an import_id of its own"):
        register(engine, "i", surveyed(write(tmp_path / "b.csv", GOOD.replace(b"2", b"3", 1))))


def test_several_that_open_one_import_at_once_open_one(tmp_path: Path, engine: Engine) -> None:
    found = surveyed(write(tmp_path / "orders.csv", GOOD))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: register(engine, "i", found), range(12)))
    assert len(rows(engine, "imports")) == 1


def test_a_file_that_was_cut_short_since_it_was_surveyed_is_refused(tmp_path: Path, engine: Engine) -> None:
    path = write(tmp_path / "orders.csv", *[GOOD] * 50)
    found = surveyed(path)
    register(engine, "i", found)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(BadFile, match="was changed while"):
        load(str(path), "i", found.chunks[0], engine)


@pytest.mark.parametrize("given", [{"import_id": ""}, {"import_id": "i" * 101}, {"import_id": "i", "chunk_bytes": 0}])
def test_arguments_that_cannot_be_are_an_error(given: dict[str, Any], results: Path) -> None:
    del results
    done = import_orders.apply(kwargs={"path": "orders.csv", **given})
    assert (done.state, type(done.result)) == ("FAILURE", ValueError)


# Reading


@pytest.mark.parametrize("header", [HEADER, b"\xef\xbb\xbf" + HEADER, b'"order_id", ' + HEADER.partition(b",")[2]])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_marks_line_ends_and_quotes_make_no_difference(
    tmp_path: Path, engine: Engine, header: bytes, end: bytes
) -> None:
    path = write(tmp_path / "orders.csv", GOOD, b"", GOOD.replace(b"A-1", b'"A ""2"", b"'), header=header, end=end)
    path.write_bytes(path.read_bytes().removesuffix(end))
    assert run_import(path, engine) == {"read": 2, "good": 2, "rejected": 0, "orders": 2, "total_cents": 5000}
    assert [row[0] for row in rows(engine, "orders")] == ['A "2", b', "A-1"]
    assert codes(path, tmp_path) == []


def test_columns_may_stand_in_another_order_and_beside_others(tmp_path: Path, engine: Engine) -> None:
    header = b"ordered_at,note,sku,order_id,unit_price_cents,quantity,customer_email"
    path = write(tmp_path / "orders.csv", b"2024-05-17,hi,TEA-01,A-1,1250,2,zoe@example.com", header=header)
    run_import(path, engine)
    assert rows(engine, "orders")[0][:6] == ("A-1", "zoe@example.com", "TEA-01", 2, 1250, "2024-05-17")
    assert codes(path, tmp_path) == []


def replaced(place: int, value: str) -> bytes:
    values = GOOD.decode().split(",")
    values[place] = value
    return ",".join(values).encode()


BAD = [
    (GOOD + b"\r" + GOOD, "line-end"),
    (replaced(2, "THÉ").decode().encode("latin-1"), "not-utf8"),
    (replaced(2, '"TEA'), "quote"),
    (replaced(2, '"TEA"x'), "quote"),
    (b" ", "columns"),
    (b"\x00", "columns"),
    (GOOD + b",", "columns"),
    (replaced(0, ""), "order_id"),
    (replaced(0, '""'), "order_id"),
    (replaced(0, "A\x001"), "order_id"),
    (replaced(0, "A\u200b1"), "order_id"),
    (replaced(0, "A" * 65), "order_id"),
    (replaced(1, "nobody"), "customer_email"),
    (replaced(1, "a@b"), "customer_email"),
    (replaced(1, "a@b..example"), "customer_email"),
    (replaced(1, "a@b@example.com"), "customer_email"),
    (replaced(1, "a b@example.com"), "customer_email"),
    (replaced(1, "a@exämple.com"), "customer_email"),
    (replaced(1, "a" * 65 + "@example.com"), "customer_email"),
    (replaced(1, "a@" + "b." * 150 + "com"), "customer_email"),
    (replaced(2, "TEA\u00a001"), "sku"),
    *[(replaced(2, f"TEA{mark}01"), "sku") for mark in "\xad\u2028\ufeff\ue000\uffff\U000e0001\U0001ffff\U00100000"],
    *[
        (replaced(3, value), "quantity")
        for value in ("", "0", "-1", "+1", "1.0", "1e3", " 1", "01", "10001", "٣", "9" * 5000)
    ],
    *[(replaced(4, value), "unit_price_cents") for value in ("", "-1", "12.50", "00", "10000001")],
    *[
        (replaced(5, value), "ordered_at")
        for value in ("", "2024-02-30", "2024-W01-1", "20240105", "24-01-05", "2024-01-05T00:00")
    ],
]


def test_bad_lines_are_rejected_with_number_and_reason_and_their_neighbours_are_loaded(
    tmp_path: Path, engine: Engine
) -> None:
    lines = [line for bad, _ in BAD for line in (GOOD, b"", bad)]
    path = write(tmp_path / "orders.csv", *lines)
    totals = run_import(path, engine, chunk_bytes=1)
    assert rows(engine, "rejects") == [("i", 4 + 3 * at, reason) for at, (_, reason) in enumerate(BAD)]
    assert totals == {"read": 2 * len(BAD), "good": len(BAD), "rejected": len(BAD), "orders": 1, "total_cents": 2500}
    assert codes(path, tmp_path) == []


GOOD_ONES = [
    replaced(0, "ø 茶 '"),
    replaced(0, "A" * 64),
    replaced(1, "o'neil+shop@a-b.example.org"),
    replaced(1, "søren@xn--exmple-cua.com"),
    replaced(2, 'TEA"01'),
    # Of Unicode 15, of none yet, and a mark on what stands before it.
    *[replaced(2, mark) for mark in ("🩷", "\u0378", "\U0003fffd", "e\u0301")],
    replaced(3, "10000"),
    replaced(4, "0"),
    replaced(4, "10000000"),
    replaced(5, "2024-02-29"),
    replaced(5, "0001-01-01"),
]


def test_lines_at_the_edge_of_what_is_good_are_loaded(tmp_path: Path, engine: Engine) -> None:
    path = write(tmp_path / "orders.csv", *GOOD_ONES)
    assert run_import(path, engine)["good"] == len(GOOD_ONES)
    assert rows(engine, "rejects") == []
    assert codes(path, tmp_path) == []


def test_what_is_printable_does_not_depend_on_the_edition_of_unicode_that_a_python_knows() -> None:
    every = list(map(chr, range(sys.maxunicode + 1)))
    hidden = {mark for mark in every if not order_row._is_printable(mark)}  # noqa: SLF001 - two rules are compared.
    assert hidden == {mark for mark in every if not prediction._is_shown(mark)}  # noqa: SLF001 - the same.
    # Controls, spaces, line ends, formats; surrogates and private use; two at the end of each plane, and 32 more.
    assert len(hidden) == 65 + 16 + 2 + 211 + 2048 + 6400 + 2 * 65536 + 2 * 15 + 32
    old = unicodedata.ucd_3_2_0
    for mark in every:
        kind = old.category(mark)
        # What is assigned seldom becomes another thing, and what is not says nothing.
        if kind != "Cn" and kind == unicodedata.category(mark):
            assert (mark in hidden) == (kind[0] in "CZ" and mark != " "), hex(ord(mark))


def test_what_is_written_otherwise_is_another_order(tmp_path: Path, engine: Engine) -> None:
    names = ["É", "é", "E\u0301", "ß", "SS", "ss", "\u212a", "K", "k", "ﬁ", "fi", "İ", "i\u0307", "1", "¹"]
    path = write(tmp_path / "orders.csv", *(replaced(0, name) for name in names))
    assert run_import(path, engine)["orders"] == len(names)
    assert {row[0] for row in rows(engine, "orders")} == set(names)
    assert codes(path, tmp_path) == []


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


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"dialect": {}}', '{"dialect": {"delimiter": 7}}', "\xff", '"x"'])
def test_a_description_that_does_not_say_the_delimiter_refuses_the_file(
    tmp_path: Path, engine: Engine, results: Path, text: str
) -> None:
    del engine, results
    path = write(tmp_path / "orders.csv", GOOD)
    described_by(path).write_text(text, encoding="latin-1")
    with pytest.raises(BadFile, match=r"orders\.csv-metadata\.json (must be like|says the delimiter 7)"):
        delimiter_of(path)
    done = import_orders.apply(kwargs={"path": str(path), "import_id": "i"})
    assert (done.state, type(done.result)) == ("FAILURE", BadFile)


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
@pytest.mark.parametrize("extra", [-1, 0, 1, 2, 3, 100_000])
def test_a_line_is_too_long_from_one_byte_above_the_limit(tmp_path: Path, extra: int, end: bytes) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"x" * (100 + extra) + end + b"next")
    with path.open("rb") as file:
        found = list(read_lines(file, Chunk(offset=0, length=path.stat().st_size, first_line=2), limit=100))
    assert (found[0][1] is None) == (extra > 0 or (not end and extra + 4 > 0))
    if end:
        assert found[1:] == [(100 + extra + len(end), b"next")]


def test_the_prediction_has_the_same_limit_for_lines(tmp_path: Path, engine: Engine) -> None:
    for length in (65_535, 65_536, 65_537, 65_538, 65_539, 65_540, 200_000):
        for end in (b"\n", b"\r\n"):
            path = write(tmp_path / "orders.csv", b"y" * length, GOOD, end=end)
            run_import(path, engine, f"{length}{end!r}")
            reason = "columns" if length <= 65_536 else "too-long"
            assert (f"{length}{end!r}", 2, reason) in rows(engine, "rejects")
            assert codes(path, tmp_path, f"{length}{end!r}") == []
            with engine.begin() as connection:
                connection.exec_driver_sql("DELETE FROM imports")


def test_a_line_of_any_length_costs_no_memory(tmp_path: Path, engine: Engine) -> None:
    path = tmp_path / "orders.csv"
    with path.open("wb") as file:
        file.write(HEADER + b"\n")
        for _ in range(32):
            file.write(b"z" * 1024 * 1024)
        file.write(b"\n" + GOOD + b"\n")
    tracemalloc.start()
    found = surveyed(path)
    register(engine, "i", found)
    counts = [load(str(path), "i", chunk, engine) for chunk in found.chunks]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert close(engine, "i", counts)["rejected"] == 1
    assert rows(engine, "rejects") == [("i", 2, "too-long")]
    assert peak < 8 * 1024 * 1024


# Writing


def order(number: int, version: int, quantity: int = 1) -> Row:
    return read_row(GOOD, LAYOUT) | {"order_id": f"A-{number}", "quantity": quantity, "version": version}


@pytest.mark.usefixtures("paths")
def test_the_highest_version_wins_whatever_comes_first_and_however_often(tmp_path: Path) -> None:
    chance = random.Random(3)  # noqa: S311 - test data.
    engine = create_engine(f"sqlite:///{tmp_path}/a.sqlite3")
    prepare_sqlite(engine)
    create_tables(engine)
    for attempt in range(10):
        written = [order(chance.randrange(8), version, version % 7 + 1) for version in range(1, 40)]
        rejects = [{"import_id": "i", "line": line, "reason": "quote"} for line in range(10)]
        expected = {row["order_id"]: row["version"] for row in written}
        batches = [written[at : at + 5] for at in range(0, 40, 5)] * 2
        chance.shuffle(batches)
        for batch in batches:
            store(engine, {row["order_id"]: row for row in batch}.values(), chance.sample(rejects, 4))
        store(engine, [], rejects)
        found = rows(engine, "orders")
        assert {row[0]: row[6] for row in found} == expected, attempt
        assert all(row[3] == row[6] % 7 + 1 for row in found)
        assert rows(engine, "rejects") == [("i", line, "quote") for line in range(10)]
        with engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM orders")
            connection.exec_driver_sql("DELETE FROM rejects")
    engine.dispose()


@pytest.mark.usefixtures("paths")
def test_the_later_row_of_a_file_wins_in_any_order_of_the_chunks_and_a_second_run_changes_nothing(
    tmp_path: Path, engine: Engine
) -> None:
    path = tmp_path / "orders.csv"
    write_file(path, rows=300, seed=11)
    found = surveyed(path, chunk_bytes=2000)
    register(engine, "i", found)
    chunks = [*found.chunks, *found.chunks]
    random.Random(1).shuffle(chunks)  # noqa: S311 - test data.
    done = {chunk.offset: load(str(path), "i", chunk, engine) for chunk in chunks}
    close(engine, "i", done.values())
    assert codes(path, tmp_path) == []
    before = [rows(engine, table) for table in ("imports", "orders", "rejects")]
    run_import(path, engine, chunk_bytes=777)
    assert [rows(engine, table) for table in ("imports", "orders", "rejects")] == before


def test_a_later_import_wins_over_an_earlier_one_also_when_that_is_loaded_again(tmp_path: Path, engine: Engine) -> None:
    earlier = write(tmp_path / "earlier.csv", b"", b"", b"", GOOD, GOOD.replace(b"A-1", b"A-2"))
    later = write(tmp_path / "later.csv", GOOD.replace(b",2,", b",3,"))
    for path, import_id in ((earlier, "earlier"), (later, "later"), (earlier, "earlier")):
        totals = run_import(path, engine, import_id)
    assert [row[3] for row in rows(engine, "orders")] == [3, 2]
    assert totals == {"read": 2, "good": 2, "rejected": 0, "orders": 2, "total_cents": 5000}


def test_batches_are_bounded_also_where_every_line_names_the_same_order(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def counted(_engine: Engine, orders: Any, rejects: Any) -> None:
        sizes.append(len(orders) + len(rejects))

    monkeypatch.setattr(tasks, "store", counted)
    numbered = [GOOD.replace(b"A-1", f"A-{number}".encode()) for number in range(BATCH_ROWS)]
    run_import(write(tmp_path / "a.csv", *numbered, *[b"?"] * (BATCH_ROWS + 5), *[GOOD] * 3000), engine, "a", 10**6)
    assert sizes == [BATCH_ROWS, BATCH_ROWS, 6]


@pytest.mark.parametrize(("times", "gives_up"), [(4, False), (5, True)])
def test_a_batch_that_somebody_else_got_ahead_of_is_written_again_but_not_for_ever(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, *, times: int, gives_up: bool
) -> None:
    real = tables.write_portably
    left = iter(range(times))

    def overtaken(connection: Connection, orders: Any, rejects: Any) -> None:
        real(connection, orders, rejects)
        if next(left, None) is not None:
            raise IntegrityError("INSERT", {}, Exception("UNIQUE constraint failed"))

    monkeypatch.setattr(tables, "_write_at_once", overtaken)
    if gives_up:
        with pytest.raises(IntegrityError):
            store(engine, [order(1, 1)], [])
    else:
        store(engine, [order(1, 1)], [])
    assert len(rows(engine, "orders")) == (not gives_up)


def test_postgresql_is_told_to_update_only_what_is_older_and_to_leave_known_rejects() -> None:
    said: list[str] = []
    connection: Any = SimpleNamespace(
        dialect=postgresql.dialect(),  # type: ignore[no-untyped-call]  # SQLAlchemy's own is not annotated.
        execute=lambda statement, _rows: said.append(str(statement.compile(dialect=postgresql.dialect()))),  # type: ignore[no-untyped-call]  # The same.
    )
    tables._write_at_once(connection, [order(1, 1)], [{"import_id": "i", "line": 2, "reason": "quote"}])  # noqa: SLF001 - what one database is told.
    assert "ON CONFLICT (order_id) DO UPDATE SET" in said[0]
    assert said[0].endswith("WHERE orders.version < excluded.version")
    assert said[1].endswith("ON CONFLICT DO NOTHING")


def test_an_import_is_closed_once(tmp_path: Path, engine: Engine) -> None:
    path = write(tmp_path / "orders.csv", GOOD, GOOD.replace(b",2,", b",3,"), b"?")
    totals = run_import(path, engine)
    assert totals == {"read": 3, "good": 2, "rejected": 1, "orders": 1, "total_cents": 3750}
    assert close(engine, "i", [{"read": 99, "good": 99, "rejected": 0}]) == totals
    ((_, _, _, _, state, closings, *written),) = rows(engine, "imports")
    assert (state, closings, *written) == ("closed", 1, *totals.values())


# The tasks


class Chord:
    """Stands for Celery's, and keeps what would have been published."""

    def __init__(self, log: list[Any], error: Exception | None = None) -> None:
        """Nothing is published; with an error, nothing could be."""
        self.log = log
        self.error = error
        self.header: list[Any] = []
        self.group = ""

    def __call__(self, header: list[Any], body: Any) -> "Chord":
        self.header = header
        assert body.task == "scenarios.bulk_data.close_import"
        return self

    def set(self, *, task_id: str) -> "Chord":
        self.group = task_id
        return self

    def apply_async(self, *, task_id: str) -> None:
        if self.error is not None:
            raise self.error
        self.log.append((self.group, task_id, [(one.options["task_id"], one.kwargs) for one in self.header]))


def test_a_second_run_of_the_import_task_sends_the_same_ids_and_saves_its_group_once(
    tmp_path: Path, engine: Engine, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(tasks, "chord", Chord(sent))
    path = write(tmp_path / "orders.csv", *[GOOD] * 20)
    given = {"path": str(path), "import_id": "i", "chunk_bytes": 200}
    first, second, other = (import_orders.apply(kwargs=given, task_id=one) for one in ("a", "a", "b"))
    assert first.result == second.result
    assert first.result["chunks"] == 4
    assert sent[0] == sent[1]
    assert not {task for task, _ in sent[0][2]} & {task for task, _ in sent[2][2]}
    saved = {row[1]: json.loads(row[2]) for row in contents(results, "celery_tasksetmeta")}
    assert saved.keys() == {first.result["group"], other.result["group"]}
    assert [task for (task, _), _ in saved[first.result["group"]][1]] == [task for task, _ in sent[0][2]]
    assert len(rows(engine, "imports")) == 1
    for _, kwargs in sent[0][2]:
        load_chunk.apply(args=(str(path), "i"), kwargs=kwargs)
    assert len(rows(engine, "orders")) == 1


def test_the_group_is_saved_before_anything_is_sent(
    tmp_path: Path, engine: Engine, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del engine
    monkeypatch.setattr(tasks, "chord", Chord([], BrokerError("gone")))
    path = write(tmp_path / "orders.csv", GOOD)
    monkeypatch.setattr(import_orders, "retry", lambda **_: Retry("later"))
    import_orders.apply(kwargs={"path": str(path), "import_id": "i"})
    assert len(contents(results, "celery_tasksetmeta")) == 1


ARGUMENTS = [
    (import_orders, "register", {"path": "orders.csv", "import_id": "i"}),
    (load_chunk, "load", {"path": "orders.csv", "import_id": "i", "offset": 0, "length": 1, "first_line": 2}),
    (close_import, "close", {"results": [], "import_id": "i"}),
]


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(("task", "does", "given"), ARGUMENTS)
@pytest.mark.parametrize("answer", [Retry("later"), Reject("no broker", requeue=False)])
def test_a_broken_database_is_tried_again_and_no_task_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, task: Any, does: str, given: dict[str, Any], answer: Exception
) -> None:
    write(tmp_path / "orders.csv", GOOD)
    monkeypatch.chdir(tmp_path)

    def broken(*_: Any) -> None:
        raise OperationalError("UPDATE", {}, Exception("database is locked"))

    def retry(*, countdown: float, **_: Any) -> Exception:
        assert 0 <= countdown <= tasks.BACKOFF_LIMIT_S
        if isinstance(answer, Reject):
            raise answer
        return answer

    monkeypatch.setattr(tasks, does, broken)
    monkeypatch.setattr(task, "retry", retry)
    with pytest.raises(type(answer)) as caught:
        task.run(**given)
    if isinstance(caught.value, Reject):
        assert caught.value.requeue


@pytest.mark.parametrize("task", [import_orders, load_chunk, close_import])
def test_a_task_whose_pool_process_died_runs_again_within_seconds(task: Any) -> None:
    assert task.retry_on_worker_lost
    assert task.default_retry_delay <= 5


# The prediction, and the check that it is for


@pytest.mark.parametrize("seed", [1, 2])
def test_the_prediction_agrees_with_the_tasks_on_a_made_file(tmp_path: Path, engine: Engine, seed: int) -> None:
    path = tmp_path / "orders.csv"
    write_file(path, rows=3000, seed=seed)
    totals = run_import(path, engine, chunk_bytes=20_000)
    assert codes(path, tmp_path) == []
    assert totals["read"] == 3000
    assert {reason for _, _, reason in rows(engine, "rejects")} == {*COLUMNS, "columns", "not-utf8", "quote"} - {
        "sku",
        "unit_price_cents",
    }


def test_the_prediction_agrees_with_the_tasks_on_what_nobody_would_make(tmp_path: Path, engine: Engine) -> None:
    chance = random.Random(8)  # noqa: S311 - test data.
    scraps = [
        b",",
        b'"',
        b'""',
        b"\r",
        b"\r\n",
        b"\n",
        b" ",
        b"\x00",
        b"\xff",
        "é".encode(),
        b"A",
        b"1",
        b"@",
        GOOD,
        *GOOD.split(b","),
    ]
    for attempt in range(30):
        body = b"".join(chance.choices(scraps, k=chance.randrange(120)))
        good = [chance.choice(GOOD_ONES) for _ in range(3)]
        body += b"\n" + b"\n".join(good) + chance.choice((b"", b"\n"))
        path = tmp_path / "orders.csv"
        path.write_bytes(HEADER + b"\n" + body)
        with engine.begin() as connection:
            for table in ("orders", "rejects", "imports"):
                connection.exec_driver_sql(f"DELETE FROM {table}")  # noqa: S608 - a table of ours.
        run_import(path, engine, chunk_bytes=chance.randint(1, 500))
        assert codes(path, tmp_path) == [], (attempt, body)


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("DELETE FROM orders WHERE order_id = (SELECT max(order_id) FROM orders)", "rows-missing"),
        (
            "INSERT INTO orders SELECT 'x', customer_email, sku, 1, 1, ordered_at, version FROM orders LIMIT 1",
            "rows-extra",
        ),
        ("UPDATE orders SET sku = sku || ' ' WHERE order_id = (SELECT min(order_id) FROM orders)", "rows-differ"),
        ("DELETE FROM rejects WHERE line = (SELECT min(line) FROM rejects)", "rejects-differ"),
        ("INSERT INTO rejects VALUES ('i', 1, 'quote')", "rejects-differ"),
        ("UPDATE rejects SET reason = 'none' WHERE line = (SELECT min(line) FROM rejects)", "rejects-differ"),
    ],
)
def test_a_single_difference_before_the_closing_is_found_under_its_own_name_alone(
    tmp_path: Path, engine: Engine, statement: str, expected: str
) -> None:
    path = tmp_path / "orders.csv"
    write_file(path, rows=500, seed=2)
    found = surveyed(path, chunk_bytes=10_000)
    register(engine, "i", found)
    counts = [load(str(path), "i", chunk, engine) for chunk in found.chunks]
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    close(engine, "i", counts)
    assert codes(path, tmp_path) == [expected]


def begun_at_once(path: Path, engine: Engine, *import_ids: str) -> None:
    """Several imports of a file, whose chunks are loaded in turns: the later ones take over from the earlier."""
    found = surveyed(path, chunk_bytes=2000)
    for import_id in import_ids:
        register(engine, import_id, found)
    counts: dict[str, list[dict[str, int]]] = {import_id: [] for import_id in import_ids}
    for chunk in found.chunks:
        for import_id in import_ids:
            counts[import_id].append(load(str(path), import_id, chunk, engine))
    for import_id in import_ids:
        close(engine, import_id, counts[import_id])


def test_a_file_that_is_imported_many_times_is_there_once_and_each_import_has_its_own_totals(
    tmp_path: Path, engine: Engine
) -> None:
    path = tmp_path / "orders.csv"
    write_file(path, rows=300, seed=11)
    begun_at_once(path, engine, "a", "b", "c")
    run_import(path, engine, "d")
    run_import(path, engine, "a")
    assert codes(path, tmp_path, "a", "b", "c", "d") == []
    # What an import had when it was closed: nothing any more, or everything still.
    totals = {row[1]: row[6:] for row in rows(engine, "imports")}
    assert totals["a"][3:] == totals["b"][3:] == (0, 0)
    assert totals["c"] == totals["d"]
    assert totals["a"][:3] == totals["d"][:3]
    assert len({import_id for import_id, _, _ in rows(engine, "rejects")}) == 4


def test_an_import_that_never_ended_is_left_to_the_audit_and_may_have_taken_over(
    tmp_path: Path, engine: Engine
) -> None:
    path = write(tmp_path / "orders.csv", *[GOOD.replace(b"A-1", f"A-{number}".encode()) for number in range(90)], b"?")
    found = surveyed(path, chunk_bytes=2000)
    for import_id in ("a", "b"):
        register(engine, import_id, found)
    counts = [load(str(path), "a", chunk, engine) for chunk in found.chunks]
    for chunk in found.chunks[:2]:
        load(str(path), "b", chunk, engine)
    assert 0 < close(engine, "a", counts)["orders"] < 90
    assert codes(path, tmp_path, "a") == []
    # The lines that it did not come to are missing under its name.
    assert codes(path, tmp_path, "a", "b") == ["rejects-differ"]


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("UPDATE imports SET read = read + 1 WHERE import_id = 'b'", "totals-differ"),
        ("UPDATE imports SET orders = 1000000 WHERE import_id = 'b'", "totals-differ"),
        ("UPDATE imports SET total_cents = -1 WHERE import_id = 'b'", "totals-differ"),
        # Of the last one everything is there.
        ("UPDATE imports SET orders = orders - 1 WHERE import_id = 'c'", "totals-differ"),
        ("DELETE FROM rejects WHERE import_id = 'b' AND line = (SELECT max(line) FROM rejects)", "rejects-differ"),
        ("INSERT INTO rejects VALUES ('a', 1, 'quote')", "rejects-differ"),
        # The row as the first import had it.
        ("UPDATE orders SET version = version & ((1 << 40) - 1) | (1 << 40) WHERE order_id LIKE '%7'", "rows-outdated"),
    ],
)
def test_a_difference_in_one_of_many_imports_is_found(
    tmp_path: Path, engine: Engine, statement: str, expected: str
) -> None:
    path = tmp_path / "orders.csv"
    write_file(path, rows=300, seed=11)
    begun_at_once(path, engine, "a", "b", "c")
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    assert codes(path, tmp_path, "a", "b", "c") == [expected]


@pytest.mark.parametrize("total", ["read", "good", "rejected", "orders", "total_cents"])
def test_a_total_that_is_one_too_high_is_found(tmp_path: Path, engine: Engine, total: str) -> None:
    path = tmp_path / "orders.csv"
    write_file(path, rows=200, seed=2)
    run_import(path, engine)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE imports SET {total} = {total} + 1")  # noqa: S608 - a column of ours.
    assert codes(path, tmp_path) == ["totals-differ"]


def saved(*members: str) -> bytes:
    return json.dumps([["group", None], [[[member, None], None] for member in members]]).encode()


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


# The scenario


@pytest.fixture
def stack(tmp_path: Path) -> Any:
    """Return a run folder and results as a stack has them."""
    (tmp_path / "app").mkdir()
    (tmp_path / "journal").mkdir()
    folder = SimpleNamespace(path=tmp_path, journal=tmp_path / "journal")
    return SimpleNamespace(folder=folder, results=SimpleNamespace(groups=list))


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


def test_every_closing_of_an_import_is_an_effect_and_without_a_database_there_is_none(stack: Any) -> None:
    drive = Drive(count=2, seed=1)
    assert list(scenario.effects(stack, drive)) == []
    engine = create_engine(f"sqlite:///{stack.folder.path}/app/app.sqlite3")
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
