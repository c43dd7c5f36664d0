"""Files of JSON lines: where their lines end, and a copy that the database can read."""

import json
import os
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from harness.audit import json_lines
from harness.audit.json_lines import LineFiles, copy_readable, has_long_lines, whole_lines
from harness.records import values


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lines.jsonl"


@pytest.mark.parametrize("block", [1, 2, 4, 1_000])
@pytest.mark.parametrize(
    ("content", "end", "is_torn"),
    [
        (b"", 0, False),
        (b"a", 0, True),
        (b"a\n", 2, False),
        (b"aa\nb", 3, True),
        (b"aa\nbbbbbbbbb", 3, True),
        (b"aaaaaaaaa", 0, True),
        (b"\n", 1, False),
        (b"a\n\nbb\n", 6, False),
    ],
)
def test_the_whole_lines_of_a_file_end_with_its_last_newline(
    path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, block: int, *, end: int, is_torn: bool
) -> None:
    monkeypatch.setattr(json_lines, "_BLOCK_BYTES", block)
    path.write_bytes(content)
    assert whole_lines(path) == (end, is_torn)


def test_of_a_file_without_a_newline_one_block_is_read_at_a_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []
    pread = os.pread

    def seen(file: int, length: int, offset: int) -> bytes:
        lengths.append(length)
        return pread(file, length, offset)

    monkeypatch.setattr(os, "pread", seen)
    monkeypatch.setattr(json_lines, "_BLOCK_BYTES", 4)
    path.write_bytes(b"aaaaaaaaaa")
    assert whole_lines(path) == (0, True)
    assert lengths == [4, 4, 2]


def test_a_file_that_no_run_writes_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "LARGEST_FILE_BYTES", 4)
    path.write_bytes(b"aaa\n")
    assert whole_lines(path) == (4, False)
    path.write_bytes(b"aaaa\n")
    with pytest.raises(ValueError, match="it has 5 bytes, and no run writes more than 4"):
        whole_lines(path)


@pytest.mark.parametrize("block", [1, 5, 7, 1_000])
@pytest.mark.parametrize("last", [b"", b"\n"])
def test_a_file_has_long_lines_or_not(path: Path, monkeypatch: pytest.MonkeyPatch, last: bytes, block: int) -> None:
    monkeypatch.setattr(json_lines, "LONG_BYTES", 6)
    monkeypatch.setattr(json_lines, "_BLOCK_BYTES", block)
    for lengths in product(range(15), repeat=2):
        content = b"\n".join(b"a" * length for length in lengths) + last
        path.write_bytes(content)
        # With the newline at its end a line has no more than six bytes.
        is_long = any(len(line) > 6 for line in content.splitlines(keepends=True))
        assert has_long_lines(path) is is_long, lengths


def copied(path: Path, *lines: bytes) -> list[bytes]:
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    target = path.with_name("copy")
    longest = copy_readable(path, target)
    copy = target.read_bytes()
    assert longest == max(map(len, copy.splitlines(keepends=True)))
    return copy.splitlines()


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_short_lines_are_copied_as_they_are(path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(json_lines, "_BLOCK_BYTES", block)
    lines = [b'{"n": 0}', b"", b"nonsense", b'"a"', b'{"n": 10, "a": [1, 2]}']
    assert copied(path, *lines) == lines


def test_a_file_of_one_empty_line_is_copied_as_it_is(path: Path) -> None:
    assert copied(path, b"") == [b""]


def test_what_follows_the_last_newline_is_copied_too(path: Path) -> None:
    path.write_bytes(b'{"n": 0}\n{"n"')
    assert copy_readable(path, path.with_name("copy")) == 9
    assert path.with_name("copy").read_bytes() == b'{"n": 0}\n{"n"'


def line(**data: Any) -> bytes:
    return json.dumps({"kind": "intended", **data}).encode()


def test_of_a_long_expectation_there_is_a_digest_and_its_beginning(path: Path) -> None:
    long, short = "a" * json_lines.LONG_BYTES, "b" * (json_lines.LONG_BYTES - 2)
    first, second = (
        json.loads(copy)
        for copy in copied(
            path, line(expect={"state": "SUCCESS", "result": long}), line(expect={"result": short}, name="mail")
        )
    )
    text = json.dumps(long)
    digest = {"state": "SUCCESS", "start": text[:50], "digest": values.digest(text)}
    assert first == {"kind": "intended", "expect": digest}
    assert second == {"kind": "intended", "name": "mail", "expect": {"result": short}}


def test_a_line_is_long_when_it_is_longer_than_the_database_is_given(path: Path) -> None:
    edge = line(schedule="")
    at_most = line(schedule="a" * (json_lines.LONG_BYTES - len(edge)))
    longer = line(schedule="a" * (json_lines.LONG_BYTES - len(edge) + 1))
    assert copied(path, at_most) == [at_most]
    # What the database is not asked for is left out.
    assert [json.loads(copy) for copy in copied(path, longer, line(argv="a" * 3_000))] == [{"kind": "intended"}] * 2
    assert copied(path, at_most, longer)[0] == at_most


def test_lone_surrogates_are_escaped_in_the_copy(path: Path) -> None:
    first, second = (
        json.loads(copy) for copy in copied(path, line(name="\ud800", expect=5), line(expect={"result": "\udfff"}))
    )
    assert first == {"kind": "intended", "name": "\\ud800", "expect": 5}
    assert sorted(second["expect"]) == ["digest", "start"]


@pytest.mark.parametrize(
    ("odd", "copy"),
    [
        (b"a" * 3_000, b"{"),
        (b"\\ud800" * 341 + b"aa", b"\\ud800" * 341 + b"aa"),
        (b"\\ud800" * 341 + b"aaa", b"{"),
        (b'"\\ud800"', b'"\\ud800"'),
        (b"\\ud800", b"\\ud800"),
        (b"[" * 100_000, b"{"),
        (b'["' + b"a" * 3_000 + b'"]', b'["' + b"a" * 3_000 + b'"]'),
    ],
)
def test_a_line_that_is_no_object_is_no_line_in_the_copy_either(path: Path, odd: bytes, copy: bytes) -> None:
    assert copied(path, b'{"n": 0}', odd, b'{"n": 2}') == [b'{"n": 0}', copy, b'{"n": 2}']


def test_a_line_that_no_run_writes_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "_BLOCK_BYTES", 2)
    monkeypatch.setattr(json_lines, "_LONGEST_BYTES", 4)
    assert copied(path, b"aaaaa") == [b"aaaaa"]
    path.write_bytes(b"aaaaaa")
    with pytest.raises(ValueError, match="it has a line of more than 4 bytes"):
        copy_readable(path, path.with_name("copy"))


def test_each_file_of_a_folder_goes_by_a_plain_name(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    folder.mkdir()
    (folder / "b.jsonl").write_bytes(b'{"n": 0}\n{"n"')
    long = line(schedule="a" * 3_000) + b"\n"
    (folder / "a*.jsonl").write_bytes(long)
    (folder / "c.jsonl").mkdir()
    (folder / "d.jsonl").write_bytes(b'"\\ud800"\n')
    files = LineFiles(folder, tmp_path / "scratch")
    assert files.names == {"000001.jsonl": "a*.jsonl", "000002.jsonl": "b.jsonl", "000004.jsonl": "d.jsonl"}
    assert files.ends == {folder / "a*.jsonl": len(long), folder / "b.jsonl": 9, folder / "d.jsonl": 9}
    assert files.torn == {"000002.jsonl"}
    assert files.unreadable == ["c.jsonl: no regular file."]
    assert files.list({"000002.jsonl": 3, "000009.jsonl": 1}) == "b.jsonl (3), 000009.jsonl (1)"
    assert files.paths == [str(tmp_path / "scratch" / name) for name in files.names]
    first, second, last = map(Path, files.paths)
    assert json.loads(first.read_bytes()) == {"kind": "intended"}
    assert second.is_symlink()
    assert files.longest == 1 << 20
    # A link makes room for a copy, and a copy stays.
    for _ in range(2):
        assert files.mend(last.name) == str(last)
        assert not last.is_symlink()
        assert last.read_bytes() == b'"\\ud800"\n'


def test_a_file_that_is_too_large_is_told_and_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "LARGEST_FILE_BYTES", 4)
    (tmp_path / "a.jsonl").write_bytes(b"aaaa\n")
    files = LineFiles(tmp_path, tmp_path / "scratch")
    assert files.unreadable == ["a.jsonl: it has 5 bytes, and no run writes more than 4."]
    assert files.paths == []


def test_the_longest_line_of_all_copies_is_known(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    folder.mkdir()
    for name, length in (("a", 1 << 21), ("b", 3_000), ("c", 1 << 20)):
        (folder / f"{name}.jsonl").write_bytes(line(name="a" * length) + b"\n")
    (folder / "d.jsonl").write_bytes(b'{"n": 0}\n')
    files = LineFiles(folder, tmp_path / "scratch")
    longest = files.longest
    assert longest == len(json.dumps({"kind": "intended", "name": "a" * (1 << 21)}, separators=(",", ":"))) + 1
    files.mend("000004.jsonl")
    assert files.longest == longest
