"""Which tests can notice which changes: those that run the line, or in which the query finds something else."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.audit.evidence_database import Database, open_database
from tests.mutants.candidates import Candidates, lines_of
from tests.mutants.observer import ENOUGH_TESTS, Change, Queries, Seen
from tests.mutants.places import Place, places

ROOT = Path(__file__).parents[2]
AUDIT = "harness/audit/audit.sql"
MADE, FOUND = 0, 1
COUNTING = "SELECT count(*) FROM entry"


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """Open a database: `made` makes a table of one row, `found` counts the rows, `kept` tells what was kept."""
    for name in ("all", "sample", "stream", "keep_found", "run"):
        monkeypatch.setattr(Database, name, getattr(Database, name))
    with open_database(tmp_path) as opened:
        queries = {"made": "CREATE TABLE entry AS SELECT 1 AS a", "found": COUNTING, "kept": "FROM found"}
        monkeypatch.setattr(opened, "_queries", queries)
        yield opened


def observed(database: Database, made: str, found: str) -> Queries:
    """Run the two queries in one test, each with one change."""
    queries = Queries([Change(number=MADE, query="made", text=made), Change(number=FOUND, query="found", text=found)])
    queries.observe()
    queries.test = "test_it"
    database.run("made")
    assert database.all("found") == [(1,)]
    return queries


@pytest.mark.parametrize(
    ("made", "found", "noticing"),
    [
        ("CREATE TABLE entry AS SELECT 1 + 0 AS a", "SELECT count(a) FROM entry", {}),
        ("CREATE TABLE entry AS SELECT 2 AS a", COUNTING, {MADE: ["test_it"]}),
        ("CREATE TABLE entry AS SELECT 1 AS a", "SELECT 2", {FOUND: ["test_it"]}),
        ("CREATE TABLE entry AS SELECT b", "SELECT b FROM entry", {MADE: ["test_it"], FOUND: ["test_it"]}),
    ],
)
def test_a_test_can_notice_a_query_that_finds_or_leaves_something_else(
    database: Database, made: str, found: str, noticing: dict[int, list[str]]
) -> None:
    queries = observed(database, made, found)
    assert {number: tests for number, tests in queries.noticing.items() if tests} == noticing


@pytest.mark.parametrize(("changed", "noticing"), [("SELECT 2", ["test_it"]), (f"{COUNTING} LIMIT 1", [])])
def test_a_test_can_notice_a_query_whose_tasks_are_kept(database: Database, changed: str, noticing: list[str]) -> None:
    database.run("made")
    queries = Queries([Change(number=FOUND, query="found", text=changed)])
    queries.observe()
    queries.test = "test_it"
    database.keep_found("found")
    assert database.all("kept") == [(1,)]
    assert queries.noticing[FOUND] == noticing


def test_between_tests_nothing_is_noticed(database: Database) -> None:
    queries = Queries([Change(number=FOUND, query="found", text="SELECT 2")])
    queries.observe()
    database.run("made")
    assert database.all("found") == [(1,)]
    assert not queries.noticing


def place_of(file: str, source: str, text: str, old: str) -> Place:
    return next(one for one in places(file, source) if one.text.startswith(text) and one.old.strip() == old)


SOURCE = """
LIMIT = 1


def first(a):
    if a > (
        LIMIT
    ):
        return a + 1
    return None


def second(a, b=2):
    def inner():
        return not a

    return inner
"""


@pytest.mark.parametrize(
    ("text", "old", "lines"),
    [
        ("LIMIT =", "1", None),
        ("def second", "2", None),
        ("if a > (", ">", range(6, 9)),
        ("return a + 1", "+", range(9, 10)),
        ("return not a", "not", range(15, 16)),
    ],
)
def test_the_lines_of_a_change_are_those_of_its_statement(text: str, old: str, lines: range | None) -> None:
    assert lines_of(SOURCE, place_of("a.py", SOURCE, text, old)) == lines


def test_a_change_of_a_query_is_tried_in_that_query() -> None:
    source = (ROOT / AUDIT).read_text()
    place = place_of(AUDIT, source, "SELECT task FROM fact WHERE fate = $fate;", "=")
    (change,) = Candidates(ROOT, [place]).plan(Path("seen")).changes
    assert (change.query, change.text.strip()) == ("of_fate", "SELECT task FROM fact WHERE fate <> $fate;")


def test_if_many_tests_can_notice_a_change_any_test_may() -> None:
    source = (ROOT / AUDIT).read_text()
    place = place_of(AUDIT, source, "SELECT task FROM fact WHERE fate = $fate;", "=")
    candidates = Candidates(ROOT, [place])
    candidates.add(Seen(queries={0: ["test_b"]}, lines={}))
    candidates.add(Seen(queries={0: ["test_a"]}, lines={}))
    assert candidates.of(place) == ["test_a", "test_b"]
    candidates.add(Seen(queries={0: ["test_c"] * ENOUGH_TESTS}, lines={}))
    assert candidates.of(place) is None


def test_what_one_run_has_seen_is_read_as_it_was_written() -> None:
    seen = Seen(queries={0: ["test_a"]}, lines={"a.py": {3: ["test_b"]}})
    assert Seen.from_json(seen.to_json()) == seen
