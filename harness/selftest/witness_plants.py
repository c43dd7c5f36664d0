"""Defects of the witnesses, each planted in the record of a clean run: what is missing, damaged, or saw only a part."""

import os
from dataclasses import dataclass

from harness.audit.run_folder import RunFolder
from harness.audit.witnesses import Unwitnessed
from harness.loadtest import load_verdict
from harness.measure.load_account import Counts
from harness.records.values import Json
from harness.records.verdict import Fate, Verdict
from harness.selftest.clean_run import COMPARED, RECEIPTS
from harness.selftest.evidence import Evidence
from harness.selftest.plant import Plants

UNKNOWN, REMARK = Verdict.UNKNOWN, Verdict.PASS
_GROWTH_BYTES = (1 << 28) + 1
"""One byte more than an audit searches of what is added to a journal while it is read. It takes no space: it is a
hole."""
PLANTS = Plants[Evidence]()
plant = PLANTS.add


def _a_worker(evidence: Evidence) -> str:
    return evidence.files_of("worker-1")[0]


# ------------------------------------------------------------------------------------------------------- journal


@plant(JOURNAL_INCOMPLETE=UNKNOWN)
def journal_line_missing(evidence: Evidence) -> None:
    """A line of a worker's journal is taken away."""
    file = _a_worker(evidence)
    evidence.as_they_are.add(file)
    received = next(line for line in evidence.journal[file] if line["kind"] == "received")
    evidence.journal[file].remove(received)


@plant(JOURNAL_INCOMPLETE=UNKNOWN)
def journal_line_twice(evidence: Evidence) -> None:
    """A line of a worker's journal stands in the place of another."""
    file = _a_worker(evidence)
    evidence.as_they_are.add(file)
    received = [n for n, line in enumerate(evidence.journal[file]) if line["kind"] == "received"]
    evidence.journal[file][received[0]] = evidence.journal[file][received[0] - 1]


@plant(JOURNAL_INCOMPLETE=UNKNOWN)
def journal_line_damaged(evidence: Evidence) -> None:
    """A line of a worker's journal is of no kind that there is."""
    received = next(line for line in evidence.journal[_a_worker(evidence)] if line["kind"] == "received")
    received["kind"] = "rece?ved"


@plant({Fate.UNKNOWN: 1}, JOURNAL_INCOMPLETE=UNKNOWN, UNKNOWN=UNKNOWN)
def nothing_is_lost_for_sure(evidence: Evidence) -> None:
    """A line is missing, so that a lost task cannot be told from one that nobody saw."""
    journal_line_damaged(evidence)
    evidence.unrun(evidence.task("order"))


@plant(JOURNAL_SILENT=UNKNOWN)
def journal_silent(evidence: Evidence) -> None:
    """A worker that was started has no journal."""
    evidence.run["nodes"].append("worker-3")


@dataclass(frozen=True)
class _Growing(RunFolder):
    """A folder with a journal that grows at the time at which an audit reads what was left in the broker."""

    def read(self, name: str) -> dict[str, Json]:
        """Read a JSON file of it."""
        if name == "broker.json":
            journal = min(self.journal.glob("worker-1.*"))
            os.truncate(journal, journal.stat().st_size + _GROWTH_BYTES)
        return super().read(name)


@plant(JOURNAL_GROWING=UNKNOWN)
def journal_growing(evidence: Evidence) -> None:
    """A journal grows by 256 MB while it is read."""
    evidence.folder = _Growing(evidence.folder.path)


@plant(JOURNAL_UNREADABLE=UNKNOWN)
def journal_unreadable(evidence: Evidence) -> None:
    """A journal is no regular file."""
    (evidence.folder.journal / "worker-1.999.1.jsonl").mkdir()


@plant(JOURNAL_TORN=REMARK)
def journal_torn(evidence: Evidence) -> None:
    """A process dies while it writes a line."""
    evidence.more[f"journal/{_a_worker(evidence)}"] = '{"n":'


# ------------------------------------------------------------------------------------------------------- results


@plant({Fate.UNKNOWN: COMPARED}, RESULTS_UNREADABLE=UNKNOWN, UNKNOWN=UNKNOWN)
def results_unreadable(evidence: Evidence) -> None:
    """The file of the results is no database."""
    # Otherwise all tasks would be unknown, and how many those are depends on beat.
    evidence.promise(recorded=False)
    evidence.folder.results.write_bytes(b"no database" * 100)


# ------------------------------------------------------------------------------------------------------- effects


@plant(EFFECTS_UNREADABLE=UNKNOWN)
def effects_unreadable(evidence: Evidence) -> None:
    """A file of effects is no regular file."""
    (evidence.folder.effects / "app.jsonl").mkdir()


@plant(EFFECTS_TORN=REMARK)
def effects_torn(evidence: Evidence) -> None:
    """The mailbox dies while it writes a line."""
    evidence.more["effects/mailbox.jsonl"] = '{"t":'


@plant(EFFECTS_DAMAGED=UNKNOWN)
def effects_damaged(evidence: Evidence) -> None:
    """A line of the mailbox is damaged."""
    evidence.more["effects/mailbox.jsonl"] = "damaged\n"


@plant({Fate.UNKNOWN: RECEIPTS}, EFFECTS_ABSENT=UNKNOWN, UNKNOWN=UNKNOWN)
def effects_absent(evidence: Evidence) -> None:
    """Nobody watches the mailbox."""
    del evidence.effects["mailbox.jsonl"]
    (evidence.folder.effects / "mailbox.jsonl").unlink()


# ------------------------------------------------------------------------------------------------------- broker


@plant(BROKER_UNREAD=UNKNOWN)
def broker_unread(evidence: Evidence) -> None:
    """The broker does not answer when it is asked what is left."""
    evidence.broker |= {"readable": False, "reason": "it does not answer"}


@plant(MESSAGES_ANONYMOUS=UNKNOWN)
def message_anonymous(evidence: Evidence) -> None:
    """A message without a task's id is left."""
    evidence.broker["anonymous"] = 1


# ------------------------------------------------------------------------------------------- what nobody witnessed


@plant(UNWITNESSED_EXECUTIONS=UNKNOWN)
def executions_unwitnessed(evidence: Evidence) -> None:
    """Nobody saw what the workers did."""
    evidence.run["unwitnessed"] = [Unwitnessed.EXECUTIONS.value]


@plant(UNWITNESSED_EFFECTS=UNKNOWN)
def effects_unwitnessed(evidence: Evidence) -> None:
    """Nobody saw the effects."""
    evidence.run["unwitnessed"] = [Unwitnessed.EFFECTS.value]


@plant(UNWITNESSED_BROKER=UNKNOWN)
def broker_unwitnessed(evidence: Evidence) -> None:
    """Nobody saw the broker at the end."""
    evidence.run["unwitnessed"] = [Unwitnessed.BROKER.value]


# ------------------------------------------------------------------------------------ what was found before the audit


@plant(CHECKS_UNREADABLE=UNKNOWN)
def checks_unreadable(evidence: Evidence) -> None:
    """The file of the checks is damaged."""
    evidence.more["checks.json"] = '{"findings": [{"code": "lost"}]}'


_FAIR = Counts(offered=5, sent=5, done=5, accepted=5)
"""The counts of a load test that add up."""


@plant(OFFER_DIFFERS=UNKNOWN)
def offer_differs(evidence: Evidence) -> None:
    """A load test offers an arrival that nobody sent or dropped."""
    counts = _FAIR + Counts(offered=1)
    evidence.find(*load_verdict.differences(counts, 5, via_http=False, broken=()))


@plant(SENT_DIFFERS=UNKNOWN)
def sent_differs(evidence: Evidence) -> None:
    """A load test sends a task of which the journal knows nothing."""
    evidence.find(*load_verdict.differences(_FAIR, 4, via_http=False, broken=()))


@plant(GENERATOR_BROKEN=UNKNOWN)
def generator_broken(evidence: Evidence) -> None:
    """A step of a load test raises an exception."""
    broken = ("KeyError: 'sku' in a step of the shop",)
    evidence.find(*load_verdict.differences(_FAIR, 5, via_http=False, broken=broken))
