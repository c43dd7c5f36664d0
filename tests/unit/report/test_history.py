"""The history of runs: a table, drawings, links, and nothing of a run that becomes HTML."""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from harness.commands.cli import cli
from harness.records.verdict import Verdict
from harness.report.history import page
from harness.report.run_list import ListedRun
from harness.report.write_report import write_history
from tests.unit.report.test_page import HOSTILE, Elements


def listed(number: int, name: str = "emails", verdict: Verdict | None = Verdict.PASS, **more: Any) -> ListedRun:
    begun = f"2026-01-{number:02}T00:00:00+00:00"
    quantiles = {"p50": 10.0 * number, "p95": 100.0, "p99": 1_000.0}
    given: dict[str, Any] = {"entries": 3, "e2e_ms": quantiles, "duration_s": 2.0, **more}
    return ListedRun(name=name, folder=f"runs/{number}", begun=begun, verdict=verdict, **given)


def made(runs: Sequence[ListedRun]) -> str:
    return page(runs, "runs", {})


def rows(text: str) -> list[list[str]]:
    (body,) = re.findall(r"<tbody>(.*?)</tbody>", text, re.DOTALL)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in body.split("</tr>") if row]


def links(text: str) -> list[str | None]:
    return [at["href"] for name, at in Elements(text).found if name == "a" and at.get("class") != "skip"]


def test_each_run_is_a_row_with_verdict_fates_durations_and_its_report() -> None:
    runs = [listed(2, verdict=Verdict.FAIL, fates={"lost": 1}), listed(1, verdict=None, broken="no audit")]
    text = page(runs, "runs", {"runs/2": "2/report.html"})
    assert "<h1>2 runs: 1 fail, 1 broken</h1>" in text
    (two, one) = rows(text)
    assert [re.sub("<.*?>", "", cell) for cell in two] == [
        *("2026-01-02 00:00:00", "emails", "fail", "3", "1 lost", "20 ms", "100 ms", "1 s", "2 s", "report"),
    ]
    assert re.sub("<.*?>", "", one[4]) == "no audit"
    assert links(text) == ["2/report.html"]


def test_runs_of_one_name_are_drawn_from_the_oldest_to_the_newest() -> None:
    text = made([listed(3), listed(2, "bulk"), listed(1, verdict=Verdict.FAIL)])
    (p50,) = re.findall(r'<polyline points="([^"]*)" class="line p50"', text)
    (oldest, newest) = [tuple(map(float, point.split(","))) for point in p50.split()]
    assert oldest[0] < newest[0]
    # What takes longer is higher up.
    assert oldest[1] > newest[1]
    assert re.findall(r"verdict-mark (\w+)", text.partition("<body>")[2]) == ["fail", "pass"]
    assert "bulk: " not in text


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf, 1e308, 5e-324])
def test_odd_durations_are_drawn_or_left_out(value: float) -> None:
    text = made([listed(2), listed(1, e2e_ms={"p50": value, "p95": 1.0})])
    numbers = [float(one) for points in re.findall(r'points="([^"]*)"', text) for one in re.split("[ ,]", points)]
    assert numbers
    assert all(-1 <= one <= 1_001 for one in numbers)


def test_nothing_of_a_run_becomes_html_and_nothing_is_loaded() -> None:
    runs = [listed(n, HOSTILE, fates={HOSTILE: 1}, note=HOSTILE) for n in (2, 1)]
    text = page(runs, HOSTILE, {})
    elements = Elements(text)
    assert {name for name, _ in elements.found}.isdisjoint({"script", "img"})
    assert not any(name.startswith("on") for _, at in elements.found for name in at)
    assert "\x1b" not in text
    policy = next(at["content"] for name, at in elements.found if name == "meta" and "http-equiv" in at)
    assert str(policy).startswith("default-src 'none'; script-src 'none'; style-src 'sha256-")


def test_of_very_many_runs_the_newest_are_shown_and_it_says_so() -> None:
    text = made([listed(1, f"run-{n // 2}") for n in range(2_500)])
    assert len(rows(text)) == 2_000
    assert "The newest 2,000 of 2,500 runs." in text
    assert "Of 1,000 names, the 30 that ran last." in text
    assert len(text) < 2_000_000


def test_a_link_leads_from_the_page_to_the_report_whatever_the_folder_is_called(tmp_path: Path) -> None:
    for name in ("javascript:alert(1)", 'a"b?c#d', "none"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        if name != "none":
            (tmp_path / "runs" / name / "report.html").touch()
    runs = [
        ListedRun(name=path.name, folder=str(path), begun=None, verdict=Verdict.PASS)
        for path in sorted((tmp_path / "runs").iterdir())
    ]
    write_history(runs, tmp_path / "runs", tmp_path / "runs" / "history.html")
    text = (tmp_path / "runs" / "history.html").read_text()
    assert links(text) == ["a%22b%3Fc%23d/report.html", "javascript%3Aalert%281%29/report.html"]


def test_the_command_writes_the_page_and_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    opened: list[str] = []

    def opens(address: str) -> bool:
        opened.append(address)
        return True

    monkeypatch.setattr("webbrowser.open", opens)
    runs = tmp_path / "runs"
    (runs / "20260101T000000-emails").mkdir(parents=True)
    answer = CliRunner().invoke(cli, ["runs", "--runs", "runs", "--html", "page.html", "--json"])
    said = json.loads(answer.stdout)
    assert (said["page"], len(said["runs"]), opened) == ("page.html", 1, [])
    assert "1 run: 1 broken" in Path("page.html").read_text()
    answer = CliRunner().invoke(cli, ["runs", "--runs", "runs", "--open"])
    assert answer.stdout == "page: runs/history.html\n"
    assert opened == [(runs / "history.html").as_uri()]
    # The page itself is no run.
    assert len(json.loads(CliRunner().invoke(cli, ["runs", "--runs", "runs", "--json"]).stdout)["runs"]) == 1
