"""What real workers leave can be read, whatever the app does with its results."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness import mail
from harness.audit.audit import Audit, audit
from harness.containers.mailbox import Mailbox
from harness.errors import UsageError
from harness.records import journal
from harness.records.expectation import Expect
from harness.records.verdict import Fate, Verdict
from harness.stack.stack import Stack
from harness.wait import wait_until

APPS = Path(__file__).parent / "apps"
OLD = Path(".nox") / "celery-5.6"
"""Celery as it was when its database backend still pickled results; below the project's root."""

pytestmark = [pytest.mark.docker, pytest.mark.stack(app="recording", app_folder="tests/docker/apps")]


def met(audited: Audit) -> dict[Fate, int]:
    return {fate: count for fate, count in audited.fates.items() if count}


def test_rows_are_found_whatever_the_app_calls_its_tables_and_whatever_is_in_them(stack: Stack) -> None:
    for value in ([1, 2], None, "x" * 100_000, {"b": "caf\udce9.csv", "a": 1.0}):
        stack.producer.send("give", [value], expect=Expect(result=value))
    stack.producer.send("give", [3], expect=Expect(result=3), task_id=r"\N")
    stack.producer.send("file_name", expect=Expect(result="caf\udce9.csv"))
    stack.producer.send("skip", expect=Expect(state="IGNORED"))
    with pytest.raises(UsageError, match="what is expected of give is not JSON"):
        stack.producer.send("give", [1], expect=Expect(result=float("nan")))
    audited = stack.settle()
    assert audited.passed, audited.text()
    assert audited.findings == ()


def test_of_a_run_that_still_goes_on_nothing_is_said_that_is_not_so(stack: Stack) -> None:
    for _ in range(400):
        stack.producer.send("short")
    early = stack.settle(limit_s=0.5)
    assert early.fates[Fate.PENDING] > 0, early.text()
    for _ in range(5):
        # Now there is no waiting at all, as if somebody audited the folder of a run that goes on.
        assert met(audit(stack.folder)).keys() <= {Fate.OK, Fate.PENDING}
    audited = stack.settle()
    assert met(audited) == {Fate.OK: 400}, audited.text()


def test_a_row_that_was_cleaned_up_before_its_time_is_no_row_that_was_never_written(stack: Stack) -> None:
    sent = stack.producer.send("give", [3], expect=Expect(result=3))
    wait_until(lambda: stack.ledger.ended == 1, what="the task has ended", timeout_s=30)
    stack.producer.send("celery.backend_cleanup")
    audited = stack.settle()
    (deleted,) = (finding for finding in audited.findings if finding.code == "row-deleted")
    assert (deleted.verdict, deleted.tasks) == (Verdict.FAIL, (sent.task,))
    assert "result_expires of 3600 s; the rows have times of America/Los_Angeles without the zone" in deleted.text


def test_a_mail_with_an_id_of_its_own_is_expected_by_whom_it_is_for(stack: Stack, mailbox: Mailbox) -> None:
    for number in range(3):
        address = f"Customer.{number}@example.com"
        expect = Expect(effects=[mail(to=address), mail(to=address.lower(), subject="Schön, Zoë!")])
        stack.producer.send("post", [address, "Schön, Zoë!"], expect=expect)
    lost = stack.producer.send("give", [1], expect=Expect(effects=[mail(to="nobody@example.com")]))
    # Nothing is said of the effects of this one.
    stack.producer.send("post", ["zoe@example.com", "Hello"])
    audited = stack.settle()
    assert met(audited) == {Fate.OK: 4, Fate.LOST: 1}, audited.text()
    assert {finding.code: finding.tasks for finding in audited.findings} == {"lost": (lost.task,)}
    assert len({one.key for one in mailbox.messages()}) == 4


@pytest.fixture(scope="module")
def old_celery() -> None:
    """Install an old Celery beside the app in an app folder, where it precedes that of the image."""
    if not (OLD / "celery").is_dir():
        packages = ["celery>=5.6,<5.7", "kombu>=5.6,<5.7"]
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(OLD), *packages]
        subprocess.run(pip, check=True, timeout=300)
    shutil.copy(APPS / "recording.py", OLD / "recording.py")


@pytest.mark.stack(app="recording", app_folder=str(OLD))
def test_results_that_an_old_celery_pickles_are_judged(old_celery: None, stack: Stack) -> None:
    del old_celery
    stack.producer.send("give", [{"ok": [1, None]}], expect=Expect(result={"ok": [1, None]}))
    stack.producer.send("pair", expect=Expect(result=[1, "two"]))
    stack.producer.send("give", ["x" * 100_000], expect=Expect(result="x" * 100_000))
    wrong = stack.producer.send("give", [1], expect=Expect(result=2))
    untold = stack.producer.send("thing", expect=Expect(result=[1, 2]))
    audited = stack.settle()
    (up,) = (event for event in journal.read(stack.folder.journal) if "versions" in event.data)
    assert up.data["versions"]["celery"].startswith("5.6.")
    assert met(audited) == {Fate.OK: 3, Fate.WRONG: 1, Fate.UNKNOWN: 1}, audited.text()
    found = {finding.code: finding for finding in audited.findings}
    assert found["wrong"].tasks == (wrong.task,)
    assert found["unknown"].tasks == (untold.task,)
    assert "no worker said what it is" in found["unknown"].text
