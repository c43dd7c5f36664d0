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
class Reason:
    """The setting that made a finding so, and what to change; or that no setting is known to be the reason."""

    setting: str | None
    """The name of the setting, such as `task_acks_late`; None if none is known."""
    value: Json = None
    """The value that it had in the running worker."""
    where: str = ""
    """The place where it was set: `app`, `worker`, `sender`, or a task, a queue or an annotation with its name."""
    seen: str = ""
    """What was seen of the tasks that makes it to blame, as a clause; empty in a record that does not say it."""
    remedy: str = ""
    """The line to paste."""
    price: str = ""
    """What the remedy costs, as a clause."""
    source: str = ""
    """Where this can be read: an issue such as `celery/celery#1628`, or a chapter of a documentation."""
    count: int
    """Number of the finding's tasks that have this reason; 0 for a finding that is not about tasks."""
    tasks: tuple[str, ...] = ()
    """The ids of these tasks, in order, at most three."""

    @property
    def text(self) -> str:
        """Return the reason as a clause, such as `task_acks_late is False (app)`."""
        if self.setting is None:
            return "no setting is known to be the reason"
        return f"{self.setting} is {self.value!r} ({self.where})"

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> "Reason":
        """Read the result of `asdict`. Raises ValueError, TypeError or KeyError on anything else."""
        return cls(
            setting=None if value["setting"] is None else str(value["setting"]),
            value=value["value"],
            where=str(value["where"]),
            seen=str(value.get("seen", "")),
            remedy=str(value["remedy"]),
            price=str(value["price"]),
            source=str(value["source"]),
            count=int(value["count"]),
            tasks=tuple(str(task) for task in value["tasks"]),
        )


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
    subject: str = ""
    """What it is about, if a code can have several findings, such as an entry of beat's schedule; else empty."""
    reasons: tuple[Reason, ...] = ()
    """The reasons of a broken promise, that of the most tasks first; empty if the workers' settings are not known."""

    @property
    def sentence(self) -> str:
        """The text with the ids of the tasks, and with an ellipsis if there are more."""
        if not self.tasks:
            return self.text
        more = " …" if self.count > len(self.tasks) else ""
        return f"{self.text.removesuffix('.')}: {', '.join(self.tasks)}{more}"

    @property
    def reason_lines(self) -> list[str]:
        """The lines that tell the reasons and the remedies. Of several reasons, each has the number of its tasks."""
        lines = []
        for reason in self.reasons:
            of = f" ({reason.count} of {self.count})" if len(self.reasons) > 1 else ""
            lines.append(f"reason: {reason.text}{of}")
            if reason.remedy:
                lines.append(f"remedy: {reason.remedy}")
            if reason.price:
                lines.append(f"price: {reason.price} [{reason.source}]")
        return lines

    def to_json(self) -> dict[str, Json]:
        """Return the finding as it stands in audit.json and checks.json."""
        code, verdict = str(self.code), self.verdict.value
        value = {**asdict(self), "code": code, "verdict": verdict, "tasks": list(self.tasks)}
        reasons = value.pop("reasons")
        if not self.subject:
            del value["subject"]
        return {**value, "reasons": [{**one, "tasks": list(one["tasks"])} for one in reasons]} if reasons else value

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> "Finding":
        """Read the result of `to_json`. Raises ValueError, TypeError or KeyError on anything else."""
        return cls(
            code=str(value["code"]),
            verdict=Verdict(value["verdict"]),
            count=int(value["count"]),
            text=str(value["text"]),
            tasks=tuple(str(task) for task in value["tasks"]),
            subject=str(value.get("subject", "")),
            reasons=tuple(map(Reason.from_json, value.get("reasons", ()))),
        )
