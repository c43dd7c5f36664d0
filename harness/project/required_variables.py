"""The environment variables that a project's sources read, and which of them have to be there."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import PurePosixPath

from harness.project.celery_apps import Names
from harness.project.source_files import Module, Sources, dotted, text_of
from harness.project.worker_commands import is_for_production

_ENVIRON = frozenset({"os.environ"})
_GETENV = frozenset({"os.getenv", "os.environ.get"})
_ENV_CLASSES = frozenset({"environ.Env", "environs.Env", "environ.FileAwareEnv", "environs.FileAwareEnv"})
_CALLERS = frozenset({"decouple.config"})
_SETTINGS = frozenset({"pydantic_settings.BaseSettings", "pydantic.BaseSettings"})
_CATCHES = frozenset({"KeyError", "Exception", "LookupError", "BaseException"})
_CALLED_AT_IMPORT = re.compile(r"_*(create|make|init|build|configure)_|_*(get|load)_(settings|config)")
"""Functions that modules call when they are imported, by their usual names."""
_CANNOT_BE_NONE = frozenset({"int", "float", "Path"})


class Need(IntEnum):
    """The time at which a variable has to be there."""

    IMPORT = 1
    """A module cannot be imported without it."""
    RUN = 2
    """A function reads it, which may be a task."""
    NEVER = 3
    """There is a default."""


@dataclass(frozen=True, kw_only=True)
class Variable:
    """A variable that the sources read."""

    name: str
    need: Need
    path: PurePosixPath
    line: int


def variables_in(sources: Sources) -> tuple[Variable, ...]:
    """Return the variables that the sources read, once each with the strongest need.

    What only tests read, or modules for production, is left out.
    """
    modules = [one for one in sources.own_modules if not is_for_production(one.path)]
    names = {module.path: Names.of(module) for module in modules}
    env_objects = frozenset(name for module in modules for name in _env_objects(module, names[module.path]))
    found: dict[str, Variable] = {}
    for module in modules:
        for variable in _Reader(module, names[module.path], env_objects).variables():
            known = found.get(variable.name)
            if known is None or variable.need < known.need:
                found[variable.name] = variable
    return tuple(found.values())


def _env_objects(module: Module, names: Names) -> Iterator[str]:
    """Yield the names of objects that read the environment, such as `env = environ.Env()`."""
    for node in module.nodes:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(func=func)):
                if names.full(func) in _ENV_CLASSES:
                    yield name


class _Reader:
    """Reads one module."""

    def __init__(self, module: Module, names: Names, env_objects: frozenset[str]) -> None:
        self._module = module
        self._names = names
        self._env_objects = env_objects
        self._set_here = {name for node in module.nodes if (name := self._sets(node)) is not None}

    def variables(self) -> Iterator[Variable]:
        """Yield the variables that this module reads."""
        for node in self._module.tree.body:
            for name, need, line in self._at(node, Need.IMPORT, used=False):
                weaker = Need.NEVER if name in self._set_here else need
                yield Variable(name=name, need=weaker, path=self._module.path, line=line)

    def _sets(self, node: ast.AST) -> str | None:
        """Return the variable that a module sets itself, asks for before it reads it, or has a default for."""
        match node:
            case ast.Call(func=ast.Attribute(attr="setdefault", value=owner), args=[key, *_]):
                return text_of(key) if self._names.full(owner) in _ENVIRON else None
            case ast.Assign(targets=[ast.Subscript(value=owner, slice=key)]):
                return text_of(key) if self._names.full(owner) in _ENVIRON else None
            case ast.Compare(left=key, ops=[ast.In() | ast.NotIn()], comparators=[owner]):
                return text_of(key) if self._names.full(owner) in _ENVIRON else None
            case ast.keyword(arg=str(name), value=ast.Tuple()) if name.isupper():
                # `environ.Env(DEBUG=(bool, False))`: a type and a default.
                return name
        return None

    def _at(self, node: ast.AST, need: Need, *, used: bool) -> Iterator[tuple[str, Need, int]]:
        """Yield what a part of the module reads; `used` if an absent value cannot be used at that place."""
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            if isinstance(node, ast.Lambda) or not _CALLED_AT_IMPORT.match(node.name):
                need = max(need, Need.RUN)
        elif (isinstance(node, ast.Try) and any(_is_caught(handler) for handler in node.handlers)) or (
            isinstance(node, ast.If) and _is_not_imported(node.test)
        ):
            need = Need.NEVER
        elif isinstance(node, ast.ClassDef) and any(self._names.full(base) in _SETTINGS for base in node.bases):
            yield from _fields(node)
            return
        if isinstance(node, ast.expr) and (found := self._read(node, used=used)) is not None:
            name, has_default = found
            yield name, Need.NEVER if has_default else need, node.lineno
        is_used = _uses(node)
        for child in ast.iter_child_nodes(node):
            yield from self._at(child, need, used=is_used)

    def _read(self, node: ast.expr, *, used: bool) -> tuple[str, bool] | None:
        """Return the variable that an expression reads, and whether it has a default."""
        match node:
            case ast.Subscript(value=owner, slice=key, ctx=ast.Load()) if self._names.full(owner) in _ENVIRON:
                name = text_of(key)
                return None if name is None else (name, False)
            case ast.Call(func=func, args=[key, *more], keywords=keywords) if (name := text_of(key)) is not None:
                has_default = bool(more) or any(one.arg == "default" for one in keywords)
                full = self._names.full(func)
                if full in _GETENV:
                    return name, has_default or not used
                if full in _CALLERS or self._is_env_object(func):
                    return name, has_default
            case ast.Call(func=ast.Attribute(attr="db" | "db_url") as func, args=[], keywords=keywords):
                # django-environ's own name for it.
                if self._is_env_object(func):
                    return "DATABASE_URL", any(one.arg == "default" for one in keywords)
        return None

    def _is_env_object(self, func: ast.expr) -> bool:
        """Return whether this reads the environment as django-environ does: `env("X")`, `env.str("X")`."""
        if isinstance(func, ast.Attribute):
            return func.attr not in {"read_env", "read_envfile", "prefixed"} and self._is_env_object(func.value)
        return isinstance(func, ast.Name) and func.id in self._env_objects


def _uses(node: ast.AST) -> bool:
    """Return whether None cannot be used inside this expression."""
    if isinstance(node, ast.Call):
        return dotted(node.func) in _CANNOT_BE_NONE
    return isinstance(node, ast.Attribute | ast.Subscript) or (
        isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Div)
    )


def _is_caught(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(ast.unparse(kind).rpartition(".")[2] in _CATCHES for kind in kinds)


def _is_not_imported(test: ast.expr) -> bool:
    """Return whether a condition is false when a worker imports the module."""
    text = ast.unparse(test)
    return "TYPE_CHECKING" in text or text.startswith("__name__ ==")


def _fields(settings: ast.ClassDef) -> Iterator[tuple[str, Need, int]]:
    """Yield the variables of the fields of a class of settings."""
    prefix = _prefix(settings)
    for node in settings.body:
        match node:
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=value):
                if name == "model_config" or "ClassVar" in ast.unparse(annotation):
                    continue
                need, other = _field(value)
                yield (other or f"{prefix}{name}").upper(), need, node.lineno


def _field(value: ast.expr | None) -> tuple[Need, str | None]:
    """Return whether a field must be given, and the name of its variable, if that is not the field's own."""
    if value is None:
        return Need.IMPORT, None
    if not isinstance(value, ast.Call) or ast.unparse(value.func).rpartition(".")[2] != "Field":
        return Need.NEVER, None
    other = next((one.value for one in value.keywords if one.arg in {"alias", "validation_alias", "env"}), None)
    if value.args:
        is_required = isinstance(value.args[0], ast.Constant) and value.args[0].value is ...
    else:
        is_required = not any(one.arg in {"default", "default_factory"} for one in value.keywords)
    return Need.IMPORT if is_required else Need.NEVER, text_of(other)


def _prefix(settings: ast.ClassDef) -> str:
    """Return the `env_prefix` of a class of settings, in either of pydantic's ways to say it."""
    for node in ast.walk(settings):
        match node:
            case (
                ast.keyword(arg="env_prefix", value=value)
                | ast.Assign(targets=[ast.Name(id="env_prefix")], value=value)
            ):
                return text_of(value) or ""
    return ""
