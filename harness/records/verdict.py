"""The outcome of an audit: the fate of each task, the findings, and the verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

from harness.records.values import Json


class Verdict(StrEnum):
    """The result of an audit: one of three values. The worst wins: fail, then unknown, then pass."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password.
    UNKNOWN = "unknown"
    FAIL = "fail"

    @property
    def exit_code(self) -> int:
        """The exit code of every command that ends with this verdict."""
        return {Verdict.PASS: 0, Verdict.FAIL: 1, Verdict.UNKNOWN: 3}[self]

    @staticmethod
    def worst(verdicts: Sequence["Verdict"]) -> "Verdict":
        """Return the worst of `verdicts`; pass if there are none."""
        order = list(Verdict)
        return max(verdicts, key=order.index, default=Verdict.PASS)


class Fate(StrEnum):
    """The outcome of one task that was sent. Every entry has exactly one.

    ok          it ran, was recorded as expected, and had its effects as often as promised
    failed      it failed, and that is accounted for: recorded as FAILURE or REVOKED
    pending     it was still in the broker, waiting for its time, or running when the run ended
    refused     the broker did not take it, and the producer was told
    lost        it was accepted, and it never ended, or one of its effects never occurred
    duplicated  it ran, or had an effect, more often than the promise allows
    wrong       it was recorded with another result or state than was expected
    unrecorded  it ended, and the result table does not say so
    recovered   it was not known to be accepted, and it ran
    unknown     the evidence does not suffice to decide
    """

    OK = "ok"
    FAILED = "failed"
    PENDING = "pending"
    REFUSED = "refused"
    LOST = "lost"
    DUPLICATED = "duplicated"
    WRONG = "wrong"
    UNRECORDED = "unrecorded"
    RECOVERED = "recovered"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One statement of the audit."""

    code: str
    """A short stable name, such as `lost` or `unexpected-rows`: a `Code`, or plain text of a scenario."""
    verdict: Verdict
    """The verdict that this finding alone gives the run; `pass` for a remark."""
    count: int
    text: str
    """One sentence that says what was seen."""
    tasks: tuple[str, ...] = ()
    """The ids of the tasks concerned, in order, at most ten."""

    def to_json(self) -> dict[str, Json]:
        """Return the finding as it stands in audit.json and checks.json."""
        return {**asdict(self), "code": str(self.code), "verdict": self.verdict.value, "tasks": list(self.tasks)}

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> "Finding":
        """Read the result of `to_json`. Raises ValueError, TypeError or KeyError on anything else."""
        return cls(
            code=str(value["code"]),
            verdict=Verdict(value["verdict"]),
            count=int(value["count"]),
            text=str(value["text"]),
            tasks=tuple(str(task) for task in value["tasks"]),
        )
