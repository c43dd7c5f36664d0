"""The risks to lose or double the tasks of a project: read from its settings and its tasks, before anything runs."""

import ast
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from harness.project.app_tasks import Task, tasks_in
from harness.project.celery_apps import import_folder
from harness.project.celery_settings import ANYTHING, Said, celery_settings, entries, literal
from harness.project.source_files import Sources, dotted, text_of
from harness.records.values import Json

_SHOWN = 3
"""The number of tasks that a risk names."""
_DAY_S = 86_400
_CONSUMER_TIMEOUT_S = 1_800
"""RabbitMQ's default: a message that a worker holds for longer ends the worker's channel."""
_NONE = ast.Constant(value=None)
_SENDS = frozenset({"apply_async", "send_task", "retry", "signature", "set"})
"""The methods that take a countdown."""
_WITHOUT_CONFIRMS = frozenset({"redis", "rediss", "redis+socket", "sentinel", "sqs", "memory", "filesystem"})
"""The transports that have no confirms, so that the option is no option there."""
_OFF_BY_DEFAULT = frozenset({"task_acks_late", "task_reject_on_worker_lost", "task_retry_on_worker_lost"})
"""The settings to which False is the same as nothing said."""
_UNIVERSAL = frozenset({"UTC", "Etc/UTC", "GMT"})


@dataclass(frozen=True, kw_only=True)
class Risk:
    """One thing that may cost tasks."""

    setting: str
    """The setting or option that is to blame."""
    seen: str
    """What was read, with its place, as a clause."""
    cost: str
    """What it costs, as a clause."""
    remedy: str
    """The line to paste."""
    shown_by: str
    """The cell of `harness survive` that shows it, or another command; empty if no fault shows it."""


@dataclass(frozen=True, kw_only=True)
class _Project:
    """The parts of a project that were read."""

    sources: Sources
    settings: Mapping[str, Sequence[Said]]
    tasks: Sequence[Task]

    def _places(self, setting: str) -> Sequence[Said]:
        """Return who says a setting; if nobody surely does, who may."""
        return self.settings.get(setting) or self.settings.get(ANYTHING, ())

    def said(self, setting: str) -> Json:
        """Return the value of a setting; None if nobody says it, `...` if nobody knows it before the app runs."""
        places = self._places(setting)
        values = [... if one.setting == ANYTHING else literal(one.node) for one in places]
        if all(one.condition for one in places):
            # If no condition holds, it is Celery's default.
            values.append(None)
        if setting in _OFF_BY_DEFAULT and all(value is None or value is False for value in values):
            return values[0]
        return values[0] if all(value == values[0] for value in values) else ...

    def where(self, setting: str) -> str:
        """Return who says a setting, in words."""
        places = self._places(setting)
        return ", ".join(one.where for one in places) or "not set"

    def where_of(self, tasks: Sequence[Task], option: str, setting: str) -> str:
        """Return who says an option of some tasks, in words: their decorators, their annotations, or the app."""
        if "task_annotations" in self.settings:
            return f"{self.where(setting)}; annotations: {self.where('task_annotations')}"
        own = [(task, task.options[option]) for task in tasks if literal(task.options.get(option, _NONE)) is not None]
        places = [f"{task.path}:{node.lineno}" for task, node in own]
        more = f" and {len(places) - _SHOWN} more" if len(places) > _SHOWN else ""
        decorators = f"{', '.join(places[:_SHOWN])}{more}"
        if len(own) == len(tasks):
            return decorators
        return f"{self.where(setting)}; {decorators}" if own else self.where(setting)

    def named(self, tasks: Sequence[Task]) -> str:
        """Return the names of some tasks, shortened."""
        names = [task.name(import_folder(self.sources, task.path)) for task in tasks]
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        return f"{', '.join(names[:_SHOWN])}{more}"

    def with_option(self, option: str, setting: str, wanted: Callable[[Json], bool]) -> list[Task]:
        """Return the tasks for which an option surely has such a value: their own, or else the app's."""
        return [
            task for task in self.tasks if (value := self._option(task, option, setting)) is not ... and wanted(value)
        ]

    def _option(self, task: Task, option: str, setting: str) -> Json:
        """Return the value of a task's option; `...` if nobody knows it before the app runs."""
        annotations = self.said("task_annotations")
        if not isinstance(annotations, Mapping | None):
            return ...
        # Celery sets those of the name first and then those of all, so that the last ones stay.
        for name in ("*", task.name(import_folder(self.sources, task.path))):
            given = (annotations or {}).get(name, {})
            if not isinstance(given, Mapping):
                return ...
            if option in given:
                return given[option]
        own = literal(task.options[option]) if option in task.options else None
        if own is None and ("base" in task.options or "task_cls" in self.settings):
            # A class of its own may say it.
            return ...
        # To Celery, an option of None is one that was not given.
        return self.said(setting) if own is None else own


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """The outlook that the modules of a project, without its tests, give before anything runs."""

    risks: tuple[Risk, ...]
    """What may cost tasks. A value that is calculated, or is said under a condition, is not known here, and no risk is
    made of it."""
    unknown: tuple[str, ...]
    """The settings that matter here and that nobody knows before the app runs, each with its places."""

    @classmethod
    def of(cls, sources: Sources) -> Self:
        """Read a project."""
        project = _Project(sources=sources, settings=celery_settings(sources), tasks=tasks_in(sources))
        unknown = (name for name in sorted(_MATTER) if project.said(name) is ...)
        return cls(
            risks=tuple(risk for rule in _RULES for risk in rule(project)),
            unknown=tuple(f"{name} ({project.where(name)})" for name in unknown),
        )


def _early(project: _Project) -> Iterator[Risk]:
    if early := project.with_option("acks_late", "task_acks_late", lambda value: not value):
        yield Risk(
            setting="task_acks_late",
            seen=f"False for {project.named(early)} ({project.where_of(early, 'acks_late', 'task_acks_late')})",
            cost="a task whose worker dies or is stopped while it runs is lost",
            remedy="app.conf.task_acks_late = True",
            shown_by="harness survive: kill-worker at started",
        )


def _late_without_reject(project: _Project) -> Iterator[Risk]:
    if project.said("task_retry_on_worker_lost") not in (None, False):
        return
    kept = project.with_option("reject_on_worker_lost", "task_reject_on_worker_lost", lambda value: not value)
    late = project.with_option("acks_late", "task_acks_late", bool)
    if both := [task for task in late if task in kept]:
        yield Risk(
            setting="task_reject_on_worker_lost",
            seen=f"False with late acknowledgement for {project.named(both)} "
            f"({project.where_of(both, 'reject_on_worker_lost', 'task_reject_on_worker_lost')})",
            cost="a task whose pool process dies, as for want of memory, ends as a failure and does not run again",
            remedy="app.conf.task_reject_on_worker_lost = True",
            shown_by="harness survive: kill-pool-process at started",
        )


def _prefetch(project: _Project) -> Iterator[Risk]:
    late = project.with_option("acks_late", "task_acks_late", bool)
    multiplier = project.said("worker_prefetch_multiplier")
    many = multiplier is None or (isinstance(multiplier, int) and multiplier > 1) or multiplier == 0
    if late and many:
        shown = "4, Celery's default" if multiplier is None else multiplier or "0, which is without a limit"
        yield Risk(
            setting="worker_prefetch_multiplier",
            seen=f"{shown}, with late acknowledgement ({project.where('worker_prefetch_multiplier')})",
            cost="a worker with a long task keeps others waiting that an idle worker could run",
            remedy="app.conf.worker_prefetch_multiplier = 1",
            shown_by="",
        )


def _unconfirmed(project: _Project) -> Iterator[Risk]:
    if _is_without_confirms(project):
        return
    options = project.said("broker_transport_options")
    if options is None or (isinstance(options, Mapping) and options.get("confirm_publish") in (None, False)):
        yield Risk(
            setting="broker_transport_options",
            seen=f"without confirm_publish ({project.where('broker_transport_options')})",
            cost="a task that is sent while the broker or the connection dies is lost without an error",
            remedy='app.conf.broker_transport_options = {"confirm_publish": True}',
            shown_by="harness run SCENARIO --fault reset@1s",
        )


def _is_without_confirms(project: _Project) -> bool:
    """Return whether the broker surely is of a kind that confirms nothing, such as Redis, wherever it is named."""
    named = [one for name in ("broker", "broker_url") for one in project.settings.get(name, ())]
    places = [one for one in named if literal(one.node) is not None]
    # If no condition holds, it is Celery's default, which is RabbitMQ.
    is_named = any(not one.condition for one in places)
    return is_named and all((kinds := _transports(one.node)) and kinds <= _WITHOUT_CONFIRMS for one in places)


def _transports(node: ast.expr) -> set[str]:
    """Return the transports of the addresses in an expression, also in the default of a variable; empty for none."""
    texts = (text_of(inner) for inner in ast.walk(node) if isinstance(inner, ast.expr))
    return {text.partition("://")[0].lower() for text in texts if text is not None and "://" in text}


def _unlimited(project: _Project) -> Iterator[Risk]:
    soft = project.with_option("soft_time_limit", "task_soft_time_limit", lambda value: value is None)
    hard = project.with_option("time_limit", "task_time_limit", lambda value: value is None)
    if endless := [task for task in hard if task in soft]:
        yield Risk(
            setting="task_time_limit",
            seen=f"none for {project.named(endless)} ({project.where_of(endless, 'time_limit', 'task_time_limit')})",
            cost="a task that hangs keeps its process for ever",
            remedy="app.conf.task_time_limit = 300",
            shown_by="",
        )


def _endless_retries(project: _Project) -> Iterator[Risk]:
    endless = [task for task in project.tasks if literal(task.options.get("max_retries")) is None]
    if endless:
        yield Risk(
            setting="max_retries",
            seen=f"None for {project.named(endless)}",
            cost="a task that can never succeed asks for a retry for ever",
            remedy="@app.task(max_retries=3)",
            shown_by="",
        )


def _expiring(project: _Project) -> Iterator[Risk]:
    expires, zone, utc = (project.said(name) for name in ("result_expires", "timezone", "enable_utc"))
    is_local = (isinstance(zone, str) and zone not in _UNIVERSAL) or utc is False
    if is_local and isinstance(expires, int | float) and not isinstance(expires, bool) and 0 < expires < _DAY_S:
        yield Risk(
            setting="result_expires",
            seen=f"{expires:g} s with the zone {zone or 'of the machine'} ({project.where('result_expires')})",
            cost="a database's rows have the time of UTC and are cleaned up by the time of the zone: east of Greenwich "
            "some hours too early",
            remedy=f"app.conf.result_expires = {_DAY_S}",
            shown_by="",
        )


def _held_long(project: _Project) -> Iterator[Risk]:
    if project.said("task_default_queue_type") not in (None, "classic"):
        return
    for module in project.sources.own_modules:
        for node in module.nodes:
            match node:
                case ast.Call(func=ast.Attribute(attr=method), keywords=keywords) if method in _SENDS:
                    value = next((one.value for one in keywords if one.arg == "countdown"), None)
                    seconds = literal(value)
                    if value is not None and isinstance(seconds, int | float) and seconds > _CONSUMER_TIMEOUT_S:
                        yield Risk(
                            setting="countdown",
                            seen=f"{seconds:g} s ({module.path}:{value.lineno})",
                            cost="on a classic queue a worker holds the message until then, and RabbitMQ closes the "
                            f"channel of one that holds it for more than {_CONSUMER_TIMEOUT_S} s (consumer_timeout)",
                            remedy='app.conf.task_default_queue_type = "quorum"',
                            shown_by="",
                        )


def _transient(project: _Project) -> Iterator[Risk]:
    mode = project.said("task_default_delivery_mode")
    if mode in (1, "transient"):
        yield _transient_risk("task_default_delivery_mode", f"{mode} ({project.where('task_default_delivery_mode')})")
    for module in project.sources.own_modules:
        for node in module.nodes:
            if not isinstance(node, ast.Call) or (dotted(node.func) or "").rpartition(".")[2] != "Queue":
                continue
            options = {one.arg: literal(one.value) for one in node.keywords if one.arg}
            where = f"{module.path}:{node.lineno}"
            if options.get("durable") is False:
                yield _transient_risk("durable", f"False for a queue ({where})")
            if options.get("delivery_mode") in (1, "transient"):
                yield _transient_risk("delivery_mode", f"{options['delivery_mode']} for a queue ({where})")


def _transient_risk(setting: str, seen: str) -> Risk:
    return Risk(
        setting=setting,
        seen=seen,
        cost="what waits in the queue is lost when the broker restarts",
        remedy='Queue("...", durable=True)' if setting == "durable" else "app.conf.task_default_delivery_mode = 2",
        shown_by="harness run SCENARIO --fault restart-broker@1s",
    )


def _twice_scheduled(project: _Project) -> Iterator[Risk]:
    places = project.settings.get("beat_schedule", ())
    # Of two branches, only one is run.
    names = Counter(name for one in places if not one.condition for name, _ in entries(one.node))
    names.update(_periodic(project.sources))
    if twice := sorted(name for name, count in names.items() if count > 1):
        yield Risk(
            setting="beat_schedule",
            seen=f"more than one entry is named {', '.join(twice[:_SHOWN])}",
            cost="the last one replaces the others, which are never sent",
            remedy="give each entry a name of its own",
            shown_by="harness timelapse APP --from TIME --to TIME",
        )


def _periodic(sources: Sources) -> Iterator[str]:
    """Yield the names that calls of `add_periodic_task` give."""
    for module in sources.own_modules:
        for node in module.nodes:
            if isinstance(node, ast.Call) and (dotted(node.func) or "").endswith("add_periodic_task"):
                given = (text_of(one.value) for one in node.keywords if one.arg == "name")
                yield from (name for name in given if name is not None)


def _pickled(project: _Project) -> Iterator[Risk]:
    for setting in ("accept_content", "task_serializer", "result_serializer"):
        said = project.said(setting)
        if said == "pickle" or (isinstance(said, list | tuple | set) and "pickle" in said):
            yield Risk(
                setting=setting,
                seen=f"pickle ({project.where(setting)})",
                cost="who can write to the broker can run code in the worker; and a class that changes its place "
                "makes the messages that wait unreadable",
                remedy=f"app.conf.{setting} = {json.dumps(['json'] if setting == 'accept_content' else 'json')}",
                shown_by="",
            )


_RULES: Sequence[Callable[[_Project], Iterator[Risk]]] = (
    *(_early, _late_without_reject, _prefetch, _unconfirmed, _unlimited, _endless_retries),
    *(_expiring, _held_long, _transient, _twice_scheduled, _pickled),
)
_MATTER = (
    "task_acks_late",
    "task_reject_on_worker_lost",
    "task_retry_on_worker_lost",
    "worker_prefetch_multiplier",
    "task_annotations",
    "task_default_queue_type",
    "broker_transport_options",
    "task_time_limit",
    "task_soft_time_limit",
    "result_expires",
    "timezone",
    "enable_utc",
    "task_default_delivery_mode",
    "accept_content",
    "task_serializer",
    "result_serializer",
)
"""The settings that a rule asks for."""
