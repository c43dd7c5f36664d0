"""What a message says of its task: canvas of Celery's own making, read as it is published."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from celery import Celery, chain, chord, group, signals

from harness.records.message import Message, Step, Way


def add_up(*values: int) -> int:
    return sum(values)


def sorry(_task: str) -> None:
    """Take what an errback gets."""


@pytest.fixture
def app() -> Iterator[Celery]:
    # SQLite results have no counter for chords, so that Celery sends a task that waits for the members.
    app = Celery("shop", broker="memory://", backend="db+sqlite://", set_as_current=False)
    app.task(add_up, name="add", shared=False)
    app.task(sorry, name="sorry", shared=False)
    with closing(app):
        yield app


@pytest.fixture
def sent() -> Iterator[dict[str, Message]]:
    """Yield the messages that are published, by the ids of their tasks."""
    found: dict[str, Message] = {}

    def on_publish(sender: str, headers: dict[str, Any], body: Any, **_: Any) -> None:
        message = Message.of(sender, headers, body)
        assert message is not None
        found[message.task] = message

    signals.before_task_publish.connect(on_publish)
    yield found
    signals.before_task_publish.disconnect(on_publish)


def add(app: Celery, task: str | None = None) -> Any:
    signature = app.tasks["add"].s(1)
    return signature.set(task_id=task) if task else signature


def test_the_steps_of_a_chain_are_promised_in_their_order(app: Celery, sent: dict[str, Message]) -> None:
    chain(add(app, "a"), add(app, "b"), add(app, "c"), app=app).apply_async()
    assert sent["a"].steps == [
        Step(task="b", name="add", way=Way.NEXT),
        Step(task="c", name="add", way=Way.LATER),
    ]


def test_all_members_of_a_group_are_next(app: Celery, sent: dict[str, Message]) -> None:
    chain(add(app, "a"), group(add(app, "b"), add(app, "c"), app=app), app=app).apply_async()
    assert {(step.task, step.way) for step in sent["a"].steps} == {("b", Way.NEXT), ("c", Way.NEXT)}


def test_of_a_chord_in_a_chain_the_members_are_next_and_the_body_is_later(
    app: Celery, sent: dict[str, Message]
) -> None:
    chain(
        add(app, "a"), group(add(app, "b"), add(app, "c"), app=app), add(app, "d"), add(app, "e"), app=app
    ).apply_async()
    assert {(step.task, step.way) for step in sent["a"].steps} == {
        ("b", Way.NEXT),
        ("c", Way.NEXT),
        ("d", Way.LATER),
        ("e", Way.LATER),
    }


def test_groups_and_chords_that_are_to_follow_have_ids_of_their_own_and_celery_may_record_a_failure_for_them(
    app: Celery, sent: dict[str, Message]
) -> None:
    last = group(add(app, "d"), add(app, "e"), app=app).set(task_id="last group")
    chain(add(app, "a"), chord([add(app, "b")], add(app, "c"), app=app), last, app=app).apply_async()
    # That of the chord is of Celery's making.
    assert len(sent["a"].canvases) == 2
    assert "last group" in sent["a"].canvases
    follow = sent["a"].to_json()["follow"]
    # What runs comes first.
    assert follow[:4] == ["b", "c", "d", "e"]
    assert set(follow[4:]) == set(sent["a"].canvases)


def test_the_body_of_a_chord_that_is_a_group_has_an_id_of_its_own(app: Celery, sent: dict[str, Message]) -> None:
    body = group(add(app, "c"), add(app, "d"), app=app).set(task_id="body")
    chord([add(app, "a"), add(app, "b")], app=app)(body)
    (unlock,) = (message for message in sent.values() if message.name == "celery.chord_unlock")
    assert sent["a"].canvases == unlock.canvases == ["body"]


def test_the_members_of_a_chord_promise_its_body_and_what_unlocks_it_names_them(
    app: Celery, sent: dict[str, Message]
) -> None:
    chord([add(app, "a"), add(app, "b")], app=app)(add(app, "body"))
    body = Step(task="body", name="add", way=Way.BODY)
    assert sent["a"].steps == sent["b"].steps == [body]
    (unlock,) = (message for message in sent.values() if message.name == "celery.chord_unlock")
    assert unlock.steps == [body]
    assert unlock.members == ["a", "b"]
    assert sent["a"].members is None


def test_the_members_of_a_chord_that_are_groups_and_chains_are_named_by_what_is_waited_for(
    app: Celery, sent: dict[str, Message]
) -> None:
    inner = chain(add(app, "a"), add(app, "b"), app=app)
    chord([inner, add(app, "c")], app=app)(add(app, "body"))
    (unlock,) = (message for message in sent.values() if message.name == "celery.chord_unlock")
    assert unlock.members == ["b", "c"]


def test_links_are_promised_by_name(app: Celery, sent: dict[str, Message]) -> None:
    links = [add(app), group(add(app), add(app), app=app)]
    add(app, "a").apply_async(link=links, link_error=app.tasks["sorry"].s())
    assert sent["a"].steps == [
        Step(task=None, name="add", way=Way.CALLBACK),
        Step(task=None, name="sorry", way=Way.ERRBACK),
    ]


def test_a_message_says_when_it_is_due_and_when_it_expires_and_who_sent_it(
    app: Celery, sent: dict[str, Message]
) -> None:
    app.send_task("add", task_id="a", countdown=60, expires=90, parent_id="p")
    message = sent["a"]
    assert message.due_t is not None
    assert message.expires_t is not None
    assert message.expires_t - message.due_t == pytest.approx(30, abs=1)
    assert (message.parent, message.retries, message.steps) == ("p", 0, [])


def test_the_old_protocol_says_the_same_in_the_body(app: Celery, sent: dict[str, Message]) -> None:
    app.conf.task_protocol = 1
    add(app, "a").apply_async(link=add(app), countdown=60)
    message = sent["a"]
    assert message.due_t is not None
    assert (message.name, message.retries) == ("add", 0)
    assert message.steps == [Step(task=None, name="add", way=Way.CALLBACK)]


@pytest.mark.parametrize(
    ("headers", "body"),
    [({}, ([], {}, {})), ({"id": 5}, ([], {}, {})), ({}, b"{}"), ({}, {"task": "add"}), ({"id": None}, None)],
)
def test_a_message_without_a_tasks_id_is_none_of_ours(headers: dict[str, Any], body: Any) -> None:
    assert Message.of("add", headers, body) is None


@pytest.mark.parametrize(
    "body", [b"{}", None, [], ([], {}), ([], {}, None), ([], {}, {"chain": [5], "callbacks": [None]})]
)
def test_a_body_of_another_form_promises_nothing(body: Any) -> None:
    message = Message.of("celery.chord_unlock", {"id": "a"}, body)
    assert message is not None
    assert (message.steps, message.members) == ([], [])
    assert message.to_json() == {"name": "celery.chord_unlock", "retries": 0, "members": []}


def test_a_line_of_the_journal_names_the_queue_unless_it_is_celerys_own() -> None:
    message = Message.of("add", {"id": "a", "retries": 2}, ([], {}, {}))
    assert message is not None
    assert message.to_json("celery") == message.to_json() == {"name": "add", "retries": 2}
    assert message.to_json("mails") == {"name": "add", "retries": 2, "queue": "mails"}
