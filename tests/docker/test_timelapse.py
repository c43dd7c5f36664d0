"""Beat under a fast clock: what Celery's own scheduler does to a schedule, and what a broken one does."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.audit.audit import audit
from harness.errors import StartError, UsageError
from harness.records.verdict import Verdict
from harness.running.timelapse import Lapse, execute, moment
from harness.stack.shared_parts import SharedParts
from harness.stack.stack import StackSpec

pytestmark = pytest.mark.docker
APPS = Path(__file__).parent / "apps"


@pytest.fixture(scope="module")
def session() -> Iterator[SharedParts]:
    with SharedParts() as session:
        yield session


def lapse(
    root: Path, app: str, begin: str, end: str, *, tz: str | None = "Europe/Berlin", speed: float = 1800
) -> Lapse:
    span = {"begin": moment(begin), "end": moment(end)}
    return Lapse(stack=StackSpec(app=app, app_folder=APPS, workers=0), root=root, tz=tz, speed=speed, **span)


def test_celery_passes_over_the_hour_that_comes_twice(tmp_path: Path) -> None:
    options = ["--from", "2026-10-25T01:50", "--to", "2026-10-25T03:10", "--tz", "Europe/Berlin"]
    done = subprocess.run(
        [sys.executable, "-m", "harness", "timelapse", "ticking", "--app-dir", APPS, "--runs", tmp_path, *options],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "hourly: 2026-10-25T02:00+01:00 (due, and not sent)" in done.stdout
    assert "quarter-hourly: 2026-10-25T02:00+01:00, 2026-10-25T02:15+01:00" in done.stdout
    assert "in an hour that comes twice" in done.stdout
    assert "2:20:00 in" in done.stdout
    assert "nightly: " not in done.stdout
    assert str((tmp_path / "latest").resolve()) in done.stdout
    assert "1 missing: 2026-10-25T02:00+01:00" in (tmp_path / "latest" / "report.html").read_text()


def test_an_ordinary_hour_passes_and_can_be_judged_again(session: SharedParts, tmp_path: Path) -> None:
    folder, audited = execute(session, lapse(tmp_path, "ticking", "2026-11-10T02:15", "2026-11-10T03:15", tz=None))
    assert audited.verdict is Verdict.PASS, audited.text()
    assert {entry.entry: entry.expected for entry in audited.ticks} == {
        "celery.backend_cleanup": 0,
        "hourly": 1,
        "quarter-hourly": 4,
        "nightly": 1,
        "every-ten-minutes": pytest.approx(6, abs=1),
    }
    assert folder.read("run.json")["timelapse"]["tz"] == "Europe/Berlin"
    assert audit(folder) == audited
    for path in folder.journal.glob("beat*"):
        path.unlink()
    assert audit(folder).verdict is Verdict.UNKNOWN


def test_a_scheduler_that_leaves_out_or_doubles_a_tick_is_found_out(session: SharedParts, tmp_path: Path) -> None:
    plan = lapse(tmp_path, "ticking:misbehaving", "2026-11-10T11:30", "2026-11-10T13:30")
    _, audited = execute(session, plan)
    found = {finding.code: finding.text for finding in audited.findings if finding.verdict is Verdict.FAIL}
    assert found == {
        "tick-missing": "hourly: 2026-11-10T12:00+01:00 (due, and not sent)",
        "tick-doubled": "hourly: 2026-11-10T13:00+01:00 (sent more than once)",
    }


def test_what_is_wrong_with_a_schedule_itself_is_named_with_its_reason(session: SharedParts, tmp_path: Path) -> None:
    plan = lapse(tmp_path, "ticking:troubled", "2026-11-10T11:30", "2026-11-10T12:30")
    _, audited = execute(session, plan)
    found = {finding.code: finding.text for finding in audited.findings if finding.verdict is Verdict.FAIL}
    assert set(found) == {"tick-missing", "entry-shadowed"}, audited.text()
    assert "ticking.news(): <crontab: 0 19 * * * (m/h/dM/MY/d)> took the place of" in found["entry-shadowed"]
    assert "unsendable: 2026-11-10T12:00+01:00 (due, and not sent; beat said: Scheduling" in found["tick-missing"]
    assert "missing 1 required positional argument: 'other'" in found["tick-missing"]
    remarks = [finding.text for finding in audited.findings if finding.code == "tick-unpredictable"]
    assert ["of OnTheHour with its own is_due" in remark for remark in remarks] == [True]
    added = next(entry for entry in audited.ticks if entry.entry == "added")
    assert (added.expected, added.sent) == (3, 3)


def test_a_deadline_of_the_app_that_a_fast_clock_outruns_is_no_fault_of_the_schedule(
    session: SharedParts, tmp_path: Path
) -> None:
    # A minute of this clock is a hundredth of a second, which beat takes to send.
    plan = lapse(tmp_path, "ticking:impatient", "2026-11-10T00:00", "2026-11-10T12:00", speed=6_000)
    _, audited = execute(session, plan)
    assert not [finding for finding in audited.findings if finding.verdict is Verdict.FAIL], audited.text()


def test_a_speed_that_no_machine_can_hold_is_unknown_and_no_fault_of_the_schedule(
    session: SharedParts, tmp_path: Path
) -> None:
    plan = lapse(tmp_path, "ticking", "2026-11-10T00:00", "2026-11-11T00:00", speed=200_000)
    _, audited = execute(session, plan)
    assert audited.verdict is Verdict.UNKNOWN, audited.text()
    assert "lower --speed" in audited.text()


def test_an_app_without_a_schedule_is_one_clear_error(session: SharedParts, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing but Celery's own celery.backend_cleanup .* `beat_schedule`"):
        execute(session, lapse(tmp_path, "ticking:idle", "2026-11-10T00:00", "2026-11-11T00:00"))


def test_an_app_that_does_not_import_is_one_clear_error(session: SharedParts, tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"before it was ready. No module named 'nosuch': `-A` is imported"):
        execute(session, lapse(tmp_path, "nosuch", "2026-11-10T00:00", "2026-11-11T00:00"))
