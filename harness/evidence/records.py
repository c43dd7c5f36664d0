"""The records that all evidence is made of: frozen, keyword-only, and nothing but the standard library.

This module also runs inside every container, so it must import nothing else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

Json = Any
"""A value that `json.dumps` writes: None, bool, int, float, str, and lists and string-keyed dicts of these."""


class Kind(StrEnum):
    """What a journal line says happened.

    A task's life, from whoever publishes it: `intended`, then one of `accepted`, `refused`, `unknown`.
    From the worker: `received`, `started`, `finished`, and `retried`, `revoked`, `discarded` or `errback` where they
    apply. From a process about itself: `opened` (a file's first line), `up`, `ready`, `settings`, `down`, and of a
    child process that is gone `exited`. From beat: `embedded` (a worker's own beat begins), `schedule` (it changed),
    `woke`, `unsent` (an entry that could not be sent) and `died` (beat ended with an error).
    """

    OPENED = "opened"
    UP = "up"
    READY = "ready"
    SETTINGS = "settings"
    DOWN = "down"
    WOKE = "woke"
    EMBEDDED = "embedded"
    SCHEDULE = "schedule"
    UNSENT = "unsent"
    DIED = "died"
    INTENDED = "intended"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    RECEIVED = "received"
    STARTED = "started"
    FINISHED = "finished"
    RETRIED = "retried"
    REVOKED = "revoked"
    DISCARDED = "discarded"
    ERRBACK = "errback"
    EXITED = "exited"


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


@dataclass(frozen=True, kw_only=True)
class Event:
    """One line of a journal."""

    kind: Kind
    t: float
    """Unix time in seconds, by the clock of the machine that the process ran on."""
    n: int
    """The line's number in its file, from 0; a gap means that a line was lost."""
    node: str
    pid: int
    task: str | None = None
    data: Mapping[str, Json] = field(default_factory=dict)
    """Whatever else the line said; the writers' docstrings list it."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of `celery_taskmeta`, undecoded."""

    task: str
    status: str
    result: bytes | None
    """As stored: JSON since Celery 5.7 with its default serializer. Never unpickled."""


@dataclass(frozen=True, kw_only=True)
class GroupRow:
    """One row of `celery_tasksetmeta`, undecoded."""

    taskset: str
    result: bytes | None


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
