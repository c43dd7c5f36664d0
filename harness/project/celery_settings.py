"""The settings of Celery that a project's sources say: each with its value, if that is a literal, and its place."""

import ast
import contextlib
import operator
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import PurePosixPath

from harness.project.celery_apps import Names
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
    "BROKER_URL": "broker_url",
    "BROKER_TRANSPORT_OPTIONS": "broker_transport_options",
}
"""Names of Celery 3, which later versions still read, and the names of today. The others follow from their prefix."""
_PREFIX = "CELERY_"
ANYTHING = "*"
"""Stands for the settings that nobody can name from the sources, such as those of `conf.update(**OTHER)`."""
_ARITHMETIC: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Mult: operator.mul,
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Div: operator.truediv,
}
_DJANGO = ("django.conf", "django.conf.settings")
"""Django's settings are of any module. There they are known by their prefix."""
_LONGEST_CONDITION = 60
_SECONDS = {"days": 86_400, "hours": 3_600, "minutes": 60, "seconds": 1, "weeks": 604_800}


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a project says of one setting at one place."""

    setting: str
    """Its name of today, such as `task_acks_late`."""
    node: ast.expr
    path: PurePosixPath
    condition: str = ""
    """The condition under which it is said; empty if it is said in any case."""

    @property
    def where(self) -> str:
        """Its place, as file and line, with the condition."""
        short = textwrap.shorten(self.condition, _LONGEST_CONDITION, placeholder=" ...")
        return f"{self.path}:{self.node.lineno}{f' if {short}' if short else ''}"


def celery_settings(sources: Sources) -> dict[str, list[Said]]:
    """Return what a project's modules, without its tests, say of each setting of Celery, in the order of the files.

    Places that may say any setting are listed under ANYTHING.
    """
    modules = sources.own_modules
    found: dict[str, list[Said]] = {}
    configurations: set[PurePosixPath] = set()
    for module in modules:
        for node, name in _configurations(module):
            named = {one.path for one in modules if name and is_module(one.path, name)}
            if name and any(isinstance(one, ast.ClassDef) and one.name == name for one in module.tree.body):
                named.add(module.path)
            if not named and name not in _DJANGO:
                found.setdefault(ANYTHING, []).append(Said(setting=ANYTHING, node=node, path=module.path))
            configurations |= named
    taken = _taken_over({module.path: module for module in modules}, configurations)
    for module in modules:
        for name, node in _pairs(module, is_configuration=module.path in configurations):
            found.setdefault(name, []).append(_said(module, name, node))
        for name, node in _of_names(module, taken.get(module.path, frozenset())):
            found.setdefault(name, []).append(_said(module, name, node))
    return found


def _said(module: Module, name: str, node: ast.expr) -> Said:
    return Said(setting=name, node=node, path=module.path, condition=module.conditions.get(node, ""))


def _taken_over(
    modules: Mapping[PurePosixPath, Module], configurations: AbstractSet[PurePosixPath]
) -> Mapping[PurePosixPath, AbstractSet[str]]:
    """Return the settings that configurations import from other modules of the project, by the file of the latter.

    What a configuration says itself, in any case, is in the place of what it imports.
    """
    taken: dict[PurePosixPath, set[str]] = {}
    ahead = [(path, frozenset[str]()) for path in sorted(configurations)]
    seen = set[tuple[PurePosixPath, frozenset[str]]]()
    while ahead:
        path, hidden = ahead.pop()
        if (path, hidden) in seen:
            continue
        seen.add((path, hidden))
        module = modules[path]
        own = {name for name, node in _of_names(module) if node not in module.conditions}
        for source, names in _imports(module, modules):
            said = {name for name, _ in _of_names(modules[source]) if names is None or name in names}
            if source not in configurations:
                taken.setdefault(source, set()).update(said - own - hidden)
            if names is None:
                ahead.append((source, hidden | own))
    return taken


def _imports(
    module: Module, modules: Mapping[PurePosixPath, Module]
) -> Iterator[tuple[PurePosixPath, frozenset[str] | None]]:
    """Yield each module of the project that a module imports names from, with these; None for all of them."""
    for node in module.nodes:
        if not isinstance(node, ast.ImportFrom):
            continue
        names = frozenset(alias.name for alias in node.names)
        if node.level:
            base = PurePosixPath(*module.path.parts[: -node.level], *(node.module or "").split("."))
            found = [path for path in (base.with_suffix(".py"), base / "__init__.py") if path in modules]
        else:
            found = [path for path in modules if _ends_in(path, node.module or "")]
        yield from ((path, None if "*" in names else names) for path in found if path != module.path)


def _ends_in(path: PurePosixPath, name: str) -> bool:
    """Return whether a file is the module of this name, imported from any folder."""
    parts = path.with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    wanted = tuple(name.split("."))
    return bool(name) and parts[-len(wanted) :] == wanted


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
        yield from _of_names(module)


def _of_names(module: Module, wanted: AbstractSet[str] | None = None) -> Iterator[tuple[str, ast.expr]]:
    """Yield the values of the names in small letters of a module and its classes, all of them or some."""
    for statement in _statements(module.tree.body):
        targets, value = _assignment(statement)
        names = (target.id for target in targets if isinstance(target, ast.Name))
        yield from ((name, value) for name in names if name.islower() and (wanted is None or name in wanted))


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a module that set its names, also in its classes and under a condition."""
    for one in body:
        match one:
            case ast.ClassDef(body=inner):
                yield from _statements(inner)
            case ast.If(body=inner, orelse=other):
                yield from _statements([*inner, *other])
            case _:
                yield one


def _said_by(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Yield the settings that a statement or call names: of `conf`, of a new app, or of a dictionary `CELERY`."""
    match node:
        case ast.Assign() | ast.AnnAssign():
            targets, value = _assignment(node)
            for target in targets:
                yield from _assigned(target, value)
        case ast.Call(func=ast.Attribute(attr="update", value=holder), args=args, keywords=keywords) if _is_conf(
            holder
        ):
            yield from (pair for one in args for pair in entries(one))
            yield from ((ANYTHING, one) for one in args if not _is_written_out(one))
            yield from ((one.arg or ANYTHING, one.value) for one in keywords)
        case ast.Call(func=func, keywords=keywords) if (dotted(func) or "").rpartition(".")[2] == "Celery":
            yield from ((one.arg or ANYTHING, one.value) for one in keywords)
        case ast.keyword(arg="CELERY", value=value):
            yield from entries(value)


def _assignment(node: ast.AST) -> tuple[list[ast.expr], ast.expr]:
    """Return the targets of an assignment and its value; of one without a value the target, which is no literal."""
    match node:
        case ast.Assign(targets=targets, value=value):
            return targets, value
        case ast.AnnAssign(target=target, value=given):
            return [target], given or target
    return [], ast.Constant(value=None)


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


def _is_written_out(node: ast.expr) -> bool:
    """Return whether `entries` yields each entry that a dictionary has."""
    match node:
        case ast.Dict(keys=keys):
            return all(text_of(key) is not None for key in keys)
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=keywords):
            return all(one.arg for one in keywords)
    return False


def _configurations(module: Module) -> Iterator[tuple[ast.expr, str | None]]:
    """Yield each call that takes an app's settings from a module or class, and its name; None if nobody knows it."""
    names = Names.of(module)
    for node in module.nodes:
        match node:
            case ast.Call(func=ast.Attribute(attr="config_from_envvar")):
                yield node, None
            case ast.Call(func=ast.Attribute(attr="config_from_object"), args=[ast.Subscript(slice=key), *_]) if (
                text_of(key) == "CELERY"
            ):
                # Flask's way. The dictionary is read where it is written.
                pass
            case ast.Call(func=ast.Attribute(attr="config_from_object"), args=[first, *_], keywords=keywords):
                made = first.func if isinstance(first, ast.Call) and not first.args and not first.keywords else first
                name = text_of(first) or names.full(made) or dotted(made)
                name = name.partition(":")[0] if name else None
                prefix = next((one.value for one in keywords if one.arg == "namespace"), None)
                yield node, None if prefix is not None and text_of(prefix) != "CELERY" else name


def is_module(path: PurePosixPath, name: str) -> bool:
    """Return whether a file may be the module of this name, or of a class or variable, imported from any folder."""
    return _ends_in(path, name) or _ends_in(path, name.rpartition(".")[0])
