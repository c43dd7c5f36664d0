"""What is demanded of tasks and of each task: promises, expected results, effects. It runs in every container."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

from harness.records.values import Json


class Delivery(StrEnum):
    """How often a task may run. A retry that the task itself asked for is not counted against this."""

    AT_MOST_ONCE = "at-most-once"
    AT_LEAST_ONCE = "at-least-once"


class Effects(StrEnum):
    """How often each expected effect may come to be.

    ONCE_UNLESS_KILLED is for effects that no transaction can cover (a mail, a call to somebody's API): at
    least once, and once more only for each execution of the task that began and never came to an end.
    """

    EXACTLY_ONCE = "exactly-once"
    ONCE_UNLESS_KILLED = "once-unless-killed"
    AT_LEAST_ONCE = "at-least-once"


@dataclass(frozen=True, kw_only=True)
class Promise:
    """What a scenario demands of every task it sends."""

    delivery: Delivery = Delivery.AT_LEAST_ONCE
    effects: Effects = Effects.EXACTLY_ONCE
    recorded: bool = True
    """Each task that ends must have a row in `celery_taskmeta`."""
    deadline_s: float | None = None
    """Seconds from when a task was due until it first succeeded; None promises nothing."""
    fairness: float | None = None
    """The least that Jain's index of the tasks begun per worker may be, between 0 and 1; None promises nothing.

    The index is 1 if all workers began equally many, and 1/n if one of n began them all (Jain, Chiu and Hawe 1984).
    """

    def __post_init__(self) -> None:
        """Refuse an index that none can reach."""
        if self.fairness is not None and not 0 < self.fairness <= 1:
            raise ValueError(f"a fairness of {self.fairness} cannot be: give more than 0 and at most 1.")

    def to_json(self) -> dict[str, Json]:
        """A dict for run.json; `from_json` reads it back."""
        return {**asdict(self), "delivery": self.delivery.value, "effects": self.effects.value}

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> "Promise":
        """The promise that `to_json` wrote. Raises ValueError, TypeError or KeyError on anything else."""
        return cls(
            delivery=Delivery(value["delivery"]),
            effects=Effects(value["effects"]),
            recorded=bool(value["recorded"]),
            deadline_s=None if value["deadline_s"] is None else float(value["deadline_s"]),
            fairness=None if value["fairness"] is None else float(value["fairness"]),
        )


def mail(*, to: str | None = None, subject: str | None = None) -> str:
    """Return the key of a mail by its recipient, its subject, or both, whatever Message-ID it has.

    Every mail that fits has this key, so that two mails to one recipient are one effect twice, unless the subject tells
    them apart.

    Args:
        to: one of the recipients; upper and lower case are the same.
        subject: the whole subject, decoded; runs of white space are one space.

    Raises:
        ValueError: neither is given.
    """
    if to is None and subject is None:
        raise ValueError("a mail is expected by `to`, by `subject`, or by both.")
    said = []
    if to is not None:
        # A semicolon separates the two, and may stand in a quoted local part.
        said.append(f"to={_lower(to.strip()).replace('%', '%25').replace(';', '%3B')}")
    if subject is not None:
        said.append(f"subject={' '.join(subject.split())}")
    return f"mail:{';'.join(said)}"


def _lower(text: str) -> str:
    """Lower case of the letters that ASCII has: which others have one depends on the version of Python."""
    return text.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")


def _as_told(key: str) -> str:
    """Write the key of a mail as `mail` would."""
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
"""Says that a result may be anything; None cannot, because None can be expected."""


@dataclass(frozen=True, kw_only=True)
class Expect:
    """What a producer expects of one task."""

    state: str = "SUCCESS"
    """The state its row ends in: SUCCESS, FAILURE or REVOKED."""
    result: Json = UNCHECKED
    """The result of a SUCCESS."""
    error: str | None = None
    """The class name of the exception of a FAILURE; None takes any."""
    effects: Sequence[str] | None = None
    """The keys of its effects, such as `mail` makes; an empty list expects none, None says nothing about effects."""

    def __post_init__(self) -> None:
        """Refuse a key that stands twice: whether an effect may come twice, the promise says."""
        if self.effects is not None and len(set(self.effects)) != len(self.effects):
            raise ValueError(f"an effect is expected twice: {', '.join(self.effects)}")

    def to_json(self) -> dict[str, Json]:
        """The members `expect` and `effects` of a journal line, each left out where it says nothing."""
        expect: dict[str, Json] = {} if self.state == "SUCCESS" else {"state": self.state}
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
    """Something that a task did to the world, such as a row that it wrote."""

    key: str
    """What it is, independent of who did it; the same key twice is the same effect twice."""
    task: str | None = None
    """The id of the task that did it, where that can be seen."""
    kind: str = "row"

    def to_json(self) -> dict[str, Json]:
        """A line of a file in `effects`."""
        return asdict(self)
