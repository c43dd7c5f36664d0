"""The link: forwards TCP connections to the broker, and disturbs them on demand.

Each client has a port of its own, so that it is known whose a connection is. Without a disturbance, the bytes pass as
they come. `harness.inside.link_control` runs it in a container. The file is long because the disturbances share the
state of the two directions that they disturb.
"""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import cast

from harness.inside.amqp_frames import Conversation, Ended, Frames, Settled, ack_of, is_header, task_of
from harness.records.link import Disturbance, Report, Trouble, Way

BACKLOG = 1024
"""The number of connections that the kernel queues until they are accepted."""
_MOST_QUEUED = 1 << 22
"""The bytes in one direction from which nothing more is read from the sender."""
_STEP_S = 0.05
"""The longest time, in seconds, that the bytes of one write take at a limited bandwidth."""
_RESETTING = struct.pack("ii", 1, 0)
"""SO_LINGER with no time left: closing resets the connection."""


@dataclass(eq=False)
class Disturbed:
    """A disturbance, and what it has met."""

    what: Disturbance
    connections: int = 0
    byte_count: int = 0
    passed: int = 0
    frames: int = 0
    gone: int = 0
    tasks: dict[str, None] = field(default_factory=dict)
    free_at: dict[tuple[str, Way], float] = field(default_factory=dict)
    """For BANDWIDTH: when the next byte may pass, by client and direction."""
    untold: list["Connection"] = field(default_factory=list)
    """For RESET of one side: the connections whose other side is still open."""

    def meets(self, client: str, way: Way | None = None) -> bool:
        """Return whether it is for this client, and for this direction."""
        return self.what.client in {None, client} and (way is None or self.what.way in {None, way})

    def note(self, messages: Iterator[bytes] | tuple[bytes, ...] | list[bytes]) -> None:
        """Take note of the tasks of these messages, given by their content headers."""
        for one in messages:
            task = task_of(one)
            if task is not None:
                self.tasks[task] = None

    def report(self) -> Report:
        """Return what it has done until now."""
        return Report(
            connections=self.connections,
            byte_count=self.byte_count,
            passed=self.passed,
            frames=self.frames,
            gone=self.gone,
            tasks=tuple(self.tasks),
        )


class Link:
    """Listens for clients, and connects each connection of theirs to the broker."""

    def __init__(self, host: str, port: int) -> None:
        """Prepare to forward to a broker."""
        self.broker = (host, port)
        self.connections: set[Connection] = set()
        self.disturbances: list[Disturbed] = []
        self._servers: dict[str, asyncio.Server] = {}

    async def listen(self, client: str, *, host: str, port: int = 0) -> int:
        """Listen for a client, and return the port: a free one for 0. A second time, it is the port of the first.

        Raises:
            OSError: the port is taken.
        """
        if client not in self._servers:
            loop = asyncio.get_running_loop()
            self._servers[client] = await loop.create_server(
                lambda: Connection(self, client).client, host, port, backlog=BACKLOG
            )
        return int(self._servers[client].sockets[0].getsockname()[1])

    @property
    def clients(self) -> list[str]:
        """The clients that it listens for."""
        return list(self._servers)

    def begin(self, what: Disturbance) -> Disturbed:
        """Begin a disturbance."""
        begun = Disturbed(what)
        self.disturbances.append(begun)
        for connection in list(self.connections):
            if begun.meets(connection.name):
                connection.met(begun)
        self._changed()
        return begun

    def end(self, disturbed: Disturbed) -> None:
        """End a disturbance. A second time does nothing."""
        with suppress(ValueError):
            self.disturbances.remove(disturbed)
            for connection in disturbed.untold:
                connection.reset()
            self._changed()

    def close(self) -> None:
        """Listen no more, and reset what is open."""
        for server in self._servers.values():
            server.close()
        for connection in list(self.connections):
            connection.reset()

    def _changed(self) -> None:
        for connection in list(self.connections):
            connection.obey()


class Connection:
    """One connection of a client, and the one to the broker that belongs to it."""

    def __init__(self, link: Link, name: str) -> None:
        """Create it before the client is connected. `name` is the client's."""
        self.name = name
        self.conversation = Conversation()
        self._link = link
        self.client, self.broker = _End(self), _End(self)
        self._flows = (
            _Flow(self, Way.TO_BROKER, source=self.client, sink=self.broker),
            _Flow(self, Way.TO_CLIENT, source=self.broker, sink=self.client),
        )
        self.client.bind(self._flows[0], self._flows[1])
        self.broker.bind(self._flows[1], self._flows[0])
        self._connecting: asyncio.Task[None] | None = None
        self._is_torn = False
        """True if one side was reset, and the other is not to know."""

    def opened(self) -> None:
        """Take note that the client is connected."""
        self._link.connections.add(self)
        for one in self._link.disturbances:
            if one.meets(self.name) and (one.what.trouble is not Trouble.RESET or one.what.new_too):
                self.met(one)
        self.obey()

    def met(self, disturbed: Disturbed) -> None:
        """Take note that a disturbance has begun, or that this connection was opened during one."""
        disturbed.connections += 1
        if disturbed.what.trouble in {Trouble.RESET, Trouble.HALF_OPEN}:
            disturbed.note(self.conversation.open_messages)
            disturbed.note(self._flows[0].held_messages)
        if disturbed.what.trouble is Trouble.RESET:
            if disturbed.what.way is not None:
                self._is_torn = True
                disturbed.untold.append(self)
            self.reset(disturbed.what.way)

    def obey(self) -> None:
        """Do what the disturbances of this moment demand."""
        if self not in self._link.connections:
            return
        mine = [one for one in self._link.disturbances if one.meets(self.name)]
        # The handshake of TCP needs both directions.
        is_cut = any(one.what.trouble is Trouble.HALF_OPEN for one in mine)
        if self._connecting is None and not is_cut and not self.client.is_gone:
            self._connecting = asyncio.create_task(self._connect())
        for flow in self._flows:
            rules = tuple(one for one in mine if one.meets(self.name, flow.way))
            flow.obey(
                rules, open_in=[one for one in mine if one not in rules and one.what.trouble is Trouble.HALF_OPEN]
            )

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: self.broker, *self._link.broker)
        except OSError:
            # A client that connects to a broker that is not there is refused.
            self.reset()
            return
        self._flows[0].advance()

    def forget(self, channel: int | None) -> None:
        """Forget a channel that ends; None for all of them."""
        for flow in self._flows:
            flow.forget(channel)

    def reset(self, way: Way | None = None) -> None:
        """Reset the side that a direction leads to, or both. What is on its way is gone."""
        if self._connecting is not None:
            self._connecting.cancel()
        for flow in self._flows:
            flow.abandon()
            if way in {None, flow.way}:
                flow.sink.reset()
        self._link.connections.discard(self)

    def close_if_over(self) -> None:
        """Close both sides once nothing more can pass, unless one of them is not to know."""
        if all(flow.is_over for flow in self._flows) and not self._is_torn:
            for end in (self.client, self.broker):
                end.close()
            self._link.connections.discard(self)


class _End(asyncio.Protocol):
    """One side of a connection: a socket."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._transport: asyncio.Transport | None = None
        self._is_full = False
        self.is_gone = False

    def bind(self, sends: "_Flow", gets: "_Flow") -> None:
        """Say which flow begins here, and which ends here."""
        self._sends, self._gets = sends, gets

    @property
    def takes(self) -> bool:
        """True if bytes can be written now."""
        return self._transport is not None and not self._is_full

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take note of the socket."""
        self._transport = cast("asyncio.Transport", transport)
        if self is self._connection.client:
            self._connection.opened()

    def data_received(self, data: bytes) -> None:
        """Pass the bytes on."""
        self._sends.receive(data)

    def eof_received(self) -> bool:
        """Pass the end on. The other direction stays open."""
        self._sends.finish()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        """Pass it on: as a reset if it was one."""
        self.is_gone = True
        self._gets.abandon()
        self._sends.finish(is_reset=error is not None)
        self._connection.close_if_over()

    def pause_writing(self) -> None:
        """Write no more: the receiver is slow."""
        self._is_full = True

    def resume_writing(self) -> None:
        """Write again."""
        self._is_full = False
        self._gets.advance()

    def write(self, data: bytes) -> None:
        """Send bytes, unless the socket is closed."""
        if self._transport is not None and not self.is_gone:
            self._transport.write(data)

    def write_eof(self) -> None:
        """Send the end, unless the socket is closed."""
        if self._transport is not None and not self.is_gone and not self._transport.is_closing():
            self._transport.write_eof()

    def read(self, *, is_wanted: bool) -> None:
        """Read on, or let the sender wait."""
        if self._transport is None or self._transport.is_closing():
            return
        if not is_wanted:
            self._transport.pause_reading()
        elif not self._transport.is_reading():
            self._transport.resume_reading()

    def close(self) -> None:
        """Close it after what was written."""
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        """Reset it."""
        self.is_gone = True
        if self._transport is not None:
            with suppress(OSError):
                handle: socket.socket = self._transport.get_extra_info("socket")
                handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESETTING)
            self._transport.abort()


@dataclass
class _Piece:
    """Bytes on their way."""

    data: bytes
    due_s: float
    """When they may arrive, by the loop's clock."""
    late: tuple[Disturbed, ...] = ()
    """What delays them."""
    waited: bool = False
    """True once the bandwidth has made them wait."""


class _Flow:
    """One direction of a connection."""

    def __init__(self, connection: Connection, way: Way, *, source: _End, sink: _End) -> None:
        self.way = way
        self._connection = connection
        self._source, self.sink = source, sink
        self._frames = Frames()
        self._queue: deque[_Piece] = deque()
        self._queued = 0
        self._rules: tuple[Disturbed, ...] = ()
        self._open_in: Sequence[Disturbed] = ()
        self._held: list[tuple[Settled, bytes]] = []
        """Acknowledgements that are held, with their frames."""
        self._has_dropped: set[int] = set()
        """The channels on which a confirm was dropped."""
        self._timer: asyncio.TimerHandle | None = None
        self._ends = False
        self._ends_by_reset = False
        self.is_over = False
        """True once its end has arrived, or nothing can arrive any more."""

    @property
    def held_messages(self) -> list[bytes]:
        """The content headers of the messages whose acknowledgement is held."""
        return [one for settled, _ in self._held for one in settled.messages]

    def _of(self, trouble: Trouble) -> list[Disturbed]:
        return [one for one in self._rules if one.what.trouble is trouble]

    # ------------------------------------------------------------------------------------------------ what comes in

    def receive(self, data: bytes) -> None:
        """Take bytes from the source."""
        if self.is_over:
            return
        frames = self._frames.feed(data)
        self._push(b"".join([self._passed(one) for one in frames]))

    def _passed(self, data: bytes) -> bytes:
        """Return what passes of a frame: all of it, or nothing."""
        met = self._connection.conversation.follow(self.way, data)
        if isinstance(met, Ended):
            # In whatever direction it is said, it is about both.
            self._connection.forget(met.channel)
        if not isinstance(met, Settled):
            if self._rules and is_header(data):
                self._note((data,))
            return data
        if self._rules:
            self._note(met.messages)
            taking = Trouble.DROP_CONFIRMS if self.way is Way.TO_CLIENT else Trouble.HOLD_ACKS
            if by := self._of(taking):
                for one in by:
                    one.frames += len(met.tags)
                    one.note(met.messages)
                if taking is Trouble.HOLD_ACKS:
                    self._held.append((met, data))
                else:
                    self._has_dropped.add(met.channel)
                return b""
        if met.is_multiple and met.channel in self._has_dropped:
            # It would confirm what was dropped before.
            return b"".join(ack_of(met.channel, tag) for tag in met.tags)
        return data

    def _note(self, messages: tuple[bytes, ...]) -> None:
        for one in self._rules:
            if one.what.trouble in {Trouble.LATENCY, Trouble.BANDWIDTH, Trouble.HALF_OPEN}:
                one.note(messages)

    def forget(self, channel: int | None) -> None:
        """Forget a channel that ends, or all of them: the broker would refuse what is held."""
        self.forget_held(channel)
        self._has_dropped -= self._has_dropped if channel is None else {channel}

    def forget_held(self, channel: int | None) -> None:
        """Drop the acknowledgements of a channel, or of all."""
        gone = [one for one in self._held if channel in {None, one[0].channel}]
        self._held = [one for one in self._held if one not in gone]
        for rule in self._of(Trouble.HOLD_ACKS):
            rule.gone += sum(len(settled.tags) for settled, _ in gone)

    def finish(self, *, is_reset: bool = False) -> None:
        """Take the end from the source."""
        self._ends_by_reset |= is_reset
        if not self._ends and not self.is_over:
            # Nobody is there any more whose acknowledgements they could be.
            self.forget_held(None)
            self._push(self._frames.rest())
            self._ends = True
        self.advance()

    def _push(self, data: bytes) -> None:
        if not data:
            return
        if not self._of(Trouble.HALF_OPEN):
            for one in self._open_in:
                one.passed += len(data)
        if not self._rules and not self._queue and self.sink.takes:
            self.sink.write(data)
            return
        for one in self._of(Trouble.HALF_OPEN):
            one.byte_count += len(data)
        late = tuple(self._of(Trouble.LATENCY))
        due_s = asyncio.get_running_loop().time() + sum(one.what.amount for one in late)
        self._queue.append(_Piece(data, due_s, late))
        self._queued += len(data)
        self.advance()

    # ------------------------------------------------------------------------------------------------ what goes out

    def obey(self, rules: tuple[Disturbed, ...], *, open_in: Sequence[Disturbed] = ()) -> None:
        """Obey these disturbances from now on, and count what passes for others of the other direction alone."""
        self._rules = rules
        self._open_in = open_in
        if self._held and not self._of(Trouble.HOLD_ACKS):
            held, self._held = self._held, []
            self._push(b"".join(data for _, data in held))
        self.advance()

    def advance(self) -> None:
        """Write what may arrive now, and wait for the rest."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        loop = asyncio.get_running_loop()
        while self._queue and self.sink.takes and not self._of(Trouble.HALF_OPEN):
            wait_s = self._wait_s(self._queue[0], loop.time())
            if wait_s > 0:
                self._timer = loop.call_later(wait_s, self.advance)
                break
            self._write_some(self._queue[0], loop.time())
        # What was sent comes before the end, which no disturbance but a cut holds up.
        can_end = not self._queue and (self.sink.takes or self._ends_by_reset) and not self._of(Trouble.HALF_OPEN)
        if self._ends and not self.is_over and can_end:
            self._arrive()
        else:
            self._source.read(is_wanted=self._queued <= _MOST_QUEUED)

    def _wait_s(self, piece: _Piece, now_s: float) -> float:
        """Return how long a piece has to wait, in seconds; 0 if it may arrive."""
        if piece.due_s > now_s and self._of(Trouble.LATENCY):
            return piece.due_s - now_s
        key = (self._connection.name, self.way)
        free_s = max((one.free_at.get(key, 0.0) for one in self._of(Trouble.BANDWIDTH)), default=0.0)
        piece.waited |= free_s > now_s
        return free_s - now_s

    def _write_some(self, piece: _Piece, now_s: float) -> None:
        """Write a piece, or as much of it as one step of the bandwidth allows."""
        limits = self._of(Trouble.BANDWIDTH)
        count = min([len(piece.data), *(max(1, int(one.what.amount * _STEP_S)) for one in limits)])
        for one in limits:
            one.free_at[self._connection.name, self.way] = now_s + count / one.what.amount
            one.byte_count += count if piece.waited else 0
        if piece.due_s <= now_s:
            for one in piece.late:
                one.byte_count += count
        self.sink.write(piece.data[:count])
        self._queued -= count
        piece.data, piece.waited = piece.data[count:], True
        if not piece.data:
            self._queue.popleft()

    def _arrive(self) -> None:
        """Let the end arrive."""
        self.is_over = True
        if self._ends_by_reset:
            self._connection.reset()
            return
        self.sink.write_eof()
        self._connection.close_if_over()

    def abandon(self) -> None:
        """Drop what is on its way: nobody takes it any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.forget_held(None)
        self._queue.clear()
        self._queued = 0
        self.is_over = True
