"""The faults of connections, before a link that only reports: what they ask of it, and what counts as proof."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from harness.audit.run_folder import RunFolder
from harness.errors import ServiceError, UsageError
from harness.faults import Bandwidth, DropConfirms, HalfOpen, HoldAcks, Latency, Reset
from harness.faults.fault_text import fault_of
from harness.faults.link_fault import LinkFault
from harness.records.event import Kind
from harness.records.journal import Writer
from harness.records.link import Disturbance, Report, Trouble, Way

if TYPE_CHECKING:
    from harness.containers.tcp_link import Disturbing
    from harness.faults.fault import Target


class FakeLink:
    """Takes every disturbance, and reports what it is told to."""

    clients = ("producer", "worker-1", "worker-2", "beat-1")

    def __init__(self) -> None:
        """Begin undisturbed."""
        self.asked: list[Disturbance] = []
        self.ends = 0
        self.fails = False
        self.reported = Report()

    def disturb(self, what: Disturbance) -> "Disturbing":
        self.asked.append(what)
        return cast("Disturbing", self)

    def report(self) -> Report:
        return self.reported

    def end(self) -> Report:
        if self.fails:
            raise ServiceError("the link does not answer.")
        self.ends += 1
        return self.reported


class FakeStack:
    """A stack with a link."""

    def __init__(self, folder: RunFolder) -> None:
        """Begin with a run folder."""
        self.folder = folder
        self.link = FakeLink()

    def put(self, fault: LinkFault, turn: int = 0) -> LinkFault:
        return fault.on(cast("Target", self), turn=turn, now=lambda: 1000.0)


@pytest.fixture
def stack(tmp_path: Path) -> FakeStack:
    return FakeStack(RunFolder.create(tmp_path, "links"))


BYTES = Report(connections=2, byte_count=70, tasks=("t-1",))
ONE_WAY = Report(connections=2, byte_count=70, passed=9, tasks=("t-1",))
FRAMES = Report(connections=2, frames=3, gone=1, tasks=("t-1",))
EVERY = [
    ("latency-worker-1,seconds=0.5,way=to-client", Trouble.LATENCY, BYTES, "70 bytes came 0.5 s late"),
    ("bandwidth-worker,bytes_per_s=100", Trouble.BANDWIDTH, BYTES, "70 bytes waited for a line of 100 bytes a second"),
    ("half-open-worker-1,way=to-broker", Trouble.HALF_OPEN, ONE_WAY, "were kept back, and 9 bytes passed the"),
    ("reset-worker,new_too=yes,way=to-client", Trouble.RESET, BYTES, "2 connections were reset"),
    ("drop-confirms-worker", Trouble.DROP_CONFIRMS, FRAMES, "the 3 confirms of the broker did not arrive"),
    ("hold-acks-worker", Trouble.HOLD_ACKS, FRAMES, "3 acknowledgements were held, 1 of them until"),
]


@pytest.mark.parametrize(("text", "trouble", "proof", "words"), EVERY, ids=[one[1] for one in EVERY])
def test_every_fault_of_connections_keeps_the_contract(
    text: str, trouble: Trouble, proof: Report, words: str, stack: FakeStack
) -> None:
    fault = fault_of(text)
    assert isinstance(fault, LinkFault)
    stack.put(fault)
    fault.heal()
    assert fault.landed() == "it was not injected."
    fault.inject()
    (asked,) = stack.link.asked
    assert (asked.trouble, asked.client) == (trouble, "worker-1")
    assert str(fault.landed()).endswith("was not healed.")
    stack.link.reported = proof
    fault.heal()
    fault.heal()
    assert (stack.link.ends, fault.healed_t, fault.landed()) == (1, 1000.0, None)
    assert fault.tasks == ("t-1",)
    assert words in fault.words()


@pytest.mark.parametrize(("text", "trouble"), [one[:2] for one in EVERY], ids=[one[1] for one in EVERY])
def test_a_disturbance_that_met_nothing_has_not_landed(text: str, trouble: Trouble, stack: FakeStack) -> None:
    fault = fault_of(text)
    assert isinstance(fault, LinkFault)
    stack.put(fault)
    fault.inject()
    # Connections that were open prove nothing, but where they were reset.
    stack.link.reported = Report(connections=0 if trouble is Trouble.RESET else 2)
    fault.heal()
    assert "worker-1" in str(fault.landed())


@pytest.mark.parametrize(
    ("text", "report", "words"),
    [
        ("half-open-worker-1,way=to-client", ONE_WAY, "were kept back, and 9 bytes passed the other way"),
        ("half-open-worker-1,way=to-client", BYTES, "were kept back, and 0 bytes passed the other way"),
        ("half-open-worker-1", BYTES, "were kept back; it met"),
    ],
)
def test_a_cut_in_one_direction_tells_what_passed_in_the_other_one(
    text: str, report: Report, words: str, stack: FakeStack
) -> None:
    fault = fault_of(text)
    assert isinstance(fault, HalfOpen)
    stack.put(fault).inject()
    stack.link.reported = report
    fault.heal()
    assert fault.landed() is None
    assert words in fault.words()


def test_parameters_reach_the_link(stack: FakeStack) -> None:
    for text, *_ in EVERY:
        fault = fault_of(text)
        assert isinstance(fault, LinkFault)
        stack.put(fault).inject()
    latency, bandwidth, half_open, reset, *_ = stack.link.asked
    assert (latency.amount, latency.way) == (0.5, Way.TO_CLIENT)
    assert (bandwidth.amount, bandwidth.way) == (100, None)
    assert (half_open.way, reset.way, reset.new_too) == (Way.TO_BROKER, Way.TO_CLIENT, True)


def test_clients_are_taken_in_turn_or_all_or_by_name(stack: FakeStack) -> None:
    chosen = [stack.put(Reset("worker"), turn=turn) for turn in range(3)]
    chosen += [stack.put(Reset()), stack.put(HoldAcks("beat-1")), stack.put(DropConfirms("producer"))]
    for fault in chosen:
        fault.inject()
    clients = [one.client for one in stack.link.asked]
    assert clients == ["worker-1", "worker-2", "worker-1", None, "beat-1", "producer"]
    assert chosen[3].node == "every client"


def test_a_client_that_is_not_there_is_named_with_those_that_are(stack: FakeStack) -> None:
    with pytest.raises(UsageError, match=r"no web connects .* there are producer, worker-1, worker-2, beat-1"):
        stack.put(Latency("web")).inject()
    assert stack.link.asked == []


@pytest.mark.parametrize(
    "make",
    [
        lambda: Latency(seconds=0),
        lambda: Latency(seconds=float("nan")),
        lambda: Bandwidth(bytes_per_s=-1),
        lambda: fault_of("latency,way=up"),
        lambda: fault_of("latency,seconds=soon"),
        lambda: fault_of("reset,new_too=maybe"),
    ],
)
def test_values_that_make_no_sense_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(UsageError):
        make()


def test_a_link_that_does_not_answer_can_be_asked_again_to_end(stack: FakeStack) -> None:
    fault = stack.put(HalfOpen("worker-1"))
    fault.inject()
    stack.link.fails = True
    with pytest.raises(ServiceError):
        fault.heal()
    assert fault.healed_t is None
    stack.link.fails = False
    fault.heal()
    assert fault.healed_t is not None


def test_tasks_that_were_delivered_again_afterwards_are_counted(stack: FakeStack) -> None:
    journal = Writer(stack.folder.journal, node="worker-2", role="worker", now=lambda: 1001.0)
    journal.write(Kind.RECEIVED, "before", redelivered=True)
    fault = stack.put(Reset("worker-1"))
    stack.link.reported = Report(connections=1, tasks=("before", "t-1", "t-2"))
    fault.inject()
    fault.heal()
    journal.write(Kind.RECEIVED, "t-1", redelivered=True)
    journal.write(Kind.RECEIVED, "t-2", redelivered=False)
    journal.write(Kind.RECEIVED, "another", redelivered=True)
    fault.follow()
    fault.follow()
    assert fault.redelivered == 1
    assert fault.words().endswith("it met 3 tasks; delivered again: 1")
    journal.close()
