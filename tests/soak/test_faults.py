"""Each fault lands and is healed twenty times of twenty, in one stack, and a task runs afterwards each time."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from harness.faults import (
    Bandwidth,
    ClockJump,
    CloseConnections,
    DiskAlarm,
    DropConfirms,
    Fault,
    FullDisk,
    HalfOpen,
    HoldAcks,
    Kill,
    KillPoolProcess,
    Latency,
    LockResults,
    MemoryAlarm,
    Noop,
    OutOfMemory,
    Partition,
    Pause,
    RejectMail,
    Reset,
    Restart,
    SlowMail,
    Stop,
    TwoBeats,
)
from harness.faults.fault_text import KINDS
from harness.records.event import Kind
from harness.records.link import Way
from harness.records.verdict import Fate
from harness.wait import wait_until

if TYPE_CHECKING:
    from harness.stack.stack import Stack

pytestmark = pytest.mark.docker
TIMES = 20
STACK = {
    "app": "surroundings",
    "app_folder": "tests/docker/apps",
    "options": ["--concurrency=1", "--without-mingle", "--without-gossip"],
    # A worker that connects again before the broker has let its exclusive queue for remote control go would end.
    "env": {"HARNESS_SETTINGS": '{"worker_enable_remote_control": false}'},
}
ON_A_LINK = (Bandwidth, DropConfirms, HalfOpen, HoldAcks, Latency, Reset)
ON_A_BROKER = (DiskAlarm, MemoryAlarm)
FAULTS: dict[str, Callable[[], Fault]] = {
    "bandwidth": lambda: Bandwidth("worker", bytes_per_s=500),
    "clock-jump": lambda: ClockJump("worker", seconds=3_600),
    "close-connections": lambda: CloseConnections("worker"),
    "disk-alarm": DiskAlarm,
    "drop-confirms": lambda: DropConfirms("producer"),
    "full-disk": FullDisk,
    "half-open": lambda: HalfOpen("worker"),
    "half-open-one-way": lambda: HalfOpen("worker", way=Way.TO_BROKER),
    "hold-acks": lambda: HoldAcks("worker"),
    "kill": Kill,
    "kill-broker": lambda: Kill("broker"),
    "kill-pool-process": KillPoolProcess,
    "latency": lambda: Latency("worker"),
    "lock-results": LockResults,
    "memory-alarm": MemoryAlarm,
    "noop": Noop,
    "out-of-memory": OutOfMemory,
    "partition": Partition,
    "pause": Pause,
    "reject-mail": lambda: RejectMail(451),
    "reset": lambda: Reset("worker"),
    "restart": Restart,
    "restart-broker": lambda: Restart("broker"),
    "slow-mail": lambda: SlowMail(1),
    "stop": lambda: Stop(grace_s=5),
    "two-beats": lambda: TwoBeats("beat"),
}


def needs(name: str) -> dict[str, object]:
    """Return what a stack has that this fault can break."""
    fault = FAULTS[name]()
    more: dict[str, object] = {"link": isinstance(fault, ON_A_LINK)}
    more["own_broker"] = isinstance(fault, ON_A_BROKER) or fault.needs_own_broker
    return {**STACK, **more, "movable_clocks": isinstance(fault, ClockJump), "small_disk": fault.needs_small_disk}


def test_every_kind_of_fault_is_here() -> None:
    assert {FAULTS[name]().kind for name in FAULTS} == set(KINDS)


@pytest.mark.usefixtures("mailbox")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.stack(**needs(name)), id=name) for name in FAULTS]
)
def test_a_fault_lands_and_is_healed_each_time(stack: "Stack", name: str) -> None:
    if name == "two-beats":
        stack.add_beat()
    missing = []
    for number in range(TIMES):
        begun = stack.producer.send("surroundings.work", kwargs={"pause_s": 0.5})
        wait_said(stack, Kind.STARTED, begun.task)
        with stack.inject(FAULTS[name]()) as fault:
            meet(stack, fault, begun.task)
        if (why := fault.landed()) is not None:
            missing.append(f"{number}: {why}")
        after = stack.producer.send("surroundings.work")
        assert after.accepted
        wait_said(stack, Kind.FINISHED, after.task)
    assert missing == []
    # A process that is killed takes its task with it, as the app's settings say. Nothing is lost.
    fates = stack.settle().fates
    assert not fates[Fate.LOST] + fates[Fate.UNKNOWN] + fates[Fate.PENDING]


def wait_said(stack: "Stack", kind: Kind, task: str) -> None:
    """Wait until a worker has said this of a task."""
    wait_until(
        lambda: any(event.task == task for worker in stack.workers for event in worker.said(kind)),
        what=f"a worker has said {kind.value} of {task}",
        timeout_s=90,
    )


def meet(stack: "Stack", fault: Fault, begun: str) -> None:
    """Do what the fault is to meet, while it lasts. A task was begun before."""
    if isinstance(fault, OutOfMemory):
        known = len(stack.workers[0].said(Kind.EXITED))
        stack.producer.send("surroundings.fill", kwargs={"mb": 300})
        wait_until(lambda: len(stack.workers[0].said(Kind.EXITED)) > known, what="the kernel kills", timeout_s=30)
    elif isinstance(fault, DropConfirms | Bandwidth | Latency):
        sent = stack.producer.send("surroundings.work")
        if not isinstance(fault, DropConfirms):
            wait_said(stack, Kind.FINISHED, sent.task)
    elif isinstance(fault, HalfOpen | HoldAcks):
        wait_said(stack, Kind.FINISHED, begun)
    if isinstance(fault, HalfOpen):
        wait_until(lambda: fault.report().byte_count > 0, what="something is kept back", timeout_s=30)
    if isinstance(fault, HoldAcks | DropConfirms):
        wait_until(lambda: fault.report().frames > 0, what="a frame is kept back", timeout_s=30)
