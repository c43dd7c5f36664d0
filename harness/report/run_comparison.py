"""Two runs side by side: fates, durations of the stages, findings; and whether the second is worse."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from harness.audit.audit import Audit
from harness.audit.journal_in_order import JournalInOrder
from harness.audit.run_folder import RunFolder
from harness.console import STYLES, Words
from harness.errors import UsageError
from harness.measure.durations import write_duration
from harness.measure.load_account import LoadAccount
from harness.measure.stages import Histogram, Passed, Stage, Stages, Summary
from harness.printable import printable
from harness.records.verdict import Fate, Finding, Verdict
from harness.report.run_list import audit_in, survival_in, verdict_in

if TYPE_CHECKING:
    from harness.records.values import Json

_BAD = (Fate.LOST, Fate.DUPLICATED, Fate.WRONG, Fate.UNRECORDED)
_FEWEST_TASKS = 100
"""The fewest tasks of a stage whose p95 is compared: of fewer, a few slow ones decide."""
_NUMBER = re.compile(r"\d+")
_FORGET_EVERY = 100_000
"""The events after which what nobody has intended is forgotten, which bounds the memory."""
_EARLIEST_S = 60.0
"""Seconds for which an event may be before the intent of its task, for clocks that were moved."""
_WORDS = {Verdict.PASS: "not worse", Verdict.FAIL: "worse", Verdict.UNKNOWN: "unknown"}


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One of two runs."""

    name: str
    folder: str
    verdict: Verdict
    audit: Audit | None
    """None for `harness survive`."""
    stages: Mapping[Stage, Summary]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The difference between two runs."""

    before: Compared
    after: Compared
    worse: tuple[str, ...]
    """What is worse in the second run, a sentence each."""
    better: tuple[str, ...]
    unknown: tuple[str, ...]
    """What is not known of the second run, or keeps the two from being compared."""
    new: tuple[Finding, ...] = ()
    """The findings of the second run that the first does not have, by their codes and subjects."""
    gone: tuple[Finding, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """Fail if the second run is worse, unknown if nobody can say, else pass."""
        if self.worse:
            return Verdict.FAIL
        return Verdict.UNKNOWN if self.unknown else Verdict.PASS

    def to_json(self) -> dict[str, "Json"]:
        """Return the comparison as `--json` prints it."""
        audits = [one.audit for one in (self.before, self.after)]
        return {
            "format": 1,
            "outcome": _WORDS[self.verdict],
            "before": _of(self.before),
            "after": _of(self.after),
            "fates": {fate.value: [0 if one is None else one.fates[fate] for one in audits] for fate in Fate},
            "worse": list(self.worse),
            "better": list(self.better),
            "unknown": list(self.unknown),
            "findings": {"new": [one.to_json() for one in self.new], "gone": [one.to_json() for one in self.gone]},
        }


def _of(run: Compared) -> dict[str, "Json"]:
    return {
        "name": run.name,
        "folder": run.folder,
        "verdict": run.verdict.value,
        "entries": 0 if run.audit is None else run.audit.entries,
        "stages": {stage.value: summary.to_json() for stage, summary in run.stages.items()},
    }


def compare(before: RunFolder, after: RunFolder, *, slower: float | None = None) -> Comparison:
    """Compare two runs. Reads the folders, and writes nothing.

    Args:
        before: the run that is the measure.
        after: the run that may be worse.
        slower: how many times as long the p95 of a stage may be; None to judge no duration.

    Raises:
        RunFolderError: one has not been audited, or cannot be read.
        UsageError: they are of different kinds.
    """
    kinds = [(one.path / "survive.json").exists() for one in (before, after)]
    if kinds[0] != kinds[1]:
        raise UsageError("one is of `harness survive`, and the other is not: compare two of a kind.")
    if kinds[0]:
        return _of_survivals(before, after)
    runs = [_compared(one) for one in (before, after)]
    old, new = (_audit(one) for one in runs)
    names = [_scenario(one) for one in (before, after)]
    keys = _Keys(old, new)
    found = [keys.sorted(one.findings) for one in (old, new)]
    worse, better = _differences(old, new)
    worse += _slower(runs[0].stages, runs[1].stages, slower) if slower is not None else []
    unknown = [f"{one.code}: {one.text}" for one in new.findings if one.verdict is Verdict.UNKNOWN]
    unknown += _unjudged(runs[0].stages, runs[1].stages) if slower is not None else []
    if runs[1].verdict is Verdict.FAIL and runs[0].verdict is not Verdict.FAIL and not worse:
        worse.append(f"the verdict is {runs[1].verdict.value}, and was {runs[0].verdict.value}")
    if runs[1].verdict is Verdict.UNKNOWN and not unknown:
        unknown.append("the verdict of the second run is unknown")
    if names[0] != names[1]:
        unknown.append(f"the runs are of different things: {names[0]} and {names[1]}")
    return Comparison(
        before=runs[0],
        after=runs[1],
        worse=tuple(worse),
        better=tuple(better),
        unknown=tuple(unknown),
        new=tuple(one for key, some in found[1].items() if key not in found[0] for one in some),
        gone=tuple(one for key, some in found[0].items() if key not in found[1] for one in some),
    )


def _audit(run: Compared) -> Audit:
    if run.audit is None:
        raise UsageError(f"{run.folder} has no audit.")
    return run.audit


def _of_survivals(before: RunFolder, after: RunFolder) -> Comparison:
    old, new = survival_in(before), survival_in(after)
    changed = new.against(old)
    gone = {one.cell for one in old.results} - {one.cell for one in new.results}
    unknown = [f"{one.cell}: unknown" for one in new.results if new.demand.verdict(one.outcome) is Verdict.UNKNOWN]
    unknown += [f"{cell}: it was not tried again" for cell in sorted(gone, key=str)]
    if old.demand is not new.demand:
        unknown.append(f"the promises differ: {old.demand.value} and {new.demand.value}")
    worse, better = (tuple(map(str, some)) for some in (changed.worse, changed.better))
    runs = [
        Compared(name=one.name, folder=str(folder.path), verdict=one.verdict, audit=None, stages={})
        for one, folder in ((old, before), (new, after))
    ]
    return Comparison(before=runs[0], after=runs[1], worse=worse, better=better, unknown=tuple(unknown))


def _compared(folder: RunFolder) -> Compared:
    audited = audit_in(folder)
    return Compared(
        name=audited.name,
        folder=str(folder.path),
        verdict=verdict_in(folder, audited),
        audit=audited,
        stages=stages_of(folder),
    )


def _scenario(folder: RunFolder) -> str:
    about = folder.read("run.json")
    return str(about.get("scenario") or about.get("test") or about.get("scenarios") or "a run without a name")


def stages_of(folder: RunFolder) -> dict[Stage, Summary]:
    """Return the durations of a run's stages: those of load.json, or else measured from the journal."""
    if (folder.path / "load.json").exists():
        return dict(LoadAccount.from_json(folder.read("load.json")).stages)
    histograms = {stage: Histogram() for stage in Stage}

    def passed(one: Passed) -> None:
        histograms[one.stage].record(one.duration_s)

    stages = Stages(passed)
    for number, event in enumerate(JournalInOrder(folder.journal), start=1):
        stages.take(event)
        if not number % _FORGET_EVERY:
            stages.forget_early(event.t - _EARLIEST_S)
    return {stage: one.summary() for stage, one in histograms.items() if one.count}


def _differences(old: Audit, new: Audit) -> tuple[list[str], list[str]]:
    worse, better = [], []
    for fate in _BAD:
        was, now = _share(old, fate), _share(new, fate)
        said = f"{fate.value}: {new.fates[fate]:,} of {new.entries:,}, and was {old.fates[fate]:,} of {old.entries:,}"
        if now > was:
            worse.append(said)
        elif now < was:
            better.append(said)
    keys = _Keys(old, new)
    was_broken, is_broken = (keys.sorted(_broken(one)) for one in (old, new))
    for key, found in is_broken.items():
        was, now = _count(was_broken.get(key, ())), _count(found)
        if now > was:
            worse += [f"{one.code}: {one.text}" for one in found]
        elif now < was:
            better.append(f"{_name(key)}: {now:,}, and was {was:,}")
    better += [f"{_name(key)}: it is gone" for key in was_broken if key not in is_broken]
    return worse, better


def _broken(audit: Audit) -> list[Finding]:
    """Return the findings that break a promise, without those that are fates, which are compared by their shares."""
    fates = {fate.value for fate in _BAD}
    return [one for one in audit.findings if one.verdict is Verdict.FAIL and str(one.code) not in fates]


_Key = tuple[str, str]
"""What a finding is recognised by in another run: its code, and its subject, if the code has several findings."""


class _Keys:
    """The keys of the findings of two audits."""

    def __init__(self, *audits: Audit) -> None:
        counts = [Counter(str(one.code) for one in audit.findings) for audit in audits]
        self._several = {code for count in counts for code, times in count.items() if times > 1}
        # An audit of an older version names no subjects.
        self._without = {str(one.code) for audit in audits for one in audit.findings if not one.subject}

    def of(self, finding: Finding) -> _Key:
        code = str(finding.code)
        if code not in self._without:
            return code, finding.subject
        # A scenario's own check need not name a subject. Its text does, beside numbers that differ from run to run.
        return code, _NUMBER.sub("#", finding.text) if code in self._several else ""

    def sorted(self, findings: Sequence[Finding]) -> dict[_Key, list[Finding]]:
        found: dict[_Key, list[Finding]] = {}
        for one in findings:
            found.setdefault(self.of(one), []).append(one)
        return found


def _name(key: _Key) -> str:
    code, subject = key
    return f"{code} ({subject})" if subject else code


def _count(findings: Sequence[Finding]) -> int:
    return sum(one.count for one in findings)


def _share(audit: Audit, fate: Fate) -> float:
    return audit.fates[fate] / audit.entries if audit.entries else 0.0


def _slower(old: Mapping[Stage, Summary], new: Mapping[Stage, Summary], most: float) -> list[str]:
    """Return the stages whose p95 is more than `most` times as long; those of few tasks are left out."""
    return [
        f"{stage.value}: p95 {write_duration(new[stage].p95_s)}, and was {write_duration(was.p95_s)}"
        for stage, was in old.items()
        if stage in new and min(was.count, new[stage].count) >= _FEWEST_TASKS and new[stage].p95_s > was.p95_s * most
    ]


def _unjudged(old: Mapping[Stage, Summary], new: Mapping[Stage, Summary]) -> list[str]:
    """Return the stages that were to be judged and cannot be; if there is none to judge at all, that."""
    known = {stage for stage, was in old.items() if was.count >= _FEWEST_TASKS}
    if not known:
        return [f"durations: no stage of the first run has {_FEWEST_TASKS} tasks, so that none can be judged"]
    counts = {stage: new[stage].count if stage in new else 0 for stage in Stage if stage in known}
    return [
        f"{stage.value}: {count:,} tasks of the second run passed it; {_FEWEST_TASKS} are needed to judge durations"
        for stage, count in counts.items()
        if count < _FEWEST_TASKS
    ]


def parts(said: Comparison) -> Iterator[RenderableType]:
    """Yield the comparison for a terminal."""
    runs = (said.before, said.after)
    if said.before.audit is not None and said.after.audit is not None:
        made = _table("", [one.name for one in runs])
        made.add_row("verdict", *(Text(one.verdict.value, STYLES[one.verdict]) for one in runs))
        made.add_row("sent", f"{said.before.audit.entries:,}", f"{said.after.audit.entries:,}")
        for fate in Fate:
            counts = [one.fates[fate] for one in (said.before.audit, said.after.audit)]
            if any(counts):
                made.add_row(fate.value, *(f"{count:,}" for count in counts))
        yield made
    stages = [stage for stage in Stage if any(stage in one.stages for one in runs)]
    if stages:
        made = _table(
            "stage", [f"{column} {which}" for column in ("p50", "p95", "p99") for which in ("before", "after")]
        )
        for stage in stages:
            made.add_row(stage.value, *_durations([one.stages.get(stage) for one in runs]))
        yield made
    for word, lines in (("worse", said.worse), ("better", said.better), ("unknown", said.unknown)):
        for line in lines:
            yield Words(f"{word}: {printable(line)}")
    for word, findings in (("new", said.new), ("gone", said.gone)):
        if findings:
            yield Words(
                f"findings that are {word}: {printable(', '.join(_name((one.code, one.subject)) for one in findings))}"
            )
    yield Text.assemble("the second run against the first: ", (_WORDS[said.verdict], STYLES[said.verdict]))


def _durations(summaries: Sequence[Summary | None]) -> Iterator[str]:
    for name in ("p50_s", "p95_s", "p99_s"):
        for one in summaries:
            yield "-" if one is None or not one.count else write_duration(getattr(one, name))


def _table(first: str, columns: Sequence[str]) -> Table:
    made = Table(box=SIMPLE_HEAD, pad_edge=False)
    made.add_column(first)
    for column in columns:
        made.add_column(Words(printable(column)), justify="right")
    return made
