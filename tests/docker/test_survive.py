"""`harness survive` on an app that it has never seen: what is lost, why, and that the remedy mends it."""

from pathlib import Path

import pytest

from harness.records.moment import Moment
from harness.records.survival import Demand, Outcome
from harness.records.verdict import Verdict
from harness.running import survive
from harness.stack.shared_parts import SharedParts
from harness.stack.stack import StackSpec

pytestmark = pytest.mark.docker

APP = """
from celery import Celery
app = Celery("shop")

@app.task(name="shop.pay", acks_late=False)
def pay(amount):
    return amount
"""
WANTED = {survive.KILL_WORKER: (Moment.STARTED,), survive.KILL_POOL_PROCESS: (Moment.RETURNED,)}


@pytest.fixture
def session(_harness_session: SharedParts) -> SharedParts:
    return _harness_session


def shop(folder: Path, source: str) -> survive.Subject:
    """Return the task of an app whose source is written into a folder."""
    (folder / "shop.py").write_text(source)
    return survive.Subject(
        name="shop.pay",
        stack=StackSpec(app="shop", app_folder=folder),
        scenario=survive.OneTask("shop.pay", [3], {}),
    )


def test_what_early_acknowledgement_loses_is_found_and_the_remedy_is_proven(
    session: SharedParts, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    trial = survive.trial(session, shop(tmp_path, APP), runs, WANTED)
    (life,) = trial.lives
    assert life.has_own_process
    # Early: the message is acknowledged before the task begins.
    assert life.is_acknowledged_early
    assert {Moment.RECEIVED, Moment.ACKNOWLEDGED, Moment.STARTED, Moment.RETURNED, Moment.STORED} <= set(life.moments)
    survival = survive.survive(session, [trial], runs, name="shop", demand=Demand.AT_LEAST_ONCE)
    seen = {(one.cell.fault, one.cell.moment): one for one in survival.results}
    assert survival.verdict is Verdict.FAIL
    lost = seen[survive.KILL_WORKER, Moment.STARTED]
    assert lost.outcome is Outcome.LOST
    assert "task_acks_late is False" in " ".join(lost.reasons), lost
    assert seen[survive.KILL_POOL_PROCESS, Moment.RETURNED].outcome is Outcome.FAILED
    (remedy,) = survival.remedies
    assert [one.outcome for one in remedy.results] == [Outcome.RAN_TWICE, Outcome.RAN_TWICE], remedy.results


def test_what_the_apps_own_annotations_lose_is_mended_by_an_annotation(session: SharedParts, tmp_path: Path) -> None:
    annotated = APP.replace("acks_late=False", "acks_late=True")
    source = f'{annotated}\napp.conf.task_annotations = {{"*": {{"acks_late": False}}}}\n'
    runs = tmp_path / "runs"
    trial = survive.trial(session, shop(tmp_path, source), runs, {survive.KILL_WORKER: (Moment.STARTED,)})
    survival = survive.survive(session, [trial], runs, name="shop", demand=Demand.AT_LEAST_ONCE)
    (lost,) = survival.results
    assert lost.outcome is Outcome.LOST
    assert "task_acks_late is False (task_annotations of *)" in " ".join(lost.reasons)
    (remedy,) = survival.remedies
    assert remedy.lines == ('app.conf.task_annotations["*"].update(acks_late=True)',)
    assert [one.outcome for one in remedy.results] == [Outcome.RAN_TWICE]
