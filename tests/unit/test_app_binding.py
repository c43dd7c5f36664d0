"""The binding of an app of this process: what it changes, what it journals, and that all is as before at its end."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import amqp
import pytest
from celery import Celery, chain, chord, group
from kombu.exceptions import OperationalError

from harness.app_binding import AppBinding, app_of, journal_sends
from harness.errors import UsageError
from harness.producer import Producer
from harness.records import journal
from harness.records.event import Kind
from harness.records.expectation import Expect
from harness.records.journal import Writer
from harness.records.moment import Moment

OURS = "memory://localhost/stack"
"""A broker in this process's memory, which takes everything and confirms nothing."""
ATTRIBUTES = ("amqp", "_pool", "_local", "_backend_cache", "backend_cls")
"""What holds an app's connections and its result backend."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "journal"
    folder.mkdir()
    return folder


@pytest.fixture
def writer(folder: Path) -> Iterator[Writer]:
    with closing(Writer(folder, node="producer", role="producer")) as writer:
        yield writer


@pytest.fixture
def app() -> Celery:
    """Return an app with settings of its own, as those of tests often are."""
    app = Celery("shop", broker="amqp://theirs:secret@127.0.0.1:1//", backend="rpc://", set_as_current=False)
    app.conf.update(
        task_always_eager=True,
        task_store_eager_result=False,
        broker_use_ssl=True,
        broker_transport_options={"max_retries": 1},
        task_routes={"shop.mail": {"queue": "mails"}},
    )
    app.task(name="shop.add")(add)
    app.task(name="shop.mail")(mail)
    return app


def add(x: int, y: int) -> int:
    return x + y


def mail() -> None:
    return


@pytest.fixture
def bind(writer: Writer) -> Iterator[Callable[[Celery], AppBinding]]:
    made: list[AppBinding] = []

    def make(app: Celery) -> AppBinding:
        made.append(AppBinding(app, OURS, "cache+memory://", writer, timeout_s=3))
        return made[-1]

    yield make
    for binding in made:
        binding.close()


def look(app: Celery) -> dict[str, Any]:
    """Return everything of an app that a binding touches."""
    names = ("broker_url", "broker_read_url", "broker_write_url", "result_backend")
    conf = {name: getattr(app.conf, name) for name in names} | dict(app.conf.items())
    own = {name: vars(app).get(name, "absent") for name in (*ATTRIBUTES, "connection_for_write", "_harness_binding")}
    return {**own, "conf": conf, "class": type(app.conf), "maps": list(app.conf.maps)}


def said(folder: Path) -> list[tuple[Kind, str | None]]:
    return [(event.kind, event.data.get("queue")) for event in list(journal.read(folder))[1:]]


def test_what_an_app_sends_comes_by_each_moment(app: Celery, writer: Writer, folder: Path) -> None:
    reached: list[tuple[Moment, str, int]] = []

    def reach(moment: Moment, _task: str, name: str) -> None:
        reached.append((moment, name, len(said(folder))))

    binding = AppBinding(app, OURS, None, writer, timeout_s=3, reach=reach)
    with closing(binding), binding:
        app.tasks["shop.add"].delay(1, 2)
    # A broker in memory confirms nothing.
    assert reached == [(Moment.SENDING, "shop.add", 1), (Moment.PUBLISHED, "shop.add", 2)]


def test_in_a_binding_the_app_sends_to_the_stack_and_afterwards_all_is_as_before(
    app: Celery, bind: Callable[[Celery], AppBinding], folder: Path
) -> None:
    _ = app.conf.broker_url
    before = look(app)
    binding = bind(app)
    with binding:
        assert app.conf.broker_url == app.conf.broker_write_url == OURS
        assert not app.conf.broker_use_ssl
        assert app.conf.broker_transport_options["confirm_publish"]
        assert app.conf.broker_transport_options["max_retries"] == 1
        assert app.connection().virtual_host == "stack"
        app.tasks["shop.add"].delay(1, 2)
        app.tasks["shop.mail"].delay()
        app.send_task("elsewhere.known")
    assert look(app) == before
    assert said(folder) == [
        *((Kind.INTENDED, None), (Kind.ACCEPTED, None)),
        *((Kind.INTENDED, "mails"), (Kind.ACCEPTED, None)),
        *((Kind.INTENDED, None), (Kind.ACCEPTED, None)),
    ]
    # It runs in place again, and nothing of that is journaled.
    assert app.tasks["shop.add"].delay(1, 2).get() == 3
    assert len(said(folder)) == 6
    binding.close()
    assert {one.__self__ for one in app.conf._observers} <= {vars(app).get("amqp")}  # noqa: SLF001 - nothing else shows it.


def test_what_the_broker_need_not_keep_on_disk_is_told(
    app: Celery, bind: Callable[[Celery], AppBinding], folder: Path
) -> None:
    with bind(app):
        app.send_task("shop.add", (1, 2))
        app.send_task("shop.add", (1, 2), delivery_mode="transient")
        app.conf.task_default_delivery_mode = 1
        app.send_task("shop.add", (1, 2))
        app.send_task("shop.add", (1, 2), delivery_mode=2)
    told = [event.data.get("transient", False) for event in journal.read(folder) if event.kind is Kind.INTENDED]
    assert told == [False, True, True, False]


def test_an_error_in_a_binding_undoes_it_too(app: Celery, bind: Callable[[Celery], AppBinding]) -> None:
    _ = app.conf.broker_url
    before = look(app)
    with contextlib.suppress(ZeroDivisionError), bind(app):
        _ = 1 / 0
    assert look(app) == before


def test_the_environment_does_not_win_over_a_binding(
    app: Celery, bind: Callable[[Celery], AppBinding], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CELERY_BROKER_URL", "CELERY_BROKER_WRITE_URL", "CELERY_BROKER_READ_URL"):
        monkeypatch.setenv(name, "amqp://production/")
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "redis://production")
    with bind(app):
        assert {app.conf.broker_url, app.conf.broker_read_url, app.conf["broker_url"]} == {OURS}
        assert app.connection_for_write().virtual_host == "stack"
        assert app.conf.result_backend == "cache+memory://"
        assert type(app.backend).__name__ == "CacheBackend"
    assert app.conf.broker_url == "amqp://production/"


def test_another_app_of_the_process_is_left_alone(
    app: Celery, bind: Callable[[Celery], AppBinding], folder: Path
) -> None:
    other = Celery("other", broker="memory://localhost/other", set_as_current=False)
    with bind(app):
        other.send_task("other.task")
        other.pool.force_close_all()
    assert other.conf.broker_url == "memory://localhost/other"
    assert said(folder) == []


def test_what_goes_elsewhere_over_a_connection_of_the_callers_own_is_not_journaled(
    app: Celery, bind: Callable[[Celery], AppBinding], folder: Path
) -> None:
    with bind(app), app.connection_for_write("memory://localhost/elsewhere") as elsewhere:
        app.send_task("shop.mail", connection=elsewhere)
        assert said(folder) == []
        app.send_task("shop.mail")
    assert said(folder) != []


def test_a_binding_holds_in_every_thread_and_until_the_last_one_leaves(
    app: Celery, bind: Callable[[Celery], AppBinding], folder: Path
) -> None:
    _ = app.backend
    binding = bind(app)
    with binding:
        with binding:
            pass
        thread = threading.Thread(target=app.tasks["shop.mail"].delay)
        thread.start()
        thread.join(5)
        assert app.conf.broker_url == OURS
    assert app.conf.broker_url != OURS
    assert len(said(folder)) == 2


def test_an_app_belongs_to_one_stack_at_a_time(app: Celery, bind: Callable[[Celery], AppBinding]) -> None:
    first, second = bind(app), bind(app)
    with first, pytest.raises(UsageError, match="'shop' is bound to another stack"), second:
        pass
    with second:
        assert app.conf.broker_url == OURS
    assert app.conf.broker_url != OURS


def test_a_binding_that_is_closed_while_it_is_used_is_undone_once(
    app: Celery, bind: Callable[[Celery], AppBinding]
) -> None:
    _ = app.conf.broker_url
    before = look(app)
    binding = bind(app)
    with binding:
        app.tasks["shop.mail"].delay()
        binding.close()
        assert look(app) == before
    assert look(app) == before
    with binding:
        app.tasks["shop.mail"].delay()


def test_settings_that_cannot_be_read_are_one_sentence(bind: Callable[[Celery], AppBinding]) -> None:
    app = Celery("shop", set_as_current=False)
    app.config_from_object("absent.settings")
    with pytest.raises(UsageError, match=r"settings of the app 'shop' cannot be read: ModuleNotFoundError: No module"):
        bind(app).__enter__()


def test_an_app_is_imported_from_its_folder_and_the_path_is_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shop_of_a_test.py").write_text("from celery import Celery\napp = Celery('x', set_as_current=False)\n")
    monkeypatch.syspath_prepend(".")
    assert app_of("shop_of_a_test", tmp_path).main == "x"
    with pytest.raises(UsageError, match="nothing_such cannot be imported in this process: ModuleNotFoundError"):
        app_of("nothing_such", tmp_path)
    with pytest.raises(UsageError, match="5 is no Celery app"):
        app_of(5, tmp_path)
    import sys  # noqa: PLC0415 - it is looked at here alone.

    assert str(tmp_path) not in sys.path


# ------------------------------------------------------------------------------------------- through the producer


@pytest.fixture
def producer(writer: Writer) -> Iterator[Producer]:
    with Producer(OURS, writer, results_url="cache+memory://") as producer:
        yield producer


def test_a_task_and_a_signature_are_sent_through_their_app(app: Celery, producer: Producer, folder: Path) -> None:
    add = app.tasks["shop.add"]
    one = producer.send(add, [1, 2], expect=Expect(result=3), task_id="t-1")
    two = producer.send(add.s(1), [2], countdown_s=60, queue="late")
    assert (one.task, one.accepted, two.accepted) == ("t-1", True, True)
    first, second = (event for event in journal.read(folder) if event.kind is Kind.INTENDED)
    assert (first.task, first.data["expect"]) == ("t-1", {"result": 3})
    assert second.task == two.task
    assert second.data["queue"] == "late"
    assert second.data["due"] > second.t + 50
    assert app.conf.broker_url != OURS


def test_a_canvas_has_the_id_of_its_last_task(app: Celery, producer: Producer, folder: Path) -> None:
    add = app.tasks["shop.add"]
    sent = producer.send(chain(add.s(1, 2), add.s(3)))
    (first,) = (event for event in journal.read(folder) if event.kind is Kind.INTENDED)
    assert first.data["follow"] == [sent.task]
    producer.send(group(add.s(1, 2), add.s(3, 4)))
    assert sum(event.kind is Kind.INTENDED for event in journal.read(folder)) == 3


THREE = {"expect": {"result": 3}}


def expected(folder: Path) -> list[tuple[Kind, str | None]]:
    """Return the lines in which the sum 3 is expected."""
    found = list(journal.read(folder))
    assert all(event.data.get("expect") in (None, THREE["expect"]) for event in found)
    return [(event.kind, event.task) for event in found if "expect" in event.data]


def test_what_is_expected_of_a_canvas_is_expected_of_the_task_that_has_its_result(
    app: Celery, producer: Producer, folder: Path
) -> None:
    add, mail = app.tasks["shop.add"], app.tasks["shop.mail"]
    tails = [
        producer.send(canvas, expect=Expect(result=3)).task
        for canvas in (
            chain(add.s(1, 2), mail.si(), add.si(1, 2)),
            chord([mail.s(), mail.s()], add.si(1, 2)),
            chain(mail.s(), group(mail.si(), mail.si()), add.si(1, 2)),
        )
    ]
    # None of them is sent by the producer itself, and each is named once.
    assert expected(folder) == [(Kind.EXPECTED, tail) for tail in tails]
    alone = producer.send(chain(add.si(1, 2)), expect=Expect(result=3)).task
    assert expected(folder)[3:] == [(Kind.INTENDED, alone)]


def test_something_can_be_expected_of_each_task_of_a_canvas_by_its_name(
    app: Celery, producer: Producer, folder: Path
) -> None:
    add, mail = app.tasks["shop.add"], app.tasks["shop.mail"]
    by_name = {"shop.add": Expect(result=3)}
    producer.send(group(add.s(1, 2), mail.s(), add.s(2, 1)), expect=by_name)
    assert [kind for kind, _ in expected(folder)] == [Kind.INTENDED] * 2
    tail = producer.send(chain(add.s(1, 2), group(add.si(1, 2), mail.si()), mail.si()), expect=by_name).task
    assert [kind for kind, _ in expected(folder)[2:]] == [Kind.INTENDED, Kind.EXPECTED]
    assert tail not in {task for _, task in expected(folder)}
    body = producer.send(chord([mail.s(), mail.s()], add.si(1, 2)), expect=by_name).task
    assert expected(folder)[4:] == [(Kind.EXPECTED, body)]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"expect": {"shop.ad": Expect()}}, r"`expect` names shop\.ad, .* has no such task\. It has: shop\.add\."),
        ({"priority": 256}, "priority=256 is none"),
    ],
)
def test_what_cannot_be_sent_is_one_sentence(
    app: Celery, producer: Producer, folder: Path, given: dict[str, Any], text: str
) -> None:
    add = app.tasks["shop.add"]
    with pytest.raises(UsageError, match=text):
        producer.send(chain(add.s(1, 2), add.s(3)), **given)
    for several in (group(add.s(1, 2), add.s(3, 4)), chain(add.s(1, 2), group(add.s(3), add.s(4))), add.chunks([], 2)):
        with pytest.raises(UsageError, match="has several results, and `expect` is for one"):
            producer.send(several, expect=Expect(result=3))
    with pytest.raises(UsageError, match=r"shop\.add is one task: give `expect` as one Expect"):
        producer.send("shop.add", expect={"shop.add": Expect()})
    with pytest.raises(UsageError, match=r"cannot be sent: TypeError: .*missing 2 required positional arguments"):
        producer.send(add)
    with pytest.raises(UsageError, match="name=5 is no text"):
        producer.send(5)
    assert said(folder) == []


def test_arguments_that_cannot_be_encoded_are_refused(app: Celery, producer: Producer) -> None:
    sent = producer.send(app.tasks["shop.add"], [object(), 2])
    assert sent.outcome is Kind.REFUSED
    assert sent.reason is not None
    assert sent.reason.startswith("EncodeError: ")


def test_where_nobody_listens_a_task_is_refused(app: Celery, writer: Writer, folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    app.conf.task_publish_retry = False
    with Producer(f"amqp://127.0.0.1:{port}/stack", writer) as producer:
        sent = producer.send(app.tasks["shop.mail"])
    assert sent.outcome is Kind.REFUSED
    assert "Connection refused" in str(sent.reason)
    assert [kind for kind, _ in said(folder)] == [Kind.INTENDED, Kind.REFUSED]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OperationalError("gone"), Kind.UNKNOWN),
        (TimeoutError("timed out"), Kind.UNKNOWN),
        (amqp.exceptions.MessageNacked(), Kind.REFUSED),
        (amqp.exceptions.NotFound("no exchange"), Kind.REFUSED),
    ],
)
def test_a_send_that_fails_is_unknown_unless_the_broker_certainly_does_not_have_it(
    app: Celery, writer: Writer, folder: Path, error: Exception, kind: Kind
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    app.amqp.send_task_message = fail
    journal_sends(app, writer)
    message = app.amqp.as_task_v2("t-1", "shop.mail")
    with pytest.raises(type(error)):
        app.amqp.send_task_message(None, "shop.mail", message)
    assert [one for one, _ in said(folder)] == [Kind.INTENDED, kind]
