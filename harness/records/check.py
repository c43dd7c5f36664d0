"""One check of a run, as a CI system lists it."""

from dataclasses import dataclass

from harness.records.typed_json import Record
from harness.records.verdict import Verdict


@dataclass(frozen=True, kw_only=True)
class Check(Record):
    """One check of a run, and its outcome."""

    name: str
    group: str = ""
    """What it belongs to beside the run, such as a task; empty for nothing."""
    verdict: Verdict
    kind: str = ""
    """The codes of what broke it, or another short name of that; empty if nothing did."""
    text: str = ""
    """What was seen, in lines; empty if there is nothing to say."""
    known: str | None = None
    """The reason why a broken promise does not count, such as a baseline; None if it counts."""
