"""Why a promise was broken: the rule of `reason_rules.py` that holds for the tasks of a finding."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from harness.audit.blamed_settings import Case
from harness.audit.evidence_database import Database
from harness.audit.live_settings import LiveSettings
from harness.audit.reason_rules import RULES
from harness.audit.remains import QueueLeft, Remains
from harness.audit.worker_findings import HOARDED_S
from harness.records.finding_codes import Code
from harness.records.message import DEFAULT_QUEUE
from harness.records.values import Json
from harness.records.verdict import Fate, Finding, Reason, Verdict

_FIRST_TASKS = 3
"""The number of tasks that a reason names. The query `cases` returns as many of each group."""
_FOUND_BY: Mapping[str, tuple[str, Mapping[str, Json]]] = {
    **{fate.value: ("of_fate", {"fate": fate.value}) for fate in Fate},
    Code.FAILED_UNEXPECTEDLY: ("failed_unexpectedly", {}),
    Code.FAILED_ON_ONE_WORKER: ("failed_on_one_worker", {}),
    Code.LEFT_AFTER_END: ("left_after_end", {}),
    Code.CHORDS_HOPELESS: ("of_chord_members", {}),
    Code.RESTLESS: ("retrying", {}),
    Code.HOARDED: ("waited", {"least_s": HOARDED_S}),
}
"""The queries that find the tasks of a finding whose reason is looked for."""


@dataclass
class Reasons:
    """The reasons of a run's findings."""

    database: Database
    journal: Path
    """The folder of the journal."""
    remains: Remains

    @cached_property
    def live(self) -> LiveSettings:
        """The settings of the workers. They are read when a finding asks for them."""
        return LiveSettings.read(self.journal)

    def explained(self, finding: Finding) -> Finding:
        """Return the finding with its reasons, if it is one of a broken promise or of unknown tasks, or `hoarded`."""
        if finding.code not in _FOUND_BY or (finding.verdict is Verdict.PASS and finding.code != Code.HOARDED):
            return finding
        query, values = _FOUND_BY[finding.code]
        self.database.keep_found(query, **values)
        cases = [Case(*row) for row in self.database.all("cases", default_queue=DEFAULT_QUEUE)]
        return replace(finding, reasons=self.of(finding, cases))

    def of(self, finding: Finding, cases: Sequence[Case]) -> tuple[Reason, ...]:
        """Return the reasons of some groups of tasks, that of the most tasks first.

        That no setting is known to be the reason is only said of a broken promise, and if the settings are known.
        """
        queues = {queue.name: queue for queue in self.remains.queues}
        found: dict[str, Reason] = {}
        for case in cases:
            reason = self._reason(finding.code, case, queues)
            if reason.setting is None and (finding.verdict is not Verdict.FAIL or not self.live.is_known):
                continue
            same = found.get(key := f"{reason.text} {reason.remedy}")
            if same is not None:
                tasks = tuple(sorted({*same.tasks, *reason.tasks})[:_FIRST_TASKS])
                reason = replace(same, count=same.count + reason.count, tasks=tasks)
            found[key] = reason
        return tuple(sorted(found.values(), key=lambda reason: (reason.setting is None, -reason.count)))

    def _reason(self, code: str, case: Case, queues: Mapping[str, QueueLeft]) -> Reason:
        for rule in RULES:
            if code in rule.codes and rule.holds(case) and (blame := rule.blamed.find(case, self.live, queues)):
                return Reason(
                    setting=blame.setting,
                    value=blame.value,
                    where=blame.where,
                    seen=rule.seen,
                    remedy=blame.remedy,
                    price=rule.price,
                    source=rule.source,
                    count=case.size,
                    tasks=tuple(case.tasks),
                )
        return Reason(setting=None, count=case.size, tasks=tuple(case.tasks))
