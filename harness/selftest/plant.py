"""A plant: one defect on purpose, what the audit has to find, and whether it did."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, TypeVar

from harness.audit.audit import Audit
from harness.errors import HarnessError, told
from harness.records.finding_codes import Code
from harness.records.values import Json
from harness.records.verdict import Fate, Verdict

Where = TypeVar("Where")
"""What a defect is planted into."""
Findings = Mapping[str, Verdict]


class Result(StrEnum):
    """The result of one plant."""

    FOUND = "found"
    """The audit says what it has to, and no more."""
    MISSED = "missed"
    """A fate or a finding is not there."""
    CONFUSED = "confused"
    """All is there, and something else as well."""
    NOT_PLANTED = "not planted"
    """It could not be planted, so that nothing is known."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The statements of an audit: the tasks that did not end well, and the findings."""

    fates: Mapping[Fate, int] = field(default_factory=dict)
    findings: Findings = field(default_factory=dict)

    @classmethod
    def of(cls, audited: Audit, control: "Seen | None" = None) -> "Seen":
        """Return what an audit says beyond the control."""
        usual = control or cls()
        fates = {fate: count - usual.fates.get(fate, 0) for fate, count in audited.fates.items() if fate is not Fate.OK}
        return cls(
            fates={fate: count for fate, count in fates.items() if count},
            findings={
                code: Verdict.worst([one.verdict for one in audited.findings if one.code == code])
                for code in dict.fromkeys(finding.code for finding in audited.findings)
                if code not in usual.findings
            },
        )

    def words(self) -> str:
        """Return it as text: fates with their counts, then findings."""
        fates = [f"{count} {fate}" if count > 0 else f"{-count} fewer {fate}" for fate, count in self.fates.items()]
        others = [f"{code} ({verdict})" for code, verdict in self.findings.items()]
        return ", ".join([*fates, *others]) or "nothing"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A plant, what was found, and how that compares."""

    name: str
    defect: str
    wanted: Seen
    seen: Seen
    error: str | None = None
    """The error that kept it from being planted or audited, in one sentence."""
    is_made: bool = True
    """False if it could not be planted."""

    @property
    def verdict(self) -> Verdict:
        """The verdict on the auditor: unknown if nothing was planted."""
        return {Result.FOUND: Verdict.PASS, Result.NOT_PLANTED: Verdict.UNKNOWN}.get(self.result, Verdict.FAIL)

    @property
    def result(self) -> Result:
        """The comparison: was all found, and nothing else?"""
        if not self.is_made:
            return Result.NOT_PLANTED
        if self.error is not None:
            return Result.MISSED
        if self.seen == self.wanted:
            return Result.FOUND
        fates = all(self.seen.fates.get(fate, 0) >= count for fate, count in self.wanted.fates.items())
        findings = self.wanted.findings.items() <= self.seen.findings.items()
        return Result.CONFUSED if fates and findings else Result.MISSED

    def to_json(self) -> dict[str, Json]:
        """Return it for `--json`."""
        return {
            "name": self.name,
            "defect": self.defect,
            "result": self.result.value,
            "wanted": _json(self.wanted),
            "found": _json(self.seen),
            "error": self.error,
        }


def _json(seen: Seen) -> dict[str, Json]:
    return {
        "fates": {fate.value: count for fate, count in seen.fates.items()},
        "findings": {str(code): verdict.value for code, verdict in seen.findings.items()},
    }


@dataclass(frozen=True, kw_only=True)
class Plant(Generic[Where]):
    """One defect, and all that the audit has to say of it."""

    name: str
    defect: str
    """The defect, in one sentence."""
    fates: Mapping[Fate, int]
    """The tasks that must meet another fate than `ok`, by that fate, beside those of the control."""
    findings: Findings
    """Each finding that must be there, with its verdict. No other may be."""
    make: Callable[[Where], None]
    """Plants it."""

    def outcome(self, seen: Seen, *, error: str | None = None) -> Outcome:
        """Return what became of it. `error` is that of the audit, if it failed."""
        return Outcome(name=self.name, defect=self.defect, wanted=self.wanted, seen=seen, error=error)

    def not_made(self, error: str) -> Outcome:
        """Return that it could not be planted, and why."""
        return Outcome(name=self.name, defect=self.defect, wanted=self.wanted, seen=Seen(), error=error, is_made=False)

    @property
    def wanted(self) -> Seen:
        """The statements that the audit has to make."""
        return Seen(fates=self.fates, findings=self.findings)


class Plants(Generic[Where]):
    """A list of plants, to which a decorator adds."""

    def __init__(self) -> None:
        """Begin with none."""
        self.all: list[Plant[Where]] = []

    def add(
        self, fates: Mapping[Fate, int] | None = None, **findings: Verdict
    ) -> Callable[[Callable[[Where], None]], Callable[[Where], None]]:
        """Add the decorated function, which plants a defect: its docstring says which, its name is that of the plant.

        Args:
            fates: how many tasks must meet which fate.
            findings: what must be found, by the names of members of `Code`.
        """
        wanted = {Code[name].value: verdict for name, verdict in findings.items()}

        def add(make: Callable[[Where], None]) -> Callable[[Where], None]:
            name = make.__name__.replace("_", " ")
            defect = inspect.cleandoc(make.__doc__ or name).removesuffix(".")
            self.all.append(Plant(name=name, defect=defect, fates=fates or {}, findings=wanted, make=make))
            return make

        return add


def sentence(error: Exception) -> str:
    """Return an error in one sentence."""
    said = told(error) if isinstance(error, HarnessError) else f"{type(error).__name__}: {error}"
    return said.partition("\n")[0]
