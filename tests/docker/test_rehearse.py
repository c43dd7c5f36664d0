"""A rolling deploy of a real app: a grace that is too short, a shell at process 1, and a right one."""

from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.records.rehearsal import Rehearsed
from harness.records.verdict import Verdict
from harness.running import broker_upgrade, rehearse, scaling, version_skew
from harness.running.survive import OneTask, Subject
from harness.stack.shared_parts import SharedParts
from harness.stack.stack import StackSpec

pytestmark = pytest.mark.docker

APP = """
import time
from celery import Celery
app = Celery("shop")
app.conf.update(worker_prefetch_multiplier=1, task_acks_late=True)


@app.task(name="shop.invoice")
def invoice(seconds):
    time.sleep(seconds)
    return seconds
"""
BEHIND_A_SHELL = ("sh", "-c", "celery -A shop worker --concurrency=2 --without-mingle; echo over")


@pytest.fixture
def session(_harness_session: SharedParts) -> SharedParts:
    return _harness_session


def invoices(folder: Path, takes_s: float, app: str = APP, entrypoint: tuple[str, ...] = ()) -> Subject:
    (folder / "shop.py").write_text(app)
    return Subject(
        name="shop.invoice",
        stack=StackSpec(app="shop", app_folder=folder, workers=1, entrypoint=entrypoint),
        scenario=OneTask("shop.invoice", [takes_s], {}),
    )


def rolled(
    session: SharedParts, folder: Path, *, grace_s: float, takes_s: float, entrypoint: tuple[str, ...] = ()
) -> Rehearsed:
    subject = invoices(folder, takes_s, entrypoint=entrypoint)
    return rehearse.rolling(session, subject, folder / "runs", rehearse.Deploy(grace_s=grace_s))


def test_a_grace_that_is_long_enough_cuts_nothing_and_the_gap_is_told(session: SharedParts, tmp_path: Path) -> None:
    run = rolled(session, tmp_path, grace_s=30.0, takes_s=0.5)
    assert run.verdict is Verdict.PASS, run
    (one,) = run.replaced
    assert (one.heard, one.was_killed, one.exit_code, one.cut) == (True, False, 0, ())
    assert (run.lost, run.ran_again, run.failed) == (0, 0, 0)
    # The only worker was down until the other one was ready.
    assert run.untaken_s > 0.5
    assert run.longest_s is not None
    assert run.longest_s >= 0.5
    assert run.longest_task == "shop.invoice"


def test_a_shell_at_process_1_that_passes_no_signal_on_is_found(session: SharedParts, tmp_path: Path) -> None:
    run = rolled(session, tmp_path, grace_s=2.0, takes_s=0.5, entrypoint=BEHIND_A_SHELL)
    (one,) = run.replaced
    assert one.first_process.startswith("sh -c celery")
    assert (one.heard, one.was_killed, one.is_deaf) == (False, True, True)
    assert run.verdict is Verdict.FAIL
    assert rehearse.needed_grace_s(run) is None


def test_workers_that_are_taken_away_within_less_than_a_task_lose_what_was_acknowledged_early(
    session: SharedParts, tmp_path: Path
) -> None:
    early = APP.replace("task_acks_late=True", "task_acks_late=False")
    subject = invoices(tmp_path, 1.0, early)
    run = scaling.scaled(session, subject, tmp_path / "runs", scaling.Scaling(sizes=(2, 1), grace_s=0.2))
    assert run.verdict is Verdict.FAIL
    (one,) = run.replaced
    assert (one.node, one.heard, one.was_killed) == ("worker-2", True, True)
    # On a busy machine, its two tasks began at different times, and one may end within the grace period.
    assert run.lost == len(one.cut) > 0
    assert "task_acks_late" in " ".join(run.findings)


@pytest.mark.catalogue
def test_workers_that_come_and_go_with_time_to_end_lose_nothing_and_share_the_tasks(
    session: SharedParts, tmp_path: Path
) -> None:
    subject = invoices(tmp_path, 0.5)
    run = scaling.scaled(session, subject, tmp_path / "runs", scaling.Scaling(sizes=(1, 4, 1), grace_s=30))
    assert run.verdict is Verdict.PASS, run
    assert (run.lost, run.ran_again, run.cut, run.untaken_s) == (0, 0, 0, 0.0)
    assert [one.node for one in run.replaced] == ["worker-2", "worker-3", "worker-4"]
    assert [len(one.begun) for one in run.shares] == [1, 4, 1]
    # Each process takes one message at a time, so that none can take much more than another one.
    shares = run.shares[1].begun.values()
    assert max(shares) <= 2 * min(shares)


@pytest.mark.catalogue
def test_a_broker_is_upgraded_to_the_next_series_with_its_data_and_nothing_is_lost(
    session: SharedParts, tmp_path: Path
) -> None:
    old, new = session.broker_image_of(None), session.broker_image_of(None, is_next=True)
    versions = [session.broker_version(image) for image in (old, new)]
    with pytest.raises(UsageError, match="earlier series"):
        broker_upgrade.Upgrade(old_image=new, new_image=old, old=versions[1], new=versions[0])
    upgrade = broker_upgrade.Upgrade(old_image=old, new_image=new, old=versions[0], new=versions[1])
    run = broker_upgrade.upgraded(session, invoices(tmp_path, 0.2), tmp_path / "runs", upgrade)
    assert run.verdict is Verdict.PASS, run
    assert (run.lost, run.failed, run.replaced) == (0, 0, ())
    assert run.broker_down_s > 0
    assert run.gap_s is not None
    # Nothing could begin before the broker was back, but for what the worker had.
    assert run.gap_s > run.broker_down_s / 2
    logs = {path.name for path in (tmp_path / "runs").glob("*/logs/broker-*.log")}
    assert len(logs) == 2


@pytest.mark.catalogue
def test_a_task_that_the_old_workers_do_not_know_and_a_serializer_that_they_do_not_read_are_found(
    session: SharedParts, tmp_path: Path
) -> None:
    changes = {"old": "", "new": 'app.conf.update(task_serializer="pickle", accept_content=["pickle", "json"])'}
    versions = dict[str, version_skew.Version]()
    for name, change in changes.items():
        (folder := tmp_path / name).mkdir()
        known = APP if name == "old" else APP.replace("shop.invoice", "shop.bill")
        (folder / "shop.py").write_text(f"{known}\n{change}\n@app.task(name='shop.same')\ndef same():\n    return 1\n")
        own = "shop.invoice" if name == "old" else "shop.bill"
        stack = StackSpec(app="shop", app_folder=folder)
        sent = [(own, [0]), ("shop.same", [])]
        subjects = [Subject(name=task, stack=stack, scenario=OneTask(task, args, {})) for task, args in sent]
        versions[name] = version_skew.Version(name=name, subjects=subjects)
    old_old, new_new, new_old, old_new = version_skew.skew(session, versions["old"], versions["new"], tmp_path / "runs")
    assert (old_old.verdict, new_new.verdict) == (Verdict.PASS, Verdict.PASS)
    assert new_old.verdict is Verdict.FAIL
    # A name that is not known is told before the arguments are read.
    assert (new_old.lost, new_old.failed) == (version_skew.STEPS, version_skew.STEPS)
    assert "ContentDisallowed" in " ".join(new_old.findings)
    assert old_new.verdict is Verdict.FAIL
    assert old_new.failed == version_skew.STEPS
    assert "NotRegistered: shop.invoice" in " ".join(old_new.findings)


@pytest.mark.catalogue
def test_a_grace_that_is_too_short_cuts_tasks_and_one_that_is_named_does_not(
    session: SharedParts, tmp_path: Path
) -> None:
    run = rolled(
        session, tmp_path, grace_s=1.0, takes_s=4.0, entrypoint=("sh", "-c", "exec celery -A shop worker -c 2")
    )
    assert run.verdict is Verdict.FAIL
    assert [(one.heard, one.was_killed, len(one.cut)) for one in run.replaced] == [(True, True, 2)]
    needed_s = rehearse.needed_grace_s(run)
    assert needed_s in {5, 6}
    assert rolled(session, tmp_path, grace_s=needed_s, takes_s=4.0).cut == 0
