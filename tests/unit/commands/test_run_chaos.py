"""The faults of `harness run`: which are drawn, what is refused, and what is said of those that are found."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from harness.audit.audit import Audit
from harness.commands import run_chaos
from harness.commands.run_chaos import Asked
from harness.console import Console
from harness.errors import HarnessError, UsageError
from harness.faults.timetable import Planned, parse
from harness.records.verdict import Verdict
from harness.running.run import Plan
from harness.scenario import Drive, Scenario
from harness.stack.stack import StackSpec

KILL, HALF_OPEN = parse("kill-worker-1@started:2+1s"), parse("half-open-worker-2@1s+1s")


@pytest.mark.parametrize(
    ("options", "has_processes"),
    [
        (None, True),
        (["--concurrency=4"], True),
        (["--pool=prefork"], True),
        (["--pool=threads"], False),
        (["--pool", "solo"], False),
        (["-P", "gevent"], False),
        (["-Pgevent", "-c4"], False),
    ],
)
def test_only_a_pool_of_processes_loses_one(options: Sequence[str] | None, *, has_processes: bool) -> None:
    spec = StackSpec(app="shop", workers=2, options=options)
    drawn = {one.fault for seed in range(300) for one in run_chaos.drawn(seed, spec, 60).planned}
    assert any(fault.startswith("kill-pool-process") for fault in drawn) is has_processes
    assert not any("mail" in fault for fault in drawn), "it has no mailbox"


def plan(faults: Sequence[Planned]) -> Plan:
    spec = StackSpec(app="shop", workers=2, link=True)
    return Plan(
        scenario=Scenario(), drive=Drive(count=9, seed=7), stack=spec, faults=faults, over_s=2.5, root=Path("runs")
    )


def asked(**said: object) -> Asked:
    return Asked(**({"scenario": "shop", "said": ["--app-dir=src"], "app_dir": Path("src"), "write_test": None} | said))  # type: ignore[arg-type]


class Runs:
    """Runs that fail if one of these faults is among theirs."""

    def __init__(self, *culprits: Planned) -> None:
        """Choose the faults."""
        self.culprits = set(culprits)
        self.plans: list[Plan] = []

    def __call__(self, plan: Plan) -> Audit:
        self.plans.append(plan)
        verdict = Verdict.FAIL if self.culprits & set(plan.faults) else Verdict.PASS
        return cast("Audit", SimpleNamespace(verdict=verdict))


def test_the_smallest_set_is_shown_as_a_command_and_written_as_a_test(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "test_found.py"
    runs, made = Runs(KILL), plan([KILL, HALF_OPEN])
    said = asked(write_test=path)
    assert run_chaos.shrunk(Console(), said, made, StackSpec(app="shop", workers=2), runs) is Verdict.FAIL
    out = capsys.readouterr().out
    assert "1 of 2 faults fail as well, and none of them can be left out; 3 more runs showed it:" in out
    command = (
        "harness run shop --app-dir=src --count=9 --seed=7 --workers=2 --over=2.5s --fault kill-worker-1@started:2+1s"
    )
    assert f"\n{command}\n" in out
    assert "pass: no fault\n" in out
    assert "kill-worker-1@started:2+1s" in path.read_text()
    assert "half-open" not in path.read_text().partition("import pytest")[2]
    # The link is there only for a fault that needs it.
    assert {one.stack.link for one in runs.plans if HALF_OPEN not in one.faults} == {False}
    with pytest.raises(HarnessError, match="cannot be written"):
        run_chaos.shrunk(Console(), said, made, StackSpec(app="shop", workers=2), runs)


def test_what_does_not_fail_again_is_unknown_and_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = asked(write_test=tmp_path / "test_found.py")
    verdict = run_chaos.shrunk(Console(), said, plan([KILL]), StackSpec(app="shop"), Runs())
    assert verdict is Verdict.UNKNOWN
    assert "not reproduced: the same faults did not fail again, in 1 more run." in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_what_fails_without_any_fault_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    def fails(_plan: Plan) -> Audit:
        return cast("Audit", SimpleNamespace(verdict=Verdict.FAIL))

    assert run_chaos.shrunk(Console(), asked(), plan([KILL]), StackSpec(app="shop"), fails) is Verdict.FAIL
    assert "it fails without any fault, as 2 more runs showed:" in capsys.readouterr().out


def test_a_file_is_not_overwritten_and_needs_something_to_write(tmp_path: Path) -> None:
    there = tmp_path / "test_there.py"
    there.touch()
    with pytest.raises(UsageError, match="is there already"):
        run_chaos.check(there, shrinks=True)
    with pytest.raises(UsageError, match="is no folder"):
        run_chaos.check(tmp_path / "nowhere" / "test.py", shrinks=True)
    with pytest.raises(UsageError, match="give both"):
        run_chaos.check(tmp_path / "test_new.py", shrinks=False)
    run_chaos.check(tmp_path / "test_new.py", shrinks=True)
    run_chaos.check(None, shrinks=False)


def test_a_command_repeats_what_was_said_and_not_what_it_says_itself() -> None:
    params = {
        "scenario": "shop",
        "count": 3,
        "seed": 1,
        "workers": None,
        "options": ("-c 2", "-l info"),
        "overrides": (("task_acks_late", False), ("task_annotations", {"a": {"b": 1}})),
        "app": None,
        "app_dir": Path("my src"),
        "root": Path("runs"),
        "timeout_s": 60.0,
        "faults": (),
        "over": None,
        "is_chaotic": True,
        "shrinks": True,
        "write_test": None,
        "big_rows": 4,
    }
    said = run_chaos.said_of(params)
    assert said == [
        "--worker-option=-c 2",
        "--worker-option=-l info",
        "--set=task_acks_late=false",
        '--set=task_annotations={"a": {"b": 1}}',
        "--app-dir=my src",
        "--runs=runs",
        "--timeout=60.0",
        "--big-rows=4",
    ]
    command = run_chaos.command_of(asked(said=said), plan([KILL]))
    assert shlex.split(command)[:5] == ["harness", "run", "shop", "--worker-option=-c 2", "--worker-option=-l info"]
