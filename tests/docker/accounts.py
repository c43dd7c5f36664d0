"""What the tests of verdicts ask an audit and its stack."""

from collections.abc import Mapping

from harness.audit.audit import Audit
from harness.records.values import Json
from harness.records.verdict import Fate, Verdict
from harness.stack.stack import Stack


def met(audit: Audit) -> dict[Fate, int]:
    """Return the fates that at least one task met, and their counts."""
    return {fate: count for fate, count in audit.fates.items() if count}


def failing(audit: Audit) -> set[str]:
    """Return the codes of the findings whose verdict is not a pass."""
    return {finding.code for finding in audit.findings if finding.verdict is not Verdict.PASS}


def codes(audit: Audit) -> set[str]:
    """Return the codes of all findings, remarks included."""
    return {finding.code for finding in audit.findings}


def said(audit: Audit, code: str) -> str:
    """Return the text of the finding with this code."""
    (text,) = [finding.text for finding in audit.findings if finding.code == code]
    return text


def reasons(audit: Audit) -> dict[str, list[str]]:
    """Return the reasons of each finding that has any."""
    return {finding.code: [one.text for one in finding.reasons] for finding in audit.findings if finding.reasons}


def settled(stack: Stack) -> Mapping[str, Json]:
    """How the last settling ended."""
    how: Mapping[str, Json] = stack.folder.read("broker.json")["settled"]
    return how
