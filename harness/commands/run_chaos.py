"""Parts of `harness run`: the faults of a seed, and the smallest set of faults that still fails."""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from harness.audit.audit import Audit
from harness.commands.scenario_options import scenario_folder
from harness.console import Console
from harness.errors import RunFolderError, UsageError
from harness.faults.chaos import Chaos, Ground, chaos
from harness.faults.timetable import Planned
from harness.printable import printable
from harness.records.verdict import Verdict
from harness.running.run import Plan, for_faults
from harness.running.shrink import shrink, written_test
from harness.stack.stack import StackSpec

LEAST_WORKERS = 2
"""The number of workers under chaos, unless the command line says another: one goes on while the other is down."""
_FLAGS = {"options": "--worker-option", "root": "--runs", "timeout_s": "--timeout"}
"""The options whose parameter has another name."""
_OVERRIDES = "overrides"
"""The parameter of `--set`: pairs of name and value."""
_ADDED = (
    "scenario",
    "count",
    "seed",
    "workers",
    "faults",
    "over",
    "is_chaotic",
    "shrinks",
    "write_test",
    "junit",
    "as_json",
)
_PREFORK = ("prefork", "processes")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The command line of a run, as far as its faults have a part in it."""

    scenario: str
    said: Sequence[str]
    """The options that are repeated in a command that makes the same run again, without those of the faults."""
    app_dir: Path | None
    write_test: Path | None


def drawn(seed: int, spec: StackSpec, steps: int) -> Chaos:
    """Return the faults of a seed for a stack."""
    ground = Ground(
        workers=spec.workers,
        has_mailbox=spec.mailbox,
        has_processes=_has_processes(spec.options or ()),
        steps=steps,
    )
    return chaos(seed, ground)


def _has_processes(options: Sequence[str]) -> bool:
    """Return whether the options of a worker name no other pool than that of processes."""
    words = [word for option in options for word in option.replace("=", " ").split()]
    named = [pool for name, pool in pairwise(words) if name in {"--pool", "-P"}]
    named += [word[2:] for word in words if word.startswith("-P") and word != "-P"]
    return all(pool in _PREFORK for pool in named)


def check(write_test: Path | None, *, shrinks: bool) -> None:
    """Refuse a file that is there already, before anything is run. Raises UsageError."""
    if write_test is None:
        return
    if not shrinks:
        raise UsageError("--write-test writes what --shrink has found: give both.")
    if write_test.exists():
        raise UsageError(f"{write_test} is there already, and is not overwritten: name another file.")
    if not write_test.absolute().parent.is_dir():
        raise UsageError(f"{write_test.parent} is no folder, so that no test can be written there.")


def command_of(asked: Asked, plan: Plan) -> str:
    """Return the command that makes a run again."""
    words = ["harness", "run", asked.scenario, *asked.said]
    words += [f"--count={plan.drive.count}", f"--seed={plan.drive.seed}", f"--workers={plan.stack.workers}"]
    words += [f"--over={plan.over_s:g}s"] if plan.over_s else []
    for one in plan.faults:
        words += ["--fault", str(one)]
    return shlex.join(words)


def said_of(params: Mapping[str, Any]) -> list[str]:
    """Return the options of a command line that its repetition needs, without those that `command_of` adds.

    Args:
        params: what click has parsed, the scenario's own options included.
    """
    words = []
    for name, value in params.items():
        if name in _ADDED or value is None:
            continue
        if name == _OVERRIDES:
            words += [f"--set={setting}={json.dumps(said)}" for setting, said in value]
            continue
        flag = _FLAGS.get(name, f"--{name.replace('_', '-')}")
        words += [f"{flag}={one}" for one in (value if isinstance(value, tuple) else (value,))]
    return words


def with_faults(plan: Plan, spec: StackSpec, planned: Sequence[Planned]) -> Plan:
    """Return the plan with other faults, and with the stack that they need.

    Args:
        plan: the run.
        spec: its stack, without what any fault needs.
        planned: the faults.
    """
    return replace(plan, faults=tuple(planned), stack=for_faults(spec, planned))


def shrunk(console: Console, asked: Asked, plan: Plan, spec: StackSpec, run: Callable[[Plan], Audit]) -> Verdict:
    """Find the smallest set of faults that still fails, show it, and write the test that was asked for.

    Args:
        console: shows it.
        asked: the command line.
        plan: the run that has failed.
        spec: its stack, without what any fault needs.
        run: makes a run.

    Returns:
        Fail, or unknown if it did not fail again.
    """

    def fails(planned: Sequence[Planned]) -> bool:
        audited = run(with_faults(plan, spec, planned))
        with_these = ", ".join(map(str, planned)) or "no fault"
        console.print(f"{audited.verdict.value}: {with_these}", soft_wrap=True)
        return audited.verdict is Verdict.FAIL

    found = shrink(plan.faults, fails)
    runs = f"{found.runs} more run{'' if found.runs == 1 else 's'}"
    if found.planned is None:
        console.print(f"not reproduced: the same faults did not fail again, in {runs}.", soft_wrap=True)
        return Verdict.UNKNOWN
    least = with_faults(plan, spec, found.planned)
    if not found.planned:
        console.print(f"it fails without any fault, as {runs} showed:", soft_wrap=True)
    else:
        of = f"{len(found.planned)} of {len(plan.faults)} faults"
        console.print(f"{of} fail as well, and none of them can be left out; {runs} showed it:", soft_wrap=True)
    again = command_of(asked, least)
    console.print(printable(again), soft_wrap=True)
    if asked.write_test is not None:
        folder = scenario_folder(asked.app_dir)
        found_by = command_of(asked, plan)
        _write(asked.write_test, written_test(least, scenario=asked.scenario, folder=folder, found_by=found_by))
        console.print(f"written: {printable(str(asked.write_test))}", soft_wrap=True)
    return Verdict.FAIL


def _write(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise RunFolderError(f"{path} cannot be written: {error.strerror}.") from error
