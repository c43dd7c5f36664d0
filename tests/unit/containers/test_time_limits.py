"""An engine that stops answering is told of within seconds, also by everything that is still to be done then."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import cast

import docker
import pytest
import requests

from harness.containers import time_limits
from harness.containers.docker_engine import _DockerEngine, _explained, connect
from harness.errors import EngineError

BODY = b'{"ApiVersion": "1.41"}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(BODY), BODY)


class FakeEngine:
    """Answers every request in the same way, and while it is `silent` none."""

    def __init__(self) -> None:
        """Listen on loopback."""
        self.silent = Event()
        self.requests = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self._held: list[socket.socket] = []
        self.url = "tcp://{}:{}".format(*self._server.getsockname())
        Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            self.requests += 1
            if self.silent.is_set():
                self._held.append(client)
                continue
            with client:
                client.recv(65_536)
                client.sendall(ANSWER)

    def close(self) -> None:
        self._server.close()
        for client in self._held:
            client.close()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    fake = FakeEngine()
    monkeypatch.setenv("DOCKER_HOST", fake.url)
    for name in ("DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
    yield fake
    fake.close()


@pytest.fixture
def client(fake: FakeEngine) -> Iterator[docker.DockerClient]:
    assert fake.url
    engine = cast("_DockerEngine", connect())
    yield engine._client  # noqa: SLF001 - what an engine asks is asked here, one request at a time.
    engine.close()


@contextmanager
def within(least_s: float, most_s: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert least_s <= time.monotonic() - began < most_s


def test_what_only_looks_waits_no_longer_than_its_limit(
    fake: FakeEngine, client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_limits, "LOOK_S", 0.2)
    fake.silent.set()
    said = r"did not answer at looking: .* Is it still running\?"
    with within(0.2, 3), pytest.raises(EngineError, match=said), _explained("looking"):
        client.api.inspect_container("x")


def test_after_one_that_had_no_answer_nothing_is_waited_for_as_long(
    fake: FakeEngine, client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_limits, "SILENT_S", 0.1)
    client.api.timeout = 1
    fake.silent.set()
    with within(1, 5), pytest.raises(requests.Timeout):
        client.api.remove_container("x")
    with within(0.3, 3):
        for _ in range(3):
            with pytest.raises(requests.Timeout):
                client.api.remove_container("x")
    fake.silent.clear()
    client.api.remove_container("x")
    fake.silent.set()
    # The control: it has answered since, and is given its time again.
    with within(1, 5), pytest.raises(requests.Timeout):
        client.api.remove_container("x")


def test_a_request_without_a_limit_of_its_own_has_one(
    fake: FakeEngine, client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_limits, "LONGEST_S", 0.2)
    fake.silent.set()
    with within(0.2, 3), pytest.raises(requests.Timeout):
        client.api.post(f"{client.api.base_url}/images/create", timeout=None)


def test_an_engine_that_answers_is_asked_as_before(fake: FakeEngine, client: docker.DockerClient) -> None:
    assert client.api.inspect_container("x") == {"ApiVersion": "1.41"}
    assert fake.requests >= 2
