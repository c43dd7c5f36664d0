"""The report of a load test, as a terminal shows it."""

import io
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from harness.audit.audit import Audit
from harness.audit.beat.tick_records import LISTS, EntryTicks
from harness.console import Console as OurConsole
from harness.measure.figures import Figures
from harness.measure.load_account import LoadAccount
from harness.measure.stages import Stage, Summary
from harness.records.values import Json
from harness.records.verdict import Fate, Finding, Reason, Verdict
from harness.report import terminal

SUMMARY = {"count": 1200, "mean_s": 0.00031, "p50_s": 0.000305, "p95_s": 0.0046, "p99_s": 0.123, "max_s": 1.2}
FAULT = {
    "text": "kill-worker@20s+5s: worker-1 was killed; it had 2 tasks in hand; from 20.1 s until 27.0 s of the run.",
    "missing": None,
    "error": None,
}
FIGURES = Figures(
    rate=20.0,
    duration_s=59.0,
    workers=2,
    processes=4,
    offered=1180,
    dropped=0,
    tasks=1180,
    completed=1180,
    backlog_begin=2,
    backlog_end=3,
    # Twenty a second, of 40 ms each, on four processes.
    stages=dict.fromkeys(Stage, Summary(count=1180, mean_s=0.02, p50_s=0.02, p95_s=0.03, p99_s=0.04, max_s=0.05)),
    lateness_p99_s=0.001,
    generator_cpu=0.1,
)
SAID: dict[str, Json] = {
    "is_open": True,
    "exit_code": 0,
    "reason": "every task is accounted for, as it was promised.",
    "counts": {"offered": 1200, "sent": 1200, "dropped": 0, "broken": 0, "accepted": 1200, "refused": 0, "unknown": 0},
    "figures": FIGURES.to_json(),
    "drained_s": 0.42,
    "backlog_max": 17,
    "workers": {"worker-1": 900, "worker-2": 300},
    "faults": [],
    "objectives": [],
    "stages": {"publish": SUMMARY, "queue": {**SUMMARY, "count": 0}},
    "probes": [],
    "invalid": [],
    "search": None,
    "bottleneck": "The limit is running tasks.",
}


def audit(*findings: Finding, **fates: int) -> Audit:
    return Audit(
        name="20260101T000000-load-shop",
        entries=sum(fates.values()),
        fates={fate: fates.get(fate.value, 0) for fate in Fate},
        findings=findings,
        e2e_ms={},
        workers={"worker-1": 900, "worker-2": 300},
        memory_mb={},
        witnesses={},
    )


def account(**changed: Json) -> LoadAccount:
    return LoadAccount.from_json({**SAID, **changed})


def shown(audited: Audit | None = None, **changed: Any) -> str:
    out = io.StringIO()
    console = Console(file=out, width=112, no_color=True, emoji=False, highlight=False)
    for part in terminal.load(account(**changed), audited or audit(ok=1200), "/runs/20260101T000000-load-shop"):
        console.print(part, soft_wrap=isinstance(part, str), markup=False)
    return out.getvalue()


def line(text: str, label: str) -> str:
    (found,) = (one for one in text.splitlines() if one.startswith(f"{label} "))
    return " ".join(found.split())


def test_what_a_user_reads_first() -> None:
    text = shown()
    assert line(text, "arrivals") == "arrivals 1,200 offered = 1,200 sent + 0 dropped"
    assert line(text, "tasks") == "tasks 1,200 sent: 1,200 ok"
    assert line(text, "throughput") == "throughput 20.0/s offered, 20.0/s completed, in 59 s after the warm-up"
    assert line(text, "generator") == "generator late by 1 ms (p99), 10% of a core"
    assert line(text, "backlog") == "backlog 17 at most, 3 when the load ended, drained in 420 ms"
    shares = "workers worker-1 900 (75%), worker-2 300 (25%); fairness (Jain's index) 0.800; "
    shares += "busy 20% of the time"
    assert line(text, "workers") == shares
    assert "The limit is running tasks." in text
    last = text.rstrip().splitlines()[-2:]
    assert last == [
        "run folder: /runs/20260101T000000-load-shop",
        "pass (exit code 0): every task is accounted for, as it was promised.",
    ]


def test_a_file_of_an_older_version_is_shown_the_same() -> None:
    old = {name: value for name, value in FIGURES.to_json().items() if name not in {"stolen", "is_open"}}
    counts = {name: count for name, count in SAID["counts"].items() if name != "broken"}
    assert shown(figures=old, counts=counts, forgotten=1) == shown()


def test_a_machine_that_was_not_all_there_is_said() -> None:
    stolen = replace(FIGURES, stolen=0.2)
    text = shown(figures=stolen.to_json())
    assert line(text, "generator").endswith("10% of a core; its machine's host took 20% of the processor time (steal)")
    # A closed loop cannot be late.
    text = shown(figures=replace(FIGURES, is_open=False).to_json())
    assert line(text, "generator") == "generator 10% of a core"


def test_stages_have_the_digits_that_count_and_one_that_none_passed_is_left_out() -> None:
    text = shown()
    (stage,) = (one.split() for one in text.splitlines() if one.strip().startswith("publish"))
    assert stage == ["publish", "1,200", *["0.31", "ms", "0.305", "ms", "4.6", "ms", "123", "ms", "1.2", "s"]]
    assert not any(one.strip().startswith("queue") for one in text.splitlines())


def test_what_was_dropped_refused_or_broken_is_said() -> None:
    counts = {**SAID["counts"], "offered": 1210, "dropped": 10, "broken": 2, "refused": 3, "unknown": 1}
    text = shown(counts=counts)
    assert line(text, "arrivals") == "arrivals 1,210 offered = 1,200 sent (2 broken) + 10 dropped"
    assert "3 refused, 1 unknown" in text


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, "from 20.1 s until 27.0 s of the run."),
        ({"missing": "it was not healed.", "text": "kill-worker@20s did not land: it was not healed."}, "not land"),
    ],
)
def test_a_fault_is_told_in_its_own_words(changed: dict[str, Json], words: str) -> None:
    told = " ".join(shown(faults=[{**FAULT, **changed}]).split())
    assert words in told
    assert "kill-worker@20s" in told


def test_objectives_are_met_or_missed_with_their_figure() -> None:
    objectives = [
        {"text": "e2e p99 < 500 ms", "figure_s": 0.123, "holds": True},
        {"text": "e2e max < 1 s", "figure_s": 1.2, "holds": False},
        {"text": "store p99 < 1 s", "figure_s": None, "holds": None},
    ]
    lines = [" ".join(one.split()) for one in shown(objectives=objectives).splitlines() if "objective" in one]
    assert lines == [
        "objective e2e p99 < 500 ms: met, 123 ms",
        "objective e2e max < 1 s: missed, 1.2 s",
        "objective store p99 < 1 s: unknown, no task passed it",
    ]


def test_an_invalid_run_says_why_and_a_finding_names_its_tasks() -> None:
    lost = Finding(code="lost", verdict=Verdict.FAIL, count=1, text="never came to be", tasks=("0ee7bddd",))
    reason = "the audit failed: lost."
    text = shown(audit(lost, ok=1199, lost=1), invalid=["the generator was late."], exit_code=1, reason=reason)
    assert "invalid: the generator was late." in text
    assert "0ee7bddd" in text
    assert text.rstrip().endswith("fail (exit code 1): the audit failed: lost.")
    assert "1,199 ok, 1 lost" in text


def test_the_tasks_of_a_finding_follow_its_sentence_without_its_full_stop() -> None:
    fault = Finding(code="fault", verdict=Verdict.PASS, count=2, text="until 5 s of the run.", tasks=("0ee7bddd",))
    words = " ".join(shown(audit(fault, ok=1200)).replace("│", " ").split())
    assert "until 5 s of the run: 0ee7bddd …" in words
    alone = Finding(code="fault", verdict=Verdict.PASS, count=1, text="until 5 s of the run.")
    assert "until 5 s of the run. " in " ".join(shown(audit(alone, ok=1200)).replace("│", " ").split())


def test_under_a_finding_stand_its_reasons_with_what_to_change_and_what_that_costs() -> None:
    reason = Reason(
        setting="task_acks_late",
        value=False,
        where="task \x1b[1mmail",
        remedy="@app.task(acks_late=True)",
        price="it may run twice",
        source="a chapter",
        count=2,
    )
    lost = Finding(code="lost", verdict=Verdict.FAIL, count=3, text="never came to be", reasons=(reason,))
    words = " ".join(shown(audit(lost, ok=1)).replace("│", " ").split())
    assert (
        "never came to be reason: task_acks_late is False (task \\x1b[1mmail) remedy: @app.task(acks_late=True)"
        in words
    )
    assert "price: it may run twice [a chapter]" in words
    both = replace(lost, reasons=(reason, Reason(setting=None, count=1)))
    words = " ".join(shown(audit(both, ok=1)).replace("│", " ").split())
    assert "mail) (2 of 3) remedy: " in words
    assert "reason: no setting is known to be the reason (1 of 3)" in words


def test_a_closed_loop_is_called_one_with_what_that_means() -> None:
    assert "Closed loop" not in shown()
    assert "the latencies are too good" in " ".join(shown(is_open=False).split())


def test_a_search_is_a_table_and_a_sentence() -> None:
    probe = {
        "workers": 1,
        "rate": 400.0,
        "completed_per_s": 399.5,
        "e2e_p50_s": 0.0046,
        "e2e_p99_s": 5.43,
        "backlog_growth": 12,
        "is_valid": True,
        "why_not": None,
    }
    failed = {**probe, "rate": 800.0, "backlog_growth": 2600, "why_not": "the backlog grew."}
    text = shown(figures=None, probes=[probe, failed], search={"text": "The knee is at 400/s."}, bottleneck=None)
    rows = [" ".join(one.split()) for one in text.splitlines() if "/s" in one]
    assert rows[:2] == [
        "1 400/s 399.5/s 4.6 ms 5.43 s +12 yes",
        "1 800/s 399.5/s 4.6 ms 5.43 s +2,600 the backlog grew.",
    ]
    assert "The knee is at 400/s." in text
    assert "throughput" not in text


LONG = "test_whoever_imports_twice_changes_nothing[scenarios.bulk_data-worker]"


def long_audit() -> Audit:
    about = {"entry": LONG, "rule": f"{LONG} every hour", "expected": 3, "sent": 3, "lateness_s": {}}
    tick = EntryTicks.from_json({**about, **{key: {"count": 0, "first": []} for key in LISTS}})
    finding = Finding(code="lost", verdict=Verdict.FAIL, count=1, text=f"1 {LONG}: it was lost", tasks=(LONG,))
    return replace(audit(finding, ok=3), workers={LONG: 3}, ticks=(tick,))


@pytest.mark.parametrize("columns", ["60", "80", "120", None])
@pytest.mark.parametrize(
    ("made", "times"),
    [
        (lambda: [terminal.ledger([(LONG, long_audit())])], 1),
        (lambda: [terminal.accounting(long_audit())], 2),
        (lambda: [terminal.findings(long_audit())], 2),
        (lambda: [terminal.ticks(long_audit())], 2),
        (lambda: terminal.load(account(workers={LONG: 1}, invalid=[LONG]), long_audit(), LONG), 5),
    ],
    ids=["ledger", "accounting", "findings", "ticks", "load"],
)
def test_a_name_is_whole_in_a_log_and_never_broken_in_mid_word(
    made: Callable[[], Iterable[Any]], times: int, columns: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    console = OurConsole(file=io.StringIO())
    for part in made():
        console.print(part, soft_wrap=isinstance(part, str))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.count(LONG) >= times or columns
    for piece in ("whoever", "imports", "twice", "changes", "nothing", "scenarios", "bulk", "worker]"):
        assert text.count(piece) >= times, text


HOSTILE = "\x1b[2J[/red]\r"
SHOWN = r"\x1b[2J[/red]\r"


def hostile_audit() -> Audit:
    finding = Finding(code=HOSTILE, verdict=Verdict.FAIL, count=1, text=HOSTILE, tasks=(HOSTILE,))
    return replace(audit(finding), name=HOSTILE, workers={HOSTILE: 3, "other": 1}, memory_mb={HOSTILE: 1.0})


@pytest.mark.parametrize(
    ("shown", "times"),
    [
        (lambda: [terminal.accounting(hostile_audit())], 2),
        (lambda: [terminal.findings(hostile_audit())], 3),
        (lambda: [terminal.ledger([(HOSTILE, hostile_audit())])], 1),
        (lambda: terminal.load(account(workers={HOSTILE: 1}, invalid=[HOSTILE]), hostile_audit(), HOSTILE), 7),
        (lambda: terminal.load(account(reason=HOSTILE, bottleneck=HOSTILE), audit(), ""), 2),
    ],
)
def test_names_and_messages_of_others_are_shown_as_text(shown: Callable[[], Iterable[Any]], times: int) -> None:
    # Whatever console it is: this one takes markup, and lets everything pass.
    console = Console(file=io.StringIO(), width=200)
    for part in shown():
        console.print(part, markup=not isinstance(part, str))
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert said.count(SHOWN) == times, said
    assert not {"\x1b", "\r"} & set(said)
