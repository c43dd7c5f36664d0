"""What became of the tasks: the fate of each, what the audit has to say, and its verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

from harness.records.values import Json


class Verdict(StrEnum):
    """The three-valued answer of an audit. The worst wins: fail, then unknown, then pass."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password.
    UNKNOWN = "unknown"
    FAIL = "fail"

    @property
    def exit_code(self) -> int:
        """The exit code of every command that ends with this verdict."""
        return {Verdict.PASS: 0, Verdict.FAIL: 1, Verdict.UNKNOWN: 3}[self]

    @staticmethod
    def worst(verdicts: Sequence["Verdict"]) -> "Verdict":
        """The worst of `verdicts`; pass if there are none."""
        order = list(Verdict)
        return max(verdicts, key=order.index, default=Verdict.PASS)


class Fate(StrEnum):
    """What became of a task that somebody sent. Every entry has exactly one.

    ok          it ran, was recorded as expected, and had its effects as often as promised
    failed      it ended in an accounted failure: recorded as FAILURE or REVOKED
    pending     it was still in the broker, waiting for its time, or running when the run ended
    refused     the broker surely did not take it, and the producer was told so
    lost        it was accepted, and it or one of its effects never came to be
    duplicated  it ran, or had an effect, more often than the promise allows
    wrong       it was recorded with another result or state than was expected
    unrecorded  it ran to its end, and the result table does not say so
    recovered   nobody knew whether it was accepted, and it ran
    unknown     the witnesses do not suffice to say
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
    """Something the audit has to say."""

    code: str
    """A short stable name, such as `lost` or `unexpected-row`."""
    verdict: Verdict
    """What this finding alone makes of the run; `pass` for a remark."""
    count: int
    text: str
    """One sentence: what was seen."""
    tasks: tuple[str, ...] = ()
    """At most ten ids of the tasks concerned, in order."""

    def to_json(self) -> dict[str, Json]:
        """As it stands in audit.json and checks.json."""
        return {**asdict(self), "verdict": self.verdict.value, "tasks": list(self.tasks)}

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> "Finding":
        """The finding that `to_json` wrote. Raises ValueError, TypeError or KeyError on anything else."""
        return cls(
            code=str(value["code"]),
            verdict=Verdict(value["verdict"]),
            count=int(value["count"]),
            text=str(value["text"]),
            tasks=tuple(str(task) for task in value["tasks"]),
        )
