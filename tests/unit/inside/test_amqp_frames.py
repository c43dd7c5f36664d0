"""Frames are found wherever the stream is cut, and each is known to be about its tasks."""

from typing import TYPE_CHECKING

import pytest
from pamqp import body, commands, frame, header, heartbeat
from pamqp.base import Frame

from harness.inside.amqp_frames import Conversation, Ended, Frames, Settled, ack_of, is_header, task_of
from harness.records.link import Way

if TYPE_CHECKING:
    from pamqp.common import FieldTable

GREETING = b"AMQP\x00\x00\x09\x01"
TO_BROKER, TO_CLIENT = Way.TO_BROKER, Way.TO_CLIENT


def method(command: Frame, channel: int = 1) -> bytes:
    return frame.marshal(command, channel)


def content(task: str | None, text: bytes = b"[]", channel: int = 1) -> list[bytes]:
    """Return the header and the body of a message, as Celery sends it."""
    headers: FieldTable = {} if task is None else {"id": task, "task": "shop.pay"}
    properties = commands.Basic.Properties(headers=headers, correlation_id=task)
    head = header.ContentHeader(0, len(text), properties)
    return [frame.marshal(head, channel), frame.marshal(body.ContentBody(text), channel)]


def published(task: str | None, channel: int = 1) -> list[bytes]:
    return [method(commands.Basic.Publish(routing_key="celery"), channel), *content(task, channel=channel)]


def delivered(task: str | None, tag: int, channel: int = 1) -> list[bytes]:
    deliver = commands.Basic.Deliver(consumer_tag="1", delivery_tag=tag, exchange="", routing_key="celery")
    return [method(deliver, channel), *content(task, channel=channel)]


def ack(tag: int, *, multiple: bool = False, channel: int = 1) -> bytes:
    return method(commands.Basic.Ack(delivery_tag=tag, multiple=multiple), channel)


STREAM = [
    GREETING,
    method(commands.Connection.Open("vhost"), 0),
    *published("t-1"),
    frame.marshal(heartbeat.Heartbeat(), 0),
    *content("t-2", b"\xce" * 300_000, 7),
    ack(1),
]


@pytest.mark.parametrize("size", [1, 2, 7, 8, 9, 1000, 10_000_000])
def test_frames_are_whole_wherever_the_stream_is_cut(size: int) -> None:
    stream, frames, found = b"".join(STREAM), Frames(), list[bytes]()
    if size < 7:
        stream = stream[:2000]
    for at in range(0, len(stream), size):
        found += frames.feed(stream[at : at + size])
    expected, length = list[bytes](), 0
    for one in STREAM:
        length += len(one)
        if length <= len(stream):
            expected.append(one)
    assert found == expected
    assert b"".join(found) + frames.rest() == stream


def test_what_is_not_amqp_passes_as_it_comes() -> None:
    frames = Frames()
    assert frames.feed(b"\x16\x03\x01\x02\x00\x01") == []
    assert b"".join(frames.feed(b"\x00hello")) == b"\x16\x03\x01\x02\x00\x01\x00hello"
    assert frames.feed(b"\x01") == [b"\x01"]


def test_a_frame_that_does_not_end_as_one_is_not_held_up() -> None:
    damaged = ack(1)[:-1] + b"\x00"
    frames = Frames()
    assert frames.feed(ack(7) + damaged) == [ack(7), damaged]


def follow(conversation: Conversation, way: Way, *frames: bytes) -> list[Settled | Ended]:
    return [met for one in frames if (met := conversation.follow(way, one)) is not None]


def tasks(messages: list[bytes] | tuple[bytes, ...]) -> list[str | None]:
    return [task_of(one) for one in messages]


def test_a_confirm_is_about_the_messages_that_were_published_in_confirm_mode() -> None:
    talk = Conversation()
    follow(talk, TO_BROKER, method(commands.Confirm.Select(), 1))
    follow(talk, TO_BROKER, *published("t-1"), *published("other", 2), *published("t-2"), *published("t-3"))
    assert tasks(talk.open_messages) == ["t-1", "t-2", "t-3"]
    (one,) = follow(talk, TO_CLIENT, ack(1))
    (rest,) = follow(talk, TO_CLIENT, ack(3, multiple=True))
    assert isinstance(one, Settled)
    assert isinstance(rest, Settled)
    assert (one.channel, one.tags, one.is_multiple, tasks(one.messages)) == (1, (1,), False, ["t-1"])
    assert (rest.tags, rest.is_multiple, tasks(rest.messages)) == ((2, 3), True, ["t-2", "t-3"])
    assert talk.open_messages == []


def test_a_message_that_the_broker_refuses_or_returns_is_not_confirmed() -> None:
    talk = Conversation()
    follow(talk, TO_BROKER, method(commands.Confirm.Select(), 1), *published("t-1"), *published("t-2"))
    returned = method(commands.Basic.Return(312, "NO_ROUTE", "", "celery"))
    assert follow(talk, TO_CLIENT, method(commands.Basic.Nack(1)), returned, *content("t-2")) == []
    assert tasks(talk.open_messages) == ["t-2"]


def test_an_acknowledgement_is_about_what_was_delivered() -> None:
    talk = Conversation()
    follow(talk, TO_CLIENT, *delivered("t-1", 1), *delivered(None, 2), *delivered("t-3", 3), *delivered("x", 1, 2))
    (one,) = follow(talk, TO_BROKER, ack(3))
    assert isinstance(one, Settled)
    assert (one.tags, tasks(one.messages)) == ((3,), ["t-3"])
    assert follow(talk, TO_BROKER, method(commands.Basic.Reject(2, requeue=True))) == []
    assert tasks(talk.open_messages) == ["t-1", "x"]
    (every,) = follow(talk, TO_BROKER, ack(0, multiple=True))
    assert isinstance(every, Settled)
    assert (every.tags, tasks(every.messages)) == ((1,), ["t-1"])


def test_a_channel_that_ends_is_forgotten() -> None:
    talk = Conversation()
    follow(talk, TO_BROKER, method(commands.Confirm.Select(), 1), *published("t-1"))
    follow(talk, TO_CLIENT, *delivered("t-2", 1, 2))
    close = method(commands.Channel.Close(200, "", 0, 0), 1)
    assert follow(talk, TO_BROKER, close) == [Ended(1)]
    assert tasks(talk.open_messages) == ["t-2"]
    assert follow(talk, TO_CLIENT, method(commands.Connection.Close(320, "", 0, 0), 0)) == [Ended(None)]


def test_deliveries_that_nobody_acknowledges_do_not_fill_the_memory() -> None:
    talk = Conversation()
    for tag in range(1, 5001):
        follow(talk, TO_CLIENT, *delivered(None, tag))
    assert len(talk.open_messages) == 4096


def test_a_damaged_frame_is_of_no_task() -> None:
    head = content("t-1")[0]
    assert is_header(head)
    assert task_of(head) == "t-1"
    assert task_of(head[:40] + b"\xff" * (len(head) - 41) + b"\xce") is None
    talk = Conversation()
    assert talk.follow(TO_BROKER, b"\x01\x00\x01\x00\x00\x00\x04\x00\x3c\x00\x50\xce") is None
    assert talk.open_messages == []


def test_an_acknowledgement_that_the_link_writes_is_of_one_message() -> None:
    assert ack_of(3, 9) == ack(9, channel=3)
