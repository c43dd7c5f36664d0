"""Plants in the record of a clean run: what workers do as such, and what begins too early."""

from harness.records.event import Kind
from harness.records.verdict import Verdict
from harness.selftest.evidence import Evidence
from harness.selftest.plant import Plants

PLANTS = Plants[Evidence]()
plant = PLANTS.add
FAIL, UNKNOWN, REMARK = Verdict.FAIL, Verdict.UNKNOWN, Verdict.PASS


@plant(DEAF=FAIL)
def deaf(evidence: Evidence) -> None:
    """A worker that runs does not consume its queue any more."""
    evidence.broker["deaf"] = [
        {"queue": "celery", "consumers": 1, "workers": ["worker-1", "worker-2"], "absent": ["worker-2"]}
    ]


@plant(SETTINGS_DIFFER=REMARK)
def settings_differ(evidence: Evidence) -> None:
    """The dead letters of a queue reach no other one."""
    evidence.broker["differing"] = ["`celery` gives its dead letters to the queue `absent`"]


@plant(OUT_OF_ORDER=FAIL)
def out_of_order(evidence: Evidence) -> None:
    """A step of a chain begins before its predecessor has ended."""
    first, second = evidence.task("receipt", 0), evidence.task("receipt", 1)
    evidence.change(first, Kind.INTENDED, steps=[{"task": second, "name": "receipt", "way": "next"}])
    began_t = float(evidence.lines(second, Kind.STARTED)[0]["t"])
    evidence.change(first, Kind.FINISHED, t=began_t + 0.01)


@plant(RAN_BEFORE_COMMIT=REMARK)
def ran_before_commit(evidence: Evidence) -> None:
    """A task begins a second before the transaction is committed in which it was sent."""
    task = evidence.task("receipt")
    began_t = float(evidence.lines(task, Kind.STARTED)[0]["t"])
    evidence.say(evidence.file_of(task, Kind.INTENDED), Kind.COMMITTED, task, t=began_t + 1.0)


@plant(MEMORY_GROWTH_UNKNOWN=UNKNOWN)
def memory_growth_unknown(evidence: Evidence) -> None:
    """No growth of the memory is promised, and only a few tasks run."""
    evidence.promise(memory_growth_mb=1.0)


@plant(MEMORY_GROWS=FAIL)
def memory_grows(evidence: Evidence) -> None:
    """A process grows by 100 MiB in 1,000 tasks, and one MiB is promised."""
    evidence.promise(memory_growth_mb=1.0)
    ends = max(
        ([line for line in lines if line["kind"] == Kind.FINISHED] for lines in evidence.journal.values()), key=len
    )
    for number, line in enumerate(ends, 1):
        line |= {"ran": number * 1_000, "rss_kb": number * 102_400}


@plant(HOARDED=REMARK)
def hoarded(evidence: Evidence) -> None:
    """A worker holds a message for a minute, and the other worker has nothing to do."""
    task = evidence.task("receipt")
    received_t = float(evidence.lines(task, Kind.STARTED)[0]["t"]) - 60.0
    evidence.change(task, Kind.RECEIVED, t=received_t)
    for node in ("worker-1", "worker-2"):
        for file in evidence.files_of(node):
            for line in evidence.journal[file]:
                if line["kind"] == Kind.READY:
                    line["t"] = received_t - 1.0
    evidence.broker["alive"] = ["worker-1", "worker-2"]
