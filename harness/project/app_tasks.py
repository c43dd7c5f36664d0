"""The tasks in a project's sources: their names, queues and schedule, and which can be sent by anybody."""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from harness.project.celery_apps import Names
from harness.project.source_files import Module, Sources, dotted, import_name, text_of

_DECORATORS = frozenset({"celery.shared_task", "celery.task", "celery.decorators.task", "celery.app.shared_task"})
_HARMLESS_CALLS = frozenset(
    {"print", "str", "repr", "len", "int", "float", "bool", "sum", "min", "max", "format", "sorted", "range", "abs"}
)
_LOG_METHODS = frozenset({"info", "debug", "warning"})
_SCHEDULES = frozenset({"beat_schedule", "CELERY_BEAT_SCHEDULE", "CELERYBEAT_SCHEDULE"})
_DEFAULT_QUEUES = frozenset({"task_default_queue", "CELERY_TASK_DEFAULT_QUEUE", "CELERY_DEFAULT_QUEUE"})
_QUEUES = frozenset({"task_queues", "CELERY_TASK_QUEUES", "CELERY_QUEUES"})
_ROUTES = frozenset({"task_routes", "CELERY_TASK_ROUTES", "CELERY_ROUTES"})
_SERIALIZERS = frozenset(
    {
        "task_serializer",
        "result_serializer",
        "accept_content",
        "CELERY_TASK_SERIALIZER",
        "CELERY_RESULT_SERIALIZER",
        "CELERY_ACCEPT_CONTENT",
    }
)
_ADDRESS = re.compile(r"(^|_)(e?mail|address|recipient|to)$", re.IGNORECASE)
_HARMFUL = (
    *(ast.Import, ast.ImportFrom, ast.Global, ast.Nonlocal, ast.Raise, ast.Assert, ast.Delete, ast.With, ast.While),
    *(ast.For, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Await, ast.Yield, ast.YieldFrom, ast.Lambda),
)
"""Statements that a task that only says something does not have: it may not end, not succeed, or change something."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task that is defined in a project's sources."""

    path: PurePosixPath
    function: str
    given_name: str | None
    """The name that its decorator gives it; None if Celery makes one of module and function."""
    is_harmless: bool
    """True if it needs no arguments, and touches nothing outside of itself."""
    arguments: tuple[str, ...] = ()
    """The names of the arguments that it has to be given."""
    keywords: tuple[str, ...] = ()
    """The names of those that it has to be given by their names."""
    options: Mapping[str, ast.expr] = field(default_factory=dict, compare=False)
    """The options that its decorator gives it."""

    @property
    def mails_to(self) -> str | None:
        """The argument that has the address of a mail, by its name; None if none seems to."""
        return next((name for name in (*self.arguments, *self.keywords) if _ADDRESS.search(name)), None)

    def name(self, folder: PurePosixPath) -> str:
        """Return the name under which the task is registered if it is imported from a folder."""
        return self.given_name or f"{import_name(self.path, folder)}.{self.function}"


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """The queues and the schedule that a project's sources name."""

    default_queue: str | None = None
    """The queue of tasks without a route; None if the sources name none, which makes it Celery's own."""
    is_clear: bool = True
    """False if the queues are calculated, so that nobody knows them before the app runs."""
    queues: frozenset[str] = frozenset()
    """The queues that tasks are sent to, as far as they are named."""
    has_schedule: bool = False
    """True if beat has something to send."""
    serializers: frozenset[str] = frozenset()


def tasks_in(sources: Sources) -> tuple[Task, ...]:
    """Return the tasks that the modules of a project define, also inside of functions, without those of its tests."""
    return tuple(task for module in sources.own_modules for task in _tasks(module))


def _tasks(module: Module) -> Iterator[Task]:
    names = Names.of(module)
    top = set(module.tree.body)
    methods = {one for node in module.nodes if isinstance(node, ast.ClassDef) for one in node.body}
    for node in module.nodes:
        if not isinstance(node, ast.FunctionDef) or node in methods:
            continue
        for decorator in node.decorator_list:
            said = decorator.func if isinstance(decorator, ast.Call) else decorator
            full = names.full(said) or ""
            if full not in _DECORATORS and not _is_apps(full):
                continue
            options = decorator.keywords if isinstance(decorator, ast.Call) else []
            given = {option.arg: option.value for option in options if option.arg}
            bound = _is_true(given.get("bind"))
            name = text_of(given.get("name"))
            arguments, keywords = _needed(node.args, skip=int(bound))
            yield Task(
                path=module.path,
                function=node.name,
                given_name=name,
                # One inside of a function may never be registered. A name that is calculated is not known, and a
                # class of its own may do anything.
                is_harmless=node in top
                and ("name" not in given or name is not None)
                and "base" not in given
                and len(node.decorator_list) == 1
                and not (arguments or keywords)
                and _is_harmless(node),
                arguments=arguments,
                keywords=keywords,
                options=given,
            )


def _is_apps(name: str) -> bool:
    """Return whether a decorator such as `app.task` is one of a Celery app."""
    before, _, last = name.rpartition(".")
    holder = before.rpartition(".")[2].lower()
    return last == "task" and (holder in {"app", "current_app"} or "celery" in holder)


def _is_true(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is True


def _needed(args: ast.arguments, *, skip: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the arguments without a default, and of those that are given by their names alone.

    The `skip` first ones are Celery's.
    """
    positional = [*args.posonlyargs, *args.args]
    needed = positional[skip : len(positional) - len(args.defaults)]
    by_name = (arg for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True) if default is None)
    return tuple(arg.arg for arg in needed), tuple(arg.arg for arg in by_name)


def _is_harmless(function: ast.FunctionDef) -> bool:
    """Return whether a function only prints, logs and calculates, so that sending it cannot do any damage."""
    for node in (inner for statement in function.body for inner in ast.walk(statement)):
        if isinstance(node, _HARMFUL):
            return False
        if isinstance(node, ast.Assign | ast.AugAssign) and not _sets_a_name(node):
            return False
        if isinstance(node, ast.Call) and not _is_harmless_call(node):
            return False
    return True


def _sets_a_name(node: ast.Assign | ast.AugAssign) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return all(isinstance(target, ast.Name) for target in targets)


def _is_harmless_call(node: ast.Call) -> bool:
    name = dotted(node.func)
    if name is not None:
        holder, _, method = name.rpartition(".")
        return name in _HARMLESS_CALLS or (method in _LOG_METHODS and "log" in holder.lower())
    # A method of a literal text.
    return isinstance(node.func, ast.Attribute) and text_of(node.func.value) is not None


def traffic_in(sources: Sources) -> Traffic:
    """Return what the modules of a project, without its tests, say of queues, serializers and a schedule."""
    modules = [module.nodes for module in sources.own_modules]
    settings = [pair for nodes in modules for pair in settings_in(nodes)]
    calls = [node for nodes in modules for node in nodes if isinstance(node, ast.Call)]
    defaults = [text_of(value) for name, value in settings if name in _DEFAULT_QUEUES]
    declared = [value for name, value in settings if name in _QUEUES]
    return Traffic(
        default_queue=next(filter(None, defaults), None),
        is_clear=None not in defaults and all(map(_is_literal, declared)),
        queues=frozenset(
            [
                *(queue for call in calls for queue in _queues(call)),
                *(queue for name, value in settings if name in _ROUTES for queue in _routed(value)),
            ]
        ),
        has_schedule=any(name in _SCHEDULES and not _is_empty(value) for name, value in settings)
        or any((dotted(call.func) or "").endswith("add_periodic_task") for call in calls),
        serializers=frozenset(text for name, value in settings if name in _SERIALIZERS for text in _texts(value)),
    )


def _is_literal(queues: ast.expr) -> bool:
    """Return whether all names in a list of queues are known."""
    several = queues.elts if isinstance(queues, ast.List | ast.Tuple | ast.Set) else [queues]
    return all(isinstance(one, ast.Call) and any(_queues(one)) for one in several)


def _is_empty(value: ast.expr) -> bool:
    return isinstance(value, ast.Dict) and not value.keys


def settings_in(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, ast.expr]]:
    """Yield what may be a setting of Celery: an assignment, a keyword argument, an entry of a dictionary."""
    for node in nodes:
        match node:
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    if isinstance(target, ast.Name | ast.Attribute):
                        yield (target.id if isinstance(target, ast.Name) else target.attr), value
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                yield name, value
            case ast.keyword(arg=str(name), value=value):
                yield name, value
            case ast.Dict(keys=keys, values=values):
                for key, value in zip(keys, values, strict=True):
                    if (text := text_of(key)) is not None:
                        yield text, value


def _routed(routes: ast.expr) -> Iterator[str]:
    """Yield the queues that routes name."""
    for node in ast.walk(routes):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if text_of(key) == "queue" and (name := text_of(value)) is not None:
                    yield name


def _texts(node: ast.expr) -> Iterator[str]:
    yield from (text for inner in ast.walk(node) if isinstance(inner, ast.expr) and (text := text_of(inner)))


def _queues(call: ast.Call) -> Iterator[str]:
    """Yield the queue that a call names: a `Queue`, or the option `queue` of a task's decorator or of a send."""
    last = (dotted(call.func) or "").rpartition(".")[2]
    if last == "Queue" and call.args and (name := text_of(call.args[0])) is not None:
        yield name
    if last in {"task", "shared_task", "apply_async", "send_task", "signature", "si", "s", "set"}:
        yield from (name for one in call.keywords if one.arg == "queue" and (name := text_of(one.value)) is not None)
