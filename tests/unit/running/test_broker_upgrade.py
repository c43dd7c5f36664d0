"""An upgrade of the broker: what is none, and what is done where the new one does not start."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from harness.errors import EngineError, HarnessError, StartError, UsageError
from harness.records.verdict import Verdict
from harness.running import broker_upgrade
from harness.running.broker_upgrade import Upgrade
from harness.running.deploying import HaltError

if TYPE_CHECKING:
    from harness.running.survive import Subject

DIED = "broker-7 exited with 1 before it was ready. Its last log lines:\n=CRASH REPORT="


def upgrade(old: str, new: str) -> Upgrade:
    return Upgrade(old_image="rabbit:old", new_image="rabbit:new", old=old, new=new)


@pytest.mark.parametrize(
    ("old", "new", "seen"),
    [
        ("4.0.5", "4.0.5", "both of version 4.0.5, so that nothing would be upgraded: name an image of a later one"),
        (
            "4.0.5",
            "3.13.7",
            r"\(3.13.7\) is of an earlier series than the old one \(4.0.5\), whose data it cannot read",
        ),
        ("3.13.0", "3.9.27", "earlier series"),
    ],
)
def test_what_is_no_upgrade_is_a_wrong_use(old: str, new: str, seen: str) -> None:
    with pytest.raises(UsageError, match=seen):
        upgrade(old, new)


@pytest.mark.parametrize(
    ("old", "new"), [("3.9.27", "3.13.0"), ("3.13.7", "4.0.5"), ("4.0.5", "4.0.6"), ("4.0.6", "4.0.5")]
)
def test_a_later_series_and_another_patch_are_upgrades(old: str, new: str) -> None:
    assert upgrade(old, new).new == new


class Deploying:
    """Under load, without any: the brokers of some images do not start."""

    def __init__(self, *broken: str, error: HarnessError | None = None) -> None:
        """Take the images whose broker does not start, and what is raised then."""
        self.error = error or StartError(DIED)
        self.if_dead = Verdict.UNKNOWN
        self.broker_was_killed = False
        self.broken = broken
        self.stack = self
        self.started: list[str] = []
        self.findings: list[Any] = []
        self.broker_down_s = 0.0
        self.stayed = 0

    def upgrade_broker(self, image: str) -> None:
        self.started.append(image)
        if image in self.broken:
            raise self.error

    def stay(self, rounds: int) -> None:
        self.stayed += rounds


@pytest.fixture
def change(monkeypatch: pytest.MonkeyPatch) -> Callable[[Deploying], None]:
    """Return what is done while the load goes on."""
    taken: list[Any] = []
    monkeypatch.setattr(broker_upgrade, "under_load", lambda _session, _subject, _root, **said: taken.append(said))
    stack = SimpleNamespace()
    monkeypatch.setattr(broker_upgrade, "replace", lambda _one, **_changes: stack)
    subject = cast("Subject", SimpleNamespace(stack=stack, name="pay"))
    broker_upgrade.upgraded(cast("Any", None), subject, Path(), upgrade("4.0.5", "4.3.6"))
    assert taken[0]["title"] == "the broker upgraded from RabbitMQ 4.0.5 to 4.3.6"
    return cast("Callable[[Deploying], None]", taken[0]["change"])


def test_a_broker_that_starts_is_no_finding(change: Callable[[Deploying], None]) -> None:
    change(deploying := Deploying())
    assert (deploying.started, deploying.findings) == (["rabbit:new"], [])
    assert deploying.stayed
    assert deploying.if_dead is Verdict.FAIL
    assert deploying.broker_down_s > 0


def test_a_broker_that_does_not_start_is_a_finding_and_the_old_one_is_back(change: Callable[[Deploying], None]) -> None:
    change(deploying := Deploying("rabbit:new"))
    assert deploying.started == ["rabbit:new", "rabbit:old"]
    (finding,) = deploying.findings
    assert (finding.code, finding.verdict) == ("broker-not-started", Verdict.FAIL)
    assert finding.text == (
        "RabbitMQ 4.3.6 did not start with the data of 4.0.5: broker-7 exited with 1 before it was ready."
    )


@pytest.mark.parametrize("broken", [[], ["rabbit:new"]])
def test_an_old_broker_that_had_to_be_killed_is_told(change: Callable[[Deploying], None], broken: list[str]) -> None:
    deploying = Deploying(*broken)
    deploying.broker_was_killed = True
    change(deploying)
    first = deploying.findings[0]
    assert (first.code, first.verdict) == ("broker-killed", Verdict.UNKNOWN)
    assert first.text.startswith("RabbitMQ 4.0.5 had not ended in time")
    assert len(deploying.findings) == 1 + len(broken)


def test_a_broker_that_the_engine_does_not_start_is_a_finding_as_well(change: Callable[[Deploying], None]) -> None:
    change(deploying := Deploying("rabbit:new", error=EngineError("the data cannot be made writable.")))
    assert deploying.started == ["rabbit:new", "rabbit:old"]
    assert [one.text.partition(": ")[2] for one in deploying.findings] == ["the data cannot be made writable."]


def test_a_broker_that_never_starts_again_ends_the_rehearsal_with_both_findings(
    change: Callable[[Deploying], None],
) -> None:
    deploying = Deploying("rabbit:new", "rabbit:old")
    with pytest.raises(HaltError):
        change(deploying)
    assert [(one.code, one.verdict) for one in deploying.findings] == [
        ("broker-not-started", Verdict.FAIL),
        ("broker-not-back", Verdict.FAIL),
    ]
    assert not deploying.stayed
