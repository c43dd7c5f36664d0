"""The record of a rehearsed deploy: rehearsal.json."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Self

from harness.records.values import Json
from harness.records.verdict import Verdict


@dataclass(frozen=True, kw_only=True)
class Replaced:
    """One worker that was asked to stop, as an orchestrator does it, and another one in its place."""

    node: str
    first_process: str
    """The command line of process 1 of its container, which gets the signal."""
    heard: bool
    """True if Celery said that it shuts down."""
    was_killed: bool
    """True if it had not ended within its grace period."""
    exit_code: int | None
    took_s: float
    """Seconds from the request to its end."""
    begun: int
    """The number of tasks that it had begun when it was asked."""
    cut: tuple[str, ...] = ()
    """The ids of the tasks that it had begun and not ended when it was down."""

    @property
    def is_deaf(self) -> bool:
        """True if it was killed because the signal never reached Celery."""
        return self.was_killed and not self.heard


@dataclass(frozen=True, kw_only=True)
class Share:
    """A time in which nothing was changed, and the tasks that each worker began in it."""

    took_s: float
    """Its length in seconds."""
    begun: Mapping[str, int]
    """The number of tasks by worker, the oldest worker first."""

    @property
    def total(self) -> int:
        """The number of tasks that all workers began."""
        return sum(self.begun.values())


@dataclass(frozen=True, kw_only=True)
class Rehearsed:
    """One run of a deploy."""

    title: str
    folder: str
    """Its run folder, beside the others."""
    verdict: Verdict
    sent: int
    lost: int
    ran_again: int
    """The number of tasks that ran more than once."""
    doubled: int
    """The number of tasks that had their effect again."""
    failed: int
    """The number of tasks that failed, or whose result is wrong or missing."""
    pending: int
    refused: int = 0
    """The number of tasks that the broker did not take, as their sender was told."""
    findings: tuple[str, ...] = ()
    """What broke or is unknown, each with its reasons."""
    replaced: tuple[Replaced, ...] = ()
    untaken_s: float = 0.0
    """The seconds during which no worker took a task."""
    waited_s: float | None = None
    """The longest wait of a task that was sent meanwhile until it began; None if none was sent."""
    waited_before_s: float | None = None
    """The longest wait of a task before; None if none began."""
    gap_s: float | None = None
    """The longest time in which no task began, from the beginning of the deploy until its end; None if none began."""
    gap_before_s: float | None = None
    """The longest time before in which no task began; None if none began."""
    longest_s: float | None = None
    """The longest execution of a task that was seen to end; None if none was."""
    longest_task: str = ""
    """The name of that task."""
    overhead_s: float = 0.0
    """The longest time from the last task's end to that of its worker."""
    broker_down_s: float = 0.0
    """The seconds from the request that the broker stop until the next one was ready; 0 if it was not stopped."""
    shares: tuple[Share, ...] = ()
    """What each worker did while nothing was changed: before the deploy, and at each number of workers."""

    @property
    def killed(self) -> int:
        """The number of workers that were killed."""
        return sum(one.was_killed for one in self.replaced)

    @property
    def cut(self) -> int:
        """The number of executions that were cut."""
        return sum(len(one.cut) for one in self.replaced)


@dataclass(kw_only=True)
class Rehearsal:
    """The outcome of a rehearsal."""

    name: str
    what: str
    """The kind of deploy: `rolling`, `scale`, `broker-upgrade` or `skew`."""
    runs: list[Rehearsed] = field(default_factory=list)
    shortest_grace_s: int | None = None
    """The shortest grace period, in whole seconds, that cuts no task; None if none is known."""
    is_proven: bool | None = None
    """Whether a run with it cut none; None without such a run."""
    proof: Rehearsed | None = None
    """The last run that was made with it."""

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of all runs; the proof of another grace period does not count."""
        return Verdict.worst([one.verdict for one in self.runs])

    def take_grace(self, other: "Rehearsal") -> None:
        """Take the shortest grace period of another rehearsal, with its proof, if it is longer."""
        if (other.shortest_grace_s or 0) > (self.shortest_grace_s or 0):
            self.shortest_grace_s, self.is_proven, self.proof = other.shortest_grace_s, other.is_proven, other.proof

    def to_json(self) -> dict[str, Json]:
        """Return what rehearsal.json holds."""
        return {
            "format": 1,
            "name": self.name,
            "what": self.what,
            "verdict": self.verdict.value,
            "runs": [_to_json(one) for one in self.runs],
            "shortest_grace_s": self.shortest_grace_s,
            "is_proven": self.is_proven,
            "proof": None if self.proof is None else _to_json(self.proof),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> Self:
        """Read the result of `to_json`. Raises ValueError, TypeError or KeyError on anything else."""
        return cls(
            name=str(value["name"]),
            what=str(value["what"]),
            runs=[_rehearsed(one) for one in value["runs"]],
            shortest_grace_s=value["shortest_grace_s"],
            is_proven=value["is_proven"],
            proof=None if value["proof"] is None else _rehearsed(value["proof"]),
        )


def _to_json(run: Rehearsed) -> dict[str, Json]:
    replaced = [{**asdict(one), "cut": list(one.cut)} for one in run.replaced]
    shares = [asdict(one) for one in run.shares]
    said = asdict(run) | {"shares": shares}
    return {**said, "verdict": run.verdict.value, "findings": list(run.findings), "replaced": replaced}


def _rehearsed(value: Mapping[str, Json]) -> Rehearsed:
    replaced = tuple(Replaced(**(one | {"cut": tuple(one["cut"])})) for one in value["replaced"])
    told = {
        "verdict": Verdict(value["verdict"]),
        "findings": tuple(map(str, value["findings"])),
        "replaced": replaced,
        "shares": tuple(Share(**one) for one in value.get("shares", ())),
    }
    return Rehearsed(**(dict(value) | told))
