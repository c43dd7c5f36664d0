"""The servers that are kept between tests for pytest-celery: which one a test gets, and that it is empty."""

import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from harness.celery_setup.servers import REDIS_PORT, KeptServers
from harness.containers.node import Node
from harness.project.needs import Mount
from tests.fakes.container import FakeEngine

if TYPE_CHECKING:
    from harness.stack.shared_parts import SharedParts

COMMAND = ["redis-server", "--save", ""]


class Redis(socketserver.ThreadingTCPServer):
    """Answers what the port of a Redis answers."""

    daemon_threads = True
    is_locked = False
    settings = b"*2\r\n$9\r\nmaxmemory\r\n$1\r\n0\r\n"

    def __init__(self) -> None:
        """Listen on a free port."""
        self.commands: list[str] = []
        super().__init__(("127.0.0.1", 0), _Answer)


class _Answer(socketserver.StreamRequestHandler):
    server: Redis

    def handle(self) -> None:
        while (command := self.rfile.readline().decode().strip()) and command != "QUIT":
            self.server.commands.append(command)
            self.wfile.write(self._answer(command))

    def _answer(self, command: str) -> bytes:
        if self.server.is_locked:
            return b"-NOAUTH Authentication required.\r\n"
        return {"PING": b"+PONG\r\n", "FLUSHALL": b"+OK\r\n"}.get(command, self.server.settings)


@pytest.fixture
def redis() -> Iterator[Redis]:
    with Redis() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def engine(redis: Redis) -> FakeEngine:
    return FakeEngine(ports={REDIS_PORT: redis.server_address[1]})


@pytest.fixture
def kept(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> KeptServers:
    monkeypatch.setattr("harness.containers.images.ensure", lambda *_, **__: "redis:ours")
    return KeptServers(cast("SharedParts", SimpleNamespace(engine=engine, network="fake", say=None)))


def test_the_next_test_gets_the_same_redis_and_its_keys_are_deleted(
    kept: KeptServers, engine: FakeEngine, redis: Redis
) -> None:
    first = kept.redis(COMMAND, [], taken=["broker"])
    assert kept.redis(list(COMMAND), [], taken=["broker"]) is first
    assert redis.commands == ["PING", "CONFIG GET *", "FLUSHALL", "CONFIG GET *"]
    assert [spec.name for spec in engine.ran] == ["redis-1"]
    assert engine.ran[0].command[-2:] == ("--protected-mode", "no")


def test_a_second_redis_of_a_test_and_one_with_another_command_or_other_files_are_servers_of_their_own(
    kept: KeptServers, engine: FakeEngine, tmp_path: Path
) -> None:
    first = kept.redis(COMMAND, [], taken=[])
    asked = (
        kept.redis(COMMAND, [], taken=[first.name]),
        kept.redis([*COMMAND, "--protected-mode", "no"], [], taken=[]),
        kept.redis(COMMAND, [Mount(host=tmp_path, inside="/redis.conf")], taken=[]),
    )
    assert [server.name for server in asked] == ["redis-2", "redis-3", "redis-4"]
    assert engine.ran[2].command == (*COMMAND, "--protected-mode", "no")


def kill(redis: Node, _: Redis) -> None:
    redis.kill()


def lock(_: Node, answers: Redis) -> None:
    answers.is_locked = True


def limit(_: Node, answers: Redis) -> None:
    answers.settings = answers.settings.replace(b"0", b"9")


@pytest.mark.parametrize("spoil", [kill, lock, limit])
def test_a_redis_that_a_test_has_killed_or_set_otherwise_is_started_anew(
    kept: KeptServers, engine: FakeEngine, redis: Redis, spoil: Callable[[Node, Redis], None]
) -> None:
    first = kept.redis(COMMAND, [], taken=[])
    spoil(first, redis)
    again = kept.redis(COMMAND, [], taken=[])
    assert again is first
    assert again.is_up()
    assert [spec.name for spec in engine.ran] == ["redis-1", "redis-1"]


def test_all_are_removed_at_the_end(kept: KeptServers, engine: FakeEngine) -> None:
    kept.redis(COMMAND, [], taken=[])
    kept.close()
    assert [str(container.state()) for container in engine.started] == ["gone"]
