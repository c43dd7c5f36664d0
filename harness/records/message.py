"""The content of a Celery message: one parser for all that journal what is sent. Standard library only.

Celery has two protocols. In the second, the task's id and times are headers, and the body is a list of arguments,
keyword arguments, and an embed: callbacks, errbacks, chain and chord. In the first, everything is in the body.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from harness.records.values import Json

_BODY_PARTS = 3
UNLOCK = "celery.chord_unlock"
"""The task that polls for the members of a chord where the result backend cannot count them."""
DEFAULT_QUEUE = "celery"
"""Celery's default queue; a line of the journal does not name it."""


def consumer_tag(node: str) -> str:
    """Return the beginning of the tags by which a worker's consumers are told apart in the broker."""
    return f"{node}/"


class Way(StrEnum):
    """The relation of a task to the message that announces it."""

    NEXT = "next"
    """The next task of the chain: sent as soon as this one has succeeded."""
    LATER = "later"
    """A later task of the chain, after the next one."""
    BODY = "body"
    """The body of this task's chord: it follows all members."""
    CALLBACK = "callback"
    """A link: sent when this one has succeeded, under an id that is not known in advance."""
    ERRBACK = "errback"
    """An error link: sent or called when this one has failed."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A task that follows another one."""

    task: str | None
    """Its id; None if it gets one when it is sent."""
    name: str
    way: Way

    def to_json(self) -> dict[str, Json]:
        """Return the step as it stands in a line of the journal."""
        return {"task": self.task, "name": self.name, "way": self.way.value}


@dataclass(frozen=True, kw_only=True)
class Message:
    """A message that sends a task."""

    task: str
    name: str
    retries: int
    due_t: float | None
    """The time when it is due, Unix time in seconds; None for at once."""
    expires_t: float | None
    """The time when it expires, Unix time in seconds."""
    parent: str | None
    """The id of the task that sent it."""
    steps: Sequence[Step]
    """The tasks that follow it, each once."""
    canvases: Sequence[str]
    """The ids of the groups and chords among the tasks that follow. Nothing runs under these ids, but if this task
    fails, Celery records a failure for some of them, too."""
    members: Sequence[str] | None
    """The ids of the tasks that the chord waits for, if this is a `celery.chord_unlock`; otherwise None."""

    @classmethod
    def of(cls, name: str, headers: Mapping[str, Any], body: Any) -> "Message | None":
        """Read a message before it is published; None if it has no task id.

        Args:
            name: the task's name.
            headers: the message's headers.
            body: its body, not yet encoded.
        """
        task = task_of(headers, body)
        if task is None:
            return None
        said = about(headers, body)
        embedded = _embedded(body)
        is_unlock = name == UNLOCK
        promised = [*(embedded.get("chain") or ()), embedded.get("chord"), _body(body) if is_unlock else None]
        return cls(
            task=task,
            name=name,
            retries=said.get("retries") or 0,
            due_t=_unix_time(said.get("eta")),
            expires_t=_unix_time(said.get("expires")),
            parent=said.get("parent_id"),
            steps=_once([*_steps(embedded), *(_all(_body(body), Way.BODY) if is_unlock else ())]),
            canvases=_once(task for signature in promised for task in _canvases(signature)),
            members=_once(result_ids(_keyword(body, "result"))) if is_unlock else None,
        )

    def to_json(self, queue: str | None = None) -> dict[str, Json]:
        """Return the members of an `intended` journal line; empty ones are left out.

        Args:
            queue: the queue or routing key that it is sent to, if that is known.
        """
        said: dict[str, Json] = {
            "due": self.due_t,
            "expires": self.expires_t,
            "parent": self.parent,
            "queue": None if queue == DEFAULT_QUEUE else queue,
            "follow": _once([*(step.task for step in self.steps if step.task is not None), *self.canvases]) or None,
            "steps": [step.to_json() for step in self.steps] or None,
            "members": self.members,
        }
        return {
            "name": self.name,
            "retries": self.retries,
            **{key: value for key, value in said.items() if value is not None},
        }


def is_transient(*modes: Any) -> bool:
    """Return whether a message is one that the broker need not keep on disk.

    Args:
        modes: the delivery modes that may decide, in their order; None for one that does not.
    """
    decisive = next((mode for mode in modes if mode is not None), None)
    return str(decisive) in {"1", "transient"}


def task_of(headers: Mapping[str, Any], body: Any) -> str | None:
    """Return the id of the task that a message sends; None if there is none."""
    task = about(headers, body).get("id")
    return task if isinstance(task, str) else None


def about(headers: Mapping[str, Any], body: Any) -> Mapping[str, Any]:
    """Return the part of a message that has the task's id: its headers, or the body in Celery's first protocol."""
    return headers if headers.get("id") else body if isinstance(body, Mapping) else {}


def place_of(declared: Iterable[Any], routing_key: Any) -> str | None:
    """Return the queue that a message is sent to, or its routing key if that key is known to lead elsewhere.

    Args:
        declared: what Celery declares before it publishes. It is the default queue even if the sender named its own
            exchange and routing key.
        routing_key: of the message.
    """
    # An exchange has no such attribute.
    queue = next((one for one in declared if hasattr(one, "queue_arguments")), None)
    if queue is None:
        return str(routing_key) if routing_key else None
    is_direct = queue.exchange is not None and queue.exchange.type == "direct" and not queue.bindings
    leads_elsewhere = is_direct and routing_key and routing_key not in {queue.routing_key, queue.name}
    return str(routing_key if leads_elsewhere else queue.name)


def _embedded(body: Any) -> Mapping[str, Any]:
    """Return the embed of a body; empty if the body has another form."""
    if isinstance(body, Mapping):
        return body
    embedded = _part(body, 2)
    return embedded if isinstance(embedded, Mapping) else {}


def _keyword(body: Any, name: str) -> Any:
    """Return a keyword argument of the task, or None."""
    given = body.get("kwargs") if isinstance(body, Mapping) else _part(body, 1)
    return given.get(name) if isinstance(given, Mapping) else None


def _part(body: Any, number: int) -> Any:
    return body[number] if isinstance(body, tuple | list) and len(body) == _BODY_PARTS else None


def _steps(embedded: Mapping[str, Any]) -> Iterator[Step]:
    chain = list(embedded.get("chain") or ())
    # Celery keeps a chain in reverse order: the last item is the next task.
    if chain:
        yield from _sent_with(chain[-1], Way.NEXT)
    for signature in reversed(chain[:-1]):
        yield from _all(signature, Way.LATER)
    yield from _all(embedded.get("chord"), Way.BODY)
    for signature in embedded.get("callbacks") or ():
        yield from _names(signature, Way.CALLBACK)
    for signature in embedded.get("errbacks") or ():
        yield from _names(signature, Way.ERRBACK)


def _body(body: Any) -> Any:
    """Return the second argument of a `celery.chord_unlock`, which is the chord's body; None if there is none."""
    given = body.get("args") if isinstance(body, Mapping) else _part(body, 0)
    return given[1] if isinstance(given, tuple | list) and len(given) > 1 else None


def _sent_with(signature: Any, way: Way) -> Iterator[Step]:
    """Yield the tasks that are sent together with a signature, then as LATER the tasks that follow within it."""
    kind, parts = _parts(signature)
    if kind == "chain":
        for number, part in enumerate(parts):
            yield from _sent_with(part, way) if not number else _all(part, Way.LATER)
    elif kind == "group":
        for part in parts:
            yield from _sent_with(part, way)
    elif kind == "chord":
        header, *rest = parts
        yield from _sent_with(header, way)
        for part in rest:
            yield from _all(part, Way.LATER)
    else:
        yield from _all(signature, way)


def _parts(signature: Any) -> tuple[str, Sequence[Any]]:
    """Return the kind of canvas of a signature, and its parts in order; both empty for an ordinary task."""
    if not isinstance(signature, Mapping):
        return "", ()
    kind, given = signature.get("subtask_type"), signature.get("kwargs") or {}
    if kind in {"chain", "group"}:
        return kind, list(given.get("tasks") or ())
    if kind == "chord":
        header = given.get("header")
        if isinstance(header, tuple | list):
            header = {"subtask_type": "group", "kwargs": {"tasks": header}}
        return kind, [header, given.get("body")]
    return "", ()


def _all(signature: Any, way: Way) -> Iterator[Step]:
    """Yield every ordinary task of a signature that has an id, at any depth of nesting."""
    kind, parts = _parts(signature)
    for part in parts:
        yield from _all(part, way)
    task = None if kind else _id(signature)
    if task is not None:
        yield Step(task=task, name=str(signature.get("task")), way=way)


def _canvases(signature: Any) -> Iterator[str]:
    """Yield the ids of a signature and of its nested signatures that are canvas, at any depth."""
    kind, parts = _parts(signature)
    task = _id(signature) if kind else None
    if task is not None:
        yield task
    for part in parts:
        yield from _canvases(part)


def _id(signature: Any) -> str | None:
    task = (signature.get("options") or {}).get("task_id") if isinstance(signature, Mapping) else None
    return task if isinstance(task, str) else None


def _names(signature: Any, way: Way) -> Iterator[Step]:
    """Yield the tasks that are sent at once when a link is sent, by name and without an id."""
    kind, parts = _parts(signature)
    if kind == "group":
        for part in parts:
            yield from _names(part, way)
    elif kind:
        yield from _names(parts[0], way) if parts else ()
    elif isinstance(signature, Mapping):
        yield Step(task=None, name=str(signature.get("task")), way=way)


def result_ids(value: Any) -> Iterator[str]:
    """Yield the ids in result tuples, ``((id, parent), children)``, at any depth of nesting."""
    for one in value if isinstance(value, tuple | list) else ():
        if isinstance(one, tuple | list) and len(one) == 2:  # noqa: PLR2004 - the two parts of such a tuple.
            own, children = one
            if children:
                yield from result_ids(children)
            elif isinstance(own, tuple | list) and own and isinstance(own[0], str):
                yield own[0]


def names_in(signature: Any) -> Iterator[str]:
    """Yield the name of each ordinary task of a signature, at any depth of nesting, without those of links."""
    kind, parts = _parts(signature)
    for part in parts:
        yield from names_in(part)
    if not kind and isinstance(signature, Mapping):
        yield str(signature.get("task"))


def has_one_result(signature: Any) -> bool:
    """Return whether one task has the result of a signature, as the last of a chain and the body of a chord have."""
    kind, parts = _parts(signature)
    if not kind:
        return not isinstance(signature, Mapping) or signature.get("task") != "celery.chunks"
    return kind != "group" and bool(parts) and has_one_result(parts[-1])


def _once(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _unix_time(said: Any) -> float | None:
    return datetime.fromisoformat(said).timestamp() if isinstance(said, str) and said else None
