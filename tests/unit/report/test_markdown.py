"""Runs as Markdown, as a parser of Markdown reads them, and the summary of a step of GitHub Actions."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from harness.audit.audit import Audit
from harness.measure.load_account import LoadAccount
from harness.records.finding_codes import Code
from harness.records.moment import Moment
from harness.records.survival import Cell, Demand, Outcome, Remedy, Result, Survival
from harness.records.verdict import Fate, Finding, Reason, Verdict
from harness.report import markdown, step_summary

HOSTILE = (
    "# a|b `c` *d* _e_ [f](http://x) <img src=x onerror=y> & &amp; https://x.example www.x.example @you #12 :tada: $x$ "
    "~~s~~ \\ ![i](j) </details> -- ==h=="
)


def inner(text: str) -> list[tuple[str, str]]:
    """Return the kinds of what Markdown makes of a text, with their content."""
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    return [
        (child.type, child.content) for token in parser.parse(text) for child in (token.children or [token]) if token
    ]


def read(text: str) -> str:
    """Return the text that a reader of Markdown sees. Fails if it has markup in it."""
    kinds = {kind for kind, _ in inner(text)}
    assert kinds.isdisjoint({"html_inline", "html_block", "link_open", "image", "code_inline", "fence", "code_block"})
    return "\n".join(content for kind, content in inner(text) if kind in {"text", "text_special"} and content)


def audit(*findings: Finding, **about: Any) -> Audit:
    given: dict[str, Any] = {"e2e_ms": {}, "workers": {}, "memory_mb": {}, "witnesses": {}, "entries": 3}
    fates = {fate: {Fate.OK: 2, Fate.LOST: 1}.get(fate, 0) for fate in Fate}
    return Audit(name="emails", fates=fates, findings=findings, **{**given, **about})


def lost(text: str = "1 shop.pay: lost.", count: int = 1) -> Finding:
    reason = Reason(setting="task_acks_late", value=False, where="app", remedy="acks_late=True", count=1)
    return Finding(code=Code.LOST, verdict=Verdict.FAIL, count=count, text=text, tasks=("t-1",), reasons=(reason,))


@pytest.mark.parametrize("text", [HOSTILE, "1. one", "+ two", "line\none\r\ntwo", "\x1b[31m\x00", "- [ ] x", "a\tb"])
def test_a_text_of_others_is_shown_as_it_is(text: str) -> None:
    escaped = markdown.escaped(text)
    assert "\n" not in escaped
    shown = "".join(content for kind, content in inner(f"x {escaped}") if kind in {"text", "text_special"})
    assert shown == "x " + " ".join(text.replace("\x1b", "\\x1b").replace("\x00", "\\x00").split())


def test_a_run_has_its_verdict_its_fates_and_its_findings_with_reason_and_remedy() -> None:
    said = read(markdown.of_audit("emails", audit(lost()), "runs/1"))
    for words in (
        "❌ emails fails",
        "3 tasks were sent",
        "2 ok, 1 lost",
        "1 shop",
        "task_acks_late is False",
        "acks_late=True",
    ):
        assert words in said.replace("\n", ""), words


@pytest.mark.parametrize(("verdict", "words"), [("pass", "✅ emails passes"), ("unknown", "❔ emails is unknown")])
def test_each_verdict_has_its_words(verdict: str, words: str) -> None:
    finding = Finding(code="own", verdict=Verdict(verdict), count=1, text="seen")
    assert words in read(markdown.of_audit("emails", audit(finding), "runs/1"))


def test_hostile_names_stay_names_everywhere() -> None:
    finding = Finding(code=HOSTILE, verdict=Verdict.FAIL, count=1, text=HOSTILE, tasks=(HOSTILE,))
    cell = Cell(task=HOSTILE, moment=Moment.STARTED, fault=HOSTILE)
    result = Result(cell=cell, outcome=Outcome.LOST, why=HOSTILE, folder=HOSTILE)
    remedy = Remedy(task=HOSTILE, lines=(HOSTILE,), results=(result,))
    survival = Survival(name=HOSTILE, demand=Demand.AT_LEAST_ONCE, results=[result], remedies=[remedy])
    unbroken = Survival(name=HOSTILE, demand=Demand.AT_LEAST_ONCE)
    for text in (
        markdown.of_audit(HOSTILE, audit(finding), HOSTILE),
        markdown.of_session([(HOSTILE, audit(finding))], HOSTILE),
        markdown.of_survival(survival, HOSTILE),
        markdown.of_survival(replace(survival, baseline=survival.against(unbroken)), HOSTILE),
    ):
        assert "onerror" in read(text)


def test_a_table_has_its_columns_whatever_stands_in_its_cells() -> None:
    text = markdown.of_session([("a|b", audit(lost())), ("c", audit())], "runs")
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    assert sum(token.type == "th_open" for token in tokens) == 4
    assert sum(token.type == "td_open" for token in tokens) == 8


def test_a_session_of_thousands_shows_the_worst_and_stays_small() -> None:
    rows = [(f"test_{n}", audit()) for n in range(5_000)] + [("test_bad", audit(*[lost("x" * 9_999)] * 99))]
    text = markdown.of_session(rows, "runs")
    assert len(text) < 200_000
    assert "test_bad" in read(text).replace("\n", "")
    assert "5001 runs fails" in read(text)
    assert "And 4901 more" in read(text)


def test_a_load_test_has_its_load_and_its_stages() -> None:
    stage = {"count": 12, "mean_s": 0.1, "p50_s": 0.1, "p95_s": 0.2, "p99_s": 0.3, "max_s": 0.4}
    said = LoadAccount.from_json(
        {
            **dict.fromkeys(("figures", "search", "bottleneck")),
            **{name: [] for name in ("objectives", "faults", "probes")},
            "is_open": True,
            "exit_code": 3,
            "reason": "it was late.",
            "invalid": ["late by 1 s."],
            "counts": {"offered": 12, "sent": 12},
            "stages": {"e2e": stage},
            "drained_s": 0.0,
            "backlog_max": 1,
            "workers": {},
        }
    )
    text = read(markdown.of_load("load", said, audit(), "runs/1")).replace("\n", "")
    for words in ("❔ load is unknown", "it was late.", "12 arrivals", "Invalid: late by 1 s.", "e2e", "300 ms"):
        assert words in text, words


# ------------------------------------------------------------------------------------------------- the step's summary


def refuse(text: str) -> None:
    raise AssertionError(text)


def test_without_the_variable_nothing_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    step_summary.append(lambda: pytest.fail("it was made"), refuse)


def test_each_command_appends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "summary"
    file.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(file))
    step_summary.append(lambda: "one\n", refuse)
    step_summary.append(lambda: "two \ud800\n", refuse)
    assert file.read_text() == "before\none\ntwo \\ud800\n"


def test_a_page_that_cannot_be_written_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told: list[str] = []
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "nowhere" / "summary"))
    step_summary.append(lambda: "one\n", told.append)
    (text,) = told
    assert text.startswith("the summary of this step cannot be written to ")


def test_a_page_that_is_full_stays_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told: list[str] = []
    file = tmp_path / "summary"
    file.write_bytes(b"x" * 899_999)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(file))
    step_summary.append(lambda: "one\n", told.append)
    assert (len(told), file.stat().st_size) == (1, 899_999)
