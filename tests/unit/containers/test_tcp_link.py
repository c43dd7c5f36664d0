"""The orders that a link gets through its socket. Its program is the real one, in a thread; no broker is behind it."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from harness.containers.run_socket import address_of
from harness.containers.tcp_link import TcpLink, Wire
from harness.errors import ServiceError
from harness.inside.link_control import Control
from harness.inside.tcp_link import Link
from harness.records.link import SOCKET, Disturbance, Order, Trouble
from harness.wait import wait_until
from tests.fakes.container import fake_engine

BROKER_URL = "amqp://me:secret%2F@broker:5672/vhost"
LATENCY = Disturbance(trouble=Trouble.LATENCY, client="producer", amount=0.5)


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[Link]:
    """Yield a link that listens for orders in a long path."""
    folder = tmp_path / ("long" * 40)
    folder.mkdir()
    loop = asyncio.new_event_loop()
    link = Link("127.0.0.1", 9)

    async def begin() -> asyncio.Server:
        await link.listen("producer", host="127.0.0.1")
        control = Control(link, host="127.0.0.1")
        with address_of(folder, SOCKET) as address:
            return await asyncio.start_unix_server(control.converse, address)

    server = loop.run_until_complete(begin())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield link

    async def end() -> None:
        server.close()
        link.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0)

    asyncio.run_coroutine_threadsafe(end(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


@pytest.fixture
def node(inside: Link, tmp_path: Path) -> TcpLink:
    assert inside
    (folder,) = tmp_path.iterdir()
    return TcpLink(
        fake_engine(),
        image="image",
        run_folder=folder,
        network="network",
        host="link-1",
        broker_url=BROKER_URL,
        outside="producer",
    )


def lasting(inside: Link) -> list[Disturbance]:
    return [one.what for one in inside.disturbances]


def test_each_client_has_a_port_of_its_own(node: TcpLink) -> None:
    urls = [node.url_inside(name, BROKER_URL) for name in ("worker-1", "worker-2", "worker-1")]
    assert urls[0] == urls[2] != urls[1]
    before, _, port = urls[0].rpartition(":")
    assert before == "amqp://me:secret%2F@link-1"
    assert port.endswith("/vhost")
    assert node.clients == ["producer", "worker-1", "worker-2"]
    assert node.spec.env["HARNESS_LINK_BROKER"] == "broker:5672"


def test_a_disturbance_lasts_until_it_is_ended(node: TcpLink, inside: Link) -> None:
    disturbing = node.disturb(LATENCY)
    assert lasting(inside) == [LATENCY]
    assert disturbing.report() == disturbing.end() == disturbing.end() == disturbing.report()
    assert lasting(inside) == []


def test_a_link_that_goes_on_without_an_answer_is_an_error_each_time(node: TcpLink, inside: Link) -> None:
    disturbing = node.disturb(LATENCY)
    disturbing._wire.close()  # noqa: SLF001 - as if the link had closed it.
    for _ in range(2):
        with pytest.raises(ServiceError, match="the link does not answer"):
            disturbing.end()
    wait_until(lambda: not lasting(inside), what="the link notices", timeout_s=10)


def test_a_disturbance_does_not_outlive_who_began_it(node: TcpLink, inside: Link, tmp_path: Path) -> None:
    (folder,) = tmp_path.iterdir()
    with Wire(folder) as wire:
        wire.ask(Order(disturb=LATENCY))
        assert lasting(inside) == [LATENCY]
        with pytest.raises(ServiceError, match="has a disturbance already"):
            wire.ask(Order(disturb=LATENCY))
    wait_until(lambda: not lasting(inside), what="the link notices", timeout_s=10)
    assert node.disturb(LATENCY).end().connections == 0


def test_an_unknown_client_is_refused_with_those_that_there_are(node: TcpLink, inside: Link) -> None:
    with pytest.raises(ServiceError, match="worker-9 is no client: producer"):
        node.disturb(Disturbance(trouble=Trouble.RESET, client="worker-9"))
    assert lasting(inside) == []


def test_what_is_no_order_is_answered(inside: Link, tmp_path: Path) -> None:
    assert inside
    (folder,) = tmp_path.iterdir()
    with closing(Wire(folder)) as wire:
        for line in (b"[]\n", b"{\n", b'{"disturb": {"trouble": "earthquake"}}\n'):
            wire._socket.sendall(line)  # noqa: SLF001 - no caller can send such a line.
            assert b'"error": "' in wire._answers.readline()  # noqa: SLF001 - the same.
        assert wire.ask(Order()).error is None


def test_a_link_that_is_gone_is_an_error_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="the link does not take orders"):
        Wire(tmp_path)
