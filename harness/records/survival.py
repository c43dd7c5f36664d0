"""What became of tasks that were held at each moment of their lives while the worst was done to them: survive.json."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

from harness.records.moment import Moment
from harness.records.values import Json
from harness.records.verdict import Verdict


class Outcome(StrEnum):
    """The fate of the tasks of one cell, from good to bad."""

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


@dataclass(kw_only=True)
class Survival:
    """The outcome of all cells."""

    name: str
    demand: Demand
    results: list[Result] = field(default_factory=list)
    remedies: list[Remedy] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of all cells, without the remedies."""
        return Verdict.worst([self.demand.verdict(one.outcome) for one in self.results])

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
        )


def _to_json(result: Result) -> dict[str, Json]:
    cell = result.cell
    return {
        "task": cell.task,
        "moment": cell.moment.value,
        "fault": cell.fault,
        "outcome": result.outcome.value,
        "why": result.why,
        "folder": result.folder,
        "reasons": list(result.reasons),
        "remedies": list(result.remedies),
    }


def _result(value: Mapping[str, Json]) -> Result:
    return Result(
        cell=Cell(task=str(value["task"]), moment=Moment(value["moment"]), fault=str(value["fault"])),
        outcome=Outcome(value["outcome"]),
        why=str(value["why"]),
        folder=str(value["folder"]),
        reasons=tuple(map(str, value["reasons"])),
        remedies=tuple(map(str, value["remedies"])),
    )
