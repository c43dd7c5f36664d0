"""The expectations of a run: promises, expected results and effects. Runs in every container."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TypedDict

from harness.records.values import Json


class Delivery(StrEnum):
    """The number of times a task may run. A retry that the task itself asks for does not count."""

    AT_MOST_ONCE = "at-most-once"
    AT_LEAST_ONCE = "at-least-once"


class Effects(StrEnum):
    """The number of times each expected effect may occur.

    ONCE_UNLESS_KILLED is for effects that no transaction can cover, such as a mail or a call to an external API: at
    least once, and once more for each execution of the task that began and did not end.
    """

    EXACTLY_ONCE = "exactly-once"
    ONCE_UNLESS_KILLED = "once-unless-killed"
    AT_LEAST_ONCE = "at-least-once"


@dataclass(frozen=True, kw_only=True)
class Promise:
    """The guarantees that a scenario demands for every task it sends."""

    delivery: Delivery = Delivery.AT_LEAST_ONCE
    effects: Effects = Effects.EXACTLY_ONCE
    recorded: bool = True
    """Each task that ends must have a row in `celery_taskmeta`."""
    deadline_s: float | None = None
    """Most seconds from a task's due time to its first success; None promises nothing."""
    fairness: float | None = None
    """Least value of Jain's index of the executions begun per worker, above 0 and at most 1; None promises nothing.

    The index is 1 if all workers began equally many, and 1/n if one of n began them all (Jain, Chiu and Hawe 1984).
    """

    memory_growth_mb: float | None = None
    """Most MiB by which a process of a worker's pool may grow in 1,000 tasks; None promises nothing."""

    def __post_init__(self) -> None:
        """Refuse an index outside (0, 1], and a growth below 0. Raises ValueError."""
        if self.memory_growth_mb is not None and not self.memory_growth_mb >= 0:
            raise ValueError(f"a growth of {self.memory_growth_mb} MiB cannot be promised: give 0 or more.")
        if self.fairness is not None and not 0 < self.fairness <= 1:
            raise ValueError(f"a fairness of {self.fairness} cannot be: give more than 0 and at most 1.")

    def to_json(self) -> dict[str, Json]:
        """Return a dict for run.json; `from_json` reads it back."""
        return {**asdict(self), "delivery": self.delivery.value, "effects": self.effects.value}

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> "Promise":
        """Read the result of `to_json`. Raises ValueError, TypeError or KeyError on anything else."""
        return cls(
            delivery=Delivery(value["delivery"]),
            effects=Effects(value["effects"]),
            recorded=bool(value["recorded"]),
            deadline_s=None if value["deadline_s"] is None else float(value["deadline_s"]),
            fairness=None if value["fairness"] is None else float(value["fairness"]),
            memory_growth_mb=None if value.get("memory_growth_mb") is None else float(value["memory_growth_mb"]),
        )


def mail(*, to: str | None = None, subject: str | None = None) -> str:
    """Return the key of a mail by its recipient, its subject, or both, regardless of its Message-ID.

    Every matching mail has this key: two mails to one recipient are the same effect twice, unless the subject
    distinguishes them.

    Args:
        to: one of the recipients; case is ignored for ASCII letters.
        subject: the whole subject, decoded; runs of white space count as one space.

    Raises:
        ValueError: neither is given.
    """
    if to is None and subject is None:
        raise ValueError("a mail is expected by `to`, by `subject`, or by both.")
    said = []
    if to is not None:
        # A semicolon separates the two parts, and a quoted local part may contain one.
        said.append(f"to={_lower(to.strip()).replace('%', '%25').replace(';', '%3B')}")
    if subject is not None:
        said.append(f"subject={' '.join(subject.split())}")
    return f"mail:{';'.join(said)}"


def _lower(text: str) -> str:
    """Return the text with ASCII letters in lower case. The case of other letters depends on the Python version."""
    return text.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")


def _as_told(key: str) -> str:
    """Normalize the key of a mail to the form that `mail` returns; other keys stay the same."""
    if key.startswith("mail:subject="):
        return mail(subject=key.removeprefix("mail:subject="))
    if not key.startswith("mail:to="):
        return key
    to, has_subject, subject = key.removeprefix("mail:to=").partition(";subject=")
    return mail(to=to.replace("%3B", ";").replace("%25", "%"), subject=subject if has_subject else None)


class _Unchecked:
    """The type of `UNCHECKED`."""

    def __repr__(self) -> str:
        return "UNCHECKED"


UNCHECKED = _Unchecked()
"""A marker: the result may be anything. None cannot mark this, because None can be an expected result."""


class ExpectedOutcome(TypedDict, total=False):
    """The JSON object in which a journal line holds the expected outcome of a task; see `Expect`."""

    state: str
    """The final state; left out for SUCCESS."""
    result: Json
    """The result; left out if it may be anything."""
    error: str
    """The class name of the exception; left out if it may be any."""


@dataclass(frozen=True, kw_only=True)
class Expect:
    """The outcome that a producer expects of one task."""

    state: str = "SUCCESS"
    """The final state in the task's row: SUCCESS, FAILURE or REVOKED."""
    result: Json = UNCHECKED
    """The expected result of a SUCCESS."""
    error: str | None = None
    """The class name of the expected exception of a FAILURE; None accepts any."""
    effects: Sequence[str] | None = None
    """The keys of the expected effects, such as `mail` returns. An empty list expects none; None leaves effects
    unchecked."""

    def __post_init__(self) -> None:
        """Refuse a key that is listed twice; the promise says whether an effect may occur twice. Raises ValueError."""
        if self.effects is not None and len(set(self.effects)) != len(self.effects):
            raise ValueError(f"an effect is expected twice: {', '.join(self.effects)}")

    def to_json(self) -> dict[str, Json]:
        """Return the members `expect` and `effects` of a journal line; each is left out if it is empty."""
        expect: ExpectedOutcome = {} if self.state == "SUCCESS" else {"state": self.state}
        if self.result is not UNCHECKED:
            expect["result"] = self.result
        if self.error is not None:
            expect["error"] = self.error
        line: dict[str, Json] = {"expect": expect} if expect else {}
        if self.effects is not None:
            line["effects"] = [_as_told(key) for key in self.effects]
        return line


@dataclass(frozen=True, kw_only=True)
class Effect:
    """A change that a task made outside, such as a row that it wrote."""

    key: str
    """The identity of the effect, independent of the task; the same key twice is the same effect twice."""
    task: str | None = None
    """The id of the task that caused it, where that is known."""
    kind: str = "row"

    def to_json(self) -> dict[str, Json]:
        """Return the effect as a line of a file in `effects`."""
        return asdict(self)
