"""What is said where Docker does not answer, or is busy. No engine is asked."""

import gc
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker
import pytest
import requests
from docker.context import ContextAPI
from docker.errors import APIError

from harness.containers.docker_engine import _remove_container, connect
from harness.errors import EngineError


@pytest.mark.parametrize(
    ("host", "advice"),
    [
        ("unix:///nowhere/docker.sock", "started"),
        ("tcp://127.0.0.1:1", "Nobody listens there"),
    ],
)
def test_without_an_engine_one_paragraph_says_where_it_was_sought_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, host: str, advice: str
) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    with pytest.raises(EngineError) as caught:
        connect()
    message = str(caught.value)
    assert f"{host} (from DOCKER_HOST)" in message
    assert advice in message
    assert "\n" not in message
    assert caught.value.__suppress_context__
    del caught
    # A socket that nobody closed is told of now, as an error.
    gc.collect()


@pytest.fixture
def short_path(tmp_path: Path) -> Iterator[str]:
    """Give a short path of the test's folder.

    The path of a socket has at most 107 bytes, and that of a temporary folder may have more.
    """
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        yield f"/proc/self/fd/{folder}"
    finally:
        os.close(folder)


def test_a_socket_that_nobody_listens_at_is_told_as_it_was_seen_whatever_named_it(
    monkeypatch: pytest.MonkeyPatch, short_path: str
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{short_path}/none")
    with pytest.raises(EngineError, match=re.escape("('Connection aborted.', FileNotFoundError(2, ")):
        connect()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"{short_path}/docker.sock")
        context = SimpleNamespace(Host=f"unix://{short_path}/docker.sock", Name="elsewhere", TLSConfig=None)
        monkeypatch.delenv("DOCKER_HOST")
        monkeypatch.setattr(ContextAPI, "get_context", lambda _: context)
        said = r"docker\.sock \(Docker context 'elsewhere'; .*ConnectionRefusedError\(.*Nobody listens there"
        with pytest.raises(EngineError, match=said):
            connect()
    # A socket that nobody closed is told of now, as an error.
    gc.collect()


def test_an_engine_that_accepts_and_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.containers.docker_engine._PROBE_TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{mute.getsockname()[1]}")
        with pytest.raises(EngineError, match="said nothing"):
            connect()


class BusyApi(docker.APIClient):
    """An engine in which somebody else is removing everything, and never gets done."""

    def remove_container(self, *_: Any, **__: Any) -> None:
        answer = requests.Response()
        answer.status_code = requests.codes.conflict
        raise APIError("removal is already in progress", answer)

    def inspect_container(self, *_: Any, **__: Any) -> dict[str, Any]:
        return {}


def test_a_container_whose_removal_by_another_process_does_not_end_is_an_engine_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("harness.containers.docker_engine._REMOVAL_TIMEOUT_S", 0)
    with pytest.raises(EngineError, match="Another process is removing the container stuck"):
        _remove_container(BusyApi(version="1.41"), "stuck")
