"""A broker that is upgraded with its data under load, while producers and workers go on, and all is audited."""

import re
import time
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import EngineError, HarnessError, StartError, UsageError, WaitTimeout
from harness.records.rehearsal import Rehearsed
from harness.records.verdict import Finding, Verdict
from harness.running.deploying import MOST_STEPS, Deploying, HaltError, under_load
from harness.running.survive import Subject
from harness.stack.shared_parts import SharedParts

NOT_STARTED = "broker-not-started"
"""The code of the finding that the new broker did not start with the data of the old one."""
NOT_BACK = "broker-not-back"
"""The code of the finding that the old broker did not start again either."""
KILLED = "broker-killed"
"""The code of the finding that the old broker did not end by itself, as it is to in an upgrade."""
_NOT_UP = (EngineError, StartError, WaitTimeout)
"""What is raised if a broker does not start."""
_ROUNDS = 3
"""How often each worker could have as many tasks as it runs at once, until the rehearsal ends."""


@dataclass(frozen=True, kw_only=True)
class Upgrade:
    """Two brokers: their images, and their versions."""

    old_image: str
    new_image: str
    old: str
    new: str

    def __post_init__(self) -> None:
        """Raise UsageError for what is no upgrade."""
        if self.old == self.new:
            raise UsageError(
                f"the old and the new broker are both of version {self.old}, so that nothing would be upgraded: name "
                "an image of a later one with --new-broker, or of an earlier one with --old-broker."
            )
        if _numbers(self.new)[:2] < _numbers(self.old)[:2]:
            raise UsageError(
                f"the new broker ({self.new}) is of an earlier series than the old one ({self.old}), whose data it "
                "cannot read: exchange --old-broker and --new-broker."
            )


def _numbers(version: str) -> list[int]:
    """Return the numbers of a version: `4.0.5` and `4.0.5-rc.1` have equal ones."""
    return [int(number) for number in re.findall(r"\d+", version.partition("-")[0])]


def upgraded(
    session: SharedParts, subject: Subject, root: Path, upgrade: Upgrade, *, most_steps: int = MOST_STEPS
) -> Rehearsed:
    """Stop a stack's own broker and start another one with its data, while tasks are sent. Return what became of all.

    If the new one does not start, that is a finding, and the old one is started again. If that does not start either,
    that is another finding, and the rehearsal ends.

    Args:
        session: has the images.
        subject: what is sent, and the stack with its workers.
        root: the folder that gets the run folder.
        upgrade: the two brokers.
        most_steps: the most steps that are taken.

    Raises:
        UsageError: no task ends even before the upgrade.
        HarnessError: the stack does not start.
    """

    def change(deploying: Deploying) -> None:
        begin_t = time.time()
        try:
            try:
                deploying.stack.upgrade_broker(upgrade.new_image)
            finally:
                _note_if_killed(deploying, upgrade.old)
            deploying.if_dead = Verdict.FAIL
        except _NOT_UP as error:
            text = f"RabbitMQ {upgrade.new} did not start with the data of {upgrade.old}: {_seen(error)}"
            deploying.findings.append(Finding(code=NOT_STARTED, verdict=Verdict.FAIL, count=1, text=text))
            _go_back(deploying, upgrade)
        deploying.broker_down_s = time.time() - begin_t
        deploying.stay(_ROUNDS)

    return under_load(
        session,
        replace(subject, stack=replace(subject.stack, own_broker=True, broker_image=upgrade.old_image)),
        root,
        title=f"the broker upgraded from RabbitMQ {upgrade.old} to {upgrade.new}",
        run_name=f"broker-upgrade-{subject.name}-{upgrade.old}-{upgrade.new}",
        about={"broker_upgrade": {"old": upgrade.old, "new": upgrade.new}},
        change=change,
        most_steps=most_steps,
    )


def _note_if_killed(deploying: Deploying, version: str) -> None:
    """Note as a finding that the broker was killed, instead of ending by itself."""
    if deploying.stack.broker_was_killed:
        text = f"RabbitMQ {version} had not ended in time after it was asked to stop, so that it was killed (SIGKILL)"
        deploying.findings.append(Finding(code=KILLED, verdict=Verdict.UNKNOWN, count=1, text=text))


def _go_back(deploying: Deploying, upgrade: Upgrade) -> None:
    """Start the old broker again. Raises HaltError, after a finding, if it does not start either."""
    try:
        deploying.stack.upgrade_broker(upgrade.old_image)
    except _NOT_UP as error:
        text = f"RabbitMQ {upgrade.old} did not start again with its data after {upgrade.new}: {_seen(error)}"
        deploying.findings.append(Finding(code=NOT_BACK, verdict=Verdict.FAIL, count=1, text=text))
        raise HaltError from error


def _seen(error: HarnessError) -> str:
    return str(error).partition(" Its last log lines")[0]
