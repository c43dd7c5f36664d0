"""The settings of Celery that a project's sources say: each with its value, if that is a literal, and its place."""

import ast
import contextlib
import operator
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
    """The value that a project gives one setting at one place."""

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
    for module in modules:
        for inner in module.nodes:
            for name, value in _said_by(inner):
                said = _said(module, _today(name), value)
                found.setdefault(said.setting, []).append(said)
    namespaces = _Namespaces({module.path: module for module in modules})
    for said in dict.fromkeys(one for path in sorted(configurations) for one in namespaces.said_in(path)):
        found.setdefault(said.setting, []).append(said)
    order = {module.path: number for number, module in enumerate(modules)}
    return {name: sorted(places, key=lambda place: order[place.path]) for name, places in found.items()}


def _said(module: Module, name: str, node: ast.expr) -> Said:
    return Said(setting=name, node=node, path=module.path, condition=module.conditions.get(node, ""))


_Names = dict[tuple[str, str], tuple[Said, ...]]
"""What is said of names in small letters, by the class that they are in, empty for none, and the name."""


@dataclass(frozen=True)
class _Namespaces:
    """The names that modules have, with those that they import from each other."""

    modules: Mapping[PurePosixPath, Module]
    _known: dict[PurePosixPath, _Names] = field(default_factory=dict)

    def said_in(self, path: PurePosixPath) -> Iterator[Said]:
        """Yield what a module says of its names, also by what it imports."""
        return (one for places in self._names(path).values() for one in places)

    def _names(self, path: PurePosixPath) -> _Names:
        """Return what is said of a module's names when its last line has run.

        What is said in any case takes the place of what was said above. A module that is imported in a circle has the
        names that it has so far, as in Python.
        """
        if path in self._known:
            return self._known[path]
        found = self._known[path] = {}
        module = self.modules[path]
        for scope, statement in _statements(module.tree.body):
            if isinstance(statement, ast.ImportFrom):
                for key, places, is_certain in self._imported(module, scope, statement):
                    found[key] = places if is_certain else (*found.get(key, ()), *places)
                continue
            targets, value = _assignment(statement)
            for target in targets:
                if isinstance(target, ast.Name) and target.id.islower():
                    key, said = (scope, target.id), _said(module, target.id, value)
                    found[key] = (*found.get(key, ()), said) if said.condition else (said,)
        return found

    def _imported(
        self, module: Module, scope: str, statement: ast.ImportFrom
    ) -> Iterator[tuple[tuple[str, str], tuple[Said, ...], bool]]:
        """Yield what a statement imports, with whether it surely does."""
        condition = module.conditions.get(statement, "")
        # Several files may be meant: it depends on the folder that the app is started in.
        sources = [self._names(path) for path in self._sources(module, statement)]
        for key in dict.fromkeys(key for source in sources for key in source):
            said = [source.get(key, ()) for source in sources]
            places = dict.fromkeys(one for each in said for one in each)
            is_certain = not condition and all(any(not one.condition for one in each) for each in said)
            for to in _names_after(statement, scope, key):
                moved = (replace(one, setting=to[1], condition=one.condition or condition) for one in places)
                yield to, tuple(moved), is_certain

    def _sources(self, module: Module, statement: ast.ImportFrom) -> list[PurePosixPath]:
        """Return the other modules of the project that a statement may import from."""
        name, level = statement.module or "", statement.level
        if not level:
            found = [path for path in self.modules if _ends_in(path, name)]
        elif level > len(module.path.parts):
            # It is above the project's folder.
            found = []
        else:
            base = PurePosixPath(*module.path.parts[:-level], *name.split("."))
            files = [base / "__init__.py", *([base.with_suffix(".py")] if name else [])]
            found = [path for path in files if path in self.modules]
        return [path for path in found if path != module.path]


def _names_after(statement: ast.ImportFrom, scope: str, key: tuple[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the class and name that something of another module has after an import."""
    holder, name = key
    for alias in statement.names:
        if alias.name == "*":
            yield key
        elif alias.name == name and not holder:
            yield scope, alias.asname or name


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
    # A sum of a thousand numbers is too deep to be calculated, for example.
    with contextlib.suppress(ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        match node:
            case None:
                return ...
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
                return _calculated(op, literal(left), literal(right))
            case ast.Call(func=func, args=args, keywords=keywords) if (dotted(func) or "").endswith("timedelta"):
                return _seconds(args, keywords)
            case ast.Call(func=ast.Name(id="dict"), args=[], keywords=keywords):
                given = {one.arg: literal(one.value) for one in keywords}
                # One without a name, as in `dict(**OTHER)`, may give any.
                return ... if None in given else given
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


def _statements(body: Sequence[ast.stmt], scope: str = "") -> Iterator[tuple[str, ast.stmt]]:
    """Yield the statements that set a module's names, in their order, each with the class that it is in."""
    for one in body:
        match one:
            case ast.ClassDef(name=name, body=inner):
                yield from _statements(inner, f"{scope}.{name}")
            case ast.If(body=inner, orelse=other):
                yield from _statements([*inner, *other], scope)
            case ast.Try() | ast.TryStar():
                handled = (statement for handler in one.handlers for statement in handler.body)
                yield from _statements([*one.body, *handled, *one.orelse, *one.finalbody], scope)
            case ast.With(body=inner):
                yield from _statements(inner, scope)
            case _:
                yield scope, one


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
