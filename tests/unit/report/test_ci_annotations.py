"""What CI systems show beside a job: no text of a task becomes a command, and the files stay small."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.audit.audit import Audit
from harness.records.verdict import Fate, Finding, Reason, Verdict
from harness.report import ci_annotations, progress
from harness.report.ci_annotations import GITLAB_FILE, command, link_for_gitlab

JOB = "https://git.example/shop/-/jobs/7"


def audit(*findings: Finding) -> Audit:
    given: dict[str, Any] = {"e2e_ms": {}, "workers": {}, "memory_mb": {}, "witnesses": {}, "entries": 0}
    return Audit(name="a", fates=dict.fromkeys(Fate, 0), findings=findings, **given)


def finding(verdict: Verdict, code: str = "own", text: str = "seen.", **more: Any) -> Finding:
    return Finding(code=code, verdict=verdict, count=1, text=text, **more)


def test_a_broken_promise_is_an_error_and_what_is_unknown_a_warning() -> None:
    reason = Reason(setting="task_acks_late", value=False, where="app", remedy="acks_late=True", count=1)
    found = audit(
        finding(Verdict.PASS), finding(Verdict.UNKNOWN, "torn"), finding(Verdict.FAIL, "lost", reasons=(reason,))
    )
    error, warning = ci_annotations.of_audit("emails", found, Path("runs/1"))
    assert error == (
        "::error title=emails%3A lost::seen.%0Areason: task_acks_late is False (app)%0Aremedy: acks_late=True"
        "%0Arun folder: runs/1"
    )
    assert warning == "::warning title=emails%3A torn::seen.%0Arun folder: runs/1"
    assert list(ci_annotations.of_audit("emails", audit(finding(Verdict.PASS)), Path())) == []


def test_of_many_findings_the_tenth_says_that_there_are_more() -> None:
    lines = list(ci_annotations.of_audit("a", audit(*[finding(Verdict.FAIL)] * 500), Path()))
    assert len(lines) == 10
    assert "and 491 more" in lines[-1]


@pytest.mark.parametrize("text", ["a\n::error::b", "a\r::error::b", "100%0A::error::b", "\x1b[2J\u2028x", "x" * 50_000])
def test_nothing_in_a_text_begins_another_command_or_line(text: str) -> None:
    made = command("error", f"{text},file=/etc/passwd::", text)
    assert made.splitlines() == [made]
    assert made.isprintable()
    # The title ends at the first of these, and no property can follow it.
    title, _, _ = made.removeprefix("::error title=").partition("::")
    assert not {",", ":"} & set(title)
    assert "%250A" in made if "%0A" in text else True
    assert len(made) < 60_000


@pytest.mark.parametrize("one", ["x", "%", "\n", "é", "漢", "🙂", ":", ","])
def test_a_text_is_cut_off_as_it_is_written_and_in_no_middle_of_a_character(one: str) -> None:
    made = command("error", one * 5_000, one * 5_000)
    title, _, message = made.removeprefix("::error title=").partition("::")
    for part, is_title in ((title, True), (message, False)):
        escape = one in "%\n" or (is_title and one in ":,")
        written = f"%{ord(one):02X}" if escape else one
        assert part == written * (len(part[:-1]) // len(written)) + "…"
        # Not one more would have had room.
        assert 4_000 - len(written.encode()) < len(part.encode()) <= 4_000


def test_a_text_that_is_short_enough_as_it_is_written_is_whole() -> None:
    assert command("error", "a", "x" * 4_000) == f"::error title=a::{'x' * 4_000}"
    assert command("error", "a", "\n" * 1_333).endswith("%0A" * 1_333)
    assert command("error", "a", "\n" * 1_334).endswith("%0A…")


def test_a_link_for_gitlab_leads_to_the_artefact_and_stands_beside_those_of_the_same_job(tmp_path: Path) -> None:
    environ = {"CI_JOB_URL": JOB, "CI_PROJECT_DIR": str(tmp_path)}
    target = tmp_path / GITLAB_FILE
    target.parent.mkdir()
    other = {"external_link": {"label": "older", "url": f"{JOB}0/artifacts/file/a"}}
    target.write_text(json.dumps({"Celery Harness": [other]}))
    for name in ("a b#1", "two"):
        link_for_gitlab(name, Verdict.PASS, tmp_path / "runs" / name / "report.html", environ)
    links = [one["external_link"] for one in json.loads(target.read_text())["Celery Harness"]]
    assert links == [
        {"label": "a b#1: pass", "url": f"{JOB}/artifacts/file/runs/a%20b%231/report.html"},
        {"label": "two: pass", "url": f"{JOB}/artifacts/file/runs/two/report.html"},
    ]
    assert (tmp_path / ".harness" / ".gitignore").read_text() == "*\n"


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"Celery Harness": 1}', '{"Celery Harness": [{}]}'])
def test_a_damaged_file_of_links_is_written_anew(tmp_path: Path, damage: str) -> None:
    (tmp_path / GITLAB_FILE).parent.mkdir()
    (tmp_path / GITLAB_FILE).write_text(damage)
    environ = {"CI_JOB_URL": JOB, "CI_PROJECT_DIR": str(tmp_path)}
    link_for_gitlab("a", Verdict.FAIL, tmp_path / "report.html", environ)
    assert len(json.loads((tmp_path / GITLAB_FILE).read_text())["Celery Harness"]) == 1


def test_without_a_job_and_outside_of_the_project_there_is_no_link(tmp_path: Path) -> None:
    link_for_gitlab("a", Verdict.PASS, tmp_path / "report.html", {"CI_PROJECT_DIR": str(tmp_path)})
    inside = {"CI_JOB_URL": JOB, "CI_PROJECT_DIR": str(tmp_path / "project")}
    link_for_gitlab("a", Verdict.PASS, tmp_path / "report.html", inside)
    assert list(tmp_path.iterdir()) == []


def test_progress_in_a_log_is_few_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    monkeypatch.setattr("harness.report.progress.time.monotonic", lambda: now[0])
    with progress.of_lines() as (say, tell):
        say("starting")
        for done in range(1, 501):
            now[0] = done / 10
            tell("sent", done, 500)
        tell("sent", 500, 500)
    assert capsys.readouterr().err.splitlines() == [
        "starting",
        "sent: 1 of 500 after 0 s",
        *(f"sent: {done} of 500 after {done // 10} s" for done in (101, 201, 301, 401)),
        "sent: 500 of 500 after 50 s",
    ]
