"""The fates of tasks that were held at each moment of their lives while the worst was done to them: survive.json."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

from harness.records.moment import Moment
from harness.records.values import Json
from harness.records.verdict import Verdict


class Outcome(StrEnum):
    """The fate of the tasks of one cell, from good to bad; `unknown` is neither."""

    OK = "ok"
    RAN_TWICE = "ran twice"
    EFFECT_TWICE = "effect twice"
    FAILED = "failed"
    HUNG = "hung"
    LOST = "lost"
    UNKNOWN = "unknown"


class Demand(StrEnum):
    """The demand on every task under every fault."""

    AT_LEAST_ONCE = "at-least-once"
    EXACTLY_ONCE_EFFECTS = "exactly-once-effects"

    def verdict(self, outcome: Outcome) -> Verdict:
        """Return what an outcome means under this demand."""
        if outcome is Outcome.UNKNOWN:
            return Verdict.UNKNOWN
        if outcome is Outcome.EFFECT_TWICE:
            return Verdict.FAIL if self is Demand.EXACTLY_ONCE_EFFECTS else Verdict.PASS
        return Verdict.PASS if outcome in {Outcome.OK, Outcome.RAN_TWICE} else Verdict.FAIL


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One thing to try: one task, held at one moment, under one fault."""

    task: str
    """The registered name of the held task."""
    moment: Moment
    fault: str

    def __str__(self) -> str:
        return f"{self.task} {self.moment.value} {self.fault}"


@dataclass(frozen=True, kw_only=True)
class Result:
    """The outcome of one cell, and its reasons."""

    cell: Cell
    outcome: Outcome
    why: str
    """The finding in words; empty if all is well."""
    folder: str
    """The cell's run folder, beside the others."""
    reasons: tuple[str, ...] = ()
    """The settings that made it so, such as `task_acks_late is False (app)`, or that none is known."""
    remedies: tuple[str, ...] = ()
    """The lines to paste that change them."""


@dataclass(frozen=True, kw_only=True)
class Remedy:
    """A setting that was overridden from outside, and what became of the cells with it."""

    task: str
    lines: tuple[str, ...]
    """The lines to paste into the app."""
    results: tuple[Result, ...]


@dataclass(frozen=True, kw_only=True)
class Change:
    """A cell whose outcome is another one than in the baseline."""

    cell: Cell
    before: Outcome | None
    """The outcome in the baseline; None if it has no such cell."""
    now: Outcome

    def __str__(self) -> str:
        if self.before is None:
            return f"{self.cell}: {self.now.value}, and the baseline has no such cell"
        return f"{self.cell}: {self.before.value} before, {self.now.value} now"


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The comparison with an earlier outcome, which is the measure: what is worse, and what is better."""

    worse: tuple[Change, ...] = ()
    better: tuple[Change, ...] = ()
    tried_again: int = 0
    """The number of cells of the earlier outcome that were tried again."""
    not_tried: int = 0
    """The number of cells of the earlier outcome that were not."""

    @property
    def is_apart(self) -> bool:
        """Return whether nothing that the earlier outcome has was tried again, so that it measures nothing."""
        return self.not_tried > 0 and self.tried_again == 0

    @property
    def worse_cells(self) -> frozenset[Cell]:
        """The cells that are worse."""
        return frozenset(one.cell for one in self.worse)


@dataclass(kw_only=True)
class Survival:
    """The outcome of all cells."""

    name: str
    demand: Demand
    results: list[Result] = field(default_factory=list)
    remedies: list[Remedy] = field(default_factory=list)
    baseline: Baseline | None = None
    """What is worse and better than in the baseline; None without a baseline."""

    @property
    def promise(self) -> Verdict:
        """The worst verdict of all cells, without the remedies, whatever the baseline says."""
        return Verdict.worst([self.demand.verdict(one.outcome) for one in self.results])

    @property
    def verdict(self) -> Verdict:
        """The verdict on the whole: on the promise, or with a baseline on what is worse than there."""
        if self.baseline is None:
            return self.promise
        if self.baseline.worse:
            return Verdict.FAIL
        if self.baseline.is_apart:
            return Verdict.UNKNOWN
        if self.promise is not Verdict.FAIL:
            return self.promise
        # What was broken before is no news, and what is not known is none either.
        is_unknown = any(self.demand.verdict(one.outcome) is Verdict.UNKNOWN for one in self.results)
        return Verdict.UNKNOWN if is_unknown else Verdict.PASS

    def against(self, before: "Survival") -> Baseline:
        """Return which cells got worse and which got better since an earlier outcome.

        A cell that is unknown now is neither. One that the earlier outcome does not have, or not know, counts as worse
        if it breaks the demand.
        """
        order, was = list(Outcome), {one.cell: one.outcome for one in before.results}
        worse: list[Change] = []
        better: list[Change] = []
        for one in self.results:
            if one.outcome is Outcome.UNKNOWN:
                continue
            old = was.get(one.cell)
            change = Change(cell=one.cell, before=old, now=one.outcome)
            if old is None or old is Outcome.UNKNOWN:
                worse += [change] if self.demand.verdict(one.outcome) is Verdict.FAIL else []
            elif one.outcome is not old:
                (worse if order.index(one.outcome) > order.index(old) else better).append(change)
        tried_again = len(was.keys() & {one.cell for one in self.results})
        return Baseline(
            worse=tuple(worse), better=tuple(better), tried_again=tried_again, not_tried=len(was) - tried_again
        )

    def to_json(self) -> dict[str, Json]:
        """Return what survive.json holds."""
        return {
            "format": 1,
            "name": self.name,
            "promise": self.demand.value,
            "verdict": self.verdict.value,
            "cells": [_to_json(one) for one in self.results],
            "remedies": [
                {"task": one.task, "lines": list(one.lines), "cells": [_to_json(result) for result in one.results]}
                for one in self.remedies
            ],
            "baseline": None if self.baseline is None else _of_baseline(self.baseline),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> Self:
        """Read the result of `to_json`. Raises ValueError, TypeError or KeyError on anything else."""
        return cls(
            name=str(value["name"]),
            demand=Demand(value["promise"]),
            results=[_result(one) for one in value["cells"]],
            remedies=[
                Remedy(
                    task=str(one["task"]),
                    lines=tuple(map(str, one["lines"])),
                    results=tuple(_result(result) for result in one["cells"]),
                )
                for one in value["remedies"]
            ],
            # Files that were written before there was this member do not have it.
            baseline=None if value.get("baseline") is None else _baseline(value["baseline"]),
        )


def _of_cell(cell: Cell) -> dict[str, Json]:
    return {"task": cell.task, "moment": cell.moment.value, "fault": cell.fault}


def _cell(value: Mapping[str, Json]) -> Cell:
    return Cell(task=str(value["task"]), moment=Moment(value["moment"]), fault=str(value["fault"]))


def _to_json(result: Result) -> dict[str, Json]:
    return {
        **_of_cell(result.cell),
        "outcome": result.outcome.value,
        "why": result.why,
        "folder": result.folder,
        "reasons": list(result.reasons),
        "remedies": list(result.remedies),
    }


def _result(value: Mapping[str, Json]) -> Result:
    return Result(
        cell=_cell(value),
        outcome=Outcome(value["outcome"]),
        why=str(value["why"]),
        folder=str(value["folder"]),
        reasons=tuple(map(str, value["reasons"])),
        remedies=tuple(map(str, value["remedies"])),
    )


def _of_baseline(baseline: Baseline) -> dict[str, Json]:
    return {
        "worse": list(map(_of_change, baseline.worse)),
        "better": list(map(_of_change, baseline.better)),
        "tried_again": baseline.tried_again,
        "not_tried": baseline.not_tried,
    }


def _of_change(change: Change) -> dict[str, Json]:
    before = None if change.before is None else change.before.value
    return {**_of_cell(change.cell), "before": before, "now": change.now.value}


def _baseline(value: Mapping[str, Json]) -> Baseline:
    return Baseline(
        worse=tuple(map(_change, value["worse"])),
        better=tuple(map(_change, value["better"])),
        # Files that were written before there were these members do not have them.
        tried_again=int(value.get("tried_again", 0)),
        not_tried=int(value.get("not_tried", 0)),
    )


def _change(value: Mapping[str, Json]) -> Change:
    before = None if value["before"] is None else Outcome(value["before"])
    return Change(cell=_cell(value), before=before, now=Outcome(value["now"]))
