"""What a link lets pass, and when.

The broker is a server on loopback, and time passes only while nobody has anything to do.
"""

import asyncio
import selectors
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pamqp import commands

from harness.inside.tcp_link import Disturbed, Link
from harness.records.link import Disturbance, Trouble, Way
from tests.unit.inside.test_amqp_frames import GREETING, ack, content, delivered, method, published

LOOPBACK = "127.0.0.1"
_LONGEST_S = 10
"""Seconds, of the real clock, after which a test that waits for nothing fails."""


class _Jumping(selectors.DefaultSelector):
    """Does not wait for the time of a timer: it jumps there, when no socket is ready."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead_s = 0.0

    def select(self, timeout: float | None = None) -> Any:
        # What was written to loopback is there at once, or nearly so.
        if ready := super().select(0.02 if timeout is None or timeout > 0 else 0):
            return ready
        if timeout is None:
            ready = super().select(_LONGEST_S)
            assert ready, "nothing happens any more"
            return ready
        self.ahead_s += timeout
        return []


class Loop(asyncio.SelectorEventLoop):
    """An event loop with a clock of its own."""

    def __init__(self) -> None:
        """Begin at 0."""
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return the time, in seconds: only jumps count."""
        return self._jumping.ahead_s


class Broker:
    """The other end: it keeps what each connection sends, and says what it is told to."""

    def __init__(self) -> None:
        """Begin without a connection."""
        self.connections: list[Peer] = []
        self.more = asyncio.Event()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(Peer(reader, writer))
        self.more.set()

    async def next(self) -> "Peer":
        while not self.connections:
            self.more.clear()
            await self.more.wait()
        return self.connections.pop(0)


class Peer:
    """One end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take both directions."""
        self.reader, self.writer = reader, writer

    async def say(self, *data: bytes) -> None:
        self.writer.write(b"".join(data))
        await self.writer.drain()

    async def hears(self, *data: bytes) -> None:
        expected = b"".join(data)
        assert await self.reader.readexactly(len(expected)) == expected

    async def hears_nothing(self) -> None:
        """Check that nothing comes for an hour."""
        try:
            got = await asyncio.wait_for(self.reader.read(100), 3600)
        except TimeoutError:
            return
        raise AssertionError(f"{got!r} came")

    async def is_reset(self) -> bool:
        """Whether the connection is reset now, instead of ended."""
        try:
            await self.reader.read(100)
        except ConnectionResetError:
            return True
        return False

    def reset(self) -> None:
        """Reset the connection."""
        handle = self.writer.get_extra_info("socket")
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class Wiring:
    """A link between a broker and the clients that are opened."""

    def __init__(self, link: Link, broker: Broker, server: asyncio.Server) -> None:
        """Begin without a client."""
        self.link, self.broker, self.server = link, broker, server
        self._open: list[Peer] = []

    async def client(self, name: str = "worker-1") -> Peer:
        port = await self.link.listen(name, host=LOOPBACK)
        peer = Peer(*await asyncio.open_connection(LOOPBACK, port))
        self._open.append(peer)
        return peer

    async def pair(self, name: str = "worker-1") -> tuple[Peer, Peer]:
        """Return both ends of a new connection, which passes bytes."""
        client = await self.client(name)
        broker = await self.broker.next()
        self._open.append(broker)
        await client.say(GREETING)
        await broker.hears(GREETING)
        return client, broker

    async def close(self) -> None:
        self.link.close()
        self.server.close()
        for peer in self._open:
            peer.writer.transport.abort()
        # The ends of the connections are handled in the next turns of the loop.
        await asyncio.sleep(0.01)


Test = Callable[[Wiring], Awaitable[None]]


def wired(test: Test) -> Callable[[], None]:
    """Run a test with a link, in a loop of its own."""

    async def with_link() -> None:
        broker = Broker()
        server = await asyncio.start_server(broker.accept, LOOPBACK, 0)
        wiring = Wiring(Link(LOOPBACK, server.sockets[0].getsockname()[1]), broker, server)
        try:
            await test(wiring)
        finally:
            await wiring.close()

    def run() -> None:
        loop = Loop()
        try:
            loop.run_until_complete(with_link())
        finally:
            loop.close()

    run.__name__, run.__doc__ = getattr(test, "__name__", "test"), test.__doc__
    return run


@contextmanager
def disturbed(link: Link, trouble: Trouble, client: str | None = "worker-1", **more: Any) -> Iterator[Disturbed]:
    """Disturb a client's connections for a while."""
    begun = link.begin(Disturbance(trouble=trouble, client=client, **more))
    yield begun
    link.end(begun)


def now() -> float:
    return asyncio.get_running_loop().time()


CONFIRMING = method(commands.Confirm.Select(), 1)


@wired
async def test_undisturbed_bytes_pass_as_they_come_and_so_does_the_end(wiring: Wiring) -> None:
    client, broker = await wiring.pair()
    large = b"".join([*delivered("t-1", 1), content(None, bytes(100_000))[1] * 50])
    sending = asyncio.ensure_future(broker.say(large))
    await client.hears(large)
    await sending
    await client.say(ack(1))
    client.writer.write_eof()
    await broker.hears(ack(1))
    assert await broker.reader.read() == b""
    # The other direction is still open.
    await broker.say(ack(2))
    await client.hears(ack(2))
    broker.writer.close()
    assert await client.reader.read() == b""
    assert wiring.link.connections == set()


@wired
async def test_a_frame_that_is_cut_by_the_end_arrives_as_far_as_it_came(wiring: Wiring) -> None:
    client, broker = await wiring.pair()
    await client.say(ack(1)[:9])
    client.writer.close()
    assert await broker.reader.read() == ack(1)[:9]


@wired
async def test_a_broker_that_is_not_there_resets_the_client(wiring: Wiring) -> None:
    wiring.server.close()
    client = await wiring.client()
    assert await client.is_reset()
    assert wiring.link.connections == set()


@wired
async def test_a_reset_by_one_side_reaches_the_other_as_one_after_what_was_sent(wiring: Wiring) -> None:
    client, broker = await wiring.pair()
    with disturbed(wiring.link, Trouble.LATENCY, amount=3):
        await client.say(ack(1))
        # It is on its way.
        await asyncio.sleep(1)
        client.reset()
        await broker.hears(ack(1))
        assert await broker.is_reset()
    client, broker = await wiring.pair()
    broker.reset()
    assert await client.is_reset()
    assert wiring.link.connections == set()


@wired
async def test_latency_delays_each_byte_each_way_and_no_longer_once_it_ends(wiring: Wiring) -> None:
    client, broker = await wiring.pair()
    other, its_broker = await wiring.pair("worker-2")
    with disturbed(wiring.link, Trouble.LATENCY, amount=0.25) as latency:
        began = now()
        await client.say(*published("t-1"))
        await broker.hears(*published("t-1"))
        assert now() - began == pytest.approx(0.25)
        await broker.say(ack(1))
        await client.hears(ack(1))
        assert now() - began == pytest.approx(0.5)
        # Bytes that follow each other do not add up their delays.
        await client.say(ack(2))
        await client.say(ack(3))
        await broker.hears(ack(2), ack(3))
        assert now() - began == pytest.approx(0.75)
        await other.say(ack(4))
        await its_broker.hears(ack(4))
        assert now() - began == pytest.approx(0.75)
        late = len(b"".join([*published("t-1"), ack(1), ack(2), ack(3)]))
        report = latency.report()
        assert (report.connections, report.byte_count, report.tasks) == (1, late, ("t-1",))
        await client.say(ack(5))
        await asyncio.sleep(0.1)
        began = now()
    # The ack on its way is let go, and is not counted as late.
    await broker.hears(ack(5))
    await broker.say(ack(6))
    await client.hears(ack(6))
    assert now() == began
    assert latency.report().byte_count == late


@wired
async def test_latency_of_one_way_leaves_the_other_alone(wiring: Wiring) -> None:
    client, broker = await wiring.pair()
    with disturbed(wiring.link, Trouble.LATENCY, way=Way.TO_BROKER, amount=2):
        began = now()
        await broker.say(ack(1))
        await client.hears(ack(1))
        assert now() == began
        await client.say(ack(1))
        client.writer.write_eof()
        await broker.hears(ack(1))
        assert now() - began == pytest.approx(2)
        assert await broker.reader.read() == b""


@wired
async def test_bandwidth_limits_all_connections_of_a_client_together(wiring: Wiring) -> None:
    (one, its_broker), (two, other_broker) = await wiring.pair(), await wiring.pair()
    with disturbed(wiring.link, Trouble.BANDWIDTH, amount=1000) as bandwidth:
        began = now()
        message = ack(1) * 50
        await one.say(message)
        await its_broker.hears(message)
        assert now() - began == pytest.approx(len(message) / 1000, abs=0.1)
        await asyncio.gather(one.say(message), two.say(message))
        await asyncio.gather(its_broker.hears(message), other_broker.hears(message))
        assert now() - began == pytest.approx(3 * len(message) / 1000, abs=0.1)
        assert bandwidth.report().byte_count > 2 * len(message)
        await one.say(message)
        await asyncio.sleep(0.1)
        began = now()
    await its_broker.hears(message)
    assert now() == began


@wired
async def test_traffic_below_the_limit_does_not_wait(wiring: Wiring) -> None:
    client, broker = await wiring.pair()
    with disturbed(wiring.link, Trouble.BANDWIDTH, amount=1_000_000) as bandwidth:
        await client.say(ack(1))
        await broker.hears(ack(1))
        assert bandwidth.report().byte_count == 0


@wired
async def test_half_open_keeps_everything_back_until_it_ends_even_the_end_of_a_connection(wiring: Wiring) -> None:
    client, broker = await wiring.pair()
    await client.say(CONFIRMING, *published("t-1"))
    await broker.hears(CONFIRMING, *published("t-1"))
    with disturbed(wiring.link, Trouble.HALF_OPEN) as cut:
        await client.say(ack(1))
        client.writer.write_eof()
        await broker.say(*delivered("t-2", 1))
        late = await wiring.client()
        await late.say(GREETING)
        await asyncio.gather(client.hears_nothing(), broker.hears_nothing(), late.hears_nothing())
        assert wiring.broker.connections == []
        report = cut.report()
        assert report.connections == 2
        assert report.byte_count == len(ack(1) + b"".join(delivered("t-2", 1)) + GREETING)
        assert report.tasks == ("t-1", "t-2")
    await broker.hears(ack(1))
    assert await broker.reader.read() == b""
    await client.hears(*delivered("t-2", 1))
    await (await wiring.broker.next()).hears(GREETING)


@wired
async def test_half_open_one_way_passes_the_other(wiring: Wiring) -> None:
    client, broker = await wiring.pair()
    with disturbed(wiring.link, Trouble.HALF_OPEN, way=Way.TO_CLIENT) as cut:
        await broker.say(ack(1))
        await client.hears_nothing()
        assert (cut.report().byte_count, cut.report().passed) == (len(ack(1)), 0)
        await client.say(ack(2))
        await broker.hears(ack(2))
        assert (cut.report().byte_count, cut.report().passed) == (len(ack(1)), len(ack(2)))
    await client.hears(ack(1))
    await client.say(ack(3))
    await broker.hears(ack(3))
    assert cut.report().passed == len(ack(2))


@wired
async def test_what_another_fault_keeps_back_did_not_pass(wiring: Wiring) -> None:
    client, broker = await wiring.pair()
    with (
        disturbed(wiring.link, Trouble.HALF_OPEN, way=Way.TO_CLIENT) as back,
        disturbed(wiring.link, Trouble.HALF_OPEN, way=Way.TO_BROKER) as forth,
    ):
        await broker.say(ack(1))
        await client.hears_nothing()
        assert [(one.report().byte_count, one.report().passed) for one in (back, forth)] == [(len(ack(1)), 0), (0, 0)]


@wired
async def test_a_reset_ends_both_sides_of_the_clients_connections_and_of_no_others(wiring: Wiring) -> None:
    (client, broker), (other, its_broker) = await wiring.pair(), await wiring.pair("worker-2")
    await broker.say(*delivered("t-1", 1))
    await client.hears(*delivered("t-1", 1))
    with disturbed(wiring.link, Trouble.RESET) as reset:
        assert await client.is_reset()
        assert await broker.is_reset()
        report = reset.report()
        assert (report.connections, report.tasks) == (1, ("t-1",))
        await wiring.pair()
        await other.say(ack(1))
        await its_broker.hears(ack(1))
        assert reset.report().connections == 1


@wired
async def test_a_reset_of_one_side_leaves_the_other_waiting_until_the_end(wiring: Wiring) -> None:
    client, broker = await wiring.pair()
    with disturbed(wiring.link, Trouble.RESET, way=Way.TO_CLIENT) as reset:
        assert await client.is_reset()
        await broker.say(*delivered("t-1", 1))
        await broker.hears_nothing()
        assert reset.report().connections == 1
        again, its_broker = await wiring.pair()
    assert await broker.is_reset()
    await again.say(ack(1))
    await its_broker.hears(ack(1))
    with disturbed(wiring.link, Trouble.RESET, way=Way.TO_BROKER):
        assert await its_broker.is_reset()
        await again.hears_nothing()
        # Whoever gives it up ends it.
        again.writer.close()
    assert wiring.link.connections == set()


@wired
async def test_new_connections_are_reset_too_until_the_end(wiring: Wiring) -> None:
    client, _ = await wiring.pair()
    with disturbed(wiring.link, Trouble.RESET, client=None, new_too=True) as reset:
        assert await client.is_reset()
        assert await (await wiring.client()).is_reset()
        assert await (await wiring.client("worker-2")).is_reset()
        assert reset.report().connections == 3
    await wiring.pair()


@wired
async def test_dropped_confirms_never_arrive_and_everything_else_does(wiring: Wiring) -> None:
    client, broker = await wiring.pair()
    await client.say(CONFIRMING, *published("t-1"), *published("t-2"), *published("t-3"), *published("t-4"))
    await broker.hears(CONFIRMING, *published("t-1"), *published("t-2"), *published("t-3"), *published("t-4"))
    with disturbed(wiring.link, Trouble.DROP_CONFIRMS) as dropping:
        refusal = method(commands.Basic.Nack(2))
        await broker.say(*delivered("t-9", 1), ack(1), refusal)
        await client.hears(*delivered("t-9", 1), refusal)
        await client.say(ack(1))
        await broker.hears(ack(1))
        report = dropping.report()
        assert (report.frames, report.tasks) == (1, ("t-1",))
    # A later confirm of several does not make up for the one that was dropped.
    await broker.say(ack(4, multiple=True))
    await client.hears(ack(3), ack(4))


@wired
async def test_held_acknowledgements_arrive_at_the_end_and_in_their_order(wiring: Wiring) -> None:
    client, broker = await wiring.pair()
    await broker.say(*delivered("t-1", 1), *delivered("t-2", 2), *delivered("t-3", 1, 2))
    await client.hears(*delivered("t-1", 1), *delivered("t-2", 2), *delivered("t-3", 1, 2))
    with disturbed(wiring.link, Trouble.HOLD_ACKS) as holding:
        await client.say(ack(2, multiple=True), *published("t-4"), ack(1, channel=2))
        await broker.hears(*published("t-4"))
        await broker.hears_nothing()
        report = holding.report()
        assert (report.frames, report.gone, report.tasks) == (3, 0, ("t-1", "t-2", "t-3"))
    await broker.hears(ack(2, multiple=True), ack(1, channel=2))


@wired
async def test_what_is_held_for_a_channel_that_ends_never_arrives(wiring: Wiring) -> None:
    client, broker = await wiring.pair()
    await broker.say(*delivered("t-1", 1), *delivered("t-2", 1, 2))
    await client.hears(*delivered("t-1", 1), *delivered("t-2", 1, 2))
    close = method(commands.Channel.Close(200, "", 0, 0), 1)
    with disturbed(wiring.link, Trouble.HOLD_ACKS) as holding:
        await client.say(ack(1), ack(1, channel=2), close)
        await broker.hears(close)
        assert (holding.report().frames, holding.report().gone) == (2, 1)
    await broker.hears(ack(1, channel=2))


@wired
async def test_tasks_whose_acknowledgement_is_held_are_met_by_a_reset(wiring: Wiring) -> None:
    client, broker = await wiring.pair()
    await broker.say(*delivered("t-1", 1))
    await client.hears(*delivered("t-1", 1))
    with disturbed(wiring.link, Trouble.HOLD_ACKS) as holding:
        await client.say(ack(1))
        await client.say(ack(1)[:3])
        await broker.hears_nothing()
        with disturbed(wiring.link, Trouble.RESET) as reset:
            assert await broker.is_reset()
        assert reset.report().tasks == ("t-1",)
        assert holding.report().gone == 1


@wired
async def test_a_receiver_that_takes_nothing_lets_the_sender_wait(wiring: Wiring) -> None:
    client, broker = await wiring.pair()
    large = content("t-1", bytes(100_000))[1] * 200
    with disturbed(wiring.link, Trouble.HALF_OPEN) as cut:
        sending = asyncio.ensure_future(client.say(large))
        await asyncio.sleep(3600)
        assert not sending.done()
        assert cut.report().byte_count < 10_000_000
    await broker.hears(large)
    await sending
