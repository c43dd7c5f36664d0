"""The table of other projects' suites: what is counted, and how reasons are put together."""

from pathlib import Path

from tests.upstream.run import SUITES, outcome, reason, table

REPORT = """<testsuites><testsuite>
<testcase classname="a" name="passes"/>
<testcase classname="a" name="fails"><failure message="assert 1 == 2&#10;more"/></testcase>
<testcase classname="a" name="fails"><error message="at teardown"/></testcase>
<testcase classname="b" name="fails[one]"><failure message="assert 3 == 4"/></testcase>
<testcase time="0.1"/>
<testcase classname="b" name="skipped"><skipped message="no sqs"/></testcase>
</testsuite></testsuites>"""


def test_a_test_counts_once_and_equal_reasons_together(tmp_path: Path) -> None:
    (tmp_path / "report.xml").write_text(REPORT)
    seen = outcome(tmp_path / "report.xml")
    assert (seen.collected, seen.passed) == (4, 1)
    assert seen.missed == {"assert N == N": {"a.fails": 1, "b.fails": 1}, "no sqs": {"b.skipped": 1}}


def test_what_differs_from_test_to_test_is_left_out_of_a_reason_and_the_rest_is_not() -> None:
    assert reason("worker 3f2a91bc44 in /tmp/a/b/log.txt") == "worker N in .../log.txt"
    assert reason("redis cannot be had") == "redis cannot be had"
    assert reason("") == "no message"


def test_a_suite_that_is_not_there_is_in_the_table_and_not_counted_as_passed(tmp_path: Path) -> None:
    (tmp_path / "report.xml").write_text(REPORT)
    lines = table([(SUITES[0], outcome(tmp_path / "report.xml")), (SUITES[1], None)])
    assert lines[1].split() == ["celery-smoke", "4", "1", "150", "3"]
    assert [line.split(maxsplit=1) for line in lines[2:5]] == [
        ["2", "assert N == N"],
        ["1", "a.fails"],
        ["1", "b.fails"],
    ]
    assert "pytest-celery-smoke" in lines[-1]
    assert "not run" in lines[-1]
