"""Rows that a worker stored and that are missing: cleaned up after their expiry, or deleted too early."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from harness.audit.evidence_database import FIRST_TASKS, Database
from harness.records.finding_codes import Code
from harness.records.verdict import Finding, Verdict


class _Gone(NamedTuple):
    """One row of the query `gone_rows`."""

    task: str
    stored_t: float
    node: str | None
    expired: bool
    overdue: bool
    """True if it had expired when the run ended, and no cleanup was seen after it was stored."""
    cleaned_t: float | None
    """The time of the cleanup that found it expired, or else of the first after it was stored; None if none ran."""
    cleaner: str | None
    expires_s: float | None
    zone: str | None


def findings(database: Database) -> Iterator[Finding]:
    """Yield the findings about missing rows; none if all rows are there."""
    rows = [_Gone(*row) for row in database.all("gone_rows")]
    expired = [row for row in rows if row.expired]
    overdue = [row for row in rows if row.overdue and not row.expired]
    early = [row for row in rows if not row.expired and not row.overdue]
    if expired:
        text = f"their rows were cleaned up when their time was over: {_story(expired[0])}"
        yield _finding(Code.ROW_EXPIRED, Verdict.PASS, expired, text)
    if overdue:
        text = f"their rows are gone, and no worker was seen to clean up after their time: {_story(overdue[0])}"
        yield _finding(Code.ROW_DELETED, Verdict.UNKNOWN, overdue, text)
    if early:
        text = f"their rows were written, and deleted before their time: {_story(early[0])}"
        yield _finding(Code.ROW_DELETED, Verdict.FAIL, early, text)


def _finding(code: Code, verdict: Verdict, rows: list[_Gone], text: str) -> Finding:
    tasks = tuple(row.task for row in rows[:FIRST_TASKS])
    return Finding(code=code, verdict=verdict, count=len(rows), text=text, tasks=tasks)


def _story(row: _Gone) -> str:
    written = f"{row.task} was written at {datetime.fromtimestamp(row.stored_t, UTC):%H:%M:%S} UTC by {row.node}"
    if row.cleaned_t is None:
        return f"{written}, and gone at the end; no worker ran celery.backend_cleanup, so look for forget() in the app"
    after = f"{row.cleaner} ran celery.backend_cleanup {row.cleaned_t - row.stored_t:.0f} s later"
    expiry = "an expiry that nobody told" if row.expires_s is None else f"result_expires of {row.expires_s:g} s"
    zone = "" if row.expired or row.zone in {None, "UTC"} else f"; the rows have times of {row.zone} without the zone"
    return f"{written}; {after}, with {expiry}{zone}"
