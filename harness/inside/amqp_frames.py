"""The frames of AMQP 0-9-1 in a stream of bytes, and which tasks they are about.

Only what is asked for is decoded. Most frames are known by their first bytes.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import takewhile

from pamqp import commands, frame, header
from pamqp.exceptions import PAMQPException

from harness.records.link import Way

_HEAD = struct.Struct(">BHI")
"""Kind, channel and size of a frame."""
_METHOD = struct.Struct(">HH")
_END = 0xCE
_METHOD_FRAME, _HEADER_FRAME = 1, 2
_KINDS = frozenset({1, 2, 3, 8})
_GREETING = b"AMQP"
_GREETING_BYTES = 8
_REMEMBERED = 4096
"""The most deliveries of one channel whose tasks are remembered: those to a consumer that acknowledges nothing would
fill the memory."""

_CONNECTION_CLOSE = (10, 50)
_CHANNEL_ENDS = {(20, 40), (20, 41)}
_CHANNEL_OPEN = (20, 10)
_CONFIRM_SELECT = (85, 10)
_PUBLISH = (60, 40)
_DELIVERIES = {(60, 60), (60, 71)}
_ACK = (60, 80)
_REFUSALS = {(60, 90), (60, 120)}
_OF_DELIVERIES = (commands.Basic.Ack, commands.Basic.Nack, commands.Basic.Reject)


class Frames:
    """Cuts a stream into whole frames. A stream that is not AMQP passes as it comes."""

    def __init__(self) -> None:
        """Begin with an empty stream."""
        self._rest = b""
        self._has_begun = False
        self._is_foreign = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the frames that are complete now."""
        if self._is_foreign:
            return [data]
        data = self._rest + data if self._rest else data
        found, at, end = list[bytes](), 0, len(data)
        if not self._has_begun:
            if data[:4] == _GREETING[:end]:
                if end < _GREETING_BYTES:
                    self._rest = data
                    return []
                found.append(data[:_GREETING_BYTES])
                at = _GREETING_BYTES
            self._has_begun = True
        while end - at >= _HEAD.size:
            kind, _, size = _HEAD.unpack_from(data, at)
            until = at + _HEAD.size + size + 1
            if kind not in _KINDS or (until <= end and data[until - 1] != _END):
                self._is_foreign, self._rest = True, b""
                return [*found, data[at:]]
            if until > end:
                break
            found.append(data[at:until])
            at = until
        self._rest = data[at:]
        return found

    def rest(self) -> bytes:
        """Return the beginning of a frame that is not complete, and forget it."""
        rest, self._rest = self._rest, b""
        return rest


@dataclass(frozen=True, slots=True)
class Settled:
    """An acknowledgement: of a consumer to the broker, or the broker's confirm."""

    channel: int
    tags: tuple[int, ...]
    """The delivery tags that it covers; it may be one that nobody knows."""
    messages: tuple[bytes, ...]
    """The content headers of the messages, as far as they are known."""
    is_multiple: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """A channel or the connection ends."""

    channel: int | None
    """None for the connection."""


@dataclass(slots=True)
class _Channel:
    """The messages that are open on a channel. The keys are delivery tags, in rising order."""

    confirms: bool = False
    published: int = 0
    unconfirmed: dict[int, bytes] = field(default_factory=dict)
    delivered: int | None = None
    """The tag of a delivery whose content header comes next."""
    unacknowledged: dict[int, bytes] = field(default_factory=dict)


class Conversation:
    """Follows both directions of one connection."""

    def __init__(self) -> None:
        """Begin before the first frame."""
        self._channels: dict[int, _Channel] = {}

    @property
    def open_messages(self) -> list[bytes]:
        """The content headers of the messages that are neither confirmed nor acknowledged."""
        return [
            one
            for channel in self._channels.values()
            for open_ones in (channel.unconfirmed, channel.unacknowledged)
            for one in open_ones.values()
            if one
        ]

    def follow(self, way: Way, data: bytes) -> Settled | Ended | None:
        """Take note of a frame, and return it if it is an acknowledgement or an end."""
        if len(data) < _HEAD.size or data[0] not in {_METHOD_FRAME, _HEADER_FRAME} or data[-1] != _END:
            return None
        _, number, _ = _HEAD.unpack_from(data)
        if data[0] == _METHOD_FRAME:
            return self._method(way, number, data)
        self._header(self._channel(number), way, data)
        return None

    def _method(self, way: Way, number: int, data: bytes) -> Settled | Ended | None:
        method: tuple[int, int] = _METHOD.unpack_from(data, _HEAD.size)
        if method in _CHANNEL_ENDS or method == _CHANNEL_OPEN:
            self._channels.pop(number, None)
            return Ended(number)
        if method == _CONNECTION_CLOSE:
            return Ended(None)
        if method == _ACK or method in _REFUSALS:
            said = _decoded(data)
            settled = _settled(self._channel(number), number, way, said) if isinstance(said, _OF_DELIVERIES) else None
            return settled if method == _ACK else None
        _begun(self._channel(number), way, method, data)
        return None

    def _channel(self, number: int) -> _Channel:
        return self._channels.setdefault(number, _Channel())

    @staticmethod
    def _header(channel: _Channel, way: Way, data: bytes) -> None:
        if way is Way.TO_BROKER:
            if channel.confirms and channel.published in channel.unconfirmed:
                channel.unconfirmed[channel.published] = data
        elif channel.delivered is not None:
            channel.unacknowledged[channel.delivered] = data
            channel.delivered = None
            if len(channel.unacknowledged) > _REMEMBERED:
                del channel.unacknowledged[next(iter(channel.unacknowledged))]


def is_header(data: bytes) -> bool:
    """Return whether a frame is a content header: each message has one."""
    return data[:1] == b"\x02"


def ack_of(channel: int, tag: int) -> bytes:
    """Return the frame of an acknowledgement of one message."""
    return frame.marshal(commands.Basic.Ack(delivery_tag=tag), channel)


def task_of(data: bytes) -> str | None:
    """Return the id of the task in a content header; None if the message is of no task."""
    content = _decoded(data)
    headers = content.properties.headers if isinstance(content, header.ContentHeader) else None
    task = headers.get("id") if isinstance(headers, Mapping) else None
    return task if isinstance(task, str) else None


def _decoded(data: bytes) -> frame.FrameTypes | None:
    """Return what a frame says; None if it is damaged, which is for its receiver to say."""
    try:
        return frame.unmarshal(data)[2]
    except (PAMQPException, struct.error, ValueError, IndexError):
        return None


def _begun(channel: _Channel, way: Way, method: tuple[int, int], data: bytes) -> None:
    """Take note of what begins with a method."""
    if way is Way.TO_BROKER:
        if method == _CONFIRM_SELECT:
            channel.confirms = True
        elif method == _PUBLISH and channel.confirms:
            channel.published += 1
            channel.unconfirmed[channel.published] = b""
    elif method in _DELIVERIES:
        delivery = _decoded(data)
        if isinstance(delivery, commands.Basic.Deliver | commands.Basic.GetOk):
            channel.delivered = delivery.delivery_tag


def _settled(
    channel: _Channel, number: int, way: Way, said: commands.Basic.Ack | commands.Basic.Nack | commands.Basic.Reject
) -> Settled:
    """Return what an acknowledgement or a refusal covers; it is open no more."""
    tag = said.delivery_tag or 0
    is_multiple = bool(getattr(said, "multiple", False))
    open_ones = channel.unacknowledged if way is Way.TO_BROKER else channel.unconfirmed
    # With 0, all are meant.
    tags = tuple(takewhile(lambda one: not tag or one <= tag, open_ones)) if is_multiple else (tag,)
    messages = [open_ones.pop(one, b"") for one in tags]
    return Settled(
        channel=number,
        tags=tags or (tag,),
        messages=tuple(one for one in messages if one),
        is_multiple=is_multiple,
    )
