"""A right deploy passes twenty times of twenty."""

from pathlib import Path

import pytest

from harness.records.verdict import Verdict
from harness.running import rehearse
from harness.running.survive import Subject
from harness.stack.shared_parts import SharedParts
from harness.stack.stack import StackSpec
from scenarios.emails.scenario import scenario as emails

pytestmark = pytest.mark.docker
TIMES = 20


@pytest.fixture
def session(_harness_session: SharedParts) -> SharedParts:
    return _harness_session


@pytest.mark.parametrize("number", range(TIMES))
def test_a_right_deploy_passes(session: SharedParts, tmp_path: Path, number: int) -> None:
    stack = StackSpec(app=emails.app, env=emails.env, mailbox=True, workers=2)
    subject = Subject(name=emails.name, stack=stack, scenario=emails)
    deploy = rehearse.Deploy(grace_s=20.0, surge=number % 2 == 1)
    run = rehearse.rolling(session, subject, tmp_path, deploy)
    assert run.verdict is Verdict.PASS, run
    assert (run.lost, run.cut, len(run.replaced)) == (0, 0, 2)
    assert all(one.heard for one in run.replaced)
