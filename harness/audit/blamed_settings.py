"""The settings that can be to blame for a broken promise: with which value one is, and how it is changed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from harness.audit.live_settings import LiveSettings, Value
from harness.audit.remains import QueueLeft
from harness.records.values import Json

QUORUM_LIMIT = 20
"""The delivery limit of a quorum queue that declares none, since RabbitMQ 4.0. The broker drops a message that was
delivered more often, or dead-letters it."""
_PROCESSES = "prefork"
_NOT_STOPPED_HARD = frozenset({"threads", "solo"})
"""The pools that cannot stop a task at its hard limit. Only prefork knows a soft one."""


class Case(NamedTuple):
    """Tasks of a finding with the same evidence: one row of the query `cases`."""

    size: int
    """Number of the tasks."""
    tasks: tuple[str, ...]
    name: str | None
    queue: str
    ending: str | None
    status: str | None
    outcome: str
    error: str | None
    expect_state: str
    expect_error: str | None
    expects_result: bool
    ignored: bool
    row_expired: bool
    starts: int
    redelivered: bool
    """True if an execution began that no publish and no worker of a broadcast accounts for."""
    is_retried: bool
    """True if an execution asked to run again."""
    is_cut_short: bool
    """True if an execution began and never ended."""
    stored_before: bool
    """True if its result was stored before its last execution began."""
    workers: Sequence[str] | None
    """The workers of the executions, of a task that began more than once or did not end."""
    code: int | None
    """The exit code of the process of the last execution that was cut short, as far as its parent reported it.

    Of several workers, it is of the one that began the task most often."""
    discarded: str | None
    """The reason for which a worker discarded its message."""
    overdue_ms: int | None
    """The broker's time-out for an acknowledgement, in milliseconds, if it ended a connection of one of the workers."""
    is_transient: bool
    """True if it was sent as transient, and a worker lost its connection after that."""
    is_starved: bool
    """True if the kernel killed the process of its last execution for memory."""
    grown_kb: int | None
    """The peak memory of that process before, in KiB, if it had grown by half since its first task."""


class Blame(NamedTuple):
    """A setting that is to blame, with its value, the place where it was set, and the line that changes it."""

    setting: str
    value: Json
    where: str
    remedy: str


class Blamed(Protocol):
    """The setting that a rule blames."""

    @property
    def setting(self) -> str:
        """Its name."""

    @property
    def remedies(self) -> Sequence[str]:
        """The lines to paste, one of which a reason has."""

    def find(self, case: Case, live: LiveSettings, queues: Mapping[str, QueueLeft]) -> Blame | None:
        """Return it if it had such a value that it is to blame; else None."""


def off(value: Json) -> bool:
    """Return whether a setting is off."""
    return not value


def on(value: Json) -> bool:
    """Return whether a setting is on."""
    return bool(value)


@dataclass(frozen=True)
class OfTask:
    """An option of a task, or the app's setting for all tasks."""

    option: str
    is_bad: Callable[[Json], bool]
    change: Mapping[str, Json]
    """The options that the remedy sets."""
    given: Mapping[str, Callable[[Json], bool]] = field(default_factory=dict)
    """Other options, and what must hold of their values too."""
    unless: str | None = None
    """An option that is looked at in place of this one if it is set at all."""

    @property
    def setting(self) -> str:
        """Its name as a setting of the app."""
        return f"task_{self.option}"

    @property
    def remedies(self) -> Sequence[str]:
        """The line for the app, and the line for a task."""
        return (app_line({f"task_{name}": value for name, value in self.change.items()}), task_line(self.change))

    def find(self, case: Case, live: LiveSettings, queues: Mapping[str, QueueLeft]) -> Blame | None:  # noqa: ARG002
        """Return it if its value is such, and the other options' too."""
        nodes = case.workers or ()
        for name, holds in self.given.items():
            other = live.option(name, case.name, nodes)
            if other is None or not holds(other.value):
                return None
        option, found = self.option, None
        if self.unless is not None:
            option, found = self.unless, live.option(self.unless, case.name, nodes)
        if found is None or found.value is None:
            option, found = self.option, live.option(self.option, case.name, nodes)
        if found is None or not self.is_bad(found.value):
            return None
        change = {option if name == self.option else name: value for name, value in self.change.items()}
        app_change = {f"task_{name}": value for name, value in change.items()}
        remedy = app_line(app_change) if found.where == "app" else _line_for(found, change)
        return Blame(f"task_{option}", found.value, found.where, remedy)


@dataclass(frozen=True)
class OfLimit:
    """A time limit of a task; the remedy doubles it."""

    option: str

    @property
    def setting(self) -> str:
        """Its name as a setting of the app."""
        return f"task_{self.option}"

    @property
    def remedies(self) -> Sequence[str]:
        """The line for a task."""
        return (f"@app.task({self.option}=...)",)

    def find(self, case: Case, live: LiveSettings, queues: Mapping[str, QueueLeft]) -> Blame | None:  # noqa: ARG002
        """Return it if the task has such a limit. An option of the worker's command line counts as the app's."""
        found = live.option(self.option, case.name, case.workers or (), default=self.option)
        if found is None or not isinstance(found.value, int | float) or not found.value:
            return None
        twice = 2 * found.value
        change: dict[str, Json] = {self.option: round(twice) if twice == round(twice) else twice}
        return Blame(self.setting, found.value, found.where, _line_for(found, change))


@dataclass(frozen=True)
class OfTaskAlone:
    """An option of a task for which the app has no setting."""

    setting: str
    is_bad: Callable[[Json], bool]
    new: Json

    @property
    def remedies(self) -> Sequence[str]:
        """The line for a task."""
        return (task_line({self.setting: self.new}),)

    def find(self, case: Case, live: LiveSettings, queues: Mapping[str, QueueLeft]) -> Blame | None:  # noqa: ARG002
        """Return it if the task sets it to such a value."""
        found = live.option(self.setting, case.name, case.workers or ())
        if found is None or found.where == "app" or not self.is_bad(found.value):
            return None
        return Blame(self.setting, found.value, found.where, _line_for(found, {self.setting: self.new}))


@dataclass(frozen=True)
class OfApp:
    """A setting of the app."""

    setting: str
    is_bad: Callable[[Json], bool]
    new: Json
    given: Mapping[str, Callable[[Json], bool]] = field(default_factory=dict)
    """Options of the task, and what must hold of their values too."""

    @property
    def remedies(self) -> Sequence[str]:
        """The line for the app."""
        return (app_line({self.setting: self.new}),)

    def find(self, case: Case, live: LiveSettings, queues: Mapping[str, QueueLeft]) -> Blame | None:  # noqa: ARG002
        """Return it if its value is such."""
        nodes = case.workers or ()
        for name, holds in self.given.items():
            other = live.option(name, case.name, nodes)
            if other is None or not holds(other.value):
                return None
        # A setting that is off is not journaled.
        found = live.option(self.setting, None, nodes, default=self.setting)
        if found is None or not self.is_bad(found.value):
            return None
        return Blame(self.setting, found.value or False if self.new is True else found.value, "app", self.remedies[0])


@dataclass(frozen=True)
class OfPool:
    """The pool of the worker, which cannot stop a task at its limit."""

    setting: str = "worker_pool"
    remedies: Sequence[str] = ("celery worker --pool=prefork",)

    def find(self, case: Case, live: LiveSettings, queues: Mapping[str, QueueLeft]) -> Blame | None:  # noqa: ARG002
        """Return it if the task has a limit that the pool does not know."""
        pool = live.setting("pool", case.workers or ())
        if pool is None:
            return None
        limits = ["soft_time_limit"] if pool.value != _PROCESSES else []
        limits += ["time_limit"] if pool.value in _NOT_STOPPED_HARD else []
        has_limit = any((found := live.option(name, case.name, default=name)) and found.value for name in limits)
        return Blame(self.setting, pool.value, "worker", self.remedies[0]) if has_limit else None


@dataclass(frozen=True)
class OfSender:
    """A setting of whoever sent the task, as the outcome of its send shows it."""

    setting: str = "confirm_publish"
    remedies: Sequence[str] = ('app.conf.broker_transport_options = {"confirm_publish": True}',)

    def find(self, case: Case, live: LiveSettings, queues: Mapping[str, QueueLeft]) -> Blame:  # noqa: ARG002
        """Return it; that the task was sent without a confirm was seen."""
        return Blame(self.setting, False, "sender", self.remedies[0])  # noqa: FBT003 - the value of the setting.


@dataclass(frozen=True)
class OfQueue:
    """An argument of the queue that the task was in."""

    setting: str
    change: Mapping[str, Json]
    """The arguments that the remedy sets; None for one that it leaves out."""

    @property
    def remedies(self) -> Sequence[str]:
        """The declaration of the queue, without the arguments that it has beside."""
        return (queue_line("...", {name: value for name, value in self.change.items() if value is not None}),)

    def find(self, case: Case, live: LiveSettings, queues: Mapping[str, QueueLeft]) -> Blame | None:  # noqa: ARG002
        """Return it if the queue has such an argument."""
        queue = queues.get(case.queue)
        if queue is None or self.setting not in queue.arguments:
            return None
        arguments = {name: value for name, value in {**queue.arguments, **self.change}.items() if value is not None}
        value = queue.arguments[self.setting]
        return Blame(self.setting, value, f"queue {queue.name}", queue_line(queue.name, arguments))


@dataclass(frozen=True)
class OfDeliveryLimit(OfQueue):
    """The delivery limit of a quorum queue, which has one also if it declares none."""

    setting: str = "x-delivery-limit"
    change: Mapping[str, Json] = field(default_factory=lambda: {"x-queue-type": "quorum", "x-delivery-limit": -1})

    def find(self, case: Case, live: LiveSettings, queues: Mapping[str, QueueLeft]) -> Blame | None:
        """Return it if the task began more often than the limit allows."""
        queue = queues.get(case.queue)
        if queue is None or queue.kind != "quorum":
            return None
        limit = queue.arguments.get(self.setting, QUORUM_LIMIT)
        if not isinstance(limit, int) or not case.starts > limit >= 0:
            return None
        declared = replace(queue, arguments={**queue.arguments, self.setting: limit})
        return super().find(case, live, {case.queue: declared})


@dataclass(frozen=True)
class OfContent:
    """The types of content that the worker accepts."""

    setting: str = "accept_content"
    remedies: Sequence[str] = ('app.conf.accept_content = ["json", ...]',)

    def find(self, case: Case, live: LiveSettings, queues: Mapping[str, QueueLeft]) -> Blame | None:  # noqa: ARG002
        """Return it with the name of the type that was refused."""
        found = live.setting(self.setting)
        # kombu says `Refusing to deserialize untrusted content of type pickle (application/x-python-serialize)`.
        name = (case.discarded or "").partition(" of type ")[2].partition(" ")[0] or "..."
        if found is None:
            return None
        accepted = ", ".join(f'"{one}"' for one in (*found.value, name))
        return Blame(self.setting, found.value, "app", f"app.conf.accept_content = [{accepted}]")


@dataclass(frozen=True)
class OfImports:
    """The modules with tasks that the worker imports."""

    setting: str = "imports"
    remedies: Sequence[str] = ('app.conf.imports = ("...",)',)

    def find(self, case: Case, live: LiveSettings, queues: Mapping[str, QueueLeft]) -> Blame | None:  # noqa: ARG002
        """Return it with the module that the name of the task begins with."""
        known = live.setting("tasks")
        if known is None or case.name in known.value:
            return None
        found = live.option(self.setting, None, default=self.setting)
        modules = list(found.value or ()) if found is not None else []
        module = (case.name or "").rpartition(".")[0] or "..."
        imports = "".join(f'"{one}", ' for one in (*modules, module)).rstrip()
        return Blame(
            self.setting, modules, "app", f"app.conf.imports = ({imports.rstrip(',') if len(modules) else imports})"
        )


def app_line(change: Mapping[str, Json]) -> str:
    """Return the line that sets settings of the app."""
    if len(change) == 1:
        ((name, value),) = change.items()
        return f"app.conf.{name} = {value!r}"
    return f"app.conf.update({_arguments(change)})"


def task_line(change: Mapping[str, Json]) -> str:
    """Return the line that sets options of a task."""
    return f"@app.task({_arguments(change)})"


def _line_for(found: Value, change: Mapping[str, Json]) -> str:
    """Return the line that sets options of a task where they are set now: Celery lets annotations win."""
    if found.annotated is None:
        return task_line(change)
    return f"app.conf.task_annotations[{_literal(found.annotated)}].update({_arguments(change)})"


def _arguments(change: Mapping[str, Json]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in change.items())


def queue_line(name: str, arguments: Mapping[str, Json]) -> str:
    """Return the line that declares a queue with these arguments."""
    said = ", ".join(f'"{key}": {_literal(value)}' for key, value in arguments.items())
    return f'Queue("{name}", queue_arguments={{{said}}})'


def _literal(value: Json) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)
