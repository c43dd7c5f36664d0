"""JUnit XML, as a reader of CI systems' files reads it."""

from pathlib import Path
from typing import Any

import junitparser
import pytest

from harness.errors import StartError, UsageError
from harness.records.check import Check
from harness.records.verdict import Verdict
from harness.report import junit

HOSTILE = "a\x00b\x1b[31m\x9b\ud800\ufffe<&>\"'\r\n]]>\u2028é🎈"


def written(path: Path) -> junitparser.JUnitXml:
    read = junitparser.JUnitXml.fromfile(str(path))
    assert isinstance(read, junitparser.JUnitXml)
    return read


def complain(text: str) -> None:
    raise AssertionError(text)


def outcomes(path: Path) -> dict[str, str]:
    """Return what each check became: `passed`, or the kind of its result."""
    return {
        case.name: "passed" if not case.result else ", ".join(type(one).__name__ for one in case.result)
        for suite in written(path)
        for case in suite
    }


def facts(suite: Any) -> dict[str, str]:
    """Return the properties of a suite. The reader has no types for them."""
    return {one.name: one.value for one in suite.properties()}


def check(name: str, verdict: Verdict, **about: str | None) -> Check:
    given = {"text": f"what became of {name}", "kind": "code", **about}
    return Check(name=name, verdict=verdict, **given)  # type: ignore[arg-type]


def test_each_check_has_the_result_of_its_verdict(tmp_path: Path) -> None:
    path = tmp_path / "new" / "junit.xml"
    found = [check("p", Verdict.PASS), check("f", Verdict.FAIL), check("u", Verdict.UNKNOWN)]
    known = check("k", Verdict.FAIL, known="it is no worse")
    with junit.written(path, "emails", complain) as add:
        add(junit.suite("emails", [*found, known], verdict=Verdict.FAIL, folder=Path("runs/1"), text="all of it"))
    assert outcomes(path) == {"p": "passed", "f": "Failure", "u": "Error", "k": "Skipped"}
    read = written(path)
    assert (read.tests, read.failures, read.errors, read.skipped) == (4, 1, 1, 1)
    (suite,) = read
    assert facts(suite) == {"verdict": "fail", "run folder": "runs/1"}
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (4, 1, 1, 1)
    failure = next(case for case in suite if case.name == "f").result[0]
    assert (failure.message, failure.type, failure.text) == ("what became of f", "code", "what became of f")
    assert [path.name for path in path.parent.iterdir()] == ["junit.xml"]


def test_what_xml_forbids_is_escaped_and_all_else_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    with junit.written(path, HOSTILE, complain) as add:
        add(
            junit.suite(
                HOSTILE,
                [check(HOSTILE, Verdict.FAIL, text=HOSTILE, kind=HOSTILE), check("p", Verdict.PASS, text=HOSTILE)],
                verdict=Verdict.FAIL,
                folder=Path("a\x01b"),
                text=HOSTILE,
            )
        )
    (suite,) = written(path)
    shown = "a\\x00b\\x1b[31m\\x9b\\ud800\\ufffe<&>\"'\\r\n]]>\\u2028é🎈"
    case = next(iter(suite))
    assert (suite.name, case.name, case.result[0].text, case.result[0].type) == (shown,) * 4
    assert facts(suite)["run folder"] == "a\\x01b"


def test_a_text_of_megabytes_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    with junit.written(path, "emails", complain) as add:
        found = [check("f", Verdict.FAIL, text="x" * 10_000_000)]
        add(junit.suite("emails", found, verdict=Verdict.FAIL, folder=tmp_path))
    assert path.stat().st_size < 50_000
    assert outcomes(path) == {"f": "Failure"}


def test_until_the_end_the_file_says_that_nothing_is_known(tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    path.write_text("that of an earlier run, in which all was well")
    with junit.written(path, "emails", complain) as add:
        assert outcomes(path) == {"the run comes to its end": "Error"}
        add(junit.suite("emails", [check("p", Verdict.PASS)], verdict=Verdict.PASS, folder=tmp_path))
    assert outcomes(path) == {"p": "passed"}


@pytest.mark.parametrize("error", [StartError("no worker came up"), KeyboardInterrupt(), ValueError("odd")])
def test_a_run_that_breaks_off_is_an_error(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "junit.xml"
    with pytest.raises(type(error)), junit.written(path, "emails", complain):
        raise error
    assert outcomes(path) == {"the run comes to its end": "Error"}
    (case,) = next(iter(written(path)))
    assert (str(error) or "KeyboardInterrupt") in case.result[0].text


@pytest.mark.parametrize("place", ["folder", "file/junit.xml"])
def test_a_file_that_cannot_be_is_a_wrong_use_before_anything_runs(tmp_path: Path, place: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="--junit"), junit.written(tmp_path / place, "emails", complain):
        pytest.fail("it ran")


def test_a_file_that_cannot_be_written_at_the_end_is_told_and_changes_nothing(tmp_path: Path) -> None:
    told: list[str] = []
    path = tmp_path / "new" / "junit.xml"
    with junit.written(path, "emails", told.append) as add:
        path.unlink()
        path.parent.rmdir()
        add(junit.suite("emails", [], verdict=Verdict.PASS, folder=tmp_path))
    (text,) = told
    assert text.endswith("The verdict stands.")


def test_without_a_file_nothing_is_written(tmp_path: Path) -> None:
    with junit.written(None, "emails", complain) as add:
        add(junit.suite("emails", [], verdict=Verdict.PASS, folder=tmp_path))
    assert list(tmp_path.iterdir()) == []
