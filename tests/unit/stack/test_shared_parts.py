"""What a session does when something is wrong. The engine and the broker of these tests only keep a diary."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import pytest

from harness.containers.engine import PullError
from harness.errors import EngineError, ImageError
from harness.project.needs import Network
from harness.stack.shared_parts import SharedParts


class Diary(list[str]):
    """What was done, in this order; what is named in `broken` raises."""

    broken: frozenset[str] = frozenset()

    def note(self, what: str) -> None:
        self.append(what)
        if what in self.broken:
            raise EngineError(f"cannot {what}")


@dataclass(frozen=True)
class FakeEngine:
    """In the place of the `Engine`."""

    diary: Diary

    def create_network(self, name: str, *, leads_out: bool) -> str:
        self.diary.note("create open network" if leads_out else "create network")
        return "network" if name == "session" else name

    def remove_network(self, name: str) -> None:
        self.diary.note("remove network" if name == "network" else f"remove {name}")

    def has_image(self, reference: str) -> bool:
        return reference == "shop:1"

    def pull(self, reference: str) -> None:
        raise PullError(f"nobody has {reference}")

    def close(self) -> None:
        self.diary.note("close engine")


@dataclass(frozen=True)
class FakeBroker:
    """In the place of the `Broker`."""

    engine: FakeEngine
    image: str
    network: str
    name: str = "broker"
    kept_ports: Sequence[int] = ()
    volume: str | None = None

    def start(self) -> None:
        self.engine.diary.note("start broker")

    def join(self, network: str, *names: str) -> None:
        self.engine.diary.note(f"join {network} as {', '.join(names)}")

    def wait_ready(self) -> None:
        self.engine.diary.note("wait for broker")

    def remove(self) -> None:
        self.engine.diary.note("remove broker")


UP = ["create network", "start broker", "wait for broker"]
DOWN = ["remove broker", "remove network", "close engine"]


@pytest.fixture
def diary(monkeypatch: pytest.MonkeyPatch) -> Diary:
    diary = Diary()
    engine = FakeEngine(diary)
    monkeypatch.setattr("harness.stack.shared_parts.connect", lambda: engine)
    monkeypatch.setattr("harness.containers.broker_choice.Broker", FakeBroker)
    monkeypatch.setattr("harness.stack.shared_parts.sweep", lambda _: [])
    monkeypatch.setattr("harness.stack.shared_parts.images.ensure", lambda *_, **__: "image")
    return diary


def test_everything_is_started_once_and_taken_down_once_the_engine_last(diary: Diary) -> None:
    with SharedParts() as session:
        session.start()
        assert (session.network, session.worker_image) == ("network", "image")
        assert session.broker is session.broker
        assert diary == UP
    assert diary == UP + DOWN
    session.close()
    assert diary == UP + DOWN


@pytest.mark.usefixtures("diary")
def test_the_broker_has_the_ports_that_are_asked_for() -> None:
    with SharedParts(broker_ports=[5672, 15672]) as session:
        assert cast("FakeBroker", session.broker).kept_ports == [5672, 15672]


def test_a_session_that_was_never_used_takes_nothing_down(diary: Diary) -> None:
    SharedParts().close()
    assert diary == []


@pytest.mark.parametrize(
    "use",
    [
        lambda session: session.start(),
        lambda session: session.engine,
        lambda session: session.broker,
        lambda session: session.network,
        lambda session: session.worker_image,
        lambda session: session.mailbox_image,
    ],
    ids=["start", "engine", "broker", "network", "worker_image", "mailbox_image"],
)
@pytest.mark.parametrize("started", [True, False])
def test_once_closed_it_starts_nothing_again(
    diary: Diary, use: Callable[[SharedParts], object], *, started: bool
) -> None:
    session = SharedParts()
    if started:
        session.start()
    session.close()
    before = list(diary)
    with pytest.raises(EngineError, match="has been closed"):
        use(session)
    assert diary == before


def test_a_broker_that_cannot_be_removed_keeps_nothing_else(diary: Diary) -> None:
    session = SharedParts()
    session.start()
    diary.broken = frozenset({"remove broker"})
    with pytest.raises(EngineError, match="cannot remove broker"):
        session.close()
    assert diary == UP + DOWN


def test_what_went_wrong_before_its_end_is_not_replaced_by_what_goes_wrong_at_its_end(diary: Diary) -> None:
    diary.broken = frozenset({"remove broker", "remove network"})

    def fail() -> None:
        with SharedParts() as session:
            session.start()
            raise KeyError("the first")

    with pytest.raises(KeyError, match="the first") as caught:
        fail()
    assert caught.value.__notes__ == ["cannot remove broker\ncannot remove network"]
    assert diary == UP + DOWN


def test_a_start_that_fails_leaves_nothing_and_says_what_failed_first_and_may_be_tried_again(diary: Diary) -> None:
    session = SharedParts()
    diary.broken = frozenset({"wait for broker", "remove network"})
    with pytest.raises(EngineError, match="cannot wait for broker") as caught:
        session.start()
    assert caught.value.__notes__ == ["cannot remove network"]
    assert diary == UP + DOWN
    diary.broken = frozenset()
    session.start()
    assert diary == UP + DOWN + UP
    session.close()


def test_an_open_network_is_made_for_the_first_stack_that_wants_it_and_removed_after_the_broker(diary: Diary) -> None:
    with SharedParts() as session:
        assert session.network_of(Network.CLOSED) == "network"
        assert diary == UP
        assert session.network_of(Network.OPEN) == session.network_of(Network.OPEN) == "world"
        assert diary == [*UP, "create open network", "join world as broker"]
        diary.clear()
    assert diary == ["remove broker", "remove world", "remove network", "close engine"]


def test_a_session_that_is_open_has_one_network(monkeypatch: pytest.MonkeyPatch, diary: Diary) -> None:
    monkeypatch.setenv("HARNESS_NETWORK", "open")
    with SharedParts() as session:
        assert session.network_of(Network.OPEN) == session.network_of(Network.CLOSED) == "network"
    assert diary == ["create open network", *UP[1:], *DOWN]


def test_an_app_gets_the_image_that_it_names_and_otherwise_the_workers(diary: Diary) -> None:
    with SharedParts() as session:
        assert session.image_of(None) == "image"
        assert session.image_of("shop:1") == "shop:1"
        with pytest.raises(ImageError, match=r"the image shop:2 of the app is neither present .* nobody has shop:2\."):
            session.image_of("shop:2")
    assert diary == [*UP, *DOWN]
