"""`harness runs` and `harness compare`: what they say of folders of all kinds."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from harness.audit.audit import Audit
from harness.audit.journal_in_order import JournalInOrder, span_s
from harness.audit.run_folder import RunFolder
from harness.commands.cli import cli
from harness.errors import RunFolderError, UsageError
from harness.records.moment import Moment
from harness.records.rehearsal import Rehearsal, Rehearsed
from harness.records.survival import Cell, Demand, Outcome, Survival
from harness.records.survival import Result as Tried
from harness.records.verdict import Fate, Finding, Verdict
from harness.report.run_list import audit_in, survival_in

Shell = Callable[..., Result]


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(cli, arguments, standalone_mode=False)


def journal(folder: Path, node: str, *lines: tuple[float, str, dict[str, Any]], pid: int = 1) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    opened = {"n": 0, "t": lines[0][0], "kind": "opened", "node": node, "pid": pid}
    made = [opened, *({"n": n, "t": t, "kind": kind, **more} for n, (t, kind, more) in enumerate(lines, start=1))]
    (folder / f"{node}.{pid}.1.jsonl").write_text("".join(json.dumps(one) + "\n" for one in made))


def run_folder(name: str, *findings: Finding, scenario: str = "emails", run_s: float = 0.1, **fates: int) -> Path:
    """Make the folder of a run with 200 tasks that took `run_s` each."""
    path = Path(".harness/runs") / name
    path.mkdir(parents=True)
    (path / "run.json").write_text(json.dumps({"scenario": scenario}))
    given: dict[str, Any] = {"e2e_ms": {}, "workers": {}, "memory_mb": {}, "witnesses": {}}
    counted = {fate: fates.get(fate.value, 0) for fate in Fate}
    audit = Audit(name=name, entries=sum(counted.values()), fates=counted, findings=findings, **given)
    (path / "audit.json").write_text(json.dumps(audit.to_json()))
    sent = [
        (100.0 + n, kind, {"task": f"t-{n}", "name": "pay"}) for n in range(200) for kind in ("intended", "accepted")
    ]
    journal(path / "journal", "producer", *sent)
    ran: list[tuple[float, str, dict[str, Any]]] = []
    for n in range(200):
        ran.append((100.2 + n, "started", {"task": f"t-{n}", "name": "pay"}))
        ran.append((100.2 + n + run_s, "finished", {"task": f"t-{n}", "state": "SUCCESS"}))
    journal(path / "journal", "worker-1", *ran, pid=7)
    return path


def lost(count: int = 1) -> Finding:
    return Finding(code="lost", verdict=Verdict.FAIL, count=count, text=f"{count} lost.")


BROKEN = Finding(code="own-check", verdict=Verdict.FAIL, count=1, text="the sum is wrong.")


def missed(entry: str, count: int, subject: str = "") -> Finding:
    text = f"{entry}: {count} are missing."
    return Finding(code="tick-missing", verdict=Verdict.FAIL, count=count, text=text, subject=subject)


UNSURE = Finding(code="journal-torn-off", verdict=Verdict.UNKNOWN, count=1, text="lines are missing.")


def survive_folder(name: str, *outcomes: Outcome) -> Path:
    path = Path(".harness/runs") / name
    path.mkdir(parents=True)
    results = [
        Tried(cell=Cell(task="pay", moment=Moment.STARTED, fault=f"f-{n}"), outcome=one, why="", folder="")
        for n, one in enumerate(outcomes)
    ]
    survival = Survival(name="shop", demand=Demand.AT_LEAST_ONCE, results=results)
    (path / "survive.json").write_text(json.dumps(survival.to_json()))
    return path


# ------------------------------------------------------------------------------------------------------------- runs


def test_runs_are_listed_newest_first_with_what_is_not_ok(shell: Shell) -> None:
    run_folder("20260101T000000-emails", ok=3)
    run_folder("20260103T000000-bulk", lost(), ok=2, lost=1)
    survive_folder("20260102T000000-survive-shop", Outcome.OK, Outcome.LOST)
    answer = shell("runs", "--json")
    listed = json.loads(answer.stdout)["runs"]
    assert [(one["name"], one["verdict"], one["entries"], one["fates"]) for one in listed] == [
        ("bulk", "fail", 3, {"lost": 1}),
        ("survive-shop", "fail", 2, {"lost": 1}),
        ("emails", "pass", 3, {}),
    ]
    assert listed[0]["duration_s"] == pytest.approx(199.3)
    assert listed[0]["begun"] == "2026-01-03T00:00:00+00:00"
    shown = shell("runs", "--last", "1").stdout
    assert "bulk" in shown
    assert "emails" not in shown


def write_endless(path: Path) -> None:
    """Write an audit with a number that no counter can have."""
    (path / "run.json").write_text("{}")
    audit = {**json.loads(Path(".harness/runs/20260101T000000-emails/audit.json").read_text()), "entries": math.inf}
    (path / "audit.json").write_text(json.dumps(audit))


def rehearsed(sent: int, verdict: Verdict = Verdict.PASS, **counts: int) -> Rehearsed:
    none = {"lost": 0, "ran_again": 0, "doubled": 0, "failed": 0, "pending": 0}
    return Rehearsed(title="t", folder="one", verdict=verdict, sent=sent, **(none | counts))  # type: ignore[arg-type]


def test_a_rehearsal_is_listed_with_what_became_of_the_tasks_of_all_runs(shell: Shell) -> None:
    path = Path(".harness/runs/20260101T000000-rehearse-shop")
    path.mkdir(parents=True)
    runs = [rehearsed(40, lost=1, ran_again=3), rehearsed(2, Verdict.FAIL, lost=1, refused=4)]
    said = Rehearsal(name="shop", what="rolling", runs=runs, shortest_grace_s=4).to_json()
    # One that was written before the tasks of each worker were counted.
    said["runs"][0].pop("shares")
    (path / "rehearsal.json").write_text(json.dumps(said))
    (one,) = json.loads(shell("runs", "--json").stdout)["runs"]
    assert (one["name"], one["verdict"], one["entries"]) == ("rehearse-shop", "fail", 42)
    assert (one["fates"], one["broken"]) == ({"lost": 2, "refused": 4}, None)
    assert one["note"] == "the shortest grace period is 4 s"
    assert "2 lost, 4 refused; the shortest" in " ".join(shell("runs").stdout.split())


@pytest.mark.parametrize(
    "make",
    [
        write_endless,
        lambda path: path / "nothing is in it",
        lambda path: (path / "run.json").write_text("{}"),
        lambda path: (path / "run.json").write_text("no JSON"),
        lambda path: [(path / name).write_text("{}") for name in ("run.json", "audit.json")],
        lambda path: (path / "survive.json").write_text("[]"),
        lambda path: (path / "survive.json").write_text('{"name": 1}'),
        lambda path: (path / "rehearsal.json").write_text('{"name": 1}'),
        lambda path: (path / "rehearsal.json").write_text("[]"),
        lambda path: [(path / name).mkdir() for name in ("run.json", "audit.json")],
    ],
)
def test_a_folder_that_is_broken_is_listed_as_such(shell: Shell, make: Callable[[Path], object]) -> None:
    run_folder("20260101T000000-emails", ok=3)
    path = Path(".harness/runs/odd\x1b[31m")
    path.mkdir()
    make(path)
    answer = shell("runs", "--json")
    odd, good = json.loads(answer.stdout)["runs"]
    assert (odd["verdict"], good["verdict"]) == (None, "pass")
    assert odd["broken"]
    assert "\x1b" not in shell("runs").stdout


def test_a_damaged_number_is_told_by_each_reader(shell: Shell) -> None:
    good = run_folder("20260101T000000-emails", ok=3)
    path = Path(".harness/runs/20260102T000000-odd")
    path.mkdir()
    write_endless(path)
    with pytest.raises(RunFolderError, match="OverflowError"):
        audit_in(RunFolder(path))
    assert isinstance(shell("compare", str(good), str(path)).exception, RunFolderError)
    survived = survive_folder("20260103T000000-survive", Outcome.OK)
    record = json.loads((survived / "survive.json").read_text())
    baseline = {"worse": [], "better": [], "tried_again": math.inf}
    (survived / "survive.json").write_text(json.dumps({**record, "baseline": baseline}))
    with pytest.raises(RunFolderError, match="OverflowError"):
        survival_in(RunFolder(survived))
    for broken in (path, survived):
        assert isinstance(shell("report", str(broken)).exception, RunFolderError)


def test_a_folder_that_nobody_may_look_into_is_listed_and_the_page_is_written(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    shut = run_folder("20260101T000000-shut", ok=3)
    (run_folder("20260102T000000-open", ok=3) / "report.html").touch()
    is_there = {name: getattr(Path, name) for name in ("exists", "is_file")}

    # Root, as which tests may run, may look into every folder.
    for name, ask in is_there.items():

        def refused(self: Path, ask: Callable[[Path], bool] = ask) -> bool:
            if self.parent.name == shut.name:
                raise PermissionError(13, "Permission denied", str(self))
            return ask(self)

        monkeypatch.setattr(Path, name, refused)
    with pytest.raises(PermissionError):
        (shut / "report.html").is_file()
    assert shell("runs", "--html", "history.html").exception is None
    text = Path("history.html").read_text()
    assert "20260102T000000-open/report.html" in text
    assert "20260101T000000-shut/report.html" not in text
    assert "Permission denied" in text


def test_a_load_test_has_the_verdict_of_its_objectives(shell: Shell) -> None:
    path = run_folder("20260101T000000-load", ok=3)
    (path / "load.json").write_text("{}")
    assert json.loads(shell("runs", "--json").stdout)["runs"][0]["verdict"] is None
    lists: dict[str, Any] = {name: [] for name in ("invalid", "probes", "faults", "objectives")}
    rest: dict[str, Any] = {
        "bottleneck": None,
        "figures": None,
        "search": None,
        "drained_s": 0.0,
        "backlog_max": 0,
        "counts": {},
    }
    said = {"is_open": True, "exit_code": 1, "reason": "missed", "stages": {}, "workers": {}}
    (path / "load.json").write_text(json.dumps({**lists, **rest, **said}))
    assert json.loads(shell("runs", "--json").stdout)["runs"][0]["verdict"] == "fail"


def test_without_runs_it_says_so(shell: Shell) -> None:
    assert shell("runs").stdout == "there is no run in .harness/runs.\n"
    assert json.loads(shell("runs", "--json").stdout) == {"format": 1, "runs": []}


def test_a_folder_of_runs_that_is_named_and_not_there_is_a_wrong_use(shell: Shell) -> None:
    error = shell("runs", "--runs", "typo").exception
    assert isinstance(error, RunFolderError)
    assert "there is no folder typo" in str(error)
    Path("typo").mkdir()
    assert shell("runs", "--runs", "typo").stdout == "there is no run in typo.\n"


def test_what_a_baseline_said_is_told_in_the_list(shell: Shell) -> None:
    path = survive_folder("20260102T000000-survive-shop", Outcome.OK, Outcome.LOST)
    before = survival_in(RunFolder(path))
    before.baseline = before.against(before)
    (path / "survive.json").write_text(json.dumps(before.to_json()))
    (listed,) = json.loads(shell("runs", "--json").stdout)["runs"]
    assert (listed["verdict"], listed["fates"]) == ("pass", {"lost": 1})
    assert listed["note"] == "promises are broken, but nothing is worse than in the baseline"
    assert listed["note"] in shell("runs").stdout


# ---------------------------------------------------------------------------------------------------------- compare


@pytest.mark.parametrize(
    ("before", "after", "options", "code"),
    [
        ({"ok": 200}, {"ok": 200}, (), 0),
        ({"ok": 200}, {"findings": [lost()], "ok": 199, "lost": 1}, (), 1),
        ({"findings": [lost()], "ok": 199, "lost": 1}, {"ok": 200}, (), 0),
        # As many as before are no news; more of them are.
        ({"findings": [lost()], "ok": 199, "lost": 1}, {"findings": [lost()], "ok": 199, "lost": 1}, (), 0),
        ({"findings": [lost()], "ok": 199, "lost": 1}, {"findings": [lost(2)], "ok": 198, "lost": 2}, (), 1),
        ({"ok": 200}, {"findings": [BROKEN], "ok": 200}, (), 1),
        ({"findings": [BROKEN], "ok": 200}, {"findings": [BROKEN], "ok": 200}, (), 0),
        # A code has a finding for each entry: all of them count, not the last.
        ({"findings": [missed("a", 9), missed("b", 1)]}, {"findings": [missed("a", 9), missed("b", 1)]}, (), 0),
        ({"findings": [missed("a", 1), missed("b", 9)]}, {"findings": [missed("a", 8), missed("b", 9)]}, (), 1),
        # What got better with one entry does not make up for what got worse with another.
        ({"findings": [missed("a", 9), missed("b", 1)]}, {"findings": [missed("a", 1), missed("b", 9)]}, (), 1),
        ({"findings": [missed("a", 9, "a"), missed("b", 1, "b")]}, {"findings": [missed("b", 9, "b")]}, (), 1),
        ({"findings": [missed("a", 9, "a"), missed("b", 9, "b")]}, {"findings": [missed("b", 9, "b")]}, (), 0),
        ({"findings": [missed("a", 9)]}, {"findings": [missed("b", 9)]}, (), 0),
        ({"findings": [missed("a", 9, "a")]}, {"findings": [missed("b", 9, "b")]}, (), 1),
        # An older version did not name what a finding is about.
        ({"findings": [missed("a", 9)]}, {"findings": [missed("a", 9, "a")]}, (), 0),
        ({"ok": 200}, {"findings": [UNSURE], "ok": 200}, (), 3),
        ({"findings": [UNSURE], "ok": 200}, {"ok": 200}, (), 0),
        ({"ok": 200}, {"findings": [UNSURE, BROKEN], "ok": 200}, (), 1),
        ({"ok": 200}, {"ok": 200, "scenario": "bulk"}, (), 3),
        # One run each cannot tell noise from a change, unless somebody says what is too slow.
        ({"ok": 200}, {"ok": 200, "run_s": 0.3}, (), 0),
        ({"ok": 200}, {"ok": 200, "run_s": 0.3}, ("--slower", "2"), 1),
        ({"ok": 200}, {"ok": 200, "run_s": 0.3}, ("--slower", "4"), 0),
        ({"ok": 200, "run_s": 0.3}, {"ok": 200}, ("--slower", "2"), 0),
    ],
)
def test_a_run_is_worse_if_more_is_broken(
    shell: Shell, before: dict[str, Any], after: dict[str, Any], options: tuple[str, ...], code: int
) -> None:
    folders = [
        str(run_folder(f"2026010{n}T000000-emails", *given.pop("findings", ()), **given))
        for n, given in ((1, dict(before)), (2, dict(after)))
    ]
    answer = shell("compare", *folders, "--json", *options)
    said = json.loads(answer.stdout)
    assert (answer.return_value, said["outcome"]) == (code, {0: "not worse", 1: "worse", 3: "unknown"}[code])
    assert bool(said["worse"]) == (code == 1)


@pytest.mark.parametrize("emptied", [0, 1])
def test_durations_that_nobody_knows_are_not_judged_as_good(shell: Shell, emptied: int) -> None:
    folders = [run_folder(f"2026010{n}T000000-emails", ok=200) for n in (1, 2)]
    arguments = ("compare", *map(str, folders), "--json")
    assert shell(*arguments, "--slower", "2").return_value == 0
    (folders[emptied] / "journal" / "worker-1.7.1.jsonl").unlink()
    (folders[emptied] / "journal" / "producer.1.1.jsonl").unlink()
    assert shell(*arguments).return_value == 0
    answer = shell(*arguments, "--slower", "2")
    assert answer.return_value == 3
    assert "tasks" in json.loads(answer.stdout)["unknown"][0]


def test_what_is_new_and_what_is_gone_is_told_with_the_durations(shell: Shell) -> None:
    one = run_folder("20260101T000000-emails", lost(), ok=199, lost=1)
    two = run_folder("20260102T000000-emails", BROKEN, ok=200, run_s=0.2)
    said = json.loads(shell("compare", str(one), str(two), "--json").stdout)
    assert [finding["code"] for finding in said["findings"]["new"]] == ["own-check"]
    assert [finding["code"] for finding in said["findings"]["gone"]] == ["lost"]
    assert said["fates"]["lost"] == [1, 0]
    assert said["before"]["stages"]["run"]["p50_s"] == pytest.approx(0.1, rel=0.01)
    assert said["after"]["stages"]["run"]["p50_s"] == pytest.approx(0.2, rel=0.01)
    shown = shell("compare", str(one), str(two)).stdout
    for words in ("worse: own-check: the sum is wrong.", "better: lost: 0 of 200", "p99 after", "200 ms"):
        assert words in shown, words


@pytest.mark.parametrize(
    ("before", "after", "code"),
    [
        ([Outcome.OK, Outcome.LOST], [Outcome.OK, Outcome.LOST], 0),
        ([Outcome.OK, Outcome.OK], [Outcome.OK, Outcome.LOST], 1),
        ([Outcome.OK, Outcome.UNKNOWN], [Outcome.OK, Outcome.UNKNOWN], 3),
        ([Outcome.OK, Outcome.LOST], [Outcome.UNKNOWN, Outcome.UNKNOWN], 3),
        ([Outcome.OK, Outcome.UNKNOWN], [Outcome.OK, Outcome.LOST], 1),
        ([Outcome.OK], [Outcome.OK, Outcome.UNKNOWN], 3),
        ([Outcome.OK, Outcome.OK], [Outcome.OK], 3),
    ],
)
def test_runs_of_survive_are_compared_cell_by_cell(
    shell: Shell, before: list[Outcome], after: list[Outcome], code: int
) -> None:
    one, two = survive_folder("1", *before), survive_folder("2", *after)
    assert shell("compare", str(one), str(two)).return_value == code


def test_what_cannot_be_compared_is_a_wrong_use(shell: Shell) -> None:
    run, survived = run_folder("1", ok=1), survive_folder("2", Outcome.OK)
    assert isinstance(shell("compare", str(run), str(survived)).exception, UsageError)
    assert isinstance(shell("compare", str(run), "nowhere").exception, RunFolderError)
    (run / "audit.json").unlink()
    error = shell("compare", str(run), str(run)).exception
    assert isinstance(error, RunFolderError)
    assert "has no audit.json" in str(error)


# ------------------------------------------------------------------------------------------ the journal by the time


def test_a_journal_is_read_in_the_order_of_time_and_damage_is_counted(tmp_path: Path) -> None:
    ticks: list[list[tuple[float, str, dict[str, Any]]]] = [
        [(float(t), "woke", {}) for t in times] for times in ([1, 4, 3, 9], [2, 5], [6, 7])
    ]
    for number, lines in enumerate(ticks):
        journal(tmp_path, f"node-{number}", *lines)
    with (tmp_path / "node-1.1.1.jsonl").open("a") as file:
        file.write('no JSON\n{"n": 9, "t": 8.0, "kind": "down"}\n{"n": 10, "t"')
    found = JournalInOrder(tmp_path)
    assert [event.t for event in found if event.kind.value != "opened"] == [1, 2, 4, 3, 5, 6, 7, 8, 9]
    assert found.damaged == 2
    assert span_s(tmp_path) == 8.0


def test_few_files_are_open_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(300):
        journal(tmp_path, f"node-{number:03}", (float(number), "woke", {}), (number + 0.5, "down", {}))
    opened, most = 0, 0
    lines = JournalInOrder._lines  # noqa: SLF001 - what reads an open file.

    def counted(self: JournalInOrder, *arguments: Any, **options: Any) -> Any:
        nonlocal opened, most
        opened += 1
        most = max(most, opened)
        try:
            yield from lines(self, *arguments, **options)
        finally:
            opened -= 1

    monkeypatch.setattr(JournalInOrder, "_lines", counted)
    times = [event.t for event in JournalInOrder(tmp_path)]
    assert times == sorted(times)
    assert (len(times), most) == (900, most)
    assert most < 5


def test_a_folder_without_a_line_has_no_duration(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "pipe.jsonl").mkdir()
    assert (list(JournalInOrder(tmp_path)), span_s(tmp_path)) == ([], None)


def test_a_run_that_only_started_a_worker_is_not_taken_for_a_killed_one(shell: Shell) -> None:
    path = Path(".harness/runs/20261124T101500-init")
    journal(path / "journal", "worker-1", (1.0, "ready", {"queues": {}}), (2.0, "down", {}))
    (path / "run.json").write_text(json.dumps({"nodes": ["producer", "worker-1"]}))
    (path / "logs").mkdir()
    (path / "logs/worker-1.log").write_text("ready\n")
    said = " ".join(shell("runs").output.split())
    assert "no task was sent, so that there was none to judge" in said
    assert "was killed" not in said


@pytest.mark.parametrize("has_log", [True, False], ids=["its worker was taken down", "nobody took anything down"])
def test_a_run_that_sent_a_task_and_has_no_audit_may_still_go_on(shell: Shell, *, has_log: bool) -> None:
    path = Path(".harness/runs/20261124T101500-emails")
    # Nothing was sent yet where nobody has taken anything down: that may come.
    sent = [(1.0, "intended", {"task": "t-1", "name": "pay"})] if has_log else [(1.0, "up", {})]
    journal(path / "journal", "producer", *sent)
    (path / "run.json").write_text(json.dumps({"nodes": ["producer", "worker-1"]}))
    if has_log:
        (path / "logs").mkdir()
        (path / "logs/worker-1.log").write_text("ready\n")
    assert "the run still goes on, or was killed" in " ".join(shell("runs").output.split())
