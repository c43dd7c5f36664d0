"""The settings of Celery that a project's sources say: each with its value, if that is a literal, and its place."""

import ast
import contextlib
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from harness.project.source_files import Module, Sources, dotted, text_of
from harness.records.values import Json

_OLD_NAMES = {
    "CELERY_ACKS_LATE": "task_acks_late",
    "CELERY_IGNORE_RESULT": "task_ignore_result",
    "CELERY_TASK_RESULT_EXPIRES": "result_expires",
    "CELERY_DEFAULT_DELIVERY_MODE": "task_default_delivery_mode",
    "CELERYD_PREFETCH_MULTIPLIER": "worker_prefetch_multiplier",
    "CELERYD_TASK_TIME_LIMIT": "task_time_limit",
    "CELERYD_TASK_SOFT_TIME_LIMIT": "task_soft_time_limit",
    "CELERYBEAT_SCHEDULE": "beat_schedule",
    "BROKER_TRANSPORT_OPTIONS": "broker_transport_options",
}
"""Names of Celery 3, which later versions still read, and the names of today. The others follow from their prefix."""
_PREFIX = "CELERY_"
_ARITHMETIC: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Mult: operator.mul,
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Div: operator.truediv,
}
_SECONDS = {"days": 86_400, "hours": 3_600, "minutes": 60, "seconds": 1, "weeks": 604_800}


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a project says of one setting at one place."""

    setting: str
    """Its name of today, such as `task_acks_late`."""
    node: ast.expr
    path: PurePosixPath

    @property
    def where(self) -> str:
        """Its place, as file and line."""
        return f"{self.path}:{self.node.lineno}"


def celery_settings(sources: Sources) -> dict[str, list[Said]]:
    """Return what a project's modules, without its tests, say of each setting of Celery, in the order of the files."""
    modules = [module for module in sources.modules if not module.is_test]
    configured = {name for module in modules for name in _configuration_modules(module)}
    found: dict[str, list[Said]] = {}
    for module in modules:
        is_configuration = any(is_module(module.path, name) for name in configured)
        for name, node in _pairs(module, is_configuration=is_configuration):
            said = Said(setting=name, node=node, path=module.path)
            found.setdefault(name, []).append(said)
    return found


def literal(node: ast.expr | None) -> Json:
    """Return the value of an expression of literals, a product of numbers and a `timedelta` in seconds included.

    Anything else is `...`.
    """
    match node:
        case None:
            return ...
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            return _calculated(op, literal(left), literal(right))
        case ast.Call(func=func, args=args, keywords=keywords) if (dotted(func) or "").endswith("timedelta"):
            return _seconds(args, keywords)
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=keywords):
            return {one.arg: literal(one.value) for one in keywords if one.arg}
    with contextlib.suppress(ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return ast.literal_eval(node)
    return ...


def _calculated(op: ast.operator, left: Json, right: Json) -> Json:
    if not (isinstance(left, int | float) and isinstance(right, int | float)):
        return ...
    try:
        return _ARITHMETIC[type(op)](left, right)
    except ArithmeticError:
        return ...


def _seconds(args: list[ast.expr], keywords: list[ast.keyword]) -> Json:
    parts = [*zip(("days", "seconds"), args, strict=False), *((one.arg or "", one.value) for one in keywords)]
    total = 0.0
    for name, node in parts:
        number = literal(node)
        if name not in _SECONDS or not isinstance(number, int | float):
            return ...
        total += _SECONDS[name] * number
    return total


def entries(node: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    """Yield the entries of a dictionary that is written out, as `{...}` or `dict(...)`."""
    match node:
        case ast.Dict(keys=keys, values=values):
            pairs = zip(keys, values, strict=True)
            yield from ((text, value) for key, value in pairs if (text := text_of(key)) is not None)
        case ast.Call(func=ast.Name(id="dict"), keywords=keywords):
            yield from ((one.arg, one.value) for one in keywords if one.arg)


def _pairs(module: Module, *, is_configuration: bool) -> Iterator[tuple[str, ast.expr]]:
    """Yield each setting of a module with its value, under its name of today."""
    for node in module.nodes:
        for name, value in _said_by(node):
            yield _today(name), value
    if is_configuration:
        classes = (node.body for node in module.tree.body if isinstance(node, ast.ClassDef))
        for statement in (one for body in (module.tree.body, *classes) for one in body):
            if isinstance(statement, ast.Assign):
                names = (target.id for target in statement.targets if isinstance(target, ast.Name))
                yield from ((name, statement.value) for name in names if name.islower())


def _said_by(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Yield the settings that a statement or call names: of `conf`, of a new app, or of a dictionary `CELERY`."""
    match node:
        case ast.Assign(targets=targets, value=value):
            for target in targets:
                yield from _assigned(target, value)
        case ast.Call(func=ast.Attribute(attr="update", value=holder), args=args, keywords=keywords) if _is_conf(
            holder
        ):
            yield from (pair for one in args for pair in entries(one))
            yield from ((one.arg, one.value) for one in keywords if one.arg)
        case ast.Call(func=func, keywords=keywords) if (dotted(func) or "").rpartition(".")[2] == "Celery":
            yield from ((one.arg, one.value) for one in keywords if one.arg)
        case ast.keyword(arg="CELERY", value=value):
            yield from entries(value)


def _assigned(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    match target:
        case ast.Attribute(value=holder, attr=name) if _is_conf(holder):
            yield name, value
        case ast.Subscript(value=holder, slice=key) if _is_conf(holder) and (text := text_of(key)):
            yield text, value
        case ast.Subscript(slice=key) if text_of(key) == "CELERY":
            yield from entries(value)
        case ast.Name(id="CELERY"):
            yield from entries(value)
        case ast.Name(id=name) if name in _OLD_NAMES or (name.isupper() and name.startswith(_PREFIX)):
            yield name, value


def _today(name: str) -> str:
    """Return today's name of a setting."""
    return _OLD_NAMES.get(name) or name.removeprefix(_PREFIX).lower()


def _is_conf(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "conf"


def _configuration_modules(module: Module) -> Iterator[str]:
    """Yield the modules that an app of this module takes its settings from, as they are named."""
    for node in module.nodes:
        match node:
            case ast.Call(func=ast.Attribute(attr="config_from_object"), args=[first, *_]):
                name = text_of(first) or dotted(first)
                if name is not None:
                    yield name.partition(":")[0]


def is_module(path: PurePosixPath, name: str) -> bool:
    """Return whether a file may be the module of this name, imported from any folder."""
    parts = path.with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    wanted = tuple(name.split("."))
    # A class or a variable of the module may be meant.
    return parts[-len(wanted) :] == wanted or (len(wanted) > 1 and parts[-len(wanted) + 1 :] == wanted[:-1])
