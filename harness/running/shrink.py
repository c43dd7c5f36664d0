"""The smallest set of faults that still breaks a promise: delta debugging, in which each try is a real run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from harness.containers.app_node import overriding
from harness.faults.timetable import Planned
from harness.running.run import Plan

_FEW = 4
Fails = Callable[[Sequence[Planned]], bool]
"""Runs the scenario with some of the faults, and returns whether a promise was broken."""


@dataclass(frozen=True, kw_only=True)
class Shrunk:
    """The smallest set that was found."""

    planned: tuple[Planned, ...] | None
    """The faults, none of which can be left out; empty if it fails without any. None if it did not fail again."""
    runs: int
    """The number of runs that this took."""


def shrink(planned: Sequence[Planned], fails: Fails) -> Shrunk:
    """Find the smallest set of faults with which a run still fails.

    A run whose verdict is unknown counts as one that does not fail: what is found has failed for certain, in a run of
    its own.

    Args:
        planned: the faults of a run that failed.
        fails: runs with some of them.
    """
    known: dict[tuple[Planned, ...], bool] = {}

    def failed(some: Sequence[Planned]) -> bool:
        key = tuple(some)
        if key not in known:
            known[key] = fails(key)
        return known[key]

    every = tuple(planned)
    if not failed(every):
        return Shrunk(planned=None, runs=len(known))
    smallest = () if failed(()) else _smallest(every, failed)
    return Shrunk(planned=smallest, runs=len(known))


def _smallest(every: tuple[Planned, ...], failed: Fails) -> tuple[Planned, ...]:
    """Return the smallest failing set: by parts, by what is left without each part, and then by smaller parts.

    A few faults are tried one by one: a single one that is enough is worth more than some runs.
    """
    parts = len(every) if len(every) <= _FEW else 2
    while len(every) > 1:
        cuts = [len(every) * number // parts for number in range(parts + 1)]
        chunks = [every[begin:end] for begin, end in pairwise(cuts)]
        others = [tuple(chain.from_iterable(chunks[:i] + chunks[i + 1 :])) for i in range(parts)]
        if (fewer := next(filter(failed, chunks), None)) is not None:
            every, parts = fewer, 2
        elif (fewer := next(filter(failed, others), None)) is not None:
            every, parts = fewer, max(parts - 1, 2)
        elif parts == len(every):
            break
        else:
            parts = min(2 * parts, len(every))
    return every


def written_test(plan: Plan, *, scenario: str, folder: Path, found_by: str) -> str:
    """Return a file for pytest that makes the run of a plan again, and demands that it passes.

    Args:
        plan: the run.
        scenario: the name of its scenario, as the command line has it.
        folder: the folder that the scenario is imported from.
        found_by: the command that found it.
    """
    spec, drive = plan.stack, plan.drive
    marks: dict[str, object] = {"app": spec.app, "app_folder": str(folder)}
    marks |= {"options": None if spec.options is None else list(spec.options), "workers": spec.workers}
    marks |= {"own_broker": spec.own_broker, "link": spec.link}
    marker = ",\n    ".join(f"{name}={value!r}" for name, value in marks.items())
    faults = "".join(f"    {_quoted(str(one))},\n" for one in plan.faults)
    mailbox = '@pytest.mark.usefixtures("mailbox")\n' if spec.mailbox else ""
    own = overriding(spec.settings)
    env = f"{{**scenario.env, **{own!r}}}" if own else "scenario.env"
    given = ", ".join(f"{_quoted(name)}: {_literal(value)}" for name, value in drive.options.items())
    return f'''"""The smallest set of faults that broke a promise of {scenario}.

Found by: {found_by}
"""

from pathlib import Path

import pytest

from harness import Drive
from harness.faults.timetable import FaultTimetable, parse
from harness.running.run import find_scenario, play

FAULTS = [
{faults}]
scenario = find_scenario({_quoted(scenario)}, Path({_quoted(str(folder))}))


@pytest.mark.stack(
    {marker},
    env={env},
    promise=scenario.promise,
)
{mailbox}def test_{"".join(c if c.isalnum() else "_" for c in scenario)}_keeps_its_promise_under_these_faults(stack):
    drive = Drive(count={drive.count}, seed={drive.seed}, options={{{given}}})
    timetable = FaultTimetable(stack, [parse(fault) for fault in FAULTS])
    audit = play(scenario, stack, drive, timetable=timetable, over_s={plan.over_s!r})
    assert audit.passed, audit.text()
'''


def _literal(value: Any) -> str:
    return f"Path({_quoted(str(value))})" if isinstance(value, Path) else repr(value)


def _quoted(text: str) -> str:
    return '"' + repr("'" + text)[2:-1].replace('"', '\\"') + '"' if '"' in text else f'"{repr(text)[1:-1]}"'
