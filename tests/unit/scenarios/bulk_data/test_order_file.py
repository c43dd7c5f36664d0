"""The file of orders: its cutting, its lines and rows, and what is refused of both."""

import hashlib
import os
import random
import sys
import tracemalloc
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from scenarios.bulk_data import order_file, order_row, prediction
from scenarios.bulk_data.order_file import BadFile, Chunk, delimiter_of, described_by, read_lines
from scenarios.bulk_data.tables import close, register
from scenarios.bulk_data.tasks import import_orders, load
from tests.unit.scenarios.bulk_data.orders import (
    BAD,
    GOOD,
    GOOD_ONES,
    HEADER,
    codes,
    contents,
    no_file,
    replaced,
    rows,
    run_import,
    surveyed,
    write,
)

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


def test_bad_lines_are_rejected_with_number_and_reason_and_their_neighbours_are_loaded(
    tmp_path: Path, engine: Engine
) -> None:
    lines = [line for bad, _ in BAD for line in (GOOD, b"", bad)]
    path = write(tmp_path / "orders.csv", *lines)
    totals = run_import(path, engine, chunk_bytes=1)
    assert rows(engine, "rejects") == [("i", 4 + 3 * at, reason) for at, (_, reason) in enumerate(BAD)]
    assert totals == {"read": 2 * len(BAD), "good": len(BAD), "rejected": len(BAD), "orders": 1, "total_cents": 2500}
    assert codes(path, tmp_path) == []


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
