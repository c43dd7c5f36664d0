"""A hundred clean runs: whatever is flaky in the harness itself shows here."""

import pytest

from harness import Drive, Fate, Verdict
from harness.nodes.mailbox import Mailbox
from harness.run import play
from harness.stack import Stack
from scenarios.emails import scenario

COUNT = 50
pytestmark = [
    pytest.mark.docker,
    pytest.mark.stack(app=scenario.app, env=scenario.env, promise=scenario.promise),
]


@pytest.mark.parametrize("seed", range(100))
def test_fifty_receipts(stack: Stack, mailbox: Mailbox, seed: int) -> None:
    drive = Drive(count=COUNT, seed=seed)
    audit = play(scenario, stack, drive)
    assert audit.verdict is Verdict.PASS, audit.text()
    assert audit.fates[Fate.OK] == len(mailbox.messages()) == COUNT
